"""Records: frozen data classes whose members say what they mean, for schemas, pages and tables.

From it come the JSON Schema, the lines of the documentation, the columns of a table for people and
the table on the bus. A member's type is its annotation: str, int, float, bool, a record, a sequence
of these, or one of them and None. Numbers are 0 or more unless a member says otherwise. A member
with the default None is left out of the table while it is None.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, NoReturn, Self, dataclass_transform

from ..reasons import Reason, code_of
from ..values import dataclass
from .shapes import Tree

REQUIRED = object()
_NOTHING: Mapping[str, Any] = {}
NAMES = {str: "string", int: "integer", float: "number", bool: "boolean"}
_FLAT = {kind.__name__: name for kind, name in NAMES.items()}
_KINDS: Mapping[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
}


@dataclass(slots=True)
class Member:
    """What is declared of one member: its meaning and the other keywords of its JSON Schema, its
    name in the table, the head of its column ("" where it is not shown), and whether that comes
    last, as sentences do.
    """

    meaning: str | Mapping[str, Any]
    keywords: Mapping[str, Any]
    wire: str
    column: str
    is_last: bool
    default: Any
    is_coded: bool = False

    def take_name(self, name: str) -> None:
        """Its attribute has this name, and so has it in the table unless that was declared."""
        self.wire = self.wire or name

    @property
    def tree(self) -> Tree:
        shared = self.meaning
        shared = {"description": shared} if isinstance(shared, str) else shared
        return {**shared, **self.keywords}

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
    default: Any = REQUIRED,
    low: float | None = None,
    high: float | None = None,
    most: int | None = None,
    coded: bool = False,
    **keywords: Any,
) -> Any:
    """Declare a member: its meaning with the unit, or the keywords of a shape that several share.

    `wire` is its name in the table where Python forbids that name. Members with the same `column`
    share it. `low`, `high` and `most` bound a number and the rows of a sequence; a sentence that is
    `coded` has its code and arguments beside it (reasons.py), under its name with _code and
    _args; `keywords` are JSON Schema's (enum, pattern ...).
    """
    bounds = {"minimum": low, "maximum": high, "maxItems": most}
    keywords |= {name: bound for name, bound in bounds.items() if bound is not None}
    return Member(meaning, keywords or _NOTHING, wire, column, last, default, coded)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(member,))
class Record:
    """A data class for type checkers (PEP 681). `dataclasses` would do the same, but compiles code
    for each class, which takes 20 ms for some dozens of them whenever the service starts.
    """

    members: ClassVar[Mapping[str, Member]] = {}
    _defaults: ClassVar[Mapping[str, Any]] = {}
    _given: ClassVar[tuple[str, ...]] = ()
    _is_flat: ClassVar[bool] = True  # nothing but its attributes is in its table
    _coded: ClassVar[tuple[tuple[str, str, str], ...]] = ()  # names of sentence, code, arguments

    def __init_subclass__(cls, also: Mapping[str, Member] | None = None) -> None:
        """`also` are members that another class declares and this one has, too."""
        here = vars(cls)
        declared = {n: here[n] for n in cls.__annotations__ if isinstance(here.get(n), Member)}
        for name, each in declared.items():
            each.take_name(name)
        coded = (name for name, each in declared.items() if each.is_coded)
        cls._coded += tuple((name, f"{name}_code", f"{name}_args") for name in coded)
        cls.members = {**cls.members, **(also or {}), **_with_codes(declared)}
        made = {name for _, *names in cls._coded for name in names}
        cls._given = tuple(name for name in cls.members if name not in made)
        cls._defaults = {n: m.default for n, m in cls.members.items() if m.default is not REQUIRED}
        cls._is_flat = cls._is_flat and all(
            cls.__annotations__[name] in _FLAT and each.wire == name
            for name, each in declared.items()
        )

    def __init__(self, **values: Any) -> None:
        if values.keys() != self.members.keys():
            values = {**self._defaults, **values}
            wrong = sorted(values.keys() ^ self.members.keys())
            if wrong:
                raise TypeError(f"{type(self).__name__}: {', '.join(wrong)} missing or unknown")
        for sentence, code, arguments in self._coded:
            values[code], values[arguments] = code_of(values[sentence])
        self.__dict__.update(values)

    @classmethod
    def of(cls, *sources: object, **values: Any) -> Self:
        """Make one of these values, and of attributes with the names of the other members, each of
        the first source that has it.
        """
        for name in cls._given:
            if name not in values:
                for source in sources:
                    if (found := getattr(source, name, REQUIRED)) is not REQUIRED:
                        values[name] = found
                        break
        return cls(**values)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is frozen")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(tuple(getattr(self, name) for name in self.members))

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.members)
        return f"{type(self).__name__}({shown})"

    def replaced(self, **changes: Any) -> Self:
        return type(self)(**{**vars(self), **changes})

    def as_table(self) -> dict[str, Any]:
        """Return the table that goes on the bus, with all that is in it."""
        values = self.__dict__
        if self._is_flat:
            table = {name: values[name] for name in self.members}
            for _, _, arguments in self._coded:
                table[arguments] = [*table[arguments]]
            return table
        return {
            member.wire: value if type(value) in NAMES else _table_of(value)
            for name, member in self.members.items()
            if (value := values[name]) is not None or not member.is_optional
        }

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> Self:
        """Read what `as_table` has made of a record of plain values.

        Raises TypeError where a value is not of its kind, or a member is missing or unknown.
        """
        names = {member.wire: name for name, member in cls.members.items()}
        values = {names.get(wire, wire): value for wire, value in table.items()}
        for name, kind in cls.__annotations__.items():
            if name in values and not is_of_kind(values[name], _FLAT[kind]):
                raise TypeError(f"{name} is of another kind")
        for sentence, code, arguments in cls._coded:
            given = values.pop(code, ""), tuple(values.pop(arguments, ()))
            if not all(isinstance(text, str) for text in (given[0], *given[1])):
                raise TypeError(f"the code of {sentence} is of another kind")
            if sentence in values:
                values[sentence] = Reason(values[sentence], *given)
        return cls(**values)


def _with_codes(declared: Mapping[str, Member]) -> dict[str, Member]:
    members = {}
    for name, each in declared.items():
        members[name] = each
        if each.is_coded:
            code = f'codes of {name}, joined by slashes; "" where it has none'
            members[f"{name}_code"] = member({"type": "string", "description": code}, default="")
            words = {"type": "array", "items": {"type": "string"}}
            given = {**words, "description": f"the values in {name}, in their order"}
            members[f"{name}_args"] = member(given, default=())
    for name, each in members.items():
        each.take_name(name)
    return members


def is_of_kind(value: Any, kind: str) -> bool:
    """Whether JSON holds a value of this type (JSON Schema's name), and no infinite number."""
    if isinstance(value, bool) or not isinstance(value, _KINDS[kind]):
        return isinstance(value, bool) and kind == "boolean"
    return not isinstance(value, float) or math.isfinite(value)


def _table_of(value: Any) -> Any:
    if isinstance(value, Record):
        return value.as_table()
    return [_table_of(each) for each in value] if isinstance(value, list | tuple) else value
