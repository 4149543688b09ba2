"""Lease API: peers' requests for our offer and for leases, over the mesh and inside the tunnel.

Over the mesh a lease is for a trusted peer. Inside the tunnel the address is the lease: its holder
renews it or gives it back, also while the mesh is away.
"""

from __future__ import annotations

from typing import Any

from ..mesh.advertiser import Advertiser
from ..mesh.http import Request, Response
from ..mesh.offer_validation import OfferValidator
from ..mesh.peer_api import PeerApi
from ..mesh.registry.directory import MeshPeer
from ..mesh.registry.peers import Peers
from ..mesh.wire.lease import Denial, Deny, LeaseGrant, LeaseRelease, LeaseRequest
from ..model import PROVIDER_DEVICE
from ..values import dataclass
from .lease_server import LeaseServer
from .offer import OwnOffer

Table = dict[str, Any]
_STATUS: dict[str, int] = {
    Deny.NOT_TRUSTED: 403,
    Deny.UNBOUND: 403,
    Deny.OTHER_PEER: 403,
    Deny.NO_LEASE: 403,
    Deny.KEY_IN_USE: 409,
    Deny.ADDRESS_CONFLICT: 409,
    Deny.TOO_MANY: 429,
}
_NOT_ITS_OWN = Denial(Deny.NO_LEASE, "this lease is another's")


@dataclass(eq=False, repr=False)
class LeaseApi:
    """The routes `/v1/offer` and `/v1/lease`, and all that consumers may ask in their tunnels."""

    _api: PeerApi
    _peers: Peers
    _validator: OfferValidator
    _advertiser: Advertiser
    _own_offer: OwnOffer
    _lease_server: LeaseServer

    def __post_init__(self) -> None:
        api, server = self._api, self._lease_server
        api.add_route("GET", "/v1/offer", self._offer_to_peer)
        api.add_route("POST", "/v1/lease", self._grant_to_peer)
        api.add_route("DELETE", "/v1/lease", self._release_of_peer)
        api.add_device(PROVIDER_DEVICE, lambda: server.gateways, self._answer_consumer)

    async def _offer_to_peer(self, peer: MeshPeer, table: Table) -> Response:
        return self._offer()

    async def _grant_to_peer(self, peer: MeshPeer, table: Table) -> Response:
        wanted = LeaseRequest.parse(table)
        denial = self._peers.denial_of(peer, wanted.peer_id)
        return self._answer(denial or await self._own_offer.grant(wanted))

    async def _release_of_peer(self, peer: MeshPeer, table: Table) -> Response:
        release = LeaseRelease.parse(table)
        denial = self._peers.denial_of(peer, release.peer_id)
        if denial is not None and denial.code == Deny.OTHER_PEER:
            return self._answer(denial)
        return await self._release(release.public_key, release.peer_id)

    async def _answer_consumer(self, request: Request) -> Response:
        pool = self._lease_server.pool
        lease = pool.by_address(request.source) if pool is not None else None
        if lease is None or request.path not in ("/v1/lease", "/v1/offer"):
            return self._answer(Denial(Deny.NO_LEASE, "this address has no lease here"))
        if request.path == "/v1/offer":
            return self._offer()
        table = self._api.body_of(request)
        if request.method == "DELETE":
            if LeaseRelease.parse(table).public_key != lease.public_key:
                return self._answer(_NOT_ITS_OWN)
            return await self._release(lease.public_key, lease.peer_id)
        wanted = LeaseRequest.parse(table)
        if (wanted.public_key, wanted.peer_id) != (lease.public_key, lease.peer_id):
            return self._answer(_NOT_ITS_OWN)
        return self._answer(await self._own_offer.grant(wanted))

    def _offer(self) -> Response:
        if self._advertiser.own is not None:
            return Response(200, self._advertiser.own)
        return Response(404, {"code": Deny.NOT_OFFERING, "error": self._own_offer.reason()})

    async def _release(self, public_key: str, peer_id: str) -> Response:
        gone = await self._lease_server.release(public_key, peer_id)
        return Response(200, {"released": gone})

    def _answer(self, answer: LeaseGrant | Denial) -> Response:
        if isinstance(answer, LeaseGrant):
            return Response(200, answer.as_table())
        self._validator.count(answer.code)
        return Response(_STATUS.get(answer.code, 503), answer.as_table())
