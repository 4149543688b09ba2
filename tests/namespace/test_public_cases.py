"""Situations from public reports, each with the networks that people have and with real packets.

The number in a test's name is the report's; the tests that follow it under its number are its
relatives. What fails today is marked so with the reason; who mends it takes the mark away.
"""

from __future__ import annotations

import contextlib
import glob
import itertools
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import ClassVar

import pytest

from rpcd_wireguard_uplink.model import DEVICE_GROUP
from tests.lab import delegation, firewall
from tests.lab.altered_service import TurnedService
from tests.lab.consumers import probe
from tests.lab.delegation import Prefix, delegate
from tests.lab.dhcp import DhcpWan
from tests.lab.firewall import NO_PINGS, narrow
from tests.lab.guest import SUBNET4, SUBNET6, TABLE, Guest, guest_network
from tests.lab.lab import Lab, ready
from tests.lab.mesh import mesh_network
from tests.lab.meter import Meter, longest, sources
from tests.lab.network import ECHO4, ECHO6, HOST4, ConsumerNetwork, consumer_network, third_wan
from tests.lab.node import Child, Node, join
from tests.lab.peers import Peer, Row, lease_uplink, trust_each_other
from tests.lab.pool import RouterPool, added
from tests.lab.pppoe import Session, pppoe_network
from tests.lab.provider import make_device, make_provider, make_providers, new_keys
from tests.lab.reach import Typing, answered, asking, loads, reached, spread, until
from tests.lab.router import Router, settings, states
from tests.lab.service import Service
from tests.lab.troubles import MESH_TCP, count, counted
from tests.lab.vpn import SERVER4, SERVER6, Vpn, vpn_server
from tests.lab.wan import Wan, balance, balance_by_objects, slow_down
from tests.namespace.conftest import lent

pytestmark = pytest.mark.needs("conntrack")


def fails(row: int, why: str, *, always: bool = True) -> pytest.MarkDecorator:
    """The mark of a test whose row is still to be mended."""
    return pytest.mark.xfail(strict=always, reason=f"row {row}: {why}")


# What the tests begin with.


NO_PREFIX = Prefix("", "", "")


@dataclass(frozen=True)
class Odd:
    """A scene, and what is odd about its network."""

    router: Router
    lan: Prefix

    @property
    def network(self) -> ConsumerNetwork:
        return self.router.network

    @property
    def node(self) -> Node:
        return self.router.network.consumer

    @property
    def host(self) -> Node:
        return self.router.network.host

    @property
    def wan(self) -> Wan:
        return self.router.network.wan

    @property
    def wan2(self) -> Wan:
        found = self.router.network.wan2
        assert found is not None
        return found

    @property
    def at_home(self) -> dict[str, str]:
        """How the echo servers see a LAN host while the WAN works."""
        return {ECHO4: self.wan.address4, ECHO6: self.lan.host or self.wan.address6}

    @property
    def by_uplink(self) -> dict[str, str]:
        """And how they see it, or the router, when it comes by the uplink."""
        provider_wan = self.network.provider_wans[0]
        return {ECHO4: provider_wan.address4, ECHO6: provider_wan.address6}

    def usable(self) -> bool:
        """Whether every uplink could take over."""
        return all(
            row["usable"] and row["state"] == "up" for row in self.router.status()["uplinks"]
        )


def ways(wan: Wan) -> dict[str, str]:
    """How the echo servers see what is masqueraded by this WAN."""
    return {ECHO4: wan.address4, ECHO6: wan.address6}


def begin(network: ConsumerNetwork, **options: object) -> Router:
    """The service with one uplink, traffic on the WAN; it goes back as soon as that answers."""
    router = Router.build(network, make_providers(network), settings(hold_time=0, **options))
    router.start()
    return router


def plain(lab: Lab) -> Odd:
    """One WAN with a native prefix on the LAN."""
    network = consumer_network(lab, wan_metric=10)
    delegation.masquerade_ipv4_only(network.consumer, "wan")
    lan = delegate(network.wan, network.host)
    delegation.check_sources(network.wan, lan)
    return Odd(begin(network), lan)


odd = lent(plain)


def die(odd: Odd, *, upstream: bool = False) -> None:
    """Have the WAN fall silent; returns when all traffic is said to use the uplink.

    With `upstream` the ISP's own addresses go on answering.
    """
    odd.wan.drop(gateway_answers=upstream)
    odd.router.wait_failed_over()


def pings(node: Node, address: str) -> bool:
    """Whether a ping is answered."""
    return node.run(["ping", "-c", "1", "-W", "1", address], check=False).returncode == 0


# Row 1: routes by the dead WAN that are longer than its default.


def routes_by(wan: Wan, *prefixes: str) -> list[str]:
    """The commands that add routes by this WAN's gateways."""
    return [
        f"ip -6 route add {prefix} via {wan.gateway6} dev {wan.device}"
        if ":" in prefix
        else f"ip route add {prefix} via {wan.gateway4} dev {wan.device}"
        for prefix in prefixes
    ]


@pytest.mark.parametrize(
    "prefixes",
    [
        pytest.param((f"{ECHO4}/32", f"{ECHO6}/128"), id="host"),
        pytest.param(("192.0.2.128/25", "2001:db8:ffff::/48"), id="prefix"),
        pytest.param(("0.0.0.0/1", "128.0.0.0/1", "2000::/3"), id="half-default"),
    ],
)
def test_case_01_longer_routes_by_the_dead_wan(odd: Odd, prefixes: tuple[str, ...]) -> None:
    with added(odd.node, *routes_by(odd.wan, *prefixes)):
        reached(odd.host, odd.at_home)
        reached(odd.node, ways(odd.wan))
        die(odd)
        reached(odd.host, odd.by_uplink)
        reached(odd.node, odd.by_uplink)


def test_case_01_link_local_gateway(odd: Odd) -> None:
    """As router advertisements give it, for the default and for a host route."""
    wan, node = odd.wan, odd.node
    shown = wan.isp.sh(f"ip -o -6 addr show dev {wan.isp_device} scope link").split()
    gateway = shown[shown.index("inet6") + 1].partition("/")[0]
    by_gateway = f"via {gateway} dev wan proto ra"
    with added(
        node,
        f"ip -6 route add default {by_gateway} metric 512",
        f"ip -6 route add {ECHO6}/128 {by_gateway} metric 512",
    ):
        reached(odd.host, odd.at_home)
        die(odd)
        reached(odd.host, odd.by_uplink)
        odd.wan.restore()
        odd.router.wait_primary()
        reached(odd.host, odd.at_home)


def test_case_01_host_route_by_a_nexthop_object(odd: Odd) -> None:
    wan = odd.wan
    with added(
        odd.node,
        f"ip nexthop add id 31 via {wan.gateway4} dev wan",
        f"ip -6 nexthop add id 32 via {wan.gateway6} dev wan",
        f"ip route add {ECHO4}/32 nhid 31",
        f"ip -6 route add {ECHO6}/128 nhid 32",
    ):
        reached(odd.host, odd.at_home)
        die(odd)
        reached(odd.host, odd.by_uplink)


def test_case_01_route_by_a_live_link_comes_and_goes_in_the_outage(odd: Odd) -> None:
    """The owner's route by the neighbour link is used as soon as it is there, and no longer."""
    link, provider = odd.network.neighbours[0], odd.network.providers[0]
    odd.node.sh("nft add rule inet wan_nat postrouting oifname mesh0 masquerade")
    die(odd)
    reached(odd.host, odd.by_uplink)
    rules = (f"iifname mesh ip daddr {ECHO4}", f"iifname mesh ip6 daddr {ECHO6}")
    with added(
        odd.node,
        f"ip route add {ECHO4}/32 via {link.provider4} dev mesh0",
        f"ip -6 route add {ECHO6}/128 via {link.provider6} dev mesh0",
    ):
        time.sleep(0.5)
        for address, rule in zip((ECHO4, ECHO6), rules, strict=True):
            count(provider, "prerouting", rule)
            reached(odd.host, {address: odd.by_uplink[address]})
            assert counted(provider) > 0, "the tunnel is not what carried it"
    time.sleep(0.5)
    count(provider, "prerouting", *rules)
    reached(odd.host, odd.by_uplink)
    assert counted(provider) == 0


