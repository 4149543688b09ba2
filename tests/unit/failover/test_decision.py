"""The backups that the watched paths make, and what is remembered of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rpcd_wireguard_uplink.failover.decision import (
    candidates_of,
    dead_for_s,
    early_backups,
    spread_over,
)
from rpcd_wireguard_uplink.failover.machine import Choice, Phase, State
from rpcd_wireguard_uplink.failover.selection import Candidate, Terms
from rpcd_wireguard_uplink.model import Cost, Family, Health, PathKind, PeerCounters
from rpcd_wireguard_uplink.probing.capacity import Capacity
from tests.unit.choices import NOW_S, Choices, uplink_of


def found(choices: Choices, family: Family = Family.IPV4) -> dict[str, Candidate]:
    return {c.name: c for c in candidates_of(choices.monitor, family, NOW_S)}


@pytest.fixture
def choices(tmp_path: Path) -> Choices:
    return Choices.lay(tmp_path, [uplink_of("a", 30), uplink_of("b")])


def test_everything_but_the_primary_is_a_candidate(choices: Choices) -> None:
    choices.line("lte", Family.IPV4, metric=20)
    able = found(choices)
    assert able.keys() == {"lte", "wgup_a", "wgup_b"}
    assert (able["lte"].kind, able["lte"].metric) == (PathKind.WAN, 20)
    assert (able["wgup_a"].kind, able["wgup_a"].weight) == (PathKind.UPLINK, 30)
    assert able["wgup_a"].last_answer_age_s == 1.0
    assert found(choices, Family.IPV6).keys() == {"wgup_a", "wgup_b"}


def test_a_family_has_candidates_of_its_own(tmp_path: Path) -> None:
    choices = Choices.lay(tmp_path, [uplink_of("a", addresses=("10.7.7.2/32",))])
    assert found(choices).keys() == {"wgup_a"}
    assert not found(choices, Family.IPV6)


def test_terms_are_those_of_the_offer_with_what_was_measured(choices: Choices) -> None:
    choices.monitor.terms = {"wgup_a": Terms(metered=True, bandwidth_mbps=100)}
    choices.monitor.capacities = {"wgup_a": Capacity(12), "wgup_b": Capacity(7)}
    able = found(choices)
    assert able["wgup_a"].terms == Terms(metered=True, bandwidth_mbps=100, measured_mbps=12)
    assert able["wgup_b"].terms == Terms(measured_mbps=7, is_known=False), "nobody has said it"


def test_terms_that_were_kept_count_until_the_peer_is_heard(tmp_path: Path) -> None:
    kept = replace(uplink_of("a"), cost=Cost(metered=True, price_per_gb=0.5))
    choices = Choices.lay(tmp_path, [kept])
    assert found(choices)["wgup_a"].terms == Terms(metered=True, price_per_gb=0.5)
    choices.monitor.learn_terms({"wgup_a": Terms()}, frozenset())
    assert found(choices)["wgup_a"].terms == Terms()


def test_an_uplink_over_the_primary_shares_its_fate(choices: Choices) -> None:
    choices.set_network(underlays={"wgup_a": "wan"})
    choices.monitor.learn_terms({}, frozenset({"wgup_b"}))
    assert {c.name for c in found(choices).values() if c.shares_underlay} == {"wgup_a", "wgup_b"}
    primary = choices.monitor.paths["wan", Family.IPV4].health
    primary.silent_since_s = NOW_S - 0.5
    assert not found(choices)["wgup_a"].outlives_primary
    primary.silent_since_s = NOW_S - 2.0
    assert found(choices)["wgup_a"].outlives_primary


def test_the_active_path_is_known(choices: Choices) -> None:
    states = choices.monitor.states
    states[Family.IPV4] = replace(states[Family.IPV4], active="wgup_b")
    assert [c.name for c in found(choices).values() if c.is_active] == ["wgup_b"]


@pytest.mark.parametrize(
    ("four", "six", "seconds"),
    [
        ((Health.DOWN, 700.0), (Health.DOWN, 900.0), 700.0),
        ((Health.DOWN, 700.0), (Health.UP, 1.0), 0.0),
        ((Health.SUSPECT, 700.0), (Health.DOWN, 700.0), 0.0),
        ((Health.UNKNOWN, None), (Health.UNKNOWN, None), NOW_S),  # since it was made
    ],
)
def test_how_long_an_uplink_is_dead(
    choices: Choices,
    four: tuple[Health, float | None],
    six: tuple[Health, float | None],
    seconds: float,
) -> None:
    for family, (state, ago_s) in zip(Family, (four, six), strict=True):
        choices.path("wgup_a", family, state=state, answered_ago_s=ago_s)
    assert dead_for_s(choices.monitor, "wgup_a", NOW_S) == seconds
    assert dead_for_s(choices.monitor, "wgup_gone", NOW_S) == 0.0


def test_capacities_are_learnt_from_the_counters(choices: Choices) -> None:
    monitor = choices.monitor
    received = 0
    for number, (mbps, latency_ms) in enumerate([(0, 20), (0, 20), (40, 300), (40, 300)]):
        received += mbps * 1_000_000 // 8 * 5
        choices.set_network(counters={"wgup_a": PeerCounters("k", "", 1.0, received, 0)})
        choices.path("wgup_a", Family.IPV4, latency_ms=latency_ms)
        choices.path("wgup_a", Family.IPV6, latency_ms=1.0)
        monitor.counters.learn_capacities(5.0 * number)
    assert monitor.capacities["wgup_a"].measured_mbps == 40
    choices.set_network(counters={})
    monitor.counters.learn_capacities(30.0)
    assert monitor.capacities == {}


@pytest.mark.parametrize(
    ("terms", "option", "able"),
    [
        (Terms(), "free", True),
        (Terms(is_known=False), "free", True),
        (Terms(metered=True), "free", False),
        (Terms(quota_gb=50.0, quota_left_gb=40.0), "free", False),
        (Terms(price_per_gb=0.1), "free", False),
        (Terms(metered=True), "all", True),
    ],
)
def test_who_takes_new_connections_at_a_first_doubt(
    tmp_path: Path, terms: Terms, option: str, able: bool
) -> None:
    choices = Choices.lay(tmp_path, [uplink_of("a")], early_failover=option)
    choices.monitor.learn_terms({"wgup_a": terms}, frozenset())
    assert early_backups(choices.monitor, Family.IPV4, NOW_S) == (["wgup_a"] if able else [])


def test_who_needs_the_doubted_wan_or_is_no_longer_well_takes_none(choices: Choices) -> None:
    def able() -> list[str]:
        return early_backups(choices.monitor, Family.IPV4, NOW_S)

    assert able() == ["wgup_a", "wgup_b"], "the best first"
    choices.path("wgup_a", Family.IPV4, state=Health.SUSPECT)
    choices.set_network(underlays={"wgup_b": "wan"})
    assert able() == []
    choices.line("lte", Family.IPV4, metric=20)
    assert able() == ["lte"], "another WAN of the router's own"


@pytest.mark.parametrize(
    ("phase", "active", "spread", "terms", "ways"),
    [
        (Phase.FAILED_OVER, "wgup_a", True, Terms(), [("wgup_a", 8), ("wgup_b", 10)]),
        (Phase.HOLDING, "wgup_b", True, Terms(), [("wgup_a", 8), ("wgup_b", 10)]),
        (Phase.FAILED_OVER, "wgup_a", False, Terms(), []),
        (Phase.PRIMARY, "wan", True, Terms(), []),
        (Phase.FAILED_OVER, "lte", True, Terms(), []),
        (Phase.FAILED_OVER, "wgup_a", True, Terms(metered=True), []),
    ],
)
def test_the_load_is_shared_by_uplinks_of_one_tier(
    tmp_path: Path,
    phase: Phase,
    active: str,
    spread: bool,
    terms: Terms,
    ways: list[tuple[str, int]],
) -> None:
    choices = Choices.lay(tmp_path, [uplink_of("a"), uplink_of("b")], spread=spread)
    choices.line("lte", Family.IPV4, metric=20)
    mine = Terms(bandwidth_mbps=50)
    choices.monitor.learn_terms({"wgup_a": mine, "wgup_b": terms}, frozenset())
    choices.monitor.capacities = {"wgup_a": Capacity(8)}
    state = State(phase, active)
    assert spread_over(choices.monitor, Family.IPV4, state, NOW_S) == ways
    choices.monitor.choice = Choice("wgup_a", NOW_S + 60)
    assert spread_over(choices.monitor, Family.IPV4, state, NOW_S) == [], "he wants that one"
