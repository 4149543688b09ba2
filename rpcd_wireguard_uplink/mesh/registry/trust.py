"""Who is trusted: pure decisions over the owner's words, master-link's records and the mesh.

A peer is trusted where it is bound (the owner tied its id to a mesh key) and approved (by
master-link, by UCI where master-link has nothing to say). Every word of a peer about itself is a
claim, and so is every name and address in a record of master-link: claims only make candidates for
the owner to accept. Reads and writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field
from enum import Enum
from functools import cached_property

from ...config.options import Pin, pin_name
from ...errors import InvalidArgument, NotFound, NotTrusted
from ...reasons import because, told_with
from ...values import dataclass
from ..wire.lease import Identity
from .directory import Directory, MeshPeer, plain_address

ACCEPT = "wgctl uplink trust accept"
APPROVED = "approved"


class State(Enum):
    """What trust comes to. The values are stable: programs compare them."""

    TRUSTED = "trusted"
    UNBOUND = "unbound"
    UNTRUSTED = "untrusted"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class Approval:
    """One record of master-link. `hostname` and `address` are what the joiner claimed.

    `status` is approved, pending, rejected, or unreadable where the record is damaged.
    """

    fingerprint: str
    hostname: str = ""
    address: str = ""
    status: str = APPROVED


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a peer is trusted, and a sentence that says what to do where it isn't.

    `candidates` are approved records that could be the peer's and wait for the owner's word.
    """

    state: State
    reason: str = ""
    candidates: tuple[Approval, ...] = ()


@dataclass(frozen=True)
class Ground:
    """All that trust is decided from.

    `approvals` is None where there is no master-link; () where it is there and holds no record.
    `source` is auto, uci (master-link is not asked) or master-link (`trusted_peers` is ignored).
    """

    directory: Directory = field(default_factory=Directory)
    approvals: tuple[Approval, ...] | None = None
    trusted_peers: frozenset[str] = frozenset()
    source: str = "auto"

    @cached_property
    def _records(self) -> dict[str, Approval]:
        return {record.fingerprint: record for record in self.approvals or ()}

    @cached_property
    def _claims(self) -> dict[str, list[Approval]]:
        found: dict[str, list[Approval]] = {}
        for record in self.approvals or ():
            for word in {record.hostname.lower(), plain_address(record.address)} - {""}:
                found.setdefault(word, []).append(record)
        return found

    @cached_property
    def _pinned(self) -> dict[str, str]:
        return {pin.fingerprint: pin.peer_id for pin in self.directory.pins}

    def record(self, fingerprint: str) -> Approval | None:
        """master-link's record with that fingerprint."""
        return self._records.get(fingerprint)

    def fitting(self, peer_id: str) -> tuple[Approval, ...]:
        """The records that claim a name or an address of the peer and are pinned to no other."""
        if self.source == "uci" or not self.approvals:
            return ()
        words = sorted(self.directory.known_as(peer_id))
        found = dict.fromkeys(record for word in words for record in self._claims.get(word, ()))
        return tuple(r for r in found if self.pinned_to(r.fingerprint) in ("", peer_id))

    def pinned_to(self, fingerprint: str) -> str:
        """The peer that the fingerprint was confirmed for; '' for none."""
        return self._pinned.get(fingerprint, "")


