"""The routes of our tables, derived from main and the plan, and what makes the found ones so. Pure.

Table 5180 answers as main would if the dead WANs were not there: routes by a dead WAN's gateway are
left out, next hop by next hop, and so are our own tunnels' defaults. A route by the dead WAN that
was an exception from an owner's VPN (the VPN's server) takes the chosen path instead: the VPN would
swallow its own packets. Table 5181 has the chosen path's default, 5179 the ways of outer packets.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from ..model import PROVIDER_DEVICE, DefaultRoute, Family
from ..system import netlink
from ..system.rtnetlink import (
    ONLINK,
    PROTO_KERNEL,
    REMEMBERED,
    SCOPE_LINK,
    UNICAST,
    UNREACHABLE,
    Hop,
    Route,
    add_route,
    delete_route,
    filled,
)
from ..values import dataclass
from .plan import (
    BOUND_TABLE,
    DIVERTED_TABLE,
    LAST_METRIC,
    LAST_TABLE,
    STANDING,
    UNDERLAY_TABLE,
    Ending,
    Request,
    SteeringPlan,
)

# What a peer is not asked for where no route says so (RFC 1918, RFC 3927, RFC 4193).
PRIVATE = {
    Family.IPV4: ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"),
    Family.IPV6: ("fc00::/7",),
}
_DEFAULT_LIKE = {Family.IPV4: 1, Family.IPV6: 3}  # 0/1 and 128/1, 2000::/3: defaults in disguise


Place = tuple[Any, ...]
Table = dict[Place, list[Route]]
"""Routes by their place (family, table, destination, source, TOS, metric)."""


def as_table(routes: Iterable[Route]) -> Table:
    found: Table = {}
    for route in routes:
        found.setdefault(route.place, []).append(route)
    return found


def is_default_like(route: Route) -> bool:
    """Whether the route is a default, or a half of one as VPNs set it."""
    bits = route.length
    return bits < 4 and bits <= _DEFAULT_LIKE[route.family] and route.kind == UNICAST


@dataclass(frozen=True, slots=True)
class DivertedCopy:
    """How routes of main are copied into table 5180: without the `dead` devices' gateways, and with
    defaults by `default_devices` only. `instead` is the way of exceptions from an owner's VPN.
    """

    dead: frozenset[int]
    gateways: frozenset[tuple[int, str]]
    ours: frozenset[int]
    default_devices: frozenset[int]
    keeps_refusals: bool
    instead: Hop | None

    def copy(self, route: Route) -> Route | None:
        """The route without what is dead; None where nothing of it is left."""
        if not route.length and route.kind != UNICAST and not self.keeps_refusals:
            return None  # it stands behind the dead WAN's default, and behind the chosen path too
        hops = tuple(h for h in route.hops if not _is_dead(route, h, self.dead, self.gateways))
        if is_default_like(route):
            hops = tuple(h for h in hops if h.index not in self.ours)
            if not route.length:
                hops = tuple(h for h in hops if h.index in self.default_devices)
        if route.hops and not hops:
            return None
        return _copy(route, hops, DIVERTED_TABLE)

    def exceptions(self, main: Iterable[Route], kept: Iterable[Route]) -> list[Route]:
        """Routes by a dead WAN that kept something out of an owner's tunnel, by the chosen path."""
        if self.instead is None:
            return []
        live = {_prefix_bits(r) for r in kept if r.destination and not is_default_like(r)}
        found = []
        for route in main:
            if is_default_like(route) or not route.hops or self.copy(route) is not None:
                continue
            if not _is_covered(route, live):
                moved = _copy(route, (self.instead,), DIVERTED_TABLE)
                is_link = not self.instead.gateway and route.family is Family.IPV4
                found.append(replace(moved, other=(), scope=SCOPE_LINK if is_link else 0))
        return found


