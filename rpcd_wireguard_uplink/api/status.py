"""What the service knows, as the tables that `uplink_list` and `uplink_status` reply with.

Reads the monitor and the configuration and changes nothing; a reply needs no command to be run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from ..carrying.watch import CarryingWatch
from ..config.settings import Config, Settings
from ..config.store import ConfigStore
from ..failover.decision import ranked_backups
from ..failover.machine import Phase, State
from ..failover.monitor import Monitor
from ..failover.paths import WatchedPath
from ..failover.selection import Ranked, offer_reason
from ..history import History
from ..mesh.offers import OfferBook
from ..mesh.peers import Peers
from ..model import Family, Health, HistoryEntry, Offer, PathKind, Uplink
from ..platform.protocol import Platform
from ..probing.icmp import PROBE_BYTES
from ..probing.probe_kind import ProbeKind
from ..provider.lease_server import LeaseServer
from ..uplinks.wans import Wans
from ..warnings import Warnings
from .replies import OFFERS_IN_STATUS

Table = dict[str, Any]
EVENTS_IN_STATUS = 10
SEVERITY = (
    Phase.DISABLED,
    Phase.STRANDED,
    Phase.FAILED_OVER,
    Phase.HOLDING,
    Phase.SUSPECT,
    Phase.PRIMARY,
)


def best_first(uplinks: Iterable[Uplink]) -> list[Uplink]:
    """Uplinks by weight, then by name."""
    return sorted(uplinks, key=lambda uplink: (-uplink.weight, uplink.interface))


def fate_note(monitor: Monitor, uplink: Uplink) -> str:
    """A sentence for the owner where the uplink has no way but the line it should replace."""
    if not monitor.shares_underlay(uplink.interface):
        return ""
    if uplink.interface in monitor.same_wan:
        return f"{uplink.peer_id} leaves by the same line as this router, and is tried last."
    line = monitor.network.state.underlays[uplink.interface]
    return f"This uplink travels over {line} and can't help when that line is dead."


def _prefix_note(monitor: Monitor) -> list[str]:
    """A sentence for the owner where hosts have no public IPv6 address any more."""
    line = monitor.network.state.wans[Family.IPV6].primary
    if line is None or not monitor.network.state.lost_prefix:
        return []
    name = monitor.platform.logical_name(line.device)
    return [f"LAN hosts lost their IPv6 prefix with {name}: they fall back to IPv4."]


def _probe_notes(config: Config, monitor: Monitor) -> list[str]:
    """Sentences for the owner where probes do not come through, or prove nothing."""
    names = {uplink.interface: uplink.peer_id for uplink in config.uplinks}
    notes: dict[str, None] = {}
    for path in monitor.paths.values():
        name = names.get(path.device) or monitor.platform.logical_name(path.device)
        method = path.kinds.present
        if method is not ProbeKind.PING:
            notes[
                f"{name} answers {method.value} but not ping: it is watched by {method.value}"
            ] = None
        for doubt in path.health.targets.doubts():
            notes[f"{name}: {doubt}, which proves nothing beyond it"] = None
    return list(notes)


def _paths_of(monitor: Monitor, device: str) -> list[WatchedPath]:
    found = [monitor.paths.get((device, family)) for family in Family]
    return [path for path in found if path is not None]


def path_state(monitor: Monitor, device: str) -> str:
    """The best of the families' states; `connecting` before WireGuard's first handshake."""
    paths = _paths_of(monitor, device)
    states = {path.health.state for path in paths}
    for health in (Health.UP, Health.SUSPECT, Health.DOWN):
        if health in states:
            if health is Health.DOWN and _never_shook_hands(monitor, device, paths):
                return "connecting"
            bad = health is not Health.DOWN and _is_degraded(paths)
            return "degraded" if bad else str(health.value)
    return "connecting" if paths and paths[0].kind is PathKind.UPLINK else "unknown"


def _is_degraded(paths: list[WatchedPath]) -> bool:
    """Whether none of the families that are alive is good enough."""
    alive = [path for path in paths if path.health.state in (Health.UP, Health.SUSPECT)]
    return all(path.health.quality.below_sla for path in alive)


def _never_shook_hands(monitor: Monitor, device: str, paths: list[WatchedPath]) -> bool:
    counted = monitor.network.state.counters.get(device)
    no_handshake = counted is None or counted.handshake_age_s is None
    return no_handshake and all(
        path.kind is PathKind.UPLINK and path.health.last_answer_s is None for path in paths
    )


def _is_active(monitor: Monitor, device: str) -> bool:
    return any(state.active == device for state in monitor.states.values())


def offer_table(offer: Offer, config: Config, now_s: float, distrust_reason: str = "") -> Table:
    """One offer as `uplink_list` shows it; `distrust_reason` says why its peer is not trusted."""
    reason = distrust_reason or offer_reason(offer)
    return {
        "peer_id": offer.peer_id,
        "trusted": not distrust_reason,
        "usable": not reason,
        "reason": reason,
        "bandwidth_mbps": offer.bandwidth_mbps,
        "latency_ms": offer.latency_ms,
        "wan_type": offer.wan_type,
        "available": offer.available,
        "endpoint": str(offer.endpoint),
        "public_key": offer.public_key,
        "age_s": max(0, int(now_s - offer.received_s)),
        "carrier": offer.carrier,
        "metered": offer.metered,
        "quota_left_gb": offer.quota_left_gb,
        "configured": any(uplink.peer_id == offer.peer_id for uplink in config.uplinks),
    }


def peer_offers(offers: Iterable[Offer]) -> list[Table]:
    """The newest offers of peers that have internet now, as SecuBox's page reads them."""
    newest = [offer for offer in offers if offer.available][-OFFERS_IN_STATUS:]
    return [
        {
            "node_id": offer.peer_id,
            "bandwidth": offer.bandwidth_mbps,
            "latency": max(0.0, offer.latency_ms),
            "public_key": offer.public_key,
            "endpoint": str(offer.endpoint),
            "bandwidth_mbps": offer.bandwidth_mbps,
            "latency_ms": max(0.0, offer.latency_ms),
        }
        for offer in reversed(newest)
    ]


