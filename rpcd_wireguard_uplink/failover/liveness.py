"""Passive liveness: what still arrives from beyond a WAN that is suspect.

Reads the counters of our nftables table, which count while a WAN is suspect or doubted and a while
longer. What the sign is worth is for the detector to say; a doubt it ends. What arrives in one
family whose own probes are late is a sign for the other family too: both wait in the queue of one
device. Where its probes are answered in time it is none, and the other family may well be dead
alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import field

from ..model import TABLE, Family, Health, PathKind
from ..probing.doubt import REST_S, Stage
from ..system.nft import TableReader
from ..values import dataclass
from .paths import PathKey, PathSet, WatchedPath

NEWS = 2  # packets; one of our own answers may come between the look and the comparison


@dataclass(slots=True)
class PassiveLiveness:
    """Listens on behalf of suspect WANs. One `follow` runs at a time; `on_listen` has packets
    counted, `on_trust` is called when it has ended a doubt.
    """

    paths: PathSet
    on_listen: Callable[[], None]
    on_trust: Callable[[], None] = lambda: None
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
            if path.kind is PathKind.WAN
            and (path.health.state is Health.SUSPECT or path.doubt.stage is Stage.DOUBTED)
        ]

    def begin(self, path: WatchedPath) -> None:
        """Listen to a path from now on, by `look`."""
        self._counts.pop(path.key, None)
        self.look()

    def look(self) -> None:
        """See what has come by the paths since the last look."""
        self.on_listen()
        now_s, heard = time.monotonic(), set()
        for family in {family for _, family in self.paths}:
            for path in self._arrived(family, now_s):
                heard.add(path.key)
                if path.is_late(now_s):
                    heard |= {(path.device, each) for each in Family} & self.paths.keys()
        has_trust = False
        for key in heard:
            path = self.paths[key]
            path.health.saw_traffic(now_s)
            has_trust = path.doubt.heard(now_s, rest_s=REST_S) or has_trust
        if has_trust:
            self.on_trust()

    async def follow(self, pause_s: float) -> None:
        """Look every `pause_s` until no WAN is suspect; each path hears what came by it."""
        self._is_running = True
        try:
            while self._suspects():
                self.look()
                await asyncio.sleep(pause_s)
        finally:
            self._is_running = False
            self._counts.clear()

    def _arrived(self, family: Family, now_s: float) -> Iterator[WatchedPath]:
        """The paths by which something of the family has come since the last look."""
        for device, count in self._sets.packets(f"heard{family.version}").items():
            path = self.paths.get((device, family))
            if path is None:
                continue
            path.collect(now_s)
            others = count - path.replies  # answers to our own probes were counted as well
            if others >= self._counts.setdefault(path.key, others) + NEWS:
                self._counts[path.key] = others
                yield path
