"""Killed services and a killed bus, in an outage: nothing stuck, no gap.

Kills in the middle of changes are tests/chaos's.
"""

from __future__ import annotations

import json
import os
import sys
import time

import pytest

from tests.lab.lab import Lab
from tests.lab.meter import Flows, Meter, longest, settled
from tests.lab.network import ECHO4, ConsumerNetwork
from tests.lab.node import Child, Node
from tests.lab.provider import make_provider
from tests.lab.router import Router, settings
from tests.lab.service import Service, variables

pytestmark = pytest.mark.needs("conntrack")

LAPSE_S = 5.0


def diversions(node: Node) -> int:
    """How many families have a diversion in force: its rules are those of protocol 152."""
    shown = [node.sh(f"ip -{n} rule show") for n in (4, 6)]
    return sum("lookup 5180 proto 152" in text for text in shown)


def test_diversion_of_a_killed_service_lapses_by_itself(router: Router) -> None:
    network = router.network
    provider_wan = network.provider_wans[0]
    with Flows(network.host) as flows:
        network.wan.drop()
        router.wait_failed_over()
        time.sleep(0.3)
        router.service.kill()
        killed = time.monotonic()
        assert diversions(network.consumer) == 2
        network.wan.restore()
        time.sleep(1.5)
        for meter, address in zip(flows, provider_wan.addresses, strict=True):
            assert longest(meter.samples(killed)).seconds < 0.3, "traffic went on in the tunnel"
            assert {s.source for s in meter.so_far(killed) if s.source} == {address}
        for meter, address in zip(flows, network.wan.addresses, strict=True):
            back = meter.wait_for_source(address, since=killed, timeout_s=LAPSE_S + 3.0)
            assert back.sent - killed < LAPSE_S + 2.0
    assert diversions(network.consumer) == 0


def test_restart_in_time_leaves_no_gap(router: Router) -> None:
    network = router.network
    away = {*network.provider_wans[0].addresses}
    with Flows(network.host) as flows:
        network.wan.drop()
        router.wait_failed_over()
        time.sleep(0.5)
        killed = time.monotonic()
        router.service.kill()
        time.sleep(0.5)  # the rest of LAPSE_S is for its start on a busy machine
        router.service.start()
        status = router.wait_failed_over()
        time.sleep(max(0.0, killed + LAPSE_S + 1.0 - time.monotonic()))  # the first one's lapse
        for meter in flows:
            assert longest(meter.samples(killed)).seconds < 0.2
            assert {s.source for s in meter.so_far(killed) if s.source} <= away
        assert status["uplinks"][0]["active"]
        network.wan.restore()
        router.wait_primary()
        flows.ipv4.wait_for_source(network.wan.address4, since=time.monotonic())
        flows.ipv6.wait_for_source(network.wan.address6, since=time.monotonic())


class Bus:
    """A bus of its own process, so that it can die while the service lives."""

    def __init__(self, lab: Lab, node: Node, path: str) -> None:
        self._lab, self._node, self._path = lab, node, path
        self._child: Child | None = None

    def start(self) -> float:
        argv = [
            sys.executable,
            "-m",
            "rpcd_wireguard_uplink.extras.standalone",
            "broker",
            "-s",
            self._path,
        ]
        self._child = self._lab.at_close(self._node.popen(argv, env=variables()))
        deadline = time.monotonic() + 5.0
        while not os.path.exists(self._path):
            assert time.monotonic() < deadline, "no bus"
            time.sleep(0.01)
        return time.monotonic()

    def kill(self) -> None:
        assert self._child is not None
        self._child.kill()
        os.unlink(self._path)


class OnOtherBus(Service):
    """The service without a broker of its own."""

    @property
    def argv(self) -> list[str]:
        return [word for word in super().argv if word != "--broker"]


def test_failover_needs_no_bus_and_the_object_comes_back(network: ConsumerNetwork) -> None:
    provider = make_provider(network.lab, network.providers[0])
    router = Router.build(network, [provider], settings(), service=OnOtherBus)
    bus = Bus(network.lab, network.consumer, router.service.socket)
    bus.start()
    router.start()
    with Meter(network.host, ECHO4) as meter:
        settled(meter)
        bus.kill()
        cut = network.wan.drop()
        meter.wait_for_source(network.provider_wans[0].address4, since=cut, timeout_s=3.0)
        returned = bus.start()
        status = router.wait_failed_over(timeout_s=3.0)
        assert time.monotonic() - returned < 2.0, "the object is there within a second"
        assert status["events"][0]["kind"] == "failover"
    assert router.service.running


UNTOUCHABLE = """\
config interface 'lan'
	option proto 'static'
	option device 'br-lan'

config interface 'wgup_mine'
	option proto 'wireguard'
	option private_key 'made-by-hand'

config wireguard_wgup_mine
	option public_key 'of a peer of my own'
"""


def test_devices_and_sections_of_others_are_never_touched(network: ConsumerNetwork) -> None:
    """Not by adding a peer of that name, not by removing it, not by a start."""
    node, provider = network.consumer, make_provider(network.lab, network.providers[0])
    service = Service(network.lab, node, settings(peers=("nodea", "other")))
    with open(os.path.join(service.config_dir, "network"), "w", encoding="utf-8") as file:
        file.write(UNTOUCHABLE)
    node.sh("ip link add wgup_other type veth peer name wgup_othpeer")
    message = provider.offer(network.neighbours[0].provider4) | {"peer_id": "other"}
    service.start()
    service.expect("uplink_gossip", {"message": message})
    before = json.loads(node.run(["ip", "-j", "link", "show", "wgup_other"]).stdout)
    added = service.expect("uplink_add", {"peer_id": "other"})
    assert added["interface"] != "wgup_other"
    service.restart()
    service.expect("uplink_remove", {"peer_id": "other"})
    assert json.loads(node.run(["ip", "-j", "link", "show", "wgup_other"]).stdout) == before
    assert node.run(["wg", "show", "interfaces"]).stdout.strip() == ""
    with open(os.path.join(service.config_dir, "network"), encoding="utf-8") as file:
        assert file.read().strip() == UNTOUCHABLE.strip()
