"""A configuration as a value: its lines, and what their commands mean one after the other.

The rules for repeated options, for lists and for the names of anonymous sections are libuci's
(file.c, uci_parse_config; list.c).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from ..errors import ConfigError
from .grammar import Keyword, escape, mistake, quote, read_lines

_PLAIN_TYPE = re.compile(r"[^'\"#;\\]+")

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
    """As libuci writes it, save for a type that would not read back bare: that one is quoted."""
    name, value = statement.name, statement.value
    if statement.keyword == "config":
        shown = value if _PLAIN_TYPE.fullmatch(value) else quote(value)
        text = f"config {shown} {quote(name)}\n" if name else f"config {shown}\n"
    elif statement.keyword == "package":
        text = f"package {name}\n"
    else:
        text = f"\t{statement.keyword} {name} {quote(value)}\n"
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


class Document:
    """A configuration, immutable; a Draft edits it."""

    __slots__ = ("_content", "_lines", "_sections", "file", "names")

    def __init__(self, file: str, lines: Iterable[Line] = (), names: Sequence[str] = ()) -> None:
        """For this package only: `parse` makes documents. `names` are the sections' by number."""
        self.file = file
        self._content: bytes | None = None
        self._lines = tuple(lines)
        self.names = tuple(names)
        self._sections = interpret(self._lines, self.names)

    def without_lines(self, content: bytes) -> Document:
        """Itself, to be kept: an edit parses the content again. Lines take most of the memory."""
        self._content, self._lines = content, ()
        return self

    @property
    def lines(self) -> tuple[Line, ...]:
        if self._content is None:
            return self._lines
        return parse(self._content, file=self.file).lines

    @property
    def sections(self) -> tuple[Section, ...]:
        return tuple(self._sections.values())

    def number_of(self, name: str) -> int | None:
        """The number that libuci counts the section of that name by, None where there is none."""
        return next((n for n, section in self._sections.items() if section.name == name), None)

    def get(self, name: str) -> Section | None:
        """The section of that name, or None; an anonymous one has a name too."""
        return next((section for section in self.sections if section.name == name), None)

    def of_type(self, section_type: str) -> list[Section]:
        return [section for section in self.sections if section.type == section_type]

    def render(self) -> str:
        """The text; what no edit touched is as it was parsed."""
        return "".join(line.text for line in self.lines)

    def encode(self) -> bytes:
        """`render()` as the bytes of a file; bytes that were not UTF-8 come out again."""
        return self.render().encode("utf-8", "surrogateescape")

    def equivalent(self, other: Document) -> bool:
        """Whether both hold the same sections and options in the same order."""
        return [_content(section) for section in self.sections] == [
            _content(section) for section in other.sections
        ]


def parse(text: str | bytes, *, file: str) -> Document:
    """Return what a configuration file says; `file` is what errors call it.

    Raises ConfigError, naming file, line and column, where libuci refuses the file.
    """
    lines: list[Line] = []
    names: list[str] = []
    types: list[str] = []
    numbers: dict[str, int] = {}
    current = 0
    decoded = _decoded(text, file)
    for text_of_line, commands, unfinished in read_lines(decoded, file=file):
        statements: list[Statement] = []
        for command in commands:
            name, value = command.first, command.second
            if command.keyword == "config":
                name, value = value, name
                current = numbers.get(name, 0) if name else 0
                if not current:
                    current = len(names) + 1
                    names.append(name or anonymous_name(value, current))
                    types.append(value)
                    numbers.setdefault(names[-1], current)
                elif types[current - 1] != value:
                    what = f"section '{name}' already exists with another type"
                    raise mistake(decoded, command.offset, what, file=file)
            elif command.keyword != "package" and not current:
                what = f"{command.keyword} before the first config"
                raise mistake(decoded, command.offset, what, file=file)
            number = 0 if command.keyword == "package" else current
            statements.append(Statement(command.keyword, number, name, value))
        lines.append(Line(text_of_line, tuple(statements), unfinished))
    return Document(file, lines, names)


def export(document: Document, package: str) -> str:
    """Return what `uci export PACKAGE` prints (file.c, uci_export_package)."""
    parts = [f"package {package}\n"]
    for section in document.sections:
        name = "" if section.anonymous else f" {quote(section.name)}"
        # libuci does not put the type in quotes, even where it then can't be read back.
        parts.append(f"\nconfig {escape(section.type)}{name}\n")
        for option, value in section.options.items():
            parts.extend(line.text for line in option_lines(0, option, value))
    return "".join(parts) + "\n"


def _content(section: Section) -> tuple[str, str | None, list[tuple[str, Value]]]:
    name = None if section.anonymous else section.name
    return section.type, name, list(section.options.items())


def _decoded(text: str | bytes, file: str) -> str:
    """Return the text as the bytes of a file give it, so that it is the same after a round trip."""
    try:
        encoded = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise mistake(
            str(text), error.start, "a character without an encoding", file=file
        ) from None
    return encoded.decode("utf-8", "surrogateescape")
