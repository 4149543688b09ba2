"""Calls on the bus of a service that works: answers, refusals, changes while traffic flows."""

from __future__ import annotations

import asyncio
import os
import time
from statistics import median
from typing import Any

import pytest

from rpcd_wireguard_uplink.ubus.client import Client
from tests.lab.lab import Lab
from tests.lab.meter import Flows, Meter, ask, longest, settled, sources
from tests.lab.network import ECHO4
from tests.lab.node import Node
from tests.lab.reach import until
from tests.lab.router import Router, sent_packets, settings, states
from tests.lab.service import OBJECT

pytestmark = pytest.mark.needs("conntrack")

NOWHERE = "192.0.2.77"


async def test_a_running_test_delays_no_other_call(router: Router) -> None:
    client = Client(router.service.socket)
    await client.connect()

    async def timed(count: int) -> list[float]:
        taken = []
        for _ in range(count):
            began = time.perf_counter()
            await client.call(OBJECT, "uplink_status")
            taken.append(time.perf_counter() - began)
            await asyncio.sleep(0.01)
        return taken

    try:
        await timed(5)
        before = await timed(40)
        arguments = {"peer_id": "nodea", "target": NOWHERE, "count": 10}
        testing = asyncio.create_task(client.call(OBJECT, "uplink_test", arguments))
        await asyncio.sleep(0.2)
        during = await timed(40)
        assert not testing.done(), "the test was to take seconds"
        tested = await testing
    finally:
        await client.close()
    assert (tested["reachable"], tested["sent"], tested["received"]) == (False, 10, 0)
    assert median(during) < 3 * median(before) + 0.005, (median(before), median(during))
    assert sorted(during)[35] < 0.1, "nine of ten answer at once"


@pytest.mark.parametrize(
    ("method", "arguments", "status", "word"),
    [
        ("uplink_add", {}, 2, "peer_id"),
        ("uplink_add", {"peer_id": 5}, 2, "peer_id"),
        ("uplink_add", {"peer_id": "a b"}, 2, "peer_id"),
        ("uplink_add", {"peer_id": "nodea\n"}, 2, "peer_id"),
        ("uplink_add", {"peer_id": "x", "extra": 1}, 2, "extra"),
        ("uplink_set_priority", {"peer_id": "nodea", "weight": 101}, 2, "weight"),
        ("uplink_set_priority", {"peer_id": "nodea"}, 2, "weight"),
        ("uplink_test", {"peer_id": "nodea", "count": "many"}, 2, "count"),
        ("uplink_status", {"verbose": True}, 2, "verbose"),
        ("uplink_nothing", {}, 3, ""),
        ("uplink_add", {"peer_id": "nobody"}, 4, "nobody"),
        ("uplink_remove", {"peer_id": "nobody"}, 4, "nobody"),
        ("uplink_test", {"peer_id": "nobody"}, 4, "nobody"),
    ],
)
def test_refusals(
    router: Router, method: str, arguments: dict[str, Any], status: int, word: str
) -> None:
    answer = router.service.call(method, arguments)
    assert answer.status == status
    if word:
        assert word in answer.data["error"] and answer.data["error"].count(" ") >= 3
        assert answer.data["success"] is False and answer.data["code"]


def test_a_web_session_may_list(router: Router) -> None:
    answer = router.service.call("uplink_list", {"ubus_rpc_session": "x"})
    assert answer.status == 0
    assert [uplink["peer_id"] for uplink in answer.data["uplinks"]] == ["nodea"]


def test_an_untrusted_offer_is_listed_and_not_added(router: Router) -> None:
    provider = router.providers[0]
    message = provider.offer("172.16.70.2") | {"peer_id": "stranger"}
    assert router.service.expect("uplink_gossip", {"message": message})["accepted"]
    listed = router.service.expect("uplink_list")["offers"]
    (row,) = [row for row in listed if row["peer_id"] == "stranger"]
    assert not row["trusted"] and not row["usable"] and "trusted" in row["reason"]
    answer = router.service.call("uplink_add", {"peer_id": "stranger"})
    assert answer.status == 6 and "stranger" in answer.data["error"]
    assert len(router.service.expect("uplink_list")["uplinks"]) == 1


def test_disabled_does_nothing_and_leaves_nothing_in_the_way(router: Router) -> None:
    network = router.network
    network.wan.drop()
    router.wait_failed_over()
    network.wan.restore()
    router.configure(settings(enabled=0))
    status = router.wait(lambda s: states(s) == {"disabled"})
    assert status["enabled"] == 0
    with Meter(network.host, ECHO4) as meter:
        meter.wait_for_source(network.wan.address4)
    assert left_behind(network.consumer) == []
    network.wan.drop()
    time.sleep(1.0)
    assert states(router.status()) == {"disabled"}


def test_automatic_failover_can_be_off(router: Router) -> None:
    assert router.service.expect("uplink_set_failover", {"enabled": False})["auto_failover"] == 0
    router.network.wan.drop()
    time.sleep(1.5)
    status = router.status()
    assert states(status) == {"primary"} and status["auto_failover"] == 0
    assert router.service.expect("uplink_set_failover", {"enabled": True})["auto_failover"] == 1
    router.wait_failed_over()


