"""What offers are worth: their terms, and which one makes a missing uplink."""

from __future__ import annotations

import pytest

from rpcd_wireguard_uplink.failover.selection import Terms
from rpcd_wireguard_uplink.mesh.wire.offer import Offer
from rpcd_wireguard_uplink.model import Endpoint, Uplink
from rpcd_wireguard_uplink.uplinks.terms import missing_uplink, terms_of


def offer(peer_id: str, **changes: object) -> Offer:
    found = Offer(
        peer_id=peer_id, host="192.0.2.7", public_key="key", bandwidth_mbps=100, latency_ms=15.0
    )
    return found.replaced(**changes)


@pytest.mark.parametrize(
    ("made", "chosen"),
    [
        ([], None),
        ([offer("b"), offer("a")], "a"),
        ([offer("a"), offer("b", latency_ms=5.0)], "b"),
        ([offer("a", bandwidth_mbps=10), offer("b")], "b"),
        ([offer("a", metered=True), offer("b", latency_ms=300.0)], "b"),
        ([offer("a", price_per_gb=2), offer("b", price_per_gb=1, bandwidth_mbps=1)], "b"),
        ([offer("a", quota_gb=10, quota_left_gb=0.1), offer("b", metered=True)], "b"),
        ([offer("a", available=False)], None),
        ([offer("a", egress=("uplink=x",))], None),
        ([offer("a", quota_gb=10, quota_left_gb=0.0)], None),
        ([offer("taken"), offer("b", latency_ms=900.0)], "b"),
    ],
)
def test_which_offer_becomes_an_uplink(made: list[Offer], chosen: str | None) -> None:
    taken = [Uplink("taken", "wgup_taken", Endpoint("h"), "key", ())]
    found = missing_uplink(2, taken, 1, made, prefer_latency=True)
    assert (found.peer_id if found is not None else None) == chosen
    assert missing_uplink(1, taken, 1, made, prefer_latency=True) is None


def test_latency_counts_for_new_uplinks_only_if_wanted() -> None:
    far, slow = offer("far", latency_ms=200.0), offer("slow", bandwidth_mbps=20)
    for wanted, name in ((True, "slow"), (False, "far")):
        found = missing_uplink(1, [], 0, [far, slow], prefer_latency=wanted)
        assert found is not None and found.peer_id == name


def test_the_leases_limit_counts_as_advertised() -> None:
    assert terms_of(offer("a"), 20).bandwidth_mbps == 20
    assert terms_of(offer("a"), 200).bandwidth_mbps == 100
    assert terms_of(offer("a", bandwidth_mbps=0), 20).bandwidth_mbps == 20
    assert terms_of(offer("a", bandwidth_mbps=0)).bandwidth_mbps == 0
    told = offer("a", metered=True, quota_gb=9.0, quota_left_gb=3.0, price_per_gb=0.5)
    assert terms_of(told) == Terms(True, 9.0, 3.0, 0.5, 100)
