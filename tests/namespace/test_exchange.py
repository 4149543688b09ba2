"""Peers that find, trust and serve each other over the mesh: two providers, one provider that
nobody trusts, two consumers. Nobody copies a key or an address.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from rpcd_wireguard_uplink.mesh.wire.lease import LeaseRequest
from tests.lab.consumers import ECHO, probe
from tests.lab.firewall import BY_HAND
from tests.lab.lab import Lab, ready
from tests.lab.mesh import mesh_network
from tests.lab.meter import Meter, settled
from tests.lab.network import ECHO4, ECHO6
from tests.lab.node import Node, join
from tests.lab.peers import Peer, flood_mbps, start_peers, trust_each_other

pytestmark = pytest.mark.needs("tc", "conntrack")

ROUTERS = ("c1", "c2", "p1", "p2", "stranger")
LIMIT_MBPS = 8
HOLD_S = 2
LAN4 = "192.168.50"
REFUSED = {"silence", "OSError", "PermissionError", "ConnectionRefusedError"}


@dataclass(frozen=True, slots=True)
class Mesh:
    """The routers; `internet` is where servers are."""

    lab: Lab
    peers: dict[str, Peer]
    internet: Node
    host: Node

    @property
    def consumers(self) -> tuple[Peer, Peer]:
        return self.peers["c1"], self.peers["c2"]

    @property
    def p1(self) -> Peer:
        return self.peers["p1"]

    @property
    def p2(self) -> Peer:
        return self.peers["p2"]

    def address_in(self, consumer: str, provider: str) -> tuple[str, str]:
        """A consumer's addresses in a provider's tunnel, as the provider says."""
        rows = self.peers[provider].ask("uplink_consumers")["consumers"]
        row = next(row for row in rows if row["peer_id"] == consumer)
        return row["address"].partition("/")[0], row["address6"].partition("/")[0]


@pytest.fixture(scope="module")
def trusting(namespaces: None) -> Iterator[Mesh]:
    """The services run. Consumers and providers trust each other, nobody trusts the stranger."""
    with Lab() as lab:
        mesh = mesh_network(lab, ROUTERS, hosts=("c1", "c2"))
        host = lab.node("p1-host")
        join(mesh["p1"].node, "lan", host, "eth0")
        mesh["p1"].node.sh(f"ip addr add {LAN4}.1/24 dev lan")
        host.sh(f"ip addr add {LAN4}.2/24 dev eth0\nip route add default via {LAN4}.1")
        ready(lab.serve(host, echo=(f"{LAN4}.2",)))
        peers = start_peers(lab, mesh, hold_time=HOLD_S, max_hold_time=HOLD_S)
        trust_each_other(peers, ((c, p) for c in ("c1", "c2") for p in ("p1", "p2")))
        peers["stranger"].trust("p1", "c1")
        internet = next(node for node in lab.nodes if node.name == "internet")
        yield Mesh(lab, peers, internet, host)


@pytest.fixture(scope="module")
def offered(trusting: Mesh) -> Mesh:
    """All three providers offer their internet."""
    for name, weight in (("p1", 40), ("p2", 30), ("stranger", 500)):
        trusting.peers[name].ask("uplink_offer", bandwidth_mbps=weight, limit_mbps=LIMIT_MBPS)
    return trusting


@pytest.fixture(scope="module")
def served(offered: Mesh) -> Mesh:
    """Both consumers have an uplink to both providers, and like p1 better."""
    for consumer in offered.consumers:
        consumer.hears_of("p1", "p2", "stranger")
        consumer.ask("uplink_add", peer_id="p1")
        consumer.ask("uplink_add", peer_id="p2")
        consumer.ask("uplink_set_priority", peer_id="p1", weight=60)
    return offered


@pytest.fixture
def mesh(served: Mesh) -> Iterator[Mesh]:
    """With both uplinks of both consumers able to take over; all lines work again after it."""
    for consumer in served.consumers:
        consumer.ready("p1", "p2")
    yield served
    for peer in served.peers.values():
        peer.router.wan.restore()
    for peer in served.peers.values():
        peer.wait_primary()
    for consumer in served.consumers:
        consumer.hears_of("p1", "p2", "stranger")


@pytest.fixture
def outage(mesh: Mesh) -> Mesh:
    """Both consumers' own lines are dead, and their traffic goes by p1."""
    for consumer in mesh.consumers:
        consumer.router.wan.drop()
    for consumer in mesh.consumers:
        consumer.uses("wgup_p1")
    return mesh


def test_offers_are_found_by_mesh(offered: Mesh) -> None:
    for consumer in offered.consumers:
        consumer.hears_of("p1", "p2", "stranger", timeout_s=5.0)
        offers = consumer.offers()
        assert {name: row["bandwidth_mbps"] for name, row in offers.items()} == {
            "p1": 40,
            "p2": 30,
            "stranger": 500,
        }
        for name in ("p1", "p2"):
            assert offers[name]["usable"] and offers[name]["trusted"]
            assert offers[name]["carrier"] == "mesh"
            assert offers[name]["latency_ms"] > 0


