"""Any Linux: UCI files in a directory, tunnels made with `ip` and `wg`.

The marked sections become devices by plan; one that does not carry our mark is never touched. Where
the kernel has no WireGuard, wireguard-go makes the device.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..errors import UplinkError
from ..model import Link, Tunnel, Uplink, mark_alias
from ..system import process, wg
from ..uci import Section
from .linux import Linux, loosen_reverse_path
from .tunnels import plan_devices, wanted_sections


class Standalone(Linux):
    """The platform of a machine without netifd."""

    name = "standalone"
    shares_network = False

    async def wanted_sections(
        self, keyed: Sequence[tuple[Uplink, str]], found: Sequence[Section], *, routed: bool = False
    ) -> list[Section]:
        """Names of endpoints stay names: `sync` resolves them."""
        return [section for uplink, key in keyed for section in wanted_sections(uplink, key)]

    async def sync(self, tunnels: Sequence[Tunnel]) -> Mapping[str, str]:
        """Carry out the plan between the wanted tunnels and the kernel's devices."""
        links = [await self._recognized(link, tunnels) for link in self.kernel.devices()]
        plan = plan_devices(tunnels, links, self._applied)
        failed = dict(plan.refused)
        for name in plan.delete:
            self.kernel.delete_device(name)
            self._applied.pop(name, None)
            self._endpoints.forget(name)
        if plan.update and not self._applied:  # what an earlier run left is watched from now on
            with contextlib.suppress(UplinkError):
                await self.read_counters()
        wanted = plan.create + plan.update
        await self._endpoints.look_up_all({t.interface: t.endpoint for t in wanted if t.endpoint})
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
