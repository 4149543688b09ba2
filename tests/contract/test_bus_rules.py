"""Rules of the bus that only raw messages show, and clients that misbehave; on both buses."""

from __future__ import annotations

import contextlib
import os
import socket
import time

import pytest

from rpcd_wireguard_uplink.errors import BusError, Status
from rpcd_wireguard_uplink.ubus.blobmsg import encode_table
from rpcd_wireguard_uplink.ubus.blocking import BlockingBus
from rpcd_wireguard_uplink.ubus.framing import (
    Attr,
    FrameReader,
    Message,
    MessageType,
    frame,
    parse_attributes,
    put_number,
    put_raw,
    put_string,
)

SIGNATURE = put_raw(Attr.SIGNATURE, encode_table({"m": {"a": 3}}))


class Raw:
    """A client that sends what it likes and sees every message."""

    def __init__(self, path: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(path)
        self._reader = FrameReader(1 << 22)
        self._messages: list[Message] = []
        self.client_id = self.next().peer
        self._seq = 0

    def next(self) -> Message:
        while not self._messages:
            data = self.sock.recv(65536)
            if not data:
                raise EOFError
            self._messages += self._reader.feed(data)
        return self._messages.pop(0)

    def send(self, kind: int, body: bytes = b"", peer: int = 0) -> int:
        self._seq += 1
        self.sock.sendall(frame(kind, self._seq, peer, body))
        return self._seq

    def ask(self, kind: int, body: bytes = b"") -> tuple[int, dict[int, object]]:
        """Send a request and return status and attributes of the DATA before it."""
        seq, found = self.send(kind, body), {}
        while True:
            message = self.next()
            attributes = parse_attributes(message.body)
            if message.seq != seq:
                continue
            if message.type == MessageType.STATUS:
                return attributes[Attr.STATUS], found
            found = attributes

    def add(self, path: bytes | None = None, extra: bytes = SIGNATURE) -> dict[int, object]:
        body = b"" if path is None else put_string(Attr.OBJPATH, path) + extra
        status, found = self.ask(MessageType.ADD_OBJECT, body)
        assert status == Status.OK
        return found


@pytest.fixture
def raw(shared_bus):
    with contextlib.ExitStack() as stack:

        def make() -> Raw:
            client = Raw(shared_bus.path)
            stack.enter_context(client.sock)
            return client

        yield make


def ids(*numbers: int) -> bytes:
    return b"".join(
        put_number(attr, number)
        for attr, number in zip((Attr.OBJID, Attr.TARGET), numbers, strict=False)
    )


def test_a_ping_comes_back_with_its_body(raw):
    one = raw()
    seq = one.send(MessageType.PING, put_string(Attr.METHOD, b"x"), 77)
    assert one.next() == Message(MessageType.DATA, seq, 77, put_string(Attr.METHOD, b"x"))
    assert one.next() == Message(MessageType.STATUS, seq, 77, put_number(Attr.STATUS, 0))


@pytest.mark.parametrize("kind", [MessageType.HELLO, MessageType.MONITOR, 12, 255])
def test_what_no_client_may_send_is_an_invalid_command(raw, kind):
    assert raw().ask(kind)[0] == Status.INVALID_COMMAND


def test_requests_without_their_attributes(raw):
    one, two = raw(), raw()
    theirs = two.add(b"rules.theirs")[Attr.OBJID]
    mine = one.add()[Attr.OBJID]
    m = put_string(Attr.METHOD, b"m")
    for kind, body, status in (
        (MessageType.INVOKE, b"", Status.INVALID_ARGUMENT),
        (MessageType.INVOKE, ids(theirs), Status.INVALID_ARGUMENT),
        (MessageType.INVOKE, ids(1999) + m, Status.NOT_FOUND),
        (MessageType.INVOKE, ids(7) + m, Status.NOT_FOUND),
        (MessageType.INVOKE, ids(1) + m, Status.INVALID_COMMAND),
        (MessageType.INVOKE, ids(2) + m, Status.INVALID_COMMAND),
        (MessageType.REMOVE_OBJECT, b"", Status.INVALID_ARGUMENT),
        (MessageType.REMOVE_OBJECT, ids(1999), Status.NOT_FOUND),
        (MessageType.REMOVE_OBJECT, ids(theirs), Status.PERMISSION_DENIED),
        (MessageType.SUBSCRIBE, ids(mine), Status.INVALID_ARGUMENT),
        (MessageType.SUBSCRIBE, ids(1999, theirs), Status.NOT_FOUND),
        (MessageType.SUBSCRIBE, ids(theirs, mine), Status.INVALID_ARGUMENT),
        (MessageType.SUBSCRIBE, ids(mine, 1999), Status.NOT_FOUND),
        (MessageType.SUBSCRIBE, ids(mine, mine), Status.INVALID_ARGUMENT),
        (MessageType.UNSUBSCRIBE, ids(mine, theirs), Status.NOT_FOUND),
        (MessageType.NOTIFY, ids(theirs), Status.INVALID_ARGUMENT),
        (MessageType.NOTIFY, ids(1999) + m, Status.NOT_FOUND),
        (MessageType.NOTIFY, ids(theirs) + m, Status.PERMISSION_DENIED),
        (MessageType.LOOKUP, put_string(Attr.OBJPATH, b""), Status.INVALID_ARGUMENT),
        (MessageType.ADD_OBJECT, put_string(Attr.OBJPATH, b"rules.theirs"), 2),
    ):
        assert one.ask(kind, body)[0] == status, (kind, body)


def test_events_are_registered_for_objects_of_ones_own(raw):
    one, two = raw(), raw()
    mine, theirs = one.add()[Attr.OBJID], two.add()[Attr.OBJID]

    def register(object_id: int, pattern: str) -> int:
        signed = object_id - (1 << 32) if object_id >> 31 else object_id
        data = put_raw(Attr.DATA, encode_table({"object": signed, "pattern": pattern}))
        body = ids(1) + put_string(Attr.METHOD, b"register") + data
        return one.ask(MessageType.INVOKE, body)[0]

    assert register(mine, "x") == Status.OK
    assert register(mine, "") == Status.PERMISSION_DENIED
    assert register(theirs, "x") == Status.PERMISSION_DENIED
    assert register(1, "x") == Status.PERMISSION_DENIED
    assert register(1999, "x") == Status.NOT_FOUND
    body = ids(1) + put_string(Attr.METHOD, b"register") + put_raw(Attr.DATA, b"")
    assert one.ask(MessageType.INVOKE, body)[0] == Status.INVALID_ARGUMENT


def test_subscribers_are_told_and_objects_know_that_they_have_some(raw):
    one, two = raw(), raw()
    target, subscriber = one.add(b"rules.told")[Attr.OBJID], two.add()[Attr.OBJID]
    assert two.ask(MessageType.SUBSCRIBE, ids(subscriber, target))[0] == Status.OK
    active = one.next()
    assert active.type == MessageType.NOTIFY
    assert parse_attributes(active.body) == {Attr.OBJID: target, Attr.ACTIVE: 1}
    body = ids(target) + put_string(Attr.METHOD, b"changed") + put_raw(Attr.DATA, b"")
    seq = one.send(MessageType.NOTIFY, body, target)
    status = one.next()
    assert (status.type, status.seq, status.peer) == (MessageType.STATUS, seq, target)
    wanted = {Attr.OBJID: target, Attr.STATUS: 0, Attr.SUBSCRIBERS: put_number(0, subscriber)}
    assert parse_attributes(status.body) == wanted
    told = two.next()
    assert (told.type, told.peer) == (MessageType.INVOKE, one.client_id)
    assert parse_attributes(told.body)[Attr.METHOD] == b"changed"
    two.send(MessageType.STATUS, put_number(Attr.STATUS, 0) + ids(subscriber), told.peer)
    assert (one.next().peer, one.ask(MessageType.PING)[0]) == (subscriber, 0)
    two.sock.close()
    left = one.next()
    assert parse_attributes(left.body) == {Attr.OBJID: target, Attr.ACTIVE: 0}
    three = raw()
    watcher = three.add()[Attr.OBJID]
    assert three.ask(MessageType.SUBSCRIBE, ids(watcher, target))[0] == Status.OK
    one.sock.close()
    gone = three.next()
    assert gone.type == MessageType.UNSUBSCRIBE
    assert parse_attributes(gone.body) == {Attr.OBJID: watcher, Attr.TARGET: target}


def test_objects_may_share_a_type_until_the_last_one_goes(raw):
    one = raw()
    first = one.add(b"rules.first")
    shared = put_number(Attr.OBJTYPE, first[Attr.OBJTYPE])
    second = one.add(b"rules.second", shared)
    assert Attr.OBJTYPE not in second
    found = one.ask(MessageType.LOOKUP, put_string(Attr.OBJPATH, b"rules.second"))[1]
    assert found[Attr.OBJTYPE] == first[Attr.OBJTYPE]
    assert found[Attr.SIGNATURE] == encode_table({"m": {"a": 3}})
    assert Attr.OBJTYPE not in one.ask(MessageType.REMOVE_OBJECT, ids(first[Attr.OBJID]))[1]
    last = one.ask(MessageType.REMOVE_OBJECT, ids(second[Attr.OBJID]))[1]
    assert last[Attr.OBJTYPE] == first[Attr.OBJTYPE]


def test_answers_count_only_from_the_object_that_was_asked(raw):
    one, two, three = raw(), raw(), raw()
    object_id = one.add(b"rules.asked")[Attr.OBJID]
    body = ids(object_id) + put_string(Attr.METHOD, b"m") + put_raw(Attr.DATA, b"")
    two.send(MessageType.INVOKE, body, object_id)
    call = one.next()
    answer = put_number(Attr.STATUS, 5) + ids(object_id)
    three.send(MessageType.STATUS, answer, call.peer)
    one.send(MessageType.STATUS, put_number(Attr.STATUS, 6), call.peer)
    assert three.ask(MessageType.PING)[0] == one.ask(MessageType.PING)[0] == 0
    one.sock.sendall(frame(MessageType.STATUS, call.seq, call.peer, answer))
    message = two.next()
    assert (message.seq, message.peer) == (call.seq, object_id)
    assert parse_attributes(message.body)[Attr.STATUS] == 5


@pytest.mark.parametrize(
    "garbage",
    [b"\0\5\0\1\0\0\0\0\0\0\0\0", b"\0\5\0\1\0\0\0\0\0\xff\xff\xff" + b"x" * 50, b"\0" * 12],
)
def test_garbage_costs_its_sender_the_connection_and_nobody_else(shared_bus, raw, garbage):
    one, two = raw(), raw()
    two.add(b"rules.calm")
    one.add(b"rules.wild")
    one.sock.sendall(garbage)
    with pytest.raises((EOFError, ConnectionResetError)):
        one.next()
    assert two.ask(MessageType.LOOKUP, put_string(Attr.OBJPATH, b"rules.wild"))[0] == 4
    assert two.ask(MessageType.LOOKUP, put_string(Attr.OBJPATH, b"rules.calm"))[0] == 0


def test_half_a_message_waits_without_harm(raw):
    one, two = raw(), raw()
    data = frame(MessageType.PING, 1, 0, put_string(Attr.METHOD, b"x" * 100))
    one.sock.sendall(data[:50])
    assert two.ask(MessageType.PING)[0] == 0
    one.sock.sendall(data[50:])
    assert one.next().type == MessageType.DATA


def test_clients_that_leave_before_their_answers_end_nothing(shared_bus, raw):
    for _ in range(100):
        with contextlib.suppress(OSError):
            leaver = Raw(shared_bus.path)
            for _ in range(20):
                leaver.send(MessageType.PING, put_string(Attr.METHOD, b"x" * 20_000))
            leaver.sock.close()
    assert raw().ask(MessageType.PING)[0] == 0


def test_a_client_that_does_not_read_loses_messages_and_nobody_else_does(shared_bus, raw):
    sleeper, caller = raw(), raw()
    object_id = sleeper.add(b"rules.sleeper")[Attr.OBJID]
    body = ids(object_id) + put_string(Attr.METHOD, b"m")
    body += put_raw(Attr.DATA, encode_table({"v": "x" * 100_000}))
    for _ in range(60):
        caller.send(MessageType.INVOKE, body, object_id)
    assert caller.ask(MessageType.PING)[0] == 0
    started = time.monotonic()
    assert raw().ask(MessageType.LOOKUP)[0] == 0
    assert time.monotonic() - started < 10
    received = 0
    sleeper.sock.settimeout(1.0)
    with contextlib.suppress(TimeoutError):
        while sleeper.next().type == MessageType.INVOKE:
            received += 1
    assert 5 < received < 60
    caller.send(MessageType.INVOKE, body, object_id)
    assert sleeper.next().type == MessageType.INVOKE


def test_user_and_group_are_the_sockets_not_the_messages(raw):
    one, two = raw(), raw()
    object_id = one.add(b"rules.who")[Attr.OBJID]
    body = ids(object_id) + put_string(Attr.METHOD, b"m") + put_string(Attr.USER, b"liar")
    two.send(MessageType.INVOKE, body, object_id)
    import pwd

    found = parse_attributes(one.next().body)
    assert found[Attr.USER].decode() == pwd.getpwuid(os.getuid()).pw_name


def test_the_connection_survives_a_bus_that_does_not_exist(tmp_path):
    with pytest.raises(BusError):
        BlockingBus(str(tmp_path / "none"))