def test_a_strangers_offer_is_listed_and_refused(offered: Mesh) -> None:
    c1 = offered.peers["c1"]
    c1.hears_of("p1", "p2", "stranger")
    row = c1.offers()["stranger"]
    sentence = "stranger is not trusted: wgctl uplink trust accept stranger"
    assert (row["trusted"], row["usable"], row["reason"]) == (False, False, sentence)
    answer = c1.service.call("uplink_add", {"peer_id": "stranger"})
    assert answer.status == 6
    assert (answer.data["error"], answer.data["code"]) == (sentence, "not_trusted")


def test_a_strangers_wish_for_a_lease_is_refused_and_counted(offered: Mesh) -> None:
    p1, stranger = offered.p1, offered.peers["stranger"]
    stranger.until(lambda: "p1" in stranger.offers(), "offer of p1")
    before = p1.refusals().get("not_trusted", 0)
    answer = stranger.service.call("uplink_add", {"peer_id": "p1"})
    sentence = (
        "p1 does not trust stranger yet: its owner can, by "
        "`wgctl uplink trust accept stranger` there"
    )
    assert answer.status == 6
    assert answer.data["error"] == f"p1 says no: {sentence}"
    assert p1.refusals()["not_trusted"] == before + 1
    key = stranger.router.node.sh("wg genkey | wg pubkey").strip()
    body = LeaseRequest(peer_id="stranger", public_key=key).as_table()
    ends = stranger.router.mesh4, p1.router.mesh4
    status, table = json.loads(stranger.router.node.ask("post", *ends, json.dumps(body)))
    assert (status, table["code"]) == (403, "not_trusted"), table
    assert p1.refusals()["not_trusted"] == before + 2
    assert "wgup_p1" not in stranger.router.node.sh("ip link")
    assert "stranger" not in [row["peer_id"] for row in p1.ask("uplink_consumers")["consumers"]]


def test_an_id_is_all_that_an_uplink_takes(served: Mesh) -> None:
    for consumer in served.consumers:
        consumer.ready("p1", "p2")
        for name in ("p1", "p2"):
            tested = consumer.ask("uplink_test", peer_id=name, count=3)
            assert tested["received"] == 3
            provider_wan = served.peers[name].router.wan
            assert consumer.through(name, ECHO4, ECHO6) == [
                provider_wan.address4,
                provider_wan.address6,
            ]
    places = {served.address_in(c, p) for c in ("c1", "c2") for p in ("p1", "p2")}
    assert len({address for place in places for address in place}) == 8


def test_consumers_reach_the_internet_and_nothing_else(mesh: Mesh) -> None:
    c1, p1 = mesh.peers["c1"], mesh.p1
    provider_wan, node = p1.router.wan, p1.router.node
    gateways = [text.partition("/")[0] for text in node.addresses("wgup_srv")]
    own = [*gateways, f"{LAN4}.1", provider_wan.address4, provider_wan.address6]
    own += [p1.router.segment4, p1.router.mesh4, p1.router.mesh6]
    other = list(mesh.address_in("c2", "p1"))
    ready(mesh.lab.serve(node, echo=own))
    ready(mesh.lab.serve(mesh.peers["c2"].router.node, echo=other))
    near = [*own, *other, f"{LAN4}.2"]
    for address in mesh.address_in("c1", "p1"):  # c2 would even answer
        mesh.peers["c2"].router.node.sh(f"ip route add {address} dev wgup_p1")
    # Not c2's: a provider leads no consumer to another, and c2 lets nobody in.
    reachable = [address for address in near if address not in other]
    with p1.service.hung():  # or it would put the table back
        node.sh("nft delete table inet wgup_provider")
        open_to_all = dict(zip(reachable, c1.through("p1", *reachable), strict=True))
    assert not REFUSED & set(open_to_all.values()), open_to_all
    p1.ask("uplink_offer")  # what is there is looked after every 10 s, and at once by this
    for found, address in zip(c1.through("p1", *near), near, strict=True):
        assert found in REFUSED, address
    assert c1.through("p1", ECHO4) == [provider_wan.address4]
    assert set(probe(mesh.host, ("tcp", other[0], ECHO))) <= REFUSED


def test_a_firewall_that_drops_what_consumers_send_is_told_until_it_does_not(mesh: Mesh) -> None:
    """p1's owner loads a forward chain that lets the LAN out and nobody else."""
    c1, p1 = mesh.peers["c1"], mesh.p1
    source = p1.router.wan.address4
    assert c1.through("p1", ECHO4) == [source] and p1.status()["problems"] == []
    p1.router.node.nft(BY_HAND)
    try:
        p1.until(lambda: p1.status()["problems"], "the firewall in its status")
        (told,) = p1.status()["problems"]
        drops = "(nftables, table inet filter) drops what wgup_srv sends into "
        assert told.startswith(f"The firewall {drops}{p1.router.wan.device} (IPv4 and IPv6")
        assert set(c1.through("p1", ECHO4)) <= REFUSED
        p1.router.node.sh(told.split("`")[1])
        assert c1.through("p1", ECHO4) == [source]
        p1.until(lambda: p1.status()["problems"] == [], "no complaint")
    finally:
        p1.router.node.sh("nft delete table inet filter")


