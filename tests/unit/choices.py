"""A monitor whose lines, uplinks and verdicts a test sets; nothing in it runs or sends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from rpcd_wireguard_uplink.api.explain import ExplainMethods
from rpcd_wireguard_uplink.config.options import Settings
from rpcd_wireguard_uplink.config.probe_profile import DEFAULT_PROFILE
from rpcd_wireguard_uplink.config.settings import Config
from rpcd_wireguard_uplink.failover.detector import PathHealth
from rpcd_wireguard_uplink.failover.monitor import Monitor
from rpcd_wireguard_uplink.failover.paths import Watch, WatchedPath
from rpcd_wireguard_uplink.mesh.wire.offer import Offer
from rpcd_wireguard_uplink.model import DefaultRoute, Endpoint, Family, Health, PathKind, Uplink
from rpcd_wireguard_uplink.platform.network_reader import NetworkReader
from rpcd_wireguard_uplink.probing.icmp import Prober
from rpcd_wireguard_uplink.system.network import Wans
from tests.unit.fakes import Machine, key_of, monitor_of, set_network, store_of

NOW_S = 1000.0
BOTH = ("10.7.7.2/32", "fd77::2/128")


def uplink_of(peer_id: str, weight: int = 10, addresses: Sequence[str] = BOTH) -> Uplink:
    """An uplink that stands; its endpoint is its own."""
    endpoint = Endpoint(f"192.0.2.{len(peer_id)}", 51820)
    name = f"wgup_{peer_id.lower()}"
    return Uplink(peer_id, name, endpoint, key_of(peer_id), tuple(addresses), weight=weight)


def offer_of(peer_id: str, **changes: object) -> Offer:
    """An offer of that peer."""
    found = Offer(
        peer_id=peer_id,
        host="192.0.2.7",
        port=51820,
        public_key=key_of(peer_id),
        bandwidth_mbps=100,
        latency_ms=15.0,
    )
    return found.replaced(**changes)


@dataclass
class Choices:
    """The router: `wan` is its first line in both families; each uplink goes by `br-lan`."""

    monitor: Monitor
    config: Config

    @classmethod
    def lay(cls, tmp_path: Path, uplinks: Sequence[Uplink], **settings: object) -> Choices:
        """With these uplinks, all up; the lines answer too."""
        machine = Machine(str(tmp_path))
        monitor = monitor_of(machine)
        chosen = Settings(**settings)  # type: ignore[arg-type]
        monitor.watch = Watch(chosen, tuple(uplinks))
        found = cls(monitor, Config(chosen, tuple(uplinks)))
        for family in Family:
            monitor.states[family] = replace(monitor.states[family], active="wan")
            found.line("wan", family)
            for uplink in uplinks:
                if uplink.carries(family):
                    found.path(uplink.interface, family)
        found.set_network(underlays={uplink.interface: "br-lan" for uplink in uplinks})
        return found

    @property
    def network(self) -> NetworkReader:
        """The kernel's view."""
        return self.monitor.network

    def set_network(self, **changes: object) -> None:
        """Have the network differ in these fields."""
        set_network(self.network, **changes)

    def without_wan(self, family: Family) -> None:
        """The family has no WAN."""
        self.set_network(wans={**self.network.state.wans, family: Wans()})

    def line(self, device: str, family: Family, metric: int = 0) -> None:
        """One more line of the router, which answers."""
        wans = self.network.state.wans
        route = DefaultRoute(family, device, metric=metric)
        self.set_network(
            wans={**wans, family: wans[family].after([*wans[family].routes, route], [])}
        )
        self.path(device, family, PathKind.WAN)

    def path(
        self,
        device: str,
        family: Family,
        kind: PathKind = PathKind.UPLINK,
        state: Health = Health.UP,
        cause: str = "answers",
        latency_ms: float = 20.0,
        answered_ago_s: float | None = 1.0,
    ) -> None:
        """Have a watched path with this verdict."""
        health = PathHealth(DEFAULT_PROFILE, ("192.0.2.1",))
        health.state, health.cause = state, cause
        health.round_trip.smoothed_s = None if latency_ms < 0 else latency_ms / 1000
        health.last_answer_s = None if answered_ago_s is None else NOW_S - answered_ago_s
        health.alive_since_s = 0.0 if state is Health.UP else None
        prober = Prober(device, family)
        found = WatchedPath(device, kind, family, health, prober, born_s=0.0)
        self.monitor.paths[device, family] = found


def explain_methods(
    choices: Choices, offers: Sequence[Offer] = (), distrusted: Mapping[str, str] | None = None
) -> ExplainMethods:
    """What explains this router, with these offers and reasons not to trust peers."""
    store, reasons = store_of(choices.config), distrusted or {}
    return ExplainMethods(
        store,
        choices.monitor,
        cast(Any, SimpleNamespace(sentences={})),
        cast(Any, SimpleNamespace(fresh=lambda now_s: offers)),
        cast(Any, SimpleNamespace(distrust_reason=lambda peer_id: reasons.get(peer_id, ""))),
        lambda: NOW_S,
    )
