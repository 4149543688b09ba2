"""Handlers of `uplink_pulse` and `uplink_series`: the numbers of paths, now and over time.

A page asks for the pulse all the time, and for the rest only when `stamp` differs.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Mapping

from ..history.series import SPANS, Sample, Series
from ..platform.linux import rollback_s
from ..system.proc import device_bytes
from ..tasks import rest
from . import replies as r
from .status import StatusMethods

SAMPLE_S = 20.0
LEAST_S = 1.0  # between two readings that make a rate
SILENT = ("down", "unknown", "connecting")
Bytes = Mapping[str, tuple[int, int]]


class SeriesMethods:
    """Samples every path now and then; `follow` is the task."""

    def __init__(self, status: StatusMethods, series: Series) -> None:
        self._status = status
        self._series = series
        self._read_s = 0.0
        self._bytes: Bytes = device_bytes()
        self._rates: dict[str, tuple[int, int]] = {}

    async def follow(self) -> None:
        """Sample for ever."""
        while True:
            self.sample(time.monotonic(), device_bytes())
            await rest(SAMPLE_S)

    def sample(self, now_s: float, counted: Bytes) -> None:
        """Take one sample of each path."""
        self._series.take(
            {
                device: Sample(
                    round(latency_ms, 1) if state not in SILENT else -1.0,
                    round(loss_pct, 1) if state not in SILENT[1:] else -1.0,
                    *counted.get(device, (0, 0)),
                )
                for device, (state, latency_ms, loss_pct) in self._status.numbers().items()
            },
            now_s,
        )

    def uplink_series(self, span: str = "hour") -> r.SeriesReply:
        return r.SeriesReply(
            span=span,
            step_s=SPANS[span][0],
            paths=[
                r.PathSeries(path=path, latency_ms=latency, loss_pct=loss, moved_bytes=moved)
                for path, (latency, loss, moved) in self._series.of(span).items()
            ],
        )

    def uplink_pulse(self) -> r.Pulse:
        status = self._status.uplink_status()
        self._measure(time.monotonic(), device_bytes())
        return r.Pulse.of(
            status,
            stamp=self._stamp(status),
            left_s=status.by_hand.left_s if status.by_hand is not None else 0.0,
            rollback_s=rollback_s(),
            paths=self._paths(status),
        )

    def _paths(self, status: r.Status) -> list[r.PathPulse]:
        paths: list[tuple[str, r.WanHealth | r.UplinkHealth]]
        paths = [(wan.device, wan) for wan in status.wans]
        paths += [(uplink.interface, uplink) for uplink in status.uplinks]
        return [
            r.PathPulse(
                path=device,
                state=path.state,
                latency_ms=round(path.latency_ms, 1),
                loss_pct=round(path.loss_pct, 1),
                rx_kbps=self._rates.get(device, (0, 0))[0],
                tx_kbps=self._rates.get(device, (0, 0))[1],
            )
            for device, path in paths
        ]

    def _measure(self, now_s: float, counted: Bytes) -> None:
        """How fast each device moves bytes since the last look."""
        passed_s = now_s - self._read_s
        if passed_s < LEAST_S:
            return
        self._rates = {
            device: (
                max(0, round((rx - self._bytes[device][0]) / passed_s / 125)),
                max(0, round((tx - self._bytes[device][1]) / passed_s / 125)),
            )
            for device, (rx, tx) in counted.items()
            if device in self._bytes
        }
        self._read_s, self._bytes = now_s, counted

    def _stamp(self, status: r.Status) -> int:
        """A number that differs whenever a reply says something else than other numbers."""
        offers = [
            (offer.peer_id, offer.trusted, offer.usable, offer.configured)
            for offer in self._status.uplink_list().offers
        ]
        by_hand = status.by_hand.path if status.by_hand is not None else ""
        said = (
            *(status.enabled, status.auto_failover, status.offering, by_hand, status.families),
            *(status.state, status.active_path, status.problems, status.events[:1], offers),
            [(wan.device, wan.state, wan.portal) for wan in status.wans],
            [(u.interface, u.state, u.active, u.usable, u.weight) for u in status.uplinks],
            [consumer.peer_id for consumer in status.consumers],
        )
        return zlib.crc32(repr(said).encode()) >> 1
