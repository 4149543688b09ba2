"""Why a WireGuard peer can't be used as a mesh peer, as a sentence with what mends it. Pure.

What the tunnel itself lacks comes before what the peer answers over it, and that before its name.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Collection

from ..errors import TimedOut, UplinkError
from .directory import MeshPeer, plain_address

SILENT_S = 300.0  # whoever is asked shakes hands at least every 3 min


def proposed_id(name: str, key: str) -> str:
    """An id that tells routers of one host name apart; from the mesh key, so all propose it."""
    return f"{name[:59]}-{hashlib.sha256(key.encode()).hexdigest()[:4]}"


def tunnel_fault(peer: MeshPeer, own: Collection[str]) -> str:
    """Why nothing proves that a packet is the peer's; '' where it has an address of its own.

    `own` are this router's plain addresses.
    """
    if peer.addresses:
        return ""
    at = f"peer {peer.key[:8]} of {peer.device}"
    mend = "give it its own mesh address there, such as 10.9.0.2/32"
    if not peer.allowed:
        return f"{at} has no allowed_ips: {mend}"
    networks = [ipaddress.ip_network(text, strict=False) for text in peer.allowed]
    hosts = [net.network_address for net in networks if net.prefixlen == net.max_prefixlen]
    for host in hosts:
        if plain_address(str(host)) in own:
            return f"{at} has this router's own address {host} in its allowed_ips: {mend}"
        return f"{at} shares {host} in its allowed_ips with another peer: {mend}"
    if all(net.prefixlen == 0 for net in networks):
        told = f"{at} may send from every address, as a VPN's server, which proves nobody"
        return f"{told}: if it is a router of the mesh, {mend}"
    told = ", ".join(map(str, networks[:3]))
    return f"{at} has only networks in its allowed_ips ({told}), which prove nobody: {mend}"


def answer_fault(peer: MeshPeer, failure: UplinkError | None, port: int) -> str:
    """Why the peer does not answer over the mesh; '' while nothing is known to be wrong."""
    if failure is None:
        return ""
    where = f"{peer.addresses[0]} TCP port {port}" if peer.addresses else peer.device
    if peer.handshake_age_s is None:
        if not peer.endpoint:
            return f"it has not come up, and {peer.device} has no endpoint of it to call"
        return f"no handshake with it at {peer.endpoint}: it is off, or keys or endpoint are wrong"
    service = "rpcd-wireguard-uplink"
    if failure.code not in ("bad_reply", "not_a_peer") and peer.handshake_age_s > SILENT_S:
        age_min = peer.handshake_age_s / 60
        return f"no handshake with it for {age_min:.0f} min: it is off, or can't be reached"
    if isinstance(failure, TimedOut):
        return f"it does not answer at {where}: does its firewall accept that from the mesh?"
    if failure.code == "bad_reply":
        return f"what answers at {where} is not {service}: is the port another program's?"
    if failure.code == "not_a_peer":
        return (
            f"it does not take us for one peer: its {service} needs this router's own address "
            "as /32 or /128 in allowed_ips"
        )
    if isinstance(failure.__cause__, ConnectionRefusedError):
        return (
            f"nothing listens at {where}: is {service} running there, enabled, and the port open?"
        )
    return f"it can't be asked: {str(failure).rstrip('.')}"
