"""Handlers of `uplink_list`, `uplink_status` and `uplink_history`: what the service knows.

They read the monitor and the configuration, change nothing and run no command.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from .. import __version__
from ..carrying.watch import CarryingWatch
from ..config.options import Anchor
from ..config.settings import Config
from ..config.store import ConfigStore
from ..failover.decision import ranked_backups
from ..failover.machine import AWAY, Phase, State
from ..failover.monitor import Monitor
from ..failover.paths import WatchedPath
from ..failover.selection import TIERS, Ranked, kept_terms
from ..history.changes import History
from ..mesh.offers import OfferBook
from ..mesh.registry.peers import Peers
from ..mesh.wire.offer import Offer
from ..model import NOT_COUNTED, Family, Health, PathKind, Uplink
from ..mwan3.status import View
from ..platform.linux import Platform
from ..probing.icmp import PROBE_BYTES
from ..probing.probe_kind import ProbeKind
from ..provider.lease_server import LeaseServer
from ..reasons import because, code_of, page_texts, reported
from ..uplinks.terms import offer_reason
from ..uplinks.wans import Wans
from ..values import dataclass
from ..warnings import Warnings
from . import replies as r

API = 1
Advice = tuple[str, str, str]  # a sentence, what a button for it does, the peer it is about
SEVERITY = (
    Phase.DISABLED,
    Phase.STRANDED,
    Phase.FAILED_OVER,
    Phase.HOLDING,
    Phase.SUSPECT,
    Phase.PRIMARY,
)


@dataclass(eq=False, repr=False)
class StatusMethods:
    _platform: Platform
    _store: ConfigStore
    _monitor: Monitor
    _carrying: CarryingWatch
    _wans: Wans
    _offers: OfferBook
    _peers: Peers
    _lease_server: LeaseServer
    _history: History
    _warnings: Warnings

    # --- uplink_list

    def uplink_list(self) -> r.Uplinks:
        self._monitor.counters.freshen()
        uplinks = best_first(self._store.current.uplinks)
        return r.Uplinks(
            offers=[*self.offer_rows()], uplinks=[self._uplink_row(uplink) for uplink in uplinks]
        )

    def offer_rows(self) -> Iterator[r.OfferRow]:
        """A row of each offer, newest last, made when it is asked for."""
        now_s = time.monotonic()
        configured = {uplink.peer_id for uplink in self._store.current.uplinks}
        for offer in self._offers.fresh(now_s):
            yield self._offer_row(offer, now_s, offer.peer_id in configured)

    def _offer_row(self, offer: Offer, now_s: float, configured: bool) -> r.OfferRow:
        distrust_reason = self._peers.offer_distrust_reason(offer)
        reason = distrust_reason or offer_reason(offer)
        return r.OfferRow.of(
            offer,
            trusted=not distrust_reason,
            usable=not reason,
            reason=reason,
            endpoint=str(offer.endpoint),
            age_s=max(0, int(now_s - offer.received_s)),
            configured=configured,
        )

    def _uplink_row(self, uplink: Uplink) -> r.UplinkRow:
        return r.UplinkRow.of(
            uplink,
            endpoint=str(uplink.endpoint),
            address=uplink.address(Family.IPV4),
            address6=uplink.address(Family.IPV6),
            state=path_state(self._monitor, uplink.interface),
            active=self._is_active(uplink.interface),
            shared_fate=uplink.interface in self._monitor.sharing_underlay(),
            note=fate_note(self._monitor, uplink),
        )

    def _is_active(self, device: str) -> bool:
        return any(state.active == device for state in self._monitor.states.values())

    # --- uplink_history

    def uplink_history(self, limit: int = 50) -> r.History:
        return r.History(events=self._history.newest(limit))

    # --- uplink_texts

    def uplink_texts(self) -> r.Texts:
        return r.Texts(texts=[r.Text(code=c, text=t) for c, t in page_texts().items()])

    # --- uplink_status

    def uplink_status(self) -> r.Status:
        self._monitor.counters.freshen()
        return self.current()

    def current(self) -> r.Status:
        """The status by what is known, without having anything read again."""
        monitor, config = self._monitor, self._store.current
        now_s = time.monotonic()
        offers = list(self._offers.fresh(now_s))
        lead = min(monitor.states.values(), key=lambda state: SEVERITY.index(state.phase))
        wans = monitor.network.state.wans.values()
        primary = next((each.primary.device for each in wans if each.primary is not None), "")
        mwan3 = self._wans.mwan3_view
        problems = list(self.problems())
        is_mwan3_there = None if mwan3 is None else bool(mwan3.interfaces)
        status = r.Status(
            available=True,
            version=__version__,
            api=API,
            enabled=int(config.settings.enabled),
            auto_failover=int(config.settings.auto_failover),
            offering=int(config.provider.enabled),
            consumers=[r.ConsumerTraffic.of(row) for row in self._lease_server.consumer_rows()],
            state=lead.phase.value,
            active_path=lead.active,
            since_s=round(max(0.0, now_s - lead.since_s), 1),
            cause=lead.cause,
            release_s=_release_s(lead, config, now_s),
            by_hand=self._by_hand(now_s),
            detection_bound_ms=round(monitor.detection_bound_s * 1000),
            uplink_count=len(config.uplinks),
            active_count=sum(uplink.enabled for uplink in config.uplinks),
            primary=self._wan_health(primary, now_s),
            families=r.Families(ipv4=self._family(Family.IPV4), ipv6=self._family(Family.IPV6)),
            wans=[self._wan_health(d, now_s) for d in monitor.network.state.wan_devices()],
            uplinks=self._uplinks_health({offer.peer_id: offer for offer in offers}, now_s),
            anchors=anchor_rows(config, monitor),
            peer_offers=_peer_offers(offers),
            events=self._history.newest(r.EVENTS_IN_STATUS),
            problems=problems,
            problem_codes=[r.Coded(code=c, args=a) for c, a in map(code_of, problems)],
            summary=r.UNSAID,
            mwan3=None if mwan3 is None else _mwan3(mwan3),
            mwan3_available=is_mwan3_there,
            mwan3_status=None if mwan3 is None else mwan3.told,
        )
        return status.replaced(summary=summarized(status, self.offer_rows()))

    def _by_hand(self, now_s: float) -> r.ByHand | None:
        choice = self._monitor.choice
        if choice is None:
            return None
        names = self._store.current.peer_names
        left_s = round(max(0.0, choice.until_s - now_s), 1)
        return r.ByHand(path=names.get(choice.device, choice.device) or "wan", left_s=left_s)

    def _family(self, family: Family) -> r.FamilyState:
        state = self._monitor.states[family]
        return r.FamilyState(
            state=state.phase.value,
            active_path=state.active,
            blocked=state.phase is Phase.STRANDED and self._store.current.settings.fail_closed,
            carrying=self._carrying.carrying(family),
            early_path=self._monitor.early.get(family, ""),
            spread=list(self._monitor.spread.get(family, ())),
        )

    def _wan_health(self, device: str, now_s: float) -> r.WanHealth:
        paths = self._monitor.paths.of(device)
        answers = [p.health.last_answer_s for p in paths if p.health.last_answer_s is not None]
        portal = self._monitor.portals.get(device, "")
        worst = min(paths, key=lambda p: p.health.state is Health.UP, default=None)
        return r.WanHealth(
            path=self._platform.logical_name(device),
            device=device,
            state="captive" if portal else worst.health.state.value if worst else "unknown",
            portal=portal,
            latency_ms=_latency_ms(paths),
            loss_pct=_loss_pct(paths),
            last_ok_s=round(now_s - max(answers), 1) if answers else -1.0,
        )

    def _uplinks_health(self, offers: dict[str, Offer], now_s: float) -> list[r.UplinkHealth]:
        ranked: dict[str, list[Ranked]] = {}
        for family in Family:
            for each in ranked_backups(self._monitor, family, now_s):
                ranked.setdefault(each.candidate.name, []).append(each)
        places = {interface: place for place, interface in enumerate(ranked)}
        uplinks = best_first(self._store.current.uplinks)
        uplinks.sort(key=lambda uplink: places.get(uplink.interface, len(places)))
        return [
            self._uplink_health(
                uplink, ranked.get(uplink.interface, []), offers.get(uplink.peer_id), now_s
            )
            for uplink in uplinks
        ]

    def _uplink_health(
        self, uplink: Uplink, seen: list[Ranked], offer: Offer | None, now_s: float
    ) -> r.UplinkHealth:
        monitor, config = self._monitor, self._store.current
        network = monitor.network.state
        paths = monitor.paths.of(uplink.interface)
        counted = network.counters.get(uplink.interface, NOT_COUNTED)
        usable = any(each.usable for each in seen)
        reason = uplink_reason(uplink, config, seen, self._peers.distrust_reason(uplink.peer_id))
        used = monitor.ledger.used(uplink.interface)
        rates = (PROBE_BYTES[path.family] / monitor.pause_s(path, now_s) for path in paths)
        terms = seen[0].candidate.terms if seen else kept_terms(uplink.cost)
        return r.UplinkHealth.of(
            *(uplink, counted),
            state=path_state(monitor, uplink.interface),
            active=self._is_active(uplink.interface),
            latency_ms=_latency_ms(paths),
            loss_pct=_loss_pct(paths),
            handshake_age_s=counted.shown_age_s,
            today_bytes=used.today,
            month_bytes=used.period,
            cost=TIERS[terms.tier],
            quota_left_gb=offer.quota_left_gb if offer is not None else -1.0,
            endpoint=counted.endpoint or str(uplink.endpoint),
            probe_mb_a_day=round(sum(rates) * 86400 / 1e6, 2),
            mtu=network.mtu_of(uplink.interface),
            underlay=network.underlays.get(uplink.interface, ""),
            shared_fate=uplink.interface in monitor.sharing_underlay(),
            usable=usable,
            reason="" if usable else reason,
            note=fate_note(monitor, uplink),
        )

    def numbers(self) -> dict[str, tuple[str, float, float]]:
        """State, latency in ms and loss in percent of each path, by its device."""
        monitor, now_s = self._monitor, time.monotonic()
        wans = [self._wan_health(d, now_s) for d in monitor.network.state.wan_devices()]
        found = {wan.device: (wan.state, wan.latency_ms, wan.loss_pct) for wan in wans}
        for uplink in self._store.current.uplinks:
            paths, device = monitor.paths.of(uplink.interface), uplink.interface
            found[device] = (path_state(monitor, device), _latency_ms(paths), _loss_pct(paths))
        return found

    # --- what the owner should mend

    def problems(self) -> Iterator[str]:
        config = self._store.current
        for sentence in self._warnings.all():
            yield reported(sentence)
        yield from (because("setting", reported(sentence)) for sentence in config.warnings)
        yield from filter(None, (fate_note(self._monitor, uplink) for uplink in config.uplinks))
        yield from anchor_problems(anchor_rows(config, self._monitor), config)
        yield from self._prefix_note()
        yield from self._probe_notes()
        if eased := self._monitor.why_eased():
            yield eased

    def _prefix_note(self) -> Iterator[str]:
        """Where hosts have no public IPv6 address any more."""
        network = self._monitor.network.state
        wan = network.wans[Family.IPV6].primary
        if wan is not None and network.lost_prefix:
            name = self._platform.logical_name(wan.device)
            yield because("lost_prefix", name)

    def _probe_notes(self) -> Iterable[str]:
        """Where probes do not come through, or prove nothing."""
        names = self._store.current.peer_names
        notes: dict[str, None] = {}
        for path in self._monitor.paths.values():
            name = names.get(path.device) or self._platform.logical_name(path.device)
            method = path.kinds.present.shown
            if path.kinds.present is not ProbeKind.PING:
                notes[because("watched_by", name, method, method)] = None
            for doubt in path.health.targets.doubts():
                notes[because("proves_nothing", name, doubt)] = None
        return notes


# --- what other handlers tell too


def best_first(uplinks: Iterable[Uplink]) -> list[Uplink]:
    """Uplinks by weight, then by name."""
    return sorted(uplinks, key=lambda uplink: (-uplink.weight, uplink.interface))


def fate_note(monitor: Monitor, uplink: Uplink) -> str:
    """A sentence for the owner where the uplink has no way but the WAN that it should replace."""
    if uplink.interface not in monitor.sharing_underlay():
        return ""
    if uplink.interface in monitor.same_wan:
        return because("same_wan", uplink.peer_id)
    return because("needs_wan", monitor.network.state.underlays[uplink.interface])


def path_state(monitor: Monitor, device: str) -> str:
    """The best of the families' states; `connecting` before WireGuard's first handshake."""
    paths = monitor.paths.of(device)
    states = {path.health.state for path in paths}
    for health in (Health.UP, Health.SUSPECT, Health.DOWN):
        if health in states:
            if health is Health.DOWN and _never_shook_hands(monitor, device, paths):
                return "connecting"
            bad = health is not Health.DOWN and _is_degraded(paths)
            return "degraded" if bad else str(health.value)
    return "connecting" if paths and paths[0].kind is PathKind.UPLINK else "unknown"


def uplink_reason(uplink: Uplink, config: Config, seen: list[Ranked], distrust_reason: str) -> str:
    """Why an uplink whose ranks were `seen` can't be used now, as a sentence."""
    if not config.settings.enabled:
        return because("service_disabled")
    if not uplink.enabled:
        return because("uplink_disabled")
    if distrust_reason:
        return distrust_reason
    return seen[0].reason if seen else because("not_watched")


