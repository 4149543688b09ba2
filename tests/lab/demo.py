"""The main job as a story that a person can read: `make run`.

A consumer and a provider, each with a bus and a service of its own, a LAN host that never stops
sending, a WAN that dies twice. Everything is driven by calls on the bus and shown as it happens;
at the end a table of what was lost. Exits 0 if the traffic moved and came back each time.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .lab import Lab
from .meter import Meter, Outage, longest
from .network import ECHO4, ECHO6, ConsumerNetwork, consumer_network
from .node import LabError
from .provider import Provider, make_provider
from .service import Service

PEER = "nodea"
RATE_HZ = 100.0
HOLD_S = 3
SETTLE_S = 1.5
WAIT_S = 20.0

CONSUMER_CONFIG = f"""\
config wireguard-uplink 'uplink'
	option enabled '1'
	option auto_failover '1'
	option check_interval '30'
	option failover_timeout '10'
	option pace 'fast'
	option hold_time '{HOLD_S}'
	list trusted_peer '{PEER}'
"""
PROVIDER_CONFIG = """\
config wireguard-uplink 'uplink'
	option enabled '1'
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the summary: what happened, to which flow, what it cost."""

    what: str
    flow: str
    gap: Outage


class Timeline:
    """Prints what happens with the seconds since the beginning."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        """One line."""
        print(f"{time.monotonic() - self._began:6.2f} s  {text}", flush=True)

    def title(self, text: str) -> None:
        """A heading."""
        print(f"\n{text}", flush=True)


@dataclass(frozen=True, slots=True)
class Story:
    """The actors."""

    net: ConsumerNetwork
    provider: Provider
    consumer_service: Service
    provider_service: Service
    timeline: Timeline


def build(lab: Lab, timeline: Timeline) -> Story:
    """Routers, lines, services: everything up and healthy."""
    timeline.title("A lab of routers")
    net = consumer_network(lab)
    provider = make_provider(lab, net.providers[0], peer_id=PEER)
    say = timeline.say
    say("host -- consumer ==wan== isp1 -- internet -- isp2 ==wan== provider")
    say("         consumer ------- neighbour link without internet ------- provider")
    say(f"tunnels are made by {'the kernel' if provider.kind == 'kernel' else provider.kind}")
    services = []
    for node, config in ((net.consumer, CONSUMER_CONFIG), (net.providers[0], PROVIDER_CONFIG)):
        service = Service(lab, node, config)
        took_s = service.start()
        say(f"{node.name}: luci.wireguard-dashboard answers on its bus {took_s:.2f} s after start")
        services.append(service)
    return Story(net, provider, services[0], services[1], timeline)


def add_uplink(story: Story) -> None:
    """The offer, the add, the handshake: three calls on the consumer's bus."""
    say = story.timeline.say
    story.timeline.title("An uplink, by calls on the consumer's bus")
    wan = wait_until(
        lambda: story.provider_service.expect("uplink_status")["primary"],
        lambda primary: primary["state"] == "up",
    )
    say(f"provider: uplink_status says its WAN is {wan['state']}, {wan['latency_ms']:.1f} ms")
    offer = story.provider.offer(story.net.neighbours[0].provider4)
    told = story.consumer_service.expect("uplink_gossip", {"message": offer})
    say(f"uplink_gossip, the offer of {offer['peer_id']}: {told['message']}")
    added = story.consumer_service.expect("uplink_add", {"peer_id": PEER})
    say(f"uplink_add {PEER}: {added['message']}")
    say(f"  {added['interface']} with {added['address']} to {added['endpoint']}")
    story.provider.admit(added["public_key"], [added["address"], added["address6"]])
    say("the provider admits the consumer's public key")
    uplink = wait_until(
        lambda: story.consumer_service.expect("uplink_status")["uplinks"][0],
        lambda found: found["state"] == "up" and found["handshake_age_s"] >= 0,
    )
    say(f"handshake done; leaves by {uplink['underlay']}, which has no internet of its own")
    tested = story.consumer_service.expect("uplink_test", {"peer_id": PEER, "count": 3})
    say(
        f"uplink_test {PEER}: {tested['received']} of {tested['sent']} probes of "
        f"{tested['target']} answered through the tunnel, {tested['latency_ms']:.1f} ms"
    )


