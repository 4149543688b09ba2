"""The use cases: what each method does. The only writer of configuration.

One lock covers every change of configuration; it is never held while a tunnel shakes hands or
probes run. A change is intent first (an uplink section marked pending), then what is derived from
it, and pending goes last, so that a start after a crash finishes or undoes it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from . import tunnel_test, view
from .config import CONFIG, MAIN_NAME, MAIN_TYPE, UPLINK_TYPE, Config, parse_config, uplink_options
from .endpoints import parse_endpoint
from .errors import CommandFailed, ConfigError, NotFound, NotSupported, NotTrusted, UplinkError
from .failover import Change
from .messages import OfferMessage, parse_message
from .model import (
    Family,
    HistoryEntry,
    Offer,
    Uplink,
    derived_addresses,
    interface_name,
    normal_address,
)
from .monitor import Monitor, Watch
from .offers import OfferBook
from .platform import Platform
from .quoting import quoted
from .reconcile import NETWORK, plan_sections, tunnels_of, wanted_sections
from .routing.lane import Lane
from .state import History, now_text, offer_row, read_state, write_state
from .uci import Draft, Section

Table = dict[str, Any]
DEFAULT_TTL_S = 900
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
        self.config = Config()
        self.offers = OfferBook()
        self.history = History()
        self.monitor = Monitor(platform, Lane(), self._report, on_change)
        self._state_file = state_file
        self._send_event = send_event
        self._on_change = on_change
        self._lock = asyncio.Lock()
        self._problems: dict[str, str] = {}
        self._signature: object = None

    # --- life

    async def start(self) -> None:
        """Read what is configured, mend what an earlier run left unfinished, begin to watch."""
        remembered = read_state(self._state_file, time.monotonic())
        self.history.restore(remembered.history)
        self.offers.restore(iter(remembered.offers))
        async with self._lock:
            await self._read_config()
            await self.monitor.start(self._watch())
            await self._mend_pending()
            await self._apply()
        self._write_state()

    async def stop(self) -> None:
        """Stop watching; tunnels stay, an open lane lapses unless a new run takes it over."""
        await self.monitor.stop()
        self._write_state()

    async def reload(self) -> None:
        """Read the configuration again; a bad one leaves the last good one in force."""
        async with self._lock:
            if await self._read_config():
                await self._apply()
        self._changed()

    def config_changed(self) -> bool:
        """Whether somebody else has changed our file since it was last read."""
        return self.platform.signature(CONFIG) != self._signature

    async def restore_tunnels(self) -> None:
        """Make tunnels again that could not be made, or whose device went away."""
        missing = any(
            not self.monitor.landscape.index_of(uplink.interface) for uplink in self._standing()
        )
        if missing and not self._lock.locked():
            async with self._lock:
                await self._apply()

    async def follow_names(self) -> None:
        """Look up again the endpoint names of tunnels without a recent handshake."""
        stalled = []
        for uplink in self.config.uplinks:
            counted = self.monitor.counters.get(uplink.interface)
            age_s = counted.handshake_age_s if counted is not None else None
            if age_s is None or age_s > STALLED_S:
                stalled.append(uplink.interface)
        await self.platform.follow_names(stalled)

    async def _read_config(self) -> bool:
        self._signature = self.platform.signature(CONFIG)
        try:
            document = await self.platform.read(CONFIG)
            self.config = parse_config(document.sections)
        except ConfigError as error:
            self._problems["config"] = f"{error}; the last good configuration stays in force"
            return False
        self._problems.pop("config", None)
        return True

    def _standing(self) -> list[Uplink]:
        if not self.config.settings.enabled:
            return []
        return [uplink for uplink in self.config.uplinks if uplink.enabled]

    def _watch(self) -> Watch:
        trusted = self.config.settings.trusted_peers
        uplinks = tuple(
            uplink
            for uplink in self._standing()
            if uplink.peer_id in trusted and not uplink.pending
        )
        return Watch(self.config.settings, uplinks)

    # --- reading

    def list_uplinks(self) -> Table:
        """Offers of mesh peers and configured uplinks."""
        now_s = time.monotonic()
        return {
            "offers": [view.offer_table(o, self.config, now_s) for o in self.offers.fresh(now_s)],
            "uplinks": [
                view.uplink_table(uplink, self.config, self.monitor)
                for uplink in view.best_first(self.config.uplinks)
            ],
        }

    def status(self) -> Table:
        """Everything about now."""
        problems = [*self._problems.values(), *self.monitor.problems.values()]
        problems += self.config.warnings
        problems += filter(None, (view.fate_note(self.monitor, u) for u in self.config.uplinks))
        events = self.history.newest(EVENTS_IN_STATUS)
        return view.status_table(self.config, self.monitor, events, problems, time.monotonic())

    def read_history(self, limit: int = 50) -> Table:
        """What happened, newest first."""
        return {"events": [entry.as_table() for entry in self.history.newest(limit)]}

    async def test_uplink(self, peer_id: str, target: str = "", count: int = 5) -> Table:
        """Probe through the tunnel; a target that does not answer is a result, no error."""
        uplink = self._uplink(peer_id)
        targets = self.config.settings.targets_of(Family.IPV4) or self.config.settings.targets
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
            await self._read_config_strictly()
            existing = self._find(peer_id)
            base = existing or self._from_offer(peer_id, endpoint, public_key)
            if peer_id not in self.config.settings.trusted_peers:
                raise NotTrusted(
                    f"{peer_id} is not trusted: add it with `uci add_list "
                    f"{CONFIG}.{MAIN_NAME}.trusted_peer={peer_id}` if you know whose it is"
                )
            wanted = replace(
                base,
                weight=base.weight if weight is None else weight,
                endpoint=base.endpoint if endpoint is None else parse_endpoint(endpoint),
                public_key=base.public_key if public_key is None else public_key,
                addresses=base.addresses if address is None else (normal_address(address),),
            )
            if existing is None:
                wanted = await self._create(wanted)
            elif wanted != existing:
                await self._change(existing, wanted)
        if existing is None or wanted != existing:
            kind = "uplink_added" if existing is None else "uplink_changed"
            self._tell(kind, wanted, "asked for")
        made = "is ready" if existing is None else "was there and is up to date"
        return {
            "success": True,
            "message": f"The uplink to {peer_id} {made}; its provider must admit public_key.",
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

    async def remove_uplink(self, peer_id: str) -> Table:
        """Remove an uplink and what was made for it; traffic leaves it first."""
        async with self._lock:
            await self._read_config_strictly()
            uplink = self._uplink(peer_id)
            await self.platform.edit(CONFIG, lambda draft: draft.remove_section(uplink.interface))
            await self._read_config_strictly()
            await self.monitor.configure(self._watch())
            await self._apply()
        self._tell("uplink_removed", uplink, "asked for")
        return {
            "success": True,
            "message": f"The uplink to {peer_id} was removed.",
            "peer_id": peer_id,
        }

    async def set_priority(self, peer_id: str, weight: int) -> Table:
        """Set an uplink's weight."""
        async with self._lock:
            await self._read_config_strictly()
            uplink = self._uplink(peer_id)
            await self._edit_option(uplink.interface, "weight", str(weight))
            await self.monitor.configure(self._watch())
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
            await self._read_config_strictly()
            await self._edit_option(MAIN_NAME, "auto_failover", "1" if enabled else "0")
            await self.monitor.configure(self._watch())
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

    # --- the steps of a change

    def _find(self, peer_id: str) -> Uplink | None:
        return next((u for u in self.config.uplinks if u.peer_id == peer_id), None)

    def _uplink(self, peer_id: str) -> Uplink:
        uplink = self._find(peer_id)
        if uplink is None:
            raise NotFound(
                f"there is no uplink to {quoted(peer_id)}: `wgctl uplink list` shows them",
                code="no_uplink",
            )
        return uplink

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
        if not offer.available:
            raise NotSupported(
                f"{peer_id} says that its internet is not available now; try again later",
                code="not_available",
            )
        return Uplink(peer_id, "", offer.endpoint, offer.public_key, ())

    async def _create(self, wanted: Uplink) -> Uplink:
        taken = {link.name for link in await self.platform.read_links()}
        taken |= {section.name for section in (await self.platform.read(NETWORK)).sections}
        taken |= {section.name for section in (await self.platform.read(CONFIG)).sections}
        wanted = replace(wanted, interface=interface_name(wanted.peer_id, taken), pending=True)
        await self._write_uplink(wanted)
        try:
            _, public = await self.platform.generate_keys(wanted.interface)
            addresses = wanted.addresses or derived_addresses(public)
            wanted = replace(wanted, own_public_key=public, addresses=addresses)
            await self._write_uplink(wanted)
            await self._derive(wanted)
        except BaseException:
            await asyncio.shield(self._undo(wanted))
            raise
        done = replace(wanted, pending=False)
        await self._write_uplink(done)
        await self.monitor.configure(self._watch())
        return done

    async def _change(self, existing: Uplink, wanted: Uplink) -> None:
        await self._write_uplink(wanted)
        try:
            await self._derive(wanted)
        except BaseException:
            await self._write_uplink(existing)
            await self._apply()
            raise
        await self.monitor.configure(self._watch())

    async def _derive(self, uplink: Uplink) -> None:
        failed = await self._apply_sections()
        if uplink.interface in failed:
            raise CommandFailed(f"the tunnel can't be made: {failed[uplink.interface]}")

    async def _undo(self, uplink: Uplink) -> None:
        try:
            await self.platform.edit(CONFIG, lambda draft: draft.remove_section(uplink.interface))
            await self._read_config()
            await self._apply_sections()
        except UplinkError as error:
            self._problems["undo"] = f"undoing {uplink.interface} failed: {error}"

    async def _mend_pending(self) -> None:
        for uplink in [u for u in self.config.uplinks if u.pending]:
            key = await self.platform.read_key(uplink.interface)
            complete = bool(key and uplink.own_public_key and uplink.addresses)
            failed = await self._apply_sections() if complete else {uplink.interface: "unfinished"}
            if uplink.interface in failed:
                await self._undo(uplink)
                self._tell("uplink_removed", uplink, "its making was interrupted; undone")
            else:
                await self._write_uplink(replace(uplink, pending=False))
                self._tell("uplink_added", uplink, "its making was interrupted; finished")

    async def _apply(self) -> None:
        for uplink in self._standing():
            await self._complete(uplink)
        failed = await self._apply_sections()
        for name in [n for n in self._problems if n.startswith("tunnel ")]:
            del self._problems[name]
        for interface, why in failed.items():
            self._problems[f"tunnel {interface}"] = f"{interface}: {why}"
        await self.monitor.configure(self._watch())

    async def _complete(self, uplink: Uplink) -> None:
        """Give an uplink that the owner wrote by hand its own key and addresses."""
        key = await self.platform.read_key(uplink.interface)
        if key and uplink.own_public_key and uplink.addresses:
            return
        _, public = await self.platform.generate_keys(uplink.interface)
        addresses = uplink.addresses or derived_addresses(public)
        await self._write_uplink(replace(uplink, own_public_key=public, addresses=addresses))
        self._tell("uplink_added", uplink, "found in the configuration")

    async def _apply_sections(self) -> dict[str, str]:
        """Derive `network` and the tunnels from the configuration; interface -> why not."""
        wanted: list[Section] = []
        failed: dict[str, str] = {}
        for uplink in self._standing():
            key = await self.platform.read_key(uplink.interface)
            if not key or not uplink.addresses:
                failed[uplink.interface] = "its private key or its address is missing"
                continue
            wanted += wanted_sections(uplink, key)
        found = (await self.platform.read(NETWORK)).sections
        plan = plan_sections(wanted, found)

        def write(draft: Draft) -> None:
            for name in plan.remove:
                draft.remove_section(name)
            for section in plan.write:
                draft.set_section(section.name, section.type, section.options)

        if plan:
            await self.platform.edit(NETWORK, write)
        tunnels = tunnels_of((await self.platform.read(NETWORK)).sections)
        failed.update(await self.platform.sync(tunnels))
        await self.platform.keep_keys({uplink.interface for uplink in self.config.uplinks})
        return failed

    async def _write_uplink(self, uplink: Uplink) -> None:
        options = uplink_options(uplink)
        await self.platform.edit(
            CONFIG, lambda draft: draft.set_section(uplink.interface, UPLINK_TYPE, options)
        )
        await self._read_config_strictly()

    async def _edit_option(self, section: str, option: str, value: str) -> None:
        def write(draft: Draft) -> None:
            if section == MAIN_NAME and draft.get(section) is None:
                draft.set_section(section, MAIN_TYPE, {})
            draft.set_option(section, option, value)

        await self.platform.edit(CONFIG, write)
        await self._read_config_strictly()

    async def _read_config_strictly(self) -> None:
        """Changes are made only on top of a configuration that is understood."""
        if not await self._read_config():
            raise ConfigError(self._problems["config"])

    # --- telling

    def _report(self, change: Change, family: Family, detection_ms: int, switch_ms: int) -> None:
        peers = {uplink.interface: uplink.peer_id for uplink in self.config.uplinks}
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
            **self.status(),
            **self.list_uplinks(),
            "history": [entry.as_table() for entry in self.history.oldest_first()],
            "offer_book": [offer_row(o) for o in self.offers.fresh(time.monotonic())],
        }
        try:
            write_state(self._state_file, content)
            self._problems.pop("state", None)
        except OSError as error:
            self._problems["state"] = f"can't write {self._state_file}: {error.strerror}"


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
