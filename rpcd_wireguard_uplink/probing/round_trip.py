"""The smoothed round trip time of a path, and how long an answer is waited for (RFC 6298)."""

from __future__ import annotations

from ..values import dataclass

FIRST_TIMEOUT_S = 1.0


@dataclass(slots=True)
class RoundTrip:
    """`smoothed_s` is None before the first answer. `is_doubtful` says that it rests on an answer
    that may have waited: for this process, or for a tunnel, which keeps packets until it has shaken
    hands.
    """

    smoothed_s: float | None = None
    deviation_s: float = 0.0
    is_doubtful: bool = False

    def learn(self, rtt_s: float, *, waited: bool) -> None:
        """Take an answer's round trip; one that `waited` counts until something better is known."""
        if waited and self.smoothed_s is not None and not self.is_doubtful:
            return
        if self.smoothed_s is None or self.is_doubtful:
            self.smoothed_s, self.deviation_s, self.is_doubtful = rtt_s, rtt_s / 2, waited
            return
        self.deviation_s += (abs(rtt_s - self.smoothed_s) - self.deviation_s) / 4
        self.smoothed_s += (rtt_s - self.smoothed_s) / 8

    def forget(self) -> None:
        """Another kind of probe is sent from now on."""
        self.smoothed_s = None

    def timeout_s(self, floor_s: float, cap_s: float) -> float:
        """How long an answer is waited for: SRTT + 4 RTTVAR within bounds."""
        if self.smoothed_s is None:
            return min(FIRST_TIMEOUT_S, cap_s)
        return min(max(self.smoothed_s + 4 * self.deviation_s, floor_s), cap_s)
