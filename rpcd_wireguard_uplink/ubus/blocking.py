"""The bus without an event loop: one connection, one request at a time, for the command line.

Loading asyncio would cost a command most of its time.
"""

from __future__ import annotations

import select
import socket
import time
from collections import deque

from ..errors import BusError, TimedOut
from .objects import BusObject, Listener
from .protocol import Completed, Connected, Connection, Event, Request


class BlockingBus:
    """One connection to the bus. Raises BusError where it can't be made or is lost."""

    def __init__(self, path: str, timeout_s: float | None = None) -> None:
        self.connection = Connection()
        self._events: deque[Event] = deque()
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._sock.settimeout(timeout_s)
        try:
            self._sock.connect(path)
        except (OSError, ValueError) as error:
            self._sock.close()
            raise BusError(f"no bus at {path}: {error}") from error
        if not isinstance(self.next_event(None), Connected):
            raise BusError(f"what listens at {path} is not a bus")

    def close(self) -> None:
        self._sock.close()

    def write(self, data: bytes) -> None:
        """Send bytes, waiting as long as the bus needs."""
        try:
            self._sock.sendall(data, socket.MSG_NOSIGNAL)
        except OSError as error:
            raise BusError(f"the connection to the bus was lost: {error}") from error

    def next_event(self, deadline: float | None) -> Event:
        """The next event. Raises TimedOut at the deadline (time.monotonic)."""
        while not self._events:
            if deadline is not None:
                left_s = max(0.0, deadline - time.monotonic())
                if not left_s or not select.select([self._sock], [], [], left_s)[0]:
                    raise TimedOut("the bus sent nothing before the deadline")
            try:
                data = self._sock.recv(65536)
            except OSError as error:
                raise BusError(f"the connection to the bus was lost: {error}") from error
            if not data:
                raise BusError("the bus closed the connection")
            self._events.extend(self.connection.receive(data))
        return self._events.popleft()

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

    def add(self, target: BusObject | Listener) -> tuple[int, int]:
        """Publish an object, or make one that events are delivered to; its status and id."""
        completed = self.ask(self.connection.add_object(target))
        return completed.status, next(iter(completed.object_ids()), 0)

    def hand_over(self) -> tuple[Connection, socket.socket, list[Event]]:
        """What goes on without this object: connection and socket, and what came meanwhile."""
        return self.connection, self._sock, [*self._events]
