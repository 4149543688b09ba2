"""The event history: entries in order, each published, and how long an outage was."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.config.settings import Config
from rpcd_wireguard_uplink.events import (
    CarryingChanged,
    DoubtEnded,
    Events,
    PeerNews,
    Recorded,
    UplinkChanged,
)
from rpcd_wireguard_uplink.failover.machine import Change, Move, Moved
from rpcd_wireguard_uplink.history.changes import MOST_ENTRIES, History
from rpcd_wireguard_uplink.model import Family, HistoryEntry
from rpcd_wireguard_uplink.tasks import TaskSet
from rpcd_wireguard_uplink.warnings import Warnings
from tests.unit.choices import uplink_of
from tests.unit.fakes import store_of

NONE = -1
Step = tuple[str, float, int, int]
"""Kind, seconds since the change before, detection and switch in ms."""
STRANDED: Step = ("stranded", 9.0, 300, NONE)
Heard = list[tuple[str, HistoryEntry]]


@pytest.fixture
def heard() -> Heard:
    return []


@pytest.fixture
def history(heard: Heard) -> History:
    uplink = replace(uplink_of("nodea"), interface="wgup_a")
    events, store = Events(TaskSet(Warnings())), store_of(Config(uplinks=(uplink,)))
    events.subscribe(Recorded, lambda event: heard.append((event.name, event.entry)))
    return History(events, store)


def move(history: History, family: Family, told: Step) -> None:
    kind, lasted_s, detection_ms, switch_ms = told
    change = Change(kind, "wan", "wgup_a", "a cause", lasted_s)
    history.record_move(Moved(Move(change, family, detection_ms), switch_ms))


@pytest.mark.parametrize(
    ("moves", "outages"),
    [
        ([("failover", 3600.0, 300, 20)], [320]),
        ([("failover", 3600.0, NONE, 20)], [NONE]),  # carrier loss tells no detection time
        ([("failover", 3600.0, 0, 20)], [20]),
        ([("failover", 9.0, 300, 20), ("failback", 60.0, NONE, 5)], [320, NONE]),
        ([("failover", 9.0, 300, 20), ("switch", 60.0, 400, 30)], [320, 430]),
        ([STRANDED, ("recovered", 2.5, NONE, NONE)], [NONE, 2800]),
        ([STRANDED, ("failover", 2.5, 300, 20)], [NONE, 2820]),
        ([("stranded", 9.0, NONE, NONE), ("failback", 2.5, NONE, 20)], [NONE, 2520]),
        ([STRANDED, ("stranded", 1.0, 100, NONE), ("switch", 2.0, NONE, 10)], [NONE, NONE, 3310]),
        ([STRANDED, ("recovered", 1.0, NONE, NONE), ("failover", 60.0, NONE, 20)],
         [NONE, 1300, NONE]),
    ],
)  # fmt: skip
def test_outages(history: History, heard: Heard, moves: list[Step], outages: list[int]) -> None:
    for told in moves:
        move(history, Family.IPV4, told)
    assert [entry.outage_ms for _, entry in heard] == outages
    assert [entry for _, entry in heard] == history.oldest_first()


def test_outages_are_a_familys_own_and_this_runs(history: History, heard: Heard) -> None:
    history.restore([HistoryEntry(at="t", kind="stranded", family="ipv6")])
    move(history, Family.IPV4, ("stranded", 9.0, 300, NONE))
    move(history, Family.IPV6, ("failover", 86400.0, 200, 20))
    move(history, Family.IPV4, ("recovered", 1.0, NONE, NONE))
    assert [entry.outage_ms for _, entry in heard] == [NONE, 220, 1300]


def test_every_kind_of_news_is_an_entry(history: History, heard: Heard) -> None:
    move(history, Family.IPV4, ("failback", 9.0, NONE, 5))
    move(history, Family.IPV4, ("drill", 9.0, NONE, 5))
    history.record_uplink(UplinkChanged("uplink_added", uplink_of("nodeb"), "asked for"))
    history.record_peer(PeerNews("lease", "lease_granted", "nodec", "asked for"))
    history.record_carrying(CarryingChanged(Family.IPV6, "wgup_a", "dropped"))
    history.record_carrying(CarryingChanged(Family.IPV6, "wgup_a", ""))
    told = [(name, entry.kind, entry.peer_id, entry.to_path) for name, entry in heard]
    assert told == [
        ("failback", "failback", "nodea", "wgup_a"),
        ("drill", "drill", "nodea", "wgup_a"),
        ("uplink", "uplink_added", "nodeb", "wgup_nodeb"),
        ("lease", "lease_granted", "nodec", ""),
        ("carrying", "not_carrying", "nodea", "wgup_a"),
        ("carrying", "carrying", "nodea", "wgup_a"),
    ]


def test_a_lossy_line_is_told_once_an_hour(
    history: History, heard: Heard, mocker: MockerFixture
) -> None:
    clock = mocker.patch("rpcd_wireguard_uplink.history.changes.time")
    for minute in range(125):
        clock.monotonic.return_value = 60.0 * minute
        history.record_doubt(DoubtEnded(Family.IPV6, "wan", "wgup_a", 0.25))
    told = [(name, e.kind, e.family, e.from_path, e.to_path, e.peer_id) for name, e in heard]
    assert told == [("doubt", "doubted", "ipv6", "wan", "wgup_a", "nodea")] * 3
    assert [entry.cause for _, entry in heard[:2]] == [
        "wan was silent for a moment: new connections left by a backup for 0.2 s",
        "wan was silent for a moment 60 times in 60 minutes: new connections left by a backup for "
        "15.0 s in all",
    ]
    assert [entry.duration_s for _, entry in heard] == [0.25, 15.0, 15.0]
    history.record_doubt(DoubtEnded(Family.IPV4, "wan", "wgup_a", 0.25))
    assert len(heard) == 4, "each family has entries of its own"


def test_it_keeps_the_last(history: History) -> None:
    history.restore([HistoryEntry(at=str(number), kind="x") for number in range(MOST_ENTRIES + 5)])
    assert [entry.at for entry in history.newest(3)] == ["204", "203", "202"]
    assert len(history.newest(1000)) == MOST_ENTRIES
    assert history.newest(0) == []
    assert history.oldest_first()[0].at == "5"


def test_what_went_through_an_uplink_is_told_when_it_is_left(heard: Heard) -> None:
    counted = {"wgup_a": (100, 50)}
    uplink = replace(uplink_of("nodea"), interface="wgup_a")
    events, store = Events(TaskSet(Warnings())), store_of(Config(uplinks=(uplink,)))
    history = History(events, store, lambda: counted)

    def moves(family: Family, kind: str, before: str, after: str) -> int:
        history.record_move(Moved(Move(Change(kind, before, after, "", 1.0), family, -1), 1))
        return history.newest(1)[0].used_bytes

    assert moves(Family.IPV4, "failover", "wan", "wgup_a") == NONE
    counted["wgup_a"] = (1100, 250)
    assert moves(Family.IPV6, "failover", "wan", "wgup_a") == NONE
    counted["wgup_a"] = (2100, 350)
    assert moves(Family.IPV4, "failback", "wgup_a", "wan") == 2300
    assert moves(Family.IPV6, "stranded", "wgup_a", "") == 1100
    assert moves(Family.IPV6, "recovered", "", "wgup_a") == NONE
    counted["wgup_a"] = (7, 0)
    assert moves(Family.IPV6, "failback", "wgup_a", "wan") == 7, "the device was made anew"
    assert moves(Family.IPV4, "failback", "wgup_a", "wan") == NONE, "from before a restart"
