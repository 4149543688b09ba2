"""A restart in an outage keeps the path in use, though another uplink has a higher weight."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.lab.lab import Lab
from tests.lab.meter import Meter, longest, settled
from tests.lab.network import ECHO4, ECHO6, consumer_network
from tests.lab.provider import make_provider
from tests.lab.reach import Typing
from tests.lab.router import Router, settings

pytestmark = pytest.mark.needs("conntrack")

METERED = "wgup_nodeb"
FREE = "wgup_nodea"
LAPSE_S = 5.0
MAIN = settings(("nodea", "nodeb"), check_interval=1)


@pytest.fixture(scope="module")
def router(namespaces: None) -> Iterator[Router]:
    """Two uplinks whose costs are kept with them: a free one, and a metered one of more weight."""
    with Lab() as lab:
        network = consumer_network(lab, providers=2)
        providers = [
            make_provider(lab, node, peer_id=f"node{'ab'[place]}", place=place)
            for place, node in enumerate(network.providers)
        ]
        made = Router.build(network, providers, MAIN)
        free, _, metered = made.uplinks.rpartition("\nconfig uplink")
        metered = metered.replace("weight '10'", "weight '50'")
        made.uplinks = f"{free}\toption metered '0'\n\nconfig uplink{metered}\toption metered '1'\n"
        made.configure(MAIN)
        made.start()
        yield made
        made.service.stop()


@pytest.mark.parametrize("away_s", [0.5, LAPSE_S + 1.0], ids=["in time", "after the lapse"])
def test_a_restart_keeps_the_path_in_use(router: Router, away_s: float) -> None:
    network = router.network
    provider_wan = network.provider_wans[0]
    with ExitStack() as stack:
        meters = [stack.enter_context(Meter(network.host, each)) for each in (ECHO4, ECHO6)]
        settled(*meters)
        network.wan.drop()
        router.wait_failed_over(FREE)
        stopped = time.monotonic()
        router.service.stop()
        time.sleep(away_s)
        router.service.start()
        router.wait_failed_over(FREE)
        router.stays(FREE, 2.0)
        for meter, address in zip(meters, provider_wan.addresses, strict=True):
            seen = {sample.source for sample in meter.samples(stopped) if sample.source}
            assert seen == {address}
            if away_s < LAPSE_S:
                assert longest(meter.samples(stopped)).seconds < 0.3
    assert METERED not in {entry["to"] for entry in router.events()}
    network.wan.restore()
    router.wait_primary(30.0)


def test_new_connections_go_to_the_free_peer_that_is_back(router: Router) -> None:
    network = router.network
    free, metered = network.provider_wans[:2]
    router.wait_primary(30.0)
    free.drop()
    try:
        router.wait(lambda found: any(row["state"] == "down" for row in found["uplinks"]), 60.0)
        network.wan.drop()
        router.wait_failed_over(METERED)
        with Typing(network.host, ECHO4) as typing:
            assert typing.source == metered.address4
            free.restore()
            router.wait_failed_over(FREE, 60.0)
            with Meter(network.host, ECHO4) as four, Meter(network.host, ECHO6) as six:
                assert four.wait_for(lambda _: True).source == free.address4
                assert six.wait_for(lambda _: True).source == free.address6
            before = typing.words.count("echo")
            time.sleep(1.0)
            assert typing.words.count("echo") > before, "it finishes where it began"
        router.until_told("switch")
        [*_, entry] = router.events("switch")
        assert entry["cause"] == "wgup_nodea costs less, and has answered for 1 s"
    finally:
        free.restore()
        network.wan.restore()
    router.wait_primary(60.0)
