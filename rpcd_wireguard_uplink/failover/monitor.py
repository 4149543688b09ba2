"""The probe loop: sends probes, takes answers and the kernel's events, and has failover decided.

The only clock and the only timers of failover. The detector judges each path, selection ranks the
backups, the state machine decides a family, and what follows for the kernel is asked of `Steering`
in the same turn of the event loop. Nothing here waits for a lock of the configuration.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from ..config.options import Anchor, Settings
from ..config.probe_profile import ProbeProfile
from ..events import DoubtEnded, Events, PathsChanged
from ..model import DefaultRoute, Family, Health, PathKind, Uplink
from ..platform.linux import Platform
from ..platform.network_reader import NetworkReader
from ..probing.capacity import Capacity
from ..probing.doubt import Stage
from ..reasons import because
from ..storage.usage import Ledger
from ..system.netlink import Events as KernelNews
from ..system.rtnetlink import LINK_GROUPS, link_events
from ..tasks import TaskSet, tell_awhile
from ..values import replace
from ..warnings import Warnings
from .counters import CounterWatch
from .decision import decide, early_backups
from .liveness import PassiveLiveness
from .machine import AWAY, Adopted, Choice, Decision, Phase, State
from .paths import PathSet, Watch, WatchedPath
from .schedule import LATE_S, Busyness, Role, Roles, WanUse, interval_s
from .selection import Terms
from .tunnel_mtu import MtuWatch

log = logging.getLogger("wireguard-uplink")

EARLY_S = 0.001
LONGEST_SLEEP_S = 5.0
SETTLE_S = 0.05  # kernel events come in bursts: read once behind them
REREAD_PAUSE_S = 0.2
RETRY_S = 1.0
BACKUPS = 2  # of which it is asked in a doubt whether they live
TAKEN_OVER = "taken over from an earlier run"


class Steering(Protocol):
    """What decisions ask of the kernel. Calls that are no coroutines take note and return."""

    async def start(self) -> Mapping[Family, Adopted]:
        """Begin; what an earlier run left in force is taken over."""

    async def stop(self) -> None:
        """End; what is in force is left to lapse, or to be taken over."""

    def use(self, settings: Settings, anchors: Sequence[Anchor]) -> None:
        """Steer by these settings from now on, with these connections kept on their uplinks."""

    async def ensure(self, uplinks: Sequence[Uplink]) -> None:
        """Have the lasting part cover these uplinks and the WANs as they are; none: remove it."""

    async def settle(self) -> None:
        """Return once what was carried out is in force. Raises UplinkError."""

    async def follow_underlays(self) -> None:
        """See what each tunnel travels over, and have its MTU fit."""

    def carry_out(self, decisions: Mapping[Family, Decision]) -> None:
        """Have the kernel follow what was decided."""

    def lead_marks(self, marks: Collection[int]) -> None:
        """Have a diversion lead away packets that bear one of these marks of mwan3's (0: none)."""

    def except_portals(self, portals: Mapping[str, Sequence[str]]) -> None:
        """Have the addresses of captive portals reached by their WAN (device -> addresses)."""

    def listen(self) -> None:
        """Have what arrives by WANs counted for a while."""

    def carrying(self, family: Family) -> Collection[str]:
        """The devices that traffic is led to, in a drill too, or on which connections finish."""