def wait_until(
    read: Callable[[], dict[str, Any]], fits: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    """Read until it fits; LabError after WAIT_S."""
    deadline = time.monotonic() + WAIT_S
    while not fits(found := read()):
        if time.monotonic() > deadline:
            raise LabError(f"it did not come about within {WAIT_S:g} s; last seen: {found}")
        time.sleep(0.1)
    return found


def break_and_mend(
    story: Story,
    meters: dict[str, Meter],
    what: str,
    break_it: Callable[[], object],
    mend_it: Callable[[], object],
) -> list[Row]:
    """One death of the WAN and its return, told as it shows in the host's packets."""
    timeline, net = story.timeline, story.net
    rows: list[Row] = []
    timeline.title(f"The WAN dies: {what}")
    died = time.monotonic()
    break_it()
    timeline.say("the WAN is dead")
    away = {"IPv4": net.provider_lines[0].address4, "IPv6": net.provider_lines[0].address6}
    home = {"IPv4": net.wan.address4, "IPv6": net.wan.address6}
    for flow, meter in meters.items():
        sample = meter.wait_for_source(away[flow], since=died, timeout_s=WAIT_S)
        timeline.say(
            f"{flow}: the internet sees {sample.source}, the provider's address; first answer "
            f"{((sample.received or 0) - died) * 1000:.0f} ms after the death"
        )
    status = story.consumer_service.expect("uplink_status")
    timeline.say(f"uplink_status: {status['state']} on {status['active_path']}: {status['cause']}")
    time.sleep(SETTLE_S)
    mended = time.monotonic()
    rows += [Row(what, f, longest(m.samples(died, mended))) for f, m in meters.items()]
    timeline.title("The WAN is back")
    mend_it()
    timeline.say(f"it must answer for {HOLD_S} s before traffic goes back (hold_time)")
    for flow, meter in meters.items():
        sample = meter.wait_for_source(home[flow], since=mended, timeout_s=WAIT_S)
        back_s = (sample.received or 0) - mended
        timeline.say(f"{flow}: the internet sees {sample.source} again after {back_s:.1f} s")
    time.sleep(SETTLE_S)
    rows += [Row("failback", f, longest(m.samples(mended))) for f, m in meters.items()]
    return rows


def show_summary(story: Story, rows: Sequence[Row]) -> None:
    """What was lost, and the history as the service tells it."""
    print(f"\nWhat a LAN host lost ({RATE_HZ:.0f} packets a second in each family)\n")
    print(f"  {'event':<34}{'flow':<7}{'longest gap':>12}{'packets lost':>14}")
    for row in rows:
        gap = f"{row.gap.seconds * 1000:.0f} ms"
        print(f"  {row.what:<34}{row.flow:<7}{gap:>12}{row.gap.lost:>14}")
    print("\nwgctl uplink history\n")
    print(story.consumer_service.wgctl("uplink", "history").stdout, flush=True)


def tell(story: Story) -> None:
    """The whole story."""
    add_uplink(story)
    wan = story.net.wan

    def plug_in() -> None:
        wan.carrier_up()

    with (
        Meter(story.net.host, ECHO4, rate_hz=RATE_HZ) as ipv4,
        Meter(story.net.host, ECHO6, rate_hz=RATE_HZ) as ipv6,
    ):
        meters = {"IPv4": ipv4, "IPv6": ipv6}
        time.sleep(SETTLE_S)
        rows = break_and_mend(story, meters, "packets silently dropped", wan.drop, wan.restore)
        rows += break_and_mend(story, meters, "carrier lost", wan.carrier_down, plug_in)
    show_summary(story, rows)


def main() -> int:
    """Run it; 0 if the traffic moved and came back each time."""
    timeline = Timeline()
    try:
        with Lab() as lab:
            story = build(lab, timeline)
            try:
                tell(story)
            except LabError:
                print(story.consumer_service.log(), file=sys.stderr)
                raise
    except LabError as error:
        print(f"the demonstration failed: {error}", file=sys.stderr)
        return 1
    timeline.say("done; every namespace, process and rule of it is gone again")
    return 0


if __name__ == "__main__":
    sys.exit(main())
