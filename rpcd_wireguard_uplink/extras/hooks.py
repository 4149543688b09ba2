"""The owner's executables that are run for each event, one after another.

Owns which files may be run and what they find in their environment. A hook never holds anything
up: events wait in a bounded queue, and a hook that is too slow is killed. Knows nothing of what
the events mean.
"""

from __future__ import annotations

import logging
import os
import stat

from ..errors import UplinkError
from ..system import process
from ..text import printable
from .backlog import Backlog, Event

log = logging.getLogger("wireguard-uplink")

TIMEOUT_S = 10.0
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


class Hooks:
    """The executables of one folder. `problems` says which of them are not run, and why."""

    def __init__(self, folder: str, problems: dict[str, str]) -> None:
        self._folder = folder
        self._problems = problems
        self._backlog = Backlog("hooks", problems)

    def tell(self, event: Event) -> None:
        """Have the hooks run for an event, later."""
        self._backlog.add(event)

    async def follow(self) -> None:
        """The task: run the hooks for each event, for ever."""
        self._find()
        while True:
            event = await self._backlog.next()
            variables = environment(event)
            for path in self._find():
                await _run(path, variables)

    def _find(self) -> list[str]:
        found, refused = find_hooks(self._folder)
        self._problems.pop("hooks", None)
        if refused:
            self._problems["hooks"] = " ".join(refused)
        return found


def find_hooks(folder: str) -> tuple[list[str], list[str]]:
    """The paths of a folder's hooks in order of their names, and a sentence for each that is not
    safe to run as root. What is not executable is no hook, nor is what begins with a dot.
    """
    found: list[str] = []
    try:
        refused = _refusal(folder)
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return [], []
    except OSError as error:
        return [], [f"No hook is run: can't read {folder}: {error.strerror}."]
    if refused:
        return [], [refused]
    refusals = []
    for name in names:
        path = os.path.join(folder, name)
        try:
            mode = os.stat(path).st_mode
            if name.startswith(".") or not stat.S_ISREG(mode) or not mode & 0o111:
                continue
            refused = _refusal(path)
        except OSError as error:  # a link to nowhere
            refused = f"{printable(path)} is not run: {error.strerror}."
        if refused:
            refusals.append(refused)
        else:
            found.append(path)
    return found, refusals


def _refusal(path: str) -> str:
    """Why nothing is run from here: somebody else could have written it. '' if it may be run."""
    about, shown = os.stat(path), printable(path)
    if about.st_uid not in (0, os.geteuid()):
        return f"{shown} is not run: it is not root's; `chown root {shown}` if you know it."
    if about.st_mode & 0o022:
        return f"{shown} is not run: others may write to it; `chmod go-w {shown}` if you know it."
    return ""


def environment(event: Event) -> dict[str, str]:
    """All variables that a hook sees; what is not known or does not apply is empty."""
    entry = event.entry
    told = {
        "EVENT": event.name,
        "ROUTER": event.router,
        "KIND": entry.kind,
        "FAMILY": entry.family,
        "FROM": entry.from_path,
        "TO": entry.to_path,
        "PEER": entry.peer_id,
        "CAUSE": entry.cause,
        "AT": entry.at,
        "DETECTION_MS": _known(entry.detection_ms),
        "SWITCH_MS": _known(entry.switch_ms),
        "OUTAGE_MS": _known(entry.outage_ms),
        "DURATION_S": _known(entry.duration_s),
        "TEXT": event.sentence(),
    }
    return {"PATH": PATH, **{f"WGUP_{name}": printable(text) for name, text in told.items()}}


def _known(value: float) -> str:
    return "" if value < 0 else str(value)


async def _run(path: str, variables: dict[str, str]) -> None:
    """Run one hook to its end; the log says why it failed."""
    try:
        done = await process.run_apart([path], environment=variables, timeout_s=TIMEOUT_S)
    except UplinkError as error:
        log.warning("hook: %s", error)
        return
    if done.returncode != 0:
        first = next(iter(done.stdout.strip().splitlines()), "it said nothing")
        told = printable(first[:200])
        log.warning("hook: %s failed (exit status %d): %s", path, done.returncode, told)
