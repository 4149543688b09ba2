"""The order in which backups are tried. Pure: candidates in, ranked candidates out.

A router's own WANs come before any uplink, by their metric; then uplinks that do not travel over
the primary; then what they cost (tier); then weight (higher is preferred); then the price; then
the score, how long a page takes to load. A candidate that can't be used stays in the list with the
reason, so that it can be told. docs/selection.md works examples.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ..model import Cost, Health, PathKind
from ..reasons import because
from ..values import dataclass

FRESH_S = 3.0  # how recent an answer is that a shared underlay is not yet fatal
PAGE_MBIT = 20.0  # a web page of 2.5 MB
PAGE_ROUND_TRIPS = 10
UNKNOWN_MS = 1000.0  # what is not known is taken to be bad, but not worst
UNKNOWN_MBPS = 10
KEPT = 0.8  # what is in use now is left only for what is better by a fifth
SPENT_SHARE = 0.05
TIERS = ("free", "metered", "unknown", "nearly spent")


@dataclass(frozen=True, slots=True)
class Terms:
    """What using a provider costs and gives: `bandwidth_mbps` is what it advertises or grants,
    `measured_mbps` what it was seen to give when more was wanted; 0 for not known. `quota_left_gb`
    is -1 without a quota. Without `is_known` nobody has said yet what the provider costs.
    """

    metered: bool = False
    quota_gb: float = 0.0
    quota_left_gb: float = -1.0
    price_per_gb: float = 0.0
    bandwidth_mbps: int = 0
    measured_mbps: int = 0
    is_known: bool = True

    @property
    def tier(self) -> int:
        """0 free, 1 metered, 2 not known, 3 nearly spent: less than a twentieth of the quota is
        left.
        """
        if self.quota_gb and 0 <= self.quota_left_gb < SPENT_SHARE * self.quota_gb:
            return 3
        if not self.is_known:
            return 2
        return 1 if self.metered or self.price_per_gb else 0

    @property
    def expected_mbps(self) -> int:
        """What may be expected: the advertised speed, or less where less was measured."""
        told, seen = self.bandwidth_mbps, self.measured_mbps
        return min(told, seen) if told and seen else told or seen or UNKNOWN_MBPS


@dataclass(frozen=True, slots=True)
class Candidate:
    """One possible backup in one family. `last_answer_age_s` is None if it never answered,
    `outlives_primary` says that it has answered since the primary fell silent, `is_active` that
    traffic uses it now, `fault` why it is of no use although it answers.
    """

    name: str
    kind: PathKind
    health: Health
    cause: str = ""
    weight: int = 0
    metric: int = 0
    latency_ms: float = -1.0
    carries_family: bool = True
    shares_underlay: bool = False
    terms: Terms = Terms()
    is_active: bool = False
    last_answer_age_s: float | None = None
    outlives_primary: bool = True
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Ranked:
    """A candidate in its place, and why it can't be used ('' if it can)."""

    candidate: Candidate
    reason: str

    @property
    def usable(self) -> bool:
        return not self.reason


def is_early(candidate: Candidate, *, costs: bool) -> bool:
    """Whether new connections may leave by it at a first doubt: a usable one, by a way of its own,
    that costs nothing by volume unless that is no matter (`costs`).
    """
    terms = candidate.terms
    is_free = not (terms.metered or terms.quota_gb or terms.price_per_gb)
    is_sound = candidate.health is Health.UP and not candidate.shares_underlay
    return is_sound and not reason_against(candidate) and (is_free or costs)


def reason_against(candidate: Candidate) -> str:
    """Why the candidate can't be used now, as a sentence; '' if it can."""
    if not candidate.carries_family:
        return because("no_address")
    if candidate.health is Health.DOWN:
        return because("down", candidate.cause)
    age_s = candidate.last_answer_age_s
    if candidate.health is Health.UNKNOWN or age_s is None:
        return because("never_answered")
    if candidate.fault:
        return candidate.fault
    if candidate.shares_underlay and (age_s > FRESH_S or not candidate.outlives_primary):
        return because("needs_dead_wan")
    return ""


class Place(NamedTuple):
    """What decides on a candidate's place: the first difference counts, less comes first.

    `score_ms` of what is in use now is counted as a fifth less than it is.
    """

    unusable: bool
    tunnel: bool
    shares_underlay: bool
    metric: int
    tier: int
    weight: int
    price: float
    score_ms: float
    name: str


def place_of(ranked: Ranked, *, prefer_latency: bool) -> Place:
    """The candidate's place among others; a WAN has a metric, an uplink has a tier and a weight."""
    c = ranked.candidate
    is_wan = c.kind is PathKind.WAN
    return Place(
        unusable=not ranked.usable,
        tunnel=not is_wan,
        shares_underlay=c.shares_underlay,
        metric=c.metric if is_wan else 0,
        tier=c.terms.tier,
        weight=0 if is_wan else -c.weight,
        price=c.terms.price_per_gb,
        score_ms=score_ms(c, prefer_latency=prefer_latency) * (KEPT if c.is_active else 1.0),
        name=c.name,
    )


def rank(candidates: Iterable[Candidate], *, prefer_latency: bool) -> list[Ranked]:
    """All candidates, usable ones first, each group in the order of preference."""
    judged = (Ranked(c, reason_against(c)) for c in candidates)
    return sorted(judged, key=lambda each: place_of(each, prefer_latency=prefer_latency))


def score_ms(candidate: Candidate, *, prefer_latency: bool) -> float:
    """How long a page would take through the candidate; less is better."""
    shown_ms = candidate.latency_ms if prefer_latency else 0.0
    return page_ms(shown_ms, candidate.terms.expected_mbps)


def page_ms(latency_ms: float, rate_mbps: int) -> float:
    """Milliseconds that a web page of 2.5 MB in 10 round trips takes; a latency of -1 is unknown.

    The size is about the median page's (HTTP Archive, Web Almanac 2024, "Page Weight"); round trips
    weigh more than bits from some Mbit/s on (M. Belshe, "More Bandwidth Doesn't Matter (Much)",
    2010).
    """
    known_ms = latency_ms if latency_ms >= 0 else UNKNOWN_MS
    return PAGE_MBIT * 1000.0 / rate_mbps + PAGE_ROUND_TRIPS * known_ms


def kept_terms(cost: Cost | None) -> Terms:
    """The terms of an uplink whose peer has not been heard since the start."""
    if cost is None:
        return Terms(is_known=False)
    return Terms(cost.metered, cost.quota_gb, price_per_gb=cost.price_per_gb)
