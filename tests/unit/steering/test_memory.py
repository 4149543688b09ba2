"""What steering knows again after a restart, and what it makes of a damaged file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rpcd_wireguard_uplink.model import DefaultRoute
from rpcd_wireguard_uplink.steering.memory import Memory
from rpcd_wireguard_uplink.steering.plan import Diversion
from tests.unit.steering.scenes import V4, V6

AWAY = {
    V4: Diversion(V4, ("wan", "wan2"), DefaultRoute(V4, "wgup_a")),
    V6: Diversion(V6, ("wan",), DefaultRoute(V6, "wan2", "fe80::1")),
}


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "run" / "steering.json")


def test_it_is_known_again(path: str) -> None:
    memory = Memory(path)
    assert memory.load() == {}
    assert memory.number(["wgup_a", "wan"], 2, 63) == {"wgup_a": 2, "wan": 3}
    memory.save(AWAY)
    again = Memory(path)
    assert again.load() == AWAY
    assert again.slots == {"wgup_a": 2, "wan": 3}
    assert again.number(["wan", "wgup_b"], 2, 63) == {"wan": 3, "wgup_b": 4}


def test_a_number_stays_for_as_long_as_there_is_room(path: str) -> None:
    memory = Memory(path)
    memory.number(["a", "b", "c"], 2, 4)
    assert memory.number(["c"], 2, 4) == {"c": 4}
    assert memory.number(["a", "b", "c"], 2, 4) == {"a": 2, "b": 3, "c": 4}
    assert memory.number(["c", "d"], 2, 4) == {"c": 4, "d": 2}, "the oldest that is gone gives its"
    assert memory.number(["b", "c", "d", "e"], 2, 4) == {"b": 3, "c": 4, "d": 2}, "no room"
    assert memory.number(["x", "x", "c"], 2, 4)["x"] in (2, 3)


def test_it_is_written_when_something_changed(path: str) -> None:
    memory = Memory(path)
    memory.number(["a"], 2, 4)
    Path(path).unlink()
    memory.number(["a"], 2, 4)
    memory.save({})
    assert not Path(path).exists()
    memory.save(AWAY)
    assert Memory(path).load() == AWAY
    memory.save({})
    assert Memory(path).load() == {}


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    memory = Memory(str(tmp_path / "run" / "steering.json"))
    assert memory.number(["a"], 2, 4) == {"a": 2}
    memory.save(AWAY)
    assert memory.load() == {}


def numbered(path: str, **slots: int) -> dict[str, int]:
    """The numbers that paths have after a restart, where the file says these."""
    Path(path).parent.mkdir()
    Path(path).write_text(json.dumps({"slots": slots, "diversions": {}}))
    memory = Memory(path)
    memory.load()
    return memory.number(slots, 2, 63)


GOOD = {"slots": {"wan": 2}, "diversions": {}}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "oops",
        "[]",
        "{}",
        "null",
        "[" * 60_000,
        json.dumps({**GOOD, "slots": 5}),
        json.dumps({**GOOD, "slots": {"wan": "x"}}),
        json.dumps({**GOOD, "slots": {"wan": []}}),
        json.dumps({**GOOD, "diversions": {"ipv5": {}}}),
        json.dumps({**GOOD, "diversions": {"ipv4": {}}}),
        json.dumps({**GOOD, "diversions": {"ipv4": {"dead": 5, "device": "", "gateway": ""}}}),
        json.dumps({**GOOD, "diversions": {"ipv4": []}}),
        json.dumps(GOOD)[:-3],
        '{"slots": {"wan": Infinity}, "diversions": {}}',
        '{"slots": {"wan": NaN}, "diversions": {}}',
        '{"slots": {"wan": %s}, "diversions": {}}' % ("9" * 5000),
    ],
)
def test_a_damaged_file_is_as_good_as_none(path: str, text: str) -> None:
    Path(path).parent.mkdir()
    Path(path).write_text(text)
    memory = Memory(path)
    assert memory.load() == {}
    assert memory.number(["wan"], 2, 63) in ({"wan": 2}, {"wan": 3})


@pytest.mark.parametrize("slot", [-1, 0, 1, 64, 255, 2**40])
def test_a_number_out_of_bounds_is_not_believed(path: str, slot: int) -> None:
    """It would mark connections with other programs' bits."""
    assert 2 <= numbered(path, wan=slot)["wan"] <= 63


def test_two_paths_never_have_one_number(path: str) -> None:
    assert len({*numbered(path, wan=5, wgup_a=5).values()}) == 2
