"""The nouns of the exchange between peers: identities, leases, what a provider gives and wants.

Frozen dataclasses that cross layers, and the rules about them that need no I/O. Messages on the
wire are messages.py's, decisions are those of trust.py and leases.py. Times named `*_s` are seconds
of the monotonic clock or durations.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from ..model import Endpoint, Family

MESH_PORT = 7333
PROVIDER_PORT = 51821
LEASE_S = 3600
POOL_TRIES = 256

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Deny(Enum):
    """Why a provider says no. The values are stable: programs compare them."""

    NOT_OFFERING = "not_offering"
    WAN_DOWN = "wan_down"
    NOT_TRUSTED = "not_trusted"
    UNBOUND = "unbound"
    OTHER_PEER = "other_peer"
    FULL = "full"
    QUOTA_SPENT = "quota_spent"
    KEY_IN_USE = "key_in_use"
    ADDRESS_CONFLICT = "address_conflict"
    NO_ADDRESS = "no_address"
    NO_LEASE = "no_lease"


@dataclass(frozen=True, slots=True)
class Denial:
    """A provider's no: its code and a sentence for the owner of the other router."""

    code: Deny
    error: str


@dataclass(frozen=True, slots=True)
class ScopedEndpoint:
    """One way to a provider: `scope` is link (a network that both share) or public."""

    host: str
    port: int
    scope: str = "public"

    @property
    def endpoint(self) -> Endpoint:
        """As a WireGuard peer is given it."""
        return Endpoint(self.host, self.port)


@dataclass(frozen=True, slots=True)
class Identity:
    """What a router says of itself: its id, and the Ed25519 key it signs with ('' without)."""

    peer_id: str
    key: str = ""


@dataclass(frozen=True, slots=True)
class LeaseRequest:
    """A consumer asks for a place. `avoid` are prefixes that it uses itself."""

    peer_id: str
    public_key: str
    avoid: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Lease:
    """A consumer's place at our provider's device, as the provider keeps it.

    `addresses` are one IPv4 /32 and one IPv6 /128.
    """

    peer_id: str
    public_key: str
    addresses: tuple[str, ...]
    expires_s: float = 0.0


@dataclass(frozen=True, slots=True)
class LeaseGrant:
    """What a consumer is given: everything that its tunnel needs, and for how long.

    `gateways` are the provider's own addresses in the tunnel, where the lease is renewed while the
    mesh is away; `dns` are resolvers to be asked through the tunnel; `limit_mbps` 0 is no limit.
    """

    peer_id: str
    public_key: str
    addresses: tuple[str, ...]
    endpoints: tuple[ScopedEndpoint, ...]
    gateways: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    mtu: int = 1420
    limit_mbps: int = 0
    lease_s: int = LEASE_S


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """What `config provider 'local'` says: whether and how this router serves others.

    `limit_mbps` is for each consumer and each way, 0 for none. `quota_gb` (10^9 bytes, both ways
    together) is for all consumers in a month that begins on `reset_day`; 0 is no quota.
    `bandwidth_mbps` and `latency_ms` are what is advertised (0 and -1: not said). `endpoint` is
    where the router is reached from outside, a name or an address ('' for its own public one);
    `pool4` and `pool6` are prefixes for consumers ('' to be chosen).
    """

    enabled: bool = False
    bandwidth_mbps: int = 0
    latency_ms: float = -1.0
    wan_type: str = ""
    metered: bool = False
    quota_gb: float = 0.0
    price_per_gb: float = 0.0
    reset_day: int = 1
    limit_mbps: int = 0
    max_consumers: int = 8
    lease_s: int = LEASE_S
    listen_port: int = PROVIDER_PORT
    endpoint: str = ""
    pool4: str = ""
    pool6: str = ""
    resolvers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Consumer:
    """A lease as it is kept in the configuration (`config consumer`): no expiry, no secret."""

    name: str
    peer_id: str
    public_key: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pin:
    """What the owner confirmed once (`config trust`): whose mesh key and identity a peer's are.

    `fingerprint` is master-link's, '' where the trust does not come from there.
    """

    name: str
    peer_id: str
    mesh_key: str
    identity: str = ""
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class PeerSettings:
    """What the main section says of the mesh. `mesh_devices` empty: found by themselves.

    `peers` maps an id to its mesh address (`list peer 'nodeA 10.9.0.1'`). `trust_source` is auto,
    uci or master-link. `poll_s` is how often an offer is asked for that nobody announces.
    """

    node_id: str = ""
    mesh_devices: tuple[str, ...] = ()
    mesh_port: int = MESH_PORT
    carriers: frozenset[str] = frozenset({"mesh", "bus"})
    peers: tuple[tuple[str, str], ...] = ()
    trust_source: str = "auto"
    poll_s: float = 120.0


