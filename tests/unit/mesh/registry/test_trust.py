"""Who is trusted: every combination of pin, mapping, list and record, and what accepting pins."""

from __future__ import annotations

import itertools

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
RECORD = Approval(FP, "nodeA", "192.168.1.5", "approved")
TRUSTED, UNBOUND, UNTRUSTED, CHANGED = State


def pin(key: str = A, identity: str = "", fingerprint: str = "", peer_id: str = "nodeA") -> Pin:
    return Pin(f"trust_{peer_id}", peer_id, key, identity, fingerprint)


def record(status: str, fingerprint: str = FP, hostname: str = "nodeA") -> Approval:
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


# --- every combination

BINDINGS = ("none", "claimed", "mapped", "pin", "pin with fingerprint")
RECORDS = ("no master-link", "no record", "other", "approved", "pending", "rejected", "unreadable")
SOURCES = ("auto", "uci", "master-link")


def expected(binding: str, listed: bool, status: str, source: str) -> State:
    """The rules as a table, written down apart from the code (rules.md 11 in the project's notes):
    master-link's word about a pinned fingerprint, then the owner's, then what could be accepted.
    """
    pinned = binding.startswith("pin")
    if source == "uci":
        if pinned or (binding == "mapped" and listed):
            return TRUSTED
        return UNBOUND if listed else UNTRUSTED
    if source == "master-link":
        if binding == "pin with fingerprint":
            return TRUSTED if status == "approved" else UNTRUSTED
        return UNBOUND if status == "approved" else UNTRUSTED
    if binding == "pin with fingerprint":
        return TRUSTED if status in ("approved", "no master-link") else UNTRUSTED
    if binding == "pin" or (binding == "mapped" and listed):
        return TRUSTED
    return UNBOUND if listed or status == "approved" else UNTRUSTED


def judged(binding: str, listed: bool, status: str, source: str) -> Verdict:
    approvals: dict[str, tuple[Approval, ...] | None] = {
        "no master-link": None,
        "no record": (),
        "other": (record("approved", OTHER, "someone"),),
    }
    pins = {"pin": [pin()], "pin with fingerprint": [pin(fingerprint=FP)]}.get(binding, [])
    said = {A: "nodeA"} if binding == "claimed" else {}
    mapped = "10.9.0.1" if binding == "mapped" else ""
    held = approvals.get(status, (record(status),))
    found = ground(*pins, listed=listed, mapped=mapped, said=said, approvals=held, source=source)
    return verdict("nodeA", found, key="" if binding == "none" else A)


def test_every_combination() -> None:
    acts = ("wgctl uplink trust accept nodeA", "approve it there", "list peer 'nodeA ADDRESS'")
    for case in itertools.product(BINDINGS, (False, True), RECORDS, SOURCES):
        found = judged(*case)
        assert found.state is expected(*case), (case, found.reason)
        assert bool(found.reason) == (found.state is not TRUSTED), case
        if found.state in (UNTRUSTED, UNBOUND):
            assert any(act in found.reason for act in acts), (case, found.reason)


def test_a_record_about_another_changes_nothing() -> None:
    others = (record("rejected", OTHER, "nodeB"), record("pending", "aa", "nodeC"))
    kept = ground(pin(fingerprint=FP), approvals=(*others, RECORD))
    assert verdict("nodeA", kept) == Verdict(TRUSTED)


def test_a_strangers_request_in_its_name_does_not_harm_a_trusted_peer() -> None:
    for status in ("pending", "rejected"):
        mine = ground(pin(), approvals=(record(status),))
        assert verdict("nodeA", mine, key=A).state is TRUSTED
        mine = ground(mapped="10.9.0.1", listed=True, approvals=(record(status),))
        assert verdict("nodeA", mine, key=A).state is TRUSTED


def test_a_record_that_is_gone_says_so() -> None:
    found = verdict("nodeA", ground(pin(fingerprint=FP), listed=True, approvals=()), key=A)
    assert found.reason == (
        "master-link's approval of nodeA (fingerprint 0123456789abcdef) is gone: "
        "approve it there again, or wgctl uplink trust accept nodeA"
    )


# --- candidates


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
    assert told.reason.endswith(": wgctl uplink trust accept nodeA")
    assert verdict("nodeB", found).state is UNTRUSTED