def _latency_ms(paths: list[WatchedPath]) -> float:
    return max((path.health.latency_ms for path in paths), default=-1.0)


def _loss_pct(paths: list[WatchedPath]) -> float:
    return max((path.health.loss_pct for path in paths), default=0.0)


def _is_degraded(paths: list[WatchedPath]) -> bool:
    """Whether none of the families that are alive is good enough."""
    alive = [path for path in paths if path.health.state in (Health.UP, Health.SUSPECT)]
    return all(path.health.quality.below_sla for path in alive)


def _never_shook_hands(monitor: Monitor, device: str, paths: list[WatchedPath]) -> bool:
    counted = monitor.network.state.counters.get(device, NOT_COUNTED)
    return counted.handshake_age_s is None and all(
        path.kind is PathKind.UPLINK and path.health.last_answer_s is None for path in paths
    )


# --- anchors


def anchor_rows(config: Config, monitor: Monitor) -> list[r.AnchorRow]:
    """A row for each `config anchor` that can be used, in the file's order."""
    found = []
    for anchor in config.anchors:
        uplink = config.uplink_to(anchor.peer_id)
        reason = _anchor_reason(anchor, uplink, monitor)
        found.append(
            r.AnchorRow(
                name=anchor.name,
                peer_id=anchor.peer_id,
                interface=uplink.interface if uplink is not None else "",
                active=not reason,
                reason=reason,
                note=_anchor_note(anchor, uplink, monitor) if anchor.enabled else "",
            )
        )
    return found


