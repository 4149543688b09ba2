"""Rules and routes over a kernel that tells of changes: what is read, what is followed route by
route, and that both ways end alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.model import Family, Link
from rpcd_wireguard_uplink.steering import routing
from rpcd_wireguard_uplink.steering.plan import (
    DIVERTED_TABLE,
    DIVERTING,
    STANDING,
    UNDERLAY_TABLE,
    SteeringPlan,
)
from rpcd_wireguard_uplink.steering.routing import (
    MANY_REPAIRS,
    REPAIRS_KEPT_S,
    Routing,
    running_managers,
)
from rpcd_wireguard_uplink.system import netlink
from rpcd_wireguard_uplink.system.netlink import Message
from rpcd_wireguard_uplink.system.rtnetlink import (
    DELLINK,
    LOCAL,
    NEWADDR,
    Route,
    Rule,
    add_route,
    add_rule,
    delete_route,
    delete_rule,
)
from rpcd_wireguard_uplink.warnings import Warnings
from tests.unit.fakes import RoutingTables
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
    plan,
    underlay_routes,
)

OWN_PORT, OTHER_PORT = 4711, 99
PLAN = plan(diversion(), wans=("wan",), primary="wan")
LAN = connected("10.7.0.0/24", "lan")
MORE = by("10.8.0.0/16", hop("lan", "10.7.0.2"))


@dataclass
class Telling(RoutingTables):
    """A kernel that notes what it is asked, and tells of all changes."""

    asked: list[str] = field(default_factory=list)
    news: list[Message] = field(default_factory=list)
    lost: bool = False
    port: int = OWN_PORT

    def devices(self) -> list[Link]:
        self.asked.append("devices")
        return super().devices()

    def routes(self, family: Family) -> list[Route]:
        self.asked.append(f"routes {family.version}")
        return super().routes(family)

    def rules(self, family: Family) -> list[Rule]:
        self.asked.append(f"rules {family.version}")
        return super().rules(family)

    def change(self, messages: Sequence[Message]) -> list[int]:
        self.news += [replace(message, port=OWN_PORT) for message in messages]
        return super().change(messages)

    def happen(self, *messages: Message) -> None:
        """Somebody else changes something."""
        super().change(messages)
        self.news += [replace(message, port=OTHER_PORT) for message in messages]

    def listen(self, on_news: Callable[[], None]) -> Telling:  # type: ignore[override]
        return self

    def read(self) -> tuple[list[Message], bool]:
        found, self.news = (self.news, self.lost), []
        self.lost = False
        return found

    def close(self) -> None: ...


EVERYTHING = {"devices", "routes 4", "routes 6", "rules 4", "rules 6"}


@dataclass
class Bench:
    kernel: Telling
    routing: Routing

    def follow(self) -> list[str]:
        """Have the plan in force; what was read for that."""
        self.kernel.asked.clear()
        self.routing.follow(PLAN, {})
        return sorted(self.kernel.asked)

    def table(self, number: int, family: Family = V4) -> set[object]:
        held = self.kernel.found_routes.get(family, ())
        return {r.identity for r in held if r.table == number and r.protocol == STANDING}

    def is_right(self) -> bool:
        """Whether the copies of main are what they are when made from nothing."""
        main = [r for r in self.kernel.found_routes[V4] if r.table == 254]
        return all(
            self.table(number) == {r.identity for r in make(PLAN, V4, main, INDEXES)}
            for number, make in (
                (DIVERTED_TABLE, diverted_routes),
                (UNDERLAY_TABLE, underlay_routes),
            )
        )


def listening(*six: Route) -> Bench:
    """A router with these routes of IPv6, on which nothing was put in force yet."""
    kernel = Telling()
    kernel.found_devices = [Link(name, index) for name, index in INDEXES.items()]
    kernel.found_routes = {V4: [default("wan"), LAN], V6: [*six]}
    bench = Bench(kernel, Routing(kernel, Warnings()))
    bench.routing.listen(lambda: None)
    return bench


@pytest.fixture
def bench() -> Bench:
    bench = listening()
    assert set(bench.follow()) == EVERYTHING
    assert bench.is_right() and bench.follow() == []
    return bench


@pytest.mark.parametrize(
    ("message", "asked"),
    [
        (add_rule(Rule(V4, 9, 7)), ["rules 4"]),
        (Message(DELLINK, bytes(16)), ["devices", "routes 4", "routes 6"]),
        (Message(NEWADDR, bytes(8)), ["routes 4", "routes 6"]),
        (Message(24, b"cut"), []),
        (add_route(MORE), []),
        (add_route(replace(MORE, table=77)), []),
        (add_route(replace(default("wan"), table=77)), ["routes 4"]),
        (add_route(replace(MORE, table=DIVERTED_TABLE, protocol=4)), ["routes 4"]),
        (add_route(replace(LAN, hops=(hop("vpn"),))), ["routes 4"]),
    ],
)
def test_only_what_news_can_not_say_is_read(
    bench: Bench, message: Message, asked: list[str]
) -> None:
    bench.kernel.happen(message)
    assert bench.follow() == asked
    assert bench.is_right() and bench.follow() == []


def test_what_was_lost_may_have_been_anything(bench: Bench) -> None:
    bench.kernel.found_routes[V4].append(MORE)
    bench.kernel.lost = True
    assert set(bench.follow()) == EVERYTHING and bench.is_right()


def test_our_own_changes_are_known(bench: Bench) -> None:
    bench.kernel.happen(add_route(MORE))
    requests = len(bench.kernel.requests)
    assert bench.follow() == []
    assert len(bench.kernel.requests) == requests + 2, "a copy in either table"
    assert bench.kernel.news and bench.routing.take_news() is False


def test_what_others_take_out_of_our_tables_is_put_back(bench: Bench) -> None:
    """Without a look at anything else."""
    ours = [r for r in bench.kernel.found_routes[V4] if r.table == DIVERTED_TABLE]
    bench.kernel.happen(*map(delete_route, ours))
    assert not bench.is_right()
    assert bench.follow() == [] and bench.is_right()
    rule = next(r for r in bench.kernel.found_rules[V4] if r.protocol == STANDING)
    bench.kernel.happen(delete_rule(rule))
    assert bench.follow() == ["rules 4"]
    assert rule in bench.kernel.found_rules[V4]


def test_a_refused_change_is_read_and_tried_again(bench: Bench) -> None:
    bench.kernel.happen(add_route(MORE))
    bench.kernel.errors = {24: 100}  # ENETDOWN
    bench.follow()
    assert not bench.is_right()
    bench.kernel.errors = {}
    assert bench.follow() == ["routes 4"] and bench.is_right()


CHANGES = st.tuples(
    st.sampled_from((0, netlink.REPLACE, netlink.APPEND)),
    st.booleans(),
    st.builds(
        by,
        st.sampled_from(("", "10.8.0.0/16", "203.0.113.0/24", "0.0.0.0/1")),
        st.sampled_from((hop("lan", "10.7.0.2"), hop("wan", "192.0.2.1"), hop("vpn"))),
        metric=st.sampled_from((0, 5)),
    ),
)


@given(st.lists(st.lists(CHANGES, max_size=4), max_size=5))
def test_following_ends_like_reading(bursts: list[list[tuple[int, bool, Route]]]) -> None:
    """Whatever others add, replace and delete, one by one or together."""
    bench = listening()
    bench.follow()
    for burst in bursts:
        for flags, is_new, route in burst:
            held = {r.identity for r in bench.kernel.found_routes[V4]}
            if is_new and route.identity not in held:
                bench.kernel.happen(add_route(route, flags))
            elif not is_new and route.identity in held:
                bench.kernel.happen(delete_route(route))
        bench.follow()
        assert bench.is_right()


# --- repairs


def test_many_repairs_are_told_with_who_it_may_be(mocker: MockerFixture) -> None:
    clock = mocker.patch.object(time, "monotonic", return_value=0.0)
    who = mocker.patch.object(routing, "running_managers", return_value=[])
    warnings = Warnings()
    watched = Routing(RoutingTables(), warnings)
    for at_s in range(MANY_REPAIRS):
        assert warnings == {}
        clock.return_value = float(at_s)
        watched.note_repair()
    assert "another program removes them" in warnings["repairs"]
    who.return_value = ["netifd", "systemd-networkd"]
    watched.note_repair()
    told = warnings["repairs"]
    assert "removed 4 times within 10 min" in told
    assert "netifd, systemd-networkd removes them" in told
    assert "ManageForeignRoutingPolicyRules=no" in told
    warnings.clear()
    clock.return_value = REPAIRS_KEPT_S + MANY_REPAIRS
    watched.note_repair()
    assert warnings == {}, "those before are forgotten"


def test_running_managers(tmp_path: Path) -> None:
    for number, name in (("1", "procd"), ("7", "netifd"), ("8", "systemd-network"), ("9", "")):
        (tmp_path / number).mkdir()
        (tmp_path / number / "comm").write_bytes(name.encode() + b"\n")
    (tmp_path / "10").mkdir()  # it ended meanwhile
    (tmp_path / "11").mkdir()
    (tmp_path / "11" / "comm").write_bytes(b"\xff\xfe")
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "comm").write_text("netifd")
    assert running_managers(str(tmp_path)) == ["netifd", "systemd-networkd"]
    assert isinstance(running_managers(), list)


def test_a_rule_of_others_that_comes_to_stand_behind_ours_is_asked_before_it(bench: Bench) -> None:
    """VRFs are set up in an outage: `local` goes to the preference that our twin of main has."""
    moved = Rule(V4, 32765, LOCAL)
    bench.kernel.happen(add_rule(moved))
    assert [r for r in bench.kernel.found_rules[V4] if r.priority == 32765][-1] == moved
    bench.routing.take_news()
    bench.follow()
    there = [rule for rule in bench.kernel.found_rules[V4] if rule.priority == 32765]
    assert there[0] == moved and len(there) > 1
    asked = len(bench.kernel.requests)
    bench.follow()
    assert len(bench.kernel.requests) == asked


# --- prepared for the primary's death

CALM = plan(wans=("wan", "wan2"), primary="wan")
AWAY = plan(diversion(), diversion(family=V6), wans=("wan", "wan2"), primary="wan")


def prepared_or_not() -> tuple[Bench, Bench]:
    """Two routers in calm; one of them is prepared."""
    prepared, other = listening(default("wan", V6)), listening(default("wan", V6))
    for bench in (prepared, other):
        bench.routing.follow(CALM, {})
    prepared.routing.prepare(CALM, {})
    return prepared, other


def test_a_switch_that_was_prepared_derives_no_rule(mocker: MockerFixture) -> None:
    bench, other = prepared_or_not()
    other.routing.follow(AWAY, {})
    mocker.patch.object(routing.rules, "plan_rules", side_effect=AssertionError)
    bench.routing.follow(AWAY, {})
    assert bench.kernel.found_rules == other.kernel.found_rules
    assert bench.routing.holds_ours(DIVERTING) == {V4, V6}


def test_what_nftables_alone_does_derives_no_routes(bench: Bench, mocker: MockerFixture) -> None:
    derived = mocker.spy(routing.tables, "diverted_copy")
    bench.routing.follow(PLAN.filtering(early={V4: "wgup_a"}, drain_s=9.0), {})
    assert not derived.called
    bench.routing.follow(replace(PLAN, marks=(0x100,)), {})
    assert derived.called


@pytest.mark.parametrize(
    "message",
    [
        add_rule(Rule(V4, 900, 254)),
        add_rule(Rule(V4, 32700, 52, protocol=3)),
        add_route(replace(default("wan2"), table=77)),
        add_route(by("", hop("vpn"), metric=0)),
        add_route(by("0.0.0.0/1", hop("vpn"))),
        delete_route(default("wan")),
        Message(DELLINK, bytes(16)),
    ],
)
@pytest.mark.parametrize(
    ("away", "slots"),
    [
        (AWAY, {}),
        (replace(AWAY, marks=(0x100,)), {}),
        (replace(AWAY, tunnels=("wgup_a",)), {}),
        (replace(AWAY, diversions={V4: diversion(dead=("wan", "wan2"))}), {}),
        (replace(AWAY, routed={V4: frozenset({"wan2"})}), {}),
        (AWAY, {V4: {"wgup_b": 5}}),
    ],
)
def test_what_changed_meanwhile_is_seen(
    message: Message, away: SteeringPlan, slots: dict[Family, dict[str, int]]
) -> None:
    benches = prepared_or_not()
    for bench in benches:
        bench.kernel.happen(message)
        bench.routing.follow(away, slots)
    prepared, other = benches
    assert prepared.kernel.found_rules == other.kernel.found_rules
    assert prepared.kernel.found_routes == other.kernel.found_routes
