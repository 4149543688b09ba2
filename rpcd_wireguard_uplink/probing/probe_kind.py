"""The kind of probe that a path is watched by: ping, or another one where ping is dropped.

While the present kind goes unanswered the others are tried along with it. One that is answered
several times, and the present one not once meanwhile, takes its place: it is the kind of probe that
is dropped, not the path. Where the present one is answered now and then (an ISP limits pings), the
other must be far likelier to lose next to nothing than to lose as much (a sequential probability
ratio test: A. Wald, 1945). Ping is tried again now and then and comes back as soon as it works. An
answer that comes from this side of an outage (targets.py) is none. No clock, no I/O.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import field
from enum import Enum

from ..values import dataclass


class ProbeKind(Enum):
    """The kinds of probes in the order in which they are tried: what people call each, and the
    port that it asks at, 0 where that is not the kind's to say.
    """

    PING = "ping", 0
    DNS = "DNS", 53
    TCP_443 = "TCP port 443", 443
    TCP_53 = "TCP port 53", 53
    HTTP = "HTTP", 0

    def __init__(self, shown: str, port: int) -> None:
        self.shown, self.port = shown, port

    @property
    def is_dear(self) -> bool:
        """Whether each probe is a connection of its own: these are sent less often."""
        return self not in (ProbeKind.PING, ProbeKind.DNS)


PING, HTTP = ProbeKind.PING, ProbeKind.HTTP
WINS = 3  # answers of another kind that take the present one's place
LITTLE_LOSS, LEAST_LOSS, MOST_LOSS = 0.02, 0.15, 0.9
ENOUGH = math.log(10_000)  # so much likelier
TRIAL_PROBES = 4  # while the path is suspect one in so many probes is followed by another kind's
COMPARED = 30  # trials under way, where the present kind is answered too and each is followed
LOST_TRIALS = 3  # unanswered trials that end a lead
UNHURRIED_S = 1.0
AGAIN_S, LONGEST_AGAIN_S = 60.0, 3600.0  # until ping is tried again, doubled each time it fails
FORGOTTEN_S = 10.0


@dataclass(slots=True)
class ProbeKinds:
    """The `present` kind of one path's probes, and the trials of the others."""

    present: ProbeKind = PING
    _wins: dict[ProbeKind, float] = field(default_factory=dict)
    _trials: dict[int, tuple[ProbeKind, str, float]] = field(default_factory=dict)
    _asked_s: float = float("-inf")
    _ping_due_s: float = 0.0
    _again_s: float = AGAIN_S
    _turn: int = 0
    _has_returned: bool = False
    _is_compared: bool = False  # the present kind is answered too: wins are likelihoods then

    @property
    def is_settled(self) -> bool:
        """Whether pings alone are sent, and no answer to anything else is awaited."""
        return self.present is PING and not self._trials

    def due(
        self, is_unanswered: bool, pause_s: float, now_s: float, *, has_page: bool = False
    ) -> Sequence[ProbeKind]:
        """The other kinds that are to be tried now, as the present one is sent every `pause_s`.

        HTTP is one of them where there is a page to be asked for.
        """
        if not is_unanswered:
            return self._due_again(now_s)
        probes, most = (1, COMPARED) if self._is_compared else (TRIAL_PROBES, LOST_TRIALS)
        if now_s < self._asked_s + min(probes * pause_s, UNHURRIED_S) - 0.001:
            return ()
        others = [k for k in ProbeKind if k is not self.present and (has_page or k is not HTTP)]
        leader = max(others, key=lambda kind: self._wins.get(kind, 0))
        self._turn += 1
        if self._wins.get(leader) and self._pending(leader) < most:
            return (leader,)
        self._wins.clear()
        if self._turn == 1:
            return others[:2]  # a first answer may be all that comes in time
        return (others[self._turn % len(others)],)

    def _due_again(self, now_s: float) -> Sequence[ProbeKind]:
        """Ping, where another kind has its place and it is time to try it again."""
        self._turn, self._is_compared = 0, False
        if self.present is PING:
            self._wins.clear()
            self._trials.clear()
        if self.present is PING or now_s < self._ping_due_s:
            return ()
        if self._pending(PING):
            self._wins.pop(PING, None)  # the last one was lost
        self._ping_due_s = now_s + (UNHURRIED_S if self._wins.get(PING) else self._again_s)
        return (PING,)

    def _pending(self, kind: ProbeKind) -> int:
        return sum(found is kind for found, _, _ in self._trials.values())

    def pick(self, silent: Sequence[str], able: Sequence[str]) -> str:
        """The target to be asked otherwise: one that is silent, or else any that is able."""
        found = [target for target in silent if target in able] or list(able)
        return found[self._turn % len(found)] if found else ""

    def sent(self, sequence: int, kind: ProbeKind, target: str, now_s: float) -> None:
        self._asked_s = now_s
        self._trials[sequence] = kind, target, now_s
        for old in [n for n, t in self._trials.items() if t[2] < now_s - FORGOTTEN_S]:
            del self._trials[old]

    def asked(self, sequence: int) -> tuple[str, float] | None:
        """The target that a trial went to, and when; None where it was none."""
        found = self._trials.get(sequence)
        return found[1:] if found is not None else None

    def answered(self, sequence: int, loss: float) -> bool:
        """A trial was answered; whether its kind takes the place of the present one, which is lost
        with such a chance.
        """
        kind, _, sent_s = self._trials.pop(sequence)
        if kind is self.present:
            return False
        won, enough = self._wins.get(kind, 0) + 1, float(WINS)
        if self._is_compared:
            lost = [n for n, (k, _, at_s) in self._trials.items() if k is kind and at_s < sent_s]
            for overtaken in lost:  # a path keeps the order
                del self._trials[overtaken]
            loss = min(max(loss, LEAST_LOSS), MOST_LOSS)
            won = max(0.0, won - 1 - len(lost) * math.log(loss / LITTLE_LOSS))
            won, enough = won + math.log((1 - LITTLE_LOSS) / (1 - loss)), ENOUGH
        self._wins[kind] = won
        if won < enough:
            self._ping_due_s = 0.0 if kind is PING else self._ping_due_s
            return False
        if kind is not PING and self.present is PING and self._has_returned:
            self._again_s = min(2 * self._again_s, LONGEST_AGAIN_S)
        self._has_returned = self._has_returned or kind is PING
        self._ping_due_s = self._asked_s + self._again_s
        self.present, self._is_compared = kind, False
        self._wins.clear()
        self._trials.clear()
        return True

    def present_answered(self) -> None:
        """The present kind was answered: from now on it is compared with the others."""
        if self.present is PING and not self._is_compared:
            self._is_compared = True
            self._wins.clear()
            self._trials.clear()
