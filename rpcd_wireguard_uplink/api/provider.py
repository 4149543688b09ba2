"""The methods about offering this router's internet and about trust.

Each is a change of the configuration that is understood, made under the lock of changes, and what
must follow from it; a change whose consequences fail is taken back.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

from ..config.options import ProviderSettings
from ..config.settings import Config
from ..config.store import ConfigStore
from ..errors import CommandFailed, NotSupported, UplinkError
from ..events import Events, StatusChanged
from ..mesh.agent import MeshAgent
from ..mesh.offer_validation import OfferValidator
from ..mesh.offers import OfferBook
from ..mesh.registry.listing import trust_row, trust_rows
from ..mesh.registry.peers import Peers
from ..mesh.registry.trust import pins_to_revoke, wanted_pin
from ..mesh.wire.lease import Identity
from ..provider.lease_server import LeaseServer
from ..provider.offer import OwnOffer
from ..reasons import because
from ..values import dataclass
from . import replies as r


@dataclass(eq=False, repr=False)
class ProviderMethods:
    _store: ConfigStore
    _peers: Peers
    _validator: OfferValidator
    _lease_server: LeaseServer
    _own_offer: OwnOffer

    async def uplink_offer(self, **given: Any) -> r.Offered:
        await self._own_offer.require_wan()
        self._own_offer.require_forwarding()
        before = self._lease_server.site.settings
        wanted = replace(before, enabled=True, **given)
        if wanted.limit_mbps and (reason := await self._lease_server.site.device.can_shape()):
            raise NotSupported(reason, code="no_shaping")
        wanted = self._lease_server.site.with_pools(wanted)
        await self._write(wanted)
        if failure := self._lease_server.failure:
            await self._write(before)
            raise CommandFailed(because("not_offered", failure))
        self._own_offer.announce()
        node_id = self._peers.node_id
        return r.Offered(
            message=f"{node_id} offers its internet to trusted mesh peers.",
            offer=self._offer(),
            note=self._note(),
        )

    def _offer(self) -> r.OwnOffer:
        server, site = self._lease_server, self._lease_server.site
        first = next((str(each.endpoint) for each in site.endpoints), "")
        return r.OwnOffer.of(
            site.settings,
            peer_id=site.node_id,
            available=self._own_offer.is_offered,
            reason=self._own_offer.reason(),
            latency_ms=self._own_offer.latency_ms(),
            quota_left_gb=server.quota_left_gb,
            consumers=len(server.pool.leases) if server.pool is not None else 0,
            endpoint=first,
            public_key=site.public_key,
        )

    def _note(self) -> str:
        """What keeps peers from using the offer, as a sentence."""
        peers = self._peers
        if not peers.mesh.own:
            return because("no_mesh")
        if not any(not peers.verdict(i).reason for i in peers.directory.peer_ids):
            return because("nobody_trusted")
        return ""

    async def uplink_withdraw(self) -> r.Done:
        """Take the offer back; what consumers had is kept for the next time."""
        was_on = self._lease_server.site.settings.enabled
        if was_on:
            await self._write(replace(self._lease_server.site.settings, enabled=False))
        told = "offers its internet no more" if was_on else "did not offer its internet"
        return r.Done(message=f"{self._peers.node_id} {told}.")

    async def _write(self, settings: ProviderSettings) -> None:
        if settings == self._store.current.provider:
            await self._lease_server.follow()  # what another program has removed comes back
        await self._store.edit(lambda config: replace(config, provider=settings))

    async def uplink_consumers(self) -> r.Consumers:
        with contextlib.suppress(UplinkError):  # what was counted last is shown then
            await self._lease_server.recount()
        refused = sorted(self._validator.refused.items())
        return r.Consumers(
            offering=int(self._lease_server.site.settings.enabled),
            offer=self._offer(),
            consumers=self._lease_server.consumer_rows(),
            refused=[r.Denial(code=code, count=count) for code, count in refused],
        )


@dataclass(eq=False, repr=False)
class TrustMethods:
    _store: ConfigStore
    _offers: OfferBook
    _peers: Peers
    _agent: MeshAgent
    _events: Events

    def uplink_trust(self) -> r.TrustList:
        port = self._store.current.peering.mesh_port
        rows = trust_rows(self._peers, self._agent.transport.failure_of, port)
        return r.TrustList(node_id=self._peers.node_id, peers=rows)

    async def uplink_trust_accept(self, peer_id: str, fingerprint: str = "") -> r.Trusted:
        await self._agent.follow_mesh()
        ground = self._peers.ground
        pin = wanted_pin(peer_id, ground, await self._identity(peer_id), fingerprint)
        await self._store.edit(lambda config: config.with_pin(pin))
        self._agent.transport.ask_soon(pin.mesh_key)
        return r.Trusted(
            message=f"{peer_id} is trusted now.",
            peer_id=peer_id,
            peer=trust_row(self._peers, peer_id),
        )

    async def _identity(self, peer_id: str) -> Identity | None:
        """What the peer says at its mesh address now, or has said; None where it never did."""
        peers = self._peers
        claimants = peers.directory.claimants(peer_id)
        found = claimants[0] if len(claimants) == 1 else peers.directory.named(peer_id)
        if found is None or not found.addresses:
            return peers.identity(peer_id)
        try:
            status, table = await self._agent.transport.call(found, "GET", "/v1/identity")
            return Identity.parse(table) if status == 200 else None
        except UplinkError:
            return peers.identity(peer_id)

    async def uplink_trust_revoke(self, peer_id: str) -> r.DonePeer:
        pins = pins_to_revoke(peer_id, self._peers.ground)

        def change(config: Config) -> Config:
            trusted = config.settings.trusted_peers - {peer_id}
            return config.without_pins(pins).with_settings(trusted_peers=trusted)

        await self._store.edit(change)
        self._offers.forget(peer_id)
        self._events.publish(StatusChanged())
        return r.DonePeer(message=f"{peer_id} is not trusted any more.", peer_id=peer_id)
