"""A mesh of routers: each with a WAN of its own, a segment without internet that joins them, and
WireGuard tunnels over that segment from each to each.

    host -- router ==wan== isp -- internet -- isp ==wan== router ...
               \\------- segment (and wg0 over it) -------/

The mesh is what an owner has before this product is installed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from . import network
from .lab import Lab
from .node import Node, join
from .provider import make_device, new_keys
from .wan import Wan

MESH_PORT = 51820
MESH_DEVICE = "wg0"


@dataclass(frozen=True, slots=True)
class MeshRouter:
    """One router of the mesh; `segment4` is where neighbours reach it without any WAN."""

    name: str
    node: Node
    wan: Wan
    segment4: str
    mesh4: str
    mesh6: str
    mesh_key: str
    host: Node | None

    def leave_mesh(self) -> None:
        """Take the mesh tunnel down, as a router without its mesh would be."""
        self.node.run(["ip", "link", "set", MESH_DEVICE, "down"])

    def join_mesh(self) -> None:
        """Bring it back."""
        self.node.run(["ip", "link", "set", MESH_DEVICE, "up"])


def mesh_network(
    lab: Lab, names: Sequence[str], *, hosts: Sequence[str] = (), tunnels: bool = True
) -> dict[str, MeshRouter]:
    """Build the routers by name; those in `hosts` get a LAN with a host in it.

    The first router's line is of one ISP and all others' of another, as in network.py. Without
    `tunnels` the segment is there and the mesh is not.
    """
    internet, isp1, isp2 = lab.node("internet"), lab.node("isp1"), lab.node("isp2")
    segment = lab.node("segment")
    nodes = {name: lab.node(name) for name in names}
    for node in (internet, isp1, isp2, *nodes.values()):
        node.sh(network.ROUTER)
    network._build_core(internet, (isp1, isp2))
    segment.sh("ip link add br0 type bridge\nip link set br0 up")
    lines: dict[str, Wan] = {}
    found_hosts: dict[str, Node] = {}
    for number, (name, node) in enumerate(nodes.items()):
        isp, place = (isp1, 0) if number == 0 else (isp2, number - 1)
        lines[name] = network._wan(node, "wan", isp, 1 if number == 0 else 2, place)
        network.masquerade(node, ["wan"])
        join(node, "segment", segment, f"to{number}")
        segment.sh(f"ip link set to{number} master br0")
        node.sh(
            f"ip addr add 172.16.9.{number + 1}/24 dev segment\n"
            f"ip addr add fd70:9::{number + 1}/64 dev segment nodad"
        )
        if name in hosts:
            found_hosts[name] = lab.node(f"host-{name}")
            network._build_lan(node, found_hosts[name])
    network._serve(lab, internet, (isp1, isp2), list(lines.values()))
    keys = _tunnels(nodes) if tunnels else dict.fromkeys(nodes, "")
    return {
        name: MeshRouter(
            name,
            node,
            lines[name],
            f"172.16.9.{number}",
            f"10.9.0.{number}",
            f"fd09::{number}",
            keys[name],
            found_hosts.get(name),
        )
        for number, (name, node) in enumerate(nodes.items(), start=1)
    }


def _tunnels(nodes: dict[str, Node]) -> dict[str, str]:
    """Lay a WireGuard tunnel between each two of the routers; their public keys."""
    pairs = {name: new_keys(node) for name, node in nodes.items()}
    for number, (name, node) in enumerate(nodes.items(), start=1):
        make_device(node, MESH_DEVICE)
        words = ["wg", "set", MESH_DEVICE, "listen-port", str(MESH_PORT)]
        words += ["private-key", "/dev/stdin"]
        for other, peer in enumerate(nodes, start=1):
            if peer != name:
                words += ["peer", pairs[peer][1], "endpoint", f"172.16.9.{other}:{MESH_PORT}"]
                words += ["allowed-ips", f"10.9.0.{other}/32,fd09::{other}/128"]
        node.run(words, input=pairs[name][0])
        node.sh(
            f"ip addr add 10.9.0.{number}/24 dev {MESH_DEVICE}\n"
            f"ip addr add fd09::{number}/64 dev {MESH_DEVICE} nodad\n"
            f"ip link set {MESH_DEVICE} up"
        )
    return {name: public for name, (_, public) in pairs.items()}
