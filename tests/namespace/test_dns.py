"""Name look-ups follow the traffic: a dead line's own resolver is on-link with it.

The consumer's resolver is its ISP's, at the line's gateway, which no tunnel can reach.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from statistics import median

import pytest

from rpcd_wireguard_uplink.model import Family
from rpcd_wireguard_uplink.system.dns import STAND_INS
from tests.lab.lab import Lab, ready
from tests.lab.meter import Meter, ask, settled
from tests.lab.network import RESOLVERS4, ConsumerNetwork
from tests.lab.node import Child, Node
from tests.lab.pool import RouterPool
from tests.lab.provider import RESOLVED4, Provider, make_provider, make_providers
from tests.lab.router import Router, settings
from tests.namespace.conftest import lent

pytestmark = pytest.mark.needs("conntrack")

LOOKUP_BOUND_S = 1.0
RATE_HZ = 20.0
DNSMASQ4 = "192.168.1.1"
STAND_IN = STAND_INS[Family.IPV4]
FAST_S = 0.9
"""What is rejected is known at once; what is dropped is waited for 2 s."""


def with_resolvers_of_the_isp(lab: Lab) -> Router:
    return Router.started(lab, settings(hold_time=0), isp_resolvers=True)


router = lent(with_resolvers_of_the_isp)


def asked(node: Node, address: str) -> tuple[str, float]:
    """What one question was answered (an IPv4 address, rejected, silence), and after how long."""
    said, took = node.ask("ask_dns", address).split()
    return said, float(took)


@pytest.mark.parametrize("gateway_answers", [False, True])
@pytest.mark.parametrize("family", [4, 6])
def test_the_routers_own_look_ups(router: Router, gateway_answers: bool, family: int) -> None:
    """With `gateway_answers` the ISP's resolver lives on, but traffic is in the tunnel."""
    wan = router.network.wan
    resolver = wan.gateway4 if family == 4 else wan.gateway6
    with Meter(router.network.consumer, resolver, kind="dns", rate_hz=RATE_HZ) as meter:
        settled(meter)
        cut = wan.drop(gateway_answers=gateway_answers)
        router.wait_failed_over()
        time.sleep(0.3)
        answered = meter.wait_for(lambda _: True, since=cut + 0.8)
        assert (answered.received or 0) - cut < LOOKUP_BOUND_S + 0.5
        wan.restore()
        router.wait_primary()
        meter.wait_for(lambda _: True, since=time.monotonic())


def test_a_lan_host_that_asks_the_lines_resolver(router: Router) -> None:
    wan = router.network.wan
    with Meter(router.network.host, wan.gateway4, kind="dns", rate_hz=RATE_HZ) as meter:
        settled(meter)
        waits = []
        for _ in range(2):
            cut = wan.drop()
            answered = meter.wait_for(lambda _: True, since=cut + 0.05)
            waits.append((answered.received or 0) - cut)
            router.wait_failed_over()
            wan.restore()
            router.wait_primary()
        assert median(waits) < LOOKUP_BOUND_S


def test_look_ups_to_other_resolvers_stay_what_they_were(router: Router) -> None:
    router.network.wan.drop()
    router.wait_failed_over()
    script = "nft list chain inet wgup redirect4; nft list set inet wgup resolvers4"
    listed = router.network.consumer.sh(script)
    assert "1.1.1.1" in listed and router.network.wan.gateway4 in listed
    assert RESOLVERS4[1] not in listed


def test_a_family_without_a_resolver_in_the_tunnel_is_rejected(router: Router) -> None:
    """So that dnsmasq and LAN hosts move on to the other family's resolver at once."""
    network = router.network
    router.configure(settings(dns="1.1.1.1"))
    network.wan.drop()
    router.wait_failed_over()
    time.sleep(0.3)
    for node in (network.consumer, network.host):
        said, took = asked(node, network.wan.gateway6)
        assert said == "rejected" and took < FAST_S
        assert asked(node, network.wan.gateway4)[0] not in ("rejected", "silence")


