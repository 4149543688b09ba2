"""What is wrong with a value by a JSON Schema, for the keywords that peers' messages use.

Faults are those of jsonschema, in its order. That library checks what owners give; a router in a
mesh hears so many messages that it does without the library's 4 MB, and without its time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from ..errors import InvalidArgument
from .endpoints import parse_address, parse_endpoint, parse_host, parse_key
from .record import is_of_kind

FORMATS: Mapping[str, Callable[[str], object]] = {
    "endpoint": parse_endpoint,
    "host": parse_host,
    "address": parse_address,
    "key": parse_key,
}


_RULES: Mapping[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "pattern": ("string", lambda wanted, value: not re.search(wanted, value)),
    "maxLength": ("string", lambda wanted, value: len(value) > wanted),
    "minimum": ("number", lambda wanted, value: value < wanted),
    "maximum": ("number", lambda wanted, value: value > wanted),
    "minItems": ("array", lambda wanted, value: len(value) < wanted),
    "maxItems": ("array", lambda wanted, value: len(value) > wanted),
    "required": ("object", lambda wanted, value: any(name not in value for name in wanted)),
}
"""Of which kind a value is that a keyword is about, and whether one breaks it."""


class Fault(NamedTuple):
    """One fault; its fields are named as those of jsonschema's ValidationError."""

    validator: str
    absolute_path: tuple[str | int, ...]
    instance: Any
    schema: Mapping[str, Any]
    cause: Exception | None = None


def faults(
    tree: Mapping[str, Any], value: Any, path: tuple[str | int, ...] = ()
) -> Iterator[Fault]:
    """Find everything that is wrong with a value."""
    for keyword, wanted in tree.items():
        if keyword == "type":
            is_wrong = not _is(value, wanted)
        elif keyword == "enum":
            is_wrong = value not in wanted
        elif keyword in _RULES:
            kind, is_broken = _RULES[keyword]
            is_wrong = _is(value, kind) and is_broken(wanted, value)
        else:
            is_wrong = False
        if is_wrong:
            yield Fault(keyword, path, value, tree)
        elif keyword == "format" and isinstance(value, str):
            try:
                FORMATS[wanted](value)
            except InvalidArgument as error:
                yield Fault(keyword, path, value, tree, error)
        elif keyword == "properties" and isinstance(value, dict):
            for name, inner in wanted.items():
                if name in value:
                    yield from faults(inner, value[name], (*path, name))
        elif keyword == "items" and isinstance(value, list):
            for place, item in enumerate(value):
                yield from faults(wanted, item, (*path, place))


def _is(value: Any, kind: str) -> bool:
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return is_of_kind(value, kind)
