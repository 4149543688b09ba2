"""What every Linux has in common: configuration files, keys, marked devices, the kernel's view.

Configuration is not written by the `uci` command: whatever changes directory that is given, it
commits what others have left pending in /tmp/.uci along with its own (delta.c, uci_load_delta). The
store takes libuci's locks and leaves pending changes alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from ..errors import CommandFailed
from ..model import (
    DEVICE_GROUP,
    Endpoint,
    PeerCounters,
    Tunnel,
    is_key,
    mark_alias,
)
from ..system import nft, wg
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
from ..uci import Document, Draft, Store
from ..warnings import Warnings
from . import inbound
from .endpoint_addresses import EndpointAddresses
from .protocol import Platform

REMOVED = ".removed"
KEPT_S = 86400.0
EDITED = ("wireguard-uplink", "network", "mwan3", "firewall")


class Linux(Platform):
    """A Linux with UCI files in `config_dir`. Keys lie in `keys_dir` (0700, files 0600).

    `_applied` holds the tunnels that are installed as they should be, by interface.
    """

    def __init__(self, config_dir: str, keys_dir: str, warnings: Warnings) -> None:
        self.warnings = warnings
        self._etc = os.path.dirname(config_dir.rstrip("/"))
        self._store = Store(config_dir)
        self._keys_dir = keys_dir
        self._applied: dict[str, Tunnel] = {}
        self._ages = wg.Ages()
        self.kernel = Kernel()
        self._endpoints = EndpointAddresses(
            os.path.join(keys_dir, "endpoints.json"), self.kernel.device_towards, warnings
        )
        self.connections = ConnectionTracking()
        self._filter = TableReader(inbound.TABLE)
        self._opened: frozenset[str] | None = None

    # --- configuration

    async def read(self, config: str) -> Document:
        return self._store.read(config, missing_ok=True)

    async def edit(self, config: str, change: Callable[[Draft], None]) -> object:
        """Apply a change in a thread, because it waits for a lock and for the disk."""

        def write() -> object:
            with self._store.edit(config) as draft:
                change(draft)
            return draft.signature

        return await asyncio.to_thread(write)

    def signature(self, config: str) -> object:
        """Modification time, size and inode."""
        return self._store.signature(config)

    async def sweep(self) -> None:
        await asyncio.to_thread(self._sweep)

    def _sweep(self) -> None:
        for config in EDITED:
            self._store.remove_unfinished(config)
        for folder in (self._keys_dir, os.path.dirname(self._keys_dir.rstrip("/"))):
            remove_unfinished(folder)

    async def keep_rendered(self, text: str) -> None:
        """In mwan3.d beside the directory of configurations; written only when it differs."""
        path = os.path.join(self._etc, "mwan3.d", "wireguard-uplinks.conf")
        await asyncio.to_thread(_keep_text, path, text)

    # --- keys

    async def generate_keys(self, interface: str) -> tuple[str, str]:
        """A new pair; the private key is written before anything mentions it."""
        private, public = await wg.generate_keys()
        await self.write_key(interface, private)
        return private, public

    async def write_key(self, interface: str, private: str) -> None:
        """Write it before anything mentions it; it is on the disk when this returns."""
        await asyncio.to_thread(self._write_key, interface, private)

    def _write_key(self, interface: str, private: str) -> None:
        path = self._key_path(interface)
        try:
            replace_file(path, f"{private}\n".encode("ascii"))
        except OSError as error:
            raise CommandFailed(f"can't write {path}: {error.strerror}") from error

    def _key_path(self, interface: str) -> str:
        return os.path.join(self._keys_dir, f"{interface}.key")

    async def read_key(self, interface: str) -> str:
        path = self._key_path(interface)
        key = await asyncio.to_thread(read_bytes, path)
        if key is None:
            return ""
        text = key.decode(errors="replace").strip()
        if not is_key(text):
            raise UnusableFile(
                f"{path} holds no WireGuard key: put its backup there, or remove it for a new "
                "one, which the peer must admit"
            )
        return text

    async def keep_keys(self, interfaces: Collection[str]) -> None:
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
            reason = error.strerror if isinstance(error, OSError) else error
            told = f"keys of removed uplinks can't be put aside: {reason}"
            self.warnings.set("keys", told)

    async def read_removed_key(self, interface: str) -> str:
        path = self._key_path(interface) + REMOVED
        found = await asyncio.to_thread(read_or_tell, read_text, path, "")
        return found.strip() if is_key(found.strip()) else ""

    # --- tunnels

    async def guard_tunnels(self, opened: Collection[str] | None) -> None:
        """A table of its own, beside whatever firewall there is."""
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
        before, at = self._endpoints.current(name), None
        if endpoint is not None:
            at = await self._endpoints.begin(name, endpoint)
        await wg.configure(replace(tunnel, endpoint=at))
        await wg.remove_other_peers(tunnel)
        known = self._applied.get(name)
        if at is None or known is None:
            return
        if (known.endpoint, before) != (endpoint, at.host):
            await wg.insist_on_endpoint(name, tunnel.public_key, at)

    def know_endpoints(self, interface: str, endpoints: Sequence[Endpoint]) -> None:
        self._endpoints.also(interface, endpoints)

    async def follow_names(self, stalled: Sequence[str]) -> bool:
        if self._endpoints.due(stalled):
            await self.read_counters()  # or one that works by now would be left again
        due = [name for name in self._endpoints.due(stalled) if name in self._applied]
        found = await asyncio.gather(*map(self._endpoints.another, due))
        moved = {name: at for name, at in zip(due, found, strict=True) if at is not None}
        for name, at in moved.items():
            tunnel = self._applied.get(name)
            if tunnel is not None:
                with contextlib.suppress(CommandFailed):  # a device that is gone is made again
                    await wg.set_endpoint(name, tunnel.public_key, at)
        await self._endpoints.save_if_due()
        return bool(moved)

    def endpoint_address(self, interface: str) -> str:
        return self._endpoints.current(interface)

    # --- what there is

    async def read_resolvers(self) -> list[str]:
        """From the first of netifd's file and the machine's own that names any."""
        for path in SERVER_FILES:
            text = await asyncio.to_thread(read_or_tell, read_text, path, "", self.warnings)
            found = parse_resolvers(text)
            if found:
                return found
        return []

    async def read_counters(self) -> dict[str, PeerCounters]:
        read_s = time.monotonic()
        counters = await wg.read_counters(self._ages)
        self._endpoints.saw(counters, read_s)
        return counters


def loosen_reverse_path(device: str) -> None:
    """Strict reverse path filtering would drop the answers to probes on an idle tunnel.

    The kernel takes the larger of `all` and the device's value. 2, the loose one, is taken only
    where `all` is strict: it wants a route to the sender, and a router without a WAN has none.
    """
    with contextlib.suppress(OSError):  # read-only /proc: the doctor tells what the filter does
        write_setting(filter_of(device), "2" if read_setting(filter_of("all")) == "1" else "0")


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
        raise CommandFailed(f"can't write {path}: {error.strerror}") from error
