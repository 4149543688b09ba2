"""How often one source may ask."""

from __future__ import annotations

from rpcd_wireguard_uplink.mesh.rate_limit import MOST_SOURCES, Buckets


def test_the_bucket_by_the_clock() -> None:
    buckets = Buckets(2, 0.5)
    taken = [
        buckets.take("a", at_s) for at_s in (0.0, 0.0, 0.0, 1.0, 2.0, 2.0, 100.0, 100.0, 100.0)
    ]
    assert taken == [True, True, False, False, True, False, True, True, False]


def test_the_sources_that_are_remembered_are_bounded() -> None:
    buckets = Buckets(1, 0.001)
    assert buckets.take("steady", 0.0)
    for number in range(3 * MOST_SOURCES):
        buckets.take(str(number), 1.0)
        assert not buckets.take("steady", 1.0), "who keeps asking is not forgotten"
    assert len(buckets) == MOST_SOURCES
