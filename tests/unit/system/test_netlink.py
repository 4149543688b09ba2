"""Netlink messages: what is built is parsed again, what is damaged is left, what failed is said."""

from __future__ import annotations

import errno
import struct
from collections import deque
from typing import Any

import pytest
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.errors import CommandFailed, TimedOut
from rpcd_wireguard_uplink.system import netlink
from rpcd_wireguard_uplink.system.netlink import (
    ACK,
    DONE,
    DUMP,
    ERROR,
    FIRST_SEQUENCE,
    HEADER,
    MOST_IN_BATCH,
    REQUEST,
    Events,
    Message,
    Netlink,
    attribute,
    nested,
    network_number,
    number,
    parse_attributes,
    parse_messages,
    text,
)

PAIRS = [(1, b""), (netlink.TYPE_MASK, b"x"), (3, b"abcd"), (7, b"12345")]


def packed(kind: int, body: bytes, sequence: int, flags: int = 0) -> bytes:
    head = HEADER.pack(HEADER.size + len(body), kind, flags, sequence, 0)
    return head + body + b"\0" * (-len(body) % 4)


# --- attributes and messages


def test_what_was_built_is_parsed_up_to_where_it_is_cut_off() -> None:
    data = b"".join(attribute(kind, value) for kind, value in PAIRS)
    assert len(data) % 4 == 0
    assert list(parse_attributes(b"head" + data, 4)) == PAIRS
    # Where each of them ends, before what pads it to four bytes.
    ends = {n: sum(n >= end for end in (4, 9, 20, 29)) for n in range(len(data) + 1)}
    found = {n: list(parse_attributes(data[:n])) for n in ends}
    assert found == {n: PAIRS[:whole] for n, whole in ends.items()}


def test_messages_of_one_datagram() -> None:
    data = b"".join(packed(kind, body, n) for n, (kind, body) in enumerate(PAIRS))
    expected = [(n, Message(kind, body)) for n, (kind, body) in enumerate(PAIRS)]
    assert list(parse_messages(data)) == expected
    assert list(parse_messages(data[:-4])) == expected[:-1], "the last one is cut off"


def test_a_length_below_the_header_does_not_loop() -> None:
    for length in range(4):
        assert list(parse_attributes(struct.pack("=HHI", length, 1, 0))) == []
    for length in range(HEADER.size):
        assert list(parse_messages(HEADER.pack(length, 1, 0, 0, 0))) == []


def test_numbers_texts_and_nests() -> None:
    [(kind, value)] = parse_attributes(number(7, 0x01020304))
    assert (kind, struct.unpack("=I", value)) == (7, (0x01020304,))
    [(kind, value)] = parse_attributes(network_number(8, 0x01020304))
    assert (kind, value) == (8, b"\1\2\3\4")
    [(kind, value)] = parse_attributes(text(3, "wan"))
    assert (kind, value) == (3, b"wan\0")
    [(kind, value)] = parse_attributes(nested(18, [text(1, "tun"), number(2, 5)]))
    assert kind == 18, "the flag of a nest is not part of its type"
    assert [inner for inner, _ in parse_attributes(value)] == [1, 2]


# --- a socket


