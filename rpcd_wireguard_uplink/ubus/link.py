"""A non-blocking socket on the event loop, read and written directly.

Used instead of asyncio's transports because they cost memory and a turn of the loop for each reply.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

_CHUNK = 65536
# 64 callers get a large reply each: what finds no room costs several turns of the loop. The kernel
# gives what net.core.wmem_max allows, twice over (socket(7)); only what waits takes memory.
_SEND_BUFFER = 1 << 20


class Link:
    """Calls `received` with bytes as they arrive and `lost` once when the other side is gone.

    Neither is called from inside `send`, nor after `close`.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        limit: int,
        received: Callable[[bytes], None],
        lost: Callable[[], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._limit = limit
        self._received = received
        self._lost = lost
        self._waiting = bytearray()
        self._open = True
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        self._loop.add_reader(sock.fileno(), self._readable)

    def send(self, data: bytes) -> bool:
        """Send now what the socket takes and keep the rest for later.

        Returns False, and sends nothing, where the bytes that wait would exceed the limit.
        """
        if not self._open:
            return True
        sent = 0
        if not self._waiting:
            try:
                sent = self._sock.send(data)
            except (BlockingIOError, InterruptedError):
                pass
            except OSError:
                self._loop.call_soon(self._fail)
                return True
            if sent == len(data):
                return True
        if not sent and len(self._waiting) + len(data) > self._limit:
            return False
        if not self._waiting:
            self._loop.add_writer(self._sock.fileno(), self._writable)
        self._waiting += memoryview(data)[sent:]
        return True

    def close(self) -> None:
        """Stop and close the socket; what was not sent is lost."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._sock.fileno())
            self._loop.remove_writer(self._sock.fileno())
            self._sock.close()
            self._waiting.clear()

    def _fail(self) -> None:
        if self._open:
            self.close()
            self._lost()

    def _readable(self) -> None:
        try:
            data = self._sock.recv(_CHUNK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if data:
            self._received(data)
        else:
            self._fail()

    def _writable(self) -> None:
        try:
            sent = self._sock.send(memoryview(self._waiting)[:_CHUNK])
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._fail()
            return
        del self._waiting[:sent]
        if not self._waiting:
            self._loop.remove_writer(self._sock.fileno())
