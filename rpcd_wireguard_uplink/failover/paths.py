"""The paths that are watched: one device in one family each, a WAN or a tunnel, with its probers.

Sockets are held here, no timers.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Container
from dataclasses import field

from ..config.options import Anchor, Settings
from ..errors import NotSupported
from ..model import Family, Health, PathKind, Uplink
from ..probing.doubt import LEAST_PATIENCE_S, LONGEST_PATIENCE_S, REST_S, Doubt
from ..probing.icmp import Prober, Reply
from ..probing.link_quality import Sla
from ..probing.mtu_search import MtuSearch
from ..probing.probe_kind import ProbeKind, ProbeKinds
from ..probing.service_probe import Page, ServiceProber
from ..system.network import NetworkState
from ..values import dataclass
from ..warnings import Warnings
from .detector import PathHealth
from .machine import Path
from .selection import Ranked

UNHURRIED_S = 1.0
LATEST_S = 0.2
BETTER_LOSS = 0.05  # at most this share lost lately, and it is clearly better than a degraded path


PathKey = tuple[str, Family]
"""Device and family."""


@dataclass(frozen=True, slots=True)
class Watch:
    """What is to be watched: settings, and the uplinks that are there and whose peers are trusted.

    A router that `serves` others watches its WANs as if they were always in use. `anchors` are the
    connections that stay on an uplink.
    """

    settings: Settings
    uplinks: tuple[Uplink, ...] = ()
    serves: bool = False
    anchors: tuple[Anchor, ...] = ()

    @property
    def active_uplinks(self) -> tuple[Uplink, ...]:
        """The uplinks; none while the service is disabled."""
        return self.uplinks if self.settings.enabled else ()

    def paths(self, network: NetworkState) -> dict[PathKey, PathKind]:
        """The paths that there are: each family's WANs, and the tunnels that carry it."""
        found: dict[PathKey, PathKind] = {}
        for family in Family if self.settings.enabled else ():
            wans = network.wans[family]
            if wans.primary is None and family is Family.IPV6:
                continue  # a router without IPv6 has none to back up
            found |= {(device, family): PathKind.WAN for device in wans.known}
            tunnels = (uplink.interface for uplink in self.uplinks if uplink.carries(family))
            found |= {(device, family): PathKind.UPLINK for device in tunnels}
        return found


