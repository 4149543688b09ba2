"""What else moves traffic to a second WAN, beside ours in the same run: a ping script, keepalived
and mwan3, as many of them as are here.

Each has a laboratory of its own with two WANs and no tunnel; the laboratories are there at once and
take turns with the same fault. What counts is the first new IPv4 connection by the second WAN.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from tests.lab import mwan3
from tests.lab.lab import Lab
from tests.lab.meter import Meter
from tests.lab.network import ECHO4, RESOLVERS4, ConsumerNetwork, consumer_network
from tests.lab.node import LabError, missing_tools
from tests.lab.provider import make_providers
from tests.lab.router import Router, settings

from .table import Row, quantile

METRIC = 10
TARGETS = (ECHO4, *RESOLVERS4)  # one after another: ours keeps each on its way for a minute
HOME_S = 90.0
USED_S = 3.0
RATE_HZ = 50.0
BFD_MS, BFD_LOSSES = 50, 3
KEEPALIVED = """\
bfd_instance far {{
	neighbor_ip {far}
	source_ip {near}
	min_rx {bfd_ms}
	min_tx {bfd_ms}
	multiplier {losses}
}}
"""
MOVES_ROUTE = """\
vrrp_instance wan {{
	version 3
	state MASTER
	interface lan
	virtual_router_id 51
	priority 200
	advert_int 0.1
	track_bfd {{
		far
	}}
	virtual_ipaddress {{
		192.168.1.254/24 dev lan
	}}
	virtual_routes {{
		0.0.0.0/0 via {far} dev wan metric {metric}
	}}
}}
"""


@dataclass(frozen=True, slots=True)
class Peer:
    """One of those that are compared. `begin` starts it in a network of its own, `missing` says
    what is not here of what it needs. A slow one has a single run for `per_run` of the others'.
    """

    name: str
    begin: Callable[[ConsumerNetwork], None]
    missing: Callable[[], list[str]] = list
    given_up_s: float = 8.0
    per_run: int = 1


def _begin_ours(network: ConsumerNetwork) -> None:
    """With an uplink, which is not needed, since without one nothing is steered."""
    router = Router.build(network, make_providers(network), settings(pace="default", hold_time=1))
    router.start()


def _begin_ping(network: ConsumerNetwork) -> None:
    script = os.path.join(os.path.dirname(__file__), "ping.sh")
    wan = network.wan
    argv = ["sh", script, wan.device, wan.gateway4, str(METRIC), RESOLVERS4[0]]
    network.lab.at_close(network.consumer.popen(argv))


def _begin_keepalived(network: ConsumerNetwork) -> None:
    """BFD with the ISP's gateway, which few ISPs have; it says nothing of what is behind that."""
    wan, consumer = network.wan, network.consumer
    consumer.sh(f"ip route del default via {wan.gateway4} dev {wan.device} metric {METRIC}")
    both = {"bfd_ms": BFD_MS, "losses": BFD_LOSSES, "metric": METRIC}
    ends = (
        (consumer, KEEPALIVED + MOVES_ROUTE, wan.address4, wan.gateway4),
        (network.isp1, KEEPALIVED, wan.gateway4, wan.address4),
    )
    for node, text, near, far in ends:
        folder = os.path.dirname(network.lab.path("keepalived", node.name, "x"))
        path = os.path.join(folder, "keepalived.conf")
        with open(path, "w", encoding="ascii") as file:
            file.write(text.format(near=near, far=far, **both))
        pids = [f"{option}={os.path.join(folder, option[2:])}" for option in _PIDS]
        log = open(os.path.join(folder, "log"), "w", encoding="utf-8")  # noqa: SIM115
        argv = ["keepalived", "--dont-fork", "--log-console", f"--use-file={path}", *pids]
        network.lab.at_close(node.popen(argv, stdout=log, stderr=log))


_PIDS = ("--pid", "--vrrp_pid", "--checkers_pid", "--bfd_pid")
OURS = Peer("ours", _begin_ours)
OTHERS = (
    Peer("a ping script", _begin_ping, lambda: missing_tools(["ping"])),
    Peer(
        "keepalived with BFD to the gateway",
        _begin_keepalived,
        lambda: missing_tools(["keepalived"]),
    ),
    Peer("mwan3, one target each second, down 3", partial(mwan3.begin, tight=True), mwan3.missing),
    Peer("mwan3 as shipped", mwan3.begin, mwan3.missing, given_up_s=150.0, per_run=10),
)


def measure_peers(runs: int) -> list[Row]:
    """Ours beside each of the others that is there, at two kinds of silent death."""
    others = [peer for peer in OTHERS if not peer.missing()]
    if absent := dict.fromkeys(name for peer in OTHERS for name in peer.missing()):
        print(f"not beside all others: no {', '.join(absent)} here", file=sys.stderr, flush=True)
    found: dict[tuple[str, bool], list[float]] = {}
    with ExitStack() as stack:
        networks = {}
        for peer in (OURS, *others):
            lab = stack.enter_context(Lab())
            networks[peer.name] = consumer_network(lab, second_wan=True, wan_metric=METRIC)
            peer.begin(networks[peer.name])
        for number in range(2 * runs):
            is_far, target = number % 2 == 1, TARGETS[number % len(TARGETS)]
            for peer in (OURS, *others):
                if number // 2 % peer.per_run == 0:
                    took = _fail(networks[peer.name], is_far, target, peer.given_up_s)
                    found.setdefault((peer.name, is_far), []).append(took)
    return [
        _row(other, is_far, found[OURS.name, is_far], found[other.name, is_far])
        for is_far in (False, True)
        for other in others
    ]


def _fail(network: ConsumerNetwork, is_far: bool, target: str, given_up_s: float) -> float:
    """Seconds from a silent death, of the link or behind the gateway, to the first new connection
    to the target by the second WAN; `given_up_s` where there is none until then.
    """
    wan, wan2 = network.wan, network.wan2
    assert wan2 is not None
    with Meter(network.host, target, kind="tcp", rate_hz=RATE_HZ) as meter:
        _wait_home(meter, wan.address4)
        began = wan.drop(gateway_answers=is_far)
        try:
            first = meter.wait_for_source(wan2.address4, since=began, timeout_s=given_up_s)
            return (first.received or 0.0) - began
        except LabError:
            return given_up_s
        finally:
            wan.restore()


def _wait_home(meter: Meter, address: str) -> None:
    """Until all connections of some seconds are from the address. Ours asks a WAN that was idle
    each 2 s only; with mwan3 connections whose ports were used in the last outage leave as then.
    """
    deadline = time.monotonic() + HOME_S
    time.sleep(USED_S)
    while {sample.source for sample in meter.so_far(time.monotonic() - USED_S)} != {address}:
        if time.monotonic() > deadline:
            raise LabError(f"not home within {HOME_S:g} s")
        time.sleep(0.1)


def _row(peer: Peer, is_far: bool, ours: list[float], theirs: list[float]) -> Row:
    beside = ours[:: peer.per_run]
    ratios = tuple(mine / their for mine, their in zip(beside, theirs, strict=True))
    late = sum(each >= peer.given_up_s for each in theirs)
    note = f"p50 {quantile(beside, 0.5):.2f} s, theirs {quantile(theirs, 0.5):.2f} s"
    note += f", {late} of them not within {peer.given_up_s:g} s" if late else ""
    where = "behind the gateway" if is_far else "of the link"
    name = f"silent death {where}, new connection beside {peer.name}"
    return Row(name, "ratio", ratios, 1, "median", note)
