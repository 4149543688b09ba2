"""The policy rules of a diversion: twins of the rules that ask main, and where they lead."""

from __future__ import annotations

import struct
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpcd_wireguard_uplink.model import LED_MARK, PROVIDER_DEVICE, Family
from rpcd_wireguard_uplink.steering import tables
from rpcd_wireguard_uplink.steering.plan import (
    BOUND_TABLE,
    DIVERTED_TABLE,
    DIVERTING,
    LAST_TABLE,
    STANDING,
    UNDERLAY_TABLE,
    Ending,
    SteeringPlan,
)
from rpcd_wireguard_uplink.steering.rules import (
    BOUND_PRIORITY,
    END_PRIORITY,
    FIRST_PRIORITY,
    diverting_rules,
    first_priority,
    led_rules,
    path_table,
    policy_sources,
    standing_rules,
)
from rpcd_wireguard_uplink.system.rtnetlink import (
    DELRULE,
    GOTO,
    INVERT,
    MAIN,
    TO_TABLE,
    Route,
    Rule,
    parse_rule,
    rule_selectors,
)
from tests.unit.steering.lookup import L3MDEV, NO_ROUTE, REFUSED, Packet, device_of
from tests.unit.steering.scenes import (
    INDEXES,
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
    plan_changes,
    underlay_routes,
)

LOCAL, LOOKUP_MAIN, LOOKUP_DEFAULT = Rule(V4, 0, 255), Rule(V4, 32766, MAIN), Rule(V4, 32767, 253)
KERNEL = [LOCAL, LOOKUP_MAIN, LOOKUP_DEFAULT]
WG_MARK = rule_selectors(mark=(0xCA6C, 0xFFFFFFFF))
SUPPRESSED = ((14, bytes(4)),)
FROM_LAN = {"selectors": ((2, bytes((10, 7, 0, 0))),), "lengths": (0, 16, 0)}


def twins(
    *others: Rule,
    bound: Collection[str] = (),
    marks: Collection[int] = (),
    live: Collection[int] = (),
    wish: SteeringPlan | None = None,
) -> list[Rule]:
    wish = replace(wish or plan(diversion()), marks=tuple(marks))
    return diverting_rules(wish, V4, [*KERNEL, *others], bound, live)


def at(rules: Sequence[Rule], priority: int) -> list[tuple[int, int]]:
    """(table, or target of a goto) of the rules at a preference."""
    return [(rule.table, rule.target) for rule in rules if rule.priority == priority]


def listed(rules: Sequence[Rule]) -> dict[int, str]:
    """What is asked at each preference, in order."""
    tables = {DIVERTED_TABLE: "diverted", LAST_TABLE: "last", MAIN: "main"}
    found: dict[int, list[str]] = {}
    for rule in rules:
        word = f"goto {rule.target}" if rule.action == GOTO else tables[rule.table]
        oif = f" by {rule.output_device}" if rule.output_device else ""
        found.setdefault(rule.priority, []).append(word + oif)
    return {priority: ", ".join(words) for priority, words in found.items()}


# --- standing


def test_the_standing_rules() -> None:
    rules = standing_rules(plan(), V4, KERNEL, [3])
    assert {rule.protocol for rule in rules} == {STANDING}
    assert {rule.priority for rule in rules} == {FIRST_PRIORITY, BOUND_PRIORITY}
    first = [(r.table, r.mark, r.input_device) for r in rules if r.priority == FIRST_PRIORITY]
    assert first == [
        (UNDERLAY_TABLE, (0x51, 0xFF), ""),
        (MAIN, (0x52, 0xFF), ""),
        (BOUND_TABLE, (0x52, 0xFF), ""),
        (UNDERLAY_TABLE, (0, 0), PROVIDER_DEVICE),
        (MAIN, (0x01000000, 0x3F000000), ""),
        (path_table(3), (0x03000000, 0xBF000000), ""),
    ]
    last = [(r.table, r.output_device) for r in rules if r.priority == BOUND_PRIORITY]
    assert last == [(BOUND_TABLE, "wgup_a"), (BOUND_TABLE, "wgup_b")]


