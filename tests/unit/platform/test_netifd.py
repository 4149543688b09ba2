"""What netifd says, as values; the tables are recorded ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rpcd_wireguard_uplink.platform.netifd import parse_dump, parse_interface

RECORDED: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "data" / "netifd.json").read_text()
)


def test_a_recorded_dump() -> None:
    dump = next(entry["reply"] for entry in RECORDED if entry["method"] == "dump")
    found = parse_dump(dump)
    assert set(found) == {row["interface"] for row in dump["interface"]}
    tunnel = found["wgup_nodea"]
    assert (tunnel.up, tunnel.device) == (True, "wgup_nodea")
    assert tunnel.addresses == {"10.7.0.2/32", "fd00:7::2/128"}
    assert found["wan"].device == "wan0"


def test_what_is_down_says_why() -> None:
    by_note = {entry.get("note"): entry["reply"] for entry in RECORDED if "reply" in entry}
    taken_down = parse_interface({"interface": "x", **by_note["wireguard interface, down"]})
    assert not taken_down.up and "`ifup x`" in taken_down.why_down()
    note = "after the interface that carried its endpoint went down"
    without = parse_interface({"interface": "x", **by_note[note]})
    assert not without.up and "NO_DEVICE" in without.why_down()


def test_every_recorded_notification_is_understood() -> None:
    seen = set()
    for entry in RECORDED:
        for one in entry.get("received", ()):
            if one["kind"] == "notification":
                interface = parse_interface(one["data"])
                assert interface.name and interface.up == (one["name"] == "interface.update")
                seen.add(one["name"])
    assert seen == {"interface.update", "interface.down"}


@pytest.mark.parametrize(
    "row", [{}, {"interface": 3, "errors": "no"}, {"ipv4-address": [1, {}], "up": "yes"}]
)
def test_what_is_not_netifd_s_is_not_believed(row: dict[str, Any]) -> None:
    interface = parse_interface(row)
    assert not interface.up and not interface.addresses
    assert parse_dump({"interface": [row, None]}).keys() <= {"3"}
