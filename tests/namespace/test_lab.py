"""The laboratory itself: what it builds works, what it breaks is broken, and nothing stays."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rpcd_wireguard_uplink.errors import BusError
from rpcd_wireguard_uplink.ubus.client import Client
from tests.lab.lab import Lab
from tests.lab.meter import Kind, Meter, Sample, ask, longest, lost, outages, sources
from tests.lab.network import (
    ECHO4,
    ECHO6,
    HOST4,
    RESOLVERS4,
    RESOLVERS6,
    ConsumerNetwork,
    consumer_network,
)
from tests.lab.node import Child, LabError, Node, program, refused
from tests.lab.provider import RESOLVED4, Provider, make_device, make_provider, new_keys
from tests.lab.reach import until
from tests.lab.service import OBJECT, PROJECT, Service


def connect(network: ConsumerNetwork, provider: Provider, endpoint: str) -> Node:
    """A tunnel of the consumer's, made by hand: device wgt, 10.77.0.9 and fd77::9, all traffic."""
    consumer = network.consumer
    private, public = new_keys(consumer)
    make_device(consumer, "wgt")
    provider.admit(public, ["10.77.0.9/32", "fd77::9"])
    words = ["wg", "set", "wgt", "private-key", "/dev/stdin", "peer", provider.public_key]
    words += ["endpoint", f"{endpoint}:{provider.listen_port}", "allowed-ips", "0.0.0.0/0,::/0"]
    consumer.run(words, input=private)
    consumer.sh(
        "ip addr add 10.77.0.9/32 dev wgt\nip addr add fd77::9/128 dev wgt nodad\n"
        "ip link set wgt up"
    )
    return consumer


@pytest.mark.parametrize("kind", ["udp", "tcp"])
def test_host_reaches_the_internet_masqueraded(network: ConsumerNetwork, kind: Kind) -> None:
    assert ask(network.host, ECHO4, kind=kind) == network.wan.address4
    assert ask(network.host, ECHO6, kind=kind) == network.wan.address6


def test_resolvers_answer_and_tell_the_asker(network: ConsumerNetwork) -> None:
    wan = network.wan
    for server in (*RESOLVERS4, wan.gateway4):
        assert ask(network.host, server, kind="dns") == wan.address4
        assert ask(network.host, server, kind="dns", name="example.org") == ECHO4
    for server in (*RESOLVERS6, wan.gateway6):
        assert ask(network.consumer, server, kind="dns") == wan.address6
    assert ask(network.host, RESOLVERS4[0], kind="dns", name="no.such.invalid") == ""


def test_neighbour_link_has_no_internet(network: ConsumerNetwork) -> None:
    device = network.neighbours[0].consumer_device
    assert ask(network.consumer, ECHO4, device=device, timeout_s=0.3) is None
    routes = network.consumer.sh(f"ip route show dev {device}")
    assert "default" not in routes


def test_machine_itself_sees_nothing_of_it(lab: Lab) -> None:
    def own() -> list[str]:
        listed = ["ip", "-o", "link"], ["ip", "route", "show", "table", "all"], ["ip", "rule"]
        forwarding = "/proc/sys/net/ipv4/ip_forward"
        with open(forwarding, encoding="ascii") as file:
            found = [file.read()]
        return found + [
            subprocess.run(words, capture_output=True, text=True).stdout for words in listed
        ]

    before = own()
    consumer_network(lab, second_wan=True)
    assert own() == before


def test_silent_drop_is_measured(network: ConsumerNetwork) -> None:
    with Meter(network.host, ECHO4) as udp, Meter(network.host, ECHO6, kind="tcp") as tcp:
        udp.wait_for(lambda _: True)
        tcp.wait_for(lambda _: True)
        began = network.wan.drop()
        time.sleep(0.5)
        ended = network.wan.restore()
        for meter in (udp, tcp):
            meter.wait_for(lambda _: True, since=ended)
            found = longest(meter.samples(began))
            assert -0.1 < found.seconds - (ended - began) < 1.0, "slack for a loaded machine"
            assert found.lost > 20
        assert sources(udp.stop()) == [network.wan.address4]


def test_upstream_death_leaves_the_gateway_alive(network: ConsumerNetwork) -> None:
    network.wan.drop(gateway_answers=True)
    assert ask(network.host, ECHO4, timeout_s=0.3) is None
    assert ask(network.host, network.wan.gateway4, kind="dns") == network.wan.address4
    network.wan.drop()
    assert ask(network.host, network.wan.gateway4, kind="dns", timeout_s=0.3) is None
    network.wan.restore()
    assert ask(network.host, ECHO4, timeout_s=5.0) == network.wan.address4


