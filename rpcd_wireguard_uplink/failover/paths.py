"""The paths that are watched, and how often each is probed. Sockets are held here, no timers.

A path is one device in one family: a WAN or a tunnel. `interval_s` says how often it is probed:
often while it is suspect or carries traffic, rarely as an idle backup.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container
from dataclasses import dataclass, field

from ..config.probe_profile import ProbeProfile
from ..errors import NotSupported
from ..model import Family, Health, PathKind
from ..probing.icmp import Prober, Reply
from ..probing.mtu_search import MtuSearch
from ..probing.probe_kind import ProbeKind, ProbeKinds
from ..probing.service_probe import Page, ServiceProber
from ..warnings import Warnings
from .detector import PathHealth
from .machine import AWAY, Path, Phase
from .selection import Ranked

DEAR_S = 1.0  # between two probes that are a connection each
NEW_PATH_S = 60.0
NEW_PATH_INTERVAL_S = 1.0
AWAY_INTERVAL_S = 5.0
CONFIRM_AGE_S = 1.0  # an answer older than this is asked for anew before a switch
IDLE_PACKETS_PER_S = 1.0
BETTER_LOSS = 0.05  # at most this share lost lately, and it is clearly better than a degraded path


PathKey = tuple[str, Family]
"""Device and family."""


@dataclass(slots=True)
class WatchedPath:
    """One path with its health and its probers. `index` is the device's, 0 while it is missing,
    `pause_s` the time between two probes as last planned, `replies` how many packets answered them.
    `services` is made once ping goes unanswered; its probes carry `mark`, `page` is one of theirs.
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
    mark: int = 0
    kinds: ProbeKinds = field(default_factory=ProbeKinds)
    mtu: MtuSearch = field(default_factory=MtuSearch)
    services: ServiceProber | None = None
    page: Page | None = None
    replies: int = 0

    @property
    def key(self) -> PathKey:
        """Device and family."""
        return self.device, self.family

    def open(self, index: int, source: str) -> None:
        """Have the socket on the device as it is now. Raises NotSupported."""
        self.index, self.source = index, source
        self.descriptor = self.prober.open(source)

    def open_services(self) -> int:
        """Have the sockets for other kinds of probes; their descriptor. Raises NotSupported."""
        made = ServiceProber(self.device, self.family, self.mark)
        descriptor = made.open()
        self.services = made
        return descriptor

    def close(self) -> None:
        """Close all sockets."""
        if self.services is not None:
            self.services.close()
        self.prober.close()
        self.services, self.descriptor, self.index = None, -1, 0

    def plan(self, pause_s: float) -> None:
        """Have so many seconds between two probes."""
        self.pause_s = pause_s

    def note_use(self, is_used: bool) -> None:
        """Whether people use the path: it is probed less often where nobody does."""
        self.is_used = is_used

    def use_page(self, page: Page | None) -> None:
        """Have HTTP probes ask for this page; None: send none."""
        self.page = page

    def collect(self, now_s: float) -> None:
        """Take the answers that have come."""
        found = self.prober.drain()
        self.replies += len(found)
        if self.services is not None:
            before = self.services.packets
            found += self.services.drain()
            self.replies += self.services.packets - before
        for reply in found:
            asked = self.kinds.asked(reply.sequence)
            if asked is not None:
                self._take_trial(reply, *asked, now_s)
            elif self.health.answered(reply.sequence, now_s, reply.hops):
                self.kinds.present_answered()
            else:
                self.mtu.answered(reply.sequence, reply.length)

    def _take_trial(self, reply: Reply, target: str, sent_s: float, now_s: float) -> None:
        if self.health.targets.is_near(target, now_s - sent_s, reply.hops):
            return
        if self.kinds.answered(reply.sequence):
            self.health.change_probes()
        self.health.vouched(target, now_s)

    def probe(self, now_s: float) -> None:
        """Send the probe whose turn it is."""
        target = self.health.next_target(now_s)
        self.last_sent_s = now_s
        sequence = self._send(self.kinds.present, target)
        if sequence is None:
            self.health.unsendable(target, now_s)
        else:
            self.health.sent(sequence, target, now_s)

    def try_others(self, now_s: float) -> None:
        """Send probes of other kinds where the path's own go unanswered and it is time."""
        health, targets = self.health, self.health.targets
        is_unanswered = health.is_unanswered
        if health.state is Health.SUSPECT and not is_unanswered:
            is_unanswered = bool(targets.silent())
        has_page = self.page is not None
        for kind in self.kinds.due(is_unanswered, self.pause_s, now_s, has_page=has_page):
            target = self.kinds.pick(targets.silent(), targets.able())
            sequence = self._send(kind, target) if target else None
            if sequence is not None:
                self.kinds.sent(sequence, kind, target, now_s)
                health.asked_otherwise(now_s)

    def send_large(self, target: str, size: int) -> None:
        """Send one probe of the search for the MTU."""
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
        self._traffic: dict[str, Traffic] = {}
        self._sent: tuple[float, dict[str, int]] = (0.0, {})

    def keep(self, wanted: Container[PathKey]) -> None:
        """Give up every other path."""
        for key in [key for key in self if key not in wanted]:
            self._unbind(self.pop(key))

    def bind(self, path: WatchedPath, index: int, source: str = "") -> None:
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
        if path.services is None and path.index and path.health.is_unanswered:
            try:
                descriptor = path.open_services()
            except NotSupported:
                return  # the path's own probes tell why
            asyncio.get_running_loop().add_reader(descriptor, self._on_reply, path)
        path.try_others(now_s)

    def is_used(self, device: str, now_s: float) -> bool:
        """Whether people use the device. To be asked once for each probe that leaves by it."""
        traffic = self._traffic.setdefault(device, Traffic())
        traffic.probed()
        if self._sent[0] != now_s:  # both families ask at the same time
            self._sent = (now_s, read_sent_packets())
        return traffic.seen(self._sent[1].get(device, 0), now_s)

    def _unbind(self, path: WatchedPath) -> None:
        descriptors = [path.descriptor] if path.descriptor >= 0 else []
        descriptors += [path.services.descriptor] if path.services is not None else []
        for descriptor in descriptors:
            asyncio.get_running_loop().remove_reader(descriptor)
        path.close()


