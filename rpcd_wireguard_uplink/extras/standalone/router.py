"""What a bus does with messages: objects, look-ups, calls, events, subscriptions. No I/O.

Answers as ubusd does, because programs rely on its habits; a rule names its function in
ubusd_proto.c, ubusd_obj.c or ubusd_event.c. There are no ACL files and no monitor, and no limits
but those of a message: whoever may use the bus is trusted with the machine.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import field
from typing import Any

from ...errors import BusError, MessageTooLarge, Status
from ...ubus.blobmsg import Type, encode_table, walk
from ...ubus.framing import (
    EVENT_OBJECT,
    FIRST_ID,
    MAX_MESSAGE,
    Attr,
    Message,
    MessageType,
    frame,
    parse_attributes,
    put_flag,
    put_number,
    put_raw,
    put_string,
)
from ...values import dataclass

MOST_DECLARED = MAX_MESSAGE // 2
"""A path and signature of this size can still be announced and looked up in one message."""

Attributes = dict[int, Any]


@dataclass(frozen=True, eq=False, slots=True)
class Peer:
    """A client of the bus. `send` drops a message where too much waits for the client already,
    unless it is told to send it all the same.
    """

    client_id: int
    user: bytes
    group: bytes
    send: Callable[[bytes, bool], None]
    objects: dict[int, PublishedObject] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, slots=True)
class Signature:
    """The methods that objects declare, shared by `users`, the ids of these objects."""

    type_id: int
    data: bytes
    users: set[int] = field(default_factory=set)


@dataclass(frozen=True, eq=False, slots=True)
class PublishedObject:
    """An object of a peer; without a path and a signature it only receives."""

    object_id: int
    owner: Peer
    path: bytes | None
    signature: Signature | None
    patterns: list[bytes] = field(default_factory=list)
    subscribers: list[PublishedObject] = field(default_factory=list)
    targets: list[PublishedObject] = field(default_factory=list)

    def hears(self, name: bytes) -> bool:
        """Whether one of its patterns fits an event's name."""
        return any(
            name.startswith(each[:-1]) if each.endswith(b"*") else name == each
            for each in self.patterns
        )


class _Refused(Exception):
    """A request is answered with a status and nothing else."""

    def __init__(self, status: Status) -> None:
        super().__init__(status)
        self.status = status


