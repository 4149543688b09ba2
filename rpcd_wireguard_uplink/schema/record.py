"""Records: frozen data classes whose members say what they mean, for schemas, pages and tables.

From it come the JSON Schema, the lines of the documentation, the columns of a table for people and
the table on the bus. A member's type is its annotation: str, int, float, bool, a record, a sequence
of these, or one of them and None. Numbers are 0 or more unless a member says otherwise. A member
with the default None is left out of the table while it is None.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType, UnionType
from typing import (
    Any,
    ClassVar,
    NoReturn,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

from .shapes import Tree

_REQUIRED = object()
_NAMES = {str: "string", int: "integer", float: "number", bool: "boolean"}


class Member:
    """What is declared of one member: its JSON Schema without the type, its name in the table, the
    head of its column ("" where it is not shown), and whether that comes last, as sentences do.
    """

    __slots__ = ("column", "default", "is_last", "tree", "wire")

    def __init__(self, tree: Tree, wire: str, column: str, is_last: bool, default: Any) -> None:
        self.tree = tree
        self.wire = wire
        self.column = column
        self.is_last = is_last
        self.default = default

    @property
    def is_optional(self) -> bool:
        """Whether the table may lack it."""
        return self.default is None


def member(
    meaning: str | Mapping[str, Any],
    *,
    wire: str = "",
    column: str = "",
    last: bool = False,
    default: Any = _REQUIRED,
    low: float | None = None,
    high: float | None = None,
    most: int | None = None,
    **keywords: Any,
) -> Any:
    """Declare a member: its meaning with the unit, or the keywords of a shape that several share.

    `wire` is its name in the table where Python forbids that name. Members with the same `column`
    share it. `low`, `high` and `most` bound a number and the rows of a sequence; `keywords` are
    JSON Schema's (enum, pattern ...).
    """
    bounds = {"minimum": low, "maximum": high, "maxItems": most}
    keywords |= {name: bound for name, bound in bounds.items() if bound is not None}
    shared = {"description": meaning} if isinstance(meaning, str) else meaning
    return Member({**shared, **keywords}, wire, column, last, default)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(member,))
class Record:
    """A data class for type checkers (PEP 681). `dataclasses` would do the same, but compiles code
    for each class, which takes 20 ms for some dozens of them whenever the service starts.
    """

    members: ClassVar[Mapping[str, Member]] = {}

    def __init_subclass__(cls) -> None:
        declared = {name: vars(cls)[name] for name in cls.__annotations__}
        for name, each in declared.items():
            each.wire = each.wire or name
        cls.members = {**cls.members, **declared}

    def __init__(self, **values: Any) -> None:
        known = {n: m.default for n, m in self.members.items() if m.default is not _REQUIRED}
        known.update(values)
        if known.keys() != self.members.keys():
            wrong = sorted(known.keys() ^ self.members.keys())
            raise TypeError(f"{type(self).__name__}: {', '.join(wrong)} missing or unknown")
        self.__dict__.update(known)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is frozen")

    def as_table(self) -> dict[str, Any]:
        """Return the table that goes on the bus, with all that is in it."""
        found = {each.wire: getattr(self, name) for name, each in self.members.items()}
        left_out = {each.wire for each in self.members.values() if each.is_optional}
        return {
            name: _plain(value)
            for name, value in found.items()
            if value is not None or name not in left_out
        }


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return value.as_table()
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value


def schema_of(record: type[Record]) -> Tree:
    """Return a record's JSON Schema: all members required but the optional ones, no others."""
    kinds = get_type_hints(record)
    members = record.members.items()
    return {
        "type": "object",
        "properties": {m.wire: {**_schema_of(kinds[n], m), **m.tree} for n, m in members},
        "required": [m.wire for _, m in members if not m.is_optional],
        "additionalProperties": False,
    }


def _schema_of(kind: Any, declared: Member | None = None) -> Tree:
    if kind in _NAMES:
        is_number = kind in (int, float)
        return {"type": _NAMES[kind], **({"minimum": 0} if is_number else {})}
    if get_origin(kind) is UnionType:
        tree = _schema_of(*(each for each in get_args(kind) if each is not NoneType))
        is_absent = declared is not None and declared.is_optional
        return tree if is_absent else {**tree, "type": [tree["type"], "null"]}
    if get_origin(kind) is not None:
        return {"type": "array", "items": _schema_of(get_args(kind)[0])}
    return schema_of(kind)
