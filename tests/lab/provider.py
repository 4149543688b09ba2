"""A mesh peer that offers its internet, played by the laboratory: the far end of every tunnel."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .lab import Lab, ready
from .network import ConsumerNetwork
from .node import Child, LabError, Node, timed

DEVICE = "wgup_srv"
RESOLVED4, RESOLVED6 = "192.0.2.53", "2001:db8:ffff::53"
"""What a provider's own resolver answers, so that a test sees which resolver was asked."""


def new_keys(node: Node) -> tuple[str, str]:
    """A new private key and its public key."""
    private = node.run(["wg", "genkey"]).stdout.strip()
    return private, node.run(["wg", "pubkey"], input=private).stdout.strip()


def make_device(node: Node, name: str) -> str:
    """Make a WireGuard device and say by what: `kernel`, or `wireguard-go` where it must be."""
    if node.run(["ip", "link", "add", name, "type", "wireguard"], check=False).returncode == 0:
        return "kernel"
    if os.geteuid():
        raise LabError("this kernel has no WireGuard, and wireguard-go works for root only")
    try:
        node.run(timed(["wireguard-go", name]))
    except LabError as error:
        raise LabError(f"no WireGuard in this kernel and {error}") from error
    return "wireguard-go"


@dataclass(frozen=True, slots=True)
class Provider:
    """The provider's side of the tunnels. Addresses are without their lengths."""

    node: Node
    peer_id: str
    public_key: str
    listen_port: int
    tunnel4: str
    tunnel6: str
    kind: str
    resolver: Child | None
    admitted: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def admit(self, public_key: str, addresses: Sequence[str]) -> None:
        """Let a consumer in with these tunnel addresses (any length; /32 and /128 are used)."""
        plain = tuple(address.partition("/")[0] for address in addresses)
        allowed = ",".join(f"{a}/{128 if ':' in a else 32}" for a in plain)
        words = ["wg", "set", DEVICE, "peer", public_key, "allowed-ips", allowed]
        self.node.run(words)
        self.node.ip(*(f"route replace {a} dev {DEVICE}" for a in plain))
        self.admitted[public_key] = plain

    def admit_reply(self, reply: Mapping[str, Any], consumer: Node, address: str) -> None:
        """admit() with what uplink_add replied: interface, public_key, address and address6.

        It shakes hands with that node at the address, at once; the consumer itself tries again
        only 5 s after the handshake that came too early.
        """
        self.admit(reply["public_key"], [reply[n] for n in ("address", "address6") if reply.get(n)])
        port = consumer.run(["wg", "show", reply["interface"], "listen-port"]).stdout.strip()
        words = ["wg", "set", DEVICE, "peer", reply["public_key"]]
        words += ["endpoint", f"{address}:{port}", "persistent-keepalive", "25"]
        self.node.run(words)

    def expel(self, public_key: str) -> None:
        """Put a consumer out. One that was never admitted is no error."""
        self.node.run(["wg", "set", DEVICE, "peer", public_key, "remove"])
        self.admitted.pop(public_key, None)

    def handshake_age_s(self, public_key: str) -> float | None:
        """Seconds since the consumer's last handshake, None where there was none."""
        lines = self.node.run(["wg", "show", DEVICE, "latest-handshakes"]).stdout.splitlines()
        stamps = dict(line.split() for line in lines)
        stamp = int(stamps.get(public_key, "0"))
        return time.time() - stamp if stamp else None

    def offer(self, host: str, **capabilities: Any) -> dict[str, Any]:
        """The offer of the specification as a message, with `host` as the endpoint."""
        able = {"bandwidth_mbps": 100, "latency_ms": 20, "wan_type": "fiber", "available": True}
        return {
            "type": "uplink_offer",
            "peer_id": self.peer_id,
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "capabilities": able | capabilities,
            "endpoint": {"host": host, "port": self.listen_port, "public_key": self.public_key},
        }

    def withdrawal(self) -> dict[str, Any]:
        """The message that takes the offer back."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return {"type": "uplink_withdraw", "peer_id": self.peer_id, "timestamp": stamp}


def make_provider(
    lab: Lab,
    node: Node,
    *,
    peer_id: str = "nodea",
    place: int = 0,
    listen_port: int = 51820,
    resolver: bool = True,
) -> Provider:
    """Turn a node into a provider: device, keys, tunnel addresses, a resolver in the tunnel.

    The node's own masquerading carries what leaves the tunnel by its WAN. `place` keeps the
    addresses of several providers apart.
    """
    private, public = new_keys(node)
    kind = make_device(node, DEVICE)
    words = ["wg", "set", DEVICE, "listen-port", str(listen_port), "private-key", "/dev/stdin"]
    node.run(words, input=private)
    tunnel4, tunnel6 = f"10.77.{place}.1", f"fd77:{place + 1}::1"
    node.ip(
        f"addr add {tunnel4}/24 dev {DEVICE}",
        f"addr add {tunnel6}/64 dev {DEVICE} nodad",
        f"link set {DEVICE} up",
    )
    server = None
    if resolver:
        server = lab.serve(node, dns=(tunnel4, tunnel6), answers=(RESOLVED4, RESOLVED6))
        ready(server)
    return Provider(node, peer_id, public, listen_port, tunnel4, tunnel6, kind, server)


def make_providers(network: ConsumerNetwork) -> tuple[Provider, ...]:
    """All of the network's, named nodea, nodeb and so on."""
    return tuple(
        make_provider(network.lab, node, peer_id=f"node{chr(ord('a') + place)}", place=place)
        for place, node in enumerate(network.providers)
    )
