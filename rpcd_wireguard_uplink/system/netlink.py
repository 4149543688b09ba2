"""Netlink sockets: requests, dumps, and the events of multicast groups.

A batch is sent in one datagram and carried out in order. The kernel reports each message that it
refuses and, being asked for an acknowledgement, the last one. Requests wait for that in the caller:
it takes microseconds. Formats are those of linux/netlink.h, in the machine's byte order.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence

from ..errors import CommandFailed, TimedOut
from ..reasons import because, of_errno, of_system
from ..values import dataclass

HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # struct nlattr: length, type
_ERROR = struct.Struct("=i")

ROUTE, NETFILTER = 0, 12
ERROR, DONE = 2, 3
REQUEST, ACK, DUMP = 0x1, 0x4, 0x300
REPLACE, EXCL, CREATE, APPEND = 0x100, 0x200, 0x400, 0x800
NESTED = 0x8000
TYPE_MASK = 0x3FFF
TIMEOUT_S = 2.0
BUFFER = 1 << 20
DATAGRAM = 1 << 16
# The kernel's news of our changes carry our numbers: wireguard-go takes those up to 65,536 for the
# answers to its own questions (device/sticky_linux.go), and would not look its ways up again.
FIRST_SEQUENCE = 1 << 20
MOST_IN_BATCH = 200  # refusals of more would overflow a small receive buffer


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the kernel, or one request to it: type, flags and what follows the header.

    `port` is the socket's whose request made the kernel say so, 0 for the kernel's own news.
    """

    kind: int
    body: bytes
    flags: int = 0
    port: int = 0


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + b"\0" * (-length % 4)


def nested(kind: int, inner: Iterable[bytes]) -> bytes:
    return attribute(kind | NESTED, b"".join(inner))


def text(kind: int, value: str) -> bytes:
    """An attribute with a string and its NUL."""
    return attribute(kind, value.encode() + b"\0")


def number(kind: int, value: int) -> bytes:
    """An attribute with an unsigned 32-bit number in the machine's order."""
    return attribute(kind, struct.pack("=I", value))


def network_number(kind: int, value: int) -> bytes:
    """An attribute with an unsigned 32-bit number in network order."""
    return attribute(kind, struct.pack("!I", value))


def parse_attributes(data: bytes, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """(type, value) of each attribute; one that is cut off ends the iteration."""
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size or offset + length > len(data):
            return
        yield kind & TYPE_MASK, data[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3


def parse_messages(data: bytes) -> Iterator[tuple[int, Message]]:
    """(sequence, message) of a datagram; one that is cut off ends the iteration."""
    offset = 0
    while offset + HEADER.size <= len(data):
        length, kind, flags, sequence, port = HEADER.unpack_from(data, offset)
        if length < HEADER.size or offset + length > len(data):
            return
        yield sequence, Message(kind, data[offset + HEADER.size : offset + length], flags, port)
        offset += (length + 3) & ~3


def _reason_of(message: Message) -> str:
    return of_errno(code := _error_of(message), os.strerror(code))


def _error_of(message: Message) -> int:
    """The errno of an acknowledgement, 0 for success."""
    return -int(_ERROR.unpack_from(message.body)[0]) if len(message.body) >= 4 else errno.EBADMSG


class Netlink:
    """One socket for requests. Opened at the first use, and again after an error of its own."""

    def __init__(self, protocol: int) -> None:
        self._protocol = protocol
        self._socket: socket.socket | None = None
        self._port = 0
        self._sequence = FIRST_SEQUENCE

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def dump(self, kind: int, body: bytes) -> list[Message]:
        """All entries of a table. Raises CommandFailed where the kernel refuses."""
        first = self._send([Message(kind, body, DUMP)])
        found: list[Message] = []
        for _, message in self._answers(first, 1):
            if message.kind == DONE:
                return found
            if message.kind == ERROR:
                raise CommandFailed(because("netlink_dump", kind, _reason_of(message)))
            found.append(message)
        return found

    def ask(self, kind: int, body: bytes) -> Message:
        """The answer to one question. Raises CommandFailed where the kernel refuses."""
        first = self._send([Message(kind, body)])
        for _, message in self._answers(first, 1):
            if message.kind == ERROR:
                raise CommandFailed(because("netlink_request", kind, _reason_of(message)))
            return message
        raise TimedOut(because("kernel_silent"))

    def change(self, messages: Sequence[Message]) -> list[int]:
        """Carry out changes in order; the errno of each, 0 for success."""
        errors: list[int] = []
        for start in range(0, len(messages), MOST_IN_BATCH):
            part = list(messages[start : start + MOST_IN_BATCH])
            part[-1] = Message(part[-1].kind, part[-1].body, part[-1].flags | ACK)
            first = self._send(part)
            found = [0] * len(part)
            for sequence, message in self._answers(first, len(part)):
                if message.kind == ERROR:
                    found[sequence - first] = _error_of(message)
                    if sequence == first + len(part) - 1:
                        break
            errors += found
        return errors

    @property
    def port(self) -> int:
        """The port by which the kernel's news tell our changes from others'; 0 while closed."""
        return self._port if self._socket is not None else 0

    def _open(self) -> socket.socket:
        if self._socket is None:
            try:
                sock = socket.socket(
                    socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, self._protocol
                )
                sock.bind((0, 0))
            except OSError as error:
                raise CommandFailed(because("no_netlink", of_system(error))) from error
            sock.settimeout(TIMEOUT_S)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
            self._socket, self._port = sock, int(sock.getsockname()[0])
        return self._socket

    def _send(self, messages: Sequence[Message]) -> int:
        """Send them with numbers that follow one another; the first number."""
        first = self._sequence + 1
        packed = []
        for message in messages:
            self._sequence += 1
            length = HEADER.size + len(message.body)
            flags = message.flags | REQUEST
            packed.append(HEADER.pack(length, message.kind, flags, self._sequence, 0))
            packed.append(message.body + b"\0" * (-length % 4))
        if self._sequence > 0x7FFFFFFF:
            self._sequence = FIRST_SEQUENCE
        try:
            self._open().sendto(b"".join(packed), (0, 0))
        except OSError as error:
            self.close()
            raise CommandFailed(because("netlink_refused", of_system(error))) from error
        return first

    def _answers(self, first: int, count: int) -> Iterator[tuple[int, Message]]:
        while True:
            try:
                data = self._open().recv(DATAGRAM)
            except TimeoutError as error:
                self.close()
                raise TimedOut(because("netlink_silent")) from error
            except OSError as error:
                self.close()
                raise CommandFailed(because("netlink_lost", of_system(error))) from error
            for sequence, message in parse_messages(data):
                if first <= sequence < first + count:
                    yield sequence, message


class Events:
    """A socket that hears multicast groups, never blocking. Raises OSError where that is refused.

    With `on_news` the running loop watches it: that is called for each burst, and is to read().
    """

    def __init__(
        self, protocol: int, groups: int, on_news: Callable[[], None] | None = None
    ) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, protocol)
        self._loop: asyncio.AbstractEventLoop | None = None
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
            self._socket.bind((0, groups))
            if on_news is not None:
                self._loop = asyncio.get_running_loop()
                self._loop.add_reader(self._socket.fileno(), on_news)
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        if self._loop is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._loop = None
        self._socket.close()

    def read(self) -> tuple[list[Message], bool]:
        """What waits, and whether something was lost because too much came."""
        found: list[Message] = []
        for _ in range(256):
            try:
                data = self._socket.recv(DATAGRAM)
            except BlockingIOError:
                break
            except OSError:
                return found, True
            found += [message for _, message in parse_messages(data)]
        return found, False
