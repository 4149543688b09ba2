"""Records: what is made of one declaration."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from docs.schemas import schema_of
from rpcd_wireguard_uplink.schema.record import Record, member


class Inner(Record):
    """A row."""

    name: str = member("what it is called")
    age_s: float = member({"description": "seconds; -1 if unknown", "minimum": -1}, high=9)


class Outer(Inner):
    """A reply."""

    name: str = member("another name", enum=["a", "b"])
    from_path: str = member("where from", wire="from", default="nowhere")
    alive: bool | None = member("null where nothing tells")
    rows: Sequence[Inner] = member("rows", most=3)
    words: Sequence[str] | None = member("words, absent where there are none", default=None)


INNER = {
    "name": {"type": "string", "description": "what it is called"},
    "age_s": {
        "type": "number",
        "description": "seconds; -1 if unknown",
        "minimum": -1,
        "maximum": 9,
    },
}


def test_the_schema_is_in_the_declaration() -> None:
    closed = {"type": "object", "additionalProperties": False}
    row = {**closed, "properties": INNER, "required": ["name", "age_s"]}
    assert schema_of(Inner) == row
    assert schema_of(Outer) == {
        **closed,
        "properties": {
            "name": {"type": "string", "description": "another name", "enum": ["a", "b"]},
            "age_s": INNER["age_s"],
            "from": {"type": "string", "description": "where from"},
            "alive": {"type": ["boolean", "null"], "description": "null where nothing tells"},
            "rows": {"type": "array", "items": row, "description": "rows", "maxItems": 3},
            "words": {
                "type": "array",
                "items": {"type": "string"},
                "description": "words, absent where there are none",
            },
        },
        "required": ["name", "age_s", "from", "alive", "rows"],
    }


def test_a_record_becomes_a_table_in_the_declared_order() -> None:
    row = Inner(age_s=1.5, name="x")
    outer = Outer(rows=[row], alive=None, name="a", age_s=-1.0)
    assert list(row.as_table().items()) == [("name", "x"), ("age_s", 1.5)]
    table = {"name": "a", "age_s": -1.0, "from": "nowhere", "alive": None}
    assert list(outer.as_table().items()) == list({**table, "rows": [row.as_table()]}.items())
    said = Outer(rows=(), alive=True, name="a", age_s=-1.0, words=("b",), from_path="wan")
    assert said.as_table() == {**table, "from": "wan", "alive": True, "rows": [], "words": ["b"]}


def test_values_and_attributes_make_one() -> None:
    first, second = SimpleNamespace(name="x", more=1), SimpleNamespace(name="y", age_s=2.0)
    assert Inner.of(first, second).as_table() == {"name": "x", "age_s": 2.0}
    assert Inner.of(first, age_s=3.0, name="z").as_table() == {"name": "z", "age_s": 3.0}


@pytest.mark.parametrize(
    ("values", "wrong"), [({"name": "x"}, "age_s"), ({"name": "x", "age_s": 1, "b": 2}, "b")]
)
def test_what_is_missing_or_unknown_is_named(values: dict[str, Any], wrong: str) -> None:
    with pytest.raises(TypeError, match=f"^Inner: {wrong} missing or unknown$"):
        Inner(**values)
    with pytest.raises(AttributeError, match="Inner is frozen"):
        Inner(name="x", age_s=0).name = "y"  # type: ignore[misc]
