"""Whether a path carries, judged by counters over time; whole days that must give no warning."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

import pytest

from rpcd_wireguard_uplink.carrying.counters import (
    COUNTED,
    Finding,
    Sample,
    Trail,
    carrying_script,
    counting_script,
    read_counters,
    sample_of,
)
from rpcd_wireguard_uplink.model import Family
from rpcd_wireguard_uplink.system.netlink import attribute, nested, text
from rpcd_wireguard_uplink.system.nft import Element, TableReader, parse_elements
from tests.unit.apart import apart

DAY_S = 86_400


@dataclass
class Path:
    """A tunnel in use, second by second. `fate` says what becomes of a new flow."""

    trail: Trail = field(default_factory=lambda: Trail("wgup_a"))
    entered: int = 0
    left: int = 0
    back: int = 0
    home: int = 0
    at_s: float = 0.0
    findings: list[tuple[float, Finding]] = field(default_factory=list)

    def second(self, tries: Iterable[str] = (), fate: str = "answered", packets: int = 0) -> None:
        """A second passes: new flows to these destinations, and packets of older ones back."""
        tried = list(tries)
        live = sum(not name.startswith("dead") for name in tried)
        self.entered += len(tried)
        self.left += len(tried) if fate != "blocked" else 0
        self.back += packets + (live if fate in ("answered", "kept") else 0)
        self.home += packets + (live if fate == "answered" else 0)
        self.take(frozenset(tried), frozenset(tried if fate != "blocked" else ()))

    def take(self, tried: frozenset[str], sent: frozenset[str]) -> None:
        self.at_s += 1.0
        before = self.trail.finding
        packets = (self.entered, self.left, self.back, self.home)
        self.trail.add(Sample(self.at_s, *packets, tried, sent))
        if self.trail.finding is not before:
            self.findings.append((self.at_s, self.trail.finding))

    def idle(self, seconds: int) -> None:
        for _ in range(seconds):
            self.second()


def begun() -> Path:
    path = Path()
    path.second()
    return path


ABC = ("a", "b", "c")


@pytest.mark.parametrize(
    ("fate", "finding", "within_s"),
    [("blocked", Finding.BLOCKED, 2), ("silent", Finding.SILENT, 4), ("kept", Finding.KEPT, 4)],
)
def test_what_goes_out_and_never_comes_back(fate: str, finding: Finding, within_s: int) -> None:
    path = begun()
    for _ in range(within_s):
        path.second(ABC, fate)
    assert path.findings == [(1.0 + within_s, finding)]
    assert path.trail.carrying is False
    path.idle(50)
    assert path.trail.finding is finding, "nobody tries any more, and nothing has changed"
    path.second(["d"])
    assert path.trail.finding is Finding.NONE
    assert path.trail.carrying is True


def test_one_burst_of_flows_is_enough() -> None:
    path = begun()
    path.second(ABC, "silent")
    path.idle(3)
    assert path.findings == [(5.0, Finding.SILENT)]


def test_a_finding_ends_where_nobody_tries_for_a_minute() -> None:
    path = begun()
    path.second(ABC, "silent")
    path.idle(65)
    assert path.findings[-1] == (63.0, Finding.NONE)
    assert path.trail.carrying is None


def test_answers_prove_that_it_carries() -> None:
    path = begun()
    assert path.trail.carrying is None
    path.second(["a"])
    assert path.trail.carrying is True
    path.idle(61)
    assert path.trail.carrying is None, "nothing lately tells"


QUIET = {
    "idle": [()] * 60,
    "one dead destination": [("a",)] * 60,
    "two dead destinations": [("a", "b")] * 60,
    "dead ones far apart": [(str(n // 20),) if n % 20 == 0 else () for n in range(600)],
    "a burst that is answered late": [ABC, (), ()],
}


@pytest.mark.parametrize("seconds", QUIET.values(), ids=QUIET)
def test_what_says_nothing(seconds: list[tuple[str, ...]]) -> None:
    path = begun()
    for tries in seconds:
        path.second(tries, "silent")
    path.second(packets=1)
    assert path.findings == []


def test_a_few_dead_hosts_are_no_silence_where_answers_came() -> None:
    path = begun()
    path.second(["x"])
    for _ in range(60):
        path.second(("a", "b", "c", "d"), "silent")
    assert path.findings == []
    for n in range(20):
        path.second([f"host{n}"], "silent")
    assert [finding for _, finding in path.findings] == [Finding.SILENT]


def test_running_flows_that_are_answered_count() -> None:
    path = begun()
    for _ in range(30):
        path.second(ABC, "silent", packets=1)
    assert path.findings == []


def test_a_table_made_anew_begins_the_count_anew() -> None:
    path = begun()
    path.second(ABC, "silent", packets=3)
    path.second(ABC, "silent")
    path.entered = path.left = path.back = path.home = 0
    path.second(ABC, "silent")
    path.idle(1)
    assert path.findings == []


def a_day(chance: random.Random) -> Iterator[tuple[list[str], str, int]]:
    """New flows, their fate, and packets of older flows, for each second of a household's day.

    By night a few devices call home now and then; one's server is dead for good and one's answers
    from a slow network. By day people open pages, with a few dead trackers in each.
    """
    for second in range(DAY_S):
        is_night = second < 7 * 3600
        tries: list[str] = []
        if second % 30 == 0:
            tries.append("dead camera server")
        if second % 37 == 0:
            tries.append("dead speaker server")
        fate, packets = "silent", 0
        if chance.random() < (0.005 if is_night else 0.15):
            fate = "answered"
            tries += [f"site{chance.randrange(500)}" for _ in range(chance.randint(1, 12))]
            tries += [f"dead tracker{chance.randrange(5)}" for _ in range(chance.randint(0, 4))]
        if chance.random() < (0.02 if is_night else 0.4):
            packets = chance.randint(1, 50)
        yield tries, fate, packets


@pytest.mark.parametrize(
    "seed", [0, pytest.param(1, marks=pytest.mark.deep), pytest.param(2, marks=pytest.mark.deep)]
)
def test_a_day_in_a_household_gives_no_warning(seed: int) -> None:
    path = begun()
    for tries, fate, packets in a_day(random.Random(seed)):
        path.second(tries, fate, packets)
    assert path.findings == []


def test_an_idle_hour_gives_no_warning() -> None:
    path = begun()
    for second in range(3600):
        path.second(["time server"] if second % 1024 == 0 else ())
    assert path.findings == []


def test_a_real_loss_in_that_day_is_found() -> None:
    path, loss_s = begun(), 3600
    for second, (tries, fate, packets) in enumerate(islice(a_day(random.Random(1)), 32_400, None)):
        is_lost = second >= loss_s
        path.second(tries, "silent" if is_lost else fate, 0 if is_lost else packets)
        if path.findings:
            break
    [(found_s, finding)] = path.findings
    assert finding is Finding.SILENT and loss_s < found_s < loss_s + 120


def test_no_way_is_known_where_no_flow_enters() -> None:
    path = begun()
    path.idle(2)
    assert not path.trail.has_no_way(3.0)
    path.idle(1)
    assert path.trail.has_no_way(3.0)
    path.second(["a"])
    assert not path.trail.has_no_way(3.0)


class Sets(TableReader):
    """The sets of the table, as a reader gives them."""

    def read(self, name: str) -> list[Element]:
        device, other = b"wgup_a".ljust(16, b"\0"), b"wgup_b".ljust(16, b"\0")
        return {
            "carry_entered4": [Element(device, 7), Element(other, 1)],
            "carry_home6": [Element(device, 3)],
            "carry_tried4": [Element(b"\xc0\0\2\1", left_ms=9000), Element(b"\xc0\0\2\2", 0, 4000)],
            "carry_sent4": [Element(b"\xc0\0\2\2", left_ms=9999)],
        }.get(name, [])


def test_counters_are_read() -> None:
    counters = read_counters(Sets("wgup"))
    assert counters == {
        "entered4 wgup_a": 7,
        "entered4 wgup_b": 1,
        "home6 wgup_a": 3,
        "tried4 c0000201": 1000,
        "tried4 c0000202": 6000,
        "sent4 c0000202": 1,
    }
    four = sample_of(counters, Family.IPV4, "wgup_a", 10.0, 9.0)
    assert four == Sample(10.0, 7, tried=frozenset({"c0000201"}), sent=frozenset({"c0000202"}))
    assert sample_of(counters, Family.IPV6, "wgup_a", 10.0, 9.0) == Sample(10.0, home=3)
    late = sample_of(counters, Family.IPV4, "wgup_a", 10.0, 3.0)
    assert late.tried == {"c0000201", "c0000202"}


def test_elements_of_a_dump() -> None:
    """As Linux 6.18 sends them: a counted device name, an address that lapses, and what is cut."""
    counted = nested(
        7,
        [
            text(1, "counter"),
            nested(2, [attribute(1, bytes(8)), attribute(2, (77).to_bytes(8, "big"))]),
        ],
    )
    rows = [
        nested(1, [nested(1, [attribute(1, b"wgup_a".ljust(16, b"\0"))]), counted]),
        nested(1, [nested(1, [attribute(1, bytes(4))]), nested(11, [counted])]),
        nested(1, [nested(1, [attribute(1, bytes(4))]), attribute(5, (7740).to_bytes(8, "big"))]),
    ]
    body = bytes(4) + text(1, "wgup") + text(2, "s") + nested(3, rows)
    assert list(parse_elements(body)) == [
        Element(b"wgup_a".ljust(16, b"\0"), 77),
        Element(bytes(4), 77),
        Element(bytes(4), 0, 7740),
    ]
    for end in range(len(body)):
        assert len(list(parse_elements(body[:end]))) <= 3


def test_chains_are_named_for_what_they_are() -> None:
    script = carrying_script(["wgup_a"]) + counting_script(is_counting=True)
    lines = [line.split() for line in script.splitlines()]
    assert all(words[4].startswith("carry_") for words in lines)
    assert "flush set" not in script, "what was counted stays"
    assert "elements" not in carrying_script([]) and "add element" not in carrying_script([])


@pytest.mark.needs("nft", "unshare")
def test_real_what_is_counted_stays_and_names_of_removed_tunnels_go() -> None:
    first = "add table inet wgup\n" + carrying_script(["wgup_a", "wgup_b"])
    counted = "".join(
        f"delete element inet wgup {name} {{ wgup_a }}\n"
        f"add element inet wgup {name} {{ wgup_a counter packets 7 bytes 7 }}\n"
        for name in (COUNTED, "carry_home6")
    )
    names = ["wgup_a", "wgup_b", "wgup_gone"]
    scripts = (first, counted, carrying_script(["wgup_a", "wgup_c"], names))
    loaded = "".join(f"nft -f - <<'END'\n{script}END\n" for script in scripts)
    shown = apart(f"{loaded}nft list table inet wgup")
    assert "wgup_b" not in shown and "wgup_gone" not in shown
    assert shown.count('"wgup_c"') == 8
    assert shown.count('"wgup_a" counter packets 7') == 2