def test_both_have_their_limit_both_ways_at_once(outage: Mesh) -> None:
    """Each sends and is sent half as much again; the tunnels carry nothing else."""
    hosts = [consumer.router.host for consumer in outage.consumers]
    with ThreadPoolExecutor(2) as pool:
        running = [
            pool.submit(flood_mbps, host, outage.internet, server, 1.5 * LIMIT_MBPS)
            for host, server in zip(hosts, (ECHO4, "1.1.1.1"), strict=True)
            if host is not None
        ]
        rates = [rate for each in running for rate in each.result()]
    assert len(rates) == 4
    assert all(abs(rate / LIMIT_MBPS - 1) < 0.15 for rate in rates), rates
    rows = {row["peer_id"]: row for row in outage.p1.ask("uplink_consumers")["consumers"]}
    for name in ("c1", "c2"):
        assert rows[name]["rx_bytes"] > 1e6 and rows[name]["tx_bytes"] > 1e6


def test_a_provider_whose_line_dies_withdraws_and_the_other_takes_over(outage: Mesh) -> None:
    p1, line2 = outage.p1, outage.p2.router.wan
    with ExitStack() as stack:
        meters = [
            (stack.enter_context(Meter(consumer.router.host, server, rate_hz=25)), source)
            for consumer in outage.consumers
            for server, source in ((ECHO4, line2.address4), (ECHO6, line2.address6))
            if consumer.router.host is not None
        ]
        settled(*(meter for meter, _ in meters))
        cut = p1.router.wan.drop()
        for consumer in outage.consumers:
            gone = consumer.hears_of("p2", "stranger")
            assert gone - cut < 5.0
        for meter, source in meters:
            moved = meter.wait_for_source(source, since=cut, timeout_s=15.0).received
            assert moved is not None and moved - cut < 5.0
    for consumer in outage.consumers:
        consumer.uses("wgup_p2")
    offer = p1.ask("uplink_consumers")["offer"]
    assert (offer["available"], offer["reason"]) == (False, "the WAN is dead")


def test_it_offers_again_after_the_hold_time(mesh: Mesh) -> None:
    p1 = mesh.p1
    p1.router.wan.drop()
    for consumer in mesh.consumers:
        consumer.hears_of("p2", "stranger")
    mended = p1.router.wan.restore()
    for consumer in mesh.consumers:
        again = consumer.hears_of("p1", "p2", "stranger")
        assert HOLD_S <= again - mended < HOLD_S + 8.0


def test_a_dead_line_is_not_offered(outage: Mesh) -> None:
    c1 = outage.peers["c1"]
    answer = c1.service.call("uplink_offer")
    assert (answer.status, answer.data["code"]) == (8, "wan_down")
    assert "this router's own WAN does not answer" in answer.data["error"]
    told: dict[str, Any] = c1.ask("uplink_consumers")
    assert told["offering"] == 0 and not told["offer"]["available"]
    assert "wgup_srv" not in c1.router.node.sh("ip link")


def test_withdrawing_takes_the_offer_and_keeps_the_places(mesh: Mesh) -> None:
    """The last test but its relative: WireGuard notices 15 s later that its session is gone."""
    p2, consumers = mesh.p2, mesh.consumers
    before = [mesh.address_in(name, "p2") for name in ("c1", "c2")]
    asked = time.monotonic()
    p2.ask("uplink_withdraw")
    try:
        for consumer in consumers:
            assert consumer.hears_of("p1", "stranger") - asked < 3.0
        assert "wgup_srv" not in p2.router.node.sh("ip link")
        assert p2.ask("uplink_status")["offering"] == 0
        refused = mesh.peers["stranger"].service.call("uplink_add", {"peer_id": "p2"})
        assert (refused.status, refused.data["code"]) == (4, "no_offer")
    finally:
        p2.ask("uplink_offer")
    for consumer in consumers:
        consumer.hears_of("p1", "p2", "stranger")
    assert [mesh.address_in(name, "p2") for name in ("c1", "c2")] == before


def test_a_place_is_good_again_after_a_withdrawal(mesh: Mesh) -> None:
    p2, consumers = mesh.p2, mesh.consumers
    before = [mesh.address_in(name, "p2") for name in ("c1", "c2")]
    p2.ask("uplink_withdraw")
    p2.ask("uplink_offer")
    for consumer in consumers:
        consumer.hears_of("p1", "p2", "stranger")
        consumer.ask("uplink_test", peer_id="p2", count=1)
    for consumer in consumers:
        consumer.answered_by("p2", 40.0)
    assert [mesh.address_in(name, "p2") for name in ("c1", "c2")] == before