def test_sockets_that_main_does_not_bind_ask_another_table_first() -> None:
    rules = standing_rules(plan(), V6, KERNEL, [], ["wan", "wan2"])
    asked = [(r.table, r.output_device) for r in rules if r.mark == (0x52, 0xFF)]
    assert asked == [(BOUND_TABLE, "wan"), (BOUND_TABLE, "wan2"), (MAIN, ""), (BOUND_TABLE, "")]


@pytest.mark.parametrize(
    ("others", "first"),
    [
        ([], 99),
        (KERNEL, 99),
        ([*KERNEL, Rule(V4, 100, 7)], 99),
        ([*KERNEL, Rule(V4, 99, 7)], 98),
        ([*KERNEL, Rule(V4, 98, MAIN), Rule(V4, 97, 51820)], 96),
        ([*KERNEL, Rule(V4, 1, 7)], 0),
    ],
)
def test_ours_move_before_everybodys(others: list[Rule], first: int) -> None:
    assert first_priority(others) == first
    found = standing_rules(plan(), V4, others, [])
    assert min(rule.priority for rule in found) == first


def test_our_own_rules_do_not_push_us_on() -> None:
    ours = standing_rules(plan(), V4, KERNEL, [3])
    twin = replace(LOOKUP_MAIN, priority=50, protocol=DIVERTING)
    assert standing_rules(plan(), V4, [*KERNEL, *ours, twin], [3]) == ours


def test_wg_quick_that_comes_later_and_goes_again() -> None:
    """It takes the preference below the lowest: ours, 99."""
    after = [*KERNEL, Rule(V4, 98, 51820, flags=INVERT, selectors=WG_MARK)]
    moved = standing_rules(plan(), V4, after, [])
    assert min(rule.priority for rule in moved) == 97
    assert min(rule.priority for rule in standing_rules(plan(), V4, KERNEL, [])) == 99


# --- twins


def test_nothing_is_diverted_without_a_diversion() -> None:
    assert twins(wish=plan()) == []
    assert diverting_rules(plan(diversion(family=V6)), V4, KERNEL, (), ()) == []


def mwan3(mark: int, table: int, priority: int, mask: int = 0x3F00) -> Rule:
    return Rule(V4, priority, table, selectors=rule_selectors(mark=(mark, mask)))


