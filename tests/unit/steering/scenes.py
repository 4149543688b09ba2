"""Routers as routes and plans, for tests of what steering makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rpcd_wireguard_uplink.model import DefaultRoute, Family
from rpcd_wireguard_uplink.steering import tables
from rpcd_wireguard_uplink.steering.plan import (
    DIVERTED_TABLE,
    UNDERLAY_TABLE,
    Diversion,
    Ending,
    Request,
    SteeringPlan,
)
from rpcd_wireguard_uplink.steering.rules import plan_rules
from rpcd_wireguard_uplink.system.rtnetlink import MAIN, PROTO_KERNEL, SCOPE_LINK, Hop, Route, Rule

V4, V6 = Family.IPV4, Family.IPV6
INDEXES = {
    "lo": 1,
    "wan": 2,
    "wan2": 3,
    "lan": 4,
    "wgup_a": 5,
    "wgup_b": 6,
    "vpn": 7,
    "wgup_srv": 8,
    "ppp": 9,
}
NAMES = {index: name for name, index in INDEXES.items()}
GATEWAYS = {
    V4: {"wan": "192.0.2.1", "wan2": "198.51.100.1", "ppp": ""},
    V6: {"wan": "fe80::1", "wan2": "fe80::2", "ppp": ""},
}


def hop(device: str, gateway: str = "", weight: int = 0) -> Hop:
    return Hop(INDEXES[device], gateway, weight)


def by(destination: str, *hops: Hop | str, metric: int = 0, source: str = "") -> Route:
    """A route of main ('' or '::': the default), by these hops or devices."""
    family = V6 if ":" in destination + source else V4
    ways = tuple(hop(way) if isinstance(way, str) else way for way in hops)
    place = "" if destination == "::" else destination
    return Route(family, MAIN, place, ways, metric, protocol=3, source=source)


def connected(destination: str, device: str) -> Route:
    family = V6 if ":" in destination else V4
    scope = SCOPE_LINK if family is V4 else 0
    return Route(family, MAIN, destination, (hop(device),), 0, protocol=PROTO_KERNEL, scope=scope)


def default(device: str, family: Family = V4, metric: int = 5) -> Route:
    gateway = GATEWAYS[family].get(device, "")
    return by("" if family is V4 else "::", hop(device, gateway), metric=metric)


def wan_route(device: str, family: Family = V4, metric: int = 5) -> DefaultRoute:
    return DefaultRoute(family, device, GATEWAYS[family].get(device, ""), metric)


def diversion(
    to: str = "wgup_a",
    dead: tuple[str, ...] = ("wan",),
    family: Family = V4,
    ending: Ending = Ending.PATH,
) -> Diversion:
    known = GATEWAYS[family]
    route = wan_route(to, family, 0) if to in known else DefaultRoute(family, to)
    return Diversion(family, dead, route, ending)


def plan(
    *diversions: Diversion,
    wans: tuple[str, ...] = ("wan", "wan2"),
    tunnels: tuple[str, ...] = ("wgup_a", "wgup_b"),
    private: tuple[str, ...] = (),
    dead: tuple[str, ...] = (),
    primary: str = "",
    portals: Mapping[str, tuple[str, ...]] | None = None,
    resolvers: Mapping[str, tuple[str, ...]] | None = None,
    marks: tuple[int, ...] = (),
) -> SteeringPlan:
    return SteeringPlan(
        tunnels=tunnels,
        private=frozenset(private),
        wans={f: tuple(wan_route(w, f) for w in wans) for f in Family},
        primary=dict.fromkeys(Family, primary) if primary else {},
        dead={f: frozenset(dead) for f in Family},
        diversions={each.family: each for each in diversions},
        portals=portals or {},
        resolvers=resolvers or {},
        marks=marks,
    )


def ways(routes: list[Route]) -> dict[str, str]:
    """Destination ('' for the default) -> device and gateway of each hop, by metric."""
    found: dict[str, list[str]] = {}
    for route in sorted(routes, key=lambda each: each.metric):
        hops = [f"{NAMES[h.index]} {h.gateway}".strip() for h in route.hops]
        found.setdefault(route.destination, []).extend(hops or ["refused"])
    return {destination: ", ".join(hops) for destination, hops in found.items()}


def diverted_routes(
    wish: SteeringPlan, family: Family, main: Sequence[Route], indexes: Mapping[str, int]
) -> list[Route]:
    """Table 5180."""
    how = tables.diverted_copy(wish, family, _defaults(main), indexes)
    more = tables.portal_routes(wish, family, indexes) if how else []
    return _copied(DIVERTED_TABLE, how, more, main)


def underlay_routes(
    wish: SteeringPlan, family: Family, main: Sequence[Route], indexes: Mapping[str, int]
) -> list[Route]:
    """Table 5179."""
    defaults = _defaults(main)
    how = tables.underlay_copy(wish, family, defaults, indexes)
    more = tables.underlay_defaults(wish, family, defaults, indexes)
    return _copied(UNDERLAY_TABLE, how, more, main)


def last_routes(wish: SteeringPlan, family: Family, indexes: Mapping[str, int]) -> list[Route]:
    """Table 5181."""
    return _unfolded(tables.last_table(wish, family, indexes))


def path_routes(wish: SteeringPlan, family: Family, path: str, number: int) -> list[Route]:
    """A path's own table."""
    return _unfolded(tables.path_table(wish, family, path, number, INDEXES))


def _unfolded(table: tables.Table) -> list[Route]:
    return [route for routes in table.values() for route in routes]


def _defaults(main: Sequence[Route]) -> list[Route]:
    return [route for route in main if tables.is_default_like(route)]


def _copied(
    number: int,
    how: tables.DivertedCopy | tables.UnderlayCopy | None,
    more: list[Route],
    main: Sequence[Route],
) -> list[Route]:
    copy = tables.TableCopy(number)
    copy.follow(how, more, tables.as_table(main), ())
    return _unfolded(copy.table)


def plan_changes(
    found: Sequence[Route], wanted: Sequence[Route], had: Sequence[Rule], want: Sequence[Rule]
) -> list[Request]:
    """What makes found routes and rules the wanted ones, in order."""
    added, removed = tables.plan_table(tables.as_table(found), tables.as_table(wanted))
    new, changed, gone = plan_rules(had, want)
    return [*added, *new, *changed, *gone, *removed]
