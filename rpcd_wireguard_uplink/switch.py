"""Makes the lane follow what was decided: one task, one change at a time, tried again on failure.

Decides nothing. It keeps the lane's elements from lapsing, gives outer packets their underlay
before traffic moves onto a tunnel, and deletes the connections that a dead path left behind.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from .errors import UplinkError
from .failover import Change
from .landscape import Landscape
from .model import Family, Uplink
from .routing.dns import redirect_script
from .routing.lane import LANE_MARK, REFRESH_S, Lane, Opening, plan_underlay

RETRY_S = 1.0
MOVES = ("failover", "switch", "failback")

Report = Callable[[Change, Family, int, int], None]


@dataclass(slots=True)
class Switch:
    """The lane's keeper. `report` hears of each change once it is in force: the change, its
    family, detection and switch in milliseconds (-1 where there was none).
    """

    lane: Lane
    landscape: Landscape
    report: Report
    problems: dict[str, str]
    uplinks: tuple[Uplink, ...] = ()
    resolvers: tuple[str, ...] = ()
    dead: dict[Family, Collection[str]] = field(default_factory=dict)
    _wanted: dict[Family, Opening | None] = field(default_factory=dict)
    _untold: list[tuple[Change, Family, int]] = field(default_factory=list)
    _standing: object = None
    _kicked: asyncio.Event = field(default_factory=asyncio.Event)
    _laying: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def take_over(self) -> dict[Family, Opening]:
        """Adopt and refresh what an earlier run of the service left open."""
        found = await self.lane.read_standing()
        self.lane.openings.update(found)
        self._wanted.update(found)
        await self.lane.refresh()
        return found

    async def stand(self, uplinks: Sequence[Uplink]) -> None:
        """Have the standing part cover these uplinks and the lines as they are; none: remove it."""
        self.uplinks = tuple(uplinks)
        if not uplinks:
            if self._standing is not None or self.lane.openings:
                self._standing = None
                self._wanted.clear()
                await self.lane.remove()
            return
        tunnels = [uplink.interface for uplink in uplinks]
        lines = {f: sorted(self.landscape.lines[f].known) for f in Family}
        onlink = self.landscape.onlink_prefixes()
        active = [opening.route.device for opening in self.lane.openings.values()]
        devices = [self.landscape.incarnation(name) for name in (*tunnels, *active)]
        redirect = redirect_script(self.landscape.resolvers, self.resolvers, LANE_MARK)
        standing = (tunnels, devices, lines, onlink, redirect)
        if standing != self._standing:
            await self.lane.stand(tunnels, lines, onlink, redirect)
            self._standing = standing
            self._kicked.set()  # what could not be opened without it can be now
        await self._set_underlays()

    def want(
        self, family: Family, opening: Opening | None, change: Change, detection_ms: int
    ) -> None:
        """Have the family's lane open so (None: shut), and the change told once it is."""
        self._wanted[family] = opening
        self._untold.append((change, family, detection_ms))
        self._kicked.set()

    def renew(self, family: Family, opening: Opening | None) -> None:
        """Have an open lane open so, where more is known of dead lines or gateways by now."""
        found = self._wanted.get(family)
        if None not in (found, opening, self._standing) and opening != found:
            self._wanted[family] = opening
            self._kicked.set()

    async def follow(self) -> None:
        """The task: carry out what is wanted, for ever."""
        while True:
            await self._kicked.wait()
            self._kicked.clear()
            try:
                await self._apply()
                self.problems.pop("switch", None)
            except UplinkError as error:
                self.problems["switch"] = str(error)
                asyncio.get_running_loop().call_later(RETRY_S, self._kicked.set)

    async def keep_open(self, rebuild: Callable[[], None]) -> None:
        """The task: refresh open lanes; where the table is gone, have it built anew."""
        while True:
            await asyncio.sleep(REFRESH_S)
            try:
                await self.lane.refresh()
                self.problems.pop("refresh", None)
            except UplinkError as error:
                self.problems["refresh"] = str(error)
                self._standing = None
                rebuild()
                self.lane.openings.clear()

    async def _set_underlays(self) -> None:
        tunnels = [uplink.interface for uplink in self.uplinks]
        async with self._laying:  # both tasks come here
            for family in Family:
                routes = self.landscape.lines[family].routes
                plan = plan_underlay(routes, self.dead.get(family, ()), tunnels)
                await self.lane.set_underlay(family, plan)

    async def _apply(self) -> None:
        before = dict(self.lane.openings)
        wanted = {
            family: opening
            for family, opening in self._wanted.items()
            if opening != before.get(family)
        }
        begun_s = time.monotonic()
        await self._set_underlays()
        if wanted:
            await self.lane.move(wanted)
        switch_ms = round((time.monotonic() - begun_s) * 1000)
        untold, self._untold = self._untold, []
        for change, family, detection_ms in untold:
            self.report(change, family, detection_ms, switch_ms if change.kind in MOVES else -1)
        for family, opening in wanted.items():
            for device in _left_behind(before.get(family), opening):
                addresses = await self.landscape.addresses_of(device, family)
                await self.lane.forget_flows(family, addresses)


def _left_behind(before: Opening | None, now: Opening | None) -> list[str]:
    """The devices whose traffic was moved away: what was active, and what is newly dead."""
    left = [before.route.device] if before is not None else []
    left += now.dead if now is not None else ()
    staying = {now.route.device} if now is not None else set()
    if before is not None:
        staying.update(before.dead)
    return [device for device in left if device not in staying]
