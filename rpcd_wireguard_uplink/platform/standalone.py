"""Any Linux: UCI files in a directory, tunnels made with `ip` and `wg`.

Plays netifd's part for the marked sections: creates, updates and deletes devices by plan, and
never touches one that does not carry our mark. Where the kernel has no WireGuard, wireguard-go
makes the device.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from .. import iproute, process, wireguard
from ..errors import CommandFailed, UplinkError
from ..model import (
    DEVICE_GROUP,
    DefaultRoute,
    Endpoint,
    Family,
    Link,
    PeerCounters,
    Tunnel,
    mark_alias,
)
from ..reconcile import plan_devices
from ..resolver import resolve
from ..uci import Document, Draft, Store


class Standalone:
    """The platform of a machine without netifd. Keys lie in `keys_dir` (0700, files 0600)."""

    name = "standalone"

    def __init__(self, config_dir: str, keys_dir: str) -> None:
        self._store = Store(config_dir)
        self._keys_dir = keys_dir
        self._applied: dict[str, Tunnel] = {}
        self._addresses: dict[str, str] = {}
        self._userspace: bool | None = None

    async def read(self, config: str) -> Document:
        """The file's document; an absent file is an empty one."""
        return self._store.read(config, missing_ok=True)

    async def edit(self, config: str, change: Callable[[Draft], None]) -> None:
        """Apply a change in a thread, because it waits for a lock and for the disk."""

        def write() -> None:
            with self._store.edit(config) as document:
                change(document)

        await asyncio.to_thread(write)

    def signature(self, config: str) -> object:
        """Modification time, size and inode."""
        return self._store.signature(config)

    async def generate_keys(self, interface: str) -> tuple[str, str]:
        """A new pair; the private key is written before anything mentions it."""
        private, public = await wireguard.generate_keys()
        await asyncio.to_thread(self._write_key, interface, private)
        return private, public

    def _write_key(self, interface: str, private: str) -> None:
        os.makedirs(self._keys_dir, mode=0o700, exist_ok=True)
        path = self._key_path(interface)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        descriptor = os.open(path, flags, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(private + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _key_path(self, interface: str) -> str:
        return os.path.join(self._keys_dir, f"{interface}.key")

    async def read_key(self, interface: str) -> str:
        """The key as it was written, '' if there is none."""
        return _read_text(self._key_path(interface)).strip()

    async def keep_keys(self, interfaces: Collection[str]) -> None:
        """Delete the key files of all other interfaces."""
        try:
            names = os.listdir(self._keys_dir)
        except FileNotFoundError:
            return
        kept = {f"{interface}.key" for interface in interfaces}
        for name in names:
            if name.endswith(".key") and name not in kept:
                os.unlink(os.path.join(self._keys_dir, name))

    async def sync(self, tunnels: Sequence[Tunnel]) -> Mapping[str, str]:
        """Carry out the plan between the wanted tunnels and the kernel's devices."""
        links = await iproute.read_links()
        links = [await self._recognized(link, tunnels) for link in links]
        plan = plan_devices(tunnels, links, self._applied)
        failed = dict(plan.refused)
        for name in plan.delete:
            await process.run(["ip", "link", "delete", "dev", name], check=False)
            self._applied.pop(name, None)
            self._addresses.pop(name, None)
        for tunnel in plan.create + plan.update:
            try:
                if tunnel in plan.create:
                    await self._create(tunnel)
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
        own = await wireguard.public_key(wanted.private_key)
        if shown.returncode != 0 or shown.stdout.strip() not in (own, "(none)"):
            return link
        await self._mark(wanted)
        return replace(link, alias=mark_alias(wanted.peer_id))

    async def _create(self, tunnel: Tunnel) -> None:
        name = tunnel.interface
        if not self._userspace:
            argv = ["ip", "link", "add", "dev", name, "type", "wireguard"]
            made = await process.run(argv, check=False)
            if made.returncode == 0:
                self._userspace = False
            elif self._userspace is False:
                raise CommandFailed(f"can't make {name}: {made.stderr.strip()[:200]}")
            else:
                self._userspace = True
        if self._userspace:
            await process.run(["wireguard-go", name], timeout_s=10.0)
        await self._mark(tunnel)

    async def _mark(self, tunnel: Tunnel) -> None:
        alias, name = mark_alias(tunnel.peer_id), tunnel.interface
        await process.run(["ip", "link", "set", "dev", name, "alias", alias])
        await process.run(["ip", "link", "set", "dev", name, "group", str(DEVICE_GROUP)])

    async def _configure(self, tunnel: Tunnel) -> None:
        name = tunnel.interface
        endpoint = tunnel.endpoint
        if endpoint is not None:
            address = await resolve(endpoint.host) or self._addresses.get(name, "")
            self._addresses[name] = address
            endpoint = Endpoint(address, endpoint.port) if address else None
        await wireguard.configure(replace(tunnel, endpoint=endpoint))
        await wireguard.remove_other_peers(tunnel)
        found = set(await iproute.read_addresses(name))
        wanted = set(tunnel.addresses)
        for family in Family:
            colon = family is Family.IPV6
            lines = [f"address replace {a} dev {name}" for a in wanted if (":" in a) == colon]
            stale = [a for a in found - wanted if (":" in a) == colon]
            lines += [f"address delete {a} dev {name}" for a in stale]
            await iproute.batch(family, lines)
        await process.run(["ip", "link", "set", "dev", name, "mtu", str(tunnel.mtu), "up"])
        _loosen_reverse_path(name)

    async def follow_names(self, stalled: Sequence[str]) -> None:
        """Apply a changed address of an endpoint's name, in place."""
        for name in stalled:
            tunnel = self._applied.get(name)
            if tunnel is None or tunnel.endpoint is None:
                continue
            address = await resolve(tunnel.endpoint.host)
            if address and address != self._addresses.get(name):
                self._addresses[name] = address
                endpoint = Endpoint(address, tunnel.endpoint.port)
                await wireguard.configure(replace(tunnel, endpoint=endpoint))

    def endpoint_address(self, interface: str) -> str:
        """What the endpoint's host was last resolved to."""
        return self._addresses.get(interface, "")

    async def read_links(self) -> list[Link]:
        """From `ip`."""
        return await iproute.read_links()

    async def read_addresses(self, device: str) -> list[str]:
        """From `ip`."""
        return await iproute.read_addresses(device)

    async def read_default_routes(self, family: Family) -> list[DefaultRoute]:
        """From `ip`."""
        return await iproute.read_default_routes(family)

    async def device_towards(self, address: str) -> str:
        """Ask the kernel with the outer packets' mark."""
        return await iproute.device_towards(address, wireguard.OUTER_MARK)

    async def read_counters(self) -> dict[str, PeerCounters]:
        """From `wg`."""
        return await wireguard.read_counters()


def _read_text(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def _loosen_reverse_path(device: str) -> None:
    """Strict reverse path filtering would drop the answers to probes on an idle tunnel."""
    try:
        with open(f"/proc/sys/net/ipv4/conf/{device}/rp_filter", "w", encoding="ascii") as file:
            file.write("0")
    except OSError:
        return  # read-only /proc: the doctor tells what the filter does
