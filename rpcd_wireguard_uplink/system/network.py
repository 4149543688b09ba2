"""The router's network as one frozen snapshot: links, WANs, addresses, tunnels and their underlays.

A VPN that holds the default route is no way to the internet of its own: taken for a WAN, its death
would send in clear what its owner wants inside. netifd's protocol decides where there is one, else
the kind of device. What the owner names in `list wan` is a WAN in any case.

Pure questions on it; platform/network_reader.py keeps the newest one. A WAN whose route, addresses
or device went away is remembered, because that is what a dead WAN looks like.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import field, replace
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_interface, ip_network

from ..model import DefaultRoute, Family, Link, PathKind, PeerCounters, is_own_name
from ..reasons import because
from ..values import dataclass
from .nft import can_name
from .rtnetlink import PPP, PROTO_KERNEL, UNICAST, Route


@dataclass(frozen=True, slots=True)
class Wans:
    """One family's WANs, as its default routes tell: `routes` in the order of preference, and all
    that are `known`, gone ones too.
    """

    routes: tuple[DefaultRoute, ...] = ()
    primary: DefaultRoute | None = None
    known: Mapping[str, DefaultRoute] = field(default_factory=dict)

    def after(
        self, found: Iterable[DefaultRoute], tunnels: Collection[str], only: tuple[str, ...] = ()
    ) -> Wans:
        """The WANs once the default routes are `found`.

        `tunnels` are devices that are no WANs, besides those whose name tells; that is judged anew
        each time, since netifd installs a tunnel's default route before anybody can mark its
        device. `only` limits the WANs to these devices, in the order of preference.
        """

        def is_wan(device: str) -> bool:
            is_other = is_own_name(device) or device in tunnels or (only and device not in only)
            return can_name(device) and not is_other

        def order(route: DefaultRoute) -> tuple[int, int]:
            return only.index(route.device) if only else 0, route.metric

        routes = tuple(sorted((route for route in found if is_wan(route.device)), key=order))
        known = {device: route for device, route in self.known.items() if is_wan(device)}
        known |= {route.device: route for route in routes}
        primary = known.get(self.primary.device) if self.primary is not None else None
        # One without a route stays the primary, unless a WAN of a higher rank came up.
        has_route = primary is not None and any(r.device == primary.device for r in routes)
        if routes and (primary is None or has_route or order(routes[0]) < order(primary)):
            primary = routes[0]
        return Wans(routes, primary, known)

    def remembering(self, wan: DefaultRoute) -> Wans:
        """The same with a primary that an earlier run knew."""
        return replace(self, primary=wan, known={**self.known, wan.device: wan})

    def has_route(self, device: str) -> bool:
        return any(route.device == device for route in self.routes)


@dataclass(frozen=True, slots=True)
class NetworkState:
    """One reading. Links by index; addresses with prefix lengths, the last known ones where a WAN
    has none now; `underlays` tunnel -> the device that its outer packets leave by, '' unknown,
    `second_underlays` -> the one that they take while that one is dead.

    `private` are the owner's own tunnels (a VPN, the mesh), which are no WANs, `private_default`
    the one that has the best default route. `sources` and `delegated` are the IPv6 prefixes that a
    WAN's routes are for and that its ISP delegated, `source_addresses` what its packets leave with
    then. `sharing` are the WANs that carry a part of the traffic now: balanced, or by routes of
    their own. `lost_prefix` says that the LAN had an IPv6 prefix from a WAN that is gone.
    """

    links: Mapping[int, Link] = field(default_factory=dict)
    wans: Mapping[Family, Wans] = field(default_factory=lambda: dict.fromkeys(Family, Wans()))
    addresses: Mapping[str, Sequence[str]] = field(default_factory=dict)
    underlays: Mapping[str, str] = field(default_factory=dict)
    second_underlays: Mapping[str, str] = field(default_factory=dict)
    counters: Mapping[str, PeerCounters] = field(default_factory=dict)
    resolvers: list[str] = field(default_factory=list)
    private: frozenset[str] = frozenset()
    private_default: Mapping[Family, str] = field(default_factory=dict)
    sources: Mapping[str, set[str]] = field(default_factory=dict)
    source_addresses: Mapping[str, str] = field(default_factory=dict)
    delegated: Mapping[str, set[str]] = field(default_factory=dict)
    sharing: Mapping[Family, frozenset[str]] = field(default_factory=dict)
    lost_prefix: bool = False

    def wan_devices(self) -> list[str]:
        """All devices that are WANs in any family, gone ones too."""
        return sorted({device for wans in self.wans.values() for device in wans.known})

    def primaries(self) -> set[str]:
        return {wans.primary.device for wans in self.wans.values() if wans.primary is not None}

    def only_private(self, family: Family) -> str:
        """The owner's tunnel that holds the family's only default route; '' where a WAN has one."""
        return "" if self.wans[family].routes else self.private_default.get(family, "")

    def source_of(self, device: str, family: Family) -> str:
        """The address that a WAN's packets have where its routes ask for one; else ''."""
        return self.source_addresses.get(device, "") if family is Family.IPV6 else ""

    def prefixes_of(self, device: str) -> list[str]:
        """A WAN's own networks, and those that its routes take packets from (IPv6)."""
        own = [ip_interface(address).network for address in self.addresses.get(device, ())]
        told = {*self.sources.get(device, ()), *self.delegated.get(device, ())}
        found = [*own, *map(ip_network, told)]
        fours = collapse_addresses(n for n in found if isinstance(n, IPv4Network))
        sixes = collapse_addresses(n for n in found if isinstance(n, IPv6Network))
        return [*map(str, fours), *map(str, sixes)]

    def addresses_of(self, device: str, family: Family) -> list[str]:
        """A WAN's addresses of one family, the last known ones where it has none now."""
        found = self.addresses.get(device, ())
        return [a for a in found if Family.of(a) is family]

    def sharing_underlay(self) -> frozenset[str]:
        """The uplinks whose outer packets need the WAN that they should replace."""
        if any(len(wans.routes) > 1 for wans in self.wans.values()):
            return frozenset()
        primaries = self.primaries()
        return frozenset(
            name
            for name, below in self.underlays.items()
            if below in primaries and name not in self.second_underlays
        )

    def link_of(self, device: str) -> Link | None:
        return next((link for link in self.links.values() if link.name == device), None)

    def index_of(self, device: str) -> int:
        """The device's index, 0 where it is missing."""
        link = self.link_of(device)
        return link.index if link is not None else 0

    def mtu_of(self, device: str) -> int:
        """The device's MTU in bytes, 0 where it is not known."""
        link = self.link_of(device)
        return link.mtu if link is not None else 0

    def narrowest_wan(self) -> int:
        """The least MTU of the WANs that are there, in bytes; 0 where none is known."""
        return min(filter(None, map(self.mtu_of, self.wan_devices())), default=0)

    def why_detached(self, device: str, index: int, kind: PathKind, family: Family) -> str:
        """Why nothing can leave by the device, or '' where it can."""
        link = self.links.get(index)
        if link is None:
            return because("device_gone")
        if not link.carrier:
            return because("carrier_lost")
        if kind is PathKind.WAN and not self.wans[family].has_route(device):
            return because("route_gone")
        return ""

    def route_of(self, device: str, family: Family) -> DefaultRoute:
        """The default route that leads traffic there: a WAN's own, or the tunnel itself."""
        return self.wans[family].known.get(device) or DefaultRoute(family, device)

    def with_carrier(self, index: int, carrier: bool) -> NetworkState:
        """The state after a link event; this very one where that is no news."""
        link = self.links.get(index)
        if link is None or link.carrier == carrier:
            return self
        links = {**self.links, index: replace(link, carrier=carrier)}
        return replace(self, links=links)


# --- which devices with a default route are WANs, and which are tunnels of the owner's

# netifd's protocols of interfaces that lead to an ISP (the `proto` handlers of OpenWrt's packages).
_WAN_PROTOCOLS = {
    *("static", "dhcp", "dhcpv6", "pppoe", "pppoa", "ppp", "3g", "l2tp", "pptp", "qmi", "mbim"),
    *("ncm", "wwan", "modemmanager", "directip", "hnet", "dslite", "map", "464xlat", "6in4"),
    *("6to4", "6rd", "relay", "ipip6", "batadv_hardif"),
}
_TUNNEL_KINDS = {
    *("wireguard", "amneziawg", "tun", "xfrm", "vti", "vti6", "gre", "gretap", "ip6gre"),
    *("ip6gretap", "ipip", "ovpn", "ipvlan-vpn"),
}
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
