"""mwan3's own view: what it said when recorded, what it should never say, and what status shows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.errors import CommandFailed, TimedOut
from rpcd_wireguard_uplink.model import Family
from rpcd_wireguard_uplink.mwan3.status import Tracked, View, parse_status, read_view
from tests.unit.fakes import replace_commands

DATA = Path(__file__).parents[2] / "data"
ASK = "ubus -S -t 5 call mwan3 status"


def replies() -> list[dict[str, object]]:
    rows = json.loads((DATA / "mwan3-status.json").read_text())
    return [row for row in rows if row["method"] == "status" and row["args"] == {}]


@pytest.mark.parametrize("row", replies(), ids=lambda row: str(row["note"]))
def test_recorded_statuses(row: dict[str, object]) -> None:
    view = parse_status(json.dumps(row["reply"]))
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
    text = """{"interfaces": {
        "wan": {"age": nan, "status": ""}, "b": 1, "wanb": {"enabled": false, "status": "unknown"},
        "wan6": {"age": -nan, "status": "online", "tracking": "active", "note": "nan"}
    }, "policies": {"ipv4": [], "ipv6": {"p": [{"interface": "wan6"}, 7], "q": []}}}"""
    view = parse_status(text)
    assert view.interfaces == {
        "wan": Tracked("unknown", "unknown"),
        "wan6": Tracked("online", "active"),
    }
    assert view.policies == {Family.IPV4: {}, Family.IPV6: {"p": ("wan6",), "q": ()}}
    for broken in ("", "[]", "null", "{", '{"interfaces": []}'):
        assert parse_status(broken).interfaces == {}


async def test_mwan3_is_asked_for_the_parts_that_are_shown(mocker: MockerFixture) -> None:
    commands = replace_commands(mocker)
    commands.answers[ASK + ' {"section":"interfaces"}'] = (
        '{"interfaces":{"wan":{"age":nan,"status":"online","tracking":"active"}}}'
    )
    commands.answers[ASK + ' {"section":"policies"}'] = (
        '{"policies":{"ipv4":{"balanced":[{"interface":"wan","percent":0}]},"ipv6":{}}}'
    )
    assert await read_view() == View(
        {"wan": Tracked("online", "active")},
        {Family.IPV4: {"balanced": ("wan",)}, Family.IPV6: {}},
    )


@pytest.mark.parametrize("error", [CommandFailed("exit status 4"), TimedOut("ubus")])
async def test_silence_is_shown_as_such(mocker: MockerFixture, error: Exception) -> None:
    replace_commands(mocker).answers["ubus"] = error
    view = await read_view()
    assert view.interfaces == {}
    assert view.told == "mwan3 does not answer"
