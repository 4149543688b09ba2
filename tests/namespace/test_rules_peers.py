"""Rules of the road between peers: endpoints, clocks, addresses, shared fate, and no loops.

One test a rule, each with the fault that would break it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import pytest

from tests.lab.altered_service import AlteredService
from tests.lab.lab import Lab
from tests.lab.mesh import mesh_network
from tests.lab.meter import Flows
from tests.lab.network import ECHO4, ECHO6
from tests.lab.peers import Peer, lease_uplink, start_peers, trust_each_other
from tests.lab.router import sent_packets, settings, states
from tests.lab.troubles import (
    PROVIDER_UDP,
    block,
    count,
    counted,
    lease_of,
    place_of,
    play_future_clock,
    unblock,
)

pytestmark = pytest.mark.needs("conntrack")

SILENT_S = 15.0
DAY_S = 86400.0


class HastyService(AlteredService):
    """A service that holds a consumer to be silent after `SILENT_S` instead of three minutes."""

    constants: ClassVar[dict[str, float]] = {
        f"rpcd_wireguard_uplink.provider.lease_server:{name}": SILENT_S
        for name in ("SILENT_S", "READMIT_S")
    }


class GenerousService(AlteredService):
    """A service that takes as many new keys of a consumer as the tests here make."""

    constants: ClassVar[dict[str, float]] = {
        "rpcd_wireguard_uplink.provider.lease_server:NEW_BURST": 60
    }


@dataclass(frozen=True, slots=True)
class Mesh:
    """Three routers that trust each other and offer their internet; a and b have LAN hosts.

    The lines of a and b have one gateway between them, as behind one modem; p has its own.
    """

    a: Peer
    b: Peer
    p: Peer

    def __iter__(self) -> Iterator[Peer]:
        return iter((self.a, self.b, self.p))


@pytest.fixture(scope="module")
def offering(namespaces: None) -> Iterator[Mesh]:
    with Lab() as lab:
        mesh = mesh_network(lab, ("a", "b", "p"), hosts=("a", "b"))
        for name in ("a", "b"):
            wan = mesh[name].wan
            wan.isp.sh(f"ip link set {wan.isp_device} address 02:00:00:00:00:99")
        found = start_peers(lab, mesh, service=GenerousService)
        trust_each_other(found, [("a", "b"), ("a", "p"), ("b", "p")])
        for peer in found.values():
            peer.ask("uplink_offer")
        yield Mesh(found["a"], found["b"], found["p"])


@pytest.fixture
def mesh(offering: Mesh) -> Iterator[Mesh]:
    """Nobody has an uplink yet, and nobody any more after it."""
    for peer in offering:
        others = {each.router.name for each in offering} - {peer.router.name}
        peer.hears_of(*others, timeout_s=30.0)
    yield offering
    for peer in offering:
        unblock(peer.router.node)
        peer.router.wan.restore()
    for peer in offering:
        peer.wait_primary()
        for uplink in peer.status()["uplinks"]:
            peer.ask("uplink_remove", peer_id=uplink["peer_id"])


def files_of(peer: Peer) -> dict[str, str]:
    """Every file of the configuration and every key, with its text."""
    found = {}
    for folder in (peer.service.config_dir, peer.service.keys_dir):
        for name in os.listdir(folder):
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                found[name] = file.read()
    return found


def test_a_pool_that_the_consumer_uses_itself(mesh: Mesh) -> None:
    a, p = mesh.a, mesh.p
    pool = next(text for text in p.router.node.addresses("wgup_srv") if "." in text)
    inside = pool.rpartition(".")[0] + ".77/24"
    a.router.node.sh(f"ip addr add {inside} dev lan")
    before, links = files_of(a), a.router.node.sh("ip -o link")
    try:
        answer = a.service.call("uplink_add", {"peer_id": "p"})
    finally:
        a.router.node.sh(f"ip addr del {inside} dev lan")
    assert (answer.status, answer.data["code"]) == (8, "address_conflict")
    network = pool.rpartition(".")[0] + ".0/24"
    assert answer.data["error"] == (
        f"p says no: your network {network} overlaps the provider's pool {network}: ask its owner "
        "to set another pool4"
    )
    assert p.refusals()["address_conflict"] == 1
    assert lease_of(p, "a") is None
    assert (files_of(a), a.router.node.sh("ip -o link")) == (before, links)
    a.ask("uplink_add", peer_id="p")


@pytest.mark.parametrize("to", ["pool", "own", "mesh peer"])
def test_a_place_that_is_somebody_elses(mesh: Mesh, to: str) -> None:
    """In a network that is known by a route only, this router's own, another mesh peer's."""
    a, p = mesh.a, mesh.p
    pool = next(text for text in p.router.node.addresses("wgup_srv") if "." in text)
    network = pool.rpartition(".")[0] + ".0/24"
    places = [f"{network.rpartition('.')[0]}.{number}" for number in range(2, 255)]
    undo = f"ip route del {network} via 192.168.1.100 dev lan"
    if to == "pool":
        a.router.node.sh(f"ip route add {network} via 192.168.1.100 dev lan")
    elif to == "own":
        a.router.node.sh("\n".join(f"ip addr add {each}/32 dev lo" for each in places))
        undo = "\n".join(f"ip addr del {each}/32 dev lo" for each in places)
    else:
        key = mesh.b.router.mesh_key
        own = f"{mesh.b.router.mesh4}/32,{mesh.b.router.mesh6}/128"
        a.router.node.sh(f"wg set wg0 peer {key} allowed-ips {own},{network}")
        undo = f"wg set wg0 peer {key} allowed-ips {own}"
    before, links = files_of(a), a.router.node.sh("ip -o link")
    try:
        deadline = time.monotonic() + 30.0
        while (answer := a.service.call("uplink_add", {"peer_id": "p"})).status == 0:
            assert to == "mesh peer" and time.monotonic() < deadline, "it looks every 10 s"
            a.ask("uplink_remove", peer_id="p")
            time.sleep(2.0)
        assert answer.data["code"] == "address_conflict", answer.data
        assert files_of(a) == before or to == "mesh peer"
        assert a.router.node.sh("ip -o link") == links
        a.until(lambda: lease_of(p, "a") is None, "the lease given back")
    finally:
        a.router.node.sh(undo)

    def is_added() -> bool:
        time.sleep(1.0)  # the peer serves so many requests a second
        return a.service.call("uplink_add", {"peer_id": "p"}).status == 0

    a.until(is_added, "p's place", 30.0)
    a.ask("uplink_remove", peer_id="p")
    a.until(lambda: lease_of(p, "a") is None, "the lease given back")


def test_the_neighbours_way_comes_first_and_then_the_next(mesh: Mesh) -> None:
    """What status says of an endpoint is as old as the last look at WireGuard's counters."""
    a, p = mesh.a, mesh.p
    near = f"{p.router.segment4}:{PROVIDER_UDP}"
    to_near = f"oifname segment ip daddr {p.router.segment4} udp dport {PROVIDER_UDP}"

    def travels() -> tuple[str, str, bool]:
        row = a.uplink("p")
        return row["endpoint"], row["underlay"], row["shared_fate"]

    a.ask("uplink_add", peer_id="p")
    a.ready("p")
    a.until(lambda: travels() == (near, "segment", False), "the way by the segment")
    a.ask("uplink_remove", peer_id="p")
    a.until(lambda: lease_of(p, "a") is None, "the lease given back")
    block(a.router.node, to_near)
    count(a.router.node, "output", to_near)
    a.ask("uplink_add", peer_id="p")
    a.ready("p", timeout_s=60.0)
    assert counted(a.router.node) > 0, "it was tried"
    a.until(lambda: travels()[0] != near, "the next way")
    seen = [*p.router.wan.addresses]
    a.until(lambda: a.through("p", ECHO4, ECHO6) == seen, "answers of both families")


