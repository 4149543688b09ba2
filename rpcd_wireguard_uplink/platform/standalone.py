"""Any Linux: UCI files in a directory, tunnels made with `ip` and `wg`.

Plays netifd's part for the marked sections: creates, updates and deletes devices by plan, and
never touches one that does not carry our mark. Where the kernel has no WireGuard, wireguard-go
makes the device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from .. import iproute, process, wireguard
from ..errors import CommandFailed, UplinkError
from ..model import Family, Link, Tunnel, Uplink, mark_alias
from ..reconcile import plan_devices, wanted_sections
from ..uci import Section
from .linux import Linux, loosen_reverse_path


class Standalone(Linux):
    """The platform of a machine without netifd."""

    name = "standalone"

    def __init__(self, config_dir: str, keys_dir: str) -> None:
        super().__init__(config_dir, keys_dir)
        self._userspace: bool | None = None

    def logical_name(self, device: str) -> str:
        """Devices have no other name here."""
        return device

    async def wanted_sections(
        self, keyed: Sequence[tuple[Uplink, str]], found: Sequence[Section]
    ) -> list[Section]:
        """Names of endpoints stay names: `sync` resolves them."""
        return [section for uplink, key in keyed for section in wanted_sections(uplink, key)]

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

    async def _configure(self, tunnel: Tunnel) -> None:
        name = tunnel.interface
        await self._set_peer(tunnel)
        found = set(await iproute.read_addresses(name))
        wanted = set(tunnel.addresses)
        for family in Family:
            colon = family is Family.IPV6
            lines = [f"address replace {a} dev {name}" for a in wanted if (":" in a) == colon]
            stale = [a for a in found - wanted if (":" in a) == colon]
            lines += [f"address delete {a} dev {name}" for a in stale]
            await iproute.batch(family, lines)
        await process.run(["ip", "link", "set", "dev", name, "mtu", str(tunnel.mtu), "up"])
        loosen_reverse_path(name)
