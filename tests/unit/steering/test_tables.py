"""Main routes in, our tables out: what a dead WAN takes along, and what stays."""

from __future__ import annotations

import ipaddress
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpcd_wireguard_uplink.model import PROVIDER_DEVICE, DefaultRoute, Family
from rpcd_wireguard_uplink.steering import tables
from rpcd_wireguard_uplink.steering.plan import (
    BOUND_TABLE,
    DIVERTED_TABLE,
    LAST_METRIC,
    LAST_TABLE,
    STANDING,
    UNDERLAY_TABLE,
    Ending,
    SteeringPlan,
)
from rpcd_wireguard_uplink.system.network import is_used
from rpcd_wireguard_uplink.system.rtnetlink import (
    ONLINK,
    SCOPE_LINK,
    UNICAST,
    UNREACHABLE,
    Hop,
    Route,
)
from tests.unit.steering.scenes import (
    INDEXES,
    NAMES,
    V4,
    V6,
    by,
    connected,
    default,
    diversion,
    diverted_routes,
    hop,
    last_routes,
    path_routes,
    plan,
    underlay_routes,
    ways,
)

GATE4, GATE4B = hop("wan", "192.0.2.1"), hop("wan2", "198.51.100.1")
GATE6, GATE6B = hop("wan", "fe80::1"), hop("wan2", "fe80::2")
LAN4, LAN6 = connected("10.7.0.0/24", "lan"), connected("2001:db8:7::/64", "lan")
WAN_NET = connected("192.0.2.0/24", "wan")


AWAY, AWAY6, HOME = plan(diversion()), plan(diversion(family=V6)), plan(primary="wan")
TO_WAN2, TO_WAN2_6 = plan(diversion("wan2")), plan(diversion("wan2", family=V6))
BEHIND_VPN = plan(diversion(), private=("vpn",))
HELD = plan(diversion(ending=Ending.UNREACHABLE), private=("vpn",))
VPN_MAIN = [
    by("", hop("vpn"), metric=1),
    default("wan"),
    by("203.0.113.5/32", GATE4),  # the VPN's own server
    WAN_NET,
]
HALVES = [by("0.0.0.0/1", "vpn"), by("128.0.0.0/1", "vpn")]
BALANCED4, BALANCED6 = (GATE4, GATE4B), (GATE6, GATE6B)
BOTH = [default("wan"), default("wan2", metric=9)]
BOTH_SOURCES = [
    by("::", GATE6, source="2001:db8:1::/48"),
    by("::", GATE6B, source="2001:db8:2::/48"),
]
LAST = Route(V4, 254, "", (), 9999, UNREACHABLE)
PORTALS = {"wan": ("192.0.2.80", "2001:db8::80"), "gone": ("1.2.3.4",)}


def diverted(
    main: list[Route], wish: SteeringPlan = AWAY, family: Family | None = None
) -> dict[str, str]:
    family = family or next(iter(wish.diversions), V4)
    return ways(diverted_routes(wish, family, main, INDEXES))


# --- table 5180

