"""Why traffic goes where it goes, and who would be next: `uplink_explain`.

Turns the ranking of selection.py into numbers and sentences for people. A pure function of what the
monitor knows: runs no command and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from ..config.settings import Config
from ..failover.decision import candidates_of, primary_of
from ..failover.machine import Phase
from ..failover.monitor import Monitor
from ..failover.selection import (
    KEPT,
    PAGE_MBIT,
    TIERS,
    Candidate,
    Place,
    Ranked,
    offer_reason,
    place_of,
    rank,
    score_ms,
)
from ..model import Family, Health, Offer, PathKind
from ..probing.probe_kind import ProbeKind
from .status import uplink_reason

Table = dict[str, Any]
_TIER_TOLD = (
    "it is free",
    "it is metered",
    "nobody has said what it costs",
    "its quota is nearly spent",
)
SHOWN = {Family.IPV4: "IPv4", Family.IPV6: "IPv6"}


def explanation(
    config: Config,
    monitor: Monitor,
    offers: Iterable[Offer],
    distrust_reason: Callable[[str], str],
    now_s: float,
    unanswered: Mapping[Family, str] = MappingProxyType({}),
) -> Table:
    """The whole reply of `uplink_explain`; `unanswered` says why a path in use doesn't carry."""
    names = shown_names(config, monitor)
    families = [_family_table(monitor, family, names, now_s) for family in Family]
    for family, table in zip(Family, families, strict=True):
        if family in unanswered:
            table["sentence"] += f" But {unanswered[family]}."
    return {
        "families": families,
        "others": [
            *_idle_uplinks(config, monitor, distrust_reason),
            *_offers(config, offers, distrust_reason),
        ],
    }


def shown_names(config: Config, monitor: Monitor) -> Mapping[str, str]:
    """Device -> what people call it: the peer's id, or the line's name in the configuration."""
    lines = {d: monitor.platform.logical_name(d) for d in monitor.network.state.wan_devices()}
    return lines | {uplink.interface: uplink.peer_id for uplink in config.uplinks}


def _family_table(
    monitor: Monitor, family: Family, names: Mapping[str, str], now_s: float
) -> Table:
    state, line = monitor.states[family], monitor.network.state.wans[family].primary
    ordered = _ranked(monitor, family, now_s) if line is not None or state.active else []
    by_latency = monitor.watch.settings.prefer_latency
    rows = []
    for number, ranked in enumerate(ordered):
        before = ordered[number - 1] if number else None
        row = _candidate_table(monitor, family, ranked, names)
        row["place"] = number + 1
        row["score_ms"] = round(score_ms(ranked.candidate, prefer_latency=by_latency), 1)
        row["sentence"] = sentence(ranked, before, names, prefer_latency=by_latency)
        rows.append(row)
    following = [r for r in ordered if r.usable and not r.candidate.is_active]
    return {
        "family": family.value,
        "state": state.phase.value,
        "active_path": state.active,
        "primary": line.device if line is not None else "",
        "cause": state.cause,
        "sentence": _family_sentence(monitor, family, names, following),
        "candidates": rows,
    }


def _ranked(monitor: Monitor, family: Family, now_s: float) -> list[Ranked]:
    """The family's backups, those included that lack the family."""
    able = list(candidates_of(monitor, family, now_s)) if monitor.watch.uplinks else []
    able += [
        Candidate(
            uplink.interface,
            PathKind.UPLINK,
            Health.UNKNOWN,
            weight=uplink.weight,
            carries_family=False,
            shares_underlay=monitor.shares_underlay(uplink.interface),
        )
        for uplink in monitor.watch.uplinks
        if not uplink.carries(family)
    ]
    return rank(able, prefer_latency=monitor.watch.settings.prefer_latency)


def _family_sentence(
    monitor: Monitor, family: Family, names: Mapping[str, str], following: list[Ranked]
) -> str:
    state = monitor.states[family]
    shown = SHOWN[family]
    if not state.active:
        return f"{shown} has no line of its own here, so there is nothing to back up."
    active = names.get(state.active, state.active)
    if state.phase is Phase.STRANDED:
        return f"{shown} goes nowhere: {state.cause}."
    told = f"{shown} leaves by {active}{_circumstance(monitor, family)}"
    path = monitor.paths.get((state.active, family))
    if path is not None and path.kinds.present is not ProbeKind.PING:
        told += f" (it answers {path.kinds.present.value}, not ping)"
    if not following:
        return f"{told}; nothing else could take over now."
    heir = following[0].candidate.name
    return f"{told}; {names.get(heir, heir)} would be next."


def _circumstance(monitor: Monitor, family: Family) -> str:
    """What is to be said of the path taken, to be put behind its name."""
    state, primary = monitor.states[family], primary_of(monitor, family)
    if state.phase is Phase.FAILED_OVER:
        return f", because {state.cause}"
    if state.phase is Phase.HOLDING:
        return f" for a while yet: {state.cause}"
    if state.cause:
        return f", but {state.cause}"
    if primary is not None and primary.below_sla:
        return f", although it {primary.below_sla}, since nothing clearly better answers"
    return ""


