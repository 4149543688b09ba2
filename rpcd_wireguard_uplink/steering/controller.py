"""Makes the kernel follow the steering plan: one wish, compared with what is there, and applied.

Rules and routes are changed over one netlink socket, without a process, when a decision falls;
connection tracking, nftables and look-ups follow. What somebody else removes is put back, and what
the plan no longer says goes. When this process falls silent, the nftables elements of a diversion
lapse and a watchdog takes its rules back.
"""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..carrying.counters import carrying_script
from ..errors import CommandFailed, UplinkError
from ..failover.machine import Change
from ..model import PROVIDER_DEVICE, DefaultRoute, Family, Uplink
from ..platform import inbound
from ..platform.network_reader import NetworkReader
from ..platform.tunnels import tunnel_mtu
from ..system import nft
from ..system.dns import TunnelResolvers
from ..system.kernel import Connections
from ..system.marks import INBOUND, SLOT_MASK, TABLE
from ..system.netlink import Events
from ..system.rtnetlink import Rule
from . import dns, kill_switch, tables
from .filter import (
    REFRESH_S,
    drain_script,
    ended_script,
    refresh_script,
    standing_script,
    undrain_script,
)
from .kernel_view import KernelView
from .memory import Memory
from .plan import (
    DIVERTED_TABLE,
    DIVERTING,
    FIRST_SLOT,
    MOST_SLOTS,
    STANDING,
    Diversion,
    Ending,
    Owned,
    SteeringPlan,
)
from .reconcile import Request, plan_changes
from .repairs import Repairs
from .reverse_path import ReversePath
from .rules import SLOT_SHIFT, diverting_rules, path_table, policy_sources, standing_rules
from .watchdog import BEAT_S, Watchdog

RETRY_S = 1.0
RESOLVERS_S = 2.0
CALM_S = (
    2.5  # what begins meanwhile beats and refreshes by itself: this is below the watchdog's 4 s
)
SETTLE_S = 0.005  # the kernel's news come in bursts
MOVES = ("failover", "switch", "failback", "drill")
_HARMLESS = (0, errno.EEXIST, errno.ESRCH, errno.ENOENT)

Report = Callable[[Change, Family, int, int], None]