def test_case_01_pings_and_pages_by_the_uplink(odd: Odd) -> None:
    die(odd)
    for address in (ECHO4, ECHO6):
        reached(odd.host, {address: odd.by_uplink[address]})
        odd.host.run(["ping", "-c", "1", "-W", "3", address])
        assert loads(odd.host, address)


OWNERS_DEAD_ENDS = {
    "blackhole": (f"ip route add blackhole {ECHO4}/32", f"ip -6 route add blackhole {ECHO6}/128"),
    "prohibit": (f"ip route add prohibit {ECHO4}/32", f"ip -6 route add prohibit {ECHO6}/128"),
}


@pytest.mark.parametrize("kind", list(OWNERS_DEAD_ENDS))
def test_case_01_dead_ends_of_the_owner_hold(odd: Odd, kind: str) -> None:
    """What he has barred stays barred when traffic uses the uplink, router's own included."""
    with added(odd.node, *OWNERS_DEAD_ENDS[kind]):
        assert answered(odd.host, ECHO4, ECHO6, seconds=0.5) == set()
        die(odd)
        reached(odd.host, {"1.1.1.1": odd.by_uplink[ECHO4]}, kind="dns")
        for node in (odd.host, odd.node):
            assert answered(node, ECHO4, ECHO6, seconds=1.0) == set()


def test_case_01_private_destinations_are_not_sent_to_a_peer(odd: Odd) -> None:
    """Without a route of their own they went to the WAN, where nobody has them; a peer might."""
    provider = odd.network.providers[0]
    private = ("10.50.0.1", "172.20.0.1", "192.168.77.1", "fd50::1")
    own = "meta l4proto tcp iifname wgup_srv"
    count(provider, "prerouting", *(f"{own} ip daddr {a}" for a in private[:3]))
    die(odd)
    reached(odd.host, odd.by_uplink)
    assert answered(odd.host, *private, seconds=1.0) == set()
    assert counted(provider) == 0


def test_case_01_host_route_that_comes_in_the_outage(odd: Odd) -> None:
    die(odd)
    with added(odd.node, *routes_by(odd.wan, f"{ECHO4}/32", f"{ECHO6}/128")):
        time.sleep(0.2)
        reached(odd.host, odd.by_uplink)


def test_case_01_second_default_by_the_dead_wan(odd: Odd) -> None:
    wan = odd.wan
    with added(
        odd.node,
        f"ip route add default via {wan.gateway4} dev wan metric 500",
        f"ip -6 route add default via {wan.gateway6} dev wan metric 2000",
    ):
        die(odd)
        reached(odd.host, odd.by_uplink)


def test_case_01_another_router_on_the_wans_segment_is_untouched(odd: Odd) -> None:
    """A static route by it, and the modem's own page: both live while the internet is dead."""
    wan, isp = odd.wan, odd.wan.isp
    far4, far6 = "10.99.0.1", "2001:db8:99::1"
    other4, other6 = wan.gateway4.rpartition(".")[0] + ".3", wan.gateway6[:-1] + "3"
    isp.sh(
        f"ip addr replace {other4}/29 dev {wan.isp_device}\n"
        f"ip addr replace {other6}/64 dev {wan.isp_device} nodad\n"
        f"ip addr replace {far4}/32 dev lo\nip addr replace {far6}/128 dev lo"
    )
    ready(odd.network.lab.serve(isp, echo=(far4, far6, wan.gateway4, wan.gateway6)))
    seen = {far4: wan.address4, far6: odd.lan.host}
    seen |= {wan.gateway4: wan.address4, wan.gateway6: odd.lan.host}
    with added(
        odd.node,
        f"ip route add 10.99.0.0/24 via {other4} dev wan",
        f"ip -6 route add 2001:db8:99::/64 via {other6} dev wan",
    ):
        reached(odd.host, seen)
        die(odd, upstream=True)
        reached(odd.host, odd.by_uplink)
        reached(odd.host, seen)


# Row 2: native IPv6.


@pytest.mark.parametrize("fault", ["silent", "carrier"])
def test_case_02_running_flows_of_native_ipv6(odd: Odd, pool: RouterPool, fault: str) -> None:
    host, wan = odd.host, odd.wan
    with (
        asking(host, ECHO4, ECHO6, kind="udp") as udp,
        Typing(host, ECHO4) as tcp4,
        Typing(host, ECHO6) as tcp6,
    ):
        for address, meter in udp.items():
            meter.wait_for_source(odd.at_home[address])
        assert tcp6.source == odd.lan.host
        if fault == "silent":
            wan.drop()
        else:
            wan.carrier_down()
            wan.remove_routes()
        odd.router.wait_failed_over()
        moved = time.monotonic()
        for address, meter in udp.items():
            meter.wait_for_source(odd.by_uplink[address], since=moved, timeout_s=3.0)
        for stream in (tcp4, tcp6):
            assert stream.ended(5.0) == "ConnectionResetError"
    if fault == "carrier":
        wan.carrier_up()
        wan.add_routes()
        pool.spoil()  # the ISP's route to the prefix went with its carrier


def test_case_02_running_flows_come_back_with_the_wan(odd: Odd) -> None:
    with asking(odd.host, ECHO4, ECHO6, kind="udp") as udp:
        for address, meter in udp.items():
            meter.wait_for_source(odd.at_home[address])
        die(odd)
        for address, meter in udp.items():
            meter.wait_for_source(odd.by_uplink[address], timeout_s=3.0)
        odd.wan.restore()
        odd.router.wait_primary()
        back = time.monotonic()
        for address, meter in udp.items():
            meter.wait_for_source(odd.at_home[address], since=back, timeout_s=3.0)


# Row 3: two WANs with a prefix each, whose ISPs drop foreign sources.


@dataclass(frozen=True)
class Two(Odd):
    """`lan` is the prefix of the first WAN, `lan2` that of the second."""

    lan2: Prefix


def two_prefixes(lab: Lab) -> Two:
    network = consumer_network(lab, second_wan=True, wan_metric=10)
    wan, wan2 = network.wan, network.wan2
    assert wan2 is not None
    delegation.masquerade_ipv4_only(network.consumer, "wan, wan2")
    lan, lan2 = delegate(wan, network.host), delegate(wan2, network.host)
    delegation.check_sources(wan, lan)
    delegation.check_sources(wan2, lan2)
    return Two(begin(network), lan, lan2)


two = lent(two_prefixes)


@contextlib.contextmanager
def routed_by_source(two: Two) -> Iterator[None]:
    """The IPv6 default routes as netifd makes them: each for its own WAN's addresses."""
    lines = ((two.wan, two.lan), (two.wan2, two.lan2))
    for line, prefix in lines:
        delegation.route_by_source(line, prefix)
    yield
    for line, prefix in lines:
        delegation.route_by_destination(line, prefix)


@pytest.mark.parametrize("routes", ["by destination", "by source"])
def test_case_03_hosts_with_the_dead_wans_prefix(two: Two, routes: str) -> None:
    host = two.host
    elsewhere = [two.by_uplink[ECHO6], two.wan2.address6, two.lan2.host]
    with routed_by_source(two) if routes == "by source" else contextlib.nullcontext():
        reached(host, {ECHO6: two.lan.host}, source=two.lan.host)
        if routes == "by source":
            reached(host, {ECHO6: two.lan2.host}, source=two.lan2.host)
        two.wan.drop()
        two.router.wait(lambda s: states(s) == {"failed_over"})
        reached(host, {ECHO4: two.wan2.address4})
        reached(host, {ECHO6: two.lan2.host}, source=two.lan2.host)
        reached(host, {ECHO6: elsewhere}, source=two.lan.host)


def test_case_03_hosts_with_the_other_wans_prefix_when_that_dies(two: Two) -> None:
    host = two.host
    elsewhere = [two.by_uplink[ECHO6], two.wan.address6]
    with routed_by_source(two):
        reached(host, {ECHO6: two.lan2.host}, source=two.lan2.host)
        two.wan2.drop()
        reached(host, {ECHO6: elsewhere}, source=two.lan2.host)
        reached(host, {ECHO6: two.lan.host}, source=two.lan.host)
        reached(host, {ECHO4: two.wan.address4})


# Row 4: networks that the owner leads elsewhere, and what comes in by the WAN.


@dataclass(frozen=True)
class Guests(Odd):
    """The second WAN is for the guests only: no default route in the main table."""

    guest: Guest


