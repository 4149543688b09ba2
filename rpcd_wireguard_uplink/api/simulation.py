"""What would happen if paths died: `uplink_simulate`, by the very rules that decide for real.

Works on copies of what the monitor knows and touches nothing. Knows what dies along with what: an
uplink with the device that it travels over, or with the line whose fate it shares.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..config.settings import Config
from ..errors import NotFound
from ..failover import machine as failover
from ..failover.decision import candidates_of, primary_of
from ..failover.machine import Path, State
from ..failover.monitor import Monitor
from ..failover.paths import backup_path
from ..failover.selection import Candidate, rank
from ..model import Family, Health, PathKind
from ..text import quoted
from .explain import SHOWN, shown_names

Table = dict[str, Any]
CAUSE = "supposed dead"


def simulation(config: Config, monitor: Monitor, fail: Sequence[str], now_s: float) -> Table:
    """The whole reply of `uplink_simulate`. Raises NotFound for a path that nobody knows."""
    names = shown_names(config, monitor)
    dead = _devices(monitor, names, fail)
    return {
        "fail": sorted(dead),
        "families": [_family(monitor, family, dead, names, now_s) for family in Family],
    }


def _devices(monitor: Monitor, names: Mapping[str, str], fail: Sequence[str]) -> set[str]:
    """The devices that are meant by what people call them, or by their own names."""
    under = {device for device in monitor.network.state.underlays.values() if device}
    known: dict[str, set[str]] = {device: {device} for device in {*names, *under}}
    for device, name in names.items():
        known.setdefault(name, set()).add(device)
    for word in fail:
        if word not in known:
            raise NotFound(
                f"{quoted(word)} is no path of this router; known are {', '.join(sorted(known))}",
                code="unknown_path",
            )
    return {device for word in fail for device in known[word]}


def _family(
    monitor: Monitor,
    family: Family,
    dead: Collection[str],
    names: Mapping[str, str],
    now_s: float,
) -> Table:
    before = monitor.states[family]
    primary = primary_of(monitor, family)
    if primary is None:
        told = f"{SHOWN[family]} has no line of its own here."
        return _table(family, before, before, "", told)
    backups = _backups(monitor, family, dead, now_s)
    if before.phase in failover.AWAY:
        primary = replace(primary, refused=monitor.who_refuses(primary.name, family))
    if primary.name in dead:
        primary = replace(primary, health=Health.DOWN, cause=CAUSE)
    settings = monitor.watch.settings
    after, _ = failover.decide(before, primary, backups, settings, now_s)
    left = _backups(monitor, family, {*dead, primary.name, after.active}, now_s)
    down = replace(primary, health=Health.DOWN, cause=CAUSE)
    later, _ = failover.decide(after, down, left, settings, now_s)
    follower = later.active if later.active not in (after.active, primary.name) else ""
    return _table(
        family, before, after, follower, _sentence(family, before, after, follower, names)
    )


def _backups(monitor: Monitor, family: Family, dead: Collection[str], now_s: float) -> list[Path]:
    able = candidates_of(monitor, family, now_s) if monitor.watch.uplinks else ()
    supposed = [_supposed(monitor, found, dead) for found in able]
    ranked = rank(supposed, prefer_latency=monitor.watch.settings.prefer_latency)
    return [backup_path(each, monitor.paths[each.candidate.name, family]) for each in ranked]


def _supposed(monitor: Monitor, found: Candidate, dead: Collection[str]) -> Candidate:
    """The candidate as it would be with these devices dead."""
    network = monitor.network.state
    lines = set(network.wan_devices())
    underlay = network.underlays.get(found.name, "") if found.kind is PathKind.UPLINK else ""
    if found.name in dead:
        return replace(found, health=Health.DOWN, cause=CAUSE)
    if underlay in dead and underlay not in lines:
        return replace(found, health=Health.DOWN, cause=f"it travels over {underlay}")
    if underlay in lines and lines <= set(dead):
        return replace(found, health=Health.DOWN, cause="no line is left that it could travel over")
    if found.shares_underlay and network.primaries() & set(dead):
        return replace(found, outlives_primary=False)
    return found


def _sentence(
    family: Family, before: State, after: State, follower: str, names: Mapping[str, str]
) -> str:
    shown, active = SHOWN[family], names.get(after.active, after.active)
    if after.phase is failover.Phase.STRANDED:
        return f"{shown} would go nowhere: {after.cause}."
    stays = "would stay on" if after.active == before.active else "would go to"
    told = f"{shown} {stays} {active}"
    if follower:
        return f"{told}; {names.get(follower, follower)} would be next."
    return f"{told}; nothing would be left behind it."


def _table(family: Family, before: State, after: State, follower: str, told: str) -> Table:
    return {
        "family": family.value,
        "state": after.phase.value,
        "active_path": after.active,
        "cause": after.cause,
        "moves": after.active != before.active,
        "next_path": follower,
        "sentence": told,
    }