DIVERTED: dict[str, tuple[SteeringPlan, list[Route], dict[str, str]]] = {
    "the dead WAN is taken out and the rest is copied": (
        AWAY,
        [default("wan"), WAN_NET, LAN4, by("10.8.0.0/16", hop("lan", "10.7.0.2"))],
        {"192.0.2.0/24": "wan", "10.7.0.0/24": "lan", "10.8.0.0/16": "lan 10.7.0.2"},
    ),
    "what leads by the dead gateway goes": (
        AWAY,
        [
            default("wan"),
            by("203.0.113.9/32", GATE4),
            *(by("0.0.0.0/1", GATE4), by("128.0.0.0/1", GATE4)),
            by("203.0.113.0/24", GATE4, metric=700),
        ],
        {},
    ),
    "so it does in IPv6": (
        AWAY6,
        [
            *(default("wan", V6), by("2000::/3", GATE6), by("2001:db8:9::1/128", GATE6)),
            *(LAN6, connected("2001:db8:2::/64", "wan")),
        ],
        {"2001:db8:7::/64": "lan", "2001:db8:2::/64": "wan"},
    ),
    "carrier loss took the default route": (
        AWAY,
        [by("203.0.113.9/32", GATE4), WAN_NET],
        {"192.0.2.0/24": "wan"},
    ),
    "of a multipath route only the dead hop goes": (
        AWAY,
        [default("wan"), by("203.0.113.0/24", *BALANCED4)],
        {"203.0.113.0/24": "wan2 198.51.100.1"},
    ),
    "whatever their order": (
        AWAY,
        [default("wan"), by("203.0.113.0/24", *BALANCED4[::-1])],
        {"203.0.113.0/24": "wan2 198.51.100.1"},
    ),
    "in IPv6 too": (
        AWAY6,
        [default("wan", V6), by("2001:db8:9::/48", *BALANCED6)],
        {"2001:db8:9::/48": "wan2 fe80::2"},
    ),
    "balanced, the other WAN chosen": (TO_WAN2, [by("", *BALANCED4)], {"": "wan2 198.51.100.1"}),
    "balanced in IPv6": (TO_WAN2_6, [by("::", *BALANCED6)], {"": "wan2 fe80::2"}),
    "balanced, a tunnel chosen: 5181 has it": (AWAY, [by("", *BALANCED4)], {}),
    "balanced in IPv6, a tunnel chosen": (AWAY6, [by("::", *BALANCED6)], {}),
    "another router's route on the WAN's segment stays": (
        AWAY,
        [default("wan"), by("10.20.0.0/16", hop("wan", "192.0.2.7")), WAN_NET],
        {"10.20.0.0/16": "wan 192.0.2.7", "192.0.2.0/24": "wan"},
    ),
    "PPPoE: what leads there by hand goes, the provider's own address stays": (
        plan(diversion(dead=("ppp",)), wans=("ppp",)),
        [default("ppp"), by("203.0.113.0/24", "ppp"), connected("100.64.0.1/32", "ppp")],
        {"100.64.0.1/32": "ppp"},
    ),
    "`default from PREFIX` goes with its WAN": (TO_WAN2_6, BOTH_SOURCES, {"": "wan2 fe80::2"}),
    "both where a tunnel was chosen": (AWAY6, BOTH_SOURCES, {}),
    "mwan3 wants a default by each interface in main; the chosen path alone counts": (
        AWAY,
        [default("wan"), by("", "wgup_a", metric=1001), by("0.0.0.0/1", "wgup_b")],
        {},
    ),
    "a route by a tunnel": (AWAY, [by("10.99.0.1/32", "wgup_a")], {"10.99.0.1/32": "wgup_a"}),
    "a live WAN that was chosen keeps its default": (TO_WAN2, BOTH, {"": "wan2 198.51.100.1"}),
    "and only there": (AWAY, BOTH, {}),
    "a WAN that the owner did not list gets nothing": (
        plan(diversion(), wans=("wan",)),
        [*BOTH, by("10.20.0.0/16", GATE4B)],
        {"10.20.0.0/16": "wan2 198.51.100.1"},
    ),
    "nor while the primary is alive": (
        plan(diversion("wan"), wans=("wan",)),
        [*BOTH, by("10.20.0.0/16", GATE4B)],
        {"10.20.0.0/16": "wan2 198.51.100.1"},
    ),
    "an owner's VPN keeps the default and its server takes the chosen path": (
        BEHIND_VPN,
        VPN_MAIN,
        {"": "vpn", "203.0.113.5/32": "wgup_a", "192.0.2.0/24": "wan"},
    ),
    "another WAN": (
        plan(diversion("wan2"), private=("vpn",)),
        VPN_MAIN,
        {"": "vpn", "203.0.113.5/32": "wan2 198.51.100.1", "192.0.2.0/24": "wan"},
    ),
    "a VPN of two halves": (
        BEHIND_VPN,
        [*HALVES, default("wan"), VPN_MAIN[2]],
        {"0.0.0.0/1": "vpn", "128.0.0.0/1": "vpn", "203.0.113.5/32": "wgup_a"},
    ),
    "an exception that a live route covers is not needed": (
        BEHIND_VPN,
        [*VPN_MAIN, by("203.0.113.0/24", hop("lan", "10.7.0.2"))],
        {"": "vpn", "203.0.113.0/24": "lan 10.7.0.2", "192.0.2.0/24": "wan"},
    ),
    "an exception from no VPN": (BEHIND_VPN, VPN_MAIN[1:], {"192.0.2.0/24": "wan"}),
    "it is one where nothing else may leave": (
        HELD,
        VPN_MAIN[1:],
        {"203.0.113.5/32": "wgup_a", "192.0.2.0/24": "wan"},
    ),
    "the table is there before the outage": (
        HOME,
        [*BOTH, LAN4],
        {"": "wan2 198.51.100.1", "10.7.0.0/24": "lan"},
    ),
    "nothing is diverted, nothing expected": (plan(), [*BOTH, LAN4], {}),
    "a start in an outage: the twin skips main, whose networks are needed": (
        plan(replace(diversion(), dead=())),
        [LAN4],
        {"10.7.0.0/24": "lan"},
    ),
    "refusals of the owner stay": (
        AWAY,
        [default("wan"), replace(by("10.0.0.0/8"), kind=UNREACHABLE)],
        {"10.0.0.0/8": "refused"},
    ),
    "a refusal behind the dead WAN's default": (
        AWAY,
        [default("wan"), LAST, LAN4],
        {"10.7.0.0/24": "lan"},
    ),
    "it stays where nothing else may leave": (
        HELD,
        [default("wan"), LAST, LAN4],
        {"": "refused", "10.7.0.0/24": "lan"},
    ),
    "portals stay on their WAN": (
        plan(diversion(), portals=PORTALS),
        [default("wan")],
        {"192.0.2.80/32": "wan 192.0.2.1"},
    ),
    "portals in IPv6": (
        plan(diversion(family=V6), portals=PORTALS),
        [],
        {"2001:db8::80/128": "wan fe80::1"},
    ),
}


