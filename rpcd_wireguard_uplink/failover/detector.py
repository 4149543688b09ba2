"""Is one path alive? Probe results in, a verdict out; no clock and no I/O.

All verdicts on a path are made here. A first loss makes it suspect; two rules judge a suspect:
silence (several probes in a row without an answer, over a minimum time, so that a burst of losses
is not taken for a death) and rate (k of n probes lost over a window of time, and still). A path
keeps the order of packets, so a probe counts for the rate once one that left later was answered:
what is only late, behind a long queue, is no loss. Anything that arrived from beyond the path
breaks a silence, but only for a bounded time, because a path that answers no probe is of no use.
Whose answers and losses count is for targets.py to say. A path that has not answered yet is given
more time: the first answer waits for address resolution, and nothing is known of its round trip.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import field

from ..config.probe_profile import QUIET_SHARE, ProbeProfile
from ..model import Health
from ..probing.link_quality import LinkQuality, Sla
from ..probing.round_trip import RoundTrip
from ..probing.targets import Targets
from ..reasons import because, joined
from ..values import dataclass

RATE_PROBES = 10  # fewer say nothing about a rate
RATE_LIMIT = 0.4  # the k of n: this share lost is a verdict
STILL_LOST = 3  # of the last RATE_PROBES: a burst that has passed is no verdict any more
CALM_LIMIT = 0.3  # at most this share lost since the suspicion, and it is lifted
CALM_ROW = 5  # by so many answers in a row
RISE = 3  # answers in a row that bring a dead path back
STATISTICS_WINDOW = 50
HEALED_S = 0.5  # a silence of this length that ended by itself
HEALED_KEPT_S = 86400.0  # is remembered for a day
OTHER_KIND_ROUND_TRIPS = 1.5  # so long an answer to another kind of probe is waited for
LATE_S = 10.0  # later answers say nothing any more
RECENT = 20  # judged probes
EARLY_S = 0.001  # timers may be early by so much


@dataclass(slots=True)
class _Probe:
    target: str
    sent_s: float
    deadline_s: float
    gap_s: float = 0.0  # since the probe before it
    excused_s: float = 0.0  # of this process's own lag, which `sent_s` is later by than it was
    is_answered: bool = False
    is_weighed: bool = False

    def excuse(self, lag_s: float) -> None:
        """This process itself was held up for so long."""
        self.sent_s += lag_s
        self.deadline_s += lag_s
        self.excused_s += lag_s

    def wait_for(self, timeout_s: float) -> None:
        """Wait for the answer for so long at least."""
        self.deadline_s = max(self.deadline_s, self.sent_s + timeout_s)

    def answer(self) -> None:
        """It was answered, in time or late."""
        self.is_answered = True

    def weigh(self) -> bool:
        """Have it count for the link's quality; whether it did not yet."""
        was_weighed, self.is_weighed = self.is_weighed, True
        return not was_weighed


@dataclass(slots=True)
class _Suspicion:
    """The probes judged since a path is suspect, for the rule of k lost of n."""

    since_s: float = 0.0
    probes: deque[_Probe] = field(default_factory=deque)

    def begin(self, now_s: float) -> None:
        """The path is suspect from now on."""
        self.since_s = now_s
        self.probes.clear()

    def excuse(self, lag_s: float) -> None:
        """This process itself was held up for so long."""
        self.since_s += lag_s

    def leave_out(self, target: str) -> None:
        """What was lost of this target is its own."""
        self.probes = deque(probe for probe in self.probes if probe.target != target)

    def settled(self, newest_answered_s: float) -> tuple[int, list[_Probe]]:
        """The probes whose fate is known: answered, or overtaken by one that was; and how many of
        them were lost.
        """
        found = [p for p in self.probes if p.is_answered or p.sent_s < newest_answered_s]
        return _lost(found), found

    def verdict(self, window_s: float, newest_answered_s: float, now_s: float) -> str:
        """Why so many were lost within the window that the path is dead, and '' where it is not."""
        while self.probes and self.probes[0].sent_s < now_s - window_s - 0.5:
            self.probes.popleft()
        lost, settled = self.settled(newest_answered_s)
        is_new = now_s - self.since_s < window_s
        if is_new or len(settled) < RATE_PROBES or lost < RATE_LIMIT * len(settled):
            return ""
        is_passed = _lost(settled[-RATE_PROBES:]) < STILL_LOST
        return "" if is_passed else because("probes_lost", lost, len(settled))


