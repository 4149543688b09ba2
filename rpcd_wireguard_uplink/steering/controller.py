"""Makes the kernel follow the steering plan: one wish, and the order in which it is carried out.

Rules and routes (routing.py) are changed at once, over one netlink socket, where a decision leads
traffic away; connection tracking follows in the same step, nftables and look-ups (filtering.py)
behind it. On the way home nftables comes first. What somebody else removes is put back. When this
process falls silent, elements in nftables lapse and a watchdog takes its rules back.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace

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
from .filter.table import REFRESH_S, can_drain
from .filtering import Course, Filtering
from .memory import Memory
from .plan import DIVERTING, Diversion, SteeringPlan, anchor_path, device_of_path
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
        self.memory = Memory(os.path.join(run_dir, "steering.json"))
        self.routing = Routing(kernel, warnings)
        self._kernel, self._connections = kernel, connections
        self._warnings, self._events = warnings, events
        self._watchdog = Watchdog(run_dir)
        self._reverse_path = ReversePath(self._watchdog.saved_path)
        self._course = Course()
        self._filter = Filtering(self._course, self.memory, connections, self.routing)
        self._anchored: Mapping[Family, tuple[str, ...]] = {}
        self._moves: list[tuple[Move, float]] = []
        self._moved_s = 0.0
        self._led: _Slots = {}
        self._is_loose = False
        self._is_preparing = False  # nftables is being told, and then traffic moves
        self._table_news: netlink.Events | None = None
        self._kicked, self._news = asyncio.Event(), asyncio.Event()
        self._applying = asyncio.Lock()

    @property
    def diversions(self) -> Mapping[Family, Diversion]:
        """Those that rules and routes have in force."""
        return self._course.diversions

    # --- life

    async def start(self) -> Mapping[Family, Diversion]:
        """Begin to hear the kernel; the diversions of an earlier run, which are in force again."""
        self.routing.listen(self._on_news)
        self._table_news = self._kernel.listen_to_tables(self._on_table_news)
        diverted = self.routing.holds_ours(DIVERTING)
        found = {f: d for f, d in self.memory.load().items() if f in diverted}
        self._course.diversions = dict(found)
        self._course.plan = replace(self._course.plan, diversions=found)
        self._filter.take_over()
        if found:
            self._beat()
            await self._filter.refresh()
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
            if name == TABLE and self._filter.is_there:
                self.routing.note_repair()
                self._lose_table()
            self._events.publish(nft.TableDeleted(name))
        if lost or nft.changes_others(messages, TABLE):
            self._events.publish(nft.OthersChanged())
        if (lost or nft.changes_others_rules(messages, TABLE)) and self._filter.look_again():
            self._kicked.set()
        if lost:
            self._lose_table()
            self._events.publish(nft.TableDeleted(""))

    def listen(self) -> None:
        """Have what arrives by WANs counted for a while."""
        if self._filter.listen():
            self._kicked.set()

    def _lose_table(self) -> None:
        self._filter.lose()
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
        if plan == self._course.plan and not added:
            return
        self._course.plan = plan
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
        plan, now = self._course.plan.diversions, self.diversions
        return {f: plan.get(f) for f in Family if plan.get(f) != now.get(f)}

    async def settle(self) -> None:
        """Carry out the plan as it is now. Raises UplinkError where something refuses."""
        async with self._applying:
            if not self._course.plan.tunnels:
                await self._remove()
                return
            await self._filter.stand()
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
            for family, path in await self._filter.renew():
                self._delete_connections(family, path)
            self._let_go()
            self.routing.prepare(self._course.plan, self._led)
        self._events.publish(PlanApplied(self._course.plan))

    async def _prepare(self, wanted: Mapping[Family, Diversion | None]) -> dict[Family, str]:
        """Tell nftables what it must know before traffic moves so; the tunnels to be drained."""
        drained = self._drained_by(wanted)
        home = [f for f, d in wanted.items() if d is None and f in self.diversions]
        await self._filter.prepare(drained, home)
        return drained

    def _move(
        self, drained: Mapping[Family, str] | None = None, slots: _Slots | None = None
    ) -> None:
        """Change rules and routes, and have connections of paths that were left begin anew.

        `slots` are the paths that marks lead into: by default those that the plan needs then.
        """
        plan, before, wanted = self._course.plan, self.diversions, self._changes()
        now_s = time.monotonic()
        draining = self._filter.draining
        ended = {f: draining.tunnel(f) for f in draining.overdue(plan, now_s)}
        for family in wanted:
            ended[family] = draining.tunnel(family)
        self._course.diversions = dict(plan.diversions)
        try:
            if slots is None:
                slots = self._slots_of({**ended, **(drained or {})})
            self._follow_routing(slots)
        except UplinkError:
            self._course.diversions = before  # so that the next try finds a difference
            raise
        for family, tunnel in ended.items():
            kept = (drained or {}).get(family, "")
            draining.leave(family, kept, now_s + plan.filter.drain_s)
            now = self.diversions.get(family)
            left = {*_left_behind(before.get(family), now), tunnel}
            for device in left - {"", kept, now.route.device if now else ""}:
                self._delete_connections(family, device)
        self._moved_s = time.monotonic()
        self.routing.tell()

    def _slots_of(self, draining: Mapping[Family, str]) -> _Slots:
        """The paths that something is led into by its mark: those in use, and those drained."""
        found: dict[Family, dict[str, int]] = {}
        for family in Family:
            names = {draining.get(family, self._filter.draining.tunnel(family))}
            there = {*self._course.plan.tunnels, *self._course.plan.known(family)}
            kept = (device for of, device in self._filter.early.kept if of is family)
            led = (*self._course.plan.led_paths(family), *kept)
            names.update(path for path in led if device_of_path(path) in there)
            if family in self.diversions:
                names.add(self.diversions[family].route.device)
            slots = self.memory.slots
            found[family] = {name: slots[name] for name in sorted(names) if name in slots}
        return found

    def _follow_routing(self, slots: _Slots) -> None:
        """Have rules and routes as the plan says, with the diversions that are in force."""
        self._led = slots
        plan = replace(self._course.plan, diversions=self.diversions)
        for family in self.routing.follow(plan, slots) & self.diversions.keys():
            for device in self.diversions[family].dead:  # flows began there without the rules
                self._delete_connections(family, device)

    def _report(self) -> None:
        moves, self._moves = self._moves, []
        for move, begun_s in moves:
            took_ms = max(1, round((self._moved_s - begun_s) * 1000))
            self._events.publish(Moved(move, took_ms if move.change.kind in MOVES else -1))

    def _let_go(self) -> None:
        """Have anchored connections begin anew where their tunnel is dead, or no anchor is left."""
        before, self._anchored = self._anchored, self._course.plan.anchored
        for family, tunnels in before.items():
            for tunnel in {*tunnels} - {*self._anchored.get(family, ())}:
                self._delete_connections(family, anchor_path(tunnel))

    @property
    def _is_armed(self) -> bool:
        """Whether what is in force must end if this process falls silent."""
        return bool(self.diversions) or any(self._course.plan.anchored.values())

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
        plan = self._course.plan
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
            if diversion is not None and self._course.plan.is_share(diversion):
                names, to = " and ".join(diversion.dead), diversion.route.device
                told = because("share_moves", names, family.value, to)
            self._warnings.set(f"share {family.value}", told)

    async def _remove(self) -> None:
        if self._filter.is_there or self.diversions or self.routing.holds_ours():
            self._course.diversions, self._anchored = {}, {}
            self.routing.follow(SteeringPlan(), {})
            self.routing.tell()
            await self._filter.remove()
            self._reverse_path.loosen(())
            self._watchdog.end()
            self.memory.save({})
            self._connections.clear_bits(INBOUND | SLOT_MASK)
        self._report()

    def carrying(self, family: Family) -> set[str]:
        """The devices that traffic is led to: diverted, in a drill too, or to stay there."""
        diversion = self._course.plan.diversions.get(family)
        led = {
            "" if diversion is None else diversion.route.device,
            self._filter.draining.tunnel(family),
        }
        led |= self._filter.early.devices(family, time.monotonic())
        return {*led, *self._course.plan.anchored.get(family, ())} - {""}

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
            if self._filter.is_there:
                self._follow_routing(self._slots_of({}))
                self.routing.tell()
                self.routing.prepare(self._course.plan, self._led)

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
                await self._filter.refresh()
                self._warnings.clear_topic("refresh")
                await self._filter.look_at_early_ones()
            except UplinkError as error:
                self._warnings.set("refresh", str(error))
                self._lose_table()
            self._filter.look_at_drained()
            if self._filter.is_overdue:
                self._kicked.set()

    @property
    def _is_calm(self) -> bool:
        return not (self._is_armed or self._is_loose or self._filter.lapses)

    async def follow_resolvers(self) -> None:
        """The task: while nothing is diverted, find out which resolvers serve in each tunnel."""
        while True:
            if not self.diversions and await self._filter.look_ups.look(self._course.plan):
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
