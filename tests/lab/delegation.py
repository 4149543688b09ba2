"""IPv6 as an ISP gives it: a prefix for the LAN, no NAT, and sources that are checked.

`delegate()` routes a prefix of the ISP's to the router and gives the LAN and its host an address of
it; `check_sources()` has the ISP drop what comes from other addresses than it gave out (BCP 38).
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_network

from .line import Line
from .node import Node

LAN_END, HOST_END = "1", "100"


@dataclass(frozen=True, slots=True)
class Prefix:
    """What one WAN brought to the LAN: `subnet` is a /64, `host` the LAN host's address of it."""

    subnet: str
    router: str
    host: str


def delegate(line: Line, host: Node, *, number: int = 0, lan: str = "lan") -> Prefix:
    """Delegate the WAN a prefix and number the LAN from it. `number` tells several LANs apart."""
    block = line.gateway6.split(":")[2]  # 1000 of the first ISP, 2000 of the second
    place = int(line.gateway6.split(":")[3], 16)
    stem = f"2001:db8:{block}:f{place}{number}::"
    made = Prefix(f"{stem}/64", stem + LAN_END, stem + HOST_END)
    line.isp.sh(f"ip -6 route replace {made.subnet} via {line.address6} dev {line.isp_device}")
    line.router.sh(f"ip addr add {made.router}/64 dev {lan} nodad")
    host.sh(
        f"ip addr add {made.host}/64 dev eth0 nodad\n"
        f"ip -6 route replace default via {made.router} dev eth0"
    )
    return made


def route_by_source(line: Line, prefix: Prefix) -> None:
    """Replace the WAN's IPv6 default by those of netifd: for its own sources only."""
    line.router.sh("\n".join([_default(line, "del"), *_by_source(line, prefix, "add")]))


def route_by_destination(line: Line, prefix: Prefix) -> None:
    """End what route_by_source() began."""
    line.router.sh("\n".join([*_by_source(line, prefix, "del"), _default(line, "add")]))


def _default(line: Line, verb: str, words: str = "") -> str:
    metric = f" metric {1024 + line.metric}" if line.metric else ""
    way = f"via {line.gateway6} dev {line.device}{metric}"
    return f"ip -6 route {verb} default {words} {way}"


def _by_source(line: Line, prefix: Prefix, verb: str) -> list[str]:
    wans = str(ip_network(f"{line.address6}/64", strict=False))
    return [_default(line, verb, f"from {subnet}") for subnet in (prefix.subnet, wans)]


def masquerade_ipv4_only(router: Node, devices: str) -> None:
    """Replace the router's masquerading (network.py): IPv6 leaves with its own addresses."""
    chain = "type nat hook postrouting priority srcnat;"
    rule = f"meta nfproto ipv4 oifname {{ {devices} }} masquerade"
    ruleset = f"table inet house {{\nchain postrouting {{\n{chain}\n{rule}\n}}\n}}"
    removal = "table inet house\ndelete table inet house\n"
    router.run(["nft", "-f", "-"], input=removal + ruleset)


def check_sources(line: Line, *prefixes: Prefix) -> None:
    """Have the ISP drop what this customer sends from addresses that aren't his."""
    own6 = ", ".join([f"{line.address6}/128", *(prefix.subnet for prefix in prefixes)])
    device = line.isp_device
    rules = (
        f"iifname {device} ip saddr != {line.address4} drop\n"
        f"iifname {device} meta nfproto ipv6 ip6 saddr != {{ {own6} }} drop"
    )
    chain = f"chain c {{ type filter hook forward priority -10;\n{rules}\n}}"
    line.isp.run(["nft", "-f", "-"], input=f"table inet sources_{device} {{\n{chain}\n}}")
