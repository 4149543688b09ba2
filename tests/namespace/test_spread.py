"""Shared load: in an outage new connections spread over the uplinks, and one dies alone."""

from __future__ import annotations

import time
from contextlib import ExitStack

import pytest

from tests.lab.lab import Lab
from tests.lab.network import ECHO4, ECHO6, PROBED4, RESOLVERS4, RESOLVERS6, consumer_network
from tests.lab.node import program
from tests.lab.provider import make_provider
from tests.lab.reach import Typing, until
from tests.lab.router import Router, settings

pytestmark = pytest.mark.needs("conntrack", "tc")

NAMES = ("nodea", "nodeb")
SHAPE = "tbf rate 8mbit burst 16kb latency 250ms"
LEAST_MBPS = 14.0
SERVED4, SERVED6 = (ECHO4, *RESOLVERS4), (ECHO6, *RESOLVERS6)
LOADED4 = (*SERVED4, *PROBED4)


def sharing(lab: Lab) -> Router:
    """A router whose WAN is dead, with two uplinks that share the load."""
    network = consumer_network(lab, providers=2)
    providers = [
        make_provider(lab, node, peer_id=name, place=place)
        for place, (node, name) in enumerate(zip(network.providers, NAMES, strict=True))
    ]
    router = Router.build(network, providers, settings(NAMES, spread=1, hold_time=0))
    router.start()
    network.wan.drop()
    both = [f"wgup_{name}" for name in NAMES]
    router.wait(lambda s: all(f["spread"] == both for f in s["families"].values()))
    router.until_told("failover")
    node = network.consumer
    until(lambda: node.sh("nft list map inet wgup early6"), lambda text: "goto spread6" in text)
    return router


def limit_providers(lab: Lab, router: Router) -> None:
    """Give each provider's WAN 8 Mbit/s, and have downloads served at LOADED4."""
    for wan in router.network.provider_wans:
        wan.isp.sh(f"tc qdisc add dev {wan.isp_device} root {SHAPE}")
    for address in LOADED4:
        lab.start(router.network.internet, "serve_downloads", address)


def received(router: Router) -> int:
    """Bytes that came by both tunnels."""
    paths = [f"/sys/class/net/wgup_{name}/statistics/rx_bytes" for name in NAMES]
    return sum(map(int, router.network.consumer.sh("cat " + " ".join(paths)).split()))


def test_two_providers_give_what_both_have(lab: Lab) -> None:
    router = sharing(lab)
    limit_providers(lab, router)
    for address in LOADED4:
        router.network.host.popen(program("download", address, 14))
    time.sleep(3.0)  # until the queues are full
    before, begun = received(router), time.monotonic()
    time.sleep(8.0)
    mbps = (received(router) - before) * 8 / 1e6 / (time.monotonic() - begun)
    assert mbps >= LEAST_MBPS


@pytest.mark.parametrize("which", ["other", "active"])
def test_one_that_dies_takes_only_its_own_flows(lab: Lab, which: str) -> None:
    router = sharing(lab)
    network = router.network
    ways = [set(line.addresses) for line in network.provider_wans]
    with ExitStack() as stack:
        flows = [
            stack.enter_context(Typing(network.host, address)) for address in SERVED4 + SERVED6
        ]
        shares = [[flow for flow in flows if flow.source in way] for way in ways]
        assert all(shares), "each has some"
        again = [stack.enter_context(Typing(network.host, address)) for address in SERVED4]
        assert [f.source for f in again] == [f.source for f in flows[: len(again)]], "one address"
        active = router.status()["families"]["ipv4"]["active_path"]
        place = NAMES.index(active.removeprefix("wgup_"))
        dies = place if which == "active" else 1 - place
        network.provider_wans[dies].drop()
        router.wait(lambda s: all(f["spread"] == [] for f in s["families"].values()))
        router.wait_failed_over(f"wgup_{NAMES[1 - dies]}")
        for flow in shares[dies]:
            assert flow.ended() != "echo"
        for flow in shares[1 - dies]:
            count = len(flow.words)
            until(lambda f=flow, n=count: len(f.words) > n + 20, bool)  # type: ignore[misc]
            assert set(flow.words[1:]) == {"echo"}
    network.provider_wans[dies].restore()
    both = [f"wgup_{name}" for name in NAMES]
    router.wait(lambda s: all(f["spread"] == both for f in s["families"].values()), 30.0)
    network.wan.restore()
    router.wait_primary()
    maps = ("early4", "again4", "kept4", "early6", "again6", "kept6")
    listing = "; ".join(f"nft list map inet wgup {name}" for name in maps)
    until(lambda: network.consumer.sh(listing), lambda shown: "goto" not in shown)
