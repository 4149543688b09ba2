"""The machine that the service runs on: any Linux, with tunnels made by `wg` and the kernel.

Marked sections become devices by plan; one that does not carry our mark is never touched. A router
with netifd differs in parts (openwrt.py). Methods raise UplinkError's children only; reads are
cheap enough to be repeated at every kernel event.

Configuration is not written by the `uci` command: whatever changes directory that is given, it
commits what others have left pending in /tmp/.uci along with its own (delta.c, uci_load_delta). The
store takes libuci's locks and leaves pending changes alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ..config.options import CONFIG
from ..errors import CommandFailed, ConfigError, NotSupported, Status, UplinkError
from ..model import DEVICE_GROUP, Endpoint, Link, PeerCounters, Tunnel, Uplink, is_key, mark_alias
from ..reasons import because, of_system
from ..system import nft, process, wg
from ..system.dns import SERVER_FILES, parse_resolvers
from ..system.files import (
    UnusableFile,
    read_bytes,
    read_names,
    read_or_tell,
    read_text,
    remove_unfinished,
    replace_file,
)
from ..system.nft import ConnectionTracking, TableReader
from ..system.proc import filter_of, read_setting, write_setting
from ..system.rtnetlink import Kernel
from ..uci import Document, Draft, Section, Store
from ..warnings import Warnings
from . import inbound
from .endpoint_addresses import EndpointAddresses, Way
from .tunnels import plan_devices, wanted_sections

REMOVED = ".removed"
KEPT_S = 86400.0
EDITED = ("wireguard-uplink", "network", "mwan3", "firewall")


SNAPSHOTS = "/var/run/rpcd/snapshot-files"  # RPC_SNAPSHOT_FILES, rpcd
CONFIRM_S = 100.0
"""LuCI gives 90 s. What was applied without a way back leaves such files too, and for good."""


class RollbackPending(ConfigError):
    """A change would be undone without a word."""

    status = Status.PERMISSION_DENIED
    code = "rollback_pending"


class Platform:
    """A machine with UCI files in `config_dir`. Keys lie in `keys_dir` (0700, files 0600).

    `shares_network`: `network` is the owner's, with all of the router's interfaces in it.
    `endpoints` are the addresses that tunnels' providers are tried at, `_applied` the tunnels that
    are installed as they should be, by interface.
    """

    name = "standalone"
    shares_network = False
    sysctl_file = "/etc/sysctl.d/90-router.conf"  # systemd 257 reads no sysctl.conf

    def __init__(self, config_dir: str, keys_dir: str, warnings: Warnings) -> None:
        self.warnings = warnings
        self._etc = os.path.dirname(config_dir.rstrip("/"))
        self._store = Store(config_dir)
        self._keys_dir = keys_dir
        self._applied: dict[str, Tunnel] = {}
        self._ages = wg.Ages()
        self.kernel = Kernel()
        self.endpoints = EndpointAddresses(
            os.path.join(keys_dir, "endpoints.json"), self.kernel.device_towards, warnings
        )
        self.connections = ConnectionTracking()
        self._filter = TableReader(inbound.TABLE)
        self._opened: frozenset[str] | None = None

    # --- configuration

    async def read(self, config: str) -> Document:
        """A configuration file's sections; an absent file is an empty document."""
        return self._store.read(config, missing_ok=True)

    async def edit(self, config: str, change: Callable[[Draft], None]) -> object:
        """Apply `change` to a file under its lock; atomic, and nothing is written on an error.

        Returns the file's signature behind the edit. Raises RollbackPending too: a rollback of
        rpcd's puts whole files back, also what others wrote since (rpc_uci_do_rollback, uci.c).
        """

        def write() -> object:
            if _waits_s(config) > 0:
                raise RollbackPending(because("rollback_pending", config))
            with self._store.edit(config) as draft:
                change(draft)
            return draft.signature

        return await asyncio.to_thread(write)

    def signature(self, config: str) -> object:
        """A value that differs once the file was changed by anybody."""
        return self._store.signature(config)

    async def sweep(self) -> None:
        """Remove the files that writes left which were killed in the middle, and have nobody else
        able to lock our configuration; for a start.
        """
        await asyncio.to_thread(self._sweep)

    def _sweep(self) -> None:
        for config in EDITED:
            self._store.remove_unfinished(config)
        self._store.shut_out_others(CONFIG)
        for folder in (self._keys_dir, os.path.dirname(self._keys_dir.rstrip("/"))):
            remove_unfinished(folder)

    async def keep_rendered(self, text: str) -> None:
        """Keep, for people, what mwan3 should hold of ours; '' removes it."""
        path = os.path.join(self._etc, "mwan3.d", "wireguard-uplinks.conf")
        await asyncio.to_thread(_keep_text, path, text)

    # --- keys

    async def generate_keys(self, interface: str) -> tuple[str, str]:
        """A new key pair (private, public) for an interface, kept where only root reads it."""
        private, public = await wg.generate_keys()
        await self.write_key(interface, private)
        return private, public

    async def write_key(self, interface: str, private: str) -> None:
        """Keep a private key for an interface, where only root reads it."""
        await asyncio.to_thread(self._write_key, interface, private)

    def _write_key(self, interface: str, private: str) -> None:
        path = self._key_path(interface)
        try:
            replace_file(path, f"{private}\n".encode("ascii"))
        except OSError as error:
            raise CommandFailed(because("unwritten", path, of_system(error))) from error

    def _key_path(self, interface: str) -> str:
        return os.path.join(self._keys_dir, f"{interface}.key")

    async def read_key(self, interface: str) -> str:
        """The private key that was made for an interface, '' if there is none.

        Raises UnusableFile where something else is in its place.
        """
        path = self._key_path(interface)
        key = read_bytes(path)
        if key is None:
            return ""
        text = key.decode(errors="replace").strip()
        if not is_key(text):
            raise UnusableFile(because("no_key_in_file", path))
        return text

    async def keep_keys(self, interfaces: Collection[str]) -> None:
        """Put every key aside but those of these interfaces; it is deleted a day later.

        To be called now and then.
        """
        await asyncio.to_thread(self._keep_keys, {f"{name}.key" for name in interfaces})

    def _keep_keys(self, kept: Collection[str]) -> None:
        try:
            for name in read_names(self._keys_dir) or ():
                path = os.path.join(self._keys_dir, name)
                if name.endswith(".key") and name not in kept:
                    os.utime(path, follow_symlinks=False)
                    os.replace(path, path + REMOVED)
                elif name.endswith(f".key{REMOVED}"):
                    age_s = time.time() - os.lstat(path).st_mtime
                    if age_s > KEPT_S:
                        os.unlink(path)
                    elif age_s < 0:  # the clock was ahead when it was put aside
                        os.utime(path, follow_symlinks=False)
            self.warnings.clear_topic("keys")
        except (OSError, UnusableFile) as error:
            reason = of_system(error) if isinstance(error, OSError) else error
            told = because("keys_not_aside", reason)
            self.warnings.set("keys", told)

    async def read_removed_key(self, interface: str) -> str:
        """The private key of an interface that was put aside, '' if there is none."""
        path = self._key_path(interface) + REMOVED
        found = await asyncio.to_thread(read_or_tell, read_text, path, "")
        return found.strip() if is_key(found.strip()) else ""

    # --- tunnels

    async def guard_tunnels(self, opened: Collection[str] | None) -> None:
        """Let only answers in by tunnels, but by those `opened`; None where no tunnel is left.

        To be called before the first tunnel is made and after the last has gone.
        """
        before, self._opened = self._opened, None if opened is None else frozenset(opened)
        if opened is None:
            await nft.delete_table("inet", inbound.TABLE)
        elif before != self._opened or self._filter.count_rules(inbound.CHAIN) != inbound.RULES:
            await nft.run_script(inbound.inbound_script(opened))

    def _mark(self, tunnel: Tunnel) -> None:
        alias = mark_alias(tunnel.peer_id)
        self.kernel.set_device(tunnel.interface, alias=alias, group=DEVICE_GROUP)

    async def _set_peer(self, tunnel: Tunnel) -> None:
        """Give the device its one peer, at the best address of its endpoint."""
        name, endpoint = tunnel.interface, tunnel.endpoint
        before, at = self.endpoints.current(name), None
        if endpoint is not None:
            at = await self.endpoints.begin(name, endpoint)
        await wg.configure(replace(tunnel, endpoint=at))
        await wg.remove_other_peers(tunnel)
        known = self._applied.get(name)
        if at is None or known is None:
            return
        if (known.endpoint, before) != (endpoint, at.host):
            await wg.insist_on_endpoint(name, tunnel.public_key, at)

    async def follow_names(self, stalled: Sequence[str]) -> bool:
        """Have silent tunnels go on to their provider's next address, names looked up again, and
        keep what answered; whether an address is another now. Cheap while nothing is stalled.
        """
        if self.endpoints.due(stalled):
            await self.read_counters()  # or one that works by now would be left again
        due = [name for name in self.endpoints.due(stalled) if name in self._applied]
        found = await asyncio.gather(*map(self.endpoints.another, due))
        moved = {name: at for name, at in zip(due, found, strict=True) if at is not None}
        for name, at in moved.items():
            tunnel = self._applied.get(name)
            if tunnel is not None:
                with contextlib.suppress(CommandFailed):  # a device that is gone is made again
                    await wg.set_endpoint(name, tunnel.public_key, at)
        await self.endpoints.save_if_due()
        return bool(moved)

    async def leave_ways(
        self, names: Sequence[str], doubted: Collection[Way], wans: Collection[str]
    ) -> bool:
        """Have these tunnels' outer packets leave ways in doubt, as far as their providers have
        other addresses (EndpointAddresses.other_ways); whether one moved.
        """
        found = {name: self.endpoints.step_aside(name, doubted, wans) for name in names}
        return await self._move(found)

    async def return_to_ways(self, names: Sequence[str]) -> bool:
        """Have them return to the addresses that they left; whether one did."""
        return await self._move({name: self.endpoints.step_back(name) for name in names})

    async def _move(self, wanted: Mapping[str, Endpoint | None]) -> bool:
        moved = {n: at for n, at in wanted.items() if at is not None and n in self._applied}
        keys = {name: self._applied[name].public_key for name in moved}
        with contextlib.suppress(CommandFailed):  # a device that is gone is made again
            sets = (wg.set_endpoint(name, keys[name], at) for name, at in moved.items())
            await asyncio.gather(*sets)
            checks = (
                wg.insist_on_endpoint(name, keys[name], at, partial(self.endpoints.is_at, name, at))
                for name, at in moved.items()
            )
            await asyncio.gather(*checks)
        return bool(moved)

    async def wanted_sections(
        self, keyed: Sequence[tuple[Uplink, str]], found: Sequence[Section], *, routed: bool = False
    ) -> list[Section]:
        """The `network` sections of uplinks with their private keys; `found` are those there.

        With `routed` the tunnels have default routes, which mwan3 needs. Names of endpoints stay
        names here: `sync` resolves them.
        """
        return [section for uplink, key in keyed for section in wanted_sections(uplink, key)]

    async def sync(self, tunnels: Sequence[Tunnel]) -> Mapping[str, str]:
        """Install these tunnels, and no other marked one; interface -> why it could not be."""
        links = [await self._recognized(link, tunnels) for link in self.kernel.devices()]
        plan = plan_devices(tunnels, links, self._applied)
        failed = dict(plan.refused)
        for name in plan.delete:
            self.kernel.delete_device(name)
            self._applied.pop(name, None)
            self.endpoints.forget(name)
        if plan.update and not self._applied:  # what an earlier run left is watched from now on
            with contextlib.suppress(UplinkError):
                await self.read_counters()
        wanted = plan.create + plan.update
        await self.endpoints.look_up_all({t.interface: t.endpoint for t in wanted if t.endpoint})
        for tunnel in wanted:
            try:
                if tunnel in plan.create:
                    await wg.make_device(self.kernel, tunnel.interface)
                    self._mark(tunnel)
                await self._configure(tunnel)
                self._applied[tunnel.interface] = tunnel
            except UplinkError as error:
                failed[tunnel.interface] = str(error)
        return failed

    async def _recognized(self, link: Link, tunnels: Sequence[Tunnel]) -> Link:
        """A device whose maker died before marking it is known by its key, ours or none yet."""
        wanted = next((t for t in tunnels if t.interface == link.name), None)
        if wanted is None or link.alias:
            return link
        shown = await process.run(["wg", "show", link.name, "public-key"], check=False)
        own = await wg.public_key(wanted.private_key)
        if shown.returncode != 0 or shown.stdout.strip() not in (own, "(none)"):
            return link
        self._mark(wanted)
        return replace(link, alias=mark_alias(wanted.peer_id))

    async def _configure(self, tunnel: Tunnel) -> None:
        name = tunnel.interface
        await self._set_peer(tunnel)
        self.kernel.set_addresses(name, tunnel.addresses)
        self.kernel.set_device(name, mtu=tunnel.mtu, up=True)
        loosen_reverse_path(name)

    # --- what there is

    async def read_resolvers(self) -> list[str]:
        """The name servers that the WANs brought, address literals."""
        for path in SERVER_FILES:
            text = await asyncio.to_thread(read_or_tell, read_text, path, "", self.warnings)
            found = parse_resolvers(text)
            if found:
                return found
        return []

    async def read_counters(self) -> dict[str, PeerCounters]:
        """WireGuard's counters of every device with a peer, by device."""
        read_s = time.monotonic()
        counters = await wg.read_counters(self._ages)
        self.endpoints.saw(counters, read_s)
        return counters

    # --- netifd and procd, where they are

    async def install_provider(
        self,
        gateways: Sequence[str],
        listen_port: int,
        mesh_devices: Collection[str],
        renewal_port: int,
    ) -> None:
        """Have the machine's own network and firewall let consumers of PROVIDER_DEVICE through.

        `gateways` are the device's addresses with prefix lengths. To be called again when WANs or
        `mesh_devices` change; what is installed is left alone. On an error all is as before.
        """
        return

    async def remove_provider(self) -> None:
        """Undo `install_provider`; nothing where there is nothing to undo."""
        return

    async def read_protocols(self) -> Mapping[str, str]:
        """Device -> netifd's protocol of the interface on it."""
        return {}

    def logical_name(self, device: str) -> str:
        """What the owner calls the WAN with that device; the device itself where not known."""
        return device

    def interfaces_on(self, device: str) -> list[str]:
        """netifd's names of the interfaces on a device."""
        return []

    async def read_interfaces(self) -> Mapping[str, str]:
        """netifd's interfaces and the devices that they have or had, '' where that is not known."""
        return {}

    def is_enabled(self, service: str) -> bool:
        """Whether a service is started at boot, as a router's init scripts are."""
        return False

    async def reload_network(self) -> None:
        """Have `network` read again by whoever makes interfaces of it."""
        return

    async def call(
        self, path: str, method: str, arguments: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """What an object on netifd's and procd's bus replies. Raises UplinkError."""
        raise NotSupported(because("no_netifd", path))


def loosen_reverse_path(device: str) -> None:
    """Strict reverse path filtering would drop the answers to probes on an idle tunnel.

    The kernel takes the larger of `all` and the device's value. 2, the loose one, is taken only
    where `all` is strict: it wants a route to the sender, and a router without a WAN has none.
    """
    with contextlib.suppress(OSError):  # read-only /proc: the doctor tells what the filter does
        write_setting(filter_of(device), "2" if read_setting(filter_of("all")) == "1" else "0")


def rollback_s() -> float:
    """How long rpcd may still put a file back that is edited here; 0 where it will not."""
    return max(map(_waits_s, EDITED))


def _waits_s(config: str) -> float:
    """How long the copy that rpcd has put aside of a configuration may come back; 0 without one."""
    try:
        age_s = time.time() - os.stat(os.path.join(SNAPSHOTS, config)).st_mtime
    except OSError:
        return 0.0
    return CONFIRM_S - age_s if 0 <= age_s < CONFIRM_S else 0.0


def _keep_text(path: str, text: str) -> None:
    if read_or_tell(read_text, path, "") == text:
        return
    try:
        if not text:
            os.unlink(path)
            with contextlib.suppress(OSError):  # others have files there
                os.rmdir(os.path.dirname(path))
            return
        os.makedirs(os.path.dirname(path), exist_ok=True)
        replace_file(path, text.encode("ascii"), mode=0o644)
    except OSError as error:
        raise CommandFailed(because("unwritten", path, of_system(error))) from error
