"""Adds and removes uplinks: from an offer or given values, with the lease that a provider grants.

The lock of changes is not held while a provider is asked or a tunnel shakes hands.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

from ..config.store import ConfigStore
from ..errors import InvalidArgument, NotFound, NotSupported, NotTrusted, UplinkError
from ..events import Events, UplinkChanged
from ..mesh.offers import OfferBook
from ..mesh.registry.peers import Peers
from ..mesh.wire.offer import Offer
from ..model import NOT_COUNTED, Uplink, normal_address
from ..platform.linux import Platform
from ..reasons import because
from ..schema.endpoints import parse_endpoint
from ..system import wg
from ..values import dataclass
from .lease_client import LeaseClient
from .lifecycle import Uplinks
from .terms import cost_of

HANDSHAKE_S = 1.0  # a handshake takes a round trip; more would only make a caller wait


@dataclass(frozen=True, slots=True)
class Given:
    """What an owner says of a new uplink; None leaves it to the offer, or as it is."""

    weight: int | None = None
    endpoint: str | None = None
    public_key: str | None = None
    address: str | None = None


@dataclass(frozen=True, slots=True)
class Added:
    """An uplink that is there now: whether it is new or changed, and whether it shook hands."""

    uplink: Uplink
    is_new: bool
    is_changed: bool
    shook_hands: bool


@dataclass(eq=False, repr=False)
class Adding:
    _platform: Platform
    _store: ConfigStore
    _uplinks: Uplinks
    _lease_client: LeaseClient
    _offers: OfferBook
    _peers: Peers
    _events: Events

    async def add(self, peer_id: str, given: Given = Given(), *, auto: bool = False) -> Added:
        """Make an uplink, or change what was given of one that exists."""
        async with self._uplinks.changing():
            await self._uplinks.mend_pending()
        existing = self._store.current.uplink_to(peer_id)
        offer = self._offers.get(peer_id, time.monotonic())
        if peer_id == self._peers.node_id:
            raise InvalidArgument(because("own_id", peer_id), code="own_id")
        base = existing or _base(peer_id, given, offer)
        is_complete = given.endpoint is not None and given.public_key is not None
        reason = self._peers.distrust_reason(peer_id)
        if existing is None and is_complete:  # what a stranger of that id offers is no matter
            reason = self._peers.carrier_distrust_reason(peer_id, "bus")
        if reason:
            raise NotTrusted(reason)
        if existing is None and not is_complete and offer is not None and not offer.available:
            raise NotSupported(because("peer_not_available", peer_id), code="not_available")
        wanted = _changed(base, given)
        wanted = replace(wanted, auto=auto and existing is None)
        if offer is not None and not self._peers.offer_distrust_reason(offer):
            wanted = replace(wanted, cost=cost_of(offer))
        private = ""
        if existing is None and not wanted.addresses:
            wanted, private = await self._with_lease(wanted, given)
        async with self._uplinks.changing():
            if self._store.current.uplink_to(peer_id) != existing:
                raise UplinkError(because("changed_meanwhile", peer_id), code="changed")
            if existing is None:
                wanted = await self._uplinks.create(wanted, private)
            elif wanted != existing:
                await self._uplinks.change(existing, wanted)
        if wanted != existing:
            kind = "uplink_added" if existing is None else "uplink_changed"
            cause = because("few_uplinks" if auto else "asked_for")
            self._events.publish(UplinkChanged(kind, wanted, cause))
        return Added(wanted, existing is None, wanted != existing, await self._shakes_hands(wanted))

    async def _with_lease(self, wanted: Uplink, given: Given) -> tuple[Uplink, str]:
        """The uplink with the place that its provider grants, and the private key for it ('' and
        unchanged without a lease). Nobody is asked whose mesh key the owner has not tied to the id.
        """
        if self._peers.verdict(wanted.peer_id).reason:
            return wanted, ""
        private, public = await wg.generate_keys()
        try:
            granted = await self._lease_client.ask(replace(wanted, own_public_key=public))
        except UplinkError:
            if given.endpoint is None or given.public_key is None:
                raise
            return wanted, ""  # all that a tunnel needs was given
        if granted is None:
            return wanted, ""
        if given.public_key not in (None, granted.public_key):
            self._lease_client.release(granted)  # another's than the owner named
            return wanted, ""
        if given.endpoint is not None:
            granted = replace(granted, endpoint=wanted.endpoint)
        return granted, private

    async def _shakes_hands(self, uplink: Uplink) -> bool:
        """Whether the tunnel has shaken hands, after HANDSHAKE_S at most."""
        deadline_s = time.monotonic() + HANDSHAKE_S
        while True:
            counted = (await self._platform.read_counters()).get(uplink.interface, NOT_COUNTED)
            if counted.handshake_age_s is not None:
                return True
            if time.monotonic() >= deadline_s:
                return False
            await asyncio.sleep(0.2)

    async def remove(
        self, peer_id: str, cause: str = because("asked_for"), *, decline: bool = True
    ) -> None:
        """Remove an uplink and what was made for it; traffic leaves it first.

        With `decline` it is not made again before the owner adds it himself.
        """
        async with self._uplinks.changing():
            uplink = self._uplinks.require(peer_id)
            await self._uplinks.remove(uplink, decline=decline)
        self._events.publish(UplinkChanged("uplink_removed", uplink, cause))
        self._lease_client.release(uplink)


def _base(peer_id: str, given: Given, offer: Offer | None) -> Uplink:
    if given.endpoint is not None and given.public_key is not None:
        return Uplink(peer_id, "", parse_endpoint(given.endpoint), given.public_key, ())
    if offer is None:
        raise NotFound(because("no_offer", peer_id), code="no_offer")
    return Uplink(peer_id, "", offer.endpoint, offer.public_key, ())


def _changed(base: Uplink, given: Given) -> Uplink:
    endpoint, public_key, address = given.endpoint, given.public_key, given.address
    return replace(
        base,
        weight=base.weight if given.weight is None else given.weight,
        endpoint=base.endpoint if endpoint is None else parse_endpoint(endpoint),
        public_key=base.public_key if public_key is None else public_key,
        addresses=base.addresses if address is None else (normal_address(address),),
    )
