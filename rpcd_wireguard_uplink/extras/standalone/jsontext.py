"""Tables as the `ubus` command prints them.

Owns the text form: it works on the encoded bytes, because Python values no longer tell an INT16
from an INT32 or a text that was no UTF-8. Each rule is blobmsg_json.c's. Knows nothing of messages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from struct import Struct

from ...errors import BusError
from ...ubus.blobmsg import MAX_DEPTH, Type, walk
from ...ubus.framing import attributes_of

_MAX_TABS = 16
_MAX_NUMBER = 316
_INTEGERS = {Type.INT16: Struct(">h"), Type.INT32: Struct(">i"), Type.INT64: Struct(">q")}
_F64 = Struct(">d")
_LETTERS = {"\b": "b", "\n": "n", "\t": "t", "\r": "r", '"': '"', "\\": "\\"}
_ESCAPES = {code: f"\\u{code:04x}" for code in range(32)}
_ESCAPES |= {ord(char): "\\" + letter for char, letter in _LETTERS.items()}

NumberFormat = Callable[[int], str]


def format_table(data: bytes, *, indent: bool = False) -> bytes:
    """Return a table as JSON text, on lines with tabs or compact. Raises BusError at MAX_DEPTH."""
    return _Text(indent, None).members(data, False, 0)


def format_method(name: bytes, arguments: bytes) -> bytes:
    """Return a method's signature as `list -v` prints it (format_type, cli.c)."""
    text = _Text(False, _type_name)
    return format_string(name) + b":" + text.members(arguments, False, 0)


def format_string(raw: bytes) -> bytes:
    """Return a text in quotes, its bytes unchanged but for what JSON must escape."""
    text = raw.split(b"\0", 1)[0].decode("latin-1").translate(_ESCAPES)
    return b'"' + text.encode("latin-1") + b'"'


def _type_name(number: int) -> str:
    names = {
        Type.INT8: "Boolean",
        Type.INT32: "Integer",
        Type.STRING: "String",
        Type.ARRAY: "Array",
        Type.TABLE: "Table",
    }
    return '"' + names.get(Type(number), "(unknown)") + '"' if 0 <= number <= 8 else '"(unknown)"'


def _spans(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield (start, padded end) of each field, up to the first with a broken length."""
    for _, start, stop in attributes_of(data):
        yield start - 4, (stop + 3) & ~3


class _Text:
    def __init__(self, indent: bool, number_format: NumberFormat | None) -> None:
        self._indent = indent
        self._number_format = number_format

    def members(self, data: bytes, array: bool, level: int) -> bytes:
        if level > MAX_DEPTH:
            raise BusError(f"malformed table: nested deeper than {MAX_DEPTH} levels")
        inner = self._separator(level + 1)
        parts = [self._member(data, start, end, array, level) for start, end in _spans(data)]
        body = inner + (b"," + inner).join(parts) + self._separator(level)
        return b"[" + body + b"]" if array else b"{" + body + b"}"

    def _member(self, data: bytes, start: int, end: int, array: bool, level: int) -> bytes:
        """Return a field; nothing but its comma is printed for a malformed one."""
        try:
            kind, name, value, stop = next(walk(data, start, end))
        except BusError:
            return b""
        label = b""
        if name and not array:
            label = format_string(name) + (b": " if self._indent else b":")
        return label + self._value(data, kind, value, stop, level + 1)

    def _separator(self, level: int) -> bytes:
        return b"\n" + b"\t" * min(level, _MAX_TABS) if self._indent else b""

    def _value(self, data: bytes, kind: int, start: int, end: int, level: int) -> bytes:
        if kind in (Type.ARRAY, Type.TABLE):
            return self.members(data[start:end], kind == Type.ARRAY, level)
        if kind == Type.STRING:
            return format_string(data[start:end])
        if kind == Type.UNSPEC:
            return b"null"
        if kind == Type.BOOL:
            return b"true" if data[start] else b"false"
        if kind == Type.DOUBLE:
            # blobmsg_format_element prints into a buffer of this size.
            return (b"%f" % _F64.unpack_from(data, start)[0])[:_MAX_NUMBER]
        (number,) = _INTEGERS[Type(kind)].unpack_from(data, start)
        if kind == Type.INT32 and self._number_format is not None:
            return self._number_format(number).encode()
        return b"%d" % number
