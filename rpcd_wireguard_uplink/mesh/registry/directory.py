"""Who is who on the mesh: WireGuard's peers, which addresses prove which peer, and their ids.

Owns the rule that an address proves a peer only where it is the own /32 or /128 of exactly one key;
a wider prefix proves nothing for the addresses inside it, and neither does our own address. Ids are
names: the owner's pins and `list peer` bind one to a key, anything else is a claim. Whether a peer
is trusted is trust.py's. Tunnels of uplinks are no mesh.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
from collections.abc import Collection, Iterable, Mapping, MutableMapping
from dataclasses import field

from ...config.options import Pin
from ...schema.shapes import PEER_ID
from ...system.files import read_or_tell, read_text
from ...system.rtnetlink import Kernel, by_device
from ...system.wg import Ages, Device, read_devices
from ...values import dataclass

NODE_ID_FILE = "/var/run/secubox-p2p/node.id"  # _init_node_info, secubox-p2p
UPLINK_DEVICES = "wgup"
_PEER_ID = re.compile(PEER_ID["pattern"])


@dataclass(frozen=True, slots=True)
class MeshPeer:
    """A WireGuard peer of a mesh device. `addresses` are literals that only this key can send from;
    `handshake_age_s` is None before the first handshake, `allowed` are its allowed networks.
    """

    device: str
    key: str
    addresses: tuple[str, ...] = ()
    endpoint: str = ""
    handshake_age_s: float | None = None
    allowed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Mesh:
    """The mesh as the kernel has it: its peers, and our own addresses with prefix by device.

    `addresses` are all plain ones that this router has, on the mesh or not. `others` are peers of
    WireGuard devices that are neither mesh nor uplink, such as a commercial VPN's, `devices` are
    theirs and the mesh's, with this router's public key there. `missing` are names that the owner
    gave and no WireGuard device of `found` has.
    """

    peers: tuple[MeshPeer, ...] = ()
    own: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    addresses: frozenset[str] = frozenset()
    others: tuple[MeshPeer, ...] = ()
    devices: Mapping[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    found: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Record:
    """What another package says of a peer: a claim. `name` is the host name, '' if not told."""

    peer_id: str
    name: str = ""
    addresses: tuple[str, ...] = ()


def plain_address(text: str) -> str:
    """The one spelling of an address without its prefix length and scope; '' for none of a host.

    An IPv4 address in an IPv6 socket (::ffff:0:0/96) is the IPv4 address.
    """
    try:
        ip = ipaddress.ip_address(text.partition("/")[0].partition("%")[0])
    except ValueError:
        return ""
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return "" if ip.is_unspecified or ip.is_multicast or ip.is_loopback else str(ip)


def peers_on(devices: Mapping[str, Device], own: Iterable[str]) -> tuple[MeshPeer, ...]:
    """The peers of these devices; `own` are our addresses on the mesh."""
    found = [(name, peer) for name, device in devices.items() for peer in device.peers]
    owners: dict[str, set[str]] = {plain_address(text): set() for text in own}
    ours = set(owners)
    for _, peer in found:
        for address in _hosts(peer.allowed):
            owners.setdefault(address, set()).add(peer.public_key)
    return tuple(
        MeshPeer(
            device=name,
            key=peer.public_key,
            addresses=tuple(
                address
                for address in _hosts(peer.allowed)
                if len(owners[address]) == 1 and address not in ours
            ),
            endpoint=peer.endpoint,
            handshake_age_s=peer.handshake_age_s,
            allowed=peer.allowed,
        )
        for name, peer in found
    )


def _hosts(allowed: Iterable[str]) -> list[str]:
    """The addresses among a peer's allowed prefixes that are one host's alone."""
    pairs = (text.partition("/") for text in allowed)
    found = (
        plain_address(host)
        for host, _, length in pairs
        if length == ("128" if ":" in host else "32")
    )
    return [address for address in found if address]


async def read_mesh(kernel: Kernel, only: Collection[str], ages: Ages) -> Mesh:
    """The mesh as it is now. `only` names its devices; where it is empty they are those on which
    a peer has an address of its own, which a commercial VPN's server has not.

    Raises CommandFailed or TimedOut where `wg` or the kernel can't be asked.
    """
    every = {
        name: device
        for name, device in (await read_devices(ages)).items()
        if not name.startswith(UPLINK_DEVICES)
    }
    devices = {name: device for name, device in every.items() if not only or name in only}
    found = by_device(kernel.addresses())
    plain = {plain_address(text) for texts in found.values() for text in texts}
    peers = peers_on(devices, [text for name in devices for text in found.get(name, ())])
    proven = set(only) or {peer.device for peer in peers if peer.addresses}
    return Mesh(
        tuple(peer for peer in peers if peer.device in proven),
        {device: tuple(found.get(device, ())) for device in devices if device in proven},
        frozenset(plain - {""}),
        tuple(peer for peer in peers if peer.device not in proven),
        {name: device.public_key for name, device in devices.items()},
        tuple(name for name in only if name not in every),
        tuple(every),
    )


def own_node_id(
    configured: str,
    node_id_file: str = NODE_ID_FILE,
    problems: MutableMapping[str, str] | None = None,
) -> str:
    """This router's id: the configured one, secubox-p2p's, or the host name made to fit.

    `problems` gets a sentence where secubox-p2p's file is not to be read.
    """
    if configured:
        return configured
    told = read_or_tell(read_text, node_id_file, "", problems).strip()
    return told if is_peer_id(told) else fitting_id(os.uname().nodename)


def fitting_id(name: str) -> str:
    """A name made to fit a peer id: other characters become hyphens; 'router' if none is left."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:64] or "router"


