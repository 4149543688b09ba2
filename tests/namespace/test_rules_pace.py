"""Faults that are no death: a dead target, bursts of losses, some loss, blocked pings."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.lab.lab import Lab
from tests.lab.meter import Flows
from tests.lab.network import consumer_network
from tests.lab.provider import make_provider
from tests.lab.router import Router, settings

pytestmark = pytest.mark.needs("conntrack")


@pytest.fixture(scope="module")
def calm(namespaces: None) -> Iterator[Router]:
    """The default pace, and traffic of a host in both families."""
    with Lab() as lab:
        network = consumer_network(lab)
        provider = make_provider(lab, network.providers[0])
        router = Router.build(network, [provider], settings(pace="default"))
        router.start()
        host = network.host
        with Flows(host, rate_hz=20):
            yield router


@pytest.fixture
def router(calm: Router) -> Iterator[Router]:
    """At home before and after; whatever happens, nothing may be switched."""
    calm.wait_primary()
    known = len(calm.events())
    yield calm
    told = [entry for entry in calm.events()[known:] if entry["kind"] != "uplink_added"]
    assert told == []


def filtered(router: Router, rules: str) -> str:
    """nft commands that filter what the consumer's ISP forwards, and (with '') undo it."""
    removal = "table inet fault\ndelete table inet fault\n"
    chain = f"chain c {{\ntype filter hook forward priority 0;\n{rules}\n}}"
    return removal + (f"table inet fault {{\n{chain}\n}}\n" if rules else "")


def break_isp(router: Router, rules: str) -> None:
    router.network.isp1.run(["nft", "-f", "-"], input=filtered(router, rules))


def test_one_dead_target_is_no_dead_line(router: Router) -> None:
    break_isp(router, "ip daddr 8.8.8.8 drop\nip6 daddr 2001:4860:4860::8888 drop")
    router.stays("wan", 5.0)
    break_isp(router, "")


def test_bursts_of_losses_are_no_death(router: Router) -> None:
    for _ in range(3):
        router.network.wan.drop()
        time.sleep(0.3)
        router.network.wan.restore()
        router.stays("wan", 1.2)


def test_two_percent_of_loss_are_no_death(router: Router) -> None:
    router.network.wan.drop(1)  # in each direction
    router.stays("wan", 6.0)
    router.network.wan.restore()


def test_a_line_that_blocks_only_pings_is_alive(router: Router) -> None:
    break_isp(router, "icmp type echo-request drop\nicmpv6 type echo-request drop")
    # Long past the silence that a verdict takes, and well before evidence stops being believed.
    router.stays("wan", 3.0)
    break_isp(router, "")


def test_such_faults_would_be_seen(calm: Router) -> None:
    """The control: the same scene does leave a line that is dead."""
    calm.wait_primary()
    calm.network.wan.drop()
    calm.wait_failed_over()
    calm.network.wan.restore()
    calm.wait_primary()
