"""The `wg` command: keys, a tunnel's one peer, its counters. Knows nothing of routes or sections.

Private keys go to `wg` by standard input only, never as an argument. Endpoints must be address
literals here: with a name and without DNS, `wg set` would hang for good.
"""

from __future__ import annotations

import ipaddress
import time

from . import process
from .errors import InvalidArgument
from .model import PeerCounters, Tunnel

OUTER_MARK = 0x51


async def generate_keys() -> tuple[str, str]:
    """A new key pair (private, public), made by `wg genkey` and `wg pubkey`."""
    private = (await process.run(["wg", "genkey"])).stdout.strip()
    return private, await public_key(private)


async def public_key(private_key: str) -> str:
    """The public key of a private one."""
    return (await process.run(["wg", "pubkey"], stdin=private_key + "\n")).stdout.strip()


async def configure(tunnel: Tunnel) -> None:
    """Give a device its key, its mark and its one peer, in place; no other packet is lost.

    Raises InvalidArgument where the endpoint is a name, CommandFailed where `wg` refuses.
    """
    argv = ["wg", "set", tunnel.interface, "private-key", "/dev/stdin"]
    argv += ["fwmark", hex(OUTER_MARK), "peer", tunnel.public_key]
    if tunnel.endpoint is not None:
        try:
            ipaddress.ip_address(tunnel.endpoint.host)
        except ValueError as error:
            raise InvalidArgument(
                f"endpoint {tunnel.endpoint.host[:40]} is a name; it must be resolved first"
            ) from error
        argv += ["endpoint", str(tunnel.endpoint)]
    argv += ["persistent-keepalive", str(tunnel.keepalive_s), "allowed-ips", "0.0.0.0/0,::/0"]
    await process.run(argv, stdin=tunnel.private_key + "\n")


async def remove_other_peers(tunnel: Tunnel) -> None:
    """Remove every peer of the device but the tunnel's own: one tunnel, one provider."""
    shown = await process.run(["wg", "show", tunnel.interface, "peers"])
    for key in shown.stdout.split():
        if key != tunnel.public_key:
            await process.run(["wg", "set", tunnel.interface, "peer", key, "remove"])


async def read_counters() -> dict[str, PeerCounters]:
    """The counters of every WireGuard device's first peer, by device; devices without are left out.

    One process for any number of devices.
    """
    shown = await process.run(["wg", "show", "all", "dump"])
    return parse_dump(shown.stdout, time.time())


def parse_dump(text: str, now_s: float) -> dict[str, PeerCounters]:
    """Read `wg show all dump`: a line of 5 fields for a device, of 9 for each peer (wg(8)).

    `now_s` is the wall clock that a handshake's time is told in.
    """
    found: dict[str, PeerCounters] = {}
    for line in text.splitlines():
        fields = line.split("\t")
        if len(fields) != 9 or fields[0] in found:
            continue
        handshake_s = int(fields[5])
        found[fields[0]] = PeerCounters(
            public_key=fields[1],
            endpoint="" if fields[3] == "(none)" else fields[3],
            handshake_age_s=max(0.0, now_s - handshake_s) if handshake_s else None,
            rx_bytes=int(fields[6]),
            tx_bytes=int(fields[7]),
        )
    return found
