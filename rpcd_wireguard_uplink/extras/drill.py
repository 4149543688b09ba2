"""Rehearsals: whether an uplink carries traffic now, before it must (`uplink_drill`).

The harmless kind sends only probes and look-ups of its own, bound to the tunnel: nobody's traffic
is touched. The other kind diverts the traffic for some seconds, as a failover does, and gives it
back. It ends by itself if this process dies meanwhile (steering/watchdog.py). A real failover is
never undone by the end of a drill.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import replace

from ..api import replies as r
from ..config.options import Settings
from ..config.store import ConfigStore
from ..errors import NotFound, NotSupported, NotTrusted
from ..events import Events, PeerNews
from ..failover.decision import ranked_backups
from ..failover.machine import AWAY, Change
from ..failover.monitor import Monitor
from ..mesh.offers import OfferBook
from ..mesh.registry.peers import Peers
from ..mesh.wire.offer import Offer
from ..model import Family, Health, Uplink
from ..platform.linux import Platform
from ..probing.tunnel_test import Tested, run_test
from ..reasons import because, joined
from ..steering.coordinator import SteeringCoordinator
from ..steering.plan import Diversion
from ..storage.state_file import now_text
from ..system.dns import SOA, ask
from ..uplinks.lifecycle import Uplinks
from ..values import dataclass

PROBES = 5
TARGETS = 2  # of one family: one may be down by itself
SERVERS = 3
SIZED_PROBES = 2
MOVE_S = 3.0
LOOK_S = 0.1
FAMILY_STEPS = tuple(family.value for family in Family)


@dataclass(eq=False, repr=False)
class Drills:
    """The handler of `uplink_drill`: who may be rehearsed when, and what is reported of it."""

    _store: ConfigStore
    _monitor: Monitor
    _steering: SteeringCoordinator
    _uplinks: Uplinks
    _offers: OfferBook
    _peers: Peers
    _events: Events
    _drilling: bool = False

    async def uplink_drill(
        self, peer_id: str = "", *, all_traffic: bool = False, seconds: int = 10
    ) -> r.Drilled:
        """Rehearse one uplink, or all; with `all_traffic` the best one or the given one.

        Raises NotFound, NotTrusted or NotSupported where there is nothing to rehearse now.
        """
        chosen = self._chosen(peer_id)
        if all_traffic:
            self._require_home()
            chosen = [self._best(chosen)]
        if self._drilling:
            raise NotSupported(because("drill_running"), code="drill_running")
        self._drilling = True
        begun_s = time.monotonic()
        try:
            settings, offers = self._store.current.settings, self._offers.names
            found = await asyncio.gather(
                *(rehearse(u, settings, self._monitor, offers.get(u.peer_id)) for u in chosen)
            )
            if all_traffic:
                await self._lead(chosen[0], found[0], seconds)
        finally:
            self._drilling = False
        drills = [self._record(u, steps) for u, steps in zip(chosen, found, strict=True)]
        good = sum(drill.ok for drill in drills)
        return r.Drilled(
            message=f"{good} of {len(drills)} uplinks passed the drill.",
            at=now_text(),
            took_s=round(time.monotonic() - begun_s, 1),
            drills=drills,
        )

    def _chosen(self, peer_id: str) -> list[Uplink]:
        watched = list(self._monitor.watch.uplinks) if self._monitor.paths else []
        if not peer_id:
            if not watched:
                raise NotFound(because("drill_none"), code="no_uplink")
            return watched
        uplink = self._uplinks.require(peer_id)
        if reason := self._peers.distrust_reason(peer_id):
            raise NotTrusted(reason)
        if uplink not in watched:
            raise NotSupported(because("switched_off", peer_id), code="not_watched")
        return [uplink]

    def _require_home(self) -> None:
        if any(state.phase in AWAY for state in self._monitor.states.values()):
            raise NotSupported(because("away_already"), code="failed_over")

    def _best(self, chosen: Sequence[Uplink]) -> Uplink:
        now_s, monitor = time.monotonic(), self._monitor
        by_name = {uplink.interface: uplink for uplink in chosen}
        for family in Family:
            for ranked in ranked_backups(monitor, family, now_s):
                if ranked.usable and ranked.candidate.name in by_name:
                    return by_name[ranked.candidate.name]
        raise NotSupported(because("drill_no_usable"), code="no_usable_uplink")

    async def _lead(self, uplink: Uplink, steps: list[r.DrillStep], seconds: int) -> None:
        if not any(step.ok for step in steps if step.step in FAMILY_STEPS):
            steps.append(_step("traffic", False, because("untried")))
            return
        self._require_home()
        steps.append(await lead_traffic(self._monitor, self._steering, uplink, seconds))

    def _record(self, uplink: Uplink, steps: Sequence[r.DrillStep]) -> r.DrillRow:
        """The outcome as the reply has it, written into the history."""
        bad = [step for step in steps if not step.ok]
        note = joined("; ", (because("of", step.step, step.told) for step in bad))
        kind = "drill_failed" if bad else "drill_passed"
        self._events.publish(PeerNews("drill", kind, uplink.peer_id, note or because("well")))
        return r.DrillRow.of(uplink, ok=not bad, note=note, steps=steps)


async def rehearse(
    uplink: Uplink, settings: Settings, monitor: Monitor, offer: Offer | None
) -> list[r.DrillStep]:
    """Try a tunnel without touching anybody's traffic; takes 1 to 4 s.

    Tried are the families that this router has a WAN in: no other is there to be backed up.
    `offer` is the peer's last one.
    """
    mtu = monitor.network.state.mtu_of(uplink.interface)
    able = [
        family
        for family, wans in monitor.network.state.wans.items()
        if wans.primary is not None and uplink.carries(family) and settings.targets_of(family)
    ]
    found = await asyncio.gather(
        *(_timed(_probe(uplink, family, settings)) for family in able),
        _timed(_look_up(uplink, settings)),
        *([_timed(_try_size(uplink, able[0], settings, mtu))] if mtu and able else []),
    )
    monitor.mtus.check(uplink.interface, time.monotonic())
    steps = [await _shaken(uplink, monitor.platform), *found]
    for token in offer.egress if offer is not None else ():
        name, _, address = token.partition("=")
        if name == "addr" and ":" not in address:  # of IPv6 only the network is in the offer
            told = because("exit_seen", address, uplink.peer_id)
            steps.append(_step("exit", True, told))
    return steps


def _step(step: str, ok: bool, told: str, took_ms: int = 0) -> r.DrillStep:
    return r.DrillStep(step=step, ok=ok, told=told, took_ms=took_ms)


async def _timed(work: Awaitable[r.DrillStep]) -> r.DrillStep:
    begun_s = time.monotonic()
    return (await work).replaced(took_ms=round((time.monotonic() - begun_s) * 1000))


async def _shaken(uplink: Uplink, platform: Platform) -> r.DrillStep:
    """Last, so that what the probes brought about counts."""
    counted = (await platform.read_counters()).get(uplink.interface)
    if counted is None:
        return _step("tunnel", False, because("tunnel_gone", uplink.interface))
    if counted.handshake_age_s is None:
        told = because("no_handshake_with", counted.endpoint or uplink.endpoint)
        return _step("tunnel", False, told)
    return _step("tunnel", True, because("shook_hands", f"{counted.handshake_age_s:.0f}"))


async def _best(uplink: Uplink, targets: Sequence[str], count: int, size: int = 0) -> Tested:
    tests = (run_test(uplink.interface, target, count, size) for target in targets[:TARGETS])
    return max(await asyncio.gather(*tests), key=lambda tested: tested.received)


async def _probe(uplink: Uplink, family: Family, settings: Settings) -> r.DrillStep:
    tested = await _best(uplink, settings.targets_of(family), PROBES)
    numbers = (tested.received, tested.sent or PROBES)
    told = because("probes_answered", *numbers)
    if tested.received:
        told = because("probes_answered_in", *numbers, f"{tested.latency_ms:.0f}")
    return _step(family.value, tested.received > 0, tested.error or told)


async def _try_size(uplink: Uplink, family: Family, settings: Settings, mtu: int) -> r.DrillStep:
    tested = await _best(uplink, settings.targets_of(family), SIZED_PROBES, mtu)
    told = because("size_passes" if tested.received else "size_stops", mtu)
    return _step("mtu", tested.received > 0, told)


async def _look_up(uplink: Uplink, settings: Settings) -> r.DrillStep:
    able = [
        server
        for server in dict.fromkeys((*uplink.resolvers, *settings.resolvers))
        if uplink.carries(Family.of(server))
    ][:SERVERS]
    if not able:
        return _step("dns", False, because("no_resolver"))
    found = await asyncio.gather(*(ask(server, uplink.interface, "", SOA) for server in able))
    good = [server for server, records in zip(able, found, strict=True) if records]
    if good:
        return _step("dns", True, because("resolver_answers", good[0]))
    silent = all(records is None for records in found)
    code = "resolvers_silent" if silent else "no_name_found"
    return _step("dns", False, because(code, ", ".join(able)))


async def lead_traffic(
    monitor: Monitor, steering: SteeringCoordinator, uplink: Uplink, seconds: int
) -> r.DrillStep:
    """Lead the traffic of all WANs through the uplink for so long, and back.

    Connections are cut as in a real failover. Ends early where the uplink stops answering, or where
    a WAN fails for real: then the failover stays.
    """
    diversions = list(_diversions(monitor, uplink))
    if not diversions:
        return _step("traffic", False, because("no_family"))
    before = (await monitor.platform.read_counters()).get(uplink.interface)
    begun_s = time.monotonic()
    told = because("drill_on", uplink.peer_id, seconds)
    monitor.warnings.set("drill", told)
    try:
        for diversion in diversions:
            change = Change("drill", diversion.dead[0], uplink.interface, told, 0.0)
            steering.drill(diversion, change)
        failure = await _hold(monitor, steering, uplink, diversions, begun_s + seconds)
    finally:
        lasted_s = time.monotonic() - begun_s
        for diversion in diversions:
            if monitor.states[diversion.family].phase not in AWAY:
                over = because("drill_over", uplink.peer_id)
                change = Change("drill", uplink.interface, diversion.dead[0], over, lasted_s)
                steering.end_drill(diversion.family, change)
        monitor.warnings.clear_topic("drill")
    after = (await monitor.platform.read_counters()).get(uplink.interface)
    moved = because("nothing_counted")
    if before is not None and after is not None:
        down, up = after.rx_bytes - before.rx_bytes, after.tx_bytes - before.tx_bytes
        moved = because("mb_moved", f"{down / 1e6:.2f}", f"{up / 1e6:.2f}")
    shown = " and ".join(diversion.family.value for diversion in diversions)
    found = failure or because("drilled", shown, f"{lasted_s:.0f}", moved)
    return _step("traffic", not failure, found, round(lasted_s * 1000))


def _diversions(monitor: Monitor, uplink: Uplink) -> Iterator[Diversion]:
    for family in Family:
        path = monitor.paths.get((uplink.interface, family))
        wan = monitor.network.state.wans[family].primary
        if wan is not None and path is not None and path.health.state is Health.UP:
            route = monitor.network.state.route_of(uplink.interface, family)
            yield Diversion(family, (wan.device,), replace(route, metric=0))


async def _hold(
    monitor: Monitor,
    steering: SteeringCoordinator,
    uplink: Uplink,
    diversions: Sequence[Diversion],
    until_s: float,
) -> str:
    """Wait until then; a sentence where it ended before."""
    moves_by_s = min(until_s, time.monotonic() + MOVE_S)
    has_moved = False
    while (now_s := time.monotonic()) < until_s:
        await asyncio.sleep(min(LOOK_S, until_s - now_s))
        in_force = steering.diversions
        has_moved = has_moved or all(in_force.get(each.family) == each for each in diversions)
        if not has_moved and now_s > moves_by_s:
            return monitor.warnings.get("switch", f"the traffic did not move in {MOVE_S:g} s")
        if any(monitor.states[each.family].phase in AWAY for each in diversions):
            return because("wan_failed_meanwhile")
        for each in diversions:
            path = monitor.paths.get((uplink.interface, each.family))
            if path is None or path.health.state is Health.DOWN:
                cause = path.health.cause if path is not None else because("gone", "it")
                return because("of", f"given up, {each.family.value} by it stopped to work", cause)
    return "" if has_moved else "the traffic did not move"
