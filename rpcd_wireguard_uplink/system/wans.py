"""Which devices with a default route are WANs, and which are tunnels of the owner's. Pure.

A VPN that holds the default route is no way to the internet of its own: taken for a WAN, its death
would send in clear what its owner wants inside. netifd's protocol decides where there is one, else
the kind of device. What the owner names in `list wan` is a WAN in any case.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Mapping, Sequence

from ..model import Link
from .rtnetlink import PPP, PROTO_KERNEL, UNICAST, Route

# netifd's protocols of interfaces that lead to an ISP (the `proto` handlers of OpenWrt's packages).
_WAN_PROTOCOLS = frozenset(
    [
        "static",
        "dhcp",
        "dhcpv6",
        "pppoe",
        "pppoa",
        "ppp",
        "3g",
        "l2tp",
        "pptp",
        "qmi",
        "mbim",
        "ncm",
        "wwan",
        "modemmanager",
        "directip",
        "hnet",
        "dslite",
        "map",
        "464xlat",
        "6in4",
        "6to4",
        "6rd",
        "relay",
        "ipip6",
        "batadv_hardif",
    ]
)
_TUNNEL_KINDS = frozenset(
    [
        "wireguard",
        "amneziawg",
        "tun",
        "xfrm",
        "vti",
        "vti6",
        "gre",
        "gretap",
        "ip6gre",
        "ip6gretap",
        "ipip",
        "ovpn",
        "ipvlan-vpn",
    ]
)
LEAST_SHARED = 16  # bits: all of 2000::/3 share three
_TRANSLATORS = ("clat", "464-")  # clatd's and OpenWrt's names for 464XLAT


def is_private_tunnel(link: Link, protocol: str, *, is_ppp_vpn: bool = False) -> bool:
    """Whether the device is a tunnel of the owner's (a VPN, a mesh) and not a WAN.

    `protocol` is netifd's, '' where netifd does not have the device. DS-Lite, MAP, 6rd and 6in4
    make ip6tnl and sit devices, which VPNs seldom do: those are WANs.
    """
    if protocol:
        return protocol not in _WAN_PROTOCOLS
    if link.name.startswith(_TRANSLATORS):
        return False
    if link.hardware == PPP:
        return is_ppp_vpn
    return link.kind in _TUNNEL_KINDS


def ppp_vpns(links: Iterable[Link], main: Sequence[Route]) -> frozenset[str]:
    """PPP devices that look like a VPN (PPTP, SSTP): their server has a host route by another
    device's gateway, as a dial-in's never has.
    """
    by_index = {link.index: link for link in links}
    ppp = {index for index, link in by_index.items() if link.hardware == PPP}
    others = any(
        route.destination.endswith(("/32", "/128"))
        and any(hop.gateway and hop.index not in ppp for hop in route.hops)
        for route in main
    )
    others = others and any(
        not route.length
        and any(hop.index in by_index and hop.index not in ppp for hop in route.hops)
        for route in main
    )
    return frozenset(by_index[index].name for index in ppp) if others else frozenset()


def own_networks(wans: Mapping[str, Sequence[str]], networks: Iterable[str]) -> dict[str, set[str]]:
    """WAN -> those of these IPv6 networks that its ISP delegated, as far as addresses tell.

    `wans` are each WAN's addresses. ISPs number a WAN and what they delegate out of one block, so
    a network belongs to the WAN with which it shares the longest prefix, if one has.
    """
    found: dict[str, set[str]] = {}
    for network in networks:
        bits = int(ipaddress.IPv6Network(network).network_address)
        shared = sorted(
            (max((_common(bits, text) for text in addresses if ":" in text), default=0), name)
            for name, addresses in wans.items()
        )
        if not shared or shared[-1][0] < LEAST_SHARED:
            continue
        if len(shared) == 1 or shared[-2][0] < shared[-1][0]:
            found.setdefault(shared[-1][1], set()).add(network)
    return found


def _common(bits: int, address: str) -> int:
    """How many leading bits two IPv6 addresses share."""
    return 128 - (bits ^ int(ipaddress.IPv6Interface(address).ip)).bit_length()


def private_tunnels(
    links: Sequence[Link],
    protocols: Mapping[str, str],
    main: Sequence[Route],
    named: Collection[str],
) -> frozenset[str]:
    """The owner's tunnels among the devices; `named` ones are WANs by the owner's word."""
    vpns = ppp_vpns(links, main)
    return frozenset(
        link.name
        for link in links
        if link.name not in named
        and is_private_tunnel(link, protocols.get(link.name, ""), is_ppp_vpn=link.name in vpns)
    )


def is_used(main: Iterable[Route], index: int) -> bool:
    """Whether main sends anything by the device that is not hidden by a better default."""
    defaults = [r for r in main if not r.length and r.kind == UNICAST and not r.source]
    best = min((r.metric for r in defaults), default=None)
    for route in main:
        if not any(h.index == index for h in route.hops):
            continue
        if not route.length and not route.source and route.metric != best:
            continue
        if route.length and route.protocol == PROTO_KERNEL:
            continue
        return True
    return False
