"""The pieces that JSON Schemas of arguments and messages are made of: builders and shared shapes.

Everything is Draft 2020-12 without oneOf, and patterns never end in a bare `$`, which Python lets
match before a line break. A description names the unit and reads well behind the word "give".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..reasons import because

Tree = dict[str, Any]


def text(description: str, must: str = "", **more: Any) -> Tree:
    """Return the schema of a string; `must` says what one has to do that breaks the pattern."""
    tree = {"type": "string", "description": description, **more}
    return {**tree, "x-must": must} if must else tree


def whole(description: str, minimum: int = 0, maximum: int | None = None) -> Tree:
    """Return the schema of an integer from `minimum` on."""
    return {**number(description, minimum, maximum), "type": "integer"}


def number(description: str, minimum: float = 0, maximum: float | None = None) -> Tree:
    tree: Tree = {"type": "number", "description": description, "minimum": minimum}
    return tree if maximum is None else {**tree, "maximum": maximum}


def digits(description: str, pattern: str, low: int, high: int) -> Tree:
    """Return the schema of a whole number that may come as text, and is declared as text."""
    tree = {**whole(description, low, high), "type": ["string", "integer"], "pattern": pattern}
    return {**tree, "x-must": because("must_whole", low, high)}


def flag(description: str) -> Tree:
    return {"type": "boolean", "description": description}


def rows(description: str, item: Mapping[str, Any], maximum: int | None = None) -> Tree:
    """Return the schema of a list whose entries all look like `item`."""
    tree: Tree = {"type": "array", "description": description, "items": item}
    return tree if maximum is None else {**tree, "maxItems": maximum}


def table(
    properties: Mapping[str, Any],
    description: str = "",
    *,
    optional: Iterable[str] = (),
    more: bool = False,
) -> Tree:
    """Return the schema of a table: all members required but the `optional` ones, and others
    refused unless `more`.
    """
    left_out = set(optional)
    tree: Tree = {
        "type": "object",
        "properties": dict(properties),
        "required": [name for name in properties if name not in left_out],
        "additionalProperties": more,
    }
    return {**tree, "description": description} if description else tree


PEER_ID = text(
    "the id of a mesh peer",
    pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$(?!\n)",
    must=because("must_id"),
)
PUBLIC_KEY = text(
    "the peer's WireGuard public key",
    pattern=r"^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$(?!\n)",
    must=because("must_key"),
    format="key",
) | {"x-secret": True}
WEIGHT = whole("a weight from 1 to 100; the peer with the higher one is preferred", 1, 100)
ENDPOINT = text(
    'where the peer listens: "host:port", "[IPv6]:port" or a host (port 51820)',
    maxLength=262,
    format="endpoint",
)
HOST = text("a host name or IP address", maxLength=253, format="host")
ADDRESS = text(
    "the tunnel's own IPv4 or IPv6 address, with or without a prefix length",
    maxLength=43,
    format="address",
)