@pytest.mark.parametrize(("wish", "main", "wanted"), DIVERTED.values(), ids=DIVERTED)
def test_what_is_diverted(wish: SteeringPlan, main: list[Route], wanted: dict[str, str]) -> None:
    assert diverted(main, wish) == wanted


def test_copies_are_ours_and_need_no_connected_network() -> None:
    main = [replace(by("10.8.0.0/16", hop("lan", "10.7.0.2"), metric=7), scope=3, tos=8)]
    [copied] = diverted_routes(AWAY, V4, main, INDEXES)
    assert (copied.table, copied.protocol) == (DIVERTED_TABLE, STANDING)
    assert (copied.metric, copied.scope, copied.tos) == (7, 3, 8)
    assert copied.hops[0].flags & ONLINK
    [copied] = diverted_routes(TO_WAN2_6, V6, BOTH_SOURCES, INDEXES)
    assert copied.source == "2001:db8:2::/48"


def test_a_copied_exception_has_the_scope_of_its_new_way() -> None:
    main = [replace(r, scope=0, other=((7, b"\1\2\3\4"),)) for r in VPN_MAIN]
    copied = diverted_routes(BEHIND_VPN, V4, main, INDEXES)
    [found] = [r for r in copied if r.destination == "203.0.113.5/32"]
    assert (found.scope, found.other, found.hops) == (SCOPE_LINK, (), (Hop(INDEXES["wgup_a"]),))


def test_devices_that_are_gone_are_no_error() -> None:
    few = {name: INDEXES[name] for name in ("lo", "lan")}
    wish = plan(
        diversion("wan2"), portals={"wan": ("192.0.2.80",)}, resolvers={"wgup_a": ("9.9.9.9",)}
    )
    assert diverted_routes(wish, V4, [LAN4], few)[0].destination == "10.7.0.0/24"
    assert last_routes(wish, V4, few) == []
    assert tables.bound_table(wish, V4, few) == {}
    assert tables.path_table(wish, V4, "wgup_a", 5202, few) == {}
    assert [r.kind for r in underlay_routes(wish, V4, [], few)] == [UNREACHABLE]


# --- tables 5181, 5182 and those of paths

REFUSED = dict.fromkeys(tables.PRIVATE[V4], "refused")
RESOLVERS = {"wgup_a": ("10.9.0.1", "fd09::1")}


