"""Faults that are no death: a dead target, bursts of losses, some loss, blocked pings."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.lab.firewall import NO_PINGS
from tests.lab.lab import Lab
from tests.lab.meter import Flows
from tests.lab.router import Router, settings

pytestmark = pytest.mark.needs("conntrack")


@pytest.fixture(scope="module")
def calm(namespaces: None) -> Iterator[Router]:
    """The default pace, and traffic of a host in both families."""
    with Lab() as lab:
        router = Router.started(lab, settings(pace="default"))
        with Flows(router.network.host, rate_hz=20):
            yield router


@pytest.fixture
def router(calm: Router) -> Iterator[Router]:
    """At home before and after; whatever happens, nothing may be switched."""
    calm.wait_primary()
    # An earlier test's failback is in the history once it is in force, a moment after the status.
    deadline = time.monotonic() + 5.0
    while away_in_history(calm) and time.monotonic() < deadline:
        time.sleep(0.05)
    known = len(calm.events())
    yield calm
    told = [e for e in calm.events()[known:] if e["kind"] not in ("uplink_added", "doubted")]
    assert told == []


def away_in_history(router: Router) -> bool:
    """Whether the newest move of any family in the history led away from the WAN."""
    moves = router.events("failover", "switch", "failback")
    newest = {entry["family"]: entry["kind"] for entry in moves}
    return bool(set(newest.values()) - {"failback"})


def break_isp(router: Router, *rules: str) -> None:
    """Filter what the consumer's ISP forwards; nothing ends it."""
    router.network.isp1.filter("forward", *rules)


def test_one_dead_target_is_no_dead_wan(router: Router) -> None:
    break_isp(router, "ip daddr 8.8.8.8 drop", "ip6 daddr 2001:4860:4860::8888 drop")
    router.stays("wan", 3.0)
    break_isp(router)


def test_bursts_of_losses_are_no_death(router: Router) -> None:
    for _ in range(3):
        router.network.wan.drop()
        time.sleep(0.3)
        router.network.wan.restore()
        router.stays("wan", 1.2)


def test_two_percent_of_loss_are_no_death(router: Router) -> None:
    router.network.wan.drop(1)  # in each direction
    router.stays("wan", 4.0)
    router.network.wan.restore()


def test_a_line_that_blocks_only_pings_is_alive(router: Router) -> None:
    break_isp(router, *NO_PINGS)
    # Long past the silence that a verdict takes, and well before evidence stops being believed.
    router.stays("wan", 3.0)
    break_isp(router)


def test_such_faults_would_be_seen(calm: Router) -> None:
    """The control: the same router does leave a WAN that is dead."""
    calm.wait_primary()
    calm.network.wan.drop()
    calm.wait_failed_over()
    calm.network.wan.restore()
    calm.wait_primary()