@dataclass(frozen=True, slots=True)
class MqttSettings:
    """What `config mqtt` says: the broker that carries offers beyond what a node can poll.

    `ca_file` is the certificate authority's file for `tls` ('' for the system's own ones),
    `password_file` holds the password in its first line, so that no configuration does.
    """

    enabled: bool = False
    host: str = ""
    port: int = 1883
    user: str = ""
    password_file: str = ""
    tls: bool = False
    ca_file: str = ""
    prefix: str = "secubox/uplink"


@dataclass(frozen=True, slots=True)
class ProviderPlan:
    """All that should stand in the kernel for our consumers; the same plan again changes nothing.

    `lines` are the WAN devices that consumers may leave by; without any, or with `is_open` False,
    they reach nothing but what renews a lease. `gateways` are our addresses with the pools' prefix
    lengths. `resolvers` answer what consumers send to port 53 of a gateway.
    """

    private_key: str = field(repr=False)
    listen_port: int
    gateways: tuple[str, ...]
    leases: tuple[Lease, ...] = ()
    lines: Mapping[Family, tuple[str, ...]] = field(default_factory=dict)
    resolvers: tuple[str, ...] = ()
    limit_mbps: int = 0
    renewal_port: int = MESH_PORT
    mtu: int = 1420
    is_open: bool = True


def consumer_name(public_key: str) -> str:
    """The section of a consumer's lease in the configuration: a consumer with a new key is new."""
    return "consumer_" + hashlib.sha256(public_key.encode()).hexdigest()[:8]


def pin_name(peer_id: str) -> str:
    """The section of a peer's pin: what is confirmed anew replaces what was confirmed before."""
    return "trust_" + hashlib.sha256(peer_id.encode()).hexdigest()[:8]


def pool_networks(
    node_id: str, own: Iterable[str], pool4: str = "", pool6: str = ""
) -> tuple[ipaddress.IPv4Network, ipaddress.IPv6Network]:
    """The networks that consumers get addresses of: a /24 inside 10.0.0.0/8, and a ULA /64.

    They follow from the node's id, so that two providers hardly ever choose the same; networks of
    `own` are avoided. Given pools are taken as they are. Raises ValueError where a given one is no
    network of its family, or no /24 is free.
    """
    taken = [ipaddress.ip_network(text, strict=False) for text in own]
    digest = hashlib.sha256(f"ula/{node_id}".encode()).digest()
    six = ipaddress.IPv6Network((b"\xfd" + digest[:7] + bytes(8), 64))
    if pool6:
        six = ipaddress.IPv6Network(pool6)
    if pool4:
        return ipaddress.IPv4Network(pool4), six
    for number in range(POOL_TRIES):
        digest = hashlib.sha256(f"pool/{node_id}/{number}".encode()).digest()
        four = ipaddress.IPv4Network((bytes((10, digest[0], digest[1], 0)), 24))
        if not any(four.overlaps(net) for net in taken if net.version == 4):
            return four, six
    raise ValueError("no network is free for consumers: set option pool4")
