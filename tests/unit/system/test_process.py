"""Commands that do not end, do not stop printing, or print what nobody understands."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import shutil
import sys
import time
import warnings
from pathlib import Path

import pytest
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.errors import CommandFailed, TimedOut
from rpcd_wireguard_uplink.mesh.registry import directory as mesh
from rpcd_wireguard_uplink.system import process, wg
from tests.unit.fakes import RoutingTables


def open_files() -> int:
    """How many this process has; those that tests before have dropped are closed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()
    return len(os.listdir("/proc/self/fd"))


def children() -> set[str]:
    """The commands of this process's children."""
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
        return set(file.read().split())


async def test_what_a_command_is_given_and_prints(tmp_path: Path) -> None:
    done = await process.run(["sh", "-c", "cat; echo no >&2; exit 3"], stdin="yes\n", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "yes\n", "no\n")
    long = "x" * 300_000
    assert (await process.run(["cat"], stdin=long)).stdout == long
    assert (await process.run(["true"], stdin=long)).stdout == "", "who reads no input ends too"
    with pytest.raises(CommandFailed, match="sh -c exit 4 failed: exit status 4"):
        await process.run(["sh", "-c", "exit 4"])


ENDLESS = {
    "stdout": ["sh", "-c", "exec yes"],
    "stderr": ["sh", "-c", "exec yes >&2"],
    "a child's child": ["sh", "-c", "yes & exec yes"],
    "who left the session": ["sh", "-c", "setsid yes & sleep 100"],
    "while input waits": [sys.executable, "-c", "while 1: print('x' * 65536)"],
}


@pytest.mark.parametrize("name", ENDLESS)
async def test_a_command_that_does_not_stop_printing_is_ended(
    mocker: MockerFixture, name: str
) -> None:
    if shutil.which("yes") is None:
        pytest.skip("no yes here")
    mocker.patch.object(process, "PIPES_S", 0.01)
    before, files = children(), open_files()
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun_s = time.monotonic()
    with pytest.raises(CommandFailed, match="printed more than 1048576 bytes"):
        await process.run(ENDLESS[name], stdin="x" * 500_000)
    assert time.monotonic() - begun_s < 4.0
    await asyncio.sleep(0.05)
    assert children() == before and open_files() == files
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - kilobytes < 65536
    assert (await process.run(["echo", "on"])).stdout == "on\n", "others go on"


async def test_a_command_that_hangs_with_full_pipes_is_ended(mocker: MockerFixture) -> None:
    mocker.patch.object(process, "PIPES_S", 0.01)
    before, files = children(), open_files()
    begun_s = time.monotonic()
    with pytest.raises(TimedOut):
        await process.run(["sh", "-c", "head -c 200000 /dev/zero; sleep 100"], timeout_s=0.1)
    assert time.monotonic() - begun_s < 3.0
    await asyncio.sleep(0.05)
    assert children() == before and open_files() == files


async def test_who_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    before = children()
    task = asyncio.create_task(process.run(["sh", "-c", "yes & sleep 100"], timeout_s=50.0))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises((asyncio.CancelledError, CommandFailed)):
        await task
    await asyncio.sleep(0.05)
    assert children() == before


@pytest.mark.filterwarnings("error")
async def test_pipes_that_outlive_the_command_are_closed() -> None:
    """It ended by itself, and what it left behind holds its output."""
    files = open_files()
    argv = ["sh", "-c", "setsid sleep 1 & exit 0"]
    with pytest.raises(TimedOut):
        await process.run_apart(argv, environment={"PATH": os.environ["PATH"]}, timeout_s=0.3)
    await asyncio.sleep(0.05)
    gc.collect()
    assert open_files() == files


# --- rubbish

IS_NO_DUMP = {"rubbish": "rubbish", "list": "[1]", "table": "{}", "three fields": "a\tb\tc"}
RUBBISH = {
    **IS_NO_DUMP,
    "no text": "\x00\xff",
    "deep": "[" * 100_000,
    "null": "null",
    "nine fields": "a\tb\tc\td\te\tf\tg\th\ti",
    "nft's": '{"nftables": [{"map": 5, "rule": 5, "set": 5}]}',
}


@pytest.mark.parametrize("name", RUBBISH)
async def test_rubbish_is_told_and_never_taken_for_nothing(
    mocker: MockerFixture, name: str
) -> None:
    """A router whose `wg` prints it has not lost its mesh's peers."""
    mocker.patch.object(process, "run", return_value=process.Completed(0, RUBBISH[name], ""))
    with pytest.raises(CommandFailed):
        await wg.read_device("a", wg.Ages())
    with pytest.raises(CommandFailed):
        await wg.read_counters(wg.Ages())
    with pytest.raises(CommandFailed):
        await mesh.read_mesh(RoutingTables(), (), wg.Ages())
