"""From a tunnel only answers come in: what a provider that can be trusted with nothing else tries.

The provider routes the consumer's LAN, router and mesh addresses into the tunnel and knocks there,
over TCP, UDP and ICMP. What arrives behind the filter is counted at the host and at the router.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from tests.lab.consumers import probe
from tests.lab.lab import Lab, ready
from tests.lab.meter import Meter, lost, settled
from tests.lab.network import (
    ECHO4,
    ECHO6,
    ECHO_PORT,
    HOST4,
    HOST6,
    ConsumerNetwork,
    consumer_network,
    masquerade,
)
from tests.lab.node import Node, join
from tests.lab.provider import DEVICE, Provider, make_provider
from tests.lab.router import Router, settings

ROUTER4, ROUTER6 = "192.168.1.1", "fd00:1::1"
MESH4, MESH6 = "10.9.0.1", "fd09::1"
KNOCKED = (HOST4, ROUTER4, MESH4, HOST6, ROUTER6, MESH6)

COUNT = """\
table inet seen {
	counter arrived {}
	chain in {
		type filter hook input priority 50; policy accept;
		iifname "DEVICE" meta mark & 0xff != 0x52 ct direction original counter name arrived
	}
}
"""


@dataclass(frozen=True)
class Inbound:
    """The consumer with its service, and the provider that routes everything at it."""

    router: Router
    network: ConsumerNetwork
    provider: Provider

    def knock(self) -> dict[str, str]:
        """What the provider's connections come to, by address."""
        node = self.provider.node
        ping = node.popen(["ping", "-c", "1", "-W", "1", HOST4])
        connections = [("connect", host, ECHO_PORT) for host in KNOCKED]
        found = probe(node, *connections, *(("udp", host, 9999) for host in KNOCKED))
        ping.wait()
        return dict(zip(KNOCKED, found[: len(KNOCKED)], strict=True))

    def arrived(self) -> int:
        """Packets that began something, seen behind the filter, at the router and at its host."""
        return sum(_counted(node) for node in (self.network.consumer, self.network.host))

    def route_back(self) -> None:
        """Have the owner reach the provider by the tunnel, so that answers would go back."""
        self.network.consumer.sh(
            f"ip route add {self.provider.tunnel4} dev wgup_nodea\n"
            f"ip route add {self.provider.tunnel6} dev wgup_nodea"
        )

    def write(self, uplinks: str) -> None:
        """Replace the uplinks' sections, as an owner does."""
        self.router.uplinks = uplinks
        self.router.configure(settings())


def _counted(node: Node) -> int:
    listed = node.run(["nft", "-j", "list", "counter", "inet", "seen", "arrived"]).stdout
    rows = json.loads(listed)["nftables"]
    return int(next(row["counter"]["packets"] for row in rows if "counter" in row))


@pytest.fixture(scope="module")
def inbound(namespaces: None) -> Iterator[Inbound]:
    """One consumer, its uplink, and all that a provider can do to reach into it."""
    with Lab() as lab:
        network = consumer_network(lab)
        consumer, host = network.consumer, network.host
        join(consumer, "mesh9", lab.node("mate"), "eth0")
        consumer.sh(f"ip addr add {MESH4}/32 dev mesh9\nip addr add {MESH6}/128 dev mesh9 nodad")
        provider = make_provider(lab, network.providers[0])
        router = Router.build(network, [provider], settings())
        for node, device, echo in (
            (host, "eth0", (HOST4, HOST6)),
            (consumer, "wgup_nodea", (ROUTER4, MESH4, ROUTER6, MESH6)),
        ):
            node.nft(COUNT.replace("DEVICE", device))
            ready(lab.serve(node, echo=echo))
        (key, places), prefixes = next(iter(provider.admitted.items())), []
        prefixes = [f"{address}/{128 if ':' in address else 32}" for address in KNOCKED]
        allowed = ",".join([*(f"{p}/{128 if ':' in p else 32}" for p in places), *prefixes])
        provider.node.run(["wg", "set", DEVICE, "peer", key, "allowed-ips", allowed])
        provider.node.sh("\n".join(f"ip route replace {p} dev {DEVICE}" for p in prefixes))
        router.start()
        made = Inbound(router, network, provider)
        made.route_back()
        yield made
        router.service.stop()


def test_a_provider_begins_no_connection_at_home_nor_in_an_outage(inbound: Inbound) -> None:
    router, network = inbound.router, inbound.network
    with ExitStack() as stack:
        meters = [stack.enter_context(Meter(network.host, each)) for each in (ECHO4, ECHO6)]
        settled(*meters)
        before = inbound.arrived()
        assert set(inbound.knock().values()) == {"silence"}
        died = network.wan.drop()
        router.wait_failed_over()
        settled(*meters)
        assert set(inbound.knock().values()) == {"silence"}
        assert inbound.arrived() == before
        provider_wan = network.provider_wans[0]
        for meter, source in zip(meters, provider_wan.addresses, strict=True):
            meter.wait_for_source(source, since=died)  # what the host asks for comes back
        for echo in (ECHO4, ECHO6):  # and an ICMP error about it
            assert probe(network.host, ("udp", echo, 9)) == ["ConnectionRefusedError"]
        network.wan.restore()
        router.wait_primary()
    assert router.status()["problems"] == []
    assert all(lost(meter.samples()) < 300 for meter in meters)


def test_the_filter_stands_for_a_peer_that_is_not_trusted_and_comes_back(inbound: Inbound) -> None:
    router, consumer = inbound.router, inbound.network.consumer
    before = inbound.arrived()
    consumer.run(["nft", "delete", "table", "inet", "wgup_inbound"])
    router.configure(settings(peers=()))
    router.wait(lambda s: not any(u["usable"] for u in s["uplinks"]))
    assert set(inbound.knock().values()) == {"silence"}
    assert inbound.arrived() == before
    router.configure(settings())
    router.wait_primary()


def test_a_filter_that_somebody_deletes_is_back_at_once(inbound: Inbound) -> None:
    consumer = inbound.network.consumer
    for command in ("nft delete table inet wgup_inbound", "nft flush ruleset"):
        consumer.sh(command)
        deadline = time.monotonic() + 2.0
        while "wgup_inbound" not in consumer.run(["nft", "list", "tables"]).stdout:
            assert time.monotonic() < deadline, command
            time.sleep(0.05)
        assert set(inbound.knock().values()) == {"silence"}
    consumer.nft(COUNT.replace("DEVICE", "wgup_nodea"))
    masquerade(consumer, ["wan"])


def test_the_owner_opens_a_tunnel_and_shuts_it(inbound: Inbound) -> None:
    router, closed = inbound.router, inbound.router.uplinks
    inbound.write(closed + "\toption inbound '1'\n")
    router.wait(lambda s: set(inbound.knock().values()) == {"connected"})
    inbound.write(closed)
    router.wait(lambda s: set(inbound.knock().values()) == {"silence"})
    router.wait_primary()


def test_nothing_stays_without_tunnels(inbound: Inbound) -> None:
    router, consumer, uplinks = inbound.router, inbound.network.consumer, inbound.router.uplinks
    inbound.write("")
    router.wait(lambda s: s["uplinks"] == [])
    router.wait(lambda s: "wgup_inbound" not in consumer.run(["nft", "list", "tables"]).stdout)
    inbound.write(uplinks)
    router.wait(lambda s: bool(s["uplinks"]))
    router.wait_primary()
    inbound.route_back()
