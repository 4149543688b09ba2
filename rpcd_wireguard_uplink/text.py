"""How foreign text appears in a sentence or on a terminal: on one line, nothing unprintable.

Whether the text may be shown at all (keys may not) is decided by whoever quotes it.
"""

from __future__ import annotations

from typing import Any

QUOTED_CHARACTERS = 40


def printable(text: str) -> str:
    """Return the text with every character that is not printable written as an escape.

    Control characters, terminal sequences, line breaks, direction marks and lone surrogates all
    count as not printable (str.isprintable), so the result is one line and can be encoded.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def quoted(value: Any) -> str:
    """Return a value as a sentence may show it: strings in quotes, at most 40 characters of it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{shortened(value)}"'
    if isinstance(value, float | int):
        return shortened(repr(value) if isinstance(value, float) else _digits(value))
    return "a table" if isinstance(value, dict) else "a list"


def shortened(text: str) -> str:
    """Return at most 40 characters of the text, printable, with "..." where some were cut off."""
    if len(text) <= QUOTED_CHARACTERS:
        return printable(text)
    return printable(text[:QUOTED_CHARACTERS]) + "..."


def _digits(value: int) -> str:
    # str() of an integer with thousands of digits raises ValueError, and such a one can come from
    # a float: nobody reads its digits.
    return str(value) if value.bit_length() <= 128 else "a number with too many digits"