def anchor_problems(rows: list[r.AnchorRow], config: Config) -> Iterator[str]:
    """What the owner should mend about them."""
    enabled = {anchor.name for anchor in config.anchors if anchor.enabled}
    for row in rows:
        if row.reason and row.name in enabled:
            yield because("anchor_unused", row.name, row.reason)
        if row.note:
            yield because("anchor_note", row.name, row.note)


def _anchor_reason(anchor: Anchor, uplink: Uplink | None, monitor: Monitor) -> str:
    if not anchor.enabled:
        return because("section_disabled")
    if uplink is None:
        return because("no_anchor_uplink", anchor.peer_id)
    if uplink not in monitor.watch.active_uplinks:
        return because("uplink_unused", anchor.peer_id)
    families = [family for family in Family if anchor.addresses(family) is not None]
    held = {monitor.network.state.private_default.get(family, "") for family in families}
    if "" not in held and held:
        return because("vpn_has_default", ", ".join(sorted(held)))
    if not any(uplink.interface in monitor.paths.answering(family) for family in families):
        return because("nothing_through", uplink.interface)
    return ""


def _anchor_note(anchor: Anchor, uplink: Uplink | None, monitor: Monitor) -> str:
    """Where the tunnel has one way only; not told in an outage, when one may be left."""
    network, name = monitor.network.state, uplink.interface if uplink is not None else ""
    below = network.underlays.get(name, "")
    is_away = any(state.phase in AWAY for state in monitor.states.values())
    if not below or name in network.second_underlays or is_away:
        return ""
    if below in network.wan_devices() and any(len(w.routes) > 1 for w in network.wans.values()):
        return ""
    return because("anchor_one_way", anchor.peer_id, below, name)


