"""DNS and TCP probes: their bytes, and on loopback what counts as an answer."""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpcd_wireguard_uplink.errors import NotSupported
from rpcd_wireguard_uplink.model import Family
from rpcd_wireguard_uplink.probing import service_probe
from rpcd_wireguard_uplink.probing.icmp import Reply
from rpcd_wireguard_uplink.probing.probe_kind import ProbeKind
from rpcd_wireguard_uplink.probing.service_probe import (
    Page,
    ServiceProber,
    answered_number,
    dns_query,
)

ANSWER = struct.pack("!HHHIH", 0xC00C, 6, 1, 5, 22) + bytes(22)


def reply_to(query: bytes, flags: int = 0x8180, answers: int = 1) -> bytes:
    return query[:2] + struct.pack("!HHHHH", flags, 1, answers, 0, 0) + query[12:] + ANSWER


def test_a_query_asks_for_the_roots_record() -> None:
    assert dns_query(0xABCD) == bytes.fromhex("abcd 0100 0001 0000 0000 0000 00 0006 0001")


@pytest.mark.parametrize(
    ("flags", "answers", "counts"),
    [
        (0x8180, 1, True),
        (0x8400, 1, True),
        (0x0100, 1, False),  # a question
        (0x8182, 0, False),  # the server failed: a modem whose upstream is dead
        (0x8185, 0, False),  # refused
        (0x8183, 0, False),
        (0x8180, 0, False),  # nothing said
    ],
)
def test_what_counts_as_an_answer(flags: int, answers: int, counts: bool) -> None:
    found = answered_number(reply_to(dns_query(7), flags, answers))
    assert found == (7 if counts else None)


def test_an_answer_to_another_question_does_not_count() -> None:
    reply = bytearray(reply_to(dns_query(7)))
    reply[14] = 1
    assert answered_number(bytes(reply)) is None


@given(st.binary(max_size=64))
def test_any_bytes_are_read(data: bytes) -> None:
    assert answered_number(data) in (None, int.from_bytes(data[:2], "big"))


@pytest.fixture
def prober(monkeypatch: pytest.MonkeyPatch) -> Iterator[ServiceProber]:
    """One on loopback, where neither a bound device nor a mark needs rights."""
    monkeypatch.setattr(service_probe, "SO_MARK", socket.SO_REUSEADDR)
    made = ServiceProber("lo", Family.IPV4, 0)
    try:
        made.open()
    except NotSupported:
        pytest.skip("sockets can't be bound to a device here")
    yield made
    made.close()


def wait(prober: ServiceProber, seconds: float = 2.0) -> list[Reply]:
    """What drain() gives once the one descriptor says that there is something."""
    able, _, _ = select.select([prober.descriptor], [], [], seconds)
    return prober.drain() if able else []


def test_a_resolvers_answer(prober: ServiceProber, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(2.0)
        monkeypatch.setattr(service_probe, "DNS_PORT", server.getsockname()[1])
        sequence = prober.send(ProbeKind.DNS, "127.0.0.1")
        query, client = server.recvfrom(512)
        other = struct.pack("!H", int.from_bytes(query[:2], "big") ^ 1)
        server.sendto(other + reply_to(query)[2:], client)
        assert wait(prober) == []
        server.sendto(reply_to(query), client)
        assert wait(prober) == [Reply(sequence or 0, 0)]
        server.sendto(reply_to(query), client)
        assert wait(prober) == [], "once"


def test_connections(prober: ServiceProber, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        monkeypatch.setitem(service_probe._PORTS, ProbeKind.TCP_443, port)
        assert prober.send(ProbeKind.TCP_443, "127.0.0.1") is not None
        assert wait(prober) == [], "a refusal is no answer"
        server.listen(1)
        sequence = prober.send(ProbeKind.TCP_443, "127.0.0.1")
        assert wait(prober) == [Reply(sequence or 0)]
        assert prober._connecting == {}


@pytest.mark.parametrize(
    ("answer", "counts"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", True),
        (b"HTTP/1.0 204\r\n\r\n", True),
        (b"HTTP/1.1 302 Found\r\nLocation: http://portal/\r\n\r\n", False),
        (b"HTTP/1.1 200 204\r\n\r\n", False),
        (b"", False),
    ],
)
def test_a_page(prober: ServiceProber, answer: bytes, counts: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(2.0)
        page = Page("127.0.0.1", server.getsockname()[1], b"GET / HTTP/1.1\r\n\r\n")
        sequence = prober.send(ProbeKind.HTTP, "192.0.2.1", page)
        assert wait(prober) == [], "connected is not answered"
        client, _ = server.accept()
        with client:
            client.settimeout(2.0)
            assert client.recv(512) == page.request
            client.sendall(answer)
        assert wait(prober) == ([Reply(sequence or 0)] if counts else [])
        assert prober._connecting == {}


def test_without_a_page_none_is_asked_for(prober: ServiceProber) -> None:
    assert prober.send(ProbeKind.HTTP, "127.0.0.1") is None


def test_connections_that_nobody_answers_are_given_up(prober: ServiceProber) -> None:
    for number in range(3):
        held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        made = service_probe._Connection(number, held, time.monotonic() - 60.0)
        prober._connecting[held.fileno()] = made
    prober.send(ProbeKind.DNS, "127.0.0.1")
    assert prober._connecting == {}


def test_a_closed_one_sends_and_reads_nothing(prober: ServiceProber) -> None:
    prober.close()
    assert prober.descriptor == -1
    assert prober.send(ProbeKind.DNS, "127.0.0.1") is None
    assert prober.drain() == []