def _candidate_table(
    monitor: Monitor, family: Family, ranked: Ranked, names: Mapping[str, str]
) -> Table:
    found, terms = ranked.candidate, ranked.candidate.terms
    path = monitor.paths.get((found.name, family))
    age_s = found.last_answer_age_s
    return {
        "place": 0,
        "path": found.name,
        "name": names.get(found.name, found.name),
        "kind": found.kind.value,
        "usable": ranked.usable,
        "reason": ranked.reason,
        "active": found.is_active,
        "health": found.health.value,
        "shared_fate": found.shares_underlay,
        "metric": found.metric,
        "weight": found.weight,
        "tier": TIERS[terms.tier],
        "price_per_gb": terms.price_per_gb,
        "quota_left_gb": terms.quota_left_gb,
        "latency_ms": found.latency_ms,
        "loss_pct": path.health.loss_pct if path is not None else 0.0,
        "advertised_mbps": terms.bandwidth_mbps,
        "measured_mbps": terms.measured_mbps,
        "expected_mbps": terms.expected_mbps,
        "score_ms": 0.0,
        "last_answer_s": -1.0 if age_s is None else round(max(0.0, age_s), 1),
        "sentence": "",
    }


def sentence(
    ranked: Ranked, before: Ranked | None, names: Mapping[str, str], *, prefer_latency: bool
) -> str:
    """Why the candidate stands where it does: behind `before`, or first (None)."""
    found = ranked.candidate
    name = names.get(found.name, found.name)
    if not ranked.usable:
        return f"{name} can't be used: {ranked.reason}."
    now = " and carries the traffic now" if found.is_active else ""
    if before is None:
        return f"{name} comes first{now}."
    mine = place_of(ranked, prefer_latency=prefer_latency)
    other = place_of(before, prefer_latency=prefer_latency)
    why = _difference(ranked, before, mine, other)
    other_name = names.get(before.candidate.name, before.candidate.name)
    told = f"{name} comes after {other_name}: {why}"
    return told + (", though it carries the traffic now." if now else ".")


def _difference(ranked: Ranked, before: Ranked, mine: Place, other: Place) -> str:
    """What the two differ by that comes first in the order of rank."""
    rule = next(n for n in Place._fields if getattr(mine, n) != getattr(other, n))
    found, first = ranked.candidate, before.candidate
    if rule == "tunnel":
        return "a line of the router's own comes before any peer's"
    if rule == "shares_underlay":
        return "it needs the very line that it should replace"
    if rule == "metric":
        return f"its metric is {found.metric}, not {first.metric}"
    if rule == "tier":
        known = f"the other is {TIERS[first.terms.tier]}"
        compared = known if first.terms.is_known else "the other's cost is not known"
        return f"{_TIER_TOLD[found.terms.tier]}, and {compared}"
    if rule == "weight":
        return f"its weight is {found.weight}, not {first.weight}"
    if rule == "price":
        return f"a GB costs {found.terms.price_per_gb:g} by it, not {first.terms.price_per_gb:g}"
    if rule == "name":
        return "both are alike, and the order of names decides"
    mine_ms, other_ms = _raw_ms(ranked, mine), _raw_ms(before, other)
    told = f"a page of {PAGE_MBIT / 8:g} MB would take {mine_ms / 1000:.2f} s by it"
    told += f", {other_ms / 1000:.2f} s by the other"
    kept = ", which is in use and stays until another is a fifth better"
    return told + (kept if other_ms > mine_ms else "")


def _raw_ms(ranked: Ranked, place: Place) -> float:
    return place.score_ms / KEPT if ranked.candidate.is_active else place.score_ms


def _idle_uplinks(
    config: Config, monitor: Monitor, distrust_reason: Callable[[str], str]
) -> Iterator[Table]:
    watched = {uplink.interface for uplink in monitor.watch.uplinks}
    for uplink in config.uplinks:
        if not config.settings.enabled or uplink.interface not in watched:
            why = uplink_reason(uplink, config, [], distrust_reason(uplink.peer_id))
            yield {"peer_id": uplink.peer_id, "configured": True, "reason": why}


def _offers(
    config: Config, offers: Iterable[Offer], distrust_reason: Callable[[str], str]
) -> Iterator[Table]:
    """Peers that offer their internet and are no uplinks."""
    configured = {uplink.peer_id for uplink in config.uplinks}
    for offer in offers:
        if offer.peer_id not in configured:
            why = distrust_reason(offer.peer_id) or offer_reason(offer)
            asked = "you removed it" if offer.peer_id in config.settings.declined else ""
            asked = asked or "nobody asked for it"
            why = why or f"{asked}: `wgctl uplink add {offer.peer_id}` does"
            yield {"peer_id": offer.peer_id, "configured": False, "reason": why}
