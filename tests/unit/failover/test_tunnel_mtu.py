"""When a tunnel's size is looked for, and what the switch is given then."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from rpcd_wireguard_uplink.api.status import StatusMethods
from rpcd_wireguard_uplink.failover.decision import candidates_of
from rpcd_wireguard_uplink.failover.selection import rank
from rpcd_wireguard_uplink.failover.tunnel_mtu import ACTIVE_S, IDLE_S, SOON_S
from rpcd_wireguard_uplink.model import LEAST_MTU, Family, Health, Link
from rpcd_wireguard_uplink.probing.icmp import Prober, Reply
from rpcd_wireguard_uplink.probing.probe_kind import ProbeKind
from rpcd_wireguard_uplink.warnings import Warnings
from tests.unit.choices import NOW_S, Choices, explain_methods, uplink_of
from tests.unit.fakes import store_of

TUNNEL, FULL = "wgup_nodea", 1420


class Answering(Prober):
    """Probes up to a size are answered at once, whole."""

    passes: int
    sizes: list[int]
    waiting: list[Reply]

    def send(self, target: str, size: int = 0) -> int | None:
        self._sequence += 1
        self.sizes.append(size)
        if size <= self.passes:
            self.waiting.append(Reply(self._sequence, 9, size))
        return self._sequence

    def drain(self) -> list[Reply]:
        found, self.waiting = self.waiting, []
        return found


class Watched:
    """A router whose one tunnel and whose line pass packets up to a size."""

    def __init__(self, tmp_path: Path, passes: int, by_line: int = 1500) -> None:
        self.choices = Choices.lay(tmp_path, [uplink_of("nodeA")])
        self.monitor, self.now_s = self.choices.monitor, NOW_S
        self.active: set[str] = {"wan"}
        self.changes = 0
        self.probers = {}
        for key, path in self.monitor.paths.items():
            prober = Answering(path.device, path.family)
            prober.passes = passes if path.device == TUNNEL else by_line
            prober.sizes, prober.waiting = [], []
            path.prober = self.probers[key] = prober
        self.tell_mtu(FULL)

    @property
    def sizes(self) -> list[int]:
        """The sizes that were tried through the tunnel."""
        return [size for f in Family for size in self.probers[TUNNEL, f].sizes]

    @property
    def fitted(self) -> int:
        """The tunnel's MTU as the switch is told."""
        return self.monitor.mtus.fit(self.choices.config.uplinks)[0].mtu

    def tell_mtu(self, mtu: int) -> None:
        self.choices.set_network(links={9: Link(TUNNEL, 9, 51, mtu=mtu)})

    def pass_packets_up_to(self, size: int) -> None:
        for family in Family:
            self.probers[TUNNEL, family].passes = size
            self.probers[TUNNEL, family].sizes.clear()

    def run(self, seconds: float) -> None:
        """Time passes, a second at once where nothing is due earlier."""
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            for _ in range(4):
                if self.monitor.mtus.look(self.active, self.now_s):
                    self.changes += 1
                    self.tell_mtu(self.fitted)
                for path in self.monitor.paths.values():
                    path.collect(self.now_s)
            self.now_s += 1.0


@pytest.fixture
def good(tmp_path: Path) -> Watched:
    return Watched(tmp_path, FULL)


def test_a_tunnel_that_came_up_is_tried_with_one_probe(good: Watched) -> None:
    good.run(IDLE_S - 10)
    assert good.sizes == [FULL]
    assert (good.fitted, good.changes) == (FULL, 0)


def test_then_once_an_hour_and_in_use_every_ten_minutes(good: Watched) -> None:
    good.run(4 * IDLE_S + 10)
    assert len(good.sizes) == 5
    good.active = {TUNNEL}
    good.run(1.0)
    assert len(good.sizes) == 6, "at once when it is chosen"
    good.run(3 * ACTIVE_S + 10)
    assert len(good.sizes) == 9


def test_the_mtu_follows_what_passes(tmp_path: Path) -> None:
    watched = Watched(tmp_path, 1320)
    watched.run(8.0)
    assert (watched.fitted, watched.changes) == (1312, 1)
    assert watched.sizes[:3] == [FULL] * 3
    watched.run(600.0)
    assert len(watched.sizes) == 3 + 2 * 11


