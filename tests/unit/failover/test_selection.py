"""The order of backups and the reasons against them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rpcd_wireguard_uplink.failover.selection import (
    FRESH_S,
    Candidate,
    Terms,
    kept_terms,
    rank,
    reason_against,
    score_ms,
)
from rpcd_wireguard_uplink.model import Cost, Health, PathKind

GOOD = Candidate("a", PathKind.UPLINK, Health.UP, weight=10, latency_ms=20.0, last_answer_age_s=1.0)
LINE = Candidate("wan2", PathKind.WAN, Health.UP, metric=20, last_answer_age_s=1.0)
SHARING = replace(GOOD, shares_underlay=True, outlives_primary=True)
UNANSWERED = "nothing has answered through it yet"
OVER_THE_DEAD = "it travels over the WAN that failed and does not answer now"


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        (GOOD, ""),
        (replace(GOOD, health=Health.SUSPECT), ""),
        (replace(GOOD, carries_family=False), "the tunnel has no address of this family"),
        (replace(GOOD, health=Health.DOWN, cause="carrier lost"), "it is down: carrier lost"),
        (replace(GOOD, health=Health.UNKNOWN), UNANSWERED),
        (replace(GOOD, health=Health.SUSPECT, last_answer_age_s=None), UNANSWERED),
        (replace(GOOD, last_answer_age_s=600.0), ""),
        (SHARING, ""),
        (replace(SHARING, outlives_primary=False), OVER_THE_DEAD),
        (replace(SHARING, last_answer_age_s=FRESH_S + 1), OVER_THE_DEAD),
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


def other(name: str, *, mbps: int = 0, measured_mbps: int = 0, **changes: Any) -> Candidate:
    """A good tunnel that differs so from the others."""
    terms = changes.pop("terms", Terms())
    terms = replace(terms, bandwidth_mbps=mbps, measured_mbps=measured_mbps)
    return replace(GOOD, name=name, terms=terms, **changes)


DEAR = other("b", mbps=100, terms=Terms(price_per_gb=2))
CHEAP = other("c", mbps=1, terms=Terms(price_per_gb=1))
NEAR, FAR = other("near", mbps=20, latency_ms=10.0), other("far", mbps=100, latency_ms=100.0)
QUICK, HEAVY = other("b", latency_ms=5.0), other("c", weight=11, latency_ms=500.0)
USED = other("z", mbps=50, is_active=True, latency_ms=0.0)


@pytest.mark.parametrize(
    ("candidates", "prefer_latency", "order"),
    [
        # the router's own WANs come first, by their metric
        (
            [other("a", weight=100), LINE, replace(LINE, name="wan3", metric=5)],
            False,
            "wan3 wan2 a",
        ),
        # a higher weight is preferred, but a shared underlay comes last whatever its weight
        ([GOOD, other("b", weight=11)], False, "b a"),
        ([other("b", weight=100, shares_underlay=True), GOOD], False, "a b"),
        # latency decides between equal weights, if wanted
        ([GOOD, QUICK, other("0", latency_ms=-1.0)], True, "b a 0"),
        ([GOOD, QUICK, other("0", latency_ms=-1.0)], False, "0 a b"),
        ([GOOD, QUICK, HEAVY], True, "c b a"),
        # cost comes before weight, and price behind it
        (
            [
                other("c", weight=100, terms=Terms(quota_gb=10, quota_left_gb=0.1)),
                other("b", weight=100, terms=Terms(metered=True)),
                GOOD,
            ],
            False,
            "a b c",
        ),
        ([DEAR, CHEAP], False, "c b"),
        ([replace(DEAR, weight=11), CHEAP], False, "b c"),
        # who claims too much sinks once it is seen
        ([other("b", mbps=50), other("a", mbps=500)], False, "a b"),
        ([other("b", mbps=50), other("a", mbps=500, measured_mbps=9)], False, "b a"),
        # near and slow against far and fast
        ([NEAR, FAR], True, "near far"),
        ([NEAR, FAR], False, "far near"),
        # what is in use stays until another is a fifth better
        ([USED, other("a", mbps=60, latency_ms=0.0)], False, "z a"),
        ([USED, other("a", mbps=63, latency_ms=0.0)], False, "a z"),
    ],
)
def test_order(candidates: list[Candidate], prefer_latency: bool, order: str) -> None:
    assert names(*candidates, prefer_latency=prefer_latency) == order.split()


def test_what_cannot_be_used_is_last_and_still_told() -> None:
    down = replace(LINE, health=Health.DOWN, cause="x")
    ranked = rank([down, GOOD], prefer_latency=False)
    assert [(r.candidate.name, r.usable) for r in ranked] == [("a", True), ("wan2", False)]


@pytest.mark.parametrize(
    ("terms", "tier"),
    [
        (Terms(), 0),
        (Terms(quota_gb=100, quota_left_gb=5.0), 0),
        (Terms(quota_gb=100, quota_left_gb=4.9), 3),
        (Terms(quota_gb=100, quota_left_gb=0.0), 3),
        (Terms(quota_gb=100), 0),  # it did not say what is left
        (Terms(metered=True), 1),
        (Terms(price_per_gb=0.1), 1),
        (Terms(metered=True, quota_gb=10, quota_left_gb=0.1), 3),
        (Terms(is_known=False), 2),
    ],
)
def test_tiers(terms: Terms, tier: int) -> None:
    assert terms.tier == tier


def test_a_cost_that_nobody_told_ranks_behind_every_known_one() -> None:
    terms = {
        "spent": Terms(metered=True, quota_gb=10, quota_left_gb=0.1),
        "unknown": kept_terms(None),
        "metered": kept_terms(Cost(metered=True)),
        "priced": kept_terms(Cost(price_per_gb=0.5)),
        "free": kept_terms(Cost()),
    }
    heavy = {name: 100 if name == "unknown" else 1 for name in terms}
    able = [replace(GOOD, name=n, terms=t, weight=heavy[n]) for n, t in terms.items()]
    ranked = [each.candidate.name for each in rank(able, prefer_latency=False)]
    assert ranked == ["free", "metered", "priced", "unknown", "spent"]


@pytest.mark.parametrize(
    ("advertised", "measured", "expected"),
    [(0, 0, 10), (100, 0, 100), (100, 12, 12), (20, 80, 20), (0, 30, 30)],
)
def test_a_claim_counts_as_far_as_it_was_kept(
    advertised: int, measured: int, expected: int
) -> None:
    terms = Terms(bandwidth_mbps=advertised, measured_mbps=measured)
    assert terms.expected_mbps == expected


@pytest.mark.parametrize(
    ("latency_ms", "mbps", "prefer_latency", "score"),
    [
        (20.0, 50, True, 600.0),  # 20 Mbit at 50 Mbit/s, and 10 round trips
        (20.0, 50, False, 400.0),
        (-1.0, 50, True, 10400.0),
        (-1.0, 50, False, 400.0),
        (20.0, 0, True, 2200.0),  # taken for 10 Mbit/s
    ],
)
def test_the_score_is_the_time_of_a_page(
    latency_ms: float, mbps: int, prefer_latency: bool, score: float
) -> None:
    found = replace(GOOD, latency_ms=latency_ms, terms=Terms(bandwidth_mbps=mbps))
    assert score_ms(found, prefer_latency=prefer_latency) == score


def test_the_examples_that_people_read() -> None:
    """docs/selection.md, its table."""
    text = (Path(__file__).resolve().parents[3] / "docs/selection.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line[:3].strip("| ")]
    rows = [row for row in rows if row[0].isdigit() and len(row) == 8]
    assert len(rows) == 7
    tiers: dict[str, dict[str, Any]] = {"free": {}, "metered": {"metered": True}}
    tiers["nearly spent"] = {"quota_gb": 10.0, "quota_left_gb": 0.2}
    found = []
    for _, name, latency, offered, measured, weight, tier, _ in rows:
        terms = Terms(bandwidth_mbps=int(offered), measured_mbps=int(measured), **tiers[tier])
        latency_ms = float(latency)
        made = replace(GOOD, name=name, latency_ms=latency_ms, weight=int(weight), terms=terms)
        found.append(made)
    ranked = rank(found, prefer_latency=True)
    assert {r.candidate.name: str(n) for n, r in enumerate(ranked, 1)} == {r[1]: r[0] for r in rows}
    assert {c.name: str(round(score_ms(c, prefer_latency=True))) for c in found} == {
        row[1]: row[7] for row in rows
    }