@pytest.mark.parametrize(
    ("wish", "wanted"),
    [
        (
            plan(diversion(), resolvers=RESOLVERS),
            {"": "wgup_a", "10.9.0.1/32": "wgup_a", **REFUSED},
        ),
        (
            plan(diversion(family=V6), resolvers=RESOLVERS),
            {"": "wgup_a", "fd09::1/128": "wgup_a", "fc00::/7": "refused"},
        ),
        (TO_WAN2, {"": "wan2 198.51.100.1"}),
        (replace(plan(), preferred="wgup_b"), {"": "wgup_b", **REFUSED}),
        # A WAN that main does not list is led to by its gateway.
        (
            replace(plan(), diversions={V4: replace(diversion(), route=DefaultRoute(V4, "ppp"))}),
            {"": "ppp"},
        ),
    ],
    ids=["a tunnel", "a tunnel in IPv6", "a WAN", "calm", "a WAN without a gateway"],
)
def test_the_last_table_leads_by_the_chosen_path(
    wish: SteeringPlan, wanted: dict[str, str]
) -> None:
    found = last_routes(wish, next(iter(wish.diversions), V4), INDEXES)
    assert {r.table for r in found} == {LAST_TABLE}
    assert ways(found) == wanted
    assert all(r.scope == SCOPE_LINK for r in found if r.hops == (Hop(INDEXES["ppp"]),))


def test_an_unreachable_ending_refuses_everything() -> None:
    [found] = last_routes(HELD, V4, INDEXES)
    assert (found.destination, found.kind, found.metric) == ("", UNREACHABLE, LAST_METRIC)


def test_a_paths_own_table() -> None:
    wish = plan(resolvers={"wgup_b": ("10.9.0.1",)})
    tunnel = path_routes(wish, V4, "wgup_b", 5203)
    assert {r.table for r in tunnel} == {5203}
    assert ways(tunnel)["10.9.0.1/32"] == "wgup_b"
    assert ways(path_routes(wish, V4, "wan", 5204)) == {"": "wan 192.0.2.1"}


def test_a_bound_socket_finds_its_tunnel() -> None:
    found = [r for held in tables.bound_table(plan(), V4, INDEXES).values() for r in held]
    assert {r.table for r in found} == {BOUND_TABLE}
    assert ways(found) == {"": "wgup_a, wgup_b"}
    assert len({r.metric for r in found}) == 2, "each has a place of its own"


def test_hops_of_an_object_do_not_bind_sockets_of_ipv6() -> None:
    by_object = replace(by("::", *BALANCED6), is_by_object=True)
    assert tables.unbound_wans(plan(), V6, [by_object], INDEXES) == ["wan", "wan2"]
    for other in (replace(by_object, is_by_object=False), replace(by_object, hops=(GATE6,))):
        assert tables.unbound_wans(plan(), V6, [other], INDEXES) == []
    assert tables.unbound_wans(plan(), V4, [by_object], INDEXES) == []
    held = tables.bound_table(plan(), V6, INDEXES, ["wan2"]).values()
    found = sorted((r for each in held for r in each), key=lambda r: r.metric)
    assert [r.hops[0].index for r in found] == [
        INDEXES[name] for name in ("wgup_a", "wgup_b", "wan2")
    ]


# --- table 5179: the tunnels' own packets

WAN1, WAN2 = "wan 192.0.2.1", "wan2 198.51.100.1"
NEAR = {"192.0.2.0/24": "wan", "10.7.0.0/24": "lan"}
HOST = [*BOTH, by("203.0.113.5/32", GATE4), WAN_NET, LAN4]
UNDERLAYS: dict[str, tuple[SteeringPlan, list[Route], dict[str, str]]] = {
    "the best WAN first": (plan(), BOTH, {"": f"{WAN1}, {WAN2}"}),
    "the owner's order": (plan(wans=("wan2", "wan")), BOTH, {"": f"{WAN2}, {WAN1}"}),
    "live ones only": (plan(dead=("wan",)), BOTH, {"": WAN2}),
    "the first is alive": (plan(dead=("wan2",)), BOTH, {"": WAN1}),
    "all are dead": (plan(dead=("wan", "wan2")), BOTH, {"": f"{WAN1}, {WAN2}"}),
    "a WAN without a route is no way": (plan(), [default("wan2")], {"": WAN2}),
    "no route at all": (plan(), [], {}),
    "a host route by a live WAN": (
        plan(),
        HOST,
        {"": f"{WAN1}, {WAN2}", "203.0.113.5/32": WAN1, **NEAR},
    ),
    "a host route by the dead WAN holds nothing": (plan(dead=("wan",)), HOST, {"": WAN2, **NEAR}),
    "where all are dead it counts again": (
        plan(dead=("wan", "wan2")),
        HOST,
        {"": f"{WAN1}, {WAN2}", "203.0.113.5/32": WAN1, **NEAR},
    ),
    "a mesh's `unreachable 10.0.0.0/8` is about inner packets": (
        plan(),
        [*BOTH, replace(by("203.0.113.0/24"), kind=UNREACHABLE)],
        {"": f"{WAN1}, {WAN2}"},
    ),
    **{
        f"never a tunnel: {device}": (
            plan(private=("vpn",)),
            [
                *BOTH,
                by("", device, metric=1),
                *(by("0.0.0.0/1", device), by("203.0.113.0/24", device)),
                by("203.0.114.0/24", hop(device), GATE4),
            ],
            {"203.0.114.0/24": WAN1, "": f"{WAN1}, {WAN2}"},
        )
        for device in ("wgup_a", "wgup_b", "vpn", PROVIDER_DEVICE)
    },
}


