"""What a failover must leave alone: other tables, other lines, the LAN, tracked connections.

One router with everything that owners have: a second WAN that is none of ours, policy routing to
it, a port forward on it, a Tailscale-like table, two LANs. Its WAN dies once while all of it is in
use; each test looks at one part of what was measured.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.lab.lab import Lab, ready
from tests.lab.meter import Meter, Sample, longest, lost, settled, sources
from tests.lab.network import ECHO4, ECHO6, HOST4, HOST6, ConsumerNetwork, consumer_network
from tests.lab.node import Node, join
from tests.lab.provider import make_provider
from tests.lab.router import Router, settings

pytestmark = pytest.mark.needs("conntrack")

BY_POLICY = "1.1.1.1"
TAILNET = "100.64.7.7"
GUEST4, GUEST6 = "192.168.2.100", "fd00:2::100"

OWNERS_RULES = f"""
table inet owner {{
	chain pre {{
		type filter hook prerouting priority mangle; policy accept;
		iifname "wan2" ct state new ct mark set 0x20000
		iifname "lan" ct mark 0x20000 meta mark set ct mark
		iifname "lan" ip daddr {BY_POLICY} meta mark set 0x20000
	}}
	chain own {{
		type route hook output priority mangle; policy accept;
		ip daddr {BY_POLICY} meta mark set 0x20000
	}}
	chain forwards {{
		type nat hook prerouting priority dstnat; policy accept;
		iifname "wan2" tcp dport 7 dnat ip to {HOST4}
	}}
}}
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """What was seen of each flow around the WAN's death, and of tracked connections."""

    samples: dict[str, list[Sample]]
    expected: dict[str, str]
    died: float
    tracked_before: dict[str, str]
    tracked_after: dict[str, str]


def prepare(network: ConsumerNetwork) -> None:
    """Give the router what its owner has set up, by the owner's own commands."""
    lab, consumer, wan2 = network.lab, network.consumer, network.wan2
    assert wan2 is not None
    guest, tailnet = lab.node("guest"), lab.node("tailnet")
    join(consumer, "lan2", guest, "eth0")
    join(consumer, "ts0", tailnet, "eth0")
    consumer.sh(
        "ip addr add 192.168.2.1/24 dev lan2\nip addr add fd00:2::1/64 dev lan2 nodad\n"
        "ip addr add 100.64.0.1/32 dev ts0\n"
        "ip route add 100.64.0.0/10 dev ts0 table 52\n"
        "ip rule add pref 5210 fwmark 0x80000/0xff0000 lookup main\n"
        "ip rule add pref 5270 lookup 52\n"
        f"ip route add default via {wan2.gateway4} dev wan2 table 257\n"
        "ip rule add pref 29000 fwmark 0x20000/0xff0000 lookup 257"
    )
    consumer.nft(OWNERS_RULES)
    guest.sh(
        f"ip addr add {GUEST4}/24 dev eth0\nip addr add {GUEST6}/64 dev eth0 nodad\n"
        "ip route add default via 192.168.2.1\nip route add default via fd00:2::1"
    )
    tailnet.sh(
        f"ip addr add {TAILNET}/32 dev eth0\nip route add default via 100.64.0.1 dev eth0 onlink"
    )
    servers = [
        lab.serve(guest, echo=(GUEST4, GUEST6)),
        lab.serve(tailnet, echo=(TAILNET,)),
        lab.serve(network.host, echo=(HOST4,)),
        lab.serve(consumer, echo=("192.168.1.1",)),
    ]
    for server in servers:
        ready(server)


def tracked(node: Node) -> dict[str, str]:
    """The tracked IPv4 connections: what each is about -> the kernel's id of it.

    Without ICMP: the service's own probes go on over the dead line, and the kernel may give a new
    entry the memory, and so the id, of the one that was deleted.
    """
    listed = node.run(["conntrack", "-L", "-f", "ipv4", "-o", "id"]).stdout
    found = {}
    for line in listed.splitlines():
        if line.startswith("icmp"):
            continue
        fields = dict(re.findall(r"(src|dst|sport|dport|id)=(\S+)", line)[:4])
        reply = re.findall(r"dst=(\S+)", line)[1]
        key = f"{fields['src']}>{fields['dst']}:{fields.get('dport', '')} as {reply}"
        found[key] = re.findall(r"id=(\d+)$", line.strip())[0]
    return found


