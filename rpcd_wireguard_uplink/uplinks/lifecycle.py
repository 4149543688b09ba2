"""The configured uplinks and everything derived from them: the only writer of configuration.

A change is intent first (an uplink section marked pending), then what is derived from it (the
sections of `network`, the tunnels, the keys), and pending goes last, so that a start after a crash
finishes it or undoes it. Callers hold the lock of changes; nothing here waits for a handshake.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..config.options import CONFIG, MAIN_NAME, MAIN_TYPE, UPLINK_TYPE
from ..config.parser import parse_config
from ..config.settings import Config
from ..config.wan_names import WanNames
from ..config.writer import section_of
from ..errors import CommandFailed, ConfigError, NotFound, UplinkError
from ..model import (
    PEER_OPTION,
    PROVIDER_DEVICE,
    Cost,
    DefaultRoute,
    Family,
    Uplink,
    derived_addresses,
    interface_name,
    is_key,
    is_marked,
    is_own_name,
)
from ..mwan3.sections import MWAN3
from ..mwan3.sync import Keeper
from ..platform.protocol import Platform
from ..platform.tunnels import LOST_NETWORK, NETWORK, has_interfaces, plan_sections, tunnels_of
from ..system import wg
from ..text import quoted
from ..uci import Draft, Section

DECLINED = "declined"
ROUTE_PAUSES_S = (0.0, 0.2, 0.8, 2.0)  # a route that is replaced is gone for a moment
Tell = Callable[[str, Uplink, str], None]


class Uplinks:
    """The uplinks of one router. `follow` makes the monitor watch what stands now, `tell` hears
    of uplinks that came or went by themselves: kind, uplink, cause. `problems` maps a topic to a
    sentence, for status.
    """

    def __init__(
        self, platform: Platform, follow: Callable[[], Awaitable[None]], tell: Tell
    ) -> None:
        self.platform = platform
        self.config = Config()
        self.wans = WanNames()
        self.problems: dict[str, str] = {}
        self._follow = follow
        self._tell = tell
        self._signature: object = None
        self.understood = False
        self._is_lost = False
        self._leaving: set[str] = set()
        self._removed: set[str] = set()
        self._opened: set[str] | None = None
        self._mwan3 = Keeper(platform)
        self._mwan3_seen: object = None
        self._mwan3_was_used = False
        self._mwan3_asked = 0
        self.mwan3_view: dict[str, Any] = {}

    # --- reading

    @property
    def changed_outside(self) -> bool:
        """Whether somebody else has changed our file or mwan3's, or began or ceased to use mwan3,
        since they were last read.
        """
        seen = (self._signature, self._mwan3_seen, self._mwan3_was_used)
        signatures = (self.platform.signature(CONFIG), self.platform.signature(MWAN3))
        return (*signatures, self._mwan3.used) != seen

    async def read(self) -> bool:
        """Read the file; False, and the last good configuration stays, where it is bad."""
        self._signature = self.platform.signature(CONFIG)
        self._mwan3_seen = self.platform.signature(MWAN3)
        self._mwan3_was_used = await self._mwan3.look()
        try:
            sections = (await self.platform.read(CONFIG)).sections
            config = parse_config(sections, self.config.good)
        except ConfigError as error:
            self.problems["config"] = f"{error}; the last good configuration stays in force"
            return False
        # Absence is not intent: a file that was lost or cut off removes nothing.
        self._is_lost = not any(section.type == MAIN_TYPE for section in sections)
        if self._is_lost and (config != self.config or await self._has_made()):
            self.problems["config"] = (
                f"{CONFIG} is lost or cut off (it has no section of type {MAIN_TYPE}), so nothing "
                "is changed for it: put it back, or begin anew with "
                f"`uci set {CONFIG}.{MAIN_NAME}={MAIN_TYPE}; uci commit {CONFIG}`"
            )
            return False
        self.problems.pop("config", None)
        kept = {uplink.peer_id for uplink in config.uplinks}
        self._removed |= {u.peer_id for u in self.config.uplinks if not u.pending} - kept
        self._removed -= kept | self._leaving
        self.config, self.understood = config, True
        return True

    async def _has_made(self) -> bool:
        """Whether anything stands that an earlier configuration asked for."""
        if self.understood:
            config = self.config
            return bool(
                config.uplinks or config.consumers or config.pins or config.provider.enabled
            )
        try:
            found = (await self.platform.read(NETWORK)).sections
            provider_key = await self.platform.read_key(PROVIDER_DEVICE)
        except UplinkError:
            return True
        return bool(provider_key) or any(is_marked(section.options) for section in found)

    async def read_strictly(self) -> None:
        """Changes are made only on top of a configuration that is understood."""
        if not await self.read() and not (self._is_lost and not await self._has_made()):
            raise ConfigError(self.problems["config"])

    def standing(self) -> list[Uplink]:
        """The uplinks whose tunnels should be there."""
        if not self.config.settings.enabled:
            return []
        return [uplink for uplink in self.config.uplinks if uplink.enabled]

    def find(self, peer_id: str) -> Uplink | None:
        """The uplink to a peer, if there is one."""
        return next((u for u in self.config.uplinks if u.peer_id == peer_id), None)

    def require(self, peer_id: str) -> Uplink:
        """The uplink to a peer; NotFound where there is none."""
        uplink = self.find(peer_id)
        if uplink is None:
            raise NotFound(
                f"there is no uplink to {quoted(peer_id)}: `wgctl uplink list` shows them",
                code="no_uplink",
            )
        return uplink

    # --- changing

    async def create(self, wanted: Uplink, private: str = "") -> Uplink:
        """Make a new uplink; on any failure it is undone and the reason raised.

        `private` is its key where a provider has granted a lease to it already.
        """
        taken = {link.name for link in await self.platform.read_links()}
        taken |= {section.name for section in (await self.platform.read(NETWORK)).sections}
        taken |= {section.name for section in (await self.platform.read(CONFIG)).sections}
        wanted = replace(wanted, interface=interface_name(wanted.peer_id, taken), pending=True)
        await self._write_uplink(wanted)
        try:
            public = wanted.own_public_key
            if private:
                await self.platform.write_key(wanted.interface, private)
            else:
                _, public = await self.platform.generate_keys(wanted.interface)
            addresses = wanted.addresses or derived_addresses(public)
            wanted = replace(wanted, own_public_key=public, addresses=addresses)
            await self._write_uplink(wanted)
            await self._derive(wanted)
            done = replace(wanted, pending=False)
            await self._write_uplink(done)
        except BaseException:
            await asyncio.shield(self._undo(wanted))
            raise
        await self._follow()
        return done

    async def change(self, existing: Uplink, wanted: Uplink) -> None:
        """Make an uplink another one, in place; on any failure it is as before."""
        await self._write_uplink(wanted)
        try:
            await self._derive(wanted)
        except BaseException:
            await self._write_uplink(existing)
            await self.apply()
            raise
        await self._follow()

    async def _derive(self, uplink: Uplink) -> None:
        before = _lines(await self._default_routes())
        failed = await self._apply_sections()
        if uplink.interface in failed:
            raise CommandFailed(f"the tunnel can't be made: {failed[uplink.interface]}")
        for pause_s in ROUTE_PAUSES_S:
            await asyncio.sleep(pause_s)
            routes = await self._default_routes()
            lost = before - _lines(routes)
            if not lost:
                break
        else:
            names = ", ".join(sorted({device for _, device in lost}))
            raise CommandFailed(
                f"the default route by {names} was gone behind the change, which was undone: try "
                "again when the line is back",
                code="line_lost",
            )
        if why := tunnels_ahead(routes).get(uplink.interface):
            raise CommandFailed(f"{why}; the change was undone", code="tunnel_ahead")

    async def _default_routes(self) -> list[DefaultRoute]:
        return [r for family in Family for r in await self.platform.read_default_routes(family)]

    async def check_order(self) -> None:
        """Tell, in `problems`, of tunnels whose default route does not stand behind every WAN's."""
        ahead = tunnels_ahead(await self._default_routes())
        for topic in [t for t in self.problems if t.startswith("order ")]:
            del self.problems[topic]
        self.problems |= {f"order {device}": why for device, why in ahead.items()}

    async def _undo(self, uplink: Uplink) -> None:
        self._leaving.add(uplink.peer_id)
        try:
            await self.platform.edit(CONFIG, lambda draft: draft.remove_section(uplink.interface))
            await self.read()
            await self._apply_sections()
            self.problems.pop("undo", None)
        except UplinkError as error:
            self.problems["undo"] = f"undoing {uplink.interface} failed: {error}; tried again soon"
        finally:
            self._leaving.discard(uplink.peer_id)

    async def remove(self, uplink: Uplink, *, decline: bool = False) -> None:
        """Remove an uplink; traffic leaves it before its tunnel goes.

        With `decline` none is made to this peer again before its owner asks for it.
        """

        def write(draft: Draft) -> None:
            draft.remove_section(uplink.interface)
            if decline and self.config.settings.min_uplinks:
                _decline(draft, {uplink.peer_id})

        self._leaving.add(uplink.peer_id)
        try:
            await self.platform.edit(CONFIG, write)
            await self.read_strictly()
        finally:
            self._leaving.discard(uplink.peer_id)
        await self._follow()
        await self._apply()

    async def mend_pending(self) -> None:
        """Finish or undo what was being made when an earlier run ended, or could not be undone.

        To be called under the lock of changes: what is pending then is nobody's work.
        """
        pending = [uplink for uplink in self.config.uplinks if uplink.pending]
        for uplink in pending:
            try:
                key = await self.platform.read_key(uplink.interface)
            except UplinkError:
                key = ""
            complete = bool(key and uplink.own_public_key and uplink.addresses)
            failed = await self._apply_sections() if complete else {uplink.interface: "unfinished"}
            if uplink.interface in failed:
                await self._undo(uplink)
                self._tell("uplink_removed", uplink, "its making was interrupted; undone")
            else:
                await self._write_uplink(replace(uplink, pending=False))
                self.problems.pop("undo", None)
                self._tell("uplink_added", uplink, "its making was interrupted; finished")
        if pending:
            await self._follow()

    async def apply(self) -> None:
        """Bring `network`, tunnels and keys in line with the configuration.

        A configuration that was never understood says nothing: all stays as it is. What fails as a
        whole is told, under "apply", and is to be tried again.
        """
        try:
            await self._apply()
            self.problems.pop("apply", None)
        except UplinkError as error:
            self.problems["apply"] = str(error)

    async def _apply(self) -> None:
        if not self.understood:
            return
        await self._remember_removed()
        incomplete = {}
        for uplink in self.standing():
            try:
                await self._complete(uplink)
            except UplinkError as error:  # the others are made all the same
                incomplete[uplink.interface] = str(error)
        self._opened = None  # the filter is put in place anew: somebody may have removed it
        failed = incomplete | await self._apply_sections()
        for name in [n for n in self.problems if n.startswith("tunnel ")]:
            del self.problems[name]
        for interface, why in failed.items():
            self.problems[f"tunnel {interface}"] = f"{interface}: {why}"
        await self.check_order()
        await self._follow()

    async def _remember_removed(self) -> None:
        """Sections that the owner took out of the file are uplinks that he does not want."""
        gone = self._removed - self.config.settings.declined
        self._removed = set()
        if gone and self.config.settings.min_uplinks:
            await self.platform.edit(CONFIG, lambda draft: _decline(draft, gone))
            await self.read_strictly()

    async def _complete(self, uplink: Uplink) -> None:
        """Give an uplink that the owner wrote by hand its own key and addresses."""
        key = await self.platform.read_key(uplink.interface)
        if key and uplink.own_public_key and uplink.addresses:
            return
        if not key:
            key = _installed_key(uplink, (await self.platform.read(NETWORK)).sections)
            key = key or await self._removed_key(uplink)
            if key and uplink.own_public_key:  # only the file was lost
                await self.platform.write_key(uplink.interface, key)
                return
        _, public = await self.platform.generate_keys(uplink.interface)
        addresses = uplink.addresses or derived_addresses(public)
        await self._write_uplink(replace(uplink, own_public_key=public, addresses=addresses))
        self._tell("uplink_added", uplink, "found in the configuration")

    async def _removed_key(self, uplink: Uplink) -> str:
        """The key that was put aside when the section was gone, if it is the one it tells of."""
        key = await self.platform.read_removed_key(uplink.interface)
        fits = key and uplink.own_public_key and await wg.public_key(key)
        return key if fits == uplink.own_public_key else ""

    async def _apply_sections(self) -> dict[str, str]:
        """Derive `network` and the tunnels from the configuration; interface -> why not."""
        keyed: list[tuple[Uplink, str]] = []
        failed: dict[str, str] = {}
        found = (await self.platform.read(NETWORK)).sections
        if self.platform.shares_network and not has_interfaces(found):
            raise ConfigError(LOST_NETWORK)
        for uplink in self.standing():
            try:
                key = await self.platform.read_key(uplink.interface)
            except UplinkError as error:
                key, failed[uplink.interface] = "", str(error)
            key = key or _installed_key(uplink, found)  # a lost file ends no tunnel
            if key and uplink.addresses:
                keyed.append((uplink, key))
            else:
                missing = "its private key or its address is missing"
                failed.setdefault(uplink.interface, missing)
        routed = await self._mwan3.is_wanted(self.config.settings)
        wanted = await self.platform.wanted_sections(keyed, found, routed=routed)
        plan = plan_sections(wanted, found)

        def write(draft: Draft) -> None:
            for name in plan.remove:
                draft.remove_section(name)
            for section in plan.write:
                draft.set_section(section.name, section.type, section.options)

        await self._apply_mwan3(final=False)
        if plan:
            await self.platform.edit(NETWORK, write)
        tunnels = tunnels_of((await self.platform.read(NETWORK)).sections)
        opened = {uplink.interface for uplink in self.standing() if uplink.inbound}
        if tunnels and opened != self._opened:
            await self._guard(opened)
        failed.update(await self.platform.sync(tunnels))
        if not tunnels:
            self._opened = None
            await self.platform.guard_tunnels(None)
        await self._apply_mwan3(final=True)
        await self.keep_keys()
        return failed

    async def keep_keys(self) -> None:
        """Have the keys of uplinks that are gone put aside, and deleted a day later."""
        if self.understood:
            kept = {uplink.interface for uplink in self.config.uplinks}
            await self.platform.keep_keys({*kept, *self.config.names, PROVIDER_DEVICE})

    async def guard_tunnels(self) -> None:
        """Let only answers in by tunnels once more; to be called now and then: rules get lost."""
        if self._opened is not None:
            await self._guard(self._opened)

    async def _guard(self, opened: set[str]) -> None:
        self._opened = opened
        try:
            await self.platform.guard_tunnels(opened)
            self.problems.pop("inbound", None)
        except UplinkError as error:
            told = "providers can reach this router and its LAN: their tunnels can't be filtered"
            self.problems["inbound"] = f"{told} ({error})"

    async def _apply_mwan3(self, *, final: bool, rebuild: bool = False) -> None:
        """mwan3 is the net below: what is wrong with it is told, and stops nothing."""
        if not self._mwan3.installed:
            return
        standing, settings = self.standing(), self.config.settings
        try:
            devices = await self._line_devices()
            await self._mwan3.apply(standing, settings, devices, final=final, rebuild=rebuild)
            self.problems.pop("mwan3", None)
        except UplinkError as error:
            self.problems["mwan3"] = str(error)
        self._mwan3_seen = self.platform.signature(MWAN3)

    async def prefer(self, *, rebuild: bool) -> None:
        """Have mwan3 follow what was set; its running policies too, with `rebuild`."""
        await self._apply_mwan3(final=True, rebuild=rebuild)

    async def follow_mwan3(self) -> bool:
        """Ask mwan3 how it sees things, for status; whether it sees them otherwise than before.

        To be called when hotplug tells of an interface, and now and then. Who comes while one
        asks is served by the next asking, so a burst of news costs two.
        """
        self._mwan3_asked += 1
        if self._mwan3_asked > 1:
            return False
        before, told = self.mwan3_view, dict(self.problems)
        try:
            asked = 0
            while asked < self._mwan3_asked:
                asked = self._mwan3_asked
                view = await self._mwan3.view()
                self.mwan3_view = view.as_table() if view is not None else {}
                if view is not None:  # without mwan3 no tunnel has a default route
                    await self.check_order()
        finally:
            self._mwan3_asked = 0
        return (self.mwan3_view, self.problems) != (before, told)

    def who_refuses(self, device: str, family: Family) -> str:
        """A sentence where mwan3 would not send traffic by a line of the router; else ''."""
        return self._mwan3.who_refuses(device, family)

    async def follow_wans(self) -> bool:
        """Find the devices that `list wan` means; whether they are others than before."""
        names = self.config.settings.lines
        interfaces = await self.platform.read_interfaces() if names else {}
        links = [link.name for link in await self.platform.read_links()] if names else []
        is_changed = self.wans.follow(names, interfaces, links)
        if self.wans.problem:
            self.problems["wan"] = self.wans.problem
        else:
            self.problems.pop("wan", None)
        return is_changed

    async def diverted_marks(self) -> tuple[int, ...]:
        """The marks that traffic of the lines can have; (0,) where mwan3 isn't used."""
        if not self._mwan3.installed:
            return (0,)
        try:
            return await self._mwan3.marks(await self._line_devices())
        except UplinkError as error:
            self.problems["mwan3"] = str(error)
            return (0,)

    async def _line_devices(self) -> list[str]:
        found = {device for _, device in _lines(await self._default_routes())}
        return [*self.wans.devices] or sorted(found)

    async def _write_uplink(self, uplink: Uplink) -> None:
        options = section_of(uplink).options

        def write(draft: Draft) -> None:
            draft.set_section(uplink.interface, UPLINK_TYPE, options)
            if not uplink.auto:
                for main in draft.of_type(MAIN_TYPE):
                    if uplink.peer_id in _listed(main):
                        draft.del_list(main.name, DECLINED, uplink.peer_id)

        await self.platform.edit(CONFIG, write)
        await self.read_strictly()

    async def keep_costs(self, costs: Mapping[str, Cost]) -> None:
        """Have the sections of these interfaces say what their peers cost; one write."""
        changed = [
            replace(uplink, cost=costs[uplink.interface])
            for uplink in self.config.uplinks
            if costs.get(uplink.interface, uplink.cost) != uplink.cost
        ]

        def write(draft: Draft) -> None:
            for uplink in changed:
                draft.set_section(uplink.interface, UPLINK_TYPE, section_of(uplink).options)

        if changed:
            await self.platform.edit(CONFIG, write)
            await self.read_strictly()

    async def set_option(self, section: str, option: str, value: str) -> None:
        """Set one option of our file; the main section is made if it is missing."""

        def write(draft: Draft) -> None:
            if section == MAIN_NAME and draft.get(section) is None:
                draft.set_section(section, MAIN_TYPE, {})
            draft.set_option(section, option, value)

        await self.platform.edit(CONFIG, write)
        await self.read_strictly()


