"""Handlers of `uplink_explain` and `uplink_simulate`: why this path, and what if paths fail."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from ..carrying.watch import CarryingWatch
from ..config.store import ConfigStore
from ..failover.monitor import Monitor
from ..mesh.offers import OfferBook
from ..mesh.peers import Peers
from .explain import explanation
from .simulation import simulation

Table = dict[str, Any]


class ChoiceMethods:
    """The handlers of `uplink_explain` and `uplink_simulate`."""

    def __init__(
        self,
        store: ConfigStore,
        monitor: Monitor,
        carrying: CarryingWatch,
        offers: OfferBook,
        peers: Peers,
    ) -> None:
        self._store = store
        self._monitor = monitor
        self._carrying = carrying
        self._offers = offers
        self._peers = peers

    def explain(self) -> Table:
        """Why traffic goes where it goes, and who would be next."""
        now_s = time.monotonic()
        return explanation(
            self._store.current,
            self._monitor,
            self._offers.fresh(now_s),
            self._peers.distrust_reason,
            now_s,
            self._carrying.sentences,
        )

    def simulate(self, fail: Sequence[str]) -> Table:
        """What would happen if these paths died; NotFound for one that nobody knows."""
        return simulation(self._store.current, self._monitor, fail, time.monotonic())