def uplink_table(uplink: Uplink, config: Config, monitor: Monitor) -> Table:
    """One uplink as `uplink_list` shows it."""
    return {
        "peer_id": uplink.peer_id,
        "interface": uplink.interface,
        "weight": uplink.weight,
        "endpoint": str(uplink.endpoint),
        "public_key": uplink.public_key,
        "address": uplink.address(Family.IPV4),
        "address6": uplink.address(Family.IPV6),
        "state": path_state(monitor, uplink.interface),
        "active": _is_active(monitor, uplink.interface),
        "shared_fate": monitor.shares_underlay(uplink.interface),
        "note": fate_note(monitor, uplink),
    }


def _line_table(monitor: Monitor, device: str, now_s: float) -> Table:
    paths = _paths_of(monitor, device)
    answers = [p.health.last_answer_s for p in paths if p.health.last_answer_s is not None]
    portal = monitor.portals.get(device, "")
    worst = min(paths, key=lambda p: p.health.state is Health.UP, default=None)
    return {
        "path": monitor.platform.logical_name(device),
        "device": device,
        "state": "captive" if portal else worst.health.state.value if worst else "unknown",
        "portal": portal,
        "latency_ms": max((p.health.latency_ms for p in paths), default=-1.0),
        "loss_pct": max((p.health.loss_pct for p in paths), default=0.0),
        "last_ok_s": round(now_s - max(answers), 1) if answers else -1.0,
    }


def _uplink_health(
    uplink: Uplink,
    config: Config,
    monitor: Monitor,
    ranked: dict[str, list[Ranked]],
    offers: dict[str, Offer],
    distrust_reason: Callable[[str], str],
    now_s: float,
) -> Table:
    paths = _paths_of(monitor, uplink.interface)
    counted = monitor.network.state.counters.get(uplink.interface)
    seen = ranked.get(uplink.interface, [])
    usable = any(r.usable for r in seen)
    used = monitor.ledger.used(uplink.interface)
    offer = offers.get(uplink.peer_id)
    live = counted.endpoint if counted is not None else ""
    age_s = counted.handshake_age_s if counted is not None else None
    return {
        "peer_id": uplink.peer_id,
        "interface": uplink.interface,
        "weight": uplink.weight,
        "state": path_state(monitor, uplink.interface),
        "active": _is_active(monitor, uplink.interface),
        "latency_ms": max((p.health.latency_ms for p in paths), default=-1.0),
        "loss_pct": max((p.health.loss_pct for p in paths), default=0.0),
        "handshake_age_s": -1 if age_s is None else int(age_s),
        "rx_bytes": counted.rx_bytes if counted is not None else 0,
        "tx_bytes": counted.tx_bytes if counted is not None else 0,
        "today_bytes": used.today,
        "month_bytes": used.period,
        "quota_left_gb": offer.quota_left_gb if offer is not None else -1.0,
        "endpoint": live or str(uplink.endpoint),
        "probe_mb_a_day": _probe_mb_a_day(monitor, paths, now_s),
        "mtu": monitor.network.state.mtu_of(uplink.interface),
        "underlay": monitor.network.state.underlays.get(uplink.interface, ""),
        "shared_fate": monitor.shares_underlay(uplink.interface),
        "usable": usable,
        "reason": ""
        if usable
        else uplink_reason(uplink, config, seen, distrust_reason(uplink.peer_id)),
        "note": fate_note(monitor, uplink),
    }


def _probe_mb_a_day(monitor: Monitor, paths: list[WatchedPath], now_s: float) -> float:
    rates = (PROBE_BYTES[path.family] / monitor.pause_s(path, now_s) for path in paths)
    return round(sum(rates) * 86400 / 1e6, 2)


