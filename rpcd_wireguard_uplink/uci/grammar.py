"""The letters of UCI: text to commands, values to text, exactly as libuci does both.

Quoting, comments, joined lines, `;` and the abbreviations are those of libuci's file.c, the
characters that names may hold those of util.c. libuci decodes in place, in a buffer that holds one
line and grows when a quote or a backslash passes the line's end. A few of its habits follow from
that buffer alone. They are kept, because a file must mean the same to every program on the router:
an unquoted word that touches `;` swallows the rest of its line, and a `;` at the very end of a line
is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from ..errors import ConfigError
from ..values import dataclass

Keyword = Literal["package", "config", "option", "list"]

_KEYWORDS: dict[str, Keyword] = {
    "p": "package",
    "package": "package",
    "c": "config",
    "config": "config",
    "o": "option",
    "option": "option",
    "l": "list",
    "list": "list",
}
# isspace() of the C locale: str.isspace() would take Unicode's spaces too.
_SPACES = frozenset(" \t\n\v\f\r")
_SPACE_RUN = re.compile(r"[ \t\n\v\f\r]*")
_PLAIN_RUN = re.compile(r"[^'\"#;\\ \t\n\v\f\r]+")
_DOUBLE_RUN = re.compile(r'[^"\\]+')
_NAME = re.compile(r"[A-Za-z0-9_]+")
_PACKAGE = re.compile(r"[A-Za-z0-9_-]+")
_TYPE = re.compile(r"[!-~]+")
_ALLOWED = {
    _NAME: "letters, digits and _",
    _PACKAGE: "letters, digits, _ and -",
    _TYPE: "printable ASCII characters other than a space",
}


@dataclass(frozen=True, slots=True)
class Command:
    """One command: its keyword in full and its arguments, decoded; `offset` is where it starts.

    package: name, "". config: type, section name or "". option and list: name, value.
    """

    keyword: Keyword
    first: str
    second: str
    offset: int


def is_name(text: str) -> bool:
    """Whether libuci takes the text as the name of a section or an option (util.c)."""
    return _NAME.fullmatch(text) is not None


def is_package(text: str) -> bool:
    """Whether libuci takes the text as the name of a configuration in a `package` line (util.c)."""
    return _PACKAGE.fullmatch(text) is not None


def is_type(text: str) -> bool:
    """Whether libuci takes the text as the type of a section (util.c)."""
    return _TYPE.fullmatch(text) is not None


def quote(value: str) -> str:
    """Return the value in single quotes, as libuci writes it (file.c, uci_escape)."""
    return "'" + escape(value) + "'"


def escape(value: str) -> str:
    """Return the value with its single quotes made fit for single quotes around it."""
    return value.replace("'", "'\\''")


def mistake(text: str, offset: int, what: str, *, file: str) -> ConfigError:
    """Return the error for a mistake at an offset of the text; lines and columns count from 1."""
    line = text.count("\n", 0, offset) + 1
    column = offset - (text.rfind("\n", 0, offset) + 1) + 1
    return ConfigError(f"{file}, line {line}, column {column}: {what}")


def read_lines(text: str, *, file: str) -> Iterator[tuple[str, tuple[Command, ...], bool]]:
    """Yield the lines of a file in order, those that are joined as one: the text, the commands in
    it, and whether it asks for a continuation that the file doesn't have.

    Raises ConfigError, naming file, line and column, where libuci refuses the file in its strict
    mode, which is the default of the `uci` program and of all users of the library. A NUL is
    refused too: libuci would lose text around it without a word.
    """
    nul = text.find("\0")
    if nul >= 0:
        raise mistake(text, nul, "a NUL character, which UCI can't hold; remove it", file=file)
    scanner = _Scanner(text, file)
    while scanner.next_start < len(text):
        start = scanner.begin_line()
        commands = tuple(scanner.commands())
        yield text[start : scanner.next_start], commands, scanner.unfinished


class _Scanner:
    """A place in the text. `limit` is where libuci's buffer would have its terminating NUL."""

    __slots__ = ("file", "limit", "next_start", "pos", "text", "unfinished")

    def __init__(self, text: str, file: str) -> None:
        self.text = text
        self.file = file
        self.pos = self.limit = self.next_start = 0
        self.unfinished = False

    def begin_line(self) -> int:
        """Move to the next line and return where it starts."""
        self.pos = start = self.next_start
        self.unfinished = False
        self._extend()
        return start

    def commands(self) -> Iterator[Command]:
        """Yield the commands of the line (uci_parse_line)."""
        self._skip_spaces()
        while True:
            while self._char() in (" ", "\t"):
                self.pos += 1
            if self._char() in ("", "#"):
                return
            yield self._command()

    def _command(self) -> Command:
        start = self.pos
        while self._char() not in ("", " ", "\t"):
            self.pos += 1
        word = self.text[start : self.pos].rstrip("\n")
        keyword = _KEYWORDS.get(word)
        if keyword is None:
            raise self._mistake(start, "this is none of package, config, option and list")
        if self.pos == self.limit or len(word) < self.pos - start:
            raise self._mistake(start, f"{keyword} needs something behind it")
        self.pos += 1
        if keyword == "package":
            first = self._argument("package name", _PACKAGE, required=True)
            second = ""
        elif keyword == "config":
            first = self._argument("section type", _TYPE, required=True)
            second = self._argument("section name", _NAME, required=False)
        else:
            first = self._argument("option name", _NAME, required=True)
            second = self._word()
        self._skip_spaces()
        end = self.pos
        if self._word():
            raise self._mistake(end, f"too many arguments for {keyword}; quote values with spaces")
        return Command(keyword, first, second, start)

    def _argument(self, what: str, shape: re.Pattern[str], *, required: bool) -> str:
        """Return the next word if it has the shape, "" if there is none (next_arg)."""
        before = self.pos
        self._skip_spaces()
        start = self.pos
        word = self._word()
        if not word and required:
            raise self._mistake(before, f"the {what} is missing")
        if word and not shape.fullmatch(word):
            raise self._mistake(start, f"the {what} may only hold {_ALLOWED[shape]}")
        return word

    def _word(self) -> str:
        """Return the next word, decoded; "" at the end of the command (next_arg, parse_str)."""
        self._skip_spaces()
        if self._char() == ";":
            self.pos += 1
            return ""
        start = self.pos
        parts: list[str] = []
        while True:
            char = self._char()
            if char == "'":
                parts.append(self._single_quoted())
            elif char == '"':
                parts.append(self._double_quoted())
            elif char == "\\":
                self.pos += 1
                if not self._join():
                    parts.append(self.text[self.pos])
                    self.pos += 1
            elif char == "#":
                self.limit = self.pos
            elif char == ";":
                # The NUL that ends the word lands on the `;` itself where nothing was decoded
                # away before it; libuci then takes it for the end of the line.
                if sum(map(len, parts)) == self.pos - start:
                    self.limit = self.pos
                break
            elif char:
                run = _PLAIN_RUN.match(self.text, self.pos, self.limit)
                assert run is not None
                parts.append(run[0])
                self.pos = run.end()
            char = self._char()
            if not char:
                break
            if char in _SPACES:
                self.pos += 1
                break
        return "".join(parts)

    def _single_quoted(self) -> str:
        start = self.pos
        close = self.text.find("'", start + 1)
        if close < 0:
            raise self._mistake(start, "a single quote that is never closed")
        self._leave_quotes(close)
        return self.text[start + 1 : close]

    def _double_quoted(self) -> str:
        start = at = self.pos
        parts: list[str] = []
        while True:
            run = _DOUBLE_RUN.match(self.text, at + 1)
            if run is not None:
                parts.append(run[0])
                at = run.end() - 1
            at += 1
            if at >= len(self.text):
                raise self._mistake(start, "a double quote that is never closed")
            if self.text[at] == '"':
                self._leave_quotes(at)
                return "".join(parts)
            at += 1
            if self.text.startswith("\r\n", at):
                at += 1
            elif not self.text.startswith("\n", at):
                parts.append(self.text[at : at + 1])

    def _leave_quotes(self, close: int) -> None:
        self.pos = close + 1
        if self.pos > self.limit:
            self._extend()

    def _join(self) -> bool:
        """Move on to the next line if the backslash before `pos` ends this one."""
        if self.pos < self.limit and not (
            self.text[self.pos] == "\n" or self.text.startswith("\r\n", self.pos)
        ):
            return False
        self.pos = self.next_start
        self.unfinished = self.pos == len(self.text)
        self._extend()
        return True

    def _extend(self) -> None:
        newline = self.text.find("\n", self.pos)
        self.limit = self.next_start = len(self.text) if newline < 0 else newline + 1

    def _char(self) -> str:
        return self.text[self.pos] if self.pos < self.limit else ""

    def _skip_spaces(self) -> None:
        spaces = _SPACE_RUN.match(self.text, self.pos, self.limit)
        assert spaces is not None
        self.pos = spaces.end()

    def _mistake(self, offset: int, what: str) -> ConfigError:
        return mistake(self.text, offset, what, file=self.file)
