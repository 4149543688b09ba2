"""Events that wait to be told to the owner's programs, and what each of them is to be told.

A queue that never makes anybody wait: where it is full the oldest event gives way, and that is
told. Knows nothing of how events leave the router.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from ..model import HistoryEntry

MOST_WAITING = 64


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of the history on its way out. `name` is that of its event on the bus, without
    the prefix; `router` is this router's id among its peers.
    """

    name: str
    router: str
    entry: HistoryEntry

    def as_table(self) -> dict[str, object]:
        """The event as JSON carries it, with a sentence in `text`."""
        table = self.entry.as_table()
        return {"event": self.name, "router": self.router, "text": self.sentence(), **table}

    def sentence(self) -> str:
        """What happened, for a chat or a log."""
        entry = self.entry
        kind = entry.kind.replace("_", " ")
        what = f"{kind} ({entry.family})" if entry.family else kind
        way = f" {entry.from_path or 'nothing'} -> {entry.to_path}" if entry.to_path else ""
        peer = f" {entry.peer_id}" if entry.peer_id and not entry.family else ""
        return f"{self.router or 'router'}: {what}{peer}{way if entry.family else ''}" + (
            f": {entry.cause}" if entry.cause else ""
        )


class Backlog:
    """The waiting events of one way out, `name`; `problems` hears of what was dropped."""

    def __init__(self, name: str, problems: dict[str, str]) -> None:
        self.dropped = 0
        self._name = name
        self._problems = problems
        self._events: deque[Event] = deque()
        self._there = asyncio.Event()

    def add(self, event: Event) -> None:
        """Have one more wait; returns at once."""
        self._events.append(event)
        if len(self._events) > MOST_WAITING:
            self._events.popleft()
            self.drop()
        self._there.set()

    def drop(self) -> None:
        """Count an event that is told to nobody."""
        self.dropped += 1
        self._problems[f"{self._name} backlog"] = (
            f"{self.dropped} events were not told to {self._name} since the service began."
        )

    async def next(self) -> Event:
        """The oldest event, as soon as there is one."""
        while not self._events:
            self._there.clear()
            await self._there.wait()
        return self._events.popleft()