def test_a_family_that_the_tunnel_does_not_carry_is_rejected(network: ConsumerNetwork) -> None:
    network.consumer.resolvers(*network.wan.gateways)
    router = Router.build(network, make_providers(network), settings())
    lines = router.uplinks.splitlines()
    router.uplinks = "\n".join(x for x in lines if "list address 'fd77" not in x) + "\n"
    router.configure(settings())
    router.start()
    assert asked(network.host, network.wan.gateway6)[0] not in ("rejected", "silence")
    network.wan.drop()
    router.wait(
        lambda s: (
            (s["families"]["ipv4"]["state"], s["families"]["ipv6"]["state"])
            == ("failed_over", "stranded")
        )
    )
    time.sleep(0.3)
    for node in (network.consumer, network.host):
        said, took = asked(node, network.wan.gateway6)
        assert said == "rejected" and took < FAST_S
    network.wan.restore()
    router.wait_primary()
    time.sleep(0.3)
    assert asked(network.host, network.wan.gateway6)[0] not in ("rejected", "silence")


def test_the_stand_in_is_a_resolver_during_a_diversion_only(router: Router) -> None:
    consumer, wan = router.network.consumer, router.network.wan
    said, took = asked(consumer, STAND_IN)
    assert said == "rejected" and took < FAST_S
    wan.remove_routes()
    router.wait_failed_over()
    time.sleep(0.3)
    assert asked(consumer, STAND_IN)[0] not in ("rejected", "silence")
    wan.add_routes()
    router.wait_primary()
    time.sleep(0.3)
    assert asked(consumer, STAND_IN)[0] == "rejected"


def resolving(lab: Lab, node: Node, signed: str) -> Provider:
    """A provider whose resolver passes signatures on, or not."""
    provider = make_provider(lab, node, resolver=False)
    lab.start(node, "resolver", provider.tunnel4, signed, RESOLVED4)
    return provider


@pytest.mark.parametrize("signed", ["signed", "bare"])
def test_a_providers_resolver_serves_if_it_passes_signatures_on(
    network: ConsumerNetwork, signed: str
) -> None:
    network.consumer.resolvers(network.wan.gateway4)
    provider = resolving(network.lab, network.providers[0], signed)
    router = Router.build(network, [provider], settings())
    router.uplinks += f"\tlist dns '{provider.tunnel4}'\n"
    router.configure(settings())
    router.start()
    time.sleep(4.0)  # it is asked every 2 s whether there is somebody to ask
    network.wan.drop()
    router.wait_failed_over()
    time.sleep(0.3)
    for node in (network.consumer, network.host):
        assert (asked(node, network.wan.gateway4)[0] == RESOLVED4) is (signed == "signed")


@pytest.fixture
def dnsmasq(router: Router) -> Iterator[Child]:
    """Debian's dnsmasq for the LAN, as OpenWrt runs it: it forwards to the line's resolver."""
    wan = router.network.wan
    words = [
        "dnsmasq",
        "--keep-in-foreground",
        "--no-resolv",
        "--no-hosts",
        "--conf-file=/dev/null",
    ]
    words += ["--user=root", "--pid-file=", "--cache-size=0", f"--listen-address={DNSMASQ4}"]
    words += ["--bind-interfaces", "--stop-dns-rebind", f"--server={wan.gateway4}"]
    child = router.network.consumer.popen(words)
    yield child
    child.kill()


@pytest.mark.needs("dnsmasq")
@pytest.mark.parametrize("fault", ["silent", "ifdown", "carrier"])
def test_lan_hosts_are_answered_by_the_routers_dnsmasq(
    router: Router, pool: RouterPool, dnsmasq: Child, fault: str
) -> None:
    wan = router.network.wan
    # Every look-up is for another name: dnsmasq does not ask twice at once for the same.
    with Meter(router.network.host, DNSMASQ4, kind="dns", rate_hz=RATE_HZ, name="n#.test") as meter:
        settled(meter)
        cut = time.monotonic()
        if fault == "silent":
            wan.drop()
        elif fault == "carrier":
            wan.carrier_down()
            wan.remove_routes()
        else:
            wan.remove_routes()
            router.network.consumer.sh("ip addr flush dev wan")
            pool.spoil()
        answered = meter.wait_for(lambda _: True, since=cut + 0.05)
        assert (answered.received or 0) - cut < LOOKUP_BOUND_S
        router.wait_failed_over()
        meter.wait_for(lambda _: True, since=time.monotonic())
    if fault == "carrier":
        wan.carrier_up()
        wan.add_routes()


