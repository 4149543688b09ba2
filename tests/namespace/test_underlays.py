"""A tunnel with two ways to its provider leaves the one that is in doubt, and its flows go on."""

from __future__ import annotations

import time

import pytest

from tests.lab.lab import Lab
from tests.lab.meter import Flows, Meter, longest, settled, sources
from tests.lab.network import ECHO4, ECHO6, PROVIDER4, consumer_network
from tests.lab.provider import make_providers
from tests.lab.reach import reached
from tests.lab.router import Router, settings
from tests.namespace.conftest import lent

pytestmark = pytest.mark.needs("conntrack")

TUNNEL = "wgup_nodea"


def with_two_ways(lab: Lab) -> Router:
    return Router.started(lab, settings(), hosts=[PROVIDER4], has_two_ways=True)


router = lent(with_two_ways)


def goes_by(router: Router, device: str) -> None:
    router.wait(lambda s: s["uplinks"][0]["underlay"] == device)


@pytest.mark.parametrize("fault", ["silent", "carrier"])
def test_flows_inside_go_on_while_the_wan_dies_and_comes_back(router: Router, fault: str) -> None:
    """They are bound to the tunnel, so that no steering has a part in it."""
    network, own = router.network, router.network.provider_wans[0]
    router.wait_primary()
    goes_by(router, "wan")
    router.wait(lambda s: not s["uplinks"][0]["shared_fate"])
    wan = network.wan
    drop, restore = (wan.drop, wan.restore) if fault == "silent" else (wan.unplug, wan.plug_in)
    node = network.consumer
    with (
        Meter(node, ECHO4, device=TUNNEL, rate_hz=50) as four,
        Meter(node, ECHO6, device=TUNNEL, rate_hz=50) as six,
    ):
        settled(four, six)
        began = drop()
        goes_by(router, network.neighbours[0].consumer_device)
        router.wait_failed_over()
        restore()
        router.wait_primary()
        goes_by(router, "wan")
        time.sleep(0.3)
        for meter, address in ((four, own.address4), (six, own.address6)):
            found = meter.samples(began - 0.5)
            assert sources(found) == [address]
            gap_s = longest(found).seconds
            print(f"\n{fault}: {gap_s:.2f} s")
            assert gap_s < 1.0, "the search for another address would take 20 s"


CUT = """
table netdev cut {
	chain in { type filter hook ingress device mesh priority 0; drop; }
	chain out { type filter hook egress device mesh priority 0; drop; }
}
"""


@pytest.mark.parametrize("fault", ["silent", "carrier"])
def test_a_dead_neighbour_link_is_left_for_the_wan(lab: Lab, fault: str) -> None:
    """With anchored connections the tunnel is watched as closely as a WAN in use."""
    anchor = "\nconfig anchor 'all'\n\toption peer 'nodea'\n\toption port '7'\n"
    network = consumer_network(lab)
    router = Router.build(network, make_providers(network), settings() + anchor)
    port, link, far = router.providers[0].listen_port, network.neighbours[0], network.providers[0]
    router.uplinks += f"\tlist other_endpoint '{PROVIDER4}:{port}'\n"
    router.configure(settings() + anchor)
    router.start()
    goes_by(router, link.consumer_device)
    reached(network.host, dict(zip((ECHO4, ECHO6), network.by_uplink, strict=True)))
    with Flows(network.host, rate_hz=50) as flows:
        began = time.monotonic()
        if fault == "silent":
            far.nft(CUT)
        else:
            far.run(["ip", "link", "set", link.provider_device, "down"])
        goes_by(router, "wan")
        flows.answered(since=time.monotonic())
        if fault == "carrier":
            far.run(["ip", "link", "set", link.provider_device, "up"])
            goes_by(router, link.consumer_device)
        for meter, address in zip(flows, network.by_uplink, strict=True):
            found = meter.samples(began)
            assert sources(found) == [address]
            print(f"\n{fault}: {longest(found).seconds:.2f} s")
            assert longest(found).seconds < 1.0
