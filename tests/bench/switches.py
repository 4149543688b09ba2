"""How long traffic stops when a line fails, what is lost on the way back, and what leaks meanwhile.

Owns the faults of one router's line and of its provider's, and the flows that are watched: a LAN
host's in both families, its look-ups at the line's resolver, and the router's own.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

from tests.lab.capture import UDP, Capture, Packet
from tests.lab.lab import Lab
from tests.lab.meter import Meter, lost, settled
from tests.lab.network import ECHO4, ECHO6, PROBED4, PROBED6, consumer_network
from tests.lab.node import LabError
from tests.lab.provider import make_provider
from tests.lab.router import Router, settings, states

from .table import Row

RESOLVER = "8.8.8.8"
ECHOES = (ECHO4, ECHO6)
HOLD_S = 1.0
HALF_EACH_WAY = 29  # percent: half of the round trips


@dataclass(slots=True)
class Found:
    """What was measured, one value a run."""

    silent_s: list[float] = field(default_factory=list)
    first_s: list[float] = field(default_factory=list)
    carrier_s: list[float] = field(default_factory=list)
    failback_lost: list[float] = field(default_factory=list)
    leaked: list[float] = field(default_factory=list)
    rightly_sent: int = 0


def measure_fast_pace(runs: int) -> list[Row]:
    """Silent death, carrier loss, failback, leaks and half of the packets lost."""
    with Lab() as lab:
        router = _begin(lab, "fast")
        wan, found = router.network.wan, Found()

        def unplug() -> float:
            began = wan.carrier_down()
            if len(found.carrier_s) % 2:
                wan.remove_routes()  # as netifd does; without it the kernel keeps them
            return began

        def plug_in() -> float:
            mended = wan.carrier_up()
            wan.add_routes()
            return mended

        for _ in range(runs):
            found.silent_s.append(_fail(router, wan.drop, wan.restore, found))
        for _ in range(runs):
            found.carrier_s.append(_fail(router, unplug, plug_in, found))
        noticed = [_half(router) for _ in range(runs)]
    seen = f"{found.rightly_sent} packets of these flows were seen on the line in all"
    return [
        _row("silent death, fast pace", "s", found.silent_s, 0.5),
        _row("carrier loss", "s", found.carrier_s, 0.05),
        _row("failback, packets lost of 100 Hz", "packets", found.failback_lost, 3),
        Row("DNS or IPv6 on the wrong path", "packets", tuple(found.leaked), 0, "worst", seen),
        _row("half of the packets lost: noticed, fast pace", "s", noticed, 1.0),
    ]


def measure_default_pace(runs: int) -> list[Row]:
    """The same death and the same loss for those who change no option."""
    with Lab() as lab:
        router = _begin(lab, "default")
        wan, found = router.network.wan, Found()
        for _ in range(runs):
            found.silent_s.append(_fail(router, wan.drop, wan.restore, found))
        noticed = [_half(router) for _ in range(runs)]
    return [
        _row("silent death, default pace", "s", found.silent_s, 2.0),
        _row("silent death, default pace: first new connection", "s", found.first_s, 0.5),
        _row("half of the packets lost: noticed, default pace", "s", noticed, 1.0),
    ]


def measure_lost_provider(runs: int) -> list[Row]:
    """The line of the provider in use dies, again and again, and the other takes over."""
    gaps = []
    with Lab() as lab:
        network = consumer_network(lab, providers=2)
        providers = [
            make_provider(lab, node, peer_id=peer_id, place=place)
            for place, (node, peer_id) in enumerate(
                zip(network.providers, ("nodea", "nodeb"), strict=True)
            )
        ]
        main = settings(("nodea", "nodeb"), pace="fast", check_interval=1)
        router = Router.build(network, providers, main)
        router.uplinks = router.uplinks.replace("weight '10'", "weight '20'", 1)  # nodea's
        router.configure(main)
        router.start()
        network.wan.drop()
        router.wait_failed_over("wgup_nodea")
        for number in range(runs):
            used, other = network.provider_wans[number % 2], network.provider_wans[1 - number % 2]
            with Meter(network.host, ECHO4) as ipv4, Meter(network.host, ECHO6) as ipv6:
                settled(ipv4, ipv6)
                time.sleep(random.uniform(0.1, 0.3))
                began = used.drop()
                answered = [
                    meter.wait_for_source(source, since=began).received or 0.0
                    for meter, source in ((ipv4, other.address4), (ipv6, other.address6))
                ]
            gaps.append(max(answered) - began)
            used.restore()
            router.wait(lambda s: all(u["usable"] and u["state"] == "up" for u in s["uplinks"]))
    return [_row("the provider loses its own WAN: traffic on the next", "s", gaps, 1.0)]


def _row(name: str, unit: str, values: list[float], limit: float) -> Row:
    return Row(name, unit, tuple(values), limit)


def _begin(lab: Lab, pace: str) -> Router:
    network = consumer_network(lab)
    network.consumer.resolvers(*network.wan.gateways)
    provider = make_provider(lab, network.providers[0])
    # The captures tell probes from look-ups by their targets.
    main = settings(targets=(*PROBED4, *PROBED6), pace=pace, hold_time=int(HOLD_S))
    router = Router.build(network, [provider], main)
    router.start()
    return router


def _fail(
    router: Router, fault: Callable[[], float], mend: Callable[[], float], found: Found
) -> float:
    """One outage and the way back: seconds until both families' flows were answered again."""
    network, provider_wan = router.network, router.network.provider_wans[0]
    with ExitStack() as stack:
        captures = [Capture(network.consumer, device) for device in ("wan", "mesh0")]
        for capture in captures:
            stack.callback(capture.stop)
        ipv4 = stack.enter_context(Meter(network.host, ECHO4))
        ipv6 = stack.enter_context(Meter(network.host, ECHO6))
        own = stack.enter_context(Meter(network.consumer, RESOLVER, kind="dns", rate_hz=50))
        asked = network.wan.gateway4
        theirs = stack.enter_context(Meter(network.host, asked, kind="dns", rate_hz=50))
        new = [stack.enter_context(Meter(network.host, a, kind="tcp", rate_hz=50)) for a in ECHOES]
        settled(ipv4, ipv6, own, theirs, *new)
        router.wait_primary()
        time.sleep(random.uniform(0.1, 0.3))  # not always at the same moment between two probes
        began = fault()
        by_uplink = zip(new, provider_wan.addresses, strict=True)
        firsts = [meter.wait_for_source(way, since=began) for meter, way in by_uplink]
        found.first_s.append(max(sample.received or 0.0 for sample in firsts) - began)
        first4 = ipv4.wait_for_source(provider_wan.address4, since=began)
        first6 = ipv6.wait_for_source(provider_wan.address6, since=began)
        moved = {
            ECHO6: first6.seq,
            RESOLVER: own.wait_for_source(provider_wan.address4, since=began).seq,
            # Whichever resolver serves in its place: the WAN is dead.
            asked: theirs.wait_for(lambda _: True, since=began + 0.1).seq,
        }
        router.wait_failed_over()
        time.sleep(0.5)
        mended = mend()
        for meter, source in ((ipv4, network.wan.address4), (ipv6, network.wan.address6)):
            meter.wait_for_source(source, since=mended)
        time.sleep(0.3)
        found.failback_lost.append(float(max(lost(m.samples(mended)) for m in (ipv4, ipv6))))
    wan, underlay = (capture.packets for capture in captures)
    ends = mended + HOLD_S - 0.1  # before that no traffic may be back
    found.leaked.append(float(count_leaks(wan, underlay, moved, ends)))
    before = [p for p in wan if p.protocol == UDP and p.leaves and p.target in moved]
    if not before:
        raise LabError("the capture saw none of the flows")
    found.rightly_sent += len(before)
    return max(first4.received or 0.0, first6.received or 0.0) - began


def count_leaks(
    wan: list[Packet], underlay: list[Packet], moved: dict[str, int], ends: float
) -> int:
    """Packets of a moved flow that left by the line, and any that left bare by the underlay.

    `moved` is the first packet of each flow that took the tunnel. What was sent before it may
    wait in a queue for the dead line, and leave when that is mended.
    """
    by_line = [
        p
        for p in wan
        if p.leaves and p.target in moved and p.number >= moved[p.target] and p.at_s < ends
    ]
    bare = [p for p in underlay if p.leaves and (p.target in moved or p.target_port == 53)]
    return sum(p.protocol == UDP for p in by_line + bare)


def _half(router: Router) -> float:
    """Seconds until the status says that a family is not well any more."""
    router.wait_primary()
    network = router.network
    with Meter(network.host, ECHO4, rate_hz=20) as ipv4:
        settled(ipv4)
        time.sleep(random.uniform(0.3, 0.8))
        router.wait_primary()
        began = network.wan.drop(HALF_EACH_WAY)
        try:
            router.wait(lambda s: states(s) != {"primary"})
            return time.monotonic() - began
        finally:
            network.wan.restore()
