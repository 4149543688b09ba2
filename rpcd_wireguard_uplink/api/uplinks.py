"""Handlers of the methods that change uplinks or test them, and of the mesh's gossip."""

from __future__ import annotations

import time
from typing import Any

from ..carrying.watch import CarryingWatch
from ..config.store import ConfigStore
from ..errors import InvalidArgument, PeerUnreachable
from ..failover.decision import primary_of, ranked_backups
from ..failover.machine import Choice
from ..failover.monitor import Monitor
from ..mesh.offer_validation import OfferValidator
from ..mesh.offers import Source
from ..model import NOT_COUNTED, Family, Health
from ..platform.linux import Platform
from ..probing import tunnel_test
from ..reasons import because, joined
from ..uplinks.adding import Adding, Given
from ..uplinks.lifecycle import Uplinks
from ..values import dataclass
from . import replies as r
from .status import fate_note

LONGEST_CHOICE_S = 24 * 3600.0
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def _seconds(text: str) -> float:
    """A time span such as 90s, 10m or 2h. Raises InvalidArgument."""
    found = float(text.rstrip("smh")) * _UNITS.get(text[-1], 1.0)
    if not 1.0 <= found <= LONGEST_CHOICE_S:
        raise InvalidArgument(because("bad_span", text))
    return found


@dataclass(eq=False, repr=False)
class UplinkMethods:
    _platform: Platform
    _store: ConfigStore
    _monitor: Monitor
    _carrying: CarryingWatch
    _validator: OfferValidator
    _uplinks: Uplinks
    _adding: Adding

    async def uplink_add(
        self,
        peer_id: str,
        weight: int | None = None,
        endpoint: str | None = None,
        public_key: str | None = None,
        address: str | None = None,
    ) -> r.Added:
        added = await self._adding.add(peer_id, Given(weight, endpoint, public_key, address))
        uplink = added.uplink
        made = "was changed" if added.is_changed else "is as it was"
        made = "is ready" if added.is_new else made
        shakes = "it has shaken hands"
        if not added.shook_hands:
            shakes = "it has not shaken hands yet"
            shakes += "" if uplink.leased else ": its provider must admit public_key"
        blocked = await self._carrying.blocked_by_firewall(uplink.interface)
        return r.Added.of(
            uplink,
            message=f"The uplink to {peer_id} {made}; {shakes}.",
            public_key=uplink.own_public_key,
            address=uplink.address(Family.IPV4),
            address6=uplink.address(Family.IPV6),
            endpoint=str(uplink.endpoint),
            created=added.is_new,
            note=joined(" ", filter(None, [fate_note(self._monitor, uplink), *blocked])),
        )

    async def uplink_remove(self, peer_id: str) -> r.DonePeer:
        await self._adding.remove(peer_id)
        stays = f"`min_uplinks` does not bring it back, `wgctl uplink add {peer_id}` does"
        is_kept_away = peer_id in self._store.current.settings.declined
        return r.DonePeer(
            message=f"The uplink to {peer_id} was removed{f'; {stays}' * is_kept_away}.",
            peer_id=peer_id,
        )

    async def uplink_test(self, peer_id: str, target: str = "", count: int = 5) -> r.Tested:
        uplink = self._uplinks.require(peer_id)
        settings = self._store.current.settings
        targets = settings.targets_of(Family.IPV4) or settings.targets
        chosen = target or targets[0]
        tested = await tunnel_test.run_test(uplink.interface, chosen, count)
        self._monitor.mtus.check(uplink.interface, time.monotonic())
        counted = (await self._platform.read_counters()).get(uplink.interface, NOT_COUNTED)
        return r.Tested.of(
            tested,
            uplink,
            target=chosen,
            reachable=tested.received > 0,
            handshake_age_s=counted.shown_age_s,
            exit_address="",
            error=tested.error or tunnel_test.advice(tested.received, counted.handshake_age_s),
        )

    async def uplink_set_priority(self, peer_id: str, weight: int) -> r.Weighed:
        await self._uplinks.set_weight(peer_id, weight)
        return r.Weighed(
            message=f"{peer_id} has weight {weight} now; higher is preferred.",
            peer_id=peer_id,
            weight=weight,
        )

    async def uplink_set_failover(self, enabled: bool) -> r.Switched:
        """Turn automatic failover on or off; off gives the traffic back to the primary."""
        await self._uplinks.set_failover(enabled)
        return r.Switched(
            message=f"Automatic failover is {'on' if enabled else 'off'}.",
            auto_failover=int(enabled),
        )

    async def uplink_use(self, path: str, **given: str) -> r.Used:
        """Have traffic leave by a peer, the WAN, or as decided (`auto`); `for` is a time span.

        Raises NotFound, InvalidArgument, and PeerUnreachable where the path does not answer.
        """
        if path == "auto":
            await self._monitor.choose(None)
            return r.Used(message="Traffic leaves as the service decides.", path=path, left_s=0.0)
        span, now_s = given.get("for", "10m"), time.monotonic()
        seconds = _seconds(span)
        device = "" if path == "wan" else self._uplinks.require(path).interface
        if why := self._why_dead(device, now_s):
            raise PeerUnreachable(because("path_unusable", path, why), code="path_down")
        await self._monitor.choose(Choice(device, now_s + seconds))
        span += " s" * span.isdigit()
        return r.Used(
            message=f"Traffic leaves by {path} for {span}; `wgctl uplink use auto` ends it before.",
            path=path,
            left_s=seconds,
        )

    def _why_dead(self, device: str, now_s: float) -> str:
        """Why no family can leave by the device ('': the WAN); '' where one can."""
        monitor = self._monitor
        if not self._store.current.settings.enabled:
            return because("service_disabled")
        if not device:
            found = [primary_of(monitor, family) for family in Family]
            alive = [p for p in found if p is not None and p.health in (Health.UP, Health.SUSPECT)]
            return "" if alive else because("no_wan_answers")
        ranked = [each for f in Family for each in ranked_backups(monitor, f, now_s)]
        mine = [each for each in ranked if each.candidate.name == device]
        if any(each.usable for each in mine):
            return ""
        return mine[0].reason if mine else because("not_watched")

    def uplink_gossip(self, message: dict[str, Any] | str, origin: str = "") -> r.Heard:
        """Take a message of the mesh that a program of this router hands in."""
        source = Source.RELAYED if origin else Source.LOCAL
        # Only "bus" is this router's own word, for which no mesh key need be confirmed.
        carrier = "gossip" if origin else "bus"
        peer_id, accepted, told = self._validator.take(message, source, carrier)
        return r.Heard(message=told, accepted=accepted, peer_id=peer_id)
