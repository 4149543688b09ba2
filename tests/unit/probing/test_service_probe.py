"""DNS and TCP probes: their bytes, and on loopback what counts as an answer."""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Iterator

import pytest

from rpcd_wireguard_uplink.errors import NotSupported
from rpcd_wireguard_uplink.model import Family
from rpcd_wireguard_uplink.probing import service_probe
from rpcd_wireguard_uplink.probing.icmp import Reply
from rpcd_wireguard_uplink.probing.probe_kind import ProbeKind
from rpcd_wireguard_uplink.probing.service_probe import Page, ServiceProber
from rpcd_wireguard_uplink.system import sockets

ANSWER = struct.pack("!HHHIH", 0xC00C, 6, 1, 5, 22) + bytes(22)


def reply_to(query: bytes, flags: int = 0x8180, answers: int = 1) -> bytes:
    return query[:2] + struct.pack("!HHHHH", flags, 1, answers, 0, 0) + query[12:] + ANSWER


@pytest.fixture
def prober(monkeypatch: pytest.MonkeyPatch) -> Iterator[ServiceProber]:
    """One on loopback, where neither a bound device nor a mark needs rights."""
    monkeypatch.setattr(sockets, "_SO_MARK", socket.SO_REUSEADDR)
    made = ServiceProber("lo", Family.IPV4)
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
        monkeypatch.setattr(ProbeKind.DNS, "port", server.getsockname()[1])
        sequence = prober.send(ProbeKind.DNS, "127.0.0.1")
        query, client = server.recvfrom(512)
        other = struct.pack("!H", int.from_bytes(query[:2], "big") ^ 1)
        assert query[2:] == bytes.fromhex("0100 0001 0000 0000 0000 00 0006 0001")
        failed = (0x8182, 0), (0x8185, 0), (0x8183, 0), (0x8180, 0), (0x0100, 1)
        address = reply_to(query)[: -len(ANSWER)] + b"\0" + ANSWER[2:].replace(b"\0\6", b"\0\1", 1)
        for wrong in (other + reply_to(query)[2:], address, *(reply_to(query, *f) for f in failed)):
            server.sendto(wrong, client)
            assert wait(prober) == []
        server.sendto(reply_to(query), client)
        assert wait(prober) == [Reply(sequence or 0, 0)]
        server.sendto(reply_to(query), client)
        assert wait(prober) == [], "once"


def test_connections(prober: ServiceProber, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as server:
        server.bind(("127.0.0.1", 0))
        monkeypatch.setattr(ProbeKind.TCP_443, "port", server.getsockname()[1])
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
