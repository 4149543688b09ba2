"""How many bytes tunnels have moved, today and in the month that a quota is for.

Owns the arithmetic of counters that fall back to 0 and of days on a clock that may be wrong. Has
no clock, reads no counters and writes no file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from datetime import date, timedelta
from typing import Any

from ..errors import InvalidArgument
from ..reasons import because
from ..values import dataclass

VERSION = 1
MOST_KEYS = 256  # more than consumers can have leases at once
FIRST_YEAR = 2025  # a clock before it was never set
WRONG_BY = timedelta(days=366)
GB = 10**9
_MOST_BYTES = 2**63


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes, both ways together."""

    today: int = 0
    period: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.today + other.today, self.period + other.period)


@dataclass(slots=True)
class Ledger:
    """Usage by key; keys that were gone for long are only in the total.

    The day moves forward only: a router without a battery boots with a date of the past, and must
    not begin the same period twice. A date more than a year ahead of what comes later was itself
    wrong, and is given up without forgetting what was counted.
    """

    _day: date | None = None
    _counters: dict[str, int] = field(default_factory=dict)
    _usage: dict[str, Usage] = field(default_factory=dict)
    _gone: Usage = Usage()

    def record(self, counters: Mapping[str, int], today: date, reset_day: int) -> None:
        """Count what has moved since the last time.

        `counters` are WireGuard's, received and sent together, by key: they begin at 0 whenever a
        device or a peer is made. `today` is the router's local date; a period begins on
        `reset_day`, or on the last day of a month that has no such day.
        """
        self._turn(today, reset_day)
        for key, counted in counters.items():
            before = self._counters.pop(key, 0)
            moved = counted - before if counted >= before else counted
            self._counters[key] = counted  # last in the order: the keys at the front go first
            self._usage[key] = self.used(key) + Usage(moved, moved)
        idle = [key for key in self._counters if key not in counters]
        for key in idle[: max(0, len(self._counters) - MOST_KEYS)]:
            del self._counters[key]
            self._gone += self._usage.pop(key)

    def used(self, public_key: str) -> Usage:
        """What this key's consumer has moved."""
        return self._usage.get(public_key, Usage())

    @property
    def total(self) -> Usage:
        """What all consumers have moved, those included that are gone."""
        return sum(self._usage.values(), self._gone)

    def quota_left_gb(self, quota_gb: float) -> float:
        """What is left in this period, in 10^9 bytes and not below 0; -1 without a quota (0)."""
        return max(0.0, quota_gb - self.total.period / GB) if quota_gb > 0 else -1.0

    def _turn(self, today: date, reset_day: int) -> None:
        if today.year < FIRST_YEAR:
            return
        day = self._day
        if day is None or day - today > WRONG_BY:
            self._day = today
        elif today > day:
            self._day = today
            is_over = period_start(today, reset_day) > day
            self._usage = {key: _turned(used, is_over) for key, used in self._usage.items()}
            self._gone = _turned(self._gone, is_over)

    def to_table(self) -> dict[str, object]:
        """The ledger as JSON can hold it."""
        return {
            "version": VERSION,
            "day": None if self._day is None else self._day.isoformat(),
            "keys": {
                key: [counter, self._usage[key].today, self._usage[key].period]
                for key, counter in self._counters.items()
            },
            "gone": [self._gone.today, self._gone.period],
        }

    @classmethod
    def from_table(cls, table: object) -> Ledger:
        """The ledger that `to_table` has given. Raises InvalidArgument for anything else."""
        try:
            return cls._parsed(table)
        except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError) as error:
            raise InvalidArgument(because("usage_unread")) from error

    @classmethod
    def _parsed(cls, table: Any) -> Ledger:
        if table["version"] != VERSION:
            raise ValueError("another version")
        day = table["day"]
        ledger = cls(None if day is None else date.fromisoformat(day))
        for key, numbers in table["keys"].items():
            counter, today, period = map(_bytes, numbers)
            ledger._counters[key] = counter
            ledger._usage[key] = Usage(today, period)
        today, period = map(_bytes, table["gone"])
        ledger._gone = Usage(today, period)
        return ledger


def period_start(today: date, reset_day: int) -> date:
    """The last day up to today on which a period began; `reset_day` is from 1 to 31."""
    first = today.replace(day=1)
    start = _day_of_month(first, reset_day)
    if start <= today:
        return start
    return _day_of_month((first - timedelta(days=1)).replace(day=1), reset_day)


def _day_of_month(first: date, number: int) -> date:
    """That day of the month that begins with `first`, or its last one."""
    return next(
        day
        for day in (first + timedelta(days=count - 1) for count in range(number, 0, -1))
        if day.month == first.month
    )


def _turned(used: Usage, is_period_over: bool) -> Usage:
    return Usage(0, 0 if is_period_over else used.period)


def _bytes(value: object) -> int:
    if type(value) is not int or not 0 <= value < _MOST_BYTES:
        raise ValueError("not a number of bytes")
    return value
