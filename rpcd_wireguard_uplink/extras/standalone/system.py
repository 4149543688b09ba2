"""The bus's own objects: events, the monitor, the ACL query; and the one way out to a peer.

Owns who listens for which events and who monitors. Every message to a peer leaves through `send`,
so that a monitor sees it. Knows nothing of how objects come and go: that is router.py's.
"""

from __future__ import annotations

from ...errors import BusError, MessageTooLarge, Status
from ...ubus.blobmsg import encode_table, walk
from ...ubus.framing import (
    ACL_OBJECT,
    EVENT_OBJECT,
    FIRST_ID,
    MONITOR_OBJECT,
    Attr,
    Message,
    MessageType,
    frame,
    put_flag,
    put_number,
    put_raw,
    put_string,
)
from .tables import Peer, PublishedObject

_MAX_PATTERNS = 1024


class System:
    """What ubusd itself does as an object on its bus."""

    def __init__(self, objects: dict[int, PublishedObject]) -> None:
        self._objects = objects
        self._listening: dict[int, PublishedObject] = {}
        self._monitors: dict[int, Peer] = {}
        self._event_seq = 0

    def send(self, peer: Peer, kind: int, seq: int, sender: int, body: bytes) -> None:
        """Send a message to a peer. Raises MessageTooLarge before anything is sent."""
        data = frame(kind, seq, sender, body)
        self.report(peer, kind, seq, sender, body, sent=True)
        peer.send(data)

    def report(
        self, peer: Peer, kind: int, seq: int, sender: int, body: bytes, *, sent: bool
    ) -> None:
        """Show a message to those who monitor the bus (ubusd_monitor_message)."""
        if not self._monitors:
            return
        # Numbers of enum ubus_monitor_attr: CLIENT 0, PEER 1, SEND 2, SEQ 3, TYPE 4, DATA 5.
        report = b"".join(
            (
                put_number(0, peer.client_id),
                put_number(1, sender),
                put_number(3, seq),
                put_number(4, kind),
                put_flag(2, sent),
                put_raw(5, body),
            )
        )
        for monitor in self._monitors.values():
            monitor.monitor_seq = (monitor.monitor_seq + 1) & 0xFFFF
            try:
                monitor.send(frame(MessageType.MONITOR, monitor.monitor_seq, 0, report))
            except MessageTooLarge:
                continue

    def forget(self, peer: Peer) -> None:
        """Stop showing messages to a peer that left."""
        self._monitors.pop(peer.client_id, None)

    def forget_object(self, obj: PublishedObject) -> None:
        """Stop delivering events to an object."""
        self._listening.pop(obj.object_id, None)

    def call(
        self, peer: Peer, message: Message, object_id: int, method: bytes, data: bytes | None
    ) -> int:
        """Answer a call of an object whose id is below FIRST_ID; returns the status."""
        if object_id == EVENT_OBJECT:
            return self._event_call(peer, method, data)
        if object_id == MONITOR_OBJECT:
            return self._monitor_call(peer, method)
        if object_id == ACL_OBJECT:
            return self._acl_call(peer, message, method)
        return Status.NOT_FOUND

    def _event_call(self, peer: Peer, method: bytes, data: bytes | None) -> int:
        """ubusd_event_recv (ubusd_event.c)."""
        if method not in (b"register", b"send"):
            return Status.INVALID_COMMAND
        if data is None:
            return Status.INVALID_ARGUMENT
        try:
            fields = {
                name: (kind, data[start:end]) for kind, name, start, end in walk(data, 0, len(data))
            }
        except BusError:
            return Status.INVALID_ARGUMENT
        if method == b"register":
            return self._register(peer, fields)
        kind, name = fields.get(b"id", (0, b""))
        table_kind, table = fields.get(b"data", (0, b""))
        if kind != 3 or table_kind != 2:
            return Status.INVALID_ARGUMENT
        name = name.split(b"\0", 1)[0]
        if name.startswith(b"ubus."):
            return Status.PERMISSION_DENIED
        self._send_event(peer, name, table)
        return Status.OK

    def _register(self, peer: Peer, fields: dict[bytes, tuple[int, bytes]]) -> int:
        """ubusd_alloc_event_pattern (ubusd_event.c)."""
        kind, number = fields.get(b"object", (0, b""))
        text_kind, text = fields.get(b"pattern", (0, b""))
        if kind != 5 or text_kind != 3:
            return Status.INVALID_ARGUMENT
        object_id, pattern = int.from_bytes(number, "big"), text.split(b"\0", 1)[0]
        obj = self._objects.get(object_id)
        if object_id >= FIRST_ID and obj is None:
            return Status.NOT_FOUND
        if obj is None or obj.owner is not peer or not pattern:
            return Status.PERMISSION_DENIED
        if len(obj.patterns) >= _MAX_PATTERNS:
            return Status.NO_MEMORY
        obj.patterns.append(pattern)
        self._listening[obj.object_id] = obj
        return Status.OK

    def announce(self, name: bytes, obj: PublishedObject) -> None:
        """Send ubus.object.add or ubus.object.remove, to its owner's listeners too."""
        signed = obj.object_id - (1 << 32) if obj.object_id >> 31 else obj.object_id
        path = (obj.path or b"").decode("utf-8", "surrogateescape")
        self._send_event(None, name, encode_table({"id": signed, "path": path}))

    def _send_event(self, sender: Peer | None, name: bytes, table: bytes) -> None:
        """ubusd_send_event: once to every object with a matching pattern, never to the sender."""
        rest = put_string(Attr.METHOD, name) + put_raw(Attr.DATA, table)
        for obj in list(self._listening.values()):
            if obj.owner is sender or not _matches(obj.patterns, name):
                continue
            self._event_seq = (self._event_seq + 1) & 0xFFFF
            body = put_number(Attr.OBJID, obj.object_id) + rest
            self.send(obj.owner, MessageType.INVOKE, self._event_seq, 0, body)

    def _monitor_call(self, peer: Peer, method: bytes) -> int:
        """ubusd_monitor_recv; ubusd allows it to root, a broker also to its own user."""
        if not peer.privileged:
            return Status.PERMISSION_DENIED
        if method == b"add":
            self._monitors[peer.client_id] = peer
        elif method == b"remove":
            self._monitors.pop(peer.client_id, None)
        else:
            return Status.METHOD_NOT_FOUND
        return Status.OK

    def _acl_call(self, peer: Peer, message: Message, method: bytes) -> int:
        """ubusd_acl_recv: there are no ACL files here, the socket's mode decides who may come."""
        if method != b"query":
            return Status.INVALID_COMMAND
        body = put_number(Attr.OBJID, ACL_OBJECT)
        body += put_raw(Attr.DATA, encode_table({"seq": 1, "acl": []}))
        self.send(peer, MessageType.DATA, message.seq, message.peer, body)
        return Status.OK


def _matches(patterns: list[bytes], name: bytes) -> bool:
    return any(name.startswith(one[:-1]) if one.endswith(b"*") else name == one for one in patterns)
