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

from ...errors import BusError
from ...ubus.framing import MAX_MESSAGE, FrameReader
from ...ubus.link import Link
from .router import Peer, Router

_ACCEPT_PAUSE_S = 0.5
_FULL = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Broker:
    """Serves a bus at a path from `start` to `close`, inside the running event loop."""

    def __init__(self, socket_path: str, *, mode: int = 0o600) -> None:
        self._path = Path(socket_path)
        self._mode = mode
        self._router = Router()
        self._links: set[Link] = set()
        self._listener: socket.socket | None = None
        self._file: tuple[int, int] | None = None
        self._pause: asyncio.TimerHandle | None = None

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
            self._listener = listen_at(self._path, self._mode)
        finally:
            os.close(lock)
        status = self._path.stat()
        self._file = (status.st_dev, status.st_ino)
        asyncio.get_running_loop().add_reader(self._listener.fileno(), self._accept)

    async def close(self) -> None:
        """Drop all clients, stop listening and remove the socket's file if it is still ours."""
        if self._pause is not None:
            self._pause.cancel()
        listener, self._listener = self._listener, None
        if listener is not None:
            asyncio.get_running_loop().remove_reader(listener.fileno())
            try:
                status = self._path.stat()
                if (status.st_dev, status.st_ino) == self._file:
                    self._path.unlink()
            except OSError:
                pass
            listener.close()
        for link in list(self._links):
            link.close()
        self._links.clear()
        self._router = Router()

    def _accept(self) -> None:
        if self._listener is None:
            return
        try:
            sock, _ = self._listener.accept()
        except OSError as error:
            if error.errno in _FULL:
                # Trying again at once would keep the loop busy without freeing anything.
                loop = asyncio.get_running_loop()
                loop.remove_reader(self._listener.fileno())
                self._pause = loop.call_later(_ACCEPT_PAUSE_S, self._accept_again)
            return
        self._admit(sock)

    def _accept_again(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().add_reader(self._listener.fileno(), self._accept)

    def _admit(self, sock: socket.socket) -> None:
        reader = FrameReader()
        router = self._router

        def received(data: bytes) -> None:
            try:
                for message in reader.feed(data):
                    router.receive(peer, message)
            except BusError:
                link.close()
                lost()

        def lost() -> None:
            self._links.discard(link)
            router.leave(peer)

        link = Link(
            sock,
            limit=MAX_MESSAGE,
            received=received,
            lost=lost,
            drained=lambda: router.drained(peer),
        )
        self._links.add(link)
        user, group = _names(sock)
        peer: Peer = router.join(user, group, link.send, lambda: link.idle)


def listen_at(path: Path, mode: int) -> socket.socket:
    """Return a listening socket at a path whose file never has a wider mode than `mode`.

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
    """The user and group of who is at the other end."""
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