def verdict(
    peer_id: str, ground: Ground, *, key: str = "", identity: str = "", local: bool = False
) -> Verdict:
    """Whether the peer of that id is trusted.

    `key` is the mesh key that it comes from now ('' to ask of the id in general), `identity` what
    it signs with now ('' if not told). `local` is for what this router's own programs hand in:
    they answer for whom it is from, so that claims made on the mesh don't count against it.
    """
    pin = ground.directory.pin(peer_id)
    refusal = _refusal(peer_id, pin, ground)
    if refusal:
        return Verdict(State.UNTRUSTED, refusal)
    change = "" if local and not key else _other_key(peer_id, ground.directory, key)
    if pin is not None and pin.identity and identity and identity != pin.identity:
        change = because("other_identity", _cut(pin.identity), _cut(identity))
    if change:
        told = because("not_the_confirmed", peer_id, change)
        mend = f"; if that is its owner's doing: {ACCEPT} {peer_id}"
        return Verdict(State.CHANGED, told_with(told, mend))
    if _is_approved(peer_id, pin, ground, local):
        return Verdict(State.TRUSTED)
    candidates = tuple(a for a in ground.fitting(peer_id) if a.status == APPROVED)
    if candidates or (peer_id in ground.trusted_peers and ground.source != "master-link"):
        return Verdict(State.UNBOUND, _unbound_reason(peer_id, ground, candidates), candidates)
    return Verdict(State.UNTRUSTED, _untrusted_reason(peer_id, ground))


def _refusal(peer_id: str, pin: Pin | None, ground: Ground) -> str:
    """Why master-link's word stands against a peer with a pinned fingerprint; '' if it doesn't."""
    if pin is None or not pin.fingerprint or ground.source == "uci":
        return ""
    if ground.approvals is None and ground.source == "auto":
        return ""
    record = ground.record(pin.fingerprint)
    if record is None:
        return because("approval_gone", peer_id, pin.fingerprint, peer_id)
    if record.status != APPROVED:
        return because("approval_is", peer_id, pin.fingerprint, record.status)
    return ""


def _other_key(peer_id: str, directory: Directory, key: str) -> str:
    """What is wrong with the mesh key that goes by the id; '' if nothing."""
    bound = directory.bound_key(peer_id)
    if bound is None:
        return ""
    if not key and directory.named(peer_id) is None:
        key = next((peer.key for peer in directory.claimants(peer_id)), "")
    if key in ("", bound):
        return ""
    if not bound:
        address = directory.mapped_address(peer_id)
        return because("mapped_elsewhere", address, _cut(key))
    return because("other_mesh_key", _cut(bound), _cut(key))


def _is_approved(peer_id: str, pin: Pin | None, ground: Ground, local: bool) -> bool:
    """Whether a peer that nothing stands against is bound and approved."""
    if ground.source == "master-link":
        return pin is not None and bool(pin.fingerprint)
    if pin is not None:
        return True
    bound = local or ground.directory.bound_key(peer_id) is not None
    return bound and peer_id in ground.trusted_peers


def _unbound_reason(peer_id: str, ground: Ground, candidates: tuple[Approval, ...]) -> str:
    claimants = ground.directory.claimants(peer_id)
    if ground.directory.bound_key(peer_id) is None and not claimants:
        return because("approved_unseen", peer_id, peer_id)
    if len(candidates) > 1:
        first = candidates[0].fingerprint
        return because("approvals_fit", peer_id, len(candidates), peer_id, first)
    return because("not_confirmed", peer_id, f"{ACCEPT} {peer_id}")


def _untrusted_reason(peer_id: str, ground: Ground) -> str:
    for record in ground.fitting(peer_id):
        if record.status != APPROVED:
            return because("not_approved", peer_id, record.fingerprint, record.status)
    if ground.source == "master-link":
        return because("unapproved", peer_id)
    return because("not_trusted", peer_id, f"{ACCEPT} {peer_id}")


# --- accept and revoke


def wanted_pin(
    peer_id: str, ground: Ground, identity: Identity | None = None, fingerprint: str = ""
) -> Pin:
    """What the owner confirms by accepting the peer, as the mesh and master-link are now.

    `identity` is what the peer says at its mesh address now. Raises NotFound where it was not seen
    on the mesh or no such approval is held, NotTrusted where master-link says no, InvalidArgument
    where several could be meant.
    """
    peer = _the_peer(peer_id, ground.directory)
    if identity is not None and identity.peer_id != peer_id:
        name = identity.peer_id
        raise InvalidArgument(because("says_other_name", _place(peer), name, peer_id, name))
    old = ground.directory.pin(peer_id)
    return Pin(
        name=old.name if old is not None else pin_name(peer_id),
        peer_id=peer_id,
        mesh_key=peer.key,
        identity=identity.key if identity is not None else "",
        fingerprint=_the_fingerprint(peer_id, ground, fingerprint),
    )


