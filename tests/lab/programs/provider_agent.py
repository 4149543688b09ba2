"""The product's Provider, told over a pipe what to do: one pickled call a line, in base64.

Each answer is what the call returned, or raised, and the commands that it ran.
"""

import asyncio
import base64
import pickle
import sys
from collections.abc import Sequence
from typing import Any

from rpcd_wireguard_uplink.provider.device import Provider
from rpcd_wireguard_uplink.system import process
from rpcd_wireguard_uplink.system.rtnetlink import Kernel

ran: list[tuple[list[str], str]] = []
run = process.run


def listen(argv: Sequence[str], **options: Any) -> Any:
    ran.append((list(argv), options.get("stdin") or ""))
    return run(argv, **options)


process.run = listen


async def main() -> None:
    provider = Provider(Kernel())
    print("ready", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        name, arguments = pickle.loads(base64.b64decode(line))
        ran.clear()
        result: Any
        try:
            if name == "restart":
                result = provider = Provider(Kernel())
            else:
                result = await getattr(provider, name)(*arguments)
        except Exception as error:
            result = error
        print(base64.b64encode(pickle.dumps((result, ran))).decode(), flush=True)


asyncio.run(main())
