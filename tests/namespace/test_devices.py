"""Devices, tables and routes that go and come while the service works: what netifd and owners do.

The traffic is away from a dead WAN when they go, and must be served again soon after they are back.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.lab.lab import Lab
from tests.lab.meter import Meter
from tests.lab.network import ECHO4, ECHO6, ConsumerNetwork, consumer_network
from tests.lab.provider import make_provider
from tests.lab.router import Router, settings, settled

pytestmark = pytest.mark.needs("conntrack")

REPAIR_S = 6.0
"""The configuration is looked at every 2 s, what lapses refreshed every 1.5 s; and some slack."""


@pytest.fixture(scope="module")
def shared(namespaces: None) -> Iterator[Router]:
    """One consumer, for the tests that leave it as they found it."""
    with Lab() as lab:
        network = consumer_network(lab)
        router = Router.build(network, [make_provider(lab, network.providers[0])], settings())
        router.start()
        yield router


@pytest.mark.parametrize(
    "damage",
    [
        "ip link set wgup_nodea down; ip link set wgup_nodea up",
        "ip link del wgup_nodea",
        "nft delete table inet wgup",
    ],
)
def test_an_open_lane_is_mended(shared: Router, damage: str) -> None:
    network, provider_wan = shared.network, shared.network.provider_wans[0]
    with Meter(network.host, ECHO4) as ipv4, Meter(network.host, ECHO6) as ipv6:
        settled(ipv4, ipv6)
        network.wan.drop()
        shared.wait_failed_over()
        ipv4.wait_for_source(provider_wan.address4)
        network.consumer.sh(damage)
        damaged = time.monotonic() + 0.05  # what was under way is answered still
        ipv4.wait_for_source(provider_wan.address4, since=damaged, timeout_s=REPAIR_S)
        ipv6.wait_for_source(provider_wan.address6, since=damaged, timeout_s=REPAIR_S)
        shared.wait_failed_over()
        network.wan.restore()
        shared.wait_primary()


def test_a_wan_device_made_anew_is_the_same_line(shared: Router) -> None:
    """As PPPoE does it: the device is deleted, and comes back with another index."""
    network, provider_wan = shared.network, shared.network.provider_wans[0]
    with Meter(network.host, ECHO4) as ipv4, Meter(network.host, ECHO6) as ipv6:
        settled(ipv4, ipv6)
        gone = time.monotonic()
        network.consumer.sh("ip link del wan")
        ipv4.wait_for_source(provider_wan.address4, since=gone, timeout_s=2.0)
        ipv6.wait_for_source(provider_wan.address6, since=gone, timeout_s=2.0)
        shared.wait_failed_over()
        back = time.monotonic()
        network.wan.connect()
        found = ipv4.wait_for_source(network.wan.address4, since=back)
        ipv6.wait_for_source(network.wan.address6, since=back)
        assert found.sent - back >= 1.0, "the hold time counts here too"
        shared.wait_primary()
        cut = network.wan.drop()
        ipv4.wait_for_source(provider_wan.address4, since=cut, timeout_s=3.0)
        ipv6.wait_for_source(provider_wan.address6, since=cut, timeout_s=3.0)
        network.wan.restore()
        shared.wait_primary()


@pytest.mark.parametrize("fault", ["silent", "no route"])
def test_a_start_in_an_outage_finds_the_uplink(network: ConsumerNetwork, fault: str) -> None:
    """The router was rebooted because the internet was gone, as people do."""
    provider = make_provider(network.lab, network.providers[0])
    router = Router.build(network, [provider], settings())
    if fault == "silent":
        network.wan.drop()
    else:
        network.wan.carrier_down()
        network.wan.remove_routes()
    provider_wan = network.provider_wans[0]
    with Meter(network.host, ECHO4) as ipv4, Meter(network.host, ECHO6) as ipv6:
        router.service.start()
        ipv4.wait_for_source(provider_wan.address4, timeout_s=6.0)
        if fault == "silent":
            ipv6.wait_for_source(provider_wan.address6, timeout_s=6.0)
            network.wan.restore()
        else:
            network.wan.carrier_up()
            network.wan.add_routes()
        back = time.monotonic()
        ipv4.wait_for_source(network.wan.address4, since=back)
        ipv6.wait_for_source(network.wan.address6, since=back)
        router.wait_primary()
