"""blobmsg: the typed tables inside bus messages, as bytes and as Python values.

Layout and type numbers are those of libubox's blob.h and blobmsg.h: an attribute is
`extended | type<<24 | length`, a name (length, bytes, NUL, padding) and its data, padded to four
bytes; the length counts its own four bytes and leaves the last padding out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import IntEnum
from functools import lru_cache
from math import isfinite
from struct import Struct
from typing import Any

from ..errors import BusError, MessageTooLarge

MAX_DEPTH = 64
"""Tables and arrays nested deeper than this are refused, in both directions."""

_EXTENDED = 0x80000000
_LENGTH = 0x00FFFFFF
_PADDING = (b"", b"\0", b"\0\0", b"\0\0\0")
_U16 = Struct(">H")
_U32 = Struct(">I")
_I16 = Struct(">h")
_I32 = Struct(">i")
_I64 = Struct(">q")
_F64 = Struct(">d")


class Type(IntEnum):
    """Types of values (enum blobmsg_type, blobmsg.h); BOOL and INT8 are the same."""

    UNSPEC = 0
    ARRAY = 1
    TABLE = 2
    STRING = 3
    INT64 = 4
    INT32 = 5
    INT16 = 6
    INT8 = 7
    BOOL = 7
    DOUBLE = 8


_SIZES: dict[int, int] = {4: 8, 5: 4, 6: 2, 7: 1, 8: 8}
_SMALL = frozenset({bool, int, float})


class Encoded(bytes):
    """A table that is bytes already; usable wherever a mapping is taken for sending."""

    __slots__ = ()


def encode_table(table: Mapping[str, Any] | Encoded) -> Encoded:
    """Encode a table; what is Encoded already comes back as it is.

    bool, int, float, str, None, lists and mappings are taken. An int becomes INT32 where it fits,
    else INT64; bytes that were no UTF-8 (surrogateescape) are restored. Raises BusError for
    anything else, for NaN and infinity (they would print as invalid JSON), for a NUL in a text
    and for an empty name.
    """
    if isinstance(table, Encoded):
        return table
    return Encoded(_encode_members(table, 0))


def _encode_members(table: Mapping[str, Any], depth: int) -> bytes:
    if not all(table):
        raise BusError("can't encode a table: a field has an empty name; name it")
    fields = []
    for name, value in table.items():
        is_small = type(value) in _SMALL or (type(value) is str and len(value) <= 32)
        encode = _encode_small if is_small else _encode_named
        fields.append(encode(name, value, depth))
    return b"".join(fields)


def _encode_named(name: str, value: Any, depth: int) -> bytes:
    return _encode_field(_name_header(name), value, depth)


# Rows of a list have most of their fields in common.
_encode_small = lru_cache(maxsize=256, typed=True)(_encode_named)


@lru_cache(maxsize=256)
def _name_header(name: str) -> bytes:
    raw = _text(name)
    if len(raw) > 0xFFFF:
        raise BusError("can't encode a table: the name of a field is longer than 65535 bytes")
    return _U16.pack(len(raw)) + raw + b"\0" + _PADDING[-(len(raw) + 3) & 3]


def _text(value: str) -> bytes:
    try:
        raw = value.encode("utf-8", "surrogateescape")
    except (UnicodeEncodeError, AttributeError) as error:
        raise BusError("can't encode a text: it is not valid Unicode") from error
    if 0 in raw:
        raise BusError("can't encode a text with a NUL byte in it: the bus would cut it there")
    return raw


def _encode_field(header: bytes, value: Any, depth: int) -> bytes:
    kind, data = _encode_value(value, depth)
    length = 4 + len(header) + len(data)
    if length > _LENGTH:
        raise MessageTooLarge(f"can't encode a value of {length} bytes; the bus takes 1048576")
    head = _U32.pack(_EXTENDED | kind << 24 | length)
    return b"".join((head, header, data, _PADDING[-length & 3]))


def _encode_value(value: Any, depth: int) -> tuple[int, bytes]:
    if isinstance(value, str):
        return 3, _text(value) + b"\0"
    if value is True:
        return 7, b"\1"
    if value is False:
        return 7, b"\0"
    if isinstance(value, int):
        if -0x80000000 <= value <= 0x7FFFFFFF:
            return 5, _I32.pack(value)
        if -0x8000000000000000 <= value <= 0x7FFFFFFFFFFFFFFF:
            return 4, _I64.pack(value)
        raise BusError("can't encode an integer that needs more than 64 bits")
    if isinstance(value, float):
        if not isfinite(value):
            raise BusError("can't encode a number that is infinite or not a number")
        return 8, _F64.pack(value)
    if value is None:
        return 0, b""
    if depth >= MAX_DEPTH:
        raise BusError(f"can't encode values nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, Encoded):
        return 2, value
    if isinstance(value, Mapping):
        return 2, _encode_members(value, depth + 1)
    if isinstance(value, (list, tuple)):
        unnamed = _name_header("")
        return 1, b"".join([_encode_field(unnamed, item, depth + 1) for item in value])
    raise BusError(f"can't encode a value of type {type(value).__name__}")


def walk(
    data: bytes, start: int = 0, end: int | None = None
) -> Iterator[tuple[int, bytes, int, int]]:
    """Yield (type, name, start, end of the value) for each attribute in data[start:end].

    The value's bytes have the size that their type needs and a STRING ends in NUL, as
    blobmsg_check_attr (blobmsg.c) wants it. Raises BusError at the first attribute that is
    malformed; libubox would leave it out without a word.
    """
    position = start
    end = len(data) if end is None else end
    while position < end:
        if end - position < 4:
            raise BusError("malformed table: bytes after its last field")
        (head,) = _U32.unpack_from(data, position)
        length = head & _LENGTH
        following = position + ((length + 3) & ~3)
        if not head & _EXTENDED or length < 8 or following > end:
            raise BusError("malformed table: a field's length or mark is wrong")
        stop = position + length
        (size,) = _U16.unpack_from(data, position + 4)
        value = position + 4 + ((size + 6) & ~3)
        if value > stop or data[position + 6 + size] != 0:
            raise BusError("malformed table: a field's name does not end where it should")
        kind = head >> 24 & 0x7F
        wanted = _SIZES.get(kind)
        if wanted is None:
            if kind > 8 or (kind == 3 and (value == stop or data[stop - 1] != 0)):
                raise BusError("malformed table: a field's type is unknown or its text is open")
        elif stop - value != wanted:
            raise BusError("malformed table: a value has the wrong size for its type")
        yield kind, data[position + 6 : position + 6 + size], value, stop
        position = following


def decode_table(data: bytes) -> dict[str, Any]:
    """Decode the fields of a table; a repeated name keeps its last value.

    A text ends at its first NUL, as it does for every C program on the bus; bytes that are no
    UTF-8 become U+FFFD. Raises BusError for malformed or too deeply nested bytes.
    """
    return _decode_members(data, 0, len(data), 0) if data else {}


def _decode_members(data: bytes, start: int, end: int, depth: int) -> dict[str, Any]:
    return {
        text_of(name): _decode_value(data, kind, value, stop, depth)
        for kind, name, value, stop in walk(data, start, end)
    }


def text_of(raw: bytes) -> str:
    """Return bytes of the bus as text, up to the first NUL."""
    if 0 in raw:
        raw = raw[: raw.index(0)]
    return raw.decode("utf-8", "replace")


def _decode_value(data: bytes, kind: int, start: int, end: int, depth: int) -> Any:
    if kind == 3:
        return text_of(data[start : end - 1])
    if kind == 5:
        return _I32.unpack_from(data, start)[0]
    if kind == 7:
        return data[start] != 0
    if kind == 4:
        return _I64.unpack_from(data, start)[0]
    if kind == 8:
        return _F64.unpack_from(data, start)[0]
    if kind == 6:
        return _I16.unpack_from(data, start)[0]
    if kind == 0:
        return None
    if depth >= MAX_DEPTH:
        raise BusError(f"malformed table: nested deeper than {MAX_DEPTH} levels")
    if kind == 2:
        return _decode_members(data, start, end, depth + 1)
    return [
        _decode_value(data, inner, value, stop, depth + 1)
        for inner, _, value, stop in walk(data, start, end)
    ]
