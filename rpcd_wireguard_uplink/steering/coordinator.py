"""Failover's one way to the kernel: decisions, drills, portals and the network make one plan.

Each decision becomes part of the plan, and the plan is in force, in the same turn of the event loop
in which it falls. A family in a drill keeps its diversion until the drill's end or a real failover.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence

from ..config.options import Anchor, Settings
from ..events import Events
from ..failover.machine import Adopted, Change, Decision, Move
from ..model import Family, Uplink
from ..platform.network_reader import NetworkReader
from ..platform.tunnels import tunnel_mtu
from ..reasons import because
from ..tasks import TaskSet
from ..values import replace
from ..warnings import Warnings
from .controller import PlanApplied, SteeringController
from .plan import Diversion, SteeringPlan, blocked_of, diversion_of, plan_of

GRACE_S = 2.0  # a tunnel that is back in this time keeps its anchored connections


class SteeringCoordinator:
    """Implements failover's `Steering`. `run_dir` is the service's own folder on a tmpfs."""

    def __init__(
        self, network: NetworkReader, run_dir: str, warnings: Warnings, events: Events
    ) -> None:
        platform = network.platform
        self.controller = SteeringController(
            platform.kernel, platform.connections, run_dir, warnings, events
        )
        self._network, self._warnings = network, warnings
        self._tasks = TaskSet(warnings)
        self._uplinks: tuple[Uplink, ...] | None = None  # not known yet
        self._wish = SteeringPlan()
        self._base: tuple[object, object] = (None, None)  # what the wish was last derived from
        self._settings = Settings()
        self._anchors: tuple[Anchor, ...] = ()
        self._answering: Mapping[Family, frozenset[str]] = {}
        self._lost_s: dict[tuple[Family, str], float] = {}  # anchored tunnels that are dead
        self._drills: set[Family] = set()
        self._underlays: object = None
        self._underlays_moved = asyncio.Event()

    # --- life

    async def start(self) -> Mapping[Family, Adopted]:
        """Begin; what an earlier run left in force is taken over."""
        found = await self.controller.start()
        self._wish = replace(self._wish, diversions=found)
        supervise = self._tasks.supervise
        supervise("switching", self.controller.follow)
        supervise("following rules and routes", self.controller.follow_kernel)
        supervise("checking resolvers", self.controller.follow_resolvers)
        supervise("keeping the diversion alive", self.controller.keep_alive)
        supervise("keeping the diversion's elements", self.controller.keep_fresh)
        supervise("following underlays", self._follow_underlays)
        return {f: Adopted(each.route.device, each.dead) for f, each in found.items()}

    async def stop(self) -> None:
        """End; what is in force lapses by itself unless a new run takes it over."""
        await self.controller.stop()
        await self._tasks.close()

    # --- what is wished

    def use(self, settings: Settings, anchors: Sequence[Anchor] = ()) -> None:
        self._settings, self._anchors = settings, tuple(anchors)
        resolvers = settings.resolvers
        self._wish = self._wish.filtering(public_resolvers=resolvers, drain_s=settings.sticky_s)

    def lead_marks(self, marks: Collection[int]) -> None:
        self._wish = replace(self._wish, marks=tuple(marks))

    def except_portals(self, portals: Mapping[str, Sequence[str]]) -> None:
        """Have these addresses reached by their WAN (device -> addresses), whatever is diverted."""
        self._wish = replace(self._wish, portals={d: tuple(a) for d, a in portals.items()})
        self._apply()

    @property
    def diversions(self) -> Mapping[Family, Diversion]:
        return self.controller.diversions

    async def ensure(self, uplinks: Sequence[Uplink]) -> None:
        """Have steering cover these uplinks and the WANs as they are; none: remove it.

        Raises UplinkError where something refuses.
        """
        self._uplinks = tuple(uplinks)
        self._warn_of_private_defaults()
        if not uplinks:
            self._wish = replace(self._wish, diversions={})
        self._apply()
        await self.settle()

    async def settle(self) -> None:
        """Return once what was carried out is in force. Raises UplinkError."""
        await self.controller.settle()

    def _warn_of_private_defaults(self) -> None:
        """Say where the only default route is a tunnel of the owner's: is it a WAN?"""
        for family in Family:
            name, told = self._network.state.only_private(family), ""
            if name:
                told = because("only_tunnel", family.value, name, name)
            self._warnings.set(f"only default {family.value}", told)

    def carry_out(self, decisions: Mapping[Family, Decision]) -> None:
        network, moves = self._network.state, []
        states = {family: decision.state for family, decision in decisions.items()}
        ready = {family: [each.ready] for family, each in decisions.items() if each.ready}
        spread = {family: each.spread for family, each in decisions.items() if each.spread}
        ready |= {family: [name for name, _ in ways] for family, ways in spread.items()}
        early = {family: each.early for family, each in decisions.items() if each.early}
        blocked = {}
        for family, decision in decisions.items():
            dead, change = decision.dead, decision.change
            if change is not None:
                self._drills.discard(family)
                moves.append(Move(change, family, decision.detection_ms))
            if family not in self._drills:
                sharing = network.sharing.get(family, ())
                primary = decision.primary
                found = diversion_of(decision.state, network, family, primary, dead, sharing)
                self._divert(family, found)
            portals, is_closed = self._wish.portals, self._settings.fail_closed
            blocked[family] = tuple(
                blocked_of(states, network, family, dead, portals, fail_closed=is_closed)
            )
        self._answering = {family: decision.answering for family, decision in decisions.items()}
        deaths = {family: decision.dead for family, decision in decisions.items()}
        # Rules that stand cost less than rules that change.
        led = {**self._wish.led, **{f: tuple(names) for f, names in ready.items()}}
        self._wish = replace(self._wish, dead=deaths, led=led)
        self._wish = self._wish.filtering(blocked=blocked, early=early, spread=spread)
        if moves:
            gentle = all(move.change.is_gentle for move in moves)
            drain_s = self._settings.sticky_time_s if gentle else self._settings.sticky_s
            self._wish = self._wish.filtering(drain_s=drain_s)
        self._apply(moves)

    def drill(self, diversion: Diversion, change: Change) -> None:
        """Lead a family's traffic so in a drill, until it ends or failover changes the path."""
        self._drills.add(diversion.family)
        self._divert(diversion.family, diversion)
        self._apply([Move(change, diversion.family, -1)])

    def end_drill(self, family: Family, change: Change) -> None:
        """Have the family as it was before a drill."""
        self._drills.discard(family)
        self._divert(family, None)
        self._apply([Move(change, family, -1)])

    def carrying(self, family: Family) -> Collection[str]:
        """The devices that traffic is led to, in a drill too, or on which connections finish."""
        return self.controller.carrying(family)

    def listen(self) -> None:
        """Have what arrives by WANs counted for a while."""
        self.controller.listen()

    def _divert(self, family: Family, diversion: Diversion | None) -> None:
        wanted = {f: d for f, d in self._wish.diversions.items() if f is not family}
        wanted |= {family: diversion} if diversion is not None else {}
        self._wish = replace(self._wish, diversions=wanted)

    def _apply(self, moves: Sequence[Move] = ()) -> None:
        """Have the plan in force; until the uplinks are known what an earlier run left stays."""
        if self._uplinks is None:
            return
        base = (self._network.state, self._uplinks)
        if base[0] is not self._base[0] or base[1] is not self._base[1]:
            self._base, self._wish = base, plan_of(*base, self._wish)
        self._anchor(time.monotonic())
        self.controller.apply(self._wish, moves)

    def _anchor(self, now_s: float) -> None:
        """Say which tunnels anchored connections stay on, and which take new ones: those that
        answer, as long as no VPN of the owner's has the family's default route.
        """
        tunnels = {uplink.peer_id: uplink.interface for uplink in self._uplinks or ()}
        named = ((anchor, tunnels.get(anchor.peer_id, "")) for anchor in self._anchors)
        anchors = tuple((anchor, device) for anchor, device in named if device)
        if not anchors and not self._wish.filter.anchors:
            return
        anchored, anchoring = {}, {}
        for family in Family:
            fit = [device for anchor, device in anchors if anchor.addresses(family) is not None]
            if self._network.state.private_default.get(family):
                fit = []
            for device in fit:
                if device in self._wish.dead.get(family, ()):
                    self._lost_s.setdefault((family, device), now_s)
                else:
                    self._lost_s.pop((family, device), None)
            held = (d for d in fit if now_s - self._lost_s.get((family, d), now_s) < GRACE_S)
            anchored[family] = tuple(dict.fromkeys(held))
            anchoring[family] = frozenset(fit) & self._answering.get(family, frozenset())
        self._wish = replace(self._wish, anchored=anchored)
        self._wish = self._wish.filtering(anchors=anchors, anchoring=anchoring)

    # --- underlays

    def note_applied(self, event: PlanApplied) -> None:
        """Outer packets may leave by other devices now, and no event of the kernel says so."""
        order = (event.plan.wans, event.plan.dead)
        if order != self._underlays:
            self._underlays = order
            self._underlays_moved.set()

    async def _follow_underlays(self) -> None:
        while True:
            await self._underlays_moved.wait()
            self._underlays_moved.clear()
            await self.follow_underlays()

    async def follow_underlays(self) -> None:
        """See what each tunnel travels over, and give it the MTU that there is room for."""
        uplinks = self._uplinks or ()
        self._network.read_underlays(uplinks)
        network = self._network.state
        for uplink in uplinks:
            name = uplink.interface
            room = network.mtu_of(network.underlays.get(name, ""))
            mtu = tunnel_mtu(uplink.mtu, room)
            if not room or network.mtu_of(name) in (0, mtu):
                continue
            with self._warnings.catch(f"mtu {name}"):
                self._network.platform.kernel.set_device(name, mtu=mtu)
