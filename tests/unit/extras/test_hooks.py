"""The owner's executables: which are run, with what, and what becomes of slow and failing ones."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from rpcd_wireguard_uplink.extras import hooks as hooks_module
from rpcd_wireguard_uplink.extras.hooks import MOST_WAITING, PATH, Hooks, Notice, find_hooks
from rpcd_wireguard_uplink.model import HistoryEntry
from rpcd_wireguard_uplink.system import process
from rpcd_wireguard_uplink.warnings import Warnings

ENTRY = HistoryEntry(
    at="2026-01-28T10:30:00.000Z",
    kind="failover",
    family="ipv4",
    from_path="wan",
    to_path="wgup_nodea",
    peer_id="nodea",
    cause="wan: no answer",
    detection_ms=300,
    switch_ms=20,
    duration_s=1.5,
    outage_ms=320,
)
NOTICE = Notice("failover", "router1", ENTRY)


def put(folder: Path, name: str, body: str, mode: int = 0o755) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(mode)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "wireguard-uplink.d"
    made.mkdir(mode=0o755)
    return made


@pytest.fixture
async def running(folder: Path) -> AsyncIterator[tuple[Hooks, Warnings]]:
    problems = Warnings()
    hooks = Hooks(str(folder), problems)
    task = asyncio.create_task(hooks.run())
    yield hooks, problems
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def written(path: Path, lines: int) -> list[str]:
    """The file's lines as soon as there are so many."""
    async with asyncio.timeout(15):
        while not path.exists() or len(path.read_text().splitlines()) < lines:
            await asyncio.sleep(0.01)
    return path.read_text().splitlines()


# --- what a hook sees


def test_the_environment_tells_everything_and_nothing_else() -> None:
    found = NOTICE.environment()
    table = json.loads(found.pop("WGUP_JSON"))
    assert table == {"event": "failover", "router": "router1", **ENTRY.as_table()} | {
        "text": found["WGUP_TEXT"]
    }
    assert {name: value for name, value in found.items() if name != "PATH"} == {
        "WGUP_EVENT": "failover",
        "WGUP_ROUTER": "router1",
        "WGUP_KIND": "failover",
        "WGUP_FAMILY": "ipv4",
        "WGUP_FROM": "wan",
        "WGUP_TO": "wgup_nodea",
        "WGUP_PEER": "nodea",
        "WGUP_CAUSE": "wan: no answer",
        "WGUP_AT": "2026-01-28T10:30:00.000Z",
        "WGUP_DETECTION_MS": "300",
        "WGUP_SWITCH_MS": "20",
        "WGUP_OUTAGE_MS": "320",
        "WGUP_DURATION_S": "1.5",
        "WGUP_TEXT": "router1: failover (ipv4) wan -> wgup_nodea: wan: no answer",
    }


def test_what_is_not_known_is_empty() -> None:
    found = Notice("uplink", "", HistoryEntry("t", "uplink_added", peer_id="nodea")).environment()
    times = ("DETECTION_MS", "SWITCH_MS", "OUTAGE_MS", "DURATION_S")
    assert [found[f"WGUP_{name}"] for name in times] == [""] * 4
    assert found["WGUP_TEXT"] == "router: uplink added nodea"


def test_long_durations_are_plain_numbers() -> None:
    notice = replace(NOTICE, entry=replace(ENTRY, duration_s=31536000.5, outage_ms=86400000))
    found = notice.environment()
    assert (found["WGUP_DURATION_S"], found["WGUP_OUTAGE_MS"]) == ("31536000.5", "86400000")


def test_a_peers_words_are_one_printable_line() -> None:
    entry = replace(ENTRY, cause="gone\nrm -rf\0\x1b[2J")
    found = Notice("offer", "r", entry).environment()
    assert found["WGUP_CAUSE"] == "gone\\nrm -rf\\x00\\x1b[2J"
    assert all(value.isprintable() for value in found.values())


# --- which are run


def test_hooks_are_found_in_order_of_their_names(folder: Path) -> None:
    wanted = [put(folder, name, "exit 0") for name in ("10-led", "20-mail", "tell.sh")]
    put(folder, "README", "", 0o644)
    put(folder, ".hidden", "exit 0")
    (folder / "folder").mkdir()
    assert find_hooks(str(folder)) == ([str(path) for path in wanted], [])


