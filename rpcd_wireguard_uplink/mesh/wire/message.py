"""Messages of the mesh as records: one line a member gives its bounds, its reader and its writer.

A message comes from another machine: every member is bounded, members that are not declared are
skipped, and nothing but single short values is ever quoted. A member that has its default is not
written, unless it is declared `always`. docs/adding-a-field.md shows how one is added.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Self, dataclass_transform

from ...errors import InvalidArgument
from ...schema import shapes as s
from ...schema import validation
from ...schema.record import REQUIRED, Member, Record, is_of_kind
from ...schema.validation import Schema

LONGEST = 8192  # as JSON: twice what the members that are known can have

Reader = Callable[[str, Any], Any]
Writer = Callable[[Any], Any]


_READERS: Mapping[str, Reader] = {
    "number": lambda place, value: float(value),
    "array": lambda place, value: tuple(value),
}
_WRITERS: Mapping[str, Writer] = {
    # 20 for 20.0, as the specification writes it and shells can read it.
    "number": lambda value: int(value) if float(value).is_integer() else value,
    "array": list,
}


class Said(Member):
    """A member that peers say, by its JSON Schema (schema/shapes.py).

    `inside` is the member of the message that holds it, `wire` its name there where the record's
    is another one. `read` turns what came into what the record holds (it is given the place in the
    message for its errors), `write` turns it back. `always` has it written with its default too.
    `is_listed` has `uplink_list` show it, `column` is the head of its column in `wgctl`.
    """

    __slots__ = ("always", "inside", "is_listed", "read", "write")

    def __init__(
        self,
        tree: s.Tree,
        default: Any,
        *,
        inside: str = "",
        wire: str = "",
        always: bool = False,
        is_listed: bool = False,
        column: str = "",
        read: Reader | None = None,
        write: Writer | None = None,
    ) -> None:
        super().__init__(tree, {}, wire, column, False, default)
        self.inside = inside
        self.always = always
        self.is_listed = is_listed
        self.read = read or _READERS.get(tree["type"], lambda place, value: value)
        self.write = write or _WRITERS.get(tree["type"], lambda value: value)

    @property
    def has_default(self) -> bool:
        return self.default is not REQUIRED


def said(tree: s.Tree, *, default: Any = REQUIRED, **form: Any) -> Any:
    """Declare a member that peers say; without `default` it is needed. `form` is Said's."""
    return Said(tree, default, **form)


def noted(tree: s.Tree, *, default: Any) -> Any:
    """Declare what this router notes beside the message: the state file keeps it, no peer hears."""
    return Member(tree, {}, "", "", False, default)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(said, noted))
class Message(Record):
    """A message. A class of its kind has its `name`, which is the member `type`, and descriptions
    of its inner tables behind it.
    """

    name: ClassVar[str]
    schema: ClassVar[Schema]

    def __init_subclass__(cls, name: str = "", **groups: str) -> None:
        super().__init_subclass__()
        cls.name = name
        cls.schema = Schema(_tree(cls, groups))

    @classmethod
    def parse(cls, table: Mapping[str, Any]) -> Self:
        """Read a message. Raises InvalidArgument with a sentence that names the member.

        Members that are null count as absent, numbers may come as strings.
        """
        return cls._read(checked(cls.schema, table, cls.name))

    @classmethod
    def _read(cls, table: Mapping[str, Any]) -> Self:
        values = {
            name: member.read(_place(member), value)
            for name, member, value in _members_in(cls, table)
        }
        return cls(**values)

    def as_table(self) -> dict[str, Any]:
        """Return the message as it is sent; `parse` reads the same message from it.

        A received message is passed on as it came instead: members that this release does not know
        count in its signature.
        """
        table: dict[str, Any] = {"type": self.name}
        for name, member in _said(type(self)):
            value = getattr(self, name)
            if value != member.default or member.always:
                into = table.setdefault(member.inside, {}) if member.inside else table
                into[member.wire] = member.write(value)
        return table

    def as_row(self) -> dict[str, Any]:
        """Return the message and what was noted beside it, for a file of ours."""
        return {**self.as_table(), **{name: getattr(self, name) for name in _noted(type(self))}}

    @classmethod
    def parse_row(cls, row: Mapping[str, Any]) -> Self:
        """Read what `as_row` has written; for a thousand rows the schema would take too long.

        Raises InvalidArgument where a value is not of its kind, or a needed one is missing.
        """
        try:
            kinds = {name: member.tree["type"] for name, member in cls.members.items()}
            notes = {name: row[name] for name in _noted(cls) if name in row}
            for name, value in [*((n, v) for n, _, v in _members_in(cls, row)), *notes.items()]:
                if not is_of_kind(value, kinds[name]):
                    raise InvalidArgument(f"{name} is of another kind")
            return cls._read(row).replaced(**notes)
        except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise InvalidArgument("the row is damaged") from error


