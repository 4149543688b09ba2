"""Rehearsals with real packets: the harmless kind is not noticed, the other goes there and back,
whatever happens meanwhile; and what was supposed comes true.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from tests.lab.lab import Lab
from tests.lab.meter import Flows, Meter, lost, settled, sources
from tests.lab.network import ECHO4, ECHO6, consumer_network
from tests.lab.provider import make_providers
from tests.lab.router import Router, Status, settings, states
from tests.namespace.conftest import lent

pytestmark = pytest.mark.needs("conntrack")

LAPSE_S = 5.0
WELL = {"tunnel": True, "ipv4": True, "ipv6": True, "dns": True, "mtu": True}
Reply = dict[str, Any]


def with_two_uplinks(lab: Lab) -> Router:
    """Uplinks to two providers, nodea preferred."""
    network = consumer_network(lab, providers=2)
    main = settings(("nodea", "nodeb"), pace="default")
    router = Router.build(network, make_providers(network), main)
    router.uplinks = router.uplinks.replace("weight '10'", "weight '20'", 1)
    router.configure(main)
    router.start()
    return router


router = lent(with_two_uplinks)


def ask(router: Router, method: str, **arguments: object) -> Reply:
    """A method's reply; an error is one too."""
    return router.service.ask(method, **arguments)


def outcome(reply: Reply, peer_id: str) -> dict[str, bool]:
    """How each step with that peer went."""
    drill = next(row for row in reply["drills"] if row["peer_id"] == peer_id)
    return {step["step"]: step["ok"] for step in drill["steps"]}


def told(reply: Reply, step: str) -> str:
    """What was found in this step with the only peer."""
    found: list[str] = [s["told"] for s in reply["drills"][0]["steps"] if s["step"] == step]
    return found[0]


def begin(pool: ThreadPoolExecutor, router: Router, seconds: int) -> Future[Reply]:
    """Begin a drill with all traffic by nodea; returns when the traffic has moved."""
    drill = pool.submit(
        ask, router, "uplink_drill", peer_id="nodea", all_traffic=True, seconds=seconds
    )
    router.wait(lambda s: any("a drill: all traffic" in p for p in s["problems"]))
    return drill


def test_the_harmless_kind_is_not_noticed(router: Router) -> None:
    with Flows(router.network.host) as flows:
        began = time.monotonic()
        reply = ask(router, "uplink_drill")
        for meter in flows:
            samples = meter.samples(since=began)
            assert lost(samples) == 0 and len(sources(samples)) == 1
    assert reply["message"] == "2 of 2 uplinks passed the drill."
    assert outcome(reply, "nodea") == outcome(reply, "nodeb") == WELL
    assert reply["took_s"] < 5.0
    router.stays("wan", 0.5)
    assert router.status()["problems"] == []


def test_a_provider_without_internet_is_found_out(router: Router) -> None:
    router.network.provider_wans[1].drop()
    reply = ask(router, "uplink_drill")
    assert outcome(reply, "nodea") == WELL
    # Its tunnel stands and its own resolver is not asked: lookups go to public ones.
    assert outcome(reply, "nodeb") == dict.fromkeys(WELL, False) | {"tunnel": True}
    assert reply["message"] == "1 of 2 uplinks passed the drill."


def test_all_traffic_goes_there_and_back(router: Router) -> None:
    network = router.network
    provider_wan, seconds = network.provider_wans[0], 3
    with (
        Meter(network.host, ECHO4) as four,
        Meter(network.host, ECHO6) as six,
        ThreadPoolExecutor(1) as pool,
    ):
        settled(four, six)
        drill = begin(pool, router, seconds)
        there = four.wait_for_source(provider_wan.address4).sent
        assert six.wait_for_source(provider_wan.address6).sent - there < 1.0
        assert ask(router, "uplink_drill")["code"] == "drill_running"
        assert states(router.status()) == {"primary"}
        reply = drill.result()
        for meter, address in ((four, network.wan.address4), (six, network.wan.address6)):
            back = meter.wait_for_source(address, since=there + 1.0).sent
            assert seconds - 1.0 < back - there < seconds + 2.0
            assert len(sources(meter.samples())) == 3
    assert outcome(reply, "nodea") == WELL | {"traffic": True}
    assert told(reply, "traffic").startswith("ipv4 and ipv6 used it for 3 s: 0.")
    kinds = [(e["kind"], e["to"], e["family"]) for e in router.events("drill")[-4:]]
    assert sorted(kinds) == [
        ("drill", "wan", "ipv4"),
        ("drill", "wan", "ipv6"),
        ("drill", "wgup_nodea", "ipv4"),
        ("drill", "wgup_nodea", "ipv6"),
    ]
    assert router.status()["problems"] == []


def test_a_dead_service_does_not_keep_the_diversion(router: Router) -> None:
    """The deadline is the kernel's."""
    network = router.network
    with Meter(network.host, ECHO4) as meter, ThreadPoolExecutor(1) as pool:
        settled(meter)
        drill = begin(pool, router, 60)
        meter.wait_for_source(network.provider_wans[0].address4)
        router.service.kill()
        killed = time.monotonic()
        assert drill.exception() is not None
        back = meter.wait_for_source(network.wan.address4, since=killed, timeout_s=LAPSE_S + 5.0)
        assert back.sent - killed < LAPSE_S + 1.0


