"""What is published on the bus and what passes through it: objects, calls, replies."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from ..errors import BusError, Status
from ..values import dataclass
from .blobmsg import Encoded, Type, decode_table, encode_table


class Caller(NamedTuple):
    """Who calls: names from the bus (SO_PEERCRED), never from the message; the connection's id."""

    user: str | None
    group: str | None
    client_id: int


class Call(NamedTuple):
    """One call of a published object's method, its arguments decoded but not checked."""

    path: str
    method: str
    arguments: dict[str, Any]
    caller: Caller


class Reply(NamedTuple):
    """What a caller gets: the table first, if there is one, then the status."""

    data: Mapping[str, Any] | Encoded | None = None
    status: Status = Status.OK


Handler = Callable[[Call], Reply | Awaitable[Reply]]
"""Answers every method of an object, METHOD_NOT_FOUND for those that it does not have."""

_NONE: Mapping[str, Reply] = MappingProxyType({})

Callback = Callable[[str, dict[str, Any]], None]
"""Takes an event's or a notification's name and data."""


@dataclass(frozen=True, slots=True)
class BusObject:
    """A path, the signature that is advertised there, and the handler of its calls.

    While a method has one of `replies`, that answers its calls without arguments; the handler may
    be asked all the same. Raises BusError for a path, method or argument that the bus can't carry.
    """

    path: str
    methods: Mapping[str, Mapping[str, Type]]
    handler: Handler
    replies: Mapping[str, Reply] = _NONE

    def __post_init__(self) -> None:
        _check_name("object", self.path, self.path)
        if self.path.endswith("*"):
            raise _bad(f"object {self.path!r}: a path can't end in *, which marks patterns")
        for method, arguments in self.methods.items():
            _check_name("method", method, self.path)
            for argument, kind in arguments.items():
                _check_name("argument", argument, self.path)
                if not isinstance(kind, Type):
                    raise _bad(f"object {self.path!r}: {method}({argument}) needs a blobmsg.Type")

    def signature(self) -> bytes:
        """Return the methods as ubus_push_object_type (libubus-obj.c) sends them."""
        return encode_table(self.methods)


def _bad(message: str) -> BusError:
    return BusError(message, code="bad_declaration")


def _check_name(what: str, name: object, path: object) -> None:
    if not isinstance(name, str) or not name or "\0" in name or len(name.encode()) > 1024:
        raise _bad(f"object {path!r}: {what} {name!r:.40} is no name (1 to 1024 bytes, no NUL)")


@dataclass(frozen=True, slots=True)
class Listener:
    """An object without a path: what events and notifications are delivered to."""

    callback: Callback


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object as a look-up shows it; types that blobmsg does not know are UNSPEC."""

    path: str
    object_id: int
    type_id: int
    methods: Mapping[str, Mapping[str, Type]]


def parse_signature(data: bytes) -> dict[str, dict[str, Type]]:
    """Return the methods of a SIGNATURE attribute. Raises BusError where it is malformed."""
    return {
        name: {argument: _type_of(kind) for argument, kind in arguments.items()}
        for name, arguments in decode_table(data).items()
        if isinstance(arguments, dict)
    }


def _type_of(kind: object) -> Type:
    return Type(kind) if isinstance(kind, int) and 0 <= kind <= 8 else Type.UNSPEC
