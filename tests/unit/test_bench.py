"""The benchmark's own arithmetic: what a table says must follow from what was measured."""

from __future__ import annotations

import os
from pathlib import Path
from xml.etree import ElementTree

import pytest

from rpcd_wireguard_uplink.mesh.registry.directory import peers_on
from rpcd_wireguard_uplink.system.wg import Ages, parse_dump
from tests.bench import __main__ as bench
from tests.bench import large_mesh
from tests.bench.plot import LEAST, MOST, picture, share_of_target
from tests.bench.switches import count_leaks
from tests.bench.table import Row, quantile, table_lines
from tests.lab import mwan3
from tests.lab.capture import UDP, Packet

TWENTY = tuple(float(number) for number in range(1, 21))
MOVED = {"8.8.8.8": 100}


@pytest.mark.parametrize(
    ("values", "share", "wanted"),
    [
        (TWENTY, 0.5, 10),
        (TWENTY, 0.95, 19),
        (TWENTY, 1.0, 20),
        ((3.0, 1.0, 2.0), 0.5, 2),
        ((3.0, 1.0, 2.0), 0.95, 3),
        ((7.0,), 0.95, 7),
    ],
)
def test_quantiles_are_values_that_were_measured(
    values: tuple[float, ...], share: float, wanted: float
) -> None:
    assert quantile(values, share) == wanted


@pytest.mark.parametrize(
    ("by", "limit", "verdict"),
    [
        ("median", 10, "reached"),
        ("median", 9.9, "not reached"),
        ("p95", 19, "reached"),
        ("p95", 18.9, "not reached"),
        ("worst", 20, "reached"),
        ("worst", 19, "not reached"),
    ],
)
def test_the_verdict_is_by_the_statistic_that_was_promised(by, limit, verdict) -> None:
    row = Row("n", "s", TWENTY, limit, by)
    assert row.verdict == verdict
    assert table_lines([row])[1].endswith(f"\t{verdict}")


def test_a_floor_is_judged_from_below() -> None:
    row = Row("n", "Mbit/s", TWENTY, 1, "worst", is_floor=True)
    assert (row.worst, row.p95, row.verdict) == (1, 1, "reached")
    assert Row("n", "Mbit/s", TWENTY, 1.1, "worst", is_floor=True).verdict == "not reached"
    assert "worst >= 1" in table_lines([row])[1]


def test_the_picture_shows_each_number_by_its_distance_from_the_target() -> None:
    rows = [
        Row("<two>", "s", (1.0, 2.0), 2, "worst"),
        Row("floor", "Mbit/s", (20.0,), 10, "worst", is_floor=True),
        Row("none", "switches", (0.0,), 0, "worst"),
        Row("some", "switches", (3.0,), 0, "worst"),
        Row("not measured", "s", (), 1),
    ]
    shares = [share_of_target(row, row.worst) for row in rows[:4]]
    assert shares == [1.0, 0.5, LEAST, MOST]
    svg = ElementTree.fromstring(picture(rows, "a & b"))
    names = [text.text for text in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert names[0] == "a & b" and names[-4:] == ["<two>", "floor", "none", "some"]


def test_what_was_not_measured_was_not_reached() -> None:
    assert Row("n", "s", (), 1).verdict == "not reached"
    assert table_lines([Row("n", "s", (), 1)])[1].endswith("\tnot reached")


def test_the_table_has_one_tab_a_line_and_its_columns_in_place() -> None:
    rows = [Row("short", "s", (0.1234,), 0.5), Row("much longer", "packets", TWENTY, 3, note="x")]
    lines = table_lines(rows)
    assert [line.count("\t") for line in lines] == [1, 1, 1]
    place = lines[0].index("target")
    assert [line[place : place + 6] for line in lines] == ["target", "p95 <=", "p95 <="]
    assert lines[1].split()[:6] == ["short", "s", "1", "0.123", "0.123", "0.123"]


def packet(number: int, at_s: float = 1.0, **changes: object) -> Packet:
    plain = {"leaves": True, "size": 60, "protocol": UDP, "source": "198.51.100.2"}
    plain |= {"source_port": 40000, "target": "8.8.8.8", "target_port": 53}
    return Packet(at_s=at_s, number=number, **(plain | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("by_line", "bare", "wanted"),
    [
        ([packet(99)], [], 0),
        ([packet(100), packet(101)], [], 2),
        ([packet(101, at_s=5.0)], [], 0),
        ([packet(101, leaves=False)], [], 0),
        ([packet(101, protocol=1)], [], 0),
        ([packet(101, target="192.0.2.1", target_port=51820)], [], 0),
        ([], [packet(1)], 1),
        ([], [packet(1, target="192.0.2.9")], 1),
        ([], [packet(1, target="172.16.70.2", target_port=51820)], 0),
    ],
    ids=["before", "moved", "back", "answer", "probe", "tunnel", "bare", "bare-dns", "outer"],
)
def test_a_leak_is_what_was_sent_after_the_flow_had_moved(
    by_line: list[Packet], bare: list[Packet], wanted: int
) -> None:
    assert count_leaks(by_line, bare, MOVED, ends=4.0) == wanted


def test_every_number_has_twenty_runs_unless_it_is_to_be_quick() -> None:
    full = {work.__name__: numbers for group in bench.plan(quick=False) for work, numbers in group}
    quick = {work.__name__: numbers for group in bench.plan(quick=True) for work, numbers in group}
    once = {"measure_flapping"}  # ten times up and down are a run of minutes
    assert full.keys() - quick.keys() == once
    assert all(numbers[-1] >= 20 for name, numbers in full.items() if name not in once)


def test_a_measurement_that_fails_is_told_and_the_others_go_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows, failures = bench.measure([[(_broken, (1,)), (_fine, (3,))]])
    assert [len(row.values) for row in rows] == [3]
    assert failures == ["_broken: ValueError: 1 is too few"]
    told = capsys.readouterr().err.splitlines()
    assert told[:2] == ["_broken ...", "_fine ..."]
    assert told[2].split() == ["n", "s", "3", "1", "1", "1", "p95", "<=", "1", "reached"]


def _fine(runs: int) -> list[Row]:
    return [Row("n", "s", (1.0,) * runs, 1)]


def _broken(runs: int) -> list[Row]:
    raise ValueError(f"{runs} is too few")


def test_the_large_mesh_reads_as_a_mesh() -> None:
    own = f"{large_mesh.address(3)}/16"
    peers = peers_on(parse_dump(large_mesh.dump_of(3, 250), Ages()), [own])
    assert len({peer.key for peer in peers}) == 249
    assert len({address for peer in peers for address in peer.addresses}) == 249
    assert all(peer.handshake_age_s is not None for peer in peers)


def test_mwan3_is_looked_for_below_the_root_that_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}/usr/sbin:{os.environ['PATH']}")
    programs = [f"usr/sbin/{name}" for name in (*mwan3.PROGRAMS, *mwan3.HELPERS)]
    for name in (*mwan3.FILES, *programs):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(0o755)
    assert mwan3.missing() == []
    (tmp_path / "etc/rc.common").unlink()
    assert mwan3.missing() == ["etc/rc.common"]
