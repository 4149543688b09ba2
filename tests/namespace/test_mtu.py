"""A tunnel's MTU follows what it travels over, at run time, and large packets pass."""

from __future__ import annotations

import time

import pytest

from tests.lab.lab import Lab
from tests.lab.network import ECHO4, ECHO6, PROVIDER4, consumer_network
from tests.lab.node import Node
from tests.lab.provider import make_providers
from tests.lab.router import Router, Status, settings

pytestmark = pytest.mark.needs("conntrack", "ping")

LEAST = 1280


def mtu_of(status: Status) -> int:
    found: int = status["uplinks"][0]["mtu"]
    return found


def passes(node: Node, address: str, size: int) -> bool:
    """Whether a packet of so many bytes (header and all) that must not be cut comes back."""
    head = 48 if ":" in address else 28
    words = ["ping", "-c", "1", "-W", "2", "-M", "do", "-s", str(size - head), address]
    return node.run(words, check=False).returncode == 0


def test_it_follows_the_underlay(router: Router) -> None:
    network = router.network
    device = network.neighbours[0].consumer_device
    assert mtu_of(router.wait(lambda s: mtu_of(s) == 1420)) == 1420
    for underlay, tunnel in ((1492, 1412), (1400, 1320), (1300, LEAST), (1500, 1420)):
        network.consumer.sh(f"ip link set {device} mtu {underlay}")
        router.wait(lambda s, tunnel=tunnel: mtu_of(s) == tunnel)  # type: ignore[misc]
        shown = network.consumer.sh("cat /sys/class/net/wgup_nodea/mtu")
        assert int(shown) == tunnel
    assert router.status()["problems"] == []


def test_a_tunnel_that_moves_to_another_line_fits_it(lab: Lab) -> None:
    """Its outer packets leave a dead line for one with PPPoE's MTU."""
    network = consumer_network(lab, neighbour=False, second_wan=True)
    network.consumer.sh("ip link set wan2 mtu 1492")
    router = Router.build(network, make_providers(network), settings(), hosts=[PROVIDER4])
    router.start()
    router.wait(lambda s: mtu_of(s) == 1420)
    network.wan.drop()
    router.wait(lambda s: s["uplinks"][0]["underlay"] == "wan2" and mtu_of(s) == 1412)
    network.wan.restore()
    router.wait(lambda s: s["uplinks"][0]["underlay"] == "wan" and mtu_of(s) == 1420)


def test_packets_of_the_whole_mtu_pass_and_larger_ones_are_told_of(router: Router) -> None:
    network = router.network
    network.wan.drop()
    router.wait_failed_over()
    time.sleep(0.3)
    for address in (ECHO4, ECHO6):
        assert passes(network.host, address, 1420)
        assert not passes(network.host, address, 1421)
    link = network.neighbours[0]
    network.consumer.sh(f"ip link set {link.consumer_device} mtu 1400")
    network.providers[0].sh(f"ip link set {link.provider_device} mtu 1400")
    router.wait(lambda s: mtu_of(s) == 1320)
    assert not passes(network.host, ECHO4, 1321)
    network.consumer.sh(f"ip link set {link.consumer_device} mtu 1500")
    network.providers[0].sh(f"ip link set {link.provider_device} mtu 1500")


def test_a_path_that_is_narrower_than_its_ends_is_no_black_hole(lab: Lab) -> None:
    """Outer packets are cut on their way, or by us once a router has said so."""
    router = Router.started(lab, neighbour=False, hosts=[PROVIDER4])
    network = router.network
    network.isp1.sh("ip link set core mtu 1300")
    network.internet.sh("ip link set isp1 mtu 1300")
    words = ["ping", "-I", "wgup_nodea", "-c", "5", "-i", "0.3", "-W", "2", "-M", "do"]
    done = network.consumer.run([*words, "-s", str(1420 - 28), ECHO4], check=False)
    assert done.returncode == 0, done.stdout
    assert mtu_of(router.status()) == 1420