def _lost(probes: Sequence[_Probe]) -> int:
    return sum(not probe.is_answered for probe in probes)


@dataclass(slots=True)
class PathHealth:
    """The health of one path in one family. Feed it in order of time; read `state` after.

    `detection_s` is how long the last death took from the first unanswered probe to the verdict,
    `alive_since_s` when the path came up, None while it is dead or unknown, `silent_since_s` when
    the first probe left that nothing answered since, None while all is answered.
    """

    profile: ProbeProfile
    addresses: Sequence[str]
    reliability: int = 0
    state: Health = Health.UNKNOWN
    cause: str = ""
    attached: bool = True
    detection_s: float = -1.0
    last_answer_s: float | None = None
    alive_since_s: float | None = None
    silent_since_s: float | None = None
    round_trip: RoundTrip = field(default_factory=RoundTrip)
    quality: LinkQuality = field(default_factory=LinkQuality)
    targets: Targets = field(init=False)
    _first_sent_s: float = math.inf
    _last_sent_s: float = math.inf
    _first_answer_s: float = math.inf
    _newest_answered_s: float = -math.inf  # when it left
    _fell_s: float = -math.inf
    _quiet_since_s: float = -math.inf
    _patient_until_s: float = -math.inf
    _asked_otherwise_s: float = -math.inf
    _row_lost: int = 0
    _row_answered: int = 0
    _suspicion: _Suspicion = field(default_factory=_Suspicion)
    _statistics: deque[bool] = field(default_factory=lambda: deque(maxlen=STATISTICS_WINDOW))
    _outstanding: dict[int, _Probe] = field(default_factory=dict)
    _late: dict[int, _Probe] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.targets = Targets(self.addresses, self.reliability)

    # --- questions

    @property
    def latency_ms(self) -> float:
        """The smoothed round trip time, -1 before the first answer."""
        smoothed_s = self.round_trip.smoothed_s
        return -1.0 if smoothed_s is None else round(smoothed_s * 1000, 3)

    @property
    def loss_pct(self) -> float:
        """Loss over the last 50 judged probes, 0 to 100."""
        if not self._statistics:
            return 0.0
        return round(100.0 * self._statistics.count(False) / len(self._statistics), 1)

    @property
    def recent_loss(self) -> float:
        """Share of the last 20 judged probes that was lost; 1 where there are not that many."""
        recent = list(self._statistics)[-RECENT:]
        return recent.count(False) / RECENT if len(recent) == RECENT else 1.0

    @property
    def timeout_s(self) -> float:
        """How long an answer is waited for, within the profile's bounds."""
        return self.round_trip.timeout_s(self.profile.timeout_floor_s, self.profile.timeout_cap_s)

    @property
    def unanswered_since_s(self) -> float | None:
        """When the first probe left of those that nothing has answered since, lost or under way."""
        newest_s, silent_s = self._newest_answered_s, self.silent_since_s
        sent = [p.sent_s for p in self._outstanding.values() if p.sent_s > newest_s]
        return min(sent if silent_s is None else [*sent, silent_s], default=None)

    @property
    def is_waiting(self) -> bool:
        """Whether time alone may change anything: probes are under way, or a suspicion is."""
        return bool(self._outstanding or self._late) or self.state is Health.SUSPECT

    @property
    def is_unanswered(self) -> bool:
        """Whether the newest probes are lost, or none was ever answered: another kind of probe may
        tell whether the path is dead.
        """
        return self._row_lost > 0 or (self.state is Health.DOWN and not self._row_answered)

    @property
    def lost_in_row(self) -> int:
        """How many probes were lost since anything arrived."""
        return self._row_lost

    def suspected_loss(self, sent_s: float) -> float:
        """The chance that a probe is lost, by those since the path is suspect (Laplace's rule).
        Whatever left at `sent_s` was answered; a path keeps the order.
        """
        lost, settled = self._suspicion.settled(max(self._newest_answered_s, sent_s))
        return (lost + 1) / (len(settled) + 2)

    def next_target(self, now_s: float) -> str:
        return self.targets.next(now_s)

    def next_deadline_s(self) -> float | None:
        """When the next outstanding probe is overdue, or the silence reaches its bound."""
        times = [probe.deadline_s for probe in self._outstanding.values()]
        if self.state is Health.SUSPECT:
            ends_s, short_s = self._silence_ends_s(), self.targets.short_since_s()
            times += [] if ends_s is None else [ends_s]
            times += [] if short_s is None else [short_s + self.profile.dispute_s]
        return min(times, default=None)

    # --- what happens

    def use(self, profile: ProbeProfile, sla: Sla) -> None:
        self.profile = profile
        self.quality.use(sla)

    def sent(self, sequence: int, target: str, now_s: float) -> None:
        gap_s = max(0.0, now_s - self._last_sent_s)
        self._outstanding[sequence] = _Probe(target, now_s, now_s + self.timeout_s, gap_s)
        self._last_sent_s = now_s
        self._first_sent_s = min(self._first_sent_s, now_s)

    def answered(self, sequence: int, now_s: float, hops: int | None = None) -> bool:
        """A probe was answered, in time or late; whether that proves anything.

        Answers nobody asked for are ignored. `hops` is how many routers it passed, None where that
        isn't known.
        """
        is_late = sequence not in self._outstanding
        probe = (self._late if is_late else self._outstanding).pop(sequence, None)
        if probe is None:
            return False
        rtt_s = now_s - probe.sent_s + probe.excused_s
        if not self.targets.answered(probe.target, rtt_s, hops, now_s):
            return False
        is_early = is_late and probe.sent_s < self._first_answer_s
        self.round_trip.learn(rtt_s, waited=is_early or probe.excused_s > 0)
        is_first = self.last_answer_s is None
        if is_first:
            self._first_answer_s = now_s
            for waiting in self._outstanding.values():
                waiting.wait_for(self.timeout_s)
            self._statistics.clear()  # what was sent before there was anybody says nothing
        self.last_answer_s = now_s
        self._newest_answered_s = max(self._newest_answered_s, probe.sent_s)
        probe.answer()
        self._weigh(probe, now_s - probe.sent_s)
        self._break_silence(now_s)
        if is_late:
            return True
        self._statistics.append(True)
        self._row_answered += 1
        if self.state is Health.SUSPECT:
            self._suspicion.probes.append(probe)
        self._rise(is_first)
        return True

    def unsendable(self, target: str, now_s: float) -> None:
        """A probe could not even leave (no route, device gone): that is a loss at once."""
        self._lose(_Probe(target, now_s, now_s), now_s)
        self._judge(now_s)

    def expire(self, now_s: float) -> None:
        """Count what is overdue as lost. Call it only after the socket was drained."""
        for sequence in [n for n, p in self._outstanding.items() if p.deadline_s <= now_s]:
            probe = self._late[sequence] = self._outstanding.pop(sequence)
            self._lose(probe, now_s)
        for sequence, probe in list(self._late.items()):
            # What waits in a long queue is late, not lost, but a path keeps the order.
            if probe.sent_s < max(self._newest_answered_s, now_s - LATE_S):
                self._weigh(probe, None)
            if probe.sent_s < now_s - LATE_S:
                del self._late[sequence]
        self._judge(now_s)

    def excuse(self, lag_s: float) -> None:
        """This process itself was held up for so long: that time says nothing about the path.

        Call it before the answers that have come meanwhile are taken.
        """
        for probe in self._outstanding.values():
            probe.excuse(lag_s)
        if self.silent_since_s is not None:
            self.silent_since_s += lag_s
        self._first_sent_s += lag_s
        self._quiet_since_s += lag_s
        self._asked_otherwise_s += lag_s
        self.targets.excuse(lag_s)
        self._suspicion.excuse(lag_s)

    def saw_traffic(self, now_s: float) -> None:
        """Something arrived from beyond the path: it is alive, whatever the probes say.

        That is believed for `passive_limit_s` after the last answered probe.
        """
        if self.last_answer_s is None or now_s - self.last_answer_s > self.profile.passive_limit_s:
            return
        if self.state is not Health.DOWN:
            self._break_silence(now_s)

    def asked_otherwise(self, now_s: float) -> None:
        """Another kind of probe was sent while this one's are lost: its answer is waited for."""
        if self.silent_since_s is not None and self._asked_otherwise_s < self.silent_since_s:
            self._asked_otherwise_s = now_s

    def vouched(self, target: str, now_s: float) -> None:
        """Another kind of probe was answered by a target: the path is alive."""
        self.targets.vouched(target, now_s)
        if self.state is not Health.DOWN:
            self._break_silence(now_s)

    def change_probes(self) -> None:
        """Another kind of probe is sent from now on: losses of the former one say nothing."""
        self._forget()
        self.targets.begin_anew()
        self.round_trip.forget()

    def attach(self, attached: bool, now_s: float, cause: str) -> None:
        """The path's device gained or lost its carrier or its route, which counts at once."""
        if attached == self.attached:
            return
        self.attached = attached
        self._forget()
        if not attached:
            self.silent_since_s = now_s
            self._fall(cause, now_s)
        elif self.state is not Health.UNKNOWN:
            self.state, self.cause = Health.DOWN, because("not_yet", cause)

    def take_over(self, now_s: float) -> None:
        """An earlier run had traffic here a moment ago: alive until probes say otherwise."""
        self.state, self.cause = Health.UP, "taken over from an earlier run"
        self.last_answer_s = now_s

    # --- what follows from it

    def _forget(self) -> None:
        self._outstanding.clear()
        self._late.clear()
        self._suspicion.probes.clear()
        self.silent_since_s = None
        self._row_lost = 0
        self._row_answered = 0

    def _break_silence(self, now_s: float) -> None:
        since_s = self.silent_since_s
        if since_s is not None and self.state is Health.SUSPECT and now_s - since_s >= HEALED_S:
            self._patient_until_s = now_s + HEALED_KEPT_S
        self.silent_since_s, self._quiet_since_s = None, now_s
        self._row_lost = 0

    def _weigh(self, probe: _Probe, rtt_s: float | None) -> None:
        """Let a probe whose fate is known count for the quality, once; what left before the path
        came up says nothing.
        """
        is_own = rtt_s is None and self.targets.known[probe.target].rests_until_s > probe.sent_s
        alive_s = self.alive_since_s
        if probe.weigh() and not is_own and alive_s is not None and probe.sent_s >= alive_s:
            self.quality.take(probe.gap_s, rtt_s)

    def _lose(self, probe: _Probe, now_s: float) -> None:
        if self.targets.lost(probe.target, probe.sent_s, self._newest_answered_s, now_s):
            self._suspicion.leave_out(probe.target)
            return
        self._statistics.append(False)
        self._row_answered = 0
        if self.state is Health.SUSPECT:
            self._suspicion.probes.append(probe)
        if self._newest_answered_s > probe.sent_s:
            return
        self._row_lost += 1
        if self.silent_since_s is None or probe.sent_s < self.silent_since_s:
            self.silent_since_s = probe.sent_s

    def _rise(self, is_first: bool) -> None:
        if self.alive_since_s is None and not self.targets.enough_since(self._fell_s):
            return
        if self.alive_since_s is None:
            is_back = is_first or self.state is not Health.DOWN or self._row_answered >= RISE
            self.alive_since_s = self.last_answer_s if is_back else None
        if is_first or self.state is Health.UNKNOWN:
            self.state, self.cause = Health.UP, "answers"
        elif self.state is Health.DOWN and self._row_answered >= RISE:
            self.state, self.cause = Health.UP, "answers again"
        elif self.state is Health.SUSPECT and self._is_calm():
            self.state, self.cause = Health.UP, "answers"
            self._suspicion.probes.clear()

    def _is_calm(self) -> bool:
        if self._row_answered < CALM_ROW or self.targets.short_since_s() is not None:
            return False
        lost, settled = self._suspicion.settled(self._newest_answered_s)
        return lost <= CALM_LIMIT * len(settled) or self._row_answered >= RATE_PROBES

    def _judge(self, now_s: float) -> None:
        short_s = self.targets.short_since_s()
        is_lossy = self._row_lost >= 1 or short_s is not None
        if self.state in (Health.UP, Health.UNKNOWN) and is_lossy:
            self.state, self.cause = Health.SUSPECT, "probes unanswered"
            self._suspicion.begin(now_s)
        if self.state is not Health.SUSPECT:
            return
        if cause := self._why_dead(short_s, now_s):
            self._fall(cause, now_s)

    def _why_dead(self, short_s: float | None, now_s: float) -> str:
        """Why a suspect is dead, '' where it is not."""
        ends_s, since_s = self._silence_ends_s(), self.silent_since_s
        if ends_s is not None and since_s is not None and now_s >= ends_s - EARLY_S:
            told = because("no_answer", self._row_lost, f"{now_s - since_s:.1f}")
            return joined("; ", (told, *self.targets.doubts()))
        if short_s is not None and now_s >= short_s + self.profile.dispute_s - EARLY_S:
            silent = self.targets.silent()
            counts = len(silent), len(self.addresses)
            return because("targets_silent", *counts, ", ".join(silent))
        # Of the last round trip nothing is known yet: a window that it fills would hold few probes.
        window_s = self.profile.rate_window_s + (self.round_trip.smoothed_s or 0.0)
        return self._suspicion.verdict(window_s, self._newest_answered_s, now_s)

    def _silence_ends_s(self) -> float | None:
        """When the silence is a verdict: long after its first probe, and with nothing arriving.

        The second only matters where round trips are longer than the silence that is allowed. None
        while too few probes are lost.
        """
        since_s = self.silent_since_s
        if since_s is None or self._row_lost < self.profile.losses:
            return None
        smoothed_s = self.round_trip.smoothed_s
        is_patient = since_s < self._patient_until_s
        silence_s = self.profile.longest_silence_s if is_patient else self.profile.silence_s
        jitter_s = max(0.0, self.timeout_s - (smoothed_s or self.timeout_s))
        quiet_s = max(silence_s * QUIET_SHARE, jitter_s + min(jitter_s, self.profile.confirm_s))
        ends_s = max(since_s + silence_s, self._quiet_since_s + quiet_s)
        if self._first_answer_s == math.inf:
            ends_s = max(ends_s, self._first_sent_s + self.profile.start_s)
        elif self.round_trip.is_doubtful:
            ends_s = max(ends_s, self._first_answer_s + self.profile.start_s / 2)
        if self._asked_otherwise_s >= since_s:
            wait_s = min(OTHER_KIND_ROUND_TRIPS * (smoothed_s or 0.0), self.profile.confirm_s)
            ends_s = max(ends_s, self._asked_otherwise_s + wait_s)
        return ends_s

    def _fall(self, cause: str, now_s: float) -> None:
        self.state, self.cause = Health.DOWN, cause
        self.alive_since_s = None
        self._fell_s = now_s
        self.targets.wake()
        self.quality.begin_anew()
        begun_s = self.silent_since_s
        self.detection_s = now_s - (self._suspicion.since_s if begun_s is None else begun_s)
        self._row_answered = 0
        self._suspicion.probes.clear()
