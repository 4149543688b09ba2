"""The mesh peers as they are now, and what each is worth: the newest reading, kept together.

Reads the mesh, master-link and secubox-p2p through their adapters, remembers what peers said of
themselves over the mesh, and asks trust.py. Decides nothing itself and changes no configuration.
"""

from __future__ import annotations

import asyncio
from dataclasses import field
from typing import Any

from ...config.store import ConfigStore
from ...config.wan_names import unknown_names
from ...errors import InvalidArgument, NotTrusted, UplinkError
from ...reasons import because
from ...system.rtnetlink import Kernel
from ...system.wg import Ages
from ...values import dataclass
from ...warnings import Warnings
from ..offers import OfferBook
from ..wire.lease import Denial, Deny, Identity
from ..wire.offer import Offer
from .directory import (
    Directory,
    Mesh,
    MeshPeer,
    Record,
    is_peer_id,
    own_node_id,
    proposed_id,
    read_mesh,
)
from .master_link import BusCall, read_approvals, read_records
from .trust import Approval, Ground, State, Verdict, verdict

Table = dict[str, Any]
MOST_SAID = 1000
LONGEST_MEND = 150


@dataclass(slots=True)
class Peers:
    """What is known of the mesh. `bus_call` reaches other packages' objects. `identities` maps ids
    to signing keys that were heard over the mesh.
    """

    store: ConfigStore
    offers: OfferBook
    warnings: Warnings
    kernel: Kernel
    bus_call: BusCall | None = None
    node_id: str = ""
    mesh: Mesh = field(default_factory=Mesh)
    ground: Ground = field(default_factory=Ground)
    identities: dict[str, str] = field(default_factory=dict)
    _approvals: tuple[Approval, ...] | None = None
    _records: tuple[Record, ...] = ()
    _said: dict[str, Identity] = field(default_factory=dict)
    _refused: dict[str, tuple[str, str]] = field(default_factory=dict)
    _verdicts: dict[tuple[str, bool], Verdict] = field(default_factory=dict)
    _ages: Ages = field(default_factory=Ages)

    @property
    def directory(self) -> Directory:
        """Who is who, as last read."""
        return self.ground.directory

    async def reread(self) -> bool:
        """Read everything again; whether anything that trust hangs on changed.

        What can't be read stays as it was, and is a warning.
        """
        settings = self.store.current.peering
        told = self.warnings
        self.node_id = await asyncio.to_thread(own_node_id, settings.node_id, problems=told)
        try:
            self.mesh = await read_mesh(self.kernel, settings.mesh_devices, self._ages)
            self._approvals = await read_approvals(self.bus_call, problems=told)
            self._records = await read_records(self.bus_call, problems=told) or ()
            self.warnings.clear_topic("mesh")
            unknown = unknown_names("mesh", self.mesh.missing, self.mesh.found)
            self.warnings.set("mesh names", unknown)
        except UplinkError as error:
            self.warnings.set("mesh", because("mesh_unread", error))
        keys = {peer.key for peer in self.mesh.peers}
        self._said = {key: said for key, said in self._said.items() if key in keys}
        self._refused = {key: told for key, told in self._refused.items() if key in keys}
        self._warn_of_same_id()
        return self.rebuild()

    def rebuild(self) -> bool:
        """Take the configuration as it is now; whether trust may have changed by it."""
        config = self.store.current
        before = self.ground
        self.ground = Ground(
            Directory(
                self.mesh.peers,
                pins=config.pins,
                mapped=config.peering.peers,
                records=self._records,
                said={key: said.peer_id for key, said in self._said.items()},
            ),
            self._approvals,
            config.settings.trusted_peers,
            config.peering.trust_source,
        )
        self._verdicts.clear()
        return _trust_part(before) != _trust_part(self.ground)

    def heard(self, peer: MeshPeer, table: Table) -> bool:
        """Take what a peer says of itself over the mesh; whether it is news.

        Raises InvalidArgument for what is no identity, NotTrusted where it says to be another's.
        """
        said = Identity.parse(table)
        self._refused.pop(peer.key, None)
        try:
            if said.peer_id == self.node_id:
                raise InvalidArgument(self._same_id(peer), code="own_id")
            self.require_own_name(peer, said.peer_id)
        except UplinkError as error:
            if len(self._refused) < MOST_SAID:
                self._refused[peer.key] = (said.peer_id, str(error))
            raise
        finally:
            self._warn_of_same_id()
        full = peer.key not in self._said and len(self._said) >= MOST_SAID
        if full or self._said.get(peer.key) == said:
            return False
        before, self._said[peer.key] = self.said_by(peer), said
        if before.key and self.identities.get(before.peer_id) == before.key:
            del self.identities[before.peer_id]  # or one with ever other ids would take all places
        if said.key and (said.peer_id in self.identities or len(self.identities) < MOST_SAID):
            self.identities[said.peer_id] = said.key
        self.rebuild()
        return True

    def _warn_of_same_id(self) -> None:
        same = [key for key, (peer_id, _) in self._refused.items() if peer_id == self.node_id]
        peers = [peer for key in same if (peer := self.directory.of_key(key)) is not None]
        if not peers:
            self.warnings.set("node_id", "")
            return
        own_key = self.mesh.devices.get(peers[0].device, self.node_id)
        other_id = proposed_id(self.node_id, own_key)
        self.warnings.set("node_id", because("same_id", self.node_id, other_id))

    def _same_id(self, peer: MeshPeer) -> str:
        other_id = proposed_id(self.node_id, peer.key)
        return because("says_our_id", peer.addresses[0], self.node_id, other_id)

    def require_own_name(self, peer: MeshPeer, peer_id: str) -> None:
        """NotTrusted where a peer goes by an id that is bound to another, or is bound to another
        id itself.
        """
        bound = self.directory.bound_key(peer_id)
        name = self.directory.name_of(peer.key)
        is_bound = bool(name) and self.directory.bound_key(name) == peer.key
        if bound not in (None, peer.key) or (is_bound and name != peer_id):
            told = because("other_peer", peer.addresses[0], peer_id)
            raise NotTrusted(told, code=Deny.OTHER_PEER)

    def identity_of(self, peer_id: str) -> str:
        """The signing key that a peer is known by: the pinned one, or what it said itself."""
        pin = self.directory.pin(peer_id)
        if pin is not None and pin.identity:
            return pin.identity
        peer = self.directory.named(peer_id)
        if peer is not None and (key := self.said_by(peer).key):
            return key
        return self.identities.get(peer_id, "") if is_peer_id(peer_id) else ""

    def identity(self, peer_id: str) -> Identity | None:
        """What the peer says at its mesh address; None before it did."""
        peer = self.directory.named(peer_id)
        return self._said.get(peer.key) if peer is not None else None

    def said_by(self, peer: MeshPeer) -> Identity:
        """What a mesh peer says of itself; '' for its id and its key before it did."""
        return self._said.get(peer.key) or Identity(peer_id="")

    def refused_of(self, peer: MeshPeer) -> tuple[str, str]:
        """The id that a mesh peer may not go by, and why; '' for both where there is none."""
        return self._refused.get(peer.key, ("", ""))

    def verdict(self, peer_id: str, *, local: bool = False) -> Verdict:
        """Whether the peer is trusted now; `local` for what this router's own programs say."""
        known = self._verdicts.get((peer_id, local))
        if known is None:
            peer = self.directory.named(peer_id)
            key = peer.key if peer is not None and not local else ""
            identity = self.said_by(peer).key if peer is not None else ""
            known = verdict(peer_id, self.ground, key=key, identity=identity, local=local)
            if len(self._verdicts) < 4 * MOST_SAID:
                self._verdicts[peer_id, local] = known
        return known

    def distrust_reason(self, peer_id: str) -> str:
        """Why a peer is not trusted; '' if it is.

        What its owner set up by hand needs no mesh, and nobody on the mesh who goes by the same id
        has a say in it. Without an uplink its offer decides.
        """
        uplink = self.store.current.uplink_to(peer_id)
        if uplink is not None:
            return self._reason_against(peer_id, local=not (uplink.leased or uplink.auto))
        offer = self.offers.names.get(peer_id)
        return self._reason_against(peer_id, local=offer is None or offer.carrier == "bus")

    def offer_distrust_reason(self, offer: Offer) -> str:
        """Why the peer that an offer came from is not trusted, whatever its owner set up."""
        return self.carrier_distrust_reason(offer.peer_id, offer.carrier)

    def carrier_distrust_reason(self, peer_id: str, carrier: str) -> str:
        """Why what comes of a peer by this carrier is not trusted."""
        return self._reason_against(peer_id, local=carrier == "bus")

    def _reason_against(self, peer_id: str, *, local: bool) -> str:
        """`local` is for what this router's own programs and its owner say."""
        reason = self.verdict(peer_id, local=local).reason
        if reason and local and self.directory.named(peer_id) is None:
            trusted = " ".join(sorted({*self.store.current.settings.trusted_peers, peer_id}))
            mend = f"`wgctl uplink set trusted_peer {trusted}`"
            if len(mend) > LONGEST_MEND:  # a thousand offers with it would be no reply any more
                mend = "one more `list trusted_peer` in /etc/config/wireguard-uplink"
            return because("not_trusted", peer_id, f"if you know whose it is, trust it with {mend}")
        return reason

    def denial_of(self, peer: MeshPeer, peer_id: str) -> Denial | None:
        """Why the mesh peer with that key, who says to be this one, gets no lease; None if it may.

        The sentence is for the other router's owner.
        """
        try:
            self.require_own_name(peer, peer_id)
        except NotTrusted as error:
            return Denial(Deny.OTHER_PEER, str(error))
        found = verdict(peer_id, self.ground, key=peer.key, identity=self.said_by(peer).key)
        if found.state is State.TRUSTED:
            return None
        told = f"{self.node_id} does not trust {peer_id} yet: its owner can, by "
        accept = f"`wgctl uplink trust accept {peer_id}` there"
        code = Deny.NOT_TRUSTED if found.state is State.UNTRUSTED else Deny.UNBOUND
        return Denial(code, told + accept)


def _trust_part(ground: Ground) -> object:
    return (
        ground.approvals,
        ground.trusted_peers,
        ground.source,
        ground.directory.pins,
        tuple((i, ground.directory.bound_key(i)) for i in ground.directory.peer_ids),
    )