class Socket:
    """A netlink socket whose kernel answers each datagram by `answer(sequence, kind, body)`."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.sent: list[list[tuple[int, Message]]] = []
        self.waiting: deque[bytes] = deque()
        self.closed = False

    def bind(self, address: object) -> None: ...
    def settimeout(self, seconds: float) -> None: ...
    def setsockopt(self, *option: int) -> None: ...
    def getsockname(self) -> tuple[int, int]:
        return 4711, 0

    def close(self) -> None:
        self.closed = True

    def sendto(self, data: bytes, address: object) -> None:
        messages = list(parse_messages(data))
        self.sent.append(messages)
        for sequence, message in messages:
            self.waiting.extend(self.answer(sequence, message))

    def recv(self, size: int) -> bytes:
        if not self.waiting:
            raise TimeoutError
        return self.waiting.popleft()


def acknowledged(sequence: int, code: int = 0) -> bytes:
    return packed(ERROR, struct.pack("=i", -code) + bytes(16), sequence)


class Sockets(list[Socket]):
    """The sockets that were opened; `answer` is what their kernel says."""

    answer: Any = staticmethod(lambda n, m: [acknowledged(n)] if m.flags & ACK else [])


@pytest.fixture
def kernel(mocker: MockerFixture) -> Sockets:
    opened = Sockets()

    def open_socket(*_: object) -> Socket:
        opened.append(Socket(lambda sequence, message: opened.answer(sequence, message)))
        return opened[-1]

    mocker.patch.object(netlink.socket, "socket", open_socket)
    return opened


@pytest.fixture
def line(kernel: Sockets) -> Netlink:
    return Netlink(netlink.ROUTE)


@pytest.mark.parametrize(("last", "code"), [(24, 0), (26, errno.EEXIST)])
def test_changes_are_sent_in_one_datagram_and_the_last_is_acknowledged(
    kernel: Sockets, line: Netlink, last: int, code: int
) -> None:
    """The kernel tells of refusals, and else only what it was asked to acknowledge."""
    codes = {26: errno.EEXIST}
    kernel.answer = lambda n, m: (
        [acknowledged(n, codes.get(m.kind, 0))] if m.kind in codes or m.flags & ACK else []
    )
    assert line.port == 0
    sent = [Message(24, b"a"), Message(26, b"bc"), Message(last, b"")]
    assert line.change(sent) == [0, errno.EEXIST, code]
    [[first, second, third]] = kernel[0].sent
    assert [n for n, _ in (first, second, third)] == [FIRST_SEQUENCE + k for k in (1, 2, 3)]
    assert [m.flags for _, m in (first, second, third)] == [REQUEST, REQUEST, REQUEST | ACK]
    assert line.change([]) == [] and line.port == 4711


def test_many_changes_are_sent_in_parts(kernel: Sockets, line: Netlink) -> None:
    count = 2 * MOST_IN_BATCH + 1
    assert line.change([Message(24, b"")] * count) == [0] * count
    assert [len(datagram) for datagram in kernel[0].sent] == [MOST_IN_BATCH, MOST_IN_BATCH, 1]


def test_questions_and_their_answers(kernel: Sockets, line: Netlink) -> None:
    kernel.answer = lambda n, m: [
        packed(24, b"one!", n) + packed(24, b"two!", n),
        packed(24, b"news", 0),  # somebody else's
        packed(DONE, bytes(4), n) + packed(24, b"late", n),
    ]
    assert [m.body for m in line.dump(26, b"")] == [b"one!", b"two!"]
    assert kernel[0].sent[0][0][1].flags == REQUEST | DUMP
    kernel.answer = lambda n, m: [packed(24, b"late", n - 1), packed(24, b"mine", n)]
    assert line.ask(26, b"").body == b"mine"


def test_what_the_kernel_refuses_is_said(kernel: Sockets, line: Netlink) -> None:
    kernel.answer = lambda n, m: [acknowledged(n, errno.EPERM)]
    for refused in (line.dump, line.ask):
        with pytest.raises(CommandFailed, match="not permitted"):
            refused(26, b"")
    kernel.answer = lambda n, m: [packed(ERROR, b"\0", n)]
    with pytest.raises(CommandFailed, match="Bad message"):
        line.dump(26, b"")


def test_after_an_error_of_its_own_a_socket_is_opened_anew(
    kernel: Sockets, line: Netlink, mocker: MockerFixture
) -> None:
    change = [Message(24, b"")]
    assert line.change(change) == [0]
    mocker.patch.object(kernel[0], "recv", side_effect=TimeoutError)
    with pytest.raises(TimedOut):
        line.change(change)
    assert line.change(change) == [0]
    mocker.patch.object(kernel[1], "recv", side_effect=OSError(errno.ENOBUFS, "no buffers"))
    with pytest.raises(CommandFailed, match="No buffer space"):
        line.change(change)
    assert line.change(change) == [0]
    mocker.patch.object(kernel[2], "sendto", side_effect=OSError(errno.EMSGSIZE, "too long"))
    with pytest.raises(CommandFailed, match="too long"):
        line.change(change)
    assert [socket.closed for socket in kernel] == [True, True, True]


def test_no_socket_is_a_clear_error(mocker: MockerFixture) -> None:
    mocker.patch.object(netlink.socket, "socket", side_effect=OSError(errno.EMFILE, "too many"))
    with pytest.raises(CommandFailed, match="Too many open files"):
        Netlink(netlink.ROUTE).dump(26, b"")


def test_sequence_numbers_stay_out_of_others_and_begin_again(
    kernel: Sockets, line: Netlink
) -> None:
    """wireguard-go takes news with numbers up to 65,536 for answers to its own questions."""
    assert FIRST_SEQUENCE > 65536
    line._sequence = 0x7FFFFFFF
    assert line.change([Message(24, b"")]) == [0]
    assert line.change([Message(24, b"")]) == [0]
    assert kernel[0].sent[1][0][0] == FIRST_SEQUENCE + 1


# --- news


class Heard:
    """A non-blocking socket that has these datagrams, then an end."""

    def __init__(self, waiting: list[bytes | OSError]) -> None:
        self.waiting = waiting

    def setsockopt(self, *option: int) -> None: ...
    def bind(self, address: object) -> None: ...

    def recv(self, size: int) -> bytes:
        if not self.waiting:
            raise BlockingIOError
        found = self.waiting.pop(0)
        if isinstance(found, OSError):
            raise found
        return found


def test_news_and_losses(mocker: MockerFixture) -> None:
    lost = OSError(errno.ENOBUFS, "no buffers")
    heard = Heard([packed(24, b"one!", 0), packed(24, b"two!", 0), lost, packed(25, b"", 0)])
    mocker.patch.object(netlink.socket, "socket", lambda *_: heard)
    events = Events(netlink.ROUTE, 1)
    messages, is_lost = events.read()
    assert ([m.body for m in messages], is_lost) == ([b"one!", b"two!"], True)
    messages, is_lost = events.read()
    assert ([m.kind for m in messages], is_lost) == ([25], False)
    assert events.read() == ([], False)


def test_a_flood_of_news_does_not_hold_the_loop(mocker: MockerFixture) -> None:
    heard = mocker.Mock()
    heard.recv.side_effect = lambda size: packed(24, b"", 0)
    mocker.patch.object(netlink.socket, "socket", lambda *_: heard)
    messages, _ = Events(netlink.ROUTE, 1).read()
    assert 0 < len(messages) < 10_000


async def test_real_news_are_heard_until_the_end() -> None:
    events = Events(netlink.ROUTE, 1, lambda: None)
    assert events.read()[1] is False
    events.close()
    events.close()


def test_a_unit_test_can_not_change_this_machine(no_change_of_this_machine: list[Message]) -> None:
    with pytest.raises(pytest.fail.Exception, match="this machine's network"):
        Netlink(netlink.ROUTE).change([Message(netlink.DONE, b"")])
    no_change_of_this_machine.clear()
