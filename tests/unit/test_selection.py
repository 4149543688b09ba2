"""The order of backups and the reasons against them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rpcd_wireguard_uplink.model import Health, PathKind
from rpcd_wireguard_uplink.selection import FRESH_S, Candidate, rank, reason_against

GOOD = Candidate("a", PathKind.UPLINK, Health.UP, weight=10, latency_ms=20.0, last_answer_age_s=1.0)
LINE = Candidate("wan2", PathKind.WAN, Health.UP, metric=20, last_answer_age_s=1.0)


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        (GOOD, ""),
        (replace(GOOD, health=Health.SUSPECT), ""),
        (replace(GOOD, trusted=False), "the peer is not trusted"),
        (replace(GOOD, carries_family=False), "the tunnel has no address of this family"),
        (replace(GOOD, health=Health.DOWN, cause="carrier lost"), "it is down: carrier lost"),
        (replace(GOOD, health=Health.UNKNOWN), "nothing has answered through it yet"),
        (
            replace(GOOD, health=Health.SUSPECT, last_answer_age_s=None),
            "nothing has answered through it yet",
        ),
        (replace(GOOD, last_answer_age_s=600.0), ""),
        (replace(GOOD, shared_fate=True, outlives_primary=True), ""),
        (
            replace(GOOD, shared_fate=True, outlives_primary=False),
            "it travels over the line that failed and does not answer now",
        ),
        (
            replace(GOOD, shared_fate=True, outlives_primary=True, last_answer_age_s=FRESH_S + 1),
            "it travels over the line that failed and does not answer now",
        ),
    ],
)
def test_reasons(candidate: Candidate, reason: str) -> None:
    assert reason_against(candidate) == reason


def names(*candidates: Candidate, prefer_latency: bool = False) -> list[str]:
    """The names in the order of rank, which must not depend on the order they came in."""
    ordered = [r.candidate.name for r in rank(candidates, prefer_latency=prefer_latency)]
    backwards = rank(reversed(candidates), prefer_latency=prefer_latency)
    assert [r.candidate.name for r in backwards] == ordered
    return ordered


def test_the_routers_own_lines_come_first_by_metric() -> None:
    other = replace(LINE, name="wan3", metric=5)
    heavy = replace(GOOD, weight=100)
    assert names(heavy, LINE, other) == ["wan3", "wan2", "a"]


def test_a_higher_weight_is_preferred() -> None:
    assert names(GOOD, replace(GOOD, name="b", weight=11)) == ["b", "a"]


def test_shared_fate_comes_last_whatever_its_weight() -> None:
    heavy = replace(GOOD, name="b", weight=100, shared_fate=True, outlives_primary=True)
    assert names(heavy, GOOD) == ["a", "b"]


def test_latency_decides_between_equal_weights_if_wanted() -> None:
    quick = replace(GOOD, name="b", latency_ms=5.0)
    unknown = replace(GOOD, name="0", latency_ms=-1.0)
    assert names(GOOD, quick, unknown, prefer_latency=True) == ["b", "a", "0"]
    assert names(GOOD, quick, unknown, prefer_latency=False) == ["0", "a", "b"]
    heavy = replace(GOOD, name="c", weight=11, latency_ms=500.0)
    assert names(GOOD, quick, heavy, prefer_latency=True) == ["c", "b", "a"]


def test_what_cannot_be_used_is_last_and_still_told() -> None:
    down = replace(LINE, health=Health.DOWN, cause="x")
    ranked = rank([down, GOOD], prefer_latency=False)
    assert [(r.candidate.name, r.usable) for r in ranked] == [("a", True), ("wan2", False)]
