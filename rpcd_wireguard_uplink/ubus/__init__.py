"""The bus (ubus): publish objects, call others, listen.

`client.Client` is for programs with an event loop, `blocking.BlockingBus` for others. Neither
is loaded here, so that a program which only wants a type or a status does not pay for it.
"""

from . import blobmsg
from .blobmsg import Encoded, Type, decode_table, encode_table
from .objects import BusObject, Call, Callback, Caller, Handler, ObjectInfo, Reply

DEFAULT_SOCKET = "/var/run/ubus/ubus.sock"

__all__ = [
    "DEFAULT_SOCKET",
    "BusObject",
    "Call",
    "Callback",
    "Caller",
    "Encoded",
    "Handler",
    "ObjectInfo",
    "Reply",
    "Type",
    "blobmsg",
    "decode_table",
    "encode_table",
]