def guests_line(lab: Lab) -> Guests:
    network = consumer_network(lab, second_wan=True, wan_metric=10)
    wan2 = network.wan2
    assert wan2 is not None
    wan2.remove_routes()
    network.consumer.sh(
        f"ip route add default via {wan2.gateway4} dev wan2 table {TABLE}\n"
        f"ip -6 route add default via {wan2.gateway6} dev wan2 table {TABLE}"
    )
    delegation.masquerade_ipv4_only(network.consumer, "wan, wan2")
    network.consumer.run(
        ["nft", "add rule inet wan_nat postrouting oifname wan2 meta nfproto ipv6 masquerade"]
    )
    lan = delegate(network.wan, network.host)
    guest = guest_network(network)
    return Guests(begin(network, wan="wan"), lan, guest)


guests = lent(guests_line)


OWNERS_MARK = """
table inet owners_mark {
	chain pre {
		type filter hook prerouting priority mangle; policy accept;
		iifname "guest" meta mark set 0x10
	}
}
"""
SELECTORS = {
    "iif": "iif guest",
    "from": "from {subnet}",
    "fwmark": "fwmark 0x10",
    "dport": "iif guest ipproto tcp dport 7",
    "tos": "iif guest tos 0x10",
    "to": "iif guest to {target}",
}


def guests_rules(guests: Guests, selector: str) -> list[str]:
    """The rules that lead the guests to the second WAN by this selector, in both families."""
    text = SELECTORS[selector]
    four = text.format(subnet=SUBNET4, target="192.0.2.0/24")
    six = text.format(subnet=SUBNET6, target="2001:db8:ffff::/48")
    return [guests.guest.rule(four)[0], guests.guest.rule(six)[1]]


@pytest.mark.parametrize("selector", ["from", "fwmark", "iif", "dport", "tos", "to"])
def test_case_04_guests_of_an_owners_rule_stay_where_they_are(
    guests: Guests, selector: str
) -> None:
    expected, tos = ways(guests.wan2), 0x10 * (selector == "tos")
    if selector == "fwmark":
        guests.node.nft(OWNERS_MARK)
    with added(guests.node, *guests_rules(guests, selector)), ExitStack() as stack:
        meters = {
            address: stack.enter_context(
                Meter(guests.guest.node, address, kind="tcp", rate_hz=20, tos=tos)
            )
            for address in expected
        }
        for address, meter in meters.items():
            meter.wait_for_source(expected[address])
        begun = time.monotonic()
        die(guests)
        reached(guests.host, guests.by_uplink)
        for address, meter in meters.items():
            samples = meter.samples(begun)
            assert len(samples) > 5
            assert sources(samples) == [expected[address]]
            assert longest(samples).seconds < 0.5


@contextlib.contextmanager
def local_behind_vrfs(node: Node) -> Iterator[None]:
    """Have rules as the kernel's page on VRFs has them: first the VRFs' own, then `local`.

    This kernel has the rule and no VRF device.
    """
    node.sh(LOCAL_BEHIND)
    try:
        yield
    finally:
        node.sh(LOCAL_FIRST)


LOCAL_BEHIND = "\n".join(
    f"ip {f} rule add pref 1000 l3mdev\nip {f} rule add pref 32765 lookup local\n"
    f"ip {f} rule del pref 0"
    for f in ("-4", "-6")
)
LOCAL_FIRST = "\n".join(
    f"ip {f} rule add pref 0 lookup local\nip {f} rule del pref 32765 lookup local\n"
    f"ip {f} rule del pref 1000"
    for f in ("-4", "-6")
)


@pytest.mark.parametrize("when", ["in calm", "in the outage"])
def test_case_04_local_addresses_behind_the_rule_of_vrfs(odd: Odd, when: str) -> None:
    with ExitStack() as stack:
        if when == "in calm":
            stack.enter_context(local_behind_vrfs(odd.node))
        die(odd)
        if when == "in the outage":
            stack.enter_context(local_behind_vrfs(odd.node))
        for address in ("192.168.1.1", "fd00:1::1"):
            until(lambda: pings(odd.host, address), bool, 2.0)  # noqa: B023
        reached(odd.host, odd.by_uplink)


DOCKER = """
table ip docker_filter {
	chain forward {
		type filter hook forward priority filter; policy drop;
		jump user
		oifname "docker0" ct state established,related accept
		iifname "docker0" accept
		iifname "lan" accept
		oifname "lan" ct state established,related accept
	}
	chain user { return; }
}
table ip docker_nat {
	chain post {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr 172.17.0.0/16 oifname != "docker0" masquerade
	}
}
"""
CONTAINER = "172.17.0.2"


def test_case_12_containers_of_docker(odd: Odd) -> None:
    """Its firewall lets containers go anywhere; to one another and to the LAN they go as before."""
    network = odd.network
    container = network.lab.node("container")
    join(odd.node, "docker0", container, "eth0")
    odd.node.sh("ip addr add 172.17.0.1/16 dev docker0")
    container.sh(f"ip addr add {CONTAINER}/16 dev eth0\nip route add default via 172.17.0.1")
    odd.node.nft(DOCKER)
    try:
        reached(container, {ECHO4: odd.wan.address4})
        die(odd)
        reached(container, {ECHO4: odd.by_uplink[ECHO4]})
        reached(odd.host, odd.by_uplink)
        assert pings(container, HOST4) and pings(odd.host, CONTAINER)
        assert not [p for p in odd.router.status()["problems"] if "forward" in p]
    finally:
        odd.node.sh(
            "nft delete table ip docker_filter\nnft delete table ip docker_nat\nip link del docker0"
        )


@pytest.mark.skipif(os.geteuid() != 0, reason="other users' sockets need root")
def test_case_04_own_sockets_of_a_user_with_a_rule(guests: Guests) -> None:
    node, expected = guests.node, ways(guests.wan2)
    rules = guests.guest.rule("uidrange 1000-1000")
    with added(node, *rules), ExitStack() as stack:
        meters = {
            address: stack.enter_context(Meter(node, address, kind="tcp", rate_hz=20, uid=1000))
            for address in expected
        }
        for address, meter in meters.items():
            meter.wait_for_source(expected[address])
        begun = time.monotonic()
        die(guests)
        reached(node, guests.by_uplink)
        for address, meter in meters.items():
            assert sources(meter.samples(begun)) == [expected[address]]


def test_case_04_rule_after_main_when_the_default_has_gone(guests: Guests) -> None:
    """The kernel comes to the owner's last rule once the WAN's default route has gone."""
    with added(guests.node, *guests.guest.rule("iif guest", pref=40000)):
        reached(guests.guest.node, {ECHO4: guests.wan.address4})
        guests.wan.remove_routes()
        guests.router.wait_failed_over()
        reached(guests.host, guests.by_uplink)
        reached(guests.guest.node, ways(guests.wan2))
        guests.wan.add_routes()


FORWARD_PORT = f"""
table inet owner {{
	chain forwards {{
		type nat hook prerouting priority dstnat; policy accept;
		iifname "wan" tcp dport 7 dnat ip to {HOST4}
	}}
}}
"""


def test_case_04_port_forward_is_answered_by_its_wan(odd: Odd) -> None:
    """And so is what asks the router itself: the WAN is no use to us, but others come in by it."""
    wan, internet = odd.wan, odd.network.internet
    odd.node.nft(FORWARD_PORT)
    ready(odd.network.lab.serve(odd.host, echo=(HOST4, odd.lan.host)))
    ready(odd.network.lab.serve(odd.node, echo=(wan.address6,)))
    seen = {wan.address4: "192.0.2.5", wan.address6: "2001:db8:0:1::1"}
    seen[odd.lan.host] = "2001:db8:0:1::1"
    reached(internet, seen)
    wan.isp.filter(
        "forward",
        "iifname line0 ct direction original drop",
        "oifname line0 ct direction reply drop",
    )
    odd.router.wait_failed_over()
    reached(odd.host, odd.by_uplink)
    reached(internet, seen)
    wan.isp.filter("forward")


