"""Which way traffic may take: underlays, the router's own lines, outer packets, own sockets.

One test a rule, or one a part of it, each with the fault that would break it.
"""

from __future__ import annotations

import time

import pytest

from tests.lab.lab import Lab
from tests.lab.meter import Flows, Meter, ask, lost, settled, sources
from tests.lab.network import ECHO4, ECHO6, PROVIDER4, ConsumerNetwork, consumer_network
from tests.lab.node import Node
from tests.lab.provider import Provider, make_device, make_provider, new_keys
from tests.lab.router import Router, configure_uplink, sent_packets, settings, states
from tests.lab.service import Service
from tests.namespace.conftest import lent

pytestmark = pytest.mark.needs("conntrack")

FATE = "This uplink travels over wan and can't help when that WAN is dead."


def test_uplink_over_the_wan_itself_says_that_it_cannot_help(lab: Lab) -> None:
    network = consumer_network(lab, neighbour=False)
    provider = make_provider(lab, network.providers[0])
    service = Service(lab, network.consumer, settings())
    service.start()
    message = provider.offer(network.provider_wans[0].address4)
    service.expect("uplink_gossip", {"message": message})
    added = service.expect("uplink_add", {"peer_id": "nodea"})
    assert added["note"] == FATE
    provider.admit_reply(added, network.consumer, network.wan.address4)
    router = Router(network, (provider,), service, "")
    status = router.wait_primary()
    (uplink,) = status["uplinks"]
    assert uplink["shared_fate"] and uplink["note"] == FATE and uplink["underlay"] == "wan"
    assert uplink["usable"], "while it answers it could help, as when only a route is broken"
    assert FATE in status["problems"]
    assert FATE in service.wgctl("uplink", "status").stdout
    network.wan.drop()
    status = router.wait(lambda s: states(s) == {"stranded"} and not s["uplinks"][0]["usable"])
    assert status["active_path"] == "wan"
    time.sleep(1.0)
    assert not router.events("failover", "switch"), "no traffic was moved to a dead tunnel"
    network.wan.restore()
    router.wait(lambda s: states(s) == {"primary"})


def over_the_wan(lab: Lab) -> Router:
    """An uplink whose outer packets have the WAN alone."""
    return Router.started(lab, neighbour=False, hosts=[PROVIDER4])


over_wan = lent(over_the_wan)


def test_shared_fate_helps_while_the_tunnel_answers(over_wan: Router) -> None:
    """The ISP loses the way to the probes' targets, but the way to the provider is good."""
    network, hosts = over_wan.network, [over_wan.network.provider_wans[0].address4]
    with Meter(network.host, ECHO4) as meter:
        settled(meter)
        began = time.monotonic()
        network.isp1.filter(
            "forward",
            "ip daddr 203.0.113.0/24 accept",
            "ip saddr 203.0.113.0/24 accept",
            "iifname line0 drop",
        )
        meter.wait_for_source(hosts[0], since=began)
        assert over_wan.wait_failed_over()["uplinks"][0]["shared_fate"]
    network.isp1.filter("forward")


def test_own_second_wan_comes_before_any_uplink(lab: Lab) -> None:
    router = Router.started(lab, settings(), second_wan=True)
    network = router.network
    wan2 = network.wan2
    assert wan2 is not None
    with Flows(network.host) as flows:
        began = network.wan.drop()
        flows.by(wan2.addresses, since=began)
        router.wait_failed_over("wan2")
        began = wan2.drop()
        flows.by(network.provider_wans[0].addresses, since=began)
        router.wait_failed_over("wgup_nodea")
        network.wan.restore()
        router.wait(lambda s: states(s) == {"primary"})
        since = time.monotonic()
        flows.ipv4.wait_for_source(network.wan.address4, since=since)
    router.until_told("failover", "switch", "failback")


def test_a_dead_uplink_is_followed_by_the_next(lab: Lab) -> None:
    """And the heavier one goes first; a provider's dead line shows through its good tunnel."""
    router = Router.started(lab, settings(peers=("nodea", "nodeb")), providers=2)
    network = router.network
    router.service.expect("uplink_set_priority", {"peer_id": "nodeb", "weight": 50})
    light, heavy = network.provider_wans
    with Flows(network.host) as flows:
        began = network.wan.drop()
        flows.ipv4.wait_for_source(heavy.address4, since=began)
        router.wait_failed_over("wgup_nodeb")
        began = heavy.drop()
        flows.by(light.addresses, since=began, timeout_s=4.0)
        router.wait_failed_over("wgup_nodea")
        light.drop()
        router.wait(lambda s: states(s) == {"stranded"})
        began = heavy.restore()
        flows.by(heavy.addresses, since=began, timeout_s=8.0)