TAILSCALE = rule_selectors(mark=(0x80000, 0xFF0000))
ALONE = [Rule(V4, 32765, MAIN, selectors=SUPPRESSED)]
PBR = [Rule(V4, 30000, MAIN, selectors=((14, struct.pack("=I", 1)),))]
WG_QUICK = [
    Rule(V4, 32764, MAIN, selectors=SUPPRESSED),
    Rule(V4, 32765, 51820, flags=INVERT, selectors=WG_MARK),
]
MWAN3 = [mwan3(0x100, 1, 2001), mwan3(0x200, 2, 2002), mwan3(0x300, 3, 2003)]
BYPASS = [
    Rule(V4, 5210, MAIN, selectors=TAILSCALE),
    Rule(V4, 5230, 253, selectors=TAILSCALE),
    Rule(V4, 5250, 0, 7, TAILSCALE),
    Rule(V4, 5270, 52),
]
TWINS: dict[str, tuple[list[Rule], dict[str, Collection[Any]], dict[int, str]]] = {
    "main alone": (
        [],
        {"bound": ["wan", "vpn"]},
        {32765: "main by vpn, main by wan, diverted, goto 32767"},
    ),
    "Tailscale's own packets ask main, then would be refused": (
        BYPASS,
        {},
        {5209: "diverted, last, goto 5230"},
    ),
    "what is not in wg-quick's mark goes into it": (
        WG_QUICK,
        {"bound": ["wan"]},
        {32763: "diverted, goto 32765", 32765: "main by wan, diverted, goto 32767"},
    ),
    "mwan3's marks of dead WANs, none of a live one": (
        MWAN3,
        {"marks": [0x100, 0x200], "live": [2]},
        {2000: "diverted, last"},
    ),
    "a mark under another mask": ([mwan3(0x100, 1, 2001, 0xFF00)], {"marks": [0x100]}, {}),
    "no rule can stand before preference 0": ([Rule(V4, 0, MAIN)], {}, {}),
    "one can before 1": (
        [Rule(V4, 1, MAIN, selectors=WG_MARK)],
        {},
        {0: "diverted, last, goto 32765"},
    ),
    "owners' rules after main come before the end": (
        [Rule(V4, 40000, 77), Rule(V4, 50000, MAIN)],
        {},
        {49999: f"diverted, goto {END_PRIORITY}"},
    ),
    "pbr's main: past it there is but main, which is dead": (
        PBR,
        {},
        {29999: "diverted, goto 32765"},
    ),
    "another rule for main": ([Rule(V4, 100, MAIN)], {}, {99: "diverted, goto 32765"}),
    "past it to the next rule's twin": (
        [Rule(V4, 100, MAIN), mwan3(0x100, 1, 200)],
        {"marks": [0x100]},
        {99: "diverted, goto 199", 199: "diverted, last"},
    ),
    "a rule just before main": (
        ALONE,
        {"bound": ["wan"]},
        {
            32764: "diverted, main by wan, diverted, goto 32767, goto 32767",
            32765: "main by wan, diverted, goto 32767",
        },
    ),
    "rules behind everything": (
        [Rule(V4, 0xFFFFFFFF, MAIN), Rule(V4, 0xFFFFFFFE, MAIN, selectors=WG_MARK)],
        {},
        {0xFFFFFFFD: "diverted, last, diverted, last", END_PRIORITY: "diverted, last"},
    ),
}


@pytest.mark.parametrize(("others", "how", "wanted"), TWINS.values(), ids=TWINS)
def test_twins(others: list[Rule], how: dict[str, Collection[Any]], wanted: dict[int, str]) -> None:
    rules = twins(*others, **how)
    assert listed(rules) == {32765: "diverted, goto 32767", END_PRIORITY: "last", **wanted}
    assert {rule.protocol for rule in rules} == {DIVERTING}
    assert len({*rules}) == len(rules), "the kernel takes no rule twice"
    assert all(rule.target > rule.priority for rule in rules if rule.action == GOTO)
    assert {rule.mark for rule in rules if rule.priority == 2000} <= {(0x100, 0x3F00)}


def test_without_a_rule_for_default_the_end_is_the_next() -> None:
    only = diverting_rules(plan(diversion()), V4, [LOOKUP_MAIN, Rule(V4, 40000, 77)], (), ())
    assert at(only, 32765)[-1] == (0, BOUND_PRIORITY)


SELECTORS = [
    {"selectors": rule_selectors(mark=(0x80000, 0xFF0000))},
    {"selectors": WG_MARK, "flags": INVERT},
    {"selectors": rule_selectors(input_device="lan", output_device="wan")},
    FROM_LAN,
    {"selectors": ((1, bytes(4)), (24, struct.pack("=HH", 25, 25))), "lengths": (8, 0, 0x10)},
    {"selectors": ((20, struct.pack("=II", 1000, 1999)),)},
    {"selectors": ((77, b"a selector of a kernel to come"),)},
    {"selectors": SUPPRESSED},
]


@pytest.mark.parametrize("said", SELECTORS)
def test_a_twin_selects_exactly_what_its_rule_does(said: dict[str, object]) -> None:
    rule = Rule(V4, 1000, MAIN, **said)  # type: ignore[arg-type]
    made = [each for each in twins(rule, bound=["wan"]) if each.priority == 999]
    assert made, "it asks main"
    for each in made:
        assert (each.selectors, each.lengths, each.flags) == (
            rule.selectors,
            rule.lengths,
            rule.flags,
        )
    assert (DIVERTED_TABLE, 0) in at(made, 999)