def test_case_04_from_address_lookup_main(odd: Odd) -> None:
    """An owner's rule for services at the WAN's address; look-ups still follow the traffic."""
    wan, node = odd.wan, odd.node
    rules = (
        f"ip rule add pref 1000 from {wan.address4} lookup main",
        f"ip -6 rule add pref 1000 from {wan.address6} lookup main",
    )
    node.resolvers(*wan.gateways)
    with added(node, *rules):
        odd.router.configure(settings(hold_time=0))
        reached(odd.host, {wan.gateway4: wan.address4}, kind="dns")
        die(odd)
        own = odd.by_uplink[ECHO4]
        for asker in (odd.host, node):
            reached(asker, {wan.gateway4: own}, kind="dns")
            reached(asker, odd.by_uplink)


# Rows 5 and 6: a VPN of the owner's that carries all traffic.


@dataclass(frozen=True)
class WithVpn(Odd):
    """A LAN whose owner has a VPN, which is not connected yet."""

    vpn: Vpn
    guest: Guest

    @property
    def in_vpn(self) -> dict[str, str]:
        """How the echo servers see what comes by the VPN."""
        return {ECHO4: SERVER4, ECHO6: SERVER6}

    @contextlib.contextmanager
    def connected(self, *commands: str, server: str = SERVER4, fwmark: int = 0) -> Iterator[None]:
        """The VPN is up and has these routes and rules meanwhile."""
        self.vpn.connect(server, fwmark=fwmark)
        with added(self.node, *commands):
            yield
            self.vpn.restore()
        self.vpn.disconnect()

    def watch_for_clear(self) -> None:
        """Count from now on what reaches the echo servers without the VPN."""
        count(
            self.network.internet,
            "prerouting",
            f"meta l4proto {{ tcp, udp }} ip daddr {ECHO4} ip saddr != {SERVER4}",
            f"meta l4proto {{ tcp, udp }} ip6 daddr {ECHO6} ip6 saddr != {SERVER6}",
        )

    def in_clear(self) -> int:
        """How many packets that were."""
        return counted(self.network.internet)


def with_vpn(lab: Lab) -> WithVpn:
    made = plain(lab)
    vpn = vpn_server(made.network)
    return WithVpn(made.router, made.lan, vpn, guest_network(made.network))


tunnelled = lent(with_vpn)


def blocked(tunnelled: WithVpn, seconds: float = 1.5) -> None:
    """For so long nothing of the LAN is answered, and nothing has left in clear."""
    assert answered(tunnelled.host, ECHO4, ECHO6, seconds=seconds) == set()
    assert tunnelled.in_clear() == 0


@pytest.mark.parametrize("what", ["default", "halves"])
def test_case_05_dead_vpn_server_leads_nobody_into_the_clear(tunnelled: WithVpn, what: str) -> None:
    vpn = tunnelled.vpn
    with tunnelled.connected(*vpn.host_route(), *vpn.routes(what)):
        reached(tunnelled.host, tunnelled.in_vpn)
        tunnelled.watch_for_clear()
        vpn.drop()
        blocked(tunnelled)
        status = tunnelled.router.status()
        assert states(status) == {"primary"} and status["active_path"] == "wan"
        vpn.restore()
        reached(tunnelled.host, tunnelled.in_vpn)
        assert tunnelled.in_clear() == 0


@pytest.mark.parametrize("what", ["default", "halves"])
def test_case_05_vpn_over_a_dead_wan_takes_the_uplink(tunnelled: WithVpn, what: str) -> None:
    vpn = tunnelled.vpn
    with tunnelled.connected(*vpn.host_route(), *vpn.routes(what)):
        reached(tunnelled.host, tunnelled.in_vpn)
        tunnelled.watch_for_clear()
        die(tunnelled)
        reached(tunnelled.host, tunnelled.in_vpn, timeout_s=8.0)
        assert tunnelled.in_clear() == 0
        tunnelled.wan.restore()
        tunnelled.router.wait_primary()
        reached(tunnelled.host, tunnelled.in_vpn, timeout_s=8.0)
        assert tunnelled.in_clear() == 0


@pytest.mark.parametrize("gone", ["default", "device"])
def test_case_05_vpns_default_goes_in_the_outage(tunnelled: WithVpn, gone: str) -> None:
    vpn, host = tunnelled.vpn, tunnelled.host
    with tunnelled.connected(*vpn.host_route(), *vpn.routes()):
        reached(tunnelled.host, tunnelled.in_vpn)
        tunnelled.watch_for_clear()
        die(tunnelled)
        reached(host, tunnelled.in_vpn, timeout_s=8.0)
        if gone == "default":
            for command in vpn.routes():
                tunnelled.node.sh(command.replace(" add ", " del "))
        else:
            vpn.disconnect()
        blocked(tunnelled)
        until(
            lambda: tunnelled.router.status()["problems"],
            lambda problems: any("vpn" in problem for problem in problems),
        )


@pytest.mark.parametrize("kind", ["tun", "wireguard"])
def test_case_05_tunnel_of_any_kind_is_no_wan(odd: Odd, kind: str) -> None:
    """A default route by it, with nobody at its other end: the LAN is stuck, but not in clear."""
    node, router = odd.node, odd.router
    if kind == "tun":
        node.sh("ip tuntap add dev owners mode tun")
    else:
        make_device(node, "owners")
    node.sh("ip addr add 10.99.9.1/24 dev owners\nip link set owners up")
    with added(
        node,
        "ip route add default dev owners metric 5",
        "ip -6 route add default dev owners metric 5",
    ):
        assert answered(odd.host, ECHO4, ECHO6, seconds=2.0) == set()
        status = router.status()
        assert states(status) == {"primary"} and status["active_path"] == "wan"
        assert [row["path"] for row in status["wans"]] == ["wan"]
        odd.wan.drop()
        time.sleep(2.0)
        assert answered(odd.host, ECHO4, ECHO6, seconds=1.0) == set()
        odd.wan.restore()
    node.sh("ip link delete owners")


def test_case_05_vpn_on_a_mesh_device(tunnelled: WithVpn) -> None:
    """The owner leads all traffic to a peer of the mesh: we group its device, yet it is his VPN."""
    vpn, node = tunnelled.vpn, tunnelled.node
    with tunnelled.connected(*vpn.host_route(), *vpn.routes()):
        node.sh(
            f"wg set vpn peer {vpn.server_key} allowed-ips 10.88.0.1/32,0.0.0.0/0,::/0\n"
            f"ip link set dev vpn group {DEVICE_GROUP}"
        )
        reached(tunnelled.host, tunnelled.in_vpn)
        tunnelled.watch_for_clear()
        die(tunnelled)
        reached(tunnelled.host, tunnelled.in_vpn, timeout_s=8.0)
        assert tunnelled.in_clear() == 0
        vpn.drop()
        blocked(tunnelled, 1.0)


def test_case_05_vpn_that_the_owner_names_is_a_wan(tunnelled: WithVpn) -> None:
    vpn, router = tunnelled.vpn, tunnelled.router
    main = settings(hold_time=0) + "\tlist wan 'vpn'\n\tlist wan 'wan'\n"
    with tunnelled.connected(*vpn.host_route(), *vpn.routes()):
        reached(tunnelled.host, tunnelled.in_vpn)
        router.configure(main)
        router.wait(lambda s: s["active_path"] == "vpn" and states(s) == {"primary"})
        vpn.drop()
        reached(tunnelled.host, tunnelled.at_home)
        vpn.restore()
        router.wait_primary()


def test_case_05_tunnel_as_the_only_default_is_asked_about(tunnelled: WithVpn) -> None:
    vpn, wan, router = tunnelled.vpn, tunnelled.wan, tunnelled.router
    with tunnelled.connected(*vpn.host_route(), *vpn.routes()):
        reached(tunnelled.host, tunnelled.in_vpn)
        wan.remove_routes()
        until(
            lambda: router.status()["problems"],
            lambda problems: any("vpn" in text and "list wan" in text for text in problems),
        )
        reached(tunnelled.host, tunnelled.in_vpn)
        wan.add_routes()


