"""The monitor's clock goes on whatever happens in a tick; the rest is tested in namespaces."""

from __future__ import annotations

import pytest
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.failover.machine import Phase, State
from rpcd_wireguard_uplink.failover.monitor import TAKEN_OVER
from rpcd_wireguard_uplink.model import DefaultRoute, Family
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
