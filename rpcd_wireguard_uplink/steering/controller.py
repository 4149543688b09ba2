"""Makes the kernel follow the steering plan: one wish, compared with what is there, and applied.

Rules and routes are changed at once, over one netlink socket, where a decision leads traffic away;
connection tracking follows in the same step, nftables and look-ups behind it. On the way home
nftables comes first. What somebody else removes is put back. When this process falls silent, the
nftables elements of a diversion lapse and a watchdog takes its rules back.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import field, replace

from ..carrying.counters import COUNTED, carrying_script
from ..errors import UplinkError
from ..events import Event, Events
from ..failover.machine import Move, Moved
from ..model import INBOUND, SLOT_MASK, TABLE, Family
from ..reasons import because
from ..system import netlink, nft
from ..system.nft import ConnectionTracking
from ..system.rtnetlink import Kernel
from ..tasks import rest
from ..values import dataclass
from ..warnings import Warnings
from .dns import LookUps
from .filter import table
from .filter.anchors import anchors_script
from .filter.early import EarlyConnections
from .filter.kill_switch import block_script, kill_switch_script
from .filter.table import REFRESH_S, Draining, can_drain
from .memory import Memory
from .plan import (
    DIVERTING,
    FIRST_SLOT,
    MOST_SLOTS,
    Diversion,
    SteeringPlan,
    anchor_path,
    device_of_path,
)
from .routing import Routing
from .rules import SLOT_SHIFT
from .watchdog import BEAT_S, ReversePath, Watchdog

RETRY_S = 1.0
RESOLVERS_S = 2.0
CALM_S = 2.0  # below the watchdog's 4 s; what begins meanwhile beats and refreshes by itself
LAST_CHANGE_S = 2.0  # at the end: below what stops a service that does not end
SETTLE_S = 0.005  # the kernel's news come in bursts
_Slots = Mapping[Family, Mapping[str, int]]
MOVES = ("failover", "switch", "failback", "drill")


@dataclass(frozen=True, slots=True)
class PlanApplied(Event):
    """The plan is in force, in rules and routes and in table."""

    plan: SteeringPlan


@dataclass(slots=True)
class _InForce:
    """What nftables was last given."""

    standing: tuple[Sequence[str], *tuple[object, ...]] | None = None
    redirect: str = ""
    blocked: Mapping[Family, tuple[str, ...]] = field(default_factory=dict)
    diverted: Mapping[Family, Diversion] = field(default_factory=dict)
    drained: Mapping[Family, str] = field(default_factory=dict)
    anchors: str = ""
    anchored: Mapping[Family, tuple[str, ...]] = field(default_factory=dict)
    early: EarlyConnections = field(default_factory=EarlyConnections)

    @property
    def paths(self) -> Sequence[str]:
        """The devices that the table knows."""
        return self.standing[0] if self.standing is not None else ()


class SteeringController:
    """Steering on one router. `diversions` are those in force. `run_dir` is ours on a tmpfs."""

    def __init__(
        self,
        kernel: Kernel,
        connections: ConnectionTracking,
        run_dir: str,
        warnings: Warnings,
        events: Events,
    ) -> None:
        self.diversions: dict[Family, Diversion] = {}
        self.memory = Memory(os.path.join(run_dir, "steering.json"))
        self.routing = Routing(kernel, warnings)
        self._kernel, self._connections, self._sets = kernel, connections, nft.TableReader(TABLE)
        self._warnings, self._events = warnings, events
        self._watchdog = Watchdog(run_dir)
        self._reverse_path = ReversePath(self._watchdog.saved_path)
        self._look_ups = LookUps()
        self._draining = Draining()
        self._filter = _InForce()
        self._plan = SteeringPlan()
        self._moves: list[tuple[Move, float]] = []
        self._moved_s = 0.0
        self._led: _Slots = {}
        self._is_loose = False
        self._is_preparing = False  # nftables is being told, and then traffic moves
        self._table_news: netlink.Events | None = None
        self._kicked, self._news = asyncio.Event(), asyncio.Event()
        self._applying, self._filtering = asyncio.Lock(), asyncio.Lock()

    # --- life

    async def start(self) -> Mapping[Family, Diversion]:
        """Begin to hear the kernel; the diversions of an earlier run, which are in force again."""
        self.routing.listen(self._on_news)
        self._table_news = self._kernel.listen_to_tables(self._on_table_news)
        diverted = self.routing.holds_ours(DIVERTING)
        found = {f: d for f, d in self.memory.load().items() if f in diverted}
        self.diversions = dict(found)
        self._filter.early = EarlyConnections.taken_over(self._kept_before())
        self._plan = replace(self._plan, diversions=found)
        if found:
            self._beat()
            await self._refresh()
        else:
            self._reverse_path.loosen(())
        return found

    async def stop(self) -> None:
        """Stop hearing. What is in force ends by itself unless a new run takes it over.

        A change that was begun is carried out before, so that no family is left behind.
        """
        if self._kicked.is_set() or self._applying.locked():
            self._kicked.clear()
            with suppress(UplinkError, TimeoutError):
                async with asyncio.timeout(LAST_CHANGE_S):
                    await self.settle()
        self.routing.close()
        if self._table_news is not None:
            self._table_news.close()
            self._table_news = None
        self._watchdog.leave()

    def _on_table_news(self) -> None:
        messages, lost = self._table_news.read() if self._table_news is not None else ([], False)
        for name in nft.deleted_tables(messages):
            if name == TABLE and self._filter.standing is not None:
                self.routing.note_repair()
                self._lose_table()
            self._events.publish(nft.TableDeleted(name))
        if lost or nft.changes_others(messages, TABLE):
            self._events.publish(nft.OthersChanged())
        if lost:
            self._filter.standing = None
            self._kicked.set()
            self._events.publish(nft.TableDeleted(""))

    def _lose_table(self) -> None:
        self._filter.standing, self._filter.blocked = None, {}
        self._kicked.set()

    def _on_news(self) -> None:
        if self.routing.take_news():
            self._news.set()

    # --- the wish

    def apply(self, plan: SteeringPlan, moves: Iterable[Move] = ()) -> None:
        """Have the plan in force, and `Moved` published for each move once it is.

        Traffic that is led away moves before this returns; an equal plan does nothing.
        """
        begun_s = time.monotonic()
        added = [(move, begun_s) for move in moves]
        if plan == self._plan and not added:
            return
        self._plan = plan
        self._moves += added
        self._kicked.set()
        if self._can_move_at_once():
            try:
                self._move(slots=self._led)
            except UplinkError as error:
                self._warnings.set("switch", str(error))

    def _can_move_at_once(self) -> bool:
        """Whether nothing has to be told to nftables before."""
        wanted = self._changes()
        paths = [diversion.route.device if diversion else "" for diversion in wanted.values()]
        are_known = bool(paths) and {*paths} <= {*self._filter.paths}
        return are_known and not self._is_preparing and not self._drained_by(wanted)

    def _changes(self) -> dict[Family, Diversion | None]:
        plan, now = self._plan.diversions, self.diversions
        return {f: plan.get(f) for f in Family if plan.get(f) != now.get(f)}

    async def settle(self) -> None:
        """Carry out the plan as it is now. Raises UplinkError where something refuses."""
        async with self._applying:
            if not self._plan.tunnels:
                await self._remove()
                return
            await self._stand()
            self._is_preparing = True
            try:
                drained = await self._prepare(wanted := self._changes())
                while wanted != self._changes():  # decided meanwhile, for the other family
                    drained = await self._prepare(wanted := self._changes())
                self._move(drained)
            finally:
                self._is_preparing = False
            self._loosen()
            self._beat()
            self.memory.save(self.diversions)
            self._warn_of_shares()
            self._report()
            await self._renew_filter()
            self._let_go()
            self.routing.prepare(self._plan, self._led)
        self._events.publish(PlanApplied(self._plan))

    async def _prepare(self, wanted: Mapping[Family, Diversion | None]) -> dict[Family, str]:
        """What nftables must know before traffic moves so; the tunnels that are drained."""
        drained = self._drained_by(wanted)
        for family, tunnel in drained.items():
            # Before the traffic leaves: no packet of what stays may meet the other path.
            slot = self.memory.slots[tunnel]
            await self._run(table.drain_script(family, slot, self._plan.filter.drain_s))
            self._filter.drained = {**self._filter.drained, family: tunnel}
        if home := [f for f, d in wanted.items() if d is None and f in self.diversions]:
            # Look-ups first: nothing may be asked of a tunnel's resolver by a WAN.
            redirect = self._redirect()
            await self._run("".join(map(table.ended_script, home)) + redirect)
            self._filter.redirect = redirect
        return drained

    async def _stand(self) -> None:
        """Have the table's standing part in force, with all that is in force by it."""
        plan = self._plan
        wans = {f: tuple(sorted(plan.known(f))) for f in Family}
        names = [*plan.tunnels, *sorted({name for known in wans.values() for name in known})]
        anchored = map(anchor_path, dict.fromkeys(device for _, device in plan.filter.anchors))
        numbers = self.memory.number([*names, *anchored], FIRST_SLOT, MOST_SLOTS)
        slots = {name: numbers[name] for name in names if name in numbers}
        standing = (names, plan.tunnels, wans, slots, plan.filter.prefixes)
        if standing == self._filter.standing:
            return
        redirect = self._redirect()
        script = table.standing_script(plan.tunnels, wans, slots, plan.filter.prefixes)
        carrying = carrying_script(plan.tunnels, self._sets.packets(COUNTED))
        script += kill_switch_script() + carrying + redirect
        script += (anchors := anchors_script(plan, self.memory.slots))
        draining = self._draining.script(self.memory.slots, time.monotonic())
        draining += self._filter.early.keeping(slots)
        await self._run(script + self._refreshing() + draining)
        self._filter.standing, self._filter.redirect = standing, redirect
        self._filter.anchors = anchors

    def _move(
        self, drained: Mapping[Family, str] | None = None, slots: _Slots | None = None
    ) -> None:
        """Change rules and routes, and have connections of paths that were left begin anew.

        `slots` are the paths that marks lead into: by default those that the plan needs then.
        """
        plan, before, wanted = self._plan, self.diversions, self._changes()
        now_s = time.monotonic()
        ended = {f: self._draining.tunnel(f) for f in self._draining.overdue(plan, now_s)}
        for family in wanted:
            ended[family] = self._draining.tunnel(family)
        self.diversions = dict(plan.diversions)
        try:
            if slots is None:
                slots = self._slots_of({**ended, **(drained or {})})
            self._follow_routing(slots)
        except UplinkError:
            self.diversions = before  # so that the next try finds a difference
            raise
        for family, tunnel in ended.items():
            kept = (drained or {}).get(family, "")
            self._draining.leave(family, kept, now_s + plan.filter.drain_s)
            now = self.diversions.get(family)
            left = {*_left_behind(before.get(family), now), tunnel}
            for device in left - {"", kept, now.route.device if now else ""}:
                self._delete_connections(family, device)
        self._moved_s = time.monotonic()

    def _slots_of(self, draining: Mapping[Family, str]) -> _Slots:
        """The paths that something is led into by its mark: those in use, and those drained."""
        found: dict[Family, dict[str, int]] = {}
        for family in Family:
            names = {draining.get(family, self._draining.tunnel(family))}
            there = {*self._plan.tunnels, *self._plan.known(family)}
            kept = (device for of, device in self._filter.early.kept if of is family)
            led = (*self._plan.led_paths(family), *kept)
            names.update(path for path in led if device_of_path(path) in there)
            if family in self.diversions:
                names.add(self.diversions[family].route.device)
            slots = self.memory.slots
            found[family] = {name: slots[name] for name in sorted(names) if name in slots}
        return found

    def _follow_routing(self, slots: _Slots) -> None:
        """Have rules and routes as the plan says, with the diversions that are in force."""
        self._led = slots
        plan = replace(self._plan, diversions=self.diversions)
        for family in self.routing.follow(plan, slots) & self.diversions.keys():
            for device in self.diversions[family].dead:  # flows began there without the rules
                self._delete_connections(family, device)

    def _report(self) -> None:
        moves, self._moves = self._moves, []
        for move, begun_s in moves:
            took_ms = max(1, round((self._moved_s - begun_s) * 1000))
            self._events.publish(Moved(move, took_ms if move.change.kind in MOVES else -1))

    async def _renew_filter(self) -> None:
        """What nftables does about it: answers, refusals, look-ups, the end of draining."""
        held, drained = self._filter, {f: self._draining.tunnel(f) for f in Family}
        blocked, redirect = self._plan.filter.blocked, self._redirect()
        diverted = dict(self.diversions)
        ended = [f for f, tunnel in held.drained.items() if tunnel and not drained[f]]
        script = "".join(map(table.undrain_script, ended))
        script += block_script(blocked) if blocked != held.blocked else ""
        script += self._refreshing() if diverted != held.diverted else ""
        script += redirect if redirect != held.redirect else ""
        anchors = anchors_script(self._plan, self.memory.slots)
        script += anchors if anchors != held.anchors else ""
        plan = replace(self._plan, diversions=diverted)
        early, more, gone = held.early.follow(plan, self.memory.slots, time.monotonic())
        await self._run(script + more)
        for family, device in gone:
            self._delete_connections(family, device)
        held.early, held.anchors = early, anchors
        held.blocked, held.redirect, held.diverted, held.drained = (
            blocked,
            redirect,
            diverted,
            drained,
        )

    def _let_go(self) -> None:
        """Have anchored connections begin anew where their tunnel is dead, or no anchor is left."""
        held, now = self._filter, self._plan.anchored
        for family, tunnels in held.anchored.items():
            for tunnel in {*tunnels} - {*now.get(family, ())}:
                self._delete_connections(family, anchor_path(tunnel))
        held.anchored = now

    @property
    def _is_armed(self) -> bool:
        """Whether what is in force must end if this process falls silent."""
        return bool(self.diversions) or any(self._plan.anchored.values())

    async def _run(self, script: str) -> None:
        if script:
            async with self._filtering:
                await nft.run_script(script)

    def _redirect(self) -> str:
        return self._look_ups.script(self._plan, self.memory.slots, self.routing.rules())

    def _refreshing(self) -> str:
        # What is about to end is not renewed: its look-ups go home before its traffic.
        lasting = {f: d for f, d in self.diversions.items() if f in self._plan.diversions}
        slots, native = self.memory.slots, lasting.get(Family.IPV6)
        to = native.route.device if native is not None else ""
        dead = {
            family: [slots[name] for name in diversion.dead if name in slots]
            for family, diversion in lasting.items()
        }
        is_wan = to not in ("", *self._plan.tunnels)
        early = self._filter.early.refreshed(self._plan, slots)
        return early + table.refresh_script(dead, (to,) if is_wan else ())

    def _drained_by(self, wanted: Mapping[Family, Diversion | None]) -> dict[Family, str]:
        """The tunnels that connections may finish on although traffic leaves them."""
        left = {
            family: self.diversions[family].route.device
            for family, diversion in wanted.items()
            if family in self.diversions
            and (
                diversion is None or diversion.route.device != self.diversions[family].route.device
            )
        }
        plan = self._plan
        return {f: d for f, d in left.items() if plan.filter.drain_s and can_drain(plan, f, d)}

    def _delete_connections(self, family: Family, device: str) -> None:
        slot = self.memory.slots.get(device)
        if slot is not None:
            self._connections.delete_marked(family, slot << SLOT_SHIFT, INBOUND | SLOT_MASK)

    def _loosen(self) -> None:
        dead = {name for diversion in self.diversions.values() for name in diversion.dead}
        self._is_loose = bool(dead)
        self._warnings.set("rp_filter", self._reverse_path.loosen(dead))

    def _beat(self) -> None:
        self._warnings.set("watchdog", self._watchdog.beat(armed=self._is_armed))

    def _warn_of_shares(self) -> None:
        """Say where a dead WAN's share of balanced traffic goes."""
        for family in Family:
            diversion, told = self.diversions.get(family), ""
            if diversion is not None and self._plan.is_share(diversion):
                names, to = " and ".join(diversion.dead), diversion.route.device
                told = because("share_moves", names, family.value, to)
            self._warnings.set(f"share {family.value}", told)

    async def _remove(self) -> None:
        is_there = self._filter.standing is not None or self.diversions
        if is_there or self.routing.holds_ours():
            self._filter, self._draining = _InForce(), Draining()
            self.diversions = {}
            self.routing.follow(SteeringPlan(), {})
            await nft.delete_table("inet", TABLE)
            self._reverse_path.loosen(())
            self._watchdog.end()
            self.memory.save({})
            self._connections.clear_bits(INBOUND | SLOT_MASK)
        self._report()

    def carrying(self, family: Family) -> set[str]:
        """The devices that traffic is led to: diverted, in a drill too, or to stay there."""
        diversion = self._plan.diversions.get(family)
        led = {"" if diversion is None else diversion.route.device, self._draining.tunnel(family)}
        led |= self._filter.early.devices(family, time.monotonic())
        return {*led, *self._plan.anchored.get(family, ())} - {""}

    # --- tasks

    async def follow(self) -> None:
        """The task: carry out the plan, for ever."""
        while True:
            await self._kicked.wait()
            self._kicked.clear()
            await self._tolerate("switch", self._kicked, self.settle)

    async def follow_kernel(self) -> None:
        """The task: whenever the kernel's rules or routes changed, make them what they must be."""

        async def follow() -> None:
            if self._filter.standing is not None:
                self._follow_routing(self._slots_of({}))
                self.routing.prepare(self._plan, self._led)

        while True:
            await self._news.wait()
            await asyncio.sleep(SETTLE_S)
            self._news.clear()
            await self._tolerate("steering", self._news, follow)

    async def _tolerate(
        self, topic: str, again: asyncio.Event, work: Callable[[], Awaitable[None]]
    ) -> None:
        """Do what may fail; then warn, and have it tried again."""
        try:
            await work()
            self._warnings.clear_topic(topic)
        except UplinkError as error:
            self._warnings.set(topic, str(error))
            asyncio.get_running_loop().call_later(RETRY_S, again.set)

    async def keep_alive(self) -> None:
        """The task: show the watchdog that this process lives, however long nft takes."""
        while True:
            await rest(CALM_S if self._is_calm else BEAT_S)
            if self.diversions or self._is_loose:
                self._loosen()  # others set it anew, and so does a watchdog while we are held up
            self._beat()

    async def keep_fresh(self) -> None:
        """The task: refresh what lapses; where nft refuses, have the table built anew."""
        while True:
            await rest(CALM_S if self._is_calm else REFRESH_S)
            try:
                await self._refresh()
                self._warnings.clear_topic("refresh")
                await self._look_at_early_ones()
            except UplinkError as error:
                self._warnings.set("refresh", str(error))
                self._lose_table()
            self._look_at_drained()
            if self._draining.overdue(self._plan, time.monotonic()):
                self._kicked.set()

    @property
    def _is_calm(self) -> bool:
        is_led = self._is_armed or self._is_loose or bool(self._filter.early.leaving)
        return not (is_led or any(self._filter.blocked.values()))

    async def _refresh(self) -> None:
        async with self._filtering:  # made here: never of a diversion that another script ended
            script = self._refreshing()
            if any(self._filter.blocked.values()):
                script += block_script(self._filter.blocked)
            if script:
                await nft.run_script(script)

    async def _look_at_early_ones(self) -> None:
        """Keep the connections that began early on their path, as long as there are any."""
        now_s, early = time.monotonic(), self._filter.early
        if overdue := early.overdue(now_s):
            for family, device in overdue:
                are_left = self._has_connections(family, device)
                early.looked(family, device, are_left=are_left, now_s=now_s)
            await self._run(early.keeping(self.memory.slots))

    def _look_at_drained(self) -> None:
        """Have draining end as soon as nothing is left: a path in use is probed more often."""
        now_s = time.monotonic()
        for family, tunnel in self._draining.to_look_at(now_s):
            are_left = self._has_connections(family, tunnel)
            self._draining.looked(family, are_left=are_left, now_s=now_s)

    def _has_connections(self, family: Family, device: str) -> bool:
        """Whether connections that began here are on the path, as far as can be told."""
        mark = self.memory.slots.get(device, 0) << SLOT_SHIFT
        try:
            return self._connections.has_marked(family, mark, INBOUND | SLOT_MASK)
        except UplinkError:
            return True

    def _kept_before(self) -> Iterator[tuple[Family, str]]:
        """The paths that connections finish on which began early in an earlier run."""
        names = {slot << SLOT_SHIFT: name for name, slot in self.memory.slots.items()}
        for family in Family:
            with suppress(UplinkError):
                for element in self._sets.read(f"kept{family.version}"):
                    mark = int.from_bytes(element.key, sys.byteorder)
                    if mark in names:
                        yield family, names[mark]

    async def follow_resolvers(self) -> None:
        """The task: while nothing is diverted, find out which resolvers serve in each tunnel."""
        while True:
            if not self.diversions and await self._look_ups.look(self._plan):
                self._kicked.set()
            await rest(RESOLVERS_S)


def _left_behind(before: Diversion | None, now: Diversion | None) -> list[str]:
    """The devices whose traffic was moved away: what was in use, and what is newly dead."""
    left = [before.route.device] if before is not None else []
    left += now.dead if now is not None else ()
    staying = {now.route.device} if now is not None else set()
    if before is not None:
        staying.update(before.dead)
    return [device for device in left if device not in staying]