class Router:
    """The tables of one bus."""

    def __init__(self) -> None:
        self._peers: dict[int, Peer] = {}
        self._objects: dict[int, PublishedObject] = {}
        self._paths: dict[bytes, PublishedObject] = {}
        self._signatures: dict[int, Signature] = {}
        self._seq = 0
        self._handlers: dict[int, Callable[[Peer, Message, Attributes], int | None]] = {
            MessageType.PING: self._ping,
            MessageType.LOOKUP: self._lookup,
            MessageType.INVOKE: self._invoke,
            MessageType.STATUS: self._response,
            MessageType.DATA: self._response,
            MessageType.ADD_OBJECT: self._add_object,
            MessageType.REMOVE_OBJECT: self._remove_object,
            MessageType.SUBSCRIBE: self._subscribe,
            MessageType.UNSUBSCRIBE: self._unsubscribe,
            MessageType.NOTIFY: self._notify,
        }

    def join(self, user: str, group: str, send: Callable[[bytes, bool], None]) -> Peer:
        """Take in a new client and greet it."""
        peer = Peer(_new_id(self._peers), user.encode(), group.encode(), send)
        self._peers[peer.client_id] = peer
        _send(peer, MessageType.HELLO, 0, peer.client_id, b"")
        return peer

    def leave(self, peer: Peer) -> None:
        """Forget a client and all that it published. Calls to it get no answer, as on ubusd."""
        if self._peers.pop(peer.client_id, None) is not None:
            for obj in reversed(list(peer.objects.values())):
                self._free(obj)

    def receive(self, peer: Peer, message: Message) -> None:
        """Do what a client's message asks for and answer it (ubusd_proto_receive_message)."""
        handler = self._handlers.get(message.type)
        status: int | None = Status.INVALID_COMMAND
        try:
            if handler is not None:
                status = handler(peer, message, parse_attributes(message.body))
        except _Refused as refusal:
            status = refusal.status
        except MessageTooLarge:
            # With what the bus adds, the message would pass the limit of its receiver.
            status = Status.NO_MEMORY
        if status is not None:
            _answer(peer, message, MessageType.STATUS, put_number(Attr.STATUS, status))

    def _object(self, number: int, owner: Peer | None, foreign: Status) -> PublishedObject:
        """The object, which must be `owner`'s; `foreign` is the refusal where it is not."""
        obj = self._objects.get(number)
        if obj is None:
            raise _Refused(Status.NOT_FOUND)
        if obj.owner is not owner:
            raise _Refused(foreign)
        return obj

    def _next_seq(self) -> int:
        self._seq = (self._seq + 1) & 0xFFFF
        return self._seq

    # --- requests

    def _ping(self, peer: Peer, message: Message, attributes: Attributes) -> int:
        _answer(peer, message, MessageType.DATA, message.body)
        return Status.OK

    def _lookup(self, peer: Peer, message: Message, attributes: Attributes) -> int | None:
        """ubusd_handle_lookup: the whole answer arrives, however slowly the client reads."""
        path, status = attributes.get(Attr.OBJPATH), Status.OK
        if path is None or path.endswith(b"*"):
            prefix = (path or b"*")[:-1]
            paths = sorted(one for one in self._paths if one.startswith(prefix))
        else:
            paths = [path] if path in self._paths else []
        if path is not None and not paths:
            status = Status.NOT_FOUND if path else Status.INVALID_ARGUMENT
        for one in paths:
            obj = self._paths[one]
            if obj.signature is not None:
                body = put_string(Attr.OBJPATH, one) + put_number(Attr.OBJID, obj.object_id)
                body += put_number(Attr.OBJTYPE, obj.signature.type_id)
                body += put_raw(Attr.SIGNATURE, obj.signature.data)
                _answer(peer, message, MessageType.DATA, body, whole=True)
        body = put_number(Attr.STATUS, status)
        _answer(peer, message, MessageType.STATUS, body, whole=True)
        return None

    def _invoke(self, peer: Peer, message: Message, attributes: Attributes) -> int | None:
        _need(attributes, Attr.OBJID, Attr.METHOD)
        number, method = attributes[Attr.OBJID], attributes[Attr.METHOD]
        data = attributes.get(Attr.DATA)
        if number == EVENT_OBJECT:
            return self._event_call(peer, method, data)
        if number in _OTHER_OBJECTS:
            return Status.INVALID_COMMAND
        obj = self._objects.get(number)
        if obj is None:
            return Status.NOT_FOUND
        _forward(peer, obj, message.seq, method, data)
        return None

    def _response(self, peer: Peer, message: Message, attributes: Attributes) -> None:
        """ubusd_handle_response: pass an answer on; what does not fit is dropped silently."""
        wanted = Attr.STATUS if message.type == MessageType.STATUS else Attr.DATA
        obj = self._objects.get(attributes.get(Attr.OBJID, 0))
        caller = self._peers.get(message.peer)
        if wanted in attributes and obj is not None and obj.owner is peer and caller is not None:
            _send(caller, message.type, message.seq, obj.object_id, message.body)

    # --- objects

    def _add_object(self, peer: Peer, message: Message, attributes: Attributes) -> int:
        """ubusd_create_object: the event comes before the answer, and a taken path is status 2."""
        path, declared = attributes.get(Attr.OBJPATH), attributes.get(Attr.SIGNATURE)
        if path in self._paths or len(path or b"") + len(declared or b"") > MOST_DECLARED:
            return Status.INVALID_ARGUMENT
        if Attr.OBJTYPE in attributes:
            signature = self._signatures.get(attributes[Attr.OBJTYPE])
        else:
            signature = self._new_signature(declared)
        obj = PublishedObject(_new_id(self._objects), peer, path, signature)
        self._objects[obj.object_id] = peer.objects[obj.object_id] = obj
        if signature is not None:
            signature.users.add(obj.object_id)
        if path is not None:
            self._paths[path] = obj
            self._announce(b"ubus.object.add", obj)
        body = put_number(Attr.OBJID, obj.object_id)
        if declared is not None and signature is not None:
            body += put_number(Attr.OBJTYPE, signature.type_id)
        _answer(peer, message, MessageType.DATA, body)
        return Status.OK

    def _new_signature(self, declared: bytes | None) -> Signature | None:
        try:
            if declared is None or not all(name for _, name, _, _ in walk(declared)):
                return None
        except BusError:
            return None
        signature = Signature(_new_id(self._signatures), declared)
        self._signatures[signature.type_id] = signature
        return signature

    def _remove_object(self, peer: Peer, message: Message, attributes: Attributes) -> int:
        _need(attributes, Attr.OBJID)
        obj = self._object(attributes[Attr.OBJID], peer, Status.PERMISSION_DENIED)
        body = put_number(Attr.OBJID, obj.object_id)
        if obj.signature is not None and len(obj.signature.users) == 1:
            body += put_number(Attr.OBJTYPE, obj.signature.type_id)
        _answer(peer, message, MessageType.DATA, body)
        self._free(obj)
        return Status.OK

    def _free(self, obj: PublishedObject) -> None:
        """ubusd_free_object, in its order: whoever watches sees the same sequence."""
        for target in list(obj.targets):
            self._detach(obj, target)
        for subscriber in list(obj.subscribers):
            body = put_number(Attr.OBJID, subscriber.object_id)
            body += put_number(Attr.TARGET, obj.object_id)
            _send(subscriber.owner, MessageType.UNSUBSCRIBE, self._next_seq(), 0, body)
            self._detach(subscriber, obj)
        obj.patterns.clear()
        if obj.path is not None:
            self._announce(b"ubus.object.remove", obj)
            del self._paths[obj.path]
        del obj.owner.objects[obj.object_id]
        del self._objects[obj.object_id]
        if obj.signature is not None:
            obj.signature.users.discard(obj.object_id)
            if not obj.signature.users:
                del self._signatures[obj.signature.type_id]

    # --- subscriptions

    def _subscribe(self, peer: Peer, message: Message, attributes: Attributes) -> int:
        """ubusd_handle_add_watch: not to an object of one's own; a second time counts twice."""
        _need(attributes, Attr.OBJID, Attr.TARGET)
        obj = self._object(attributes[Attr.OBJID], peer, Status.INVALID_ARGUMENT)
        target = self._objects.get(attributes[Attr.TARGET])
        if target is None:
            return Status.NOT_FOUND
        if target.owner is peer:
            return Status.INVALID_ARGUMENT
        obj.targets.append(target)
        target.subscribers.append(obj)
        if len(target.subscribers) == 1:
            self._tell_activity(target)
        return Status.OK

    def _unsubscribe(self, peer: Peer, message: Message, attributes: Attributes) -> int:
        _need(attributes, Attr.OBJID, Attr.TARGET)
        obj = self._object(attributes[Attr.OBJID], peer, Status.INVALID_ARGUMENT)
        target = self._objects.get(attributes[Attr.TARGET])
        if target is None or target not in obj.targets:
            return Status.NOT_FOUND
        self._detach(obj, target)
        return Status.OK

    def _detach(self, obj: PublishedObject, target: PublishedObject) -> None:
        obj.targets.remove(target)
        target.subscribers.remove(obj)
        if not target.subscribers:
            self._tell_activity(target)

    def _tell_activity(self, target: PublishedObject) -> None:
        """ubus_notify_subscription: an object learns whether anybody is subscribed to it."""
        body = put_number(Attr.OBJID, target.object_id)
        body += put_flag(Attr.ACTIVE, bool(target.subscribers))
        _send(target.owner, MessageType.NOTIFY, self._next_seq(), 0, body)

    def _notify(self, peer: Peer, message: Message, attributes: Attributes) -> int | None:
        """ubusd_handle_notify: first the list of subscribers, then the call to each of them."""
        _need(attributes, Attr.OBJID, Attr.METHOD)
        obj = self._object(attributes[Attr.OBJID], peer, Status.PERMISSION_DENIED)
        extra = b""
        if attributes.get(Attr.NO_REPLY):
            extra = put_flag(Attr.NO_REPLY, True)
        else:
            ids = b"".join(put_number(0, one.object_id) for one in obj.subscribers)
            body = put_number(Attr.OBJID, obj.object_id) + put_raw(Attr.SUBSCRIBERS, ids)
            body += put_number(Attr.STATUS, Status.OK)
            _answer(peer, message, MessageType.STATUS, body)
        method, data = attributes[Attr.METHOD], attributes.get(Attr.DATA)
        for subscriber in list(obj.subscribers):
            _forward(peer, subscriber, message.seq, method, data, extra)
        return None

    # --- events

    def _event_call(self, peer: Peer, method: bytes, data: bytes | None) -> int:
        """ubusd_event_recv: `register` a pattern for an object, or `send` an event."""
        if method not in (b"register", b"send"):
            return Status.INVALID_COMMAND
        if data is None:
            return Status.INVALID_ARGUMENT
        try:
            fields = {(name, kind): data[at:end] for kind, name, at, end in walk(data)}
        except BusError:
            return Status.INVALID_ARGUMENT
        if method == b"register":
            return self._register(peer, fields)
        name = fields.get((b"id", Type.STRING))
        table = fields.get((b"data", Type.TABLE))
        if name is None or table is None:
            return Status.INVALID_ARGUMENT
        name = name.split(b"\0", 1)[0]
        if name.startswith(b"ubus."):
            return Status.PERMISSION_DENIED
        self._send_event(peer, name, table)
        return Status.OK

    def _register(self, peer: Peer, fields: dict[tuple[bytes, int], bytes]) -> int:
        """ubusd_alloc_event_pattern."""
        number = fields.get((b"object", Type.INT32))
        pattern = fields.get((b"pattern", Type.STRING))
        if number is None or pattern is None:
            return Status.INVALID_ARGUMENT
        object_id, pattern = int.from_bytes(number, "big"), pattern.split(b"\0", 1)[0]
        obj = self._objects.get(object_id)
        if object_id >= FIRST_ID and obj is None:
            return Status.NOT_FOUND
        if obj is None or obj.owner is not peer or not pattern:
            return Status.PERMISSION_DENIED
        obj.patterns.append(pattern)
        return Status.OK

    def _announce(self, name: bytes, obj: PublishedObject) -> None:
        """Send ubus.object.add or ubus.object.remove, to its owner's listeners too."""
        signed = obj.object_id - (1 << 32) if obj.object_id >> 31 else obj.object_id
        path = (obj.path or b"").decode("utf-8", "surrogateescape")
        self._send_event(None, name, encode_table({"id": signed, "path": path}))

    def _send_event(self, sender: Peer | None, name: bytes, table: bytes) -> None:
        """ubusd_send_event: once to every object with a matching pattern, never to the sender."""
        rest = put_string(Attr.METHOD, name) + put_raw(Attr.DATA, table)
        for obj in list(self._objects.values()):
            if obj.owner is not sender and obj.hears(name):
                body = put_number(Attr.OBJID, obj.object_id) + rest
                _send(obj.owner, MessageType.INVOKE, self._next_seq(), 0, body)


