"""What peers offer, as it was received: bounded, ordered, aged. Decides nothing about trust.

A router may have no clock, so an offer's age counts from its receipt, and `sequence` alone tells
an old message from a new one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from .model import Offer

MOST_OFFERS = 1000
RESTART_AGE_S = 60.0  # a peer's lower sequence counts as a restart once its last offer is this old


@dataclass(slots=True)
class OfferBook:
    """The newest offer of each peer, on receipt order; the oldest goes when it is full."""

    _offers: dict[str, Offer] = field(default_factory=dict)

    def accept(self, offer: Offer) -> bool:
        """Keep an offer; False where it is older than the one that is known."""
        known = self._offers.get(offer.peer_id)
        if known is not None and self._is_stale(known, offer):
            return False
        self._offers.pop(offer.peer_id, None)
        if len(self._offers) >= MOST_OFFERS:
            self._offers.pop(next(iter(self._offers)))
        self._offers[offer.peer_id] = offer
        return True

    @staticmethod
    def _is_stale(known: Offer, offer: Offer) -> bool:
        if known.sequence is None or offer.sequence is None:
            return False
        restarted = offer.received_s - known.received_s > RESTART_AGE_S
        return offer.sequence <= known.sequence and not restarted

    def withdraw(self, peer_id: str) -> bool:
        """Forget a peer's offer; whether there was one."""
        return self._offers.pop(peer_id, None) is not None

    def get(self, peer_id: str, now_s: float) -> Offer | None:
        """The peer's offer, if there is one that has not expired."""
        offer = self._offers.get(peer_id)
        return offer if offer is not None and not expired(offer, now_s) else None

    def fresh(self, now_s: float) -> Iterator[Offer]:
        """All offers that have not expired, newest last; the expired ones are dropped."""
        for peer_id in [p for p, offer in self._offers.items() if expired(offer, now_s)]:
            del self._offers[peer_id]
        yield from self._offers.values()

    def restore(self, offers: Iterator[Offer]) -> None:
        """Take offers over from an earlier run of the service."""
        for offer in offers:
            self.accept(offer)


def expired(offer: Offer, now_s: float) -> bool:
    """Whether the offer's time to live has passed since it was received."""
    return now_s - offer.received_s > offer.ttl_s
