"""The ledger: counters that fall back, days on clocks that may be wrong, the file it is kept in."""

from __future__ import annotations

import json
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpcd_wireguard_uplink.errors import InvalidArgument
from rpcd_wireguard_uplink.storage.usage import GB, MOST_KEYS, Ledger, Usage, period_start

DAY = date(2026, 3, 10)
UNSET = date(1970, 1, 1)


def recorded(*days: tuple[date, int], reset_day: int = 1) -> Ledger:
    """A ledger of one key whose counter stood so on these days."""
    ledger = Ledger()
    for today, counted in days:
        ledger.record({"a": counted}, today, reset_day)
    return ledger


# --- counters


@pytest.mark.parametrize(
    ("counted", "total"),
    [
        ([], 0),
        ([100, 100], 100),
        ([100, 250], 250),
        ([100, 0], 100),
        ([100, 30], 130),
        ([100, 30, 40, 5], 145),
    ],
)
def test_counters_fall_back_when_a_device_is_made_anew(counted: list[int], total: int) -> None:
    assert recorded(*((DAY, one) for one in counted)).total == Usage(total, total)


def test_keys_are_counted_apart() -> None:
    ledger = Ledger()
    ledger.record({"a": 10, "b": 5}, DAY, 1)
    ledger.record({"b": 7}, DAY, 1)
    ledger.record({"a": 11, "b": 7}, DAY, 1)
    assert (ledger.used("a").today, ledger.used("b").today) == (11, 7)
    assert ledger.total == Usage(18, 18)


@given(st.lists(st.integers(0, 1000), max_size=30))
def test_no_byte_is_lost_or_counted_twice(moves: list[int]) -> None:
    """Whatever is moved between two looks, with a new device whenever it is a multiple of 7."""
    ledger, counter = Ledger(), 0
    for moved in moves:
        counter = moved if moved % 7 == 0 and moved < counter else counter + moved
        ledger.record({"a": counter}, DAY, 1)
    assert ledger.total == ledger.used("a") == Usage(sum(moves), sum(moves))


def test_the_number_of_keys_is_bounded() -> None:
    ledger = Ledger()
    present = {f"here{number}": 1 for number in range(200)}
    for number in range(1000):
        ledger.record({**present, f"k{number}": 1}, DAY, 1)
    table: Any = ledger.to_table()
    assert len(table["keys"]) == MOST_KEYS
    assert ledger.total.period == 1200
    assert ledger.used("k0") == Usage(0, 0)
    assert ledger.used("k999") == ledger.used("here0") == Usage(1, 1)


def test_what_forgotten_keys_moved_ends_with_its_period() -> None:
    ledger = Ledger()
    for number in range(MOST_KEYS + 10):
        ledger.record({f"k{number}": 1}, date(2026, 3, 30), 1)
    ledger.record({}, date(2026, 3, 31), 1)
    assert ledger.total == Usage(0, MOST_KEYS + 10)
    ledger.record({}, date(2026, 4, 1), 1)
    assert ledger.total == Usage(0, 0)


def test_keys_in_use_are_never_forgotten() -> None:
    ledger = Ledger()
    many = {f"k{number}": 1 for number in range(MOST_KEYS + 10)}
    for _ in range(3):
        ledger.record(many, DAY, 1)
    assert ledger.total.period == MOST_KEYS + 10


# --- days


@pytest.mark.parametrize(
    ("today", "reset_day", "start"),
    [
        ("2026-03-10", 1, "2026-03-01"),
        ("2026-03-01", 1, "2026-03-01"),
        ("2026-03-10", 10, "2026-03-10"),
        ("2026-03-10", 11, "2026-02-11"),
        ("2026-01-10", 15, "2025-12-15"),
        ("2026-03-30", 31, "2026-02-28"),
        ("2026-03-31", 31, "2026-03-31"),
        ("2026-02-28", 31, "2026-02-28"),
        ("2028-02-28", 31, "2028-01-31"),
        ("2028-02-29", 30, "2028-02-29"),
        ("2026-02-28", 29, "2026-02-28"),
        ("2026-04-29", 31, "2026-03-31"),
        ("2026-04-30", 31, "2026-04-30"),
        ("2026-12-31", 31, "2026-12-31"),
    ],
)
def test_a_period_begins(today: str, reset_day: int, start: str) -> None:
    assert period_start(date.fromisoformat(today), reset_day) == date.fromisoformat(start)


