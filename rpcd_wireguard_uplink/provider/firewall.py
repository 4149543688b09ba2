"""Provider's firewall: what consumers may reach, as the text of an nftables table. Pure.

A consumer gets out by the WANs that it is given, to the internet and nothing else: no other
consumer, no tunnel of ours, none of our addresses but the gateway's echo and the port that renews
its lease, no network of ours or behind a modem of ours. Nobody gets in to a consumer. The table
does not depend on leases: WireGuard's allowed networks hold each consumer to its own source.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

from ..model import PROVIDER_DEVICE, Family
from ..system.nft import names_text
from .plan import ProviderPlan

TABLE = "wgup_provider"
NOT_INTERNET: dict[Family, tuple[str, ...]] = {
    Family.IPV4: (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
        *("172.16.0.0/12", "192.0.0.0/24", "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/3"),
    ),
    Family.IPV6: ("2002::/16",),  # 6to4 has IPv4 addresses in it, private ones too
}
"""What no WAN should carry for strangers (IANA's registries of special-purpose addresses).

Of IPv6 only INTERNET6 is allowed anyway. Documentation's networks are left out: nobody lives there.
"""
INTERNET6 = "{ 2000::/3, 64:ff9b::/96 }"  # unicast, and IPv4 behind the ISP's NAT64

NEW_PER_S, NEW_BURST = 50, 1000  # flows of one consumer
_DYNAMIC = "size 4096; flags dynamic,timeout; timeout 1m;"
_DNS = "meta l4proto { tcp, udp } th dport 53"
_REFUSE = "reject with icmpx admin-prohibited"
_ECHO = {Family.IPV4: "icmp type echo-request", Family.IPV6: "icmpv6 type echo-request"}
_HEADERS = {Family.IPV4: 40, Family.IPV6: 60}  # IP's and TCP's, without options


def provider_script(plan: ProviderPlan, onlink: Iterable[str]) -> str:
    """nft commands that put the table in place of what there is, in one transaction.

    `onlink` are the WANs' own addresses with prefix lengths. Connections that the new rules allow
    go on. Raises ValueError where something that should be an address is none.
    """
    filters = "type filter hook {} priority -5; policy accept;"  # before fw4's, which are at 0
    chains = (
        ("pace", "type filter hook prerouting priority -110; policy accept;", _pace()),
        ("from_consumers", "", _from_consumers(plan, onlink)),
        ("to_consumers", "", _to_consumers(plan)),
        ("input", filters.format("input"), _input(plan)),
        ("forward", filters.format("forward"), _forward(plan)),
        ("dns", "type nat hook prerouting priority -105; policy accept;", _dns(plan)),
        ("nat", "type nat hook postrouting priority 100; policy accept;", _nat(plan)),
    )
    out = [f"add table inet {TABLE}", f"delete table inet {TABLE}", f"table inet {TABLE} {{"]
    out += [f"set new{f.version} {{ type {f.value}_addr; {_DYNAMIC} }}" for f in Family]
    for name, hook, rules in chains:
        out += [f"chain {name} {{", *filter(None, [hook]), *rules, "}"]
    return "\n".join([*out, "}"]) + "\n"


def _pace() -> list[str]:
    """A consumer, or a sick host behind it, that begins flows without end would fill the table of
    connections, and nobody else could begin any.
    """
    rate = f"limit rate over {NEW_PER_S}/second burst {NEW_BURST} packets"
    return [
        f'iifname "{PROVIDER_DEVICE}" ct state new '
        f"update @new{family.version} {{ {family.word} saddr {rate} }} drop"
        for family in Family
    ]


def _input(plan: ProviderPlan) -> list[str]:
    rules = [f'iifname != "{PROVIDER_DEVICE}" accept', "ct state established,related accept"]
    for family in Family:
        for ours in _gateways(plan, family):
            to_us = f"{family.word} daddr {ours.ip}"
            rules.append(f"{to_us} {_ECHO[family]} accept")
            rules.append(f"{to_us} tcp dport {plan.renewal_port} accept")
    # A resolver that refuses is given up at once, a silent one is waited for.
    return [*rules, f"{_DNS} reject with icmpx port-unreachable", "drop"]


def _forward(plan: ProviderPlan) -> list[str]:
    rules = [f'iifname != "{PROVIDER_DEVICE}" oifname != "{PROVIDER_DEVICE}" accept']
    for family in Family:
        largest = plan.mtu - _HEADERS[family]
        rules.append(
            f"meta nfproto {family.value} tcp flags syn tcp option maxseg size set {largest}"
        )
    return [*rules, f'iifname "{PROVIDER_DEVICE}" goto from_consumers', "goto to_consumers"]


def _from_consumers(plan: ProviderPlan, onlink: Iterable[str]) -> list[str]:
    if not plan.is_open:
        return [_REFUSE]
    nets = [ipaddress.ip_interface(text).network for text in onlink]
    # Another consumer, or a tunnel of ours: what we get from peers is not passed on to peers.
    rules = ["ct state invalid drop", f'oifname "wgup*" {_REFUSE}']
    for family in Family:
        lines = _names(plan.wans.get(family, ()))
        rules.append(
            f"meta nfproto {family.value} {f'oifname != {lines} ' if lines else ''}{_REFUSE}"
        )
    for family in Family:
        resolver = _resolver(plan, family)
        if resolver:  # a modem's may well have a private address, so this is before those
            rules.append(f"ct status dnat {family.word} daddr {resolver} {_DNS} accept")
    rules.append(f"ip6 daddr != {INTERNET6} {_REFUSE}")
    for family in Family:
        mine = [net for net in nets if net.version == family.version]
        closed = _merged([*map(ipaddress.ip_network, NOT_INTERNET[family]), *mine])
        rules.append(f"{family.word} daddr {closed} {_REFUSE}")
    return [*rules, "accept"]


def _to_consumers(plan: ProviderPlan) -> list[str]:
    answers = ["ct state established,related accept"] if plan.is_open else []
    return [*answers, _REFUSE]


def _dns(plan: ProviderPlan) -> list[str]:
    """Look-ups at a gateway go to a WAN's resolver, never to our own with its local names."""
    return [
        f'iifname "{PROVIDER_DEVICE}" {family.word} daddr {ours.ip} {_DNS} '
        f"dnat {family.word} to {_resolver(plan, family)}"
        for family in Family
        for ours in _gateways(plan, family)
        if _resolver(plan, family)
    ]


def _nat(plan: ProviderPlan) -> list[str]:
    return [
        f"{family.word} saddr {ours.network} oifname {_names(plan.wans[family])} masquerade"
        for family in Family
        for ours in _gateways(plan, family)
        if plan.wans.get(family)
    ]


def _gateways(
    plan: ProviderPlan, family: Family
) -> list[ipaddress.IPv4Interface | ipaddress.IPv6Interface]:
    """Our addresses of that family in the tunnels, with the pools that they are in."""
    found = map(ipaddress.ip_interface, plan.gateways)
    return [each for each in found if each.version == family.version]


def _resolver(plan: ProviderPlan, family: Family) -> str:
    """The first resolver of that family that can be reached over a WAN, '' without any."""
    for text in plan.resolvers:
        ip = ipaddress.ip_address(text)
        near = ip.is_loopback or ip.is_link_local or ip.is_unspecified
        if ip.version == family.version and not near:
            return str(ip)
    return ""


def _names(devices: Iterable[str]) -> str:
    names = names_text(devices)
    return f"{{ {names} }}" if names else ""


def _merged(nets: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> str:
    """An anonymous set: nft takes no networks there that overlap."""
    of_four = [net for net in nets if isinstance(net, ipaddress.IPv4Network)]
    of_six = [net for net in nets if isinstance(net, ipaddress.IPv6Network)]
    four, six = ipaddress.collapse_addresses(of_four), ipaddress.collapse_addresses(of_six)
    return f"{{ {', '.join(map(str, [*four, *six]))} }}"
