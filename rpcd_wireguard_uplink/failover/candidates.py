"""What is to be watched, and the backups that it makes, with what the kernel says, now.

Puts together what selection.py ranks. Judges nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from ..config.settings import Settings
from ..model import Family, Health, PeerCounters, Uplink
from ..platform.network_reader import NetworkReader
from .capacity import Capacity
from .selection import Candidate, Terms, kept_terms

if TYPE_CHECKING:
    from .machine import State
    from .paths import PathSet


@dataclass(frozen=True, slots=True)
class Watch:
    """What is to be watched: settings, and the uplinks that stand and whose peers are trusted.

    A router that `serves` others watches its lines as if they were always in use.
    """

    settings: Settings
    uplinks: tuple[Uplink, ...] = ()
    serves: bool = False


class Scene(Protocol):
    """What is looked at: the monitor's own view."""

    watch: Watch
    paths: PathSet
    network: NetworkReader
    states: dict[Family, State]
    terms: Mapping[str, Terms]
    counters: dict[str, PeerCounters]
    capacities: dict[str, Capacity]

    def shares_underlay(self, interface: str) -> bool:
        """Whether the uplink needs the WAN that it should replace."""


def candidates_of(scene: Scene, family: Family, now_s: float) -> Iterator[Candidate]:
    """Every watched path of the family but its primary."""
    lines = scene.network.state.wans[family]
    weights = {uplink.interface: uplink.weight for uplink in scene.watch.uplinks}
    silent_since_s = _primary_silent_since_s(scene, family)
    active = scene.states[family].active
    for path in scene.paths.values():
        if path.family is not family:
            continue
        if lines.primary is not None and path.device == lines.primary.device:
            continue
        answer_s = path.health.last_answer_s
        line = lines.known.get(path.device)
        yield Candidate(
            name=path.device,
            kind=path.kind,
            health=path.health.state,
            cause=path.health.cause,
            weight=weights.get(path.device, 0),
            metric=line.metric if line is not None else 0,
            latency_ms=path.health.latency_ms,
            shared_fate=line is None and scene.shares_underlay(path.device),
            terms=_terms(scene, path.device),
            is_active=path.device == active,
            last_answer_age_s=None if answer_s is None else now_s - answer_s,
            outlives_primary=answer_s is None
            or silent_since_s is None
            or answer_s > silent_since_s,
            fault=_fault(scene, path.device),
        )


def _fault(scene: Scene, device: str) -> str:
    """Why a path is of no use although it answers; both families are one tunnel."""
    paths = [scene.paths.get((device, family)) for family in Family]
    return next((path.mtu.fault for path in paths if path is not None and path.mtu.fault), "")


def _terms(scene: Scene, device: str) -> Terms:
    told, seen = scene.terms.get(device), scene.capacities.get(device)
    if told is None:
        costs = {uplink.interface: uplink.cost for uplink in scene.watch.uplinks}
        told = kept_terms(costs[device]) if device in costs else Terms()
    if seen is None or not seen.measured_mbps:
        return told
    return replace(told, measured_mbps=seen.measured_mbps)


def learn_capacities(scene: Scene, now_s: float) -> None:
    """Take what the tunnels' counters say of their speed. To be called as they are read."""
    for device in scene.capacities.keys() - scene.counters.keys():
        del scene.capacities[device]
    for device, counted in scene.counters.items():
        paths = [scene.paths.get((device, family)) for family in Family]
        latency_ms = max((p.health.latency_ms for p in paths if p is not None), default=-1.0)
        capacity = scene.capacities.setdefault(device, Capacity())
        capacity.seen(counted.rx_bytes, latency_ms, now_s)


def dead_for_s(scene: Scene, device: str, now_s: float) -> float:
    """How long nothing has answered through a watched path; 0 while one family is not dead."""
    ages = []
    for family in Family:
        path = scene.paths.get((device, family))
        if path is None:
            continue
        if path.health.state in (Health.UP, Health.SUSPECT):
            return 0.0
        last_s = path.health.last_answer_s
        ages.append(now_s - (path.born_s if last_s is None else last_s))
    return min(ages, default=0.0)


def _primary_silent_since_s(scene: Scene, family: Family) -> float | None:
    line = scene.network.state.wans[family].primary
    path = scene.paths.get((line.device, family)) if line is not None else None
    return None if path is None else path.health.silent_since_s
