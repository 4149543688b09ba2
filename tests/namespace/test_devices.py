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
from tests.lab.scene import Scene, settings, settled

pytestmark = pytest.mark.needs("conntrack")

REPAIR_S = 6.0
"""The configuration is looked at every 2 s, what lapses refreshed every 1.5 s; and some slack."""


@pytest.fixture(scope="module")
def shared(namespaces: None) -> Iterator[Scene]:
    """One consumer, for the tests that leave it as they found it."""
    with Lab() as lab:
        network = consumer_network(lab)
        scene = Scene.lay(network, [make_provider(lab, network.providers[0])], settings())
        scene.start()
        yield scene


@pytest.mark.parametrize(
    "damage",
    [
        "ip link set wgup_nodea down; ip link set wgup_nodea up",
        "ip link del wgup_nodea",
        "nft delete table inet wgup",
    ],
)
def test_an_open_lane_is_mended(shared: Scene, damage: str) -> None:
    network, line = shared.network, shared.network.provider_lines[0]
    with Meter(network.host, ECHO4) as ipv4, Meter(network.host, ECHO6) as ipv6:
        settled(ipv4, ipv6)
        network.wan.drop()
        shared.away()
        ipv4.wait_for_source(line.address4)
        network.consumer.sh(damage)
        damaged = time.monotonic() + 0.05  # what was under way is answered still
        ipv4.wait_for_source(line.address4, since=damaged, timeout_s=REPAIR_S)
        ipv6.wait_for_source(line.address6, since=damaged, timeout_s=REPAIR_S)
        shared.away()
        network.wan.restore()
        shared.home()


def test_a_wan_device_made_anew_is_the_same_line(shared: Scene) -> None:
    """As PPPoE does it: the device is deleted, and comes back with another index."""
    network, line = shared.network, shared.network.provider_lines[0]
    with Meter(network.host, ECHO4) as ipv4, Meter(network.host, ECHO6) as ipv6:
        settled(ipv4, ipv6)
        gone = time.monotonic()
        network.consumer.sh("ip link del wan")
        ipv4.wait_for_source(line.address4, since=gone, timeout_s=2.0)
        ipv6.wait_for_source(line.address6, since=gone, timeout_s=2.0)
        shared.away()
        back = time.monotonic()
        network.wan.lay()
        found = ipv4.wait_for_source(network.wan.address4, since=back)
        ipv6.wait_for_source(network.wan.address6, since=back)
        assert found.sent - back >= 1.0, "the hold time counts here too"
        shared.home()
        cut = network.wan.drop()
        ipv4.wait_for_source(line.address4, since=cut, timeout_s=3.0)
        ipv6.wait_for_source(line.address6, since=cut, timeout_s=3.0)
        network.wan.restore()
        shared.home()


@pytest.mark.parametrize("fault", ["silent", "no route"])
def test_a_start_in_an_outage_finds_the_uplink(network: ConsumerNetwork, fault: str) -> None:
    """The router was rebooted because the internet was gone, as people do."""
    provider = make_provider(network.lab, network.providers[0])
    scene = Scene.lay(network, [provider], settings())
    if fault == "silent":
        network.wan.drop()
    else:
        network.wan.carrier_down()
        network.wan.remove_routes()
    line = network.provider_lines[0]
    with Meter(network.host, ECHO4) as ipv4, Meter(network.host, ECHO6) as ipv6:
        scene.service.start()
        ipv4.wait_for_source(line.address4, timeout_s=6.0)
        if fault == "silent":
            ipv6.wait_for_source(line.address6, timeout_s=6.0)
            network.wan.restore()
        else:
            network.wan.carrier_up()
            network.wan.add_routes()
        back = time.monotonic()
        ipv4.wait_for_source(network.wan.address4, since=back)
        ipv6.wait_for_source(network.wan.address6, since=back)
        scene.home()
