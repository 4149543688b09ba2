"""What the router looks like from the kernel: links, lines, addresses, and who travels over what.

Read through the platform whenever the kernel says that something changed. Judges no path and
switches nothing; what it holds is the newest reading, with a memory for lines that went away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import (
    IPv4Network,
    IPv6Interface,
    IPv6Network,
    collapse_addresses,
    ip_interface,
    ip_network,
)

from ..model import (
    DEVICE_GROUP,
    PROVIDER_DEVICE,
    DefaultRoute,
    Family,
    Link,
    PathKind,
    PeerCounters,
    Uplink,
    is_own_name,
)
from ..platform.protocol import Platform
from ..system.rtnetlink import MAIN, Route
from ..system.wans import own_networks, private_tunnels
from .paths import Lines

ROUTE_LOSS_S = 0.25  # a default route that is replaced is gone for a moment


@dataclass(slots=True)
class Landscape:
    """The newest reading. `only` limits the lines to these devices, in order of preference.

    `fated` are uplinks whose provider is known to leave by the same line as this router.
    `portals` are the lines that a captive portal holds (device -> its URL), which captive.py finds.
    `private` are the owner's own tunnels (a VPN, the mesh), which are no WANs.
    `lost_prefix` says that the LAN had an IPv6 prefix from a line that is gone.
    """

    platform: Platform
    only: tuple[str, ...] = ()
    links: dict[int, Link] = field(default_factory=dict)
    lines: dict[Family, Lines] = field(default_factory=dict)
    addresses: dict[str, list[str]] = field(default_factory=dict)
    underlays: dict[str, str] = field(default_factory=dict)
    resolvers: list[str] = field(default_factory=list)
    private: frozenset[str] = frozenset()
    sources: dict[str, set[str]] = field(default_factory=dict)
    private_default: dict[Family, str] = field(default_factory=dict)
    delegated: dict[str, set[str]] = field(default_factory=dict)
    falls: dict[int, int] = field(default_factory=dict)
    fated: frozenset[str] = frozenset()
    portals: dict[str, str] = field(default_factory=dict)
    lost_prefix: bool = False
    _counters: Mapping[str, PeerCounters] = field(default_factory=dict)
    _had_prefix: bool = False

    def __post_init__(self) -> None:
        self.lines = {family: Lines(family, self.only) for family in Family}

    def limit_lines(self, only: tuple[str, ...]) -> None:
        """Limit lines to these devices (none given: all with a route), from the next reading on:
        until then a router has the lines that it had.
        """
        self.only = only

    async def reread(self, uplinks: Iterable[Uplink]) -> None:
        """Read links, default routes and the lines' addresses."""
        self.links = {link.index: link for link in await self.platform.read_links()}
        own = {link.name for link in self.links.values() if is_own_name(link.name)}
        own |= {uplink.interface for uplink in uplinks} | {PROVIDER_DEVICE}
        tunnels = {link.name for link in self.links.values() if link.group == DEVICE_GROUP} | own
        main = [route for f in Family for route in self.platform.kernel.routes(f)]
        private = private_tunnels(
            list(self.links.values()),
            await self.platform.read_protocols(),
            [route for route in main if route.table == MAIN],
            self.only,
        )
        self.private = private - own  # a mesh device that the owner leads traffic into is his VPN
        self.sources = _sources(main, self.links)
        # A line that went away takes its resolvers along, but they are still asked.
        self.resolvers = await self.platform.read_resolvers() or self.resolvers
        for family in Family:
            await self._reread_lines(self.lines[family], [*tunnels, *self.private])
        for device in self.line_devices():
            found = await self.platform.read_addresses(device)
            if found:  # a line that is down keeps its last known addresses
                self.addresses[device] = found
        self.delegated = self._delegated({*tunnels, *self.private})
        self._look_for_prefix({*tunnels, *self.private, *self.line_devices()})

    def _delegated(self, others: Collection[str]) -> dict[str, set[str]]:
        """Which of the LAN's IPv6 networks each WAN's ISP delegated."""
        wans = self.line_devices()
        lan = {
            str(IPv6Interface(text).network)
            for index, text, _ in self.platform.kernel.addresses()
            if text[0] in "23"
            and ":" in text
            and index in self.links
            and self.links[index].name not in {*others, *wans}
        }
        return own_networks({name: self.addresses.get(name, []) for name in wans}, sorted(lan))

    def _look_for_prefix(self, others: Collection[str]) -> None:
        has = any(self.platform.global_ipv6_devices() - set(others))
        self._had_prefix = has or self._had_prefix
        lines = self.lines[Family.IPV6]
        gone = lines.primary is not None and not lines.has_route(lines.primary.device)
        self.lost_prefix = gone and self._had_prefix and not has

    async def _reread_lines(self, lines: Lines, tunnels: list[str]) -> None:
        lines = lines if lines.only == self.only else lines.limited(self.only)
        primary = lines.primary
        found = await self.platform.read_default_routes(lines.family)
        had_route = primary is not None and lines.has_route(primary.device)
        if primary is not None and had_route and primary.device not in {r.device for r in found}:
            await asyncio.sleep(ROUTE_LOSS_S)
            found = await self.platform.read_default_routes(lines.family)
        lines.update(found, tunnels)
        held = [route.device for route in found if route.device in self.private]
        self.private_default[lines.family] = held[0] if held else ""
        self.lines[lines.family] = lines

    async def reread_underlays(
        self, uplinks: Iterable[Uplink], counters: Mapping[str, PeerCounters] | None = None
    ) -> None:
        """Find the device that each uplink's outer packets leave by.

        WireGuard roams, so the endpoint that is live counts before the configured one. Where no
        way leads there, the last one that did is kept. Without counters the last given count.
        """
        self._counters = self._counters if counters is None else counters
        for uplink in uplinks:
            counted = self._counters.get(uplink.interface)
            address = self.platform.endpoint_address(uplink.interface)
            if counted is not None and counted.endpoint:
                address = counted.endpoint.rpartition(":")[0].strip("[]")
            device = await self.platform.device_towards(address) if address else ""
            if device or uplink.interface not in self.underlays:
                self.underlays[uplink.interface] = device

    def line_devices(self) -> list[str]:
        """All devices that are lines in any family, gone ones too."""
        return sorted({device for lines in self.lines.values() for device in lines.known})

    def only_private(self, family: Family) -> str:
        """The owner's tunnel that holds the family's only default route; '' where a WAN has one."""
        return "" if self.lines[family].routes else self.private_default.get(family, "")

    def source_of(self, device: str, family: Family) -> str:
        """The address that a WAN's IPv6 packets have where its routes ask for one; else ''."""
        if family is Family.IPV4 or not self.sources.get(device):
            return ""
        index = self.index_of(device)
        for at, text, in_force in self.platform.kernel.addresses():
            if at == index and in_force and ":" in text:
                return text.partition("/")[0]
        return ""

    def prefixes_of(self, device: str) -> list[str]:
        """A WAN's own networks, and those that its routes take packets from (IPv6)."""
        own = [ip_interface(address).network for address in self.addresses.get(device, ())]
        told = {*self.sources.get(device, ()), *self.delegated.get(device, ())}
        found = [*own, *map(ip_network, told)]
        fours = collapse_addresses(n for n in found if isinstance(n, IPv4Network))
        sixes = collapse_addresses(n for n in found if isinstance(n, IPv6Network))
        return [*map(str, fours), *map(str, sixes)]

    def shares_fate(self, interface: str) -> bool:
        """Whether the uplink needs the line that it should replace: its outer packets have no
        other way, or its provider leaves by that line too.
        """
        if interface in self.fated:
            return True
        primaries = {x.primary.device for x in self.lines.values() if x.primary is not None}
        if self.underlays.get(interface, "") not in primaries:
            return False
        return not any(len(lines.routes) > 1 for lines in self.lines.values())

    def index_of(self, device: str) -> int:
        """The device's index, 0 where it is missing."""
        return next((i for i, link in self.links.items() if link.name == device), 0)

    def mtu_of(self, device: str) -> int:
        """The device's MTU in bytes, 0 where it is not known."""
        return next((link.mtu for link in self.links.values() if link.name == device), 0)

    def narrowest_line(self) -> int:
        """The least MTU of the lines that are there, in bytes; 0 where none is known."""
        return min(filter(None, map(self.mtu_of, self.line_devices())), default=0)

    def set_carrier(self, index: int, carrier: bool) -> bool:
        """Take a link event; whether it is news."""
        link = self.links.get(index)
        if link is None or link.carrier == carrier:
            return False
        self.links[index] = replace(link, carrier=carrier)
        if not carrier:
            self.falls[index] = self.falls.get(index, 0) + 1
        return True

    def incarnation(self, device: str) -> object:
        """A value that differs once the device was made anew or was down: its routes went then."""
        index = self.index_of(device)
        link = self.links.get(index)
        return index, link is not None and link.carrier, self.falls.get(index, 0)

    def why_detached(self, device: str, index: int, kind: PathKind, family: Family) -> str:
        """Why nothing can leave by the device, or '' where it can."""
        link = self.links.get(index)
        if link is None:
            return "its device is gone"
        if not link.carrier:
            return "carrier lost"
        if kind is PathKind.WAN and not self.lines[family].has_route(device):
            return "its default route is gone"
        if kind is PathKind.WAN and device in self.portals:
            return "a captive portal wants a login"
        return ""

    def route_of(self, device: str, family: Family) -> DefaultRoute:
        """The default route that leads traffic there: a line's own, or the tunnel itself."""
        return self.lines[family].known.get(device) or DefaultRoute(family, device)

    async def addresses_of(self, device: str, family: Family) -> list[str]:
        """The device's addresses of one family, the last known ones where it has none now."""
        found = self.addresses.get(device) or await self.platform.read_addresses(device)
        return [a for a in found if (":" in a) == (family is Family.IPV6)]


def _sources(routes: Iterable[Route], links: Mapping[int, Link]) -> dict[str, set[str]]:
    """Device -> the prefixes whose packets its routes are for (`default from PREFIX`)."""
    found: dict[str, set[str]] = {}
    for route in routes:
        for hop in route.hops if route.source else ():
            if hop.index in links:
                found.setdefault(links[hop.index].name, set()).add(route.source)
    return found
