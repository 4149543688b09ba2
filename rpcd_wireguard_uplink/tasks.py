"""Work in the background: one set of tasks, and work that must go on whatever happens.

A failover that stopped probing because of one unexpected exception would be worse than none: what
is supervised and fails is told of and begun again. The log gets the exception's class and place,
never its text.
"""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import errno
import logging
import math
import os
import sys
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from .errors import UplinkError, place_of
from .warnings import Warnings

T = TypeVar("T")

log = logging.getLogger("wireguard-uplink")

RESTART_PAUSE_S = 1.0
WELL_S = 60.0  # what has run so long without failing again is well
GRAIN_S = 0.5
WORKERS = 4
_FREE = threading.BoundedSemaphore(32)  # threads of begin_thread
MENDED_S = 10.0  # and after a failure of a known kind, as of a program that is there again


def reserve_threads() -> None:
    """Have all threads that the running loop's work needs, and none for each command.

    Whoever begins a thread waits until it runs (Thread.start). Where it dies before that, for lack
    of memory, he waits for ever, and with him all that the loop does.
    """
    workers, are_there = ThreadPoolExecutor(WORKERS), threading.Barrier(WORKERS + 1)
    for _ in range(WORKERS):
        workers.submit(are_there.wait)
    are_there.wait()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(workers)
    if sys.version_info < (3, 12):  # later ones do so by themselves
        with contextlib.suppress(OSError):  # a kernel before 5.3
            os.close(os.pidfd_open(os.getpid()))
            watcher = asyncio.PidfdChildWatcher()
            watcher.attach_loop(loop)
            asyncio.set_child_watcher(watcher)


def begin_thread(work: Callable[[], None]) -> None:
    """Do this in a thread of its own, that nobody waits for. Raises OSError where there is none."""

    def run() -> None:
        try:
            work()
        finally:
            _FREE.release()

    if not _FREE.acquire(blocking=False):  # as for look-ups that nobody answers
        raise OSError(errno.EAGAIN, "no thread can be begun: too many run")
    try:
        _thread.start_new_thread(run, ())
    except RuntimeError as error:
        _FREE.release()
        raise OSError(errno.EAGAIN, "no thread can be begun: memory is short") from error


class Once:
    """Work that is done once at a time, however many ask for it: who comes while it runs is served
    by the next one, with all who wait.
    """

    def __init__(self) -> None:
        self._lock, self._begun = asyncio.Lock(), 0
        self._last: asyncio.Future[Any] | None = None

    async def do(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        wanted = self._begun + 1
        async with self._lock:
            if self._last is None or self._begun < wanted:
                self._begun += 1
                self._last = asyncio.ensure_future(work())
                await asyncio.wait([self._last])
            found: T = self._last.result()
            return found


class TaskSet:
    """The background tasks of one owner, who closes them."""

    def __init__(self, warnings: Warnings) -> None:
        self._warnings = warnings
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, name: str, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Begin work that ends by itself; an unexpected failure is a warning for a while."""

        def ended(task: asyncio.Task[Any]) -> None:
            self._tasks.discard(task)
            if not task.cancelled() and isinstance(error := task.exception(), Exception):
                self.report(name, error)

        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(ended)
        return task

    def supervise(self, name: str, begin: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Have `begin()` run until the set is closed, begun again where it fails or returns."""
        self.spawn(name, keep_running(name, begin, self._warnings))

    def report(self, name: str, error: Exception) -> None:
        """Log what failed unexpectedly, and warn of it for a while."""
        tell_awhile(f"task {name}", name, error, self._warnings)

    async def close(self) -> None:
        """Cancel every task, and wait until all of them have ended."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def rest(seconds: float) -> None:
    """Sleep so long, or up to a quarter longer, GRAIN_S at most: those that rest wake together,
    which costs a slow router less.
    """
    grain_s = min(GRAIN_S, seconds / 4)
    now_s = asyncio.get_running_loop().time()
    await asyncio.sleep(math.ceil((now_s + seconds) / grain_s) * grain_s - now_s)


async def keep_running(
    name: str, begin: Callable[[], Coroutine[Any, Any, None]], warnings: dict[str, str]
) -> None:
    """Run `begin()` for ever; where it fails, begin again, and warn for a while."""
    while True:
        try:
            await begin()
        except Exception as error:
            tell_awhile(f"task {name}", name, error, warnings)
        await asyncio.sleep(RESTART_PAUSE_S)


def tell_awhile(topic: str, name: str, error: Exception, warnings: dict[str, str]) -> None:
    """Log an exception, and warn of it until the work has run well for a while."""
    told = warnings[topic] = tell(name, error)

    def forget() -> None:
        if warnings.get(topic) is told:
            del warnings[topic]

    well_s = MENDED_S if isinstance(error, UplinkError) else WELL_S
    asyncio.get_running_loop().call_later(well_s, forget)


async def woken(event: asyncio.Event, within_s: float | None) -> None:
    """Wait for an event, at most so many seconds (None: for ever)."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            await event.wait()


def tell(name: str, error: Exception) -> str:
    """Log an unexpected exception of some work; the sentence for status."""
    place = place_of(error)
    log.error("%s: %s at %s", name, type(error).__name__, place)
    return f"{name} failed unexpectedly ({type(error).__name__} at {place}) and was begun again"