@dataclass(slots=True)
class WatchedPath:
    """One path with its health and its probers. `index` is the device's, 0 while it is missing,
    `pause_s` the time between two probes as last planned, `replies` how many packets answered them.
    `services` is made once ping goes unanswered; `page` is what its HTTP probes ask for.
    """

    device: str
    kind: PathKind
    family: Family
    health: PathHealth
    prober: Prober
    born_s: float
    last_sent_s: float = float("-inf")
    pause_s: float = 0.0
    index: int = 0
    source: str = ""
    descriptor: int = -1
    is_used: bool = True
    kinds: ProbeKinds = field(default_factory=ProbeKinds)
    mtu: MtuSearch = field(default_factory=MtuSearch)
    services: ServiceProber | None = None
    page: Page | None = None
    replies: int = 0
    doubt: Doubt = field(default_factory=Doubt)

    @property
    def key(self) -> PathKey:
        return self.device, self.family

    def open(self, index: int, source: str) -> None:
        """Have the socket on the device as it is now. Raises NotSupported."""
        self.index, self.source = index, source
        self.descriptor = self.prober.open(source)

    def open_services(self) -> int:
        """Have the sockets for other kinds of probes; their descriptor. Raises NotSupported."""
        made = ServiceProber(self.device, self.family)
        descriptor = made.open()
        self.services = made
        return descriptor

    def close(self) -> None:
        self.prober.close()
        self.descriptor, self.index = -1, 0

    def close_services(self) -> None:
        if self.services is not None:
            self.services.close()
            self.services = None

    def use(self, settings: Settings) -> None:
        sla = Sla(settings.max_loss, settings.max_latency_s)
        self.health.use(settings.probe_profile, sla)

    def plan(self, pause_s: float) -> None:
        """Have so many seconds between two probes."""
        self.pause_s = pause_s

    @property
    def probe_due_s(self) -> float:
        """When the next probe is to leave.

        Those that nobody waits for leave in rounds, at multiples of their pause: to wake up costs
        more than a probe. The first one may leave early for that, and `LATEST_S` late.
        """
        due_s = self.last_sent_s + self.pause_s
        if self.pause_s < UNHURRIED_S or not math.isfinite(due_s):
            return due_s
        return math.floor((due_s + LATEST_S) / self.pause_s) * self.pause_s

    def note_use(self, is_used: bool) -> None:
        """Whether people use the path: it is probed less often where nobody does."""
        self.is_used = is_used

    def use_page(self, page: Page | None) -> None:
        """Have HTTP probes ask for this page; None: send none."""
        self.page = page

    def collect(self, now_s: float) -> None:
        found = self.prober.drain()
        self.replies += len(found)
        if self.services is not None:
            before = self.services.packets
            found += self.services.drain()
            self.replies += self.services.packets - before
        for reply in found:
            asked = self.kinds.asked(reply.sequence)
            burst = self.doubt.asked(reply.sequence)
            if asked is not None:
                self._take_trial(reply, *asked, now_s)
            elif burst is not None:
                if not self.health.targets.is_near(burst[0], now_s - burst[1], reply.hops):
                    self.doubt.heard(now_s)
            elif self.health.answered(reply.sequence, now_s, reply.hops):
                self.kinds.present_answered()
                self.doubt.heard(now_s)
            else:
                self.mtu.answered(reply.sequence, reply.length)

    def _take_trial(self, reply: Reply, target: str, sent_s: float, now_s: float) -> None:
        if self.health.targets.is_near(target, now_s - sent_s, reply.hops):
            return
        if self.kinds.answered(reply.sequence, self.health.suspected_loss(sent_s)):
            self.health.change_probes()
        self.health.vouched(target, now_s)
        self.doubt.heard(now_s)

    def probe(self, now_s: float) -> None:
        target = self.health.next_target(now_s)
        self.last_sent_s = now_s
        sequence = self._send(self.kinds.present, target)
        if sequence is None:
            self.health.unsendable(target, now_s)
        else:
            self.health.sent(sequence, target, now_s)

    @property
    def hurry_s(self) -> float:
        """How long an answer is waited for before the path is doubted."""
        return self.health.round_trip.timeout_s(LEAST_PATIENCE_S, LONGEST_PATIENCE_S)

    def is_late(self, now_s: float) -> bool:
        """Whether an answer is overdue."""
        sent = [self.health.unanswered_since_s, self.doubt.asked_since_s]
        return any(at_s is not None and now_s - at_s > self.hurry_s for at_s in sent)

    @property
    def doubt_due_s(self) -> float:
        """When the doubt is to be looked at again."""
        since_s = self.health.unanswered_since_s
        return self.doubt.next_s(float("inf") if since_s is None else since_s + self.hurry_s)

    def ask_in_doubt(self, now_s: float) -> None:
        """Send what is due of a burst, and judge it."""
        doubt, health = self.doubt, self.health
        if doubt.wants_probe(now_s):
            target = health.targets.next(now_s)
            sequence = self._send(self.kinds.present, target)
            if sequence is None:
                doubt.heard(now_s, rest_s=REST_S)  # that is no silence
            else:
                gap_s = health.profile.burst_gap_s
                doubt.sent(sequence, target, gap_s, self.hurry_s, now_s)
        doubt.judge(now_s)

    def try_others(self, now_s: float) -> None:
        """Send probes of other kinds where the path's own go unanswered and it is time."""
        health, targets = self.health, self.health.targets
        is_lossy = health.is_unanswered or health.state in (Health.SUSPECT, Health.DOWN)
        has_page = self.page is not None
        for kind in self.kinds.due(is_lossy, self.pause_s, now_s, has_page=has_page):
            target = self.kinds.pick(targets.silent(), targets.able())
            sequence = self._send(kind, target) if target else None
            if sequence is not None:
                self.kinds.sent(sequence, kind, target, now_s)
                health.asked_otherwise(now_s)

    def send_large(self, target: str, size: int) -> None:
        sequence = self.prober.send(target, size)
        if sequence is not None:
            self.mtu.sent(sequence, size, target)

    def _send(self, kind: ProbeKind, target: str) -> int | None:
        """Send one probe of a kind; its sequence number, or None where it can't leave."""
        if kind is ProbeKind.PING:
            return self.prober.send(target)
        return self.services.send(kind, target, self.page) if self.services is not None else None


