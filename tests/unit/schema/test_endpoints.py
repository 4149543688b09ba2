"""Hosts, endpoints and tunnel addresses: which ones are taken, and in what form."""

from __future__ import annotations

import base64

import pytest

from rpcd_wireguard_uplink.errors import InvalidArgument
from rpcd_wireguard_uplink.schema.endpoints import (
    parse_address,
    parse_endpoint,
    parse_host,
    parse_key,
)

UNCHANGED = ["nodeA.example.com", "nodeA", "node_a.lan", "192.0.2.1", "fe80::1"]
UNCHANGED += ["64:ff9b::c000:201", "xn--bcher-kva.example", "a" * 63 + ".b"]


@pytest.mark.parametrize(
    ("text", "host"), [*((same, same) for same in UNCHANGED), ("2001:DB8:0::1", "2001:db8::1")]
)
def test_hosts(text: str, host: str) -> None:
    assert parse_host(text) == host


NAMES = "a..b a. -a a- a/b a;b localhost x.LOCALHOST \u0430.example"
NUMBERS = "127.0.0.1 127.1 2130706433 0x7f000001 0x7f.1 010.0.0.1 1.2.3 0.0.0.0 0.1.2.3"
RANGES = "224.0.0.1 240.0.0.1 255.255.255.255 :: ::1 ff02::1 fe80::1%eth0"
MAPPED = "::ffff:127.0.0.1 ::ffff:224.0.0.1 ::ffff:0.0.0.0"
REFUSED = f"{NAMES} {NUMBERS} {RANGES} {MAPPED}".split()


@pytest.mark.parametrize("text", [*REFUSED, "", ".", "a b", "a\n", "a" * 64, "a." * 127 + "a"])
def test_hosts_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_host(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("h.example:1", "h.example:1"),
        ("h.example", "h.example:51820"),
        ("[2001:db8::1]:65535", "[2001:db8::1]:65535"),
        ("2001:db8::1", "[2001:db8::1]:51820"),
        ("192.0.2.1:51820", "192.0.2.1:51820"),
    ],
)
def test_endpoints(text: str, shown: str) -> None:
    assert str(parse_endpoint(text)) == shown


@pytest.mark.parametrize(
    "text", [":1", "h:0", "h:65536", "h:-1", "h: 1", "[::1]:1", "[2001:db8::1", "[2001:db8::1]1"]
)
def test_endpoints_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_endpoint(text)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.0.0.100/24", "10.0.0.100/24"),
        ("10.0.0.100", "10.0.0.100"),
        ("FD00::2/128", "fd00::2/128"),
    ],
)
def test_addresses(text: str, address: str) -> None:
    assert parse_address(text) == address


SMALL = (
    *(0, 1, 2**255 - 20, 2**255 - 19, 2**255 - 18),
    0xB8495F16056286FDB1329CEB8D09DA6AC49FF1FAE35616AEB8413B7C7AEBE0,
    0x57119FD0DD4E22D8868E1C58C45C44045BEF839C55B1D0B1248C50A3BC959C5F,
)


@pytest.mark.parametrize("point", SMALL)
def test_a_key_that_gives_everybody_the_same_secret(point: int) -> None:
    """X25519 ignores the top bit (RFC 7748, section 5)."""
    for number in (point, point | 1 << 255):
        with pytest.raises(InvalidArgument, match="no tunnel can be made"):
            parse_key(base64.b64encode(number.to_bytes(32, "little")).decode())
    good = base64.b64encode((9).to_bytes(32, "little")).decode()
    assert parse_key(good) == good


BAD_PREFIXES = "10.0.0.1/ 10.0.0.1/0 10.0.0.1/33 10.0.0.1/255.255.255.0 fd00::2/129"
BAD_ADDRESSES = f"{BAD_PREFIXES} node 127.0.0.1/8 0.0.0.0/1 224.0.0.1 ::/1".split()


@pytest.mark.parametrize("text", [*BAD_ADDRESSES, "", "10.0.0.1/24 "])
def test_addresses_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_address(text)
