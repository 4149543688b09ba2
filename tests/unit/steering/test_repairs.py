"""Repairs are counted for ten minutes, and told once they are many."""

from __future__ import annotations

import time
from pathlib import Path

from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.steering import routing
from rpcd_wireguard_uplink.steering.routing import (
    MANY_REPAIRS,
    REPAIRS_KEPT_S,
    Routing,
    running_managers,
)
from rpcd_wireguard_uplink.warnings import Warnings
from tests.unit.fakes import RoutingTables


def test_many_repairs_are_told_with_who_it_may_be(mocker: MockerFixture) -> None:
    clock = mocker.patch.object(time, "monotonic", return_value=0.0)
    who = mocker.patch.object(routing, "running_managers", return_value=[])
    warnings = Warnings()
    watched = Routing(RoutingTables(), warnings)
    for at_s in range(MANY_REPAIRS):
        assert warnings == {}
        clock.return_value = float(at_s)
        watched.note_repair()
    assert "another program removes them" in warnings["repairs"]
    who.return_value = ["netifd", "systemd-networkd"]
    watched.note_repair()
    told = warnings["repairs"]
    assert "removed 4 times within 10 min" in told
    assert "netifd, systemd-networkd removes them" in told
    assert "ManageForeignRoutingPolicyRules=no" in told
    warnings.clear()
    clock.return_value = REPAIRS_KEPT_S + MANY_REPAIRS
    watched.note_repair()
    assert warnings == {}, "those before are forgotten"


def test_running_managers(tmp_path: Path) -> None:
    for number, name in (("1", "procd"), ("7", "netifd"), ("8", "systemd-network"), ("9", "")):
        (tmp_path / number).mkdir()
        (tmp_path / number / "comm").write_bytes(name.encode() + b"\n")
    (tmp_path / "10").mkdir()  # it ended meanwhile
    (tmp_path / "11").mkdir()
    (tmp_path / "11" / "comm").write_bytes(b"\xff\xfe")
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "comm").write_text("netifd")
    assert running_managers(str(tmp_path)) == ["netifd", "systemd-networkd"]
    assert isinstance(running_managers(), list)
