"""Handlers of `uplink_explain` and `uplink_simulate`: why this path, and what if paths failed.

The ranking of failover/selection.py as numbers and sentences, and the very rules that decide for
real on copies of what the monitor knows. Nothing is changed and no command is run. An uplink fails
along with the device that it travels over, or with the WAN whose underlay it shares.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from ..carrying.watch import CarryingWatch
from ..config.store import ConfigStore
from ..errors import NotFound
from ..failover.decision import candidates_of, primary_of
from ..failover.machine import AWAY, Path, Phase, State, decide
from ..failover.monitor import Monitor
from ..failover.paths import backup_path
from ..failover.selection import KEPT, TIERS, Candidate, Place, Ranked, place_of, rank, score_ms
from ..mesh.offers import OfferBook
from ..mesh.registry.peers import Peers
from ..model import Family, Health, PathKind
from ..probing.probe_kind import ProbeKind
from ..reasons import because, joined, told_with
from ..text import quoted
from ..uplinks.terms import offer_reason
from ..values import dataclass
from . import replies as r
from .status import uplink_reason

ASSUMED = because("assumed")


@dataclass(eq=False, repr=False)
class ExplainMethods:
    _store: ConfigStore
    _monitor: Monitor
    _carrying: CarryingWatch
    _offers: OfferBook
    _peers: Peers
    _clock: Callable[[], float] = time.monotonic

    def uplink_explain(self) -> r.Explained:
        now_s = self._clock()
        return r.Explained(
            families=[self._family(family, now_s) for family in Family],
            others=[*self._idle_uplinks(), *self._idle_offers(now_s)],
        )

    def uplink_simulate(self, fail: Sequence[str]) -> r.Simulated:
        """What would happen if these paths failed. Raises NotFound for one that nobody knows."""
        failed, now_s = self._devices(fail), self._clock()
        return r.Simulated(
            fail=sorted(failed),
            families=[self._simulated(family, failed, now_s) for family in Family],
        )

    def _names(self) -> Mapping[str, str]:
        """Device -> what people call it: the peer's id, or the WAN's name in the configuration."""
        monitor = self._monitor
        devices = monitor.network.state.wan_devices()
        names = {device: monitor.platform.logical_name(device) for device in devices}
        return names | self._store.current.peer_names

    # --- uplink_explain

    def _family(self, family: Family, now_s: float) -> r.ExplainedFamily:
        monitor, names = self._monitor, self._names()
        state, wan = monitor.states[family], monitor.network.state.wans[family].primary
        ordered = self._ranked(family, now_s) if wan is not None or state.active else []
        following = [each for each in ordered if each.usable and not each.candidate.is_active]
        return r.ExplainedFamily(
            family=family.value,
            state=state.phase.value,
            active_path=state.active,
            primary=wan.device if wan is not None else "",
            cause=state.cause,
            sentence=self._family_sentence(family, names, following),
            note=self._note(family, names),
            candidates=[
                self._row(family, number, ordered, names) for number in range(len(ordered))
            ],
        )

    def _ranked(self, family: Family, now_s: float) -> list[Ranked]:
        """The family's backups, those included that lack the family."""
        monitor = self._monitor
        able = list(candidates_of(monitor, family, now_s)) if monitor.watch.uplinks else []
        able += [
            Candidate(
                uplink.interface,
                PathKind.UPLINK,
                Health.UNKNOWN,
                weight=uplink.weight,
                carries_family=False,
                shares_underlay=uplink.interface in monitor.sharing_underlay(),
            )
            for uplink in monitor.watch.uplinks
            if not uplink.carries(family)
        ]
        return rank(able, prefer_latency=monitor.watch.settings.prefer_latency)

    def _family_sentence(
        self, family: Family, names: Mapping[str, str], following: list[Ranked]
    ) -> str:
        state, shown = self._monitor.states[family], family.shown
        if not state.active:
            return because("no_wan", shown)
        if state.phase is Phase.STRANDED:
            return because("nowhere", shown, state.cause)
        active = names.get(state.active, state.active)
        if not following:
            return because("leaves_last", shown, active)
        heir = following[0].candidate.name
        return because("leaves", shown, active, names.get(heir, heir))

    def _note(self, family: Family, names: Mapping[str, str]) -> str:
        """What else is to be said of the path in use; '' for nothing."""
        state, primary = self._monitor.states[family], primary_of(self._monitor, family)
        path = self._monitor.paths.get((state.active, family))
        told: list[str] = []
        if path is not None and path.kinds.present is not ProbeKind.PING:
            told.append(because("answers_otherwise", path.kinds.present.shown))
        if early := self._monitor.early.get(family):
            told.append(because("early_by", names.get(early, early)))
        if state.phase is Phase.PRIMARY and primary is not None and primary.below_sla:
            told.append(because("no_better", primary.below_sla))
        if eased := self._monitor.why_eased():
            told.append(eased)
        if family in self._carrying.sentences:
            told.append(told_with(self._carrying.sentences[family], "."))
        return joined(" ", told)

    def _row(
        self, family: Family, number: int, ordered: list[Ranked], names: Mapping[str, str]
    ) -> r.CandidateRow:
        ranked, before = ordered[number], ordered[number - 1] if number else None
        found, terms = ranked.candidate, ranked.candidate.terms
        by_latency = self._monitor.watch.settings.prefer_latency
        path = self._monitor.paths.get((found.name, family))
        age_s = found.last_answer_age_s
        return r.CandidateRow.of(
            found,
            ranked,
            terms,
            place=number + 1,
            path=found.name,
            name=names.get(found.name, found.name),
            kind=found.kind.value,
            active=found.is_active,
            health=found.health.value,
            shared_fate=found.shares_underlay,
            tier=TIERS[terms.tier],
            loss_pct=path.health.loss_pct if path is not None else 0.0,
            advertised_mbps=terms.bandwidth_mbps,
            score_ms=round(score_ms(found, prefer_latency=by_latency), 1),
            last_answer_s=-1.0 if age_s is None else round(max(0.0, age_s), 1),
            sentence=sentence(ranked, before, names, prefer_latency=by_latency),
        )

    def _idle_uplinks(self) -> Iterator[r.OtherPeer]:
        """Configured uplinks that are no candidates."""
        config = self._store.current
        watched = {uplink.interface for uplink in self._monitor.watch.uplinks}
        for uplink in config.uplinks:
            if not config.settings.enabled or uplink.interface not in watched:
                distrust_reason = self._peers.distrust_reason(uplink.peer_id)
                why = uplink_reason(uplink, config, [], distrust_reason)
                yield r.OtherPeer(peer_id=uplink.peer_id, configured=True, reason=why)

    def _idle_offers(self, now_s: float) -> Iterator[r.OtherPeer]:
        """Peers that offer their internet and are no uplinks."""
        config = self._store.current
        for offer in self._offers.fresh(now_s):
            if config.uplink_to(offer.peer_id) is None:
                why = self._peers.distrust_reason(offer.peer_id) or offer_reason(offer)
                removed = offer.peer_id in config.settings.declined
                why = why or because("declined" if removed else "not_added", offer.peer_id)
                yield r.OtherPeer(peer_id=offer.peer_id, configured=False, reason=why)

    # --- uplink_simulate

    def _devices(self, fail: Sequence[str]) -> set[str]:
        """The devices that are meant by what people call them, or by their own names."""
        names = self._names()
        under = {device for device in self._monitor.network.state.underlays.values() if device}
        known: dict[str, set[str]] = {device: {device} for device in {*names, *under}}
        for device, name in names.items():
            known.setdefault(name, set()).add(device)
        for word in fail:
            if word not in known:
                listed = ", ".join(sorted(known))
                told = because("no_such_path", quoted(word), listed)
                raise NotFound(told, code="unknown_path")
        return {device for word in fail for device in known[word]}

    def _simulated(
        self, family: Family, failed: Collection[str], now_s: float
    ) -> r.SimulatedFamily:
        monitor, names = self._monitor, self._names()
        before = after = monitor.states[family]
        follower, sentence = "", str(because("no_wan", family.shown))
        primary = primary_of(monitor, family)
        if primary is not None:
            if before.phase in AWAY:
                primary = replace(primary, refused=monitor.who_refuses(primary.name, family))
            down = replace(primary, health=Health.DOWN, cause=ASSUMED)
            settings = monitor.watch.settings
            backups = self._backups(family, failed, now_s)
            now = down if primary.name in failed else primary
            after, _ = decide(before, now, backups, settings, now_s)
            left = self._backups(family, {*failed, primary.name, after.active}, now_s)
            later, _ = decide(after, down, left, settings, now_s)
            follower = later.active if later.active not in (after.active, primary.name) else ""
            sentence = _simulated_sentence(family, after, follower, names)
        return r.SimulatedFamily(
            family=family.value,
            state=after.phase.value,
            active_path=after.active,
            cause=after.cause,
            moves=after.active != before.active,
            next_path=follower,
            sentence=sentence,
        )

    def _backups(self, family: Family, failed: Collection[str], now_s: float) -> list[Path]:
        monitor = self._monitor
        able = candidates_of(monitor, family, now_s) if monitor.watch.uplinks else ()
        assumed = [self._assumed(found, failed) for found in able]
        ranked = rank(assumed, prefer_latency=monitor.watch.settings.prefer_latency)
        return [backup_path(each, monitor.paths[each.candidate.name, family]) for each in ranked]

    def _assumed(self, found: Candidate, failed: Collection[str]) -> Candidate:
        """The candidate as it would be if these devices failed."""
        network = self._monitor.network.state
        wans = set(network.wan_devices())
        underlay = network.underlays.get(found.name, "") if found.kind is PathKind.UPLINK else ""
        cause = ""
        if found.name in failed:
            cause = ASSUMED
        elif underlay in failed and underlay not in wans:
            cause = because("travels_over", underlay)
        elif underlay in wans and wans <= set(failed):
            cause = because("no_wan_left")
        if cause:
            return replace(found, health=Health.DOWN, cause=cause)
        if found.shares_underlay and network.primaries() & set(failed):
            return replace(found, outlives_primary=False)
        return found


