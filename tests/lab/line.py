"""The line between a customer's router and its ISP, and the ways in which real lines fail.

A fault is made on the ISP's side, as in reality: the router sees no more than silence or a lost
carrier. Knows nothing of the networks behind either end.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from .node import Node, join


@dataclass(frozen=True, slots=True)
class Line:
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

    def lay(self) -> None:
        """Make the cable, the addresses at both ends and the router's default routes."""
        join(self.isp, self.isp_device, self.router, self.device)
        self.isp.sh(
            f"ip addr add {self.gateway4}/29 dev {self.isp_device}\n"
            f"ip addr add {self.gateway6}/64 dev {self.isp_device} nodad"
        )
        self.router.sh(
            f"ip addr add {self.address4}/29 dev {self.device}\n"
            f"ip addr add {self.address6}/64 dev {self.device} nodad"
        )
        self.add_routes()

    def drop(self, percent: int = 100, *, gateway_answers: bool = False) -> float:
        """Lose packets silently in both directions; returns the moment just before.

        With `gateway_answers` the line is good and the ISP's network behind it is dead: its own
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
        self.isp.run(["nft", "-f", "-"], input=f"{self._removal}\ntable {table} {{\n{bodies}\n}}")
        return moment

    def restore(self) -> float:
        """Let packets pass again after drop(); returns the moment just before."""
        moment = time.monotonic()
        self.isp.run(["nft", "-f", "-"], input=self._removal)
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

    def add_routes(self) -> None:
        """The router's default routes by this line, as its network configuration would add."""
        four, six = self._metrics
        self.router.sh(
            f"ip route replace default via {self.gateway4} dev {self.device} {four}\n"
            f"ip -6 route replace default via {self.gateway6} dev {self.device} {six}"
        )

    def remove_routes(self) -> None:
        """Take them away, as `ifdown` would. Routes that have gone already are no error."""
        four, six = self._metrics
        self.router.sh(
            f"ip route del default via {self.gateway4} dev {self.device} {four} || true\n"
            f"ip -6 route del default via {self.gateway6} dev {self.device} {six} || true"
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
