"""Questions to resolvers as bytes, what answers mean, and who may serve inside a tunnel."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import cast

import pytest
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.system import dns as resolvers
from rpcd_wireguard_uplink.system.dns import (
    AAAA,
    KNOWN_S,
    RRSIG,
    SILENT_S,
    SOA,
    A,
    TunnelResolvers,
    ask,
    in_turns,
    look_up,
    parse_answers,
    question,
    resolve_all,
)

Records = Sequence[tuple[int, bytes]]


def reply_to(query: bytes, records: Records = (), code: int = 0) -> bytes:
    """A reply that repeats the question; each record's name is a pointer to it."""
    end = query.index(b"\0", 12) + 5
    body = b"".join(
        b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 60, len(data)) + data for kind, data in records
    )
    counts = struct.pack("!HHHHH", 0x8180 | code, 1, len(records), 0, 0)
    return query[:2] + counts + query[12:end] + body


def test_questions() -> None:
    """With signatures: an OPT record with the DO bit more (RFC 6891, RFC 3225)."""
    wire = question(0x0102, "gw.example.", A)
    assert wire == bytes.fromhex("010201000001000000000000") + b"\2gw\7example\0\0\1\0\1"
    of_the_root = bytes.fromhex("000101000001000000000001" + "00 0006 0001")
    options = bytes.fromhex("00 0029 04d0 00008000 0000")
    assert question(1, "", SOA, signed=True) == of_the_root + options


@pytest.mark.parametrize("name", ["a" * 64, "b\u00fccher.example"])
def test_a_name_that_cannot_be_asked_for(name: str) -> None:
    with pytest.raises(ValueError):
        question(1, name, A)


def test_answers() -> None:
    query = question(7, "gw.example", A)
    records = [(5, b"\2gw\xc0\x0c"), (A, bytes([192, 0, 2, 7])), (RRSIG, b"x" * 20)]
    assert parse_answers(reply_to(query, records), 7) == records
    assert parse_answers(reply_to(query), 7) == []
    assert parse_answers(reply_to(query, records, code=3), 7) == [], "a no is an answer"


@pytest.mark.parametrize("damage", ["number", "query", "short", "cut", "long name"])
def test_what_is_no_answer(damage: str) -> None:
    query = question(7, "gw.example", A)
    reply = reply_to(query, [(A, bytes(4))])
    wire = {
        "number": b"\0\x08" + reply[2:],
        "query": query,
        "short": reply[:11],
        "cut": reply[:-1],
        "long name": reply[:12] + b"\x3f" + reply[13:],
    }[damage]
    assert parse_answers(wire, 7) is None


@dataclass
class Server(asyncio.DatagramProtocol):
    """A resolver on this machine; `silent` swallows so many questions first."""

    records: dict[int, Records] = field(default_factory=dict)
    silent: int = 0
    asked: list[bytes] = field(default_factory=list)
    port: int = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)
        self.port = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.asked.append(data)
        if self.silent:
            self.silent -= 1
            return
        kind = struct.unpack_from("!H", data, data.index(b"\0", 12) + 1)[0]
        self.transport.sendto(b"\xff" * 30, addr)  # not an answer to anything
        self.transport.sendto(reply_to(data, self.records.get(kind, ())), addr)


@pytest.fixture
async def server(mocker: MockerFixture) -> AsyncIterator[Server]:
    """The sockets are not bound to a device, which needs root."""

    def plain_socket(device: str, address: str, kind: socket.SocketKind) -> socket.socket:
        assert device == "wgup_a"
        return socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK)

    loop = asyncio.get_running_loop()
    transport, found = await loop.create_datagram_endpoint(
        Server, local_addr=("127.0.0.1", 0), family=socket.AF_INET
    )
    mocker.patch.object(resolvers, "bound_socket", plain_socket)
    mocker.patch.object(resolvers, "PORT", found.port)
    yield found
    transport.close()


async def test_a_question_is_asked_again(mocker: MockerFixture, server: Server) -> None:
    mocker.patch.object(resolvers, "TIMEOUT_S", 0.2)
    server.records[A] = [(A, bytes([192, 0, 2, 7]))]
    server.silent = 1
    assert await ask("127.0.0.1", "wgup_a", "gw.example", A) == [(A, bytes([192, 0, 2, 7]))]
    assert len(server.asked) == 2
    server.silent = 99
    mocker.patch.object(resolvers, "TIMEOUT_S", 0.01)
    assert await ask("127.0.0.1", "wgup_a", "gw.example", A) is None


async def test_a_device_that_is_missing_answers_nothing(mocker: MockerFixture) -> None:
    mocker.patch.object(resolvers, "bound_socket", side_effect=OSError("no such device"))
    assert await ask("127.0.0.1", "wgup_a", "gw.example", A) is None