@pytest.mark.parametrize(("wish", "main", "wanted"), UNDERLAYS.values(), ids=UNDERLAYS)
def test_where_outer_packets_go(
    wish: SteeringPlan, main: list[Route], wanted: dict[str, str]
) -> None:
    found = underlay_routes(wish, V4, main, INDEXES)
    assert {r.table for r in found} == {UNDERLAY_TABLE}
    assert (found[-1].kind, found[-1].metric) == (UNREACHABLE, LAST_METRIC), "never elsewhere"
    assert ways(found[:-1]) == wanted


# --- is_used


@pytest.mark.parametrize(
    ("main", "used"),
    [
        ([default("wan2")], True),
        ([default("wan", metric=1), default("wan2", metric=2)], False),
        ([default("wan", metric=2), default("wan2", metric=1)], True),
        ([by("", GATE4, GATE4B)], True),
        ([default("wan", metric=1), by("203.0.113.0/24", GATE4B)], True),
        ([default("wan", metric=1), connected("198.51.100.0/24", "wan2")], False),
        ([by("::", GATE6), by("::", GATE6B, source="2001:db8::/32", metric=9)], True),
        ([], False),
    ],
)
def test_whether_a_wan_has_a_share(main: list[Route], used: bool) -> None:
    assert is_used(main, INDEXES["wan2"]) is used


# --- what holds for every router

DEVICES = ("wan", "wan2", "lan", "wgup_a", "wgup_b", "vpn", "ppp")


@st.composite
def routers(draw: st.DrawFn) -> tuple[Family, list[Route], SteeringPlan]:
    family = draw(st.sampled_from(Family))
    near = {V4: ("192.0.2.1", "192.0.2.7", "198.51.100.1"), V6: ("fe80::1", "fe80::7", "fe80::2")}
    one_hop = st.builds(
        Hop,
        st.sampled_from([INDEXES[d] for d in DEVICES]),
        st.sampled_from(("", *near[family])),
        st.integers(0, 3),
    )
    nets = {
        V4: ("", "0.0.0.0/1", "203.0.113.0/24", "203.0.113.5/32", "192.0.2.0/24", "10.0.0.0/8"),
        V6: ("", "2000::/3", "2001:db8::/32", "2001:db8::5/128", "fd00::/8"),
    }
    sources = ("", "2001:db8:1::/48") if family is V6 else ("",)
    kinds = st.sampled_from((UNICAST, UNICAST, UNICAST, UNREACHABLE))
    main = []
    for _ in range(draw(st.integers(0, 12))):
        kind = draw(kinds)
        held = draw(st.lists(one_hop, min_size=1, max_size=3)) if kind == UNICAST else []
        place, metric = draw(st.sampled_from(nets[family])), draw(st.integers(0, 3))
        protocol, source = draw(st.sampled_from((2, 3))), draw(st.sampled_from(sources))
        main.append(Route(family, 254, place, tuple(held), metric, kind, protocol, source=source))
    wans = draw(st.permutations(("wan", "wan2", "ppp")))[: draw(st.integers(1, 3))]
    dead = tuple(w for w in wans if draw(st.booleans()))
    to = draw(st.sampled_from([*(w for w in wans if w not in dead), "wgup_a", "wgup_b"]))
    ending = draw(st.sampled_from(Ending))
    away = [diversion(to, dead, family, ending)] if dead and draw(st.booleans()) else []
    primary = wans[0] if draw(st.booleans()) else ""
    private = ("vpn",) if draw(st.booleans()) else ()
    wish = plan(*away, wans=tuple(wans), private=private, dead=dead, primary=primary)
    return family, main, wish


