"""Frames of the bus: messages on a stream, and the attributes that they carry (ubusmsg.h).

For the client's and the broker's side. The reader takes bytes in any split.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from struct import Struct
from typing import Any, NamedTuple

from ..errors import BusError, MessageTooLarge

MAX_MESSAGE = 1 << 20
"""The blob of a message, its own header included, may have this many bytes (UBUS_MAX_MSGLEN)."""

_HEAD = Struct(">BBHII")
_U32 = Struct(">I")
_INT32 = Struct(">II")
_LENGTH = 0x00FFFFFF
_PADDING = (b"", b"\0", b"\0\0", b"\0\0\0")


class MessageType(IntEnum):
    """enum ubus_msg_type, ubusmsg.h."""

    HELLO = 0
    STATUS = 1
    DATA = 2
    PING = 3
    LOOKUP = 4
    INVOKE = 5
    ADD_OBJECT = 6
    REMOVE_OBJECT = 7
    SUBSCRIBE = 8
    UNSUBSCRIBE = 9
    NOTIFY = 10
    MONITOR = 11


class Attr(IntEnum):
    """enum ubus_msg_attr, ubusmsg.h."""

    STATUS = 1
    OBJPATH = 2
    OBJID = 3
    METHOD = 4
    OBJTYPE = 5
    SIGNATURE = 6
    DATA = 7
    TARGET = 8
    ACTIVE = 9
    NO_REPLY = 10
    SUBSCRIBERS = 11
    USER = 12
    GROUP = 13


_NUMBERS = frozenset({Attr.STATUS, Attr.OBJID, Attr.OBJTYPE, Attr.TARGET})
_FLAGS = frozenset({Attr.ACTIVE, Attr.NO_REPLY})
_STRINGS = frozenset({Attr.OBJPATH, Attr.METHOD, Attr.USER, Attr.GROUP})
_NESTED = frozenset({Attr.SIGNATURE, Attr.DATA, Attr.SUBSCRIBERS})

EVENT_OBJECT = 1
"""ubusd's own object for events (UBUS_SYSTEM_OBJECT_EVENT)."""
FIRST_ID = 1024
"""Ids below are ubusd's own (UBUS_SYSTEM_OBJECT_MAX)."""


class Message(NamedTuple):
    """One frame: header fields and the blob without its own four bytes."""

    type: int
    seq: int
    peer: int
    body: bytes


class FrameReader:
    """Cuts a stream into messages; what is incomplete is `pending` until more arrives."""

    def __init__(self, max_message: int = MAX_MESSAGE) -> None:
        self._max_message = max_message
        self.pending = bytearray()

    def feed(self, data: bytes) -> Iterator[Message]:
        """Yield the messages that are complete now; take them all before feeding more.

        Raises BusError at a header that ubus_validate_hdr (libubus-io.c) would not take, after the
        messages in front of it; the stream can't be read any further then.
        """
        if self.pending:
            self.pending += data
            if len(self.pending) < self._wanted():
                return
            data = bytes(self.pending)
            self.pending.clear()
        position, end = 0, len(data)
        while end - position >= 12:
            version, kind, seq, peer, head = _HEAD.unpack_from(data, position)
            self._check(version, head & _LENGTH)
            following = position + 8 + (head & _LENGTH)
            if following > end:
                break
            yield Message(kind, seq, peer, data[position + 12 : following])
            position = following
        if position < end:
            self.pending += data[position:]

    def _wanted(self) -> int:
        """Return how many bytes make the first pending message whole (at least its header)."""
        if len(self.pending) < 12:
            return 12
        version, _, _, _, head = _HEAD.unpack_from(self.pending)
        self._check(version, head & _LENGTH)
        return 8 + int(head & _LENGTH)

    def _check(self, version: int, length: int) -> None:
        if version != 0 or length < 4:
            raise BusError("what arrived is not a ubus message; is the socket ubusd's?")
        if (length + 3) & ~3 > self._max_message:
            raise BusError(f"a message of {length} bytes arrived; {self._max_message} are allowed")


def frame(kind: int, seq: int, peer: int, *body: bytes) -> bytes:
    """Return a message's bytes. Raises MessageTooLarge where the bus would cut the connection."""
    return b"".join(frame_parts(kind, seq, peer, *body))


def frame_parts(kind: int, seq: int, peer: int, *body: bytes) -> tuple[bytes, ...]:
    """Return them in pieces, the body as it is."""
    length = 4 + sum(map(len, body))
    if (length + 3) & ~3 > MAX_MESSAGE:
        raise _too_large(length)
    return _HEAD.pack(0, kind, seq & 0xFFFF, peer, length), *body


def _too_large(length: int) -> MessageTooLarge:
    return MessageTooLarge(
        f"a message of {length} bytes was not sent; the bus takes {MAX_MESSAGE} at most"
    )


def put_number(attr: int, value: int) -> bytes:
    return _INT32.pack(attr << 24 | 8, value & 0xFFFFFFFF)


def put_flag(attr: int, value: bool) -> bytes:
    return _U32.pack(attr << 24 | 5) + (b"\1\0\0\0" if value else b"\0\0\0\0")


def put_string(attr: int, value: bytes) -> bytes:
    return put_raw(attr, value + b"\0")


def put_raw(attr: int, value: bytes) -> bytes:
    """Return an attribute of these bytes (NESTED, DATA). Raises MessageTooLarge past 16 MiB."""
    return b"".join(raw_parts(attr, value))


def raw_parts(attr: int, value: bytes) -> tuple[bytes, bytes, bytes]:
    """Return it in pieces, the second of which is the value itself."""
    length = 4 + len(value)
    if length > _LENGTH:
        raise _too_large(length)
    return _U32.pack(attr << 24 | length), value, _PADDING[-length & 3]


def parse_attributes(body: bytes) -> dict[int, Any]:
    """Return a message's attributes: numbers and flags as int, strings and nested ones as bytes.

    What is unknown or has the wrong size is left out and a broken length ends the message, as in
    blob_parse_untrusted (blob.c): the programs at both ends expect it so.
    """
    found: dict[int, Any] = {}
    for attr, start, stop in _attributes_of(body):
        if attr in _NUMBERS:
            if stop - start == 4:
                (found[attr],) = _U32.unpack_from(body, start)
        elif attr in _STRINGS:
            value = body[start:stop]
            if value and value[-1] == 0:
                found[attr] = value[: value.index(0)]
        elif attr in _NESTED:
            found[attr] = body[start:stop]
        elif attr in _FLAGS and stop - start == 1:
            found[attr] = body[start]
    return found


def _attributes_of(body: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield (number, start, end) of each attribute of a blob, up to the first broken one."""
    position, end = 0, len(body)
    while end - position >= 4:
        (head,) = _U32.unpack_from(body, position)
        length = head & _LENGTH
        following = position + ((length + 3) & ~3)
        if length < 4 or following > end:
            return
        yield head >> 24 & 0x7F, position + 4, position + length
        position = following
