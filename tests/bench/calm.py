"""Needless switches: whole days of loss, bursts and queues, and a line that flaps.

Days pass in simulated time, with the product's judgement of a path and its decision about it; the
flapping line is simulated as often as runs are wanted, and tried once in a laboratory.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field

from rpcd_wireguard_uplink.config.options import Settings
from rpcd_wireguard_uplink.config.probe_profile import DEFAULT_PROFILE
from rpcd_wireguard_uplink.failover.machine import Path, State, decide
from rpcd_wireguard_uplink.model import Health
from tests.lab.lab import Lab
from tests.lab.network import consumer_network
from tests.lab.provider import make_provider
from tests.lab.router import Router, settings
from tests.unit.failover.day import Burst, Line, Watcher, random_bursts

from .table import Row

DAY_S = 86400.0
HOUR_S = 3600.0
MEAN_BURST_S = 0.3
IDLE_DELAY_S = 0.02
QUEUE_S = 2.0
SATURATED_S = 600.0  # of each hour
FLAP_S = 5.0
FLAPS = 10
MOVES = ("failover", "switch", "failback")
BACKUP = Path("wgup_nodea", Health.UP)


@dataclass
class Deciding(Watcher):
    """A line whose health also decides where traffic goes; the backup never fails."""

    settings: Settings = field(default_factory=Settings)
    decided: State = field(default_factory=State)
    left_s: list[float] = field(default_factory=list)
    back_s: list[float] = field(default_factory=list)

    def _hear(self) -> None:
        self.line.has_traffic = self.line.delay_s(self.now_s) > IDLE_DELAY_S  # what fills a queue
        super()._hear()

    def _note(self, before: Health) -> None:
        super()._note(before)
        line = Path("wan", self.health.state, cause=self.health.cause)
        self.decided, change = decide(self.decided, line, [BACKUP], self.settings, self.now_s)
        if change is not None:
            (self.back_s if change.kind == "failback" else self.left_s).append(self.now_s)


def simulate_days(days: int) -> list[Row]:
    """Switches in each of so many days, and how many of them no burst explains.

    The lengths of bursts are exponential and have no end: one that outlasts the silence which a
    verdict takes is a death for as long as it lasts, and comes in a day out of seven or so.
    """
    counts, needless = [], []
    for seed in range(days):
        chance = random.Random(seed)
        bursts = random_bursts(chance, DAY_S, HOUR_S, MEAN_BURST_S)
        line = Line(chance, loss=0.02, bursts=bursts, delay_s=_queue_s)
        day = Deciding(line, DEFAULT_PROFILE)
        day.run(DAY_S)
        long_ones = [b for b in bursts if b.length_s >= DEFAULT_PROFILE.silence_s]
        counts.append(float(len(day.left_s) + len(day.back_s)))
        explained = sum(any(b.begin_s < s < b.end_s + 0.3 for b in long_ones) for s in day.left_s)
        needless.append(float(len(day.left_s) - explained))
    name = "a day of 2 % loss, hourly bursts and 2 s of queue"
    silence = f"{DEFAULT_PROFILE.silence_s:g} s"
    return [
        Row(f"{name}: switches", "switches", tuple(counts), 0, "worst", "simulated"),
        Row(
            f"{name}: but for bursts >= {silence}",
            "switches",
            tuple(needless),
            0,
            "worst",
            "simulated",
        ),
    ]


def _queue_s(at_s: float) -> float:
    """The delay: each hour ends with a saturated line, whose queue fills and drains in a second."""
    into_s = at_s % HOUR_S - (HOUR_S - SATURATED_S)
    return IDLE_DELAY_S + QUEUE_S * max(0.0, min(1.0, into_s, SATURATED_S - 1 - into_s))


def simulate_flapping(runs: int) -> list[Row]:
    """Switches by a line that is up for 5 s and down for 5 s, ten times, at the defaults."""
    counts = []
    for seed in range(runs):
        chance = random.Random(seed)
        first_s = 20 + chance.uniform(0, 2 * FLAP_S)
        begins = [first_s + 2 * FLAP_S * number for number in range(FLAPS)]
        bursts = [Burst(begin_s, begin_s + FLAP_S) for begin_s in begins]
        watcher = Deciding(Line(chance, bursts=bursts), DEFAULT_PROFILE)
        watcher.run(first_s + 2 * FLAP_S * FLAPS + 120)
        counts.append(float(len(watcher.left_s) + len(watcher.back_s)))
    name = "a WAN up 5 s, down 5 s, ten times: switches"
    return [Row(name, "switches", tuple(counts), 3, "worst", "simulated")]


def measure_flapping() -> list[Row]:
    """The same once with packets, from home to home; the worse of both families."""
    with Lab() as lab:
        network = consumer_network(lab)
        provider = make_provider(lab, network.providers[0])
        main = settings(pace="default", hold_time=30, max_hold_time=1800)
        router = Router.build(network, [provider], main)
        router.start()
        for _ in range(FLAPS):
            network.wan.drop()
            time.sleep(FLAP_S)
            network.wan.restore()
            time.sleep(FLAP_S)
        router.wait_primary(90.0)
        told = [entry["family"] for entry in router.events(*MOVES)]
    worst = max(told.count(family) for family in ("ipv4", "ipv6"))
    name = "a WAN up 5 s, down 5 s, ten times: switches"
    return [Row(name, "switches", (float(worst),), 3, "worst", "with packets, until back home")]
