"""Offer validation: who says it, and may it be believed? The only way into the offer book.

Every offer and withdrawal comes through here, by whatever transport. What is refused can't have
been said by the peer that it names, and is counted by its code. A stranger's offer is kept: whether
a peer is trusted is decided where an offer is used.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import field
from typing import Any

from ..errors import InvalidArgument, NotSupported, NotTrusted, UplinkError
from ..events import Events, NumbersChanged, OfferReceived, OfferWithdrawn
from ..text import quoted
from ..values import dataclass
from .offers import OfferBook, Source
from .rate_limit import Buckets
from .registry.peers import Peers
from .wire.endpoints import check_endpoint_host
from .wire.offer import Offer, Withdrawal, parse_message
from .wire.signing import verify

MOST_REFUSALS = 40  # kinds of them
BURST = 20  # messages of one peer
RATE_PER_S = 0.5


@dataclass(eq=False, repr=False)
class OfferValidator:
    """The validator of one router. `own_keys` gives this router's own WireGuard keys, `refused`
    counts what was refused by code.
    """

    _offers: OfferBook
    _peers: Peers
    _own_keys: Callable[[], Collection[str]]
    _events: Events
    refused: Counter[str] = field(default_factory=Counter)
    _buckets: Buckets = field(default_factory=lambda: Buckets(BURST, RATE_PER_S))

    def take(
        self, raw: Mapping[str, Any] | str, source: Source, carrier: str, sender: str = ""
    ) -> tuple[str, bool, str]:
        """Take a message: the peer it is of, whether it changed anything, and a sentence.

        `sender` is the peer that a DIRECT message is known to come from. Raises InvalidArgument,
        NotTrusted or NotSupported for what is refused.
        """
        try:
            message = parse_message(raw)
            self._check(message, raw, source, sender)
        except UplinkError as error:
            self.count(error.code)
            raise
        peer_id = message.peer_id
        if isinstance(message, Withdrawal):
            taken = self._offers.withdraw(peer_id, message.sequence, time.monotonic(), source)
            if taken:
                self._events.publish(OfferWithdrawn(peer_id, message.reason or carrier))
            told = "The offer was withdrawn." if taken else "There was no offer of this peer."
            return peer_id, taken, told
        known = self._offers.get(peer_id, time.monotonic())
        offer = _received(message, carrier)
        taken = self._offers.accept(offer, source)
        if taken:
            is_same = known is not None and _terms(known) == _terms(offer)
            self._events.publish(NumbersChanged() if is_same else OfferReceived(peer_id, carrier))
        told = "The offer was accepted." if taken else "A newer offer is known already."
        return peer_id, taken, told

    def count(self, code: str) -> None:
        if code in self.refused or len(self.refused) < MOST_REFUSALS:
            self.refused[code] += 1

    def _check(
        self, message: Offer | Withdrawal, raw: Mapping[str, Any] | str, source: Source, sender: str
    ) -> None:
        peer_id = message.peer_id
        if peer_id == self._peers.node_id:
            raise InvalidArgument(
                f"peer_id {quoted(peer_id)} is this router's own: two nodes have the same id",
                code="own_id",
            )
        if source is Source.DIRECT and peer_id != sender:
            raise NotTrusted(
                f"{quoted(sender)} can't speak for {quoted(peer_id)}", code="other_peer"
            )
        self._check_signature(peer_id, raw, source)
        if isinstance(message, Offer):
            self._check_offer(message, source)
        self._check_rank(peer_id, source)

    def _check_offer(self, offer: Offer, source: Source) -> None:
        if offer.public_key in self._own_keys():
            raise InvalidArgument("endpoint.public_key is this router's own", code="key_is_ours")
        # Two neighbours' LANs may have the same addresses; the lease client passes ours over.
        near = {each.host for each in offer.endpoints if each.scope == "link"}
        for host in sorted({offer.host, *(each.host for each in offer.endpoints)}):
            check_endpoint_host(host, () if host in near else self._peers.mesh.addresses)
        # Offers cost work here; what a peer takes back is believed however often it does.
        if source is not Source.LOCAL and not self._buckets.take(offer.peer_id, time.monotonic()):
            raise NotSupported(
                f"{quoted(offer.peer_id)} sends too many offers: once in two seconds is enough",
                code="too_many_offers",
            )

    def _check_rank(self, peer_id: str, source: Source) -> None:
        """Whoever goes by an id that nobody tied to him takes no place of what is trusted."""
        known = self._offers.get(peer_id, time.monotonic())
        if source is Source.LOCAL or known is None or self._peers.offer_distrust_reason(known):
            return
        if reason := self._peers.carrier_distrust_reason(peer_id, "mesh"):
            raise NotTrusted(reason, code="not_bound")

    def _check_signature(self, peer_id: str, raw: Mapping[str, Any] | str, source: Source) -> None:
        """A message that was not heard from the peer itself must be signed by its known key."""
        known = self._peers.identity_of(peer_id)
        if source is Source.DIRECT or (source is Source.LOCAL and not known):
            return
        if not known:
            raise NotTrusted(
                f"no identity of {peer_id} is known: it must be met on the mesh first",
                code="unknown_identity",
            )
        if verify(raw) != known:
            raise NotTrusted(
                f"the message is signed by another key than {peer_id}'s: if the router "
                f"was set up anew, `wgctl uplink trust accept {peer_id}` takes its new one",
                code="identity_changed",
            )


def _terms(offer: Offer) -> Offer:
    """An offer without what differs each time that it is sent."""
    return offer.replaced(sequence=None, received_s=0.0, latency_ms=0.0, quota_left_gb=0.0)


def _received(message: Offer, carrier: str) -> Offer:
    """The offer as the offer book keeps it, received now."""
    kept = message.replaced(timestamp="", identity="", signature="")
    return kept.replaced(received_s=time.monotonic(), carrier=carrier)