def test_loss_in_percent_loses_some(network: ConsumerNetwork) -> None:
    with Meter(network.host, ECHO4, rate_hz=200) as meter:
        meter.wait_for(lambda _: True)
        began = network.wan.drop(30)
        time.sleep(1.0)
        found = meter.samples(began, time.monotonic())
    assert 0.2 < lost(found) / len(found) < 0.8  # both directions: 1 - 0.7 * 0.7


def test_carrier_loss_is_seen_by_the_router(network: ConsumerNetwork) -> None:
    def carrier() -> bool:
        return "NO-CARRIER" not in network.consumer.sh("ip -o link show wan")

    assert carrier()
    network.wan.carrier_down()
    until(carrier, lambda seen: not seen)
    network.wan.remove_routes()
    assert "default" not in network.consumer.sh("ip route; ip -6 route")
    network.wan.carrier_up()
    network.wan.add_routes()
    until(carrier, bool)
    until(lambda: ask(network.host, ECHO4), lambda seen: seen == network.wan.address4)
    until(lambda: ask(network.host, ECHO6), lambda seen: seen == network.wan.address6)


@pytest.mark.parametrize("underlay", ["neighbour", "wan"])
def test_tunnel_through_the_provider(network: ConsumerNetwork, underlay: str) -> None:
    provider_wan = network.provider_wans[0]
    provider = make_provider(network.lab, network.providers[0])
    link = network.neighbours[0]
    endpoint = link.provider4 if underlay == "neighbour" else provider_wan.address4
    consumer = connect(network, provider, endpoint)
    consumer.sh("ip route add default dev wgt table 9\nip -6 route add default dev wgt table 9")
    consumer.sh("ip rule add oif wgt lookup 9\nip -6 rule add oif wgt lookup 9")
    assert ask(consumer, ECHO4, device="wgt", timeout_s=5.0) == provider_wan.address4
    assert ask(consumer, ECHO6, device="wgt", kind="tcp") == provider_wan.address6
    assert (
        ask(consumer, provider.tunnel4, kind="dns", name="example.org", device="wgt") == RESOLVED4
    )
    (public,) = provider.admitted
    age_s = provider.handshake_age_s(public)
    assert age_s is not None and age_s < 30
    network.wan.drop()
    alive = ask(consumer, ECHO4, device="wgt", timeout_s=1.0)
    assert alive == (provider_wan.address4 if underlay == "neighbour" else None)
    provider.expel(public)
    assert provider.handshake_age_s(public) is None


def test_variants(lab: Lab) -> None:
    network = consumer_network(lab, neighbour=False, second_wan=True, providers=2)
    assert network.neighbours == () and network.wan2 is not None
    assert ask(network.host, ECHO4) == network.wan.address4
    assert ask(network.consumer, ECHO4, device="wan2") == network.wan2.address4
    assert ask(network.consumer, ECHO6, device="wan2") == network.wan2.address6
    network.wan.remove_routes()
    assert ask(network.host, ECHO4) == network.wan2.address4
    made = [
        make_provider(lab, node, peer_id=f"node{place}", place=place, resolver=False)
        for place, node in enumerate(network.providers)
    ]
    assert made[0].tunnel4 != made[1].tunnel4
    assert made[1].offer("198.51.100.7")["endpoint"]["public_key"] == made[1].public_key
    assert {wan.address4 for wan in network.provider_wans} == {"203.0.113.2", "203.0.113.10"}


def test_a_node_has_its_own_run_and_resolvers(lab: Lab) -> None:
    near, far = lab.node("near"), lab.node("far")
    near.sh("touch /run/here")
    near.resolvers("192.0.2.53")
    assert "here" not in far.sh("ls /run")
    assert near.sh("cat /etc/resolv.conf") == "nameserver 192.0.2.53\n"
    assert far.run(["grep", "-c", "192.0.2.53", "/etc/resolv.conf"], check=False).stdout != "1\n"
    near.resolvers("192.0.2.54")
    assert near.sh("cat /etc/resolv.conf") == "nameserver 192.0.2.54\n"


def test_a_failed_command_says_where_and_why(lab: Lab) -> None:
    node = lab.node("router")
    with pytest.raises(LabError, match=r"router: ip link show nosuch failed: .*nosuch"):
        node.run(["ip", "link", "show", "nosuch"])
    with pytest.raises(LabError, match=r"router: sleep 55 took longer than 0.2 s"):
        node.run(["sleep", "55"], timeout_s=0.2)
    assert "sleep" not in inhabitants({os.readlink(f"/proc/{node.pid}/ns/pid")})


