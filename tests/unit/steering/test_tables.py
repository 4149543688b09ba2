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
    plan,
    underlay_routes,
    wan_route,
    ways,
)

GATE4, GATE4B = hop("wan", "192.0.2.1"), hop("wan2", "198.51.100.1")
GATE6, GATE6B = hop("wan", "fe80::1"), hop("wan2", "fe80::2")
LAN4, LAN6 = connected("10.7.0.0/24", "lan"), connected("2001:db8:7::/64", "lan")
WAN_NET = connected("192.0.2.0/24", "wan")


def diverted(
    main: list[Route], wish: SteeringPlan | None = None, family: Family = V4
) -> dict[str, list[tuple[str, str]]]:
    wish = wish or plan(diversion(family=family))
    return ways(diverted_routes(wish, family, main, INDEXES))


# --- table 5180


def test_the_dead_wan_is_taken_out_and_the_rest_is_copied() -> None:
    main = [default("wan"), WAN_NET, LAN4, by("10.8.0.0/16", hop("lan", "10.7.0.2"))]
    assert diverted(main) == {
        "192.0.2.0/24": [("wan", "")],
        "10.7.0.0/24": [("lan", "")],
        "10.8.0.0/16": [("lan", "10.7.0.2")],
    }


def test_copies_are_ours_and_need_no_connected_network() -> None:
    main = [replace(by("10.8.0.0/16", hop("lan", "10.7.0.2"), metric=7), scope=3, tos=8)]
    [copied] = diverted_routes(plan(diversion()), V4, main, INDEXES)
    assert (copied.table, copied.protocol) == (DIVERTED_TABLE, STANDING)
    assert (copied.metric, copied.scope, copied.tos) == (7, 3, 8)
    assert copied.hops[0].flags & ONLINK


@pytest.mark.parametrize(
    "route",
    [
        by("203.0.113.9/32", GATE4),
        by("0.0.0.0/1", GATE4),
        by("128.0.0.0/1", GATE4),
        by("203.0.113.0/24", GATE4, metric=700),
    ],
)
def test_what_leads_by_the_dead_gateway_goes(route: Route) -> None:
    assert diverted([default("wan"), route]) == {}


def test_ipv6_likewise() -> None:
    main = [
        default("wan", V6),
        by("2000::/3", GATE6),
        by("2001:db8:9::1/128", GATE6),
        LAN6,
        connected("2001:db8:2::/64", "wan"),
    ]
    assert diverted(main, family=V6) == {
        "2001:db8:7::/64": [("lan", "")],
        "2001:db8:2::/64": [("wan", "")],
    }


@pytest.mark.parametrize(("family", "two"), [(V4, (GATE4, GATE4B)), (V6, (GATE6, GATE6B))])
def test_of_a_multipath_route_only_the_dead_hop_goes(family: Family, two: tuple[Hop, Hop]) -> None:
    destination = "203.0.113.0/24" if family is V4 else "2001:db8:9::/48"
    live = ("wan2", two[1].gateway)
    for order in (two, two[::-1]):
        main = [default("wan", family), by(destination, *order)]
        assert diverted(main, family=family) == {destination: [live]}
    balanced = [by("" if family is V4 else "::", *two)]
    to_wan2 = plan(diversion("wan2", family=family))
    assert diverted(balanced, to_wan2, family) == {"": [live]}
    assert diverted(balanced, family=family) == {}, "a tunnel was chosen: 5181 has it"


def test_another_routers_route_on_the_wans_segment_stays() -> None:
    main = [default("wan"), by("10.20.0.0/16", hop("wan", "192.0.2.7")), WAN_NET]
    assert diverted(main) == {"10.20.0.0/16": [("wan", "192.0.2.7")], "192.0.2.0/24": [("wan", "")]}


def test_a_wan_without_a_gateway_takes_its_routes_along() -> None:
    """PPPoE: what leads there by hand goes, the provider's own address stays."""
    main = [default("ppp"), by("203.0.113.0/24", "ppp"), connected("100.64.0.1/32", "ppp")]
    wish = plan(diversion(dead=("ppp",)), wans=("ppp",))
    assert diverted(main, wish) == {"100.64.0.1/32": [("ppp", "")]}


def test_source_specific_defaults_go_with_their_wan() -> None:
    """`default from PREFIX`, as netifd sets it; the other WAN's stays where that was chosen."""
    first = by("::", GATE6, source="2001:db8:1::/48")
    second = by("::", GATE6B, source="2001:db8:2::/48")
    wish = plan(diversion("wan2", family=V6))
    routes = diverted_routes(wish, V6, [first, second], INDEXES)
    assert [(r.source, r.hops[0].index) for r in routes] == [("2001:db8:2::/48", INDEXES["wan2"])]
    assert diverted([first, second], family=V6) == {}, "a tunnel was chosen"


