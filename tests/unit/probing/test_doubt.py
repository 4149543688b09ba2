"""The first doubt of a WAN: when a burst begins, what it takes, and what ends it."""

from __future__ import annotations

import math

import pytest

from rpcd_wireguard_uplink.probing.doubt import BURST, REST_S, Doubt, Stage

GAP_S, PATIENCE_S = 0.04, 0.05


def asking(until: int = BURST) -> tuple[Doubt, float]:
    """A doubt with so many probes of its burst under way, and the time."""
    doubt, now_s = Doubt(), 10.0
    doubt.begin(now_s)
    for sequence in range(until):
        now_s = doubt.due_s
        assert doubt.wants_probe(now_s) and not doubt.wants_probe(now_s - 0.001)
        doubt.sent(sequence, "1.1.1.1", GAP_S, PATIENCE_S, now_s)
        doubt.judge(now_s)
    return doubt, now_s


def test_a_burst_that_is_lost_is_a_doubt() -> None:
    doubt, now_s = asking()
    assert doubt.stage is Stage.ASKING and not doubt.wants_probe(now_s + 1)
    doubt.judge(now_s + PATIENCE_S - 0.001)
    assert doubt.stage is Stage.ASKING
    doubt.judge(now_s + PATIENCE_S)
    assert doubt.stage is Stage.DOUBTED and doubt.next_s(0.0) == math.inf


@pytest.mark.parametrize("probes", range(BURST + 1))
def test_whatever_arrives_ends_it(probes: int) -> None:
    doubt, now_s = asking(probes)
    assert doubt.heard(now_s) is False, "there was none yet"
    assert doubt.stage is Stage.CALM and doubt.asked(0) is None
    assert doubt.next_s(now_s + 0.3) == now_s + 0.3 and doubt.next_s(math.inf) == math.inf


def test_traffic_that_ends_one_gives_it_a_rest() -> None:
    doubt, now_s = asking()
    doubt.judge(now_s + PATIENCE_S)
    assert doubt.heard(now_s + 1, rest_s=REST_S)
    assert doubt.next_s(now_s) == now_s + 1 + REST_S
    doubt.heard(now_s + 9, rest_s=REST_S)
    assert doubt.next_s(now_s) == now_s + 1 + REST_S, "a calm one is not put off"


def test_backups_are_asked_once_when_a_second_probe_is_under_way() -> None:
    asked = [asking(probes)[0].asks_backups(20.0) for probes in range(BURST + 1)]
    assert asked == [False, False, True, True]
    doubt, _ = asking()
    assert doubt.asks_backups(20.0) and not doubt.asks_backups(21.0)
    assert doubt.backups_asked_s == 20.0
    doubt.end()
    assert doubt.backups_asked_s == math.inf


def test_time_in_which_this_process_was_held_up_is_no_silence() -> None:
    doubt, now_s = asking()
    doubt.excuse(5.0)
    doubt.judge(now_s + PATIENCE_S)
    assert doubt.stage is Stage.ASKING and doubt.next_s(0.0) == now_s + PATIENCE_S + 5.0
    assert doubt.asked(BURST - 1) == ("1.1.1.1", now_s + 5.0)