def _lines(routes: Iterable[DefaultRoute]) -> set[tuple[Family, str]]:
    """The devices that the router reaches the internet by, without its tunnels."""
    return {(r.family, r.device) for r in routes if not is_own_name(r.device)}


def tunnels_ahead(routes: Sequence[DefaultRoute]) -> dict[str, str]:
    """Our devices whose default route does not stand behind every WAN's, each with a sentence.

    A family whose WANs have no route now has nothing to stand behind.
    """
    ahead = {}
    for family in Family:
        wans = [r for r in routes if r.family is family and not is_own_name(r.device)]
        last = max(wans, key=lambda route: route.metric, default=None)
        for route in routes:
            if last is None or route.family is not family or not is_own_name(route.device):
                continue
            if route.metric <= last.metric:
                ahead[route.device] = (
                    f"the default route of {route.device} (metric {route.metric}) does not stand "
                    f"behind that of {last.device} (metric {last.metric}), so IPv{family.version} "
                    f"may leave by the tunnel while {last.device} is well: give the interface on "
                    f"{last.device} a lower metric"
                )
    return ahead


def _listed(main: Section) -> tuple[str, ...]:
    found = main.options.get(DECLINED, ())
    return tuple(found.split()) if isinstance(found, str) else found


def _decline(draft: Draft, peer_ids: Iterable[str]) -> None:
    """Note that the owner does not want uplinks to these peers; the main section is there."""
    for main in draft.of_type(MAIN_TYPE)[:1]:
        for peer_id in sorted({*peer_ids} - {*_listed(main)}):
            draft.add_list(main.name, DECLINED, peer_id)


def _installed_key(uplink: Uplink, found: Iterable[Section]) -> str:
    """The private key that the uplink's section of `network` holds; '' where it has none."""
    for section in found:
        options = section.options
        if section.name == uplink.interface and is_marked(options):
            key = options.get("private_key", "")
            is_its = options.get(PEER_OPTION) == uplink.peer_id
            return key if is_its and isinstance(key, str) and is_key(key) else ""
    return ""