def uplink_reason(uplink: Uplink, config: Config, seen: list[Ranked], distrust_reason: str) -> str:
    """Why an uplink whose ranks were `seen` can't be used now, as a sentence."""
    if not config.settings.enabled:
        return "the service is disabled in its configuration"
    if not uplink.enabled:
        return "the uplink is disabled in its section"
    if distrust_reason:
        return distrust_reason
    return seen[0].reason if seen else "it is not watched yet"


def _leading(states: dict[Family, State]) -> State:
    """The family's state that an owner should hear of first."""
    return min(states.values(), key=lambda state: SEVERITY.index(state.phase))


def _release_s(state: State, settings: Settings, now_s: float) -> float:
    """Seconds until traffic may go back to the primary that answers again; -1 if none waits."""
    if state.phase is not Phase.HOLDING or state.good_since_s is None:
        return -1.0
    held_s = settings.held_s(state.flaps)
    return round(max(0.0, state.good_since_s + held_s - now_s), 1)


def _timeout_s(monitor: Monitor) -> float | None:
    """The longest time that an answer through a primary is waited for now."""
    primaries = [
        monitor.paths.get((lines.primary.device, family))
        for family, lines in monitor.network.state.wans.items()
        if lines.primary is not None
    ]
    return max((path.health.timeout_s for path in primaries if path is not None), default=None)


def status_table(
    config: Config,
    monitor: Monitor,
    offers: Iterable[Offer],
    events: Iterable[HistoryEntry],
    problems: list[str],
    now_s: float,
    distrust_reason: Callable[[str], str],
) -> Table:
    """The whole reply of `uplink_status`."""
    settings = config.settings
    offers = list(offers)
    by_peer = {offer.peer_id: offer for offer in offers}
    ranked: dict[str, list[Ranked]] = {}
    for family in Family:
        for each in ranked_backups(monitor, family, now_s):
            ranked.setdefault(each.candidate.name, []).append(each)
    lead = _leading(monitor.states)
    primaries = [
        wans.primary.device for wans in monitor.network.state.wans.values() if wans.primary
    ]
    return {
        "available": True,
        "enabled": int(settings.enabled),
        "auto_failover": int(settings.auto_failover),
        "offering": 0,
        "consumers": [],
        "state": lead.phase.value,
        "active_path": lead.active,
        "since_s": round(max(0.0, now_s - lead.since_s), 1),
        "cause": lead.cause,
        "release_s": _release_s(lead, settings, now_s),
        "detection_bound_ms": round(settings.detection_bound_s(_timeout_s(monitor)) * 1000),
        "uplink_count": len(config.uplinks),
        "active_count": sum(uplink.enabled for uplink in config.uplinks),
        "primary": _line_table(monitor, primaries[0] if primaries else "", now_s),
        "families": {
            family.value: {"state": state.phase.value, "active_path": state.active}
            for family, state in monitor.states.items()
        },
        "wans": [_line_table(monitor, d, now_s) for d in monitor.network.state.wan_devices()],
        "uplinks": [
            _uplink_health(uplink, config, monitor, ranked, by_peer, distrust_reason, now_s)
            for uplink in best_first(config.uplinks)
        ],
        "peer_offers": peer_offers(offers),
        "events": [entry.as_table() for entry in events],
        "problems": [*problems, *_prefix_note(monitor), *_probe_notes(config, monitor)],
    }


class StatusMethods:
    """The handlers of `uplink_status` and `uplink_history`."""

    def __init__(
        self,
        platform: Platform,
        store: ConfigStore,
        monitor: Monitor,
        carrying: CarryingWatch,
        wans: Wans,
        offers: OfferBook,
        peers: Peers,
        lease_server: LeaseServer,
        history: History,
        warnings: Warnings,
    ) -> None:
        self._platform = platform
        self._store = store
        self._monitor = monitor
        self._carrying = carrying
        self._wans = wans
        self._offers = offers
        self._peers = peers
        self._lease_server = lease_server
        self._history = history
        self._warnings = warnings

    def status(self) -> Table:
        """Everything about now."""
        self._monitor.counters.freshen()
        now_s, config = time.monotonic(), self._store.current
        notes = (fate_note(self._monitor, uplink) for uplink in config.uplinks)
        problems = [*self._warnings.all(), *config.warnings]
        problems += filter(None, notes)
        table = status_table(
            config,
            self._monitor,
            self._offers.fresh(now_s),
            self._history.newest(EVENTS_IN_STATUS),
            problems,
            now_s,
            self._peers.distrust_reason,
        )
        for family in Family:
            table["families"][family.value]["carrying"] = self._carrying.carrying(family)
        keys = ("peer_id", "address", "handshake_age_s", "rx_bytes", "tx_bytes", "month_bytes")
        consumers = self._lease_server.consumer_rows()
        return {
            **table,
            **self._wans.mwan3_view,
            "offering": int(config.provider.enabled),
            "consumers": [{key: row[key] for key in keys} for row in consumers],
        }

    def read_history(self, limit: int = 50) -> Table:
        """What happened, newest first."""
        return {"events": [entry.as_table() for entry in self._history.newest(limit)]}