_OTHER_OBJECTS = (2, 3)
"""ubusd's own objects for ACLs and its monitor, which have no methods here."""


def _need(attributes: Collection[int], *wanted: Attr) -> None:
    if not all(attr in attributes for attr in wanted):
        raise _Refused(Status.INVALID_ARGUMENT)


def _send(
    peer: Peer, kind: int, seq: int, sender: int, body: bytes, *, whole: bool = False
) -> None:
    """Send a message to a peer. Raises MessageTooLarge before anything is sent."""
    peer.send(frame(kind, seq, sender, body), whole)


def _answer(peer: Peer, message: Message, kind: int, body: bytes, *, whole: bool = False) -> None:
    _send(peer, kind, message.seq, message.peer, body, whole=whole)


def _forward(
    peer: Peer,
    obj: PublishedObject,
    seq: int,
    method: bytes,
    data: bytes | None,
    extra: bytes = b"",
) -> None:
    """ubusd_forward_invoke: who calls is the bus's word, not the caller's."""
    body = extra + put_number(Attr.OBJID, obj.object_id) + put_string(Attr.METHOD, method)
    body += put_string(Attr.USER, peer.user) + put_string(Attr.GROUP, peer.group)
    body += b"" if data is None else put_raw(Attr.DATA, data)
    _send(obj.owner, MessageType.INVOKE, seq, peer.client_id, body)


def _new_id(taken: Collection[int]) -> int:
    """A random id that is free, as ubus_alloc_id (ubusd_id.c) makes it."""
    while True:
        number = int.from_bytes(os.urandom(4), "big")
        if number >= FIRST_ID and number not in taken:
            return number
