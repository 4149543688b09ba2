"""The provider's side in a real kernel: two consumers, what they reach, at which rate, and no more.

In the network of tests.lab.consumers, with real tunnels, nft and tc.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from rpcd_wireguard_uplink.errors import CommandFailed, NotFound
from rpcd_wireguard_uplink.model import Family
from tests.lab.consumers import (
    ECHO,
    GATEWAY4,
    GATEWAY6,
    METADATA4,
    METADATA6,
    MODEM,
    OTHER4,
    World,
    build,
    probe,
    rate_mbps,
)
from tests.lab.lab import Lab
from tests.lab.meter import Flows, Meter, lost
from tests.lab.network import ECHO4, ECHO6, HOST4, HOST6
from tests.lab.reach import until

pytestmark = pytest.mark.needs("tc", "conntrack")

LIMIT_MBPS = 20
REFUSED = {"silence", "OSError", "ConnectionRefusedError", "PermissionError"}
"""Linux sends few ICMP errors a second, so a refusal may look like silence."""


@pytest.fixture(scope="module")
def shared(namespaces: None) -> Iterator[World]:
    with Lab() as lab:
        yield build(lab)


@pytest.fixture
def world(shared: World) -> World:
    """With the plan in force, whatever the test before has changed."""
    shared.apply()
    return shared


def test_consumers_reach_the_internet_behind_the_lines_addresses(world: World) -> None:
    wan = world.network.wan
    world.router.sh("nft delete table inet wan_nat")  # the network's own masquerading
    try:
        for each in (world.a, world.b):
            assert each.reaches(ECHO4, ECHO6) == [*wan.addresses]
    finally:
        chain = "type nat hook postrouting priority srcnat;\noifname wan masquerade"
        text = f"table inet wan_nat {{\nchain postrouting {{\n{chain}\n}}\n}}"
        world.router.nft(text)


def test_consumers_reach_nothing_else(world: World) -> None:
    """Each address answers while the table is away; `apply` puts it back."""
    wan, b = world.network.wan, world.b
    near = [
        *(HOST4, HOST6, "192.168.1.1", "fd00:1::1", wan.address4, wan.address6),
        *(b.address4, b.address6, METADATA4, METADATA6, MODEM, wan.gateway4, wan.gateway6),
        OTHER4,
    ]
    world.router.sh("nft delete table inet wgup_provider")
    open_to_all = world.a.reaches(*near)
    assert not REFUSED & set(open_to_all), open_to_all
    world.apply()
    for found, address in zip(world.a.reaches(*near), near, strict=True):
        assert found in REFUSED, address
    assert world.a.reaches(ECHO4, GATEWAY4, GATEWAY6) == [
        wan.address4,
        world.a.address4,
        world.a.address6,
    ]


def test_nobody_gets_in_to_a_consumer(world: World) -> None:
    """Neither the LAN's hosts nor somebody in the internet who finds a way to the address."""
    network = world.network
    network.wan.isp.sh(f"ip route replace 10.61.7.0/24 via {network.wan.address4}")
    network.internet.sh(
        "ip route replace 10.61.7.0/24 $(ip route show 198.51.100.0/24 | cut -c16-)"
    )

    def get_in() -> set[str]:
        outside = (network.host, network.internet)
        return {probe(node, ("tcp", world.b.address4, ECHO))[0] for node in outside}

    world.router.sh("nft delete table inet wgup_provider")
    assert not REFUSED & get_in()
    world.apply()
    assert get_in() <= REFUSED


def test_a_source_must_be_the_consumers_own(world: World) -> None:
    more = ("10.61.7.77/32", "fd61:7::77/128")
    spoofed = [("udp", ECHO4, ECHO, "10.61.7.77"), ("udp", ECHO6, ECHO, "fd61:7::77")]
    world.a.node.sh("".join(f"ip addr add {address} dev tunnel nodad\n" for address in more))
    try:
        assert world.a.probe(*spoofed) == ["silence", "silence"]
        a = world.a.lease
        world.apply(leases=(replace(a, addresses=(*a.addresses, *more)), world.b.lease))
        assert "silence" not in world.a.probe(*spoofed)
    finally:
        world.a.node.sh("".join(f"ip addr delete {address} dev tunnel\n" for address in more))