@dataclass(slots=True)
class SteeringController:
    """Steering on one router. `report` hears of each change once it is in force: the change, its
    family, detection and switch in milliseconds (-1 where there was none). `resolvers` are public
    ones. `drain_s` is how long connections may stay on a tunnel after a failback. `marks` are
    mwan3's marks of traffic of the WANs. `run_dir` is ours on a tmpfs.
    """

    network: NetworkReader
    view: KernelView
    connections: Connections
    report: Report
    problems: dict[str, str]
    run_dir: str
    uplinks: tuple[Uplink, ...] = ()
    resolvers: tuple[str, ...] = ()
    marks: tuple[int, ...] = (0,)
    drain_s: float = 0.0
    portals: Mapping[str, Sequence[str]] = field(default_factory=dict)
    dead: dict[Family, Collection[str]] = field(default_factory=dict)
    diversions: dict[Family, Diversion] = field(default_factory=dict)
    memory: Memory = field(init=False)
    watchdog: Watchdog = field(init=False)
    reverse_path: ReversePath = field(init=False)
    _wanted: dict[Family, Diversion | None] = field(default_factory=dict)
    _block_wanted: kill_switch.Blocked = field(default_factory=dict)
    _blocked: kill_switch.Blocked = field(default_factory=dict)
    _drained: dict[Family, tuple[str, float]] = field(default_factory=dict)
    _unreported: list[tuple[Change, Family, int]] = field(default_factory=list)
    _standing: object = None
    _redirect: str = ""
    _inside: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    _tunnel_resolvers: TunnelResolvers = field(default_factory=TunnelResolvers)
    _underlays: object = None
    _vpn_default: dict[Family, str] = field(default_factory=dict)
    _is_loose: bool = False
    _drills: set[Family] = field(default_factory=set)
    _repairs: Repairs = field(default_factory=Repairs)
    _applied: dict[Family, list[Rule]] = field(default_factory=dict)
    _settled: dict[Family, object] = field(default_factory=dict)
    on_filter_lost: Callable[[], None] = field(default=lambda: None)
    _rebuild: Callable[[], None] = field(default=lambda: None)
    _table_events: Events | None = None
    _kicked: asyncio.Event = field(default_factory=asyncio.Event)
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _filtering: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self.memory = Memory(os.path.join(self.run_dir, "steering.json"))
        self.watchdog = Watchdog(self.run_dir)
        self.reverse_path = ReversePath(self.watchdog.saved_path)

    # --- life

    async def start(self, rebuild: Callable[[], None]) -> dict[Family, Diversion]:
        """Begin to hear the kernel; adopt and refresh what an earlier run left in force.

        `rebuild` is called when the nftables table is gone: ensure() is to be called then.
        """
        self._rebuild = rebuild
        self.view.listen(self._on_news)
        self._table_events = self.view.kernel.listen_to_tables(self._on_table_news)
        self.view.read()
        found = {}
        remembered = self.memory.load()
        for family in Family:
            in_force = any(rule.protocol == DIVERTING for rule in self.view.rules.get(family, ()))
            if in_force and family in remembered:
                found[family] = remembered[family]
        self.diversions.update(found)
        self._wanted.update(found)
        if found:
            self._beat()
            await self._refresh()
        else:
            self.reverse_path.loosen(())
        return found

    def stop(self) -> None:
        """Stop hearing. What is in force ends by itself unless a new run takes it over."""
        self.view.close()
        if self._table_events is not None:
            self._table_events.close()
            self._table_events = None
        self.watchdog.leave()

    def _on_table_news(self) -> None:
        if self._table_events is None:
            return
        messages, lost = self._table_events.read()
        if lost or nft.deletes_table(messages, inbound.TABLE):
            self.on_filter_lost()
        if self._standing is not None and nft.deletes_table(messages, TABLE):
            self._lose_table()
        elif lost:
            self._rebuild()

    def _lose_table(self) -> None:
        self._standing = None
        self._blocked = {}
        self._note_repair()
        self._rebuild()

    def _on_news(self) -> None:
        if self.view.take_news():
            self._news.set()

    async def follow_kernel(self) -> None:
        """The task: whenever the kernel's rules or routes changed, make them what they must be."""
        while True:
            await self._news.wait()
            await asyncio.sleep(SETTLE_S)
            self._news.clear()
            try:
                if self._standing is not None:
                    self._sync()
                self.problems.pop("steering", None)
            except UplinkError as error:
                self.problems["steering"] = str(error)
                asyncio.get_running_loop().call_later(RETRY_S, self._news.set)

    def _note_repair(self) -> None:
        now_s = time.monotonic()
        self._repairs.note(now_s)
        told = self._repairs.sentence(now_s)
        if told:
            self.problems["repairs"] = told

    # --- wishes

    async def ensure(self, uplinks: Sequence[Uplink]) -> None:
        """Have the standing part cover these uplinks and the WANs as they are; none: remove it."""
        self.uplinks = tuple(uplinks)
        if not uplinks:
            if self._standing is not None or self.diversions or self._has_leftovers():
                await self._remove()
            return
        tunnels = self._tunnels()
        wans = {f: tuple(sorted(self.network.state.wans[f].known)) for f in Family}
        slots = self._slots()
        prefixes = {
            w: tuple(self.network.state.prefixes_of(w)) for names in wans.values() for w in names
        }
        redirect = self._wanted_redirect()
        active = [diversion.route.device for diversion in self.diversions.values()]
        devices = [self.network.state.incarnation(name) for name in (*tunnels, *active)]
        standing = (tunnels, devices, wans, slots, sorted(prefixes.items()))
        if standing != self._standing:
            script = standing_script(tunnels, wans, slots, prefixes)
            more = kill_switch.standing_script() + carrying_script(tunnels) + redirect
            await self._filter_now(script + more + self._refreshing() + self._draining())
            self._standing, self._redirect = standing, redirect
            self._kicked.set()  # what could not be in force without it can be now
        elif redirect != self._redirect:
            self._kicked.set()
        self._sync()
        if self._underlays != self._underlay_order():
            self._underlays = self._underlay_order()
            await self.follow_underlays()

    def except_portals(self, portals: Mapping[str, Sequence[str]]) -> None:
        """Have these addresses reached by their WAN (device -> addresses), whatever is diverted."""
        if portals != self.portals:
            self.portals = portals
            self._kicked.set()

    def want(
        self, family: Family, diversion: Diversion | None, change: Change, detection_ms: int
    ) -> None:
        """Have the family's diversion so (None: none), and the change reported once it is."""
        self._wanted[family] = diversion
        if change.kind == "drill" and diversion is not None:
            self._drills.add(family)
        else:
            self._drills.discard(family)
        self._unreported.append((change, family, detection_ms))
        self._kicked.set()

    def renew(self, family: Family, diversion: Diversion | None) -> None:
        """Have a diversion as it is to be by now, where more is known of dead WANs or gateways."""
        found = self._wanted.get(family)
        if family in self._drills or self._standing is None:
            return
        if diversion != found:
            self._wanted[family] = diversion
            self._kicked.set()

    def block(self, blocked: kill_switch.Blocked) -> None:
        """Refuse exactly what would leave by these devices, each for its family."""
        self._block_wanted = blocked
        if self._standing is not None and blocked != self._blocked:
            self._kicked.set()

    def carries(self, device: str, family: Family) -> bool:
        """Whether traffic is led there: diverted, in a drill too, or connections finish on it."""
        diversion = self._wanted.get(family)
        led = diversion is not None and diversion.route.device == device
        return led or self._drained.get(family, ("", 0.0))[0] == device

    # --- tasks

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

    async def keep_alive(self) -> None:
        """The task: refresh what lapses; where the table is gone, have it built anew."""
        refreshed_s = time.monotonic()
        while True:
            is_calm = not (self.diversions or self._is_loose or any(self._blocked.values()))
            await asyncio.sleep(CALM_S if is_calm else BEAT_S)
            if self.diversions or self._is_loose:
                self._loosen()  # others set it anew, and so does a watchdog while we are held up
            self._beat()
            if time.monotonic() - refreshed_s < REFRESH_S:
                continue
            refreshed_s = time.monotonic()
            try:
                await self._refresh()
                if self._outstayed():
                    self._kicked.set()
                self.problems.pop("refresh", None)
            except UplinkError as error:
                self.problems["refresh"] = str(error)
                self._lose_table()

    async def check_resolvers(self) -> None:
        """The task: while nothing is diverted, find out which resolvers serve in each tunnel."""
        while True:
            if not self.diversions:
                now_s = time.monotonic()
                found = await self._tunnel_resolvers.look(self.uplinks, now_s)
                if found != self._inside:
                    self._inside = found
                    self._kicked.set()
            await asyncio.sleep(RESOLVERS_S)

    async def follow_underlays(self) -> None:
        """See what each tunnel travels over, and give it the MTU that there is room for."""
        await self.network.read_underlays(self.uplinks)
        for uplink in self.uplinks:
            name = uplink.interface
            room = self.network.state.mtu_of(self.network.state.underlays.get(name, ""))
            mtu = tunnel_mtu(uplink.mtu, room)
            if not room or self.network.state.mtu_of(name) in (0, mtu):
                continue
            try:
                await self.network.platform.set_mtu(name, mtu)
                self.problems.pop(f"mtu {name}", None)
            except UplinkError as error:
                self.problems[f"mtu {name}"] = str(error)

    # --- the plan

    def plan(self) -> SteeringPlan:
        """The whole wish, as things stand."""
        wans = {f: tuple(self.network.state.wans[f].known.values()) for f in Family}
        ordered = {f: self._in_order(f, wans[f]) for f in Family}
        expected = {
            f: (lines.primary.device,)
            for f, lines in self.network.state.wans.items()
            if lines.primary is not None
        }
        return SteeringPlan(
            owned=Owned(tuple(self._tunnels()), frozenset(self.network.state.private), ordered),
            dead={f: frozenset(self.dead.get(f, ())) for f in Family},
            expected=expected,
            diversions=dict(self.diversions),
            portals={d: tuple(a) for d, a in self.portals.items()},
            resolvers={u.interface: tuple(u.resolvers) for u in self.uplinks},
        )

    def _in_order(self, family: Family, wans: Sequence[DefaultRoute]) -> tuple[DefaultRoute, ...]:
        """WANs with a route first, in the order of preference."""
        routes = list(self.network.state.wans[family].routes)
        names = [route.device for route in routes]
        return (*routes, *(wan for wan in wans if wan.device not in names))

    def _underlay_order(self) -> object:
        plan = self.plan()
        return plan.owned.wans, plan.dead

    def _private_default(self, family: Family) -> str:
        """The owner's tunnel that has a default route now; '' where none has."""
        private = {self.view.indexes.get(name, 0): name for name in self.network.state.private}
        for route in self.view.main.get(family, ()):
            for hop in route.hops if tables.is_default_like(route) else ():
                if hop.index in private:
                    return private[hop.index]
        return ""

    def _held_back(self, family: Family, diversion: Diversion) -> Diversion:
        """The diversion, refused where an owner's VPN had the default route until the outage."""
        name = self._private_default(family)
        topic = f"vpn {family.value}"
        self._vpn_default[family] = name or self._vpn_default.get(family, "")
        if name or not self._vpn_default[family]:
            self.problems.pop(topic, None)
            return replace(diversion, ending=Ending.PATH)
        self.problems[topic] = (
            f"the default route by {self._vpn_default[family]}, a VPN, went away during the outage "
            f"({family.value}): new traffic is refused until it or the WAN is back, so that "
            "nothing leaves in clear"
        )
        return replace(diversion, ending=Ending.UNREACHABLE)

    # --- applying

    def _sync(self) -> bool:
        """Make rules and routes what the plan says; whether anything had to be done.

        Raises CommandFailed where the kernel refuses what traffic depends on.
        """
        self.view.take_news()
        for family in self.view.read():
            self._settled.pop(family, None)
        for family in Family:
            if family in self.diversions:
                self.diversions[family] = self._held_back(family, self.diversions[family])
            else:
                self._vpn_default[family] = self._private_default(family)
                self.problems.pop(f"vpn {family.value}", None)
        plan = self.plan()
        requests: list[Request] = []
        removed = set()
        wishes = {f: (plan, tuple(self.network.state.wans[f].routes), self.marks) for f in Family}
        for family, wish in wishes.items():
            if self._settled.pop(family, None) == wish:
                continue  # neither the kernel's side nor ours has changed
            if self.view.rules.get(family) and self._add_changes(plan, family, requests):
                removed.add(family)
        if removed:
            self._note_repair()
        if not requests:
            self._settled = dict(wishes)
            return False
        for family in {request.about.family for request in requests}:
            self.view.expect_changes(family)
        codes = self.view.kernel.change([request.message for request in requests])
        self._judge(requests, codes)
        self._settled = dict(wishes)
        for family in removed & self.diversions.keys():
            for device in self.diversions[family].dead:  # flows began there without the rules
                self._delete_connections(family, device)
        return True

    def _add_changes(self, plan: SteeringPlan, family: Family, requests: list[Request]) -> bool:
        """Add what the family needs; whether somebody has removed rules of ours."""
        view = self.view
        found = view.rules[family]
        slots = self._slots_in_use(family)
        rules = standing_rules(plan, family, found, slots.values())
        rules += diverting_rules(
            plan,
            family,
            found,
            self._bound_devices(family),
            [mark for mark in self.marks if mark],
            self._live_tables(family),
        )
        main, indexes = view.main[family], view.indexes
        routes = tables.diverted_routes(plan, family, main, indexes)
        routes += tables.last_routes(plan, family, indexes)
        routes += tables.bound_routes(plan, family, indexes)
        routes += tables.underlay_routes(plan, family, main, indexes, PROVIDER_DEVICE)
        for device, slot in slots.items():
            routes += tables.path_routes(plan, family, device, path_table(slot), indexes)
        ours = [rule for rule in found if rule.protocol in (STANDING, DIVERTING)]
        applied, self._applied[family] = self._applied.get(family, ()), rules
        requests += plan_changes(view.ours[family], routes, ours, rules)
        return not {*applied} & {*rules} <= {*ours}

    def _bound_devices(self, family: Family) -> set[str]:
        """The devices that main has, or had, a default route by; not our tunnels."""
        names = {index: name for name, index in self.view.indexes.items()}
        found = {
            names[hop.index]
            for route in self.view.main.get(family, ())
            if tables.is_default_like(route)
            for hop in route.hops
            if hop.index in names
        }
        return (found | {*self.network.state.wans[family].known}) - {*self._tunnels()}

    def _live_tables(self, family: Family) -> set[int]:
        """Other programs' tables whose default leads out of a WAN that is alive."""
        dead = self.diversions[family].dead if family in self.diversions else ()
        routes = self.network.state.wans[family].routes
        live = {self.view.indexes.get(r.device) for r in routes if r.device not in dead}
        return {
            route.table
            for route in self.view.others.get(family, ())
            if tables.is_default_like(route) and any(hop.index in live for hop in route.hops)
        }

    def _judge(self, requests: Sequence[Request], codes: Sequence[int]) -> None:
        for request, code in zip(requests, codes, strict=True):
            if code in _HARMLESS or request.is_removal:
                continue
            about = request.about
            said = os.strerror(code)
            if isinstance(about, Rule):
                raise CommandFailed(f"the kernel refused the rule {about.priority}: {said}")
            if about.table == DIVERTED_TABLE and about.destination:
                self.problems["route"] = f"the route {about.destination} was not copied: {said}"
            elif code not in (errno.ENODEV, errno.ENETDOWN, errno.ENETUNREACH, errno.EINVAL):
                raise CommandFailed(f"the kernel refused a route of table {about.table}: {said}")

    async def _apply(self) -> None:
        before = dict(self.diversions)
        wanted = {f: d for f, d in self._wanted.items() if not _same(d, before.get(f))}
        ending = self._outstayed() - wanted.keys()
        begun_s = time.monotonic()
        if self._standing is None and any(wanted.values()):
            return  # the table comes first; what is wanted waits for it
        drained = self._drained_by(before, wanted)
        for family, (device, _) in drained.items():
            # Before the traffic leaves: no packet of what stays may meet the other path.
            slot = self.memory.slots[device]
            await self._filter_now(drain_script(family, slot, self.drain_s))
        if home := [f for f, diversion in wanted.items() if diversion is None and f in before]:
            # Look-ups first: nothing may be asked of a tunnel's resolver by a WAN.
            redirect = self._wanted_redirect()
            await self._filter_now("".join(map(ended_script, home)) + redirect)
            self._redirect = redirect
        for family, diversion in wanted.items():
            self.diversions.pop(family, None)
            if diversion is not None:
                self.diversions[family] = diversion
        ended = {f: self._drained.pop(f) for f in {*wanted, *ending} & self._drained.keys()}
        self._drained.update(drained)
        self._loosen()
        try:
            if self._standing is not None:
                self._sync()
        except UplinkError:
            self.diversions.clear()
            self.diversions.update(before)  # so that the next try finds a difference
            raise
        self._forget_connections(before, wanted, ended, drained)
        switch_ms = round((time.monotonic() - begun_s) * 1000, 1)
        unreported, self._unreported = self._unreported, []
        for change, family, detection_ms in unreported:
            moved = change.kind in MOVES
            self.report(change, family, detection_ms, max(1, round(switch_ms)) if moved else -1)
        self._beat()
        if wanted:
            self.memory.save(self.diversions)
            self._tell_shares()
        await self._filter(wanted, {f for f in ended if f not in drained})
        if self._underlays != self._underlay_order():
            self._underlays = self._underlay_order()
            await self.follow_underlays()

    def _tell_shares(self) -> None:
        """Say where a dead WAN's share of balanced traffic goes."""
        for family in Family:
            diversion, primary = (
                self.diversions.get(family),
                self.network.state.wans[family].primary,
            )
            topic = f"share {family.value}"
            self.problems.pop(topic, None)
            if diversion and primary and diversion.route.device == primary.device:
                names = " and ".join(diversion.dead)
                self.problems[topic] = (
                    f"{names} does not answer ({family.value}): its share goes by {primary.device}"
                )

    async def _filter(
        self,
        wanted: Mapping[Family, Diversion | None],
        ended: Collection[Family],
    ) -> None:
        """What nftables does about it: answers, refusals, look-ups, the end of draining."""
        if self._standing is None:
            return
        script = "".join(undrain_script(f) for f in ended)
        blocked = self._block_wanted
        if blocked != self._blocked:
            script += kill_switch.block_script(blocked)
        if wanted:
            script += self._refreshing()
        redirect = self._wanted_redirect()
        if redirect != self._redirect:
            script += redirect
        await self._filter_now(script)
        self._blocked, self._redirect = blocked, redirect

    async def _filter_now(self, script: str) -> None:
        if script:
            async with self._filtering:
                await nft.run_script(script)

    def _refreshing(self) -> str:
        native = self.diversions.get(Family.IPV6)
        to = native.route.device if native is not None else ""
        return refresh_script(self._dead_slots(), (to,) if to and to not in self._tunnels() else ())

    def _draining(self) -> str:
        """The elements of draining that is under way, for a table that is made anew."""
        now_s, slots = time.monotonic(), self.memory.slots
        return "".join(
            drain_script(family, slots[device], until_s - now_s)
            for family, (device, until_s) in self._drained.items()
            if device in slots
        )

    async def _refresh(self) -> None:
        script = self._refreshing()
        if any(self._blocked.values()):
            script += kill_switch.block_script(self._blocked)
        await self._filter_now(script)

    def _loosen(self) -> None:
        dead = {name for diversion in self.diversions.values() for name in diversion.dead}
        self._is_loose = bool(dead)
        if why := self.reverse_path.loosen(dead):
            self.problems["rp_filter"] = why
        else:
            self.problems.pop("rp_filter", None)

    def _beat(self) -> None:
        why = self.watchdog.beat(armed=bool(self.diversions))
        if why:
            self.problems["watchdog"] = why
        else:
            self.problems.pop("watchdog", None)

    def _dead_slots(self) -> dict[Family, list[int]]:
        slots = self.memory.slots
        return {
            family: [slots[name] for name in diversion.dead if name in slots]
            for family, diversion in self.diversions.items()
        }

    def _forget_connections(
        self,
        before: Mapping[Family, Diversion],
        wanted: Mapping[Family, Diversion | None],
        ended: Mapping[Family, tuple[str, float]],
        drained: Mapping[Family, tuple[str, float]],
    ) -> None:
        """Delete the connections of paths that traffic has left: they begin anew where it goes."""
        for family in {*wanted, *ended}:
            now = self.diversions.get(family)
            left = {*_left_behind(before.get(family), now), ended.get(family, ("", 0.0))[0]}
            stays = now.route.device if now else drained.get(family, ("", 0.0))[0]
            for device in left - {"", stays}:
                self._delete_connections(family, device)

    def _delete_connections(self, family: Family, device: str) -> None:
        slot = self.memory.slots.get(device)
        if slot is not None:
            self.connections.delete_marked(family, slot << SLOT_SHIFT, INBOUND | SLOT_MASK)

    def _drained_by(
        self, before: Mapping[Family, Diversion], wanted: Mapping[Family, Diversion | None]
    ) -> dict[Family, tuple[str, float]]:
        """The tunnels that connections may finish on although traffic left, and until when."""
        until_s, tunnels = time.monotonic() + self.drain_s, self._tunnels()
        left = {
            f: before[f].route.device
            for f, d in wanted.items()
            if f in before and (d is None or d.route.device != before[f].route.device)
        }
        return {
            family: (device, until_s)
            for family, device in left.items()
            if self.drain_s and device in tunnels and device not in self.dead.get(family, ())
        }

    def _outstayed(self) -> set[Family]:
        """The families whose draining must end now."""
        now_s, tunnels = time.monotonic(), self._tunnels()
        return {
            family
            for family, (device, until_s) in self._drained.items()
            if now_s >= until_s or device not in tunnels or device in self.dead.get(family, ())
        }

    def _tunnels(self) -> list[str]:
        return [uplink.interface for uplink in self.uplinks]

    def _slots(self) -> dict[str, int]:
        """The number of each path, kept for as long as the machine runs."""
        names = [*self._tunnels(), *self.network.state.wan_devices()]
        return self.memory.number(names, FIRST_SLOT, MOST_SLOTS)

    def _slots_in_use(self, family: Family) -> dict[str, int]:
        """The paths whose own table something is led into: draining, and look-ups."""
        names = {device for f, (device, _) in self._drained.items() if f is family}
        if family in self.diversions:
            names.add(self.diversions[family].route.device)
        return {
            name: self.memory.slots[name] for name in sorted(names) if name in self.memory.slots
        }

    def _wanted_redirect(self) -> str:
        offered = {server for uplink in self.uplinks for server in uplink.resolvers}
        targets: dict[Family, tuple[str, int]] = {}
        dead: dict[Family, Sequence[str]] = {}
        best = max(self.uplinks, key=lambda uplink: uplink.weight, default=None)
        for family in Family:
            diversion = self._wanted.get(family)
            primary = self.network.state.wans[family].primary
            if diversion and primary and diversion.route.device == primary.device:
                continue  # another WAN's share moved: look-ups go on as they are
            serving = diversion.route.device if diversion else best.interface if best else ""
            able = [*self._inside.get(serving, ()), *self.resolvers]
            ours = [server for server in able if (":" in server) == (family is Family.IPV6)]
            if ours:
                targets[family] = (ours[0], self.memory.slots.get(serving, 0))
            known = self.network.state.wans[family].known
            if diversion is not None:
                dead[family] = diversion.dead
            elif any(self._wanted.values()):
                dead[family] = sorted(known.keys() & set(self.dead.get(family, ())))
        devices, sources, ports = policy_sources(
            rule for family in Family for rule in self.view.rules.get(family, ())
        )
        return dns.redirect_script(
            {*self.network.state.resolvers, *offered},
            targets,
            dead,
            dns.Exempt(frozenset(devices), frozenset(sources), ports),
        )

    # --- removing

    def _has_leftovers(self) -> bool:
        """Whether the kernel holds rules or routes of ours: an earlier run's."""
        self._settled.clear()
        self.view.take_news()
        self.view.read()
        return any(
            self.view.ours.get(f)
            or any(r.protocol in (STANDING, DIVERTING) for r in self.view.rules.get(f, ()))
            for f in Family
        )

    async def _remove(self) -> None:
        """Take away everything that steering ever put up."""
        self._standing = None
        self._applied.clear()
        self._settled.clear()
        self._wanted.clear()
        self._drained.clear()
        self.diversions.clear()
        self._blocked = {}
        self.view.forget()
        self.view.read()
        requests: list[Request] = []
        for family in Family:
            ours = [r for r in self.view.rules[family] if r.protocol in (STANDING, DIVERTING)]
            requests += plan_changes(self.view.ours[family], (), ours, ())
        self.view.kernel.change([request.message for request in requests])
        await nft.delete_table("inet", TABLE)
        self.reverse_path.loosen(())
        self.watchdog.end()
        self.memory.save({})


def _same(one: Diversion | None, other: Diversion | None) -> bool:
    """Whether two wishes are one; how it ends is not wished but found."""
    if one is None or other is None:
        return one is other
    return replace(one, ending=Ending.PATH) == replace(other, ending=Ending.PATH)


def _left_behind(before: Diversion | None, now: Diversion | None) -> list[str]:
    """The devices whose traffic was moved away: what was in use, and what is newly dead."""
    left = [before.route.device] if before is not None else []
    left += now.dead if now is not None else ()
    staying = {now.route.device} if now is not None else set()
    if before is not None:
        staying.update(before.dead)
    return [device for device in left if device not in staying]
