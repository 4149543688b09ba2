"""IPv6 as an ISP gives it: a prefix for the LAN, no NAT, and sources that are checked.

`delegate()` routes a prefix of the ISP's to the router and gives the LAN and its host an address of
it; `check_sources()` has the ISP drop what comes from other addresses than it gave out (BCP 38).
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_network

from .node import Node
from .wan import Wan

LAN_END, HOST_END = "1", "100"


@dataclass(frozen=True, slots=True)
class Prefix:
    """What one WAN brought to the LAN: `subnet` is a /64, `host` the LAN host's address of it."""

    subnet: str
    router: str
    host: str


def delegate(wan: Wan, host: Node, *, number: int = 0, lan: str = "lan") -> Prefix:
    """Delegate the WAN a prefix and number the LAN from it. `number` tells several LANs apart."""
    block = wan.gateway6.split(":")[2]  # 1000 of the first ISP, 2000 of the second
    place = int(wan.gateway6.split(":")[3], 16)
    stem = f"2001:db8:{block}:f{place}{number}::"
    made = Prefix(f"{stem}/64", stem + LAN_END, stem + HOST_END)
    wan.isp.sh(f"ip -6 route replace {made.subnet} via {wan.address6} dev {wan.isp_device}")
    wan.router.sh(f"ip addr add {made.router}/64 dev {lan} nodad")
    host.sh(
        f"ip addr add {made.host}/64 dev eth0 nodad\n"
        f"ip -6 route replace default via {made.router} dev eth0"
    )
    return made


def route_by_source(wan: Wan, prefix: Prefix) -> None:
    """Replace the WAN's IPv6 default by those of netifd: for its own sources only."""
    wan.router.sh("\n".join([_default(wan, "del"), *_by_source(wan, prefix, "add")]))


def route_by_destination(wan: Wan, prefix: Prefix) -> None:
    """End what route_by_source() began."""
    wan.router.sh("\n".join([*_by_source(wan, prefix, "del"), _default(wan, "add")]))


def _default(wan: Wan, verb: str, words: str = "") -> str:
    metric = f" metric {1024 + wan.metric}" if wan.metric else ""
    way = f"via {wan.gateway6} dev {wan.device}{metric}"
    return f"ip -6 route {verb} default {words} {way}"


def _by_source(wan: Wan, prefix: Prefix, verb: str) -> list[str]:
    wans = str(ip_network(f"{wan.address6}/64", strict=False))
    return [_default(wan, verb, f"from {subnet}") for subnet in (prefix.subnet, wans)]


def masquerade_ipv4_only(router: Node, devices: str) -> None:
    """Replace the router's masquerading (network.py): IPv6 leaves with its own addresses."""
    chain = "type nat hook postrouting priority srcnat;"
    rule = f"meta nfproto ipv4 oifname {{ {devices} }} masquerade"
    ruleset = f"table inet wan_nat {{\nchain postrouting {{\n{chain}\n{rule}\n}}\n}}"
    removal = "table inet wan_nat\ndelete table inet wan_nat\n"
    router.nft(removal + ruleset)


def check_sources(wan: Wan, *prefixes: Prefix) -> None:
    """Have the ISP drop what this customer sends from addresses that aren't his."""
    own6 = ", ".join([f"{wan.address6}/128", *(prefix.subnet for prefix in prefixes)])
    device = wan.isp_device
    wan.isp.filter(
        "forward",
        f"iifname {device} ip saddr != {wan.address4} drop",
        f"iifname {device} meta nfproto ipv6 ip6 saddr != {{ {own6} }} drop",
        table=f"sources_{device}",
        priority=-10,
    )
