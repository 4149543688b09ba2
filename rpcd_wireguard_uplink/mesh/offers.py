"""What mesh peers offer, newest first come: which offer of a peer counts, and for how long.

An offer's age counts from its receipt and its order from the peer's own sequence, because routers
may have no clock. Pure but for nothing: the caller gives the time. Trust is decided elsewhere.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field
from enum import Enum
from typing import Any

from ..errors import InvalidArgument
from ..values import dataclass
from .wire.offer import Offer

MOST_OFFERS = 1000
PLACE_BITS = 20  # with seconds of this century above them a sequence stays below 2**53
LAST_PLACE = (1 << PLACE_BITS) - 1
RESTART_AGE_S = 60.0  # a peer's lower sequence counts as a restart once its last offer is this old


class Source(Enum):
    """How a message came, which says what its sequence is worth.

    DIRECT is the peer's own answer over the mesh: what it says now holds, whatever its sequence.
    LOCAL was handed in by a program of this router. RELAYED passed through others and is signed: it
    must be newer than anything that was ever seen, or else it is a replay.
    """

    DIRECT = "direct"
    LOCAL = "local"
    RELAYED = "relayed"


@dataclass(slots=True)
class Numbering:
    """The sequence of our own messages: an epoch of seconds, and a place within it.

    A last will is numbered when its connection is made and must be newer than all that this
    connection says, but older than what the next one does: it is the last place of its epoch.
    """

    _epoch: int = 0
    _place: int = 0

    def next(self, wall_clock_s: float) -> int:
        if self._place >= LAST_PLACE - 1 or not self._epoch:
            self._begin(wall_clock_s)
        self._place += 1
        return (self._epoch << PLACE_BITS) + self._place

    def last_will(self, wall_clock_s: float) -> int:
        """That of a last will for a connection that is made now."""
        self._begin(wall_clock_s)
        return (self._epoch << PLACE_BITS) + LAST_PLACE

    def surpass(self, sequence: int) -> bool:
        """Go on above a sequence that an earlier run of ours has used; whether it was ahead."""
        if sequence <= (self._epoch << PLACE_BITS) + self._place:
            return False
        self._epoch, self._place = sequence >> PLACE_BITS, LAST_PLACE
        return True

    def _begin(self, wall_clock_s: float) -> None:
        self._epoch, self._place = max(self._epoch + 1, int(wall_clock_s)), 0


@dataclass(slots=True)
class OfferBook:
    """The newest offer of each peer by name, in order of receipt. When it is full the oldest goes,
    but what was heard from peers themselves outlives what programs tell of others.

    `sequences` are the last that each peer was seen to use, withdrawals included.
    """

    names: dict[str, Offer] = field(default_factory=dict)
    sequences: dict[str, int] = field(default_factory=dict)

    def accept(self, offer: Offer, source: Source = Source.LOCAL) -> bool:
        """Keep an offer; False where it is older than what is known."""
        if self._is_stale(offer.peer_id, offer.sequence, offer.received_s, source):
            return False
        self._remember(offer.peer_id, offer.sequence, source)
        self.names.pop(offer.peer_id, None)
        if len(self.names) >= MOST_OFFERS:
            self.names.pop(self._least_proven())
        self.names[offer.peer_id] = offer
        return True

    def _least_proven(self) -> str:
        """Who gives way: whom a local program has told of, as it may of anybody, goes first."""
        told = (peer_id for peer_id, offer in self.names.items() if offer.carrier == "bus")
        return next(told, next(iter(self.names)))

    def withdraw(
        self,
        peer_id: str,
        sequence: int | None = None,
        now_s: float = 0.0,
        source: Source = Source.LOCAL,
    ) -> bool:
        """Take a peer's withdrawal; whether an offer went by it."""
        if sequence is not None or source is Source.RELAYED:
            if self._is_stale(peer_id, sequence, now_s, source):
                return False
            self._remember(peer_id, sequence, source)
        return self.forget(peer_id)

    def forget(self, peer_id: str) -> bool:
        """Drop a peer's offer; whether there was one."""
        return self.names.pop(peer_id, None) is not None

    def _is_stale(
        self, peer_id: str, sequence: int | None, received_s: float, source: Source
    ) -> bool:
        if source is Source.DIRECT:
            return False
        seen = self.sequences.get(peer_id)
        if source is Source.RELAYED:
            return sequence is None or (seen is not None and sequence <= seen)
        if seen is None or sequence is None or sequence > seen:
            return False
        known = self.names.get(peer_id)
        return known is not None and received_s - known.received_s <= RESTART_AGE_S

    def _remember(self, peer_id: str, sequence: int | None, source: Source) -> None:
        self.sequences.pop(peer_id, None)
        if sequence is None:
            return
        if len(self.sequences) >= MOST_OFFERS:
            if source is Source.LOCAL:
                return  # whoever forgot the others' would take a replay of theirs
            self.sequences.pop(next(iter(self.sequences)))
        self.sequences[peer_id] = sequence

    def get(self, peer_id: str, now_s: float) -> Offer | None:
        offer = self.names.get(peer_id)
        return offer if offer is not None and now_s <= offer.expires_s else None

    def with_key(self, public_key: str, now_s: float) -> Offer | None:
        return next((o for o in self.fresh(now_s) if o.public_key == public_key), None)

    def fresh(self, now_s: float) -> Iterator[Offer]:
        """All offers that have not expired, newest last; the expired ones are dropped."""
        for peer_id in [p for p, offer in self.names.items() if now_s > offer.expires_s]:
            del self.names[peer_id]
        yield from self.names.values()

    def rows(self, now_s: float) -> Iterator[dict[str, Any]]:
        """All offers that have not expired, for the state file."""
        return (offer.as_row() for offer in self.fresh(now_s))

    def restore(
        self, rows: Iterable[Mapping[str, Any]], sequences: Mapping[str, int], now_s: float
    ) -> None:
        """Take over what an earlier run of the service knew.

        An offer from the future of the monotonic clock is of an earlier boot and left out.
        """
        for row in rows:
            with contextlib.suppress(InvalidArgument):
                offer = Offer.parse_row(row)
                if offer.received_s <= now_s:
                    self.accept(offer)
        for peer_id, sequence in sequences.items():
            self._remember(peer_id, sequence, Source.DIRECT)
