"""Probe profiles: how often a path is probed and how long it may be silent, and what that promises.

Numbers only: failover/detector.py judges by them, failover/paths.py probes by them.
"""

from __future__ import annotations

from ..values import dataclass, replace

QUIET_SHARE = 2 / 3  # of the allowed silence in which nothing may arrive, late answers included


@dataclass(frozen=True, slots=True)
class ProbeProfile:
    """How a path is probed and judged, in seconds; `timeout_cap_s` bounds the adaptive timeout.

    A silence is a verdict after `silence_s`, or after `patience_s` where the path had long ones
    that ended by themselves, and `start_s` after the first probe where nothing has answered yet.
    Some targets that answer and others that do not are a verdict after `dispute_s`. A probe that is
    overdue is followed by a burst whose probes are `burst_gap_s` apart; 0: by none.
    """

    interval_s: float
    confirm_interval_s: float
    losses: int
    silence_s: float
    rate_window_s: float
    idle_interval_s: float = 2.0  # while nobody uses the path
    timeout_cap_s: float = 3.0
    timeout_floor_s: float = 0.1
    passive_limit_s: float = 10.0
    patience_s: float = 0.0
    start_s: float = 5.0  # address resolution and a round trip behind a queue of 2 s take four
    dispute_s: float = 3.0
    burst_gap_s: float = 0.0

    def detection_bound_s(self, timeout_s: float) -> float:
        """The longest time from a silent death to the verdict, while the path is used.

        One interval until the next probe leaves, then either the silence or the first probe's
        timeout and what has to follow, whichever is longer.
        """
        return self.interval_s + max(self.longest_silence_s, timeout_s + self.confirm_s)

    def eased(self) -> ProbeProfile:
        """The same for a router that is too busy: probes leave half as often while all is well."""
        return replace(self, interval_s=2 * self.interval_s)

    @property
    def longest_silence_s(self) -> float:
        """The silence that is allowed on a path that had long ones before."""
        return max(self.silence_s, self.patience_s)

    @property
    def confirm_s(self) -> float:
        """The longest time from the first overdue answer to the verdict, where that is late."""
        further_s = (self.losses - 1) * self.confirm_interval_s
        return max(further_s, self.longest_silence_s * QUIET_SHARE)


DEFAULT_PROFILE = ProbeProfile(
    interval_s=0.25,
    confirm_interval_s=0.1,
    losses=3,
    silence_s=1.7,
    rate_window_s=3.0,
    patience_s=2.5,
    burst_gap_s=0.04,
)
FAST_PROFILE = ProbeProfile(
    interval_s=0.1,
    confirm_interval_s=0.025,
    losses=5,  # three of them come by chance every few hours at 2 % loss
    silence_s=0.3,
    rate_window_s=0.5,
    idle_interval_s=0.1,
    timeout_floor_s=0.06,
)
PROFILES = {"default": DEFAULT_PROFILE, "fast": FAST_PROFILE}