@given(routers())
def test_no_diverted_route_needs_what_is_dead(
    scene: tuple[Family, list[Route], SteeringPlan],
) -> None:
    family, main, wish = scene
    away = wish.diversions.get(family)
    dead = away.dead if away else tuple(wish.primary.values())[:1]
    found = diverted_routes(wish, family, main, INDEXES)
    gateways = {
        (h.index, h.gateway)
        for r in main
        if tables.is_default_like(r)
        for h in r.hops
        if NAMES[h.index] in dead
    }
    for route in found:
        for way in route.hops:
            name = NAMES[way.index]
            assert not (way.gateway and (way.index, way.gateway) in gateways), route
            assert not (tables.is_default_like(route) and name in dead), route
            assert not (tables.is_default_like(route) and name in wish.tunnels), route
        assert (route.table, route.protocol, route.family) == (DIVERTED_TABLE, STANDING, family)


@given(routers())
def test_what_leads_elsewhere_is_kept(scene: tuple[Family, list[Route], SteeringPlan]) -> None:
    """No route of main is lost that is not by a dead WAN, a default, or a default's half."""
    family, main, wish = scene
    away = wish.diversions.get(family)
    dead = away.dead if away else tuple(wish.primary.values())[:1]
    found = diverted_routes(wish, family, main, INDEXES)
    if not dead:
        assert found == []
        return
    kept = {(r.place[2:], h.index, h.gateway) for r in found for h in r.hops}
    for route in main:
        for way in route.hops if not tables.is_default_like(route) else ():
            if NAMES[way.index] not in dead:
                assert (route.place[2:], way.index, way.gateway) in kept


@given(routers())
def test_no_tunnel_is_an_underlay(scene: tuple[Family, list[Route], SteeringPlan]) -> None:
    family, main, wish = scene
    found = underlay_routes(wish, family, main, INDEXES)
    never = {*wish.tunnels, *wish.private, PROVIDER_DEVICE}
    assert not any(NAMES[h.index] in never for r in found for h in r.hops)
    wans = [r.device for r in wish.wans[family]]
    live = [w for w in wans if w not in wish.dead[family]]
    for route in found:
        if tables.is_default_like(route):
            assert all(NAMES[h.index] in (live or wans) for h in route.hops)


def test_a_thousand_routes() -> None:
    """A router with a region's prefixes by its WAN, some by another router."""
    nets = [str(ipaddress.ip_network((0x0B000000 + n * 256, 24))) for n in range(1000)]
    main = [default("wan"), LAN4]
    main += [by(net, GATE4 if n % 2 else hop("lan", "10.7.0.2")) for n, net in enumerate(nets)]
    found = diverted(main)
    assert len(found) == 501
    behind_vpn = [by("", "vpn", metric=1), *main]
    begun_s = time.process_time()
    found = diverted(behind_vpn, plan(diversion(), private=("vpn",)))
    assert time.process_time() - begun_s < 2.0, "the service stands still for so long"
    assert len(found) == 1002
    assert found[nets[1]] == "wgup_a"
    assert ways(underlay_routes(plan(), V4, main, INDEXES))[nets[0]] == "lan 10.7.0.2"


@given(st.lists(st.tuples(st.integers(2, 32), st.integers(0, 255)), min_size=2, max_size=8))
def test_coverage_is_that_of_networks(pairs: list[tuple[int, int]]) -> None:
    nets = [ipaddress.ip_network((n << 24, bits), strict=False) for bits, n in pairs]
    first, *others = nets
    server = by(str(first), GATE4)
    live = [by(str(net), hop("lan", "10.7.0.2")) for net in others]
    main = [by("", "vpn", metric=1), default("wan", metric=9), server, *live]
    found = diverted(main, plan(diversion(), private=("vpn",)))
    covered = any(first.subnet_of(net) for net in others)  # type: ignore[arg-type]
    assert ("wgup_a" in found.get(str(first), "").split(", ")) is not covered