def test_a_child_is_killed_itself_and_not_its_waiter(lab: Lab) -> None:
    child = lab.at_close(lab.node("router").popen(["sleep", "60"]))
    pid = child.pid
    assert child.kill() == -signal.SIGKILL
    assert not os.path.exists(f"/proc/{pid}")


@pytest.mark.parametrize("pause_s", [0.0, 0.3])
@pytest.mark.parametrize("end", [Child.stop, Child.kill])
def test_a_child_that_was_stopped_ends(
    lab: Lab, end: Callable[[Child], int], pause_s: float
) -> None:
    """nsenter, which started it, stops with it."""
    child = lab.node("router").popen(["sleep", "60"])
    assert child.pid
    child.signal(signal.SIGSTOP)
    time.sleep(pause_s)
    began = time.monotonic()
    assert end(child) != 0
    assert time.monotonic() - began < 3.0


def inhabitants(namespaces: set[str]) -> list[str]:
    """The processes that live in one of these pid namespaces, by name."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{pid}/ns/pid") in namespaces:
                with open(f"/proc/{pid}/comm", encoding="utf-8") as file:
                    found.append(file.read().strip())
        except OSError:
            continue
    return found


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_stays_when_the_maker_is_killed(namespaces: None, number: signal.Signals) -> None:
    maker = subprocess.Popen(
        program("left_alone", packages=True),
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": PROJECT},
    )
    try:
        assert maker.stdout is not None
        folder, *lines = maker.stdout.readline().split()
        living = inhabitants(set(lines))
        assert len(living) >= len(lines) == 6, "one first process in each node, and servers"
        assert os.path.isdir(folder)
    finally:
        maker.send_signal(number)
        maker.wait(10)
        maker.stdout.close()
    until(lambda: inhabitants(set(lines)), lambda living: not living)
    until(lambda: os.path.exists(folder), lambda there: not there)


def test_nothing_stays_after_closing(namespaces: None) -> None:
    with Lab() as lab:
        network = consumer_network(lab)
        make_provider(lab, network.providers[0])
        lines = {os.readlink(f"/proc/{node.pid}/ns/pid") for node in lab.nodes}
        folder = lab.folder
        assert inhabitants(lines)
    assert not inhabitants(lines)
    assert not os.path.exists(folder)
    lab.close()


class StandIn(Service):
    """A service that only answers, so that what runs services is tested without ours."""

    @property
    def argv(self) -> list[str]:
        return program("stand_in", self.socket, packages=True)


async def test_a_service_answers_inside_and_outside_its_node(lab: Lab) -> None:
    service = StandIn(lab, lab.node("router"), "config x 'y'\n")
    with open(service.config_file, encoding="utf-8") as file:
        assert file.read() == "config x 'y'\n"
    await asyncio.to_thread(service.start)
    assert service.expect("uplink_list") == {"method": "uplink_list"}
    client = Client(service.socket)
    await client.connect()
    assert await client.call(OBJECT, "uplink_list") == {"method": "uplink_list"}
    await client.close()
    first = service.pid
    service.kill()
    assert not os.path.exists(f"/proc/{first}")
    with pytest.raises(BusError):
        service.expect("uplink_list")
    await asyncio.to_thread(service.start)
    assert service.pid != first
    assert service.call("uplink_list").status == 0
    assert service.log().count("up") == 2
    service.restart()
    assert service.call("uplink_list").data == {"method": "uplink_list"}


def test_a_service_that_does_not_start_shows_its_log(lab: Lab) -> None:
    class Broken(Service):
        @property
        def argv(self) -> list[str]:
            return [sys.executable, "-c", "raise SystemExit('no such thing')"]

    with pytest.raises(LabError, match=r"(?s)router is not up.*no such thing"):
        Broken(lab, lab.node("router"), "").start()


def test_refusal_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = tmp_path / "unshare"
    fake.write_text("#!/bin/sh\necho 'unshare failed: Operation not permitted' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    reason = refused()
    assert reason is not None
    assert "no laboratory" in reason
    assert "Operation not permitted" in reason


def test_outages_by_hand() -> None:
    times = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    answered = [True, False, False, True, True, False]
    found = [
        Sample(seq, sent, sent + 0.01 if good else None, "a" if good else None)
        for seq, (sent, good) in enumerate(zip(times, answered, strict=True))
    ]
    assert [(round(o.seconds, 6), o.lost) for o in outages(found)] == [(0.2, 2), (0.0, 1)]
    assert longest(found).began == 0.1
    assert lost(found) == 3
    assert longest(found[:1]).seconds == 0.0


def test_host_address_is_its_own(network: ConsumerNetwork) -> None:
    assert network.host.addresses("eth0")[0] == f"{HOST4}/24"
