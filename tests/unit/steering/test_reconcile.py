"""Found and wanted rules and routes: equal input asks for nothing, changes leave no gap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpcd_wireguard_uplink.model import Family
from rpcd_wireguard_uplink.steering.plan import (
    DIVERTED_TABLE,
    DIVERTING,
    LAST_TABLE,
    STANDING,
    Request,
)
from rpcd_wireguard_uplink.system import netlink
from rpcd_wireguard_uplink.system.netlink import Message
from rpcd_wireguard_uplink.system.rtnetlink import (
    DELROUTE,
    DELRULE,
    GOTO,
    NEWROUTE,
    NEWRULE,
    UNREACHABLE,
    Hop,
    Route,
    Rule,
    parse_rule,
    rule_selectors,
)
from tests.unit.fakes import RoutingTables
from tests.unit.steering.scenes import V4, plan_changes

DEFAULT = Route(V4, DIVERTED_TABLE, "", (Hop(2, "192.0.2.1"),), 5, protocol=STANDING)
NET = Route(V4, DIVERTED_TABLE, "10.7.0.0/24", (Hop(4),), protocol=STANDING)
RULE = Rule(V4, 99, 5179, protocol=STANDING)


def verbs(requests: list[Request]) -> list[tuple[str, object]]:
    words = {NEWROUTE: "route", DELROUTE: "no route", NEWRULE: "rule", DELRULE: "no rule"}
    return [(words[r.message.kind], r.about) for r in requests]


def test_equal_input_gives_no_request() -> None:
    assert plan_changes([DEFAULT, NET], [NET, DEFAULT], [RULE], [RULE]) == []
    shown = replace(DEFAULT, scope=253, hops=(replace(DEFAULT.hops[0], flags=4, weight=3),))
    assert plan_changes([shown], [DEFAULT], [], []) == [], "what the kernel fills in is no change"
    assert plan_changes([], [], [], []) == []


def test_a_route_takes_anothers_place_without_a_gap() -> None:
    other = replace(DEFAULT, hops=(Hop(5),))
    [request] = plan_changes([DEFAULT], [other], [], [])
    assert request.about == other
    assert request.message.flags & netlink.REPLACE


def test_a_refusal_takes_the_place_of_a_way() -> None:
    refused = replace(DEFAULT, hops=(), kind=UNREACHABLE)
    for one, other in ((DEFAULT, refused), (refused, DEFAULT)):
        [request] = plan_changes([one], [other], [], [])
        assert request.message.flags & netlink.REPLACE


def test_routes_of_another_place_are_added_before_the_old_go() -> None:
    other = replace(DEFAULT, metric=9)
    assert verbs(plan_changes([DEFAULT, NET], [other, NET], [], [])) == [
        ("route", other),
        ("no route", DEFAULT),
    ]


@pytest.mark.parametrize("count", [2, 3])
def test_several_routes_in_one_place_are_appended(count: int) -> None:
    """IPv6 has siblings: a replacement would take all of them."""
    many = [replace(DEFAULT, hops=(Hop(n),)) for n in range(10, 10 + count)]
    found = plan_changes([DEFAULT], many, [], [])
    assert verbs(found) == [("route", each) for each in many] + [("no route", DEFAULT)]
    assert not any(r.message.flags & netlink.REPLACE for r in found)
    back = plan_changes(many, [DEFAULT], [], [])
    assert verbs(back)[0] == ("route", DEFAULT)
    assert not back[0].message.flags & netlink.REPLACE


def test_new_comes_before_what_goes() -> None:
    new, old = replace(RULE, priority=50), replace(RULE, priority=70)
    found = plan_changes([NET], [DEFAULT], [old], [new])
    assert verbs(found) == [("route", DEFAULT), ("rule", new), ("no rule", old), ("no route", NET)]
    assert [r.is_removal for r in found] == [False, False, True, True]


def rule_of(priority: int, table: int, protocol: int = DIVERTING) -> Rule:
    return Rule(V4, priority, table, protocol=protocol)


STANDS = [rule_of(99, 5179, STANDING), rule_of(99, 254, STANDING), rule_of(32769, 5182, STANDING)]
DIVERTS = [rule_of(998, 1), rule_of(998, 2), rule_of(32765, 3), rule_of(32765, 4)]


def test_what_a_rule_sends_packets_on_to_is_there_before_it_and_goes_after_it() -> None:
    found = plan_changes([], [], [], [*STANDS, *DIVERTS])
    first, second, third, fourth = DIVERTS
    added = [STANDS[2], STANDS[0], STANDS[1], third, fourth, first, second]
    assert verbs(found) == [("rule", rule) for rule in added]
    found = plan_changes([], [], [*STANDS, *DIVERTS], [])
    removed = [*DIVERTS, *STANDS]
    assert verbs(found) == [("no rule", rule) for rule in removed]


def test_a_rule_in_front_of_others_of_its_preference() -> None:
    """The kernel puts it behind them: those are taken away and put back behind it."""
    first, second, third = (replace(RULE, table=t) for t in (1, 2, 3))
    found = plan_changes([], [], [first, third], [first, second, third])
    assert verbs(found) == [("no rule", third), ("rule", second), ("rule", third)]
    found = plan_changes([], [], [first, second], [second])
    assert verbs(found) == [("no rule", first), ("no rule", second), ("rule", second)]


def test_in_a_preference_what_sends_on_goes_first() -> None:
    """A goto that is left alone would send packets past the rule that they should meet."""
    asks, catches = rule_of(998, DIVERTED_TABLE), rule_of(998, LAST_TABLE)
    goes = Rule(V4, 998, 0, GOTO, protocol=DIVERTING, target=32767)
    found = plan_changes([], [], [asks, catches, goes], [])
    assert verbs(found) == [("no rule", goes), ("no rule", catches), ("no rule", asks)]


MARKED = rule_selectors(mark=(5, 0xFF))


def test_the_kernel_deletes_the_first_rule_that_fits() -> None:
    """What a request does not say fits everything: the one with a mark would go instead."""
    marked, plain = Rule(V4, 50, 7, selectors=MARKED), Rule(V4, 50, 7)
    found = plan_changes([], [], [marked, plain], [])
    assert verbs(found) == [("no rule", marked), ("no rule", plain)]
    found = plan_changes([], [], [marked, plain], [marked])
    assert verbs(found) == [("no rule", marked), ("no rule", plain), ("rule", marked)]
    found = plan_changes([], [], [plain, marked], [plain])
    assert verbs(found) == [("no rule", marked)], "a mark that is said fits no other"


# --- what a kernel has afterwards

RULES = st.builds(
    Rule,
    family=st.just(V4),
    priority=st.sampled_from((98, 99, 32765)),
    table=st.integers(1, 4),
    selectors=st.sampled_from(((), MARKED, rule_selectors(input_device="lan"))),
    protocol=st.sampled_from((STANDING, DIVERTING)),
)
ROUTES = st.builds(
    Route,
    family=st.just(V4),
    table=st.sampled_from((DIVERTED_TABLE, 5179)),
    destination=st.sampled_from(("", "10.7.0.0/24")),
    hops=st.lists(st.builds(Hop, st.integers(2, 4)), min_size=1, max_size=2).map(tuple),
    metric=st.sampled_from((1, 2)),
    protocol=st.just(STANDING),
)


class Forgetful(RoutingTables):
    """It deletes the first rule that fits, as net/core/fib_rules.c does."""

    def change(self, messages: Sequence[Message]) -> list[int]:
        codes = []
        for message in messages:
            asked = parse_rule(message)
            if message.kind == DELRULE and asked is not None:
                held = self.found_rules[asked.family]
                said = {*asked.selectors}
                fitting = [
                    rule
                    for rule in held
                    if (rule.priority, rule.table) == (asked.priority, asked.table)
                    and said <= {*rule.selectors}
                ]
                held.remove(fitting[0])
                codes.append(0)
            else:
                codes += super().change([message])
        return codes


def same_places(routes: list[Route]) -> list[Route]:
    """At most one route in each place, as a kernel with IPv4's rules has it."""
    return list({route.place: route for route in routes}.values())


@given(
    st.lists(RULES, unique=True, max_size=6),
    st.lists(RULES, unique=True, max_size=6),
    st.lists(ROUTES, max_size=6).map(same_places),
    st.lists(ROUTES, max_size=6).map(same_places),
)
def test_requests_lead_from_any_state_to_any_other(
    had: list[Rule], want: list[Rule], routes: list[Route], wanted: list[Route]
) -> None:
    kernel = Forgetful()
    order = sorted(had, key=lambda rule: rule.priority)
    kernel.found_rules[V4] = list(order)
    for route in routes:
        kernel.found_routes.setdefault(route.family, []).append(route)
    kernel.change([r.message for r in plan_changes(routes, wanted, order, want)])
    assert kernel.rules(V4) == sorted(want, key=lambda rule: rule.priority)
    found = [route for family in Family for route in kernel.routes(family)]
    assert {r.identity for r in found} == {r.identity for r in wanted}
    assert plan_changes(found, wanted, kernel.rules(V4), want) == []
