"""Keeps the newest snapshot of the network, read through the platform.

Reads whenever it is asked to; what changed since the last reading is for others to judge.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv6Interface

from ..model import DEVICE_GROUP, PROVIDER_DEVICE, DefaultRoute, Family, Link, Uplink, is_own_name
from ..system.network import NetworkState, Wans, is_used, own_networks, private_tunnels
from ..system.rtnetlink import MAIN, Address, Route, by_device
from .linux import Platform

ROUTE_LOSS_S = 0.25  # a default route that is replaced is gone for a moment


class NetworkReader:
    """Holds the newest `state`."""

    def __init__(self, platform: Platform) -> None:
        self.state = NetworkState()
        self.platform = platform
        self._had_prefix = False

    async def read(self, uplinks: Iterable[Uplink], only: tuple[str, ...] = ()) -> None:
        """Read links, default routes and the WANs' addresses.

        `only` limits the WANs to these devices, in the order of preference (none given: all that
        have a default route).
        """
        kernel = self.platform.kernel
        links = {link.index: link for link in kernel.devices()}
        self.state = replace(self.state, links=links)  # link events change it from here on
        own = {link.name for link in links.values() if is_own_name(link.name)}
        own |= {uplink.interface for uplink in uplinks} | {PROVIDER_DEVICE}
        tunnels = {link.name for link in links.values() if link.group == DEVICE_GROUP} | own
        routes = {family: kernel.routes(family) for family in Family}
        main = {f: [route for route in routes[f] if route.table == MAIN] for f in Family}
        private = private_tunnels(
            list(links.values()),
            await self.platform.read_protocols(),
            [route for family in Family for route in main[family]],
            only,
        )
        private -= own  # a mesh device that the owner leads traffic into is his VPN
        resolvers = await self.platform.read_resolvers()
        wans, private_default = {}, {}
        for family in Family:
            found = await self._read_default_routes(family)
            wans[family] = self.state.wans[family].after(found, {*tunnels, *private}, only)
            best = next((route.device for route in found if route.device not in own), "")
            private_default[family] = best if best in private else ""
        devices = sorted({device for each in wans.values() for device in each.known})
        numbered = kernel.addresses()
        held_now = by_device(each for each in numbered if each.device in devices)
        addresses = {**self.state.addresses, **held_now}  # a WAN that is down keeps its last ones
        sources = _sources((route for f in Family for route in routes[f]), links)
        lans = [each for each in numbered if each.device not in {*tunnels, *private, *devices}]
        public = [each for each in lans if each.text[0] in "23" and ":" in each.text]
        self.state = replace(
            self.state,
            wans=wans,
            addresses=addresses,
            # A WAN that went away takes its resolvers along, but they are still asked.
            resolvers=resolvers or self.state.resolvers,
            private=private,
            private_default=private_default,
            sources=sources,
            source_addresses=_source_addresses(sources, numbered),
            delegated=own_networks(
                {device: addresses.get(device, ()) for device in devices},
                sorted({str(IPv6Interface(each.text).network) for each in public}),
            ),
            sharing={f: _sharing(wans[f], main[f], links) for f in Family},
            lost_prefix=self._has_lost_prefix(
                wans[Family.IPV6], any(each.in_force for each in public)
            ),
        )

    async def _read_default_routes(self, family: Family) -> list[DefaultRoute]:
        kernel, wans = self.platform.kernel, self.state.wans[family]
        found = kernel.default_routes(family)
        name = wans.primary.device if wans.primary is not None else ""
        if wans.has_route(name) and name not in {route.device for route in found}:
            await asyncio.sleep(ROUTE_LOSS_S)
            found = kernel.default_routes(family)
        return found

    def _has_lost_prefix(self, wans: Wans, has: bool) -> bool:
        self._had_prefix = has or self._had_prefix
        is_gone = wans.primary is not None and not wans.has_route(wans.primary.device)
        return is_gone and self._had_prefix and not has

    async def read_counters(self) -> None:
        counters = await self.platform.read_counters()
        self.state = replace(self.state, counters=counters)

    def read_underlays(self, uplinks: Iterable[Uplink]) -> None:
        """Find the device that each uplink's outer packets leave by.

        WireGuard roams, so the endpoint that is live counts before the configured one. Where no
        way leads there, the last one that did is kept. Another one is by a device with a carrier.
        """
        underlays = {**self.state.underlays}
        seconds: dict[str, str] = {}
        wans = self.state.wan_devices()
        for uplink in uplinks:
            counted = self.state.counters.get(uplink.interface)
            address = self.platform.endpoints.current(uplink.interface)
            if counted is not None and counted.endpoint:
                address = counted.endpoint.rpartition(":")[0].strip("[]")
            device = self.platform.kernel.device_towards(address) if address else ""
            if device or uplink.interface not in underlays:
                underlays[uplink.interface] = device
            for other, _ in self.platform.endpoints.other_ways(uplink.interface, wans):
                link = self.state.link_of(other)
                if link is not None and link.carrier and other != underlays[uplink.interface]:
                    seconds.setdefault(uplink.interface, other)
        self.state = replace(self.state, underlays=underlays, second_underlays=seconds)

    def set_carrier(self, index: int, carrier: bool) -> bool:
        """Take a link event; whether it is news."""
        before = self.state
        self.state = before.with_carrier(index, carrier)
        return self.state is not before

    def remember(self, wan: DefaultRoute) -> None:
        wans = {**self.state.wans, wan.family: self.state.wans[wan.family].remembering(wan)}
        self.state = replace(self.state, wans=wans)


def _sources(routes: Iterable[Route], links: Mapping[int, Link]) -> dict[str, set[str]]:
    """Device -> the prefixes whose packets its routes are for (`default from PREFIX`)."""
    found: dict[str, set[str]] = {}
    for route in routes:
        for hop in route.hops if route.source else ():
            if hop.index in links:
                found.setdefault(links[hop.index].name, set()).add(route.source)
    return found


def _source_addresses(sources: Collection[str], addresses: Iterable[Address]) -> dict[str, str]:
    """The first IPv6 address of each device whose routes are for certain sources only."""
    found: dict[str, str] = {}
    for device, text, in_force in addresses:
        if device in sources and in_force and ":" in text:
            found.setdefault(device, text.partition("/")[0])
    return found


def _sharing(wans: Wans, main: Sequence[Route], links: Mapping[int, Link]) -> frozenset[str]:
    indexes = {link.name: link.index for link in links.values()}
    return frozenset(d for d in wans.known if d in indexes and is_used(main, indexes[d]))
