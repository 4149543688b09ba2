"""The decision of one family: the backups that there are, ranked, and what the state machine says.

Functions of the monitor's own view (`Scene`) and the time; nothing is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Protocol

from ..model import Family, Health, PathKind, Uplink
from ..platform.network_reader import NetworkReader
from ..probing.capacity import Capacity
from ..reasons import because
from ..storage.usage import Ledger
from ..values import replace
from . import machine
from .machine import AWAY, Change, Choice, Decision, Path, Phase, State
from .paths import PathSet, Watch, backup_path
from .selection import Candidate, Ranked, Terms, is_early, kept_terms, rank

NO_WAN = "no WAN"
MOST = 8  # uplinks that share an outage's load
_NO_PRIMARY = Path(NO_WAN, Health.DOWN, cause=because("no_route"))


class Scene(Protocol):
    """What a decision rests on: the monitor's own view.

    `who_refuses` says who else holds a WAN to be dead ('': nobody).
    """

    watch: Watch
    paths: PathSet
    network: NetworkReader
    states: dict[Family, State]
    terms: Mapping[str, Terms]
    capacities: dict[str, Capacity]
    ledger: Ledger
    who_refuses: Callable[[str, Family], str]
    choice: Choice | None

    def sharing_underlay(self) -> Collection[str]:
        """The uplinks that need the WAN that they should replace."""


def decide(scene: Scene, family: Family, now_s: float) -> Decision:
    """What follows for the family from what is known now."""
    state, primary = scene.states[family], primary_of(scene, family)
    dead, answering = scene.paths.dead(family), scene.paths.answering(family)
    if primary is None:
        if state.phase not in AWAY and (family is Family.IPV6 or not scene.paths):
            nothing = replace(state, active="")  # to back up
            return Decision(nothing, NO_WAN, dead, answering=answering)
        primary = _NO_PRIMARY
    if state.phase in AWAY:
        primary = replace(primary, refused=scene.who_refuses(primary.name, family))
    chosen = "" if scene.choice is None else scene.choice.device or primary.name
    # While traffic is at home and the WAN is not dead, nor too bad, no backup is asked for.
    is_dead = primary.health is Health.DOWN
    is_fine = not is_dead and not primary.below_sla and state.phase not in AWAY
    is_fine = is_fine and chosen in ("", primary.name)
    found = [] if is_fine else ranked_backups(scene, family, now_s)
    if is_dead and not chosen and state.phase not in AWAY:
        found = [ranked for ranked in found if ranked.usable][:1]  # the first that works is taken
    backups = [backup_path(each, scene.paths[each.candidate.name, family]) for each in found]
    settings = scene.watch.settings
    state, change = machine.decide(state, primary, backups, settings, now_s, chosen)
    spread = tuple(spread_over(scene, family, state, now_s))
    noticed_ms = _detection_ms(scene, family, change)
    return Decision(state, primary.name, dead, change, noticed_ms, answering, spread=spread)


def primary_of(scene: Scene, family: Family) -> Path | None:
    """The family's own WAN as decisions see it; None where it has none."""
    wan = scene.network.state.wans[family].primary
    if wan is None:
        return None
    path = scene.paths.get((wan.device, family))
    if path is None:
        return Path(wan.device, Health.UNKNOWN)
    health, is_away = path.health, scene.states[family].phase in AWAY
    below_sla = health.quality.near_sla if is_away else health.quality.below_sla
    return Path(wan.device, health.state, cause=health.cause, below_sla=below_sla)


def ranked_backups(scene: Scene, family: Family, now_s: float) -> list[Ranked]:
    """All backups of a family in order, usable or not."""
    able = candidates_of(scene, family, now_s) if scene.watch.uplinks else ()
    return rank(able, prefer_latency=scene.watch.settings.prefer_latency)


def early_backups(scene: Scene, family: Family, now_s: float) -> list[str]:
    """The backups that new connections may leave by at a first doubt of the primary, best first."""
    costs, network = scene.watch.settings.early_failover == "all", scene.network.state
    primary, over = network.wans[family].primary, network.underlays
    return [
        ranked.candidate.name
        for ranked in ranked_backups(scene, family, now_s)
        if is_early(ranked.candidate, costs=costs)
        and (primary is None or over.get(ranked.candidate.name) != primary.device)
    ]


def spread_over(scene: Scene, family: Family, state: State, now_s: float) -> list[tuple[str, int]]:
    """The uplinks over which new connections spread in an outage, with their speeds in Mbit/s: the
    active one, and others of the same cost. None where there is but one.
    """
    is_wanted = scene.watch.settings.spread and scene.choice is None
    if not is_wanted or state.phase not in (Phase.FAILED_OVER, Phase.HOLDING):
        return []
    able = [
        each.candidate
        for each in ranked_backups(scene, family, now_s)
        if is_early(each.candidate, costs=True) and each.candidate.kind is PathKind.UPLINK
    ]
    active = next((c for c in able if c.name == state.active), None)
    if active is None:
        return []
    alike = [c for c in able if c.terms.tier == active.terms.tier][:MOST]
    ways = [(c.name, c.terms.expected_mbps) for c in sorted(alike, key=lambda c: c.name)]
    return ways if len(ways) > 1 and active in alike else []


def candidates_of(scene: Scene, family: Family, now_s: float) -> Iterator[Candidate]:
    """Every watched path of the family but its primary."""
    wans, active = scene.network.state.wans[family], scene.states[family].active
    primary = wans.primary.device if wans.primary is not None else ""
    watched = scene.paths.get((primary, family))
    silent_since_s = watched.health.silent_since_s if watched is not None else None
    uplinks = {uplink.interface: uplink for uplink in scene.watch.uplinks}
    sharing = scene.sharing_underlay()
    # Both families are one tunnel: what one of them can't do is of no use.
    faults = {path.device: path.mtu.fault for path in scene.paths.values() if path.mtu.fault}
    for (device, its_family), path in scene.paths.items():
        if its_family is not family or device == primary:
            continue
        health = path.health
        answer_s, uplink, wan = health.last_answer_s, uplinks.get(device), wans.known.get(device)
        yield Candidate(
            name=device,
            kind=path.kind,
            health=health.state,
            cause=health.cause,
            weight=uplink.weight if uplink is not None else 0,
            metric=wan.metric if wan is not None else 0,
            latency_ms=health.latency_ms,
            shares_underlay=wan is None and device in sharing,
            terms=_terms(scene, device, uplink),
            is_active=device == active,
            last_answer_age_s=None if answer_s is None else now_s - answer_s,
            outlives_primary=answer_s is None
            or silent_since_s is None
            or answer_s > silent_since_s,
            fault=faults.get(device, ""),
        )


def _terms(scene: Scene, device: str, uplink: Uplink | None) -> Terms:
    told, seen = scene.terms.get(device), scene.capacities.get(device)
    if told is None:
        told = kept_terms(uplink.cost) if uplink is not None else Terms()
    if seen is None or not seen.measured_mbps:
        return told
    return replace(told, measured_mbps=seen.measured_mbps)


def _detection_ms(scene: Scene, family: Family, change: Change | None) -> int:
    path = scene.paths.get((change.from_path, family)) if change is not None else None
    if path is None or path.health.state is not Health.DOWN or path.health.detection_s < 0:
        return -1
    return round(path.health.detection_s * 1000)


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
