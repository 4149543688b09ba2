"""Firewalls of the owner's with a forward chain of their own: the LAN may go to the WAN only.

Written as people write them: by hand for nftables, and as iptables-nft has its chains.
"""

from __future__ import annotations

from .node import Node

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
    router.run(["nft", "-f", "-"], input=STYLES[style])


def unload(router: Node, style: str) -> None:
    """Take it away again."""
    for family in ("inet",) if style == "by hand" else ("ip", "ip6"):
        router.run(["nft", "delete", "table", family, "filter"])
