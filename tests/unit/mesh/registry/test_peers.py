"""What peers say of themselves, and what is remembered of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pytest_mock import MockerFixture

from docs.schemas import check_reply
from rpcd_wireguard_uplink.api.methods import METHODS
from rpcd_wireguard_uplink.config.options import Pin
from rpcd_wireguard_uplink.config.settings import Config
from rpcd_wireguard_uplink.errors import NotTrusted, PeerUnreachable, UplinkError
from rpcd_wireguard_uplink.mesh.offers import OfferBook
from rpcd_wireguard_uplink.mesh.registry import peers as peers_module
from rpcd_wireguard_uplink.mesh.registry.directory import Mesh, MeshPeer, proposed_id
from rpcd_wireguard_uplink.mesh.registry.listing import trust_rows
from rpcd_wireguard_uplink.mesh.registry.peers import Peers
from rpcd_wireguard_uplink.model import TrustRow
from rpcd_wireguard_uplink.warnings import Warnings
from tests.unit.fakes import RoutingTables, key_of, store_of

A, B = (MeshPeer("wg0", key_of(f"m{n}"), (f"10.9.0.{n}",)) for n in (2, 3))
SIGNING = key_of("signing")


def said(peer_id: str, key: str = SIGNING) -> dict[str, str]:
    return {"type": "uplink_identity", "peer_id": peer_id, "identity": key}


@pytest.fixture
def peers() -> Peers:
    store = store_of(Config(pins=(Pin("trust_1", "nodea", A.key),)))
    made = Peers(store, OfferBook(), Warnings(), RoutingTables(), node_id="me", mesh=Mesh((A, B)))
    made.rebuild()
    return made


def test_a_name_that_is_heard_is_known_and_told_once(peers: Peers) -> None:
    assert peers.heard(B, said("nodeb"))
    assert not peers.heard(B, said("nodeb"))
    assert peers.directory.name_of(B.key) == "nodeb"
    assert peers.identity_of("nodeb") == SIGNING
    assert peers.verdict("nodeb").reason


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
    assert peers.identities == {"other19": SIGNING}, "each peer has one place"
    assert peers.directory.name_of(B.key) == "other19", "who is known may still be renamed"
    peers.require_own_name(B, "other19")
    with pytest.raises(NotTrusted):
        peers.require_own_name(B, "nodea")


# --- every WireGuard peer is listed


def reasons(peers: Peers, failures: dict[str, UplinkError] | None = None) -> dict[str, str]:
    """Mesh key -> id and reason, of every row."""
    rows = trust_rows(peers, (failures or {}).get, 7333)
    assert all(check_row(row) for row in rows)
    return {row.mesh_key: f"{row.peer_id}: {row.reason}" for row in rows}


def check_row(row: TrustRow) -> bool:
    check_reply(METHODS["uplink_trust"], {"node_id": "me", "peers": [row.as_table()]})
    return True


def test_a_peer_without_a_name_is_listed_with_its_reason(peers: Peers) -> None:
    wide = MeshPeer("wg0", key_of("m5"), allowed=("10.9.0.0/24",))
    vpn = MeshPeer("vpn0", key_of("vpn"), allowed=("0.0.0.0/0",))
    peers.mesh = Mesh((A, B, wide), others=(vpn,))
    peers.rebuild()
    found = reasons(peers, {B.key: PeerUnreachable("can't be reached: Connection refused")})
    assert found.keys() == {A.key, B.key, wide.key, vpn.key}
    assert found[A.key] == "nodea: ", "it is trusted, and nothing is wrong"
    assert found[B.key].startswith(": it has not come up, and wg0 has no endpoint"), found[B.key]
    assert "10.9.0.0/24" in found[wide.key]
    assert "VPN" in found[vpn.key]
    assert "not asked" in reasons(peers)[B.key]


def test_a_trusted_peer_whose_service_is_gone_is_told(peers: Peers) -> None:
    peers.mesh = Mesh((replace(A, handshake_age_s=5.0), B))
    peers.rebuild()
    refused = PeerUnreachable("no")
    refused.__cause__ = ConnectionRefusedError()
    assert "nothing listens" in reasons(peers, {A.key: refused})[A.key]


def test_routers_of_one_host_name_are_told_apart(peers: Peers) -> None:
    """As every OpenWrt is called OpenWrt: this router, and two more."""
    other = MeshPeer("wg0", key_of("m4"), ("10.9.0.4",))
    peers.node_id = "OpenWrt"
    peers.mesh = Mesh((A, B, other), devices={"wg0": key_of("ours")})
    peers.rebuild()
    with pytest.raises(UplinkError):
        peers.heard(B, said("OpenWrt"))
    found = reasons(peers)
    assert found[B.key].startswith("OpenWrt: ")
    assert proposed_id("OpenWrt", B.key) in found[B.key]
    assert proposed_id("OpenWrt", key_of("ours")) in peers.warnings["node_id"]
    peers.heard(B, said("nodeb"))
    assert "node_id" not in peers.warnings
    peers.heard(other, said("nodeb"))
    found = reasons(peers)
    for each in (B, other):
        assert found[each.key].startswith("nodeb: several mesh peers")
        assert proposed_id("nodeb", each.key) in found[each.key]