@dataclass(frozen=True, slots=True)
class UnderlayCopy:
    """How routes of main are copied into table 5179: live networks and host routes, no tunnel."""

    dead: frozenset[int]
    gateways: frozenset[tuple[int, str]]
    never: frozenset[int]

    def copy(self, route: Route) -> Route | None:
        """The route by what outer packets may use; None where nothing of it is left."""
        if is_default_like(route) or route.kind != UNICAST:
            return None
        hops = tuple(
            h
            for h in route.hops
            if h.index not in self.never and not _is_dead(route, h, self.dead, self.gateways)
        )
        return _copy(route, hops, UNDERLAY_TABLE) if hops else None

    def exceptions(self, main: Iterable[Route], kept: Iterable[Route]) -> list[Route]:
        """None."""
        return []

    instead = None


class TableCopy:
    """A table of ours that follows main, route by route, and has `more` routes besides."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.table: Table = {}
        self._how: DivertedCopy | UnderlayCopy | None = None
        self._more: list[Route] = []

    def follow(
        self,
        how: DivertedCopy | UnderlayCopy | None,
        more: list[Route],
        main: Table,
        touched: Iterable[Place],
    ) -> Iterable[Place] | None:
        """Bring it up to date once these places of main changed; its own places that may differ
        now, None: any. Without `how` it is empty.
        """
        is_same = how == self._how and more == self._more
        if is_same and how is not None and how.instead is None:
            changed = []
            for place in touched:
                kept = [copy for route in main.get(place, ()) if (copy := how.copy(route))]
                changed.append((place[0], self.number, *place[2:]))
                kept += [route for route in more if route.place == changed[-1]]
                self.table.pop(changed[-1], None)
                if kept:
                    self.table[changed[-1]] = kept
            return changed
        self._how, self._more = how, more
        if how is None:
            self.table = {}
            return None
        routes = [route for held in main.values() for route in held]
        kept = [copy for route in routes if (copy := how.copy(route))]
        self.table = as_table([*kept, *how.exceptions(routes, kept), *more])
        return None


def diverted_copy(
    plan: SteeringPlan, family: Family, defaults: Sequence[Route], indexes: Mapping[str, int]
) -> DivertedCopy | None:
    """The copy for the family's diversion, or for the one that is to be expected; None: none.

    `defaults` are main's routes that are defaults or like them.
    """
    diversion = plan.diversions.get(family)
    dead = diversion.dead if diversion is not None else (plan.primary.get(family, ""),)
    if diversion is None and not any(dead):
        return None  # where the router never had a WAN, a diversion has none to take out
    dead_indexes = _indexes(dead, indexes)
    private, wans = _indexes(plan.private, indexes), _indexes(plan.known(family), indexes)
    to_tunnel = diversion is not None and diversion.route.device not in plan.known(family)
    held_back = diversion is not None and diversion.ending is Ending.UNREACHABLE
    by_default = {h.index for r in defaults if not r.length for h in r.hops} - dead_indexes
    found = DivertedCopy(
        dead_indexes,
        _gateways(defaults, dead_indexes, plan.wans.get(family, ()), indexes),
        _indexes(plan.tunnels, indexes),
        (private if to_tunnel else private | wans) & by_default,
        held_back,
        None,
    )
    copies = [copy for route in defaults if (copy := found.copy(route))]
    is_tunnelled = any(hop.index in private for copy in copies for hop in copy.hops)
    if diversion is not None and (is_tunnelled or held_back):
        return replace(found, instead=_hop(diversion.route, indexes))
    return found


def _indexes(names: Iterable[str], indexes: Mapping[str, int]) -> frozenset[int]:
    return frozenset(indexes[name] for name in names if name in indexes)


def _gateways(
    defaults: Iterable[Route],
    dead: Collection[int],
    wans: Iterable[DefaultRoute],
    indexes: Mapping[str, int],
) -> frozenset[tuple[int, str]]:
    """(device, gateway) of the dead WANs' default routes, those that are gone by now too."""
    found = {(h.index, h.gateway) for r in defaults for h in r.hops}
    remembered = {(indexes.get(wan.device, 0), wan.gateway) for wan in wans}
    return frozenset(each for each in found | remembered if each[0] in dead)


def _is_dead(
    route: Route, hop: Hop, dead: Collection[int], gateways: Collection[tuple[int, str]]
) -> bool:
    """Whether the hop needs what is dead: the WAN's gateway, or a WAN without one (PPPoE).

    The WAN's own network stays, and what another router in it leads to.
    """
    if hop.index not in dead:
        return False
    if is_default_like(route):
        return True
    if hop.gateway:
        return (hop.index, hop.gateway) in gateways
    return route.protocol != PROTO_KERNEL and any(
        index == hop.index and not gateway for index, gateway in gateways
    )


