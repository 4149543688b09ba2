"""A configuration as a value: what its text means (file.c, uci_parse_config)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .grammar import escape, mistake, quote, read_lines
from .statements import Line, Section, Statement, Value, anonymous_name, interpret, option_lines


class Document:
    """A configuration, immutable; a Draft edits it."""

    __slots__ = ("_sections", "file", "lines", "names")

    def __init__(self, file: str, lines: Iterable[Line] = (), names: Sequence[str] = ()) -> None:
        """For this package only: `parse` makes documents. `names` are the sections' by number."""
        self.file = file
        self.lines = tuple(lines)
        self.names = tuple(names)
        self._sections = interpret(self.lines, self.names)

    @property
    def sections(self) -> tuple[Section, ...]:
        """The sections in their order."""
        return tuple(self._sections.values())

    def number_of(self, name: str) -> int | None:
        """The number that libuci counts the section of that name by, None where there is none."""
        return next((n for n, section in self._sections.items() if section.name == name), None)

    def get(self, name: str) -> Section | None:
        """The section of that name, or None; an anonymous one has a name too."""
        return next((section for section in self.sections if section.name == name), None)

    def of_type(self, section_type: str) -> list[Section]:
        """The sections of that type in their order."""
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
    for line in read_lines(decoded, file=file):
        statements: list[Statement] = []
        for command in line.commands:
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
        lines.append(Line(line.text, tuple(statements), line.unfinished))
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