def underlay_routes(node: Node, version: int) -> list[str]:
    """The defaults of the outer packets' table, best first."""
    return node.sh(f"ip -{version} route show default table 5179").splitlines()


def test_outer_packets_have_a_last_resort_and_follow_the_gateway(over_wan: Router) -> None:
    network, provider_wan = over_wan.network, over_wan.network.provider_wans[0]
    consumer, wan = network.consumer, network.wan
    for version, gateway in ((4, wan.gateway4), (6, wan.gateway6)):
        routes = underlay_routes(consumer, version)
        assert routes[0].startswith(f"default via {gateway} dev wan"), routes
        assert routes[-1].startswith("unreachable default") and "4294967294" in routes[-1], routes
    # The ISP moves its gateway, as PPPoE and DHCP do: the old address is gone at once.
    moved = wan.gateway4.rpartition(".")[0] + ".6"
    wan.isp.sh(f"ip addr add {moved}/29 dev {wan.isp_device}")
    consumer.sh(f"ip route replace default via {moved} dev wan")
    deadline = time.monotonic() + 3.0
    while not underlay_routes(consumer, 4)[0].startswith(f"default via {moved} "):
        assert time.monotonic() < deadline, underlay_routes(consumer, 4)
        time.sleep(0.02)
    assert len(underlay_routes(consumer, 4)) == 2, "the old gateway is not kept"
    assert "via" in consumer.sh(f"ip route get {provider_wan.address4} mark 0x51")
    wan.isp.sh(f"ip addr del {moved}/29 dev {wan.isp_device}")
    consumer.sh("ip route del default; ip -6 route del default")
    deadline = time.monotonic() + 3.0
    while len(underlay_routes(consumer, 4)) > 1 or len(underlay_routes(consumer, 6)) > 1:
        assert time.monotonic() < deadline, "a line without a route is no underlay"
        time.sleep(0.02)
    wan.add_routes()


def test_no_default_route_at_all_is_no_loop(over_wan: Router) -> None:
    """The endpoint's only way is gone: without a last resort the tunnel would swallow itself."""
    network, hosts = over_wan.network, [over_wan.network.provider_wans[0].address4]
    network.wan.remove_routes()
    with Meter(network.host, ECHO4, rate_hz=50), Meter(network.consumer, ECHO4, rate_hz=50):
        time.sleep(0.5)
        before = sent_packets(network.consumer, "wgup_nodea")
        time.sleep(2.0)
        sent = sent_packets(network.consumer, "wgup_nodea") - before
    assert sent < 400, f"{sent} packets in 2 s: the tunnel carries its own outer packets"
    shown = network.consumer.sh(f"ip route get {hosts[0]} mark 0x51 2>&1 || true")
    network.wan.add_routes()
    assert "No route to host" in shown, "the last resort says so, instead of a way into the tunnel"


def test_own_sockets_use_a_diversion_only_while_there_is_one(router: Router) -> None:
    network = router.network
    provider_wan, consumer = network.provider_wans[0], network.consumer
    assert ask(consumer, ECHO4, kind="tcp") == network.wan.address4
    network.wan.carrier_down()
    network.wan.remove_routes()
    router.wait_failed_over()
    for address, seen in ((ECHO4, provider_wan.address4), (ECHO6, provider_wan.address6)):
        assert ask(consumer, address, kind="tcp") == seen
    assert ask(consumer, "1.1.1.1", kind="dns") == provider_wan.address4
    assert router.service.wgctl("uplink", "failover", "disable").returncode == 0
    router.wait(lambda s: states(s) == {"primary"} and not s["auto_failover"])
    time.sleep(0.3)
    for address in (ECHO4, ECHO6):
        assert ask(consumer, address, kind="tcp", timeout_s=0.4) is None, "it is switched off"
        assert ask(network.host, address, timeout_s=0.4) is None
    network.wan.carrier_up()
    network.wan.add_routes()
    with Meter(consumer, ECHO4) as meter:
        meter.wait_for_source(network.wan.address4)


CLIENT_OF_EACH_OTHER = settings(peers=("nodea", "nodeb"))


