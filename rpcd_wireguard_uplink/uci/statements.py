"""The lines of a configuration and what their commands do, one after the other.

The rules for repeated options, for lists and for the names of anonymous sections are libuci's
(list.c).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from ..errors import ConfigError
from .grammar import Keyword, format_header, format_value

Value = str | tuple[str, ...]


@dataclass(frozen=True)
class Section:
    """A section; a list is a tuple. An anonymous one has the name that libuci would give it."""

    type: str
    name: str
    anonymous: bool
    options: Mapping[str, Value]

    def text(self, option: str, default: str = "") -> str:
        """An option's text; a list's items with blanks between them."""
        value = self.options.get(option, default)
        return value if isinstance(value, str) else " ".join(value)


@dataclass(frozen=True, slots=True)
class Statement:
    """A command that belongs to the section with this number, counted as libuci does from 1.

    config: name as written, type. option and list: name, value.
    """

    keyword: Keyword
    section: int
    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Line:
    """A line's text, its commands, and whether it asks for a continuation that isn't there."""

    text: str
    statements: tuple[Statement, ...] = ()
    unfinished: bool = False

    @property
    def blank(self) -> bool:
        return not self.text.strip()

    def opens(self, number: int) -> bool:
        """Whether the header of that section is here."""
        return any(one.section == number and one.keyword == "config" for one in self.statements)

    def concerns(self, number: int) -> bool:
        """Whether anything of that section is here."""
        return any(one.section == number for one in self.statements)

    def sets(self, number: int, option: str) -> bool:
        """Whether that option of that section is set or added to here."""
        return any(
            one.section == number and one.name == option and one.keyword in ("option", "list")
            for one in self.statements
        )


def interpret(lines: Iterable[Line], names: Sequence[str]) -> dict[int, Section]:
    """Return the sections by number (uci_set and uci_add_list, list.c)."""
    headers: dict[int, tuple[str, bool]] = {}
    options: dict[int, dict[str, str | list[str]]] = {}
    for line in lines:
        for found in line.statements:
            if found.keyword == "config" and found.section not in headers:
                headers[found.section] = (found.value, not found.name)
                options[found.section] = {}
            elif found.keyword == "option" and found.value:
                options[found.section][found.name] = found.value
            elif found.keyword == "list":
                old = options[found.section].setdefault(found.name, [])
                if isinstance(old, str):
                    old = options[found.section][found.name] = [old]
                old.append(found.value)
    return {
        number: Section(section_type, names[number - 1], anonymous, _frozen(options[number]))
        for number, (section_type, anonymous) in headers.items()
    }


def _frozen(options: Mapping[str, str | list[str]]) -> Mapping[str, Value]:
    return MappingProxyType(
        {name: value if isinstance(value, str) else tuple(value) for name, value in options.items()}
    )


def anonymous_name(section_type: str, number: int) -> str:
    """Return libuci's name for the section that is created as number `number`, counted from 1.

    list.c, uci_fixup_section: it hashes the type alone, since the section has no options yet.
    """
    hashed = 5381
    for char in section_type:
        hashed = (hashed * 33 + ord(char)) & 0xFFFF
    return f"cfg{number:02x}{hashed:04x}"


def storable(value: str, where: str) -> str:
    """Return a value as it will be read back; raise ConfigError if UCI can't hold it.

    A file could hold control characters other than NUL, but the `uci` program refuses to set them
    (util.c, uci_validate_text) and they only do harm on a terminal.
    """
    if any(char < " " and char not in "\t\n\r" for char in value):
        raise ConfigError(
            f"{where}: the value holds a control character, which UCI can't; remove it"
        )
    try:
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise ConfigError(f"{where}: the value holds a character without an encoding") from None


def canonical(statement: Statement) -> Line:
    if statement.keyword == "config":
        text = format_header(statement.value, statement.name)
    elif statement.keyword == "package":
        text = f"package {statement.name}\n"
    else:
        text = format_value(statement.keyword, statement.name, statement.value)
    return Line(text, (statement,))


def option_lines(number: int, option: str, value: Value) -> list[Line]:
    if isinstance(value, str):
        return [canonical(Statement("option", number, option, value))]
    return [canonical(Statement("list", number, option, item)) for item in value]


def terminated(line: Line) -> Line:
    """Return a line that another can follow: ended, and not asking for a continuation."""
    if line.text.endswith("\n") and not line.unfinished:
        return line
    text = line.text
    if not text.endswith("\n"):
        # A bare line break after a `;` would be a command to libuci, and an unknown one.
        text += "#\n" if text.rstrip(" \t").endswith(";") else "\n"
    return Line(text + "\n" if line.unfinished else text, line.statements)
