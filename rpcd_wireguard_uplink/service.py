"""The use cases: what each method does, and what is told about it.

One lock covers every change of configuration; it is never held while a tunnel shakes hands or
probes run. How a change is made is known to uplinks.py, how replies look to view.py.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from . import tunnel_test, view
from .config import CONFIG, MAIN_NAME
from .endpoints import parse_endpoint
from .errors import NotFound, NotSupported, NotTrusted
from .failover import AWAY, Change
from .messages import OfferMessage, parse_message
from .model import DEVICE_GROUP, Family, HistoryEntry, Offer, Uplink, normal_address
from .monitor import Monitor, Watch
from .offers import OfferBook
from .platform import Platform
from .quoting import quoted
from .routing.lane import Lane
from .state import History, now_text, offer_row, read_state, write_state
from .uplinks import Uplinks

Table = dict[str, Any]
DEFAULT_TTL_S = 900
HANDSHAKE_S = 1.0  # a handshake takes a round trip; more would only make a caller wait
STALLED_S = 180.0  # WireGuard gives a session up after 180 s (its whitepaper, section 6.1)
EVENTS_IN_STATUS = 10


class Service:
    """The service of one router. `send_event` tells the bus, `on_change` that replies differ."""

    def __init__(
        self,
        platform: Platform,
        state_file: str,
        send_event: Callable[[str, Table], None],
        on_change: Callable[[], None],
    ) -> None:
        self.platform = platform
        self.offers = OfferBook()
        self.history = History()
        self.uplinks = Uplinks(platform, self._follow, self._tell)
        self.monitor = Monitor(platform, Lane(), self._report, on_change)
        self._state_file = state_file
        self._send_event = send_event
        self._on_change = on_change
        self._lock = asyncio.Lock()

    # --- life

    async def start(self) -> None:
        """Read what is configured, mend what an earlier run left unfinished, begin to watch."""
        remembered = read_state(self._state_file, time.monotonic())
        self.history.restore(remembered.history)
        self.offers.restore(iter(remembered.offers))
        async with self._lock:
            await self.uplinks.read()
            self.monitor.switch.lane.marks = await self.uplinks.lane_marks()
            await self.monitor.start(self._watch())
            await self.uplinks.mend_pending()
            await self.uplinks.apply()
        self._write_state()

    async def stop(self) -> None:
        """Stop watching; tunnels stay, an open lane lapses unless a new run takes it over."""
        await self.monitor.stop()
        self._write_state()

    async def reload(self) -> None:
        """Read the configuration again; a bad one leaves the last good one in force."""
        async with self._lock:
            if await self.uplinks.read():
                await self.uplinks.apply()
        self._changed()

    def config_changed(self) -> bool:
        """Whether somebody else has changed our file since it was last read."""
        return self.uplinks.changed_outside

    async def restore_tunnels(self) -> bool:
        """Make tunnels again that are missing or whose device was made anew; whether any were."""
        groups = {link.name: link.group for link in self.monitor.landscape.links.values()}
        missing = any(
            groups.get(uplink.interface) != DEVICE_GROUP for uplink in self.uplinks.standing()
        )
        if missing and not self._lock.locked():
            async with self._lock:
                await self.uplinks.apply()
        return missing

    async def follow_names(self) -> None:
        """Look up again the endpoint names of tunnels without a recent handshake."""
        stalled = []
        for uplink in self.uplinks.config.uplinks:
            counted = self.monitor.counters.get(uplink.interface)
            age_s = counted.handshake_age_s if counted is not None else None
            if age_s is None or age_s > STALLED_S:
                stalled.append(uplink.interface)
        await self.platform.follow_names(stalled)

    async def _follow(self) -> None:
        self.monitor.switch.lane.marks = await self.uplinks.lane_marks()
        await self.monitor.configure(self._watch())

    async def _prefer(self) -> None:
        away = any(state.phase in AWAY for state in self.monitor.states.values())
        await self.uplinks.prefer(rebuild=not away)  # an outage is no time to touch mwan3
        await self._follow()

    def _watch(self) -> Watch:
        trusted = self.uplinks.config.settings.trusted_peers
        uplinks = tuple(
            uplink
            for uplink in self.uplinks.standing()
            if uplink.peer_id in trusted and not uplink.pending
        )
        return Watch(self.uplinks.config.settings, uplinks)

    # --- reading

    def list_uplinks(self) -> Table:
        """Offers of mesh peers and configured uplinks."""
        now_s = time.monotonic()
        return {
            "offers": [
                view.offer_table(o, self.uplinks.config, now_s) for o in self.offers.fresh(now_s)
            ],
            "uplinks": [
                view.uplink_table(uplink, self.uplinks.config, self.monitor)
                for uplink in view.best_first(self.uplinks.config.uplinks)
            ],
        }

    def status(self) -> Table:
        """Everything about now."""
        problems = [*self.uplinks.problems.values(), *self.monitor.problems.values()]
        problems += self.uplinks.config.warnings
        problems += filter(
            None, (view.fate_note(self.monitor, u) for u in self.uplinks.config.uplinks)
        )
        events = self.history.newest(EVENTS_IN_STATUS)
        now_s = time.monotonic()
        offers = self.offers.fresh(now_s)
        return view.status_table(self.uplinks.config, self.monitor, offers, events, problems, now_s)

    def read_history(self, limit: int = 50) -> Table:
        """What happened, newest first."""
        return {"events": [entry.as_table() for entry in self.history.newest(limit)]}

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
            "error": tested.error or _test_advice(tested.received, age_s),
        }

    # --- changing

    async def add_uplink(
        self,
        peer_id: str,
        weight: int | None = None,
        endpoint: str | None = None,
        public_key: str | None = None,
        address: str | None = None,
    ) -> Table:
        """Make an uplink, or change what was given of one that exists."""
        async with self._lock:
            await self.uplinks.read_strictly()
            existing = self.uplinks.find(peer_id)
            base = existing or self._from_offer(peer_id, endpoint, public_key)
            if peer_id not in self.uplinks.config.settings.trusted_peers:
                command = f"uci add_list {CONFIG}.{MAIN_NAME}.trusted_peer={peer_id}"
                raise NotTrusted(
                    f"{peer_id} is not trusted: if you know whose it is, trust it with "
                    f"`{command}; uci commit {CONFIG}`"
                )
            if existing is None and (endpoint is None or public_key is None):
                self._require_available(peer_id)
            wanted = replace(
                base,
                weight=base.weight if weight is None else weight,
                endpoint=base.endpoint if endpoint is None else parse_endpoint(endpoint),
                public_key=base.public_key if public_key is None else public_key,
                addresses=base.addresses if address is None else (normal_address(address),),
            )
            if existing is None:
                wanted = await self.uplinks.create(wanted)
            elif wanted != existing:
                await self.uplinks.change(existing, wanted)
        if existing is None or wanted != existing:
            kind = "uplink_added" if existing is None else "uplink_changed"
            self._tell(kind, wanted, "asked for")
        made = "is ready" if existing is None else "was there and is up to date"
        shakes = "it has shaken hands"
        if not await self._shakes_hands(wanted):
            shakes = "it has not shaken hands yet: its provider must admit public_key"
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
            "note": view.fate_note(self.monitor, wanted),
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

    async def remove_uplink(self, peer_id: str) -> Table:
        """Remove an uplink and what was made for it; traffic leaves it first."""
        async with self._lock:
            await self.uplinks.read_strictly()
            uplink = self.uplinks.require(peer_id)
            await self.uplinks.remove(uplink)
        self._tell("uplink_removed", uplink, "asked for")
        return {
            "success": True,
            "message": f"The uplink to {peer_id} was removed.",
            "peer_id": peer_id,
        }

    async def set_priority(self, peer_id: str, weight: int) -> Table:
        """Set an uplink's weight."""
        async with self._lock:
            await self.uplinks.read_strictly()
            uplink = self.uplinks.require(peer_id)
            await self.uplinks.set_option(uplink.interface, "weight", str(weight))
            await self._prefer()
        self._changed()
        return {
            "success": True,
            "message": f"{peer_id} has weight {weight} now; higher is preferred.",
            "peer_id": peer_id,
            "weight": weight,
        }

    async def set_failover(self, enabled: bool) -> Table:
        """Turn automatic failover on or off; off gives the traffic back to the primary."""
        async with self._lock:
            await self.uplinks.read_strictly()
            await self.uplinks.set_option(MAIN_NAME, "auto_failover", "1" if enabled else "0")
            await self._prefer()
        self._changed()
        return {
            "success": True,
            "message": f"Automatic failover is {'on' if enabled else 'off'}.",
            "auto_failover": int(enabled),
        }

    def gossip(self, message: Table | str) -> Table:
        """Take a message of the mesh."""
        parsed = parse_message(message)
        if isinstance(parsed, OfferMessage):
            accepted = self.offers.accept(_offer(parsed, time.monotonic()))
            told = "The offer was accepted." if accepted else "A newer offer is known already."
        else:
            accepted = self.offers.withdraw(parsed.peer_id)
            told = "The offer was withdrawn." if accepted else "There was no offer of this peer."
        if accepted:
            kind = "offer" if isinstance(parsed, OfferMessage) else "withdrawn"
            self._send_event(
                "wireguard-uplink.offer",
                {"peer_id": parsed.peer_id, "kind": kind, "cause": "gossip", "at": now_text()},
            )
            self._changed()
        return {"success": True, "message": told, "accepted": accepted, "peer_id": parsed.peer_id}

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

    def _report(self, change: Change, family: Family, detection_ms: int, switch_ms: int) -> None:
        peers = {uplink.interface: uplink.peer_id for uplink in self.uplinks.config.uplinks}
        entry = HistoryEntry(
            at=now_text(),
            kind=change.kind,
            family=family.value,
            from_path=change.from_path,
            to_path=change.to_path,
            peer_id=peers.get(change.to_path) or peers.get(change.from_path, ""),
            cause=change.cause,
            detection_ms=detection_ms,
            switch_ms=switch_ms,
            duration_s=round(change.lasted_s, 3),
        )
        self.history.add(entry)
        home = change.kind in ("failback", "recovered")
        self._send_event(f"wireguard-uplink.{'failback' if home else 'failover'}", entry.as_table())
        self._changed()

    def _tell(self, kind: str, uplink: Uplink, cause: str) -> None:
        entry = HistoryEntry(now_text(), kind, peer_id=uplink.peer_id, cause=cause)
        entry = replace(entry, to_path=uplink.interface)
        self.history.add(entry)
        self._send_event("wireguard-uplink.uplink", entry.as_table())
        self._changed()

    def _changed(self) -> None:
        self._on_change()
        self._write_state()

    def _write_state(self) -> None:
        content = {
            "at": now_text(),
            "offers": self.list_uplinks()["offers"],
            **self.status(),
            "history": [entry.as_table() for entry in self.history.oldest_first()],
            "offer_book": [offer_row(o) for o in self.offers.fresh(time.monotonic())],
        }
        try:
            write_state(self._state_file, content)
            self.uplinks.problems.pop("state", None)
        except OSError as error:
            self.uplinks.problems["state"] = f"can't write {self._state_file}: {error.strerror}"


def _offer(message: OfferMessage, now_s: float) -> Offer:
    return Offer(
        peer_id=message.peer_id,
        endpoint=message.endpoint,
        public_key=message.public_key,
        bandwidth_mbps=message.bandwidth_mbps,
        latency_ms=message.latency_ms,
        wan_type=message.wan_type,
        available=message.available,
        sequence=message.sequence,
        ttl_s=float(message.ttl_s if message.ttl_s is not None else DEFAULT_TTL_S),
        received_s=now_s,
    )


def _test_advice(received: int, handshake_age_s: float | None) -> str:
    if received:
        return ""
    if handshake_age_s is None:
        return "no handshake yet: has the provider admitted our public key, is its endpoint right?"
    return "the tunnel is up, but nothing answers through it: has the provider internet?"
