"""Name look-ups follow the traffic: a dead line's own resolver is on-link with it.

The consumer's resolver is its ISP's, at the line's gateway, which no tunnel can reach.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from statistics import median

import pytest

from tests.lab.lab import Lab
from tests.lab.meter import Meter
from tests.lab.network import RESOLVERS4, ConsumerNetwork
from tests.lab.node import Child
from tests.lab.provider import make_provider
from tests.lab.scene import Scene, settings, settled

pytestmark = pytest.mark.needs("conntrack")

LOOKUP_BOUND_S = 1.0
RATE_HZ = 20.0


@pytest.fixture
def scene(network: ConsumerNetwork) -> Scene:
    network.consumer.resolvers(network.wan.gateway4, network.wan.gateway6)
    provider = make_provider(network.lab, network.providers[0])
    laid = Scene.lay(network, [provider], settings())
    laid.start()
    return laid


@pytest.mark.parametrize("gateway_answers", [False, True])
@pytest.mark.parametrize("family", [4, 6])
def test_the_routers_own_look_ups(scene: Scene, gateway_answers: bool, family: int) -> None:
    """With `gateway_answers` the ISP's resolver lives on, but traffic is in the tunnel."""
    wan = scene.network.wan
    resolver = wan.gateway4 if family == 4 else wan.gateway6
    with Meter(scene.network.consumer, resolver, kind="dns", rate_hz=RATE_HZ) as meter:
        settled(meter)
        cut = wan.drop(gateway_answers=gateway_answers)
        scene.away()
        time.sleep(0.3)
        answered = meter.wait_for(lambda _: True, since=cut + 0.8)
        assert (answered.received or 0) - cut < LOOKUP_BOUND_S + 0.5
        wan.restore()
        scene.home()
        meter.wait_for(lambda _: True, since=time.monotonic())


def test_a_lan_host_that_asks_the_lines_resolver(scene: Scene) -> None:
    wan = scene.network.wan
    with Meter(scene.network.host, wan.gateway4, kind="dns", rate_hz=RATE_HZ) as meter:
        settled(meter)
        waits = []
        for _ in range(3):
            cut = wan.drop()
            answered = meter.wait_for(lambda _: True, since=cut + 0.05)
            waits.append((answered.received or 0) - cut)
            scene.away()
            wan.restore()
            scene.home()
        assert median(waits) < LOOKUP_BOUND_S


def test_look_ups_to_other_resolvers_stay_what_they_were(scene: Scene) -> None:
    scene.network.wan.drop()
    scene.away()
    script = "nft list chain inet wgup elsewhere; nft list set inet wgup resolvers4"
    listed = scene.network.consumer.sh(script)
    assert "1.1.1.1" in listed and scene.network.wan.gateway4 in listed
    assert RESOLVERS4[1] not in listed


@pytest.fixture
def dnsmasq(lab: Lab, scene: Scene) -> Iterator[Child]:
    """Debian's dnsmasq for the LAN, as OpenWrt runs it: it forwards to the line's resolver."""
    wan = scene.network.wan
    words = [
        "dnsmasq",
        "--keep-in-foreground",
        "--no-resolv",
        "--no-hosts",
        "--conf-file=/dev/null",
    ]
    words += ["--user=root", "--pid-file=", "--cache-size=0", "--listen-address=192.168.1.1"]
    words += ["--bind-interfaces", f"--server={wan.gateway4}"]
    yield lab.at_close(scene.network.consumer.popen(words))


@pytest.mark.needs("dnsmasq")
@pytest.mark.parametrize("fault", ["silent", "ifdown", "carrier"])
def test_lan_hosts_are_answered_by_the_routers_dnsmasq(
    scene: Scene, dnsmasq: Child, fault: str
) -> None:
    wan = scene.network.wan
    router = "192.168.1.1"
    # Every look-up is for another name: dnsmasq does not ask twice at once for the same.
    with Meter(scene.network.host, router, kind="dns", rate_hz=RATE_HZ, name="n#.test") as meter:
        settled(meter)
        cut = time.monotonic()
        if fault == "silent":
            wan.drop()
        elif fault == "carrier":
            wan.carrier_down()
            wan.remove_routes()
        else:
            wan.remove_routes()
            scene.network.consumer.sh("ip addr flush dev wan")
        answered = meter.wait_for(lambda _: True, since=cut + 0.05)
        assert (answered.received or 0) - cut < LOOKUP_BOUND_S
        scene.away()
        meter.wait_for(lambda _: True, since=time.monotonic())
