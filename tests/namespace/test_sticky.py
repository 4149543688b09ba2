"""Sticky failback: old connections finish on the tunnel for a bounded time, new ones on the WAN."""

from __future__ import annotations

import time

import pytest

from tests.lab.altered_service import RestingService
from tests.lab.lab import Lab
from tests.lab.meter import Flows, Meter, lost, settled
from tests.lab.network import ECHO4, ECHO6
from tests.lab.reach import Typing, until
from tests.lab.router import Router, settings
from tests.namespace.conftest import lent

pytestmark = pytest.mark.needs("conntrack")

STICKY_S = 6
WAYS = ("prerouting", "forward", "postrouting")
WATCHED, ENTERED = {"steer", "stamp"}, {"steer", "forth"}


def draining(lab: Lab) -> Router:
    options = settings(sticky_failback=1, sticky_time=STICKY_S)
    return Router.started(lab, options, service=RestingService)


router = lent(draining)


def hooks(router: Router) -> set[str]:
    """The chains of our table that each forwarded packet passes."""
    listed = router.network.consumer.sh("nft list table inet wgup")
    return {
        chain.split(" ", 1)[0]
        for chain in listed.split("\tchain ")[1:]
        if any(f"type filter hook {where} " in chain for where in WAYS)
    }


def source_now(router: Router, address: str) -> str | None:
    """What the server sees of a new flow of the host."""
    with Meter(router.network.host, address, rate_hz=20) as meter:
        return meter.wait_for(lambda _: True).source


def test_old_connections_finish_on_the_tunnel_and_new_ones_use_the_wan(router: Router) -> None:
    network, provider_wan = router.network, router.network.provider_wans[0]
    router.wait_primary()
    until(lambda: hooks(router), lambda found: not found)
    network.wan.drop()
    until(lambda: hooks(router), lambda found: found == WATCHED)
    router.wait_failed_over()
    until(lambda: hooks(router), lambda found: found == {*ENTERED, "carry_late"})
    host = network.host
    with Flows(host, rate_hz=50) as flows:
        with Typing(network.host, ECHO4) as typing:
            assert typing.source == provider_wan.address4
            network.wan.restore()
            router.wait_primary()
            back = time.monotonic()
            router.until_told("failback")
            assert hooks(router) >= ENTERED and "carry_late" not in hooks(router)
            assert source_now(router, ECHO4) == network.wan.address4
            assert source_now(router, ECHO6) == network.wan.address6
            time.sleep(0.5)
            for meter, tunnel in zip(flows, provider_wan.addresses, strict=True):
                kept = meter.samples(back - 1.0, time.monotonic())
                assert {sample.source for sample in kept} == {tunnel} and lost(kept) == 0
            assert time.monotonic() - back < STICKY_S, "too slow to see anything of it"
            # It ends by itself: masqueraded UDP goes on over the WAN, TCP can't.
            for meter, own in zip(flows, network.wan.addresses, strict=True):
                moved = meter.wait_for_source(own, since=back, timeout_s=STICKY_S + 5.0)
                assert moved.sent - back > STICKY_S - 2.0
        assert typing.words.count("echo") > 20
    until(lambda: hooks(router), lambda found: not found)


def test_a_tunnel_that_dies_keeps_nothing(router: Router) -> None:
    network, provider_wan = router.network, router.network.provider_wans[0]
    router.configure(settings(sticky_failback=1, sticky_time=600))
    router.wait_primary()
    network.wan.drop()
    router.wait_failed_over()
    with Meter(network.host, ECHO4, rate_hz=50) as meter:
        settled(meter)
        network.wan.restore()
        router.wait_primary()
        died = provider_wan.drop()
        meter.wait_for_source(network.wan.address4, since=died, timeout_s=6.0)
    provider_wan.restore()
    router.wait_primary()


def test_what_is_kept_moves_when_the_wan_dies_again(router: Router) -> None:
    network, provider_wan = router.network, router.network.provider_wans[0]
    router.configure(settings(sticky_failback=1, sticky_time=600))
    router.wait_primary()
    network.wan.drop()
    router.wait_failed_over()
    with Meter(network.host, ECHO4, rate_hz=50) as old:
        settled(old)
        network.wan.restore()
        router.wait_primary()
        with Meter(network.host, ECHO4, rate_hz=50) as new:
            settled(new)
            began = network.wan.drop()
            new.wait_for_source(provider_wan.address4, since=began)
            seen = old.samples(began, time.monotonic())
            assert {sample.source for sample in seen if sample.received} == {provider_wan.address4}
    network.wan.restore()
    router.wait_primary()


def test_without_the_option_all_goes_back(router: Router) -> None:
    network = router.network
    router.configure(settings())
    router.wait_primary()
    network.wan.drop()
    router.wait_failed_over()
    with Meter(network.host, ECHO4, rate_hz=50) as meter:
        settled(meter)
        mended = network.wan.restore()
        router.wait_primary()
        back = time.monotonic()
        meter.wait_for_source(network.wan.address4, since=mended)
        time.sleep(0.5)
        late = meter.samples(back + 0.2, time.monotonic())
        assert {sample.source for sample in late} == {network.wan.address4}