def test_look_ups_at_the_gateway_are_answered_upstream(world: World) -> None:
    """Never by the router's own server, which answers 192.0.2.66 and knows the LAN's names."""
    wan, a = world.network.wan, world.a

    def looked_up(gateway: str) -> str | None:
        with Meter(a.node, gateway, kind="dns", count=1, deadline_s=1.0) as meter:
            meter._child.wait(5.0)
            return meter.stop()[0].source

    assert [looked_up(GATEWAY4), looked_up(GATEWAY6)] == [*wan.addresses]
    world.apply(resolvers=(MODEM,))
    assert looked_up(GATEWAY4) == "192.168.8.2", "a modem's private address, for port 53 only"
    assert set(a.probe(("tcp", MODEM, ECHO), ("udp", MODEM, 53))) <= REFUSED
    refused = [a.probe(("udp", GATEWAY6, 53))[0] for _ in range(3)]
    assert "ConnectionRefusedError" in refused, "a family without a resolver is no wait"


@pytest.mark.parametrize("changes", [{"is_open": False}, {"wans": {}}])
def test_a_closed_provider_serves_renewals_only(world: World, changes: dict[str, Any]) -> None:
    with Flows(world.a.node) as flows:
        world.apply(**changes)
        closed = time.monotonic()
        time.sleep(1.0)
        for meter in flows:
            samples = meter.so_far(closed)
            assert lost(samples) == len(samples) > 10
        assert set(world.a.reaches(ECHO4, ECHO6)) <= REFUSED
        if "is_open" in changes:  # an offloaded connection would go on while it is tracked
            tracked = "".join(world.router.sh(f"conntrack -L -f ipv{n}") for n in (4, 6))
            assert f"src={world.a.address4} dst={ECHO4}" not in tracked
            assert f"src={world.a.address6} dst={ECHO6}" not in tracked
        renewal = [*world.a.addresses]
        assert world.a.reaches(GATEWAY4, GATEWAY6) == renewal
        world.apply()
        flows.answered(since=time.monotonic())


def test_peers_never_get_what_other_peers_give_us(world: World) -> None:
    """rules.md 10: not even where main's default route, or a mistaken plan, points at a tunnel."""
    world.router.sh(f"ip route replace default via {OTHER4} dev wgup_oth")
    try:
        world.apply(wans={Family.IPV4: ("wan", "wgup_oth"), Family.IPV6: ("wan",)})
        assert set(world.a.reaches(ECHO4)) <= REFUSED
        world.router.sh("nft delete table inet wgup_provider")
        assert world.a.reaches(ECHO4) == [world.a.address4]
    finally:
        world.network.wan.add_routes()


def test_the_same_plan_again_changes_nothing(world: World) -> None:
    world.apply(limit_mbps=LIMIT_MBPS)
    before = world.kernel()
    world.apply(limit_mbps=LIMIT_MBPS)
    assert world.kernel() == before
    reading = ("wg show", "nft list")
    lines = [" ".join(argv) for argv, _ in world.ran]
    assert [line for line in lines if not line.startswith(reading)] == []
    assert len(lines) <= 4
    world.do("restart")
    world.apply(limit_mbps=LIMIT_MBPS)
    assert sorted(world.kernel().splitlines()) == sorted(before.splitlines())


def test_others_lose_nothing_when_one_comes_or_goes(world: World) -> None:
    a, b = world.a.lease, world.b.lease
    world.apply(limit_mbps=LIMIT_MBPS, leases=(a,))
    with Flows(world.a.node) as flows:
        for _ in range(5):
            world.apply(limit_mbps=LIMIT_MBPS, leases=(a, b))
            time.sleep(0.1)
            world.apply(limit_mbps=LIMIT_MBPS, leases=(a,))
            time.sleep(0.1)
        assert lost(flows.ipv4.stop()) == lost(flows.ipv6.stop()) == 0
    assert world.b.reaches(ECHO4) == ["silence"]
    world.apply()
    world.b.dial()
    assert world.b.reaches(ECHO4) == [world.network.wan.address4]


MANY = """
import contextlib, socket, sys, time
for address in sys.argv[1:]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as opened:
        for port in range(10_000, 15_000):
            with contextlib.suppress(OSError):
                opened.sendto(b"x", (address, port))
            time.sleep(0.005 * (port % 50 == 0))  # the tunnel's queue holds some hundred packets
"""


def test_one_that_begins_flows_without_end_leaves_room_for_others(world: World) -> None:
    """Ten thousand of them: without a pace each is an entry of the table of connections."""
    counter = "cat /proc/sys/net/netfilter/nf_conntrack_count"

    def tracked() -> int:
        before = int(world.router.sh(counter))
        world.a.node.run([sys.executable, "-c", MANY, ECHO4, ECHO6])
        return int(world.router.sh(counter)) - before

    with Flows(world.a.node) as flows:
        assert tracked() < 3000
        flows.answered(since=time.monotonic())
    world.router.sh("nft flush chain inet wgup_provider pace")
    assert tracked() > 5000


