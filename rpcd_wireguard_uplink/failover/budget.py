"""What probes of a backup may take: they slow down in time to keep a day's budget.

A bucket of bytes: a quarter of the day's budget may be spent at once, the rest comes in over the
day. No clock, no I/O.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..model import Family

DAY_S = 86400.0
AT_ONCE = 0.25
# An echo of 32 or 56 bytes, padded to 16, with 32 of WireGuard, UDP and IPv6 around it; both ways.
PROBE_BYTES = {Family.IPV4: 2 * (32 + 32 + 48), Family.IPV6: 2 * (64 + 32 + 48)}


@dataclass(slots=True)
class Budget:
    """One path's budget, `limit` bytes a day; 0 is no limit. A probe takes `probe_bytes`."""

    probe_bytes: int
    limit: float = 0.0
    _spent: float = 0.0
    _counted_s: float = 0.0

    def spend(self, now_s: float, size: int = 0) -> None:
        """A probe leaves, an ordinary one where its `size` is not given. What others need at once
        is spent beyond the bucket, but never owed.
        """
        self._count(now_s)
        self._spent = min(self._spent + (size or self.probe_bytes), AT_ONCE * self.limit)

    def slowed_s(self, interval_s: float, now_s: float) -> float:
        """The interval that is wanted, or a longer one that the budget allows for good."""
        if not self.limit:
            return interval_s
        self._count(now_s)
        if self._spent + self.probe_bytes <= AT_ONCE * self.limit:
            return interval_s
        return max(interval_s, self.probe_bytes / self._inflow)

    @property
    def _inflow(self) -> float:
        """Bytes a second."""
        return (1 - AT_ONCE) * self.limit / DAY_S

    def _count(self, now_s: float) -> None:
        self._spent = max(0.0, self._spent - self._inflow * (now_s - self._counted_s))
        self._counted_s = now_s