@pytest.mark.needs("wg-quick")
@pytest.mark.parametrize(
    "server",
    [
        pytest.param(SERVER4, id="IPv4"),
        pytest.param(
            SERVER6,
            id="IPv6",
            marks=fails(6, "wireguard-go binds packets to an IPv6 endpoint to their old device"),
        ),
    ],
)
def test_case_06_wg_quick_over_a_dead_wan(tunnelled: WithVpn, server: str) -> None:
    vpn = tunnelled.vpn
    vpn.quick_up(server)
    reached(tunnelled.host, tunnelled.in_vpn)
    tunnelled.watch_for_clear()
    die(tunnelled)
    reached(tunnelled.host, tunnelled.in_vpn, timeout_s=8.0)
    tunnelled.wan.restore()
    tunnelled.router.wait_primary()
    reached(tunnelled.host, tunnelled.in_vpn, timeout_s=8.0)
    assert tunnelled.in_clear() == 0
    vpn.quick_down()


@pytest.mark.needs("wg-quick")
def test_case_06_wg_quick_before_the_service(tunnelled: WithVpn) -> None:
    vpn, router = tunnelled.vpn, tunnelled.router
    router.service.stop()
    vpn.quick_up()
    reached(tunnelled.host, tunnelled.in_vpn)
    router.start()
    reached(tunnelled.host, tunnelled.in_vpn)
    tunnelled.watch_for_clear()
    die(tunnelled)
    reached(tunnelled.host, tunnelled.in_vpn, timeout_s=8.0)
    assert tunnelled.in_clear() == 0


@pytest.mark.needs("wg-quick")
def test_case_06_wg_quick_started_in_the_outage(tunnelled: WithVpn) -> None:
    die(tunnelled)
    tunnelled.vpn.quick_up()
    reached(tunnelled.host, tunnelled.in_vpn, timeout_s=15.0)
    tunnelled.vpn.quick_down()
    reached(tunnelled.host, tunnelled.by_uplink)


@pytest.mark.parametrize("mark", [0x1BD00, 0x80000], ids=["NetBird", "Tailscale"])
def test_case_06_vpn_with_a_mark_of_its_own(tunnelled: WithVpn, mark: int) -> None:
    vpn = tunnelled.vpn
    with tunnelled.connected(*vpn.policy(mark, 7120), fwmark=mark):
        reached(tunnelled.host, tunnelled.in_vpn)
        tunnelled.watch_for_clear()
        die(tunnelled)
        reached(tunnelled.host, tunnelled.in_vpn, timeout_s=8.0)
        assert tunnelled.in_clear() == 0


def test_case_06_vpn_of_the_guests_only(tunnelled: WithVpn) -> None:
    """The guests stay in their VPN, never in clear; the LAN takes the uplink."""
    vpn, guest = tunnelled.vpn, tunnelled.guest
    lead = [command.replace("metric 5", f"table {TABLE}") for command in vpn.routes()]
    with tunnelled.connected(*vpn.host_route(), *lead, *guest.rule("iif guest")):
        reached(guest.node, tunnelled.in_vpn)
        reached(tunnelled.host, tunnelled.at_home)
        die(tunnelled)
        reached(tunnelled.host, tunnelled.by_uplink)
        tunnelled.watch_for_clear()
        reached(guest.node, tunnelled.in_vpn, timeout_s=8.0)
        assert tunnelled.in_clear() == 0
        vpn.drop()
        assert answered(guest.node, ECHO4, ECHO6, seconds=1.0) == set()
        assert tunnelled.in_clear() == 0


# Row 11: other programs delete what is ours.


RULES = "ip -4 rule; echo; ip -6 rule"


def own_rules(node: Node, before: Sequence[str] = ()) -> list[str]:
    """The rules that are neither the kernel's nor those before, each with its family."""
    found = []
    for family, text in zip(("-4", "-6"), node.sh(RULES).split("\n\n"), strict=True):
        found += [f"{family} {line}" for line in text.strip().splitlines()]
    kernels = ("lookup local", "32766:\tfrom all lookup main", "lookup default")
    return [rule for rule in found if not rule.endswith(kernels) and rule not in before]


def delete_rules(node: Node, rules: Sequence[str]) -> None:
    """Delete these rules, as another program would. One that is just being put back behind another
    is not there for a moment: it is deleted after that.
    """
    for rule in rules:
        family, _, text = rule.partition(" ")
        pref, _, selector = text.partition(":\t")
        words = f"ip {family} rule del pref {pref} {selector.replace(' [detached]', '')}".split()
        until(lambda argv=words: node.run(argv, check=False).returncode, lambda code: code == 0)  # type: ignore[misc]


def own_tables(node: Node) -> list[str]:
    """The tables that our rules lead to."""
    words = " ".join(own_rules(node)).split()
    found = {after for word, after in itertools.pairwise(words) if word == "lookup"}
    return sorted(found - {"main", "local", "default"})


FLUSH_BY = {
    "ip rule flush": (
        "for f in -4 -6; do ip $f rule flush; ip $f rule add pref 32766 lookup main; done\n"
        "ip rule add pref 32767 lookup default"
    ),
    "protocol": (
        "for f in -4 -6; do ip $f rule show | cut -d: -f1 | while read -r pref; do\n"
        "case $pref in 0|32766|32767) ;; *) ip $f rule del pref $pref ;; esac; done; done"
    ),
}
"""As netifd's start does it, and as systemd-networkd does with rules that it has not made."""
RESTORED_S = 2.0


@pytest.fixture
def audited(odd: Odd) -> Odd:
    assert len(own_rules(odd.node)) > 3
    return odd


@pytest.mark.parametrize("when", ["calm", "outage"])
def test_case_11_all_own_rules_deleted(audited: Odd, when: str) -> None:
    node = audited.node
    if when == "outage":
        die(audited)
        reached(audited.host, audited.by_uplink)
    before = own_rules(node)
    delete_rules(node, before)
    until(lambda: own_rules(node), lambda rules: rules == before, RESTORED_S)
    if when == "calm":
        die(audited)
    reached(audited.host, audited.by_uplink, timeout_s=3.0)
    reached(node, audited.by_uplink, timeout_s=3.0)


def test_case_11_every_single_rule_deleted(audited: Odd) -> None:
    node = audited.node
    die(audited)
    before = own_rules(node)
    for rule in before:
        delete_rules(node, [rule])
        until(lambda: own_rules(node), lambda rules: rules == before, RESTORED_S)
    reached(audited.host, audited.by_uplink, timeout_s=3.0)


@pytest.mark.parametrize("way", list(FLUSH_BY))
def test_case_11_rules_flushed_in_the_outage(audited: Odd, way: str) -> None:
    node = audited.node
    die(audited)
    before = own_rules(node)
    node.sh(FLUSH_BY[way])
    until(lambda: own_rules(node), lambda rules: rules == before, RESTORED_S)
    reached(audited.host, audited.by_uplink, timeout_s=3.0)


@pytest.mark.parametrize("when", ["calm", "outage"])
def test_case_11_own_tables_flushed(audited: Odd, when: str) -> None:
    node = audited.node
    if when == "outage":
        die(audited)
        reached(audited.host, audited.by_uplink)
    tables = own_tables(node)
    assert tables
    show = "\n".join(
        f"ip {f} route show table {t} 2>/dev/null || true" for t in tables for f in ("-4", "-6")
    )
    before = sorted(node.sh(show).splitlines())
    assert before
    for table in tables:
        for family in ("-4", "-6"):
            node.sh(f"ip {family} route flush table {table} 2>/dev/null || true")
    until(lambda: sorted(node.sh(show).splitlines()), lambda found: found == before, RESTORED_S)
    if when == "calm":
        die(audited)
    reached(audited.host, audited.by_uplink, timeout_s=3.0)


def test_case_11_ruleset_flushed_in_the_outage(audited: Odd) -> None:
    """As Debian's nftables.service and many owners' scripts do: flush all, load their own."""
    node = audited.node
    die(audited)
    reached(audited.host, audited.by_uplink)
    tables = [line for line in node.sh("nft list tables").splitlines() if "wgup" not in line]
    assert tables
    own = "".join(node.sh(f"nft -s list {table}") + "\n" for table in tables)
    node.nft("flush ruleset\n" + own)
    reached(audited.host, audited.by_uplink, timeout_s=RESTORED_S + 1.0)
    reached(node, audited.by_uplink, timeout_s=3.0)


def test_case_11_own_nftables_deleted_in_calm(audited: Odd) -> None:
    node = audited.node
    node.run(["nft", "delete", "table", "inet", "wgup"])
    until(lambda: node.run(["nft", "list", "tables"]).stdout, lambda s: "wgup" in s, RESTORED_S)
    die(audited)
    reached(audited.host, audited.by_uplink, timeout_s=3.0)