def test_bad_values_leave_the_last_good_ones_in_force(router: Router) -> None:
    bound_ms = router.status()["detection_bound_ms"]
    for option, value in (("check_interval", "often"), ("failover_timeout", "0"), ("pace", "x")):
        router.configure(settings(**{option: value}))
        status = router.wait(lambda s: bool(s["problems"]))
        (problem,) = status["problems"]
        assert f"uplink.{option} is '{value}'" in problem and "last good" in problem
        router.configure(settings())
        router.wait(lambda s: not s["problems"])
    router.configure(settings(pace="default", failover_timeout=1))
    status = router.wait(lambda s: bool(s["problems"]))
    assert "failover_timeout is 1 s" in status["problems"][0]
    assert status["detection_bound_ms"] == bound_ms
    router.network.wan.drop()
    router.wait_failed_over()


def test_failover_timeout_bounds_detection_and_switch(router: Router) -> None:
    network = router.network
    router.configure(settings(pace="default", failover_timeout=3))
    status = router.wait(lambda s: s["detection_bound_ms"] > 1000)
    assert not status["problems"] and status["detection_bound_ms"] <= 3000
    with Meter(network.host, ECHO4) as meter:
        settled(meter)
        time.sleep(1.0)
        began = network.wan.drop()
        found = meter.wait_for_source(network.provider_wans[0].address4, since=began)
        assert found.received is not None and found.received - began < 3.0


def test_check_interval_is_the_pace_of_idle_backups(router: Router) -> None:
    def probes_in(seconds: float) -> int:
        before = sent_packets(router.network.consumer, "wgup_nodea")
        time.sleep(seconds)
        return sent_packets(router.network.consumer, "wgup_nodea") - before

    router.configure(settings(check_interval=1))
    router.wait_primary()
    time.sleep(1.0)
    often = probes_in(2.0)
    router.configure(settings(check_interval=60))
    router.wait_primary()
    time.sleep(1.0)
    assert probes_in(2.0) + 2 < often, "two families, two seconds"


def test_a_changed_file_is_noticed_without_a_signal(router: Router) -> None:
    router.service.configure(settings(auto_failover=0) + router.uplinks)
    router.wait(lambda s: not s["auto_failover"], timeout_s=5.0)
    changed = router.uplinks.replace("weight '10'", "weight '77'")
    router.service.configure(settings() + changed)
    began = time.monotonic()
    router.service.reload()
    router.wait(lambda s: s["uplinks"][0]["weight"] == 77)
    assert time.monotonic() - began < 1.5, "a signal needs no waiting"


def test_an_uplink_is_changed_in_place(router: Router) -> None:
    network = router.network
    link = network.neighbours[0]
    with Flows(network.host) as flows:
        network.wan.drop()
        router.wait_failed_over()
        flows.ipv4.wait_for_source(network.provider_wans[0].address4)
        index = network.consumer.sh("cat /sys/class/net/wgup_nodea/ifindex")
        began = time.monotonic()
        endpoint = f"[{link.provider6}]:51820"
        changed = router.service.expect(
            "uplink_add", {"peer_id": "nodea", "weight": 50, "endpoint": endpoint}
        )
        assert (changed["created"], changed["weight"], changed["endpoint"]) == (False, 50, endpoint)
        assert endpoint in network.consumer.sh("wg show wgup_nodea endpoints")
        router.service.expect("uplink_set_priority", {"peer_id": "nodea", "weight": 60})
        time.sleep(1.0)
        for meter in flows:
            assert longest(meter.samples(began)).seconds < 0.3
            assert len(sources(meter.so_far(began))) == 1
        assert network.consumer.sh("cat /sys/class/net/wgup_nodea/ifindex") == index
        assert router.status()["uplinks"][0]["weight"] == 60
    with open(router.service.config_file, encoding="utf-8") as file:
        assert "option weight '60'" in file.read()


def left_behind(node: Node) -> list[str]:
    """Rules, routes and tables of ours that stand in a node."""
    found = [line for line in node.sh("nft list tables").splitlines() if line.endswith(" wgup")]
    for version in (4, 6):
        for line in node.sh(f"ip -{version} rule").splitlines():
            if any(table in line for table in ("5179", "5180", "5181", "fwmark 0x51")):
                found.append(line)
        shown = node.sh(f"ip -{version} route show table all")
        found += [r for r in shown.splitlines() if "table 51" in r]
    return found


def test_removing_active_uplinks_moves_traffic_on_and_leaves_nothing(lab: Lab) -> None:
    router = Router.started(lab, settings(peers=("nodea", "nodeb"), hold_time=20), providers=2)
    network, service = router.network, router.service
    service.expect("uplink_set_priority", {"peer_id": "nodea", "weight": 90})
    first, second = network.provider_wans
    with Flows(network.host) as flows:
        began = network.wan.drop()
        flows.by(first.addresses, since=began)
        removed = time.monotonic()
        service.expect("uplink_remove", {"peer_id": "nodea"})
        flows.by(second.addresses, since=removed, timeout_s=3.0)
        router.wait_failed_over("wgup_nodeb")
        until(
            lambda: network.consumer.sh("nft list table inet wgup"),
            lambda shown: "wgup_nodea" not in shown,
        )
        network.wan.restore()
        router.wait(lambda s: states(s) == {"holding"})
        removed = time.monotonic()
        service.expect("uplink_remove", {"peer_id": "nodeb"})
        flows.by(network.wan.addresses, since=removed, timeout_s=3.0)
    time.sleep(0.3)
    consumer = network.consumer
    assert left_behind(consumer) == []
    assert "wgup_" not in consumer.sh("ip link show")
    assert [name for name in os.listdir(service.keys_dir) if name.endswith(".key")] == []
    with open(os.path.join(service.config_dir, "network"), encoding="utf-8") as file:
        assert file.read().strip() == ""
    assert service.expect("uplink_list")["uplinks"] == []
    assert ask(consumer, ECHO4, kind="tcp") == network.wan.address4