@pytest.mark.needs("dnsmasq")
def test_dnsmasq_is_left_with_the_stand_in_by_ifdown(
    lab: Lab, router: Router, pool: RouterPool
) -> None:
    """netifd takes the line's resolvers out of dnsmasq's file and leaves the tunnel's in it."""
    consumer, wan = router.network.consumer, router.network.wan
    servers = lab.path("consumer", "resolv.conf.auto")
    with open(servers, "w", encoding="ascii") as file:
        file.write(f"nameserver {wan.gateway4}\nnameserver {STAND_IN}\n")
    words = ["dnsmasq", "--keep-in-foreground", "--no-hosts", "--conf-file=/dev/null"]
    words += [f"--resolv-file={servers}", "--user=root", "--pid-file=", "--cache-size=0"]
    words += ["--listen-address=192.168.1.1", "--bind-interfaces"]
    lab.at_close(consumer.popen(words))
    with Meter(router.network.host, DNSMASQ4, kind="dns", rate_hz=RATE_HZ, name="n#.test") as meter:
        settled(meter)
        cut = time.monotonic()
        wan.remove_routes()
        pool.spoil()
        consumer.sh(f"ip addr flush dev wan; echo nameserver {STAND_IN} >{servers}")
        answered = meter.wait_for(lambda _: True, since=cut + 0.05)
        assert (answered.received or 0) - cut < LOOKUP_BOUND_S
        router.wait_failed_over()
        meter.wait_for(lambda _: True, since=time.monotonic())


LIAR = "9.9.9.9"


@pytest.mark.needs("dnsmasq")
@pytest.mark.parametrize("answer", ["192.168.1.77", "127.0.0.1", "10.9.0.1", "8.8.4.4"])
def test_dnsmasq_keeps_its_protection_from_rebinding(
    lab: Lab, router: Router, dnsmasq: Child, answer: str
) -> None:
    """In an outage the tunnel's resolver may lie: dnsmasq refuses answers of the LAN's networks, as
    it does on OpenWrt (rebind_protection); who asks past dnsmasq gets what was answered.
    """
    network = router.network
    network.internet.sh(f"ip addr replace {LIAR}/32 dev lo")
    server = lab.serve(network.internet, dns=[LIAR], answers=[answer])
    ready(server)
    router.configure(settings(dns=LIAR))
    network.wan.drop()
    router.wait_failed_over()
    time.sleep(0.3)
    is_private = answer != "8.8.4.4"
    try:
        assert ask(network.host, network.wan.gateway4, kind="dns", name="a.test") == answer
        said = ask(network.host, DNSMASQ4, kind="dns", name="b.test")
        assert said == ("" if is_private else answer)
    finally:
        server.kill()
        network.wan.restore()
        router.configure(settings())
        router.wait_primary()


def test_a_lan_that_loses_its_prefix_is_told_of(router: Router) -> None:
    """netifd takes the prefix that a line delegated from the LAN when the line goes."""
    consumer, wan = router.network.consumer, router.network.wan
    told = "LAN hosts lost their IPv6 prefix with wan: they fall back to IPv4."
    consumer.sh("ip addr add 2001:db8:1000:f0::1/64 dev lan nodad")
    time.sleep(1.0)
    assert told not in router.status()["problems"]
    wan.remove_routes()
    consumer.sh("ip addr del 2001:db8:1000:f0::1/64 dev lan")
    router.wait(lambda s: told in s["problems"])
    wan.add_routes()
    consumer.sh("ip addr add 2001:db8:1000:f1::1/64 dev lan nodad")
    router.wait(lambda s: told not in s["problems"])
    consumer.sh("ip addr del 2001:db8:1000:f1::1/64 dev lan")
