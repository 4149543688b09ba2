"""THE method table: what the object on the bus offers, each method declared once.

From it come the validation of arguments, the signature on the bus, rpcd's ACL, the command line
and docs/methods.md; what a call goes through is here too. The function that does a method has its
name and is found by bus.py, so that neither the service nor asyncio is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal

from ..errors import Status, UplinkError, place_of
from ..reasons import because, code_of, reported
from ..schema import shapes as s
from ..schema import validation
from ..schema.shapes import Tree
from ..schema.validation import Schema
from ..ubus.blobmsg import Type
from ..values import dataclass

OBJECT = "luci.wireguard-dashboard"
PLUGIN = f"/usr/libexec/rpcd/{OBJECT}"
JOIN_TIMEOUT_S = 1.0
OURS_ALONE = "uplink_gossip"  # the dashboard has methods of the same names, but not this one
# uhttpd appends the caller's session to the arguments of every call.
SESSION_ARGUMENT = "ubus_rpc_session"
LONGEST_MESSAGE = 16384
LONGEST_HISTORY = 200
Access = Literal["read", "write", "local"]
_NONE: Mapping[str, Tree] = MappingProxyType({})


@dataclass(frozen=True, eq=False)
class Method:
    """One method. `access` is read, write, or local: on the bus, but never for a web session.

    The function that does it has the same name, and so has its command (uplink_trust_accept:
    `wgctl uplink trust accept`) unless `alias` says otherwise ("" for none); what is `needed` comes
    there without an option's name; `progress` is shown while a call that takes seconds runs;
    `example` are arguments on the command line that its help shows. `reply` is the name of a record
    in replies.py.
    """

    name: str
    access: Access
    reply: str
    doc: str
    needed: Mapping[str, Tree] = _NONE
    optional: Mapping[str, Tree] = _NONE
    alias: str | None = None
    progress: str = ""
    example: str = ""

    @cached_property
    def arguments(self) -> Schema:
        return Schema(s.table({**self.needed, **self.optional}, optional=self.optional))

    @property
    def is_older(self) -> bool:
        """Whether it is one of SecuBox's names, whose callers send "" for what is not given."""
        return not self.name.startswith("uplink_")

    @property
    def command(self) -> str:
        """Its words behind `wgctl uplink`, "" where it has none."""
        words = "" if self.is_older else self.name.removeprefix("uplink_").replace("_", " ")
        return words if self.alias is None else self.alias


# --- what a call goes through


