"""Names, keys, addresses and marks: the rules that need no I/O."""

from __future__ import annotations

import ipaddress
import re
from contextlib import nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpcd_wireguard_uplink.errors import InvalidArgument
from rpcd_wireguard_uplink.model import (
    NAME_LENGTH,
    RESERVED,
    Endpoint,
    Family,
    Tunnel,
    Uplink,
    derived_addresses,
    interface_name,
    is_key,
    is_marked,
    normal_address,
)
from tests.unit.fakes import key_of


@pytest.mark.parametrize(
    ("peer_id", "name"),
    [
        ("nodea", "wgup_nodea"),
        ("Node-A.lan", "wgup_nodealan"),
        ("averylongname", "wgup_averylon"),
        ("9", "wgup_9"),
    ],
)
def test_names(peer_id: str, name: str) -> None:
    assert interface_name(peer_id, ()) == name


def test_names_are_unlike_and_short() -> None:
    odd = ("srv", "ifb", "Try", "---", "\u00e9\u00e9", "\u0663", "a\0b", "_", "A" * 64)
    taken: set[str] = set()
    for peer_id in (*odd, *["nodea"] * 200, *(f"averylongname{number}" for number in range(30))):
        name = interface_name(peer_id, taken)
        assert re.fullmatch("wgup_[a-z0-9]+", name) and len(name) <= NAME_LENGTH
        assert name not in {*taken, *RESERVED}
        taken.add(name)


def test_when_no_name_is_left() -> None:
    class Everything:
        def __contains__(self, name: object) -> bool:
            return True

    with pytest.raises(InvalidArgument, match="remove an uplink"):
        interface_name("nodea", Everything())


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        (key_of("x"), True),
        ("A" * 43 + "=", True),
        ("A" * 42 + "B=", False),  # bits that a decoder ignores
        (key_of("x") + "\n", False),
        (key_of("x")[:-1], False),
        ("", False),
        ("A" * 44, False),
        ("\u00e9" * 44, False),
    ],
)
def test_keys(text: str, is_one: bool) -> None:
    assert is_key(text) is is_one


@given(st.binary(min_size=32, max_size=32))
def test_derived_addresses(raw: bytes) -> None:
    four, six = derived_addresses(raw.hex())
    assert (four, six) == derived_addresses(raw.hex())
    v4, v6 = ipaddress.IPv4Interface(four), ipaddress.IPv6Interface(six)
    assert v4.network.prefixlen == 32
    assert v4.ip in ipaddress.ip_network("10.0.0.0/8")
    assert v4.ip.packed[3] not in (0, 255)
    assert v6.network.prefixlen == 128
    assert v6.ip in ipaddress.ip_network("fd00::/8")


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        *(("10.0.0.1", "10.0.0.1/32"), ("10.0.0.1/24", "10.0.0.1/24"), ("FD00::1", "fd00::1/128")),
        *((bad, None) for bad in ("", "x", "127.0.0.1", "224.0.0.1", "0.0.0.0", "::1")),
        ("10.0.0.1/99", None),
    ],
)
def test_addresses(text: str, normal: str | None) -> None:
    with pytest.raises(InvalidArgument) if normal is None else nullcontext():
        assert normal_address(text) == normal


def test_what_records_tell_of_themselves() -> None:
    uplink = Uplink("a", "wgup_a", Endpoint("h"), "k", ("10.0.0.1/32", "10.0.0.2/32"))
    assert [family for family in Family if uplink.carries(family)] == [Family.IPV4]
    assert [uplink.address(family) for family in Family] == ["10.0.0.1/32", ""]
    assert str(Endpoint("2001:db8::1", 7)) == "[2001:db8::1]:7"
    assert str(Endpoint("h", 7)) == "h:7"
    assert "SECRET" not in repr(Tunnel("wgup_a", "a", "SECRET"))
    marks: list[dict[str, str]] = [{"secubox_uplink": "1"}, {"secubox_uplink": "0"}, {}]
    assert [is_marked(options) for options in marks] == [True, False, False]
