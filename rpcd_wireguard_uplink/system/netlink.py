"""Netlink sockets: requests with acknowledgements, dumps, and events of multicast groups.

A batch is sent in one datagram and answered message by message; the kernel carries it out in order.
Requests wait for their answer in the caller: the kernel answers within microseconds. Formats are
those of linux/netlink.h, in the machine's byte order.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..errors import CommandFailed, TimedOut

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
MOST_IN_BATCH = 200  # acknowledgements of more would overflow a small receive buffer


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the kernel, or one request to it: type, flags and what follows the header."""

    kind: int
    body: bytes
    flags: int = 0


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + b"\0" * (-length % 4)


def nested(kind: int, inner: Iterable[bytes]) -> bytes:
    """An attribute that holds attributes."""
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
        length, kind, flags, sequence, _ = HEADER.unpack_from(data, offset)
        if length < HEADER.size or offset + length > len(data):
            return
        yield sequence, Message(kind, data[offset + HEADER.size : offset + length], flags)
        offset += (length + 3) & ~3


def _error_of(message: Message) -> int:
    """The errno of an acknowledgement, 0 for success."""
    return -int(_ERROR.unpack_from(message.body)[0]) if len(message.body) >= 4 else errno.EBADMSG


class Netlink:
    """One socket for requests. Opened at the first use, and again after an error of its own."""

    def __init__(self, protocol: int) -> None:
        self._protocol = protocol
        self._socket: socket.socket | None = None
        self._sequence = FIRST_SEQUENCE

    def close(self) -> None:
        """Close the socket; the next use opens another."""
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
                raise CommandFailed(f"netlink dump {kind}: {os.strerror(_error_of(message))}")
            found.append(message)
        return found

    def ask(self, kind: int, body: bytes) -> Message:
        """The answer to one question. Raises CommandFailed where the kernel refuses."""
        first = self._send([Message(kind, body)])
        for _, message in self._answers(first, 1):
            if message.kind == ERROR:
                raise CommandFailed(f"netlink request {kind}: {os.strerror(_error_of(message))}")
            return message
        raise TimedOut("the kernel gave no answer")

    def change(self, messages: Sequence[Message]) -> list[int]:
        """Carry out changes in order; the errno of each, 0 for success."""
        errors: list[int] = []
        for start in range(0, len(messages), MOST_IN_BATCH):
            part = [
                Message(m.kind, m.body, m.flags | ACK)
                for m in messages[start : start + MOST_IN_BATCH]
            ]
            first = self._send(part)
            found = [0] * len(part)
            left = len(part)
            for sequence, message in self._answers(first, len(part)):
                if message.kind == ERROR:
                    found[sequence - first] = _error_of(message)
                    left -= 1
                if not left:
                    break
            errors += found
        return errors

    def send_batch(self, messages: Sequence[Message]) -> int:
        """Send a batch whose messages ask for acknowledgement themselves (nfnetlink).

        Returns the first errno that is not 0, or 0.
        """
        first = self._send(messages)
        left = sum(bool(m.flags & ACK) for m in messages)
        failed = 0
        for _, message in self._answers(first, len(messages)):
            if message.kind == ERROR:
                failed = failed or _error_of(message)
                left -= 1
            if left <= 0 or failed:
                break
        if failed:
            self.close()  # what else it has to say is of no interest
        return failed

    def _open(self) -> socket.socket:
        if self._socket is None:
            try:
                sock = socket.socket(
                    socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, self._protocol
                )
                sock.bind((0, 0))
            except OSError as error:
                raise CommandFailed(f"no netlink socket: {error.strerror}") from error
            sock.settimeout(TIMEOUT_S)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
            self._socket = sock
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
            raise CommandFailed(f"netlink request refused: {error.strerror}") from error
        return first

    def _answers(self, first: int, count: int) -> Iterator[tuple[int, Message]]:
        while True:
            try:
                data = self._open().recv(DATAGRAM)
            except TimeoutError as error:
                self.close()
                raise TimedOut("the kernel did not answer a netlink request") from error
            except OSError as error:
                self.close()
                raise CommandFailed(f"netlink answer lost: {error.strerror}") from error
            for sequence, message in parse_messages(data):
                if first <= sequence < first + count:
                    yield sequence, message


class Events:
    """A socket that hears multicast groups, never blocking."""

    def __init__(self, protocol: int, groups: int) -> None:
        sock = socket.socket(
            socket.AF_NETLINK,
            socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC,
            protocol,
        )
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        sock.bind((0, groups))
        self._socket = sock

    @property
    def descriptor(self) -> int:
        """For the event loop."""
        return self._socket.fileno()

    def close(self) -> None:
        """Stop hearing."""
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