def test_our_tunnels_defaults_are_never_copied() -> None:
    """mwan3 wants a default by each interface in main; the chosen path alone counts."""
    main = [default("wan"), by("", "wgup_a", metric=1001), by("0.0.0.0/1", "wgup_b")]
    assert diverted(main) == {}
    assert diverted([by("10.99.0.1/32", "wgup_a")]) == {"10.99.0.1/32": [("wgup_a", "")]}


def test_live_wans_keep_their_defaults_where_one_of_them_was_chosen() -> None:
    main = [default("wan"), default("wan2", metric=9)]
    assert diverted(main, plan(diversion("wan2"))) == {"": [("wan2", "198.51.100.1")]}
    assert diverted(main) == {}


def test_a_wan_that_the_owner_did_not_list_gets_nothing() -> None:
    """`list wan` has wan only: its death does not lead to an unlisted one."""
    main = [default("wan"), default("wan2", metric=9), by("10.20.0.0/16", GATE4B)]
    for wish in (plan(diversion(), wans=("wan",)), plan(diversion("wan"), wans=("wan",))):
        assert diverted(main, wish) == {"10.20.0.0/16": [("wan2", "198.51.100.1")]}


VPN_MAIN = [
    by("", hop("vpn"), metric=1),
    default("wan"),
    by("203.0.113.5/32", GATE4),  # the VPN's own server
    WAN_NET,
]


def test_an_owners_vpn_keeps_the_default_and_its_server_takes_the_chosen_path() -> None:
    found = diverted(VPN_MAIN, plan(diversion(), private=("vpn",)))
    assert found == {
        "": [("vpn", "")],
        "203.0.113.5/32": [("wgup_a", "")],
        "192.0.2.0/24": [("wan", "")],
    }
    found = diverted(VPN_MAIN, plan(diversion("wan2"), private=("vpn",)))
    assert found["203.0.113.5/32"] == [("wan2", "198.51.100.1")]


def test_a_vpn_of_two_halves() -> None:
    halves = [by("0.0.0.0/1", "vpn"), by("128.0.0.0/1", "vpn")]
    found = diverted([*halves, default("wan"), VPN_MAIN[2]], plan(diversion(), private=("vpn",)))
    assert found == {
        "0.0.0.0/1": [("vpn", "")],
        "128.0.0.0/1": [("vpn", "")],
        "203.0.113.5/32": [("wgup_a", "")],
    }


def test_a_copied_exception_has_the_scope_of_its_new_way() -> None:
    main = [replace(r, scope=0, other=((7, b"\1\2\3\4"),)) for r in VPN_MAIN]
    wish = plan(diversion(), private=("vpn",))
    [found] = [
        r for r in diverted_routes(wish, V4, main, INDEXES) if r.destination == "203.0.113.5/32"
    ]
    assert (found.scope, found.other, found.hops) == (SCOPE_LINK, (), (Hop(INDEXES["wgup_a"]),))


def test_an_exception_that_a_live_route_covers_is_not_needed() -> None:
    main = [*VPN_MAIN, by("203.0.113.0/24", hop("lan", "10.7.0.2"))]
    assert "203.0.113.5/32" not in diverted(main, plan(diversion(), private=("vpn",)))


def test_without_a_vpn_an_exception_is_no_exception() -> None:
    assert "203.0.113.5/32" not in diverted(VPN_MAIN[1:], plan(diversion(), private=("vpn",)))
    held = plan(diversion(ending=Ending.UNREACHABLE), private=("vpn",))
    assert diverted(VPN_MAIN[1:], held)["203.0.113.5/32"] == [("wgup_a", "")]


def test_the_table_is_there_before_the_outage() -> None:
    main = [default("wan"), default("wan2", metric=9), LAN4]
    found = diverted(main, plan(primary="wan"))
    assert found == {"": [("wan2", "198.51.100.1")], "10.7.0.0/24": [("lan", "")]}
    assert diverted(main, plan()) == {}, "nothing is diverted, nothing expected"


def test_the_lan_is_kept_where_no_wan_is_known() -> None:
    """A start in an outage: the twin of main's rule skips main, so 5180 must have its networks."""
    assert diverted([LAN4], plan(replace(diversion(), dead=()))) == {"10.7.0.0/24": [("lan", "")]}


def test_refusals_of_the_owner_stay() -> None:
    main = [default("wan"), replace(by("10.0.0.0/8"), kind=UNREACHABLE)]
    assert diverted(main) == {"10.0.0.0/8": [("refused", "")]}


