"""Follows whether the path in use carries, and finds out why where it does not.

While a tunnel is in use its counters are read once a second; judged they are in carrying.py. The
firewall's forward hook is looked through when its rules change, in calm too, so that a missing
rule is known before the outage. What is found is a warning, and goes to `report`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import field

from ..errors import UplinkError
from ..events import CarryingChanged, Events
from ..failover.machine import Phase
from ..failover.monitor import Monitor
from ..model import DEVICE_GROUP, PROVIDER_DEVICE, Family, is_own_name
from ..reasons import because, told_with
from ..system import nft
from ..system.proc import Losses, is_strict, read_losses
from ..system.rtnetlink import Kernel, by_device
from ..tasks import woken
from ..values import dataclass
from ..warnings import Warnings
from .counters import TABLE_NAME, Finding, Trail, read_counters, sample_of
from .forwarding import FW4, Forwarding, Paths, host_on, lan_devices, look_both_ways
from .ruleset import Ruleset, read_ruleset
from .verdict import ORDINARY, Packet, meets

SAMPLE_S = 1.0
CALM_S, TROUBLED_S = 10.0, 2.0  # between two looks at the firewall, however often it changes
ZONE_S = 4.0
UNTRIED_S, LOST_FLOWS = 3.0, 3
MANY_RULES = 500
TOPIC = "forwarding "
DIVERTED = (Phase.FAILED_OVER, Phase.HOLDING)
_NAT = ("masquerade", "snat")

_WHAT = {Finding.BLOCKED: "lan_dropped", Finding.SILENT: "lan_silent", Finding.KEPT: "lan_kept"}
_UNNAMED = because("rule_unnamed")


@dataclass(frozen=True, slots=True)
class InUse:
    """What the watch is told: the tunnel that each family's traffic is led to, none where it is
    at home, and who forwards to whom.
    """

    tunnels: Mapping[Family, str] = field(default_factory=dict)
    wans: tuple[str, ...] = ()
    uplinks: Mapping[str, tuple[Family, ...]] = field(default_factory=dict)
    others: frozenset[str] = frozenset()


def in_use(monitor: Monitor) -> InUse:
    uplinks = {u.interface: tuple(filter(u.carries, Family)) for u in monitor.watch.uplinks}
    used = {f: s.active for f, s in monitor.states.items() if s.phase in DIVERTED}
    links = monitor.network.state.links.values()
    return InUse(
        {family: device for family, device in used.items() if device in uplinks},
        tuple(monitor.network.state.wan_devices()),
        uplinks,
        frozenset(link.name for link in links if link.group == DEVICE_GROUP),
    )


@dataclass(eq=False, repr=False)
class CarryingWatch:
    """The watch of one router. `look` says what is in use now."""

    _kernel: Kernel
    _look: Callable[[], InUse]
    _warnings: Warnings
    _events: Events
    sentences: dict[Family, str] = field(default_factory=dict)
    _sets: nft.TableReader = field(default_factory=lambda: nft.TableReader(TABLE_NAME))
    _trails: dict[Family, Trail] = field(default_factory=dict)
    _found: Forwarding = field(default_factory=Forwarding)
    _untranslated: frozenset[tuple[Family, str]] = frozenset()
    _known: InUse = field(default_factory=InUse)
    _noticed: tuple[object, object] = (None, None)
    _checked_s: float = float("-inf")
    _is_stale: bool = True
    _lost: Losses = field(default_factory=Losses)
    _kicked: asyncio.Event = field(default_factory=asyncio.Event)

    def carrying(self, family: Family) -> bool | None:
        """Whether the tunnel in use carries the family; None while nothing lately says so."""
        if family in self.sentences:
            return False
        trail = self._trails.get(family)
        return True if trail is not None and trail.carrying else None

    def notice(self, used: object, standing: object) -> None:
        """Look again where the paths in use, or the devices that there are, differ from before."""
        if (used, standing) != self._noticed:
            self._is_stale = self._is_stale or standing != self._noticed[1]
            self._noticed = (used, standing)
            self._kicked.set()

    async def follow(self) -> None:
        while True:
            await self._step(time.monotonic())
            await woken(self._kicked, self._pause_s(time.monotonic()))
            self._kicked.clear()

    def look_at_rules(self) -> None:
        """Somebody else changed the packet filter: look through it soon."""
        if not self._is_stale:
            self._is_stale = True
            self._kicked.set()

    def _pause_s(self, now_s: float) -> float | None:
        if self._known.tunnels:
            return SAMPLE_S
        return max(0.1, self._due_s() - now_s) if self._is_stale else None

    def _due_s(self) -> float:
        is_troubled = bool(self._found.blockages or self.sentences)
        return self._checked_s + (TROUBLED_S if is_troubled else CALM_S)

    async def _step(self, now_s: float) -> None:
        self._known = self._look()
        if self._is_stale and now_s >= self._due_s():
            await self.check_firewall()
        used = self._known.tunnels
        for family in [f for f, t in self._trails.items() if used.get(f) != t.path]:
            del self._trails[family]
            self.sentences.pop(family, None)
            self._warnings.clear_topic(_topic(family))
        if not used:
            return
        if all(family not in self._trails for family in used):
            self._lost = read_losses()
        for family in used.keys() - self._trails.keys():
            self._trails[family] = Trail(used[family])
        counters = None
        with self._warnings.catch("carrying", sentence=lambda e: because("uncounted", e)):
            counters = read_counters(self._sets)
        if counters is None:
            return
        read_s = time.monotonic()
        for family, trail in self._trails.items():
            sample = sample_of(counters, family, trail.path, read_s, trail.last_s)
            trail.add(sample)
            await self._judge(family, trail)

    async def _judge(self, family: Family, trail: Trail) -> None:
        """Tell what changed; the cause is looked for once for each finding."""
        told = self.sentences.get(family, "")
        sentence = ""
        if trail.finding is not Finding.NONE:
            what = (_WHAT[trail.finding], family.shown, trail.path)
            if told.startswith(because(*what, "")):
                return
            cause = await self._cause(family, trail)
            sentence = because(*what, cause) if cause else ""
        elif trail.has_no_way(UNTRIED_S) and self._has_lost_routes(family):
            sentence = self._no_route(family, trail.path)
        if sentence != told:
            self._set(family, sentence)
            self._events.publish(CarryingChanged(family, trail.path, sentence))

    def _set(self, family: Family, sentence: str) -> None:
        self._warnings.set(_topic(family), sentence)
        self.sentences.pop(family, None)
        if sentence:
            self.sentences[family] = sentence

    async def _cause(self, family: Family, trail: Trail) -> str:
        """Why the path does not carry; '' where single hosts are blocked by the owner's wish."""
        if trail.finding is not Finding.BLOCKED:
            await self.check_firewall()
        for blockage in self._found.blockages:
            if family in blockage.families and trail.path in blockage.tunnels:
                return blockage.sentence
        if trail.finding is Finding.BLOCKED:
            return _UNNAMED if (family, trail.path) in self._found.unsure else ""
        if trail.finding is Finding.KEPT:
            return _UNNAMED
        is_filtered = read_losses().reverse_path > self._lost.reverse_path
        if family is Family.IPV4 and is_filtered and is_strict(trail.path):
            return because("filter_strict", trail.path)
        if (family, trail.path) in self._untranslated:
            return because("untranslated")
        return because("unexplained")

    def _has_lost_routes(self, family: Family) -> bool:
        return read_losses().routeless(family) - self._lost.routeless(family) >= LOST_FLOWS

    def _no_route(self, family: Family, tunnel: str) -> str:
        """A sentence where the kernel has no route for hosts of a LAN, although a path is there."""
        paths = self._paths()
        for lan, addresses in paths.lans.items():
            host = host_on(addresses, family)
            if host and not self._kernel.has_route(ORDINARY[family], host, lan):
                places = (tunnel, ORDINARY[family], host, lan)
                return because("lan_no_route", family.shown, *places)
        return ""

    async def check_firewall(self) -> None:
        """Look through the forward hook now; what is missing is a warning."""
        self._is_stale, self._checked_s = False, time.monotonic()
        try:
            served = self._served()
            ruleset = await read_ruleset() if self._look().uplinks or served.lans else Ruleset()
            paths = self._paths()
            if ruleset.size > MANY_RULES:  # what takes long must not hold up the probes
                found = await asyncio.to_thread(_findings, ruleset, paths, served)
            else:
                found = _findings(ruleset, paths, served)
        except UplinkError:
            return  # nft itself is missing or ails: others tell of that
        mended = bool(self._found.blockages) and not found[0].blockages
        self._found, self._untranslated = found
        blockages = enumerate(self._found.blockages)
        self._warnings.replace(TOPIC, {str(number): each.sentence for number, each in blockages})
        if mended:
            self._forget_findings()

    def _forget_findings(self) -> None:
        """What was found may be mended: begin to look anew."""
        for family, trail in self._trails.items():
            if self.sentences.get(family):
                trail.restart()
                self._set(family, "")
                self._events.publish(CarryingChanged(family, trail.path, ""))

    async def blocked_by_firewall(self, tunnel: str) -> list[str]:
        """What the firewall keeps from a new tunnel, as sentences.

        fw4 takes a tunnel into its zone only once netifd has told it: it is given time.
        """
        deadline_s = time.monotonic() + ZONE_S
        while True:
            await self.check_firewall()
            found = [b for b in self._found.blockages if tunnel in b.tunnels]
            is_settled = not any(b.table == FW4 for b in found)
            if is_settled or time.monotonic() > deadline_s:
                return [told_with(b.sentence, ".") for b in found]
            await asyncio.sleep(0.5)

    def _served(self) -> Paths:
        """Consumers of this router's, and the WANs by which they are to leave."""
        addresses = by_device(self._kernel.addresses()).get(PROVIDER_DEVICE)
        lines: dict[str, list[Family]] = {}
        for family in Family if addresses else ():
            for route in self._kernel.default_routes(family):
                if not is_own_name(route.device):
                    lines.setdefault(route.device, []).append(family)
        return Paths({PROVIDER_DEVICE: addresses} if addresses else {}, (), lines)

    def _paths(self) -> Paths:
        known = self._look()
        others = {*known.wans, *known.uplinks, *known.others}
        lans = lan_devices(by_device(self._kernel.addresses()), others)
        return Paths(lans, known.wans, known.uplinks)


def _findings(
    ruleset: Ruleset, paths: Paths, served: Paths
) -> tuple[Forwarding, frozenset[tuple[Family, str]]]:
    """What the forward hook does to LANs and to consumers, and by which tunnels nothing gets the
    tunnel's own address.
    """
    ways = [(family, name) for name, carried in paths.tunnels.items() for family in carried]
    bare = {w for w in ways if not meets(ruleset, Packet(w[0], "", w[1]), "postrouting", _NAT)}
    return look_both_ways(ruleset, paths, served), frozenset(bare)


def _topic(family: Family) -> str:
    return f"carrying {family.value}"
