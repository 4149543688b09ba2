"""What peers may ask of this router over HTTP: the routes, and who is let through to them.

A request is answered for the mesh peer that its source address proves, or for the lease holder
inside the provider's tunnel. Owns no state but the count of what was refused. How requests arrive
is mesh_http's, what a lease is serving.py's, what may be believed intake.py's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..config.store import ConfigStore
from ..errors import NotTrusted, Status, UplinkError
from ..model import PROVIDER_DEVICE
from ..provider.lease_server import LeaseServer
from ..provider.offer import OwnOffer
from ..schema.json_message import parse_json_message
from ..warnings import Warnings
from .directory import MeshPeer, plain_address
from .http import Request, Response, Server
from .offer_validation import OfferValidator
from .offers import Source
from .peers import Peers
from .wire.lease import Denial, Deny, Identity, LeaseRelease, LeaseRequest

Table = dict[str, Any]
PATHS = {
    "/v1/identity": ("GET",),
    "/v1/offer": ("GET",),
    "/v1/message": ("POST",),
    "/v1/lease": ("POST", "DELETE"),
}
_STATUS: dict[str, int] = {
    Deny.NOT_TRUSTED: 403,
    Deny.UNBOUND: 403,
    Deny.OTHER_PEER: 403,
    Deny.NO_LEASE: 403,
    Deny.KEY_IN_USE: 409,
    Deny.ADDRESS_CONFLICT: 409,
}
_ERROR_STATUS = {
    Status.INVALID_ARGUMENT: 400,
    Status.PERMISSION_DENIED: 403,
    Status.NOT_SUPPORTED: 503,
}


class PeerApi:
    """Answers the requests of peers. `own_offer` gives the offer that stands (None: none does)
    and why not; `on_stranger` hears of a peer whose name is not known yet.
    """

    def __init__(
        self,
        peers: Peers,
        leases: OwnOffer,
        lease_server: LeaseServer,
        validator: OfferValidator,
        own_offer: Callable[[], tuple[Table | None, str]],
        identity_key: Callable[[], str],
        on_stranger: Callable[[MeshPeer], None],
        store: ConfigStore,
        warnings: Warnings,
    ) -> None:
        self._store = store
        self._server = Server(self.answer, PATHS, warnings, refused=validator.count)
        self._peers = peers
        self._leases = leases
        self._lease_server = lease_server
        self._identity_key = identity_key
        self._validator = validator
        self._own_offer = own_offer
        self._on_stranger = on_stranger

    def listen(self) -> None:
        """Listen on the mesh's own addresses, and inside consumers' tunnels."""
        config, pool = self._store.current, self._lease_server.pool
        port = config.peering.mesh_port
        wanted = [
            (plain_address(text), port, device)
            for device, texts in self._peers.mesh.own.items()
            for text in texts
            if plain_address(text)
        ]
        gateways = pool.gateways if pool is not None else ()
        wanted += [(plain_address(text), port, PROVIDER_DEVICE) for text in gateways]
        self._server.listen(wanted if config.settings.enabled else [])

    async def close(self) -> None:
        """Stop listening and end every connection."""
        await self._server.close()

    async def answer(self, request: Request) -> Response:
        """The answer to one request."""
        try:
            if request.device == PROVIDER_DEVICE:
                return await self._answer_consumer(request)
            peer = self._peers.directory.source(request.source, request.device)
            if peer is None:
                self._validator.count("not_a_peer")
                told = "your address is not the own address of exactly one mesh peer"
                return Response(403, {"code": "not_a_peer", "error": told})
            return await self._answer_peer(request, peer)
        except UplinkError as error:
            status = _ERROR_STATUS.get(error.status, 500)
            return Response(status, {"code": error.code, "error": str(error)})

    async def _answer_peer(self, request: Request, peer: MeshPeer) -> Response:
        if request.path == "/v1/identity":
            return Response(
                200, Identity(peer_id=self._peers.node_id, key=self._identity_key()).as_table()
            )
        if request.path == "/v1/offer":
            return self._offer()
        table = self._parse(request)
        if request.path == "/v1/message":
            return self._message(table, peer)
        if request.method == "DELETE":
            release = LeaseRelease.parse(table)
            denial = self._peers.denial_of(peer, release.peer_id)
            if denial is not None and denial[0] is Deny.OTHER_PEER:
                return self._denied(Denial(*denial))
            gone = await self._lease_server.release(release.public_key, release.peer_id)
            return Response(200, {"released": gone})
        wanted = LeaseRequest.parse(table)
        denial = self._peers.denial_of(peer, wanted.peer_id)
        if denial is not None:
            return self._denied(Denial(*denial))
        granted = await self._leases.grant(wanted)
        if isinstance(granted, Denial):
            return self._denied(granted)
        return Response(200, granted.as_table())

    async def _answer_consumer(self, request: Request) -> Response:
        """Inside the tunnel the address is the lease: its holder renews it or gives it back."""
        pool = self._lease_server.pool
        lease = pool.by_address(request.source) if pool is not None else None
        if lease is None or request.path not in ("/v1/lease", "/v1/offer"):
            return self._denied(Denial(Deny.NO_LEASE, "this address has no lease here"))
        if request.path == "/v1/offer":
            return self._offer()
        table = self._parse(request)
        if request.method == "DELETE":
            release = LeaseRelease.parse(table)
            if release.public_key != lease.public_key:
                return self._denied(Denial(Deny.NO_LEASE, "this lease is another's"))
            gone = await self._lease_server.release(lease.public_key, lease.peer_id)
            return Response(200, {"released": gone})
        wanted = LeaseRequest.parse(table)
        if (wanted.public_key, wanted.peer_id) != (lease.public_key, lease.peer_id):
            return self._denied(Denial(Deny.NO_LEASE, "this lease is another's"))
        granted = await self._leases.grant(wanted)
        if isinstance(granted, Denial):
            return self._denied(granted)
        return Response(200, granted.as_table())

    def _offer(self) -> Response:
        table, reason = self._own_offer()
        if table is None:
            return Response(404, {"code": Deny.NOT_OFFERING, "error": reason})
        return Response(200, table)

    def _message(self, table: Table, peer: MeshPeer) -> Response:
        """An offer or withdrawal that a peer tells of itself."""
        name = self._peers.directory.name_of(peer.key)
        if not name:
            self._on_stranger(peer)
            raise NotTrusted(f"{self._peers.node_id} does not know your id yet", code="unknown")
        _, taken, told = self._validator.take(table, Source.DIRECT, "mesh", name)
        return Response(200, {"accepted": taken, "message": told})

    def _parse(self, request: Request) -> Table:
        try:
            return parse_json_message(request.body)
        except UplinkError as error:
            self._validator.count(error.code)
            raise

    def _denied(self, denial: Denial) -> Response:
        self._validator.count(denial.code)
        return Response(_STATUS.get(denial.code, 503), denial.as_table())
