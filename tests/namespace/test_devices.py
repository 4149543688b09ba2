"""Devices, tables and routes that go and come while the service works: what netifd and owners do.

The traffic is away from a dead WAN when they go, and must be served again soon after they are back.
"""

from __future__ import annotations

import time

import pytest

from tests.lab.meter import Flows, Meter
from tests.lab.network import ECHO4, ECHO6, ConsumerNetwork
from tests.lab.provider import make_provider
from tests.lab.router import Router, settings

pytestmark = pytest.mark.needs("conntrack")

REPAIR_S = 6.0
"""The configuration is looked at every 2 s, what lapses refreshed every 1.5 s; and some slack."""


@pytest.mark.parametrize(
    "damage",
    [
        "ip link set wgup_nodea down; ip link set wgup_nodea up",
        "ip link del wgup_nodea",
        "nft delete table inet wgup",
    ],
)
def test_a_diversion_is_mended(router: Router, damage: str) -> None:
    network, provider_wan = router.network, router.network.provider_wans[0]
    with Flows(network.host) as flows:
        network.wan.drop()
        router.wait_failed_over()
        flows.ipv4.wait_for_source(provider_wan.address4)
        network.consumer.sh(damage)
        damaged = time.monotonic() + 0.05  # what was under way is answered still
        flows.by(provider_wan.addresses, since=damaged, timeout_s=REPAIR_S)
        router.wait_failed_over()
        network.wan.restore()
        router.wait_primary()


def test_a_wan_device_made_anew_is_the_same_line(router: Router) -> None:
    """As PPPoE does it: the device is deleted, and comes back with another index."""
    network, provider_wan = router.network, router.network.provider_wans[0]
    router.configure(settings(hold_time=1))
    router.wait_primary()
    with Flows(network.host) as flows:
        gone = time.monotonic()
        network.consumer.sh("ip link del wan")
        flows.by(provider_wan.addresses, since=gone, timeout_s=2.0)
        router.wait_failed_over()
        back = time.monotonic()
        network.wan.connect()
        found = flows.by(network.wan.addresses, since=back)
        assert found - back >= 1.0, "the hold time counts here too"
        router.wait_primary()
        cut = network.wan.drop()
        flows.by(provider_wan.addresses, since=cut, timeout_s=3.0)
        network.wan.restore()
        router.wait_primary()


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
