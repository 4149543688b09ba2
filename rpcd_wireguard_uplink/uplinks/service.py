"""The use cases of a consumer: what each method about uplinks does.

One lock covers every change of configuration; it is never held while a tunnel shakes hands, a peer
is asked or probes run. How a change is made is known to uplinks.py, how replies look to view.py,
how it is told to journal.py. What the exchange with peers adds comes in by callbacks.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from ..api import status as view
from ..carrying.watch import CarryingWatch, InUse
from ..config.options import CONFIG, MAIN_NAME
from ..errors import NotFound, NotSupported, NotTrusted, UplinkError
from ..events import Events
from ..failover.machine import AWAY, Moved, Phase
from ..failover.monitor import Monitor
from ..failover.paths import Watch
from ..failover.selection import cost_of
from ..history import Journal
from ..mesh.offer_validation import OfferValidator
from ..mesh.offers import OfferBook, Source
from ..model import DEVICE_GROUP, Family, Health, Offer, Uplink, normal_address
from ..platform import inbound
from ..platform.protocol import Platform
from ..probing import tunnel_test
from ..schema.endpoints import parse_endpoint
from ..state_file import offer_row, read_state
from ..system import wg
from ..system.nft import TableDeleted
from ..text import quoted
from .lifecycle import Uplinks

Table = dict[str, Any]
AskLease = Callable[[Uplink], Awaitable[Uplink | None]]
HANDSHAKE_S = 1.0  # a handshake takes a round trip; more would only make a caller wait
STALLED_S = 180.0  # WireGuard gives a session up after 180 s (its whitepaper, section 6.1)
DEAD_S = 20.0  # it asks for a new handshake 15 s after data that nobody answered
EVENTS_IN_STATUS = 10


def run_dir_of(state_file: str) -> str:
    """The folder on the state file's tmpfs that is ours alone."""
    return os.path.join(os.path.dirname(state_file) or ".", "wireguard-uplink")


