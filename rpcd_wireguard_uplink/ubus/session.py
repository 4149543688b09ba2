"""One connection to the bus, from the greeting to its loss: its socket, who waits for answers."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from typing import Any

from ..errors import BusError, CallFailed, NameTaken, Status, TimedOut
from .blobmsg import decode_table
from .blocking import BlockingBus
from .dispatch import Dispatcher
from .framing import MAX_MESSAGE
from .link import Link
from .objects import BusObject, Listener
from .protocol import Completed, Connected, Connection, Event, Invoked, Request, Unsubscribed

ANSWER_S = 5.0
"""How long the bus itself may take for an answer."""

MAX_BACKLOG = 4 * MAX_MESSAGE


def open_socket(path: str) -> socket.socket:
    """A socket that is connected to the bus. Raises BusError, naming path and remedy."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    sock.setblocking(False)
    try:
        sock.connect(path)
    except OSError as error:
        sock.close()
        if error.errno in (errno.ENOENT, errno.ECONNREFUSED):
            raise BusError(
                f"no bus at {path}: no ubusd runs there, and no service with --broker"
            ) from error
        if isinstance(error, PermissionError):
            raise BusError(f"only root may use the bus at {path}: put sudo in front") from error
        reason = error.strerror or (os.strerror(error.errno) if error.errno else str(error))
        raise BusError(f"can't connect to the bus at {path}: {reason}; check the path") from error
    return sock


class Session:
    """Requests and answers over one connection. Made inside a running event loop."""

    def __init__(
        self,
        path: str,
        dispatcher: Dispatcher,
        *,
        on_lost: Callable[[Session], None],
        on_unsubscribed: Callable[[Unsubscribed], None],
        begun: BlockingBus | None = None,
    ) -> None:
        self.open = True
        self._path = path
        self._dispatcher = dispatcher
        self._on_lost = on_lost
        self._on_unsubscribed = on_unsubscribed
        self._loop = asyncio.get_running_loop()
        self._greeting: asyncio.Future[None] = self._loop.create_future()
        self._waiting: dict[int, asyncio.Future[Completed]] = {}
        if begun is None:
            self.connection, sock = Connection(), open_socket(path)
        else:
            self.connection, sock, events = begun.hand_over()
            self._greeting.set_result(None)
            self._loop.call_soon(self._resume, events)
        self._link = Link(sock, limit=MAX_BACKLOG, received=self._received, lost=self.close)

    async def greeted(self, timeout_s: float) -> None:
        """Wait until the bus has greeted us. Raises BusError where it does not."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._greeting
        except TimeoutError as error:
            self.close()
            raise BusError(
                f"the bus at {self._path} accepts connections but does not answer within"
                f" {timeout_s:g} s; restart it"
            ) from error

    async def ask(self, request: Request, timeout_s: float = ANSWER_S) -> Completed:
        """Send a request and wait for its answer. Raises TimedOut, or BusError on a loss."""
        if not self.open:
            raise self._gone()
        future: asyncio.Future[Completed] = self._loop.create_future()
        self._waiting[request.seq] = future
        try:
            self.write(request.data)
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError as error:
            raise TimedOut(f"no answer on the bus within {timeout_s:g} s") from error
        finally:
            self._waiting.pop(request.seq, None)
            self.connection.forget(request.seq)

    async def find(self, path: str, timeout_s: float = ANSWER_S) -> int:
        """The id of the one object at a path, 0 where there is none."""
        found = await self.ask(self.connection.lookup(path), timeout_s)
        ids = found.object_ids()
        return ids[0] if len(ids) == 1 else 0

    async def add(self, target: BusObject | Listener) -> int:
        """Publish an object, or a nameless one that events are delivered to; its id.

        Raises NameTaken, and CallFailed where the bus refuses it.
        """
        path = target.path if isinstance(target, BusObject) else "a listener"
        for object_id, held in self.connection.objects.items():
            if isinstance(held, BusObject) and held.path == path:  # of a connection that was begun
                self.connection.objects[object_id] = target
                return object_id
        completed = await self.ask(self.connection.add_object(target))
        if completed.status == Status.INVALID_ARGUMENT and isinstance(target, BusObject):
            raise NameTaken(
                f"{path} is taken by another process, or the bus's ACL forbids it to us;"
                f" find out with `ubus list {path}`"
            )
        ids = completed.object_ids()
        if completed.status != Status.OK or not ids:
            raise CallFailed(f"publishing {path} failed", status_of(completed.status))
        return ids[0]

    async def listen(self, pattern: str, listener: Listener) -> None:
        """Have events delivered to a listener. Raises CallFailed where the bus refuses it."""
        object_id = await self.add(listener)
        completed = await self.ask(self.connection.listen(object_id, pattern))
        result_of(f"listening for {pattern}", completed)

    def write(self, data: bytes) -> None:
        """Send bytes; a bus that stopped reading long ago counts as lost."""
        if data and self.open and not self._link.send(data):
            self._loop.call_soon(self.close)

    def close(self) -> None:
        """End the connection; whoever waits for an answer gets a BusError."""
        if not self.open:
            return
        self.open = False
        self._link.close()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(self._gone())
        if not self._greeting.done():
            self._greeting.set_exception(self._gone())
            # Marks it as seen: the exception of a greeting that nobody awaits is no news.
            self._greeting.exception()
        self._on_lost(self)

    def _gone(self) -> BusError:
        return BusError(f"the connection to the bus at {self._path} was lost; try again")

    def _received(self, data: bytes) -> None:
        answer = self.connection.repeat(data)
        if answer is not None:
            self.write(answer)
            return
        try:
            events = self.connection.receive(data)
        except BusError:
            self.close()
            return
        self._follow(events)

    def _resume(self, events: list[Event]) -> None:
        """What came before, for what is published by now."""
        for event in events:
            if isinstance(event, Invoked):
                event = event._replace(target=self.connection.objects.get(event.object_id))
            self._follow([event])

    def _follow(self, events: list[Event]) -> None:
        for event in events:
            if not self.open:
                return
            if isinstance(event, Invoked):
                self._dispatcher.handle(event, self.connection, self.write)
            elif isinstance(event, Completed):
                future = self._waiting.get(event.seq)
                if future is not None and not future.done():
                    future.set_result(event)
            elif isinstance(event, Connected):
                if not self._greeting.done():
                    self._greeting.set_result(None)
            else:
                self._on_unsubscribed(event)


def result_of(what: str, completed: Completed) -> dict[str, Any]:
    """The tables of an answer, merged. Raises CallFailed for a status other than OK."""
    status = status_of(completed.status)
    merged: dict[str, Any] = {}
    tables = completed.tables()
    try:
        for table in tables:
            merged |= decode_table(table)
    except BusError as error:
        raise CallFailed(f"{what}: the reply is malformed", Status.PARSE_ERROR) from error
    if status != Status.OK:
        said = merged.get("error")
        reason = said if isinstance(said, str) else status.name.lower().replace("_", " ")
        raise CallFailed(f"{what}: {reason}", status, merged if tables else None)
    return merged


def status_of(number: int) -> Status:
    """A status of the wire; one that ubusmsg.h does not know is UNKNOWN_ERROR."""
    return Status(number) if 0 <= number <= Status.SYSTEM_ERROR else Status.UNKNOWN_ERROR
