"""The statuses of ubus and the one exception tree; every other module raises from here.

An exception knows the ubus status and the stable code that a caller gets, and its message is the
sentence a person reads: what is wrong, where, and what to do. Messages never hold secrets.
"""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """ubus status codes (enum ubus_msg_status, ubusmsg.h)."""

    OK = 0
    INVALID_COMMAND = 1
    INVALID_ARGUMENT = 2
    METHOD_NOT_FOUND = 3
    NOT_FOUND = 4
    NO_DATA = 5
    PERMISSION_DENIED = 6
    TIMEOUT = 7
    NOT_SUPPORTED = 8
    UNKNOWN_ERROR = 9
    CONNECTION_FAILED = 10
    NO_MEMORY = 11
    PARSE_ERROR = 12
    SYSTEM_ERROR = 13


class UplinkError(Exception):
    """Root of the tree. `status` is the ubus status, `code` a stable id for programs."""

    status: Status = Status.UNKNOWN_ERROR
    code: str = "internal"

    def __init_subclass__(cls, status: Status | None = None, code: str = "") -> None:
        cls.status, cls.code = status or cls.status, code or cls.code

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class InvalidArgument(UplinkError, status=Status.INVALID_ARGUMENT, code="invalid_argument"):
    """A caller's argument is not what the method takes."""


class MethodNotFound(UplinkError, status=Status.METHOD_NOT_FOUND, code="method_not_found"):
    """The object has no such method."""


class NotFound(UplinkError, status=Status.NOT_FOUND, code="not_found"):
    """No such peer, offer, uplink, section."""


class NotTrusted(UplinkError, status=Status.PERMISSION_DENIED, code="not_trusted"):
    """The peer is known, but the owner has not trusted it."""


class TimedOut(UplinkError, status=Status.TIMEOUT, code="timed_out"):
    """Something did not answer within its deadline."""


class NotSupported(UplinkError, status=Status.NOT_SUPPORTED, code="not_supported"):
    """This machine, peer or release can't do it."""


class PeerUnreachable(UplinkError, status=Status.CONNECTION_FAILED, code="unreachable"):
    """The peer can't be reached."""


class CommandFailed(UplinkError, status=Status.SYSTEM_ERROR, code="command_failed"):
    """A program that the service runs failed or is missing."""


class ConfigError(UplinkError, status=Status.INVALID_ARGUMENT, code="bad_config"):
    """A configuration file or a value in it can't be used; nothing was written."""


class BusError(UplinkError, status=Status.CONNECTION_FAILED, code="bus"):
    """The bus can't be reached, or what arrived from it is not ubus."""


class NameTaken(BusError, status=Status.INVALID_ARGUMENT, code="name_taken"):
    """Another process has published the object's path, or the bus forbids it."""


class MessageTooLarge(BusError, status=Status.NO_MEMORY, code="too_large"):
    """A message would pass the bus's limit of 1,048,576 bytes; it was not sent."""


class CallFailed(BusError):
    """A call was answered with a non-zero status; `data` is the table that came with it, if any."""

    def __init__(self, message: str, status: Status, data: dict[str, object] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.data = data


def place_of(error: BaseException) -> str:
    """Where an exception was raised, as module:line: what a log may say of it beside its class."""
    place, trace = "?", error.__traceback__
    while trace is not None:
        place = f"{trace.tb_frame.f_globals.get('__name__')}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place
