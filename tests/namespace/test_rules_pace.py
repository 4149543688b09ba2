"""Faults that are no death: a dead target, bursts of losses, some loss, blocked pings."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.lab.lab import Lab
from tests.lab.meter import Meter
from tests.lab.network import ECHO4, ECHO6, consumer_network
from tests.lab.provider import make_provider
from tests.lab.scene import Scene, settings, settled

pytestmark = pytest.mark.needs("conntrack")


@pytest.fixture(scope="module")
def calm(namespaces: None) -> Iterator[Scene]:
    """The default pace, and traffic of a host in both families."""
    with Lab() as lab:
        network = consumer_network(lab)
        provider = make_provider(lab, network.providers[0])
        scene = Scene.lay(network, [provider], settings(pace="default"))
        scene.start()
        host = network.host
        with Meter(host, ECHO4, rate_hz=20) as ipv4, Meter(host, ECHO6, rate_hz=20) as ipv6:
            settled(ipv4, ipv6)
            yield scene


@pytest.fixture
def scene(calm: Scene) -> Iterator[Scene]:
    """At home before and after; whatever happens, nothing may be switched."""
    calm.home()
    known = len(calm.events())
    yield calm
    told = [entry for entry in calm.events()[known:] if entry["kind"] != "uplink_added"]
    assert told == []


def filtered(scene: Scene, rules: str) -> str:
    """nft commands that filter what the consumer's ISP forwards, and (with '') undo it."""
    removal = "table inet fault\ndelete table inet fault\n"
    chain = f"chain c {{\ntype filter hook forward priority 0;\n{rules}\n}}"
    return removal + (f"table inet fault {{\n{chain}\n}}\n" if rules else "")


def break_isp(scene: Scene, rules: str) -> None:
    scene.network.isp1.run(["nft", "-f", "-"], input=filtered(scene, rules))


def test_one_dead_target_is_no_dead_line(scene: Scene) -> None:
    break_isp(scene, "ip daddr 8.8.8.8 drop\nip6 daddr 2001:4860:4860::8888 drop")
    scene.stays("wan", 5.0)
    break_isp(scene, "")


def test_bursts_of_losses_are_no_death(scene: Scene) -> None:
    for _ in range(3):
        scene.network.wan.drop()
        time.sleep(0.3)
        scene.network.wan.restore()
        scene.stays("wan", 1.2)


def test_two_percent_of_loss_are_no_death(scene: Scene) -> None:
    scene.network.wan.drop(1)  # in each direction
    scene.stays("wan", 6.0)
    scene.network.wan.restore()


def test_a_line_that_blocks_only_pings_is_alive(scene: Scene) -> None:
    break_isp(scene, "icmp type echo-request drop\nicmpv6 type echo-request drop")
    # Long past the silence that a verdict takes, and well before evidence stops being believed.
    scene.stays("wan", 3.0)
    break_isp(scene, "")


def test_such_faults_would_be_seen(calm: Scene) -> None:
    """The control: the same scene does leave a line that is dead."""
    calm.home()
    calm.network.wan.drop()
    calm.away()
    calm.network.wan.restore()
    calm.home()
