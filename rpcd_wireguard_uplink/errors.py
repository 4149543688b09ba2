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

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class InvalidArgument(UplinkError):
    """A caller's argument is not what the method takes."""

    status = Status.INVALID_ARGUMENT
    code = "invalid_argument"


class MethodNotFound(UplinkError):
    status = Status.METHOD_NOT_FOUND
    code = "method_not_found"


class NotFound(UplinkError):
    status = Status.NOT_FOUND
    code = "not_found"


class NotTrusted(UplinkError):
    status = Status.PERMISSION_DENIED
    code = "not_trusted"


class TimedOut(UplinkError):
    status = Status.TIMEOUT
    code = "timed_out"


class NotSupported(UplinkError):
    """This machine, peer or release can't do it."""

    status = Status.NOT_SUPPORTED
    code = "not_supported"


class PeerUnreachable(UplinkError):
    status = Status.CONNECTION_FAILED
    code = "unreachable"


class CommandFailed(UplinkError):
    """A program that the service runs failed or is missing."""

    status = Status.SYSTEM_ERROR
    code = "command_failed"


class ConfigError(UplinkError):
    """A configuration file or a value in it can't be used; nothing was written."""

    status = Status.INVALID_ARGUMENT
    code = "bad_config"


class BusError(UplinkError):
    """The bus can't be reached, or what arrived from it is not ubus."""

    status = Status.CONNECTION_FAILED
    code = "bus"


class NameTaken(BusError):
    """Another process has published the object's path, or the bus forbids it."""

    status = Status.INVALID_ARGUMENT
    code = "name_taken"


class MessageTooLarge(BusError):
    """A message would pass the bus's limit of 1,048,576 bytes; it was not sent."""

    status = Status.NO_MEMORY
    code = "too_large"


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