@dataclass(frozen=True, slots=True)
class Role:
    """What a path is to its family now. `is_wanted` says that the primary may soon be left for a
    better path.
    """

    phase: Phase
    is_primary: bool
    is_active: bool
    is_wanted: bool = False


def interval_s(
    path: WatchedPath, role: Role, profile: ProbeProfile, check_interval_s: float, now_s: float
) -> float:
    """Seconds between two probes of the path as things stand."""
    if path.health.state is Health.SUSPECT:
        return profile.confirm_interval_s
    if role.is_primary or role.is_active:
        is_calm = role.phase is Phase.PRIMARY and path.health.state is Health.UP
        wanted_s = profile.interval_s if path.is_used or not is_calm else profile.idle_interval_s
        return max(wanted_s, DEAR_S) if path.kinds.present.is_dear else wanted_s
    answered_s = path.health.last_answer_s
    is_stale = answered_s is None or now_s - answered_s > CONFIRM_AGE_S
    if role.phase is Phase.SUSPECT and is_stale:
        return profile.confirm_interval_s
    if role.phase is Phase.STRANDED or role.is_wanted:
        return profile.interval_s
    if path.health.state is not Health.UP and now_s - path.born_s < NEW_PATH_S:
        return NEW_PATH_INTERVAL_S
    return min(check_interval_s, AWAY_INTERVAL_S) if role.phase in AWAY else check_interval_s


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
    )


@dataclass(slots=True)
class Traffic:
    """Tells whether people use a device, from its packet counters less our own probes."""

    window_s: float = 10.0
    is_used: bool = True
    _packets: int | None = None
    _since_s: float = 0.0
    _own: int = 0

    def probed(self) -> None:
        """One of our own probes went out."""
        self._own += 1

    def seen(self, sent_packets: int, now_s: float) -> bool:
        """Take the device's count of sent packets; whether it counts as used.

        Use is noticed at once, idleness only after a whole window.
        """
        if self._packets is None or sent_packets < self._packets:
            self._begin(sent_packets, now_s)
            return self.is_used
        others = sent_packets - self._packets - self._own
        if others > IDLE_PACKETS_PER_S * self.window_s:
            self.is_used = True
            self._begin(sent_packets, now_s)
        elif now_s - self._since_s >= self.window_s:
            self.is_used = False
            self._begin(sent_packets, now_s)
        return self.is_used

    def _begin(self, sent_packets: int, now_s: float) -> None:
        self._packets, self._since_s, self._own = sent_packets, now_s, 0


def read_sent_packets() -> dict[str, int]:
    """Packets sent by each device, from /proc/net/dev."""
    with open("/proc/net/dev", encoding="ascii") as file:
        return parse_sent_packets(file.read())


def parse_sent_packets(text: str) -> dict[str, int]:
    """Read /proc/net/dev: device -> packets sent (the tenth number of its line)."""
    counts: dict[str, int] = {}
    for line in text.splitlines():
        name, colon, numbers = line.partition(":")
        fields = numbers.split()
        if colon and len(fields) >= 10:
            counts[name.strip()] = int(fields[9])
    return counts
