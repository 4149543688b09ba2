"""What a provider gives is learnt from real use: one who promises more than that sinks."""

from __future__ import annotations

import time

import pytest

from tests.lab.network import ECHO4, ConsumerNetwork
from tests.lab.provider import make_provider
from tests.lab.router import Router, settings

pytestmark = pytest.mark.needs("conntrack", "tc")

REAL_MBPS = 8
PROMISED_MBPS = 500
LOAD_S = 18


def test_a_download_shows_what_an_uplink_gives(network: ConsumerNetwork) -> None:
    provider = make_provider(network.lab, network.providers[0])
    router = Router.build(network, [provider], settings(pace="default"))
    router.start()
    offer = provider.offer(network.neighbours[0].provider4, bandwidth_mbps=PROMISED_MBPS)
    router.service.expect("uplink_gossip", {"message": offer})
    provider_wan = network.provider_wans[0]
    shape = f"tbf rate {REAL_MBPS}mbit burst 16kb latency 250ms"
    provider_wan.isp.sh(f"tc qdisc add dev {provider_wan.isp_device} root {shape}")

    def numbers() -> tuple[int, int, int]:
        reply = router.service.ask("uplink_explain")
        row = reply["families"][0]["candidates"][0]
        return row["advertised_mbps"], row["measured_mbps"], row["expected_mbps"]

    network.wan.drop()
    router.wait_failed_over()
    deadline = time.monotonic() + 20.0
    while numbers() != (PROMISED_MBPS, 0, PROMISED_MBPS):
        assert time.monotonic() < deadline, numbers()
        time.sleep(0.2)
    time.sleep(6.0)  # a reading of an idle tunnel
    network.lab.start(network.internet, "serve_downloads", ECHO4)
    network.consumer.ask("download", ECHO4, LOAD_S, timeout_s=LOAD_S + 10.0)
    time.sleep(6.0)
    promised, measured, expected = numbers()
    assert promised == PROMISED_MBPS and expected == measured
    assert 0.6 * REAL_MBPS <= measured <= 1.2 * REAL_MBPS
    router.stays("wgup_nodea", 1.0)
