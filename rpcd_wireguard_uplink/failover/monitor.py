"""Watches the paths: the only clock and the only timers.

Probes go out, answers and kernel events come in; health.py judges each path, selection.py ranks,
failover.py decides per family, and steering/ makes the kernel follow. Nothing here waits for a lock
of the configuration.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import Any

from ..config.settings import Settings
from ..errors import UplinkError
from ..model import DefaultRoute, Family, Health, PathKind, PeerCounters, Uplink
from ..platform.network_reader import NetworkReader
from ..platform.protocol import Platform
from ..probing.icmp import Prober
from ..steering.controller import RETRY_S, Report, SteeringController
from ..steering.kernel_view import KernelView
from ..steering.plan import Diversion
from ..steering.wishes import blocked_of, diversion_of
from ..system.linkwatch import LinkEvent, LinkWatch
from ..system.marks import PROBE_MARK
from ..tasks import keep_running, tell_awhile
from ..usage import Ledger
from ..warnings import Warnings
from . import machine as failover
from . import selection
from .candidates import Watch, candidates_of, learn_capacities
from .capacity import Capacity
from .detector import PathHealth
from .link_quality import Sla
from .liveness import PassiveLiveness
from .machine import AWAY, Phase, State
from .paths import PathKey, PathSet, Role, WatchedPath, backup_path, interval_s
from .tunnel_mtu import MtuWatch

LATE_S = 0.05
UNHURRIED_S, EARLY_SHARE = 1.0, 0.1  # probes that nobody waits for leave together: fewer wake-ups
LONGEST_SLEEP_S = 5.0
SETTLE_S = 0.05  # kernel events come in bursts: read once behind them
REREAD_PAUSE_S = 0.2
COUNTERS_S = 5.0
CALM_COUNTERS_S = 15.0  # while no uplink is used, and nobody asks
TAKEN_OVER = "taken over from an earlier run"
NO_LINE = "no line"


class Monitor:
    """One router's paths and the decisions about them.

    `report` hears of each change that is in force, `on_update` that something readable changed.
    `ledger` counts the uplinks' bytes by interface. `problems` maps a topic to a sentence, for
    status. `who_refuses` says who else holds a line to be dead ('': nobody): it gets no traffic
    back until that ends.
    """

    def __init__(
        self,
        platform: Platform,
        report: Report,
        on_update: Callable[[], None],
        run_dir: str,
    ) -> None:
        self.platform = platform
        self.problems = Warnings()
        self.network = NetworkReader(platform)
        self.steering = SteeringController(
            self.network,
            KernelView(platform.kernel),
            platform.connections,
            report,
            self.problems,
            run_dir,
        )
        self.watch = Watch(Settings())
        now_s = time.monotonic()
        self.states = {family: State(since_s=now_s, moved_s=now_s) for family in Family}
        self.paths = PathSet(self._on_reply, self.problems)
        self.liveness = PassiveLiveness(self.paths)
        self.mtus = MtuWatch(self.paths, self.network)
        self.counters: dict[str, PeerCounters] = {}
        self.ledger = Ledger()
        self.terms: Mapping[str, selection.Terms] = {}
        self.capacities: dict[str, Capacity] = {}
        self.same_wan: frozenset[str] = frozenset()
        self.portals: Mapping[str, str] = {}
        self.who_refuses: Callable[[str, Family], str] = lambda device, family: ""
        self._on_update = on_update
        self._tick_handle: asyncio.TimerHandle | None = None
        self._is_watching = False
        self._planned_s = 0.0
        self._counted_s = 0.0
        self._routes = asyncio.Event()
        self._recount = asyncio.Event()
        self._rereading = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._link_watch = LinkWatch(self._on_link, self._routes.set)

    async def start(self, watch: Watch) -> None:
        """Take over what an earlier run left open, read the kernel, and begin to watch."""
        now_s = time.monotonic()
        for family, diversion in (await self.steering.start(self._routes.set)).items():
            active = diversion.route.device
            self.states[family] = State(Phase.FAILED_OVER, active, now_s, TAKEN_OVER, now_s)
            for device in diversion.dead[:1]:
                line = DefaultRoute(family, device)
                self.network.remember(line)
        self._link_watch.start()
        self._keep("following the kernel", self._follow_routes)
        self._keep("switching", self.steering.follow)
        self._keep("following rules and routes", self.steering.follow_kernel)
        self._keep("checking resolvers", self.steering.check_resolvers)
        self._keep("keeping the diversion alive", self.steering.keep_alive)
        await self.configure(watch)
        self._keep("reading counters", self._read_counters)

    async def stop(self) -> None:
        """Stop watching; a diversion is left to lapse, or to be taken over."""
        self._link_watch.stop()
        self.steering.stop()
        if self._tick_handle is not None:
            self._tick_handle.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.paths.keep(())

    def _keep(self, name: str, begin: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._run(keep_running(name, begin, self.problems))

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def configure(self, watch: Watch) -> None:
        """Watch by new settings or other uplinks from now on."""
        if (watch.settings.targets, watch.settings.reliability) != (
            self.watch.settings.targets,
            self.watch.settings.reliability,
        ):
            self.paths.keep(())
        self.watch = watch
        for path in self.paths.values():
            self._limit(path)
        self.steering.resolvers = watch.settings.resolvers
        self.steering.drain_s = watch.settings.sticky_s
        await self.reread()

    def reread_soon(self) -> None:
        """Somebody says that an interface changed."""
        self._routes.set()

    async def reread(self) -> None:
        """Read the kernel's view and bring everything that hangs on it up to date.

        What fails is a problem that status tells, and is tried again.
        """
        async with self._rereading:
            try:
                await self._reread()
                self.problems.pop("kernel", None)
            except UplinkError as error:
                self.problems["kernel"] = str(error)
                asyncio.get_running_loop().call_later(RETRY_S, self._routes.set)

    def _tell_private(self) -> None:
        """Say where the only default route is a tunnel of the owner's: is it a WAN?"""
        for family in Family:
            topic = f"only default {family.value}"
            name = self.network.state.only_private(family)
            if name:
                self.problems[topic] = (
                    f"the only default route ({family.value}) is by {name}, a tunnel, which is not "
                    "taken for a WAN: if it is a way to the internet of its own, name it, with the "
                    f"WANs, in `list wan '{name}'` of /etc/config/wireguard-uplink"
                )
            else:
                self.problems.pop(topic, None)

    async def _reread(self) -> None:
        uplinks = self.watch.uplinks if self.watch.settings.enabled else ()
        await self.network.read(uplinks, self.watch.settings.lines)
        if not uplinks:
            self._evaluate(time.monotonic())
        await self.steering.ensure(self.mtus.fit(uplinks))
        self._watch_paths(uplinks)
        self._is_watching = True
        await self.steering.follow_underlays(self.counters)
        self._tell_private()
        now_s = time.monotonic()
        self._attach_all(now_s)
        self._evaluate(now_s)

    def _watch_paths(self, uplinks: tuple[Uplink, ...]) -> None:
        wanted: dict[PathKey, PathKind] = {}
        for family in Family if self.watch.settings.enabled else ():
            lines = self.network.state.wans[family]
            if lines.primary is None and family is Family.IPV6:
                continue  # a router without IPv6 has none to back up
            for device in lines.known:
                wanted[device, family] = PathKind.WAN
            for uplink in uplinks:
                if uplink.carries(family):
                    wanted[uplink.interface, family] = PathKind.UPLINK
        self.paths.keep(wanted)
        for key, kind in wanted.items():
            if key not in self.paths:
                self._add_path(key, kind)
        for path in self.paths.values():
            source = self.network.state.source_of(path.device, path.family)
            self.paths.bind(path, self.network.state.index_of(path.device), source)

    def _add_path(self, key: PathKey, kind: PathKind) -> None:
        device, family = key
        settings = self.watch.settings
        targets = settings.targets_of(family)
        if not targets:
            return
        now_s = time.monotonic()
        health = PathHealth(settings.probe_profile, targets, settings.reliability)
        if self.states[family].phase in AWAY and self.states[family].active == device:
            health.take_over(now_s)
        prober = Prober(device, family, PROBE_MARK)
        path = WatchedPath(device, kind, family, health, prober, now_s, mark=PROBE_MARK)
        self._limit(path)
        self.paths[key] = path

    def _limit(self, path: WatchedPath) -> None:
        settings = self.watch.settings
        sla = Sla(settings.max_loss, settings.max_latency_s)
        path.health.use(settings.probe_profile, sla)

    def _on_link(self, event: LinkEvent) -> None:
        if self.network.set_carrier(event.index, event.carrier and not event.gone):
            now_s = time.monotonic()
            self._attach_all(now_s)
            self._evaluate(now_s)

    def _attach_all(self, now_s: float) -> None:
        for path in self.paths.values():
            why = self._why_detached(path)
            path.health.attach(not why, now_s, why or "it is back")

    def _why_detached(self, path: WatchedPath) -> str:
        why = self.network.state.why_detached(path.device, path.index, path.kind, path.family)
        is_held = path.kind is PathKind.WAN and path.device in self.portals
        return why or ("a captive portal wants a login" if is_held else "")

    def hold_portals(self, portals: Mapping[str, str]) -> None:
        """Take the WANs that a captive portal holds (device -> its URL): nothing leaves by them."""
        self.portals = portals
        self._routes.set()

    def learn_terms(self, terms: Mapping[str, selection.Terms], same_wan: frozenset[str]) -> None:
        """Take what each uplink costs and gives, and whose provider leaves by our own WAN."""
        self.terms, self.same_wan = terms, same_wan

    def shares_underlay(self, interface: str) -> bool:
        """Whether the uplink needs the WAN that it should replace: its outer packets have no
        other way, or its provider leaves by that WAN too.
        """
        return interface in self.same_wan or self.network.state.shares_underlay(interface)

    def _on_reply(self, path: WatchedPath) -> None:
        before = path.health.state
        now_s = time.monotonic()
        path.collect(now_s)
        if path.health.state is not before:
            if path.kind is PathKind.UPLINK:
                self._recount.set()
            self._evaluate(now_s)

    async def _follow_routes(self) -> None:
        while True:
            await self._routes.wait()
            await asyncio.sleep(SETTLE_S)
            self._routes.clear()
            await self.reread()
            await asyncio.sleep(REREAD_PAUSE_S)

    async def _read_counters(self) -> None:
        while True:
            try:
                self._counted_s = time.monotonic()
                self.counters = await self.platform.read_counters()
                learn_capacities(self, time.monotonic())
                self._count_bytes()
                self.problems.pop("counters", None)
            except UplinkError as error:
                self.problems["counters"] = str(error)
            self._on_update()
            is_used = any(state.phase in AWAY for state in self.states.values())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(COUNTERS_S if is_used else CALM_COUNTERS_S):
                    await self._recount.wait()
            self._recount.clear()

    def freshen(self) -> None:
        """Somebody looks at the counters: have them read again, unless that was just done."""
        if time.monotonic() - self._counted_s > COUNTERS_S:
            self._recount.set()

    def _count_bytes(self) -> None:
        names = self.counters.keys() & {uplink.interface for uplink in self.watch.uplinks}
        moved = {n: self.counters[n].rx_bytes + self.counters[n].tx_bytes for n in names}
        self.ledger.record(moved, date.today(), reset_day=1)

    def _plan_tick(self, now_s: float) -> None:
        if self._tick_handle is not None:
            self._tick_handle.cancel()
        due_s = min(now_s + LONGEST_SLEEP_S, self.mtus.due_s)
        for path in self.paths.values():
            path.plan(self.pause_s(path, now_s))
            due_s = min(due_s, path.last_sent_s + path.pause_s)
            deadline_s = path.health.next_deadline_s()
            if deadline_s is not None:
                due_s = min(due_s, deadline_s)
        settings = self.watch.settings
        for state in self.states.values():
            if state.phase is Phase.HOLDING and state.good_since_s is not None:
                due_s = min(due_s, state.good_since_s + settings.held_s(state.flaps))
        self._planned_s = max(due_s, now_s + 0.001)
        loop = asyncio.get_running_loop()
        self._tick_handle = loop.call_later(self._planned_s - now_s, self._tick)

    def pause_s(self, path: WatchedPath, now_s: float) -> float:
        """Seconds between two probes of the path now; infinite where none can leave."""
        if not path.health.attached or path.descriptor < 0:
            return float("inf")
        primary = self.network.state.wans[path.family].primary
        state = self.states[path.family]
        is_primary = primary is not None and primary.device == path.device
        is_primary = is_primary or path.device in self.network.state.sharing.get(path.family, ())
        is_active = path.device == state.active or self.steering.carries(path.device, path.family)
        line = self.paths.get((primary.device, path.family)) if primary is not None else None
        is_poor = line is not None and bool(line.health.quality.near_sla)
        is_wanted = is_poor and state.phase not in AWAY
        role = Role(state.phase, is_primary, is_active, is_wanted)
        settings = self.watch.settings
        return interval_s(path, role, settings.probe_profile, settings.check_interval_s, now_s)

    def _tick(self) -> None:
        try:
            self._probe_and_judge()
        except Exception as error:
            tell_awhile("probing", "probing", error, self.problems)
            self._plan_tick(time.monotonic())

    def _probe_and_judge(self) -> None:
        now_s = time.monotonic()
        lag_s = now_s - self._planned_s
        for path in self.paths.values():
            if path.descriptor < 0:
                continue
            if path.health.is_waiting:
                path.collect(now_s)
                if lag_s > LATE_S:
                    path.health.excuse(lag_s)
                path.health.expire(now_s)
            early_s = EARLY_SHARE * path.pause_s if path.pause_s >= UNHURRIED_S else 0.001
            if now_s >= path.last_sent_s + path.pause_s - early_s:
                self._probe(path, now_s)
        if self.mtus.look(self._in_use(), now_s):
            self.reread_soon()
        if self.liveness.is_needed:
            self._run(self.liveness.follow(self.watch.settings.probe_profile.confirm_interval_s))
        self._evaluate(now_s)

    def _in_use(self) -> set[str]:
        """The devices that traffic is led to."""
        return {state.active for state in self.states.values()}

    def _probe(self, path: WatchedPath, now_s: float) -> None:
        path.probe(now_s)
        self.paths.ask_otherwise(path, now_s)
        if path.kind is PathKind.WAN:
            path.note_use(self.paths.is_used(path.device, now_s) or self.watch.serves)

    def ranked(self, family: Family, now_s: float) -> list[selection.Ranked]:
        """All backups of a family in order, usable or not."""
        able = candidates_of(self, family, now_s) if self.watch.uplinks else ()
        return selection.rank(able, prefer_latency=self.watch.settings.prefer_latency)

    def _evaluate(self, now_s: float) -> None:
        if not self._is_watching:
            return  # what an earlier run left open stays until its path is looked at
        for family in Family:
            self.steering.dead[family] = {
                path.device
                for path in self.paths.values()
                if path.family is family and path.health.state is Health.DOWN
            }
            self._decide(family, now_s)
            self._renew(family)
        self.steering.block({family: self._blocked(family) for family in Family})
        self._plan_tick(now_s)
        self._on_update()

    def _decide(self, family: Family, now_s: float) -> None:
        state = self.states[family]
        primary = self.primary_of(family)
        if primary is None:
            if state.phase not in AWAY and (family is Family.IPV6 or not self.paths):
                self.states[family] = replace(state, active="")
                return  # nothing to back up
            primary = failover.Path(NO_LINE, Health.DOWN, cause="there is no default route")
        if state.phase in AWAY:
            primary = replace(primary, refused=self.who_refuses(primary.name, family))
        # While traffic is at home and the line is well, no backup is asked for.
        is_fine = primary.health is Health.UP and not primary.below_sla and state.phase not in AWAY
        backups = [
            backup_path(ranked, self.paths[ranked.candidate.name, family])
            for ranked in (() if is_fine else self.ranked(family, now_s))
        ]
        settings = self.watch.settings
        self.states[family], change = failover.decide(state, primary, backups, settings, now_s)
        if change is not None:
            self._recount.set()
            diversion = self._diversion(family, primary.name)
            self.steering.want(family, diversion, change, self._detection_ms(change, family))

    def primary_of(self, family: Family) -> failover.Path | None:
        """The family's own line as decisions see it; None where it has none."""
        line = self.network.state.wans[family].primary
        if line is None:
            return None
        path = self.paths.get((line.device, family))
        if path is None:
            return failover.Path(line.device, Health.UNKNOWN)
        found = failover.Path(line.device, path.health.state, cause=path.health.cause)
        quality, is_away = path.health.quality, self.states[family].phase in AWAY
        return replace(found, below_sla=quality.near_sla if is_away else quality.below_sla)

    def _renew(self, family: Family) -> None:
        line = self.network.state.wans[family].primary
        name = line.device if line else NO_LINE
        self.steering.renew(family, self._diversion(family, name))

    def _diversion(self, family: Family, primary: str) -> Diversion | None:
        dead, used = self.steering.dead[family], self.network.state.sharing.get(family, ())
        state = self.network.state
        return diversion_of(self.states[family], state, family, primary, dead, used)

    def _blocked(self, family: Family) -> Sequence[str]:
        closed = self.watch.settings.fail_closed
        dead = self.steering.dead[family]
        state = self.network.state
        return blocked_of(self.states, state, family, dead, self.portals, fail_closed=closed)

    def _detection_ms(self, change: failover.Change, family: Family) -> int:
        path = self.paths.get((change.from_path, family))
        if path is None or path.health.state is not Health.DOWN:
            return -1
        return round(path.health.detection_s * 1000) if path.health.detection_s >= 0 else -1
