"""Terms of offers: what one costs and gives, and which makes a missing uplink. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from ..failover.selection import Terms, page_ms
from ..mesh.wire.offer import Offer
from ..model import Cost, Uplink
from ..reasons import because


def terms_of(offer: Offer, limit_mbps: int = 0) -> Terms:
    """The terms that a peer offers; `limit_mbps` is what its lease grants (0 for no limit)."""
    speeds = [mbps for mbps in (offer.bandwidth_mbps, limit_mbps) if mbps]
    return Terms(
        offer.metered,
        offer.quota_gb,
        offer.quota_left_gb,
        offer.price_per_gb,
        bandwidth_mbps=min(speeds, default=0),
    )


def cost_of(offer: Offer) -> Cost:
    """What an offer says of the price, without what changes as it is used."""
    return Cost(offer.metered, offer.quota_gb, offer.price_per_gb)


def offer_reason(offer: Offer) -> str:
    """Why no uplink can be made from an offer of a trusted peer; '' if one can."""
    if not offer.available:
        return because("peer_offers_none")
    feeders = [token.partition("=")[2] for token in offer.egress if token.startswith("uplink=")]
    if feeders:
        return because("peer_on_uplink", feeders[0])
    if offer.quota_gb and not offer.quota_left_gb:
        return because("peer_quota_spent")
    return ""


def missing_uplink(
    wanted: int,
    uplinks: Iterable[Uplink],
    sound: int,
    offers: Iterable[Offer],
    *,
    prefer_latency: bool,
) -> Offer | None:
    """The offer to make an uplink of, where fewer than `wanted` are `sound`; None if there is none.

    `offers` are those of trusted peers. They go by what they cost, then by the score.
    """
    if sound >= wanted:
        return None
    taken = {uplink.peer_id for uplink in uplinks}
    able = [o for o in offers if o.peer_id not in taken and not offer_reason(o)]

    def key(offer: Offer) -> tuple[int, float, float, str]:
        terms = terms_of(offer)
        latency_ms = offer.latency_ms if prefer_latency else 0.0
        return (
            terms.tier,
            terms.price_per_gb,
            page_ms(latency_ms, terms.expected_mbps),
            offer.peer_id,
        )

    return min(able, key=key, default=None)
