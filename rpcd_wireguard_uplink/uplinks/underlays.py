"""Moves a tunnel's outer packets off an underlay that is in doubt, and back when it is well again.

WireGuard keeps its session when an endpoint changes, so the flows inside keep their address. A way
is in doubt as soon as a WAN's probe goes unanswered, long before the verdict, or where a device has
no carrier: to leave one that is well does no harm. The way back is taken after the hold time, when
the family's traffic is home too; at once where nothing was heard by the other way.

A neighbour link that falls silent and keeps its carrier is seen by the tunnel alone, whose probes
go unanswered by a way that nobody else doubts. Then the other way is tried, once in each pause: if
that is silent too it is the provider who is dead.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import field

from ..config.store import ConfigStore
from ..failover.machine import AWAY
from ..failover.monitor import Monitor
from ..model import Family, Health, PathKind
from ..platform.endpoint_addresses import Way
from ..platform.linux import Platform
from ..values import dataclass
from ..warnings import Warnings

LOSSES = 3  # of a tunnel's probes in a row
SHORT_PAUSE_S, LONG_PAUSE_S = 60.0, 3600.0


@dataclass(frozen=True, slots=True)
class Silence:
    """A way by which a tunnel had no answers. It is not taken again until then; the pause grows
    where it is silent again.
    """

    way: Way
    until_s: float
    pause_s: float


@dataclass(eq=False, repr=False)
class Underlays:
    """Those of one router's tunnels."""

    _platform: Platform
    _store: ConfigStore
    _monitor: Monitor
    _warnings: Warnings
    _doubted: frozenset[Way] = frozenset()
    _silent: dict[str, Silence] = field(default_factory=dict)  # by tunnel
    _well_since_s: dict[Way, float] = field(default_factory=dict)
    _moving: asyncio.Lock = field(default_factory=asyncio.Lock)

    def notice(self) -> Coroutine[None, None, None] | None:
        """Take the paths as they are judged now; what is to be done where other ways are doubted
        than before, or a tunnel has fallen silent.
        """
        if not (self._doubted or self._monitor.network.state.second_underlays):
            return None
        is_doubted = self._take_doubts()
        return self.follow() if self._take_silences() or is_doubted else None

    def _take_silences(self) -> bool:
        """See which tunnels have fallen silent by a way that is in no doubt; whether one has."""
        now_s, fell = time.monotonic(), False
        for name in self._monitor.network.state.second_underlays:
            before, taken = self._silent.get(name), self._platform.endpoints.way(name)
            if taken is None or taken[0] in self._doubted or not self._is_silent(name, taken[1]):
                continue
            if before is not None and now_s < before.until_s:
                continue
            pause_s = SHORT_PAUSE_S
            if before is not None and now_s - before.until_s < before.pause_s:
                pause_s = min(LONG_PAUSE_S, 2 * before.pause_s)
            self._silent[name] = Silence(taken[0], now_s + pause_s, pause_s)
            fell = True
        return fell

    def _is_silent(self, name: str, since_s: float) -> bool:
        """Whether the tunnel was answered by its way, which it has since then, and is not now, in
        neither family.
        """
        found = (path.health for path in self._monitor.paths.of(name))
        known = [health for health in found if health.last_answer_s is not None]
        lost = max((health.lost_in_row for health in known), default=0)
        answered_s = max((health.last_answer_s or 0.0 for health in known), default=0.0)
        is_lost = lost >= LOSSES and all(health.is_unanswered for health in known)
        return is_lost and answered_s > since_s

    def _take_doubts(self) -> bool:
        """See which ways are in doubt; whether others were."""
        before, self._doubted = self._doubted, self._doubted_now()
        self._well_since_s |= dict.fromkeys(before - self._doubted, time.monotonic())
        self._silent = {n: s for n, s in self._silent.items() if s.way not in self._doubted}
        return before != self._doubted

    def _doubted_now(self) -> frozenset[Way]:
        bad = (Health.SUSPECT, Health.DOWN)
        found = {
            path.key
            for path in self._monitor.paths.values()
            if path.kind is PathKind.WAN and path.health.state in bad
        }
        links = self._monitor.network.state.links.values()
        return frozenset(
            found | {(link.name, family) for link in links if not link.carrier for family in Family}
        )

    async def follow(self) -> None:
        """Have each tunnel go by a way that is not in doubt. To be called now and then too."""
        self._take_doubts()
        names = []
        for uplink in self._store.current.wanted_uplinks:
            names.append(uplink.interface)
            name, others = uplink.interface, uplink.other_endpoints
            hosts = [other.host for other in others]
            # Where there is a lease they are told with it.
            if not uplink.leased and self._platform.endpoints.also(name, others, hosts):
                self._monitor.reread_soon()
        wans = self._monitor.network.state.wan_devices()
        with self._warnings.catch("underlays"):
            async with self._moving:
                able = [name for name in names if self._may_return(name)]
                returned = await self._platform.return_to_ways(able)
                left = await self._platform.leave_ways(names, self._doubted, wans)
                for name in names:
                    if silent := self._silent_way(name):
                        doubted = self._doubted | {silent}
                        left = await self._platform.leave_ways([name], doubted, wans) or left
            if left or returned:
                await self._monitor.network.read_counters()
                self._monitor.reread_soon()

    def _silent_way(self, name: str) -> Way | None:
        """The way that is not to be taken now; None where there is none."""
        silence = self._silent.get(name)
        return silence.way if silence is not None and time.monotonic() < silence.until_s else None

    def _may_return(self, name: str) -> bool:
        left = self._platform.endpoints.way_back(name)
        if left is None or not left[0][0] or left[0] in self._doubted:
            return False
        if left[0] == self._silent_way(name):
            return False
        way, since_s = left
        answers = [p.health.last_answer_s or 0.0 for p in self._monitor.paths.of(name)]
        if max(answers, default=0.0) < since_s:
            return True
        is_wan = way[0] in self._monitor.network.state.wans[way[1]].known
        if is_wan and self._monitor.states[way[1]].phase in AWAY:
            return False
        well_s = time.monotonic() - self._well_since_s.get(way, float("-inf"))
        return well_s >= self._store.current.settings.hold_s
