"""The bus (ubus): publish objects, call others, listen.

What needs the event loop is loaded when it is first used, so that a program which only wants a
type or a status does not pay for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import blobmsg
from .blobmsg import Encoded, Type, decode_table, encode_table
from .objects import BusObject, Call, Callback, Caller, Handler, ObjectInfo, Reply

if TYPE_CHECKING:
    from .client import Client

DEFAULT_SOCKET = "/var/run/ubus/ubus.sock"

__all__ = [
    "DEFAULT_SOCKET",
    "BusObject",
    "Call",
    "Callback",
    "Caller",
    "Client",
    "Encoded",
    "Handler",
    "ObjectInfo",
    "Reply",
    "Type",
    "blobmsg",
    "decode_table",
    "encode_table",
]


def __getattr__(name: str) -> Any:
    if name == "Client":
        from .client import Client

        return Client
    raise AttributeError(f"module {__name__} has no attribute {name}")