@given(st.data())
def test_our_rules_are_no_reason_for_more(data: st.DataObject) -> None:
    """What is in force is found by the next look: nothing may come of it."""
    others = data.draw(st.lists(OWNERS, max_size=5))
    wish = plan(diversion(), marks=(0x100,))
    rules = diverting_rules(wish, V4, [*KERNEL, *others], ["wan"], ())
    again = diverting_rules(wish, V4, [*KERNEL, *others, *rules], ["wan"], ())
    assert again == rules
    assert len(set(rules)) == len(rules)


# --- what becomes of packets

MAIN_ROUTES = [
    default("wan"),
    connected("10.7.0.0/24", "lan"),
    connected("192.0.2.0/24", "wan"),
    by("203.0.113.0/24", hop("wan", "192.0.2.1")),
    by("198.18.0.0/24", hop("lan", "10.7.0.2")),
    replace(by("", "vpn"), table=7),
    replace(by("", "vpn"), table=51820),
    replace(by("", hop("wan", "192.0.2.1")), table=1),
]
WAN, LAN, TUNNEL, VPN = (INDEXES[name] for name in ("wan", "lan", "wgup_a", "vpn"))


def routes(wish: SteeringPlan) -> list[Route]:
    found = [r for r in MAIN_ROUTES if r.table == MAIN]
    return [
        *MAIN_ROUTES,
        *diverted_routes(wish, V4, found, INDEXES),
        *last_routes(wish, V4, INDEXES),
        *(r for held in tables.bound_table(wish, V4, INDEXES).values() for r in held),
        *underlay_routes(wish, V4, found, INDEXES),
    ]


def everybodys(
    wish: SteeringPlan, others: Sequence[Rule], marks: Collection[int] = ()
) -> list[Rule]:
    found, wish = [*KERNEL, *others], replace(wish, marks=tuple(marks))
    return [
        *found,
        *standing_rules(wish, V4, found, []),
        *diverting_rules(wish, V4, found, ["wan"], ()),
    ]


POLICY = [Rule(V4, 1000, 7, **FROM_LAN)]  # type: ignore[arg-type]
VRF = [Rule(V4, 1000, 0, selectors=((L3MDEV, b"\1"),))]
OUT = Packet("203.0.113.9")


IN_AN_OUTAGE: list[tuple[list[Rule], Packet, int]] = [
    ([], OUT, TUNNEL),
    ([], Packet("9.9.9.9"), TUNNEL),
    ([], Packet("10.7.0.9"), LAN),
    ([], Packet("198.18.0.9"), LAN),
    ([], Packet("192.0.2.9"), WAN),  # the WAN's own network
    ([], Packet("10.99.0.1"), REFUSED),  # a private network that no route leads to
    ([], replace(OUT, oif="wan", oif_index=WAN), WAN),
    ([], replace(OUT, mark=0x51), WAN),
    ([], replace(OUT, mark=0x52, oif="wan", oif_index=WAN), WAN),
    ([], replace(OUT, mark=0x52, oif="wgup_b", oif_index=INDEXES["wgup_b"]), INDEXES["wgup_b"]),
    ([], replace(OUT, oif="wgup_b", oif_index=INDEXES["wgup_b"]), INDEXES["wgup_b"]),
    ([], replace(OUT, mark=0xCA6C), TUNNEL),
    ([], replace(OUT, iif=PROVIDER_DEVICE), WAN),
    (POLICY, replace(OUT, source="10.7.0.9"), VPN),
    (POLICY, OUT, TUNNEL),
    (WG_QUICK, Packet("9.9.9.9"), VPN),
    (WG_QUICK, OUT, VPN),
    (WG_QUICK, replace(OUT, mark=0xCA6C), TUNNEL),
    (WG_QUICK, Packet("10.7.0.9"), LAN),
    (PBR, Packet("9.9.9.9"), TUNNEL),
    (PBR, OUT, TUNNEL),
    (ALONE, Packet("9.9.9.9"), TUNNEL),
    (ALONE, OUT, TUNNEL),
    (ALONE, replace(OUT, oif="wan", oif_index=WAN), WAN),
    ([Rule(V4, 100, MAIN)], OUT, TUNNEL),
    ([Rule(V4, 100, MAIN), Rule(V4, 101, MAIN, selectors=WG_MARK)], OUT, TUNNEL),
    ([Rule(V4, 40000, 7)], OUT, VPN),  # the owner's word behind main
    ([Rule(V4, 1000, 0, 7, rule_selectors(mark=(5, 5)))], replace(OUT, mark=5), REFUSED),
    (VRF, replace(OUT, vrf=7), VPN),
    (VRF, replace(OUT, vrf=7, iif="lan"), VPN),
    (VRF, OUT, TUNNEL),
    (VRF, Packet("10.7.0.9"), LAN),
]


