"""SecuBox's older method names: the rows of the method table that its own page and scripts call.

Owns what their arguments and replies look like; what they mean is older.py's.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..schema import shapes as s
from ..schema.validation import Schema
from .calls import Access, Method


def older_methods() -> Iterator[Method]:
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
    yield row("offer_uplink", "The older name of uplink_offer.", offering, done, "write")
    yield row("withdraw_uplink", "The older name of uplink_withdraw.", {}, done, "write")
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