@pytest.mark.parametrize("again", [False, True], ids=["once", "set anew in the outage"])
def test_case_11_strict_reverse_path_filter(audited: Odd, again: bool) -> None:
    """Probes by the dead WAN are answered all the same; afterwards the owner's value is back."""
    node, names = audited.node, ("all", "wan")
    for name in names:
        node.sysctl(f"net/ipv4/conf/{name}/rp_filter", 1)
    audited.router.service.restart()
    audited.router.wait_primary()
    die(audited)
    reached(audited.host, audited.by_uplink)
    if again:
        for name in names:
            node.sysctl(f"net/ipv4/conf/{name}/rp_filter", 1)
        time.sleep(0.5)
    audited.wan.restore()
    audited.router.wait_primary()
    reached(audited.host, audited.at_home)
    show = "cat /proc/sys/net/ipv4/conf/all/rp_filter /proc/sys/net/ipv4/conf/wan/rp_filter"
    until(lambda: node.sh(show).split(), lambda found: found == ["1", "1"], 3.0)
    audited.router.service.stop()
    assert node.sh(show).split() == ["1", "1"]


def test_case_11_repeated_removal_is_told(audited: Odd) -> None:
    node = audited.node
    for _ in range(4):
        before = own_rules(node)
        delete_rules(node, before)
        until(lambda: own_rules(node), lambda rules, want=before: rules == want, RESTORED_S)
    until(
        lambda: audited.router.status()["problems"],
        lambda problems: any("rule" in text for text in problems),
        3.0,
    )


# Row 13: default routes that balance.


@dataclass(frozen=True)
class Three(Odd):
    """Balanced over three WANs."""

    wan3: Wan


def balanced_two(lab: Lab) -> Odd:
    network = consumer_network(lab, second_wan=True, wan_metric=10)
    assert network.wan2 is not None
    balance([network.wan, network.wan2])
    return Odd(begin(network), NO_PREFIX)


def balanced_three(lab: Lab) -> Three:
    network = consumer_network(lab, second_wan=True, wan_metric=10)
    assert network.wan2 is not None
    wan3 = third_wan(network)
    balance([network.wan, network.wan2, wan3])
    return Three(begin(network), NO_PREFIX, wan3)


balanced = lent(balanced_two)


balanced3 = lent(balanced_three)


def shared_by(node: Node, *lines: Wan, timeout_s: float = 30.0) -> None:
    """Wait until new flows of both families are seen from all of these WANs and nowhere else."""
    for address in (ECHO4, ECHO6):
        wanted = {ways(line)[address] for line in lines}
        until(lambda a=address: spread(node, a), lambda s, w=wanted: set(s) == w, timeout_s)


@pytest.mark.parametrize(
    "how", ["second", "second's carrier", "second of nexthop objects", "first"]
)
def test_case_13_hop_of_a_balanced_default_dies(balanced: Odd, how: str) -> None:
    """FRR and systemd-networkd write balanced defaults by the ids of nexthop objects."""
    wan, wan2, host = balanced.wan, balanced.wan2, balanced.host
    if "objects" in how:
        balance_by_objects([wan, wan2])
    shared_by(host, wan, wan2)
    if "objects" in how:
        balanced.router.wait_primary()
    dead, other = (wan, wan2) if how == "first" else (wan2, wan)
    dead.carrier_down() if "carrier" in how else dead.drop()
    shared_by(host, other)
    dead.carrier_up() if "carrier" in how else dead.restore()
    shared_by(host, wan, wan2, timeout_s=15.0)


@pytest.mark.parametrize("dead", ["wan", "wan2"])
def test_case_13_running_flows_of_a_dead_hop(balanced: Odd, dead: str) -> None:
    wan, other = balanced.wan, balanced.wan2
    if dead == "wan2":
        wan, other = other, wan
    for address in (ECHO4, ECHO6):
        with ExitStack() as stack:
            meters = [
                stack.enter_context(Meter(balanced.host, address, rate_hz=20)) for _ in range(8)
            ]
            for meter in meters:
                meter.wait_for(lambda sample: True)
            wan.drop()
            for meter in meters:
                meter.wait_for_source(ways(other)[address], since=time.monotonic())
            wan.restore()


def test_case_13_all_hops_of_a_balanced_default_die(balanced: Odd) -> None:
    balanced.wan.drop()
    balanced.wan2.drop()
    balanced.router.wait_failed_over()
    for address in (ECHO4, ECHO6):
        until(
            lambda a=address: spread(balanced.host, a),
            lambda seen, a=address: set(seen) == {balanced.by_uplink[a]},
        )


def test_case_13_one_of_three_hops_dies_and_then_another(balanced3: Three) -> None:
    host, wan, wan2 = balanced3.host, balanced3.wan, balanced3.wan2
    third = balanced3.wan3
    shared_by(host, wan, wan2, third)
    wan2.drop()
    shared_by(host, wan, third)
    third.drop()
    shared_by(host, wan)
    third.restore()
    shared_by(host, wan, third, timeout_s=15.0)


# Row 1 once more: WANs whose routes come and go by themselves.


def pppoe(lab: Lab) -> Odd:
    """One WAN, a PPPoE session."""
    return Odd(begin(pppoe_network(consumer_network(lab, wan_metric=10))), NO_PREFIX)


dialled = lent(pppoe)


def test_case_01_host_route_without_a_gateway(dialled: Odd) -> None:
    routes = (
        f"ip route add {ECHO4}/32 dev pppoe-wan",
        f"ip -6 route add {ECHO6}/128 dev pppoe-wan",
    )
    with added(dialled.node, *routes):
        reached(dialled.host, ways(dialled.wan))
        die(dialled)
        reached(dialled.host, dialled.by_uplink)
        reached(dialled.node, dialled.by_uplink)


def test_case_01_session_that_ends_and_comes_anew(dialled: Odd) -> None:
    """With other addresses, as PPPoE does; the next outage is covered as the first."""
    session = dialled.wan
    assert isinstance(session, Session)
    for number in (70, 71):
        session.hang_up()
        dialled.router.wait_failed_over()
        reached(dialled.host, dialled.by_uplink)
        session = session.redial(number)
        dialled.router.wait_primary()
        reached(dialled.host, ways(session))
    session.drop()
    dialled.router.wait_failed_over()
    reached(dialled.host, dialled.by_uplink)


@dataclass(frozen=True)
class ByDhcp(Odd):
    """One WAN that is numbered by DHCP."""

    dhcp: DhcpWan
    client: Child

    def move_gateway(self, number: int, *, renewed: bool = True) -> None:
        """Have the ISP's gateway be at another address, and the old one be nobody's."""
        wan = self.wan
        stem = wan.gateway4.rpartition(".")[0]
        wan.isp.sysctl("net/ipv4/conf/all/promote_secondaries", 1)
        self.dhcp.serve(f"{stem}.{number}")
        others = " ".join(f"{stem}.{each}" for each in (1, 3, 4, 5) if each != number)
        wan.isp.sh(
            f"for a in {others}; do ip addr del $a/29 dev {wan.isp_device} 2>/dev/null || true\n"
            "done"
        )
        if renewed:
            self.dhcp.renew(self.client)
            until(
                lambda: self.node.sh("ip route show default"),
                lambda shown: f"via {stem}.{number} " in shown,
            )


def by_dhcp(lab: Lab) -> ByDhcp:
    network = consumer_network(lab, wan_metric=10)
    dhcp = DhcpWan(lab, network.wan)
    dhcp.serve(network.wan.gateway4)
    client = dhcp.connect()
    until(lambda: network.consumer.sh("ip route show default"), lambda shown: "via" in shown)
    return ByDhcp(begin(network), NO_PREFIX, dhcp, client)


leased = lent(by_dhcp)


DHCP = pytest.mark.needs("dnsmasq", "udhcpc")


@DHCP
def test_case_01_gateway_that_moves_in_calm(leased: ByDhcp) -> None:
    leased.move_gateway(3)
    reached(leased.host, ways(leased.wan))
    leased.router.wait_primary()
    die(leased)
    reached(leased.host, leased.by_uplink)
    leased.wan.restore()
    leased.router.wait_primary()
    reached(leased.host, ways(leased.wan))


