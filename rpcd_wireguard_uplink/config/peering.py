"""What the configuration says of the mesh and of serving others, as frozen dataclasses."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

MESH_PORT = 7333
PROVIDER_PORT = 51821
LEASE_S = 3600


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


def consumer_name(public_key: str) -> str:
    """The section of a consumer's lease in the configuration: a consumer with a new key is new."""
    return "consumer_" + hashlib.sha256(public_key.encode()).hexdigest()[:8]


def pin_name(peer_id: str) -> str:
    """The section of a peer's pin: what is confirmed anew replaces what was confirmed before."""
    return "trust_" + hashlib.sha256(peer_id.encode()).hexdigest()[:8]
