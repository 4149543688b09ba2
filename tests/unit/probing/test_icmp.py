"""Echo requests and replies as bytes; sockets are for the namespace tests."""

from __future__ import annotations

import socket
import struct
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.model import Family
from rpcd_wireguard_uplink.probing.icmp import Prober, Reply, checksum, echo_request, parse_reply

V4, V6 = Family.IPV4, Family.IPV6


def ip_header(words: int = 5) -> bytes:
    return bytes([0x40 | words]) + bytes(words * 4 - 1)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", 0xFFFF),
        (b"\x00\x00", 0xFFFF),
        (b"\xff\xff", 0x0000),
        # The example of RFC 1071, section 3: the sum is ddf2.
        (bytes.fromhex("0001f203f4f5f6f7"), 0xFFFF ^ 0xDDF2),
        (b"\x01", 0xFEFF),
    ],
)
def test_checksum(data: bytes, expected: int) -> None:
    assert checksum(data) == expected


@given(st.binary(max_size=64), st.integers(0, 0xFFFF), st.integers(0, 0xFFFF))
def test_a_request_checks_out(payload: bytes, ident: int, sequence: int) -> None:
    packet = echo_request(V4, ident, sequence, payload)
    assert checksum(packet) == 0
    assert packet[:2] == b"\x08\x00"
    assert struct.unpack("!HH", packet[4:8]) == (ident, sequence)
    assert packet[8:] == payload


def test_the_kernel_fills_in_the_checksum_of_ipv6() -> None:
    assert echo_request(V6, 1, 2, b"x") == bytes.fromhex("80000000 0001 0002") + b"x"


@given(st.integers(5, 15), st.binary(max_size=32))
def test_a_reply_of_ipv4_has_its_header_removed(words: int, payload: bytes) -> None:
    packet = ip_header(words) + struct.pack("!BBHHH", 0, 0, 0, 7, 9) + payload
    assert parse_reply(V4, packet) == (7, 9, payload)


def test_a_reply_of_ipv6_has_none() -> None:
    assert parse_reply(V6, struct.pack("!BBHHH", 129, 0, 0, 7, 9) + b"pay") == (7, 9, b"pay")


@pytest.mark.parametrize(
    ("family", "packet"),
    [
        (V4, b""),
        (V4, ip_header()[:19]),
        (V4, ip_header() + b"\0" * 7),
        (V4, ip_header(15)[:40]),
        (V4, ip_header() + struct.pack("!BBHHH", 8, 0, 0, 7, 9)),
        (V4, ip_header() + struct.pack("!BBHHH", 3, 1, 0, 7, 9)),
        (V4, ip_header() + struct.pack("!BBHHH", 0, 1, 0, 7, 9)),
        (V6, b"\0" * 7),
        (V6, struct.pack("!BBHHH", 128, 0, 0, 7, 9)),
        (V6, struct.pack("!BBHHH", 0, 0, 0, 7, 9)),
    ],
)
def test_everything_else_is_no_reply(family: Family, packet: bytes) -> None:
    assert parse_reply(family, packet) is None


def test_two_probers_cannot_take_each_others_answers() -> None:
    first, second = Prober("wan", V4), Prober("wan", V4)
    assert first._token != second._token


def test_a_closed_prober_sends_and_reads_nothing() -> None:
    prober = Prober("wan", V4)
    assert prober.send("192.0.2.1") is None
    assert prober.drain() == []
    prober.close()


def test_mwan3_leaves_every_probe_alone(mocker: MockerFixture) -> None:
    """mwan3_hook marks only what has none of its bits; steering knows its own by the low byte."""
    made = mocker.patch("rpcd_wireguard_uplink.system.dns.socket.socket").return_value
    Prober("wan", V6).open()
    made.setsockopt.assert_any_call(socket.SOL_SOCKET, socket.SO_MARK, 0x3F00 | 0x52)


class Taken:
    """A socket that keeps what is sent, and answers each request with the same payload."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.options: list[tuple[int, int, int]] = []

    def setsockopt(self, *option: int) -> None:
        self.options.append(option)  # type: ignore[arg-type]

    def sendto(self, packet: bytes, _to: tuple[str, int]) -> None:
        self.sent.append(packet)

    def recv(self, _size: int) -> bytes:
        if not self.sent:
            raise BlockingIOError
        header = bytearray(ip_header())
        header[8] = 64 - 3
        return bytes(header) + b"\0" + self.sent.pop()[1:]

    def recvmsg(
        self, _size: int, _space: int
    ) -> tuple[bytes, list[tuple[int, int, bytes]], int, str]:
        if not self.sent:
            raise BlockingIOError
        hop_limit = (socket.IPPROTO_IPV6, 52, (255 - 3).to_bytes(4, sys.byteorder))
        return b"\x81" + self.sent.pop()[1:], [hop_limit], 0, ""

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("family", "target", "header", "discover"),
    [(V4, "192.0.2.1", 20, (socket.IPPROTO_IP, 10, 3)), (V6, "::2", 40, (41, 23, 3))],
)
def test_a_probe_of_a_size_is_as_large_as_that_and_never_cut(
    family: Family, target: str, header: int, discover: tuple[int, int, int]
) -> None:
    prober, taken = Prober("eth0", family), Taken()
    prober._socket = taken  # type: ignore[assignment]
    assert prober.send(target) == 1
    assert len(taken.sent[0]) == 8 + (4 if family is V4 else 8) and taken.options == []
    assert prober.send(target, 1420) == 2
    assert len(taken.sent[1]) == 1420 - header
    assert taken.options == [discover]
    replies = sorted(prober.drain(), key=lambda reply: reply.sequence)
    assert replies == [Reply(1, 3, header + 8 + (4 if family is V4 else 8)), Reply(2, 3, 1420)]
