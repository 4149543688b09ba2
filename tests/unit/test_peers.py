"""What peers say of themselves, and what is remembered of it."""

from __future__ import annotations

import pytest
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink import peers as peers_module
from rpcd_wireguard_uplink.config import Config
from rpcd_wireguard_uplink.errors import NotTrusted, UplinkError
from rpcd_wireguard_uplink.mesh import Mesh, MeshPeer
from rpcd_wireguard_uplink.peering import Pin
from rpcd_wireguard_uplink.peers import Peers
from tests.unit.fakes import key_of

A, B = (MeshPeer("wg0", key_of(f"m{n}"), (f"10.9.0.{n}",)) for n in (2, 3))
SIGNING = key_of("signing")


def said(peer_id: str, key: str = SIGNING) -> dict[str, str]:
    return {"type": "uplink_identity", "peer_id": peer_id, "identity": key}


@pytest.fixture
def peers() -> Peers:
    config = Config(pins=(Pin("trust_1", "nodea", A.key),))
    made = Peers(lambda: config, node_id="me", mesh=Mesh((A, B)))
    made.rebuild()
    return made


def test_a_name_that_is_heard_is_known_and_told_once(peers: Peers) -> None:
    assert peers.heard(B, said("nodeb"))
    assert not peers.heard(B, said("nodeb"))
    assert peers.directory.name_of(B.key) == "nodeb"
    assert peers.identity_of("nodeb") == SIGNING
    assert peers.standing("nodeb").reason


@pytest.mark.parametrize(
    ("peer", "peer_id", "code"),
    [(B, "me", "own_id"), (B, "nodea", "other_peer"), (A, "nodeb", "other_peer")],
)
def test_nobody_takes_anothers_name(peers: Peers, peer: MeshPeer, peer_id: str, code: str) -> None:
    with pytest.raises(UplinkError) as caught:
        peers.heard(peer, said(peer_id))
    assert caught.value.code == code
    assert peers.identities == {}


def test_a_name_that_two_claim_is_neithers(peers: Peers) -> None:
    other = MeshPeer("wg0", key_of("m4"), ("10.9.0.4",))
    peers.mesh = Mesh((A, B, other))
    peers.rebuild()
    peers.heard(B, said("nodeb"))
    peers.heard(other, said("nodeb"))
    assert peers.directory.named("nodeb") is None
    assert peers.denial_of(B, "nodeb") is not None


def test_what_is_remembered_is_bounded(peers: Peers, mocker: MockerFixture) -> None:
    mocker.patch.object(peers_module, "MOST_SAID", 3)
    for number in range(20):
        peers.heard(B, said(f"other{number}"))
    assert len(peers.identities) == 3
    assert peers.directory.name_of(B.key) == "other19", "who is known may still be renamed"
    peers.require_own_name(B, "other19")
    with pytest.raises(NotTrusted):
        peers.require_own_name(B, "nodea")
