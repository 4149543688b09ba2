"""Event history: what happened to paths, uplinks and peers, as people and programs read it.

Takes news from everywhere and makes an entry of each; every new entry is published as `Recorded`.
The state file carries the entries over a restart.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import field

from ..config.store import ConfigStore
from ..events import CarryingChanged, DoubtEnded, Events, PeerNews, Recorded, UplinkChanged
from ..failover.machine import Moved
from ..model import Family, HistoryEntry
from ..reasons import because
from ..storage.state_file import now_text
from ..system.proc import device_bytes
from ..values import dataclass

MOST_ENTRIES = 200
DOUBTS_PAUSE_S = 3600.0  # between two entries about doubts of a family
HOMEWARD = ("failback", "recovered")


@dataclass(eq=False, repr=False)
class History:
    _events: Events
    _store: ConfigStore
    _count: Callable[[], Mapping[str, tuple[int, int]]] = device_bytes
    _entries: deque[HistoryEntry] = field(default_factory=lambda: deque(maxlen=MOST_ENTRIES))
    # By family: of the outage before it was reported.
    _without_ms: dict[str, int] = field(default_factory=dict)
    # By family: of its last entry about doubts when it was made, and of the doubts since then how
    # many there were and for how long.
    _doubts: dict[Family, tuple[float, int, float]] = field(default_factory=dict)
    # By family: the uplink in use, and what its device had counted when it came into use.
    _used: dict[str, tuple[str, int]] = field(default_factory=dict)

    def newest(self, limit: int) -> list[HistoryEntry]:
        """At most `limit` entries, newest first."""
        return list(self._entries)[: -limit - 1 : -1]

    def oldest_first(self) -> list[HistoryEntry]:
        return list(self._entries)

    def restore(self, entries: Iterable[HistoryEntry]) -> None:
        """Take over what an earlier run has recorded, oldest first."""
        self._entries.extend(entries)

    def record_move(self, event: Moved) -> None:
        """A family's traffic took another path, or its state changed."""
        move, change = event.move, event.move.change
        peers = self._store.current.peer_names
        entry = HistoryEntry.of(
            *(change, move, event),
            at=now_text(),
            family=move.family.value,
            peer_id=peers.get(change.to_path) or peers.get(change.from_path, ""),
            duration_s=round(change.lasted_s, 3),
        )
        entry = entry.replaced(
            outage_ms=self._outage_ms(entry), used_bytes=self._used_bytes(entry, peers)
        )
        name = "failback" if change.kind in HOMEWARD else "failover"
        self._add("drill" if change.kind == "drill" else name, entry)

    def record_uplink(self, event: UplinkChanged) -> None:
        uplink = event.uplink
        entry = HistoryEntry.of(event, uplink, at=now_text(), to_path=uplink.interface)
        self._add("uplink", entry)

    def record_carrying(self, event: CarryingChanged) -> None:
        """Flows by the path in use are not answered any more, or they are again."""
        peers = self._store.current.peer_names
        entry = HistoryEntry(
            at=now_text(),
            kind="not_carrying" if event.cause else "carrying",
            family=event.family.value,
            to_path=event.path,
            peer_id=peers.get(event.path, ""),
            cause=event.cause or because("carrying_again"),
        )
        self._add("carrying", entry)

    def record_doubt(self, event: DoubtEnded) -> None:
        """A WAN was doubted and is alive. A lossy WAN is doubted again and again: the first time
        is an entry, further ones are told together.
        """
        now_s = time.monotonic()
        told_s, count, total_s = self._doubts.get(event.family, (-math.inf, 0, 0.0))
        count, total_s = count + 1, total_s + event.seconds
        if now_s - told_s < DOUBTS_PAUSE_S:
            self._doubts[event.family] = told_s, count, total_s
            return
        self._doubts[event.family] = now_s, 0, 0.0
        cause = because("was_doubted", event.wan, f"{total_s:.1f}")
        if count > 1:
            minutes = math.ceil((now_s - told_s) / 60)
            cause = because("was_doubted_often", event.wan, count, minutes, f"{total_s:.1f}")
        peers = self._store.current.peer_names
        entry = HistoryEntry(
            at=now_text(),
            kind="doubted",
            family=event.family.value,
            from_path=event.wan,
            to_path=event.backup,
            peer_id=peers.get(event.backup, ""),
            cause=cause,
            duration_s=round(total_s, 3),
        )
        self._add("doubt", entry)

    def record_peer(self, event: PeerNews) -> None:
        entry = HistoryEntry.of(event, at=now_text())
        self._add(event.topic, entry)

    def _add(self, name: str, entry: HistoryEntry) -> None:
        self._entries.append(entry)
        self._events.publish(Recorded(name, entry))

    def _used_bytes(self, entry: HistoryEntry, uplinks: Container[str]) -> int:
        """What went through the uplink that a family leaves; -1 where it left none."""
        counted = {path: rx + tx for path, (rx, tx) in self._count().items()}
        path, before = self._used.pop(entry.family, ("", 0))
        if entry.to_path in uplinks and entry.to_path in counted:
            self._used[entry.family] = (entry.to_path, counted[entry.to_path])
        if not path or path != entry.from_path or path not in counted:
            return -1
        now = counted[path]
        return now - before if now >= before else now  # a device that was made anew

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
