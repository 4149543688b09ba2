"""Recorded messages: what is sent stays the same byte by byte, and so do signatures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rpcd_wireguard_uplink.mesh.wire.lease import Identity, LeaseGrant, LeaseRelease, LeaseRequest
from rpcd_wireguard_uplink.mesh.wire.message import Message, listed
from rpcd_wireguard_uplink.mesh.wire.offer import Offer, Withdrawal
from rpcd_wireguard_uplink.mesh.wire.signing import Signer, verify
from tests.repo import ROOT

KINDS: dict[str, type[Message]] = {
    kind.name: kind
    for kind in (Offer, Withdrawal, LeaseRequest, LeaseGrant, LeaseRelease, Identity)
}
RECORDED = json.loads(Path(ROOT, "tests/data/mesh_messages.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("row", RECORDED, ids=lambda row: str(row["sent"])[:60])
def test_what_is_sent_stays_the_same(row: dict[str, str]) -> None:
    table = json.loads(row["sent"])
    message = KINDS[table["type"]].parse(table)
    assert json.dumps(message.as_table(), separators=(",", ":")) == row["sent"]
    kept = json.loads(json.dumps(message.as_row()))
    assert type(message).parse_row(kept) == message


def test_what_is_signed_stays_the_same() -> None:
    signing = pytest.importorskip("nacl.signing", reason="PyNaCl signs messages")
    signer = Signer(signing.SigningKey(bytes(range(32))))
    signed = [row for row in RECORDED if "signed" in row]
    assert len(signed) == 5
    for row in signed:
        table = json.loads(row["sent"])
        message = KINDS[table["type"]].parse(table)
        sent = json.dumps(signer.sign(message.as_table()), separators=(",", ":"))
        assert sent == row["signed"]
        assert verify(row["signed"]) == signer.key


def test_what_replies_show_of_an_offer_has_room_for_what_is_not_said() -> None:
    shown = listed(Offer)
    offer = Offer(peer_id="a", host="192.0.2.1", public_key="k")
    for name, member in shown.items():
        assert not [key for key in member.tree if key.startswith("x-")]
        assert getattr(offer, name) >= member.tree.get("minimum", getattr(offer, name))
    assert "received_s" not in shown and "signature" not in shown
