"""The methods about choosing: explaining it, supposing failures, rehearsing; drills by the clock.

Explains and supposes by explain.py and simulation.py, rehearses by drill.py; owns who may be
drilled when, and how the outcome is told.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from ..errors import NotFound, NotSupported, NotTrusted
from ..extras.drill import Step, is_due, lead_traffic, rehearse
from ..failover.machine import AWAY
from ..model import Family, Uplink
from ..state_file import now_text
from ..uplinks.service import Service
from .explain import explanation
from .simulation import simulation

Table = dict[str, Any]
LOOK_S = 600.0
TUNNEL_STEPS = ("tunnel", Family.IPV4.value, Family.IPV6.value)


class ChoiceService:
    """The handlers of `uplink_explain`, `uplink_simulate` and `uplink_drill`."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._drilling = False
        self._last_s = time.monotonic()

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

    async def drill(
        self, peer_id: str = "", *, all_traffic: bool = False, seconds: int = 10
    ) -> Table:
        """Rehearse one uplink, or all; with `all_traffic` the best one or the given one.

        Raises NotFound, NotTrusted or NotSupported where there is nothing to rehearse now.
        """
        chosen = self._chosen(peer_id)
        if all_traffic:
            self._require_home()
            chosen = [self._best(chosen)]
        if self._drilling:
            raise NotSupported("a drill is under way: wait for its end", code="drill_running")
        self._drilling = True
        begun_s = time.monotonic()
        try:
            found = await asyncio.gather(*(self._rehearse(uplink) for uplink in chosen))
            if all_traffic:
                await self._lead(chosen[0], found[0], seconds)
        finally:
            self._drilling = False
            self._last_s = time.monotonic()
        drills = [self._told(u, steps) for u, steps in zip(chosen, found, strict=True)]
        good = sum(drill["ok"] for drill in drills)
        return {
            "success": True,
            "message": f"{good} of {len(drills)} uplinks passed the drill.",
            "at": now_text(),
            "took_s": round(time.monotonic() - begun_s, 1),
            "drills": drills,
        }

    def _chosen(self, peer_id: str) -> list[Uplink]:
        service = self._service
        watched = list(service.monitor.watch.uplinks) if service.monitor.paths else []
        if not peer_id:
            if not watched:
                raise NotFound(
                    "there is no uplink to rehearse: `wgctl uplink list` shows what there is",
                    code="no_uplink",
                )
            return watched
        uplink = service.uplinks.require(peer_id)
        if reason := service.distrust_reason(peer_id):
            raise NotTrusted(reason)
        if uplink not in watched:
            raise NotSupported(
                f"the uplink to {peer_id} is switched off: `wgctl uplink why` tells more",
                code="not_watched",
            )
        return [uplink]

    def _require_home(self) -> None:
        if any(state.phase in AWAY for state in self._service.monitor.states.values()):
            raise NotSupported(
                "traffic is on an uplink already, this is no time for a drill with all of it",
                code="failed_over",
            )

    def _best(self, chosen: Sequence[Uplink]) -> Uplink:
        now_s, monitor = time.monotonic(), self._service.monitor
        by_name = {uplink.interface: uplink for uplink in chosen}
        for family in Family:
            for ranked in monitor.ranked(family, now_s):
                if ranked.usable and ranked.candidate.name in by_name:
                    return by_name[ranked.candidate.name]
        raise NotSupported(
            "no uplink answers now: `wgctl uplink why` tells more", code="no_usable_uplink"
        )

    async def _rehearse(self, uplink: Uplink) -> list[Step]:
        service = self._service
        settings, offer = service.uplinks.config.settings, service.offers.peek(uplink.peer_id)
        return await rehearse(uplink, settings, service.monitor, offer)

    async def _lead(self, uplink: Uplink, steps: list[Step], seconds: int) -> None:
        if not any(step.ok for step in steps if step.name in TUNNEL_STEPS[1:]):
            steps.append(Step("traffic", False, "not tried, since no probe was answered"))
            return
        self._require_home()
        steps.append(await lead_traffic(self._service.monitor, uplink, seconds))

    def _told(self, uplink: Uplink, steps: Sequence[Step]) -> Table:
        """The outcome as the reply has it, written into the history."""
        bad = [step for step in steps if not step.ok]
        note = "; ".join(f"{step.name}: {step.told}" for step in bad)
        self._service.monitor.problems.pop(_topic(uplink.interface), None)
        kind = "drill_failed" if bad else "drill_passed"
        self._service.journal.peer("drill", kind, uplink.peer_id, note or "all went well")
        return {
            "peer_id": uplink.peer_id,
            "interface": uplink.interface,
            "ok": not bad,
            "note": note,
            "steps": [
                {"step": s.name, "ok": s.ok, "told": s.told, "took_ms": s.took_ms} for s in steps
            ],
        }

    async def follow_schedule(self) -> None:
        """The task: the harmless drill of all uplinks, every `drill_interval` days at night."""
        while True:
            await asyncio.sleep(LOOK_S)
            await self.drill_if_due(datetime.now())

    async def drill_if_due(self, clock: datetime) -> None:
        """Drill where the configuration and the clock say so, and nothing else is going on."""
        days = self._service.uplinks.config.settings.drill_interval_days
        monitor = self._service.monitor
        kept = {_topic(uplink.interface) for uplink in monitor.watch.uplinks}
        for topic in [t for t in monitor.problems if t.startswith(_topic("")) and t not in kept]:
            del monitor.problems[topic]
        away = any(state.phase in AWAY for state in monitor.states.values())
        if away or self._drilling or not monitor.watch.uplinks:
            return
        if is_due(days, clock, time.monotonic() - self._last_s):
            for done in (await self.drill())["drills"]:
                if not done["ok"]:
                    told = f"the drill of {done['peer_id']} failed, {done['note']}"
                    monitor.problems[_topic(done["interface"])] = told


def _topic(interface: str) -> str:
    return f"drill {interface}"