@DHCP
def test_case_01_gateway_that_moves_in_the_outage(leased: ByDhcp) -> None:
    die(leased)
    leased.move_gateway(4, renewed=False)
    leased.wan.restore()
    leased.dhcp.renew(leased.client)
    reached(leased.host, ways(leased.wan))
    leased.router.wait_primary()
    reached(leased.node, ways(leased.wan))


@DHCP
def test_case_01_host_route_of_dhcp_option_121(leased: ByDhcp) -> None:
    leased.dhcp.serve(leased.wan.gateway4, (f"{ECHO4}/32",))
    leased.dhcp.renew(leased.client)
    until(lambda: leased.node.sh("ip route"), lambda shown: ECHO4 in shown)
    reached(leased.host, ways(leased.wan))
    die(leased)
    reached(leased.host, leased.by_uplink)
    reached(leased.node, leased.by_uplink)


# Rows 7, 8 and 20: what shows that a WAN is alive.


MODEMS = ("1.1.1.1/32", "2606:4700:4700::1111/128")


@contextlib.contextmanager
def answered_by_the_modem(wan: Wan) -> Iterator[None]:
    """These targets are answered on this side of the outage, here by the ISP's end of the line."""
    for address in MODEMS:
        wan.isp.sh(f"ip addr add {address} dev lo")
    yield
    for address in MODEMS:
        wan.isp.sh(f"ip addr del {address} dev lo")


@contextlib.contextmanager
def filtered(wan: Wan, *rules: str) -> Iterator[None]:
    """The ISP drops what these rules say, behind its own addresses."""
    wan.isp.filter("forward", *rules, priority=5)
    yield
    wan.isp.filter("forward")


FEW_PINGS = tuple(rule.replace("drop", "limit rate over 1/second drop") for rule in NO_PINGS)


@pytest.mark.parametrize("when", ["from the start", "later"])
def test_case_07_modem_that_answers_a_target(odd: Odd, when: str) -> None:
    with answered_by_the_modem(odd.wan):
        if when == "from the start":
            odd.router.service.restart()
            odd.router.wait_primary()
        die(odd, upstream=True)
        reached(odd.host, odd.by_uplink)
        odd.wan.restore()
        odd.router.wait_primary()


def told(odd: Odd, *words: str, timeout_s: float = 30.0) -> str:
    """The problem that has one of these words, as soon as status tells it."""

    def found() -> list[str]:
        problems = odd.router.status()["problems"]
        return [text for text in problems if any(word in text for word in words)]

    return until(found, bool, timeout_s)[0]


def stays_home(odd: Odd, seconds: float) -> None:
    """For so long all traffic uses the WAN, in status and on the wire."""
    odd.router.stays(odd.wan.device, seconds)
    assert states(odd.router.status()) == {"primary"}
    reached(odd.host, odd.at_home)


@pytest.mark.parametrize("when", ["from the start", "later"])
def test_case_08_wan_without_pings(odd: Odd, when: str) -> None:
    router = odd.router
    known = router.events("failover")
    if when == "from the start":
        router.service.stop()
    with filtered(odd.wan, *NO_PINGS):
        if when == "from the start":
            router.start()
        stays_home(odd, 3.0)
        told(odd, "ICMP", "ping")
        assert router.events("failover") == known
        odd.wan.drop()
        router.wait_failed_over()
        reached(odd.host, odd.by_uplink)


def test_case_08_wan_with_few_pings(odd: Odd) -> None:
    """As many ISPs limit them, and targets too."""
    known = odd.router.events("failover")
    with filtered(odd.wan, *FEW_PINGS):
        stays_home(odd, 3.0)
    assert odd.router.events("failover") == known


@pytest.mark.parametrize(("round_trip_s", "starts"), [(0.7, 1), (0.7, 2), (1.5, 2)])
def test_case_20_long_line_at_the_fast_pace(lab: Lab, round_trip_s: float, starts: int) -> None:
    """After each start, with no neighbour known, and later."""
    network = consumer_network(lab)
    slow_down(lab, network.wan, round_trip_s)
    provider = make_provider(lab, network.providers[0])
    router = Router.build(network, [provider], settings(hold_time=0))
    for _ in range(starts):
        network.consumer.sh("ip neigh flush all")
        router.service.start()
        router.stays("wan", 3.0)
        assert router.events("failover", "switch", "stranded") == []
        router.service.stop()


# Row 9: what is absent is not meant.


@dataclass(frozen=True)
class Key:
    """What must stay: the tunnel with its key, and the file of that."""

    public: str
    files: tuple[str, ...]


def key_of(odd: Odd) -> Key:
    shown = odd.node.run(["wg", "show", "wgup_nodea", "public-key"]).stdout.strip()
    return Key(shown, tuple(sorted(glob.glob(f"{odd.router.service.keys_dir}/*.key"))))


LOST_CONFIGURATIONS = {
    "empty": "",
    "cut short": "config wireguard-uplink 'uplink'\n\toption enabled '1",
    "another file": "\x7fELF\x00\x00",
}


@pytest.mark.parametrize(
    ("how", "asked"),
    [
        ("empty", False),
        ("empty", True),
        ("cut short", True),
        ("gone", True),
        ("another file", True),
    ],
)
def test_case_09_configuration_that_is_lost_for_a_while(odd: Odd, how: str, asked: bool) -> None:
    """Nothing is deleted, it is told, and the next outage is covered; then it is there again."""
    service = odd.router.service
    before = key_of(odd)
    with open(service.config_file, encoding="utf-8") as file:
        text = file.read()
    if how == "gone":
        os.unlink(service.config_file)
    else:
        with open(service.config_file, "w", encoding="utf-8") as file:
            file.write(LOST_CONFIGURATIONS[how])
    if asked:
        service.reload()
    ends = time.monotonic() + 2.0
    while time.monotonic() < ends:
        assert key_of(odd) == before
        time.sleep(0.2)
    told(odd, "wireguard-uplink", timeout_s=6.0)
    die(odd)
    reached(odd.host, odd.by_uplink)
    odd.wan.restore()
    service.configure(text)
    service.reload()
    odd.router.wait_primary()
    assert key_of(odd) == before


def test_case_09_sections_that_come_back_have_their_keys(odd: Odd) -> None:
    """A file that is cut between two sections can be read; what it lacks is taken down only."""
    router, before = odd.router, key_of(odd)
    uplinks, router.uplinks = router.uplinks, ""
    router.configure(settings(hold_time=0))
    until(lambda: odd.node.sh("ip -o link"), lambda shown: "wgup_nodea" not in shown)
    router.uplinks = uplinks
    router.configure(settings(hold_time=0))
    router.wait(lambda s: len(s["uplinks"]) == 1)
    router.wait_primary()
    assert key_of(odd) == before


def test_case_09_start_with_an_empty_configuration(odd: Odd) -> None:
    """As after a power cut on a full flash; the owner restores his file from a backup."""
    service = odd.router.service
    before = key_of(odd)
    with open(service.config_file, encoding="utf-8") as file:
        text = file.read()
    service.kill()
    service.configure("")
    service.start()
    time.sleep(2.0)
    assert all(os.path.exists(path) for path in before.files)
    service.configure(text)
    service.reload()
    odd.router.wait_primary()
    assert key_of(odd) == before


# Row 10: names of WANs.


def test_case_10_wan_that_is_none(odd: Odd) -> None:
    router = odd.router
    known = router.events("failover")
    router.configure(settings(hold_time=0, wan="wan_fiber"))
    told(odd, "wan_fiber")
    stays_home(odd, 2.0)
    assert router.events("failover") == known
    doctor = router.service.wgctl("uplink", "doctor").stdout
    assert "wan_fiber" in doctor
    die(odd)
    reached(odd.host, odd.by_uplink)
    odd.wan.restore()
    router.wait_primary()
    router.configure(settings(hold_time=0))


def test_case_10_one_name_of_two_is_wrong(odd: Odd) -> None:
    odd.router.configure(settings(hold_time=0) + "\tlist wan 'wan'\n\tlist wan 'wna'\n")
    told(odd, "wna")
    odd.router.wait_primary()
    stays_home(odd, 1.0)
    die(odd)
    reached(odd.host, odd.by_uplink)
    odd.wan.restore()
    odd.router.wait_primary()
    odd.router.configure(settings(hold_time=0))


# Row 12: firewalls of the owner's.