# --- in plain words


def summarized(status: r.Status, offers: Iterable[r.OfferRow]) -> r.Summary:
    """Is the internet working and by which way, what if that fails, what to do. Pure.

    `offers` are looked at where there is no backup.
    """
    names = {each.device: each.path for each in status.wans}
    names |= {each.interface: each.peer_id for each in status.uplinks}
    name = names.get(status.active_path, status.active_path) or "-"
    off = not status.enabled or (not status.auto_failover and status.state != "stranded")
    state = "disabled" if off else status.state
    advice, action, peer_id = _advice(status, offers)
    return r.Summary(
        now=_now(status, state, name),
        next=_next(status, state, name),
        advice=advice,
        action=action,
        peer_id=peer_id,
    )


def _now(status: r.Status, state: str, name: str) -> str:
    wan, chosen = status.primary.path or name, status.by_hand
    if state in ("primary", "failed_over") and chosen is not None and chosen.path != "wan":
        return because("now_chosen", name)
    if state == "failed_over":
        return because("now_failed_over", wan, name)
    if state == "holding":
        return because("now_holding", wan, name)
    if state == "stranded":
        return because("now_stranded")
    if state == "disabled":
        return because("now_off" if status.enabled else "now_disabled", name)
    if state == "suspect":
        return because("now_suspect", name)
    return because("now_works", name)


