"""A bus and a service that only answers."""

import asyncio
import sys

from rpcd_wireguard_uplink.extras.standalone.broker import Broker
from rpcd_wireguard_uplink.ubus import BusObject, Reply
from rpcd_wireguard_uplink.ubus.client import Client
from rpcd_wireguard_uplink.ubus.objects import Call


async def main(path: str) -> None:
    broker = Broker(path)
    await broker.start()
    client = Client(path)
    await client.connect()

    def answer(call: Call) -> Reply:
        return Reply({"method": call.method})

    await client.publish(BusObject("luci.wireguard-dashboard", {"uplink_list": {}}, answer))
    print("up", flush=True)
    await asyncio.sleep(60)


asyncio.run(main(sys.argv[1]))