class Service:
    """The service of one router. `send_event` tells the bus, `on_change` that replies differ.

    `distrust_reason` says why a peer is not trusted ('' if it is), `offer_distrust_reason` why
    the one that an offer came from is not, `ask_lease` gives a wanted uplink the
    place that its provider grants (None: there is nobody to ask), `on_removed` hears of an uplink
    that is gone, `on_read` of the first
    configuration, `on_config` of one that was read again, `on_update` of news about the
    paths, `more_status` adds to the status, `more_state` to the state file.
    """

    def __init__(
        self,
        platform: Platform,
        state_file: str,
        send_event: Callable[[str, Table], None],
        on_change: Callable[[], None],
    ) -> None:
        self.platform = platform
        self.offers = OfferBook()
        self.journal = Journal(state_file, send_event, on_change, self._state)
        self.validator = OfferValidator(self.offers, self.journal)
        self.uplinks = Uplinks(platform, self._follow, self.journal.uplink)
        self.events = Events()
        self.events.subscribe(Moved, self._report)
        self.events.subscribe(TableDeleted, self._mend_filter)
        self.monitor = Monitor(platform, self.events, self._updated, run_dir_of(state_file))
        self.monitor.who_refuses = self.uplinks.who_refuses
        self.carrying = CarryingWatch(self._in_use, self.monitor.problems, self._report_carrying)
        self._mending: asyncio.Task[None] | None = None
        self.lock = asyncio.Lock()
        self._links: frozenset[str] = frozenset()
        self.distrust_reason: Callable[[str], str] = self._not_listed
        self.offer_distrust_reason: Callable[[Offer], str] = lambda offer: self.distrust_reason(
            offer.peer_id
        )
        self.ask_lease: AskLease | None = None
        self.on_removed: Callable[[Uplink], None] = lambda uplink: None
        self.on_read: Callable[[], object] = lambda: None
        self.on_update: Callable[[], None] = lambda: None
        self._on_change = on_change
        self.on_config: Callable[[], Awaitable[None]] | None = None
        self.more_status: Callable[[], Table] = dict
        self.more_state: Callable[[], Table] = dict
        self.remembered = read_state(state_file, time.monotonic())

    # --- life

    async def start(self) -> None:
        """Read what is configured, mend what an earlier run left unfinished, begin to watch."""
        self.journal.history.restore(self.remembered.history)
        self.offers.restore(self.remembered.offers, self.remembered.sequences)
        async with self.lock:
            await self.uplinks.read()
            self.on_read()
            await self.uplinks.follow_wans()
            self.monitor.steering.lead_marks(await self.uplinks.diverted_marks())
            await self.monitor.start(self._watch())
            await self.uplinks.mend_pending()
            await self.uplinks.apply()
        self.journal.write()

    async def stop(self) -> None:
        """Stop watching; tunnels stay, a diversion ends unless a new run takes it over."""
        if self._mending is not None:
            self._mending.cancel()
        await self.monitor.stop()
        self.journal.write()

    async def reload(self) -> None:
        """Read the configuration again; a bad one leaves the last good one in force."""
        async with self.lock:
            if await self.uplinks.read():
                await self.uplinks.apply()
        if self.on_config is not None:
            await self.on_config()
        self.journal.changed()

    def _mend_filter(self, event: TableDeleted) -> None:
        """Somebody has deleted the filter of the tunnels: it comes back."""
        if event.name not in ("", inbound.TABLE):
            return
        if self._mending is None or self._mending.done():
            self._mending = asyncio.get_running_loop().create_task(self.uplinks.guard_tunnels())

    def config_changed(self) -> bool:
        """Whether somebody else has changed our file since it was last read."""
        return self.uplinks.changed_outside

    async def restore_tunnels(self) -> bool:
        """Make tunnels again that are missing or whose device was made anew; whether any were."""
        groups = {link.name: link.group for link in self.monitor.network.state.links.values()}
        missing = any(
            groups.get(uplink.interface) != DEVICE_GROUP for uplink in self.uplinks.standing()
        )
        missing = missing or bool({"apply", "undo"} & self.uplinks.problems.keys())
        if missing and not self.lock.locked():
            async with self.lock:
                await self.uplinks.mend_pending()
                await self.uplinks.apply()
        return missing

    async def follow_names(self) -> None:
        """Have tunnels that are silent try their provider's other addresses."""
        try:
            if await self.platform.follow_names([u.interface for u in self._silent_uplinks()]):
                self.monitor.reread_soon()
            self.uplinks.problems.pop("endpoints", None)
        except UplinkError as error:
            self.uplinks.problems["endpoints"] = str(error)

    def _silent_uplinks(self) -> Iterator[Uplink]:
        """Those that WireGuard hears nothing from, sooner where no probe is answered either."""
        for uplink in self.uplinks.standing():
            counted = self.monitor.network.state.counters.get(uplink.interface)
            found = [self.monitor.paths.get((uplink.interface, family)) for family in Family]
            states = {path.health.state for path in found if path is not None}
            within_s = DEAD_S if states == {Health.DOWN} else STALLED_S
            if counted is None or not counted.is_alive(within_s):
                yield uplink

    async def follow_wans(self, *, afresh: bool = False) -> None:
        """Names of WANs may mean other devices now: PPPoE came up, a stick was put in.

        Cheap where no device came or went; `afresh` says that netifd may know more.
        """
        links = frozenset(link.name for link in self.monitor.network.state.links.values())
        if links == self._links and not afresh:
            return
        self._links = links
        if await self.uplinks.follow_wans():
            await self.monitor.configure(self._watch())
            self.journal.changed()

    async def _follow(self) -> None:
        await self.uplinks.follow_wans()
        self.monitor.steering.lead_marks(await self.uplinks.diverted_marks())
        await self.monitor.configure(self._watch())

    def _updated(self) -> None:
        monitor = self.monitor
        used = [(state.phase, state.active) for state in monitor.states.values()]
        self.carrying.notice(used, (id(monitor.watch), len(monitor.network.state.links)))
        self._on_change()
        self.on_update()

    async def _prefer(self) -> None:
        away = any(state.phase in AWAY for state in self.monitor.states.values())
        await self.uplinks.prefer(rebuild=not away)  # an outage is no time to touch mwan3
        await self._follow()

    async def follow_watch(self) -> None:
        """Watch what is trusted and offered now; a peer that is not trusted carries no traffic."""
        if self._watch() != self.monitor.watch:
            await self.monitor.configure(self._watch())
            self.journal.changed()

    def _watch(self) -> Watch:
        uplinks = tuple(
            uplink
            for uplink in self.uplinks.standing()
            if not uplink.pending and not self.distrust_reason(uplink.peer_id)
        )
        config = self.uplinks.config
        settings = replace(config.settings, lines=self.uplinks.wans.devices)
        return Watch(settings, uplinks, config.provider.enabled)

    def _not_listed(self, peer_id: str) -> str:
        if peer_id in self.uplinks.config.settings.trusted_peers:
            return ""
        command = f"uci add_list {CONFIG}.{MAIN_NAME}.trusted_peer={peer_id}"
        return (
            f"{peer_id} is not trusted: if you know whose it is, trust it with "
            f"`{command}; uci commit {CONFIG}`"
        )

    # --- reading

    def list_uplinks(self) -> Table:
        """Offers of mesh peers and configured uplinks."""
        self.monitor.counters.freshen()
        now_s = time.monotonic()
        return {
            "offers": [
                view.offer_table(o, self.uplinks.config, now_s, self.offer_distrust_reason(o))
                for o in self.offers.fresh(now_s)
            ],
            "uplinks": [
                view.uplink_table(uplink, self.uplinks.config, self.monitor)
                for uplink in view.best_first(self.uplinks.config.uplinks)
            ],
        }

    def status(self) -> Table:
        """Everything about now."""
        self.monitor.counters.freshen()
        problems = [*self.uplinks.problems.values(), *self.monitor.problems.values()]
        problems += self.platform.warnings.values()
        problems += self.journal.problems.values()
        problems += self.uplinks.config.warnings
        problems += filter(
            None, (view.fate_note(self.monitor, u) for u in self.uplinks.config.uplinks)
        )
        events = self.journal.history.newest(EVENTS_IN_STATUS)
        now_s = time.monotonic()
        offers = self.offers.fresh(now_s)
        table = view.status_table(
            self.uplinks.config, self.monitor, offers, events, problems, now_s, self.distrust_reason
        )
        for family in Family:
            table["families"][family.value]["carrying"] = self.carrying.carrying(family)
        more = self.more_status()
        table["problems"] += more.pop("problems", [])
        return table | self.uplinks.mwan3_view | more

    def read_history(self, limit: int = 50) -> Table:
        """What happened, newest first."""
        return {"events": [entry.as_table() for entry in self.journal.history.newest(limit)]}

    def offer_with(self, public_key: str) -> Offer | None:
        """The offer of the peer that has this key, if there is one."""
        offers = self.offers.fresh(time.monotonic())
        return next((offer for offer in offers if offer.public_key == public_key), None)

    async def test_uplink(self, peer_id: str, target: str = "", count: int = 5) -> Table:
        """Probe through the tunnel; a target that does not answer is a result, no error."""
        uplink = self.uplinks.require(peer_id)
        settings = self.uplinks.config.settings
        targets = settings.targets_of(Family.IPV4) or settings.targets
        chosen = target or targets[0]
        tested = await tunnel_test.run_test(uplink.interface, chosen, count)
        self.monitor.mtus.check(uplink.interface, time.monotonic())
        counted = (await self.platform.read_counters()).get(uplink.interface)
        age_s = counted.handshake_age_s if counted is not None else None
        return {
            "success": True,
            "peer_id": peer_id,
            "interface": uplink.interface,
            "target": chosen,
            "reachable": tested.received > 0,
            "sent": tested.sent,
            "received": tested.received,
            "latency_ms": tested.latency_ms,
            "loss_pct": tested.loss_pct,
            "handshake_age_s": -1 if age_s is None else int(age_s),
            "exit_address": "",
            "error": tested.error or tunnel_test.advice(tested.received, age_s),
        }

    # --- hearing

    def gossip(self, message: Table | str, origin: str = "") -> Table:
        """Take a message of the mesh that a program of this router hands in."""
        source = Source.RELAYED if origin else Source.LOCAL
        # Only "bus" is this router's own word, for which no mesh key need be confirmed.
        carrier = "gossip" if origin else "bus"
        peer_id, accepted, told = self.validator.take(message, source, carrier)
        return {"success": True, "message": told, "accepted": accepted, "peer_id": peer_id}

    # --- changing

    async def add_uplink(
        self,
        peer_id: str,
        weight: int | None = None,
        endpoint: str | None = None,
        public_key: str | None = None,
        address: str | None = None,
        *,
        auto: bool = False,
    ) -> Table:
        """Make an uplink, or change what was given of one that exists."""
        async with self.lock:
            await self.uplinks.read_strictly()
            await self.uplinks.mend_pending()
        existing = self.uplinks.find(peer_id)
        base = existing or self._from_offer(peer_id, endpoint, public_key)
        if reason := self.distrust_reason(peer_id):
            raise NotTrusted(reason)
        if existing is None and (endpoint is None or public_key is None):
            self._require_available(peer_id)
        wanted = replace(
            base,
            weight=base.weight if weight is None else weight,
            endpoint=base.endpoint if endpoint is None else parse_endpoint(endpoint),
            public_key=base.public_key if public_key is None else public_key,
            addresses=base.addresses if address is None else (normal_address(address),),
            auto=auto and existing is None,
        )
        offer = self.offers.get(peer_id, time.monotonic())
        if offer is not None and not self.offer_distrust_reason(offer):
            wanted = replace(wanted, cost=cost_of(offer))
        private = ""
        if existing is None and not wanted.addresses and self.ask_lease is not None:
            private, public = await wg.generate_keys()
            try:
                granted = await self.ask_lease(replace(wanted, own_public_key=public))
            except UplinkError:
                if endpoint is None or public_key is None:
                    raise
                granted = None  # all that a tunnel needs was given
            if granted is not None and public_key not in (None, granted.public_key):
                self.on_removed(granted)  # another's than the owner named: what he gave is used
                granted = None
            if granted is not None:
                wanted = granted if endpoint is None else replace(granted, endpoint=wanted.endpoint)
            private = "" if granted is None else private
        async with self.lock:
            await self.uplinks.read_strictly()
            if self.uplinks.find(peer_id) != existing:
                raise UplinkError(
                    f"the uplink to {peer_id} was changed by somebody else meanwhile: try again",
                    code="changed",
                )
            if existing is None:
                wanted = await self.uplinks.create(wanted, private)
            elif wanted != existing:
                await self.uplinks.change(existing, wanted)
        if existing is None or wanted != existing:
            kind = "uplink_added" if existing is None else "uplink_changed"
            self.journal.uplink(kind, wanted, "min_uplinks" if auto else "asked for")
        made = "is ready" if existing is None else "was there and is up to date"
        shakes = "it has shaken hands"
        if not await self._shakes_hands(wanted):
            shakes = "it has not shaken hands yet"
            shakes += "" if wanted.leased else ": its provider must admit public_key"
        blocked = await self.carrying.blocked_by_firewall(wanted.interface)
        return {
            "success": True,
            "message": f"The uplink to {peer_id} {made}; {shakes}.",
            "peer_id": peer_id,
            "interface": wanted.interface,
            "public_key": wanted.own_public_key,
            "address": wanted.address(Family.IPV4),
            "address6": wanted.address(Family.IPV6),
            "endpoint": str(wanted.endpoint),
            "weight": wanted.weight,
            "created": existing is None,
            "leased": wanted.leased,
            "note": " ".join(filter(None, [view.fate_note(self.monitor, wanted), *blocked])),
        }

    async def _shakes_hands(self, uplink: Uplink) -> bool:
        """Whether the tunnel has shaken hands, after HANDSHAKE_S at most; the lock is free."""
        deadline_s = time.monotonic() + HANDSHAKE_S
        while True:
            counted = (await self.platform.read_counters()).get(uplink.interface)
            if counted is not None and counted.handshake_age_s is not None:
                return True
            if time.monotonic() >= deadline_s:
                return False
            await asyncio.sleep(0.2)

    async def remove_uplink(
        self, peer_id: str, cause: str = "asked for", *, asked: bool = True
    ) -> Table:
        """Remove an uplink and what was made for it; traffic leaves it first.

        One that its owner asked to be removed is not made again until he adds it himself.
        """
        async with self.lock:
            await self.uplinks.read_strictly()
            uplink = self.uplinks.require(peer_id)
            await self.uplinks.remove(uplink, decline=asked)
        self.journal.uplink("uplink_removed", uplink, cause)
        self.on_removed(uplink)
        stays = f"`min_uplinks` does not bring it back, `wgctl uplink add {peer_id}` does"
        is_kept_away = peer_id in self.uplinks.config.settings.declined
        return {
            "success": True,
            "message": f"The uplink to {peer_id} was removed{f'; {stays}' * is_kept_away}.",
            "peer_id": peer_id,
        }

    async def set_priority(self, peer_id: str, weight: int) -> Table:
        """Set an uplink's weight."""
        async with self.lock:
            await self.uplinks.read_strictly()
            uplink = self.uplinks.require(peer_id)
            await self.uplinks.set_option(uplink.interface, "weight", str(weight))
            await self._prefer()
        self.journal.changed()
        return {
            "success": True,
            "message": f"{peer_id} has weight {weight} now; higher is preferred.",
            "peer_id": peer_id,
            "weight": weight,
        }

    async def set_failover(self, enabled: bool) -> Table:
        """Turn automatic failover on or off; off gives the traffic back to the primary."""
        async with self.lock:
            await self.uplinks.read_strictly()
            await self.uplinks.set_option(MAIN_NAME, "auto_failover", "1" if enabled else "0")
            await self._prefer()
            await self.uplinks.apply()  # a tunnel's default routes, which are mwan3's, go too
        self.journal.changed()
        return {
            "success": True,
            "message": f"Automatic failover is {'on' if enabled else 'off'}.",
            "auto_failover": int(enabled),
        }

    def _from_offer(self, peer_id: str, endpoint: str | None, public_key: str | None) -> Uplink:
        offer = self.offers.get(peer_id, time.monotonic())
        if endpoint is not None and public_key is not None:
            return Uplink(peer_id, "", parse_endpoint(endpoint), public_key, ())
        if offer is None:
            raise NotFound(
                f"no offer of {quoted(peer_id)} is known: wait for one, or give its endpoint and "
                "public_key",
                code="no_offer",
            )
        return Uplink(peer_id, "", offer.endpoint, offer.public_key, ())

    def _require_available(self, peer_id: str) -> None:
        offer = self.offers.get(peer_id, time.monotonic())
        if offer is not None and not offer.available:
            raise NotSupported(
                f"{peer_id} says that its internet is not available now; try again later",
                code="not_available",
            )

    # --- telling

    def _report(self, event: Moved) -> None:
        peers = {uplink.interface: uplink.peer_id for uplink in self.uplinks.config.uplinks}
        move = event.move
        self.journal.moved(move.change, move.family, move.detection_ms, event.switch_ms, peers)

    def _in_use(self) -> InUse:
        """What the carrying watch needs to know."""
        monitor = self.monitor
        uplinks = {u.interface: tuple(filter(u.carries, Family)) for u in monitor.watch.uplinks}
        away = (Phase.FAILED_OVER, Phase.HOLDING)
        used = {f: s.active for f, s in monitor.states.items() if s.phase in away}
        links = monitor.network.state.links.values()
        return InUse(
            {family: device for family, device in used.items() if device in uplinks},
            tuple(monitor.network.state.wan_devices()),
            uplinks,
            frozenset(link.name for link in links if link.group == DEVICE_GROUP),
        )

    def _report_carrying(self, family: Family, device: str, sentence: str) -> None:
        peers = {uplink.interface: uplink.peer_id for uplink in self.uplinks.config.uplinks}
        self.journal.carrying(family, device, peers.get(device, ""), sentence)

    def _state(self) -> Mapping[str, Any]:
        return {
            "offers": self.list_uplinks()["offers"],
            **self.status(),
            "offer_book": [offer_row(o) for o in self.offers.fresh(time.monotonic())],
            "sequences": dict(self.offers.sequences),
            **self.more_state(),
        }
