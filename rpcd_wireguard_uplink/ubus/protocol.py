"""The client's side of the bus without any I/O: bytes in, events out, bytes to send.

Owns what one connection knows: our client id, the requests that wait for an answer, the ids of the
objects that are published over it. A new connection starts with a new Connection. Knows nothing of
sockets, clocks, or of publishing again after a loss: that is client.py's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..errors import BusError, MessageTooLarge, Status
from .blobmsg import Encoded, encode_table, text_of
from .framing import (
    EVENT_OBJECT,
    MAX_MESSAGE,
    Attr,
    FrameReader,
    Message,
    MessageType,
    frame,
    parse_attributes,
    put_flag,
    put_number,
    put_raw,
    put_string,
)
from .objects import BusObject, Call, Caller, Listener, Reply

_FORWARDING_SLACK = 4096
"""ubusd adds USER and GROUP to an INVOKE and forwards it even where that passes the limit."""


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
        """Return the encoded tables that came with the answer."""
        return [reply[Attr.DATA] for reply in self.replies if Attr.DATA in reply]


@dataclass(frozen=True, slots=True)
class Invoked:
    """Somebody calls one of our objects, or an event or notification is delivered to it."""

    target: BusObject | Listener | None
    object_id: int
    seq: int
    peer: int
    method: str
    data: bytes | None
    user: str | None
    group: str | None
    no_reply: bool

    def call(self, path: str, arguments: dict[str, Any]) -> Call:
        """Return it as what a handler takes."""
        return Call(path, self.method, arguments, Caller(self.user, self.group, self.peer))


@dataclass(frozen=True, slots=True)
class Unsubscribed:
    """An object that `object_id` of ours was subscribed to is gone."""

    object_id: int
    target_id: int


@dataclass(frozen=True, slots=True)
class Activity:
    """The first subscriber of our object came, or the last one left."""

    object_id: int
    active: bool


@dataclass(frozen=True, slots=True)
class Monitored:
    """A message that the bus saw, as its monitor reports it (the blob without its header)."""

    body: bytes


Event = Connected | Completed | Invoked | Unsubscribed | Activity | Monitored


@dataclass(slots=True)
class _Pending:
    peer: int
    replies: list[dict[int, Any]] = field(default_factory=list)
    publishes: BusObject | Listener | None = None
    removes: int | None = None


class Connection:
    """One conversation with the bus."""

    def __init__(self) -> None:
        self.client_id: int | None = None
        self.objects: dict[int, BusObject | Listener] = {}
        self._reader = FrameReader(MAX_MESSAGE + _FORWARDING_SLACK)
        self._pending: dict[int, _Pending] = {}
        self._seq = 0

    def receive(self, data: bytes) -> list[Event]:
        """Take bytes as they arrive, in any split, and return what they mean.

        Raises BusError where they are no ubus messages: the connection is of no use then.
        """
        events = []
        for message in self._reader.feed(data):
            event = self._understand(message)
            if event is not None:
                events.append(event)
        return events

    def _understand(self, message: Message) -> Event | None:
        kind = message.type
        if self.client_id is None:
            if kind != MessageType.HELLO:
                raise BusError("the bus did not greet first; is the socket ubusd's?")
            self.client_id = message.peer
            return Connected(message.peer)
        if kind == MessageType.MONITOR:
            return Monitored(message.body)
        attributes = parse_attributes(message.body)
        if kind == MessageType.INVOKE:
            return self._invoked(message, attributes)
        if kind in (MessageType.STATUS, MessageType.DATA):
            return self._answered(message, attributes)
        object_id = attributes.get(Attr.OBJID)
        if object_id is None:
            return None
        if kind == MessageType.UNSUBSCRIBE and Attr.TARGET in attributes:
            return Unsubscribed(object_id, attributes[Attr.TARGET])
        if kind == MessageType.NOTIFY and Attr.ACTIVE in attributes:
            return Activity(object_id, bool(attributes[Attr.ACTIVE]))
        return None

    def _invoked(self, message: Message, attributes: dict[int, Any]) -> Invoked | None:
        object_id = attributes.get(Attr.OBJID)
        if object_id is None:
            return None
        user, group = attributes.get(Attr.USER), attributes.get(Attr.GROUP)
        return Invoked(
            self.objects.get(object_id),
            object_id,
            message.seq,
            message.peer,
            text_of(attributes.get(Attr.METHOD, b"")),
            attributes.get(Attr.DATA),
            None if user is None else text_of(user),
            None if group is None else text_of(group),
            bool(attributes.get(Attr.NO_REPLY)),
        )

    def _answered(self, message: Message, attributes: dict[int, Any]) -> Completed | None:
        pending = self._pending.get(message.seq)
        if pending is None or pending.peer != message.peer:
            return None
        if message.type == MessageType.DATA:
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
        return Completed(message.seq, status, pending.replies, Attr.OBJID not in attributes)

    def forget(self, seq: int) -> None:
        """Drop a request that nobody waits for any more; a late answer is ignored."""
        self._pending.pop(seq, None)

    def _request(self, kind: MessageType, peer: int, body: bytes) -> Request:
        if len(self._pending) >= 0x8000:
            raise BusError("too many calls are waiting for an answer; is the bus stuck?")
        self._seq = self._seq % 0xFFFF + 1
        while self._seq in self._pending:
            self._seq = self._seq % 0xFFFF + 1
        data = frame(kind, self._seq, peer, body)
        self._pending[self._seq] = _Pending(peer)
        return Request(self._seq, data)

    def ping(self) -> Request:
        """Ask the bus itself for a sign of life."""
        return self._request(MessageType.PING, 0, b"")

    def lookup(self, pattern: str | None) -> Request:
        """Ask for the objects at a path, at a prefix ending in *, or for all of them."""
        body = b"" if pattern is None else put_string(Attr.OBJPATH, _wire_text(pattern))
        return self._request(MessageType.LOOKUP, 0, body)

    def invoke(self, object_id: int, method: str, arguments: bytes) -> Request:
        """Call a method with an encoded table. Raises MessageTooLarge."""
        body = b"".join(
            (
                put_number(Attr.OBJID, object_id),
                put_string(Attr.METHOD, _wire_text(method)),
                put_raw(Attr.DATA, arguments),
            )
        )
        return self._request(MessageType.INVOKE, object_id, body)

    def add_object(self, target: BusObject | Listener) -> Request:
        """Publish an object, or make a nameless one that events can be delivered to."""
        body = b""
        if isinstance(target, BusObject):
            body = put_string(Attr.OBJPATH, _wire_text(target.path))
            body += put_raw(Attr.SIGNATURE, target.signature())
        request = self._request(MessageType.ADD_OBJECT, 0, body)
        self._pending[request.seq].publishes = target
        return request

    def remove_object(self, object_id: int) -> Request:
        """Take one of our objects off the bus."""
        request = self._request(MessageType.REMOVE_OBJECT, 0, put_number(Attr.OBJID, object_id))
        self._pending[request.seq].removes = object_id
        return request

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

    def notify(self, object_id: int, name: str, data: bytes) -> bytes:
        """Return the bytes that tell our object's subscribers something; nobody answers."""
        body = b"".join(
            (
                put_number(Attr.OBJID, object_id),
                put_string(Attr.METHOD, _wire_text(name)),
                put_raw(Attr.DATA, data),
                put_flag(Attr.NO_REPLY, True),
            )
        )
        return frame(MessageType.NOTIFY, 0, object_id, body)

    def reply(self, invoked: Invoked, reply: Reply) -> bytes:
        """Return the bytes that answer a call, now or later: DATA if there is any, then STATUS.

        The order is what a caller needs: data behind a STATUS is lost. A reply over the bus's
        limit becomes a table that says so and NO_MEMORY, because sending it would cost us the
        connection. Raises BusError where the data can't be encoded.
        """
        if invoked.no_reply:
            return b""
        owner = put_number(Attr.OBJID, invoked.object_id)
        data, status = b"", int(reply.status)
        if reply.data is not None:
            try:
                data = self._reply_data(invoked, owner, encode_table(reply.data))
            except MessageTooLarge as error:
                sentence = f"the reply is too large for the bus ({MAX_MESSAGE} bytes); ask for less"
                table = {"success": False, "error": sentence, "code": error.code}
                data = self._reply_data(invoked, owner, encode_table(table))
                status = int(error.status)
        body = put_number(Attr.STATUS, status) + owner
        return data + frame(MessageType.STATUS, invoked.seq, invoked.peer, body)

    def _reply_data(self, invoked: Invoked, owner: bytes, table: bytes) -> bytes:
        body = owner + put_raw(Attr.DATA, table)
        return frame(MessageType.DATA, invoked.seq, invoked.peer, body)


def _wire_text(text: str) -> bytes:
    try:
        raw = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise BusError("a name on the bus must be valid Unicode") from error
    if 0 in raw:
        raise BusError("a name on the bus can't hold a NUL byte")
    return raw
