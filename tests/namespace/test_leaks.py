"""Nothing of the hosts' leaves by the wrong path: seen on the wires, not read from rules.

A capture on the consumer's own devices sees each packet that really leaves, after all rules. Our
probes go to targets of their own and WireGuard's packets have their port, so all else is somebody's
traffic.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.lab.capture import TCP, UDP, Capture, Packet
from tests.lab.consumers import probe_timed
from tests.lab.meter import Meter, settled
from tests.lab.network import ECHO4, ECHO6, PROBED4, PROBED6, ConsumerNetwork
from tests.lab.node import Node
from tests.lab.provider import make_provider
from tests.lab.router import Router, settings, states

pytestmark = pytest.mark.needs("conntrack")

PROBED = (*PROBED4, *PROBED6)
SETTLE_S = 0.3
WATCH_S = 1.5
ARP_S = 3.5
"""The kernel keeps what was sent before the switch so long, for a gateway that does not answer."""
FAST_S = 0.9
"""What is refused is known at once; a packet that is dropped is waited for a second and more."""


def capture(network: ConsumerNetwork, device: str) -> Capture:
    """What the router sends by a device, until the laboratory closes."""
    made = Capture(network.consumer, device)
    network.lab.at_close(made.child)
    return made


def seen(capture: Capture, since_s: float, until_s: float = float("inf")) -> list[Packet]:
    """The TCP and UDP packets that left in that time, but for our probes."""
    time.sleep(0.1)  # the last ones are still on their way to us
    return [
        packet
        for packet in capture.packets
        if packet.leaves
        and packet.protocol in (TCP, UDP)
        and since_s <= packet.at_s < until_s
        and packet.target not in PROBED
    ]


def connect(node: Node, address: str) -> tuple[str, float]:
    """What became of a connection (connected, silence or refused), and after how long."""
    said, took_s = probe_timed(node, ("connect", address, 7))[0]
    return said if said in ("connected", "silence") else "refused", took_s


@contextmanager
def traffic(network: ConsumerNetwork) -> Iterator[list[Meter]]:
    """Both families of a host, its look-ups at the line's resolver, and the router's own."""
    host, wan = network.host, network.wan
    with ExitStack() as stack:
        meters = [
            Meter(host, ECHO4, rate_hz=50),
            Meter(host, ECHO6, rate_hz=50),
            Meter(host, wan.gateway4, kind="dns", rate_hz=50),
            Meter(host, wan.gateway6, kind="dns", rate_hz=50),
            Meter(network.consumer, "8.8.8.8", kind="dns", rate_hz=50),
        ]
        for meter in meters:
            stack.enter_context(meter)
        settled(*meters)
        yield meters


@pytest.fixture
def network(network: ConsumerNetwork) -> ConsumerNetwork:
    """The router's resolvers are its ISP's, at the line's gateways."""
    network.consumer.resolvers(*network.wan.gateways)
    return network


def watched() -> float:
    """Let some time pass; the moment at which it began."""
    time.sleep(SETTLE_S)
    began = time.monotonic()
    time.sleep(WATCH_S)
    return began


@pytest.mark.parametrize("fail_closed", [1, 0], ids=["closed", "open"])
def test_a_half_dead_line_leaks_unless_it_fails_closed(
    network: ConsumerNetwork, fail_closed: int
) -> None:
    provider = make_provider(network.lab, network.providers[0])
    router = Router.build(
        network, [provider], settings(targets=PROBED, fail_closed=fail_closed, check_interval=1)
    )
    router.start()
    wire = capture(network, "wan")
    network.provider_wans[0].drop()
    router.wait(lambda s: not any(u["usable"] for u in s["uplinks"]))
    with traffic(network) as meters:
        network.wan.drop(80)
        router.wait(lambda s: states(s) == {"stranded"})
        began = watched()
        leaked = seen(wire, began)
        refused, took_s = connect(network.host, ECHO4)
        assert states(router.status()) == {"stranded"}
        mended = network.wan.restore()
        if fail_closed:
            assert leaked == []
            assert refused == "refused" and took_s < FAST_S
        else:
            ways = {(packet.version, packet.target_port) for packet in leaked}
            assert ways == {(4, 7), (6, 7), (4, 53), (6, 53)}, "the capture sees what leaks"
        router.wait(lambda s: states(s) == {"primary"})
        for meter in meters:
            meter.wait_for(lambda _: True, since=mended)


def test_a_family_that_the_uplink_cannot_carry_is_refused(network: ConsumerNetwork) -> None:
    provider = make_provider(network.lab, network.providers[0])
    router = Router.build(network, [provider], settings(targets=PROBED))
    lines = router.uplinks.splitlines()
    router.uplinks = "\n".join(x for x in lines if "list address 'fd77" not in x) + "\n"
    router.configure(settings(targets=PROBED))
    router.start()
    wan, host = network.wan, network.host
    wires = [capture(network, device) for device in ("wan", "mesh0")]
    with traffic(network) as meters:
        wan.drop(80)
        router.wait(
            lambda s: [f["state"] for f in s["families"].values()] == ["failed_over", "stranded"]
        )
        began = watched()
        assert [p for wire in wires for p in seen(wire, began) if p.version == 6] == []
        assert {p.target_port for p in seen(wires[1], began)} == {provider.listen_port}
        assert connect(host, ECHO4)[0] == "connected"
        said, took_s = connect(host, ECHO6)
        assert said == "refused" and took_s < FAST_S
        mended = wan.restore()
        router.wait(lambda s: states(s) == {"primary"})
        assert connect(host, ECHO6)[0] == "connected"
        for meter in meters:
            meter.wait_for(lambda _: True, since=mended)


@pytest.mark.parametrize("fault", ["silent", "carrier"])
def test_nothing_leaves_by_the_wrong_path_in_a_switch(network: ConsumerNetwork, fault: str) -> None:
    provider = make_provider(network.lab, network.providers[0])
    router = Router.build(network, [provider], settings(targets=PROBED))
    router.start()
    wan = network.wan
    line, link = (capture(network, device) for device in ("wan", "mesh0"))
    begun = time.monotonic()
    with traffic(network) as meters:
        for _ in range(2):
            if fault == "silent":
                wan.drop()
            else:
                wan.carrier_down()
                wan.remove_routes()
            router.wait_failed_over()
            began = watched()
            assert seen(line, began) == []
            mended = wan.restore()
            if fault == "carrier":
                time.sleep(ARP_S)
                mended = wan.carrier_up()
                wan.add_routes()
            router.wait_primary()
            back = time.monotonic()
            for meter in meters:
                meter.wait_for(lambda _: True, since=back)
            early = [p for p in seen(line, mended, mended + 0.9) if p.target_port in (7, 53)]
            assert early == [], "before the hold time is over"
    packets = seen(line, begun)
    assert {p.source for p in packets} == {*wan.addresses}
    named = {p.target for p in packets if p.target_port == 53}
    assert named <= {wan.gateway4, wan.gateway6, "8.8.8.8"}, "what the tunnel is asked stays there"
    assert {p.target_port for p in seen(link, begun)} == {provider.listen_port}
