"""The bus without an event loop: one connection, one thing at a time, for the command line.

Owns a blocking socket and what arrived while an answer was awaited. Loading asyncio would cost the
command most of its time. Knows nothing of arguments and output.
"""

from __future__ import annotations

import select
import socket
import time
from collections import deque

from ..errors import BusError, TimedOut
from .framing import Attr
from .objects import Listener
from .protocol import Completed, Connected, Connection, Event, Request


class BlockingBus:
    """One connection to the bus. Raises BusError where it can't be made or is lost."""

    def __init__(self, path: str) -> None:
        self.connection = Connection()
        self._events: deque[Event] = deque()
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._sock.connect(path)
        except (OSError, ValueError) as error:
            self._sock.close()
            raise BusError(f"no bus at {path}: {error}") from error
        if not isinstance(self.next_event(None), Connected):
            raise BusError(f"what listens at {path} is not a bus")

    def close(self) -> None:
        """Leave the bus."""
        self._sock.close()

    def write(self, data: bytes) -> None:
        """Send bytes, waiting as long as the bus needs."""
        try:
            self._sock.sendall(data, socket.MSG_NOSIGNAL)
        except OSError as error:
            raise BusError(f"the connection to the bus was lost: {error}") from error

    def next_event(self, deadline: float | None) -> Event:
        """Return the next event. Raises TimedOut at the deadline (time.monotonic)."""
        while not self._events:
            self._wait(deadline)
            try:
                data = self._sock.recv(65536)
            except OSError as error:
                raise BusError(f"the connection to the bus was lost: {error}") from error
            if not data:
                raise BusError("the bus closed the connection")
            self._events.extend(self.connection.receive(data))
        return self._events.popleft()

    def _wait(self, deadline: float | None) -> None:
        left_s = None if deadline is None else deadline - time.monotonic()
        if left_s is not None and (
            left_s <= 0 or not select.select([self._sock], [], [], left_s)[0]
        ):
            raise TimedOut("the bus sent nothing before the deadline")

    def ask(self, request: Request, timeout_s: float | None = None) -> Completed:
        """Send a request and return its answer; other events wait their turn."""
        self.write(request.data)
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        others: list[Event] = []
        try:
            while True:
                event = self.next_event(deadline)
                if isinstance(event, Completed) and event.seq == request.seq:
                    return event
                others.append(event)
        finally:
            self._events.extendleft(reversed(others))

    def add_listener(self) -> tuple[int, int]:
        """Make an object that events are delivered to; return the status and its id."""
        completed = self.ask(self.connection.add_object(Listener(lambda name, data: None)))
        ids = [reply[Attr.OBJID] for reply in completed.replies if Attr.OBJID in reply]
        return completed.status, ids[0] if ids else 0
