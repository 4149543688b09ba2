"""A WAN as PPPoE has it: no gateway, no neighbours, and a device that goes with the session.

Played by a veth pair without ARP, whose ends have one MAC address so that each takes what the other
sends: many kernels of test machines have no PPP.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .network import ConsumerNetwork
from .node import join
from .wan import Wan

DEVICE = "pppoe-wan"
MAC = "02:00:00:00:50:50"


@dataclass(frozen=True, slots=True)
class Session(Wan):
    """The WAN while one session lasts; the next may have other addresses."""

    def connect(self) -> None:
        """Dial: make the device, the addresses of both ends and the router's default routes."""
        join(self.isp, self.isp_device, self.router, self.device)
        near = ((self.router, self.device), (self.isp, self.isp_device))
        for node, device in near:
            node.sh(
                f"ip link set {device} down\n"
                f"ip link set {device} address {MAC} arp off mtu 1492\nip link set {device} up"
            )
        self.isp.sh(
            f"ip addr add {self.gateway4} peer {self.address4}/32 dev {self.isp_device}\n"
            f"ip addr add {self.gateway6}/128 dev {self.isp_device} nodad\n"
            f"ip -6 route add {self.address6}/128 dev {self.isp_device}"
        )
        self.router.sh(
            f"ip addr add {self.address4} peer {self.gateway4}/32 dev {self.device}\n"
            f"ip addr add {self.address6}/128 dev {self.device} nodad"
        )
        self.add_routes()

    def hang_up(self) -> None:
        """End the session: the device goes, and its routes with it."""
        self.router.sh(f"ip link delete {self.device}")

    def redial(self, number: int) -> Session:
        """Begin a session with other addresses and return it."""
        stem4, stem6 = self.address4.rpartition(".")[0], self.address6.rpartition(":")[0]
        fresh = replace(self, address4=f"{stem4}.{number}", address6=f"{stem6}:{number}")
        fresh.connect()
        return fresh

    def add_routes(self) -> None:
        """The router's default routes by this line: by the device alone."""
        self.router.sh(
            f"ip route replace default dev {self.device} metric {self.metric}\n"
            f"ip -6 route replace default dev {self.device} metric {1024 + self.metric}"
        )

    def remove_routes(self) -> None:
        """Take them away. Routes that have gone already are no error."""
        self.router.sh(
            f"ip route del default dev {self.device} || true\n"
            f"ip -6 route del default dev {self.device} || true"
        )


def pppoe_network(network: ConsumerNetwork) -> ConsumerNetwork:
    """The network with its WAN replaced by a PPPoE session over the same cable."""
    old = network.wan
    old.remove_routes()
    old.router.sh(f"ip addr flush dev {old.device}")
    session = Session(
        router=old.router,
        device=DEVICE,
        isp=old.isp,
        isp_device="ppp0",
        address4="198.51.100.66",
        gateway4="198.51.100.65",
        address6="2001:db8:1000:41::66",
        gateway6="2001:db8:1000:41::65",
        metric=10,
    )
    session.connect()
    session.router.sh(f"nft add rule inet wan_nat postrouting oifname {DEVICE} masquerade")
    return replace(network, wan=session)
