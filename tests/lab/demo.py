"""The main job as a story that a person can read: `make run`.

Two routers of a WireGuard mesh, each with a bus and a service of its own, a LAN host that never
stops sending, a WAN that dies twice. Everything is driven by calls on the bus and shown as it
happens; at the end a table of what was lost. Exits 0 if the traffic moved and came back each time.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .lab import Lab
from .mesh import MeshRouter, mesh_network
from .meter import Meter, Outage, longest
from .network import ECHO4, ECHO6
from .node import LabError
from .service import Service

HOME, PEER = "home", "nodea"
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
	option node_id '{HOME}'
	option min_uplinks '0'
"""
PROVIDER_CONFIG = f"""\
config wireguard-uplink 'uplink'
	option enabled '1'
	option node_id '{PEER}'
	option min_uplinks '0'
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

    home: MeshRouter
    peer: MeshRouter
    consumer_service: Service
    provider_service: Service
    timeline: Timeline


def build(lab: Lab, timeline: Timeline) -> Story:
    """Routers, lines, services: everything up and healthy."""
    timeline.title("A lab of routers")
    routers = mesh_network(lab, [HOME, PEER], hosts=[HOME])
    home, peer = routers[HOME], routers[PEER]
    say = timeline.say
    say(f"host -- {HOME} ==wan== isp1 -- internet -- isp2 ==wan== {PEER}")
    say(f"        {HOME} ------ segment without internet ------ {PEER}")
    say(f"        {HOME} ------ WireGuard mesh over the segment ------ {PEER}")
    services = []
    for router, config in ((home, CONSUMER_CONFIG), (peer, PROVIDER_CONFIG)):
        service = Service(lab, router.node, config)
        took_s = service.start()
        say(
            f"{router.name}: luci.wireguard-dashboard answers on its bus {took_s:.2f} s after start"
        )
        services.append(service)
    return Story(home, peer, services[0], services[1], timeline)


def add_uplink(story: Story) -> None:
    """Trust, offer, add: one call each, and nobody copies a key."""
    say = story.timeline.say
    story.timeline.title("An uplink, by calls on the two buses")
    for service, name, other in (
        (story.consumer_service, HOME, PEER),
        (story.provider_service, PEER, HOME),
    ):
        wait_for_peer(service, other)
        told = service.expect("uplink_trust_accept", {"peer_id": other})
        say(f"{name}: uplink_trust_accept {other}: {told['message']}")
    told = story.provider_service.expect("uplink_offer", {"bandwidth_mbps": 100})
    say(f"{PEER}: uplink_offer: {told['message']}")
    offer = wait_until(
        lambda: story.consumer_service.expect("uplink_list"),
        lambda found: any(row["usable"] for row in found["offers"]),
    )["offers"][0]
    say(f"{HOME}: uplink_list: {offer['peer_id']} offers {offer['bandwidth_mbps']} Mbit/s")
    added = story.consumer_service.expect("uplink_add", {"peer_id": PEER})
    say(f"{HOME}: uplink_add {PEER}: {added['message']}")
    say(f"  {added['interface']} with {added['address']} to {added['endpoint']}")
    uplink = wait_until(
        lambda: story.consumer_service.expect("uplink_status")["uplinks"][0],
        lambda found: found["state"] == "up" and found["handshake_age_s"] >= 0,
    )
    say(f"the tunnel is up; it leaves by {uplink['underlay']}, which has no internet of its own")
    tested = story.consumer_service.expect("uplink_test", {"peer_id": PEER, "count": 3})
    say(
        f"{HOME}: uplink_test {PEER}: {tested['received']} of {tested['sent']} probes of "
        f"{tested['target']} answered through the tunnel, {tested['latency_ms']:.1f} ms"
    )
    wait_until(
        lambda: story.consumer_service.expect("uplink_status"),
        lambda found: found["primary"]["state"] == "up" and found["uplinks"][0]["usable"],
    )


def wait_for_peer(service: Service, peer_id: str) -> None:
    """Until the peer has said over the mesh who it is."""
    wait_until(
        lambda: service.expect("uplink_trust"),
        lambda found: any(row["peer_id"] == peer_id for row in found["peers"]),
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
    timeline = story.timeline
    rows: list[Row] = []
    timeline.title(f"The WAN dies: {what}")
    died = time.monotonic()
    break_it()
    timeline.say("the WAN is dead")
    away = {"IPv4": story.peer.wan.address4, "IPv6": story.peer.wan.address6}
    home = {"IPv4": story.home.wan.address4, "IPv6": story.home.wan.address6}
    for flow, meter in meters.items():
        sample = meter.wait_for_source(away[flow], since=died, timeout_s=WAIT_S)
        timeline.say(
            f"{flow}: the internet sees {sample.source}, {PEER}'s address; first answer "
            f"{((sample.received or 0) - died) * 1000:.0f} ms after the death"
        )
    status = story.consumer_service.expect("uplink_status")
    timeline.say(f"uplink_status: {status['state']} on {status['active_path']}: {status['cause']}")
    time.sleep(SETTLE_S)
    mended = time.monotonic()
    rows += [Row(what, f, longest(m.samples(died, mended))) for f, m in meters.items()]
    timeline.title("The WAN is back")
    mend_it()
    timeline.say(
        f"it must answer for {HOLD_S} s before traffic goes back (hold_time), "
        "twice as long each time that it fails again soon"
    )
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
    wan, host = story.home.wan, story.home.host
    if host is None:
        raise LabError("the lab has no LAN host")
    with Meter(host, ECHO4, rate_hz=RATE_HZ) as ipv4, Meter(host, ECHO6, rate_hz=RATE_HZ) as ipv6:
        meters = {"IPv4": ipv4, "IPv6": ipv6}
        time.sleep(SETTLE_S)
        rows = break_and_mend(story, meters, "packets silently dropped", wan.drop, wan.restore)
        rows += break_and_mend(story, meters, "carrier lost", wan.carrier_down, wan.carrier_up)
    show_summary(story, rows)
    print(f"wgctl uplink consumers, on {PEER}\n")
    print(story.provider_service.wgctl("uplink", "consumers").stdout, flush=True)


def main() -> int:
    """Run it; 0 if the traffic moved and came back each time."""
    timeline = Timeline()
    try:
        with Lab() as lab:
            story = build(lab, timeline)
            try:
                tell(story)
            except LabError:
                print(story.consumer_service.log(), story.provider_service.log(), file=sys.stderr)
                raise
    except LabError as error:
        print(f"the demonstration failed: {error}", file=sys.stderr)
        return 1
    timeline.say("done; every namespace, process and rule of it is gone again")
    return 0


if __name__ == "__main__":
    sys.exit(main())
