"""Who is trusted: every combination of pin, mapping, list and record, and what accepting pins."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rpcd_wireguard_uplink.config.options import Pin
from rpcd_wireguard_uplink.errors import InvalidArgument, NotFound, NotTrusted, UplinkError
from rpcd_wireguard_uplink.mesh.registry.directory import Directory, MeshPeer, Record
from rpcd_wireguard_uplink.mesh.registry.trust import (
    Approval,
    Ground,
    State,
    Verdict,
    pins_to_revoke,
    rejected_pins,
    verdict,
    wanted_pin,
)
from rpcd_wireguard_uplink.mesh.wire.lease import Identity
from tests.unit.fakes import key_of

A, B, ID_A, ID_B = (key_of(name) for name in ("a", "b", "identity a", "identity b"))
PEER_A = MeshPeer("wg0", A, ("10.9.0.1",))
PEER_B = MeshPeer("wg0", B, ("10.9.0.2",))
FP, OTHER = "0123456789abcdef", "fedcba9876543210"
TRUSTED, UNBOUND, UNTRUSTED, CHANGED = State
ACCEPT = "wgctl uplink trust accept nodeA"


def pin(key: str = A, identity: str = "", fingerprint: str = "", peer_id: str = "nodeA") -> Pin:
    return Pin(f"trust_{peer_id}", peer_id, key, identity, fingerprint)


def record(status: str = "approved", fingerprint: str = FP, hostname: str = "nodeA") -> Approval:
    return Approval(fingerprint, hostname, "192.168.1.5", status)


def ground(
    *pins: Pin,
    listed: bool = False,
    mapped: str = "",
    said: dict[str, str] | None = None,
    approvals: tuple[Approval, ...] | None = None,
    source: str = "auto",
    peers: tuple[MeshPeer, ...] = (PEER_A, PEER_B),
    records: tuple[Record, ...] = (),
) -> Ground:
    directory = Directory(
        peers, pins=pins, mapped=[("nodeA", mapped)] if mapped else [], said=said, records=records
    )
    listing = frozenset({"nodeA"}) if listed else frozenset[str]()
    return Ground(directory, approvals, listing, source)


SAID = {A: "nodeA"}
BOTH_SAY = {A: "nodeA", B: "nodeA"}


# --- every combination

BINDINGS: dict[str, dict[str, Any]] = {
    "none": {},
    "claimed": {"said": SAID},
    "mapped": {"mapped": "10.9.0.1"},
    "pin": {"pins": [pin()]},
    "pin with fingerprint": {"pins": [pin(fingerprint=FP)]},
}
HELD = {
    "no master-link": None,
    "no record": (),
    "a record of another": (record("approved", OTHER, "someone"),),
    **{status: (record(status),) for status in ("approved", "pending", "rejected", "unreadable")},
}
STATES = {"T": TRUSTED, "u": UNBOUND, "-": UNTRUSTED}


@pytest.mark.parametrize(
    ("source", "binding", "unlisted", "listed"),
    [
        # a letter for each of HELD: trusted, unbound, untrusted
        ("auto", "none", "---u---", "uuuuuuu"),
        ("auto", "claimed", "---u---", "uuuuuuu"),
        ("auto", "mapped", "---u---", "TTTTTTT"),
        ("auto", "pin", "TTTTTTT", "TTTTTTT"),
        ("auto", "pin with fingerprint", "T--T---", "T--T---"),
        ("uci", "none", "-------", "uuuuuuu"),
        ("uci", "claimed", "-------", "uuuuuuu"),
        ("uci", "mapped", "-------", "TTTTTTT"),
        ("uci", "pin", "TTTTTTT", "TTTTTTT"),
        ("uci", "pin with fingerprint", "TTTTTTT", "TTTTTTT"),
        ("master-link", "none", "---u---", "---u---"),
        ("master-link", "claimed", "---u---", "---u---"),
        ("master-link", "mapped", "---u---", "---u---"),
        ("master-link", "pin", "---u---", "---u---"),
        ("master-link", "pin with fingerprint", "---T---", "---T---"),
    ],
)
def test_every_combination(source: str, binding: str, unlisted: str, listed: str) -> None:
    acts = (ACCEPT, "approve it there", "list peer 'nodeA ADDRESS'")
    for letters, is_listed in ((unlisted, False), (listed, True)):
        for letter, (held, approvals) in zip(letters, HELD.items(), strict=True):
            parts = dict(BINDINGS[binding])
            pins = parts.pop("pins", [])
            found = ground(*pins, listed=is_listed, approvals=approvals, source=source, **parts)
            told = verdict("nodeA", found, key="" if binding == "none" else A)
            assert told.state is STATES[letter], (is_listed, held, told.reason)
            assert bool(told.reason) == (told.state is not TRUSTED)
            assert told.state is TRUSTED or any(act in told.reason for act in acts), told.reason


PINNED_FP = pin(fingerprint=FP)
TAKEN = pin(B, fingerprint=FP, peer_id="nodeB")
B_ALONE: dict[str, Any] = {"said": {B: "nodeA"}, "peers": (PEER_B,)}
LISTED_B: dict[str, Any] = {"said": {B: "nodeA"}, "listed": True}
AWAY = "list peer puts it at 10.9.0.7"
GONE = (
    "master-link's approval of nodeA (fingerprint 0123456789abcdef) is gone: "
    "approve it there again, or wgctl uplink trust accept nodeA"
)
KEY_IS = f"mesh key {A[:8]} "


VERDICTS: list[tuple[str, Ground, dict[str, Any], State, str]] = [
    ("record gone", ground(PINNED_FP, listed=True, approvals=()), {"key": A}, UNTRUSTED, GONE),
    ("empty record", ground(approvals=(Approval(FP),), said=SAID), {"key": A}, UNTRUSTED, ""),
    ("fingerprint of another", ground(TAKEN, approvals=(record(),)), {}, UNTRUSTED, ""),
    # Asked of the id alone, a claim counts only while the confirmed key is away.
    ("another key", ground(pin(), **B_ALONE), {"key": B}, CHANGED, KEY_IS),
    ("the key is away", ground(pin(), **B_ALONE), {}, CHANGED, KEY_IS),
    ("the key is there", ground(pin(), said={B: "nodeA"}), {}, TRUSTED, ""),
    ("the same key", ground(pin(), said={B: "nodeA"}), {"key": A}, TRUSTED, ""),
    ("mapped to another", ground(mapped="10.9.0.1", **LISTED_B), {"key": B}, CHANGED, ""),
    ("mapped to nobody", ground(mapped="10.9.0.7", **LISTED_B), {"key": B}, CHANGED, AWAY),
    ("rejected and changed", ground(PINNED_FP, approvals=(record("rejected"),), said={B: "nodeA"}),
     {"key": B}, UNTRUSTED, ""),
    # What this router's own programs hand in.
    ("listed", ground(listed=True), {"local": True}, TRUSTED, ""),
    ("listed and claimed", ground(listed=True, said=BOTH_SAY), {"local": True}, TRUSTED, ""),
    ("listed, as master-link says", ground(listed=True, said=SAID, source="master-link"),
     {"local": True}, UNTRUSTED, ""),
    ("not listed", ground(said=SAID), {"local": True}, UNTRUSTED, ""),
    ("pinned", ground(pin(), **B_ALONE), {"local": True}, TRUSTED, ""),
    ("rejected", ground(PINNED_FP, listed=True, approvals=(record("rejected"),)),
     {"local": True}, UNTRUSTED, ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("found", "asked", "state", "told"),
    [case[1:] for case in VERDICTS],
    ids=[case[0] for case in VERDICTS],
)
def test_a_verdict(found: Ground, asked: dict[str, Any], state: State, told: str) -> None:
    given = verdict("nodeA", found, **asked)
    assert given.state is state
    assert told in given.reason
    if state is CHANGED:
        assert given.reason.endswith(ACCEPT) and B[:8] in given.reason
        assert A[:9] not in given.reason and B[:9] not in given.reason


@pytest.mark.parametrize(
    ("hostname", "address"),
    [("nodea", ""), ("House", ""), ("", "192.168.1.5"), ("", "10.9.0.1"), ("x", "::ffff:10.9.0.1")],
)
def test_an_approval_that_fits_is_a_candidate(hostname: str, address: str) -> None:
    known = Record("nodeA", "house", ("192.168.1.5", "10.9.0.1"))
    fits = Approval(FP, hostname, address)
    found = ground(approvals=(fits, Approval(OTHER, "x", "10.1.1.1")), records=(known,))
    told = verdict("nodeA", found)
    assert told.state is UNBOUND and told.candidates == (fits,)
    assert told.reason.endswith(f": {ACCEPT}")
    assert verdict("nodeB", found).state is UNTRUSTED


def test_several_candidates_are_named() -> None:
    told = verdict("nodeA", ground(approvals=TWICE, said=SAID))
    assert told.candidates == TWICE
    assert f"--fingerprint {FP}" in told.reason


@pytest.mark.parametrize(
    ("pinned", "shown", "state"),
    [(ID_A, ID_B, CHANGED), (ID_A, ID_A, TRUSTED), (ID_A, "", TRUSTED), ("", ID_B, TRUSTED)],
)
@pytest.mark.parametrize("local", [False, True])
def test_an_identity(pinned: str, shown: str, state: State, local: bool) -> None:
    told = verdict("nodeA", ground(pin(identity=pinned)), key=A, identity=shown, local=local)
    assert told.state is state
    if state is CHANGED:
        assert ID_A[:8] in told.reason and ID_B[:8] in told.reason
        assert ID_A[:9] not in told.reason and ID_B[:9] not in told.reason


# --- accept

TWICE = (record(), record("approved", OTHER))
BY_MASTER_LINK = ground(said=SAID, approvals=(record(),), source="master-link")


ACCEPTED: list[tuple[str, Ground, str, str, Pin]] = [
    ("who claims to be it", ground(said=SAID), ID_A, "", pin(A, ID_A)),
    ("with an approval", BY_MASTER_LINK, "", "", pin(fingerprint=FP)),
    ("mapped, despite claims", ground(mapped="10.9.0.2", said=SAID), "", "", pin(B)),
    ("a changed key", ground(pin(), **B_ALONE), "", "", pin(B)),
    ("a changed identity", ground(pin(identity=ID_A)), ID_B, "", pin(A, ID_B)),
    ("a named fingerprint", ground(said=SAID, approvals=TWICE), "", OTHER, pin(fingerprint=OTHER)),
    ("whose approval is gone", ground(PINNED_FP, approvals=()), "", "", pin()),
]


@pytest.mark.parametrize(
    ("found", "identity", "fingerprint", "wanted"),
    [case[1:] for case in ACCEPTED],
    ids=[case[0] for case in ACCEPTED],
)
def test_accepting(found: Ground, identity: str, fingerprint: str, wanted: Pin) -> None:
    said = Identity(peer_id="nodeA", key=identity) if identity else None
    made = wanted_pin("nodeA", found, said, fingerprint)
    assert replace(made, name=wanted.name) == wanted
    after = ground(made, approvals=found.approvals, source=found.source)
    assert verdict("nodeA", after, key=made.mesh_key, identity=identity) == Verdict(TRUSTED)


def test_names_of_sections_suit_uci_and_differ() -> None:
    names = {
        wanted_pin(peer_id, ground(said={A: peer_id})).name
        for peer_id in ("sb-0011aabbccdd", "sb.0011aabbccdd", "sb_0011aabbccdd", "SB-0011aabbccdd")
    }
    assert len(names) == 4
    assert all(name.replace("_", "").isalnum() and name.isascii() for name in names)


BOTH_GO_BY_IT = f"go by the id nodeA ({A[:8]} at 10.9.0.1, {B[:8]} at 10.9.0.2)"
REVOKE = "wgctl uplink trust revoke nodeB first"
REFUSED: list[tuple[str, Ground, str, type[UplinkError], str]] = [
    ("unseen", ground(), "", NotFound, "not seen on the mesh yet"),
    ("mapped away", ground(mapped="10.9.0.7"), "", NotFound, "no mesh peer has 10.9.0.7"),
    ("two claim it", ground(said=BOTH_SAY), "", InvalidArgument, f"2 mesh peers {BOTH_GO_BY_IT}"),
    ("pinned and claimed", ground(pin(), said={B: "nodeA"}), "", InvalidArgument, "list peer"),
    ("key of another", ground(pin(peer_id="nodeB"), mapped="10.9.0.1"),
     "", InvalidArgument, REVOKE),
    ("several approvals", ground(said=SAID, approvals=TWICE),
     "", InvalidArgument, f"--fingerprint {FP} or {OTHER}"),
    ("unknown", ground(said=SAID, approvals=(record(),)), "ff", NotFound, "no record ff"),
    ("pending", ground(said=SAID, approvals=(record("pending"),)),
     FP, NotTrusted, "is pending: approve it there first"),
    ("rejected since it was pinned", ground(PINNED_FP, approvals=(record("rejected"),)),
     "", NotTrusted, "is rejected"),
    ("not approved", ground(said=SAID, approvals=(), source="master-link"),
     "", NotTrusted, "approve it there first"),
    ("fingerprint of another", ground(TAKEN, said=SAID, approvals=(record(),)),
     FP, InvalidArgument, REVOKE),
    ("fingerprint without master-link", ground(said=SAID, source="uci"),
     FP, InvalidArgument, "option trust is uci"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("found", "fingerprint", "kind", "told"),
    [case[1:] for case in REFUSED],
    ids=[case[0] for case in REFUSED],
)
def test_what_can_not_be_accepted(
    found: Ground, fingerprint: str, kind: type[UplinkError], told: str
) -> None:
    with pytest.raises(kind) as caught:
        wanted_pin("nodeA", found, fingerprint=fingerprint)
    assert type(caught.value) is kind and told in str(caught.value)


def test_a_peer_that_says_another_id_is_not_accepted() -> None:
    with pytest.raises(InvalidArgument, match="says that it is nodeZ, not nodeA"):
        wanted_pin("nodeA", ground(mapped="10.9.0.1"), Identity(peer_id="nodeZ"))


# --- revoke


def test_revoking() -> None:
    assert pins_to_revoke("nodeA", ground(pin(), listed=True)) == {"trust_nodeA"}
    assert pins_to_revoke("nodeA", ground(listed=True)) == set()
    with pytest.raises(NotFound):
        pins_to_revoke("nodeA", ground(pin(peer_id="nodeB"), mapped="10.9.0.1"))


def test_pins_that_master_link_took_back() -> None:
    pins = pin(fingerprint=FP), pin(B, fingerprint=OTHER, peer_id="nodeB"), pin(key_of("c"))
    held = record("rejected"), record("pending", OTHER)
    assert list(rejected_pins(ground(*pins, approvals=held))) == [pins[0]]
    assert list(rejected_pins(ground(*pins, approvals=held, source="uci"))) == []
    assert list(rejected_pins(ground(*pins, approvals=None))) == []
