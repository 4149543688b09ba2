"""A consumer and its provider in troubles: trust revoked, services killed, a long outage."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.lab.lab import Lab
from tests.lab.mesh import mesh_network
from tests.lab.meter import Flows, Meter, longest, sources
from tests.lab.network import ECHO4, ECHO6
from tests.lab.peers import Peer, start_peers, trust_each_other
from tests.lab.router import states
from tests.lab.troubles import (
    MESH_TCP,
    block,
    count,
    counted,
    crash_and_start,
    lease_of,
    place_of,
    unblock,
)

pytestmark = pytest.mark.needs("conntrack")

LEASE_S = 5
PROVIDER = f"\nconfig provider 'local'\n\toption lease_time '{LEASE_S}'\n"
Pair = tuple[Peer, Peer]


@pytest.fixture(scope="module")
def trusting(namespaces: None) -> Iterator[Pair]:
    """Consumer and provider, who trust each other; leases last for seconds."""
    with Lab() as lab:
        mesh = mesh_network(lab, ("c", "p"), hosts=("c",))
        peers = start_peers(lab, mesh, PROVIDER)
        trust_each_other(peers, [("c", "p")])
        peers["p"].ask("uplink_offer")
        yield peers["c"], peers["p"]


@pytest.fixture
def pair(trusting: Pair) -> Iterator[Pair]:
    """With an uplink that could take over; all is well again after it."""
    consumer, provider = trusting
    consumer.until(lambda: consumer.offers().get("p", {}).get("usable"), "a usable offer")
    if not consumer.status()["uplinks"]:
        consumer.ask("uplink_add", peer_id="p")
    consumer.ready("p")
    yield trusting
    unblock(consumer.router.node)
    consumer.router.join_mesh()
    consumer.router.wan.restore()
    trust_each_other({"c": consumer, "p": provider}, [("c", "p")])
    consumer.wait_primary()


@pytest.fixture
def outage(pair: Pair) -> Pair:
    """The consumer's line is dead and its traffic goes by the provider."""
    consumer, _ = pair
    consumer.router.wan.drop()
    consumer.uses("wgup_p")
    return pair


def problems(peer: Peer) -> str:
    """What the service complains of."""
    return "\n".join(peer.status()["problems"])


def test_trust_revoked_by_the_provider_ends_the_lease_at_once(outage: Pair) -> None:
    consumer, provider = outage
    provider_wan = provider.router.wan
    before = place_of(provider, "c")
    assert consumer.through("p", ECHO4, ECHO6) == [*provider_wan.addresses]
    provider.ask("uplink_trust_revoke", peer_id="c")
    assert lease_of(provider, "c") is None
    assert before[0] not in provider.router.node.run(["wg", "show", "wgup_srv"]).stdout
    assert consumer.through("p", ECHO4, ECHO6) == ["silence", "silence"]
    consumer.until(lambda: states(consumer.status()) == {"stranded"}, "nothing is left")
    told = "p says no: p does not trust c yet"
    consumer.until(lambda: told in problems(consumer), "the provider's sentence")
    assert consumer.status()["uplinks"][0]["usable"] is False
    provider.ask("uplink_trust_accept", peer_id="c")
    consumer.answered_by("p", 60.0)  # it asks again by itself
    assert place_of(provider, "c") == before
    assert told not in problems(consumer)


def test_trust_revoked_by_the_consumer_ends_its_use(outage: Pair) -> None:
    consumer, provider = outage
    before = place_of(provider, "c")
    consumer.ask("uplink_trust_revoke", peer_id="p")
    assert not consumer.offers().get("p", {}).get("usable")
    consumer.until(lambda: states(consumer.status()) == {"stranded"}, "nothing is left", 3.0)
    uplink = consumer.uplink("p")
    assert not uplink["usable"] and "wgctl uplink trust accept p" in uplink["reason"]
    assert not uplink["active"]
    answer = consumer.service.call("uplink_add", {"peer_id": "p"})
    assert (answer.status, answer.data["code"]) in ((4, "no_offer"), (6, "not_trusted"))
    consumer.ask("uplink_trust_accept", peer_id="p")
    consumer.uses("wgup_p")
    assert place_of(provider, "c") == before