def proposed_id(name: str, key: str) -> str:
    """An id that tells routers of one host name apart; from the mesh key, so all propose it."""
    return f"{name[:59]}-{hashlib.sha256(key.encode()).hexdigest()[:4]}"


def is_peer_id(text: str) -> bool:
    return _PEER_ID.fullmatch(text) is not None


class Directory:
    """Mesh peers and their ids, as one look at the mesh and at everyone's words found them.

    `mapped` is `list peer` (id, address), `records` are another package's, `said` is what peers
    say of themselves over the mesh (key -> id). A claim never names a key that the owner bound to
    another id, and what a peer says of itself goes before what others say of it.
    """

    def __init__(
        self,
        peers: Iterable[MeshPeer] = (),
        *,
        pins: Iterable[Pin] = (),
        mapped: Iterable[tuple[str, str]] = (),
        records: Iterable[Record] = (),
        said: Mapping[str, str] | None = None,
    ) -> None:
        self.pins = tuple(pins)
        self._peers: dict[str, MeshPeer] = {}
        self._sources: dict[str, list[MeshPeer]] = {}
        for peer in sorted(peers, key=_staleness):
            self._peers.setdefault(peer.key, peer)
            for address in peer.addresses:
                self._sources.setdefault(address, []).append(peer)
        self._mapped = {peer_id: plain_address(address) for peer_id, address in mapped}
        self._pins = {pin.peer_id: pin for pin in self.pins}
        self._records: dict[str, list[Record]] = {}
        for record in records:
            self._records.setdefault(record.peer_id, []).append(record)
        self._bound = {p.key: i for i, a in self._mapped.items() if (p := self.source(a))}
        self._bound |= {pin.mesh_key: pin.peer_id for pin in self.pins if pin.mesh_key}
        self._claims = self._claimed(said or {})
        self._claimants: dict[str, list[MeshPeer]] = {}
        for key, ids in self._claims.items():
            for peer_id in ids:
                self._claimants.setdefault(peer_id, []).append(self._peers[key])

    def _claimed(self, said: Mapping[str, str]) -> dict[str, list[str]]:
        claims = {key: [peer_id] for key, peer_id in said.items() if key in self._peers}
        for peer_id, records in self._records.items():
            for address in (address for record in records for address in record.addresses):
                peer = self.source(address)
                if peer is not None and peer.key not in said:
                    ids = claims.setdefault(peer.key, [])
                    if peer_id not in ids:
                        ids.append(peer_id)
        return {key: ids for key, ids in claims.items() if key not in self._bound}

    @property
    def peers(self) -> tuple[MeshPeer, ...]:
        """Every mesh peer once; of one on several devices the one with the newest handshake."""
        return tuple(self._peers.values())

    @property
    def peer_ids(self) -> list[str]:
        """Every id that the owner bound or that a mesh peer goes by, sorted."""
        return sorted({*self._claimants, *self._mapped, *self._pins})

    def source(self, address: str, device: str = "") -> MeshPeer | None:
        """The peer that a packet from the address must come from; `device` is where it came in."""
        for peer in self._sources.get(plain_address(address), ()):
            if device in ("", peer.device):
                return peer
        return None

    def of_key(self, key: str) -> MeshPeer | None:
        return self._peers.get(key)

    def pin(self, peer_id: str) -> Pin | None:
        """What the owner confirmed of the peer."""
        return self._pins.get(peer_id)

    def mapped_address(self, peer_id: str) -> str:
        """Where the owner's `list peer` puts the peer; '' if nowhere."""
        return self._mapped.get(peer_id, "")

    def bound_key(self, peer_id: str) -> str | None:
        """The mesh key that the owner bound to the id, a pin's before a mapped address's.

        '' where the mapped address is no peer's own; None where nothing is bound.
        """
        pin = self.pin(peer_id)
        if pin is not None and pin.mesh_key:
            return pin.mesh_key
        if peer_id not in self._mapped:
            return None
        peer = self.source(self._mapped[peer_id])
        return peer.key if peer is not None and self._bound[peer.key] == peer_id else ""

    def claimants(self, peer_id: str) -> tuple[MeshPeer, ...]:
        """The mesh peers that claim the id and are not bound to any."""
        return tuple(self._claimants.get(peer_id, ()))

    def named(self, peer_id: str) -> MeshPeer | None:
        """The mesh peer of that id: the bound one, else the only one that claims it."""
        key = self.bound_key(peer_id)
        if key is not None:
            return self.of_key(key)
        claimants = self.claimants(peer_id)
        return claimants[0] if len(claimants) == 1 else None

    def name_of(self, key: str) -> str:
        """The id that the peer with that key goes by, bound or claimed; '' if it has none."""
        return self._bound.get(key) or next(iter(self._claims.get(key, ())), "")

    def known_as(self, peer_id: str) -> frozenset[str]:
        """The id, the names and the addresses that the peer is known by: claims, for searching."""
        words = {peer_id.lower(), self.mapped_address(peer_id)}
        for record in self._records.get(peer_id, ()):
            words |= {record.name.lower(), *map(plain_address, record.addresses)}
        for peer in (self.named(peer_id), *self.claimants(peer_id)):
            words.update(peer.addresses if peer is not None else ())
        return frozenset(words - {""})


def _staleness(peer: MeshPeer) -> float:
    return float("inf") if peer.handshake_age_s is None else peer.handshake_age_s