@pytest.mark.parametrize(("others", "packet", "device"), IN_AN_OUTAGE)
def test_where_packets_go_in_an_outage(others: list[Rule], packet: Packet, device: int) -> None:
    wish = plan(diversion())
    assert device_of(packet, everybodys(wish, others), routes(wish)) == device


LED = 0x83000000  # to the tunnel, whose slot is 3


def led_at_home(others: Sequence[Rule]) -> tuple[list[Rule], list[Route]]:
    """Rules and routes while nothing is diverted, and new connections may be led to the tunnel."""
    wish = replace(plan(primary="wan"), led={V4: ("wgup_a",)})
    found, slots = [*KERNEL, *others], {"wgup_a": 3}
    led = led_rules(wish, V4, found, ["wan"], (), slots)
    path = path_routes(wish, V4, "wgup_a", path_table(3))
    return [*found, *standing_rules(wish, V4, found, [3]), *led], [*routes(wish), *path]


@pytest.mark.parametrize(
    ("others", "packet", "device"), [row for row in IN_AN_OUTAGE if not row[1].mark]
)
def test_what_is_led_by_its_mark_goes_as_in_an_outage(
    others: list[Rule], packet: Packet, device: int
) -> None:
    """And all the rest as ever."""
    rules, home = led_at_home(others)
    if packet.iif != PROVIDER_DEVICE:
        assert device_of(replace(packet, mark=LED), rules, home) == device
    as_ever = device_of(packet, [*KERNEL, *others], home)
    if not packet.oif_index and packet.iif != PROVIDER_DEVICE:
        assert device_of(packet, rules, home) == as_ever


def test_what_is_led_beside_mwan3_and_other_wans() -> None:
    refused = Rule(V4, 3001, 0, 7, rule_selectors(mark=(0x100, 0x3F00)))
    wish = replace(plan(primary="wan"), led={V4: ("wgup_a",)}, marks=(0x100, 0x200))
    found = [*KERNEL, mwan3(0x100, 1, 2001), mwan3(0x200, 7, 2002), refused]
    rules = [*found, *led_rules(wish, V4, found, (), [7], {"wgup_a": 3})]
    path = path_routes(wish, V4, "wgup_a", path_table(3))
    for second in ([], [default("wan2", metric=20)]):
        main = [*MAIN_ROUTES, *second]
        home = [*main, *diverted_routes(wish, V4, main, INDEXES), *path]
        for mark, device in ((0, TUNNEL), (0x100, TUNNEL), (0x200, VPN)):
            assert device_of(replace(OUT, mark=LED | mark), rules, home) == device


