"""Firewalls of the owner's with a forward chain of their own: the LAN may go to the WAN only.

Written as people write them: by hand for nftables, and as iptables-nft has its chains.
"""

from __future__ import annotations

from .network import ConsumerNetwork
from .node import Node

NO_PINGS = ("icmp type echo-request drop", "icmpv6 type echo-request drop")

BY_HAND = """
table inet filter {
	chain input { type filter hook input priority filter; policy accept; }
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
		iifname "lan" oifname "wan" accept
	}
}
"""
IPTABLES = """
table FAMILY filter {
	chain INPUT { type filter hook input priority filter; policy accept; }
	chain OUTPUT { type filter hook output priority filter; policy accept; }
	chain FORWARD {
		type filter hook forward priority filter; policy drop;
		counter jump DOCKER-USER
		ct state related,established counter accept
		iifname "lan" oifname "wan" counter accept
	}
	chain DOCKER-USER { counter return; }
}
"""
STYLES = {
    "by hand": BY_HAND,
    "iptables-nft": IPTABLES.replace("FAMILY", "ip") + IPTABLES.replace("FAMILY", "ip6"),
}


def load(router: Node, style: str) -> None:
    """Load the firewall of this style."""
    router.nft(STYLES[style])


def unload(router: Node, style: str) -> None:
    """Take it away again."""
    for family in ("inet",) if style == "by hand" else ("ip", "ip6"):
        router.run(["nft", "delete", "table", family, "filter"])


def narrow(network: ConsumerNetwork, size: int) -> None:
    """Drop what is longer at both ends of the neighbour link; 0 ends that."""
    link = network.neighbours[0]
    for node, device in (
        (network.consumer, link.consumer_device),
        (network.providers[0], link.provider_device),
    ):
        rules = [f"iifname {device} meta length > {size} drop"] if size else []
        node.filter("prerouting", *rules, table="narrow", priority=-400)
