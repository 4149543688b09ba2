"""One WAN of a router, the ways in which real ones fail, and default routes over several.

A fault is made on the ISP's side, as in reality: the router sees silence or a lost carrier.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

from .lab import Lab
from .node import Node, join


@dataclass(frozen=True, slots=True)
class Wan:
    """One WAN of one router. Addresses are without their lengths."""

    router: Node
    device: str
    isp: Node
    isp_device: str
    address4: str
    gateway4: str
    address6: str
    gateway6: str
    metric: int = 0

    @property
    def addresses(self) -> tuple[str, str]:
        """The router's own, IPv4 and IPv6."""
        return self.address4, self.address6

    @property
    def gateways(self) -> tuple[str, str]:
        """The ISP's end, IPv4 and IPv6."""
        return self.gateway4, self.gateway6

    def connect(self) -> None:
        """Make the cable, the addresses at both ends and the router's default routes."""
        join(self.isp, self.isp_device, self.router, self.device)
        self.isp.ip(
            f"addr add {self.gateway4}/29 dev {self.isp_device}",
            f"addr add {self.gateway6}/64 dev {self.isp_device} nodad",
        )
        self.router.ip(
            f"addr add {self.address4}/29 dev {self.device}",
            f"addr add {self.address6}/64 dev {self.device} nodad",
            *self._routes,
        )

    def drop(self, percent: int = 100, *, gateway_answers: bool = False) -> float:
        """Lose packets silently in both directions; returns the moment just before.

        With `gateway_answers` the link is good and the ISP's network behind it is dead: its own
        addresses answer. Without, nothing passes, not even ARP.
        """
        rule = "drop" if percent >= 100 else f"numgen random mod 100 < {percent} drop"
        table, device = self._table, self.isp_device
        chains = [f"type filter hook {hook} device {device}" for hook in ("ingress", "egress")]
        if gateway_answers:
            chains = ["type filter hook forward"]
            rule = f"iifname {device} {rule}\noifname {device} {rule}"
            table = table.replace("netdev", "inet")
        bodies = "\n".join(
            f"chain c{number} {{\n{hook} priority 0;\n{rule}\n}}"
            for number, hook in enumerate(chains)
        )
        moment = time.monotonic()
        self.isp.nft(f"{self._removal}\ntable {table} {{\n{bodies}\n}}")
        return moment

    def restore(self) -> float:
        """Let packets pass again after drop(); returns the moment just before."""
        moment = time.monotonic()
        self.isp.nft(self._removal)
        return moment

    def carrier_down(self) -> float:
        """Take the carrier away; returns the moment just before.

        The kernel keeps the router's routes then. What removes them on a real router is netifd:
        call remove_routes() for the same.
        """
        moment = time.monotonic()
        self.isp.run(["ip", "link", "set", self.isp_device, "down"])
        return moment

    def carrier_up(self) -> float:
        """Give the carrier back; returns the moment just before."""
        moment = time.monotonic()
        self.isp.run(["ip", "link", "set", self.isp_device, "up"])
        return moment

    def unplug(self) -> float:
        """Carrier loss, and what netifd does about it; returns the moment just before."""
        moment = self.carrier_down()
        self.remove_routes()
        return moment

    def plug_in(self) -> float:
        """The end of it; returns the moment just before."""
        moment = self.carrier_up()
        self.add_routes()
        return moment

    def add_routes(self) -> None:
        """The router's default routes by this WAN, as its network configuration would add."""
        self.router.ip(*self._routes)

    def remove_routes(self) -> None:
        """Take them away, as `ifdown` would. Routes that have gone already are no error."""
        four, six = self._metrics
        self.router.sh(
            f"ip route del default via {self.gateway4} dev {self.device} {four} || true\n"
            f"ip -6 route del default via {self.gateway6} dev {self.device} {six} || true"
        )

    @property
    def _routes(self) -> tuple[str, str]:
        four, six = self._metrics
        return (
            f"route replace default via {self.gateway4} dev {self.device} {four}",
            f"route replace default via {self.gateway6} dev {self.device} {six}",
        )

    @property
    def _metrics(self) -> tuple[str, str]:
        if not self.metric:
            return "", ""
        return f"metric {self.metric}", f"metric {1024 + self.metric}"

    @property
    def _table(self) -> str:
        return f"netdev cut_{self.isp_device}"

    @property
    def _removal(self) -> str:
        inet = self._table.replace("netdev", "inet")
        return "\n".join(f"table {t}\ndelete table {t}" for t in (self._table, inet))


def slow_down(lab: Lab, wan: Wan, round_trip_s: float) -> None:
    """Give the WAN this round trip, address resolution included; its faults are made as before."""
    isp, far, near, middle = wan.isp, wan.isp_device, "slow0", "slow1"
    isp.sh(
        f"ip link set {far} down\nip addr flush dev {far}\nip link set {far} name {near}\n"
        f"ip link add {far} type veth peer name {middle}\n"
        f"echo 1 >/proc/sys/net/ipv6/conf/{near}/disable_ipv6\n"
        f"echo 1 >/proc/sys/net/ipv6/conf/{middle}/disable_ipv6\n"
        f"ip link set {near} arp off up\nip link set {middle} arp off up\nip link set {far} up\n"
        f"ip addr add {wan.gateway4}/29 dev {far}\n"
        f"ip addr add {wan.gateway6}/64 dev {far} nodad"
    )
    for node, device in ((wan.router, wan.device), (isp, far)):
        node.ask("delay", json.dumps({"whole": device}))
    wanted = json.dumps({"ports": [near, middle], "delay_s": round_trip_s / 2})
    lab.start(isp, "delay", wanted)


def balance(wans: Sequence[Wan]) -> None:
    """Replace these WANs' default routes by one of each family that spreads flows over them.

    Flows are told apart by their ports too, as owners of balanced WANs configure it.
    """
    router = wans[0].router
    for wan in wans:
        wan.remove_routes()
    hops4 = " ".join(f"nexthop via {wan.gateway4} dev {wan.device} weight 1" for wan in wans)
    hops6 = " ".join(f"nexthop via {wan.gateway6} dev {wan.device} weight 1" for wan in wans)
    router.sysctl("net/ipv4/fib_multipath_hash_policy", 1)
    router.sysctl("net/ipv6/fib_multipath_hash_policy", 1)
    router.sh(f"ip route replace default {hops4}\nip -6 route replace default {hops6}")


def balance_by_objects(wans: Sequence[Wan]) -> None:
    """The same by nexthop objects and a group of them in each family, in place of balance()."""
    router = wans[0].router
    for ip, base in (("ip", 100), ("ip -6", 200)):
        ids = []
        for number, wan in enumerate(wans, start=base + 1):
            gateway = wan.gateway4 if ip == "ip" else wan.gateway6
            router.sh(f"{ip} nexthop add id {number} via {gateway} dev {wan.device}")
            ids.append(str(number))
        router.sh(
            f"ip nexthop add id {base} group {'/'.join(ids)}\n"
            f"{ip} route del default\n{ip} route add default nhid {base}"
        )
