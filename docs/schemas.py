"""JSON Schemas of what the service says: of replies and of a provider's no.

Pages and tests read them; the service itself, which checks what it is told, has no need of them.
"""

from __future__ import annotations

import functools
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from rpcd_wireguard_uplink.api import replies
from rpcd_wireguard_uplink.api.methods import Method
from rpcd_wireguard_uplink.errors import UplinkError
from rpcd_wireguard_uplink.mesh.wire.lease import LONGEST_ERROR, Deny
from rpcd_wireguard_uplink.schema import shapes as s
from rpcd_wireguard_uplink.schema.record import NAMES, Member, Record
from rpcd_wireguard_uplink.schema.shapes import Tree
from rpcd_wireguard_uplink.schema.validation import Schema

LEASE_DENIAL = Schema(
    s.table(
        {
            "code": s.text(
                f"why, for programs: {', '.join(Deny)}; newer providers may have others",
                pattern=r"^[a-z0-9_]{1,40}$(?!\n)",
            ),
            "error": s.text("why, for the consumer's owner", maxLength=LONGEST_ERROR),
        },
        "A provider says no: the answer to a lease_request with a status from 400 on.",
        more=True,
    )
)


@functools.cache
def reply_schema(method: Method) -> Schema:
    """What a reply's table must be."""
    return Schema(schema_of(getattr(replies, method.reply)))


def check_reply(method: Method, reply: Any) -> None:
    """Raise UplinkError with the path and the rule where a reply is not what the table promises."""
    fault = reply_schema(method).fault(reply, f"the reply of {method.name}")
    if fault:
        raise UplinkError(f"reply of {method.name}: {fault}", code="bad_reply")


def schema_of(record: type[Record]) -> Tree:
    """Return a record's JSON Schema: all members required but the optional ones, no others."""
    kinds = get_type_hints(record)
    members = record.members.items()
    return {
        "type": "object",
        "properties": {
            m.wire: m.tree if "type" in m.tree else {**_schema_of(kinds[n], m), **m.tree}
            for n, m in members
        },
        "required": [m.wire for _, m in members if not m.is_optional],
        "additionalProperties": False,
    }


def _schema_of(kind: Any, declared: Member | None = None) -> Tree:
    if kind in NAMES:
        is_number = kind in (int, float)
        return {"type": NAMES[kind], **({"minimum": 0} if is_number else {})}
    if get_origin(kind) is UnionType:
        tree = _schema_of(*(each for each in get_args(kind) if each is not NoneType))
        is_absent = declared is not None and declared.is_optional
        return tree if is_absent else {**tree, "type": [tree["type"], "null"]}
    if get_origin(kind) is not None:
        return {"type": "array", "items": _schema_of(get_args(kind)[0])}
    return schema_of(kind)
