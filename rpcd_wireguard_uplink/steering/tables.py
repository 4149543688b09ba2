"""The routes of our tables, derived from main and the plan. Pure: routes in, routes out.

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

from ..model import DefaultRoute, Family
from ..system.rtnetlink import (
    ONLINK,
    PROTO_KERNEL,
    REMEMBERED,
    SCOPE_LINK,
    UNICAST,
    UNREACHABLE,
    Hop,
    Route,
    filled,
)
from .plan import (
    BOUND_TABLE,
    DIVERTED_TABLE,
    LAST_METRIC,
    LAST_TABLE,
    STANDING,
    UNDERLAY_TABLE,
    Diversion,
    Ending,
    SteeringPlan,
)

# What a peer is not asked for where no route says so (RFC 1918, RFC 3927, RFC 4193).
PRIVATE = {
    Family.IPV4: ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"),
    Family.IPV6: ("fc00::/7",),
}
_DEFAULT_LIKE = {Family.IPV4: 1, Family.IPV6: 3}  # 0/1 and 128/1, 2000::/3: defaults in disguise


def is_default_like(route: Route) -> bool:
    """Whether the route is a default, or a half of one as VPNs set it."""
    bits = route.length
    return bits < 4 and bits <= _DEFAULT_LIKE[route.family] and route.kind == UNICAST


def diverted_routes(
    plan: SteeringPlan,
    family: Family,
    main: Sequence[Route],
    indexes: Mapping[str, int],
) -> list[Route]:
    """Table 5180 for the family's diversion, or for the one that is to be expected."""
    diversion = plan.diversions.get(family)
    dead = diversion.dead if diversion is not None else plan.expected.get(family, ())
    if diversion is None and not dead:
        return []  # where the router never had a WAN, a diversion has none to take out
    dead_indexes = {indexes[name] for name in dead if name in indexes}
    ours = {indexes[name] for name in plan.owned.tunnels if name in indexes}
    private = {indexes[name] for name in plan.owned.private if name in indexes}
    gateways = _gateways(main, dead_indexes, plan.owned.wans.get(family, ()), indexes)
    wans = {indexes[r.device] for r in plan.owned.wans.get(family, ()) if r.device in indexes}
    to_tunnel = diversion is not None and diversion.route.device not in {
        r.device for r in plan.owned.wans.get(family, ())
    }
    held_back = diversion is not None and diversion.ending is Ending.UNREACHABLE
    kept: list[Route] = []
    taken: list[Route] = []
    for route in main:
        if not route.length and route.kind != UNICAST and not held_back:
            continue  # it stands behind the dead WAN's default, and behind the chosen path too
        hops = tuple(h for h in route.hops if not _is_dead(route, h, dead_indexes, gateways))
        if is_default_like(route):
            hops = tuple(h for h in hops if h.index not in ours)
            if not route.length:
                allowed = private if to_tunnel else private | wans
                hops = tuple(h for h in hops if h.index in allowed)
        if route.hops and not hops:
            taken.append(route)
            continue
        kept.append(_copy(route, hops, DIVERTED_TABLE))
    kept += _exceptions(taken, kept, private, diversion, indexes)
    kept += portal_routes(plan, family, indexes)
    return kept


def _gateways(
    main: Iterable[Route],
    dead: Collection[int],
    wans: Iterable[DefaultRoute],
    indexes: Mapping[str, int],
) -> set[tuple[int, str]]:
    """(device, gateway) of the dead WANs' default routes, those that are gone by now too."""
    found = {
        (h.index, h.gateway) for r in main if is_default_like(r) for h in r.hops if h.index in dead
    }
    remembered = {(indexes.get(wan.device, 0), wan.gateway) for wan in wans}
    return found | {each for each in remembered if each[0] in dead}


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


def _exceptions(
    taken: Iterable[Route],
    kept: Iterable[Route],
    private: Collection[int],
    diversion: Diversion | None,
    indexes: Mapping[str, int],
) -> list[Route]:
    """Routes by a dead WAN that kept something out of an owner's tunnel, by the chosen path now."""
    tunnelled = [r for r in kept if is_default_like(r) and any(h.index in private for h in r.hops)]
    if diversion is None or not (tunnelled or diversion.ending is Ending.UNREACHABLE):
        return []
    hop = _hop(diversion.route, indexes)
    if hop is None:
        return []
    live = {_prefix_bits(r) for r in kept if r.destination and not is_default_like(r)}
    found = []
    for route in taken:
        if not is_default_like(route) and not _is_covered(route, live):
            copied = replace(_copy(route, (hop,), DIVERTED_TABLE), other=(), scope=0)
            if not hop.gateway and route.family is Family.IPV4:
                copied = replace(copied, scope=SCOPE_LINK)
            found.append(copied)
    return found


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
    known = {route.device: route for route in plan.owned.wans.get(family, ())}
    for device, addresses in plan.portals.items():
        hop = _hop(known[device], indexes) if device in known else None
        for address in addresses if hop is not None else ():
            if (":" in address) == (family is Family.IPV6) and hop is not None:
                found.append(_leading(family, DIVERTED_TABLE, _host(address), hop, 0))
    return found


