"""Peer API: what peers may ask of this router over HTTP, and who is let through.

A request over the mesh is answered for the peer that its source address proves. Whoever serves
something adds its routes; a device other than the mesh's has a handler of its own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import field
from typing import Any

from ..config.store import ConfigStore
from ..errors import NotTrusted, Status, UplinkError
from ..schema.json_message import parse_json_message
from ..values import dataclass
from ..warnings import Warnings
from .advertiser import Advertiser
from .http import Request, Response, Server
from .offer_validation import OfferValidator
from .offers import Source
from .registry.directory import MeshPeer, plain_address
from .registry.peers import Peers
from .transport import MeshTransport
from .wire.lease import Identity

Table = dict[str, Any]
PeerHandler = Callable[[MeshPeer, Table], Awaitable[Response]]
"""Answers a mesh peer; the table is the request's body, empty for GET."""

_ERROR_STATUS = {
    Status.INVALID_ARGUMENT: 400,
    Status.PERMISSION_DENIED: 403,
    Status.NOT_SUPPORTED: 503,
}


@dataclass(eq=False, repr=False)
class PeerApi:
    """The HTTP server of one router, with the routes that the mesh itself needs."""

    _store: ConfigStore
    _peers: Peers
    _validator: OfferValidator
    _advertiser: Advertiser
    _transport: MeshTransport
    _warnings: Warnings
    _methods: dict[str, list[str]] = field(default_factory=dict)
    _handlers: dict[tuple[str, str], PeerHandler] = field(default_factory=dict)
    _devices: dict[str, Callable[[Request], Awaitable[Response]]] = field(default_factory=dict)
    _addresses: list[tuple[str, Callable[[], Iterable[str]]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        refused = self._validator.count
        self._server = Server(self.answer, self._methods, self._warnings, refused=refused)
        self.add_route("GET", "/v1/identity", self._identity)
        self.add_route("POST", "/v1/message", self._message)

    def add_route(self, method: str, path: str, handler: PeerHandler) -> None:
        """Have mesh peers' requests answered by `handler`."""
        self._methods.setdefault(path, []).append(method)
        self._handlers[method, path] = handler

    def add_device(
        self,
        device: str,
        addresses: Callable[[], Iterable[str]],
        handler: Callable[[Request], Awaitable[Response]],
    ) -> None:
        """Listen on a device that is none of the mesh's; `handler` decides who is let through."""
        self._devices[device] = handler
        self._addresses.append((device, addresses))

    def listen(self) -> None:
        config = self._store.current
        devices = [*self._peers.mesh.own.items(), *((d, found()) for d, found in self._addresses)]
        wanted = [
            (plain_address(text), config.peering.mesh_port, device)
            for device, texts in devices
            for text in texts
            if plain_address(text)
        ]
        self._server.listen(wanted if config.settings.enabled else [])

    async def close(self) -> None:
        await self._server.close()

    async def answer(self, request: Request) -> Response:
        try:
            if request.device in self._devices:
                return await self._devices[request.device](request)
            peer = self._peers.directory.source(request.source, request.device)
            if peer is None:
                raise NotTrusted(
                    "your address is not the own address of exactly one mesh peer",
                    code="not_a_peer",
                )
            table = {} if request.method == "GET" else self.body_of(request)
            return await self._handlers[request.method, request.path](peer, table)
        except UplinkError as error:
            if error.code == "not_a_peer":
                self._validator.count(error.code)
            status = _ERROR_STATUS.get(error.status, 500)
            return Response(status, {"code": error.code, "error": str(error)})

    def body_of(self, request: Request) -> Table:
        """The JSON object that a peer sent. Raises InvalidArgument, and counts that."""
        try:
            return parse_json_message(request.body)
        except UplinkError as error:
            self._validator.count(error.code)
            raise

    async def _identity(self, peer: MeshPeer, table: Table) -> Response:
        own = Identity(peer_id=self._peers.node_id, key=self._advertiser.identity_key)
        return Response(200, own.as_table())

    async def _message(self, peer: MeshPeer, table: Table) -> Response:
        """An offer or withdrawal that a peer sends of its own."""
        name = self._peers.directory.name_of(peer.key)
        if not name:
            self._transport.ask_soon(peer.key)
            raise NotTrusted(f"{self._peers.node_id} does not know your id yet", code="unknown")
        _, taken, told = self._validator.take(table, Source.DIRECT, "mesh", name)
        return Response(200, {"accepted": taken, "message": told})
