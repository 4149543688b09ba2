"""State file: what survives a restart of the service, on tmpfs.

Other programs may read the file (the specification's /var/run/wireguard-uplinks.json), so it is
replaced whole and holds no secret. Times of the monotonic clock in it hold for one boot, which is
as long as a tmpfs lives.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field
from datetime import UTC, datetime
from typing import Any

from ..errors import CommandFailed
from ..model import HistoryEntry
from ..reasons import because, of_system
from ..system.files import UnusableFile, read_table, replace_file
from ..values import dataclass
from ..warnings import Warnings

log = logging.getLogger(__name__)

VERSION = 1
MOST_BYTES = 4 << 20  # a thousand offers and the history are a quarter of it
OFFERS_S = 2.0


def now_text() -> str:
    """The wall clock as people read it: ISO 8601, UTC, milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class Remembered:
    """What an earlier run left in the state file: `offers` are rows of the offer book, `sequences`
    the last that each peer used, `identities` the signing keys that were seen over the mesh, by
    peer.
    """

    history: tuple[HistoryEntry, ...] = ()
    offers: tuple[Mapping[str, Any], ...] = ()
    sequences: Mapping[str, int] = field(default_factory=dict)
    identities: Mapping[str, str] = field(default_factory=dict)


def run_dir_of(state_file: str) -> str:
    """The folder on the state file's tmpfs that is ours alone."""
    return os.path.join(os.path.dirname(state_file) or ".", "wireguard-uplink")


@dataclass(eq=False, repr=False)
class StateFile:
    """The file of one service. `content` gives what it is to hold."""

    _path: str
    _content: Callable[[], Mapping[str, Any]]
    _warnings: Warnings
    _writing: asyncio.TimerHandle | None = None

    def write(self) -> None:
        """Write what holds now; that it can't be written is a warning."""
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None
        content = {"at": now_text(), **self._content()}
        with self._warnings.catch("state"):
            write_state(self._path, content)

    def write_soon(self) -> None:
        """Write within two seconds: a thousand peers' offers are one write."""
        if self._writing is None:
            self._writing = asyncio.get_running_loop().call_later(OFFERS_S, self.write)


def write_state(path: str, content: Mapping[str, Any]) -> None:
    """Replace the file; a reader sees the old or the new one. Raises CommandFailed."""
    data = b"{%b}\n" % b",".join(_encoded({**content, "version": VERSION}))
    try:
        replace_file(path, data, 0o644, is_lasting=False)
    except OSError as error:
        raise CommandFailed(because("unwritten", path, of_system(error))) from error


def _encoded(content: Mapping[str, Any]) -> Iterator[bytes]:
    """The members of a table as JSON; the tables of rows that an iterator gives are there one by
    one.
    """
    encode = json.JSONEncoder(separators=(",", ":")).encode
    for name, value in content.items():
        rows = map(encode, value) if isinstance(value, Iterator) else None
        text = encode(value) if rows is None else f"[{','.join(rows)}]"
        yield f"{encode(name)}:{text}".encode()


def read_state(path: str) -> Remembered:
    """What is in the file; nothing where there is none or it is not ours to understand."""
    try:
        content = read_table(path, MOST_BYTES)
        if content is None or content.get("version") != VERSION:
            return Remembered()
        history = tuple(map(HistoryEntry.from_table, content.get("history", ())))
        offers = tuple(content.get("offer_book", ()))
        sequences = {str(k): int(v) for k, v in content.get("sequences", {}).items()}
        identities = {str(k): str(v) for k, v in content.get("identities", {}).items()}
    except UnusableFile as error:
        log.warning("%s; nothing is remembered of an earlier run", error)
        return Remembered()
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError) as error:
        log.warning("%s is ignored: it is damaged (%s)", path, type(error).__name__)
        return Remembered()
    return Remembered(history, offers, sequences, identities)
