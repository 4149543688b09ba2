"""What an uplink gives when more is wanted, learnt from real use. Pure: counters in, Mbit/s out.

A tunnel is full while its round trips are much longer than when it is idle; the rate at which that
is so is what its provider really gives. Where the provider's queue treats probes better than the
traffic that fills it, nothing is learnt, and the advertised speed counts.
"""

from __future__ import annotations

import math

from ..values import dataclass

LEAST_S, MOST_S = 4.0, 20.0  # of one reading: the rate of a moment says little
IDLE_MBPS = 0.1
FULL_TIMES = 3.0
FULL_LEAST_MS = 20.0  # a link of 1 ms is not full at 3 ms
STILL_FULL = 0.8  # of the round trip before: a queue that drains ended within this reading
KNOWN_S = 3600.0  # a higher rate is believed for so long, then a lower one replaces it


@dataclass(slots=True)
class Capacity:
    """One uplink's. `measured_mbps` is 0 until it was seen full; less than 1 Mbit/s never counts,
    since a slow link's round trips rise by themselves.
    """

    measured_mbps: int = 0
    _idle_ms: float = -1.0
    _latency_ms: float = -1.0
    _bytes: int = 0
    _read_s: float = -math.inf
    _measured_s: float = -math.inf

    def seen(self, received_bytes: int, latency_ms: float, now_s: float) -> None:
        """Take the tunnel's counter and its round trip (-1: not known), every 5 to 15 s."""
        elapsed_s = now_s - self._read_s
        if elapsed_s < LEAST_S:
            return
        moved, before_ms = received_bytes - self._bytes, self._latency_ms
        self._bytes, self._latency_ms, self._read_s = received_bytes, latency_ms, now_s
        if elapsed_s > MOST_S or moved < 0 or latency_ms < 0:
            return
        rate_mbps = moved * 8 / elapsed_s / 1e6
        if rate_mbps < IDLE_MBPS:
            known = self._idle_ms >= 0
            self._idle_ms += (latency_ms - self._idle_ms) / (8 if known else 1)
        elif self._was_full(before_ms, latency_ms) and rate_mbps >= 1.0:
            if rate_mbps >= self.measured_mbps or now_s - self._measured_s > KNOWN_S:
                self._take(rate_mbps, now_s)
        elif 0 < self.measured_mbps < rate_mbps:
            self._take(rate_mbps, now_s)

    def _was_full(self, before_ms: float, after_ms: float) -> bool:
        """Whether the whole reading was: at its begin, and no less at its end."""
        full_ms = max(FULL_TIMES * self._idle_ms, self._idle_ms + FULL_LEAST_MS)
        return self._idle_ms >= 0 and before_ms >= full_ms and after_ms >= STILL_FULL * before_ms

    def _take(self, rate_mbps: float, now_s: float) -> None:
        self.measured_mbps, self._measured_s = round(rate_mbps), now_s