def test_an_empty_record_fits_nobody() -> None:
    found = ground(approvals=(Approval(FP),), said={A: "nodeA"})
    assert verdict("nodeA", found, key=A).state is UNTRUSTED


def test_several_candidates_are_named() -> None:
    both = (RECORD, record("approved", OTHER))
    told = verdict("nodeA", ground(approvals=both, said={A: "nodeA"}))
    assert told.candidates == both
    assert f"--fingerprint {FP}" in told.reason


def test_a_fingerprint_of_another_peer_is_no_candidate() -> None:
    taken = pin(B, fingerprint=FP, peer_id="nodeB")
    assert verdict("nodeA", ground(taken, approvals=(RECORD,))).state is UNTRUSTED


# --- changed


@pytest.mark.parametrize("key", [B, ""])
def test_another_mesh_key(key: str) -> None:
    # Asked of the id alone, a claim counts only while the confirmed key is away.
    found = ground(pin(), said={B: "nodeA"}, peers=(PEER_B,))
    told = verdict("nodeA", found, key=key)
    assert told.state is CHANGED
    assert f"mesh key {A[:8]} " in told.reason and f"with {B[:8]};" in told.reason
    assert A[:9] not in told.reason and B[:9] not in told.reason
    assert told.reason.endswith("wgctl uplink trust accept nodeA")


def test_a_claim_does_not_touch_the_peer_that_is_there() -> None:
    found = ground(pin(), said={B: "nodeA"})
    assert verdict("nodeA", found).state is TRUSTED
    assert verdict("nodeA", found, key=A).state is TRUSTED
    assert verdict("nodeA", found, key=B).state is CHANGED


def test_a_mapped_address_that_another_claims() -> None:
    found = ground(mapped="10.9.0.1", listed=True, said={B: "nodeA"})
    assert verdict("nodeA", found, key=B).state is CHANGED
    away = ground(mapped="10.9.0.7", listed=True, said={B: "nodeA"})
    told = verdict("nodeA", away, key=B)
    assert told.state is CHANGED and "list peer puts it at 10.9.0.7" in told.reason


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


def test_a_rejection_goes_before_a_change() -> None:
    found = ground(pin(fingerprint=FP), approvals=(record("rejected"),), said={B: "nodeA"})
    assert verdict("nodeA", found, key=B).state is UNTRUSTED


# --- what this router's own programs hand in


@pytest.mark.parametrize("said", [{}, {A: "nodeA"}, {A: "nodeA", B: "nodeA"}])
def test_a_listed_peer_by_our_own_programs(said: dict[str, str]) -> None:
    found = ground(listed=True, said=said)
    assert verdict("nodeA", found, local=True) == Verdict(TRUSTED)
    assert verdict("nodeA", found).state is UNBOUND
    strict = ground(listed=True, said=said, source="master-link")
    assert verdict("nodeA", strict, local=True).state is UNTRUSTED
    assert verdict("nodeA", ground(said=said), local=True).state is UNTRUSTED


def test_a_claim_does_not_count_against_our_own_programs() -> None:
    found = ground(pin(), said={B: "nodeA"}, peers=(PEER_B,))
    assert verdict("nodeA", found, local=True).state is TRUSTED


def test_a_rejection_counts_for_our_own_programs_too() -> None:
    found = ground(pin(fingerprint=FP), listed=True, approvals=(record("rejected"),))
    assert verdict("nodeA", found, local=True).state is UNTRUSTED


# --- accept


def test_accepting_who_claims_to_be_it() -> None:
    wanted = wanted_pin("nodeA", ground(said={A: "nodeA"}), Identity(peer_id="nodeA", key=ID_A))
    assert wanted == Pin(wanted.name, "nodeA", A, ID_A, "")
    assert verdict("nodeA", ground(wanted), key=A, identity=ID_A).state is TRUSTED


def test_accepting_with_an_approval() -> None:
    found = ground(said={A: "nodeA"}, approvals=(RECORD,), source="master-link")
    wanted = wanted_pin("nodeA", found)
    assert wanted.fingerprint == FP and wanted.identity == ""
    after = ground(wanted, approvals=(RECORD,), source="master-link")
    assert verdict("nodeA", after, key=A).state is TRUSTED


def test_accepting_a_mapped_peer_despite_claims() -> None:
    assert wanted_pin("nodeA", ground(mapped="10.9.0.2", said={A: "nodeA"})).mesh_key == B


