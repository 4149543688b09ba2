"""The client's side of the bus without I/O: bytes in, events out, bytes to send.

A Connection is what one connection knows: our client id, the requests that wait for an answer, the
ids of the objects that are published over it. A new connection starts with a new Connection.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from struct import Struct
from typing import Any, NamedTuple

from ..errors import BusError, MessageTooLarge, Status
from ..values import dataclass
from .blobmsg import Encoded, encode_table, text_of
from .framing import (
    EVENT_OBJECT,
    MAX_MESSAGE,
    Attr,
    FrameReader,
    Message,
    MessageType,
    frame,
    frame_parts,
    parse_attributes,
    put_flag,
    put_number,
    put_raw,
    put_string,
    raw_parts,
)
from .objects import BusObject, Call, Caller, Listener, Reply

FORWARDING_SLACK = 4096
"""ubusd adds USER and GROUP to an INVOKE and forwards it even where that passes the limit."""


# Callers ask the same again and again: what their bytes mean, and what answers them, is remembered.
REMEMBERED_BYTES = 512
MAX_REPEATED = 16
MAX_KEPT = 1 << 16

_SEQ_PEER = Struct(">HI")

# As plain numbers: to read a member of an enumeration takes as long as all else of a comparison.
_HELLO, _STATUS, _DATA = map(int, (MessageType.HELLO, MessageType.STATUS, MessageType.DATA))
_INVOKE, _UNSUBSCRIBE = int(MessageType.INVOKE), int(MessageType.UNSUBSCRIBE)
_STATUS_START, _DATA_START = bytes((0, _STATUS)), bytes((0, _DATA))  # version and type


class Request(NamedTuple):
    """A request that was made: its number, and the bytes to send for it."""

    seq: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Connected:
    """The bus has greeted us; requests may be made."""

    client_id: int


@dataclass(frozen=True, slots=True)
class Completed:
    """A request is answered. `by_bus` tells an answer of the bus itself from one of an object."""

    seq: int
    status: int
    replies: list[dict[int, Any]]
    by_bus: bool

    def tables(self) -> list[bytes]:
        return [reply[Attr.DATA] for reply in self.replies if Attr.DATA in reply]

    def object_ids(self) -> list[int]:
        return [reply[Attr.OBJID] for reply in self.replies if Attr.OBJID in reply]


class Invoked(NamedTuple):
    """Somebody calls one of our objects, or an event or notification is delivered to it."""

    target: BusObject | Listener | None
    seq: int
    peer: int
    object_id: int
    method: str
    data: bytes | None
    user: str | None
    group: str | None
    no_reply: bool

    def call(self, path: str, arguments: dict[str, Any]) -> Call:
        """It as what a handler takes."""
        return Call(path, self.method, arguments, Caller(self.user, self.group, self.peer))


@dataclass(frozen=True, slots=True)
class Unsubscribed:
    """An object that `object_id` of ours was subscribed to is gone."""

    object_id: int
    target_id: int


Event = Connected | Completed | Invoked | Unsubscribed


@dataclass(frozen=True, slots=True)
class _Pending:
    """A request that waits for its STATUS, and what its success means for our objects."""

    peer: int
    publishes: BusObject | Listener | None
    removes: int | None
    replies: list[dict[int, Any]]


class Connection:
    """One conversation with the bus."""

    def __init__(self) -> None:
        self.client_id: int | None = None
        self.objects: dict[int, BusObject | Listener] = {}
        self._reader = FrameReader(MAX_MESSAGE + FORWARDING_SLACK)
        self._pending: dict[int, _Pending] = {}
        self._repeated: dict[bytes, tuple[int, str, Mapping[str, Reply]]] = {}
        self._seq = 0

    # --- what arrives

    def repeat(self, data: bytes) -> bytes | None:
        """Return the bytes that answer what arrived, or None where it has to be received.

        What is answered here is a call of which all but seq and peer came before, and for which its
        object has a reply.
        """
        if len(data) > REMEMBERED_BYTES or self._reader.pending:
            return None
        call = self._repeated.get(data[:2] + data[8:])
        if call is None:
            return None
        object_id, method, replies = call
        reply = replies.get(method)
        return None if reply is None else _answer(data[2:8], object_id, reply)

    def receive(self, data: bytes) -> list[Event]:
        """Take bytes as they arrive, in any split, and return what they mean.

        Raises BusError where they are no ubus messages: the connection is of no use then.
        """
        events = (self._understand(message) for message in self._reader.feed(data))
        return [event for event in events if event is not None]

    def _understand(self, message: Message) -> Event | None:
        kind = message.type
        if self.client_id is None:
            if kind != _HELLO:
                raise BusError("the bus did not greet first; is the socket ubusd's?")
            self.client_id = message.peer
            return Connected(message.peer)
        if kind == _INVOKE:
            is_small = len(message.body) <= REMEMBERED_BYTES
            asked = (_asked if is_small else _asked.__wrapped__)(message.body)
            if asked is None:
                return None
            invoked = Invoked(self.objects.get(asked[0]), message.seq, message.peer, *asked)
            if is_small and invoked.data == b"" and not invoked.no_reply:
                self._note(invoked, message.body)
            return invoked
        attributes = parse_attributes(message.body)
        if kind in (_STATUS, _DATA):
            return self._answered(message, attributes)
        if kind == _UNSUBSCRIBE and Attr.OBJID in attributes and Attr.TARGET in attributes:
            return Unsubscribed(attributes[Attr.OBJID], attributes[Attr.TARGET])
        return None

    def _note(self, invoked: Invoked, body: bytes) -> None:
        """Remember a call without arguments, where its object has a reply for it."""
        target, method = invoked.target, invoked.method
        if isinstance(target, BusObject) and method in target.replies:
            if len(self._repeated) >= MAX_REPEATED:
                self._repeated.clear()
            known = frame(_INVOKE, 0, 0, body)
            self._repeated[known[:2] + known[8:]] = invoked.object_id, method, target.replies

    def _answered(self, message: Message, attributes: dict[int, Any]) -> Completed | None:
        pending = self._pending.get(message.seq)
        if pending is None or pending.peer != message.peer:
            return None
        if message.type == _DATA:
            pending.replies.append(attributes)
            # Calls may follow this message at once, so the id counts from here and not from the
            # STATUS behind it (ubus_add_object_cb, libubus-obj.c).
            if pending.publishes is not None and Attr.OBJID in attributes:
                self.objects[attributes[Attr.OBJID]] = pending.publishes
            return None
        del self._pending[message.seq]
        status = attributes.get(Attr.STATUS, int(Status.INVALID_ARGUMENT))
        if pending.removes is not None and status == Status.OK:
            self.objects.pop(pending.removes, None)
            self._repeated.clear()
        return Completed(message.seq, status, pending.replies, Attr.OBJID not in attributes)

    def forget(self, seq: int) -> None:
        """Drop a request that nobody waits for any more; a late answer is ignored."""
        self._pending.pop(seq, None)

    # --- requests

    def _request(
        self,
        kind: MessageType,
        peer: int,
        *body: bytes,
        publishes: BusObject | Listener | None = None,
        removes: int | None = None,
    ) -> Request:
        if len(self._pending) >= 0x8000:
            raise BusError("too many calls are waiting for an answer; is the bus stuck?")
        self._seq = self._seq % 0xFFFF + 1
        while self._seq in self._pending:
            self._seq = self._seq % 0xFFFF + 1
        data = frame(kind, self._seq, peer, b"".join(body))
        self._pending[self._seq] = _Pending(peer, publishes, removes, [])
        return Request(self._seq, data)

    def ping(self) -> Request:
        return self._request(MessageType.PING, 0)

    def lookup(self, pattern: str | None = None) -> Request:
        """Ask for the objects at a path, at a prefix ending in *, or for all of them."""
        body = b"" if pattern is None else put_string(Attr.OBJPATH, _wire_text(pattern))
        return self._request(MessageType.LOOKUP, 0, body)

    def invoke(self, object_id: int, method: str, arguments: bytes) -> Request:
        """Call a method with an encoded table. Raises MessageTooLarge."""
        return self._request(
            MessageType.INVOKE,
            object_id,
            put_number(Attr.OBJID, object_id),
            put_string(Attr.METHOD, _wire_text(method)),
            put_raw(Attr.DATA, arguments),
        )

    def add_object(self, target: BusObject | Listener) -> Request:
        """Publish an object, or make a nameless one that events can be delivered to."""
        body = b""
        if isinstance(target, BusObject):
            body = put_string(Attr.OBJPATH, _wire_text(target.path))
            body += put_raw(Attr.SIGNATURE, target.signature())
        return self._request(MessageType.ADD_OBJECT, 0, body, publishes=target)

    def remove_object(self, object_id: int) -> Request:
        body = put_number(Attr.OBJID, object_id)
        return self._request(MessageType.REMOVE_OBJECT, 0, body, removes=object_id)

    def subscribe(self, object_id: int, target_id: int) -> Request:
        """Have another object's notifications delivered to our `object_id`."""
        body = put_number(Attr.OBJID, object_id) + put_number(Attr.TARGET, target_id)
        return self._request(MessageType.SUBSCRIBE, 0, body)

    def listen(self, object_id: int, pattern: str) -> Request:
        """Have events that match a name, or a prefix ending in *, delivered to `object_id`."""
        signed = object_id - (1 << 32) if object_id >> 31 else object_id
        table = encode_table({"object": signed, "pattern": pattern})
        return self.invoke(EVENT_OBJECT, "register", table)

    def send_event(self, name: str, data: bytes) -> Request:
        """Send an event to all who listen for its name, with an encoded table."""
        table = encode_table({"id": name, "data": Encoded(data)})
        return self.invoke(EVENT_OBJECT, "send", table)

    # --- bytes that nobody answers

    def notify(self, object_id: int, name: str, data: bytes) -> bytes:
        """The bytes that tell our object's subscribers something; they do not answer."""
        body = put_number(Attr.OBJID, object_id) + put_string(Attr.METHOD, _wire_text(name))
        body += put_raw(Attr.DATA, data) + put_flag(Attr.NO_REPLY, True)
        return frame(MessageType.NOTIFY, 0, object_id, body)

    def reply(self, invoked: Invoked, reply: Reply) -> bytes:
        """The bytes that answer a call, now or later: DATA if there is any, then STATUS.

        The order is what a caller needs: data behind a STATUS is lost. A reply over the bus's
        limit becomes a table that says so and NO_MEMORY, because sending it would cost us the
        connection. Raises BusError where the data can't be encoded.
        """
        if invoked.no_reply:
            return b""
        seq_peer = _SEQ_PEER.pack(invoked.seq, invoked.peer)
        return _answer(seq_peer, invoked.object_id, reply)


