"""The HTTP server: its listeners, and who gets one of its few connections."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

from ...reasons import because, of_system
from ...system.rtnetlink import index_of
from ...warnings import Warnings
from ..rate_limit import Buckets
from .connection import Connection, Request, Response, Rules, encoded, refusal
from .sockets import BACKLOG, Address, listener, plain_source

CHECK_S = 5.0
LEAVE_S = 1.0
TOPIC = "peers at "


class Server:
    """Answers requests on a set of addresses that may change while it runs.

    `paths` maps a path to its methods; others never reach the handler. `burst` requests of one
    source are taken at once and `rate_per_s` in the long run; a request has `request_s` in all.
    `refused` hears the code of each request that never reached the handler. An address that can't
    be listened on is a warning, and is tried again by itself. `close` must be called in the end.
    """

    def __init__(
        self,
        handler: Callable[[Request], Awaitable[Response]],
        paths: Mapping[str, Collection[str]],
        warnings: Warnings,
        *,
        most_connections: int = 64,
        burst: int = 20,
        rate_per_s: float = 5.0,
        request_s: float = 5.0,
        refused: Callable[[str], None] = lambda code: None,
    ) -> None:
        self._warnings = warnings
        self._rules = Rules(handler, paths, request_s, refused)
        self._most_connections = most_connections
        self._buckets = Buckets(burst, rate_per_s)
        self._connections: dict[Connection, None] = {}  # the oldest first
        self._wanted: tuple[Address, ...] = ()
        self._listeners: dict[Address, tuple[socket.socket, int]] = {}
        self._leaving: deque[tuple[float, socket.socket]] = deque()
        self._check: asyncio.TimerHandle | None = None

    def listen(self, addresses: Sequence[Address]) -> None:
        """Listen on these addresses and no others; those that stay are not interrupted, nor is any
        request.
        """
        self._wanted = tuple(addresses)
        self._listen()

    async def close(self) -> None:
        if self._check is not None:
            self._check.cancel()
        for address in list(self._listeners):
            self._drop(address)
        while self._leaving:
            self._leaving.popleft()[1].close()
        tasks = [connection.task for connection in self._connections]
        for connection in list(self._connections):
            connection.end()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _listen(self) -> None:
        """Bring the listeners to what is wanted, every few seconds: a device may be made anew."""
        if self._check is not None:
            self._check.cancel()
        for address, (_, index) in list(self._listeners.items()):
            if address not in self._wanted or index_of(address[2]) != index:
                self._drop(address)
        loop = asyncio.get_running_loop()
        faults = {}
        for address in self._wanted:
            if address in self._listeners:
                continue
            try:
                sock = listener(address)
            except OSError as error:
                faults[_place(address)] = _fault(address, error)
            else:
                self._listeners[address] = sock, index_of(address[2])
                loop.add_reader(sock.fileno(), self._accept, sock, address)
        self._warnings.replace(TOPIC, faults)
        self._check = loop.call_later(CHECK_S, self._listen)

    def _drop(self, address: Address) -> None:
        sock, _ = self._listeners.pop(address)
        asyncio.get_running_loop().remove_reader(sock.fileno())
        sock.close()

    def _accept(self, sock: socket.socket, address: Address) -> None:
        now_s = asyncio.get_running_loop().time()
        for _ in range(BACKLOG):
            try:
                accepted, peer = sock.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:  # no descriptors are left: the loop would spin without a pause
                self._drop(address)
                self._warnings.set(TOPIC + _place(address), _fault(address, error))
                return
            accepted.setblocking(False)
            source = plain_source(peer[0])
            if not self._buckets.take(source, now_s):
                self._turn_away(accepted, 429)
            elif not self._has_room():
                self._turn_away(accepted, 503)
            else:
                connection = Connection(accepted, source, address[2], self._rules)
                self._connections[connection] = None
                forget = functools.partial(self._connections.pop, connection)
                connection.task.add_done_callback(forget)

    def _turn_away(self, sock: socket.socket, status: int) -> None:
        """Answer a connection that gets no place, and close it once the answer can be read.

        A close at once would be a reset where the request comes later, and take the answer along.
        """
        answer = refusal(status, self._rules)
        with contextlib.suppress(OSError):
            sock.send(encoded(answer))
            sock.shutdown(socket.SHUT_WR)
        loop = asyncio.get_running_loop()
        if not self._leaving:
            loop.call_later(LEAVE_S, self._let_go)
        self._leaving.append((loop.time(), sock))
        if len(self._leaving) > self._most_connections:
            self._leaving.popleft()[1].close()

    def _let_go(self) -> None:
        loop = asyncio.get_running_loop()
        while self._leaving and loop.time() - self._leaving[0][0] >= LEAVE_S:
            self._leaving.popleft()[1].close()
        if self._leaving:
            loop.call_later(LEAVE_S, self._let_go)

    def _has_room(self) -> bool:
        """Whether one more connection fits; the oldest that waits for its peer gives way."""
        if len(self._connections) < self._most_connections:
            return True
        waiting = next((c for c in self._connections if c.work is None), None)
        if waiting is not None:
            waiting.end()
            del self._connections[waiting]
        return waiting is not None


def _place(address: Address) -> str:
    host, port, device = address
    return f"{host} port {port}" + (f" of {device}" if device else "")


def _fault(address: Address, error: OSError) -> str:
    reason = of_system(error) if error.strerror else because("bad_address")
    return because("not_listening", _place(address), reason)
