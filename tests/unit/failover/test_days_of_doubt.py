"""Hours of first doubts in simulated time: how soon a death raises one, how often nothing does.

A doubt moves no connection that there is (tests/namespace/test_first_doubt.py shows that), so what
is counted here are new connections that leave by a peer although the WAN is alive.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from rpcd_wireguard_uplink.config.probe_profile import DEFAULT_PROFILE
from rpcd_wireguard_uplink.failover.detector import PathHealth
from rpcd_wireguard_uplink.model import Health
from rpcd_wireguard_uplink.probing.doubt import REST_S, Stage
from tests.unit.failover.day import Line, Watcher, random_bursts, seeds

HOUR_S = 3600.0


@dataclass
class Doubting(Watcher):
    """A line that is doubted as the monitor does it. `doubts` are (begin, end) of each."""

    doubts: list[tuple[float, float]] = field(default_factory=list)
    _since_s: float | None = None

    def _tick_s(self) -> float:
        return max(min(super()._tick_s(), self._path.doubt_due_s), self.now_s + 0.001)

    def _tick(self) -> None:
        super()._tick()
        doubt, is_alive = self._path.doubt, self.health.state in (Health.UP, Health.SUSPECT)
        if not is_alive or self.health.last_answer_s is None:
            doubt.end()
        elif self.now_s >= self._path.doubt_due_s:
            if doubt.stage is Stage.CALM:
                doubt.begin(self.now_s)
            elif self.line.has_traffic and self.line.delivers(self.now_s):
                doubt.heard(self.now_s, rest_s=REST_S)
            self._path.ask_in_doubt(self.now_s)

    def _hear(self) -> None:
        super()._hear()
        if self.line.has_traffic and self.line.delivers(self.now_s):
            self._path.doubt.heard(self.now_s, rest_s=REST_S)

    def _note(self, before: Health) -> None:
        super()._note(before)
        is_doubted = self._path.doubt.stage is Stage.DOUBTED
        if is_doubted and self._since_s is None:
            self._since_s = self.now_s
        elif not is_doubted and self._since_s is not None:
            self.doubts.append((self._since_s, self.now_s))
            self._since_s = None


def watched(seed: int, until_s: float, **of_line: object) -> Doubting:
    watcher = Doubting(Line(random.Random(seed), **of_line), DEFAULT_PROFILE)  # type: ignore[arg-type]
    watcher.run(until_s)
    return watcher


@seeds(few=10, all_of_them=40)
@pytest.mark.parametrize("delay_s", [0.005, 0.02, 0.12])
def test_a_death_is_doubted_long_before_its_verdict(delay_s: float, seeds: range) -> None:
    waits = []
    for seed in seeds:
        watcher = watched(seed, 15 + seed * 0.0937, delay_s=lambda _: delay_s)
        died_s = watcher.line.dead_from_s = watcher.now_s
        assert watcher.run_to_verdict(died_s + 5) is not None
        assert len(watcher.doubts) == 1
        begun_s, ended_s = watcher.doubts[0]
        assert ended_s == watcher.verdicts[0][0], "the verdict takes over"
        waits.append(begun_s - died_s)
    assert sorted(waits)[int(0.93 * len(waits))] <= 0.45 + 3 * max(0.0, delay_s - 0.02)


@pytest.mark.parametrize("has_traffic", [False, True])
@pytest.mark.parametrize("hours", [0.5, pytest.param(1, marks=pytest.mark.deep)])
def test_hours_of_loss_and_bursts(has_traffic: bool, hours: float) -> None:
    """2 % of loss and a burst of 300 ms a minute: what doubts there are, bursts explain."""
    bursts = random_bursts(random.Random(3), hours * HOUR_S, 60.0)
    watcher = watched(3, hours * HOUR_S, loss=0.02, bursts=bursts, has_traffic=has_traffic)
    explained = [d for d in watcher.doubts if any(b.begin_s < d[0] < b.end_s + 0.2 for b in bursts)]
    assert watcher.verdicts == []
    assert len(watcher.doubts) - len(explained) <= 1
    assert 10 * hours <= len(explained) <= len(bursts), "a burst of half a second is one"
    assert sum(end - begin for begin, end in watcher.doubts) < 0.01 * hours * HOUR_S


def test_a_calm_line_is_never_doubted_and_asked_no_more_than_before() -> None:
    watcher = watched(1, HOUR_S / 6)
    plain = Watcher(Line(random.Random(1)), DEFAULT_PROFILE)
    plain.run(HOUR_S / 6)
    assert watcher.doubts == [] and watcher.probes_sent == plain.probes_sent


def test_losses_are_judged_as_without_bursts() -> None:
    """The burst's probes count for nothing: the same losses bring the same verdict."""
    healths: list[PathHealth] = []
    for kind in (Watcher, Doubting):
        line = Line(random.Random(7), dead_from_s=60.3)
        watcher = kind(line, DEFAULT_PROFILE)
        watcher.run(70)
        healths.append(watcher.health)
        assert len(watcher.verdicts) == 1
    assert abs(healths[0].detection_s - healths[1].detection_s) < 0.02


def test_a_saturated_line_is_not_doubted() -> None:
    """The queue grows to two seconds within three, and all that comes says that the line lives."""

    def queue(sent_s: float) -> float:
        return 0.02 + min(2.0, max(0.0, sent_s - 100.0) * 0.66) * (sent_s < 400.0)

    watcher = watched(5, 430.0, delay_s=queue, has_traffic=True)
    assert watcher.doubts == [] and watcher.verdicts == []
