"""The broker's own duties: its socket's file, and messages of any kind in any order."""

from __future__ import annotations

import asyncio
import os
import socket
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpcd_wireguard_uplink.errors import BusError
from rpcd_wireguard_uplink.extras.standalone.broker import Broker
from rpcd_wireguard_uplink.extras.standalone.router import Router
from rpcd_wireguard_uplink.ubus.blobmsg import encode_table
from rpcd_wireguard_uplink.ubus.client import Client
from rpcd_wireguard_uplink.ubus.framing import (
    MAX_MESSAGE,
    Attr,
    FrameReader,
    Message,
    MessageType,
    parse_attributes,
    put_flag,
    put_number,
    put_raw,
    put_string,
)

from .conftest import COMMAND, run


def mode_of(path: str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


async def objects_at(path: str) -> list[object]:
    """The objects on the bus that is served there."""
    client = Client(path)
    await client.connect()
    found = await client.lookup()
    await client.close()
    return found


@pytest.mark.parametrize("umask", [0o000, 0o077])
@pytest.mark.parametrize("mode", [0o600, 0o660])
async def test_the_socket_has_the_mode_that_was_asked_for(tmp_path, mode, umask):
    path = str(tmp_path / "deep" / "bus.sock")
    before = os.umask(umask)
    try:
        broker = Broker(path, mode=mode)
        await broker.start()
    finally:
        os.umask(before)
    assert mode_of(path) == mode
    await broker.close()
    assert os.listdir(tmp_path / "deep") == []


async def test_the_file_never_has_a_wider_mode(tmp_path, monkeypatch):
    path = str(tmp_path / "bus.sock")
    seen = []
    bind = socket.socket.bind

    class Watched(socket.socket):
        def bind(self, address):
            bind(self, address)
            seen.append(mode_of(path))

    monkeypatch.setattr(socket, "socket", Watched)
    before = os.umask(0)
    try:
        broker = Broker(path)
        await broker.start()
    finally:
        os.umask(before)
    await broker.close()
    assert seen == [0o600]


async def test_a_file_that_nobody_serves_is_replaced(tmp_path):
    path = str(tmp_path / "bus.sock")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    broker = Broker(path)
    await broker.start()
    assert await objects_at(path) == []
    await broker.close()


async def test_a_bus_that_is_served_is_left_alone(tmp_path):
    path = str(tmp_path / "bus.sock")
    broker = Broker(path)
    await broker.start()
    with pytest.raises(BusError, match=r"served at .* already"):
        await Broker(path).start()
    status, _, err = await run(*COMMAND, "-s", path, "broker")
    assert status == 1
    assert b"already" in err
    assert await objects_at(path) == []
    await broker.close()


async def test_what_is_no_socket_is_not_removed(tmp_path):
    path = tmp_path / "bus.sock"
    path.write_text("precious")
    with pytest.raises(BusError, match="no socket"):
        await Broker(str(path)).start()
    assert path.read_text() == "precious"
    with pytest.raises(BusError, match="can't use"):
        await Broker(str(path / "x" / "bus.sock")).start()


async def test_brokers_that_start_together_leave_one(tmp_path):
    path = str(tmp_path / "bus.sock")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    brokers = [Broker(path) for _ in range(4)]
    results = await asyncio.gather(*(one.start() for one in brokers), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["BusError"] * 3 + ["NoneType"]
    assert await objects_at(path) == []
    await asyncio.gather(*(one.close() for one in brokers))
    assert not os.path.exists(path)


async def test_a_broker_does_not_remove_its_successors_socket(tmp_path):
    path = str(tmp_path / "bus.sock")
    one, two = Broker(path), Broker(path)
    await one.start()
    os.unlink(path)
    await two.start()
    await one.close()
    assert await objects_at(path) == []
    await two.close()


class Pipe:
    """A peer of a router, without a socket; it may refuse what it is sent."""

    def __init__(self, router: Router) -> None:
        self.messages: list[Message] = []
        self.full = False
        self._reader = FrameReader()
        self.peer = router.join("user", "group", self.send)

    def send(self, data: bytes, whole: bool) -> None:
        if whole or not self.full:
            self.messages += self._reader.feed(data)


NUMBERS = st.integers(0, 5) | st.sampled_from([1024, 1 << 31, (1 << 32) - 1])
FIELDS = {
    Attr.OBJPATH: st.sampled_from([b"", b"a", b"a.b", b"a*", b"*", b"\xff"]),
    Attr.METHOD: st.sampled_from([b"", b"register", b"send", b"add", b"remove", b"query", b"m"]),
    Attr.SIGNATURE: st.sampled_from([b"", encode_table({"m": {"x": 3}}), b"junk"]),
    Attr.DATA: st.binary(max_size=30) | st.just(encode_table({"id": "e", "data": {"k": 1}})),
    Attr.NO_REPLY: st.booleans(),
    Attr.STATUS: NUMBERS,
    Attr.OBJID: NUMBERS,
    Attr.OBJTYPE: NUMBERS,
    Attr.TARGET: NUMBERS,
}


@st.composite
def bodies(draw, known):
    body = b""
    for attr in draw(st.lists(st.sampled_from(list(FIELDS)), max_size=6)):
        value = draw(FIELDS[attr])
        if isinstance(value, bool):
            body += put_flag(attr, value)
        elif isinstance(value, int):
            numbers = [*known, 1, 2, 3]
            body += put_number(attr, numbers[value % len(numbers)])
        elif attr in (Attr.DATA, Attr.SIGNATURE):
            body += put_raw(attr, value)
        else:
            body += put_string(attr, value)
    if known and draw(st.booleans()):
        number = draw(st.sampled_from(known))
        signed = number - (1 << 32) if number >> 31 else number
        data = encode_table({"object": signed, "pattern": draw(st.sampled_from(["e", "*", "u*"]))})
        body += put_raw(Attr.DATA, data)
    return body + draw(st.sampled_from([b"", b"\xff", b"\x07\0\0\0", b"\x01\xff\xff\xff"]))


@given(st.data())
def test_no_sequence_of_messages_breaks_the_bus(data):
    router = Router()
    quiet = Pipe(router)
    router.receive(
        quiet.peer, Message(6, 1, 0, put_string(Attr.OBJPATH, b"quiet") + put_raw(6, b""))
    )
    wild = [Pipe(router) for _ in range(3)]
    known: list[int] = []
    for _ in range(data.draw(st.integers(1, 25))):
        pipe = data.draw(st.sampled_from(wild))
        pipe.full = data.draw(st.integers(0, 5)) == 0
        kind = data.draw(st.integers(0, 13))
        peer = data.draw(st.sampled_from([0, *known, *(one.peer.client_id for one in wild)]))
        router.receive(pipe.peer, Message(kind, 1, peer, data.draw(bodies(known))))
        found = [parse_attributes(message.body).get(Attr.OBJID) for message in pipe.messages]
        known = [number for number in found if number]
        if data.draw(st.integers(0, 9)) == 0:
            router.leave(pipe.peer)
            wild[wild.index(pipe)] = Pipe(router)
    for pipe in wild:
        router.leave(pipe.peer)
        router.leave(pipe.peer)
    quiet.messages.clear()
    router.receive(quiet.peer, Message(MessageType.LOOKUP, 9, 0, b""))
    answer = [message for message in quiet.messages if message.seq == 9]
    assert [message.type for message in answer] == [MessageType.DATA, MessageType.STATUS]
    assert parse_attributes(answer[0].body)[Attr.OBJPATH] == b"quiet"


def test_a_call_that_would_pass_the_receivers_limit_is_refused():
    router = Router()
    callee, caller = Pipe(router), Pipe(router)
    router.receive(callee.peer, Message(6, 1, 0, b""))
    object_id = parse_attributes(callee.messages[1].body)[Attr.OBJID]
    callee.messages.clear()
    body = put_number(Attr.OBJID, object_id) + put_string(Attr.METHOD, b"m")
    body += put_raw(Attr.DATA, b"x" * (MAX_MESSAGE - len(body) - 8))
    router.receive(caller.peer, Message(MessageType.INVOKE, 1, object_id, body))
    assert callee.messages == []
    assert parse_attributes(caller.messages[-1].body) == {Attr.STATUS: 11}
