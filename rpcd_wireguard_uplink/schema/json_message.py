"""JSON that another machine wrote: read strictly, whether it came by HTTP, MQTT or gossip.

Owns the limits that every message of the mesh has before anything looks into it. What the members
mean is decided in mesh/wire.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from ..errors import InvalidArgument

LONGEST_JSON = 16384
DEEPEST = 16


def parse_json_message(raw: bytes, limit: int = LONGEST_JSON) -> dict[str, Any]:
    """Read the bytes of a JSON object as strictly as a foreign one must be read.

    Raises InvalidArgument, with code "too_large" above `limit` bytes and else "bad_json": for what
    is no UTF-8, no JSON (RFC 8259: NaN and Infinity are none), no object, has a member twice, a
    number that no float holds, or is nested more than 16 levels deep.
    """
    if len(raw) > limit:
        raise InvalidArgument(
            f"the message is longer than {limit} bytes; send less", code="too_large"
        )
    try:
        table = json.loads(
            raw.decode(),
            object_pairs_hook=_each_once,
            parse_float=_finite,
            parse_constant=_refuse_constant,
        )
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(
            "the message is not valid JSON; send one JSON object", code="bad_json"
        ) from error
    if not isinstance(table, dict):
        raise InvalidArgument(
            "the message is JSON, but not an object; send one JSON object", code="bad_json"
        )
    _check_depth(table)
    return table


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise InvalidArgument("the message has a member twice; send each once", code="bad_json")
    return table


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("too large for a number")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _check_depth(table: dict[str, Any]) -> None:
    level: list[Any] = [table]
    for _ in range(DEEPEST):
        inside = (node.values() if isinstance(node, dict) else node for node in level)
        level = [each for values in inside for each in values if isinstance(each, dict | list)]
        if not level:
            return
    raise InvalidArgument(
        f"the message is nested more than {DEEPEST} levels deep; send a flat one", code="bad_json"
    )