class PathSet(dict[PathKey, WatchedPath]):
    """The watched paths; knows which sockets are open on the running loop.

    `on_reply` is called when a path's socket has something, `warnings` take a sentence for each
    path that can't be probed.
    """

    def __init__(self, on_reply: Callable[[WatchedPath], None], warnings: Warnings) -> None:
        super().__init__()
        self._on_reply = on_reply
        self._warnings = warnings

    def of(self, device: str) -> list[WatchedPath]:
        """The paths of a device, in each family in which it is watched."""
        found = (self.get((device, family)) for family in Family)
        return [path for path in found if path is not None]

    def keep(self, wanted: Container[PathKey]) -> None:
        for key in [key for key in self if key not in wanted]:
            self._unbind(self.pop(key))

    def follow(self, watch: Watch, network: NetworkState, in_use: Container[PathKey]) -> None:
        """Watch these paths from now on, by their devices as they are now.

        Those `in_use` are taken to be alive until probes say otherwise.
        """
        wanted, now_s = watch.paths(network), time.monotonic()
        self.keep(wanted)
        for key, kind in wanted.items():
            if key not in self and (targets := watch.settings.targets_of(key[1])):
                self[key] = _new_path(key, kind, targets, watch.settings, now_s)
                if key in in_use:
                    self[key].health.take_over(now_s)
        for path in self.values():
            source = network.source_of(path.device, path.family)
            self._bind(path, network.index_of(path.device), source)

    def use(self, settings: Settings) -> None:
        for path in self.values():
            path.use(settings)

    def dead(self, family: Family) -> frozenset[str]:
        """The devices by which nothing of the family is answered."""
        return self._in_state(family, (Health.DOWN,))

    def answering(self, family: Family) -> frozenset[str]:
        """The devices by which the family is answered, as far as is known."""
        return self._in_state(family, (Health.UP, Health.SUSPECT))

    def _in_state(self, family: Family, states: Container[Health]) -> frozenset[str]:
        return frozenset(
            path.device
            for path in self.values()
            if path.family is family and path.health.state in states
        )

    def _bind(self, path: WatchedPath, index: int, source: str) -> None:
        """Have the path's socket on the device as it is now, with this source address ('': any).

        Index 0: the device is missing.
        """
        if index == path.index and path.descriptor >= 0 and source == path.source:
            return
        self._unbind(path)
        if not index:
            return
        with self._warnings.catch(f"probe {path.device} {path.family.value}", NotSupported):
            path.open(index, source)
            asyncio.get_running_loop().add_reader(path.descriptor, self._on_reply, path)

    def ask_otherwise(self, path: WatchedPath, now_s: float) -> None:
        """Try other kinds of probes where the path's own goes unanswered and it is time."""
        if path.health.state is Health.UP and path.kinds.is_settled:
            self._close_services(path)
        if path.services is None and path.index and path.health.is_unanswered:
            try:
                descriptor = path.open_services()
            except NotSupported:
                return  # the path's own probes tell why
            asyncio.get_running_loop().add_reader(descriptor, self._on_reply, path)
        path.try_others(now_s)

    def _close_services(self, path: WatchedPath) -> None:
        if path.services is not None:
            asyncio.get_running_loop().remove_reader(path.services.descriptor)
            path.close_services()

    def _unbind(self, path: WatchedPath) -> None:
        self._close_services(path)
        if path.descriptor >= 0:
            asyncio.get_running_loop().remove_reader(path.descriptor)
        path.close()


def _new_path(
    key: PathKey, kind: PathKind, targets: tuple[str, ...], settings: Settings, now_s: float
) -> WatchedPath:
    health = PathHealth(settings.probe_profile, targets, settings.reliability)
    path = WatchedPath(key[0], kind, key[1], health, Prober(*key), now_s)
    path.use(settings)
    return path


def backup_path(ranked: Ranked, watched: WatchedPath) -> Path:
    """A ranked backup as the state machine sees it."""
    found, health = ranked.candidate, watched.health
    return Path(
        found.name,
        found.health,
        ranked.usable,
        found.cause or ranked.reason,
        is_wan=found.kind is PathKind.WAN,
        is_better=not health.quality.near_sla and health.recent_loss <= BETTER_LOSS,
        alive_since_s=health.alive_since_s,
        tier=found.terms.tier,
    )