@given(st.data())
def test_twins_of_a_mark_are_no_reason_for_more(data: st.DataObject) -> None:
    others = data.draw(st.lists(OWNERS, max_size=5))
    wish = replace(plan(diversion()), led={V4: ("wgup_a", "wgup_b", "gone")})
    slots = {"wgup_a": 3, "wgup_b": 4}
    rules = led_rules(wish, V4, [*KERNEL, *others], ["wan"], (), slots)
    assert all(rule.mark[0] & LED_MARK for rule in rules)
    assert led_rules(wish, V4, [*KERNEL, *others, *rules], ["wan"], (), slots) == rules
    assert len(set(rules)) == len(rules)
    both = [*rules, *diverting_rules(wish, V4, [*KERNEL, *others], ["wan"], ())]
    assert len(set(both)) == len(both)


def test_without_a_diversion_packets_go_as_ever() -> None:
    wish = plan(primary="wan")
    for others in ([], POLICY, WG_QUICK, PBR, ALONE):
        rules = everybodys(wish, others)
        for to in ("9.9.9.9", "203.0.113.9", "10.7.0.9", "10.99.0.1"):
            packet = Packet(to)
            as_ever = device_of(packet, [*KERNEL, *others], MAIN_ROUTES)
            assert device_of(packet, rules, routes(wish)) == as_ever


@pytest.mark.parametrize("iif", ["", "lan", PROVIDER_DEVICE])
def test_local_addresses_where_their_rule_stands_behind_that_of_vrfs(iif: str) -> None:
    """As the kernel's page on VRFs has it: `local` at 32765, behind the rule that asks VRFs."""
    local = replace(by("10.7.0.1/32", "lo"), table=255)
    others = [*VRF, replace(LOCAL, priority=32765), LOOKUP_MAIN, LOOKUP_DEFAULT]
    wish = plan(diversion())
    rules = [
        *others,
        *standing_rules(wish, V4, others, []),
        *diverting_rules(wish, V4, others, ["wan"], ()),
    ]
    packet = Packet("10.7.0.1", iif=iif)
    assert device_of(packet, rules, [local, *routes(wish)]) == INDEXES["lo"]
    assert device_of(replace(OUT, iif=iif), rules, [local, *routes(wish)]) == (
        WAN if iif == PROVIDER_DEVICE else TUNNEL
    )


def test_an_ending_that_refuses() -> None:
    wish = plan(diversion(ending=Ending.UNREACHABLE))
    assert device_of(Packet("9.9.9.9"), everybodys(wish, []), routes(wish)) == REFUSED
    assert device_of(OUT, everybodys(wish, []), routes(wish)) == TUNNEL, "a VPN's server may be"
    assert device_of(Packet("10.7.0.9"), everybodys(wish, []), routes(wish)) == LAN


@pytest.mark.parametrize("mark", [0x100, 0x3F00])
def test_beside_mwan3(mark: int) -> None:
    """What mwan3 leads to the dead WAN takes the tunnel; its trackers' packets do not."""
    found = [mwan3(0x100, 1, 2001), Rule(V4, 2061, 0, 7, rule_selectors(mark=(0x3D00, 0x3F00)))]
    wish = plan(diversion())
    rules = everybodys(wish, found, marks=[0x100])
    bound = {"oif": "wan", "oif_index": WAN} if mark == 0x3F00 else {}
    packet = replace(OUT, mark=mark, **bound)  # type: ignore[arg-type]
    assert device_of(packet, rules, routes(wish)) == (TUNNEL if mark == 0x100 else WAN)


OWNERS = st.builds(
    Rule,
    family=st.just(V4),
    priority=st.sampled_from((1, 50, 98, 99, 100, 101, 102, 2000, 32764, 32765, 40000)),
    table=st.sampled_from((MAIN, MAIN, 7)),
    selectors=st.sampled_from((SUPPRESSED, WG_MARK, rule_selectors(input_device="lan"))),
    flags=st.sampled_from((0, 0, INVERT)),
)


def distinct(rules: list[Rule]) -> bool:
    """One rule at a preference: how several follow one another there is for another day."""
    return len({rule.priority for rule in rules}) == len(rules)


