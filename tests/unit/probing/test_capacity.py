"""What an uplink really gives, from counters and round trips."""

from __future__ import annotations

import pytest

from rpcd_wireguard_uplink.probing.capacity import KNOWN_S, Capacity

STEP_S = 5.0
Reading = tuple[float, float]
"""Mbit/s in one reading, and the round trip in ms at its end."""
IDLE: Reading = (0.0, 20.0)
FULL: Reading = (30.0, 200.0)


def after(*readings: Reading, capacity: Capacity | None = None, at_s: float = 0.0) -> Capacity:
    """The capacity after these, one each 5 s."""
    found = Capacity() if capacity is None else capacity
    moved = 10**9
    found.seen(moved, readings[0][1], at_s)
    for number, (mbps, latency_ms) in enumerate(readings, start=1):
        moved += round(mbps * 1e6 / 8 * STEP_S)
        found.seen(moved, latency_ms, at_s + number * STEP_S)
    return found


@pytest.mark.parametrize(
    ("readings", "mbps"),
    [
        ([IDLE, IDLE], 0),
        ([IDLE, FULL], 0),  # it may have become full in the reading's last second
        ([IDLE, FULL, FULL], 30),
        ([IDLE, FULL, FULL, FULL], 30),
        ([FULL, FULL, FULL], 0),  # nobody knows how long a round trip is when it is idle
        ([IDLE, (30.0, 25.0), (30.0, 25.0)], 0),  # fast, but not full
        ([(0.0, 1.0), (30.0, 15.0), (30.0, 15.0)], 0),  # a millisecond triples easily
        ([(0.0, 1.0), (30.0, 25.0), (30.0, 25.0)], 30),
        ([IDLE, FULL, (10.0, 90.0)], 0),  # the queue drained: the load ended within
        ([IDLE, FULL, FULL, (10.0, 90.0), IDLE], 30),
        ([IDLE, FULL, FULL, (10.0, 210.0)], 30),  # less for a moment
        ([IDLE, FULL, FULL, (50.0, 25.0)], 50),  # it gives more than was thought
        ([IDLE, (0.5, 200.0), (0.5, 200.0)], 0),  # too little to say anything
        ([IDLE, FULL, (30.0, -1.0), FULL], 0),
    ],
)
def test_learning(readings: list[Reading], mbps: int) -> None:
    assert after(*readings).measured_mbps == mbps


def test_a_lower_rate_replaces_an_old_higher_one() -> None:
    found = after(IDLE, FULL, FULL)
    low = (8.0, 200.0)
    assert after(IDLE, low, low, capacity=found, at_s=100.0).measured_mbps == 30
    assert after(IDLE, low, low, capacity=found, at_s=100.0 + KNOWN_S).measured_mbps == 8


def test_counters_that_begin_anew_and_gaps_say_nothing() -> None:
    found = after(IDLE, FULL)
    found.seen(0, 200.0, 15.0)
    assert found.measured_mbps == 0
    found = after(IDLE, FULL)
    found.seen(10**12, 200.0, 100.0)
    assert found.measured_mbps == 0


def test_readings_close_together_are_one() -> None:
    found = after(IDLE, FULL)
    base = 10**9 + round(30e6 / 8 * STEP_S)
    for tenth in range(1, 50):
        found.seen(base + round(30e6 / 8 * tenth / 10), 200.0, 10.0 + tenth / 10)
    assert found.measured_mbps == 30
