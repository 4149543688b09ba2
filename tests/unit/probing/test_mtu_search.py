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


def test_lost_probes_are_no_limit() -> None:
    lost = {1, 2}
    assert search(lambda size, step: 0 if step in lost else size).limit == 0


def test_a_target_that_drops_large_probes_is_no_limit() -> None:
    assert search(lambda size, step: size if step % 2 or size < 1000 else 0).limit == 0


def test_targets_that_shorten_their_answers_say_nothing() -> None:
    found = search(lambda size, _: min(size, 92))
    assert (found.limit, found.fault, found.is_open) == (0, "", True)


def test_a_path_that_answers_nothing_now_says_nothing() -> None:
    found = search(lambda size, _: 0, proven=frozenset({"target 0"}))
    assert (found.limit, found.fault, found.is_open) == (0, "", False)


def test_too_little_is_a_fault_only_where_a_target_would_have_answered() -> None:
    found = search(up_to(CONTROL))
    assert (found.fault, found.is_open) == ("", True)
    found = search(up_to(CONTROL), proven=frozenset({"target 1"}))
    assert found.fault == "packets of 1280 bytes do not pass"


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
