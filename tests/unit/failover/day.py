"""One line of a router in simulated time: its losses, its delays, and a watcher that probes it.

`watch` drives a PathHealth the way the monitor does, by events instead of a clock: what is overdue
expires before the next probe leaves, the pace is `paths.interval_s`, and while the line is suspect
packets of other people's traffic count as evidence.

A test of many seeds takes few of them in the short form; `make test-deep` takes all (`seeds`).
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pytest

from rpcd_wireguard_uplink.config.probe_profile import DEFAULT_PROFILE, FAST_PROFILE, ProbeProfile
from rpcd_wireguard_uplink.failover.detector import PathHealth
from rpcd_wireguard_uplink.failover.machine import Phase
from rpcd_wireguard_uplink.failover.paths import WatchedPath
from rpcd_wireguard_uplink.failover.schedule import Role, interval_s
from rpcd_wireguard_uplink.model import Family, Health, PathKind
from rpcd_wireguard_uplink.probing.icmp import Prober, Reply
from rpcd_wireguard_uplink.probing.link_quality import Sla
from rpcd_wireguard_uplink.probing.probe_kind import ProbeKind
from rpcd_wireguard_uplink.probing.service_probe import Page, ServiceProber

TARGETS = ("1.1.1.1", "8.8.8.8", "9.9.9.9")
NEVER_S = float("inf")
LONGEST_SLEEP_S = 5.0
MAX_LOSS = 0.2
PROFILES = pytest.mark.parametrize(
    "profile", [DEFAULT_PROFILE, FAST_PROFILE], ids=["default", "fast"]
)
IN_USE, IN_DOUBT = Role(Phase.PRIMARY, True, True), Role(Phase.SUSPECT, True, True)


def seeds(few: int, all_of_them: int, first: int = 0) -> pytest.MarkDecorator:
    """Have a test run with few seeds, and with all of them in test-deep."""
    short, whole = range(first, first + few), range(all_of_them)
    rows = [pytest.param(short, id="few"), pytest.param(whole, id="all", marks=pytest.mark.deep)]
    return pytest.mark.parametrize("seeds", rows)


@dataclass(frozen=True)
class Burst:
    """A time in which nothing gets through."""

    begin_s: float
    end_s: float

    @property
    def length_s(self) -> float:
        return self.end_s - self.begin_s

    def holds(self, at_s: float) -> bool:
        return self.begin_s <= at_s < self.end_s


@dataclass
class Line:
    """What happens to a probe: `delay_s` tells the round trip of one that leaves at a time.

    `near_from_s` says from when a target is answered by the next hop itself, `no_pings_from_s` from
    when the line drops pings, `kinds` what its targets answer besides.
    """

    chance: random.Random
    loss: float = 0.0
    bursts: Sequence[Burst] = ()
    dead_from_s: float = NEVER_S
    dead_targets: frozenset[str] = frozenset()
    near_from_s: dict[str, float] = field(default_factory=dict)
    no_pings_from_s: float = NEVER_S
    kinds: frozenset[ProbeKind] = frozenset({ProbeKind.DNS})
    delay_s: Callable[[float], float] = lambda _: 0.02
    has_traffic: bool = False
    others_chance: random.Random = field(default_factory=lambda: random.Random(0))
    _begun: int = 0
    _last_arrival_s: float = 0.0

    def fate(self, target: str, sent_s: float) -> float | None:
        """When the answer arrives; None if there never is one. Ask in order of time."""
        arrives_s = sent_s + self.delay_s(sent_s) * self.chance.uniform(0.95, 1.1)
        lost = self.chance.random() < self.loss or target in self.dead_targets
        arrives_s = max(arrives_s, self._last_arrival_s)  # a queue keeps the order
        if lost or not self.delivers(sent_s) or self.dead_from_s <= arrives_s:
            return None
        self._last_arrival_s = arrives_s
        return arrives_s

    def answer(self, target: str, method: ProbeKind, sent_s: float) -> tuple[float, int] | None:
        """When an answer to that kind of probe arrives, and how many routers it passed."""
        if sent_s >= self.near_from_s.get(target, NEVER_S):
            return sent_s + 0.001, 0
        is_ping = method is ProbeKind.PING
        own, self.chance = self.chance, self.chance if is_ping else self.others_chance
        arrives_s = self.fate(target, sent_s)
        self.chance = own
        dropped = sent_s >= self.no_pings_from_s if is_ping else method not in self.kinds
        return None if dropped or arrives_s is None else (arrives_s, 8)

    def delivers(self, at_s: float) -> bool:
        """Whether packets get through at that time. Ask in order of time."""
        while self._begun < len(self.bursts) and self.bursts[self._begun].end_s <= at_s:
            self._begun += 1
        in_burst = self._begun < len(self.bursts) and self.bursts[self._begun].holds(at_s)
        return not in_burst and at_s < self.dead_from_s


class Pings(Prober):
    """Sends nothing; the line says what comes back and when."""

    watcher: Watcher

    def send(self, target: str, size: int = 0) -> int | None:
        return self.watcher.send(ProbeKind.PING, target)

    def drain(self) -> list[Reply]:
        found, self.watcher.arrived = self.watcher.arrived, []
        return found


class Services(ServiceProber):
    """The same for other kinds of probes."""

    watcher: Watcher

    def send(self, method: ProbeKind, target: str, page: Page | None = None) -> int | None:
        return self.watcher.send(method, target)

    def drain(self) -> list[Reply]:
        return []


@dataclass
class Watcher:
    """Simulated time over one line. `verdicts` are the times at which it was declared dead."""

    line: Line
    profile: ProbeProfile
    targets: Sequence[str] = TARGETS
    used: bool = True
    reliability: int = 0
    now_s: float = 0.0
    verdicts: list[tuple[float, str]] = field(default_factory=list)
    suspicions: int = 0
    was_degraded: bool = False
    arrived: list[Reply] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.health = PathHealth(self.profile, self.targets, self.reliability)
        self.health.quality.use(Sla(MAX_LOSS))
        prober = Pings("wan", Family.IPV4)
        self._path = WatchedPath("wan", PathKind.WAN, Family.IPV4, self.health, prober, self.now_s)
        self._path.note_use(self.used)
        self._path.services = services = Services("wan", Family.IPV4, 0)
        prober.watcher = services.watcher = self
        self._answers: list[tuple[float, int, Reply]] = []
        self._sequence = 0
        self._hear_s = NEVER_S

    @property
    def probes_sent(self) -> int:
        """How many probes have left."""
        return self._sequence

    @property
    def method(self) -> ProbeKind:
        """What the line is watched by."""
        return self._path.kinds.present

    def send(self, method: ProbeKind, target: str) -> int:
        """A probe leaves."""
        self._sequence += 1
        answer = self.line.answer(target, method, self.now_s)
        if answer is not None:
            arrives_s, hops = answer
            heapq.heappush(self._answers, (arrives_s, self._sequence, Reply(self._sequence, hops)))
        return self._sequence

    def run(self, until_s: float) -> None:
        """Let the time pass."""
        for _ in self._live(until_s):
            pass

    def _live(self, until_s: float) -> Iterator[float]:
        while True:
            due_s, answer = min(self._tick_s(), self._hear_s), None
            if self._answers and self._answers[0][0] <= due_s:
                due_s, _, answer = self._answers[0]
            if due_s > until_s:
                break
            before, self.now_s = self.health.state, due_s
            if answer is not None:
                heapq.heappop(self._answers)
                self.arrived.append(answer)
                self._path.collect(due_s)
            elif due_s >= self._hear_s:
                self._hear()
            else:
                self._tick()
            self._note(before)
            yield due_s
        self.now_s = until_s

    def run_to_verdict(self, until_s: float) -> float | None:
        """Let the time pass until the line is declared dead once more; the moment of that."""
        for event_s in self._live(until_s):
            if self.verdicts and self.verdicts[-1][0] == event_s:
                return event_s
        return None

    def _interval_s(self) -> float:
        role = IN_DOUBT if self.health.state is Health.SUSPECT else IN_USE
        return interval_s(self._path, role, self.profile, 30.0, self.now_s)

    def _tick_s(self) -> float:
        due_s = min(self.now_s + LONGEST_SLEEP_S, self._path.last_sent_s + self._interval_s())
        deadline_s = self.health.next_deadline_s()
        return max(due_s if deadline_s is None else min(due_s, deadline_s), self.now_s + 0.001)

    def _tick(self) -> None:
        self.health.expire(self.now_s)
        self._path.pause_s = self._interval_s()
        if self.now_s >= self._path.last_sent_s + self._path.pause_s - 0.001:
            self._path.probe(self.now_s)
            self._path.try_others(self.now_s)
        if self.health.state is Health.SUSPECT and self._hear_s == NEVER_S:
            # The first reading of the counters is only what later ones are compared with.
            self._hear_s = self.now_s + self.profile.confirm_interval_s

    def _hear(self) -> None:
        if self.health.state is not Health.SUSPECT:
            self._hear_s = NEVER_S
            return
        self._hear_s = self.now_s + self.profile.confirm_interval_s
        if self.line.has_traffic and self.line.delivers(self.now_s):
            self.health.saw_traffic(self.now_s)

    def _note(self, before: Health) -> None:
        after = self.health.state
        self.was_degraded = self.was_degraded or bool(self.health.quality.below_sla)
        if after is not before and after is Health.SUSPECT:
            self.suspicions += 1
        if after is not before and after is Health.DOWN:
            self.verdicts.append((self.now_s, self.health.cause))


def random_bursts(
    chance: random.Random, until_s: float, every_s: float, mean_s: float = 0.3
) -> list[Burst]:
    """One burst in each `every_s`, somewhere in its first half, of exponential length."""
    bursts = []
    for number in range(int(until_s / every_s)):
        begin_s = (number + chance.uniform(0.05, 0.5)) * every_s
        bursts.append(Burst(begin_s, begin_s + chance.expovariate(1 / mean_s)))
    return bursts