def test_a_service_that_comes_back_in_a_drill_goes_home(router: Router) -> None:
    with ThreadPoolExecutor(1) as pool:
        drill = begin(pool, router, 60)
        router.service.kill()
        assert drill.exception() is not None
    router.service.start()
    router.wait_primary(15.0)
    deadline = time.monotonic() + 2.0  # sooner than it would lapse
    while "elements" in router.network.consumer.sh("nft list set inet wgup diverted"):
        assert time.monotonic() < deadline, "the diversion is still there"
        time.sleep(0.05)


def test_a_failover_in_a_drill_stands(router: Router) -> None:
    network = router.network
    with Meter(network.host, ECHO4) as meter, ThreadPoolExecutor(1) as pool:
        settled(meter)
        drill = begin(pool, router, 6)
        meter.wait_for_source(network.provider_wans[0].address4)
        network.wan.drop()
        reply = drill.result()
        assert outcome(reply, "nodea")["traffic"] is False
        assert told(reply, "traffic") == "a WAN failed meanwhile: this is no drill any more"
        router.wait_failed_over()
        since = time.monotonic()
        router.stays("wgup_nodea", 1.5)
        samples = meter.samples(since=since)
        assert sources(samples) == [network.provider_wans[0].address4] and lost(samples) == 0
    assert ask(router, "uplink_drill", all_traffic=True)["code"] == "failed_over"
    assert ask(router, "uplink_drill")["message"] == "2 of 2 uplinks passed the drill."


def test_an_uplink_that_dies_in_a_drill_ends_it(router: Router) -> None:
    network = router.network
    with Meter(network.host, ECHO4) as meter, ThreadPoolExecutor(1) as pool:
        settled(meter)
        drill = begin(pool, router, 60)
        meter.wait_for_source(network.provider_wans[0].address4)
        network.provider_wans[0].drop()
        cut = time.monotonic()
        reply = drill.result()
        assert told(reply, "traffic").startswith("given up, ipv")
        back = meter.wait_for_source(network.wan.address4, since=cut)
        assert back.sent - cut < 10.0


def test_what_was_supposed_comes_true(router: Router) -> None:
    def active(status: Status) -> dict[str, str]:
        return {name: family["active_path"] for name, family in status["families"].items()}

    reply = ask(router, "uplink_simulate", fail=["wan"])
    supposed = {row["family"]: row["active_path"] for row in reply["families"]}
    following = {row["family"]: row["next_path"] for row in reply["families"]}
    assert supposed == dict.fromkeys(("ipv4", "ipv6"), "wgup_nodea")
    router.stays("wan", 1.0)
    router.network.wan.drop()
    router.wait(lambda s: states(s) == {"failed_over"} and active(s) == supposed)
    explained = ask(router, "uplink_explain")["families"][0]
    assert explained["candidates"][0]["active"] is True
    assert explained["cause"].startswith("wan: ")
    router.network.provider_wans[0].drop()
    router.wait(lambda s: active(s) == following == dict.fromkeys(supposed, "wgup_nodeb"))


def test_what_an_offer_costs_decides_before_weight(router: Router) -> None:
    """The last test: the offer's terms are kept."""

    def candidates() -> dict[str, Reply]:
        return {
            row["name"]: row for row in ask(router, "uplink_explain")["families"][0]["candidates"]
        }

    assert [row["place"] for row in candidates().values()] == [1, 2]
    assert list(candidates()) == ["nodea", "nodeb"]
    link, other = router.network.neighbours
    free = router.providers[1].offer(other.provider4, bandwidth_mbps=50)
    assert ask(router, "uplink_gossip", message=free)["accepted"], "a cost that nobody told is last"
    offer = router.providers[0].offer(link.provider4, bandwidth_mbps=50)
    offer |= {"metered": True, "price_per_gb": 0.5, "quota_gb": 20, "quota_left_gb": 12.5}
    assert ask(router, "uplink_gossip", message=offer)["accepted"]
    deadline = time.monotonic() + 20.0
    while candidates()["nodea"]["tier"] != "metered":
        assert time.monotonic() < deadline, candidates()
        time.sleep(0.2)
    assert list(candidates()) == ["nodeb", "nodea"]
    found = candidates()["nodea"]
    assert (found["price_per_gb"], found["quota_left_gb"]) == (0.5, 12.5)
    assert found["advertised_mbps"] == found["expected_mbps"] == 50
    assert found["sentence"] == "nodea comes after nodeb: it is metered, and the other is free."
    said = router.service.wgctl("uplink", "why")
    assert said.returncode == 0 and "metered, 0.5 a GB, 12.5 GB left" in said.stdout
    said = router.service.wgctl("uplink", "simulate", "wan", "nodeb")
    assert "IPv4 would go to nodea; nothing would be left behind it." in said.stdout
    said = router.service.wgctl("uplink", "simulate", "moon")
    assert said.returncode == 4 and '"moon" is no path of this router' in said.stderr