@given(
    st.lists(OWNERS, max_size=4).filter(distinct),
    st.sampled_from(("9.9.9.9", "203.0.113.9", "10.7.0.9", "198.18.0.9")),
    st.sampled_from((0, 0xCA6C)),
    st.sampled_from(("", "lan")),
)
def test_whatever_the_owner_has_nothing_leaves_by_the_dead_wan(
    others: list[Rule], to: str, mark: int, iif: str
) -> None:
    wish, packet = plan(diversion()), Packet(to, mark=mark, iif=iif)
    as_ever = device_of(packet, [*KERNEL, *others], MAIN_ROUTES)
    now = device_of(packet, everybodys(wish, others), routes(wish))
    if as_ever == WAN:
        assert now in (TUNNEL, VPN), "by the tunnel, or by what the owner asks after main"
    else:
        assert now == as_ever


@given(st.lists(OWNERS, max_size=4).filter(distinct))
def test_no_moment_without_a_route(others: list[Rule]) -> None:
    """Message by message, from nothing in force to a diversion and back."""
    home, away = plan(primary="wan"), plan(diversion())
    found = [*KERNEL, *others]
    standing = standing_rules(home, V4, found, [])
    diverted = [*standing, *diverting_rules(away, V4, found, ["wan"], ())]
    packets = [Packet("9.9.9.9"), replace(OUT, mark=0xCA6C), replace(OUT, mark=0x51)]
    known = [*routes(home), *routes(away)]
    expected = [
        {
            device_of(p, [*found, *ours], routes(wish))
            for ours, wish in ((standing, home), (diverted, away))
        }
        for p in packets
    ]
    for had, want in (([], standing), (standing, diverted), (diverted, standing), (diverted, [])):
        held = [*found, *had]
        for request in plan_changes([], [], had, want):
            rule = parse_rule(request.message) if isinstance(request.about, Rule) else None
            if rule is None:
                continue
            if request.message.kind == DELRULE:
                held.remove(rule)
            else:
                held.append(rule)
            for packet, able in zip(packets, expected, strict=True):
                now = device_of(packet, held, known)
                if packet.mark == 0x51 and not ({*standing} <= {*held}):
                    continue  # no rule of ours for outer packets yet, or no more
                assert now in able, (request.message.kind, rule)
                assert NO_ROUTE in able or now != NO_ROUTE


# --- what the owner leads elsewhere


def test_policy_sources() -> None:
    found = [
        *KERNEL,
        Rule(V4, 900, 7, selectors=rule_selectors(input_device="guest")),
        Rule(V4, 901, 7, selectors=rule_selectors(input_device="lo")),
        Rule(V4, 902, 7, **FROM_LAN),  # type: ignore[arg-type]
        Rule(V6, 903, 7, selectors=((2, b"\x20\x01\x0d\xb8" + bytes(12)),), lengths=(0, 32, 0)),
        Rule(V4, 904, MAIN, selectors=rule_selectors(input_device="iot")),
        Rule(V4, 905, 0, 7, rule_selectors(input_device="jail")),
        Rule(V4, 906, 5202, protocol=STANDING, selectors=rule_selectors(input_device="x")),
    ]
    assert policy_sources(found) == ({"guest"}, {"10.7.0.0/16", "2001:db8::/32"}, False)
    ports = Rule(V4, 910, 7, selectors=((24, struct.pack("=HH", 53, 53)),))
    assert policy_sources([*found, ports])[2] is True
    assert policy_sources([replace(ports, table=MAIN)]) == (set(), set(), False)
    assert policy_sources([]) == (set(), set(), False)


def test_rules_of_both_families_are_of_their_own() -> None:
    six = [replace(rule, family=V6) for rule in KERNEL[:2]]
    wish = plan(diversion(family=V6))
    rules = diverting_rules(wish, V6, six, ["wan"], ())
    assert {rule.family for rule in rules} == {Family.IPV6}
    assert at(rules, 32765)[-1] == (0, BOUND_PRIORITY), "IPv6 has no rule for `default`"
    assert all(rule.action in (TO_TABLE, GOTO) for rule in rules)
