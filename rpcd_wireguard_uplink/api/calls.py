"""What a method is, and what a call of one goes through: arguments in, a reply or an error out.

Owns the validation of arguments and of replies, the signature that the bus advertises, and the one
place where errors become statuses. Which methods there are is methods.py's; imports neither the
service nor asyncio.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..errors import Status, UplinkError
from ..schema import validation
from ..schema.validation import Schema

if TYPE_CHECKING:
    from ..ubus.blobmsg import Type

# uhttpd appends the caller's session to the arguments of every call.
SESSION_ARGUMENT = "ubus_rpc_session"
Access = Literal["read", "write", "local"]


@dataclass(frozen=True, eq=False, slots=True)
class Method:
    """One method. `access` is read, write, or local: on the bus, but never for a web session.

    `handler` names the service's function. `command` is its word behind `wgctl uplink`, empty
    where it has none; `positional` are the arguments that stand there without an option's name;
    `progress` is shown while a call that takes seconds runs. `empty_is_absent` is for callers
    that send "" for what was not given.
    """

    name: str
    access: Access
    doc: str
    handler: str
    arguments: Schema
    reply: Schema
    command: str = ""
    positional: tuple[str, ...] = ()
    progress: str = ""
    empty_is_absent: bool = False


def parse_arguments(method: Method, raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call, coerced and valid; what is null or not given is not in it.

    Raises InvalidArgument with a sentence that names the argument.
    """
    given = {
        name: value
        for name, value in raw.items()
        if name != SESSION_ARGUMENT and not (value == "" and method.empty_is_absent)
    }
    return validation.parse(method.arguments, given, method.name)


def signature(method: Method) -> Mapping[str, Type]:
    """Return what the bus advertises for the method: its arguments and their blobmsg types."""
    # Here, since importing any part of the bus loads asyncio.
    from ..ubus.blobmsg import Type

    types = {
        "string": Type.STRING,
        "integer": Type.INT32,
        "number": Type.DOUBLE,
        "boolean": Type.BOOL,
        "object": Type.TABLE,
        "array": Type.ARRAY,
    }
    found = {}
    for name, schema in method.arguments.properties.items():
        declared = schema["type"]
        found[name] = types[declared if isinstance(declared, str) else declared[0]]
    return found


def check_reply(method: Method, reply: Any) -> None:
    """Raise UplinkError with the path and the rule where a reply is not what the table promises."""
    problem = method.reply.first_problem(reply)
    if problem is not None:
        told = validation.sentence(problem, f"the reply of {method.name}")
        raise UplinkError(f"reply of {method.name}: {told}", code="bad_reply")


def error_reply(error: BaseException) -> tuple[dict[str, Any], Status]:
    """Return the table and the status that a caller gets for an exception.

    Of one that is not of the project's tree the caller learns nothing; its class and the place
    where it was raised go to the log, its text does not, since it may hold anything.
    """
    if isinstance(error, UplinkError):
        return {"success": False, "error": str(error), "code": error.code}, error.status
    import logging

    place = "an unknown place"
    trace = error.__traceback__
    while trace is not None:
        place = f"{trace.tb_frame.f_globals.get('__name__', '?')} line {trace.tb_lineno}"
        trace = trace.tb_next
    logging.getLogger(__name__).error("%s in %s", type(error).__name__, place)
    told = "something failed inside the service; its log names the place"
    return {"success": False, "error": told, "code": UplinkError.code}, Status.UNKNOWN_ERROR