@lru_cache(maxsize=REMEMBERED)
def _copy(route: Route, hops: tuple[Hop, ...], table: int) -> Route:
    return replace(route, table=table, hops=filled(hops), protocol=STANDING)


def _prefix_bits(route: Route) -> tuple[int, int]:
    """The destination's prefix length, and its bits to the right end."""
    address = ipaddress.ip_address(route.destination.partition("/")[0])
    return route.length, int(address) >> (address.max_prefixlen - route.length)


def _is_covered(route: Route, live: Collection[tuple[int, int]]) -> bool:
    """Whether a live route that is no default leads there too. A VPN may have 1,000 exceptions."""
    length, bits = _prefix_bits(route)
    return any((length - up, bits >> up) in live for up in range(length))


def portal_routes(plan: SteeringPlan, family: Family, indexes: Mapping[str, int]) -> list[Route]:
    """Addresses that stay on their WAN: a captive portal's own."""
    found = []
    known = {route.device: route for route in plan.wans.get(family, ())}
    for device, addresses in plan.portals.items():
        hop = _hop(known[device], indexes) if device in known else None
        for address in addresses if hop is not None else ():
            if Family.of(address) is family and hop is not None:
                found.append(_leading(family, DIVERTED_TABLE, _host(address), hop, 0))
    return found


def last_table(plan: SteeringPlan, family: Family, indexes: Mapping[str, int]) -> Table:
    """Table 5181: the chosen path for what has no route, or nothing but a refusal.

    Before a diversion nothing asks it, and it has the path that will probably be chosen.
    """
    diversion = plan.diversions.get(family)
    if diversion is None:
        return _way_table(plan, DefaultRoute(family, plan.preferred), LAST_TABLE, indexes)
    if diversion.ending is Ending.PATH:
        return _way_table(plan, diversion.route, LAST_TABLE, indexes)
    return as_table([Route(family, LAST_TABLE, "", (), LAST_METRIC, UNREACHABLE, STANDING)])


def path_table(
    plan: SteeringPlan, family: Family, device: str, table: int, indexes: Mapping[str, int]
) -> Table:
    """A path's own table, for connections that stay on it."""
    known = {route.device: route for route in plan.wans.get(family, ())}
    way = known.get(device) or DefaultRoute(family, device)
    return _way_table(plan, way, table, indexes)


def _way_table(
    plan: SteeringPlan, way: DefaultRoute, table: int, indexes: Mapping[str, int]
) -> Table:
    hop, device = _hop(way, indexes), way.device
    if hop is None:
        return {}
    if device not in plan.tunnels:
        return as_table([_leading(way.family, table, "", hop, 1)])
    return _tunnel_table(way.family, table, hop, plan.resolvers.get(device, ()))


@lru_cache(maxsize=16)  # a switch asks for what it asked for before
def _tunnel_table(family: Family, table: int, hop: Hop, resolvers: tuple[str, ...]) -> Table:
    """The tunnel's default, resolvers inside, and no private networks."""
    inside = (_host(address) for address in resolvers if Family.of(address) is family)
    return as_table(
        [
            _leading(family, table, "", hop, 1),
            *(_leading(family, table, address, hop, 0) for address in inside),
            *(Route(family, table, p, (), 1, UNREACHABLE, STANDING) for p in PRIVATE[family]),
        ]
    )


def unbound_wans(
    plan: SteeringPlan, family: Family, defaults: Iterable[Route], indexes: Mapping[str, int]
) -> list[str]:
    """The WANs of a balanced IPv6 default whose hops are a nexthop object's: Linux leads a socket
    that is bound to one of them by any (`ip -6 route get` with `oif`, Linux 6.18).
    """
    of_object = (r for r in defaults if r.is_by_object and len(r.hops) > 1)
    found = {hop.index for r in of_object if family is Family.IPV6 for hop in r.hops}
    return sorted(name for name in plan.known(family) if indexes.get(name) in found)