def test_portals_stay_on_their_wan() -> None:
    wish = plan(diversion(), portals={"wan": ("192.0.2.80", "2001:db8::80"), "gone": ("1.2.3.4",)})
    assert diverted([default("wan")], wish) == {"192.0.2.80/32": [("wan", "192.0.2.1")]}
    six = plan(diversion(family=V6), portals={"wan": ("192.0.2.80", "2001:db8::80")})
    assert diverted([], six, V6) == {"2001:db8::80/128": [("wan", "fe80::1")]}


def test_devices_that_are_gone_are_no_error() -> None:
    few = {name: INDEXES[name] for name in ("lo", "lan")}
    wish = plan(
        diversion("wan2"), portals={"wan": ("192.0.2.80",)}, resolvers={"wgup_a": ("9.9.9.9",)}
    )
    assert diverted_routes(wish, V4, [LAN4], few)[0].destination == "10.7.0.0/24"
    assert tables.last_routes(wish, V4, few) == []
    assert tables.bound_table(wish, V4, few) == {}
    assert tables.path_routes(wish, V4, "wgup_a", 5202, few) == []
    assert [r.kind for r in underlay_routes(wish, V4, [], few)] == [UNREACHABLE]


# --- tables 5181, 5182 and those of paths


def test_the_last_table_leads_by_the_chosen_path() -> None:
    found = tables.last_routes(plan(diversion(), resolvers={"wgup_a": ("10.9.0.1",)}), V4, INDEXES)
    assert {r.table for r in found} == {LAST_TABLE}
    assert ways(found) == {
        "": [("wgup_a", "")],
        "10.9.0.1/32": [("wgup_a", "")],
        **{prefix: [("refused", "")] for prefix in tables.PRIVATE[V4]},
    }
    to_wan2 = tables.last_routes(plan(diversion("wan2")), V4, INDEXES)
    assert ways(to_wan2) == {"": [("wan2", "198.51.100.1")]}
    calm = tables.last_routes(plan(), V4, INDEXES)
    assert ways(calm) == {prefix: [("refused", "")] for prefix in tables.PRIVATE[V4]}


def test_an_unreachable_ending_refuses_everything() -> None:
    wish = plan(diversion(ending=Ending.UNREACHABLE))
    [found] = tables.last_routes(wish, V4, INDEXES)
    assert (found.destination, found.kind, found.metric) == ("", UNREACHABLE, LAST_METRIC)


def test_resolvers_of_the_other_family_are_not_in_the_tunnel() -> None:
    wish = plan(diversion(family=V6), resolvers={"wgup_a": ("10.9.0.1", "fd09::1")})
    found = ways(tables.last_routes(wish, V6, INDEXES))
    assert found == {
        "": [("wgup_a", "")],
        "fd09::1/128": [("wgup_a", "")],
        "fc00::/7": [("refused", "")],
    }


def test_a_paths_own_table() -> None:
    wish = plan(resolvers={"wgup_b": ("10.9.0.1",)})
    tunnel = tables.path_routes(wish, V4, "wgup_b", 5203, INDEXES)
    assert {r.table for r in tunnel} == {5203}
    assert ways(tunnel)["10.9.0.1/32"] == [("wgup_b", "")]
    assert ways(tables.path_routes(wish, V4, "wan", 5204, INDEXES)) == {"": [("wan", "192.0.2.1")]}


def test_a_bound_socket_finds_its_tunnel() -> None:
    found = [r for held in tables.bound_table(plan(), V4, INDEXES).values() for r in held]
    assert {r.table for r in found} == {BOUND_TABLE}
    assert ways(found) == {"": [("wgup_a", ""), ("wgup_b", "")]}
    assert len({r.metric for r in found}) == 2, "each has a place of its own"


# --- table 5179: the tunnels' own packets


def underlay(
    main: list[Route], wish: SteeringPlan, family: Family = V4
) -> dict[str, list[tuple[str, str]]]:
    found = underlay_routes(wish, family, main, INDEXES)
    assert {r.table for r in found} == {UNDERLAY_TABLE}
    assert (found[-1].kind, found[-1].metric) == (UNREACHABLE, LAST_METRIC), "never elsewhere"
    return ways(found[:-1])


BOTH = [default("wan"), default("wan2", metric=9)]
WAN1, WAN2 = ("wan", "192.0.2.1"), ("wan2", "198.51.100.1")