def test_without_a_folder_there_is_nothing_to_say(tmp_path: Path) -> None:
    assert find_hooks(str(tmp_path / "none")) == ([], [])


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777])
def test_what_others_may_write_is_not_run(folder: Path, mode: int) -> None:
    good, bad = put(folder, "good", "exit 0"), put(folder, "bad", "exit 0", mode)
    found, refused = find_hooks(str(folder))
    assert found == [str(good)]
    sentence = f"{bad} is not run: others may write to it; `chmod go-w {bad}` if you know it."
    assert refused == [sentence]


def test_nothing_is_run_from_a_folder_that_others_may_write_to(folder: Path) -> None:
    put(folder, "hook", "exit 0")
    folder.chmod(0o777)
    found, refused = find_hooks(str(folder))
    assert not found and len(refused) == 1
    assert str(folder) in refused[0] and "others may write" in refused[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_what_is_not_roots_is_not_run(folder: Path) -> None:
    path = put(folder, "hook", "exit 0")
    os.chown(path, 12345, 0)
    found, refused = find_hooks(str(folder))
    assert not found and "it is not root's" in refused[0]


def test_a_link_counts_by_what_it_leads_to(folder: Path, tmp_path: Path) -> None:
    target = put(tmp_path, "program", "exit 0", 0o777)
    (folder / "hook").symlink_to(target)
    (folder / "nowhere").symlink_to(tmp_path / "nothing")
    found, refused = find_hooks(str(folder))
    assert not found
    assert "others may write" in refused[0] and "nowhere is not run: No such file" in refused[1]


async def test_refusals_are_told_at_once_and_end_with_their_cause(
    folder: Path, tmp_path: Path
) -> None:
    bad, out = put(folder, "bad", f"echo run >>{tmp_path}/out", 0o777), tmp_path / "out"
    problems = Warnings()
    hooks = Hooks(str(folder), problems)
    task = asyncio.create_task(hooks.run())
    await asyncio.sleep(0)
    assert "bad is not run" in problems["hooks"]
    bad.chmod(0o755)
    hooks.add(NOTICE)
    try:
        assert await written(out, 1) == ["run"]
        assert "hooks" not in problems
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


# --- how they are run


async def test_events_go_to_each_hook_one_after_another(
    folder: Path, tmp_path: Path, running: tuple[Hooks, Warnings]
) -> None:
    out = tmp_path / "out"
    put(folder, "1", f'sleep 0.1; echo "1 $WGUP_KIND" >>{out}')
    put(folder, "2", f'echo "2 $WGUP_KIND" >>{out}')
    began = time.monotonic()
    for kind in ("failover", "failback"):
        running[0].add(replace(NOTICE, entry=replace(ENTRY, kind=kind)))
    assert time.monotonic() - began < 0.1, "telling waits for nobody"
    assert await written(out, 4) == ["1 failover", "2 failover", "1 failback", "2 failback"]


async def test_a_hook_inherits_nothing(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    running: tuple[Hooks, Warnings],
) -> None:
    monkeypatch.setenv("SECRET", "token")
    out = tmp_path / "out"
    put(folder, "hook", f"env >{out}.part; pwd >>{out}.part; cat >>{out}.part; mv {out}.part {out}")
    running[0].add(NOTICE)
    found = await written(out, 15)
    assert "WGUP_KIND=failover" in found and "/" in found
    assert not any("SECRET" in line or "PYTHON" in line for line in found)


async def test_a_failing_hook_is_told_by_its_first_line(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, running: tuple[Hooks, object]
) -> None:
    put(folder, "1-broken", "printf 'no\\033[2J such LED\\nmore\\n' >&2; exit 3")
    put(folder, "2-quiet", "exit 1")
    (folder / "3-empty").write_text("")
    (folder / "3-empty").chmod(0o755)
    put(folder, "4-last", f"echo end >{tmp_path}/out")
    with caplog.at_level(logging.WARNING):
        running[0].add(NOTICE)
        await written(tmp_path / "out", 1)
    told = [record.getMessage() for record in caplog.records]
    assert told[0].endswith("1-broken failed (exit status 3): no\\x1b[2J such LED")
    assert told[1].endswith("2-quiet failed (exit status 1): it said nothing")
    assert "can't run" in told[2] and "3-empty: Exec format error" in told[2]
    assert len(told) == 3


async def test_a_slow_hook_is_killed_with_what_it_started(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    running: tuple[Hooks, object],
) -> None:
    monkeypatch.setattr(hooks_module, "TIMEOUT_S", 0.5)
    put(folder, "1", f"sleep 300 & echo $! >>{tmp_path}/pids; echo $$ >>{tmp_path}/pids; wait")
    put(folder, "2", f"sleep 300 & echo $! >>{tmp_path}/pids")  # ends, its child holds the output
    put(folder, "3", f"echo end >{tmp_path}/out")
    with caplog.at_level(logging.WARNING):
        running[0].add(NOTICE)
        await written(tmp_path / "out", 1)
    pids = await written(tmp_path / "pids", 3)
    async with asyncio.timeout(10):
        while any(is_running(int(pid)) for pid in pids):
            await asyncio.sleep(0.02)
    assert [record.getMessage().rpartition("/")[2] for record in caplog.records] == [
        "1 did not finish within 0.5 s",
        "2 did not finish within 0.5 s",
    ]


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_the_service_ends_a_running_hook(folder: Path, tmp_path: Path) -> None:
    put(folder, "hook", f"echo $$ >{tmp_path}/pids; sleep 300")
    hooks = Hooks(str(folder), Warnings())
    task = asyncio.create_task(hooks.run())
    hooks.add(NOTICE)
    pid = int((await written(tmp_path / "pids", 1))[0])
    assert is_running(pid)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert not is_running(pid)


async def test_who_is_stopped_while_a_hook_starts_leaves_none(folder: Path, tmp_path: Path) -> None:
    path = put(folder, "hook", f"sleep 300 & echo $! >>{tmp_path}/pids; wait")
    work = process.run_apart([str(path)], environment={"PATH": PATH}, timeout_s=10)
    task = asyncio.create_task(work)
    for _ in range(2):  # until it is started, and no further
        await asyncio.sleep(0)
    deadline_s = time.monotonic() + 10
    while not (tmp_path / "pids").exists() and time.monotonic() < deadline_s:
        time.sleep(0.01)  # the loop stands still: the hook is further than asyncio knows
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    (pid,) = await written(tmp_path / "pids", 1)
    assert not is_running(int(pid))


async def test_a_flood_of_output_is_thrown_away(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, running: tuple[Hooks, object]
) -> None:
    put(folder, "1", "head -c 5000000 /dev/zero | tr '\\0' x; exit 1")
    put(folder, "2", f"echo end >{tmp_path}/out")
    with caplog.at_level(logging.WARNING):
        running[0].add(NOTICE)
        await written(tmp_path / "out", 1)
    assert len(caplog.records) == 1
    assert "xxx" in caplog.text and len(caplog.records[0].getMessage()) < 500


async def test_little_of_it_is_kept(folder: Path) -> None:
    path = put(folder, "hook", "echo first; head -c 100000 /dev/zero; exit 4")
    done = await process.run_apart([str(path)], environment={"PATH": PATH}, timeout_s=10)
    assert done.returncode == 4 and done.stdout.startswith("first\n")
    assert len(done.stdout) == process.MOST_KEPT


# --- the queue


async def test_where_too_many_wait_the_oldest_are_dropped_and_told(
    folder: Path, tmp_path: Path
) -> None:
    put(folder, "hook", f"echo $WGUP_ROUTER >>{tmp_path}/out")
    warnings = Warnings()
    hooks = Hooks(str(folder), warnings)
    for number in range(MOST_WAITING + 3):
        hooks.add(replace(NOTICE, router=str(number)))
    assert warnings == {"hooks backlog": "3 events were not told to hooks since the service began."}
    task = asyncio.create_task(hooks.run())
    try:
        kept = await written(tmp_path / "out", MOST_WAITING)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert kept == [str(number) for number in range(3, MOST_WAITING + 3)]
