"""Why a WireGuard peer can't be used: each cause has its own sentence, with what mends it."""

from __future__ import annotations

import re

import pytest

from rpcd_wireguard_uplink.errors import NotTrusted, PeerUnreachable, TimedOut, UplinkError
from rpcd_wireguard_uplink.mesh.registry.directory import MeshPeer, proposed_id
from rpcd_wireguard_uplink.mesh.registry.listing import answer_fault, tunnel_fault

OWN = frozenset({"10.9.0.1", "192.168.1.1"})
REFUSED = PeerUnreachable("no")
REFUSED.__cause__ = ConnectionRefusedError()


@pytest.mark.parametrize(
    ("addresses", "allowed", "told"),
    [
        (("10.9.0.2",), ("10.9.0.2/32", "192.168.7.0/24"), ""),
        ((), (), "has no allowed_ips"),
        ((), ("10.9.0.0/24",), r"only networks in its allowed_ips \(10.9.0.0/24\)"),
        ((), ("0.0.0.0/0", "10.9.0.0/24"), "only networks"),
        ((), ("0.0.0.0/0", "::/0"), "a VPN's server"),
        ((), ("0.0.0.0/0",), "a VPN's server"),
        ((), ("10.9.0.1/32",), "this router's own address 10.9.0.1"),
        ((), ("10.9.0.9/32", "10.9.0.0/24"), "shares 10.9.0.9"),
    ],
)
def test_a_tunnel_that_proves_nobody(
    addresses: tuple[str, ...], allowed: tuple[str, ...], told: str
) -> None:
    found = tunnel_fault(MeshPeer("wg0", "KEY", addresses, allowed=allowed), OWN)
    if not told:
        assert found == ""
        return
    assert re.search(told, found) and found.startswith("peer KEY of wg0 ")
    assert "10.9.0.2/32" in found, "what mends it"


@pytest.mark.parametrize(
    ("age_s", "endpoint", "failure", "told"),
    [
        (5.0, "e:1", None, ""),
        (None, "", TimedOut("no"), "has not come up, and wg0 has no endpoint"),
        (None, "192.0.2.7:1", TimedOut("no"), "no handshake with it at 192.0.2.7:1"),
        (900.0, "e:1", TimedOut("no"), "no handshake with it for 15 min"),
        (
            5.0,
            "e:1",
            TimedOut("no"),
            "does not answer at 10.9.0.2 TCP port 7333: does its firewall",
        ),
        (5.0, "e:1", REFUSED, "nothing listens at 10.9.0.2 TCP port 7333"),
        (5.0, "e:1", PeerUnreachable("x", code="bad_reply"), "another program's"),
        (900.0, "e:1", NotTrusted("x", code="not_a_peer"), "this router's own address"),
        (5.0, "e:1", PeerUnreachable("No route to host."), "can't be asked: No route to host"),
    ],
)
def test_a_peer_that_does_not_answer(
    age_s: float | None, endpoint: str, failure: UplinkError | None, told: str
) -> None:
    peer = MeshPeer("wg0", "KEY", ("10.9.0.2",), endpoint, age_s, ("10.9.0.2/32",))
    found = answer_fault(peer, failure, 7333)
    assert told in found if told else found == ""


def test_a_proposed_id_is_the_same_for_all_and_another_for_each() -> None:
    assert proposed_id("OpenWrt", "a") == proposed_id("OpenWrt", "a")
    assert proposed_id("OpenWrt", "a") != proposed_id("OpenWrt", "b")
    assert len(proposed_id("x" * 64, "a")) == 64
