"""The routers of a mesh with the product running on them, and what an owner does and sees there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from rpcd_wireguard_uplink.errors import BusError

from .consumers import ECHO, both_ends, probe
from .lab import Lab
from .mesh import MeshRouter
from .node import LabError, Node
from .router import Status, settings, states
from .service import Service

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Peer:
    """One router of the mesh and its service."""

    router: MeshRouter
    service: Service

    def ask(self, method: str, **arguments: object) -> Row:
        """A method's reply without a process for it. Raises LabError for a failure."""
        reply = self.service.ask(method, **arguments)
        if reply.get("success", True) is not True:
            raise LabError(f"{method} at {self.router.name}: {reply}\n{self.service.log()}")
        return reply

    def until(self, fits: Callable[[], object], what: str, timeout_s: float = 15.0) -> float:
        """Wait until this is so and return the moment. Raises LabError when it does not come."""
        deadline = time.monotonic() + timeout_s
        while (now := time.monotonic()) < deadline:
            try:
                if fits():
                    return now
            except BusError:
                pass  # its service is being started
            time.sleep(0.05)
        raise LabError(f"{self.router.name}: {what} not in {timeout_s:g} s\n{self.service.log()}")

    def trust(self, *names: str) -> None:
        """Accept these peers, as soon as they were seen on the mesh."""

        def seen() -> bool:
            found = {row["peer_id"] for row in self.ask("uplink_trust")["peers"]}
            return found.issuperset(names)

        self.until(seen, f"{names} on the mesh")
        for name in names:
            self.ask("uplink_trust_accept", peer_id=name)

    def offers(self) -> dict[str, Row]:
        """The offers that it knows, by peer."""
        return {row["peer_id"]: row for row in self.ask("uplink_list")["offers"]}

    def hears_of(self, *names: str, timeout_s: float = 15.0) -> float:
        """The moment from which it knows exactly these peers' offers."""
        return self.until(
            lambda: self.offers().keys() == set(names), f"offers of just {names}", timeout_s
        )

    def status(self) -> Status:
        """uplink_status."""
        return self.ask("uplink_status")

    def uplink(self, peer_id: str) -> Row:
        """The uplink to this peer, as uplink_status shows it."""
        found: list[Row] = [u for u in self.status()["uplinks"] if u["peer_id"] == peer_id]
        return found[0]

    def ready(self, *names: str, timeout_s: float = 30.0) -> None:
        """Wait until the uplinks to these peers could take over."""

        def up() -> bool:
            rows = [self.uplink(name) for name in names]
            return all(row["usable"] and row["state"] == "up" for row in rows)

        self.until(up, f"uplinks to {names} up", timeout_s)

    def answered_by(self, name: str, timeout_s: float) -> None:
        """Wait until a probe through the uplink to this peer is answered."""

        def answered() -> bool:
            return bool(self.ask("uplink_test", peer_id=name, count=1)["received"])

        self.until(answered, f"answers by {name}", timeout_s)

    def uses(self, *paths: str, timeout_s: float = 20.0) -> float:
        """The moment from which both families' traffic takes one of these paths."""

        def active() -> bool:
            families = self.status()["families"].values()
            return {family["active_path"] for family in families} <= set(paths)

        return self.until(active, f"traffic on {paths}", timeout_s)

    def wait_primary(self) -> None:
        """Wait until traffic uses the WAN."""
        self.until(lambda: states(self.status()) == {"primary"}, "traffic on the WAN", 30.0)

    def refusals(self) -> dict[str, int]:
        """What it refused of peers, by code."""
        rows = self.ask("uplink_consumers")["refused"]
        return {row["code"]: row["count"] for row in rows}

    def refuses(self, code: str, count: int) -> None:
        """Wait until it has refused so many of this kind."""
        self.until(lambda: self.refusals().get(code, 0) >= count, f"{count} refusals {code}")

    def through(self, peer_id: str, *addresses: str) -> list[str]:
        """For each address what a connection to its echo through that uplink sees: the source by
        which it came, `silence` or an error's name.
        """
        device = self.uplink(peer_id)["interface"]
        return probe(self.router.node, *(("tcp", a, ECHO, "", device) for a in addresses))


def flood_mbps(node: Node, internet: Node, server: str, rate_mbps: float) -> tuple[float, float]:
    """What arrives down and up, with headers, where a node and an address of the internet's node
    send each other datagrams at this rate for 3 s.
    """
    return both_ends(node, internet, "flood", server, rate_mbps)


def start_peers(
    lab: Lab,
    mesh: dict[str, MeshRouter],
    more: str = "",
    *,
    service: type[Service] = Service,
    **options: object,
) -> dict[str, Peer]:
    """Start the service on every router of a mesh; nobody trusts anybody yet.

    `more` are further sections of everybody's configuration. No uplink is made by itself.
    """
    common = {"min_uplinks": 0, "pace": "default", **options}
    found = {
        name: Peer(
            router,
            service(lab, router.node, settings((), node_id=name, **common) + more),  # type: ignore[arg-type]
        )
        for name, router in mesh.items()
    }
    for peer in found.values():
        peer.service.start(wait=False)
    for peer in found.values():
        peer.service.wait_until_up()
    return found


def trust_each_other(peers: dict[str, Peer], pairs: Iterable[tuple[str, str]]) -> None:
    """Have both owners of each pair accept the other's router."""
    for one, other in pairs:
        peers[one].trust(other)
        peers[other].trust(one)


def lease_uplink(consumer: Peer, provider: Peer) -> None:
    """Have the provider offer and the consumer add an uplink, which could then take over."""
    name = provider.router.name
    provider.ask("uplink_offer")
    consumer.hears_of(name)
    consumer.ask("uplink_add", peer_id=name)
    consumer.ready(name)