class Monitor:
    """One router's paths and the decisions about them.

    `who_refuses` says who else holds a WAN to be dead ('': nobody): it gets no traffic back until
    that ends. `ledger` counts the uplinks' bytes by interface.
    """

    def __init__(
        self,
        platform: Platform,
        network: NetworkReader,
        steering: Steering,
        who_refuses: Callable[[str, Family], str],
        ledger: Ledger,
        warnings: Warnings,
        events: Events,
    ) -> None:
        self.platform = platform
        self.network = network
        self.warnings = warnings
        self.who_refuses = who_refuses
        self.ledger = ledger
        self.watch = Watch(Settings())
        self._busyness = Busyness()
        now_s = time.monotonic()
        self.states = {family: State(since_s=now_s, moved_s=now_s) for family in Family}
        self.paths = PathSet(self._on_reply, warnings)
        self.mtus = MtuWatch(self.paths, network)
        self.capacities: dict[str, Capacity] = {}
        self.terms: Mapping[str, Terms] = {}
        self.same_wan: frozenset[str] = frozenset()
        self.portals: Mapping[str, str] = {}
        self.choice: Choice | None = None
        self.counters = CounterWatch(self, warnings, events)
        self._steering = steering
        self._events = events
        self._liveness = PassiveLiveness(
            self.paths, steering.listen, lambda: self._evaluate(time.monotonic())
        )
        self.early: dict[Family, str] = {}
        self._early_since: dict[Family, tuple[str, str, float]] = {}  # WAN, backup, when it began
        self.spread: Mapping[Family, Sequence[str]] = {}
        self._use = WanUse()
        self._tick_handle: asyncio.TimerHandle | None = None
        self._is_watching = False
        self._planned_s = 0.0
        self._is_for_answer = False  # the next tick is
        self._stale = asyncio.Event()
        self._rereading = asyncio.Lock()
        self._tasks = TaskSet(warnings)
        self._news: KernelNews | None = None

    # --- life

    async def start(self, watch: Watch) -> None:
        """Take over what an earlier run left open, read the kernel, and begin to watch."""
        now_s = time.monotonic()
        for family, found in (await self._steering.start()).items():
            self.states[family] = State(Phase.FAILED_OVER, found.active, now_s, TAKEN_OVER, now_s)
            for device in found.dead[:1]:
                self.network.remember(DefaultRoute(family, device))
        self._news = self.platform.kernel.listen(self._on_news, LINK_GROUPS)
        self._tasks.supervise("following the kernel", self._follow_network)
        await self.configure(watch)
        self._tasks.supervise("reading counters", self.counters.follow)

    async def stop(self) -> None:
        """Stop watching; a diversion is left to lapse, or to be taken over."""
        if self._news is not None:
            self._news.close()
            self._news = None
        await self._steering.stop()
        if self._tick_handle is not None:
            self._tick_handle.cancel()
        await self._tasks.close()
        self.paths.keep(())

    async def configure(self, watch: Watch) -> None:
        """Watch by new settings or other uplinks from now on."""
        before, settings = self.watch.settings, watch.settings
        if (settings.targets, settings.reliability) != (before.targets, before.reliability):
            self.paths.keep(())
        self.watch = watch
        self.paths.use(settings)
        self._steering.use(settings, watch.anchors)
        await self.reread()

    # --- what others say

    def lead_marks(self, marks: Collection[int]) -> None:
        """Have a diversion lead away packets that bear one of these marks of mwan3's (0: none)."""
        self._steering.lead_marks(marks)

    def hold_portals(self, portals: Mapping[str, tuple[str, Sequence[str]]]) -> None:
        """Take the WANs that a captive portal holds: device -> its URL and addresses.

        Nothing but what goes to the portal leaves by them.
        """
        self.portals = {device: url for device, (url, _) in portals.items()}
        self._steering.except_portals({device: found for device, (_, found) in portals.items()})
        self.reread_soon()

    def learn_terms(self, terms: Mapping[str, Terms], same_wan: frozenset[str]) -> None:
        """Take what each uplink costs and gives, and whose provider leaves by our own WAN."""
        self.terms, self.same_wan = terms, same_wan

    async def choose(self, choice: Choice | None) -> None:
        """Have the traffic leave by the owner's choice while it works; None: as decided here.

        It does when this returns. Raises UplinkError where the kernel refuses; it is tried again.
        """
        self.choice = choice
        self._evaluate(time.monotonic())
        await self._steering.settle()

    @property
    def profile(self) -> ProbeProfile:
        """What paths are probed by now: the settings' profile, eased while this router is busy."""
        profile = self.watch.settings.probe_profile
        return profile.eased() if self._busyness.is_busy else profile

    def why_eased(self) -> str:
        """Why paths are probed less often than the settings say; '' where they are not."""
        if not self._busyness.is_busy:
            return ""
        usual = self.watch.settings.probe_profile
        paces = (f"{profile.interval_s:g}" for profile in (self.profile, usual))
        return because("busy", *paces, f"{self.detection_bound_s:.1f}")

    @property
    def detection_bound_s(self) -> float:
        """The longest time from a silent death to moved traffic, as WANs answer now."""
        primaries = [
            self.paths.get((wans.primary.device, family))
            for family, wans in self.network.state.wans.items()
            if wans.primary is not None
        ]
        found = (path.health.timeout_s for path in primaries if path is not None)
        return self.watch.settings.detection_bound_s(max(found, default=None), self.profile)

    def sharing_underlay(self) -> frozenset[str]:
        """The uplinks that need the WAN that they should replace: their outer packets have no
        other way, or their provider leaves by that WAN too.
        """
        return self.same_wan | self.network.state.sharing_underlay()

    # --- the network

    def reread_soon(self) -> None:
        """Somebody says that an interface changed."""
        self._stale.set()

    async def _follow_network(self) -> None:
        while True:
            await self._stale.wait()
            await asyncio.sleep(SETTLE_S)
            self._stale.clear()
            try:
                await self.reread()
            except Exception:
                self._stale.set()  # who begins this again would wait for other news
                raise
            await asyncio.sleep(REREAD_PAUSE_S)

    async def reread(self) -> None:
        """Read the kernel's view and bring everything that hangs on it up to date.

        What fails is a warning, and is tried again.
        """
        async with self._rereading:
            with self.warnings.catch("kernel"):
                await self._reread()
                return
        asyncio.get_running_loop().call_later(RETRY_S, self._stale.set)

    async def _reread(self) -> None:
        """In this order: steering covers a tunnel before a decision can lead traffic into it."""
        uplinks = self.watch.active_uplinks
        await self.network.read(uplinks, self.watch.settings.lines)
        if not uplinks:
            self._evaluate(time.monotonic())
        await self._steering.ensure(self.mtus.fit(uplinks))
        in_use = {(state.active, f) for f, state in self.states.items() if state.phase in AWAY}
        self.paths.follow(self.watch, self.network.state, in_use)
        self._is_watching = True
        await self._steering.follow_underlays()
        self._follow_links()

    def _on_news(self) -> None:
        messages, lost = self._news.read() if self._news is not None else ([], False)
        found = list(link_events(messages))
        for event in found:
            if event is not None and self.network.set_carrier(*event):
                self._follow_links()
        if found or lost:  # what was lost may have been anything
            self._stale.set()

    def _follow_links(self) -> None:
        """Take what the network says of each path, and decide."""
        now_s, network = time.monotonic(), self.network.state
        for path in self.paths.values():
            why = network.why_detached(path.device, path.index, path.kind, path.family)
            if path.kind is PathKind.WAN and path.device in self.portals:
                why = why or "a captive portal wants a login"
            path.health.attach(not why, now_s, why or "it is back")
        self._evaluate(now_s)

    # --- probing

    def _on_reply(self, path: WatchedPath) -> None:
        before = path.health.state
        is_awaited = any(p.doubt.stage is not Stage.CALM for p in self.paths.values())
        now_s = time.monotonic()
        self._excuse(now_s)
        path.collect(now_s)
        if path.health.state is not before and path.kind is PathKind.UPLINK:
            self.counters.read_soon()
        if path.health.state is not before or is_awaited:
            self._evaluate(now_s)

    def _excuse(self, now_s: float) -> None:
        """Tell every path for how long this process was held up, where the next tick is overdue.

        Whoever comes first after that time tells it: an answer, a kernel event or the tick itself.
        """
        lag_s = now_s - self._planned_s
        if self._tick_handle is not None and lag_s > LATE_S:
            self._planned_s = now_s
            self._note_lag(lag_s, now_s)
            for path in self.paths.values():
                path.health.excuse(lag_s)
                path.doubt.excuse(lag_s)

    def _note_lag(self, lag_s: float, now_s: float) -> None:
        if self._busyness.ticked(lag_s, now_s):
            log.info("%s", self.why_eased() or "paths are probed at the usual pace again")

    def _plan_tick(self, now_s: float) -> None:
        self._excuse(now_s)
        if self._tick_handle is not None:
            self._tick_handle.cancel()
        due_s = min(now_s + LONGEST_SLEEP_S, self.mtus.due_s)
        if self.choice is not None:
            due_s = min(due_s, self.choice.until_s)
        roles, profile = {family: self._roles(family) for family in Family}, self.profile
        answers_s = min((p.doubt_due_s for p in self._doubtable().values()), default=math.inf)
        for path in self.paths.values():
            path.plan(self._pause_s(path, roles[path.family], profile, now_s))
            due_s = min(due_s, path.probe_due_s)
            if path.health.is_waiting:
                deadline_s = path.health.next_deadline_s()
                answers_s = answers_s if deadline_s is None else min(answers_s, deadline_s)
        for state in self.states.values():
            if state.phase is Phase.HOLDING and state.good_since_s is not None:
                due_s = min(due_s, state.good_since_s + self.watch.settings.held_s(state.flaps))
        self._is_for_answer = answers_s < due_s
        self._planned_s = max(min(due_s, answers_s), now_s + EARLY_S)
        loop = asyncio.get_running_loop()
        self._tick_handle = loop.call_later(self._planned_s - now_s, self._tick)

    def pause_s(self, path: WatchedPath, now_s: float) -> float:
        """Seconds between two probes of the path now; infinite where none can leave."""
        return self._pause_s(path, self._roles(path.family), self.profile, now_s)

    def _pause_s(
        self, path: WatchedPath, roles: Roles, profile: ProbeProfile, now_s: float
    ) -> float:
        if not path.health.attached or path.descriptor < 0:
            return math.inf
        role, check_s = roles.of(path.device), self.watch.settings.check_interval_s
        return interval_s(path, role, profile, check_s, now_s)

    def _roles(self, family: Family) -> Roles:
        state, network = self.states[family], self.network.state
        wan = network.wans[family].primary
        primary = self.paths.get((wan.device, family)) if wan is not None else None
        primaries = {*network.sharing.get(family, ()), *([wan.device] if wan is not None else ())}
        actives = {state.active, *self._steering.carrying(family)}
        is_wanted = primary is not None and bool(primary.health.quality.near_sla)
        return Roles(
            frozenset(primaries),
            frozenset(actives),
            Role(state.phase, False, False, is_wanted and state.phase not in AWAY),
        )

    def _tick(self) -> None:
        try:
            now_s = time.monotonic()
            self._excuse(now_s)
            self._note_lag(0.0, now_s)
            if self._is_for_answer:
                self._plan_tick(now_s)
                if self._planned_s > now_s + EARLY_S:
                    return  # the answers have come, and nothing else is due
            self._probe_and_judge()
        except Exception as error:
            tell_awhile("probing", "probing", error, self.warnings)
            self._plan_tick(time.monotonic())

    def _probe_and_judge(self) -> None:
        if self._judge():
            self._evaluate(time.monotonic())  # before any probe leaves: a verdict waits for nothing
        for path in self.paths.values():
            now_s = time.monotonic()  # a round of many paths takes long on a slow router
            if path.descriptor >= 0 and now_s >= path.probe_due_s - EARLY_S:
                self._probe(path, now_s)
        self._follow_doubts(time.monotonic())
        now_s = time.monotonic()
        if self.mtus.look({state.active for state in self.states.values()}, now_s):
            self.reread_soon()
        if self._liveness.is_needed:
            pause_s = self.watch.settings.probe_profile.confirm_interval_s
            self._tasks.spawn("passive liveness", self._liveness.follow(pause_s))
        self._evaluate(now_s)

    def _judge(self) -> bool:
        """Judge what is overdue; whether any path's health changed."""
        is_changed = False
        for path in self.paths.values():
            if path.descriptor >= 0 and path.health.is_waiting:
                now_s, before = time.monotonic(), path.health.state
                path.collect(now_s)
                path.health.expire(now_s)
                if path.health.state is not before:
                    is_changed = True
                    if path.kind is PathKind.UPLINK:
                        self.counters.read_soon()
        return is_changed

    def _probe(self, path: WatchedPath, now_s: float) -> None:
        path.probe(now_s)
        self.paths.ask_otherwise(path, now_s)
        if path.kind is PathKind.WAN or path.device in self._steering.carrying(path.family):
            path.note_use(self._use.is_used(path.device, now_s) or self.watch.serves)

    # --- doubts

    def _doubtable(self) -> dict[Family, WatchedPath]:
        """The primary WANs that may be doubted: they are in use, and known to answer."""
        settings = self.watch.settings
        found: dict[Family, WatchedPath] = {}
        is_wanted = settings.auto_failover and settings.early_failover != "off"
        if not (is_wanted and settings.probe_profile.burst_gap_s and self.watch.active_uplinks):
            return found
        if self.choice is not None:
            return found
        for family, known in self.network.state.wans.items():
            path = self.paths.get((known.primary.device, family)) if known.primary else None
            if path is None or self.states[family].phase not in (Phase.PRIMARY, Phase.SUSPECT):
                continue
            if self.network.state.private_default.get(family):
                continue  # new connections leave by the owner's VPN
            is_alive = path.health.state in (Health.UP, Health.SUSPECT) and path.descriptor >= 0
            is_known = path.health.last_answer_s is not None
            if is_alive and is_known and not path.kinds.present.is_dear:
                found[family] = path
        return found

    def _follow_doubts(self, now_s: float) -> None:
        """Ask by bursts, listen meanwhile, and ask the backups whether they live."""
        doubtable = self._doubtable()
        for path in self.paths.values():
            if path.doubt.stage is not Stage.CALM and path is not doubtable.get(path.family):
                path.doubt.end()
        due = {family for family, path in doubtable.items() if now_s >= path.doubt_due_s}
        # Both families are asked: where a queue delays them, what arrives in either tells.
        asked = {doubtable[f].device for f in due if doubtable[f].doubt.stage is Stage.CALM}
        for family, path in doubtable.items():
            if path.device in asked and path.doubt.stage is Stage.CALM:
                path.doubt.begin(now_s)
                self._liveness.begin(path)
            elif family in due:
                self._liveness.look()
            else:
                continue
            path.collect(now_s)
            path.ask_in_doubt(now_s)
            if path.doubt.asks_backups(now_s):
                for name in early_backups(self, family, now_s)[:BACKUPS]:
                    self._probe(self.paths[name, family], now_s)

    def _with_doubt(
        self, decision: Decision, family: Family, path: WatchedPath | None, now_s: float
    ) -> Decision:
        """The decision with the backup that new connections leave by, if the primary, which is
        `path` where it may be doubted, is.
        """
        before = self.early.pop(family, "")
        if path is None or path.doubt.backups_asked_s > now_s:
            return decision
        able = early_backups(self, family, now_s)
        alive = [name for name in able if self._has_answered(name, path)]
        if path.doubt.stage is not Stage.DOUBTED or not alive:
            return replace(decision, ready=able[0] if able else "")
        self.early[family] = before if before in alive else alive[0]
        self._early_since.setdefault(family, (path.device, self.early[family], now_s))
        return replace(decision, ready=self.early[family], early=self.early[family])

    def _has_answered(self, name: str, doubted: WatchedPath) -> bool:
        """Whether a backup has answered since it was asked, for a WAN that is doubted."""
        answer_s = self.paths[name, doubted.family].health.last_answer_s
        return answer_s is not None and answer_s >= doubted.doubt.backups_asked_s

    def _evaluate(self, now_s: float) -> None:
        """Decide both families, and ask of the kernel what follows."""
        if not self._is_watching:
            return  # what an earlier run left open stays until its path is looked at
        if self.choice is not None and now_s >= self.choice.until_s:
            self.choice = None
        decisions = {family: decide(self, family, now_s) for family in Family}
        self.states.update({family: decision.state for family, decision in decisions.items()})
        may = self._doubtable()
        decisions = {f: self._with_doubt(d, f, may.get(f), now_s) for f, d in decisions.items()}
        if self.choice is not None and not self.choice.is_kept(decisions.values()):
            self.choice = None
        self.spread = {f: [name for name, _ in d.spread] for f, d in decisions.items()}
        self._steering.carry_out(decisions)
        if any(decision.change is not None for decision in decisions.values()):
            self.counters.read_soon()
        self._plan_tick(now_s)
        self._tell_doubts(decisions, now_s)
        self._events.publish(PathsChanged())

    def _tell_doubts(self, decisions: Mapping[Family, Decision], now_s: float) -> None:
        """Tell of doubts that have ended without a verdict."""
        for family in self._early_since.keys() - self.early.keys():
            wan, backup, since_s = self._early_since.pop(family)
            if decisions[family].change is None:
                self._events.publish(DoubtEnded(family, wan, backup, now_s - since_s))
