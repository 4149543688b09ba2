"""News inside the process: what happened, for whoever subscribed. Only daemon.py subscribes.

Events carry news. Questions go to an object that the constructor took, commands are calls, and
where the order matters to the publisher he calls. A handler that fails keeps no other from hearing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import is_dataclass
from typing import Any, TypeVar

from .errors import UplinkError
from .model import Family, HistoryEntry, Uplink
from .tasks import TaskSet
from .values import dataclass


class Event:
    """Something that happened."""


class ReloadAsked(Event):
    """The owner wants the configuration read again."""


class HotplugReported(Event):
    """netifd has brought an interface up or down."""


class StatusChanged(Event):
    """What replies say differs from now on, and so does the state file."""


class NumbersChanged(Event):
    """Numbers in replies differ from now on; nothing happened."""


class PathsChanged(Event):
    """The monitor has judged the paths anew, or read other counters."""


@dataclass(frozen=True, slots=True)
class CarryingChanged(Event):
    """Flows by the path in use are not answered any more, or (an empty cause) they are again."""

    family: Family
    path: str
    cause: str


@dataclass(frozen=True, slots=True)
class DoubtEnded(Event):
    """New connections left by a backup for so long while a WAN was in doubt; it was alive."""

    family: Family
    wan: str
    backup: str
    seconds: float


@dataclass(frozen=True, slots=True)
class UplinkChanged(Event):
    """An uplink came, went or changed; `kind` is uplink_added, uplink_removed or uplink_changed."""

    kind: str
    uplink: Uplink
    cause: str


@dataclass(frozen=True, slots=True)
class PeerNews(Event):
    """What the history keeps about a peer; `topic` is trust, lease, offer (ours) or drill."""

    topic: str
    kind: str
    peer_id: str
    cause: str


@dataclass(frozen=True, slots=True)
class OfferReceived(Event):
    """A peer's offer came, or changed: too frequent for the history."""

    peer_id: str
    cause: str


@dataclass(frozen=True, slots=True)
class OfferWithdrawn(Event):
    """A peer's offer went."""

    peer_id: str
    cause: str


@dataclass(frozen=True, slots=True)
class PeerAnswered(Event):
    """A mesh peer that is known by this id has answered."""

    peer_id: str


class MeshChanged(Event):
    """The mesh was read again: there may be other peers, devices or addresses."""


class TrustChanged(Event):
    """Who is trusted may differ from now on."""


@dataclass(frozen=True, slots=True)
class Recorded(Event):
    """The history has a new entry, which the bus calls `wireguard-uplink.NAME`."""

    name: str
    entry: HistoryEntry


E = TypeVar("E", bound=Event)
Work = Coroutine[Any, Any, object]
Handler = Callable[[Any], Work | None]


class Events:
    """Subscriptions by the class of the event."""

    def __init__(self, tasks: TaskSet) -> None:
        self._tasks = tasks
        self._handlers: dict[type[Event], list[Handler]] = {}
        self._turns: dict[type[Event], asyncio.Lock] = {}
        self._waiting: set[type[Event]] = set()

    def subscribe(self, kind: type[E], handler: Callable[[E], Work | None]) -> None:
        """Have `handler` called with each later event of this very class."""
        self._handlers.setdefault(kind, []).append(handler)

    def publish(self, event: Event) -> None:
        """Tell everybody, in the order of the subscriptions; coroutines run behind one another.

        Of an event without fields those of one run and those of one wait, however many come: what
        waits will see all that there is.
        """
        kind, work = type(event), self._begin(event)
        if kind in self._waiting:
            for coroutine in work:
                coroutine.close()
        elif work:
            if is_plain := not is_dataclass(kind):
                self._waiting.add(kind)
            following = self._finish_in_turn(kind, work) if is_plain else _finish(work)
            self._tasks.spawn(f"following {kind.__name__}", following)

    async def publish_and_wait(self, event: Event) -> None:
        """Tell everybody, and wait until all have acted on it. Raises the first UplinkError."""
        await _finish(self._begin(event))

    async def _finish_in_turn(self, kind: type[Event], work: list[Work]) -> None:
        async with self._turns.setdefault(kind, asyncio.Lock()):
            self._waiting.discard(kind)
            await _finish(work)

    def _begin(self, event: Event) -> list[Work]:
        work = []
        for handler in self._handlers.get(type(event), ()):
            try:
                if (coroutine := handler(event)) is not None:
                    work.append(coroutine)
            except Exception as error:
                self._tasks.report(f"following {type(event).__name__}", error)
        return work


async def _finish(work: list[Work]) -> None:
    failures = []
    for coroutine in work:
        try:
            await coroutine
        except UplinkError as error:
            failures.append(error)
    if failures:
        raise failures[0]
