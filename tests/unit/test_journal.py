"""How a change is told: the history, the bus, the state file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rpcd_wireguard_uplink.history import Journal


def journal_of(path: Path, events: list[Any], content: dict[str, Any] | None = None) -> Journal:
    def tell(name: str, table: dict[str, Any]) -> None:
        events.append((name, table))

    return Journal(str(path), tell, lambda: None, lambda: content or {})


async def test_what_belongs_into_the_history_is_written_at_once(tmp_path: Path) -> None:
    events: list[Any] = []
    journal = journal_of(tmp_path / "state.json", events, {"more": 1})
    journal.peer("lease", "lease_granted", "nodea", "asked for")
    found = json.loads((tmp_path / "state.json").read_text())
    assert (found["more"], found["history"][0]["kind"]) == (1, "lease_granted")
    assert [name for name, _ in events] == ["wireguard-uplink.lease"]


async def test_an_offer_is_told_at_once_and_no_history(tmp_path: Path) -> None:
    events: list[Any] = []
    journal = journal_of(tmp_path / "state.json", events)
    journal.offer("offer", "nodea", "mesh")
    assert events[0][1]["peer_id"] == "nodea"
    assert journal.history.newest(9) == []
    assert not (tmp_path / "state.json").exists()
    journal.write()
    assert json.loads((tmp_path / "state.json").read_text())["history"] == []


async def test_a_file_that_cannot_be_written_is_told_until_it_can(tmp_path: Path) -> None:
    (tmp_path / "state.json").mkdir()
    journal = journal_of(tmp_path / "state.json", [])
    journal.changed()
    assert "can't write" in journal.problems["state"]
    (tmp_path / "state.json").rmdir()
    journal.changed()
    assert journal.problems == {}