def test_accepting_a_changed_key_and_a_changed_identity() -> None:
    changed = ground(pin(), said={B: "nodeA"}, peers=(PEER_B,))
    assert wanted_pin("nodeA", changed) == pin(B)
    same = ground(pin(identity=ID_A))
    assert wanted_pin("nodeA", same, Identity(peer_id="nodeA", key=ID_B)) == pin(A, ID_B)


def test_names_of_sections_suit_uci_and_differ() -> None:
    names = {
        wanted_pin(peer_id, ground(said={A: peer_id})).name
        for peer_id in ("sb-0011aabbccdd", "sb.0011aabbccdd", "sb_0011aabbccdd", "SB-0011aabbccdd")
    }
    assert len(names) == 4
    assert all(name.replace("_", "").isalnum() and name.isascii() for name in names)


BOTH = {A: "nodeA", B: "nodeA"}
SAID = {A: "nodeA"}
BOTH_GO_BY_IT = f"go by the id nodeA ({A[:8]} at 10.9.0.1, {B[:8]} at 10.9.0.2)"
TWICE = (RECORD, record("approved", OTHER))
TAKEN = pin(B, fingerprint=FP, peer_id="nodeB")
REVOKE = "wgctl uplink trust revoke nodeB first"
REFUSED: list[tuple[str, Ground, str, type[UplinkError], str]] = [
    ("unseen", ground(), "", NotFound, "not seen on the mesh yet"),
    ("mapped away", ground(mapped="10.9.0.7"), "", NotFound, "no mesh peer has 10.9.0.7"),
    ("two claim it", ground(said=BOTH), "", InvalidArgument, f"2 mesh peers {BOTH_GO_BY_IT}"),
    ("pinned and claimed", ground(pin(), said={B: "nodeA"}), "", InvalidArgument, "list peer"),
    ("key of another", ground(pin(peer_id="nodeB"), mapped="10.9.0.1"),
     "", InvalidArgument, REVOKE),
    ("several approvals", ground(said=SAID, approvals=TWICE),
     "", InvalidArgument, f"--fingerprint {FP} or {OTHER}"),
    ("unknown", ground(said=SAID, approvals=(RECORD,)), "ff", NotFound, "no record ff"),
    ("pending", ground(said=SAID, approvals=(record("pending"),)),
     FP, NotTrusted, "is pending: approve it there first"),
    ("rejected since it was pinned", ground(pin(fingerprint=FP), approvals=(record("rejected"),)),
     "", NotTrusted, "is rejected"),
    ("not approved", ground(said=SAID, approvals=(), source="master-link"),
     "", NotTrusted, "approve it there first"),
    ("fingerprint of another", ground(TAKEN, said=SAID, approvals=(RECORD,)),
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


def test_a_fingerprint_that_is_named_decides() -> None:
    both = (RECORD, record("approved", OTHER, "whatever"))
    found = ground(said={A: "nodeA"}, approvals=both)
    assert wanted_pin("nodeA", found, fingerprint=OTHER).fingerprint == OTHER


def test_accepting_again_when_the_approval_is_gone() -> None:
    found = ground(pin(fingerprint=FP), approvals=())
    assert wanted_pin("nodeA", found).fingerprint == ""


# --- revoke


def test_revoking() -> None:
    assert pins_to_revoke("nodeA", ground(pin(), listed=True)) == {"trust_nodeA"}
    assert pins_to_revoke("nodeA", ground(listed=True)) == set()
    with pytest.raises(NotFound):
        pins_to_revoke("nodeA", ground(pin(peer_id="nodeB"), mapped="10.9.0.1"))


@pytest.mark.parametrize("source", SOURCES)
def test_after_revoking_nothing_makes_it_trusted(source: str) -> None:
    after = ground(mapped="10.9.0.1", said={A: "nodeA"}, approvals=(RECORD,), source=source)
    assert verdict("nodeA", after, key=A).state in (UNBOUND, UNTRUSTED)


def test_pins_that_master_link_took_back() -> None:
    pins = pin(fingerprint=FP), pin(B, fingerprint=OTHER, peer_id="nodeB"), pin(key_of("c"))
    held = record("rejected"), record("pending", OTHER)
    assert list(rejected_pins(ground(*pins, approvals=held))) == [pins[0]]
    assert list(rejected_pins(ground(*pins, approvals=held, source="uci"))) == []
    assert list(rejected_pins(ground(*pins, approvals=None))) == []
