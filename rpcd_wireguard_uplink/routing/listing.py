"""What `nft -j` lists, read: the elements of a map, names in rules, counters of a set.

Runs nothing and knows nothing of what the rules are for.
"""

from __future__ import annotations

import json
from typing import Any

from ..errors import CommandFailed


def _objects(text: str, kind: str) -> list[dict[str, Any]]:
    try:
        listed = json.loads(text)["nftables"]
    except (ValueError, KeyError) as error:
        raise CommandFailed("nft did not print the JSON that was asked for") from error
    return [entry[kind] for entry in listed if kind in entry]


def map_elements(text: str) -> list[Any]:
    return [element for found in _objects(text, "map") for element in found.get("elem", ())]


def compared_names(text: str) -> tuple[str, ...]:
    """The device names that the rules of an `enter` chain compare with."""
    if not text:
        return ()
    names: list[str] = []
    for rule in _objects(text, "rule"):
        for expression in rule.get("expr", ()):
            right = expression.get("match", {}).get("right")
            for value in right.get("set", ()) if isinstance(right, dict) else [right]:
                if isinstance(value, str):
                    names.append(value)
    return tuple(names)


def parse_heard(text: str) -> dict[str, int]:
    """Read `nft -j list set` of a set of device names with a counter each: name -> packets."""
    counts: dict[str, int] = {}
    for found in _objects(text, "set"):
        for element in found.get("elem", ()):
            inner = element.get("elem", {}) if isinstance(element, dict) else {}
            if "val" in inner:
                counts[inner["val"]] = int(inner.get("counter", {}).get("packets", 0))
    return counts
