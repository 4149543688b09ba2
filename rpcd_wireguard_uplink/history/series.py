"""Latency, loss and traffic of each path over the last hour, day and month, in bounded memory.

A point is the mean of the samples of its time; -1 is a gap: nothing was known, or nothing answered.
Has no clock and reads nothing.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import field
from typing import Any, Self

from ..values import dataclass

SPANS = {"hour": (60, 60), "day": (900, 96), "month": (28_800, 90)}
"""Each span: the seconds of a point, and how many points are kept."""
MOST_PATHS = 64
GAP = -1.0
MOST = 1e18  # more bytes than any counter


@dataclass(frozen=True, slots=True)
class Sample:
    """A path now: -1 where it is not known; bytes are the kernel's counters of its device."""

    latency_ms: float = GAP
    loss_pct: float = GAP
    rx_bytes: int = 0
    tx_bytes: int = 0


@dataclass(slots=True)
class Line:
    """One number of one path over one span, oldest first."""

    most: int
    points: array[float] = field(default_factory=lambda: array("f"))
    _sum: float = 0.0
    _count: int = 0

    def add(self, value: float, *, is_mean: bool = True) -> None:
        """Take a value into the newest point: its mean, or its sum."""
        if value < 0:
            return
        self._sum, self._count = self._sum + value, self._count + 1
        self.points[-1] = self._sum / self._count if is_mean else self._sum

    def begin(self, gaps: int) -> None:
        """Begin a new point, after as many gaps."""
        self.points.extend([GAP] * (min(gaps, self.most) + 1))
        del self.points[: -self.most]
        self._sum, self._count = 0.0, 0

    def as_list(self) -> list[float]:
        """What `from_list` goes on with."""
        return [round(self._sum, 1), self._count, *(round(value, 1) for value in self.points)]

    @classmethod
    def from_list(cls, most: int, given: list[float]) -> Self:
        """Raises TypeError, ValueError or OverflowError for what is no line."""
        total, count, *points = given
        if count < 0 or not all(GAP <= number <= MOST for number in given):
            raise ValueError("numbers that no line can have")
        return cls(most, array("f", points[-most:]), float(total), int(count))


class Series:
    """The lines of all paths. `take` is given samples now and then."""

    def __init__(self) -> None:
        self._slots: dict[str, int] = {}
        self._lines: dict[str, dict[str, tuple[Line, Line, Line]]] = {}
        self._counted: dict[str, tuple[int, int]] = {}

    def take(self, samples: Mapping[str, Sample], now_s: float) -> None:
        """Add samples by path; a path that is gone for long is forgotten where others are new."""
        for path in samples:
            if path not in self._lines:
                made = {s: tuple(Line(most) for _ in range(3)) for s, (_, most) in SPANS.items()}
                self._lines[path] = made  # type: ignore[assignment]  # three lines
        for path in [p for p in self._lines if p not in samples][: len(self._lines) - MOST_PATHS]:
            del self._lines[path]
            self._counted.pop(path, None)
        for span, (step_s, _) in SPANS.items():
            slot = int(now_s // step_s)
            passed = slot - self._slots.get(span, slot)
            self._slots[span] = slot
            for found in self._lines.values():
                for line in found[span]:
                    if passed > 0 or not line.points:
                        line.begin(max(0, passed - 1))
        for path, sample in samples.items():
            moved = self._moved(path, sample)
            for latency, loss, traffic in self._lines[path].values():
                latency.add(sample.latency_ms)
                loss.add(sample.loss_pct)
                traffic.add(moved, is_mean=False)

    def of(self, span: str) -> dict[str, tuple[list[float], list[float], list[int]]]:
        """By path: latency in ms, loss in percent, bytes both ways; the newest point is last."""
        return {
            path: (
                [round(value, 1) for value in lines[span][0].points],
                [round(value, 1) for value in lines[span][1].points],
                [round(value) for value in lines[span][2].points],
            )
            for path, lines in self._lines.items()
        }

    def as_table(self) -> dict[str, Any]:
        """What `restore` goes on with; times are those of one boot's monotonic clock."""
        paths = {
            path: {span: [line.as_list() for line in lines[span]] for span in SPANS}
            for path, lines in self._lines.items()
        }
        return {"slots": self._slots, "paths": paths, "counted": self._counted}

    def restore(self, table: Mapping[str, Any]) -> None:
        """Go on with what an earlier run has kept, or with none of it where it is damaged."""
        try:
            slots = {span: int(table["slots"][span]) for span in SPANS}
            lines: dict[str, dict[str, tuple[Line, Line, Line]]] = {}
            for path, spans in list(table["paths"].items())[:MOST_PATHS]:
                lines[path] = {}
                for span, (_, most) in SPANS.items():
                    latency, loss, traffic = (Line.from_list(most, each) for each in spans[span])
                    lines[path][span] = (latency, loss, traffic)
            counted = {path: (int(rx), int(tx)) for path, (rx, tx) in table["counted"].items()}
            if any(number < 0 for pair in counted.values() for number in pair):
                return
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            return
        self._slots, self._lines, self._counted = slots, lines, counted

    def _moved(self, path: str, sample: Sample) -> int:
        """Bytes since the last sample; counters that fell began anew."""
        now = (sample.rx_bytes, sample.tx_bytes)
        before = self._counted.get(path, now)
        self._counted[path] = now
        return sum(n - b if n >= b else n for n, b in zip(now, before, strict=True))
