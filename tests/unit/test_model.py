"""Names, keys, addresses and marks: the rules that need no I/O."""

from __future__ import annotations

import ipaddress

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


@pytest.mark.parametrize("peer_id", ["srv", "ifb", "Try", "---", "\u00e9\u00e9", "nodea"])
def test_names_that_are_not_free(peer_id: str) -> None:
    name = interface_name(peer_id, {"wgup_nodea"})
    assert name not in {"wgup_nodea", "wgup_", *RESERVED}
    assert name.startswith("wgup_")


@given(st.lists(st.text(min_size=1, max_size=64), max_size=30))
def test_names_are_unlike_and_short(peer_ids: list[str]) -> None:
    taken: set[str] = set()
    for peer_id in peer_ids:
        name = interface_name(peer_id, taken)
        assert name not in taken
        assert len(name) <= NAME_LENGTH
        assert name.isascii()
        assert name.replace("_", "").isalnum()
        assert name not in RESERVED
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
    [("10.0.0.1", "10.0.0.1/32"), ("10.0.0.1/24", "10.0.0.1/24"), ("FD00::1", "fd00::1/128")],
)
def test_normal_addresses(text: str, normal: str) -> None:
    assert normal_address(text) == normal


@pytest.mark.parametrize(
    "text", ["", "x", "127.0.0.1", "224.0.0.1", "0.0.0.0", "::1", "10.0.0.1/99"]
)
def test_addresses_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        normal_address(text)


def test_an_uplink_tells_its_families() -> None:
    uplink = Uplink("a", "wgup_a", Endpoint("h"), "k", ("10.0.0.1/32", "10.0.0.2/32"))
    assert uplink.carries(Family.IPV4)
    assert not uplink.carries(Family.IPV6)
    assert uplink.address(Family.IPV4) == "10.0.0.1/32"
    assert uplink.address(Family.IPV6) == ""


def test_endpoints_are_shown_with_brackets_where_needed() -> None:
    assert str(Endpoint("2001:db8::1", 7)) == "[2001:db8::1]:7"
    assert str(Endpoint("h", 7)) == "h:7"


def test_a_private_key_is_not_shown() -> None:
    assert "SECRET" not in repr(Tunnel("wgup_a", "a", "SECRET"))


@pytest.mark.parametrize(
    ("options", "marked"),
    [({"secubox_uplink": "1"}, True), ({"secubox_uplink": "0"}, False), ({}, False)],
)
def test_marks(options: dict[str, str], marked: bool) -> None:
    assert is_marked(options) is marked
