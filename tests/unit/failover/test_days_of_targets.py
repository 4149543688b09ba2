"""Lines in simulated time that drop pings, take their time, or have odd targets.

What must move traffic: an outage behind a modem that answers a target itself, most targets silent
at once. What must not: resolvers that are down by themselves, a line that drops nothing but pings,
a slow one. Days of loss and bursts are test_days.py's.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from rpcd_wireguard_uplink.config.probe_profile import DEFAULT_PROFILE, FAST_PROFILE, ProbeProfile
from rpcd_wireguard_uplink.model import Health
from rpcd_wireguard_uplink.probing.probe_kind import ProbeKind
from tests.unit.failover.day import PROFILES, TARGETS, Burst, Line, Watcher, random_bursts, seeds

HOUR_S = 3600.0
A, B, C = TARGETS


class Resolvers(Line):
    """Each target may have times in which it is down by itself."""

    downs: dict[str, list[Burst]]

    def answer(self, target: str, method: ProbeKind, sent_s: float) -> tuple[float, int] | None:
        found = super().answer(target, method, sent_s)
        is_down = any(down.holds(sent_s) for down in self.downs.get(target, ()))
        return None if is_down else found


def resolvers(chance: random.Random, downs: dict[str, list[Burst]], loss: float = 0.0) -> Resolvers:
    line = Resolvers(chance, loss=loss)
    line.downs = downs
    return line


@pytest.mark.parametrize("targets", [TARGETS, (A, B)], ids=["three", "two"])
@pytest.mark.parametrize(("used", "hours"), [(True, 1), (False, 6)], ids=["used", "idle"])
def test_a_day_of_resolvers_that_are_down_one_after_the_other(
    targets: tuple[str, ...], used: bool, hours: int
) -> None:
    """Each for a fifth of the day and once for minutes, on a line that loses 2 %."""
    chance = random.Random(1)
    part_s = hours * HOUR_S / 24
    downs = {
        target: [
            Burst((4 + 6 * place) * part_s, (4 + 6 * place + 5) * part_s),
            Burst((1 + place) * part_s, (1 + place) * part_s + 150),
        ]
        for place, target in enumerate(targets)
    }
    watcher = Watcher(resolvers(chance, downs, 0.02), DEFAULT_PROFILE, targets, used)
    watcher.run(hours * HOUR_S)
    assert watcher.verdicts == []
    assert not watcher.was_degraded


@PROFILES
def test_ten_minutes_with_one_resolver_down_and_bursts(profile: ProbeProfile) -> None:
    chance = random.Random(3)
    line = resolvers(chance, {B: [Burst(60.0, 500.0)]}, 0.02)
    line.bursts = random_bursts(chance, 600.0, 50.0, 0.05 if profile is FAST_PROFILE else 0.3)
    watcher = Watcher(line, profile)
    watcher.run(600.0)
    longest_s = max(burst.length_s for burst in line.bursts)
    assert longest_s < profile.silence_s, "no burst of this seed is a death"
    assert watcher.verdicts == []


@seeds(few=1, all_of_them=2)
@PROFILES
@pytest.mark.parametrize("targets", [TARGETS, (A, B)], ids=["three", "two"])
@pytest.mark.parametrize("since_s", [0.0, 100.0], ids=["always", "in the outage"])
def test_a_modem_that_answers_a_target_hides_no_outage(
    profile: ProbeProfile, targets: tuple[str, ...], since_s: float, seeds: range
) -> None:
    for seed in seeds:
        line = Line(random.Random(seed), near_from_s={A: since_s}, dead_from_s=100.0)
        watcher = Watcher(line, profile, targets)
        watcher.run(160.0)
        assert len(watcher.verdicts) == 1
        told_s, cause = watcher.verdicts[0]
        assert 0 < told_s - 100.0 < profile.silence_s + 1.5, (seed, told_s)
        assert f"{A} is answered by the next hop itself" in cause
        assert watcher.health.state is Health.DOWN, "its answers do not bring the line back"
        line.dead_from_s = line.near_from_s[A] = float("inf")
        watcher.run(175.0)
        assert watcher.health.state is Health.UP


@seeds(few=1, all_of_them=3)
def test_two_of_three_that_fall_silent_together_are_a_dead_line(seeds: range) -> None:
    """As where an ISP is cut off, and the third target is served from inside its network."""
    downs = {target: [Burst(60.0, 200.0)] for target in (B, C)}
    for seed in seeds:
        watcher = Watcher(resolvers(random.Random(seed), downs, 0.02), DEFAULT_PROFILE)
        watcher.run(150.0)
        assert len(watcher.verdicts) == 1
        told_s, cause = watcher.verdicts[0]
        assert told_s - 60.0 < DEFAULT_PROFILE.dispute_s + 2.0
        assert cause == f"2 of 3 targets do not answer: {B}, {C}"
        assert watcher.health.state is Health.DOWN
        watcher.run(220.0)
        assert watcher.health.state is not Health.DOWN


@pytest.mark.parametrize(("reliability", "falls"), [(0, False), (1, False), (2, True)])
def test_one_of_two_is_a_dead_line_only_where_the_owner_says_so(
    reliability: int, falls: bool
) -> None:
    line = resolvers(random.Random(5), {B: [Burst(60.0, 120.0)]})
    watcher = Watcher(line, DEFAULT_PROFILE, (A, B), reliability=reliability)
    watcher.run(115.0)
    assert bool(watcher.verdicts) is falls
    watcher.run(135.0)
    assert watcher.health.state is Health.UP


@seeds(few=1, all_of_them=2)
@PROFILES
@pytest.mark.parametrize("kind", [ProbeKind.DNS, ProbeKind.TCP_443])
@pytest.mark.parametrize("since_s", [0.0, 50.0], ids=["always", "in service"])
def test_a_line_that_drops_pings_only_is_alive(
    profile: ProbeProfile, kind: ProbeKind, since_s: float, seeds: range
) -> None:
    for seed in seeds:
        line = Line(
            random.Random(seed), loss=0.01, no_pings_from_s=since_s, kinds=frozenset({kind})
        )
        watcher = Watcher(line, profile)
        watcher.run(100.0)
        assert watcher.verdicts == [], seed
        assert watcher.method is kind
        assert watcher.health.state is Health.UP
        line.dead_from_s = 100.0
        watcher.run(110.0)
        assert watcher.verdicts[0][0] - 100.0 < profile.silence_s + (2.0 if kind.is_dear else 1.0)
        line.dead_from_s, line.no_pings_from_s = float("inf"), float("inf")
        watcher.run(300.0)
        assert watcher.method is ProbeKind.PING, "it comes back"
        assert watcher.health.state is not Health.DOWN


@dataclass
class Limited(Line):
    """The ISP loses one ping of `every`, or lets `a_second` and `at_once` of them through."""

    every: int = 0
    a_second: float = 0.0
    at_once: float = 1.0
    _pings: int = 0
    _tokens: tuple[float, float] = (0.0, 1.0)

    def answer(self, target: str, method: ProbeKind, sent_s: float) -> tuple[float, int] | None:
        found = super().answer(target, method, sent_s)
        if method is not ProbeKind.PING:
            return found
        self._pings += 1
        at_s, held = self._tokens
        held = min(self.at_once, held + (sent_s - at_s) * self.a_second)
        passes = held >= 1.0 if self.a_second else self._pings % self.every > 0
        self._tokens = sent_s, held - passes
        return found if passes else None


@seeds(few=1, all_of_them=20)
@pytest.mark.parametrize(
    "limit",
    [
        {"every": 2},
        {"every": 3},
        {"every": 4},
        {"a_second": 2.0},
        {"a_second": 1.0, "at_once": 5.0},
        {"a_second": 0.2},
    ],
    ids=["half", "a third", "a quarter", "2 a second", "1 a second, 5 at once", "1 in 5 s"],
)
def test_a_line_whose_isp_limits_pings_is_alive(limit: dict[str, float], seeds: range) -> None:
    """Look-ups, which are no slower, tell it from a line that loses as much of everything."""
    for seed in seeds:
        watcher = Watcher(Limited(random.Random(seed), loss=0.02, **limit), DEFAULT_PROFILE)
        watcher.run(HOUR_S / 2)
        assert watcher.verdicts == [], seed
        assert not watcher.was_degraded
        died_s = watcher.line.dead_from_s = watcher.now_s
        assert (watcher.run_to_verdict(died_s + 4.0) or died_s + 9.0) - died_s < 4.0


def test_a_dead_line_behind_a_resolver_of_the_modems_is_dead() -> None:
    """It answers every look-up, whoever is asked: from no distance at all."""
    near = dict.fromkeys(TARGETS, 60.0)

    class Hijack(Line):
        def answer(self, target: str, method: ProbeKind, sent_s: float) -> tuple[float, int] | None:
            if method is ProbeKind.DNS:
                return super().answer(target, method, sent_s)
            arrives_s = self.fate(target, sent_s)
            return None if arrives_s is None else (arrives_s, 8)

    watcher = Watcher(Hijack(random.Random(1), near_from_s=near, dead_from_s=60.0), DEFAULT_PROFILE)
    watcher.run(120.0)
    assert watcher.health.state is Health.DOWN
    assert watcher.verdicts[0][0] < 63.0


def grows(chance: random.Random, over_s: float) -> Callable[[float], float]:
    return lambda at_s: 0.02 + 0.68 * min(1.0, max(0.0, (at_s - 20.0) / over_s))


SLOW: dict[str, Callable[[random.Random], Callable[[float], float]]] = {
    "0.7 s": lambda _: lambda _: 0.7,
    "1.5 s": lambda _: lambda _: 1.5,
    "0.7 s after address resolution": lambda _: lambda at_s: max(0.7, 1.4 - at_s),
    "1.5 s after address resolution": lambda _: lambda at_s: max(1.5, 3.0 - at_s),
    "a queue of 2 s": lambda _: lambda _: 2.03,
    "a queue of 2 s after address resolution": lambda _: lambda at_s: max(2.03, 4.06 - at_s),
    "0.5 to 0.9 s": lambda chance: lambda _: 0.7 + chance.uniform(-0.2, 0.2),
    "1.2 to 1.8 s": lambda chance: lambda _: 1.5 + chance.uniform(-0.3, 0.3),
    "20 to 700 ms within 0.5 s": lambda chance: grows(chance, 0.5),
    "20 to 700 ms within 3 s": lambda chance: grows(chance, 3.0),
    "20 to 700 ms within 30 s": lambda chance: grows(chance, 30.0),
}


@seeds(few=1, all_of_them=2)
@PROFILES
@pytest.mark.parametrize("name", SLOW)
def test_a_line_that_takes_its_time_is_alive_from_the_start(
    profile: ProbeProfile, name: str, seeds: range
) -> None:
    for seed in seeds:
        chance = random.Random(seed)
        for loss in (0.0, 0.02):
            watcher = Watcher(Line(chance, loss=loss, delay_s=SLOW[name](chance)), profile)
            watcher.run(40.0)
            assert watcher.verdicts == [], (seed, loss)
            assert watcher.method is ProbeKind.PING


@PROFILES
def test_a_line_that_is_dead_at_the_start_is_told_in_time(profile: ProbeProfile) -> None:
    watcher = Watcher(Line(random.Random(1), dead_from_s=0.0), profile)
    watcher.run(20.0)
    assert [told_s for told_s, _ in watcher.verdicts] == [pytest.approx(profile.start_s, abs=0.3)]
