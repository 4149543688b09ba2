"""Repairs are counted for ten minutes, and told once they are many."""

from __future__ import annotations

from pathlib import Path

from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.steering import repairs as repairs_module
from rpcd_wireguard_uplink.steering.repairs import KEPT_S, MANY, Repairs, running_managers


def noted(*at_s: float) -> Repairs:
    repairs = Repairs()
    for each in at_s:
        repairs.note(each)
    return repairs


def test_seldom_is_not_told() -> None:
    assert noted(*range(MANY - 1)).sentence(10.0) == ""
    assert noted().sentence(0.0) == ""


def test_often_is_told_with_who_it_may_be(mocker: MockerFixture) -> None:
    who = mocker.patch.object(repairs_module, "running_managers", return_value=[])
    assert "another program removes them" in noted(1, 2, 3).sentence(4.0)
    who.return_value = ["netifd", "systemd-networkd"]
    told = noted(1, 2, 3, 4).sentence(5.0)
    assert "removed 4 times within 10 min" in told
    assert "netifd, systemd-networkd removes them" in told
    assert "ManageForeignRoutingPolicyRules=no" in told


def test_it_is_forgotten_in_time() -> None:
    repairs = noted(0.0, 1.0, 2.0)
    assert repairs.sentence(KEPT_S - 0.1)
    assert repairs.sentence(KEPT_S + 0.5) == ""
    repairs.note(KEPT_S + 1)
    assert repairs.sentence(KEPT_S + 1.5) == "", "one of the first three is forgotten"


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
