"""THE method table: what the object on the bus offers, each method declared once.

From it come the validation of arguments, the signature on the bus, rpcd's ACL, the command line
and docs/methods.md. A handler is a name here and is bound by the daemon, so this module imports
neither the service nor asyncio. Errors become statuses here too, in one place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from . import schemas as s
from . import validation
from .errors import Status, UplinkError
from .validation import Schema

if TYPE_CHECKING:
    from .ubus.blobmsg import Type

OBJECT = "luci.wireguard-dashboard"
# uhttpd appends the caller's session to the arguments of every call.
SESSION_ARGUMENT = "ubus_rpc_session"
LONGEST_MESSAGE = 16384

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


def prepare_validation() -> None:
    """Load the validation library and make every method's validator.

    The first call with arguments does it otherwise, and takes a tenth of a second or more for it.
    May run in a thread, so that a daemon can do it once it has registered.
    """
    for method in METHODS.values():
        # A first check loads the last parts of the library; any value will do.
        next(method.arguments.prepare().iter_errors(None), None)


def signature(method: Method) -> Mapping[str, Type]:
    """Return what the bus advertises for the method: its arguments and their blobmsg types."""
    # Here, since importing any part of the bus loads asyncio.
    from .ubus.blobmsg import Type

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


def _declared() -> tuple[Method, ...]:
    return (
        Method(
            name="uplink_list",
            access="read",
            doc="Lists the offers of mesh peers, usable or why not, and the configured uplinks.",
            handler="list_uplinks",
            arguments=Schema(s.table({})),
            reply=Schema(
                s.table(
                    {
                        "offers": s.rows("what mesh peers offer", s.OFFER),
                        "uplinks": s.rows("the configured uplinks, best first", s.UPLINK),
                    },
                    more=True,
                )
            ),
            command="list",
        ),
        Method(
            name="uplink_status",
            access="read",
            doc="Tells which path traffic takes and why, and how every path is doing.",
            handler="status",
            arguments=Schema(s.table({})),
            reply=Schema(s.STATUS_REPLY),
            command="status",
        ),
        Method(
            name="uplink_add",
            access="write",
            doc="Makes an uplink from a peer's offer or from given values, or changes it.",
            handler="add_uplink",
            arguments=Schema(
                s.table(
                    {
                        "peer_id": s.PEER_ID,
                        "weight": s.WEIGHT,
                        "endpoint": s.ENDPOINT,
                        "public_key": s.PUBLIC_KEY,
                        "address": s.ADDRESS,
                    },
                    optional=("weight", "endpoint", "public_key", "address"),
                )
            ),
            reply=Schema(
                s.table(
                    {
                        "success": s.SUCCESS,
                        "message": s.MESSAGE,
                        "peer_id": s.PEER,
                        "interface": s.INTERFACE,
                        "public_key": s.OWN_KEY,
                        "address": s.OWN_ADDRESS,
                        "address6": s.OWN_ADDRESS6,
                        "endpoint": s.ENDPOINT_SHOWN,
                        "weight": s.UPLINK_WEIGHT,
                        "created": s.flag("false where the uplink existed and was changed"),
                        "note": s.NOTE,
                    },
                    more=True,
                )
            ),
            command="add",
            positional=("peer_id",),
        ),
        Method(
            name="uplink_remove",
            access="write",
            doc="Removes an uplink and everything that was made for it, and nothing else.",
            handler="remove_uplink",
            arguments=Schema(s.table({"peer_id": s.PEER_ID})),
            reply=Schema(s.table({"success": s.SUCCESS, "message": s.MESSAGE, "peer_id": s.PEER})),
            command="remove",
            positional=("peer_id",),
        ),
        Method(
            name="uplink_test",
            access="write",
            doc="Sends probes through an uplink's tunnel; takes seconds. No answer is no error.",
            handler="test_uplink",
            arguments=Schema(
                s.table(
                    {
                        "peer_id": s.PEER_ID,
                        "target": {
                            **s.HOST,
                            "description": "a host name or IP address to probe; "
                            "a configured one if left out",
                        },
                        "count": s.whole("how many probes to send, 1 to 20", 1, 20),
                    },
                    optional=("target", "count"),
                )
            ),
            reply=Schema(s.TEST_REPLY),
            command="test",
            positional=("peer_id",),
            progress="sending probes through the tunnel",
        ),
        Method(
            name="uplink_set_priority",
            access="write",
            doc="Sets an uplink's weight; the uplink with the higher weight is preferred.",
            handler="set_priority",
            arguments=Schema(s.table({"peer_id": s.PEER_ID, "weight": s.WEIGHT})),
            reply=Schema(
                s.table(
                    {
                        "success": s.SUCCESS,
                        "message": s.MESSAGE,
                        "peer_id": s.PEER,
                        "weight": s.UPLINK_WEIGHT,
                    }
                )
            ),
            command="priority",
            positional=("peer_id", "weight"),
        ),
        Method(
            name="uplink_set_failover",
            access="write",
            doc="Turns automatic failover on or off.",
            handler="set_failover",
            arguments=Schema(s.table({"enabled": s.ENABLED})),
            reply=Schema(
                s.table(
                    {
                        "success": s.SUCCESS,
                        "message": s.MESSAGE,
                        "auto_failover": s.switch("1 if automatic failover is on now"),
                    }
                )
            ),
            command="failover",
            positional=("enabled",),
        ),
        Method(
            name="uplink_gossip",
            access="local",
            doc="Hands in a message of the mesh, for the package that carries its gossip.",
            handler="gossip",
            arguments=Schema(
                s.table(
                    {
                        "message": {
                            "type": ["object", "string"],
                            "description": "an uplink_offer or uplink_withdraw, "
                            "as a table or as JSON text of at most 16,384 characters",
                            "maxLength": LONGEST_MESSAGE,
                        }
                    }
                )
            ),
            reply=Schema(
                s.table(
                    {
                        "success": s.SUCCESS,
                        "message": s.MESSAGE,
                        "accepted": s.flag("false where it was old or changed nothing"),
                        "peer_id": s.PEER,
                    }
                )
            ),
        ),
        Method(
            name="uplink_history",
            access="read",
            doc="Lists failovers, failbacks and other changes with their causes, newest first.",
            handler="read_history",
            arguments=Schema(
                s.table(
                    {"limit": s.whole("how many entries at most, 1 to 200", 1, s.LONGEST_HISTORY)},
                    optional=("limit",),
                )
            ),
            reply=Schema(s.table({"events": s.rows("newest first", s.EVENT, s.LONGEST_HISTORY)})),
            command="history",
        ),
        *_older(),
    )


def _older() -> Iterator[Method]:
    """The names that SecuBox's page calls, with the arguments and replies that it knows."""

    def row(name: str, doc: str, arguments: s.Tree, reply: s.Tree, access: Access) -> Method:
        handler = f"older_{name}"
        taken = Schema(s.table(arguments, optional=[n for n in arguments if n not in needed]))
        return Method(name, access, doc, handler, taken, Schema(reply), empty_is_absent=True)

    needed = ("interface", "enabled", "peer_pubkey")
    interface = {"interface": s.OLDER_INTERFACE}
    order = {"priority": s.OLDER_PRIORITY, "weight": s.OLDER_WEIGHT}
    adding = {
        "peer_pubkey": s.PUBLIC_KEY,
        "endpoint": s.ENDPOINT,
        "local_pubkey": s.text("ignored: a tunnel gets its own key", maxLength=64)
        | {"x-secret": True},
        **order,
        "node_id": s.PEER_ID,
    }
    offering = {
        "bandwidth": s.digits("Mbit/s to advertise", s.OLDER_AMOUNT, 0, 999999),
        "latency": s.digits("ms to advertise", s.OLDER_AMOUNT, 0, 999999),
    }
    listed = s.table({"uplinks": s.rows("the configured uplinks, best first", s.OLDER_UPLINK)})
    tested = s.table(
        {
            **s.TEST_REPLY["properties"],
            "success": s.flag("the same as reachable"),
            "result": s.text("OK or FAILED", enum=["OK", "FAILED"]),
        }
    )
    switched = s.table(
        {
            "success": s.SUCCESS,
            "message": s.MESSAGE,
            "auto_failover": s.switch("1 if automatic failover is on now"),
        }
    )
    done = s.table({"success": s.SUCCESS, "message": s.MESSAGE})
    page = "as SecuBox's page knows them"
    yield row("uplinks", f"Lists the configured uplinks, {page}.", {}, listed, "read")
    yield row("add_uplink", "The older name of uplink_add.", adding, s.OLDER_DONE, "write")
    yield row("remove_uplink", "The older name of uplink_remove.", interface, done, "write")
    yield row(
        "test_uplink",
        "The older name of uplink_test.",
        {**interface, "target": s.HOST},
        tested,
        "write",
    )
    yield row("offer_uplink", "Not supported yet.", offering, done, "write")
    yield row("withdraw_uplink", "Not supported yet.", {}, done, "write")
    yield row(
        "set_uplink_priority",
        "The older name of uplink_set_priority.",
        {**interface, **order},
        s.OLDER_DONE,
        "write",
    )
    yield row(
        "set_uplink_failover",
        "The older name of uplink_set_failover.",
        {"enabled": s.OLDER_SWITCH},
        switched,
        "write",
    )


METHODS: Mapping[str, Method] = MappingProxyType({m.name: m for m in _declared()})
