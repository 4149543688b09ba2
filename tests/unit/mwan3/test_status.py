"""mwan3's own view: what it said when recorded, what it should never say, and what status shows."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from rpcd_wireguard_uplink.model import Family
from rpcd_wireguard_uplink.mwan3.status import Tracked, View, parse_status, read_view
from tests.unit.fakes import Machine

DATA = Path(__file__).parents[2] / "data"


def replies() -> list[dict[str, object]]:
    rows = json.loads((DATA / "mwan3-status.json").read_text())
    return [row for row in rows if row["method"] == "status" and row["args"] == {}]


@pytest.mark.parametrize("row", replies(), ids=lambda row: str(row["note"]))
def test_recorded_statuses(row: dict[str, object]) -> None:
    view = parse_status(row["reply"])
    note = str(row["note"])
    if note == "all online":
        assert set(view.interfaces.values()) == {Tracked("online", "active")}
        assert view.policies[Family.IPV6]["wg_uplinks"] == ("wan6",)
    if note == "wan and wan6 offline, traffic on wgup_nodea":
        assert view.interfaces["wan"].status == "offline"
        assert view.policies[Family.IPV4]["wg_uplinks"] == ("wgup_nodea",)
    if note == "mwan3 stopped":
        assert set(view.interfaces.values()) == {Tracked("unknown", "down")}
    assert len(view.interfaces) == 6


def test_statuses_that_are_not_what_they_should_be() -> None:
    interfaces: dict[str, object] = {
        "wan": {"age": math.nan, "status": ""},
        "b": 1,
        "wanb": {"enabled": False, "status": "unknown"},
        "wan6": {"age": math.nan, "status": "online", "tracking": "active"},
    }
    policies = {"ipv4": [], "ipv6": {"p": [{"interface": "wan6"}, 7], "q": []}}
    view = parse_status({"interfaces": interfaces, "policies": policies})
    assert view.interfaces == {
        "wan": Tracked("unknown", "unknown"),
        "wan6": Tracked("online", "active"),
    }
    assert view.policies == {Family.IPV4: {}, Family.IPV6: {"p": ("wan6",), "q": ()}}
    for broken in ([], None, {}, {"interfaces": []}):
        assert parse_status(broken).interfaces == {}


async def test_mwan3_is_asked_for_the_parts_that_are_shown(tmp_path: Path) -> None:
    machine = Machine(str(tmp_path))
    machine.mwan3 = {
        "interfaces": {"wan": {"age": math.nan, "status": "online", "tracking": "active"}},
        "policies": {"ipv4": {"balanced": [{"interface": "wan", "percent": 0}]}, "ipv6": {}},
    }
    assert await read_view(machine) == View(
        {"wan": Tracked("online", "active")}, {Family.IPV4: {"balanced": ("wan",)}, Family.IPV6: {}}
    )


async def test_silence_is_shown_as_such(tmp_path: Path) -> None:
    view = await read_view(Machine(str(tmp_path)))
    assert view.interfaces == {}
    assert view.told == "mwan3 does not answer"
