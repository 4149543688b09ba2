"""The list of WireGuard peers: who each is, whether it is trusted, and what is missing.

What the tunnel itself lacks comes before what the peer answers over it, and that before its name.
Every fault is a sentence with what mends it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection

from ...errors import TimedOut, UplinkError
from ...model import TrustRow
from ...reasons import because
from .directory import MeshPeer, plain_address, proposed_id
from .peers import Peers
from .trust import State

SILENT_S = 300.0  # whoever is asked shakes hands at least every 3 min


def trust_rows(
    peers: Peers, failure_of: Callable[[str], UplinkError | None], port: int
) -> list[TrustRow]:
    """Every WireGuard peer and every id that was bound or approved, with what is missing.

    `failure_of` gives by key why a peer does not answer over the mesh, `port` is where it should.
    """

    def fault(peer: MeshPeer) -> str:
        at_fault = tunnel_fault(peer, peers.mesh.addresses)
        return at_fault or answer_fault(peer, failure_of(peer.key), port)

    directory = peers.directory
    found: list[TrustRow] = []
    for peer_id in sorted({*directory.peer_ids, *peers.ground.trusted_peers}):
        twins = directory.claimants(peer_id)
        if directory.bound_key(peer_id) is None and len(twins) > 1:
            found += [_twin(peers, peer_id, twin) for twin in twins]
            continue
        row = trust_row(peers, peer_id)
        peer = directory.of_key(row.mesh_key)
        if peer is not None and not row.reason:
            row = row.replaced(reason=fault(peer))
        found.append(row)
    known = {row.mesh_key for row in found}
    for peer in (*directory.peers, *peers.mesh.others):
        if peer.key not in known:
            claimed, refusal = peers.refused_of(peer)
            reason = fault(peer) or refusal or because("not_asked_yet")
            row = trust_row(peers, claimed, peer)
            state = State.UNTRUSTED.value
            found.append(row.replaced(state=state, reason=reason, offering=False))
    return found


def _twin(peers: Peers, peer_id: str, peer: MeshPeer) -> TrustRow:
    proposed = proposed_id(peer_id, peer.key)
    reason = because("several_say", peer_id, proposed, peer.addresses[0])
    return trust_row(peers, peer_id, peer).replaced(reason=reason)


def trust_row(peers: Peers, peer_id: str, twin: MeshPeer | None = None) -> TrustRow:
    """One peer as `uplink_trust` shows it; `twin` is one of several that claim the id."""
    directory, found = peers.directory, peers.verdict(peer_id)
    peer = twin or directory.named(peer_id) or next(iter(directory.claimants(peer_id)), None)
    if twin is not None:
        identity, fingerprint = peers.said_by(twin).key, ""
    else:
        pin, records = directory.pin(peer_id), found.candidates or peers.ground.fitting(peer_id)
        identity = peers.identity_of(peer_id)
        fingerprint = next((record.fingerprint for record in records), "")
        fingerprint = pin.fingerprint if pin is not None else fingerprint
    shown = peer or MeshPeer("", "")
    age_s = shown.handshake_age_s
    return TrustRow(
        peer_id=peer_id,
        state=found.state.value,
        reason=found.reason,
        mesh_address=next(iter(shown.addresses), ""),
        mesh_key=shown.key,
        device=shown.device,
        identity=identity,
        fingerprint=fingerprint,
        handshake_age_s=-1 if age_s is None else int(age_s),
        offering=peer_id in peers.offers.names,
    )


def tunnel_fault(peer: MeshPeer, own: Collection[str]) -> str:
    """Why nothing proves that a packet is the peer's; '' where it has an address of its own.

    `own` are this router's plain addresses.
    """
    if peer.addresses:
        return ""
    at, mend = (peer.key[:8], peer.device), because("give_address")
    if not peer.allowed:
        return because("no_allowed_ips", *at, mend)
    networks = [ipaddress.ip_network(text, strict=False) for text in peer.allowed]
    hosts = [net.network_address for net in networks if net.prefixlen == net.max_prefixlen]
    for host in hosts:
        if plain_address(str(host)) in own:
            return because("own_allowed_ip", *at, host, mend)
        return because("shared_allowed_ip", *at, host, mend)
    if all(net.prefixlen == 0 for net in networks):
        return because("any_allowed_ip", *at, mend)
    told = ", ".join(map(str, networks[:3]))
    return because("only_networks", *at, told, mend)


def answer_fault(peer: MeshPeer, failure: UplinkError | None, port: int) -> str:
    """Why the peer does not answer over the mesh; '' while nothing is known to be wrong."""
    if failure is None:
        return ""
    where = f"{peer.addresses[0]} TCP port {port}" if peer.addresses else peer.device
    if peer.handshake_age_s is None:
        if not peer.endpoint:
            return because("never_came_up", peer.device)
        return because("no_handshake_at", peer.endpoint)
    if failure.code not in ("bad_reply", "not_a_peer") and peer.handshake_age_s > SILENT_S:
        return because("handshake_is_old", f"{peer.handshake_age_s / 60:.0f}")
    if isinstance(failure, TimedOut):
        return because("silent_at", where)
    if failure.code == "bad_reply":
        return because("other_program_at", where)
    if failure.code == "not_a_peer":
        return because("not_known_there")
    if isinstance(failure.__cause__, ConnectionRefusedError):
        return because("nothing_listens", where)
    return because("not_askable", str(failure).rstrip("."))
