"""A configuration as a value: what its text means, and edits that leave the rest of the text alone.

Owns which section a command belongs to (file.c, uci_parse_config), the checks of what is written,
and where in the text an edit lands. Knows no files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from ..errors import ConfigError, NotFound
from ..text import printable
from .grammar import escape, is_name, is_type, mistake, quote, read_lines
from .statements import (
    Line,
    Section,
    Statement,
    Value,
    anonymous_name,
    canonical,
    interpret,
    option_lines,
    storable,
    terminated,
)


class Document:
    """A configuration, immutable: every edit returns a new Document.

    An edit keeps every other line as it is, comments included, and writes its own in libuci's
    format. One that changes nothing returns the same Document. Edits raise ConfigError for what
    UCI can't hold and NotFound where the section isn't there; `name` may be an anonymous section's,
    and such names stay what they were until the text is parsed again.
    """

    __slots__ = ("_lines", "_names", "_sections", "file")

    def __init__(self, file: str, lines: Iterable[Line] = (), names: Sequence[str] = ()) -> None:
        """For this module only: `parse` makes documents. `names` are the sections' by number."""
        self.file = file
        self._lines = tuple(lines)
        self._names = tuple(names)
        self._sections = interpret(self._lines, self._names)

    @property
    def sections(self) -> tuple[Section, ...]:
        """The sections in their order."""
        return tuple(self._sections.values())

    def get(self, name: str) -> Section | None:
        """Return the section of that name, or None."""
        number = self._number(name)
        return None if number is None else self._sections[number]

    def of_type(self, section_type: str) -> list[Section]:
        """Return the sections of that type in their order."""
        return [section for section in self._sections.values() if section.type == section_type]

    def render(self) -> str:
        """Return the text; what no edit touched is as it was parsed."""
        return "".join(line.text for line in self._lines)

    def encode(self) -> bytes:
        """Return `render()` as the bytes of a file; bytes that were not UTF-8 come out again."""
        return self.render().encode("utf-8", "surrogateescape")

    def equivalent(self, other: Document) -> bool:
        """Whether both hold the same sections and options in the same order."""
        return [_content(section) for section in self.sections] == [
            _content(section) for section in other.sections
        ]

    def set_section(
        self, name: str, section_type: str, options: Mapping[str, Value], *, before: str = ""
    ) -> Document:
        """Make the named section hold exactly these options.

        A new one goes to the end, or before the section named `before`.
        """
        checked = self._checked_section(name, section_type, options)
        found = self.get(name)
        if found is None:
            if not is_name(name):
                raise ConfigError(
                    f"{self.file}: a section's name may only hold letters, digits and _"
                )
            return self._append(section_type, name, checked, before)
        result = self if found.type == section_type else self._retyped(name, section_type)
        for gone in found.options.keys() - checked.keys():
            result = result.set_option(name, gone, None)
        for option, value in checked.items():
            result = result.set_option(name, option, value)
        return result

    def add_anonymous(self, section_type: str, options: Mapping[str, Value]) -> Document:
        """Add an anonymous section at the end; it is the last one of `sections`."""
        return self._append(section_type, "", self._checked_section("", section_type, options))

    def remove_section(self, name: str) -> Document:
        """Remove the section wherever its lines are, each with the blank line before its header."""
        number = self._required(name)
        kept: list[Line] = []
        for line in self._separated(number):
            if not line.concerns(number):
                kept.append(line)
            elif line.opens(number) and kept and kept[-1].blank:
                kept.pop()
        return self._with(kept)

    def set_option(self, name: str, option: str, value: Value | None) -> Document:
        """Set an option to a string or, with a tuple, a list; None and () remove it."""
        number = self._required(name)
        checked = None if value is None else self._checked(name, option, value)
        if self._sections[number].options.get(option) == (checked or None):
            return self
        return self._replace(number, option, option_lines(number, option, checked or ()))

    def add_list(self, name: str, option: str, value: str) -> Document:
        """Append to a list; a plain option becomes the first item of a new one, as in libuci."""
        number = self._required(name)
        item = storable(value, self._where(name, option))
        found = self._sections[number].options.get(option, ())
        items = (found,) if isinstance(found, str) else found
        lines = self._separated(number)
        at = [index for index, line in enumerate(lines) if line.sets(number, option)]
        if not at or any(lines[index].statements[0].keyword != "list" for index in at):
            return self.set_option(name, option, (*items, item))
        lines[at[-1] + 1 : at[-1] + 1] = option_lines(number, option, (item,))
        return self._with(lines)

    def del_list(self, name: str, option: str, value: str) -> Document:
        """Remove every item of that value from a list; like libuci, leave a plain option alone."""
        number = self._required(name)
        found = self._sections[number].options.get(option, ())
        if isinstance(found, str) or value not in found:
            return self
        lines = self._separated(number)
        mine = [line.statements[0] for line in lines if line.sets(number, option)]
        if any(statement.keyword != "list" for statement in mine):
            return self.set_option(name, option, tuple(item for item in found if item != value))
        gone = Statement("list", number, option, value)
        return self._with(line for line in lines if gone not in line.statements)

    def _checked_section(
        self, name: str, section_type: str, options: Mapping[str, Value]
    ) -> dict[str, Value]:
        """Return the options without empty lists; raise ConfigError for what UCI can't hold."""
        if not is_type(section_type):
            raise ConfigError(
                f"{self.file}: section '{printable(name)}': a type may only hold printable ASCII "
                "characters other than a space"
            )
        checked = {option: self._checked(name, option, value) for option, value in options.items()}
        return {option: value for option, value in checked.items() if value}

    def _checked(self, name: str, option: str, value: Value) -> Value:
        where = self._where(name, option)
        if isinstance(value, tuple):
            return tuple(storable(item, where) for item in value)
        if not value:
            raise ConfigError(f"{where}: UCI has no empty options; leave it out or remove it")
        return storable(value, where)

    def _where(self, name: str, option: str) -> str:
        section = f"{self.file}: section '{printable(name)}'"
        if not is_name(option):
            raise ConfigError(f"{section}: an option's name may only hold letters, digits and _")
        return f"{section}, option '{option}'"

    def _append(
        self, section_type: str, name: str, options: Mapping[str, Value], before: str = ""
    ) -> Document:
        number = len(self._names) + 1
        names = (*self._names, name or anonymous_name(section_type, number))
        lines = list(self._lines)
        # libuci ends a file with an empty line: the new section goes before it.
        at = len(lines) - 1 if lines and lines[-1].blank else len(lines)
        if before:
            next_number = self._required(before)
            lines = self._separated(next_number)
            at = next(i for i, line in enumerate(lines) if line.opens(next_number))
        added = [Line("\n")] if at and not before else []
        added.append(canonical(Statement("config", number, name, section_type)))
        for option, value in options.items():
            added.extend(option_lines(number, option, value))
        added += [Line("\n")] if before else []
        lines[at:at] = added
        return self._with(lines, names)

    def _retyped(self, name: str, section_type: str) -> Document:
        number = self._required(name)
        return self._with(
            canonical(replace(line.statements[0], value=section_type))
            if line.opens(number)
            else line
            for line in self._separated(number)
        )

    def _replace(self, number: int, option: str, new: Sequence[Line]) -> Document:
        """Put the lines where the option is first set, or else at the end of its section."""
        lines = self._separated(number)
        kept: list[Line] = []
        at = end = None
        for line in lines:
            if line.sets(number, option):
                at = len(kept) if at is None else at
                continue
            kept.append(line)
            if line.concerns(number):
                end = len(kept)
        at = end if at is None else at
        kept[at:at] = new
        return self._with(kept)

    def _separated(self, number: int) -> list[Line]:
        """Return the lines, with those of a section that hold several commands taken apart."""
        lines: list[Line] = []
        for line in self._lines:
            if len(line.statements) > 1 and line.concerns(number):
                lines.extend(canonical(statement) for statement in line.statements)
            else:
                lines.append(line)
        return lines

    def _with(self, lines: Iterable[Line], names: Sequence[str] | None = None) -> Document:
        listed = list(lines)
        listed[:-1] = [terminated(line) for line in listed[:-1]]
        return Document(self.file, listed, self._names if names is None else names)

    def _number(self, name: str) -> int | None:
        for number, section in self._sections.items():
            if section.name == name:
                return number
        return None

    def _required(self, name: str) -> int:
        number = self._number(name)
        if number is None:
            raise NotFound(f"{self.file}: there is no section '{printable(name)}'")
        return number


