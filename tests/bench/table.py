"""The table of numbers: what was measured, against what, and how it is written down."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

HEAD = ("number", "unit", "runs", "median", "p95", "worst", "target", "note")
Judge = Literal["median", "p95", "worst"]


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of all does not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


@dataclass(frozen=True, slots=True)
class Row:
    """One number. `by` says which statistic of `values` must not exceed `limit`; where that is a
    floor, which must not be below it: the worst is the least then.
    """

    name: str
    unit: str
    values: tuple[float, ...]
    limit: float
    by: Judge = "p95"
    note: str = ""
    is_floor: bool = False

    @property
    def median(self) -> float:
        return quantile(self.values, 0.5)

    @property
    def p95(self) -> float:
        return quantile(self.values, 0.05 if self.is_floor else 0.95)

    @property
    def worst(self) -> float:
        return min(self.values) if self.is_floor else max(self.values)

    @property
    def verdict(self) -> str:
        """`reached` or `not reached`; what could not be measured was not reached."""
        if not self.values:
            return "not reached"
        seen: float = getattr(self, self.by)
        is_reached = seen >= self.limit if self.is_floor else seen <= self.limit
        return "reached" if is_reached else "not reached"

    @property
    def fields(self) -> tuple[str, ...]:
        """The row as text, without its verdict."""
        numbers = ("-",) * 3
        if self.values:
            numbers = (_number(self.median), _number(self.p95), _number(self.worst))
        target = f"{self.by} {'>=' if self.is_floor else '<='} {_number(self.limit)}"
        return (self.name, self.unit, str(len(self.values)), *numbers, target, self.note)


def _number(value: float) -> str:
    return f"{value:.0f}" if value == int(value) or abs(value) >= 1000 else f"{value:.3g}"


def table_lines(rows: Iterable[Row]) -> list[str]:
    """The table: columns padded with spaces, and behind a tab the verdict."""
    lines = [(HEAD, "verdict"), *((row.fields, row.verdict) for row in rows)]
    widths = [max(len(fields[n]) for fields, _ in lines) for n in range(len(HEAD))]
    return [
        "  ".join(field.ljust(width) for field, width in zip(fields, widths, strict=True)).rstrip()
        + f"\t{verdict}"
        for fields, verdict in lines
    ]
