"""Edits of a configuration that leave the rest of its text alone, comments included.

What an edit writes has libuci's format. One that changes nothing leaves the very same document.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from ..errors import ConfigError, NotFound
from ..text import printable
from .document import (
    Document,
    Line,
    Section,
    Statement,
    Value,
    anonymous_name,
    canonical,
    option_lines,
    storable,
    terminated,
)
from .grammar import is_name, is_type


class Draft:
    """A document that its edits replace.

    Edits raise ConfigError for what UCI can't hold and NotFound where the section isn't there;
    `name` may be an anonymous section's, and such names stay what they were until the text is
    parsed again. `signature` is the file's once the edit has ended.
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
        """The section of that name, or None."""
        return self.document.get(name)

    def of_type(self, section_type: str) -> list[Section]:
        return self.document.of_type(section_type)

    def set_section(
        self, name: str, section_type: str, options: Mapping[str, Value], *, before: str = ""
    ) -> None:
        """Make the named section hold exactly these options.

        A new one goes to the end, or before the section named `before`.
        """
        checked = self._checked_section(name, section_type, options)
        found = self.get(name)
        if found is None:
            if not is_name(name):
                raise self._bad("a section's name may only hold letters, digits and _")
            self._append(section_type, name, checked, before)
            return
        if found.type != section_type:
            self._retype(name, section_type)
        for gone in found.options.keys() - checked.keys():
            self.set_option(name, gone, None)
        for option, value in checked.items():
            self.set_option(name, option, value)

    def add_anonymous(self, section_type: str, options: Mapping[str, Value]) -> str:
        """Add an anonymous section at the end; the name that it goes by until the text is parsed
        again.
        """
        self._append(section_type, "", self._checked_section("", section_type, options))
        return self.sections[-1].name

    def remove_section(self, name: str) -> None:
        """Remove the section wherever its lines are, each with the blank line before its header."""
        number = self._number(name)
        kept: list[Line] = []
        for line in self._separated(number):
            if not line.concerns(number):
                kept.append(line)
            elif line.opens(number) and kept and kept[-1].blank:
                kept.pop()
        self._write(kept)

    def set_option(self, name: str, option: str, value: Value | None) -> None:
        """Set an option to a string or, with a tuple, a list; None and () remove it."""
        number, found = self._required(name)
        checked = None if value is None else self._checked(name, option, value)
        if found.options.get(option) != (checked or None):
            self._replace(number, option, option_lines(number, option, checked or ()))

    def add_list(self, name: str, option: str, value: str) -> None:
        """Append to a list; a plain option becomes the first item of a new one, as in libuci."""
        number, section = self._required(name)
        item = storable(value, self._where(name, option))
        found = section.options.get(option, ())
        items = (found,) if isinstance(found, str) else found
        lines = self._separated(number)
        at = [index for index, line in enumerate(lines) if line.sets(number, option)]
        if not at or any(lines[index].statements[0].keyword != "list" for index in at):
            self.set_option(name, option, (*items, item))
            return
        lines[at[-1] + 1 : at[-1] + 1] = option_lines(number, option, (item,))
        self._write(lines)

    def del_list(self, name: str, option: str, value: str) -> None:
        """Remove every item of that value from a list; like libuci, leave a plain option alone."""
        number, section = self._required(name)
        found = section.options.get(option, ())
        if isinstance(found, str) or value not in found:
            return
        lines = self._separated(number)
        mine = [line.statements[0] for line in lines if line.sets(number, option)]
        if any(statement.keyword != "list" for statement in mine):
            self.set_option(name, option, tuple(item for item in found if item != value))
            return
        gone = Statement("list", number, option, value)
        self._write(line for line in lines if gone not in line.statements)

    # --- checks

    def _bad(self, what: str) -> ConfigError:
        return ConfigError(f"{self.document.file}: {what}")

    def _checked_section(
        self, name: str, section_type: str, options: Mapping[str, Value]
    ) -> dict[str, Value]:
        """The options without empty lists; ConfigError for what UCI can't hold."""
        if not is_type(section_type):
            raise self._bad(
                f"section '{printable(name)}': a type may only hold printable ASCII characters "
                "other than a space"
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
        section = f"section '{printable(name)}'"
        if not is_name(option):
            raise self._bad(f"{section}: an option's name may only hold letters, digits and _")
        return f"{self.document.file}: {section}, option '{option}'"

    def _number(self, name: str) -> int:
        number = self.document.number_of(name)
        if number is None:
            what = f"there is no section '{printable(name)}'"
            raise NotFound(f"{self.document.file}: {what}")
        return number

    def _required(self, name: str) -> tuple[int, Section]:
        number = self._number(name)
        section = self.get(name)
        assert section is not None
        return number, section

    # --- lines

    def _append(
        self, section_type: str, name: str, options: Mapping[str, Value], before: str = ""
    ) -> None:
        number = len(self.document.names) + 1
        names = (*self.document.names, name or anonymous_name(section_type, number))
        lines = list(self.document.lines)
        # libuci ends a file with an empty line: the new section goes before it.
        at = len(lines) - 1 if lines and lines[-1].blank else len(lines)
        if before:
            next_number = self._number(before)
            lines = self._separated(next_number)
            at = next(i for i, line in enumerate(lines) if line.opens(next_number))
        added = [Line("\n")] if at and not before else []
        added.append(canonical(Statement("config", number, name, section_type)))
        for option, value in options.items():
            added.extend(option_lines(number, option, value))
        added += [Line("\n")] if before else []
        lines[at:at] = added
        self._write(lines, names)

    def _retype(self, name: str, section_type: str) -> None:
        number = self._number(name)
        self._write(
            canonical(replace(line.statements[0], value=section_type))
            if line.opens(number)
            else line
            for line in self._separated(number)
        )

    def _replace(self, number: int, option: str, new: Sequence[Line]) -> None:
        """Put the lines where the option is first set, or else at the end of its section."""
        kept: list[Line] = []
        at = end = None
        for line in self._separated(number):
            if line.sets(number, option):
                at = len(kept) if at is None else at
                continue
            kept.append(line)
            if line.concerns(number):
                end = len(kept)
        at = end if at is None else at
        kept[at:at] = new
        self._write(kept)

    def _separated(self, number: int) -> list[Line]:
        """The lines, with those of a section that hold several commands taken apart."""
        lines: list[Line] = []
        for line in self.document.lines:
            if len(line.statements) > 1 and line.concerns(number):
                lines.extend(canonical(statement) for statement in line.statements)
            else:
                lines.append(line)
        return lines

    def _write(self, lines: Iterable[Line], names: Sequence[str] | None = None) -> None:
        listed = list(lines)
        listed[:-1] = [terminated(line) for line in listed[:-1]]
        names = self.document.names if names is None else names
        self.document = Document(self.document.file, listed, names)
