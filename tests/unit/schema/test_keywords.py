"""What a peer's message breaks, beside what jsonschema says of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpcd_wireguard_uplink.errors import InvalidArgument
from rpcd_wireguard_uplink.mesh.wire.lease import Identity, LeaseGrant, LeaseRelease, LeaseRequest
from rpcd_wireguard_uplink.mesh.wire.message import Message
from rpcd_wireguard_uplink.mesh.wire.offer import Offer, Withdrawal
from rpcd_wireguard_uplink.schema import shapes as s
from rpcd_wireguard_uplink.schema.validation import Schema, parse, parse_message

MESSAGES: list[type[Message]] = [
    *(Offer, Withdrawal, LeaseRequest, LeaseGrant, LeaseRelease, Identity)
]
NOTES = {"description", "x-must", "x-secret", "x-words"}
KNOWN = {"type", "enum", "pattern", "maxLength", "minimum", "maximum", "minItems", "maxItems"}
KNOWN |= {"required", "format", "properties", "items", "additionalProperties"}
TEXTS = ("", "5", "-1", "1.5", "nodea", "a.example", "fd00::1", "10.0.0.1/32", "a\n", "x" * 300)
ODD = (None, True, 0, 1, -1, 5.0, 1.5, 2**70, 10**400, float("nan"), float("inf"), *TEXTS)


def trees(tree: s.Tree) -> Iterator[s.Tree]:
    yield tree
    for inner in tree.get("properties", {}).values():
        yield from trees(inner)
    if "items" in tree:
        yield from trees(tree["items"])


def fitting(tree: s.Tree) -> st.SearchStrategy[Any]:
    """Values that mostly fit, and some of every other kind."""
    kind = tree["type"]
    if "enum" in tree:
        good: st.SearchStrategy[Any] = st.sampled_from(tree["enum"])
    elif "pattern" in tree:
        good = st.from_regex(tree["pattern"].removesuffix("(?!\\n)"))
    elif kind in ("integer", "number"):
        low, high = tree.get("minimum", -10), tree.get("maximum", 10)
        good = st.integers(int(low) - 1, int(high) + 1) | st.floats(low, high)
    elif kind == "array":
        good = st.lists(fitting(tree["items"]), max_size=tree.get("maxItems", 3) + 1)
    elif kind == "object":
        inner = {name: fitting(each) for name, each in tree["properties"].items()}
        good = st.fixed_dictionaries({}, optional=inner)
    else:
        good = st.booleans() if kind == "boolean" else st.text(max_size=9)
    other = st.sampled_from((*ODD, [], [{}], {}, {"host": 5}))
    return st.integers(0, 9).flatmap(lambda number: good if number else other)


def told(by: Any, schema: Schema, value: dict[str, Any]) -> object:
    try:
        return by(schema, value, "it")
    except InvalidArgument as error:
        return str(error)


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.name)
def test_only_keywords_that_are_known(kind: type[Message]) -> None:
    for tree in trees(kind.schema.tree):
        assert not tree.keys() - KNOWN - NOTES
        assert isinstance(tree["type"], str)
        assert tree.get("additionalProperties", True)


@pytest.mark.parametrize("kind", [Offer, LeaseRequest, LeaseGrant], ids=lambda kind: kind.name)
@given(data=st.data())
def test_as_jsonschema_judges(kind: type[Message], data: st.DataObject) -> None:
    table = s.table(kind.schema.properties, optional=kind.schema.properties, more=True)
    value = data.draw(fitting(table))
    if isinstance(value, dict):
        assert told(parse_message, kind.schema, value) == told(parse, kind.schema, value)


ODD_TREES = [
    s.whole("a", 0, 9),
    s.number("a", 0, 9),
    s.text("a", maxLength=3),
    s.text("a", enum=["x", "y"]),
    s.flag("a"),
    s.HOST,
    s.ADDRESS,
    s.ENDPOINT,
    s.PEER_ID,
    {**s.rows("a", s.whole("b", 0, 9), 2), "minItems": 1},
    s.table({"b": s.whole("b", 0, 9)}, "a", more=True),
]


@pytest.mark.parametrize("tree", ODD_TREES, ids=lambda tree: tree["type"])
def test_every_kind_of_value(tree: s.Tree) -> None:
    schema = Schema(s.table({"a": tree}, more=True))
    inner = ({"b": each} for each in ODD)
    for value in (*ODD, *([each] for each in ODD), *inner, [], {}, [1, 2, 3], [[]], {"c": 1}):
        found = told(parse_message, schema, {"a": value})
        assert repr(found) == repr(told(parse, schema, {"a": value})), value
