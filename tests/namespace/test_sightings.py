"""Every WireGuard peer is seen, with the reason why it can't be used; and who may ask us at all."""

from __future__ import annotations

import time

import pytest

from tests.lab.lab import Lab
from tests.lab.mesh import MESH_DEVICE, MeshRouter, mesh_network
from tests.lab.peers import Peer, Row
from tests.lab.provider import make_device, new_keys
from tests.lab.router import settings
from tests.lab.service import Service
from tests.lab.troubles import MESH_TCP

pytestmark = pytest.mark.needs("conntrack")


def peer_of(lab: Lab, router: MeshRouter, node_id: str) -> Peer:
    return Peer(router, Service(lab, router.node, settings((), node_id=node_id)))


def row_of(peer: Peer, router: MeshRouter) -> Row:
    """How it shows the router, by its key on the mesh."""
    rows = [r for r in peer.ask("uplink_trust")["peers"] if r["mesh_key"] == router.mesh_key]
    assert len(rows) == 1, rows
    return rows[0]


def reason_has(peer: Peer, router: MeshRouter, told: str) -> None:
    """Wait until it gives this reason."""
    deadline = time.monotonic() + 40.0
    while told not in (reason := row_of(peer, router)["reason"]):
        assert time.monotonic() < deadline, f"{router.name}: {reason}"
        time.sleep(0.2)


def listeners(peer: Peer) -> set[str]:
    """The devices on which it takes what peers ask."""
    shown = peer.router.node.sh(f"ss -Htln sport = :{MESH_TCP}")
    return {line.split()[3].partition("%")[2].rpartition(":")[0] for line in shown.splitlines()}


def test_each_peer_is_listed_with_the_reason(lab: Lab) -> None:
    """One fine, one without the service, one whose firewall drops, one known by a network only,
    one that is called as this router is; and a commercial VPN beside them.
    """
    mesh = mesh_network(lab, ("a", "fine", "off", "shut", "wide", "same"))
    a = peer_of(lab, mesh["a"], "OpenWrt")
    private, key = new_keys(a.router.node)
    make_device(a.router.node, "vpn")
    a.router.node.run(["wg", "set", "vpn", "private-key", "/dev/stdin"], input=private)
    a.router.node.sh(
        f"wg set vpn peer {key[:-2]}A= allowed-ips 0.0.0.0/0,::/0 endpoint 192.0.2.9:1\n"
        "ip address add 10.64.0.2/32 dev vpn\nip link set vpn up\n"
        f"wg set {MESH_DEVICE} peer {mesh['wide'].mesh_key} allowed-ips 10.9.0.0/24"
    )
    mesh["shut"].node.filter("input", f"iifname {MESH_DEVICE} tcp dport {MESH_TCP} drop")
    others = [
        peer_of(lab, mesh[n], n if n != "same" else "OpenWrt") for n in ("fine", "shut", "same")
    ]
    for peer in (a, *others):
        peer.service.start()
    wanted = {
        "fine": "accept fine",
        "off": "nothing listens at",
        "shut": "does not answer at",
        "wide": "only networks in its allowed_ips (10.9.0.0/24)",
        "same": "set option node_id in its section uplink, such as OpenWrt-",
    }
    for name, told in wanted.items():
        reason_has(a, mesh[name], told)
    assert row_of(a, mesh["same"])["peer_id"] == "OpenWrt"
    vpn = [r for r in a.ask("uplink_trust")["peers"] if r["device"] == "vpn"]
    assert len(vpn) == 1 and "VPN" in vpn[0]["reason"]
    # In 80 columns sentences are broken.
    shown = " ".join(a.service.wgctl("uplink", "trust").stdout.split())
    doctor = " ".join(a.service.wgctl("uplink", "doctor").stdout.split())
    for told in wanted.values():
        assert told in shown and told in doctor
    assert listeners(a) == {MESH_DEVICE}