def parse_arguments(method: Method, raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call, coerced and valid; what is null or not given is not in it.

    Raises InvalidArgument with a sentence that names the argument.
    """
    return validation.parse(method.arguments, given(method, raw), method.name)


def given(method: Method, raw: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call as they came, without those that don't count."""
    return {
        name: value
        for name, value in raw.items()
        if name != SESSION_ARGUMENT and not (value == "" and method.is_older)
    }


def signature(method: Method) -> Mapping[str, Type]:
    """Return what the bus advertises for the method: its arguments and their blobmsg types."""
    types = {
        "string": Type.STRING,
        "integer": Type.INT32,
        "number": Type.DOUBLE,
        "boolean": Type.BOOL,
        "object": Type.TABLE,
        "array": Type.ARRAY,
    }
    found = {}
    for name, schema in (*method.needed.items(), *method.optional.items()):
        declared = schema["type"]
        found[name] = types[declared if isinstance(declared, str) else declared[0]]
    return found


def error_reply(error: BaseException) -> tuple[dict[str, Any], Status]:
    """Return the table and the status that a caller gets for an exception.

    Of one that is not of the project's tree the caller learns nothing; its class and the place
    where it was raised go to the log, its text does not, since it may hold anything.
    """
    if isinstance(error, UplinkError):
        told = str(error)
        return _refusal(told, error.code), error.status
    import logging

    logging.getLogger(__name__).error("%s at %s", type(error).__name__, place_of(error))
    return _refusal(because("internal"), UplinkError.code), Status.UNKNOWN_ERROR


def _refusal(told: str, code: str) -> dict[str, Any]:
    reason, args = code_of(reported(told))
    table = {"success": False, "error": told, "code": code}
    return {**table, "error_code": reason, "error_args": [*args]}


# --- the table
# fmt: off

_PEER: dict[str, Tree] = {"peer_id": s.PEER_ID}
_OFFER: Mapping[str, Tree] = {
    "bandwidth_mbps": s.whole("Mbit/s to advertise; 0 to say nothing", 0, 1_000_000),
    "latency_ms": s.number("ms to advertise; measured if left out", 0, 60_000),
    "wan_type": s.text("kind of WAN, such as fiber or lte",
        "be at most 32 letters, digits, spaces or _./+-",
        pattern=r"^[0-9A-Za-z_./+ -]{0,32}$(?!\n)"),
    "metered": s.flag("1 if the WAN is paid by volume"),
    "quota_gb": s.number("GB a month for all consumers together; 0 for no limit", 0, 1_000_000),
    "price_per_gb": s.number("what a GB costs, as the mesh counts; 0 for nothing", 0, 1_000_000),
    "limit_mbps": s.whole("Mbit/s for each consumer, each way; 0 for no limit", 0, 100_000),
    "max_consumers": s.whole("how many peers are served at once", 1, 200),
    "endpoint": s.HOST | {"description":
        "name or address that peers reach this router by; found out if left out"},
}

_UPLINKS = (
    Method("uplink_list", "read", "Uplinks",
        "Lists the configured uplinks and mesh peers' offers, each usable or with the reason."),
    Method("uplink_status", "read", "Status",
        "Tells which path traffic takes and why, and how every path is doing."),
    Method("uplink_add", "write", "Added",
        "Adds an uplink, from a peer's offer or from given values, or changes it.",
        needed=_PEER,
        optional={"weight": s.WEIGHT, "endpoint": s.ENDPOINT, "public_key": s.PUBLIC_KEY,
                  "address": s.ADDRESS},
        example="nodea --weight 50"),
    Method("uplink_remove", "write", "DonePeer",
        "Removes an uplink and everything that was made for it, and nothing else.",
        needed=_PEER, example="nodea"),
    Method("uplink_test", "write", "Tested",
        "Sends probes through an uplink's tunnel; takes seconds. A silent tunnel is no error.",
        needed=_PEER,
        optional={
            "target": s.HOST | {"description":
                "a host name or IP address to probe; a configured one if left out"},
            "count": s.whole("how many probes to send, 1 to 20", 1, 20)},
        progress="sending probes through the tunnel", example="nodea --count 10"),
    Method("uplink_set_priority", "write", "Weighed",
        "Sets an uplink's weight; the uplink with the higher weight is preferred.",
        needed=_PEER | {"weight": s.WEIGHT}, alias="priority", example="nodea 50"),
    Method("uplink_set_failover", "write", "Switched",
        "Turns automatic failover on or off.",
        needed={"enabled": s.flag("1 to fail over automatically, 0 not to")
                           | {"x-words": {"enable": True, "disable": False}}},
        alias="failover", example="disable"),
    Method("uplink_use", "write", "Used",
        "Leads all traffic by one path for a while or until that path dies, or ends that.",
        needed={"path": s.PEER_ID | {"description":
            "a peer's id, wan for the router's own WAN, or auto to end it"}},
        optional={"for": s.text(
            "for how long, such as 90s, 10m or 2h, at most 24h; 10m if left out",
            "be a number of seconds, or one with s, m or h behind it",
            pattern=r"^[0-9]{1,5}[smh]?$(?!\n)")},
        example="nodea --for 30m"),
    Method("uplink_gossip", "local", "Heard",
        "Takes a message of the mesh from the package that carries the mesh's gossip.",
        needed={"message": {"type": ["object", "string"], "maxLength": LONGEST_MESSAGE,
            "description": "an uplink_offer or uplink_withdraw, "
                           "as a table or as JSON text of at most 16,384 characters"}},
        optional={"origin": s.PEER_ID | {"description":
            "the node that it is said to come from: such a message must be "
            "signed by its sender; left out by this router's own programs"}},
        alias=""),
    Method("uplink_history", "read", "History",
        "Lists failovers, failbacks and other changes with their causes, newest first.",
        optional={"limit": s.whole("how many entries at most, 1 to 200", 1, LONGEST_HISTORY)},
        example="--limit 10"),
    Method("uplink_pulse", "read", "Pulse",
        "Tells the numbers of every path now, and whether other replies have changed.",
        alias=""),
    Method("uplink_texts", "read", "Texts",
        "Gives the English sentence of each code, for pages that translate it.",
        alias=""),
    Method("uplink_series", "read", "SeriesReply",
        "Gives latency, loss and traffic of every path over the last hour, day or month.",
        optional={"span": s.text(
            "hour (a point a minute), day (15 minutes) or month (8 hours); hour if left out",
            because("must_span"), pattern=r"^(?:hour|day|month)$(?!\n)")},
        alias=""),
)
_CHOICE = (
    Method("uplink_explain", "read", "Explained",
        "Explains which path traffic takes, and ranks all backups with the numbers behind that.",
        alias="why"),
    Method("uplink_simulate", "read", "Simulated",
        "Tells what would happen if these paths failed, without touching anything.",
        needed={"fail": {
            **s.rows("the paths to assume dead: devices, names of WANs, or peer ids",
                     s.text("a path", maxLength=64), 64),
            "minItems": 1,
            "x-must": because("must_entries"),
            "x-secret": True}},  # too long to be quoted
        example="wan"),
    Method("uplink_drill", "write", "Drilled",
        "Rehearses a failover: with probes of its own, or for some seconds with all traffic.",
        optional={
            "peer_id": s.PEER_ID | {"description": "the peer to drill with; all if left out"},
            "all_traffic": s.flag("1 to lead the traffic of everybody through one uplink and back, "
                                  "which cuts connections"),
            "seconds": s.whole("for how long with all_traffic; 10 if left out", 1, 60)},
        progress="rehearsing", example="nodea"),
)
_ROUTER = (
    Method("uplink_check", "write", "Checked",
        "Looks for what is missing or wrong on this router, as `wgctl uplink doctor` does.",
        alias=""),
    Method("uplink_notify", "write", "Notified",
        "Runs every hook of the owner's with a test event, and tells what became of each.",
        alias="notify", progress="running the hooks"),
)
_PEERS = (
    Method("uplink_offer", "write", "Offered",
        "Offers this router's internet to trusted mesh peers, or changes the offer.",
        optional=_OFFER, progress="measuring this router's WAN",
        example="--bandwidth-mbps 100 --limit-mbps 20"),
    Method("uplink_withdraw", "write", "Done",
        "Takes the offer back: consumers lose this uplink and keep their leases."),
    Method("uplink_consumers", "read", "Consumers",
        "Lists the peers that have a lease of this router's internet, and what they used."),
    Method("uplink_trust", "read", "TrustList",
        "Lists the mesh peers, whether each is trusted, and what is missing where it is not."),
    Method("uplink_trust_accept", "write", "Trusted",
        "Trusts a mesh peer: pins its mesh key and its identity as they are now.",
        needed=_PEER,
        optional={"fingerprint": s.text(
            "master-link's fingerprint of the peer, where several could be meant",
            because("must_fingerprint"),
            pattern=r"^[A-Za-z0-9:._-]{1,128}$(?!\n)")},
        example="nodea"),
    Method("uplink_trust_revoke", "write", "DonePeer",
        "Ends the trust in a peer: its offers, its leases and its automatic uplinks go.",
        needed=_PEER, example="nodea"),
)

# --- SecuBox's older names: its page sends numbers as text, and "" for what is not given

_OLDER_INTERFACE: Mapping[str, Tree] = {
    "interface": s.text("the name of an uplink's network interface",
        because("must_interface"),
        pattern=r"^[A-Za-z0-9_.-]{1,15}$(?!\n)")}
_TO_100 = r"^(?:[1-9][0-9]?|100)$(?!\n)"
_AMOUNT = r"^[0-9]{1,6}$(?!\n)"
_OLDER_ORDER: Mapping[str, Tree] = {
    "priority": s.digits("1 to 100, the lower one is preferred: 101 - weight", _TO_100, 1, 100),
    "weight": s.digits("1 to 100, the higher one is preferred; counts where no priority is given",
                       _TO_100, 1, 100)}

_OLDER = (
    Method("uplinks", "read", "OlderUplinks",
        "Lists the configured uplinks, as SecuBox's page knows them."),
    Method("add_uplink", "write", "OlderAdded", "The older name of uplink_add.",
        {"peer_pubkey": s.PUBLIC_KEY},
        {"endpoint": s.ENDPOINT,
         "local_pubkey": s.text("ignored: a tunnel gets its own key", maxLength=64)
                         | {"x-secret": True},
         **_OLDER_ORDER,
         "node_id": s.PEER_ID}),
    Method("remove_uplink", "write", "Done", "The older name of uplink_remove.", _OLDER_INTERFACE),
    Method("test_uplink", "write", "OlderTested", "The older name of uplink_test.",
        _OLDER_INTERFACE, {"target": s.HOST}),
    Method("offer_uplink", "write", "Done", "The older name of uplink_offer.", {},
        {"bandwidth": s.digits("Mbit/s to advertise", _AMOUNT, 0, 999999),
         "latency": s.digits("ms to advertise", _AMOUNT, 0, 999999)}),
    Method("withdraw_uplink", "write", "Done", "The older name of uplink_withdraw."),
    Method("set_uplink_priority", "write", "OlderDone", "The older name of uplink_set_priority.",
        _OLDER_INTERFACE, _OLDER_ORDER),
    Method("set_uplink_failover", "write", "Switched", "The older name of uplink_set_failover.",
        {"enabled": s.digits("1 to fail over automatically, 0 not to", r"^[01]$(?!\n)", 0, 1)
                    | {"type": ["string", "integer", "boolean"], "x-must": because("must_flag")}}),
)
# fmt: on

METHODS: Mapping[str, Method] = MappingProxyType(
    {method.name: method for method in (*_UPLINKS, *_CHOICE, *_ROUTER, *_PEERS, *_OLDER)}
)