def _next(status: r.Status, state: str, name: str) -> str:
    active = status.active_path
    if state == "disabled":
        works = any(each.device == active and each.state != "down" for each in status.wans)
        return because("now_works", name) if works else ""
    if state == "stranded":
        return ""
    able = [e.path for e in status.wans if e.device != active and e.state in ("up", "suspect")]
    able += [each.peer_id for each in status.uplinks if each.usable and not each.active]
    if not able:
        return because("next_none", name)
    return because("next_moves", name, able[0], f"{round(status.detection_bound_ms / 1000, 1):g}")


def _advice(status: r.Status, offers: Iterable[r.OfferRow]) -> Advice:
    portal = next((each for each in status.wans if each.portal), None)
    if not status.enabled:
        return because("do_enable"), "settings", ""
    if portal is not None:
        return because("do_log_in", portal.path, portal.portal), "", ""
    if status.state == "stranded":
        return because("do_check"), "check", ""
    if not status.auto_failover:
        return because("do_turn_on"), "failover", ""
    if status.state == "failed_over" and status.by_hand is None:
        return because("do_mend", status.primary.path), "", ""
    if any(each.usable for each in status.uplinks):
        problem = next(iter(status.problems), "")
        return (problem, "check", "") if problem else (because("do_nothing"), "", "")
    if status.uplinks:
        return because("not_ready", status.uplinks[0].reason), "check", ""
    able = [each for each in offers if not each.configured]
    best = next((e for e in able if e.usable), next((e for e in able if not e.trusted), None))
    if best is not None:
        return because("do_add", best.peer_id), "add", best.peer_id
    return because("do_ask"), "", ""


# --- rows


def _mwan3(view: View) -> r.Mwan3:
    return r.Mwan3(
        available=bool(view.interfaces),
        interfaces=[r.Mwan3Interface.of(seen, name=n) for n, seen in view.interfaces.items()],
        policies=[
            r.Mwan3Policy(name=name, family=family.value, interfaces=used)
            for family, found in view.policies.items()
            for name, used in found.items()
        ],
    )


def _release_s(state: State, config: Config, now_s: float) -> float:
    """Seconds until traffic may go back to the primary that answers again; -1 if none waits."""
    if state.phase is not Phase.HOLDING or state.good_since_s is None:
        return -1.0
    held_s = config.settings.held_s(state.flaps)
    return round(max(0.0, state.good_since_s + held_s - now_s), 1)


def _peer_offers(offers: Iterable[Offer]) -> list[r.PeerOffer]:
    """The newest offers of peers that have internet now, as SecuBox's page reads them."""
    newest = [offer for offer in offers if offer.available][-r.OFFERS_IN_STATUS :]
    return [
        r.PeerOffer.of(
            offer,
            node_id=offer.peer_id,
            bandwidth=offer.bandwidth_mbps,
            latency=max(0.0, offer.latency_ms),
            endpoint=str(offer.endpoint),
            latency_ms=max(0.0, offer.latency_ms),
        )
        for offer in reversed(newest)
    ]
