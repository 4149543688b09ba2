"""`wgctl uplink status --watch`: the status once a second, over one connection to the bus.

On a terminal it is drawn over itself, on the alternate screen, as much of it as fits, and the
screen that was there comes back at the end, however that is. Where the output goes elsewhere, a
block is written whenever something changes that is no mere number. Knows nothing of what the
status means but which of its parts are numbers.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections.abc import Mapping
from datetime import datetime
from typing import Any, TextIO

from ..api.methods import OBJECT
from ..errors import UplinkError
from ..text import printable
from ..ubus import Client
from .render import render

Reply = Mapping[str, Any]
METHOD = "uplink_status"
INTERVAL_S = 1.0
TIMEOUT_S = 5.0
MOST_EVENTS = 4
ENTER, LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
HOME, TO_LINE_END, TO_SCREEN_END = "\x1b[H", "\x1b[K", "\x1b[J"
SWITCHES = ("enabled", "auto_failover", "offering")
_COLOUR = re.compile(r"(\x1b\[[0-9;]*m)")


async def watch(client: Client, out: TextIO, *, as_json: bool = False) -> None:
    """Show the status until SIGINT or SIGTERM."""
    stop, redraw = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGWINCH, redraw.set)
    on_screen = out.isatty() and os.environ.get("TERM", "dumb") != "dumb" and not as_json
    view: Screen | Blocks = Screen(out) if on_screen else Blocks(out, as_json=as_json)
    try:
        view.begin()
        while not stop.is_set():
            redraw.clear()
            view.show(*await _ask(client))
            await _first_of(stop, redraw)
    finally:
        view.end()


async def _ask(client: Client) -> tuple[Reply | None, str]:
    """The status, or None and why there is none now; both end, the service may come back."""
    try:
        return await client.call(OBJECT, METHOD, {}, timeout_s=TIMEOUT_S), ""
    except UplinkError as error:
        return None, f"{OBJECT} does not answer: {error}"


async def _first_of(*events: asyncio.Event) -> None:
    """Return when one of them is set, or a second is over."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait(waiting, timeout=INTERVAL_S, return_when=asyncio.FIRST_COMPLETED)
    for each in waiting:
        each.cancel()


class Screen:
    """A terminal that is drawn anew each time."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def begin(self) -> None:
        """Take the alternate screen."""
        _put(self._out, ENTER)

    def end(self) -> None:
        """Give the terminal back as it was."""
        _put(self._out, LEAVE)

    def show(self, status: Reply | None, why: str) -> None:
        """Draw a status, or why there is none."""
        width, height = os.get_terminal_size(self._out.fileno())
        _put(self._out, frame(_lines(status, why), width or 80, height or 24))


def _lines(status: Reply | None, why: str) -> list[str]:
    head = f"wgctl uplink status  {datetime.now():%H:%M:%S}  (Ctrl-C ends)"
    if status is None:
        return [head, "", *(printable(line) for line in why.splitlines())]
    events = [
        {**event, "at": str(event["at"]).partition("T")[2]}
        for event in status["events"][:MOST_EVENTS]
    ]
    colour = not os.environ.get("NO_COLOR")
    return [head, "", *_text({**status, "events": events}, colour=colour).splitlines()]


def _text(status: Reply, *, colour: bool) -> str:
    try:
        return render(METHOD, status, colour=colour)
    except (KeyError, TypeError, AttributeError):
        return json.dumps(status, indent=2) + "\n"  # a service of another release


def frame(lines: list[str], width: int, height: int) -> str:
    """What draws these lines over whatever stands on a terminal of this size, and nothing more."""
    if len(lines) > height:
        lines = [*lines[: height - 1], f"... and {len(lines) - height + 1} lines more"]
    drawn = "\r\n".join(cut(line, width) + TO_LINE_END for line in lines)
    return HOME + drawn + TO_SCREEN_END


def cut(line: str, width: int) -> str:
    """The part of a line that fits; colours take no room, and are ended."""
    kept, left, coloured = "", width, False
    for part in _COLOUR.split(line):
        if part.startswith("\x1b"):
            kept, coloured = kept + part, True
        else:
            kept, left = kept + part[:left], left - len(part[:left])
    return kept + "\x1b[0m" if coloured else kept


class Blocks:
    """A pipe or a file: a block, or a line of JSON, for each change."""

    def __init__(self, out: TextIO, *, as_json: bool) -> None:
        self._out = out
        self._as_json = as_json
        self._seen: object = None

    def begin(self) -> None:
        """Nothing is there to be prepared."""

    def end(self) -> None:
        """Nothing is there to be restored."""

    def show(self, status: Reply | None, why: str) -> None:
        """Write a status, or why there is none, if more than its numbers differs from the last."""
        seen = why if status is None else essence(status)
        if seen == self._seen:
            return
        self._seen = seen
        if self._as_json:
            text = json.dumps(status if status is not None else {"error": why}) + "\n"
        else:
            body = f"{printable(why)}\n" if status is None else _text(status, colour=False)
            text = f"--- {datetime.now().astimezone().isoformat(timespec='seconds')}\n{body}\n"
        _put(self._out, text)


def essence(value: Any) -> Any:
    """A reply without its numbers, and without the sentences that hold some: two that are equal
    here tell an owner the same.
    """
    if isinstance(value, dict):
        kept = (key for key in value if key not in ("cause", "reason"))
        return {key: value[key] if key in SWITCHES else essence(value[key]) for key in kept}
    if isinstance(value, list):
        return [essence(entry) for entry in value]
    return None if isinstance(value, int | float) and not isinstance(value, bool) else value


def _put(out: TextIO, text: str) -> None:
    encoding = out.encoding or "utf-8"
    out.write(text.encode(encoding, "backslashreplace").decode(encoding))
    out.flush()
