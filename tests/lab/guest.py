"""A guest network of the owner's beside the LAN, for which he has rules of his own."""

from __future__ import annotations

from dataclasses import dataclass

from .network import ConsumerNetwork
from .node import Node, join

GUEST4, GUEST6 = "192.168.3.100", "fd00:3::100"
SUBNET4, SUBNET6 = "192.168.3.0/24", "fd00:3::/64"
TABLE = 257


@dataclass(frozen=True, slots=True)
class Guest:
    """The guest's host; the router's device is `guest`."""

    router: Node
    node: Node

    def rule(self, selector: str, *, pref: int = 20000, both: bool = True) -> list[str]:
        """The commands that lead what the selector says to the guests' table."""
        words = f"rule add pref {pref} {selector} lookup {TABLE}"
        return [f"ip {words}", f"ip -6 {words}"] if both else [f"ip {words}"]


def guest_network(network: ConsumerNetwork) -> Guest:
    """Join a guest's host to the consumer; nothing leads it elsewhere yet."""
    router, node = network.consumer, network.lab.node("guest")
    join(router, "guest", node, "eth0")
    router.sh("ip addr add 192.168.3.1/24 dev guest\nip addr add fd00:3::1/64 dev guest nodad")
    node.sh(
        f"ip addr add {GUEST4}/24 dev eth0\nip addr add {GUEST6}/64 dev eth0 nodad\n"
        "ip route add default via 192.168.3.1\nip route add default via fd00:3::1"
    )
    return Guest(router, node)