async def test_look_up(server: Server) -> None:
    server.records[AAAA] = [(AAAA, bytes(15) + b"\1")]
    assert await look_up("gw.example", ["127.0.0.1"], "wgup_a") == ["::1"]
    server.records[A] = [(5, b"\0"), (A, bytes([192, 0, 2, 7])), (A, b"bad")]
    assert await look_up("gw.example", ["127.0.0.1"], "wgup_a") == ["192.0.2.7"]
    assert await look_up("gw.example", [], "wgup_a") == []


async def test_only_who_passes_signatures_on_serves(mocker: MockerFixture) -> None:
    answers = {
        "10.0.0.1": [(SOA, b""), (RRSIG, b"")],
        "10.0.0.2": [(SOA, b"")],
        "10.0.0.3": None,
        "10.0.0.4": [(RRSIG, b"")],
    }
    asked: list[str] = []

    async def answer(
        server: str, device: str, name: str, kind: int, *, signed: bool
    ) -> Records | None:
        assert (device, name, kind, signed) == ("wgup_a", "", SOA, True)
        asked.append(server)
        return answers[server]

    mocker.patch.object(resolvers, "ask", answer)
    known, offered = TunnelResolvers(), {"wgup_a": tuple(answers)}
    assert await known.look(offered, 100.0) == {"wgup_a": ("10.0.0.1", "10.0.0.4")}
    assert await known.look(offered, 100.0 + SILENT_S - 1) == {"wgup_a": ("10.0.0.1", "10.0.0.4")}
    assert asked == list(answers), "what is known is not asked again"
    answers["10.0.0.3"] = [(RRSIG, b"")]
    found = await known.look(offered, 100.0 + SILENT_S)
    assert found == {"wgup_a": ("10.0.0.1", "10.0.0.3", "10.0.0.4")}
    assert asked[4:] == ["10.0.0.3"], "silence is no verdict"
    answers["10.0.0.1"] = [(SOA, b"")]
    assert await known.look(offered, 100.0 + KNOWN_S) == {"wgup_a": ("10.0.0.3", "10.0.0.4")}
    assert await known.look({}, 200.0 + KNOWN_S) == {}
    await known.look({"wgup_a": ["10.0.0.2"]}, 200.0 + KNOWN_S)
    assert asked[-1] == "10.0.0.2", "what was withdrawn is forgotten"


# --- the system's resolver


ROWS = [(0, 0, 0, "", ("2001:db8::7", 0, 0, 0)), (0, 0, 0, "", ("192.0.2.7", 0))]


@pytest.mark.parametrize(
    ("host", "outcome", "addresses"),
    [
        ("192.0.2.1", OSError("a literal was looked up"), ("192.0.2.1",)),
        ("2001:DB8::1", OSError("a literal was looked up"), ("2001:db8::1",)),
        ("gw.example", ROWS, ("2001:db8::7", "192.0.2.7")),
        ("gw.example", [], ()),
        ("gw.example", socket.gaierror("no such name"), ()),
        ("gw.example", UnicodeError("label too long"), ()),
    ],
)
async def test_addresses_by_the_systems_resolver(
    mocker: MockerFixture, host: str, outcome: object, addresses: tuple[str, ...]
) -> None:
    mocker.patch("socket.getaddrinfo", side_effect=[outcome])
    assert await resolve_all(host) == addresses


@pytest.mark.parametrize(
    ("found", "order"),
    [
        ("2001:db8::1 2001:db8::2 192.0.2.1", "2001:db8::1 192.0.2.1 2001:db8::2"),
        ("192.0.2.1 192.0.2.2 2001:db8::1", "192.0.2.1 2001:db8::1 192.0.2.2"),
        ("192.0.2.1 192.0.2.1 192.0.2.2", "192.0.2.1 192.0.2.2"),
        ("127.0.0.1 ::1 0.0.0.0 ff02::1 fe80::1%lan ::ffff:127.0.0.1 192.0.2.1", "192.0.2.1"),
        ("", ""),
    ],
)
def test_families_take_turns(found: str, order: str) -> None:
    """And nobody's tunnel leads to this router itself, whatever a name says."""
    assert in_turns(found.split()) == tuple(order.split())


async def test_a_resolver_that_hangs_holds_nobody_up(mocker: MockerFixture) -> None:
    release = threading.Event()
    ended = threading.Event()

    def hang(*_: object, **__: object) -> list[object]:
        release.wait(30)
        ended.set()
        return []

    mocker.patch("socket.getaddrinfo", side_effect=hang)
    assert await asyncio.wait_for(resolve_all("gw.example", timeout_s=0.05), 10) == ()
    release.set()
    assert await asyncio.to_thread(ended.wait, 10), "the late answer is dropped in silence"
