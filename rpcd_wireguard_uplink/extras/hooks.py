"""The owner's executables: run for each event, one after another, in order of their names.

A hook holds nothing up: events wait in a bounded queue, of which a full one drops the oldest, and a
hook that is too slow is killed. Only files that nobody but root can have written are run.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import stat
from collections import deque
from collections.abc import Callable
from dataclasses import field, replace

from ..api import replies as r
from ..errors import UplinkError
from ..model import HistoryEntry
from ..reasons import because, joined, of_system
from ..storage.state_file import now_text
from ..system import process
from ..tasks import Once
from ..text import printable
from ..values import dataclass
from ..warnings import Warnings

log = logging.getLogger("wireguard-uplink")

TIMEOUT_S = 10.0
MOST_WAITING = 64
TOGETHER_S = 0.3  # the other family of a change is waited for
_SAME = ("kind", "from_path", "to_path", "peer_id")
_MEASURED = ("detection_ms", "switch_ms", "outage_ms", "duration_s", "used_bytes")
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Notice:
    """An entry of the history as hooks get it: `event` is its event's name on the bus without the
    prefix, `router` this router's id among its peers.
    """

    event: str
    router: str
    entry: HistoryEntry

    def sentence(self) -> str:
        """What happened, for a chat or a log."""
        entry = self.entry
        what = entry.kind.replace("_", " ")
        what += f" ({entry.family})" if entry.family else ""
        if entry.from_path and entry.to_path:
            what += f" {entry.from_path} -> {entry.to_path}"
        elif entry.peer_id and not entry.family:
            what += f" {entry.peer_id}"
        return ": ".join(filter(None, (self.router or "router", what, entry.cause)))

    def with_other_family(self, other: Notice) -> Notice | None:
        """The two as one, where they are one change of both families; else None."""
        mine, theirs = self.entry, other.entry
        is_same = all(getattr(mine, name) == getattr(theirs, name) for name in _SAME)
        if not is_same or {mine.family, theirs.family} != {"ipv4", "ipv6"}:
            return None
        longest = {name: max(getattr(mine, name), getattr(theirs, name)) for name in _MEASURED}
        return replace(self, entry=mine.replaced(family="", **longest))

    def environment(self) -> dict[str, str]:
        """All variables that a hook sees; what is not known or does not apply is empty."""
        told = {"event": self.event, "router": self.router, "text": self.sentence()}
        table = told | self.entry.as_table()
        known = {n: "" if v == -1 else str(v) for n, v in table.items() if n != "cause_args"}
        known["peer"] = known.pop("peer_id")
        known["json"] = json.dumps(table)
        return {"PATH": PATH, **{f"WGUP_{k.upper()}": printable(v) for k, v in known.items()}}


@dataclass(eq=False, repr=False)
class Hooks:
    _folder: str
    _warnings: Warnings
    _router: Callable[[], str] = str
    _waiting: deque[Notice] = field(default_factory=deque)
    _has_news: asyncio.Event = field(default_factory=asyncio.Event)
    _dropped: int = 0
    _once: Once = field(default_factory=Once)

    def add(self, notice: Notice) -> None:
        before = self._waiting.pop() if self._waiting else None
        both = before.with_other_family(notice) if before is not None else None
        self._waiting.extend(each for each in (both or before, None if both else notice) if each)
        if len(self._waiting) > MOST_WAITING:
            self._waiting.popleft()
            self._dropped += 1
            told = because("hooks_dropped", self._dropped)
            self._warnings.set("hooks backlog", told)
        self._has_news.set()

    async def run(self) -> None:
        """The task: run the hooks for each notice, for ever."""
        self._find()
        while True:
            while self._waiting:
                variables = self._waiting.popleft().environment()
                for path in self._find():
                    await _run_hook(path, variables)
            self._has_news.clear()
            await self._has_news.wait()
            await asyncio.sleep(TOGETHER_S)

    async def uplink_notify(self) -> r.Notified:
        """Run every hook with an event `test`, and tell what became of each."""
        return await self._once.do(self._notify)

    async def _notify(self) -> r.Notified:
        entry = HistoryEntry(at=now_text(), kind="test", cause=because("test_asked_for"))
        variables = Notice("test", self._router(), entry).environment()
        found = [
            r.HookRun(name=os.path.basename(path), error=await _run_hook(path, variables))
            for path in self._find()
        ]
        return r.Notified(message=f"{len(found)} hooks were run with a test event.", hooks=found)

    def _find(self) -> list[str]:
        found, refused = find_hooks(self._folder)
        self._warnings.set("hooks", joined(" ", refused))
        return found


def find_hooks(folder: str) -> tuple[list[str], list[str]]:
    """The paths of a folder's hooks in order of their names, and a sentence for each that is not
    safe to run as root. What is not executable is no hook, nor is what begins with a dot.
    """
    try:
        refused = _why_unsafe(folder)
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return [], []
    except OSError as error:
        return [], [because("hooks_unread", folder, of_system(error))]
    if refused:
        return [], [refused]
    found, refusals = [], []
    for path in (os.path.join(folder, name) for name in names if not name.startswith(".")):
        try:
            mode = os.stat(path).st_mode
            if not stat.S_ISREG(mode) or not mode & 0o111:
                continue
            refused = _why_unsafe(path)
        except OSError as error:  # a link to nowhere
            refused = because("hook_unread", printable(path), of_system(error))
        if refused:
            refusals.append(refused)
        else:
            found.append(path)
    return found, refusals


def _why_unsafe(path: str) -> str:
    """Why nothing is run from here: somebody else could have written it. '' if it may be run."""
    about, shown = os.stat(path), printable(path)
    if about.st_uid not in (0, os.geteuid()):
        return because("hook_not_roots", shown, shown)
    if about.st_mode & 0o022:
        return because("hook_writable", shown, shown)
    return ""


async def _run_hook(path: str, variables: dict[str, str]) -> str:
    """Run one hook to its end; why it failed, which the log says too, '' where it did not."""
    try:
        done = await process.run_apart([path], environment=variables, timeout_s=TIMEOUT_S)
    except UplinkError as error:
        log.warning("hook: %s", error)
        return str(error)
    if done.returncode == 0:
        return ""
    first = next(iter(done.stdout.strip().splitlines()), "it said nothing")
    told = because("hook_failed", done.returncode, printable(first[:200]))
    log.warning("hook: %s %s", path, told)
    return told