@given(st.dates(date(2025, 1, 1), date(2060, 1, 1)), st.integers(1, 31))
def test_a_period_is_a_month(today: date, reset_day: int) -> None:
    start = period_start(today, reset_day)
    assert timedelta(0) <= today - start < timedelta(31)
    assert period_start(start, reset_day) == start
    assert start.day == reset_day or (start + timedelta(1)).day == 1


@pytest.mark.parametrize(
    ("days", "used"),
    [
        ([("2026-03-30", 10), ("2026-03-31", 15)], Usage(5, 15)),
        ([("2026-03-30", 10), ("2026-03-31", 15), ("2026-04-01", 22)], Usage(7, 7)),
        ([("2026-03-30", 10), ("2026-07-15", 11)], Usage(1, 1)),
        ([("1970-01-01", 10), ("2026-03-10", 15)], Usage(15, 15)),
        ([("2099-01-01", 10), ("2026-03-10", 15)], Usage(15, 15)),
        ([("2099-01-01", 10), ("2026-03-10", 15), ("2026-04-01", 16)], Usage(1, 1)),
    ],
    ids=[
        *("another day", "another month", "months without a look", "before the clock was set"),
        *("a date far ahead", "a month after a date far ahead"),
    ],
)
def test_days_and_periods(days: list[tuple[str, int]], used: Usage) -> None:
    ledger = recorded(*((date.fromisoformat(day), counted) for day, counted in days))
    assert ledger.total == ledger.used("a") == used


def test_another_reset_day_does_not_begin_a_period() -> None:
    ledger = recorded((date(2026, 3, 20), 10))
    ledger.record({"a": 20}, date(2026, 3, 21), 15)
    assert ledger.total == Usage(10, 20)
    ledger.record({"a": 30}, date(2026, 4, 15), 15)
    assert ledger.total == Usage(10, 10)


@pytest.mark.parametrize(
    "wrong", [UNSET, date(2024, 12, 31), date(2026, 3, 9), date(2026, 1, 31), date(2025, 4, 1)]
)
def test_a_clock_that_is_not_set_begins_nothing(wrong: date) -> None:
    ledger = recorded((DAY, 10), (wrong, 3), (wrong, 5), (DAY, 6))
    assert ledger.total == Usage(16, 16)


# --- quota


@pytest.mark.parametrize(
    ("quota_gb", "moved", "left_gb"),
    [
        (0.0, 5 * GB, -1.0),
        (10.0, 0, 10.0),
        (10.0, 4 * GB, 6.0),
        (1.5, GB, 0.5),
        (10.0, 10 * GB, 0.0),
        (10.0, 11 * GB, 0.0),
    ],
)
def test_quota(quota_gb: float, moved: int, left_gb: float) -> None:
    assert recorded((DAY, moved)).quota_left_gb(quota_gb) == pytest.approx(left_gb)


# --- the file


@pytest.mark.parametrize("day", [DAY, UNSET])
def test_a_ledger_is_read_as_it_was_written(day: date) -> None:
    ledger = Ledger()
    for number in range(MOST_KEYS + 5):
        ledger.record({f"k{number}": number}, day, 1)
    again = Ledger.from_table(json.loads(json.dumps(ledger.to_table())))
    assert again == ledger
    again.record({"k200": 250}, day, 1)
    assert again.used("k200") == Usage(250, 250)


GOOD: dict[str, Any] = {"version": 1, "day": "2026-03-10", "keys": {"a": [3, 2, 1]}, "gone": [0, 5]}


def test_the_form_of_the_file() -> None:
    ledger = Ledger.from_table(GOOD)
    assert ledger.used("a") == Usage(2, 1)
    assert ledger.total == Usage(2, 6)
    assert ledger.to_table() == GOOD


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"day": "yesterday"},
        {"day": 5},
        {"keys": []},
        {"keys": {"a": [1, 2]}},
        {"keys": {"a": [1, 2, -3]}},
        {"keys": {"a": [1, 2, 2**63]}},
        {"keys": {"a": [1, 2, True]}},
        {"keys": {"a": [1, 2, 3.5]}},
        {"keys": {"a": "123"}},
        {"keys": {"a": None}},
        {"gone": [1]},
        {"gone": None},
    ],
)
def test_what_cannot_be_read_begins_anew(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match="can't be read: counting begins anew"):
        Ledger.from_table({**GOOD, **change})
