"""A router with the product running and its uplinks configured: where most tests begin.

The product is driven as an owner does it: by options, calls on the bus and what they reply.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rpcd_wireguard_uplink.errors import BusError, TimedOut

from .lab import Lab
from .network import ConsumerNetwork, consumer_network
from .node import LabError, Node
from .provider import Provider, make_providers, new_keys
from .service import Service

TARGETS = ("1.1.1.1", "8.8.8.8", "2606:4700:4700::1111", "2001:4860:4860::8888")
WAIT_S = 30.0
Status = dict[str, Any]


def settings(
    peers: Iterable[str] = ("nodea",), targets: Sequence[str] = TARGETS, **options: object
) -> str:
    """The main section. By default the fast pace and a hold time of a second."""
    hold_s = options.get("hold_time", 1)  # one line dies in many tests: that is no flapping
    chosen = {"enabled": 1, "auto_failover": 1, "pace": "fast", "hold_time": 1}
    chosen |= {"max_hold_time": hold_s, "min_uplinks": 0, **options}
    lines = ["config wireguard-uplink 'uplink'"]
    lines += [f"\toption {name} '{value}'" for name, value in chosen.items()]
    lines += [f"\tlist trusted_peer '{peer}'" for peer in peers]
    lines += [f"\tlist track_ip '{target}'" for target in targets]
    return "\n".join(lines) + "\n"


def configure_uplink(
    node: Node,
    keys_dir: str,
    provider: Provider,
    host: str,
    *,
    place: int = 9,
    weight: int = 10,
    other: str = "",
) -> str:
    """Have an uplink configured as an earlier run left it; returns its section.

    Its key lies in `keys_dir` and the provider has admitted it, so that the tunnel shakes hands at
    once. (After an uplink_add the first handshake comes too early, and WireGuard tries again only
    after 5 s.) `place` tells several consumers of one provider apart, `other` is a second address
    of the provider's.
    """
    private, public = new_keys(node)
    name = f"wgup_{provider.peer_id[:8]}"
    os.makedirs(keys_dir, mode=0o700, exist_ok=True)
    with open(os.path.join(keys_dir, f"{name}.key"), "w", encoding="ascii") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(private + "\n")
    addresses = [
        provider.tunnel4.rpartition(".")[0] + f".{place}/32",
        provider.tunnel6.rpartition(":")[0] + f":{place}/128",
    ]
    provider.admit(public, addresses)
    options = {
        "peer_id": provider.peer_id,
        "endpoint_host": host,
        "endpoint_port": provider.listen_port,
        "public_key": provider.public_key,
        "own_public_key": public,
        "weight": weight,
    }
    lines = [f"\nconfig uplink '{name}'"]
    lines += [f"\toption {option} '{value}'" for option, value in options.items()]
    lines += [f"\tlist address '{address}'" for address in addresses]
    lines += [f"\tlist other_endpoint '{other}:{provider.listen_port}'"] if other else []
    return "\n".join(lines) + "\n"


@dataclass(slots=True)
class Router:
    """The consumer of a network, its providers and its service, which start() starts."""

    network: ConsumerNetwork
    providers: tuple[Provider, ...]
    service: Service
    uplinks: str

    @classmethod
    def build(
        cls,
        network: ConsumerNetwork,
        providers: Sequence[Provider],
        main: str,
        *,
        hosts: Sequence[str] = (),
        has_two_ways: bool = False,
        service: type[Service] = Service,
    ) -> Router:
        """An uplink to each provider, by its neighbour link where `hosts` says nothing else; with
        `has_two_ways` the link is the second way then.
        """
        made = service(network.lab, network.consumer, main)
        at = hosts or [link.provider4 for link in network.neighbours]
        links = [link.provider4 if has_two_ways else "" for link in network.neighbours]
        sections = [
            configure_uplink(network.consumer, made.keys_dir, provider, host, other=other)
            for provider, host, other in zip(providers, at, links or [""] * len(at), strict=True)
        ]
        router = cls(network, tuple(providers), made, "".join(sections))
        router.configure(main)
        return router

    @classmethod
    def started(
        cls,
        lab: Lab,
        main: str = "",
        *,
        isp_resolvers: bool = False,
        hosts: Sequence[str] = (),
        has_two_ways: bool = False,
        service: type[Service] = Service,
        **of_network: Any,
    ) -> Router:
        """A network with these options, with an uplink to each provider, and traffic on the WAN.

        With `isp_resolvers` the router's resolvers are its ISP's, at the WAN's gateways.
        """
        network = consumer_network(lab, **of_network)
        if isp_resolvers:
            network.consumer.resolvers(*network.wan.gateways)
        router = cls.build(
            network,
            make_providers(network),
            main or settings(),
            hosts=hosts,
            has_two_ways=has_two_ways,
            service=service,
        )
        router.start()
        return router

    @property
    def router(self) -> Router:
        """Itself: what a pool looks at."""
        return self

    def configure(self, main: str) -> None:
        """Replace the main section; the uplinks stay. A running service is told to read it."""
        self.service.configure(main + self.uplinks)
        if self.service.running:
            self.service.reload()

    def start(self) -> Status:
        """Start the service; returns when traffic goes by the WAN and every uplink is usable."""
        self.service.start()
        return self.wait_primary()

    def status(self) -> Status:
        """uplink_status, read without starting a process."""
        return self.service.ask("uplink_status")

    def wait(self, fits: Callable[[Status], bool], timeout_s: float = WAIT_S) -> Status:
        """The first status that fits. Raises LabError with the last one that did not."""
        deadline = time.monotonic() + timeout_s
        seen: Status | str = "none"
        while (asked := time.monotonic()) < deadline:
            try:
                seen = self.status()
                if fits(seen):
                    return seen
            except (BusError, TimedOut) as error:
                seen = str(error)
            time.sleep(max(0.03, time.monotonic() - asked))  # leaves a slow machine half its time
        raise LabError(f"no such status in {timeout_s:g} s: {seen}\n{self.service.log()}")

    def wait_primary(self, timeout_s: float = WAIT_S) -> Status:
        """Wait until both families use the WAN and every uplink could take over."""
        return self.wait(
            lambda s: (
                states(s) == {"primary"}
                and s["primary"]["state"] == "up"
                and all(u["usable"] and u["state"] == "up" for u in s["uplinks"])
            ),
            timeout_s,
        )

    def wait_failed_over(self, path: str = "wgup_nodea", timeout_s: float = WAIT_S) -> Status:
        """Wait until both families use this path."""
        return self.wait(
            lambda s: (
                states(s) == {"failed_over"}
                and {f["active_path"] for f in s["families"].values()} == {path}
            ),
            timeout_s,
        )

    def stays(self, wanted: str, seconds: float) -> None:
        """Watch for so long that no family leaves this path. Raises LabError when one does."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            status = self.status()
            if {f["active_path"] for f in status["families"].values()} != {wanted}:
                raise LabError(f"traffic left {wanted}: {status}\n{self.service.log()}")
            time.sleep(0.1)

    def until_told(self, *kinds: str) -> None:
        """Wait until these are the last changes of each family in the history, oldest first.

        They are in force then; the status says so a moment before.
        """
        for family in ("ipv4", "ipv6"):
            self.wait(
                lambda _, of=family: (  # type: ignore[misc]
                    [e["kind"] for e in self.events() if e["family"] == of][-len(kinds) :]
                    == list(kinds)
                )
            )

    def events(self, *kinds: str) -> list[dict[str, Any]]:
        """The history's entries of these kinds, oldest first."""
        found: list[dict[str, Any]] = self.service.expect("uplink_history")["events"]
        return [entry for entry in reversed(found) if not kinds or entry["kind"] in kinds]


def states(status: Status) -> set[str]:
    """The states of both families."""
    return {family["state"] for family in status["families"].values()}


def sent_packets(node: Node, device: str) -> int:
    """How many packets a node's device has sent."""
    return int(node.sh(f"cat /sys/class/net/{device}/statistics/tx_packets"))
