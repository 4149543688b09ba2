"""The probe targets of one path: whose answers prove anything, and how many must answer.

A target may be down by itself, and then its silence says nothing. It may be answered on this side
of an outage (a modem that holds its address, a proxy), and then its answers say nothing: what comes
from the next hop itself, or from much nearer than before while another target is silent, is
doubted. Once all are answered from nearer for a while, the way became shorter in the outage.
`reliability` is mwan3's option: so many targets must answer. Without it (0) one must, and of three
or more that fall silent together at least half (rounded up). No clock, no I/O.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import field

from ..values import dataclass

LOSSES = 3  # losses in a row that make a target silent, or set it aside where others answer
STEADY = 5  # answers in a row that another target must have for that
REST_S = 60.0  # a target that is set aside is not asked for so long
DOUBTED_REST_S = 10.0
SHORTER_S = 30.0  # answers of all from nearer for so long: it is no modem that answers some
TOGETHER_S = 5.0  # targets that fall silent within this time have one cause
NEARER_HOPS = 2  # a distance of at most one nth of the usual is nearer; of the time one third
NEARER_TIMES = 3
LEAST_GAIN_S = 0.005
_INITIAL_TTL = (32, 64, 128, 255)


def hops_of(ttl: int) -> int:
    """How many routers an answer passed, by the TTL or hop limit that it came with."""
    return next(initial for initial in _INITIAL_TTL if ttl <= initial) - ttl


@dataclass(slots=True)
class Target:
    """What is known of one target. `hops` and `rtt_s` are its usual distance, `seen_hops` the last
    one; `answered_s` is when its last believed answer came.
    """

    losses: int = 0
    answers: int = 0
    lost_sent_s: float = -math.inf
    rests_until_s: float = 0.0
    answered_s: float = -math.inf
    silent_since_s: float | None = None
    hops: int | None = None
    seen_hops: int | None = None
    rtt_s: float = math.inf
    nearer_since_s: float | None = None
    doubt: str = ""

    @property
    def is_silent(self) -> bool:
        """Whether several probes in a row went unanswered."""
        return self.losses >= LOSSES

    def is_nearer(self, rtt_s: float, hops: int | None) -> bool:
        """Whether an answer comes from much nearer than usual; as many routers, and it is only a
        quicker way.
        """
        if hops is not None and self.hops:
            if hops * NEARER_HOPS <= self.hops:
                return True
            if hops >= self.hops:
                return False
        gain_s = self.rtt_s - rtt_s
        return gain_s > LEAST_GAIN_S and rtt_s * NEARER_TIMES < self.rtt_s < math.inf

    def look_at(self, rtt_s: float, hops: int | None, now_s: float) -> bool:
        """Whether an answer comes from nearer than usual; since when they do is remembered."""
        is_nearer = self.is_nearer(rtt_s, hops)
        since_s = now_s if self.nearer_since_s is None else self.nearer_since_s
        self.nearer_since_s = since_s if is_nearer else None
        return is_nearer

    def is_missed(self, now_s: float) -> bool:
        """Whether its silence makes nearer answers of others doubtful."""
        since_s = now_s if self.nearer_since_s is None else self.nearer_since_s
        return self.losses > 0 and now_s - since_s < SHORTER_S

    def learn_distance(self, rtt_s: float, hops: int | None) -> None:
        """The way that an answer took is the usual one."""
        self.hops, self.rtt_s = hops, min(self.rtt_s, rtt_s)
        self.nearer_since_s = None

    def note_doubt(self, doubt: str, hops: int | None, rests_until_s: float | None) -> None:
        """Keep why an answer proves nothing ('': it does), and have the target set aside then."""
        self.seen_hops, self.doubt = hops, doubt
        self.answers = 0 if doubt else self.answers
        if doubt and rests_until_s is not None:
            self.rests_until_s = rests_until_s

    def believe(self, now_s: float) -> None:
        """An answer proves that the path is alive."""
        self.end_silence()
        self.answers += 1
        self.answered_s = now_s
        self.rests_until_s = 0.0

    def lose(self, sent_s: float, newest_answered_s: float) -> None:
        """A probe was lost; of several that left before any other answer, only the first counts."""
        self.answers, self.nearer_since_s = 0, None
        if self.losses == 0 or newest_answered_s > self.lost_sent_s:
            self.losses += 1
        self.lost_sent_s = sent_s
        if self.silent_since_s is None:
            self.silent_since_s = sent_s

    def end_silence(self) -> None:
        """The target says something, by whichever kind of probe."""
        self.losses, self.silent_since_s = 0, None

    def rest(self, until_s: float) -> None:
        self.rests_until_s = until_s

    def excuse(self, lag_s: float) -> None:
        """This process itself was held up for so long."""
        if self.silent_since_s is not None:
            self.silent_since_s += lag_s

    def begin_anew(self) -> None:
        """Forget losses and answers; the usual distance stays."""
        self.end_silence()
        self.answers, self.rests_until_s = 0, 0.0
        self.lost_sent_s = self.answered_s = -math.inf


@dataclass(slots=True)
class Targets:
    """The targets of one path, in the order in which they take turns."""

    addresses: Sequence[str]
    reliability: int = 0
    known: dict[str, Target] = field(init=False)
    _turn: int = 0

    def __post_init__(self) -> None:
        self.known = {address: Target() for address in self.addresses}

    def next(self, now_s: float) -> str:
        """The target whose turn it is; those that are set aside are passed over."""
        for _ in self.addresses:
            address = self.addresses[self._turn % len(self.addresses)]
            self._turn += 1
            if self.known[address].rests_until_s <= now_s:
                return address
        self._turn += 1  # all rest: none of them is better than the others
        return self.addresses[self._turn % len(self.addresses)]

    def answered(self, address: str, rtt_s: float, hops: int | None, now_s: float) -> bool:
        """Take an answer; whether it proves that the path is alive."""
        target, others = self.known[address], self._others(address)
        doubt = ""
        if hops == 0 and _is_next_hop(target, others):
            doubt = "by the next hop itself"
        elif target.look_at(rtt_s, hops, now_s) and any(t.is_missed(now_s) for t in others):
            doubt = "from nearer than before"
        can_rest = any(t.hops for t in others)
        target.note_doubt(doubt, hops, now_s + DOUBTED_REST_S if can_rest else None)
        if doubt:
            return False
        if target.nearer_since_s is None or _is_shorter_for_all(target.nearer_since_s, others):
            target.learn_distance(rtt_s, hops)
        target.believe(now_s)
        return True

    def lost(self, address: str, sent_s: float, newest_answered_s: float, now_s: float) -> bool:
        """Take a loss; whether it is the target's own, which is then set aside.

        `newest_answered_s` is when the newest probe left that was answered, by whichever target.
        """
        target = self.known[address]
        target.lose(sent_s, newest_answered_s)
        others_steady = any(t.answers >= STEADY for t in self.known.values())
        if not target.is_silent or not others_steady:
            return False
        if self.short_since_s() is None:  # else it is asked on, so that its return is seen
            target.rest(now_s + REST_S)
        return True

    def short_since_s(self) -> float | None:
        """Since when some targets answer, but fewer than must; None otherwise."""
        if not self.silent():
            return None
        voters = self._voters()
        silent_s = sorted(t.silent_since_s or 0.0 for t in voters if t.is_silent)
        spare = len(voters) - self._needed(len(voters))
        return silent_s[spare] if spare < len(silent_s) < len(voters) else None

    def enough_since(self, fell_s: float) -> bool:
        """Whether as many as must have answered since the path was declared dead."""
        voters = self._voters()
        answering = sum(not t.losses and t.answered_s >= fell_s for t in voters)
        return answering >= self._needed(len(voters))

    def is_near(self, address: str, rtt_s: float, hops: int | None) -> bool:
        """Whether an answer to another kind of probe comes from this side of an outage."""
        target = self.known[address]
        return hops == 0 or bool(target.doubt) or target.is_nearer(rtt_s, hops)

    def able(self) -> list[str]:
        """The targets whose answers are not doubted."""
        return [address for address, target in self.known.items() if not target.doubt]

    def vouched(self, address: str, now_s: float) -> None:
        """The target answers another kind of probe: its silence to this kind says nothing."""
        target = self.known[address]
        if target.is_silent:
            target.rest(now_s + REST_S)
        target.end_silence()

    def excuse(self, lag_s: float) -> None:
        """This process itself was held up for so long: no target was silent in that time."""
        for target in self.known.values():
            target.excuse(lag_s)

    def begin_anew(self) -> None:
        """Forget who was silent or set aside; the usual distances stay."""
        for target in self.known.values():
            target.begin_anew()

    def wake(self) -> None:
        for target in self.known.values():
            target.rest(0.0)

    def silent(self) -> list[str]:
        return [address for address, target in self.known.items() if target.losses >= LOSSES]

    def doubts(self) -> list[str]:
        """A clause for each target whose answers prove nothing."""
        return [f"{a} is answered {t.doubt}" for a, t in self.known.items() if t.doubt]

    def _needed(self, voters: int) -> int:
        if self.reliability:
            return min(self.reliability, voters)
        return max(1, (voters + 1) // 2) if voters > 2 else 1

    def _voters(self) -> Sequence[Target]:
        """The targets that count: all by the owner's word, else those that were known to answer
        until the newest silence began. One that fell silent before is down by itself.
        """
        able = [t for t in self.known.values() if not t.doubt]
        if self.reliability:
            return able
        able = [t for t in able if t.answered_s > -math.inf]
        newest_s = max((t.silent_since_s or 0.0 for t in able if t.is_silent), default=0.0)
        return [
            t for t in able if not t.is_silent or (t.silent_since_s or 0.0) >= newest_s - TOGETHER_S
        ]

    def _others(self, address: str) -> list[Target]:
        return [target for each, target in self.known.items() if each != address]


def _is_next_hop(target: Target, others: Sequence[Target]) -> bool:
    """Whether the next hop answers in the target's place: the target is farther away, or it is the
    only one of several that is not.
    """
    return bool(target.hops or (others and not any(t.seen_hops == 0 for t in others)))


def _is_shorter_for_all(since_s: float, others: Sequence[Target]) -> bool:
    """Whether the way became shorter for all: each other target has answered since, or was silent
    before.
    """
    return all(
        t.answered_s >= since_s or (t.is_silent and (t.silent_since_s or 0.0) < since_s)
        for t in others
        if t.answered_s > -math.inf
    )
