"""ICMP echo probes bound to one device. Sends and drains; keeps no time and judges nothing.

Raw sockets, because the kernel's ping sockets are off by default (ping_group_range). A probe of a
path carries a mark of its own, so that no diversion leads it into a tunnel.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Sequence
from dataclasses import field

from ..errors import NotSupported
from ..model import Family
from ..reasons import because, of_system
from ..system.sockets import bound_socket
from ..values import dataclass
from .targets import hops_of

_ECHO = struct.Struct("!BBHHH")
_ICMP_FILTER = 1  # linux/icmp.h
_ICMP6_FILTER = 1  # linux/icmpv6.h
_SOL_RAW = 255  # linux/socket.h
ANY = {Family.IPV4: "0.0.0.0", Family.IPV6: "::"}  # noqa: S104 (never bound to)
_DISCOVER = {Family.IPV4: (socket.IPPROTO_IP, 10), Family.IPV6: (socket.IPPROTO_IPV6, 23)}  # in.h
_PMTUDISC_PROBE = 3  # linux/in.h: never cut, and no estimate of the path's MTU counts
_HEADERS = {Family.IPV4: 20 + _ECHO.size, Family.IPV6: 40 + _ECHO.size}
_REQUEST = {Family.IPV4: 8, Family.IPV6: 128}
_REPLY = {Family.IPV4: 0, Family.IPV6: 129}
# With 4 bytes an IPv4 probe fills two of the blocks of 16 that WireGuard pads to, with 8 it would
# take a third.
_TOKEN_BYTES = {Family.IPV4: 4, Family.IPV6: 8}
# An echo, padded to 16, with 32 of WireGuard, UDP and IPv6 around it; both ways.
PROBE_BYTES = {Family.IPV4: 2 * (32 + 32 + 48), Family.IPV6: 2 * (64 + 32 + 48)}
RECVTTL = {Family.IPV4: (socket.IPPROTO_IP, 12), Family.IPV6: (socket.IPPROTO_IPV6, 51)}  # in.h
_TTL_TOLD = {(socket.IPPROTO_IP, 2), (socket.IPPROTO_IPV6, 52)}  # IP_TTL, IPV6_HOPLIMIT


def checksum(data: bytes) -> int:
    """The internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def echo_request(family: Family, ident: int, sequence: int, payload: bytes) -> bytes:
    """An echo request; for IPv6 the kernel fills in the checksum (RFC 3542, section 3.1)."""
    kind = _REQUEST[family]
    bare = _ECHO.pack(kind, 0, 0, ident, sequence) + payload
    if family is Family.IPV6:
        return bare
    return _ECHO.pack(kind, 0, checksum(bare), ident, sequence) + payload


def parse_reply(family: Family, packet: bytes) -> tuple[int, int, bytes] | None:
    """(ident, sequence, payload) of an echo reply as a raw socket gives it, else None."""
    if family is Family.IPV4:
        if len(packet) < 20:
            return None
        packet = packet[(packet[0] & 0x0F) * 4 :]
    if len(packet) < _ECHO.size:
        return None
    kind, code, _, ident, sequence = _ECHO.unpack_from(packet)
    if kind != _REPLY[family] or code != 0:
        return None
    return ident, sequence, packet[_ECHO.size :]


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: `hops` is how many routers it passed (None where that isn't known), `length` its
    bytes with the IP header, 0 where that says nothing.
    """

    sequence: int
    hops: int | None = None
    length: int = 0


@dataclass(slots=True)
class Prober:
    """Probes through one device in one family. Raises NotSupported where it may not open sockets.

    Replies count only if they carry the identifier and the random token of this prober.
    """

    device: str
    family: Family
    _socket: socket.socket | None = None
    _ident: int = field(default_factory=lambda: int.from_bytes(os.urandom(2), "big"))
    _token: bytes = b""
    _sequence: int = 0

    def __post_init__(self) -> None:
        self._token = os.urandom(_TOKEN_BYTES[self.family])

    def open(self, source: str = "") -> int:
        """Open the socket, bound to the device as it is now; returns its descriptor.

        `source` is the address that probes leave with, '' for what the kernel takes: where default
        routes are for a WAN's own sources only (`default from PREFIX`), it would take another
        WAN's.
        """
        self.close()
        v4 = self.family is Family.IPV4
        protocol = socket.IPPROTO_ICMP if v4 else socket.IPPROTO_ICMPV6
        try:
            sock = bound_socket(self.device, ANY[self.family], socket.SOCK_RAW, protocol)
            self._socket = sock
            _accept_only_replies(sock, self.family)
            if source:
                sock.bind((source, 0))
        except PermissionError as error:
            raise NotSupported(because("probes_need_root")) from error
        except OSError as error:
            self.close()
            raise NotSupported(because("no_probes", self.device, of_system(error))) from error
        return sock.fileno()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def send(self, target: str, size: int = 0) -> int | None:
        """Send one probe; its sequence number, or None where it can't leave.

        With `size` it has so many bytes, its IP header included, and must not be cut.
        """
        if self._socket is None:
            return None
        self._sequence = (self._sequence + 1) & 0xFFFF
        payload = self._token.ljust(size - _HEADERS[self.family], b"\0")
        packet = echo_request(self.family, self._ident, self._sequence, payload)
        try:
            if size:
                self._socket.setsockopt(*_DISCOVER[self.family], _PMTUDISC_PROBE)
            self._socket.sendto(packet, (target, 0))
        except OSError:
            return None
        return self._sequence

    def drain(self) -> list[Reply]:
        found: list[Reply] = []
        for _ in range(256):
            if self._socket is None:
                break
            try:
                packet, hops = self._receive(self._socket)
            except OSError:
                break
            reply = parse_reply(self.family, packet)
            if reply is not None and reply[0] == self._ident and reply[2].startswith(self._token):
                length = len(reply[2]) + _HEADERS[self.family]
                found.append(Reply(reply[1], hops, length))
        return found

    def _receive(self, sock: socket.socket) -> tuple[bytes, int | None]:
        """A packet, and how many routers it passed."""
        if self.family is Family.IPV4:
            packet = sock.recv(2048)
            return packet, hops_of(packet[8]) if len(packet) >= 20 else None
        packet, told, _, _ = sock.recvmsg(2048, 64)
        return packet, hops_told(told)


def hops_told(ancillary: Sequence[tuple[int, int, bytes]]) -> int | None:
    """How many routers a packet passed, by the TTL or hop limit that came along with it."""
    for level, kind, data in ancillary:
        if (level, kind) in _TTL_TOLD and len(data) >= 4:
            return hops_of(int.from_bytes(data[:4], sys.byteorder))
    return None


def _accept_only_replies(sock: socket.socket, family: Family) -> None:
    if family is Family.IPV4:
        sock.setsockopt(_SOL_RAW, _ICMP_FILTER, struct.pack("=I", ~1 & 0xFFFFFFFF))
        return
    sock.setsockopt(*RECVTTL[family], 1)
    words = [0xFFFFFFFF] * 8
    words[_REPLY[family] >> 5] &= ~(1 << (_REPLY[family] & 31)) & 0xFFFFFFFF
    sock.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, struct.pack("=8I", *words))
