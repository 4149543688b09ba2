"""What happened, told once to everybody: the history, the events on the bus, the state file.

Owns how a change is told. Decides nothing, and does not know where a change came from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from .failover import Change
from .model import Family, HistoryEntry, Uplink
from .state import History, now_text, write_state

Table = dict[str, Any]
HOMEWARD = ("failback", "recovered")


class Journal:
    """The journal of one service. `send_event` tells the bus, `on_change` that replies differ,
    `content` gives what the state file holds besides the history.
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
        self._state_file = state_file
        self._send_event = send_event
        self._on_change = on_change
        self._content = content

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
        self._add("failback" if change.kind in HOMEWARD else "failover", entry)

    def uplink(self, kind: str, uplink: Uplink, cause: str) -> None:
        """An uplink came, went or changed."""
        entry = HistoryEntry(now_text(), kind, peer_id=uplink.peer_id, cause=cause)
        self._add("uplink", replace(entry, to_path=uplink.interface))

    def peer(self, event: str, kind: str, peer_id: str, cause: str) -> None:
        """Something about a peer that belongs into the history: trust, leases, our own offer."""
        self._add(event, HistoryEntry(now_text(), kind, peer_id=peer_id, cause=cause))

    def _add(self, event: str, entry: HistoryEntry) -> None:
        self.history.add(entry)
        self._send_event(f"wireguard-uplink.{event}", entry.as_table())
        self.changed()

    def offer(self, kind: str, peer_id: str, cause: str) -> None:
        """A peer's offer came or went: told on the bus, too frequent for the history."""
        table = {"peer_id": peer_id, "kind": kind, "cause": cause, "at": now_text()}
        self._send_event("wireguard-uplink.offer", table)
        self.changed()

    def refreshed(self) -> None:
        """Numbers in replies differ from now on; nothing happened."""
        self._on_change()

    def changed(self) -> None:
        """Replies differ from now on, and so does the state file."""
        self._on_change()
        self.write()

    def write(self) -> None:
        """Write the state file; that it can't be written is a problem that status tells."""
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
