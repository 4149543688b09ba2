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
from tests.unit.waiting import LoopClock, until

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


class Folder:
    """A folder of hooks, and the service's part that runs them from `begin` to `end`."""

    def __init__(self, path: Path) -> None:
        self.path = path / "wireguard-uplink.d"
        self.path.mkdir(mode=0o755)
        self.out = path / "out"
        self.warnings = Warnings()
        self.hooks = Hooks(str(self.path), self.warnings)

    def put(self, name: str, body: str, mode: int = 0o755) -> Path:
        path = self.path / name
        path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
        path.chmod(mode)
        return path

    async def begin(self) -> None:
        self.task = asyncio.create_task(self.hooks.run())
        await asyncio.sleep(0)

    async def end(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def written(self, lines: int) -> list[str]:
        """What hooks have written, as soon as there are so many lines."""
        await until(lambda: lines_of(self.out) >= lines)
        return self.out.read_text().splitlines()


def lines_of(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for a change's other family."""
    monkeypatch.setattr(hooks_module, "TOGETHER_S", 0.0)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture
async def running(folder: Folder) -> AsyncIterator[Folder]:
    await folder.begin()
    yield folder
    await folder.end()


# --- what a hook sees


def test_the_environment_has_everything_and_nothing_else() -> None:
    found = NOTICE.environment()
    table = json.loads(found.pop("WGUP_JSON"))
    assert table == {"event": "failover", "router": "router1", **ENTRY.as_table()} | {
        "text": found["WGUP_TEXT"]
    }
    assert found.pop("PATH") == PATH
    assert found == {
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
        "WGUP_USED_BYTES": "",
        "WGUP_CAUSE_CODE": "",
        "WGUP_TEXT": "router1: failover (ipv4) wan -> wgup_nodea: wan: no answer",
    }


@pytest.mark.parametrize(
    ("notice", "wanted"),
    [
        pytest.param(
            Notice("uplink", "", HistoryEntry(at="t", kind="uplink_added", peer_id="nodea")),
            {
                "TEXT": "router: uplink added nodea",
                **dict.fromkeys(("DETECTION_MS", "SWITCH_MS", "OUTAGE_MS", "DURATION_S"), ""),
            },
            id="what is not known is empty",
        ),
        pytest.param(
            replace(NOTICE, entry=ENTRY.replaced(duration_s=31536000.5, outage_ms=86400000)),
            {"DURATION_S": "31536000.5", "OUTAGE_MS": "86400000"},
            id="long durations are plain numbers",
        ),
        pytest.param(
            Notice("offer", "r", ENTRY.replaced(cause="gone\nrm -rf\0\x1b[2J")),
            {"CAUSE": "gone\\nrm -rf\\x00\\x1b[2J"},
            id="a peer's words are one printable line",
        ),
    ],
)
def test_a_variable(notice: Notice, wanted: dict[str, str]) -> None:
    found = notice.environment()
    assert {name: found[f"WGUP_{name}"] for name in wanted} == wanted
    assert all(value.isprintable() for value in found.values())


def test_both_families_of_a_change_are_one_notice() -> None:
    six = replace(NOTICE, entry=ENTRY.replaced(family="ipv6", at="later", outage_ms=400))
    both = NOTICE.with_other_family(six)
    assert both is not None
    assert both.entry == ENTRY.replaced(family="", outage_ms=400)
    assert both.sentence() == "router1: failover wan -> wgup_nodea: wan: no answer"
    others = (NOTICE, replace(six, entry=six.entry.replaced(to_path="wgup_nodeb")))
    assert all(NOTICE.with_other_family(other) is None for other in others)
    assert both.with_other_family(six) is None, "a third one is another change"


# --- which are run


def test_hooks_are_found_in_order_of_their_names(folder: Folder, tmp_path: Path) -> None:
    wanted = [folder.put(name, "exit 0") for name in ("10-led", "20-mail", "tell.sh")]
    folder.put("README", "", 0o644)
    folder.put(".hidden", "exit 0")
    (folder.path / "folder").mkdir()
    assert find_hooks(str(folder.path)) == ([str(path) for path in wanted], [])
    assert find_hooks(str(tmp_path / "none")) == ([], []), "without a folder nothing is amiss"


@pytest.mark.parametrize("mode", [0o775, 0o757])
def test_what_others_may_write_is_not_run(folder: Folder, mode: int) -> None:
    good, bad = folder.put("good", "exit 0"), folder.put("bad", "exit 0", mode)
    sentence = f"{bad} is not run: others may write to it; `chmod go-w {bad}` if you know it."
    assert find_hooks(str(folder.path)) == ([str(good)], [sentence])
    bad.chmod(0o755)
    folder.path.chmod(mode)
    found, (refusal,) = find_hooks(str(folder.path))
    assert not found and refusal.startswith(f"{folder.path} is not run: others may write")


def test_a_link_counts_by_what_it_leads_to_and_whose_that_is(
    folder: Folder, tmp_path: Path
) -> None:
    folder.put(".program", "exit 0", 0o777)
    (folder.path / "hook").symlink_to(folder.path / ".program")
    (folder.path / "nowhere").symlink_to(tmp_path / "nothing")
    found, refused = find_hooks(str(folder.path))
    assert not found
    assert "others may write" in refused[0] and "nowhere is not run: No such file" in refused[1]
    if os.geteuid() == 0:
        os.chown(folder.path / ".program", 12345, 0)
        assert "it is not root's" in find_hooks(str(folder.path))[1][0]


async def test_refusals_are_warned_of_at_once_and_end_with_their_cause(folder: Folder) -> None:
    bad = folder.put("bad", f"echo run >>{folder.out}", 0o777)
    await folder.begin()
    try:
        assert "bad is not run" in folder.warnings["hooks"]
        bad.chmod(0o755)
        folder.hooks.add(NOTICE)
        assert await folder.written(1) == ["run"]
        assert "hooks" not in folder.warnings
    finally:
        await folder.end()


# --- how they are run


async def test_events_go_to_each_hook_one_after_another(running: Folder) -> None:
    running.put("1", f'sleep 0.02; echo "1 $WGUP_KIND" >>{running.out}')
    running.put("2", f'echo "2 $WGUP_KIND" >>{running.out}')
    for kind in ("failover", "failback"):
        running.hooks.add(replace(NOTICE, entry=ENTRY.replaced(kind=kind)))
    wanted = ["1 failover", "2 failover", "1 failback", "2 failback"]
    assert await running.written(4) == wanted


async def test_a_hook_inherits_nothing(running: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "token")
    part = f"{running.out}.part"
    running.put("hook", f"env >{part}; pwd >>{part}; cat >>{part}; mv {part} {running.out}")
    running.hooks.add(NOTICE)
    found = await running.written(15)
    assert "WGUP_KIND=failover" in found and "/" in found
    assert not any("SECRET" in line or "PYTHON" in line for line in found)


async def test_a_failing_hook_is_logged_by_its_first_line(
    running: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    running.put("1-broken", "printf 'no\\033[2J such LED\\nmore\\n' >&2; exit 3")
    running.put("2-quiet", "exit 1")
    running.put("3-empty", "").write_text("")
    running.put("4-flood", "head -c 5000000 /dev/zero | tr '\\0' x; exit 1")
    running.put("5-last", f"echo end >{running.out}")
    with caplog.at_level(logging.WARNING):
        running.hooks.add(NOTICE)
        await running.written(1)
    broken, quiet, empty, flood = [record.getMessage() for record in caplog.records]
    assert broken.endswith("1-broken failed (exit status 3): no\\x1b[2J such LED")
    assert quiet.endswith("2-quiet failed (exit status 1): it said nothing")
    assert "can't run" in empty and "3-empty: Exec format error" in empty
    assert "xxx" in flood and len(flood) < 500


async def test_a_slow_hook_is_killed_with_what_it_started(
    running: Folder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock, pids = LoopClock(), tmp_path / "pids"
    running.put("1", f"sleep 300 & echo $! >>{pids}; echo $$ >>{pids}; wait")
    running.put("2", f"sleep 300 & echo $! >>{pids}")  # ends, its child holds the output
    running.put("3", f"echo end >{running.out}")
    with caplog.at_level(logging.WARNING):
        running.hooks.add(NOTICE)
        for killed, started in enumerate((2, 3)):
            await until(lambda started=started: lines_of(pids) == started)
            while len(caplog.records) == killed:
                clock.jump(hooks_module.TIMEOUT_S)
                await asyncio.sleep(0.02)
        await running.written(1)
    for pid in pids.read_text().split():
        await gone(pid)
    assert [record.getMessage().rpartition("/")[2] for record in caplog.records] == [
        "1 did not finish within 10 s",
        "2 did not finish within 10 s",
    ]


def is_running(pid: str) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def gone(pid: str) -> None:
    """Until the process, which was killed, has ended: a signal takes effect when its turn comes."""
    await until(lambda: not is_running(pid))


async def test_the_service_ends_a_running_hook(folder: Folder) -> None:
    folder.put("hook", f"echo $$ >{folder.out}; sleep 300")
    await folder.begin()
    folder.hooks.add(NOTICE)
    (pid,) = await folder.written(1)
    assert is_running(pid)
    await folder.end()
    await gone(pid)


async def test_who_is_stopped_while_a_hook_starts_leaves_none(folder: Folder) -> None:
    path = folder.put("hook", f"sleep 300 & echo $! >>{folder.out}; wait")
    work = process.run_apart([str(path)], environment={"PATH": PATH}, timeout_s=10)
    task = asyncio.create_task(work)
    for _ in range(2):  # until it is started, and no further
        await asyncio.sleep(0)
    deadline_s = time.monotonic() + 60  # it gives way to all laboratories
    while not lines_of(folder.out) and time.monotonic() < deadline_s:
        time.sleep(0.01)  # the loop stands still: the hook is further than asyncio knows
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (pid,) = await folder.written(1)
    await gone(pid)


async def test_little_of_its_output_is_kept(folder: Folder) -> None:
    path = folder.put("hook", "echo first; head -c 100000 /dev/zero; exit 4")
    done = await process.run_apart([str(path)], environment={"PATH": PATH}, timeout_s=10)
    assert done.returncode == 4 and done.stdout.startswith("first\n")
    assert len(done.stdout) == process.MOST_KEPT


async def test_where_too_many_wait_the_oldest_are_dropped_and_counted(folder: Folder) -> None:
    folder.put("hook", f"echo $WGUP_ROUTER >>{folder.out}")
    for number in range(MOST_WAITING + 3):
        folder.hooks.add(replace(NOTICE, router=str(number)))
    told = "3 events did not reach the hooks since the service began."
    assert folder.warnings == {"hooks backlog": told}
    await folder.begin()
    try:
        kept = await folder.written(MOST_WAITING)
    finally:
        await folder.end()
    assert kept == [str(number) for number in range(3, MOST_WAITING + 3)]


async def test_a_test_runs_every_hook_and_tells_what_became_of_it(folder: Folder) -> None:
    folder.put("10-good", f'echo "$WGUP_KIND" >{folder.out}')
    folder.put("20-bad", "echo no; exit 3")
    done = await folder.hooks.uplink_notify()
    assert [(run.name, run.error) for run in done.hooks] == [
        ("10-good", ""),
        ("20-bad", "failed (exit status 3): no"),
    ]
    assert folder.out.read_text() == "test\n"
