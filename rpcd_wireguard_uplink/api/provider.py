"""The methods about offering this router's internet and about trust.

Each is a change of the configuration that is understood, made under the lock of changes, and what
must follow from it; a change whose consequences fail is taken back. Replies are tables as the
method table promises them.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

from ..config.options import MAIN_NAME, PIN_TYPE, PROVIDER_NAME, PROVIDER_TYPE
from ..config.peering import ProviderSettings
from ..config.writer import section_of
from ..errors import CommandFailed, NotSupported, UplinkError
from ..mesh.agent import MeshAgent
from ..mesh.http import request
from ..mesh.trust import wanted_pin, wanted_revocation
from ..mesh.wire.lease import Identity, parse_identity
from ..uci import Draft

Table = dict[str, Any]
CONFIRM_S = 3.0


class PeerService:
    """The handlers of `uplink_offer`, `uplink_withdraw`, `uplink_consumers` and `uplink_trust*`."""

    def __init__(self, agent: MeshAgent) -> None:
        self._agent = agent
        self._service = agent.service
        self._lease_server = agent.lease_server
        self._own_offer = agent.own_offer

    # --- offering

    async def offer(self, **given: Any) -> Table:
        """Offer this router's internet, or change the terms of what is offered."""
        await self._own_offer.require_line()
        self._own_offer.require_forwarding()
        before = self._lease_server.settings
        wanted = replace(before, enabled=True, **given)
        if wanted.limit_mbps and (reason := await self._lease_server.provider.can_shape()):
            raise NotSupported(reason, code="no_shaping")
        wanted = await self._lease_server.with_pools(wanted)
        await self._write(wanted)
        await self._agent.follow_config()
        failure = self._lease_server.problems.get("provider")
        if failure is not None:
            await self._write(before)
            await self._agent.follow_config()
            raise CommandFailed(f"nothing is offered: {failure}")
        self._own_offer.announce()
        node_id = self._agent.peers.node_id
        return {
            "success": True,
            "message": f"{node_id} offers its internet to trusted mesh peers.",
            "offer": self._own_offer.offer_table(),
            "note": self._note(),
        }

    def _note(self) -> str:
        """What keeps peers from using the offer, as a sentence."""
        if not self._agent.peers.mesh.own:
            return (
                "No mesh is known: bring its WireGuard device up, give each peer an address of "
                "its own (/32 or /128) in allowed_ips, or name the device by list mesh."
            )
        peers = self._agent.peers
        if not any(not peers.standing(i).reason for i in peers.directory.peer_ids):
            return "No mesh peer is trusted yet: `wgctl uplink trust` lists them."
        return ""

    async def withdraw(self) -> Table:
        """Take the offer back; what consumers had is kept for the next time."""
        was_on = self._lease_server.settings.enabled
        if was_on:
            await self._write(replace(self._lease_server.settings, enabled=False))
            await self._agent.follow_config()
        node_id = self._agent.peers.node_id
        told = "offers its internet no more" if was_on else "did not offer its internet"
        return {"success": True, "message": f"{node_id} {told}."}

    async def _write(self, settings: ProviderSettings) -> None:
        options = section_of(settings).options
        await self._agent.edit(
            lambda draft: draft.set_section(PROVIDER_NAME, PROVIDER_TYPE, options)
        )

    async def consumers(self) -> Table:
        """Who has a lease, and what was refused."""
        with contextlib.suppress(UplinkError):  # what was counted last is shown then
            await self._lease_server.recount()
        refused = sorted(self._service.validator.refused.items())
        return {
            "offering": int(self._lease_server.settings.enabled),
            "offer": self._own_offer.offer_table(),
            "consumers": self._lease_server.consumer_rows(),
            "refused": [{"code": code, "count": count} for code, count in refused],
        }

    # --- trust

    def trust_list(self) -> Table:
        """Every WireGuard peer, and whom the owner trusts, with what is missing."""
        peers = self._agent.peers
        failure_of = self._agent.advertiser.mesh.failure_of
        return {
            "node_id": peers.node_id,
            "peers": peers.rows(self._service.offers.names, failure_of),
        }

    async def trust_accept(self, peer_id: str, fingerprint: str = "") -> Table:
        """Confirm whose mesh key and identity a peer's are, and trust it."""
        peers = self._agent.peers
        await peers.reread()
        pin = wanted_pin(peer_id, peers.ground, await self._identity(peer_id), fingerprint)
        options = section_of(pin).options
        await self._agent.edit(lambda draft: draft.set_section(pin.name, PIN_TYPE, options))
        peers.rebuild()
        await self._agent.trust_changed()
        self._agent.advertiser.mesh.ask_soon(pin.mesh_key)
        return {
            "success": True,
            "message": f"{peer_id} is trusted now.",
            "peer_id": peer_id,
            "peer": peers.row(peer_id, self._service.offers.names),
        }

    async def _identity(self, peer_id: str) -> Identity | None:
        """What the peer says at its mesh address now, or has said; None where it never did."""
        peers = self._agent.peers
        claimants = peers.directory.claimants(peer_id)
        found = claimants[0] if len(claimants) == 1 else peers.directory.named(peer_id)
        if found is None or not found.addresses:
            return peers.identity(peer_id)
        port = self._service.uplinks.config.peering.mesh_port
        try:
            status, table = await request(
                found.addresses[0],
                port,
                "GET",
                "/v1/identity",
                None,
                device=found.device,
                timeout_s=CONFIRM_S,
            )
            said = parse_identity(table) if status == 200 else None
        except UplinkError:
            return peers.identity(peer_id)
        return said

    async def trust_revoke(self, peer_id: str) -> Table:
        """Trust a peer no longer."""
        peers = self._agent.peers
        revoked = wanted_revocation(peer_id, peers.ground)

        def write(draft: Draft) -> None:
            for name in revoked.pins:
                draft.remove_section(name)
            if revoked.listed:
                draft.del_list(MAIN_NAME, "trusted_peer", peer_id)

        await self._agent.edit(write)
        peers.rebuild()
        await self._agent.trust_changed()
        self._service.offers.forget(peer_id)
        self._service.journal.changed()
        return {
            "success": True,
            "message": f"{peer_id} is not trusted any more.",
            "peer_id": peer_id,
        }
