"""The order in which backups are tried. Pure: candidates in, ranked candidates out.

A router's own lines come before any uplink, by their metric; then uplinks that do not share the
primary's fate; then weight (higher is preferred), then latency where `prefer_latency` asks for it.
A candidate that can't be used stays in the list with the reason, so that it can be told.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .model import Health, Offer, PathKind, Uplink

FRESH_S = 3.0  # how recent an answer is that a shared fate is not yet fatal


@dataclass(frozen=True, slots=True)
class Candidate:
    """One possible backup in one family. `last_answer_age_s` is None if it never answered,
    `outlives_primary` says that it has answered since the primary fell silent.
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
        known = c.latency_ms if prefer_latency and c.latency_ms >= 0 else float("inf")
        return (
            not ranked.usable,
            c.kind is not PathKind.WAN,
            c.shared_fate,
            c.metric if c.kind is PathKind.WAN else -c.weight,
            known,
            c.name,
        )

    return sorted((Ranked(c, reason_against(c)) for c in candidates), key=key)


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
