"""What a provider gives its consumers: leases, address pools, and the plan for the kernel. Pure.

Times named `*_s` are seconds of the monotonic clock.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import field

from ..config.options import MESH_PORT, ProviderSettings
from ..mesh.wire.endpoints import MOST_ENDPOINTS, ScopedEndpoint
from ..model import Family, is_own_name
from ..reasons import because
from ..values import dataclass

POOL_TRIES = 256

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


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
class ProviderPlan:
    """All that should stand in the kernel for our consumers; the same plan again changes nothing.

    `wans` are the WAN devices that consumers may leave by; without any, or with `is_open` False,
    they reach nothing but what renews a lease. `gateways` are our addresses with the pools' prefix
    lengths. `resolvers` answer what consumers send to port 53 of a gateway.
    """

    private_key: str = field(repr=False)
    listen_port: int
    gateways: tuple[str, ...]
    leases: tuple[Lease, ...] = ()
    wans: Mapping[Family, tuple[str, ...]] = field(default_factory=dict)
    resolvers: tuple[str, ...] = ()
    limit_mbps: int = 0
    renewal_port: int = MESH_PORT
    mtu: int = 1420
    is_open: bool = True


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
    raise ValueError(because("no_pool_free"))


def reachable_by(
    addresses: Mapping[str, Sequence[str]], tunnels: Collection[str], settings: ProviderSettings
) -> tuple[ScopedEndpoint, ...]:
    """The endpoints of a provider with these addresses (by device, with prefix lengths).

    `tunnels` are devices of the mesh or of uplinks, whose addresses would lead a tunnel into
    another one.
    """
    found = [ScopedEndpoint(settings.endpoint, settings.listen_port)] if settings.endpoint else []
    near: list[ScopedEndpoint] = []
    for device, texts in addresses.items():
        if device in tunnels or is_own_name(device):
            continue
        for text in texts:
            ip = ipaddress.ip_interface(text).ip
            if ip.is_global:
                found.append(ScopedEndpoint(str(ip), settings.listen_port, "public"))
            else:
                near.append(ScopedEndpoint(str(ip), settings.listen_port, "link"))
    return tuple((found + near)[:MOST_ENDPOINTS])