@pytest.mark.parametrize(
    ("dead", "wans", "order"),
    [
        ((), ("wan", "wan2"), [WAN1, WAN2]),
        ((), ("wan2", "wan"), [WAN2, WAN1]),
        (("wan",), ("wan", "wan2"), [WAN2]),
        (("wan2",), ("wan", "wan2"), [WAN1]),
        (("wan", "wan2"), ("wan", "wan2"), [WAN1, WAN2]),
    ],
)
def test_outer_packets_leave_by_the_best_live_wan(
    dead: tuple[str, ...], wans: tuple[str, ...], order: list[tuple[str, str]]
) -> None:
    assert underlay(BOTH, plan(dead=dead, wans=wans)) == {"": order}


def test_a_wan_without_a_route_is_no_way() -> None:
    assert underlay([default("wan2")], plan()) == {"": [WAN2]}
    assert underlay([], plan()) == {}


@pytest.mark.parametrize("device", ["wgup_a", "wgup_b", "vpn", PROVIDER_DEVICE])
def test_outer_packets_never_enter_a_tunnel(device: str) -> None:
    main = [
        *BOTH,
        by("", device, metric=1),
        by("0.0.0.0/1", device),
        by("203.0.113.0/24", device),
        by("203.0.114.0/24", hop(device), GATE4),
    ]
    assert underlay(main, plan(private=("vpn",))) == {"203.0.114.0/24": [WAN1], "": [WAN1, WAN2]}


def test_a_host_route_by_the_dead_wan_does_not_hold_outer_packets() -> None:
    main = [*BOTH, by("203.0.113.5/32", GATE4), WAN_NET, LAN4]
    assert underlay(main, plan(dead=("wan",))) == {
        "": [WAN2],
        "192.0.2.0/24": [("wan", "")],
        "10.7.0.0/24": [("lan", "")],
    }
    assert underlay(main, plan(dead=("wan", "wan2")))["203.0.113.5/32"] == [WAN1]
    assert underlay(main, plan())["203.0.113.5/32"] == [WAN1]


def test_refusals_in_main_do_not_hold_outer_packets() -> None:
    """A mesh's `unreachable 10.0.0.0/8` is about inner packets."""
    main = [*BOTH, replace(by("203.0.113.0/24"), kind=UNREACHABLE)]
    assert underlay(main, plan()) == {"": [WAN1, WAN2]}


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
        main.append(
            Route(
                family,
                254,
                draw(st.sampled_from(nets[family])),
                tuple(held),
                draw(st.integers(0, 3)),
                kind,
                draw(st.sampled_from((2, 3))),
                0,
                draw(st.sampled_from(sources)),
            )
        )
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
    assert found[nets[1]] == [("wgup_a", "")]
    assert underlay(main, plan())[nets[0]] == [("lan", "10.7.0.2")]


def test_a_chosen_wan_that_main_does_not_list_is_led_to_by_its_gateway() -> None:
    wish = replace(plan(), diversions={V4: replace(diversion(), route=DefaultRoute(V4, "ppp"))})
    [found] = tables.last_routes(wish, V4, INDEXES)
    assert (found.hops, found.scope) == ((Hop(INDEXES["ppp"]),), SCOPE_LINK)
    assert wan_route("wan").gateway == "192.0.2.1"


@given(st.lists(st.tuples(st.integers(2, 32), st.integers(0, 255)), min_size=2, max_size=8))
def test_coverage_is_that_of_networks(pairs: list[tuple[int, int]]) -> None:
    nets = [ipaddress.ip_network((n << 24, bits), strict=False) for bits, n in pairs]
    first, *others = nets
    server = by(str(first), GATE4)
    live = [by(str(net), hop("lan", "10.7.0.2")) for net in others]
    main = [by("", "vpn", metric=1), default("wan", metric=9), server, *live]
    found = diverted(main, plan(diversion(), private=("vpn",)))
    covered = any(first.subnet_of(net) for net in others)  # type: ignore[arg-type]
    assert (("wgup_a", "") in found.get(str(first), [])) is not covered


def test_a_route_by_a_gateway_whose_default_route_is_gone_goes_too() -> None:
    """Carrier loss takes the default route; other programs' host routes may stay."""
    assert diverted([by("203.0.113.9/32", GATE4), WAN_NET]) == {"192.0.2.0/24": [("wan", "")]}


def test_a_refusal_behind_the_dead_wans_default_stands_behind_the_chosen_path_too() -> None:
    last = Route(V4, 254, "", (), 9999, UNREACHABLE)
    assert diverted([default("wan"), last, LAN4]) == {"10.7.0.0/24": [("lan", "")]}
    held = plan(diversion(ending=Ending.UNREACHABLE))
    assert "" in diverted([default("wan"), last, LAN4], held)
