"""Passive liveness: what still arrives from beyond a WAN that is suspect.

Reads the counters of our nftables table, and only while a WAN is suspect. What the sign is worth
is for the detector to say.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..model import TABLE, Family, Health, PathKind
from ..system.nft import TableReader
from .paths import PathKey, PathSet, WatchedPath

NEWS = 2  # packets; one of our own answers may come between the look and the comparison


@dataclass(slots=True)
class PassiveLiveness:
    """Listens on behalf of suspect WANs. One `follow` runs at a time."""

    paths: PathSet
    _sets: TableReader = field(default_factory=lambda: TableReader(TABLE))
    _is_running: bool = False
    _counts: dict[PathKey, int] = field(default_factory=dict)

    @property
    def is_needed(self) -> bool:
        """Whether a WAN is suspect and nobody listens yet."""
        return not self._is_running and bool(self._suspects())

    def _suspects(self) -> list[WatchedPath]:
        return [
            path
            for path in self.paths.values()
            if path.kind is PathKind.WAN and path.health.state is Health.SUSPECT
        ]

    async def follow(self, pause_s: float) -> None:
        """Look every `pause_s` until no WAN is suspect; each path hears what came by it."""
        self._is_running = True
        try:
            while suspects := self._suspects():
                for family in {path.family for path in suspects}:
                    self._take(family, self._sets.packets(f"heard{family.version}"))
                await asyncio.sleep(pause_s)
        finally:
            self._is_running = False
            self._counts.clear()

    def _take(self, family: Family, arrived: Mapping[str, int]) -> None:
        now_s = time.monotonic()
        for device, count in arrived.items():
            path = self.paths.get((device, family))
            if path is None:
                continue
            path.collect(now_s)
            others = count - path.replies  # answers to our own probes were counted as well
            if others >= self._counts.setdefault(path.key, others) + NEWS:
                path.health.saw_traffic(now_s)
                self._counts[path.key] = others
