"""What size passes a path: the search step by step, with targets that have faults of their own."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rpcd_wireguard_uplink.model import LEAST_MTU
from rpcd_wireguard_uplink.probing.mtu_search import CONTROL, ROUNDS, TRIES, MtuSearch

Passes = Callable[[int, int], int]
"""The length that comes back of a probe of a size, by the number of the step; 0 for none."""


def search(passes: Passes, mtu: int = 1420, proven: frozenset[str] = frozenset()) -> MtuSearch:
    """A whole search; its `limit` and `fault` say what came of it."""
    found = MtuSearch()
    found.begin(mtu)
    now_s, number = 0.0, 0
    while sizes := found.step(1.0, now_s):
        for size in sizes:
            number += 1
            found.sent(number, size, f"target {found.turn % 2}")
            length = passes(size, found.turn)
            if length:
                found.answered(number, length)
        now_s = max(now_s, found.due_s)
        assert now_s <= TRIES + ROUNDS
    assert not found.is_running
    found.conclude(found.proven | proven)
    return found


def up_to(limit: int) -> Passes:
    return lambda size, _: size if size <= limit else 0


@pytest.mark.parametrize(
    ("passes", "limit"),
    [
        (1500, 0),
        (1420, 0),
        (1419, 1408),
        (1320, 1312),
        (1312, 1312),
        (1311, 1296),
        (1280, LEAST_MTU),
    ],
)
def test_the_largest_size_that_passes(passes: int, limit: int) -> None:
    found = search(up_to(passes))
    assert (found.limit, found.fault) == (limit, "")


def test_one_probe_is_all_where_it_passes() -> None:
    found = MtuSearch()
    found.begin(1420)
    assert found.step(1.0, 0.0) == (1420,)
    found.sent(1, 1420, "a")
    found.answered(1, 1420)
    assert found.due_s < 0, "at once"
    assert found.step(1.0, 0.0) == ()


NONE_PASS = "packets of 1280 bytes do not pass"


def drops_large(size: int, step: int) -> int:
    """One of two targets drops large probes."""
    return size if step % 2 or size < 1000 else 0


@pytest.mark.parametrize(
    ("passes", "proven", "fault", "is_open"),
    [
        pytest.param(lambda size, step: size if step > 2 else 0, "", "", False, id="lost probes"),
        pytest.param(drops_large, "", "", False, id="a target that drops large probes"),
        pytest.param(lambda size, _: min(size, 92), "", "", True, id="shortened answers"),
        pytest.param(lambda size, _: 0, "target 0", "", False, id="no answers now"),
        pytest.param(up_to(CONTROL), "", "", True, id="small ones of an unknown target"),
        pytest.param(up_to(CONTROL), "target 1", NONE_PASS, False, id="small ones alone"),
    ],
)
def test_what_is_no_limit(passes: Passes, proven: str, fault: str, is_open: bool) -> None:
    found = search(passes, proven=frozenset({proven} - {""}))
    assert (found.limit, found.fault, found.is_open) == (0, fault, is_open)


def test_a_fault_ends_when_something_passes() -> None:
    found = search(up_to(CONTROL), proven=frozenset({"target 0"}))
    found.begin(1420)
    found.step(1.0, 0.0)
    found.sent(99, 1420, "target 0")
    found.answered(99, 1420)
    assert found.step(1.0, 0.0) == ()
    assert found.conclude(found.proven)
    assert found.fault == ""


def test_what_nobody_sent_is_ignored() -> None:
    found = MtuSearch()
    found.begin(1420)
    found.answered(7, 1420)
    assert not found.proven