@pytest.mark.parametrize("style", list(firewall.STYLES))
def test_case_12_forward_chain_for_the_wan_only(odd: Odd, style: str) -> None:
    """It is told before and in the outage, by doctor too, and ends with the rule that is named."""
    firewall.load(odd.node, style)
    reached(odd.host, odd.at_home)
    sentence = told(odd, "wgup_nodea")
    assert "`" in sentence
    assert sentence.split("`")[1] in odd.router.service.wgctl("uplink", "doctor").stdout
    die(odd)
    assert answered(odd.host, ECHO4, ECHO6, seconds=1.0) == set(), "the owner's firewall holds"
    for _ in range(2):  # one rule a family, where his tables have one family each
        commands = [text.split("`")[1] for text in odd.router.status()["problems"] if "`" in text]
        for command in dict.fromkeys(commands):
            odd.node.sh(command)
        if not commands:
            break
        time.sleep(1.0)
    reached(odd.host, odd.by_uplink)
    until(lambda: odd.router.status()["problems"], lambda problems: problems == [])
    firewall.unload(odd.node, style)


# Row 14: an underlay that passes small packets only.


@pytest.mark.parametrize("when", ["from the start", "in use"])
def test_case_14_underlay_that_drops_full_packets(odd: Odd, when: str) -> None:
    """The tunnel's MTU follows, or it is no use and status says why."""
    router = odd.router
    if when == "from the start":
        router.service.stop()
    else:
        die(odd)
    narrow(odd.network, 1380)
    if when == "from the start":
        router.start()
    row = until(
        lambda: router.status()["uplinks"][0],
        lambda row: row["mtu"] <= 1312 or (not row["usable"] and row["reason"]),
        30.0,
    )
    if row["usable"]:
        if when == "from the start":
            die(odd)
        for address in (ECHO4, ECHO6):
            assert loads(odd.host, address)
    narrow(odd.network, 0)


# Rows 15 and 16: endpoints with names.


def named(lab: Lab, resolver: str) -> tuple[Router, ConsumerNetwork]:
    """An uplink to p.example; the router's resolver is this address."""
    network = consumer_network(lab)
    network.consumer.resolvers(resolver)
    provider = make_provider(lab, network.providers[0])
    return Router.build(network, [provider], settings(hold_time=0), hosts=["p.example"]), network


@pytest.mark.parametrize("dead", ["2001:db8:dead::1", "fd70:1::dead"], ids=["far", "on the link"])
def test_case_15_name_with_a_dead_ipv6_address(lab: Lab, dead: str) -> None:
    router, network = named(lab, "127.0.0.53")
    answers = (network.neighbours[0].provider4, dead)
    ready(lab.serve(network.consumer, dns=("127.0.0.53",), answers=answers))
    router.service.start()
    router.wait_primary(timeout_s=25.0)
    network.wan.drop()
    router.wait_failed_over()
    reached(network.host, ways(network.provider_wans[0]))


def test_case_16_power_cut_while_the_wan_is_dead(lab: Lab) -> None:
    resolver = "192.0.2.53"
    router, network = named(lab, resolver)
    network.internet.sh(f"ip addr add {resolver}/32 dev lo")
    link = network.neighbours[0]
    ready(lab.serve(network.internet, dns=(resolver,), answers=(link.provider4, link.provider6)))
    router.service.start()
    router.wait_primary(timeout_s=25.0)
    keys = router.service.keys_dir
    until(lambda: os.listdir(keys), lambda names: len(names) > 1, 30.0)
    network.wan.drop()
    router.wait_failed_over()
    router.service.kill()
    network.consumer.sh(
        "ip link delete wgup_nodea\nnft delete table inet wgup\n"
        f"{FLUSH_BY['ip rule flush']}\nrm -f {router.service.state_file}"
    )
    router.service.start()
    router.wait_failed_over(timeout_s=30.0)
    reached(network.host, ways(network.provider_wans[0]))


# Rows 17 to 19: the mesh.


def rows_of(peer: Peer) -> list[Row]:
    found: list[Row] = peer.ask("uplink_trust")["peers"]
    return found


def test_case_17_all_routers_are_called_openwrt(lab: Lab) -> None:
    mesh = mesh_network(lab, ("one", "two", "three"))
    text = settings((), node_id="OpenWrt")
    peers = {name: Peer(r, Service(lab, r.node, text)) for name, r in mesh.items()}
    for peer in peers.values():
        peer.service.start(wait=False)
    for peer in peers.values():
        peer.service.wait_until_up()
    one = peers["one"]
    keys = {mesh[name].mesh_key for name in ("two", "three")}

    def told_of() -> dict[str, str]:
        return {row["mesh_key"]: row["reason"] for row in rows_of(one)}

    reasons = until(
        told_of, lambda rows: all("OpenWrt-" in rows.get(key, "") for key in keys), 40.0
    )
    words = {word.strip(".,") for text in reasons.values() for word in text.split()}
    proposed = {word for word in words if word.startswith("OpenWrt-")}
    assert len(proposed) >= len(keys), "an id for each"
    assert "OpenWrt-" in one.service.wgctl("uplink", "doctor").stdout


class Caring(TurnedService):
    """It looks after its consumers more often."""

    constants: ClassVar[dict[str, float]] = {
        "rpcd_wireguard_uplink.provider.lease_server:HOUSEKEEPING_S": 1.0
    }


def test_case_18_clock_of_the_provider_is_stepped(lab: Lab) -> None:
    mesh = mesh_network(lab, ("c", "p"), hosts=("c",))
    text = settings((), node_id="{}", pace="default")
    services = {n: Caring(lab, r.node, text.format(n)) for n, r in mesh.items()}
    peers = {name: Peer(mesh[name], service) for name, service in services.items()}
    for service in services.values():
        service.start()
    trust_each_other(peers, [("c", "p")])
    c, p, host = peers["c"], peers["p"], mesh["c"].host
    assert host is not None
    lease_uplink(c, p)
    with asking(host, ECHO4, ECHO6) as meters:
        c.router.wan.drop()
        c.uses("wgup_p")
        for meter in meters.values():
            meter.wait_for(lambda sample: True, since=time.monotonic())
        since = time.monotonic()
        services["p"].step_clock(86400.0)
        time.sleep(3.5)  # it looks after them three times
        for meter in meters.values():
            assert longest(meter.samples(since)).seconds < 1.5


def test_case_19_vpn_beside_the_mesh_is_not_listened_on(lab: Lab) -> None:
    """Who is at its other end can't ask us; a peer with an address of its own can."""
    mesh = mesh_network(lab, ("one", "two"))
    node, server = mesh["one"].node, lab.node("vpn")
    join(node, "cable", server, "eth0")
    node.sh("ip addr add 172.16.99.1/24 dev cable")
    server.sh("ip addr add 172.16.99.2/24 dev eth0")
    keys = {each: new_keys(each) for each in (node, server)}
    for each, other, words, end in (
        (node, server, ["0.0.0.0/0,::/0"], 1),
        (server, node, ["10.64.0.1/32,fd64::1/128"], 2),
    ):
        make_device(each, "vpn")
        command = ["wg", "set", "vpn", "listen-port", "51999", "private-key", "/dev/stdin"]
        command += ["peer", keys[other][1], "endpoint", f"172.16.99.{3 - end}:51999"]
        each.run([*command, "allowed-ips", *words], input=keys[each][0])
        each.sh(
            f"ip addr add 10.64.0.{end}/24 dev vpn\nip addr add fd64::{end}/64 dev vpn nodad\n"
            "ip link set vpn up"
        )
    two = Peer(mesh["two"], Service(lab, mesh["two"].node, settings((), node_id="two")))
    one = Peer(mesh["one"], Service(lab, node, settings((), node_id="one")))
    for peer in (one, two):
        peer.service.start()
    one.until(lambda: {row["peer_id"] for row in rows_of(one)} >= {"two"}, "two on the mesh")
    server.sh("ping -c 1 -W 2 10.64.0.1")
    for address in ("10.64.0.1", "fd64::1", "10.9.0.1", "fd09::1"):
        assert probe(server, ("tcp", address, MESH_TCP)) != [""], address
    listening = node.sh(f"ss -Htln sport = :{MESH_TCP}")
    assert "%wg0" in listening and "%vpn" not in listening
