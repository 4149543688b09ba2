"""Is a path that is alive good enough? Its share of losses and its latency over half a minute.

Both are exponential averages over time, not over probes: a suspect is probed more often, and a
burst would count several times over. With 2 % random loss it takes a silence of six seconds to
reach a limit of 20 %, or a dozen losses in half a minute (once in thousands of days). A path that
passed a limit is below its SLA until it is below half of that limit. No clock, no I/O.
"""

from __future__ import annotations

import math

from ..reasons import because
from ..values import dataclass

AVERAGED_S = 30.0
LONGEST_STEP_S = 0.5  # a probe stands for the time since the one before it, but for no longer
GOOD_SHARE = 0.5  # of a limit


@dataclass(frozen=True, slots=True)
class Sla:
    """What a path must keep: `max_loss` is a share of the probes; 0 is no limit."""

    max_loss: float = 0.0
    max_latency_s: float = 0.0


@dataclass(slots=True)
class LinkQuality:
    """The quality of one path. `below_sla` says why it is degraded, and is '' where it isn't; so
    does `near_sla`, from half of a limit on.
    """

    sla: Sla = Sla()
    loss: float = 0.0
    latency_s: float | None = None
    below_sla: str = ""
    near_sla: str = ""

    def take(self, gap_s: float, rtt_s: float | None) -> None:
        """One probe whose fate is known: `gap_s` after the one before it, None for lost."""
        share = 1 - math.exp(-min(gap_s, LONGEST_STEP_S) / AVERAGED_S)
        self.loss += share * ((rtt_s is None) - self.loss)
        if rtt_s is not None:
            before_s = rtt_s if self.latency_s is None else self.latency_s
            self.latency_s = before_s + share * (rtt_s - before_s)
        self._judge()

    def use(self, sla: Sla) -> None:
        self.sla = sla

    def begin_anew(self) -> None:
        """Forget what was: the path was dead, and is another one now."""
        self.loss, self.latency_s, self.below_sla, self.near_sla = 0.0, None, "", ""

    def _judge(self) -> None:
        latency_s = self.latency_s or 0.0
        lossy = self.loss / self.sla.max_loss if self.sla.max_loss else 0.0
        slow = latency_s / self.sla.max_latency_s if self.sla.max_latency_s else 0.0
        if lossy < GOOD_SHARE and slow < GOOD_SHARE:
            self.near_sla = self.below_sla = ""
            return
        if lossy >= slow:
            self.near_sla = because("loses", f"{100 * self.loss:.0f}")
        else:
            self.near_sla = because("takes", f"{1000 * latency_s:.0f}")
        is_below = lossy >= 1.0 or slow >= 1.0 or self.below_sla
        self.below_sla = self.near_sla if is_below else ""
