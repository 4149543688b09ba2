"""How long an outage was, as the history and everybody who is told of it have it."""

from __future__ import annotations

from pathlib import Path

import pytest

from rpcd_wireguard_uplink.failover.machine import Change
from rpcd_wireguard_uplink.history import Journal
from rpcd_wireguard_uplink.model import Family, HistoryEntry

NONE = -1
Move = tuple[str, float, int, int]
"""Kind, seconds since the change before, detection and switch in ms."""


@pytest.fixture
def heard() -> list[tuple[str, HistoryEntry]]:
    return []


@pytest.fixture
def journal(tmp_path: Path, heard: list[tuple[str, HistoryEntry]]) -> Journal:
    made = Journal(str(tmp_path / "state.json"), lambda *told: None, lambda: None, dict)
    made.on_entry = lambda name, entry: heard.append((name, entry))
    return made


def move(journal: Journal, family: Family, told: Move) -> None:
    kind, lasted_s, detection_ms, switch_ms = told
    change = Change(kind, "wan", "wgup_a", "a cause", lasted_s)
    journal.moved(change, family, detection_ms, switch_ms, {"wgup_a": "nodea"})


@pytest.mark.parametrize(
    ("moves", "outages"),
    [
        ([("failover", 3600.0, 300, 20)], [320]),
        ([("failover", 3600.0, NONE, 20)], [NONE]),  # carrier loss tells no detection time
        ([("failover", 3600.0, 0, 20)], [20]),
        ([("failover", 9.0, 300, 20), ("failback", 60.0, NONE, 5)], [320, NONE]),
        ([("failover", 9.0, 300, 20), ("switch", 60.0, 400, 30)], [320, 430]),
        ([("stranded", 9.0, 300, NONE), ("recovered", 2.5, NONE, NONE)], [NONE, 2800]),
        ([("stranded", 9.0, 300, NONE), ("failover", 2.5, 300, 20)], [NONE, 2820]),
        ([("stranded", 9.0, NONE, NONE), ("failback", 2.5, NONE, 20)], [NONE, 2520]),
        (
            [("stranded", 9.0, 300, NONE), ("stranded", 1.0, 100, NONE), ("switch", 2.0, NONE, 10)],
            [NONE, NONE, 3310],
        ),
        (
            [
                ("stranded", 9.0, 300, NONE),
                ("recovered", 1.0, NONE, NONE),
                ("failover", 60.0, NONE, 20),
            ],
            [NONE, 1300, NONE],
        ),
    ],
)
def test_outages(
    journal: Journal,
    heard: list[tuple[str, HistoryEntry]],
    moves: list[Move],
    outages: list[int],
) -> None:
    for told in moves:
        move(journal, Family.IPV4, told)
    assert [entry.outage_ms for _, entry in heard] == outages
    assert [entry for _, entry in heard] == journal.history.oldest_first()


def test_families_have_outages_of_their_own(
    journal: Journal, heard: list[tuple[str, HistoryEntry]]
) -> None:
    move(journal, Family.IPV4, ("stranded", 9.0, 300, NONE))
    move(journal, Family.IPV6, ("failover", 9.0, 200, 20))
    move(journal, Family.IPV4, ("recovered", 1.0, NONE, NONE))
    assert [entry.outage_ms for _, entry in heard] == [NONE, 220, 1300]


def test_what_an_earlier_run_left_stranded_is_no_outage_of_this_one(
    journal: Journal, heard: list[tuple[str, HistoryEntry]]
) -> None:
    journal.history.restore([HistoryEntry("t", "stranded", "ipv4", "wan", "wan")])
    move(journal, Family.IPV4, ("failover", 86400.0, 300, 20))
    assert heard[-1][1].outage_ms == 320


async def test_peers_offers_are_told_on_the_bus_only(
    journal: Journal, heard: list[tuple[str, HistoryEntry]]
) -> None:
    journal.offer("offer", "nodea", "mesh")
    journal.peer("lease", "lease_granted", "nodea", "asked for")
    assert [name for name, _ in heard] == ["lease"]