@pytest.mark.parametrize("way", ["down", "up"])
def test_each_consumer_has_its_rate(world: World, way: str) -> None:
    world.apply(limit_mbps=LIMIT_MBPS)

    def rates() -> list[float]:
        with ThreadPoolExecutor(2) as both:
            pairs = ((world.a, ECHO4), (world.b, ECHO6))
            found = [both.submit(rate_mbps, world, each, server, way) for each, server in pairs]
            return [future.result() for future in found]

    # A busy machine may give less than the limit for a while.
    until(rates, lambda found: all(abs(rate / LIMIT_MBPS - 1) < 0.15 for rate in found))


def test_lines_are_never_shaped(world: World) -> None:
    before = world.router.sh("tc qdisc show dev wan")
    world.apply(limit_mbps=LIMIT_MBPS)
    assert world.router.sh("tc qdisc show dev wan") == before
    assert world.do("can_shape") == ""
    assert "wgup_try" not in world.router.sh("ip link")
    world.apply()
    assert "wgup_ifb" not in world.router.sh("ip link")
    assert "htb" not in world.router.sh("tc qdisc show dev wgup_srv")


@pytest.mark.parametrize("damage", ["ip link delete wgup_srv", "ip link delete wgup_ifb"])
def test_what_others_deleted_is_back(world: World, damage: str) -> None:
    world.apply(limit_mbps=LIMIT_MBPS)
    before = sorted(world.kernel().splitlines())
    world.router.sh(damage)
    world.apply(limit_mbps=LIMIT_MBPS)
    assert len(world.kernel().splitlines()) == len(before)
    world.a.dial()
    world.b.dial()
    assert world.a.reaches(ECHO4, ECHO6) == [world.network.wan.address4, world.network.wan.address6]


def test_a_foreign_device_is_left_alone(world: World) -> None:
    world.router.sh("ip link set wgup_srv alias mine")
    try:
        with pytest.raises(CommandFailed, match="not ours"):
            world.apply()
        world.do("remove")
        assert "wgup_srv" in world.router.sh("ip link")
    finally:
        world.router.sh("ip link set wgup_srv alias secubox_provider")


def test_a_consumer_whose_clock_went_back_is_let_in_again(world: World) -> None:
    """rules.md 13. WireGuard has seen tomorrow from it, and takes nothing older."""
    pytest.importorskip("nacl", reason="PyNaCl is not installed")
    world.apply(limit_mbps=LIMIT_MBPS)
    before, a = world.kernel(), world.a
    assert a.greets(time.time() + 86400)
    a.dial()
    assert a.reaches(ECHO4) == ["silence"]
    world.do("readmit", a.lease.public_key)
    assert world.kernel() == before
    a.dial()
    assert a.reaches(ECHO4, ECHO6) == [*world.network.wan.addresses]
    with pytest.raises(NotFound):
        world.do("readmit", world.b.server_key)


def test_counters(world: World) -> None:
    """By key, received from the consumer's side of the tunnel."""
    a = world.a.lease.public_key
    world.a.reaches(ECHO4)
    counters = world.do("read_peers")
    assert counters.keys() == {a, world.b.lease.public_key}
    assert counters[a].rx_bytes > 0
    assert counters[a].handshake_age_s < 120
    assert counters[a].endpoint.startswith("172.16.82.2:")


@pytest.mark.parametrize("restarted", [False, True])
def test_removing_leaves_nothing(world: World, restarted: bool) -> None:
    world.apply(limit_mbps=LIMIT_MBPS)
    if restarted:
        world.do("restart")
    world.do("remove")
    everything = "ip link; ip addr; ip route show table all; ip -6 route show table all; ip rule"
    left = world.router.sh(f"{everything}; nft list ruleset; tc qdisc show")
    for ours in ("wgup_srv", "wgup_ifb", "wgup_provider", "htb", "10.61.7.", "fd61:7:"):
        assert ours not in left
    deadline = time.monotonic() + 5.0
    while "wgup_srv" in world.router.sh("cat /proc/[0-9]*/cmdline | tr '\\0' ' '"):
        assert time.monotonic() < deadline, "wireguard-go is still there"
        time.sleep(0.05)
    assert world.do("read_peers") == {}
    world.do("remove")
    world.apply()
    world.a.dial()
    world.b.dial()
    assert world.a.reaches(ECHO4) == [world.network.wan.address4]
