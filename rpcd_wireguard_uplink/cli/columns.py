"""Plain text in columns: tables, colours of states, numbers with their units.

Owns the layout of what `wgctl` prints; knows no reply.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ..text import printable

_COLOURS = {
    "up": "32",
    "usable": "32",
    "primary": "32",
    "suspect": "33",
    "holding": "33",
    "connecting": "33",
    "failed_over": "33",
    "down": "31",
    "stranded": "31",
    "trusted": "32",
    "unbound": "33",
    "changed": "31",
}


def duration(seconds: float) -> str:
    """Return a time span in its largest unit: "12 s", "3 min", "2 h", "5 d"; "-" if unknown."""
    if seconds < 0:
        return "-"
    for limit, divisor, unit in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / divisor:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def aligned(head: Sequence[str], rows: Iterable[Sequence[str]], *, colour: bool) -> Iterator[str]:
    """Yield the lines of a table; columns are as wide as their widest cell, the last one isn't
    padded. With `colour` a cell that is the name of a state is coloured.
    """
    lines = [list(head), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        padded = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        if colour and line is not lines[0]:
            padded = [painted(cell) for cell in padded]
        yield "  ".join(padded).rstrip()


def painted(cell: str) -> str:
    """Return the cell in the colour of the state that it names, if it names one."""
    code = _COLOURS.get(cell.rstrip())
    return f"\x1b[{code}m{cell}\x1b[0m" if code else cell


def milliseconds(value: float) -> str:
    """Return a time in ms, "-" if unknown."""
    return "-" if value < 0 else f"{value:.1f} ms"
