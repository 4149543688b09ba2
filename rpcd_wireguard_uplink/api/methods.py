"""THE method table: what the object on the bus offers, each method declared once.

From it come the validation of arguments, the signature on the bus, rpcd's ACL, the command line
and docs/methods.md. A handler is a name here and is bound by the daemon, so this module imports
neither the service nor asyncio. What a call goes through is calls.py's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from ..schema import shapes as s
from ..schema.validation import Schema
from . import choice_schemas as c
from . import peering_schemas as p
from .calls import Access, Method, check_reply, error_reply, parse_arguments, signature
from .secubox_methods import older_methods

__all__ = [
    "METHODS",
    "OBJECT",
    "Access",
    "Method",
    "check_reply",
    "error_reply",
    "parse_arguments",
    "prepare_validation",
    "signature",
]

OBJECT = "luci.wireguard-dashboard"
LONGEST_MESSAGE = 16384


def prepare_validation() -> None:
    """Load the validation library and make every method's validator.

    The first call with arguments does it otherwise, and takes a tenth of a second or more for it.
    May run in a thread, so that a daemon can do it once it has registered.
    """
    for method in METHODS.values():
        # A first check loads the last parts of the library; any value will do.
        next(method.arguments.prepare().iter_errors(None), None)


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
                        "leased": s.flag("whether its addresses are a lease of the provider"),
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
                        },
                        "origin": {
                            **s.PEER_ID,
                            "description": "the node that it is said to come from: such a message "
                            "must be signed by its sender; left out by this router's own programs",
                        },
                    },
                    optional=("origin",),
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
        *_choice(),
        *_exchange(),
        *older_methods(),
    )


def _choice() -> Iterator[Method]:
    """Which path, why, and what if."""
    yield Method(
        name="uplink_explain",
        access="read",
        doc="Explains which path traffic takes, and ranks all backups with the numbers behind it.",
        handler="explain",
        arguments=Schema(s.table({})),
        reply=Schema(c.EXPLAIN_REPLY),
        command="why",
    )
    yield Method(
        name="uplink_simulate",
        access="read",
        doc="Tells what would happen if these paths died, without touching anything.",
        handler="simulate",
        arguments=Schema(s.table({"fail": c.FAIL})),
        reply=Schema(c.SIMULATE_REPLY),
        command="simulate",
        positional=("fail",),
    )
    yield Method(
        name="uplink_drill",
        access="write",
        doc="Rehearses a failover: by own probes only, or for some seconds with all traffic.",
        handler="drill",
        arguments=Schema(s.table(c.DRILL_ARGUMENTS, optional=c.DRILL_ARGUMENTS)),
        reply=Schema(c.DRILL_REPLY),
        command="drill",
        progress="rehearsing",
    )


def _exchange() -> Iterator[Method]:
    """Being a provider, and whom to trust."""
    done = {"success": s.SUCCESS, "message": s.MESSAGE}
    yield Method(
        name="uplink_offer",
        access="write",
        doc="Offers this router's internet to trusted mesh peers, or changes the offer.",
        handler="offer",
        arguments=Schema(s.table(p.OFFERING, optional=p.OFFERING)),
        reply=Schema(s.table({**done, "offer": p.OWN_OFFER, "note": s.NOTE})),
        command="offer",
        progress="measuring this router's line",
    )
    yield Method(
        name="uplink_withdraw",
        access="write",
        doc="Takes the offer back; consumers lose this uplink, their leases are kept.",
        handler="withdraw",
        arguments=Schema(s.table({})),
        reply=Schema(s.table(done)),
        command="withdraw",
    )
    yield Method(
        name="uplink_consumers",
        access="read",
        doc="Lists the peers that have a lease of this router's internet, and what they used.",
        handler="consumers",
        arguments=Schema(s.table({})),
        reply=Schema(p.CONSUMERS_REPLY),
        command="consumers",
    )
    yield Method(
        name="uplink_trust",
        access="read",
        doc="Lists the mesh peers and whether each is trusted, or what is missing for it.",
        handler="trust_list",
        arguments=Schema(s.table({})),
        reply=Schema(s.table({"node_id": s.PEER, "peers": s.rows("mesh peers", p.TRUST_ROW)})),
        command="trust",
    )
    fingerprint = s.text(
        "master-link's fingerprint of the peer, where several could be meant",
        pattern=r"^[A-Za-z0-9:._-]{1,128}$(?!\n)",
        **{"x-must": "be 1 to 128 letters, digits, dots, colons or hyphens"},
    )
    yield Method(
        name="uplink_trust_accept",
        access="write",
        doc="Trusts a mesh peer: pins its mesh key and its identity as they are now.",
        handler="trust_accept",
        arguments=Schema(
            s.table({"peer_id": s.PEER_ID, "fingerprint": fingerprint}, optional=("fingerprint",))
        ),
        reply=Schema(s.table({**done, "peer_id": s.PEER, "peer": p.TRUST_ROW})),
        command="trust accept",
        positional=("peer_id",),
    )
    yield Method(
        name="uplink_trust_revoke",
        access="write",
        doc="Trusts a peer no longer: its offers, its leases and uplinks made by itself go.",
        handler="trust_revoke",
        arguments=Schema(s.table({"peer_id": s.PEER_ID})),
        reply=Schema(s.table({**done, "peer_id": s.PEER})),
        command="trust revoke",
        positional=("peer_id",),
    )


METHODS: Mapping[str, Method] = MappingProxyType({m.name: m for m in _declared()})