def test_each_others_uplink_is_no_loop_when_both_wans_die(network: ConsumerNetwork) -> None:
    lab, link = network.lab, network.neighbours[0]
    far = network.providers[0]
    nodea = make_provider(lab, far, peer_id="nodea", place=0)
    nodeb = make_provider(lab, network.consumer, peer_id="nodeb", place=1)
    router = Router.build(network, [nodea], CLIENT_OF_EACH_OTHER)
    other = Service(lab, far, CLIENT_OF_EACH_OTHER)
    section = configure_uplink(far, other.keys_dir, nodeb, link.consumer4)
    other.configure(CLIENT_OF_EACH_OTHER + section)
    there = Router(network, (nodeb,), other, section)
    other.start()
    router.start()
    there.wait_primary()
    with (
        Meter(network.host, ECHO4, rate_hz=50) as host4,
        Meter(network.host, ECHO6, rate_hz=50),
        Meter(far, ECHO4, rate_hz=50),
        Meter(far, ECHO6, rate_hz=50),
    ):
        settled(host4)
        network.wan.drop()
        network.provider_wans[0].drop()
        for each in (router, there):
            each.wait(lambda s: states(s) == {"stranded"})
        time.sleep(0.5)
        devices = [
            *((network.consumer, name) for name in ("wgup_nodea", "wgup_srv")),
            *((far, name) for name in ("wgup_nodeb", "wgup_srv")),
        ]
        before = [sent_packets(node, device) for node, device in devices]
        time.sleep(2.0)
        after = [sent_packets(node, device) for node, device in devices]
        sent = [late - early for early, late in zip(before, after, strict=True)]
        assert max(sent) < 600, f"packets in 2 s, of {[d for _, d in devices]}: {sent}"
        for each in (router, there):
            assert states(each.status()) == {"stranded"}
            assert each.events("stranded"), "it says so"
    for node in (network.consumer, far):
        for table in ("ip", "ip -6"):
            shown = node.sh(f"{table} route get {ECHO4 if table == 'ip' else ECHO6} mark 0x51")
            assert "wgup_" not in shown


def become_consumer(network: ConsumerNetwork, provider: Provider) -> None:
    """Give the LAN host a tunnel of its own, device wgt, to a provider on its router."""
    host = network.host
    private, public = new_keys(host)
    make_device(host, "wgt")
    provider.admit(public, ["10.77.1.9", "fd77:2::9"])
    words = ["wg", "set", "wgt", "private-key", "/dev/stdin", "peer", provider.public_key]
    words += ["endpoint", f"192.168.1.1:{provider.listen_port}"]
    host.run([*words, "allowed-ips", "0.0.0.0/0,::/0"], input=private)
    host.sh(
        "ip addr add 10.77.1.9/32 dev wgt\nip addr add fd77:2::9/128 dev wgt nodad\n"
        "ip link set wgt up\n"
        "ip route add default dev wgt metric 9999\nip -6 route add default dev wgt metric 9999"
    )


@pytest.mark.parametrize("fault", ["silent", "no route"])
def test_traffic_of_consumers_never_goes_on_into_a_tunnel(
    network: ConsumerNetwork, fault: str
) -> None:
    """A provider whose own traffic has failed over does not pass its consumers' traffic on."""
    nodea = make_provider(network.lab, network.providers[0], peer_id="nodea", place=0)
    nodeb = make_provider(network.lab, network.consumer, peer_id="nodeb", place=1)
    router = Router.build(network, [nodea], settings())
    router.start()
    become_consumer(network, nodeb)
    provider_wan, wan = network.provider_wans[0], network.wan
    with (
        Meter(network.host, ECHO4, device="wgt", rate_hz=20) as ipv4,
        Meter(network.host, ECHO6, device="wgt", rate_hz=20) as ipv6,
    ):
        ipv4.wait_for_source(wan.address4)
        ipv6.wait_for_source(wan.address6)
        if fault == "silent":
            wan.drop()
        else:
            wan.carrier_down()
            wan.remove_routes()
        router.wait_failed_over()
        assert ask(network.host, ECHO4, device="eth0") == provider_wan.address4
        assert ask(network.host, ECHO6, device="eth0") == provider_wan.address6
        since = time.monotonic()
        time.sleep(0.5)
        for meter in (ipv4, ipv6):
            found = meter.samples(since)
            assert len(found) > 3 and lost(found) == len(found), sources(found)