def keep_ready(peer: Peer, before: int, now: int) -> None:
    """Change how many uplinks the router makes by itself."""
    with open(peer.service.config_file, encoding="utf-8") as file:
        text = file.read()
    assert f"min_uplinks '{before}'" in text
    peer.service.configure(text.replace(f"min_uplinks '{before}'", f"min_uplinks '{now}'"))
    peer.service.reload()


def test_an_uplink_that_was_made_by_itself_goes_with_trust(pair: Pair) -> None:
    consumer, provider = pair
    consumer.ask("uplink_remove", peer_id="p")
    consumer.until(lambda: lease_of(provider, "c") is None, "the lease given back")
    keep_ready(consumer, 0, 1)
    try:
        consumer.until(lambda: consumer.status()["uplinks"], "an uplink by itself", 20.0)
        assert place_of(provider, "c")
        consumer.ask("uplink_trust_revoke", peer_id="p")
        consumer.until(lambda: not consumer.status()["uplinks"], "no uplink", 10.0)
        consumer.until(lambda: lease_of(provider, "c") is None, "the lease given back", 5.0)
        assert "wgup_p" not in consumer.router.node.sh("ip link")
    finally:
        keep_ready(consumer, 1, 0)


@pytest.mark.parametrize("names", ["p", "c", "cp"], ids=["provider", "consumer", "both"])
def test_killed_services_keep_every_lease(outage: Pair, names: str) -> None:
    consumer, provider = outage
    provider_wan = provider.router.wan
    before = place_of(provider, "c")
    crash_and_start([peer for peer in outage if peer.router.name in names])
    consumer.uses("wgup_p", timeout_s=10.0)
    host = consumer.router.host
    assert host is not None
    with Meter(host, ECHO4) as four, Meter(host, ECHO6) as six:
        four.wait_for_source(provider_wan.address4, timeout_s=10.0)
        six.wait_for_source(provider_wan.address6, timeout_s=10.0)
    assert place_of(provider, "c") == before
    served = provider.router.node.run(["wg", "show", "wgup_srv", "peers"]).stdout
    assert served.split() == [before[0]]
    assert len(consumer.status()["uplinks"]) == 1


def watch_outage(outage: Pair) -> None:
    """Three lease times without line and mesh: no packet of the traffic is lost for long."""
    consumer, provider = outage
    before, host = place_of(provider, "c"), consumer.router.host
    assert host is not None
    provider_wan = provider.router.wan
    with Flows(host, rate_hz=20) as flows:
        began = time.monotonic()
        consumer.router.leave_mesh()
        while time.monotonic() < began + 3 * LEASE_S + 1:
            row = lease_of(provider, "c")
            assert row is not None, "the provider let the lease go"
            time.sleep(0.5)
        for meter, source in zip(flows, provider_wan.addresses, strict=True):
            seen = meter.samples(since=began)
            assert longest(seen).seconds < 1.0
            assert set(sources(seen)) == {source}
    assert place_of(provider, "c") == before
    assert states(consumer.status()) == {"failed_over"}


def test_an_outage_of_three_lease_times(outage: Pair) -> None:
    """The mesh is dead too: the lease is renewed inside the tunnel."""
    consumer, provider = outage
    count(provider.router.node, "input", f"iifname wgup_srv tcp dport {MESH_TCP} tcp flags syn")
    watch_outage(outage)
    assert counted(provider.router.node) >= 4, "renewals come at half a lease's time"
    assert "was not renewed" not in problems(consumer)


def test_an_outage_in_which_no_lease_can_be_renewed(outage: Pair) -> None:
    """Nobody answers the consumer's wish, but handshakes go on: its place is kept."""
    consumer, _ = outage
    block(consumer.router.node, f"tcp dport {MESH_TCP}")
    watch_outage(outage)
    assert "the lease of p was not renewed" in problems(consumer)
    unblock(consumer.router.node)
    consumer.until(lambda: "was not renewed" not in problems(consumer), "a renewal", 60.0)
