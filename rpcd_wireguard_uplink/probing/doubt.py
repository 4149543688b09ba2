"""The first doubt of a WAN: a probe is overdue, and a short burst after it is lost too. No I/O.

Long before a verdict, and none: only new connections leave by a backup meanwhile, as a browser
tries the other family when the first is slow (Happy Eyeballs, RFC 8305). What is established stays.
Whatever arrives by the WAN ends it. The probes of a burst count for nothing else: what the detector
knows of losses is the same with bursts and without.
"""

from __future__ import annotations

import math
from dataclasses import field
from enum import Enum

from ..values import dataclass

BURST = 3  # probes
BACKUPS_ASKED = 2  # with so many probes of a burst under way, backups are asked whether they live
LEAST_PATIENCE_S = 0.05
LONGEST_PATIENCE_S = 2.0
REST_S = 0.5  # after traffic ended one although probes are lost: they may be all that is


class Stage(Enum):
    """How much a WAN is doubted."""

    CALM = "calm"
    ASKING = "asking"
    DOUBTED = "doubted"


@dataclass(slots=True)
class Doubt:
    """The doubt of one WAN in one family. `since_s` is when its stage began, `due_s` when its burst
    is to be looked at again, `backups_asked_s` when backups were asked whether they live.
    """

    stage: Stage = Stage.CALM
    since_s: float = -math.inf
    due_s: float = math.inf
    backups_asked_s: float = math.inf
    _sent: dict[int, tuple[str, float]] = field(default_factory=dict)
    _rests_until_s: float = -math.inf

    def next_s(self, overdue_s: float) -> float:
        """When to look at it again. At `overdue_s` nothing has answered what left last for too
        long; infinite where all is answered.
        """
        return max(overdue_s, self._rests_until_s) if self.stage is Stage.CALM else self.due_s

    def begin(self, now_s: float) -> None:
        """Ask by a burst, which begins now."""
        self.stage, self.since_s, self.due_s = Stage.ASKING, now_s, now_s

    def asks_backups(self, now_s: float) -> bool:
        """Whether backups are to be asked now, which is noted."""
        if self.backups_asked_s < math.inf or len(self._sent) < BACKUPS_ASKED:
            return False
        self.backups_asked_s = now_s
        return True

    def wants_probe(self, now_s: float) -> bool:
        """Whether a probe of the burst is to leave now."""
        return self.stage is Stage.ASKING and now_s >= self.due_s and len(self._sent) < BURST

    def sent(
        self, sequence: int, target: str, gap_s: float, patience_s: float, now_s: float
    ) -> None:
        """A probe of the burst has left; the next one leaves `gap_s` later."""
        self._sent[sequence] = target, now_s
        self.due_s = now_s + (gap_s if len(self._sent) < BURST else patience_s)

    def judge(self, now_s: float) -> None:
        """See whether the whole burst is lost."""
        if self.stage is Stage.ASKING and now_s >= self.due_s and len(self._sent) >= BURST:
            self.stage, self.since_s, self.due_s = Stage.DOUBTED, now_s, math.inf

    @property
    def asked_since_s(self) -> float | None:
        """When the burst's first probe left, which nothing has answered; None without a burst."""
        return min((at_s for _, at_s in self._sent.values()), default=None)

    def asked(self, sequence: int) -> tuple[str, float] | None:
        """The target that a probe of the burst went to, and when; None where it was none."""
        return self._sent.get(sequence)

    def heard(self, now_s: float, *, rest_s: float = 0.0) -> bool:
        """Something arrived by the WAN: there is no doubt. Whether there was one."""
        was_doubted = self.stage is Stage.DOUBTED
        if self.stage is not Stage.CALM:
            self.end()
            self._rests_until_s = now_s + rest_s
        return was_doubted

    def end(self) -> None:
        """Doubt it no longer: it is dead, or it carries nothing that could be led elsewhere."""
        self.stage, self.due_s, self.backups_asked_s = Stage.CALM, math.inf, math.inf
        self._sent.clear()

    def excuse(self, lag_s: float) -> None:
        """This process itself was held up for so long."""
        self._sent = {n: (target, at_s + lag_s) for n, (target, at_s) in self._sent.items()}
        self.due_s += lag_s
