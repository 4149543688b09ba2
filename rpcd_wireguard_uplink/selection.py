"""The order in which backups are tried. Pure: candidates in, ranked candidates out.

A router's own lines come before any uplink, by their metric; then uplinks that do not share the
primary's fate; then what they cost (tier); then weight (higher is preferred); then the score: how
long a page takes to load. A candidate that can't be used stays in the list with the reason, so that
it can be told. docs/selection.md works examples.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .model import Health, Offer, PathKind, Uplink

FRESH_S = 3.0  # how recent an answer is that a shared fate is not yet fatal
PAGE_MBIT = 20.0  # a web page of 2.5 MB
PAGE_ROUND_TRIPS = 10
UNKNOWN_MS = 1000.0  # what is not known is taken to be bad, but not worst
UNKNOWN_MBPS = 10
KEPT = 0.8  # what is in use now is left only for what is better by a fifth
SPENT_SHARE = 0.05
TIERS = ("free", "metered", "nearly spent")


@dataclass(frozen=True, slots=True)
class Terms:
    """What using a provider costs and gives: `bandwidth_mbps` is what it advertises or grants,
    `measured_mbps` what it was seen to give when more was wanted; 0 for not known. `quota_left_gb`
    is -1 without a quota.
    """

    metered: bool = False
    quota_gb: float = 0.0
    quota_left_gb: float = -1.0
    price_per_gb: float = 0.0
    bandwidth_mbps: int = 0
    measured_mbps: int = 0

    @property
    def tier(self) -> int:
        """0 free, 1 metered, 2 nearly spent: less than a twentieth of the quota is left."""
        if self.quota_gb and 0 <= self.quota_left_gb < SPENT_SHARE * self.quota_gb:
            return 2
        return 1 if self.metered or self.price_per_gb else 0

    @property
    def expected_mbps(self) -> int:
        """What may be expected: the advertised speed, or less where less was measured."""
        known = [mbps for mbps in (self.bandwidth_mbps, self.measured_mbps) if mbps]
        return min(known, default=UNKNOWN_MBPS)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One possible backup in one family. `last_answer_age_s` is None if it never answered,
    `outlives_primary` says that it has answered since the primary fell silent, `is_active` that
    traffic uses it now.
    """

    name: str
    kind: PathKind
    health: Health
    cause: str = ""
    weight: int = 0
    metric: int = 0
    latency_ms: float = -1.0
    trusted: bool = True
    carries_family: bool = True
    shared_fate: bool = False
    terms: Terms = Terms()
    is_active: bool = False
    last_answer_age_s: float | None = None
    outlives_primary: bool = True


@dataclass(frozen=True, slots=True)
class Ranked:
    """A candidate in its place, and why it can't be used ('' if it can)."""

    candidate: Candidate
    reason: str

    @property
    def usable(self) -> bool:
        """Whether traffic may go there now."""
        return not self.reason


def reason_against(candidate: Candidate) -> str:
    """Why the candidate can't be used now, as a sentence; '' if it can."""
    if not candidate.trusted:
        return "the peer is not trusted"
    if not candidate.carries_family:
        return "the tunnel has no address of this family"
    if candidate.health is Health.DOWN:
        return f"it is down: {candidate.cause}"
    age_s = candidate.last_answer_age_s
    if candidate.health is Health.UNKNOWN or age_s is None:
        return "nothing has answered through it yet"
    if candidate.shared_fate and (age_s > FRESH_S or not candidate.outlives_primary):
        return "it travels over the line that failed and does not answer now"
    return ""


def rank(candidates: Iterable[Candidate], *, prefer_latency: bool) -> list[Ranked]:
    """All candidates, usable ones first, each group in the order of preference."""

    def key(ranked: Ranked) -> tuple[object, ...]:
        c = ranked.candidate
        is_line = c.kind is PathKind.WAN
        return (
            not ranked.usable,
            not is_line,
            c.shared_fate,
            c.metric if is_line else c.terms.tier,
            0 if is_line else -c.weight,
            c.terms.price_per_gb,
            score_ms(c, prefer_latency=prefer_latency) * (KEPT if c.is_active else 1.0),
            c.name,
        )

    return sorted((Ranked(c, reason_against(c)) for c in candidates), key=key)


def score_ms(candidate: Candidate, *, prefer_latency: bool) -> float:
    """Milliseconds that a web page of 2.5 MB in 10 round trips would take; less is better.

    Without `prefer_latency` the round trips are left out.
    """
    latency_ms = candidate.latency_ms if candidate.latency_ms >= 0 else UNKNOWN_MS
    transfer_ms = PAGE_MBIT * 1000.0 / candidate.terms.expected_mbps
    return transfer_ms + (PAGE_ROUND_TRIPS * latency_ms if prefer_latency else 0.0)


def missing_uplink(
    wanted: int, uplinks: Iterable[Uplink], sound: int, offers: Iterable[Offer]
) -> Offer | None:
    """The offer to make an uplink of, where fewer than `wanted` are `sound`; None if there is none.

    `offers` are those of trusted peers. Free ones go before metered ones, then those with the
    lower latency.
    """
    if sound >= wanted:
        return None
    taken = {uplink.peer_id for uplink in uplinks}
    able = [
        offer
        for offer in offers
        if offer.available
        and offer.peer_id not in taken
        and not any(token.startswith("uplink=") for token in offer.egress)
        and not (offer.quota_gb and not offer.quota_left_gb)
    ]

    def key(offer: Offer) -> tuple[bool, float, str]:
        known = offer.latency_ms if offer.latency_ms >= 0 else float("inf")
        return offer.metered, known, offer.peer_id

    return min(able, key=key, default=None)
