"""THE method table: what the object on the bus offers, each method declared once.

From it come the validation of arguments, the signature on the bus, rpcd's ACL, the command line
and docs/methods.md. A handler is a name here and is bound by the daemon, so this module imports
neither the service nor asyncio. Errors become statuses here too, in one place.
"""

from __future__ import annotations

from collections.abc import Mapping
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
    `progress` is shown while a call that takes seconds runs.
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


def parse_arguments(method: Method, raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call, coerced and valid; what is null or not given is not in it.

    Raises InvalidArgument with a sentence that names the argument.
    """
    given = {name: value for name, value in raw.items() if name != SESSION_ARGUMENT}
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
            reply=Schema(_status_reply()),
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
            reply=Schema(_test_reply()),
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
    )


def _status_reply() -> s.Tree:
    return s.table(
        {
            "enabled": s.switch("1 if the service does anything at all"),
            "auto_failover": s.switch("1 if traffic is moved automatically"),
            "offering": s.switch("1 if this router offers its internet to peers"),
            "state": s.STATE,
            "active_path": s.ACTIVE_PATH,
            "since_s": s.number("seconds in this state"),
            "cause": s.text("what led to this state, as a sentence"),
            "detection_bound_ms": s.whole("ms after which a dead line is noticed at the latest"),
            "uplink_count": s.whole("number of configured uplinks"),
            "primary": s.WAN_HEALTH,
            "families": s.table(
                {"ipv4": s.FAMILY, "ipv6": s.FAMILY}, "the state of each address family"
            ),
            "wans": s.rows("the router's own lines", s.WAN_HEALTH),
            "uplinks": s.rows("the configured uplinks, best first", s.UPLINK_HEALTH),
            "events": s.rows("the last changes, newest first", s.EVENT, s.EVENTS_IN_STATUS),
            "problems": s.rows("what the owner should mend", s.text("a sentence")),
        },
        more=True,
    )


def _test_reply() -> s.Tree:
    return s.table(
        {
            "success": {**s.SUCCESS, "description": "true: the test ran, whatever it found"},
            "peer_id": s.PEER,
            "interface": s.INTERFACE,
            "target": s.text("what was probed"),
            "reachable": s.flag("whether any probe was answered"),
            "sent": s.whole("probes sent"),
            "received": s.whole("probes answered"),
            "latency_ms": s.number("median round trip in ms; -1 without an answer", -1),
            "loss_pct": s.LOSS,
            "handshake_age_s": s.HANDSHAKE_AGE,
            "exit_address": s.text('address that the internet sees; "" if it can\'t be told'),
            "error": s.text('why nothing was reachable, as a sentence; else ""'),
        }
    )


METHODS: Mapping[str, Method] = MappingProxyType({m.name: m for m in _declared()})