def bound_table(
    plan: SteeringPlan, family: Family, indexes: Mapping[str, int], unbound: Iterable[str] = ()
) -> Table:
    """Table 5182: a default by each tunnel, and by WANs that are not bound to in main; of these a
    bound socket finds its own.
    """
    known = {route.device: route for route in reversed(plan.wans.get(family, ()))}
    ways = [DefaultRoute(family, name) for name in plan.tunnels]
    hops = (_hop(way, indexes) for way in (*ways, *(known[name] for name in unbound)))
    return _bound(family, tuple((n, hop) for n, hop in enumerate(hops, start=1) if hop))


@lru_cache(maxsize=8)  # a switch asks for what it asked for before
def _bound(family: Family, ways: tuple[tuple[int, Hop], ...]) -> Table:
    return as_table(_leading(family, BOUND_TABLE, "", hop, metric) for metric, hop in ways)


def underlay_copy(
    plan: SteeringPlan, family: Family, defaults: Sequence[Route], indexes: Mapping[str, int]
) -> UnderlayCopy:
    """The copy for outer packets. What is dead counts only while a WAN is alive."""
    wans = [r for r in plan.wans.get(family, ()) if r.device in indexes]
    dead = [r.device for r in wans if r.device in plan.dead.get(family, ())]
    dead_indexes = _indexes(dead if len(dead) < len(wans) else (), indexes)
    never = _indexes((*plan.tunnels, *plan.private, PROVIDER_DEVICE), indexes)
    return UnderlayCopy(dead_indexes, _gateways(defaults, dead_indexes, wans, indexes), never)


def underlay_defaults(
    plan: SteeringPlan, family: Family, defaults: Sequence[Route], indexes: Mapping[str, int]
) -> list[Route]:
    """Table 5179's defaults: the WANs, best first, then a refusal.

    Dead WANs are in it only where all are dead; never a tunnel.
    """
    wans = [r for r in plan.wans.get(family, ()) if r.device in indexes]
    live = [r for r in wans if r.device not in plan.dead.get(family, ())]
    present = {h.index for r in defaults for h in r.hops}
    found = []
    for number, wan in enumerate(live or wans, start=1):
        hop = _hop(wan, indexes)
        if hop is not None and hop.index in present:
            found.append(_leading(family, UNDERLAY_TABLE, "", hop, 10 * number))
    refused = Route(family, UNDERLAY_TABLE, "", (), LAST_METRIC, UNREACHABLE, STANDING)
    return [*found, refused]


def plan_table(
    found: Table, wanted: Table, places: Iterable[Place] | None = None
) -> tuple[list[Request], list[Request]]:
    """The additions and the removals that turn a found table into the wanted one.

    Where `places` are given only those may differ. A route that takes another's place replaces it,
    so that no packet meets a gap.
    """
    added: list[Request] = []
    removed: list[Request] = []
    for place in [*wanted, *(p for p in found if p not in wanted)] if places is None else places:
        had, want = found.get(place, ()), wanted.get(place, ())
        if len(had) == 1 == len(want) and _is_same(had[0], want[0]):
            continue
        new = [route for route in want if not any(_is_same(route, each) for each in had)]
        gone = [route for route in had if not any(_is_same(route, each) for each in want)]
        if new and len(had) == 1 and len(want) == 1:
            added.append(Request(add_route(new[0], netlink.REPLACE), new[0]))
            continue
        added += [Request(add_route(route), route) for route in new]
        removed += [Request(delete_route(route), route, True) for route in gone]
    return added, removed


def _is_same(one: Route, other: Route) -> bool:
    return one is other or one.identity == other.identity


def _hop(route: DefaultRoute, indexes: Mapping[str, int]) -> Hop | None:
    index = indexes.get(route.device)
    if index is None:
        return None
    return Hop(index, route.gateway, 0, ONLINK if route.gateway else 0)


def _leading(family: Family, table: int, destination: str, hop: Hop, metric: int) -> Route:
    scope = SCOPE_LINK if family is Family.IPV4 and not hop.gateway else 0
    return Route(family, table, destination, (hop,), metric, UNICAST, STANDING, scope)


def _host(address: str) -> str:
    return f"{address}/{128 if ':' in address else 32}"
