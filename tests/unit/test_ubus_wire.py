"""The recorded conversations: framing, protocol and text against what real programs exchanged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rpcd_wireguard_uplink.errors import BusError, MessageTooLarge, Status
from rpcd_wireguard_uplink.extras.standalone.__main__ import text_of
from rpcd_wireguard_uplink.ubus.blobmsg import Type, decode_table, encode_table
from rpcd_wireguard_uplink.ubus.framing import (
    MAX_MESSAGE,
    Attr,
    FrameReader,
    MessageType,
    frame,
    parse_attributes,
    put_flag,
    put_number,
    put_raw,
    put_string,
)
from rpcd_wireguard_uplink.ubus.objects import BusObject, Listener, Reply
from rpcd_wireguard_uplink.ubus.protocol import Completed, Connected, Connection, Invoked

RECORDED = json.loads((Path(__file__).parent.parent / "data" / "ubus-wire.json").read_text())
CONVERSATIONS = {one["what"]: one for one in RECORDED["conversations"]}
ECHO = {"s": Type.STRING, "i": Type.INT32, "b": Type.BOOL, "d": Type.DOUBLE}
ECHO |= {"l": Type.INT64, "a": Type.ARRAY, "t": Type.TABLE}
VALUES = {"s": "aüz", "i": -5, "b": True, "d": 2.5, "l": 9007199254740993}
VALUES |= {"a": [1, "x", None, [True]], "t": {"k": {"n": 0}}}


def frames(what: str, sender: str) -> list[bytes]:
    found = [bytes.fromhex(one["hex"]) for one in CONVERSATIONS[what]["frames"]]
    return [
        data
        for data, one in zip(found, CONVERSATIONS[what]["frames"], strict=True)
        if one["from"] == sender
    ]


SERVER = "python-ubus 0.1.3 serving test.object through all that follows"


@pytest.mark.parametrize("what", CONVERSATIONS)
@pytest.mark.parametrize("sender", ["ubusd", "client"])
def test_frames_are_read_in_any_split(what, sender):
    parts = frames(what, sender)
    whole = b"".join(parts)
    wanted = [message for part in parts for message in FrameReader().feed(part)]
    assert len(wanted) == len(parts)
    assert list(FrameReader().feed(whole)) == wanted
    reader = FrameReader()
    found = [message for at in range(len(whole)) for message in reader.feed(whole[at : at + 1])]
    assert found == wanted


@pytest.mark.parametrize("what", CONVERSATIONS)
def test_every_recorded_table_is_encoded_as_libubox_did(what):
    count = 0
    for sender in ("ubusd", "client"):
        for data in frames(what, sender):
            (message,) = FrameReader().feed(data)
            attributes = parse_attributes(message.body)
            for attr in (Attr.DATA, Attr.SIGNATURE):
                if attr in attributes:
                    assert encode_table(decode_table(attributes[attr])) == attributes[attr]
                    count += 1
            again = frame(message.type, message.seq, message.peer, message.body)
            assert again == data
    assert count or what.startswith(("ubus list nope", "ubus -S call nope"))


@pytest.mark.parametrize("split", [1, 7, 12])
def test_we_serve_the_recorded_calls_as_python_ubus_did(split):
    connection = Connection()
    obj = BusObject("test.object", {"echo": ECHO, "big": {}}, lambda call: Reply())
    sent = iter(frames(SERVER, "client"))
    completed, invoked = [], []
    stream = b"".join(frames(SERVER, "ubusd"))
    for at in range(0, len(stream), split):
        for event in connection.receive(stream[at : at + split]):
            if isinstance(event, Connected):
                assert event.client_id == 0x5EE7789E
            elif isinstance(event, Completed):
                completed.append(event)
            elif isinstance(event, Invoked):
                invoked.append(event)
        if connection.client_id and not connection._pending and not completed:
            assert connection.add_object(obj).data == next(sent)
    assert [event.status for event in completed] == [Status.OK]
    assert connection.objects == {0x2D8859FA: obj}
    echo, big, bad, unknown = invoked
    assert (echo.method, echo.user, echo.group) == ("echo", "root", "root")
    assert echo.target is obj
    assert decode_table(echo.data) == VALUES
    assert connection.reply(echo, Reply(VALUES)) == next(sent) + next(sent)
    data, status = next(sent), next(sent)
    (message,) = FrameReader().feed(data)
    table = decode_table(parse_attributes(message.body)[Attr.DATA])
    assert connection.reply(big, Reply(table)) == data + status
    assert connection.reply(bad, Reply(status=Status.INVALID_ARGUMENT)) == next(sent)
    assert connection.reply(unknown, Reply(status=Status.METHOD_NOT_FOUND)) == next(sent)


def test_we_call_as_the_real_command_does():
    what = next(
        name for name in CONVERSATIONS if name.startswith("ubus -S call test.object echo {")
    )
    connection = Connection()
    answers = iter(frames(what, "ubusd"))
    sent = iter(frames(what, "client"))
    assert isinstance(connection.receive(next(answers))[0], Connected)
    assert connection.lookup("test.object").data == next(sent)
    assert connection.receive(next(answers)) == []
    (found,) = connection.receive(next(answers))
    object_id = found.replies[0][Attr.OBJID]
    assert connection.invoke(object_id, "echo", encode_table(VALUES)).data == next(sent)
    (done,) = connection.receive(b"".join(answers))
    assert decode_table(done.tables()[0]) == VALUES
    assert (done.status, done.by_bus) == (Status.OK, False)
    printed = text_of(decode_table(done.tables()[0])) + "\n"
    assert printed == CONVERSATIONS[what]["stdout"]


def test_we_listen_as_the_real_command_does():
    what = "ubus listen wireguard-uplink.*"
    connection = Connection()
    answers = iter(frames(what, "ubusd"))
    sent = iter(frames(what, "client"))
    listener = Listener(lambda name, data: None)
    connection.receive(next(answers))
    assert connection.add_object(listener).data == next(sent)
    connection.receive(next(answers) + next(answers))
    (object_id,) = connection.objects
    ours = parse_attributes(next(FrameReader().feed(connection.listen(object_id, "x").data)).body)
    theirs = parse_attributes(next(FrameReader().feed(next(sent))).body)
    assert decode_table(theirs[Attr.DATA])["object"] == decode_table(ours[Attr.DATA])["object"]
    connection.receive(next(answers))
    (event,) = connection.receive(next(answers))
    assert (event.target, event.method, event.peer) == (listener, "wireguard-uplink.failover", 0)
    assert decode_table(event.data) == {"peer_id": "nodeA", "outage_ms": 320}


def test_we_send_events_as_the_real_command_does():
    what = next(name for name in CONVERSATIONS if name.startswith("ubus send"))
    connection = Connection()
    connection.receive(frames(what, "ubusd")[0])
    data = encode_table({"peer_id": "nodeA", "outage_ms": 320})
    request = connection.send_event("wireguard-uplink.failover", data)
    assert request.data == frames(what, "client")[0]


def connected() -> Connection:
    connection = Connection()
    connection.receive(frame(MessageType.HELLO, 0, 5000))
    return connection


def test_an_answer_must_match_number_and_peer():
    connection = connected()
    request = connection.invoke(2000, "m", b"")
    body = put_number(Attr.STATUS, 0) + put_number(Attr.OBJID, 2000)
    assert connection.receive(frame(MessageType.STATUS, request.seq, 2001, body)) == []
    assert connection.receive(frame(MessageType.STATUS, request.seq + 1, 2000, body)) == []
    (done,) = connection.receive(frame(MessageType.STATUS, request.seq, 2000, body))
    assert done.status == Status.OK
    assert connection.receive(frame(MessageType.STATUS, request.seq, 2000, body)) == []


def test_a_forgotten_request_is_not_answered_and_its_number_comes_back():
    connection = connected()
    first = connection.ping()
    waiting = connection.lookup(None)
    connection.forget(first.seq)
    assert connection.receive(frame(MessageType.STATUS, first.seq, 0, put_number(1, 0))) == []
    numbers = []
    for _ in range(0x10000):
        request = connection.ping()
        connection.forget(request.seq)
        numbers.append(request.seq)
    assert waiting.seq not in numbers
    assert 0 not in numbers
    assert len(set(numbers)) == 0xFFFE


def test_a_call_that_comes_again_is_answered_while_its_object_has_a_reply():
    connection, replies = connected(), {}
    obj = BusObject("test.object", {"m": {}}, lambda call: Reply(), replies)
    seq = connection.add_object(obj).seq
    connection.receive(frame(MessageType.DATA, seq, 0, put_number(Attr.OBJID, 2000)))
    connection.receive(frame(MessageType.STATUS, seq, 0, put_number(Attr.STATUS, 0)))
    body = put_number(Attr.OBJID, 2000) + put_string(Attr.METHOD, b"m")
    plain, quiet = put_raw(Attr.DATA, b""), put_flag(Attr.NO_REPLY, True)
    data = frame(MessageType.INVOKE, 7, 3000, body + plain)
    again = frame(MessageType.INVOKE, 8, 3001, body + plain)
    (first,) = connection.receive(data)
    assert connection.repeat(again) is None
    replies["m"] = Reply(encode_table({"a": 1}))
    assert connection.repeat(again) is None  # nothing came before while there was a reply
    others = [put_raw(Attr.DATA, encode_table({"a": 1})), quiet, plain + quiet, b""]
    whole = [frame(MessageType.INVOKE, 9, 3002, body + other) for other in others]
    connection.receive(b"".join((data, *whole)))
    wanted = connection.reply(first._replace(seq=8, peer=3001), replies["m"])
    assert connection.repeat(again) == wanted
    replies["m"] = Reply(encode_table({"a": 2}))
    assert connection.repeat(again) == connection.reply(
        first._replace(seq=8, peer=3001), replies["m"]
    )
    assert [connection.repeat(other) for other in (*whole, again + again, again[:-1])] == [None] * 6
    connection.receive(whole[0][:-4])
    assert connection.repeat(again) is None  # these are arguments of the call before
    connection.receive(whole[0][-4:])
    replies.clear()
    assert connection.repeat(again) is None
    replies["m"] = Reply(encode_table({"a": 3}))
    assert connection.repeat(again) is not None
    seq = connection.remove_object(2000).seq
    connection.receive(frame(MessageType.STATUS, seq, 0, put_number(Attr.STATUS, 0)))
    assert connection.repeat(again) is None


def invocation(connection: Connection, no_reply: bool = False) -> Invoked:
    return Invoked(None, 7, 3000, 2000, "m", b"", None, None, no_reply)


def test_a_reply_over_the_limit_is_refused_here_and_says_so():
    connection = connected()
    room = MAX_MESSAGE - 4 - 8 - 4 - (4 + 4 + 1)
    fits = connection.reply(invocation(connection), Reply({"v": "x" * room}))
    assert len(fits) == 8 + MAX_MESSAGE + 8 + 4 + 16
    for size in (room + 1, 1 << 21, 1 << 25):
        reply = connection.reply(invocation(connection), Reply({"v": "x" * size}))
        data, status = FrameReader().feed(reply)
        table = decode_table(parse_attributes(data.body)[Attr.DATA])
        assert (table["success"], table["code"]) == (False, "too_large")
        assert "1048576" in table["error"]
        assert parse_attributes(status.body)[Attr.STATUS] == Status.NO_MEMORY


def test_a_request_over_the_limit_is_refused_before_it_counts():
    connection = connected()
    with pytest.raises(MessageTooLarge):
        connection.invoke(2000, "m", encode_table({"v": "x" * MAX_MESSAGE}))
    assert connection._pending == {}


def test_nothing_is_sent_to_a_caller_that_wants_no_reply():
    connection = connected()
    assert connection.reply(invocation(connection, no_reply=True), Reply({"a": 1})) == b""


def test_a_call_that_grew_over_the_limit_on_its_way_is_still_read():
    # ubusd adds USER and GROUP without checking the limit again.
    body = put_number(Attr.OBJID, 2000) + put_string(Attr.METHOD, b"m")
    body += put_string(Attr.USER, b"root") + put_string(Attr.GROUP, b"root")
    body += put_raw(Attr.DATA, encode_table({"v": "x" * (MAX_MESSAGE - 56)}))
    data = b"\0\5\0\1" + (3000).to_bytes(4, "big") + (len(body) + 4).to_bytes(4, "big") + body
    assert len(body) + 4 > MAX_MESSAGE
    (event,) = connected().receive(data)
    assert len(decode_table(event.data)["v"]) == MAX_MESSAGE - 56


@pytest.mark.parametrize(
    "data",
    [
        frame(MessageType.STATUS, 0, 0),
        b"HTTP/1.1 400 Bad Request\r\n",
        b"\1\0\0\0\0\0\x13\x88\0\0\0\4",
        b"\0\0\0\0\0\0\x13\x88\0\0\0\3",
        b"\0\0\0\0\0\0\x13\x88\0\xff\xff\xff",
    ],
)
def test_what_does_not_greet_like_a_bus_is_refused(data):
    with pytest.raises(BusError):
        Connection().receive(data)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=6), st.data())
def test_any_messages_in_any_split_are_understood_or_refused(bodies, data):
    stream = frame(MessageType.HELLO, 0, 5000)
    for body in bodies:
        kind = data.draw(st.integers(0, 12))
        stream += frame(kind, data.draw(st.integers(0, 3)), 0, body)
    connection, reader = connected(), FrameReader()
    connection.ping()
    connection.add_object(Listener(lambda name, table: None))
    whole = list(FrameReader().feed(stream))
    split = data.draw(st.integers(1, 40))
    found = []
    for at in range(0, len(stream), split):
        found += reader.feed(stream[at : at + split])
        connection.receive(stream[at : at + split])
    assert found == whole


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        *(("", {}), ("a\0b", {}), ("a*", {}), (7, {})),
        *(("a", {"": {}}), ("a", {"m": {"": Type.STRING}}), ("a", {"m": {"x": 3}})),
    ],
)
def test_bad_declarations_are_refused(path, methods):
    with pytest.raises(BusError) as caught:
        BusObject(path, methods, lambda call: Reply())
    assert caught.value.code == "bad_declaration"


def test_text_is_that_of_blobmsg_json():
    table = {"a": [], "t": {}, "s": 'q"\\\b\f\x01/ü', "n": None, "d": 1e300, "i": 1}
    text = text_of(decode_table(encode_table(table)), 0)
    assert text.startswith('{\n\t"a": [\n\t\t\n\t],\n\t"t": {\n\t\t\n\t},\n\t"s": ')
    assert '"q\\"\\\\\\b\\u000c\\u0001/ü"' in text
    assert text_of({"a": [1, -2, True, 0.1]}) == '{"a":[1,-2,true,0.100000]}'
