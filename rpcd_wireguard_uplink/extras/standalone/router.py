"""What a bus does with messages, without any I/O: objects, look-ups, calls, subscriptions.

Owns the broker's tables and answers as ubusd does, because programs rely on its habits; a rule
names its function in ubusd_proto.c or ubusd_obj.c. Events and the monitor are system.py's. Knows
nothing of sockets: a peer is a function that takes bytes and may refuse them when too much waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ...errors import BusError, MessageTooLarge, Status
from ...ubus.blobmsg import walk
from ...ubus.framing import (
    FIRST_ID,
    MAX_MESSAGE,
    Attr,
    Message,
    MessageType,
    parse_attributes,
    put_flag,
    put_number,
    put_raw,
    put_string,
)
from .system import System
from .tables import Peer, PublishedObject, Signature, new_id

_MAX_OBJECTS = 4096
_MAX_DECLARATION = MAX_MESSAGE // 2
"""A path and signature of this size can still be announced and looked up in one message."""
_MAX_SUBSCRIPTIONS = 1024
_MAX_LOOKUPS = 64

Attributes = dict[int, Any]


class Router:
    """The tables of one bus."""

    def __init__(self) -> None:
        self._peers: dict[int, Peer] = {}
        self._objects: dict[int, PublishedObject] = {}
        self._paths: dict[bytes, PublishedObject] = {}
        self._signatures: dict[int, Signature] = {}
        self._system = System(self._objects)
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

    def join(
        self,
        user: str,
        group: str,
        privileged: bool,
        send: Callable[[bytes], bool],
        is_idle: Callable[[], bool],
    ) -> Peer:
        """Take in a new client and greet it. Privileged ones may monitor the bus."""
        client_id = new_id(self._peers)
        peer = Peer(client_id, user.encode(), group.encode(), privileged, send, is_idle)
        self._peers[client_id] = peer
        self._system.send(peer, MessageType.HELLO, 0, client_id, b"")
        return peer

    def leave(self, peer: Peer) -> None:
        """Forget a client and all that it published. Calls to it get no answer, as on ubusd."""
        if self._peers.pop(peer.client_id, None) is None:
            return
        self._system.forget(peer)
        peer.lookups.clear()
        for obj in reversed(list(peer.objects.values())):
            self._free(obj)

    def receive(self, peer: Peer, message: Message) -> None:
        """Do what a client's message asks for and answer it (ubusd_proto_receive_message)."""
        self._system.report(peer, message.type, message.seq, message.peer, message.body, sent=False)
        handler = self._handlers.get(message.type)
        if handler is None:
            status: int | None = Status.INVALID_COMMAND
        else:
            try:
                status = handler(peer, message, parse_attributes(message.body))
            except MessageTooLarge:
                # With what the bus adds, the message would pass the limit of its receiver.
                status = Status.NO_MEMORY
        if status is not None:
            self._answer(peer, message, status)

    def drained(self, peer: Peer) -> None:
        """Go on with look-ups that were put off, after everything for the client was sent."""
        while peer.lookups and peer.is_idle():
            if not next(peer.lookups[0], False):
                peer.lookups.popleft()

    def _answer(self, peer: Peer, message: Message, status: int) -> None:
        body = put_number(Attr.STATUS, status)
        self._system.send(peer, MessageType.STATUS, message.seq, message.peer, body)

    def _ping(self, peer: Peer, message: Message, attributes: Attributes) -> int:
        self._system.send(peer, MessageType.DATA, message.seq, message.peer, message.body)
        return Status.OK

    def _lookup(self, peer: Peer, message: Message, attributes: Attributes) -> int | None:
        """ubusd_handle_lookup: what does not fit into the queue now is sent as it drains."""
        if len(peer.lookups) >= _MAX_LOOKUPS:
            return Status.NO_MEMORY
        peer.lookups.append(self._look_up(peer, message, attributes.get(Attr.OBJPATH)))
        self.drained(peer)
        return None

    def _look_up(self, peer: Peer, message: Message, path: bytes | None) -> Iterator[bool]:
        status = Status.OK
        if path is None:
            paths = sorted(self._paths)
        elif not path:
            paths, status = [], Status.INVALID_ARGUMENT
        else:
            prefix = path[:-1]
            if path.endswith(b"*"):
                paths = sorted(one for one in self._paths if one.startswith(prefix))
            else:
                paths = [path] if path in self._paths else []
            status = Status.OK if paths else Status.NOT_FOUND
        for one in paths:
            obj = self._paths.get(one)
            if obj is not None and obj.signature is not None:
                body = b"".join(
                    (
                        put_string(Attr.OBJPATH, one),
                        put_number(Attr.OBJID, obj.object_id),
                        put_number(Attr.OBJTYPE, obj.signature.type_id),
                        put_raw(Attr.SIGNATURE, obj.signature.data),
                    )
                )
                self._system.send(peer, MessageType.DATA, message.seq, message.peer, body)
                yield True
        self._answer(peer, message, status)

    def _invoke(self, peer: Peer, message: Message, attributes: Attributes) -> int | None:
        object_id, method = attributes.get(Attr.OBJID), attributes.get(Attr.METHOD)
        if object_id is None or method is None:
            return Status.INVALID_ARGUMENT
        data = attributes.get(Attr.DATA)
        if object_id < FIRST_ID:
            return self._system.call(peer, message, object_id, method, data)
        obj = self._objects.get(object_id)
        if obj is None:
            return Status.NOT_FOUND
        self._forward(peer, obj, message.seq, method, data, b"")
        return None

    def _forward(
        self,
        peer: Peer,
        obj: PublishedObject,
        seq: int,
        method: bytes,
        data: bytes | None,
        extra: bytes,
    ) -> None:
        """ubusd_forward_invoke: who calls is the bus's word, not the caller's."""
        body = b"".join(
            (
                extra,
                put_number(Attr.OBJID, obj.object_id),
                put_string(Attr.METHOD, method),
                put_string(Attr.USER, peer.user),
                put_string(Attr.GROUP, peer.group),
                b"" if data is None else put_raw(Attr.DATA, data),
            )
        )
        self._system.send(obj.owner, MessageType.INVOKE, seq, peer.client_id, body)

    def _response(self, peer: Peer, message: Message, attributes: Attributes) -> None:
        """ubusd_handle_response: pass an answer on; what does not fit is dropped silently."""
        wanted = Attr.STATUS if message.type == MessageType.STATUS else Attr.DATA
        obj = self._objects.get(attributes.get(Attr.OBJID, 0))
        caller = self._peers.get(message.peer)
        if wanted in attributes and obj is not None and obj.owner is peer and caller is not None:
            self._system.send(caller, message.type, message.seq, obj.object_id, message.body)

    def _add_object(self, peer: Peer, message: Message, attributes: Attributes) -> int:
        """ubusd_create_object: the event comes before the answer, and a taken path is status 2."""
        path, declared = attributes.get(Attr.OBJPATH), attributes.get(Attr.SIGNATURE)
        if len(peer.objects) >= _MAX_OBJECTS:
            return Status.NO_MEMORY
        if len(path or b"") + len(declared or b"") > _MAX_DECLARATION:
            return Status.INVALID_ARGUMENT
        if path is not None and path in self._paths:
            return Status.INVALID_ARGUMENT
        if Attr.OBJTYPE in attributes:
            signature = self._signatures.get(attributes[Attr.OBJTYPE])
        else:
            signature = self._new_signature(declared)
        obj = PublishedObject(new_id(self._objects), peer, path, signature)
        self._objects[obj.object_id] = obj
        peer.objects[obj.object_id] = obj
        if signature is not None:
            signature.users += 1
        if path is not None:
            self._paths[path] = obj
            self._system.announce(b"ubus.object.add", obj)
        body = put_number(Attr.OBJID, obj.object_id)
        if declared is not None and signature is not None:
            body += put_number(Attr.OBJTYPE, signature.type_id)
        self._system.send(peer, MessageType.DATA, message.seq, message.peer, body)
        return Status.OK

    def _new_signature(self, declared: bytes | None) -> Signature | None:
        if declared is None:
            return None
        try:
            if not all(name for _, name, _, _ in walk(declared, 0, len(declared))):
                return None
        except BusError:
            return None
        signature = Signature(new_id(self._signatures), declared)
        self._signatures[signature.type_id] = signature
        return signature

    def _remove_object(self, peer: Peer, message: Message, attributes: Attributes) -> int:
        if Attr.OBJID not in attributes:
            return Status.INVALID_ARGUMENT
        obj = self._objects.get(attributes[Attr.OBJID])
        if obj is None:
            return Status.NOT_FOUND
        if obj.owner is not peer:
            return Status.PERMISSION_DENIED
        body = put_number(Attr.OBJID, obj.object_id)
        if obj.signature is not None and obj.signature.users == 1:
            body += put_number(Attr.OBJTYPE, obj.signature.type_id)
        self._system.send(peer, MessageType.DATA, message.seq, message.peer, body)
        self._free(obj)
        return Status.OK

    def _free(self, obj: PublishedObject) -> None:
        """ubusd_free_object, in its order: whoever watches sees the same sequence."""
        for target in list(obj.targets):
            self._detach(obj, target)
        for subscriber in list(obj.subscribers):
            body = put_number(Attr.OBJID, subscriber.object_id)
            body += put_number(Attr.TARGET, obj.object_id)
            subscriber.seq = (subscriber.seq + 1) & 0xFFFF
            self._system.send(subscriber.owner, MessageType.UNSUBSCRIBE, subscriber.seq, 0, body)
            self._detach(subscriber, obj)
        self._system.forget_object(obj)
        if obj.path is not None:
            self._system.announce(b"ubus.object.remove", obj)
            del self._paths[obj.path]
        del obj.owner.objects[obj.object_id]
        del self._objects[obj.object_id]
        if obj.signature is not None:
            obj.signature.users -= 1
            if not obj.signature.users:
                del self._signatures[obj.signature.type_id]

    def _subscribe(self, peer: Peer, message: Message, attributes: Attributes) -> int:
        """ubusd_handle_add_watch: not to an object of one's own; a second time counts twice."""
        if Attr.OBJID not in attributes or Attr.TARGET not in attributes:
            return Status.INVALID_ARGUMENT
        obj = self._objects.get(attributes[Attr.OBJID])
        if obj is None:
            return Status.NOT_FOUND
        if obj.owner is not peer:
            return Status.INVALID_ARGUMENT
        target = self._objects.get(attributes[Attr.TARGET])
        if target is None:
            return Status.NOT_FOUND
        if target.owner is peer:
            return Status.INVALID_ARGUMENT
        if len(obj.targets) >= _MAX_SUBSCRIPTIONS:
            return Status.NO_MEMORY
        obj.targets.append(target)
        target.subscribers.append(obj)
        if len(target.subscribers) == 1:
            self._tell_activity(target)
        return Status.OK

    def _unsubscribe(self, peer: Peer, message: Message, attributes: Attributes) -> int:
        if Attr.OBJID not in attributes or Attr.TARGET not in attributes:
            return Status.INVALID_ARGUMENT
        obj = self._objects.get(attributes[Attr.OBJID])
        if obj is None:
            return Status.NOT_FOUND
        if obj.owner is not peer:
            return Status.INVALID_ARGUMENT
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
        target.seq = (target.seq + 1) & 0xFFFF
        body = put_number(Attr.OBJID, target.object_id)
        body += put_flag(Attr.ACTIVE, bool(target.subscribers))
        self._system.send(target.owner, MessageType.NOTIFY, target.seq, 0, body)

    def _notify(self, peer: Peer, message: Message, attributes: Attributes) -> int | None:
        """ubusd_handle_notify: first the list of subscribers, then the call to each of them."""
        method = attributes.get(Attr.METHOD)
        if method is None or Attr.OBJID not in attributes:
            return Status.INVALID_ARGUMENT
        obj = self._objects.get(attributes[Attr.OBJID])
        if obj is None:
            return Status.NOT_FOUND
        if obj.owner is not peer:
            return Status.PERMISSION_DENIED
        extra = b""
        if attributes.get(Attr.NO_REPLY):
            extra = put_flag(Attr.NO_REPLY, True)
        else:
            ids = b"".join(put_number(0, one.object_id) for one in obj.subscribers)
            body = put_number(Attr.OBJID, obj.object_id) + put_raw(Attr.SUBSCRIBERS, ids)
            body += put_number(Attr.STATUS, Status.OK)
            self._system.send(peer, MessageType.STATUS, message.seq, message.peer, body)
        for subscriber in list(obj.subscribers):
            data = attributes.get(Attr.DATA)
            self._forward(peer, subscriber, message.seq, method, data, extra)
        return None
