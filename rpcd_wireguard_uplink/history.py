"""What happened, told once to everybody: the history, the events on the bus, the state file.

Owns how a change is told. Decides nothing, and does not know where a change came from.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from .failover.machine import Change
from .model import Family, HistoryEntry, Uplink
from .state_file import History, now_text, write_state

Table = dict[str, Any]
HOMEWARD = ("failback", "recovered")
OFFERS_S = 2.0  # how long the state file may not have a peer's offer yet


class Journal:
    """The journal of one service. `send_event` tells the bus, `on_change` that replies differ,
    `content` gives what the state file holds besides the history. `on_entry` hears of each new
    entry, with the name of its event.
    """

    def __init__(
        self,
        state_file: str,
        send_event: Callable[[str, Table], None],
        on_change: Callable[[], None],
        content: Callable[[], Mapping[str, Any]],
    ) -> None:
        self.history = History()
        self.problems: dict[str, str] = {}
        self.on_entry: Callable[[str, HistoryEntry], None] = lambda event, entry: None
        self._without_ms: dict[str, int] = {}  # by family: of the outage before it was told
        self._state_file = state_file
        self._send_event = send_event
        self._on_change = on_change
        self._content = content
        self._writing: asyncio.TimerHandle | None = None

    def moved(
        self,
        change: Change,
        family: Family,
        detection_ms: int,
        switch_ms: int,
        peers: Mapping[str, str],
    ) -> None:
        """A family's traffic took another path, or its state changed; `peers` by interface."""
        entry = HistoryEntry(
            at=now_text(),
            kind=change.kind,
            family=family.value,
            from_path=change.from_path,
            to_path=change.to_path,
            peer_id=peers.get(change.to_path) or peers.get(change.from_path, ""),
            cause=change.cause,
            detection_ms=detection_ms,
            switch_ms=switch_ms,
            duration_s=round(change.lasted_s, 3),
        )
        entry = replace(entry, outage_ms=self._outage_ms(entry))
        event = "failback" if change.kind in HOMEWARD else "failover"
        self._add("drill" if change.kind == "drill" else event, entry)

    def uplink(self, kind: str, uplink: Uplink, cause: str) -> None:
        """An uplink came, went or changed."""
        entry = HistoryEntry(now_text(), kind, peer_id=uplink.peer_id, cause=cause)
        self._add("uplink", replace(entry, to_path=uplink.interface))

    def carrying(self, family: Family, path: str, peer_id: str, sentence: str) -> None:
        """Flows by the path in use are not answered any more, or ('') they are again."""
        kind = "not_carrying" if sentence else "carrying"
        cause = sentence or "flows of the LAN are answered again, or their cause is mended"
        entry = HistoryEntry(now_text(), kind, family=family.value, to_path=path, peer_id=peer_id)
        self._add("carrying", replace(entry, cause=cause))

    def peer(self, event: str, kind: str, peer_id: str, cause: str) -> None:
        """Something about a peer that belongs into the history: trust, leases, our own offer."""
        self._add(event, HistoryEntry(now_text(), kind, peer_id=peer_id, cause=cause))

    def _add(self, event: str, entry: HistoryEntry) -> None:
        self.history.add(entry)
        self._send_event(f"wireguard-uplink.{event}", entry.as_table())
        self.changed()
        self.on_entry(event, entry)

    def _outage_ms(self, entry: HistoryEntry) -> int:
        """How long a family was without internet until this entry; -1 where it was not, or where
        nobody knows.
        """
        switch_ms, lasted_ms = max(0, entry.switch_ms), round(entry.duration_s * 1000)
        without_ms = self._without_ms.pop(entry.family, None)
        if without_ms is not None:
            without_ms += lasted_ms
        elif entry.detection_ms >= 0:
            without_ms = entry.detection_ms
        if entry.kind == "stranded":
            self._without_ms[entry.family] = without_ms or 0
            return -1
        return -1 if without_ms is None else without_ms + switch_ms

    def offer(self, kind: str, peer_id: str, cause: str) -> None:
        """A peer's offer came or went: told on the bus, too frequent for the history."""
        table = {"peer_id": peer_id, "kind": kind, "cause": cause, "at": now_text()}
        self._send_event("wireguard-uplink.offer", table)
        self._on_change()
        if self._writing is None:  # a thousand peers' offers are one write
            self._writing = asyncio.get_running_loop().call_later(OFFERS_S, self.write)

    def refreshed(self) -> None:
        """Numbers in replies differ from now on; nothing happened."""
        self._on_change()

    def changed(self) -> None:
        """Replies differ from now on, and so does the state file."""
        self._on_change()
        self.write()

    def write(self) -> None:
        """Write the state file; that it can't be written is a problem that status tells."""
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None
        content = {
            "at": now_text(),
            **self._content(),
            "history": [entry.as_table() for entry in self.history.oldest_first()],
        }
        try:
            write_state(self._state_file, content)
            self.problems.pop("state", None)
        except OSError as error:
            self.problems["state"] = f"can't write {self._state_file}: {error.strerror}"
