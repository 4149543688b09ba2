"""Sticky failback: old connections finish on the tunnel for a bounded time, new ones on the WAN."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.lab.lab import Lab
from tests.lab.meter import Meter, lost
from tests.lab.network import ECHO4, ECHO6, ConsumerNetwork, consumer_network
from tests.lab.provider import make_provider
from tests.lab.router import Router, settings, settled

pytestmark = pytest.mark.needs("conntrack")

STICKY_S = 4
STREAM = """\
import socket, sys, time
with socket.create_connection((sys.argv[1], 7), timeout=2) as stream:
    print(stream.recv(100).split()[0].decode(), flush=True)
    try:
        while True:
            stream.send(b"x")
            stream.recv(100) or sys.exit()
            print("echo", flush=True)
            time.sleep(0.05)
    except OSError as error:
        print(type(error).__name__, flush=True)
"""


@pytest.fixture(scope="module")
def router(namespaces: None) -> Iterator[Router]:
    with Lab() as lab:
        network = consumer_network(lab)
        provider = make_provider(lab, network.providers[0])
        laid = Router.build(network, [provider], settings(sticky_failback=1, sticky_time=STICKY_S))
        laid.start()
        yield laid


@contextmanager
def stream(network: ConsumerNetwork, address: str) -> Iterator[list[str]]:
    """A TCP connection of the host: its source as the server saw it, then a word for each echo."""
    argv = [sys.executable, "-I", "-c", STREAM, address]
    child = network.host.popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    heard: list[str] = []
    out = child.entered.stdout
    assert out is not None
    heard.append(out.readline().strip())
    try:
        yield heard
    finally:
        child.kill()
        heard += out.read().split()
        for opened in (out, child.entered.stderr):
            if opened is not None:
                opened.close()


def source_now(router: Router, address: str) -> str | None:
    """What the server sees of a new flow of the host."""
    with Meter(router.network.host, address, rate_hz=20) as meter:
        return meter.wait_for(lambda _: True).source


def test_old_connections_finish_on_the_tunnel_and_new_ones_use_the_wan(router: Router) -> None:
    network, provider_wan = router.network, router.network.provider_wans[0]
    router.wait_primary()
    network.wan.drop()
    router.wait_failed_over()
    host = network.host
    with Meter(host, ECHO4, rate_hz=50) as ipv4, Meter(host, ECHO6, rate_hz=50) as ipv6:
        settled(ipv4, ipv6)
        with stream(network, ECHO4) as heard:
            assert heard == [provider_wan.address4]
            network.wan.restore()
            router.wait_primary()
            back = time.monotonic()
            assert source_now(router, ECHO4) == network.wan.address4
            assert source_now(router, ECHO6) == network.wan.address6
            time.sleep(1.0)
            for meter, tunnel in ((ipv4, provider_wan.address4), (ipv6, provider_wan.address6)):
                kept = meter.samples(back - 1.0, time.monotonic())
                assert {sample.source for sample in kept} == {tunnel} and lost(kept) == 0
            assert time.monotonic() - back < STICKY_S, "too slow to see anything of it"
            # It ends by itself: masqueraded UDP goes on over the WAN, TCP can't.
            for meter, own in ((ipv4, network.wan.address4), (ipv6, network.wan.address6)):
                moved = meter.wait_for_source(own, since=back, timeout_s=STICKY_S + 5.0)
                assert moved.sent - back > STICKY_S - 2.0
        assert heard.count("echo") > 20


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
