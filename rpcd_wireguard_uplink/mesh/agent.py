"""Mesh agent: reads the mesh, hears what its peers answer, and says what changed.

Owns when that is done. Whom to trust is trust.py's, what may be believed offer_validation.py's.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import field
from typing import Any

from ..config.settings import Config
from ..config.store import ConfigChanged, ConfigStore
from ..errors import CommandFailed, UplinkError
from ..events import (
    Events,
    MeshChanged,
    NumbersChanged,
    OfferWithdrawn,
    PeerAnswered,
    PeerNews,
    TrustChanged,
)
from ..model import DEVICE_GROUP, is_own_name
from ..platform.network_reader import NetworkReader
from ..tasks import rest
from ..values import dataclass
from ..warnings import Warnings
from .offer_validation import OfferValidator
from .offers import OfferBook, Source
from .registry.directory import MeshPeer
from .registry.peers import Peers
from .transport import MeshTransport

Table = dict[str, Any]
MESH_S = 10.0
READ_S = 60.0  # where there is no mesh, one is looked for so often
TUNNEL_KINDS = ("wireguard", "tun")  # wireguard-go's devices are the latter


@dataclass(eq=False, repr=False)
class MeshAgent:
    _store: ConfigStore
    _peers: Peers
    _offers: OfferBook
    _validator: OfferValidator
    _network: NetworkReader
    _warnings: Warnings
    _events: Events
    _known_devices: set[str] = field(default_factory=set)
    _followed: tuple[Config, str] | None = None
    _trusted_before: frozenset[str] | None = None

    def __post_init__(self) -> None:
        self.transport = MeshTransport(self._store, self._on_identity, self._on_offer)

    async def start(self) -> None:
        """Read the mesh; nothing that fails here stops the service."""
        with self._warnings.catch("start"):  # the task that looks around tries again
            await self.follow_mesh()
            await self._announce_config()
            await self._events.publish_and_wait(TrustChanged())

    async def run(self) -> None:
        """The task: look around, for ever."""
        last_s = float("-inf")
        while True:
            await rest(MESH_S)
            # Where there is no mesh, one comes with a new device, or a new peer of one.
            links = self._network.state.links.values()
            devices = {link.name for link in links}
            is_known = devices == self._known_devices and "mesh" not in self._warnings
            able = any(k.kind in TUNNEL_KINDS and not is_own_name(k.name) for k in links)
            is_due = able and time.monotonic() - last_s > READ_S
            if self._peers.mesh.own or is_due or not is_known:
                last_s = time.monotonic()
                await self.follow_mesh()
                self._known_devices = devices
            # A call that came first may have read what its owner changed.
            if self._followed != (self._store.current, self._peers.node_id):
                await self._announce_config()
            self._warnings.clear_topic("start")

    async def follow_mesh(self) -> None:
        """Read the mesh again, and have everybody follow."""
        is_trust_changed = await self._peers.reread()
        await self._events.publish_and_wait(MeshChanged())
        self.transport.follow(self._peers.directory.peers)
        self._group_devices()
        if is_trust_changed:
            await self._events.publish_and_wait(TrustChanged())

    async def _announce_config(self) -> None:
        await self._events.publish_and_wait(ConfigChanged(None, self._store.current))

    async def follow_config(self, event: ConfigChanged) -> None:
        """Take a changed configuration: it may say who is trusted."""
        self._followed, self._known_devices = (event.new, self._peers.node_id), set()
        if self._peers.rebuild():
            await self._events.publish_and_wait(TrustChanged())

    def _group_devices(self) -> None:
        """Mesh devices are no WANs and no way for a tunnel's outer packets."""
        network = self._network.state
        wans = set(network.wan_devices())
        for link in network.links.values():
            if link.name in self._peers.mesh.own and link.group == 0 and link.name not in wans:
                with suppress(CommandFailed):  # it went away
                    self._network.platform.kernel.set_device(link.name, group=DEVICE_GROUP)

    def report_trust(self) -> None:
        """Publish whose trust is other than before; what a start finds is no news."""
        verdict, ids = self._peers.verdict, self._peers.directory.peer_ids
        now = frozenset(peer_id for peer_id in ids if not verdict(peer_id).reason)
        before = now if self._trusted_before is None else self._trusted_before
        self._trusted_before = now
        for peer_id in sorted(before ^ now):
            reason = verdict(peer_id).reason
            if reason:
                self._offers.forget(peer_id)
            kind = "untrusted" if reason else "trusted"
            self._events.publish(PeerNews("trust", kind, peer_id, reason))

    # --- answers of peers

    def _on_identity(self, peer: MeshPeer, table: Table) -> None:
        try:
            if self._peers.heard(peer, table):
                self._events.publish(NumbersChanged())
        except UplinkError as error:
            self._validator.count(error.code)

    def _on_offer(self, peer: MeshPeer, table: Table | None) -> None:
        name = self._peers.directory.name_of(peer.key)
        if not name:
            return
        self._events.publish(PeerAnswered(name))
        if table is None:
            known = self._offers.names.get(name)
            is_local = known is not None and known.carrier == "bus"
            if is_local and self._peers.carrier_distrust_reason(name, "mesh"):
                return
            if self._offers.withdraw(name, source=Source.DIRECT):
                self._events.publish(OfferWithdrawn(name, "the peer has no offer"))
            return
        try:
            self._validator.take(table, Source.DIRECT, "mesh", name)
        except UplinkError:
            return  # counted there
