"""blobmsg: what is encoded comes back, and what is malformed is refused, never half understood."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rpcd_wireguard_uplink.errors import BusError, MessageTooLarge
from rpcd_wireguard_uplink.ubus.blobmsg import (
    MAX_DEPTH,
    Encoded,
    Type,
    decode_table,
    encode_table,
    walk,
)

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
NAMES = TEXT.filter(bool)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.sampled_from([-(1 << 31), (1 << 31) - 1, -(1 << 31) - 1, 1 << 31, -(1 << 63)])
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=20,
)
TABLES = st.dictionaries(NAMES, VALUES, max_size=6)


@settings(deadline=None)
@given(TABLES)
def test_what_is_encoded_comes_back(table):
    encoded = encode_table(table)
    assert len(encoded) % 4 == 0
    assert decode_table(encoded) == table
    assert [type(value) for value in decode_table(encoded).values()] == [
        type(value) for value in table.values()
    ]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, Type.UNSPEC),
        ([], Type.ARRAY),
        ({}, Type.TABLE),
        ("x", Type.STRING),
        (1 << 31, Type.INT64),
        (-(1 << 31) - 1, Type.INT64),
        ((1 << 31) - 1, Type.INT32),
        (-(1 << 31), Type.INT32),
        (True, Type.BOOL),
        (0.5, Type.DOUBLE),
        ((1, 2), Type.ARRAY),
        (Encoded(encode_table({"k": 1})), Type.TABLE),
    ],
)
def test_types_are_those_that_fit(value, kind):
    encoded = encode_table({"name": value})
    assert [(found, name) for found, name, _, _ in walk(encoded)] == [(kind, b"name")]


def test_an_int16_is_read_although_none_is_written():
    field = struct.pack(">IH", 0x80000000 | 6 << 24 | 14, 2) + b"ab\0\0\0\0" + struct.pack(">h", -7)
    assert decode_table(field + b"\0\0") == {"ab": -7}


@pytest.mark.parametrize(
    "value",
    [
        1 << 63,
        -(1 << 63) - 1,
        float("nan"),
        float("inf"),
        "a\0b",
        "\ud800",
        b"bytes",
        object(),
        {"": 1},
        {1: 2},
        {"a\0": 1},
        {"x" * 65536: 1},
    ],
)
def test_what_the_bus_can_not_carry_is_refused(value):
    with pytest.raises(BusError):
        encode_table({"value": value})


def test_a_value_past_the_length_field_is_refused_as_too_large():
    with pytest.raises(MessageTooLarge):
        encode_table({"value": "x" * (1 << 24)})


def test_nesting_is_bounded_in_both_directions():
    value: object = 1
    data = b""
    for _ in range(MAX_DEPTH):
        value = [value]
    assert decode_table(encode_table({"v": value})) == {"v": value}
    with pytest.raises(BusError, match="nested deeper"):
        encode_table({"v": [value]})
    for _ in range(5000):
        data = struct.pack(">IHxx", 0x80000000 | 2 << 24 | (len(data) + 8), 0) + data
    with pytest.raises(BusError, match="nested deeper"):
        decode_table(data)


def test_bytes_that_are_no_unicode_can_be_sent_and_are_marked_when_read():
    raw = b"\xff\xfe".decode("utf-8", "surrogateescape")
    encoded = encode_table({"v": raw})
    assert b"\xff\xfe" in encoded
    assert decode_table(encoded) == {"v": "\ufffd\ufffd"}
    encoded = encode_table({"v": "abcd"}).replace(b"abcd", b"ab\0d")
    assert decode_table(encoded) == {"v": "ab"}, "a text ends at its first NUL"


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (b"abc\0", b"abcd"),  # the text does not end
        (b"\x00\x01v\0", b"\x00\x01vv"),  # the name does not end
        (b"\x00\x01v\0", b"\x7f\xffv\0"),  # the name is longer than the field
        (b"\x83\x00", b"\x89\x00"),  # an unknown type
        (b"\x83\x00", b"\x03\x00"),  # not extended
        (b"\x83\x00", b"\x87\x00"),  # a bool of four bytes
        (b"\x83\x00\x00\x0c", b"\x83\x00\x00\x10"),  # longer than the table
        (b"\x83\x00\x00\x0c", b"\x83\x00\x00\x04"),  # shorter than its name
        (b"\x83\x00\x00\x0c", b"\x83\x00\x00\x00"),  # shorter than its header
    ],
)
def test_a_malformed_field_is_refused(good, bad):
    encoded = encode_table({"v": "abc"})
    assert good in encoded
    with pytest.raises(BusError, match="malformed table"):
        decode_table(encoded.replace(good, bad))