@lru_cache(maxsize=64)
def _asked(body: bytes) -> tuple[int, str, bytes | None, str | None, str | None, bool] | None:
    """What an INVOKE says: the object's id, the method, its arguments, who calls, no_reply."""
    found = parse_attributes(body)
    if Attr.OBJID not in found:
        return None
    user, group = found.get(Attr.USER), found.get(Attr.GROUP)
    return (
        found[Attr.OBJID],
        text_of(found.get(Attr.METHOD, b"")),
        found.get(Attr.DATA),
        None if user is None else text_of(user),
        None if group is None else text_of(group),
        bool(found.get(Attr.NO_REPLY)),
    )


def _answer(seq_peer: bytes, object_id: int, reply: Reply) -> bytes:
    """The frames of a reply: DATA where it has any, then STATUS."""
    table, status = reply
    if table is None:
        return b"".join((_STATUS_START, seq_peer, _ended(object_id, status)))
    is_kept = isinstance(table, Encoded) and len(table) <= MAX_KEPT  # Encoded: more than once
    told = _told_again if is_kept else _told
    try:
        data = told(object_id, encode_table(table))
    except MessageTooLarge as error:
        sentence = f"the reply is too large for the bus ({MAX_MESSAGE} bytes); ask for less"
        table = {"success": False, "error": sentence, "code": error.code}
        return _answer(seq_peer, object_id, Reply(table, error.status))
    ended = _ended(object_id, status)
    return b"".join((_DATA_START, seq_peer, *data, _STATUS_START, seq_peer, ended))


def _told(object_id: int, table: Encoded) -> tuple[bytes, ...]:
    """A DATA frame behind its seq and peer, in pieces: tables may be large, and are there once."""
    data = raw_parts(Attr.DATA, table)
    head, *body = frame_parts(_DATA, 0, 0, put_number(Attr.OBJID, object_id), *data)
    return head[8:], *body


@lru_cache(maxsize=2)
def _told_again(object_id: int, table: Encoded) -> tuple[bytes, ...]:
    return (b"".join(_told(object_id, table)),)


@lru_cache(maxsize=16)
def _ended(object_id: int, status: int) -> bytes:
    """A STATUS frame behind its seq and peer."""
    body = put_number(Attr.STATUS, status) + put_number(Attr.OBJID, object_id)
    return frame(_STATUS, 0, 0, body)[8:]


def _wire_text(text: str) -> bytes:
    try:
        raw = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise BusError("a name on the bus must be valid Unicode") from error
    if 0 in raw:
        raise BusError("a name on the bus can't hold a NUL byte")
    return raw