class Draft:
    """A Document that its edits replace; they are those of Document, which says what they do.

    `signature` is the file's once the edit has ended.
    """

    __slots__ = ("document", "signature")

    def __init__(self, document: Document) -> None:
        self.document = document
        self.signature: object = None

    def settle(self, signature: object) -> None:
        """The edit has ended; the file's signature is this now."""
        self.signature = signature

    @property
    def sections(self) -> tuple[Section, ...]:
        return self.document.sections

    def get(self, name: str) -> Section | None:
        return self.document.get(name)

    def of_type(self, section_type: str) -> list[Section]:
        return self.document.of_type(section_type)

    def set_section(
        self, name: str, section_type: str, options: Mapping[str, Value], *, before: str = ""
    ) -> None:
        self.document = self.document.set_section(name, section_type, options, before=before)

    def add_anonymous(self, section_type: str, options: Mapping[str, Value]) -> str:
        """Return the name that the new section goes by until the text is parsed again."""
        self.document = self.document.add_anonymous(section_type, options)
        return self.document.sections[-1].name

    def remove_section(self, name: str) -> None:
        self.document = self.document.remove_section(name)

    def set_option(self, name: str, option: str, value: Value | None) -> None:
        self.document = self.document.set_option(name, option, value)

    def add_list(self, name: str, option: str, value: str) -> None:
        self.document = self.document.add_list(name, option, value)

    def del_list(self, name: str, option: str, value: str) -> None:
        self.document = self.document.del_list(name, option, value)


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
