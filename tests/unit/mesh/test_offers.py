"""The offer book: order, age, its bound, and what survives a restart."""

from __future__ import annotations

import json

import pytest

from rpcd_wireguard_uplink.mesh.offers import (
    MOST_OFFERS,
    PLACE_BITS,
    RESTART_AGE_S,
    Numbering,
    OfferBook,
    Source,
)
from rpcd_wireguard_uplink.mesh.wire.endpoints import ScopedEndpoint
from rpcd_wireguard_uplink.mesh.wire.offer import Offer

OFFER = Offer(
    peer_id="a", host="192.0.2.1", public_key="key", sequence=5, ttl_s=100, received_s=1000.0
)


@pytest.mark.parametrize(
    ("known", "later", "sequence", "is_accepted"),
    [
        (5, 1.0, 6, True),
        (5, 1.0, 5, False),
        (5, 1.0, 4, False),
        (5, RESTART_AGE_S, 4, False),
        (5, RESTART_AGE_S + 1, 4, True),
        (5, 1.0, None, True),
        (None, 1.0, 1, True),
        (None, 1.0, None, True),
        (5, 1.0, 0, False),
    ],
)
def test_order(known: int | None, later: float, sequence: int | None, is_accepted: bool) -> None:
    book = OfferBook()
    assert book.accept(OFFER.replaced(sequence=known))
    newer = OFFER.replaced(sequence=sequence, received_s=1000.0 + later, wan_type="new")
    assert book.accept(newer) is is_accepted
    found = book.get("a", 1000.0 + later)
    assert found is not None
    assert (found.wan_type == "new") is is_accepted


def test_an_offer_ends_when_it_is_withdrawn_and_by_its_age_since_receipt() -> None:
    assert OFFER.replaced(ttl_s=None).expires_s == 1900.0
    book = OfferBook()
    assert not book.withdraw("a")
    book.accept(OFFER)
    assert book.withdraw("a")
    assert book.get("a", 1000.0) is None
    book.accept(OFFER.replaced(sequence=6))
    assert book.get("a", 1100.1) is None
    assert list(book.fresh(1100.0)) == [OFFER.replaced(sequence=6)]
    assert list(book.fresh(1100.1)) == []
    assert list(book.fresh(1000.0)) == [], "what expired is dropped for good"


def test_numbers_go_on_above_what_was_used_before() -> None:
    numbering = Numbering()
    first = numbering.next(1000.0)
    assert not numbering.surpass(first)
    assert numbering.surpass(5000 << PLACE_BITS)
    will = numbering.last_will(1000.0)
    assert will > 5000 << PLACE_BITS
    assert numbering.surpass(will + 7)
    assert will + 7 < numbering.next(1000.0) < numbering.last_will(1000.0)


def test_the_oldest_goes_when_it_is_full() -> None:
    book = OfferBook()
    for number in range(MOST_OFFERS):
        book.accept(OFFER.replaced(peer_id=f"p{number}"))
    book.accept(OFFER.replaced(peer_id="p0", sequence=6))  # heard of again
    book.accept(OFFER.replaced(peer_id="one more"))
    kept = {offer.peer_id for offer in book.fresh(1000.0)}
    assert len(kept) == MOST_OFFERS
    assert "p1" not in kept
    assert {"p0", "one more"} <= kept


def test_what_programs_tell_of_anybody_pushes_out_nobody_who_was_heard_himself() -> None:
    book = OfferBook()
    book.accept(OFFER.replaced(carrier="mesh"), Source.DIRECT)
    relayed = OFFER.replaced(peer_id="r", carrier="mqtt")
    book.accept(relayed, Source.RELAYED)
    for number in range(2 * MOST_OFFERS):
        book.accept(OFFER.replaced(peer_id=f"p{number}", carrier="bus"), Source.LOCAL)
    assert len(book.names) == len(book.sequences) == MOST_OFFERS
    assert {"a", "r", f"p{number}"} <= book.names.keys()
    assert not book.accept(relayed.replaced(sequence=4), Source.RELAYED), "a replay"
    for number in range(MOST_OFFERS):
        book.accept(OFFER.replaced(peer_id=f"m{number}", carrier="mesh"), Source.DIRECT)
    assert "a" not in book.names and len(book.names) == MOST_OFFERS


def test_an_earlier_run_is_taken_over() -> None:
    """Also after a boot that began the monotonic clock anew, and where a row is damaged."""
    before, book = OfferBook(), OfferBook()
    way = ScopedEndpoint("10.40.0.2", 51821, "link")
    full = OFFER.replaced(peer_id="b", endpoints=(way,), egress=("gw=1",), carrier="mqtt")
    for offer in (OFFER, full, OFFER.replaced(peer_id="later", received_s=1000.5)):
        before.accept(offer)
    rows = json.loads(json.dumps([*before.rows(1000.5)]))
    for changes in ({"peer_id": []}, {"endpoint": {}}, {"received_s": "x"}, {"ttl_s": True}):
        rows.append({**rows[0], "peer_id": "damaged", **changes})
    for latency_ms in (float("nan"), float("inf"), "x"):
        rows.append({**rows[0], "capabilities": {"latency_ms": latency_ms}})
    rows.append({**rows[1], "endpoints": [{"host": "10.40.0.2", "port": float("inf")}]})
    book.restore([*rows, {}, [], 5], {"b": 9, "c": 4}, 1000.0)
    assert list(book.fresh(1000.0)) == [OFFER, full]
    assert book.sequences == {"a": 5, "b": 9, "c": 4}
