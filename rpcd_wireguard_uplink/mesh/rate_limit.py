"""Token-bucket rate limit per peer."""

from __future__ import annotations

MOST_SOURCES = 1024


class Buckets:
    """A token bucket for each source that was seen lately; the longest unseen are forgotten."""

    def __init__(self, burst: int, rate_per_s: float) -> None:
        self._burst = float(burst)
        self._rate_per_s = rate_per_s
        self._levels: dict[str, tuple[float, float]] = {}

    def __len__(self) -> int:
        return len(self._levels)

    def take(self, source: str, now_s: float) -> bool:
        """Whether the source may ask once more now."""
        level, at_s = self._levels.pop(source, (self._burst, now_s))
        level = min(self._burst, level + (now_s - at_s) * self._rate_per_s)
        allowed = level >= 1
        self._levels[source] = (level - 1 if allowed else level), now_s
        if len(self._levels) > MOST_SOURCES:
            del self._levels[next(iter(self._levels))]
        return allowed
