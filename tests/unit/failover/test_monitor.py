"""The monitor's clock goes on whatever happens in a tick; the rest is tested in namespaces."""

from __future__ import annotations

import pytest
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.config.probe_profile import FAST_PROFILE
from rpcd_wireguard_uplink.failover.detector import PathHealth
from rpcd_wireguard_uplink.failover.machine import Phase, State
from rpcd_wireguard_uplink.failover.monitor import TAKEN_OVER
from rpcd_wireguard_uplink.failover.paths import WatchedPath
from rpcd_wireguard_uplink.model import DefaultRoute, Family, Health, PathKind
from rpcd_wireguard_uplink.probing.icmp import Prober, Reply
from tests.unit.fakes import Machine, monitor_of


async def test_a_tick_that_fails_is_told_and_followed_by_another(
    mocker: MockerFixture, tmp_path: object, caplog: pytest.LogCaptureFixture
) -> None:
    watching = monitor_of(Machine(str(tmp_path)))
    mocker.patch.object(watching, "_evaluate", side_effect=RuntimeError("a secret"))
    watching._tick()
    assert "probing failed unexpectedly (RuntimeError at" in watching.warnings["probing"]
    assert "a secret" not in caplog.text + str(watching.warnings)
    assert watching._tick_handle is not None and not watching._tick_handle.cancelled()
    watching._tick_handle.cancel()


async def test_what_an_earlier_run_left_open_stays_until_its_path_is_looked_at(
    tmp_path: object,
) -> None:
    """A kernel event that comes while the first reading goes on must not give the traffic back."""
    watching = monitor_of(Machine(str(tmp_path)))
    before = State(Phase.FAILED_OVER, "wgup_free", 1.0, TAKEN_OVER, 1.0)
    watching.states[Family.IPV4] = before
    watching.network.remember(DefaultRoute(Family.IPV4, "wan"))
    watching._evaluate(5.0)
    assert watching.states[Family.IPV4] == before
    await watching.reread()
    assert watching._is_watching
    if watching._tick_handle is not None:
        watching._tick_handle.cancel()


class HeldUp:
    """A monitor of one path, by a clock of its own. Probes in the past are lost after 0.06 s."""

    def __init__(self, mocker: MockerFixture, machine: Machine) -> None:
        self.clock = mocker.patch("rpcd_wireguard_uplink.failover.monitor.time")
        self.clock.monotonic.return_value = 100.0
        self.watching = monitor_of(machine)
        self.watching._is_watching = True
        self.health = PathHealth(FAST_PROFILE, ("a", "b", "c"))
        self.prober = mocker.create_autospec(Prober, instance=True)
        self.prober.drain.return_value = []
        path = WatchedPath("wan", PathKind.WAN, Family.IPV4, self.health, self.prober, 0.0)
        path.descriptor = 99
        self.watching.paths[path.key] = path

    def probed(self, fates: str) -> None:
        """One probe in 20 ms for each fate: + is answered at once, . never; a tick is planned."""
        for number, fate in enumerate(fates):
            self.pass_s(0.02)
            self.health.sent(number, "abc"[number % 3], self.clock.monotonic())
            if fate == "+":
                self.health.answered(number, self.clock.monotonic() + 0.001)
            self.health.expire(self.clock.monotonic())
        self.watching._plan_tick(self.clock.monotonic())

    def pass_s(self, seconds: float) -> None:
        self.clock.monotonic.return_value += seconds

    def end(self) -> None:
        if self.watching._tick_handle is not None:
            self.watching._tick_handle.cancel()


@pytest.mark.parametrize("first", ["tick", "kernel event"])
async def test_time_in_which_this_process_was_held_up_is_no_silence(
    first: str, mocker: MockerFixture, tmp_path: object
) -> None:
    """A path lost some probes in a moment. Whoever comes first when the process runs again."""
    held = HeldUp(mocker, Machine(str(tmp_path)))
    held.probed("+" * 12 + "." * 8)
    assert held.health.state is Health.SUSPECT
    held.pass_s(5)
    if first == "kernel event":
        held.watching._evaluate(held.clock.monotonic())  # which has the next tick planned
        held.pass_s(0.002)
    held.watching._tick()
    assert held.health.state is Health.SUSPECT
    held.end()


async def test_an_answer_that_waited_for_this_process_says_nothing_of_the_round_trip(
    mocker: MockerFixture, tmp_path: object
) -> None:
    held = HeldUp(mocker, Machine(str(tmp_path)))
    held.probed("+" * 12 + ".")
    before = held.health.latency_ms, held.health.timeout_s
    held.pass_s(1)
    held.prober.drain.return_value = [Reply(12)]
    held.watching._tick()
    assert (held.health.latency_ms, held.health.timeout_s) == before
    assert held.health.loss_pct == 0
    held.end()
