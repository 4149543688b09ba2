"""A terminal's screenshot as SVG, of what a demonstration really printed.

python -m tests.lab.picture FILE   writes that of `make run`
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from html import escape
from pathlib import Path

FONT_PX, CHARACTER_PX, LINE_PX, EDGE_PX = 12, 7.25, 16, 14
COLOURS = {"ground": "#1d1f21", "text": "#c5c8c6", "title": "#8abeb7", "time": "#969896"}


def terminal(command: str, printed: str) -> str:
    """The screenshot of a command and what it printed."""
    lines = [f"# {command}", *printed.rstrip("\n").split("\n")]
    width = round(max(map(len, lines)) * CHARACTER_PX) + 2 * EDGE_PX
    height = len(lines) * LINE_PX + 2 * EDGE_PX
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" role="img" aria-label="What {command} prints">',
            f'<rect width="100%" height="100%" rx="8" fill="{COLOURS["ground"]}"/>',
            f'<g fill="{COLOURS["text"]}" '
            f'font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="{FONT_PX}">',
            *_rows(lines),
            "</g>",
            "</svg>\n",
        )
    )


def _rows(lines: list[str]) -> Iterator[str]:
    for number, line in enumerate(lines):
        if not line:
            continue
        place = f'x="{EDGE_PX}" y="{EDGE_PX + (number + 0.75) * LINE_PX:g}"'
        length = f'textLength="{len(line) * CHARACTER_PX:g}" lengthAdjust="spacingAndGlyphs"'
        text = re.sub(
            r"^(\s*[0-9.]+\s+s\s)",
            rf'<tspan fill="{COLOURS["time"]}">\1</tspan>',
            escape(line).replace(" ", "\N{NO-BREAK SPACE}"),
        )
        is_title = not line.startswith(" ") and (number == 0 or not lines[number - 1])
        colour = f' fill="{COLOURS["title"]}" font-weight="bold"' if is_title else ""
        yield f"<text {place} {length}{colour}>{text}</text>"


def main() -> int:
    """Run the demonstration, which shows itself, and write the file; its exit status."""
    words = [sys.executable, "-m", "tests.lab.demo"]
    run = subprocess.run(words, stdout=subprocess.PIPE, text=True)
    sys.stdout.write(run.stdout)
    if run.returncode == 0:
        Path(sys.argv[1]).write_text(terminal("make run", run.stdout), encoding="utf-8")
    return run.returncode


if __name__ == "__main__":
    sys.exit(main())
