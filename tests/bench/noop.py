"""An object on the bus whose one method does nothing, served as the product serves its own."""

from __future__ import annotations

import asyncio
import sys

from rpcd_wireguard_uplink.ubus import BusObject, Encoded, Reply, encode_table
from rpcd_wireguard_uplink.ubus.client import Client

OBJECT = "bench.noop"


async def serve(socket: str) -> None:
    """Publish the object, say so, and answer until killed."""
    reply = Reply(Encoded(encode_table({})))
    client = Client(socket)
    await client.connect()
    await client.publish(BusObject(OBJECT, {"nothing": {}}, lambda call: reply))
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
