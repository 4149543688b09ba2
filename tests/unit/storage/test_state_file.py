"""The state file: written whole, read without trust."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from rpcd_wireguard_uplink.errors import CommandFailed
from rpcd_wireguard_uplink.model import HistoryEntry
from rpcd_wireguard_uplink.storage.state_file import (
    Remembered,
    StateFile,
    now_text,
    read_state,
    write_state,
)
from rpcd_wireguard_uplink.warnings import Warnings

ENTRY = HistoryEntry(
    at="2026-01-28T10:30:00.000Z", kind="failover", from_path="wan", to_path="wgup_a", cause="dead"
)
ROW = {"peer_id": "a", "received_s": 5.0}


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "run" / "state.json"
    content = {"history": [ENTRY.as_table()], "offer_book": [ROW], "more": 1}
    write_state(str(path), content)
    assert read_state(str(path)) == Remembered((ENTRY,), (ROW,))
    assert json.loads(path.read_text())["version"] == 1
    assert os.listdir(path.parent) == ["state.json"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "\0\udcff",
        '{"version": 2, "history": []}',
        '{"version": 1, "history": 5}',
        '{"version": 1, "history": [{"at": "x"}]}',
        '{"version": 1, "history": [{"at": "x", "kind": "y", "from": "", "to": "", "new": 1}]}',
        "[" * 100_000,
        '{"version": 1, "history": ' + "[" * 100_000,
        '{"version": 1, "history": [{"at": 5, "kind": "y", "from": "", "to": ""}]}',
        '{"version": 1, "history": [{"at": "x", "kind": "y", "duration_s": Infinity}]}',
        '{"version": 1, "offer_book": 5}',
        '{"version": 1, "sequences": {"a": Infinity}}',
    ],
)
def test_what_is_not_understood_is_nothing(tmp_path: Path, text: str) -> None:
    path = tmp_path / "state.json"
    assert read_state(str(path)) == Remembered()
    path.write_text(text, errors="surrogateescape")
    assert read_state(str(path)) == Remembered()


def test_rows_may_be_made_as_they_are_written(tmp_path: Path) -> None:
    path, rows = tmp_path / "state.json", [{"m": "\u00e9"}, {}]
    write_state(str(path), {"rows": iter(rows), "none": iter(())})
    assert json.loads(path.read_text()) == {"rows": rows, "none": [], "version": 1}


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_state(str(path), {"n": 1})
    with pytest.raises(TypeError):
        write_state(str(path), {"n": object()})
    assert json.loads(path.read_text())["n"] == 1
    assert os.listdir(tmp_path) == ["state.json"]


def test_a_folder_in_the_way_is_told(tmp_path: Path) -> None:
    (tmp_path / "state.json").mkdir()
    with pytest.raises(CommandFailed, match="directory"):
        write_state(str(tmp_path / "state.json"), {})
    assert os.listdir(tmp_path) == ["state.json"]


async def test_many_changes_are_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rpcd_wireguard_uplink.storage.state_file.OFFERS_S", 0.01)
    path, asked = tmp_path / "state.json", []
    file = StateFile(str(path), lambda: {"n": asked.append(1)}, Warnings())
    for _ in range(50):
        file.write_soon()
    assert not path.exists()
    while not asked:
        await asyncio.sleep(0.01)
    assert json.loads(path.read_text())["n"] is None and len(asked) == 1


def test_a_file_that_cannot_be_written_is_a_warning_until_it_can(tmp_path: Path) -> None:
    path, warnings = tmp_path / "state.json", Warnings()
    file = StateFile(str(path), dict, warnings)
    path.mkdir()
    file.write()
    assert warnings["state"] == f"can't write {path}: Is a directory"
    path.rmdir()
    file.write()
    assert not warnings and json.loads(path.read_text())["version"] == 1


def test_the_time_is_in_utc() -> None:
    text = now_text()
    assert text.endswith("Z")
    assert len(text) == len("2026-01-28T10:30:00.000Z")
