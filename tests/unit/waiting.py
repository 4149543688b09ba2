"""Waits for a state instead of a time, and a clock that need not be waited for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


async def until(holds: Callable[[], object], timeout_s: float = 30.0) -> None:
    """Let the loop work until this is true."""
    deadline_s = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline_s, "it did not happen"
        await asyncio.sleep(0.01)


class LoopClock:
    """The running loop's clock, which a test can have jump."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._ahead_s, real = 0.0, loop.time
        loop.time = lambda: real() + self._ahead_s  # type: ignore[method-assign]

    def jump(self, seconds: float) -> None:
        self._ahead_s += seconds