def sentence(
    ranked: Ranked, before: Ranked | None, names: Mapping[str, str], *, prefer_latency: bool
) -> str:
    """Why the candidate is at its place: behind `before`, or first (None)."""
    found = ranked.candidate
    name = names.get(found.name, found.name)
    if not ranked.usable:
        return because("unusable", name, ranked.reason)
    if before is None:
        return because("first", name)
    mine = place_of(ranked, prefer_latency=prefer_latency)
    other = place_of(before, prefer_latency=prefer_latency)
    other_name = names.get(before.candidate.name, before.candidate.name)
    return because("after", name, other_name, _difference(ranked, before, mine, other))


def _difference(ranked: Ranked, before: Ranked, mine: Place, other: Place) -> str:
    """What the two differ by that comes first in the order of rank."""
    rule = next(n for n in Place._fields if getattr(mine, n) != getattr(other, n))
    found, first = ranked.candidate, before.candidate
    if rule == "tunnel":
        return because("own_wan")
    if rule == "shares_underlay":
        return because("needs_that_wan")
    if rule == "metric":
        return because("metric", found.metric, first.metric)
    if rule == "tier":
        if not found.terms.is_known:
            return because("cost_unknown")
        return because("metered" if TIERS[found.terms.tier] == "metered" else "nearly_spent")
    if rule == "weight":
        return because("weight", found.weight, first.weight)
    if rule == "price":
        return because("price", f"{found.terms.price_per_gb:g}", f"{first.terms.price_per_gb:g}")
    if rule == "name":
        return because("alike")
    mine_ms, other_ms = _raw_ms(ranked, mine), _raw_ms(before, other)
    if other_ms > mine_ms:
        return because("kept")
    return because("slower", f"{mine_ms:.0f}", f"{other_ms:.0f}")


def _raw_ms(ranked: Ranked, place: Place) -> float:
    return place.score_ms / KEPT if ranked.candidate.is_active else place.score_ms


def _simulated_sentence(
    family: Family, after: State, follower: str, names: Mapping[str, str]
) -> str:
    shown, active = family.shown, names.get(after.active, after.active)
    if after.phase is Phase.STRANDED:
        return because("nowhere", shown, after.cause)
    if not follower:
        return because("would_go_last", shown, active)
    return because("would_go", shown, active, names.get(follower, follower))