@pytest.fixture(scope="module")
def measured(namespaces: None) -> Iterator[Measured]:
    """One death of the WAN with all flows running."""
    with Lab() as lab, contextlib.ExitStack() as stack:
        network = consumer_network(lab, second_wan=True)
        prepare(network)
        wan2 = network.wan2
        assert wan2 is not None
        provider = make_provider(lab, network.providers[0])
        router = Router.build(network, [provider], settings(wan="wan"))
        router.start()
        host, consumer = network.host, network.consumer
        flows = {
            "Tailscale": (Meter(host, TAILNET, rate_hz=20), HOST4),
            "policy routing": (Meter(host, BY_POLICY, rate_hz=20), wan2.address4),
            "own policy routing": (Meter(consumer, BY_POLICY, rate_hz=20), wan2.address4),
            "second WAN": (Meter(consumer, ECHO4, device="wan2", rate_hz=20), wan2.address4),
            "port forward": (
                Meter(network.internet, wan2.address4, kind="tcp", rate_hz=20),
                "192.0.2.9",
            ),
            "LAN to LAN": (Meter(host, GUEST4, rate_hz=20), HOST4),
            "LAN to LAN, IPv6": (Meter(host, GUEST6, kind="tcp", rate_hz=20), HOST6),
            "SSH to the router": (Meter(host, "192.168.1.1", kind="tcp", rate_hz=20), HOST4),
        }
        lost_flows = [Meter(host, ECHO4, rate_hz=50), Meter(host, ECHO6, rate_hz=50)]
        for meter in (*lost_flows, *(meter for meter, _ in flows.values())):
            stack.enter_context(meter)
        settled(*lost_flows, *(meter for meter, _ in flows.values()))
        time.sleep(0.5)
        before = tracked(consumer)
        died = network.wan.drop()
        router.wait_failed_over()
        for meter, source in zip(lost_flows, network.provider_wans[0].addresses, strict=True):
            meter.wait_for_source(source, since=died)
        time.sleep(1.0)
        after = tracked(consumer)
        samples = {name: meter.stop() for name, (meter, _) in flows.items()}
        expected = {name: source for name, (_, source) in flows.items()}
        yield Measured(samples, expected, died, before, after)


@pytest.mark.parametrize(
    "flow",
    [
        "Tailscale",
        "policy routing",
        "own policy routing",
        "second WAN",
        "port forward",
        "LAN to LAN",
        "LAN to LAN, IPv6",
        "SSH to the router",
    ],
)
def test_untouched_by_a_failover(measured: Measured, flow: str) -> None:
    samples = measured.samples[flow]
    late = [sample for sample in samples if sample.sent > measured.died]
    assert len(samples) - len(late) > 5 and len(late) > 20, "it ran before and after"
    assert sources(samples) == [measured.expected[flow]]
    assert lost(late) <= 2 and longest(late).seconds < 0.3


def test_only_connections_of_the_dead_wan_are_forgotten(measured: Measured) -> None:
    before, after = measured.tracked_before, measured.tracked_after
    dead = {key for key in before if key.endswith(" as 198.51.100.2")}
    assert any(key.startswith(f"{HOST4}>{ECHO4}:7") for key in dead), "the masqueraded flow"
    assert not [key for key in dead if after.get(key) == before[key]]
    assert any(key.startswith(f"{HOST4}>{ECHO4}:7 as 10.77.0.9") for key in after)
    kept = {
        "LAN to LAN": f"{HOST4}>{GUEST4}:7 as {HOST4}",
        "the second WAN": f"{HOST4}>{BY_POLICY}:7 as 203.0.113.10",
        "the tunnel's own packets": "172.16.70.1>172.16.70.2:51820 as 172.16.70.1",
    }
    for what, key in kept.items():
        assert key in before, f"{what} is not in {sorted(before)}"
        assert after.get(key) == before[key], f"{what} was deleted"
