"""A bus with netifd on it: the unit tests' double of it, with real devices behind it.

Run in a node: `python -m tests.chaos.netifd SOCKET CONFIG_DIR`. It prints `ready`.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys

from rpcd_wireguard_uplink.extras.standalone.broker import Broker
from rpcd_wireguard_uplink.ubus.client import Client
from rpcd_wireguard_uplink.uci import Section
from tests.unit.netifd_double import WAN, Kernel, Netifd


class RealKernel(Kernel):
    """Devices are the node's."""

    def delete(self, name: str) -> None:
        super().delete(name)
        subprocess.run(["ip", "link", "delete", name], stderr=subprocess.DEVNULL, check=False)


class RealNetifd(Netifd):
    """netifd whose WireGuard handler makes devices."""

    async def _up(self, name: str, group: tuple[Section, ...]) -> None:
        interface, peer = group[0].options, group[1].options
        if subprocess.run(["ip", "link", "add", name, "type", "wireguard"], check=False).returncode:
            subprocess.run(["wireguard-go", name], stderr=subprocess.DEVNULL, check=True)
        words = ["wg", "set", name, "private-key", "/dev/stdin", "fwmark", str(interface["fwmark"])]
        words += ["peer", str(peer["public_key"]), "allowed-ips", "0.0.0.0/0,::/0"]
        words += ["persistent-keepalive", "25"]
        if host := peer.get("endpoint_host"):
            words += ["endpoint", f"{host}:{peer['endpoint_port']}"]
        key = str(interface["private_key"])
        subprocess.run(words, input=key, text=True, check=True)
        for address in interface["addresses"]:
            argv = ["ip", "address", "add", address, "dev", name]
            subprocess.run(argv + ["nodad"] * (":" in address), check=True)
        argv = ["ip", "link", "set", name, "mtu", str(interface["mtu"]), "up"]
        subprocess.run(argv, check=True)
        await super()._up(name, group)


async def serve(socket: str, config_dir: str) -> None:
    broker = Broker(socket)
    await broker.start()
    bus = Client(socket)
    await bus.connect()
    netifd = RealNetifd(bus, RealKernel(), config_dir)
    netifd.row("wan").update(WAN, l3_device="wan", proto="static")
    await netifd.publish()
    await netifd._network(None)  # type: ignore[arg-type]  # as at a boot
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], sys.argv[2]))
