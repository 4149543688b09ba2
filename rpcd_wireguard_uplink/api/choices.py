"""Handlers of `uplink_explain` and `uplink_simulate`: why this path, and what if paths fail."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from ..uplinks.service import Service
from .explain import explanation
from .simulation import simulation

Table = dict[str, Any]


class ChoiceService:
    """The handlers of `uplink_explain` and `uplink_simulate`."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def explain(self) -> Table:
        """Why traffic goes where it goes, and who would be next."""
        now_s = time.monotonic()
        service = self._service
        offers = service.offers.fresh(now_s)
        config = service.uplinks.config
        unanswered = service.carrying.sentences
        return explanation(
            config, service.monitor, offers, service.distrust_reason, now_s, unanswered
        )

    def simulate(self, fail: Sequence[str]) -> Table:
        """What would happen if these paths died; NotFound for one that nobody knows."""
        service = self._service
        return simulation(service.uplinks.config, service.monitor, fail, time.monotonic())
