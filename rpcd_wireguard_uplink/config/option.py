"""What an option of the configuration file is, and how a record of the settings declares one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import field, fields
from enum import Enum
from typing import Any

from ..errors import InvalidArgument
from ..reasons import code_of, told_with
from ..uci import Value
from ..values import dataclass
from . import kinds as k


class Fallback(Enum):
    """What takes the place of a bad value that had no good one before."""

    DEFAULT = "its default"
    OFF = "nothing: the section is not used"


@dataclass(frozen=True, slots=True)
class Option:
    """One option. `field` is its name in the settings, where that differs.

    `many`: a list, whose bad items are left out alone (all of them where `bad` is OFF).
    `needed`: what a missing one would have said. `secret`: never quoted. `is_always`: written even
    where it is the default. `is_unique`: no two sections have the same.
    """

    name: str
    kind: k.Kind
    default: Any
    help: str
    field: str = ""
    unit: str = ""
    many: bool = False
    collect: Callable[[Iterable[Any]], Any] = tuple
    bad: Any = Fallback.DEFAULT
    needed: str = ""
    secret: bool = False
    is_always: bool = False
    is_unique: bool = False

    @property
    def key(self) -> str:
        return self.field or self.name

    def items(self, text: Value) -> tuple[str, ...]:
        """The items of a list as UCI has it (a plain option's words), else the one value."""
        if not isinstance(text, str):
            return text
        return tuple(text.split()) if self.many and self.kind is not k.MESH_PEER else (text,)

    def why_not(self, item: str) -> str:
        """What a value or an item of a list must be, where it is not; else ''."""
        try:
            self.kind.parse(item)
        except ValueError as error:
            return str(error) if code_of(str(error))[0] else self.kind.must
        except InvalidArgument as error:
            return told_with(self.kind.must, f" ({error})")
        return ""

    def value(self, items: Sequence[str]) -> Any:
        """What good items come to in the settings."""
        found = map(self.kind.parse, items)
        return self.collect(found) if self.many else next(found)

    def default_items(self) -> tuple[str, ...]:
        """The default as it would be written; () where there is none."""
        return () if self.default in (None, "", (), -1) else self.items(self.text(self.default))

    def text(self, value: Any) -> Value:
        if not self.many:
            return self.kind.write(value)
        items = sorted(value) if isinstance(value, frozenset) else value
        return tuple(self.kind.write(item) for item in items)


@dataclass(frozen=True, slots=True)
class SectionType:
    """The sections of one type; `name` is the one that the only section must have."""

    type: str
    help: str
    options: tuple[Option, ...]
    name: str = ""

    def option(self, name: str) -> Option | None:
        return next((option for option in self.options if option.name == name), None)


def option(kind: k.Kind, default: Any, *, name: str = "", **row: Any) -> Any:
    """Declare a field of a record as an option; `name` is the option's, where it differs from the
    field's, `row` the rest of the row.
    """
    return field(default=default, metadata={"row": (kind, default, name, row)})


def rows(*records: type) -> tuple[Option, ...]:
    """The rows of the fields that are options, in their order."""
    return tuple(
        Option(name or each.name, kind, default, field=each.name, **row)
        for record in records
        for each in fields(record)
        if "row" in each.metadata
        for kind, default, name, row in (each.metadata["row"],)
    )
