"""Automatic uplinks: as many as `min_uplinks` wants, none to a peer that is not trusted any more.

Also has the monitor know what each uplink costs and gives by the last offer of its own peer, and
the configuration keep that cost.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import field

from ..config.store import ConfigStore
from ..errors import UplinkError
from ..failover.decision import dead_for_s
from ..failover.monitor import Monitor
from ..mesh import upstream_identity
from ..mesh.offers import OfferBook
from ..mesh.registry.peers import Peers
from ..mesh.registry.trust import rejected_pins
from ..mesh.wire.offer import Offer
from ..model import Uplink
from ..reasons import because
from ..tasks import rest
from ..values import dataclass
from ..warnings import Warnings
from .adding import Adding
from .lease_client import LeaseClient
from .lifecycle import Uplinks
from .terms import cost_of, missing_uplink, terms_of

LOOK_S = 10.0
GIVEN_UP_S = 600.0  # an uplink that was dead for so long is not ready, and another is made
KEEP_COSTS_S = 7200.0  # flash is written at most so often because a peer's cost changed
PASS_OVER_S = 300.0  # a peer that no uplink could be made to: others have their turn


@dataclass(eq=False, repr=False)
class AutomaticUplinks:
    _store: ConfigStore
    _uplinks: Uplinks
    _adding: Adding
    _lease_client: LeaseClient
    _monitor: Monitor
    _offers: OfferBook
    _peers: Peers
    _upstream: upstream_identity.Upstream
    _warnings: Warnings
    _offer_of: dict[str, Offer] = field(default_factory=dict)
    _costs_due_s: float = 0.0
    _passed_over: dict[str, float] = field(default_factory=dict)
    _dropping: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def run(self) -> None:
        while True:
            await rest(LOOK_S)
            self.judge_terms()
            await self.keep_costs()
            await self.drop_untrusted()
            await self.keep_ready()

    def judge_terms(self) -> None:
        """What each uplink costs and gives, and whether it leaves by the WAN it should replace.

        The last offer counts, whatever its age: in an outage there may be no newer one.
        """
        uplinks = self._store.current.uplinks
        found = ((uplink, self._own_offer(uplink)) for uplink in uplinks)
        known = [(uplink, offer) for uplink, offer in found if offer is not None]
        self._offer_of = {offer.peer_id: offer for _, offer in known}
        terms = {
            uplink.interface: terms_of(offer, self._lease_client.limit_mbps(uplink))
            for uplink, offer in known
        }
        same_wan = {u.interface for u, offer in known if self._upstream.is_shared(offer)}
        self._monitor.learn_terms(terms, frozenset(same_wan))

    def _own_offer(self, uplink: Uplink) -> Offer | None:
        """The last offer that its own peer made: a stranger's by the same id does not count."""
        newest = self._offers.names.get(uplink.peer_id)
        if newest is not None and not self._peers.offer_distrust_reason(newest):
            return newest
        return self._offer_of.get(uplink.peer_id)

    async def keep_costs(self) -> None:
        """Keep what peers cost with their uplinks: a start must not take all for free."""
        now_s, uplinks = time.monotonic(), self._store.current.uplinks
        offers = ((uplink.interface, self._offer_of.get(uplink.peer_id)) for uplink in uplinks)
        costs = {interface: cost_of(offer) for interface, offer in offers if offer is not None}
        is_other = any(costs.get(each.interface, each.cost) != each.cost for each in uplinks)
        if is_other and now_s >= self._costs_due_s:
            self._costs_due_s = now_s + KEEP_COSTS_S
            await self._uplinks.keep_costs(costs)

    async def keep_ready(self) -> None:
        """Have `min_uplinks` uplinks, as far as trusted peers on the mesh offer them."""
        config = self._store.current
        if not (config.settings.enabled and config.settings.auto_failover):
            return
        now_s = time.monotonic()
        self._passed_over = {i: s for i, s in self._passed_over.items() if s > now_s}
        able = [offer for offer in self._offers.fresh(now_s) if self._is_able(offer)]
        sound = [
            uplink
            for uplink in config.uplinks
            if uplink.enabled
            and uplink.interface not in self._monitor.sharing_underlay()
            and dead_for_s(self._monitor, uplink.interface, now_s) < GIVEN_UP_S
        ]
        wanted, by_latency = config.settings.min_uplinks, config.settings.prefer_latency
        choice = missing_uplink(wanted, config.uplinks, len(sound), able, prefer_latency=by_latency)
        if not self._passed_over:
            self._warnings.clear_topic("min_uplinks")
        if choice is not None:
            try:
                await self._adding.add(choice.peer_id, auto=True)
            except UplinkError as error:
                self._passed_over[choice.peer_id] = time.monotonic() + PASS_OVER_S
                self._warnings.set("min_uplinks", because("none_made", choice.peer_id, error))

    def _is_able(self, offer: Offer) -> bool:
        """Whether an uplink may be made to the peer without its owner's word."""
        return (
            offer.peer_id not in self._passed_over
            and offer.peer_id not in self._store.current.settings.declined
            and self._peers.directory.named(offer.peer_id) is not None
            and not self._peers.offer_distrust_reason(offer)
            and not self._upstream.is_shared(offer)
        )

    # --- trust

    async def forget_rejected(self) -> None:
        """A pin that master-link rejects goes for good, since master-link itself forgets."""
        rejected = {pin.name for pin in rejected_pins(self._peers.ground)}
        if rejected:
            await self._store.edit(lambda config: config.without_pins(rejected))

    async def drop_untrusted(self) -> None:
        async with self._dropping:
            for uplink in self._store.current.uplinks:
                if uplink.auto and self._peers.distrust_reason(uplink.peer_id):
                    why = because("peer_untrusted")
                    await self._adding.remove(uplink.peer_id, why, decline=False)
