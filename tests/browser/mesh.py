"""Three routers of a mesh with the product on them, and browser sessions at the one called home.

One session may change things, one only reads. What owners do at the other routers is done on their
bus.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.lab.lab import Lab
from tests.lab.mesh import mesh_network
from tests.lab.peers import Peer, start_peers

from .gateway import Gateway, Session, log_in
from .rpcd import Rpcd

ACL = sorted((Path(__file__).parents[2] / "acl.d").glob("*.json"))
OVERVIEW = "admin/network/wireguard-uplink/overview"
SETTINGS = "admin/network/wireguard-uplink/settings"
OFFERS: dict[str, dict[str, object]] = {
    "nodea": {"bandwidth_mbps": 80, "wan_type": "fiber"},
    "nodeb": {"metered": True, "quota_gb": 20},
}


@dataclass(frozen=True, slots=True)
class Mesh:
    """`home` is the router whose pages are shown; `peers` are all of them by name."""

    lab: Lab
    peers: dict[str, Peer]

    @classmethod
    def build(cls, lab: Lab, **options: object) -> Mesh:
        """Lay the mesh and start the services; nodea and nodeb trust home and offer."""
        mesh = mesh_network(lab, ["home", "nodea", "nodeb"])
        peers = start_peers(lab, mesh, **options)
        for name, offer in OFFERS.items():
            peers[name].trust("home")
            peers[name].ask("uplink_offer", **offer)
        return cls(lab, peers)

    @property
    def home(self) -> Peer:
        return self.peers["home"]

    def enter(self) -> BrowserSession:
        """A gateway to home's bus with both sessions."""
        return BrowserSession.to(self.home.service.socket, self.home.service.config_dir)


@dataclass(frozen=True, slots=True)
class BrowserSession:
    """A gateway, the two sessions that it lets in, and the files behind it."""

    gateway: Gateway
    owner: Session
    guest: Session
    rpcd: Rpcd

    @classmethod
    def to(cls, socket: str, config_dir: str) -> BrowserSession:
        """Open it to a service's bus and configuration."""
        rpcd = Rpcd(config_dir)
        gateway = Gateway(socket, others=rpcd.objects)
        owner, guest = (
            gateway.admit(rpcd.admit(log_in(ACL, write=write))) for write in (True, False)
        )
        return cls(gateway, owner, guest, rpcd)
