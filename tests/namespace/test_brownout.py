"""A line that is alive and bad is told as degraded and left for what is clearly better."""

from __future__ import annotations

import time

import pytest

from tests.lab.meter import Meter, lost, settled
from tests.lab.network import ECHO4, ConsumerNetwork
from tests.lab.provider import make_provider
from tests.lab.router import Router, settings

pytestmark = pytest.mark.needs("conntrack")

LOSSY = 8  # percent in each direction: 15 % of the round trips, far from the 40 % of a death


def test_a_lossy_line_is_left_for_a_good_uplink(network: ConsumerNetwork) -> None:
    provider = make_provider(network.lab, network.providers[0])
    router = Router.build(network, [provider], settings(pace="default", max_loss=5))
    router.start()
    provider_wan = network.provider_wans[0]
    with Meter(network.host, ECHO4, rate_hz=20) as meter:
        settled(meter)
        began = time.monotonic()
        network.wan.drop(LOSSY)
        meter.wait_for_source(provider_wan.address4, since=began, timeout_s=60.0)
        assert time.monotonic() - began > 3.0, "a moment is no brownout"
        router.wait(lambda s: s["state"] in ("failed_over", "holding"))
        causes = [entry["cause"] for entry in router.events("failover")]
        assert any("loses" in cause for cause in causes), causes
        time.sleep(0.3)
        moved = time.monotonic()
        time.sleep(4.0)
        kept = meter.samples(moved, time.monotonic())
        assert lost(kept) <= 2, "traffic is not on the lossy line any more"
        status = router.status()
        assert status["state"] in ("failed_over", "holding")
        assert not any(uplink["state"] == "degraded" for uplink in status["uplinks"])
