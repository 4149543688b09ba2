"""Uplinks from configuration to tunnel: create, change, remove, and the way back where it fails.

A change is intent first (an uplink section marked pending), then what is derived from it (the
sections of `network`, the tunnels, the keys), and pending goes last, so that a start after a crash
finishes it or undoes it. `lock` is held for each change; nothing here waits for a handshake.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import field, replace
from functools import partial

from ..config.settings import Config
from ..config.store import ConfigStore
from ..errors import CommandFailed, ConfigError, NotFound, UplinkError
from ..events import Events, StatusChanged, UplinkChanged
from ..model import (
    PEER_OPTION,
    PROVIDER_DEVICE,
    Cost,
    Uplink,
    derived_addresses,
    interface_name,
    is_key,
    is_marked,
)
from ..platform.linux import Platform
from ..platform.tunnels import LOST_NETWORK, NETWORK, has_interfaces, plan_sections, tunnels_of
from ..reasons import because
from ..system import wg
from ..tasks import rest
from ..text import quoted
from ..uci import Section
from ..values import dataclass
from ..warnings import Warnings
from .wans import Wans, tunnels_ahead, wan_routes
from .watch import WatchList

ROUTE_PAUSES_S = (0.0, 0.2, 0.8, 2.0)  # a route that is replaced is gone for a moment
CONFIG_CHECK_S = 2.0
MOST_WAITS = 5  # of CONFIG_CHECK_S, before a tunnel that can't be made is tried again
RETRIED = frozenset({"apply", "undo", "inbound", "kept config"})
"""What is tried again soon where it failed, by the topic of its warning."""


@dataclass(eq=False, repr=False)
class Uplinks:
    _platform: Platform
    _store: ConfigStore
    _wans: Wans
    _watch: WatchList
    _warnings: Warnings
    _events: Events
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _removed: set[str] = field(default_factory=set)
    _opened: set[str] | None = None

    # --- life

    async def start(self) -> None:
        """Mend what an earlier run left unfinished, begin to watch. The file was read before."""
        async with self.lock:
            await self._wans.look_at_mwan3()
            await self._watch.start()
            await self.apply()

    async def reload(self) -> None:
        """Read the configuration again, and make again what others removed; a bad one leaves the
        last good one in force.
        """
        async with self.lock:
            before, warned = self._store.current, {**self._warnings}
            await self._wans.look_at_mwan3()
            if await self._store.reload():
                self._note_removed(before)
                await self.apply()
        await self._store.tell(anew=True)
        if (self._store.current, self._warnings) != (before, warned):
            self._events.publish(StatusChanged())

    @property
    def changed_outside(self) -> bool:
        """Whether others have changed our file or mwan3's, or its use began or ended."""
        return self._store.changed_outside or self._wans.mwan3_changed

    async def follow_files(self) -> None:
        """The task: read again what others have changed, and make tunnels again that are gone."""
        waits = patience = 1  # what can't be made is tried less and less often
        while True:
            await rest(CONFIG_CHECK_S)
            if self.changed_outside:
                waits = patience = 1
                await self.reload()
            waits -= 1
            if waits <= 0:
                missing = await self.restore_tunnels()
                patience = min(2 * patience, MOST_WAITS) if missing else 1
                waits = patience

    async def restore_tunnels(self) -> bool:
        """Make tunnels again that are missing or whose device was made anew; whether any were."""
        missing = self._watch.lacks_tunnel or bool(RETRIED & self._warnings.keys())
        if missing and not self.lock.locked():
            async with self.lock:
                await self.apply()
                await self._store.keep()
            await self._store.tell()
        return missing

    @asynccontextmanager
    async def changing(self) -> AsyncIterator[Config]:
        """The lock of changes, over a configuration that may be changed; then everybody hears."""
        async with self.lock:
            await self._wans.look_at_mwan3()
            before = self._store.current
            config = await self._store.require()
            self._note_removed(before)
            yield config
        await self._store.tell()

    def _note_removed(self, before: Config) -> None:
        """The uplinks that the owner took out of the file since."""
        kept = {uplink.peer_id for uplink in self._store.current.uplinks}
        self._removed |= {u.peer_id for u in before.uplinks if not u.pending} - kept
        self._removed -= kept

    def require(self, peer_id: str) -> Uplink:
        uplink = self._store.current.uplink_to(peer_id)
        if uplink is None:
            raise NotFound(because("uplink_missing", quoted(peer_id)), code="no_uplink")
        return uplink

    # --- changing

    async def create(self, wanted: Uplink, private: str = "") -> Uplink:
        """Make a new uplink; on any failure it is undone and the reason raised.

        `private` is its key where a provider has granted a lease to it already.
        """
        taken = {link.name for link in self._platform.kernel.devices()}
        taken |= {section.name for section in (await self._platform.read(NETWORK)).sections}
        taken |= self._store.current.names
        wanted = replace(wanted, interface=interface_name(wanted.peer_id, taken), pending=True)
        await self._write_uplink(wanted)
        try:
            public = wanted.own_public_key
            if private:
                await self._platform.write_key(wanted.interface, private)
            else:
                _, public = await self._platform.generate_keys(wanted.interface)
            addresses = wanted.addresses or derived_addresses(public)
            wanted = replace(wanted, own_public_key=public, addresses=addresses)
            await self._write_uplink(wanted)
            await self._derive(wanted)
            done = replace(wanted, pending=False)
            await self._write_uplink(done)
        except BaseException:
            await asyncio.shield(self._undo(wanted))
            raise
        await self._watch.follow()
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
        await self._watch.follow()

    async def _derive(self, uplink: Uplink) -> None:
        before = wan_routes(self._wans.default_routes())
        failed = await self._apply_sections()
        if uplink.interface in failed:
            raise CommandFailed(because("tunnel_not_made", failed[uplink.interface]))
        for pause_s in ROUTE_PAUSES_S:
            await asyncio.sleep(pause_s)
            routes = self._wans.default_routes()
            lost = before - wan_routes(routes)
            if not lost:
                break
        else:
            names = ", ".join(sorted({device for _, device in lost}))
            raise CommandFailed(because("route_lost", names), code="line_lost")
        if why := tunnels_ahead(routes).get(uplink.interface):
            raise CommandFailed(because("undone", why), code="tunnel_ahead")

    async def _undo(self, uplink: Uplink) -> None:
        told = partial(because, "undoing_failed", uplink.interface)
        with self._warnings.catch("undo", sentence=told):
            await self._edit(lambda config: config.without_uplink(uplink.interface))
            await self._apply_sections()

    async def remove(self, uplink: Uplink, *, decline: bool = False) -> None:
        """Remove an uplink; traffic leaves it before its tunnel goes.

        With `decline` none is made to this peer again before its owner asks for it.
        """

        def change(config: Config) -> Config:
            config = config.without_uplink(uplink.interface)
            return _declining(config, {uplink.peer_id}) if decline else config

        await self._edit(change)
        try:
            await self._watch.follow()
            await self._apply()
        except UplinkError as error:
            self._warnings.set("apply", str(error))  # what is left of it is removed soon
            raise

    async def mend_pending(self) -> None:
        """Finish or undo what was being made when an earlier run ended, or could not be undone, or
        was written all the same (a folder that could not be synced).

        To be called under the lock of changes: what is pending then is nobody's work.
        """
        pending = [uplink for uplink in self._store.current.uplinks if uplink.pending]
        for uplink in pending:
            try:
                key = await self._platform.read_key(uplink.interface)
            except UplinkError:
                key = ""
            complete = bool(key and uplink.own_public_key and uplink.addresses)
            failed = await self._apply_sections() if complete else {uplink.interface: "unfinished"}
            if uplink.interface in failed:
                await self._undo(uplink)
                if "undo" not in self._warnings:
                    self._report("uplink_removed", uplink, because("interrupted_undone"))
                continue
            told = partial(because, "finishing_failed", uplink.interface)
            with self._warnings.catch("undo", sentence=told):
                await self._write_uplink(replace(uplink, pending=False))
                self._report("uplink_added", uplink, because("interrupted_done"))
        if pending:
            await self._watch.follow()

    async def apply(self) -> None:
        """Bring `network`, tunnels and keys in line with the configuration.

        A configuration that was never understood says nothing: all stays as it is. What fails as a
        whole is a warning, under "apply", and is to be tried again.
        """
        with self._warnings.catch("apply"):
            await self._apply()

    async def _apply(self) -> None:
        if not self._store.understood:
            return
        await self.mend_pending()
        await self._remember_removed()
        incomplete = {}
        for uplink in self._store.current.wanted_uplinks:
            try:
                if not uplink.pending:  # what can't be undone yet is not finished meanwhile
                    await self._complete(uplink)
            except UplinkError as error:  # the others are made all the same
                incomplete[uplink.interface] = str(error)
        self._opened = None  # the filter is put in place anew: somebody may have removed it
        failed = incomplete | await self._apply_sections()
        self._warnings.replace("tunnel ", {n: because("of", n, why) for n, why in failed.items()})
        self._wans.check_order()
        await self._watch.follow()

    async def _remember_removed(self) -> None:
        """Sections that the owner took out of the file are uplinks that he does not want."""
        gone, self._removed = self._removed, set()
        if gone - self._store.current.settings.declined:
            await self._edit(lambda config: _declining(config, gone))

    async def _complete(self, uplink: Uplink) -> None:
        """Give an uplink that the owner wrote by hand its own key and addresses."""
        key = await self._platform.read_key(uplink.interface)
        if key and uplink.own_public_key and uplink.addresses:
            return
        if not key:
            key = _installed_key(uplink, (await self._platform.read(NETWORK)).sections)
            key = key or await self._removed_key(uplink)
            if key and uplink.own_public_key:  # only the file was lost
                await self._platform.write_key(uplink.interface, key)
                return
        _, public = await self._platform.generate_keys(uplink.interface)
        addresses = uplink.addresses or derived_addresses(public)
        await self._write_uplink(replace(uplink, own_public_key=public, addresses=addresses))
        self._report("uplink_added", uplink, because("found_configured"))

    async def _removed_key(self, uplink: Uplink) -> str:
        """The key that was put aside when the section was gone, if it is the one it tells of."""
        key = await self._platform.read_removed_key(uplink.interface)
        fits = key and uplink.own_public_key and await wg.public_key(key)
        return key if fits == uplink.own_public_key else ""

    async def _apply_sections(self) -> dict[str, str]:
        """Derive `network` and the tunnels from the configuration; interface -> why not."""
        keyed: list[tuple[Uplink, str]] = []
        failed: dict[str, str] = {}
        standing = self._store.current.wanted_uplinks
        found = (await self._platform.read(NETWORK)).sections
        if self._platform.shares_network and not has_interfaces(found):
            raise ConfigError(LOST_NETWORK)
        for uplink in standing:
            try:
                key = await self._platform.read_key(uplink.interface)
            except UplinkError as error:
                key, failed[uplink.interface] = "", str(error)
            key = key or _installed_key(uplink, found)  # a lost file ends no tunnel
            if key and uplink.addresses:
                keyed.append((uplink, key))
            else:
                missing = "its private key or its address is missing"
                failed.setdefault(uplink.interface, missing)
        routed = await self._wans.mwan3.is_wanted(self._store.current.settings)
        wanted = await self._platform.wanted_sections(keyed, found, routed=routed)
        plan = plan_sections(wanted, found)
        await self._wans.apply_mwan3(standing, final=False)
        if plan:
            await self._platform.edit(NETWORK, plan.apply)
        tunnels = tunnels_of((await self._platform.read(NETWORK)).sections)
        opened = {uplink.interface for uplink in standing if uplink.inbound}
        if tunnels and opened != self._opened:
            await self._guard(opened)
        failed.update(await self._platform.sync(tunnels))
        if not tunnels:
            self._opened = None
            await self._platform.guard_tunnels(None)
        await self._wans.apply_mwan3(standing, final=True)
        await self.keep_keys()
        return failed

    async def keep_keys(self) -> None:
        """Have the keys of uplinks that are gone put aside, and deleted a day later."""
        if self._store.understood:
            await self._platform.keep_keys({*self._store.current.names, PROVIDER_DEVICE})

    async def guard_tunnels(self) -> None:
        """Let only answers in by tunnels once more; to be called now and then: rules get lost."""
        if self._opened is not None:
            await self._guard(self._opened)

    async def _guard(self, opened: set[str]) -> None:
        self._opened = opened
        with self._warnings.catch("inbound", sentence=partial(because, "unguarded")):
            await self._platform.guard_tunnels(opened)

    def _report(self, kind: str, uplink: Uplink, cause: str) -> None:
        self._events.publish(UplinkChanged(kind, uplink, cause))

    async def _edit(self, change: Callable[[Config], Config]) -> None:
        """Change our file; everybody hears behind the lock of changes."""
        await self._store.edit(change, tell=False)

    async def _write_uplink(self, uplink: Uplink) -> None:
        def change(config: Config) -> Config:
            declined = config.settings.declined - ({uplink.peer_id} if not uplink.auto else set())
            return config.with_settings(declined=declined).with_uplink(uplink)

        await self._edit(change)

    async def keep_costs(self, costs: Mapping[str, Cost]) -> None:
        """Have the sections of these interfaces say what their peers cost; one write."""

        def change(config: Config) -> Config:
            uplinks = (replace(u, cost=costs.get(u.interface, u.cost)) for u in config.uplinks)
            return replace(config, uplinks=tuple(uplinks))

        async with self.changing():
            await self._edit(change)

    async def set_weight(self, peer_id: str, weight: int) -> None:
        """Prefer an uplink by this weight. NotFound where there is none."""
        async with self.changing():
            before = self.require(peer_id)
            uplink = replace(before, weight=weight)
            await self._edit(lambda config: config.with_uplink(uplink))
            await self._prefer()
        if uplink != before:
            self._report("uplink_changed", uplink, because("weight_set", weight))
        self._events.publish(StatusChanged())

    async def set_failover(self, enabled: bool) -> None:
        async with self.changing():
            await self._edit(lambda config: config.with_settings(auto_failover=enabled))
            await self._prefer()
            await self.apply()  # a tunnel's default routes, which are mwan3's, go too
        self._events.publish(StatusChanged())

    async def _prefer(self) -> None:
        """Have mwan3 and the monitor follow what was set; an outage is no time to touch mwan3."""
        rebuild, wanted = not self._watch.is_away, self._store.current.wanted_uplinks
        await self._wans.apply_mwan3(wanted, final=True, rebuild=rebuild)
        await self._watch.follow()


async def has_made(platform: Platform) -> bool:
    """Whether anything exists that an earlier run made, by whatever configuration."""
    try:
        found = (await platform.read(NETWORK)).sections
        provider_key = await platform.read_key(PROVIDER_DEVICE)
    except UplinkError:
        return True
    return bool(provider_key) or any(is_marked(section.options) for section in found)


def _declining(config: Config, peer_ids: set[str]) -> Config:
    """Note that the owner does not want uplinks to these peers, where any would be made."""
    if not config.settings.min_uplinks:
        return config
    return config.with_settings(declined=config.settings.declined | peer_ids)


def _installed_key(uplink: Uplink, found: Iterable[Section]) -> str:
    """The private key that the uplink's section of `network` holds; '' where it has none."""
    for section in found:
        options = section.options
        if section.name == uplink.interface and is_marked(options):
            key = options.get("private_key", "")
            is_its = options.get(PEER_OPTION) == uplink.peer_id
            return key if is_its and isinstance(key, str) and is_key(key) else ""
    return ""