def last_routes(plan: SteeringPlan, family: Family, indexes: Mapping[str, int]) -> list[Route]:
    """Table 5181: the chosen path for what has no route, or nothing but a refusal."""
    diversion = plan.diversions.get(family)
    if diversion is None:
        return []
    refused = Route(family, LAST_TABLE, "", (), LAST_METRIC, UNREACHABLE, STANDING)
    if diversion.ending is not Ending.PATH:
        return [refused]
    hop = _hop(diversion.route, indexes)
    if hop is None:
        return []
    found = [_leading(family, LAST_TABLE, "", hop, 1)]
    device = diversion.route.device
    if device in plan.owned.tunnels:
        found += tunnel_routes(plan, family, device, LAST_TABLE, indexes)
    return found


def tunnel_routes(
    plan: SteeringPlan, family: Family, device: str, table: int, indexes: Mapping[str, int]
) -> list[Route]:
    """What a tunnel's table has besides its default: resolvers inside, no private networks."""
    hop = Hop(indexes[device])
    inside = [
        _leading(family, table, _host(address), hop, 0)
        for address in plan.resolvers.get(device, ())
        if (":" in address) == (family is Family.IPV6)
    ]
    return inside + [
        Route(family, table, prefix, (), 1, UNREACHABLE, STANDING) for prefix in PRIVATE[family]
    ]


def path_routes(
    plan: SteeringPlan, family: Family, device: str, table: int, indexes: Mapping[str, int]
) -> list[Route]:
    """A path's own table, for connections that stay on it."""
    if device not in indexes:
        return []
    known = {route.device: route for route in plan.owned.wans.get(family, ())}
    hop = _hop(known.get(device) or DefaultRoute(family, device), indexes)
    found = [_leading(family, table, "", hop, 1)] if hop is not None else []
    if device in plan.owned.tunnels:
        found += tunnel_routes(plan, family, device, table, indexes)
    return found


def bound_routes(plan: SteeringPlan, family: Family, indexes: Mapping[str, int]) -> list[Route]:
    """Table 5182: a default by each tunnel, of which a bound socket finds its own."""
    ways = (
        (number, indexes[name])
        for number, name in enumerate(plan.owned.tunnels, start=1)
        if name in indexes
    )
    return list(_bound(family, tuple(ways)))


@lru_cache(maxsize=8)  # a switch asks for what it asked for before
def _bound(family: Family, ways: tuple[tuple[int, int], ...]) -> tuple[Route, ...]:
    return tuple(_leading(family, BOUND_TABLE, "", Hop(index), metric) for metric, index in ways)


def underlay_routes(
    plan: SteeringPlan,
    family: Family,
    main: Sequence[Route],
    indexes: Mapping[str, int],
    provider: str,
) -> list[Route]:
    """Table 5179: live networks and host routes, then the WANs, best first, then a refusal.

    Dead WANs come last, and only where all are dead; never a tunnel.
    """
    wans = [r for r in plan.owned.wans.get(family, ()) if r.device in indexes]
    dead = plan.dead.get(family, frozenset())
    live = [r for r in wans if r.device not in dead]
    never = {indexes[n] for n in (*plan.owned.tunnels, *plan.owned.private) if n in indexes}
    never |= {indexes[provider]} if provider in indexes else set()
    dead_indexes = {indexes[r.device] for r in wans if r.device in dead} if live else set()
    gateways = _gateways(main, dead_indexes, wans, indexes)
    found = []
    for route in main:
        if is_default_like(route) or route.kind != UNICAST:
            continue
        hops = tuple(
            h
            for h in route.hops
            if h.index not in never and not _is_dead(route, h, dead_indexes, gateways)
        )
        if hops:
            found.append(_copy(route, hops, UNDERLAY_TABLE))
    present = {h.index for r in main if is_default_like(r) for h in r.hops}
    for number, wan in enumerate(live or wans, start=1):
        hop = _hop(wan, indexes)
        if hop is not None and hop.index in present:
            found.append(_leading(family, UNDERLAY_TABLE, "", hop, 10 * number))
    refused = Route(family, UNDERLAY_TABLE, "", (), LAST_METRIC, UNREACHABLE, STANDING)
    return [*found, refused]


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
