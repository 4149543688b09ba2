"""A small bus for machines without ubusd: the same socket protocol, served from the event loop.

The mode of the socket's file says who may use it. What messages mean is router.py's.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import socket
import stat
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...errors import BusError
from ...ubus.framing import MAX_MESSAGE, FrameReader
from .router import Peer, Router


class Broker:
    """Serves a bus at a path from `start` to `close`, inside the running event loop."""

    def __init__(self, socket_path: str, *, mode: int = 0o600) -> None:
        self._path = Path(socket_path)
        self._mode = mode
        self._router = Router()
        self._connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None
        self._file: tuple[int, int] | None = None

    async def start(self) -> None:
        """Listen. A socket file that nobody serves is replaced.

        Raises BusError where somebody serves it, where it is no socket, or where its directory
        can't be used.
        """
        directory = self._path.parent
        try:
            directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise BusError(f"can't use {directory} for the bus: {error.strerror}") from error
        try:
            # The directory is locked so that two brokers never replace each other's new socket.
            await _lock(lock, directory)
            listener = listen_at(self._path, self._mode)
        finally:
            os.close(lock)
        self._file = _identity(self._path)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(
            lambda: _Connection(self._router, self._connections), sock=listener
        )

    async def close(self) -> None:
        """Drop all clients, stop listening and remove the socket's file if it is still ours."""
        server, self._server = self._server, None
        if server is not None:
            with suppress(OSError):
                if _identity(self._path) == self._file:
                    self._path.unlink()
            server.close()
        for connection in list(self._connections):
            connection.drop()
        self._router = Router()


class _Connection(asyncio.Protocol):
    """One client. What it does not read waits, up to a message's size, and then gets lost."""

    def __init__(self, router: Router, connections: set[_Connection]) -> None:
        self._router = router
        self._connections = connections
        self._reader = FrameReader()

    def connection_made(self, transport: Any) -> None:
        self._transport: asyncio.Transport = transport
        self._connections.add(self)
        user, group = _names(transport.get_extra_info("socket"))
        self._peer: Peer = self._router.join(user, group, self._send)

    def data_received(self, data: bytes) -> None:
        """Take messages; a client that sends none loses its connection."""
        try:
            for message in self._reader.feed(data):
                self._router.receive(self._peer, message)
        except BusError:
            self.drop()

    def connection_lost(self, _: Exception | None) -> None:
        self.drop()

    def drop(self) -> None:
        """Forget the client, and what still waits for it."""
        self._transport.abort()
        self._connections.discard(self)
        self._router.leave(self._peer)

    def _send(self, data: bytes, whole: bool) -> None:
        if self._transport.is_closing():
            return  # each try would be a line in the log (asyncio/selector_events.py)
        waiting = self._transport.get_write_buffer_size()
        if whole or not waiting or waiting + len(data) <= MAX_MESSAGE:
            self._transport.write(data)


def listen_at(path: Path, mode: int) -> socket.socket:
    """A listening socket at a path whose file never has a wider mode than `mode`.

    Raises BusError where the path is served already, is no socket, or can't be written.
    """
    _clear(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listener.setblocking(False)
        # Linux gives the file the mode that the unbound socket has (unix_bind, af_unix.c).
        os.fchmod(listener.fileno(), mode)
        listener.bind(str(path))
        path.chmod(mode)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise BusError(f"can't listen at {path}: {error.strerror or error}") from error
    return listener


def _clear(path: Path) -> None:
    """Remove a socket file that nobody serves."""
    try:
        kind = path.lstat().st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(kind):
        raise BusError(f"{path} exists and is no socket; remove it or choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except OSError as error:
            if error.errno == errno.ENOENT:
                return
            if error.errno not in (errno.EAGAIN, errno.EINPROGRESS):
                raise BusError(f"can't tell who serves {path}: {error.strerror}") from error
    raise BusError(f"a bus is served at {path} already; use it, or stop it first")


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


async def _lock(descriptor: int, directory: Path) -> None:
    for _ in range(40):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            await asyncio.sleep(0.05)
        except OSError:
            # Some file systems have no locks; without one only the rare race is left.
            return
    raise BusError(f"{directory} stays locked by another process; is a second broker starting?")


def _names(sock: socket.socket) -> tuple[str, str]:
    import grp
    import pwd

    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, gid = struct.unpack("3i", data)
    user, group = str(uid), str(gid)
    with suppress(KeyError):
        user = pwd.getpwuid(uid).pw_name
    with suppress(KeyError):
        group = grp.getgrgid(gid).gr_name
    return user, group
