"""Probes by DNS and TCP, for paths on which ICMP echo does not come through.

A DNS probe asks the target for the root's SOA record over UDP, a TCP probe connects to one of its
ports and resets the connection, an HTTP probe asks for a page that answers 204. Only what the far
end itself must have said counts: a record, an accepted connection, that answer. Refusals are cheap
to forge for whatever stands in between. All sockets are bound to one device, and one descriptor
tells of them all. Judges nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import select
import socket
import struct
import time
from dataclasses import field

from ..errors import NotSupported
from ..model import Family
from ..reasons import because, of_system
from ..system.dns import SOA, parse_answers, question
from ..system.sockets import bound_socket
from ..values import dataclass
from .icmp import ANY, RECVTTL, Reply, hops_told
from .probe_kind import ProbeKind

FIRST_SEQUENCE = 0x10000  # above every ICMP sequence number
PATIENCE_S = 3.0
MOST_PENDING = 32
_RESET = struct.pack("ii", 1, 0)  # struct linger: close resets, nothing stays behind
_TCP_SYNCNT = 7  # linux/tcp.h
_ERROR = (socket.SOL_SOCKET, socket.SO_ERROR)
_NO_CONTENT = re.compile(rb"HTTP/1\.[01] 204[ \r]")


@dataclass(frozen=True, slots=True)
class Page:
    """A page that answers 204 where there is no portal, at one of its host's addresses."""

    address: str
    port: int
    request: bytes


@dataclass(slots=True)
class _Connection:
    """One connection under way; with a `request` it is for the answer to that."""

    sequence: int
    sock: socket.socket
    sent_s: float
    request: bytes = b""
    is_asked: bool = False

    def ask(self) -> None:
        """Send the request. Raises OSError."""
        self.sock.send(self.request)
        self.is_asked = True


@dataclass(slots=True)
class ServiceProber:
    """DNS and TCP probes through one device in one family. `packets` is how many have come in for
    them, refusals and errors too.
    """

    device: str
    family: Family
    packets: int = 0
    _epoll: select.epoll | None = None
    _datagrams: socket.socket | None = None
    _asked: dict[int, tuple[int, str, float]] = field(default_factory=dict)
    _connecting: dict[int, _Connection] = field(default_factory=dict)
    _sequence: int = FIRST_SEQUENCE

    def open(self) -> int:
        """Open the sockets; returns the descriptor that becomes readable with an answer.

        Raises NotSupported where they can't be bound to the device.
        """
        self.close()
        try:
            sock = self._bound(socket.SOCK_DGRAM)
            sock.setsockopt(*RECVTTL[self.family], 1)
        except OSError as error:
            raise NotSupported(because("no_probes", self.device, of_system(error))) from error
        self._datagrams = sock
        self._epoll = select.epoll()
        self._epoll.register(sock.fileno(), select.EPOLLIN)
        return self._epoll.fileno()

    @property
    def descriptor(self) -> int:
        """What open() returned, -1 while it is not open."""
        return -1 if self._epoll is None else self._epoll.fileno()

    def close(self) -> None:
        for found in self._connecting.values():
            found.sock.close()
        self._connecting.clear()
        self._asked.clear()
        if self._datagrams is not None:
            self._datagrams.close()
            self._datagrams = None
        if self._epoll is not None:
            self._epoll.close()
            self._epoll = None

    def send(self, kind: ProbeKind, target: str, page: Page | None = None) -> int | None:
        """Send one probe; its sequence number, or None where it can't leave.

        HTTP goes to the page, whatever the target.
        """
        if self._datagrams is None:
            return None
        self._give_up(time.monotonic())
        self._sequence += 1
        try:
            if kind is ProbeKind.DNS:
                self._ask(self._datagrams, target)
            elif kind is ProbeKind.HTTP:
                if page is None:
                    return None
                self._connect(page.address, page.port, page.request)
            else:
                self._connect(target, kind.port)
        except OSError:
            return None
        return self._sequence

    def drain(self) -> list[Reply]:
        if self._epoll is None or self._datagrams is None:
            return []
        found = []
        for descriptor, _ in self._epoll.poll(0):
            if descriptor == self._datagrams.fileno():
                found += self._read(self._datagrams)
            else:
                found += self._go_on(self._epoll, self._connecting[descriptor])
        return found

    def _go_on(self, epoll: select.epoll, found: _Connection) -> list[Reply]:
        """What follows from an event of a connection."""
        descriptor, error = found.sock.fileno(), found.sock.getsockopt(*_ERROR)
        self.packets += error in (0, errno.ECONNREFUSED)
        is_good = not error
        try:
            if is_good and found.request and not found.is_asked:
                found.ask()
                epoll.modify(descriptor, select.EPOLLIN)
                return []
            if found.is_asked:
                is_good = bool(_NO_CONTENT.match(found.sock.recv(512)))
        except OSError:
            is_good = False
        self._drop(descriptor)
        return [Reply(found.sequence)] if is_good else []

    def _bound(self, kind: socket.SocketKind) -> socket.socket:
        return bound_socket(self.device, ANY[self.family], kind)

    def _ask(self, sock: socket.socket, target: str) -> None:
        number = int.from_bytes(os.urandom(2), "big")
        sock.sendto(question(number, "", SOA), (target, ProbeKind.DNS.port))
        self._asked[number] = self._sequence, target, time.monotonic()

    def _connect(self, target: str, port: int, request: bytes = b"") -> None:
        sock = self._bound(socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            sock.setsockopt(socket.IPPROTO_TCP, _TCP_SYNCNT, 1)
            with contextlib.suppress(BlockingIOError):
                sock.connect((target, port))
            assert self._epoll is not None
            self._epoll.register(sock.fileno(), select.EPOLLOUT)
        except OSError:
            sock.close()
            raise
        made = _Connection(self._sequence, sock, time.monotonic(), request)
        self._connecting[sock.fileno()] = made

    def _read(self, sock: socket.socket) -> list[Reply]:
        found = []
        for _ in range(64):
            try:
                packet, told, _, source = sock.recvmsg(2048, 64)
            except OSError:
                break
            self.packets += 1
            number = int.from_bytes(packet[:2], "big")
            sequence, target, _ = self._asked.get(number, (0, "", 0.0))
            records = parse_answers(packet, number) or ()
            if target == source[0] and any(kind == SOA for kind, _ in records):
                del self._asked[number]
                found.append(Reply(sequence, hops_told(told)))
        return found

    def _give_up(self, now_s: float) -> None:
        """Forget what nobody answered, and what is too much."""
        spare = max(0, len(self._connecting) - MOST_PENDING)
        for place, (descriptor, found) in enumerate(list(self._connecting.items())):
            if place < spare or found.sent_s < now_s - PATIENCE_S:
                self._drop(descriptor)
        for number in [n for n, (_, _, sent_s) in self._asked.items() if sent_s < now_s - 10.0]:
            del self._asked[number]

    def _drop(self, descriptor: int) -> None:
        self._connecting.pop(descriptor).sock.close()  # which takes it out of the epoll set too