def test_a_line_that_both_share_is_told_and_ranked_last(mesh: Mesh) -> None:
    a, b = mesh.a, mesh.b
    for name, weight in (("b", 90), ("p", 10)):
        a.ask("uplink_add", peer_id=name, weight=weight)
    a.ready("b", "p")
    a.until(lambda: a.uplink("b")["shared_fate"], "the shared line", 90.0)
    told = "b leaves by the same WAN as this router, and is tried last."
    assert a.uplink("b")["note"] == told
    assert told in a.status()["problems"]
    assert [u["note"] for u in a.ask("uplink_list")["uplinks"]] == [told, ""]
    assert not a.uplink("p")["shared_fate"]
    a.router.wan.drop()
    a.uses("wgup_p")
    assert states(b.status()) == {"primary"}


def test_two_that_are_each_others_uplink_make_no_loop(mesh: Mesh) -> None:
    a, b = mesh.a, mesh.b
    both, host = (a, b), a.router.host
    assert host is not None
    a.ask("uplink_add", peer_id="b")
    b.ask("uplink_add", peer_id="a")
    a.ready("b")
    b.ready("a")
    with Flows(host, rate_hz=20) as flows:
        a.router.wan.drop()
        a.uses("wgup_b")
        found = b.through("a", ECHO4, ECHO6)
        assert b.router.wan.address4 not in found, "b's traffic came back to b"
        assert b.router.wan.address6 not in found
        began = time.monotonic()
        before = [sent_packets(peer.router.node, "segment") for peer in both]
        b.router.wan.drop()
        for peer in both:
            peer.until(partial(is_stranded, peer), "nothing is left")
            assert peer.ask("uplink_consumers")["offer"]["reason"] == "the WAN is dead"
            peer.hears_of("p")
        time.sleep(2.0)
        passed_s = time.monotonic() - began
        for peer, packets in zip(both, before, strict=True):
            rate = (sent_packets(peer.router.node, "segment") - packets) / passed_s
            print(f"\n{peer.router.name} sends {rate:.0f} packets a second to its neighbours")
            assert rate < 200, "40 packets a second go round"
        restored = min(peer.router.wan.restore() for peer in both)
        for peer in both:
            peer.wait_primary()
        flows.by(a.router.wan.addresses, since=restored)


def is_stranded(peer: Peer) -> bool:
    """Whether it says that nothing is left for any family."""
    return states(peer.status()) == {"stranded"}


def test_a_consumer_whose_clock_is_a_day_back(lab: Lab) -> None:
    pytest.importorskip("nacl")
    mesh = mesh_network(lab, ("c", "p"))
    text = settings((), node_id="{}", min_uplinks=0, pace="default")
    peers = {
        name: Peer(router, HastyService(lab, router.node, text.format(name)))
        for name, router in mesh.items()
    }
    for peer in peers.values():
        peer.service.start()
    trust_each_other(peers, [("c", "p")])
    c, p = peers["c"], peers["p"]
    lease_uplink(c, p)
    before = place_of(p, "c")
    c.service.kill()
    assert play_future_clock(c, p, time.time() + DAY_S), "the provider took the time"
    c.service.start()
    c.ask("uplink_test", peer_id="p", count=1)
    silent_s = -1
    deadline = time.monotonic() + 90.0
    while time.monotonic() < deadline and c.uplink("p")["handshake_age_s"] < 0:
        row = lease_of(p, "c")
        assert row is not None
        silent_s = max(silent_s, row["handshake_age_s"])
        time.sleep(0.2)
    assert silent_s >= SILENT_S - 2, "the first handshakes were refused"
    c.ready("p")
    assert place_of(p, "c") == before