def _said(kind: type[Message]) -> Iterator[tuple[str, Said]]:
    for name, member in kind.members.items():
        if isinstance(member, Said):
            yield name, member


def _noted(kind: type[Message]) -> list[str]:
    return [name for name, member in kind.members.items() if not isinstance(member, Said)]


def _members_in(kind: type[Message], table: Mapping[str, Any]) -> Iterator[tuple[str, Said, Any]]:
    for name, member in _said(kind):
        holder = table.get(member.inside, {}) if member.inside else table
        if member.wire in holder:
            yield name, member, holder[member.wire]


def _place(member: Said) -> str:
    return f"{member.inside}.{member.wire}" if member.inside else member.wire


def _tree(kind: type[Message], about_groups: Mapping[str, str]) -> s.Tree:
    """The JSON Schema of a message, which takes members that it does not know, too."""
    properties: dict[str, s.Tree] = {"type": s.text(f"always {kind.name}", enum=[kind.name])}
    optional: list[str] = []
    groups: dict[str, list[Said]] = {}
    for _, member in _said(kind):
        if member.inside:
            groups.setdefault(member.inside, []).append(member)
            properties.setdefault(member.inside, {})  # where the first of its members stands
        else:
            properties[member.wire] = member.tree
            optional += [member.wire] if member.has_default else []
    for name, members in groups.items():
        trees = {member.wire: member.tree for member in members}
        left_out = [member.wire for member in members if member.has_default]
        properties[name] = s.table(trees, about_groups[name], optional=left_out, more=True)
        optional += [name] if len(left_out) == len(members) else []
    about = (kind.__doc__ or "").partition("\n")[0]
    return s.table(properties, about, optional=optional, more=True)


def listed(kind: type[Message]) -> dict[str, Member]:
    """Return the members that replies show, as a reply's: needed, and with what stands for "not
    said".
    """
    found: dict[str, Member] = {}
    for name, member in _said(kind):
        if member.is_listed:
            tree = {key: value for key, value in member.tree.items() if not key.startswith("x-")}
            if "minimum" in tree and member.has_default:
                tree["minimum"] = min(tree["minimum"], member.default)
            found[name] = Member(tree, {}, name, member.column, False, REQUIRED)
    return found


def checked(schema: Schema, table: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a message's members, coerced and valid; raises InvalidArgument as validation.parse.

    A list that is too long is refused before its entries are looked at: 5,000 wrong ones would keep
    a router's processor busy for a second.
    """
    for member, tree in schema.properties.items():
        value = table.get(member)
        if isinstance(value, list) and len(value) > tree.get("maxItems", len(value)):
            raise InvalidArgument(f"{member} must {tree['x-must']}")
    if len(json.dumps(table)) > LONGEST:
        raise InvalidArgument(
            f"the message is longer than {LONGEST} bytes; send less", code="too_large"
        )
    return validation.parse_message(schema, table, name)


# --- shapes that messages share


def line(description: str, characters: str, longest: int) -> s.Tree:
    """Return the schema of a short text of these characters (a regular expression's class)."""
    return s.text(
        description,
        f"be at most {longest} plain ASCII characters",
        pattern=rf"^[{characters}]{{0,{longest}}}$(?!\n)",
    )


def few(description: str, item: Mapping[str, Any], most: int, least: int = 0) -> s.Tree:
    """Return the schema of a short list. Its sentence tells the bounds, never what is in it."""
    bounds = f"at most {most} entries" if not least else f"from {least} to {most} entries"
    words = {"minItems": least, "x-must": f"have {bounds}", "x-secret": True}
    return {**s.rows(description, item, most), **words}


IDENTITY_KEY = s.text(
    "the sender's Ed25519 key that it signs with",
    "be an Ed25519 key: 44 characters of base64",
    pattern=s.PUBLIC_KEY["pattern"],
) | {"x-secret": True}
SIGNATURE = s.text(
    "Ed25519 signature of all other members",
    "be an Ed25519 signature: 88 characters of base64",
    pattern=r"^[A-Za-z0-9+/]{85}[AQgw]==$(?!\n)",
) | {"x-secret": True}
WEEK_S = 7 * 86400
