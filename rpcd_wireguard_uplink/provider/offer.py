"""This router's own offer: whether it holds now, and what it says.

An offer holds while it is configured, the WAN is alive and the quota is not used up; a dead WAN
takes it back at once, and it comes again after the hold time.
"""

from __future__ import annotations

import asyncio
import time

from ..config.store import ConfigStore
from ..errors import NotSupported
from ..events import Event, Events, PeerNews
from ..failover.monitor import Monitor
from ..failover.paths import WatchedPath
from ..mesh.offers import Numbering
from ..mesh.upstream_identity import LOOP_PREFIX, Upstream, fitting
from ..mesh.wire.lease import Denial, Deny, LeaseGrant, LeaseRequest
from ..mesh.wire.offer import Offer, Withdrawal
from ..model import Family, Health
from ..reasons import because
from ..storage.state_file import now_text
from ..tasks import rest
from ..values import dataclass
from .lease_server import LeaseServer
from .site import Site

OFFER_TTL_S = 900
REPEAT_S = 300.0  # an offer that others carry is repeated long before it expires
NAME_S = 60.0
LOOK_S, IDLE_S = 1.0, 10.0  # how often the hold time is looked after; the latter where none is made
MEASURE_S = 4.0  # the first verdict on a WAN takes about two


@dataclass(frozen=True, slots=True)
class OfferAnnounced(Event):
    """What the mesh is to know of our offer from now on."""

    message: Offer | Withdrawal


@dataclass(eq=False, repr=False)
class OwnOffer:
    """The offer of one router; each change of it is published as OfferAnnounced."""

    _store: ConfigStore
    _lease_server: LeaseServer
    _monitor: Monitor
    _upstream: Upstream
    _numbering: Numbering
    _events: Events
    is_offered: bool = False
    _lost: bool = False
    _has_ended: bool = False
    _alive_since_s: float | None = None

    @property
    def _site(self) -> Site:
        return self._lease_server.site

    async def run(self) -> None:
        """The task: look after the hold time, repeat what others carry, name the way out."""
        announced_s, named_s = time.monotonic(), float("-inf")
        while True:
            await rest(LOOK_S if self._site.enabled else IDLE_S)
            now_s = time.monotonic()
            self.watch()
            if now_s - named_s > NAME_S:
                named_s = now_s
                if self._upstream.follow(self._monitor.network.state):
                    self.announce()
            if now_s - announced_s > REPEAT_S:
                announced_s = now_s
                self.announce()

    def watch(self) -> None:
        """Look whether the offer holds now; cheap, called at all news of the WANs."""
        alive = self._wan_is_alive()
        now_s = time.monotonic()
        if alive is False:
            self._alive_since_s, self._lost = None, True
        elif alive and self._alive_since_s is None:
            self._alive_since_s = now_s
        reason = self.reason()
        if (not reason) != self.is_offered:
            self._turn(reason)

    def reason(self) -> str:
        """Why the offer does not hold now; '' if it does."""
        if self._has_ended:
            return because("stopping")
        if not self._site.enabled or self._lease_server.pool is None:
            return self._lease_server.failure or because("not_configured")
        if self._alive_since_s is None:
            return because("wan_dead" if self._lost else "wan_unseen")
        held_s = time.monotonic() - self._alive_since_s
        if self._lost and held_s < self._store.current.settings.hold_s:
            return because("wan_must_hold")
        if self._lease_server.is_spent:
            return because("quota_spent")
        if self._site.blocked:
            return self._site.blocked
        return "" if self._site.endpoints else because("no_own_address")

    def _wan_is_alive(self) -> bool | None:
        """Whether the first WAN answers; None while that is not known."""
        path = self._first_path()
        if path is None:  # before the first reading of the kernel, or no default route is left
            return None if self._alive_since_s is None else False
        if path.health.state is Health.UNKNOWN:
            return None
        return path.health.state is not Health.DOWN

    def _first_path(self) -> WatchedPath | None:
        """The WAN that consumers' traffic takes, in the first family that has one."""
        monitor = self._monitor
        for family in Family:
            primary = monitor.network.state.wans[family].primary
            path = monitor.paths.get((primary.device, family)) if primary is not None else None
            if path is not None:
                return path
        return None

    def _turn(self, reason: str) -> None:
        self.is_offered = not reason
        self._lost = self._lost and not self.is_offered
        kind = "offering" if self.is_offered else "withdrawn"
        cause = reason or because("wan_works")
        self._events.publish(PeerNews("offer", kind, self._site.node_id, cause))
        self._events.publish(OfferAnnounced(self.message()))

    def announce(self) -> None:
        """Tell the mesh again what is offered: its terms may have changed."""
        if self.is_offered:
            self._events.publish(OfferAnnounced(self.message()))

    def shut_down(self) -> None:
        """Withdraw for good, so that nobody counts on a router whose service ends."""
        self._has_ended = True
        self.watch()

    async def grant(self, request: LeaseRequest) -> LeaseGrant | Denial:
        """Give a trusted peer a place, or say why not; a dead WAN takes nobody's place away."""
        pool = self._lease_server.pool
        if pool is not None and pool.by_key(request.public_key) is None:
            refusal = self.refusal()
            if refusal is not None:
                return refusal
        return await self._lease_server.grant(request)

    def refusal(self) -> Denial | None:
        """Why no new lease is given now; None where it is."""
        if self.is_offered:
            return None
        code = Deny.QUOTA_SPENT if self._lease_server.is_spent else Deny.WAN_DOWN
        if self._site.blocked:
            code = Deny.NOT_OFFERING
        return Denial(code, f"{self._site.node_id} can't serve now: {self.reason()}")

    def message(self) -> Offer | Withdrawal:
        """What the mesh is to know now, with a new sequence."""
        sequence = self._numbering.next(time.time())
        active = {
            uplink.peer_id
            for uplink in self._store.current.uplinks
            for state in self._monitor.states.values()
            if state.active == uplink.interface
        }
        egress = fitting(
            (*(LOOP_PREFIX + peer_id for peer_id in sorted(active)), *self._upstream.tokens)
        )
        if not (self.is_offered and self._site.endpoints):
            return Withdrawal(
                peer_id=self._site.node_id,
                timestamp=now_text(),
                sequence=sequence,
                reason=self.reason()[:80],
                egress=egress,
            )
        return Offer.of(
            *(self._site, self._site.settings, self._site.endpoints[0]),
            peer_id=self._site.node_id,
            latency_ms=self.latency_ms(),
            timestamp=now_text(),
            sequence=sequence,
            ttl_s=OFFER_TTL_S,
            egress=egress,
            quota_left_gb=round(self._lease_server.quota_left_gb, 3),
        )

    def latency_ms(self) -> float:
        """As configured, or else as the first WAN is measured now; -1 while unknown."""
        if self._site.settings.latency_ms >= 0:
            return self._site.settings.latency_ms
        path = self._first_path()
        return -1.0 if path is None else round(path.health.latency_ms, 1)

    async def require_wan(self) -> None:
        """Wait at most MEASURE_S for a verdict on the WAN; NotSupported where it is dead."""
        for _ in range(int(MEASURE_S / 0.1)):
            if self._wan_is_alive() is not None:
                break
            await asyncio.sleep(0.1)
        if not self._wan_is_alive():
            raise NotSupported(because("wan_silent"), code="wan_down")

    def require_forwarding(self) -> None:
        """NotSupported, with the command that mends it, where the kernel forwards nothing."""
        if told := self._site.forwarding_fault():
            raise NotSupported(told, code="no_forwarding")
