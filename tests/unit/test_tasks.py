"""Work that fails unexpectedly goes on, and is told of without the exception's text."""

from __future__ import annotations

import _thread
import asyncio
import functools
import logging
import threading
import time

import pytest

from rpcd_wireguard_uplink import tasks
from rpcd_wireguard_uplink.system import process
from rpcd_wireguard_uplink.tasks import Once, TaskSet, begin_thread, keep_running, reserve_threads
from rpcd_wireguard_uplink.warnings import Warnings
from tests.unit.waiting import until


async def test_a_task_that_fails_is_begun_again_and_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tasks, "RESTART_PAUSE_S", 0.0)
    problems: dict[str, str] = {}
    begun = 0

    async def work() -> None:
        nonlocal begun
        begun += 1
        if begun == 1:
            raise KeyError("a secret")
        await asyncio.Event().wait()

    with caplog.at_level(logging.ERROR):
        task = asyncio.create_task(keep_running("switching", work, problems))
        await until(lambda: begun == 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert "switching failed unexpectedly (KeyError at" in problems["task switching"]
    assert "switching: KeyError at" in caplog.text
    assert "a secret" not in caplog.text + str(problems)


def test_no_thread_is_begun_when_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that dies before it runs would be waited for, by all that this process does."""
    begun = threading.Event()

    async def work() -> None:
        reserve_threads()
        begin_thread(begun.set)
        with monkeypatch.context() as without:
            without.setattr(_thread, "start_new_thread", no_memory)
            for name in ("_start_new_thread", "_start_joinable_thread"):  # until 3.12, since 3.13
                without.setattr(threading, name, no_memory, raising=False)
            await asyncio.gather(*(asyncio.to_thread(time.sleep, 0.001) for _ in range(50)))
            await process.run(["true"])
            with pytest.raises(OSError, match="no thread"):
                begin_thread(begun.set)

    def no_memory(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    asyncio.run(work())
    assert begun.wait(10)


async def test_threads_that_do_not_end_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look-ups by a name server that does not answer: each takes half a minute."""
    monkeypatch.setattr(tasks, "_FREE", threading.BoundedSemaphore(3))
    release, ended = threading.Event(), [threading.Event() for _ in range(3)]

    def work(number: int) -> None:
        release.wait(30)
        ended[number].set()

    for number in range(3):
        begin_thread(functools.partial(work, number))
    with pytest.raises(OSError, match="no thread"):
        begin_thread(release.wait)
    release.set()
    assert all(event.wait(10) for event in ended)
    await until(lambda: tasks._FREE.acquire(blocking=False))


async def test_however_many_ask_at_once_two_are_served() -> None:
    """Who comes while it runs is served by the next one, which began after he came."""
    runs = 0

    async def work() -> int:
        nonlocal runs
        runs += 1
        await asyncio.sleep(0)
        if runs == 4:
            raise KeyError
        return runs

    once = Once()
    assert await asyncio.gather(*(once.do(work) for _ in range(50))) == [1, *[2] * 49]
    failed = await asyncio.gather(*(once.do(work) for _ in range(3)), return_exceptions=True)
    assert failed[0] == 3 and [type(each) for each in failed[1:]] == [KeyError, KeyError]
    assert await once.do(work) == 5


async def test_it_is_told_until_the_work_has_run_well_for_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tasks, "RESTART_PAUSE_S", 0.0)
    monkeypatch.setattr(tasks, "WELL_S", 0.3)
    problems: dict[str, str] = {"other": "stays"}
    fail, failed = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await fail.wait()
        fail.clear()
        failed.set()
        raise ValueError

    task = asyncio.create_task(keep_running("work", work, problems))
    try:
        for _ in range(2):  # the second failure is told for its own minute
            fail.set()
            await failed.wait()
            failed.clear()
            await asyncio.sleep(0.2)
            assert "task work" in problems
        await asyncio.sleep(0.2)
        assert problems == {"other": "stays"}
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_set_tells_of_what_failed_and_closes_the_rest(
    caplog: pytest.LogCaptureFixture,
) -> None:
    warnings = Warnings()
    tasks_of_one = TaskSet(warnings)

    async def fail() -> None:
        raise KeyError("a secret")

    async def forever() -> None:
        await asyncio.Event().wait()

    endless = tasks_of_one.spawn("waiting", forever())
    tasks_of_one.supervise("working", forever)
    await asyncio.gather(tasks_of_one.spawn("renewing", fail()), return_exceptions=True)
    await asyncio.sleep(0)
    assert list(warnings) == ["task renewing"] and "a secret" not in str(warnings) + caplog.text
    await tasks_of_one.close()
    assert endless.cancelled()
    assert len(asyncio.all_tasks()) == 1
