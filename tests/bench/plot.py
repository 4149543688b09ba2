"""A picture of the table: how far each number is from its target, on a logarithmic scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from .table import Row

NAMES_PX, SCALE_PX, LINE_PX, TOP_PX = 560, 420, 20, 46
LEAST, MOST = 0.01, 10.0
TICKS = (0.01, 0.1, 1.0, 10.0)
COLOURS = {"reached": "#2f7d4f", "not reached": "#b3541e"}


def share_of_target(row: Row, value: float) -> float:
    """1 is the target; less is better, also where the target is a floor."""
    if row.is_floor:
        return row.limit / value if value else MOST
    return value / row.limit if row.limit else (MOST if value else LEAST)


def picture(rows: Sequence[Row], title: str) -> str:
    """An SVG with a line for each measured row: the median to the worst, and the judged value."""
    shown = [row for row in rows if row.values]
    width, height = NAMES_PX + SCALE_PX + 20, TOP_PX + LINE_PX * len(shown) + 10
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="#fff"/>',
        f'<text x="8" y="16" font-size="13">{escape(title)}</text>',
    ]
    for tick in TICKS:
        x = _x(tick)
        dash = "" if tick == 1.0 else ' stroke-dasharray="2 3"'
        out.append(f'<line x1="{x}" y1="{TOP_PX - 8}" x2="{x}" y2="{height}" stroke="#888"{dash}/>')
        label = "target" if tick == 1.0 else f"{tick:g}"
        out.append(f'<text x="{x}" y="{TOP_PX - 14}" text-anchor="middle">{label}</text>')
    for number, row in enumerate(shown):
        y, colour = TOP_PX + LINE_PX * number + 10, COLOURS[row.verdict]
        ends = [_x(share_of_target(row, value)) for value in (row.median, row.worst)]
        judged = _x(share_of_target(row, getattr(row, row.by)))
        out += [
            f'<text x="{NAMES_PX - 8}" y="{y + 4}" text-anchor="end">{escape(row.name)}</text>',
            f'<line x1="{ends[0]}" y1="{y}" x2="{ends[1]}" y2="{y}" stroke="{colour}" '
            'stroke-width="3"/>',
            f'<circle cx="{judged}" cy="{y}" r="4" fill="{colour}"/>',
        ]
    return "\n".join([*out, "</svg>"]) + "\n"


def _x(share: float) -> float:
    span = math.log10(MOST / LEAST)
    place = math.log10(min(MOST, max(LEAST, share)) / LEAST) / span
    return round(NAMES_PX + SCALE_PX * place, 1)
