"""Makes the nftables table follow the steering plan: those of its parts that differ are told.

A part is a script that brings its chains to the form that is wanted now, in the table or not: base
chains are at their hooks only while something needs them, since each costs every packet. What
steers is an element that lapses unless it is refreshed. What an element needs is told before it or
in one step with it.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import field

from ..carrying.counters import COUNTED, carrying_script, counting_script
from ..errors import UplinkError
from ..model import INBOUND, SLOT_MASK, TABLE, Family
from ..system import nft
from ..system.nft import ConnectionTracking
from ..system.proc import has_legacy_marks
from ..values import dataclass, replace
from .dns import LookUps
from .filter import table
from .filter.anchors import anchors_script
from .filter.early import EarlyConnections
from .filter.kill_switch import block_script, kill_switch_script
from .filter.table import Draining
from .memory import Memory
from .plan import FIRST_SLOT, MOST_SLOTS, Diversion, SteeringPlan, anchor_path
from .routing import Routing
from .rules import SLOT_SHIFT

OLDER_S = 600.0  # how long connections have that began before the table knew their path
WATCH_S = 60.0  # after a suspicion: each time that nft is told costs a process


@dataclass(slots=True)
class Course:
    """The wish, and the diversions that rules and routes have in force by now."""

    plan: SteeringPlan = field(default_factory=SteeringPlan)
    diversions: Mapping[Family, Diversion] = field(default_factory=dict)


class Filtering:
    """What nftables was last told; `parts` by name, `early` and `draining` of connections that
    leave, or stay, by another path than the rest. `routing` knows everybody's rules and routes.
    """

    def __init__(
        self, course: Course, memory: Memory, connections: ConnectionTracking, routing: Routing
    ) -> None:
        self.look_ups = LookUps()
        self._course, self._memory, self._routing = course, memory, routing
        self._connections, self._sets = connections, nft.TableReader(TABLE)
        self._telling = asyncio.Lock()
        self._watched_until_s = float("-inf")
        self._is_shared: bool | None = None  # whether others use connection marks, where known
        self._forget()

    def _forget(self) -> None:
        self.parts: dict[str, str] = {}
        self.early, self.draining = EarlyConnections(), Draining()
        self._standing: tuple[Sequence[str], *tuple[object, ...]] | None = None
        self._blocked: Mapping[Family, tuple[str, ...]] = {}
        self._diverted: Mapping[Family, Diversion] = {}
        self._drained: dict[Family, str] = {}

    @property
    def is_there(self) -> bool:
        """Whether the table is, as far as we know."""
        return self._standing is not None

    @property
    def paths(self) -> Sequence[str]:
        """The devices that the table knows."""
        return self._standing[0] if self._standing is not None else ()

    @property
    def lapses(self) -> bool:
        """Whether something is in force that ends unless it is refreshed, beside diversions."""
        return bool(self.early.leaving) or any(self._blocked.values())

    @property
    def is_overdue(self) -> bool:
        """Whether something was in force that is not wanted any more."""
        is_over = self.is_there and self.parts["leading"] != self._leading()
        return is_over or bool(self.draining.overdue(self._course.plan, time.monotonic()))

    def listen(self) -> bool:
        """Have what arrives by WANs counted for a while; whether nft is to be told so."""
        now_s, before_s = time.monotonic(), self._watched_until_s
        self._watched_until_s = max(before_s, now_s + WATCH_S)
        return now_s >= before_s

    def look_again(self) -> bool:
        """Others changed their rules; whether nft may have to be told of it now."""
        self._is_shared = None
        return time.monotonic() >= self._watched_until_s

    def take_over(self) -> None:
        """Begin with what an earlier run left."""
        self.early = EarlyConnections.taken_over(self._kept_before())

    def lose(self) -> None:
        """Have all of it told again."""
        self._standing, self._blocked = None, {}

    async def remove(self) -> None:
        self._forget()
        await nft.delete_table("inet", TABLE)

    # --- wanted, and told where it differs

    async def stand(self) -> None:
        """Have the table's standing part in force, with all that is in force by it."""
        plan, memory = self._course.plan, self._memory
        wans = {f: tuple(sorted(plan.known(f))) for f in Family}
        names = [*plan.tunnels, *sorted({name for known in wans.values() for name in known})]
        anchored = map(anchor_path, dict.fromkeys(device for _, device in plan.filter.anchors))
        numbers = memory.number([*names, *anchored], FIRST_SLOT, MOST_SLOTS)
        slots = {name: numbers[name] for name in names if name in numbers}
        standing = (names, plan.tunnels, wans, slots, plan.filter.prefixes)
        if standing == self._standing:
            return
        self._watched_until_s = time.monotonic() + OLDER_S
        script = table.standing_script(plan.tunnels, wans, slots, plan.filter.prefixes)
        script += carrying_script(plan.tunnels, self._sets.packets(COUNTED))
        script += "".join((parts := self._wanted(self.early)).values()) + self._refreshed()
        script += self.draining.script(memory.slots, time.monotonic()) + self.early.keeping(slots)
        await self._tell(script)
        self._standing, self.parts = standing, parts

    async def prepare(self, drained: Mapping[Family, str], home: Collection[Family]) -> None:
        """Tell what must be known before traffic leaves these tunnels, or goes home."""
        ended = script = ""
        parts = {"leading": self._leading(drained)} if drained else {}
        for family, tunnel in drained.items():
            # Before the traffic leaves: no packet of what stays may meet the other path.
            slot = self._memory.slots[tunnel]
            script += table.drain_script(family, slot, self._course.plan.filter.drain_s)
        if home:
            # Look-ups first: nothing may be asked of a tunnel's resolver by a WAN.
            ended = "".join(map(table.ended_script, home))
            parts["redirect"] = self._redirect()
        await self._renew(parts, script + ended)
        self._drained |= drained

    async def renew(self) -> list[tuple[Family, str]]:
        """Tell what follows from traffic that has moved: answers, refusals, look-ups, the end of
        draining. Returns the paths whose connections must begin anew.
        """
        drained = {f: self.draining.tunnel(f) for f in Family}
        blocked, diverted = self._course.plan.filter.blocked, dict(self._course.diversions)
        ended = [f for f, tunnel in self._drained.items() if tunnel and not drained[f]]
        script = "".join(map(table.undrain_script, ended))
        script += block_script(blocked) if blocked != self._blocked else ""
        script += self._refreshed() if diverted != self._diverted else ""
        plan = replace(self._course.plan, diversions=diverted)
        early, more, gone = self.early.follow(plan, self._memory.slots, time.monotonic())
        await self._renew(self._wanted(early), script + more)
        self.early, self._blocked, self._diverted, self._drained = early, blocked, diverted, drained
        return gone

    def _wanted(self, early: EarlyConnections) -> dict[str, str]:
        """What the table is to hold beside its standing part."""
        plan = self._course.plan
        return {
            "kill switch": kill_switch_script(is_blocking=any(plan.filter.blocked.values())),
            "carrying": counting_script(is_counting=self._is_counting),
            "redirect": self._redirect(),
            "anchors": anchors_script(plan, self._memory.slots),
            "leading": self._leading(early=early),
        }

    def _redirect(self) -> str:
        plan, rules, is_away = self._course.plan, self._routing.rules(), bool(self._ways())
        return self.look_ups.script(plan, self._memory.slots, rules, is_away=is_away)

    def _leading(
        self, drained: Mapping[Family, str] | None = None, early: EarlyConnections | None = None
    ) -> str:
        """The rules for what is led by marks now, and on tunnels that are drained at once."""
        early, plan = early or self.early, self._course.plan
        is_there = {
            "answer": self._ways(),
            "drain": drained or any(map(self.draining.tunnel, Family)),
            "kept": early.kept,
        }
        maps = frozenset(name for name, held in is_there.items() if held)
        begins = early.leads(time.monotonic())
        leading = table.Leading(maps, anchors=bool(plan.filter.anchors), begins=begins)
        # mwan3 leads traffic by tunnels when it wants, and so does an owner by his own rules.
        enters = bool(leading or any(plan.marks) or self._routing.leads_by(plan.tunnels))
        return table.leading_script(
            leading, enters=enters, is_counting=self._is_counting, is_watching=self._is_watching
        )

    @property
    def _is_watching(self) -> bool:
        """Whether each packet is looked at: a WAN is or was suspect, connections may be older than
        the table, or others use connection marks.
        """
        if time.monotonic() < self._watched_until_s:
            return True
        if self._is_shared is None:
            self._is_shared = self._sets.others_use_connection_marks(INBOUND | SLOT_MASK)
        return self._is_shared or has_legacy_marks()

    @property
    def _is_counting(self) -> bool:
        """Whether traffic is led to a tunnel."""
        return any(way.route.device in self._course.plan.tunnels for way in self._ways())

    def _ways(self) -> list[Diversion]:
        """The diversions that are in force or wanted."""
        return [*self._course.plan.diversions.values(), *self._course.diversions.values()]

    async def _renew(self, parts: Mapping[str, str], script: str) -> None:
        """Have these parts in force, in one step with a script."""
        changed = [text for name, text in parts.items() if text != self.parts.get(name)]
        await self._tell("".join([*changed, script]))
        self.parts |= parts

    async def _tell(self, script: str) -> None:
        if script:
            async with self._telling:
                await nft.run_script(script)

    # --- what lapses

    async def refresh(self) -> None:
        """Give what lapses its full time again."""
        async with self._telling:  # made here: never of a diversion that another script ended
            script = self._refreshed()
            if any(self._blocked.values()):
                script += block_script(self._blocked)
            if script:
                await nft.run_script(script)

    def _refreshed(self) -> str:
        # What is about to end is not renewed: its look-ups go home before its traffic.
        plan, slots = self._course.plan, self._memory.slots
        lasting = {f: d for f, d in self._course.diversions.items() if f in plan.diversions}
        native = lasting.get(Family.IPV6)
        to = native.route.device if native is not None else ""
        dead = {
            family: [slots[name] for name in diversion.dead if name in slots]
            for family, diversion in lasting.items()
        }
        is_wan = to not in ("", *plan.tunnels)
        early = self.early.refreshed(plan, slots)
        return early + table.refresh_script(dead, (to,) if is_wan else ())

    async def look_at_early_ones(self) -> None:
        """Keep the connections that began early on their path, as long as there are any that are
        answered there.
        """
        now_s = time.monotonic()
        if overdue := self.early.overdue(now_s):
            for family, device in overdue:
                are_left = self._has_connections(family, device, answered=not self._away(family))
                self.early.looked(family, device, are_left=are_left, now_s=now_s)
            await self._tell(self.early.keeping(self._memory.slots))

    def look_at_drained(self) -> None:
        """Have draining end as soon as nothing is left: a path in use is probed more often."""
        now_s = time.monotonic()
        for family, tunnel in self.draining.to_look_at(now_s):
            are_left = self._has_connections(family, tunnel)
            self.draining.looked(family, are_left=are_left, now_s=now_s)

    def _away(self, family: Family) -> bool:
        """Whether new connections of the family leave by another path than they did."""
        return family in self._course.plan.diversions or family in self.early.leaving

    def _has_connections(self, family: Family, device: str, *, answered: bool = False) -> bool:
        """Whether connections that began here are on the path, as far as can be told; only those
        that are `answered` may stay.
        """
        mark = self._memory.slots.get(device, 0) << SLOT_SHIFT
        tracking = self._connections
        look = tracking.delete_unanswered if answered else tracking.has_marked
        try:
            return look(family, mark, INBOUND | SLOT_MASK)
        except UplinkError:
            return True

    def _kept_before(self) -> Iterator[tuple[Family, str]]:
        """The paths that connections finish on which began early in an earlier run."""
        names = {slot << SLOT_SHIFT: name for name, slot in self._memory.slots.items()}
        for family in Family:
            with suppress(UplinkError):
                for element in self._sets.read(f"kept{family.version}"):
                    mark = int.from_bytes(element.key, sys.byteorder)
                    if mark in names:
                        yield family, names[mark]
