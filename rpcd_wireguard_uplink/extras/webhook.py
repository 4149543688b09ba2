"""The owner's URL that each event is sent to: when, how often, and what is told of failures.

The sending itself is a process of its own (post.py), by whatever path the router's own traffic
takes at that moment. The URL may hold a token: it goes by standard input and is never told.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Callable

from ..errors import UplinkError
from ..system import process
from ..text import printable
from .backlog import Backlog, Event

log = logging.getLogger("wireguard-uplink")

PROGRAM = "rpcd_wireguard_uplink.extras.post"
TIMEOUT_S = 25.0
PAUSES_S = (2.0, 10.0, 60.0)  # before each new try
REFUSED = 1  # as post.py says it


class Webhook:
    """One URL, which may change ('' for none). `problems` says why the last event was not taken."""

    def __init__(self, url: Callable[[], str], problems: dict[str, str]) -> None:
        self._url = url
        self._problems = problems
        self._backlog = Backlog("the webhook", problems)

    def tell(self, event: Event) -> None:
        """Have an event sent, later."""
        if self._url():
            self._backlog.add(event)

    async def follow(self) -> None:
        """The task: send one event after another, for ever."""
        while True:
            await self._deliver(await self._backlog.next())

    async def _deliver(self, event: Event) -> None:
        for pause_s in (*PAUSES_S, None):
            url = self._url()
            if not url:
                self._problems.pop("webhook", None)
                return
            status, reason = await send(url, event)
            if status == 0:
                self._problems.pop("webhook", None)
                return
            self._problems["webhook"] = f"The webhook gets no events: {reason}."
            if status == REFUSED or pause_s is None:
                break
            await asyncio.sleep(pause_s)
        log.warning("webhook: %s; an event was not told", reason)
        self._backlog.drop()


async def send(url: str, event: Event) -> tuple[int, str]:
    """Send one event: the exit status of post.py, and why it was not taken."""
    told = json.dumps({"url": url, "body": event.as_table()})
    try:
        done = await process.run(
            [sys.executable, "-m", PROGRAM], stdin=told, timeout_s=TIMEOUT_S, check=False
        )
    except UplinkError:
        return 2, f"it was not taken within {TIMEOUT_S:g} s"
    reason = next(iter(done.stdout.splitlines()), f"{PROGRAM} failed")
    return done.returncode, printable(reason[:200])
