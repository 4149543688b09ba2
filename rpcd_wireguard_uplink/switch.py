"""Makes the lane follow what was decided: one task, one change at a time, tried again on failure.

Decides nothing. It keeps the lane's elements from lapsing, gives outer packets their underlay
before traffic moves onto a tunnel and tunnels the MTU that it has room for, leads look-ups to a
resolver that serves on the path taken, and deletes the connections that a dead path left behind, or
keeps them on a tunnel that is alive for a bounded time. Lines that are shut are kept so.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from . import iproute
from .errors import UplinkError
from .failover import Change
from .landscape import Landscape
from .model import DefaultRoute, Family, PeerCounters, Uplink
from .reconcile import tunnel_mtu
from .routing.barrier import Barred, barrier_script, shut_script
from .routing.dns import lay_redirect, redirect_script
from .routing.lane import LANE_TABLE, REFRESH_S, Lane, Opening, plan_underlay, route_line
from .routing.resolvers import TunnelResolvers
from .routing.sticky import end_script, keep_script, sticky_script
from .steering.carrying import carrying_script

RETRY_S = 1.0
RESOLVERS_S = 2.0
MOVES = ("failover", "switch", "failback", "drill")

Report = Callable[[Change, Family, int, int], None]


@dataclass(slots=True)
class Switch:
    """The lane's keeper. `report` hears of each change once it is in force: the change, its
    family, detection and switch in milliseconds (-1 where there was none). `resolvers` are public
    ones, `portals` the addresses that stay on a line while its traffic is elsewhere. `sticky_s` is
    how long connections may stay on a tunnel after a failback, 0 for not at all.
    """

    lane: Lane
    landscape: Landscape
    report: Report
    problems: dict[str, str]
    uplinks: tuple[Uplink, ...] = ()
    resolvers: tuple[str, ...] = ()
    sticky_s: float = 0.0
    portals: Mapping[str, Sequence[str]] = field(default_factory=dict)
    dead: dict[Family, Collection[str]] = field(default_factory=dict)
    _barred: Barred = field(default_factory=dict)
    _bars: Barred = field(default_factory=dict)
    _kept: dict[Family, tuple[str, float]] = field(default_factory=dict)
    _wanted: dict[Family, Opening | None] = field(default_factory=dict)
    _untold: list[tuple[Change, Family, int]] = field(default_factory=list)
    _standing: object = None
    _redirect: str = ""
    _inside: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    _tunnel_resolvers: TunnelResolvers = field(default_factory=TunnelResolvers)
    _underlay: dict[Family, list[DefaultRoute]] = field(default_factory=dict)
    _excepted: dict[Family, set[str]] = field(default_factory=dict)
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
                self._kept.clear()
                self._bars = {}
                await self.lane.remove()
            return
        tunnels = self._tunnels()
        lines = {f: sorted(self.landscape.lines[f].known) for f in Family}
        onlink = self.landscape.onlink_prefixes()
        active = [opening.route.device for opening in self.lane.openings.values()]
        devices = [self.landscape.incarnation(name) for name in (*tunnels, *active)]
        redirect = self._wanted_redirect()
        standing = (tunnels, devices, lines, onlink, self.sticky_s > 0)
        if standing != self._standing:
            more = barrier_script() + sticky_script(self.sticky_s > 0) + redirect
            more += carrying_script(tunnels)
            await self.lane.stand(tunnels, lines, onlink, more)
            self._standing, self._redirect = standing, redirect
            self._excepted.clear()  # a device made anew has lost its routes
            self._kicked.set()  # what could not be opened without it can be now
        elif redirect != self._redirect:
            self._kicked.set()
        await self._set_underlays()

    def except_portals(self, portals: Mapping[str, Sequence[str]]) -> None:
        """Have these addresses reached by their line (device -> addresses), whatever is open."""
        if portals != self.portals:
            self.portals = portals
            self._kicked.set()

    async def follow_underlays(self, counters: Mapping[str, PeerCounters] | None = None) -> None:
        """See what each tunnel travels over, and give it the MTU that there is room for.

        Without counters the last ones count.
        """
        await self.landscape.reread_underlays(self.uplinks, counters)
        for uplink in self.uplinks:
            name = uplink.interface
            room = self.landscape.mtu_of(self.landscape.underlays.get(name, ""))
            mtu = tunnel_mtu(uplink.mtu, room)
            if not room or self.landscape.mtu_of(name) in (0, mtu):
                continue
            try:
                await self.landscape.platform.set_mtu(name, mtu)
                self.problems.pop(f"mtu {name}", None)
            except UplinkError as error:
                self.problems[f"mtu {name}"] = str(error)

    async def check_resolvers(self) -> None:
        """The task: while no lane is open, find out which resolvers may serve in each tunnel."""
        while True:
            if not self.lane.openings:
                lines, now_s = self.landscape.line_devices(), time.monotonic()
                found = await self._tunnel_resolvers.look(self.uplinks, lines, now_s)
                if found != self._inside:
                    self._inside = found
                    self._kicked.set()
            await asyncio.sleep(RESOLVERS_S)

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

    def bar(self, barred: Barred) -> None:
        """Have exactly these devices shut, each for its family."""
        self._barred = barred
        if self._standing is not None and barred != self._bars:
            self._kicked.set()

    def carries(self, device: str, family: Family) -> bool:
        """Whether traffic is led there: by an open lane, a drill's too, or because connections
        finish on this tunnel although the traffic went back.
        """
        opening = self._wanted.get(family)
        led = opening is not None and opening.route.device == device
        return led or self._kept.get(family, ("", 0.0))[0] == device

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
                await self.lane.refresh(shut_script(self._bars) if any(self._bars.values()) else "")
                if self._outstayed():
                    self._kicked.set()
                self.problems.pop("refresh", None)
            except UplinkError as error:
                self.problems["refresh"] = str(error)
                self._standing = None
                rebuild()
                self.lane.openings.clear()
                self._bars = {}

    async def _set_underlays(self) -> None:
        tunnels = self._tunnels()
        async with self._laying:  # both tasks come here
            for family in Family:
                routes = self.landscape.lines[family].routes
                plan = plan_underlay(routes, self.dead.get(family, ()), tunnels)
                await self.lane.set_underlay(family, plan)
                self._underlay[family] = plan

    async def _apply(self) -> None:
        before = dict(self.lane.openings)
        wanted = {
            family: opening
            for family, opening in self._wanted.items()
            if opening != before.get(family)
        }
        wanted.update(dict.fromkeys(self._outstayed() - wanted.keys()))
        begun_s, underlay = time.monotonic(), dict(self._underlay)
        await self._set_underlays()
        kept = self._kept_tunnels(before, wanted)
        bars = self._barred if self._standing is not None else self._bars
        if wanted or bars != self._bars:
            more = "".join(keep_script(family, self.sticky_s) for family in kept)
            more += "".join(end_script(family) for family in wanted.keys() & self._kept.keys())
            more += shut_script(bars) if bars != self._bars else ""
            await self.lane.move(wanted, more, kept)
            self._bars = bars
        ended = {f: self._kept.pop(f) for f in wanted.keys() & self._kept.keys()}
        self._kept.update(kept)
        switch_ms = round((time.monotonic() - begun_s) * 1000)
        untold, self._untold = self._untold, []
        for change, family, detection_ms in untold:
            self.report(change, family, detection_ms, switch_ms if change.kind in MOVES else -1)
        await self._lay_details()
        for family, opening in wanted.items():
            left = [*_left_behind(before.get(family), opening), ended.get(family, ("", 0.0))[0]]
            stays = opening.route.device if opening else kept.get(family, ("", 0.0))[0]
            for device in {*left} - {"", stays}:
                addresses = await self.landscape.addresses_of(device, family)
                await self.lane.forget_flows(family, addresses)
        if underlay != self._underlay:
            await self.follow_underlays()

    def _kept_tunnels(
        self, before: Mapping[Family, Opening], wanted: Mapping[Family, Opening | None]
    ) -> dict[Family, tuple[str, float]]:
        """The tunnels that connections may finish on although the lane is shut, and until when."""
        until_s, tunnels = time.monotonic() + self.sticky_s, self._tunnels()
        shut = {f: before[f].route.device for f, o in wanted.items() if o is None and f in before}
        return {
            family: (device, until_s)
            for family, device in shut.items()
            if self.sticky_s and device in tunnels and device not in self.dead.get(family, ())
        }

    def _outstayed(self) -> set[Family]:
        """The families whose kept connections must end now."""
        now_s, tunnels = time.monotonic(), self._tunnels()
        return {
            family
            for family, (device, until_s) in self._kept.items()
            if now_s >= until_s or device not in tunnels or device in self.dead.get(family, ())
        }

    def _tunnels(self) -> list[str]:
        return [uplink.interface for uplink in self.uplinks]

    async def _lay_details(self) -> None:
        """Lead look-ups where the traffic goes now, and portals' addresses by their lines."""
        redirect = self._wanted_redirect()
        if self._standing is not None and redirect != self._redirect:
            await lay_redirect(redirect)
            self._redirect = redirect
        for family in Family:
            wanted = self._wanted_exceptions(family)
            had = self._excepted.get(family, set())
            lines = [f"route del {line}" for line in had - wanted]
            lines += [f"route replace {line}" for line in wanted]
            if wanted != had:
                await iproute.batch(family, lines, force=True)
            self._excepted[family] = wanted

    def _wanted_exceptions(self, family: Family) -> set[str]:
        """Routes of the lane's table; shutting the lane empties it."""
        opening = self.lane.openings.get(family)
        found: set[str] = set()
        for device, addresses in self.portals.items() if opening is not None else ():
            route = route_line(self.landscape.route_of(device, family), LANE_TABLE)
            mine = [a for a in addresses if (":" in a) == (family is Family.IPV6)]
            found.update(route.replace("route replace default", address) for address in mine)
        return found

    def _wanted_redirect(self) -> str:
        offered = {server for uplink in self.uplinks for server in uplink.resolvers}
        targets, dead = {}, {}
        best = max(self.uplinks, key=lambda uplink: uplink.weight, default=None)
        for family in Family:
            opening = self._wanted.get(family)
            serving = opening.route.device if opening else best.interface if best else ""
            able = [*self._inside.get(serving, ()), *self.resolvers]
            ours = [server for server in able if (":" in server) == (family is Family.IPV6)]
            if ours:
                targets[family] = ours[0]
            if opening is None and any(self._wanted.values()):
                known = self.landscape.lines[family].known
                dead[family] = sorted(known.keys() & set(self.dead.get(family, ())))
        return redirect_script({*self.landscape.resolvers, *offered}, targets, dead)


def _left_behind(before: Opening | None, now: Opening | None) -> list[str]:
    """The devices whose traffic was moved away: what was active, and what is newly dead."""
    left = [before.route.device] if before is not None else []
    left += now.dead if now is not None else ()
    staying = {now.route.device} if now is not None else set()
    if before is not None:
        staying.update(before.dead)
    return [device for device in left if device not in staying]
