"""Reads the tunnels' counters: what is used counts for the month, a full tunnel shows its speed."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import field
from datetime import date

from ..events import Events, PathsChanged
from ..model import Health, PathKind
from ..probing.capacity import Capacity
from ..values import dataclass
from ..warnings import Warnings
from .decision import Scene
from .machine import AWAY

USED_S = 5.0
IDLE_S = 15.0  # while no uplink is used, and nobody asks
CALM_S = 60.0  # and all of them answer probes: a reading is a process


@dataclass(eq=False, repr=False)
class CounterWatch:
    """The watch of one router; each reading is news of its paths."""

    _scene: Scene
    _warnings: Warnings
    _events: Events
    _read_s: float = 0.0
    _asked: asyncio.Event = field(default_factory=asyncio.Event)

    async def follow(self) -> None:
        while True:
            self._read_s = time.monotonic()
            with self._warnings.catch("counters"):
                await self._scene.network.read_counters()
                self.learn_capacities(time.monotonic())
                self._count_bytes()
            self._events.publish(PathsChanged())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.pause_s):
                    await self._asked.wait()
            self._asked.clear()

    @property
    def pause_s(self) -> float:
        """How long a reading is good enough."""
        if any(state.phase in AWAY for state in self._scene.states.values()):
            return USED_S
        tunnels = (p for p in self._scene.paths.values() if p.kind is PathKind.UPLINK)
        return CALM_S if all(p.health.state is Health.UP for p in tunnels) else IDLE_S

    def read_soon(self) -> None:
        self._asked.set()

    def freshen(self) -> None:
        """Somebody looks at the counters: have them read again, unless that was just done."""
        if time.monotonic() - self._read_s > USED_S:
            self._asked.set()

    def learn_capacities(self, now_s: float) -> None:
        """Take what the counters say of the tunnels' speed."""
        counters, capacities = self._scene.network.state.counters, self._scene.capacities
        for device in capacities.keys() - counters.keys():
            del capacities[device]
        for device, counted in counters.items():
            paths = self._scene.paths.of(device)
            latency_ms = max((path.health.latency_ms for path in paths), default=-1.0)
            capacity = capacities.setdefault(device, Capacity())
            capacity.seen(counted.rx_bytes, latency_ms, now_s)

    def _count_bytes(self) -> None:
        counters = self._scene.network.state.counters
        names = counters.keys() & {uplink.interface for uplink in self._scene.watch.uplinks}
        moved = {n: counters[n].rx_bytes + counters[n].tx_bytes for n in names}
        self._scene.ledger.record(moved, date.today(), reset_day=1)