def _the_peer(peer_id: str, directory: Directory) -> MeshPeer:
    """The one mesh peer that can be meant by the id; the owner's `list peer` says it alone."""
    address = directory.mapped_address(peer_id)
    mapped = directory.source(address) if address else None
    if address and mapped is None:
        raise NotFound(because("nobody_there", address, peer_id))
    pin = directory.pin(peer_id)
    pinned = directory.of_key(pin.mesh_key) if pin is not None else None
    found = [mapped] if mapped else [*([pinned] if pinned else []), *directory.claimants(peer_id)]
    if not found:
        raise NotFound(because("not_seen", peer_id, peer_id))
    if len(found) > 1:
        who = ", ".join(f"{_cut(peer.key)} at {_place(peer)}" for peer in found)
        raise InvalidArgument(because("several_named", len(found), peer_id, who, peer_id))
    for other in directory.pins:
        if other.mesh_key == found[0].key and other.peer_id != peer_id:
            name = other.peer_id
            raise InvalidArgument(because("key_is_others", peer_id, name, name))
    return found[0]


def _the_fingerprint(peer_id: str, ground: Ground, asked: str) -> str:
    """The fingerprint to pin; '' where the owner's own word is all there is."""
    if ground.source == "uci":
        if asked:
            raise InvalidArgument(because("no_fingerprint_used"))
        return ""
    old = ground.directory.pin(peer_id)
    record = ground.record(asked or (old.fingerprint if old is not None else ""))
    if asked and record is None:
        raise NotFound(because("no_record", asked))
    if asked and ground.pinned_to(asked) not in ("", peer_id):
        name = ground.pinned_to(asked)
        raise InvalidArgument(because("fingerprint_is_others", asked, name, name))
    if record is not None and record.status != APPROVED:
        raise NotTrusted(because("record_is", record.fingerprint, record.status))
    if record is not None:
        return record.fingerprint
    found = [a.fingerprint for a in ground.fitting(peer_id) if a.status == APPROVED]
    if len(found) > 1:
        raise InvalidArgument(because("several_approvals", peer_id, " or ".join(found)))
    if not found and ground.source == "master-link":
        told = _untrusted_reason(peer_id, ground)
        raise NotTrusted(told_with(told, "; or name it, --fingerprint"))
    return found[0] if found else ""


def pins_to_revoke(peer_id: str, ground: Ground) -> set[str]:
    """The names of the pins to remove so that the peer is trusted no longer, beside its entry in
    `trusted_peer`. NotFound where it never was trusted.

    A `list peer` entry stays: it says where the peer is, not that it is trusted.
    """
    pins = {pin.name for pin in ground.directory.pins if pin.peer_id == peer_id}
    if not pins and peer_id not in ground.trusted_peers:
        raise NotFound(because("never_trusted", peer_id))
    return pins


def rejected_pins(ground: Ground) -> Iterator[Pin]:
    """The pins whose approval master-link took back: to be removed for good.

    master-link keeps its records on tmpfs (ML_DIR, master-link.sh) and never takes back the key
    file of a peer that it once approved, so that a rejection is forgotten at the next boot.
    """
    for pin in ground.directory.pins if ground.source != "uci" else ():
        record = ground.record(pin.fingerprint) if pin.fingerprint else None
        if record is not None and record.status == "rejected":
            yield pin


def _cut(key: str) -> str:
    return key[:8]


def _place(peer: MeshPeer) -> str:
    return peer.addresses[0] if peer.addresses else f"an unproven address on {peer.device}"