def test_another_underlay_has_a_size_of_its_own(tmp_path: Path) -> None:
    watched = Watched(tmp_path, 1320)
    watched.run(8.0)
    watched.choices.set_network(underlays={TUNNEL: "wan2"})
    watched.tell_mtu(FULL)
    watched.pass_packets_up_to(1500)
    watched.run(2.0)
    assert watched.fitted == FULL
    assert watched.sizes == [FULL]


def test_a_limit_that_is_gone_is_found_out_while_nobody_uses_the_tunnel(tmp_path: Path) -> None:
    watched = Watched(tmp_path, 1320)
    watched.run(8.0)
    watched.pass_packets_up_to(1500)
    watched.active = {TUNNEL}
    watched.run(2 * IDLE_S)
    assert watched.fitted == 1312
    assert set(watched.sizes) == {1312}, "nothing is risked in use"
    watched.active = {"wan"}
    watched.run(IDLE_S + 10)
    assert watched.fitted == FULL
    watched.pass_packets_up_to(1320)
    watched.run(IDLE_S + 30)
    assert watched.fitted == 1312


def test_a_tunnel_that_passes_too_little_is_not_used(tmp_path: Path) -> None:
    watched = Watched(tmp_path, LEAST_MTU - 1)
    watched.run(30.0)
    (ranked,) = [
        each
        for each in rank(candidates_of(watched.monitor, Family.IPV6, NOW_S), prefer_latency=True)
        if each.candidate.name == TUNNEL
    ]
    assert ranked.reason == "packets of 1280 bytes do not pass"
    assert 1280 in watched.probers["wan", Family.IPV4].sizes, "the target was asked elsewhere"
    watched.pass_packets_up_to(1500)
    watched.run(2 * SOON_S)
    assert watched.monitor.mtus.fault(TUNNEL) == ""


def test_targets_that_answer_no_large_probe_at_all_are_no_fault(tmp_path: Path) -> None:
    watched = Watched(tmp_path, LEAST_MTU - 1, by_line=LEAST_MTU - 1)
    watched.run(300.0)
    assert watched.monitor.mtus.fault(TUNNEL) == ""
    assert watched.fitted == FULL
    assert len(watched.sizes) < 100


def test_a_tunnel_that_is_down_is_not_searched(good: Watched) -> None:
    for family in Family:
        good.monitor.paths[TUNNEL, family].health.state = Health.DOWN
    good.run(100.0)
    assert good.sizes == []


def test_a_loss_here_and_there_costs_no_search(good: Watched) -> None:
    good.run(10.0)
    for _ in range(50):
        for state in (Health.SUSPECT, Health.UP):
            for family in Family:
                good.monitor.paths[TUNNEL, family].health.state = state
            good.run(2.0)
    assert good.sizes == [FULL]


def test_a_search_that_is_interrupted_begins_anew(tmp_path: Path) -> None:
    watched = Watched(tmp_path, 1320)
    watched.run(2.0)
    for state in (Health.SUSPECT, Health.UP):
        for family in Family:
            watched.monitor.paths[TUNNEL, family].health.state = state
        watched.run(1.0)
        assert watched.monitor.mtus.due_s > watched.now_s - 2.0, "else the loop would spin"
    watched.run(8.0)
    assert watched.fitted == 1312


def test_what_a_path_is_watched_by_is_told(good: Watched) -> None:
    choices = good.choices
    for family in Family:
        choices.monitor.paths["wan", family].kinds.present = ProbeKind.DNS
    target = choices.monitor.paths[TUNNEL, Family.IPV4].health.targets.known["192.0.2.1"]
    target.doubt = "by the next hop itself"
    store = store_of(choices.config)
    unused = cast(Any, None)
    status = StatusMethods(
        choices.monitor.platform, store, choices.monitor, *[unused] * 6, Warnings()
    )
    problems = list(status.problems())
    assert problems == [
        "wan answers DNS but not every ping: it is watched by DNS",
        "nodeA: 192.0.2.1 is answered by the next hop itself, which proves nothing beyond it",
    ]
    explained = explain_methods(choices).uplink_explain()
    assert explained.families[0].note == "It answers DNS, not every ping."
