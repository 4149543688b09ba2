"""A router with netifd: tunnels are `proto wireguard` sections of /etc/config/network.

netifd makes the devices. This has it read its configuration, waits until it has, and sees to what
netifd does not: the mark, the device group, reverse path filtering, and peers whose change its
handler does not notice. It does not hear of devices that come or go later: `sync` is called again.
"""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..errors import CommandFailed, UplinkError
from ..model import DEVICE_GROUP, Family, Link, PeerCounters, Tunnel, Uplink, is_own_name
from ..schema.endpoints import is_literal
from ..system.dns import STAND_INS
from ..ubus.client import Client
from ..uci import Section
from ..warnings import Warnings
from .linux import Platform, loosen_reverse_path
from .netifd import INTERFACES, Interface, Netifd
from .provider_network import (
    FIREWALL,
    ProviderNetwork,
    firewall_sections,
    network_section,
    provider_zones,
    wan_zone,
)
from .tunnels import (
    NETWORK,
    NetworkStyle,
    alias_section,
    marked_others,
    peer_address,
    tunnel_mtu,
    wanted_sections,
    whole_number,
)

FIRST_METRIC = 2_147_000_001
"""mwan3 needs a default route of each tunnel. It goes behind those of every WAN, whose metric is
what the owner, a DHCP server or the kernel (1024 in IPv6) chose. netifd takes 31 bits, and the last
value is its own (interface-ip.c, interface_update_proto_addr); mwan3 copies routes as they are."""
DNS_METRIC = 10000  # dnsmasq is given every WAN's resolvers first


class OpenWrt(Platform):
    """The platform of a router. netifd reloads only for what is new to it or gone."""

    name = "openwrt"
    shares_network = True
    sysctl_file = "/etc/sysctl.conf"  # kept by sysupgrade, as /etc/sysctl.d is not

    def __init__(self, config_dir: str, keys_dir: str, bus: Client, warnings: Warnings) -> None:
        super().__init__(config_dir, keys_dir, warnings)
        self._netifd = Netifd(bus)
        self._provider = ProviderNetwork(self, self._netifd)
        self._reloaded: dict[str, Tunnel] = {}  # what netifd was reloaded for

    # --- netifd's and procd's view

    async def read_protocols(self) -> Mapping[str, str]:
        """As netifd said last; of several interfaces on a device the first that has one."""
        await self._netifd.ensure_known()
        return self._netifd.protocols

    def logical_name(self, device: str) -> str:
        """netifd's name of the interface on that device, the shortest of several (wan, wan6)."""
        names = self._netifd.names_on(device)
        return min(names, key=lambda name: (len(name), name), default=device)

    def interfaces_on(self, device: str) -> list[str]:
        """netifd's names, and those of the interfaces that made them (wwan of wwan_4)."""
        names = self._netifd.names_on(device)
        return [*names, *(name[:-2] for name in names if name.endswith(("_4", "_6")))]

    async def read_interfaces(self) -> Mapping[str, str]:
        """From netifd; what it said before where it can't be asked."""
        names: Iterable[str] = ()
        with contextlib.suppress(UplinkError):
            names = await self._netifd.dump()
        return dict.fromkeys(names, "") | self._netifd.devices

    def is_enabled(self, service: str) -> bool:
        """As `/etc/init.d/X enabled` tells (rc.common)."""
        return bool(glob.glob(os.path.join(glob.escape(self._etc), "rc.d", f"S??{service}")))

    async def call(
        self, path: str, method: str, arguments: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        return await self._netifd.call(path, method, arguments)

    async def reload_network(self) -> None:
        """netifd compares it with what it has."""
        await self._netifd.reload()

    # --- what the sections hold

    async def wanted_sections(
        self, keyed: Sequence[tuple[Uplink, str]], found: Sequence[Section], *, routed: bool = False
    ) -> list[Section]:
        """Endpoints are addresses: netifd's handlers would hang on a name without DNS.

        What is there stays: neither a name's new address nor another zone or MTU of the WAN is
        worth a write to flash and a tunnel that is made again.
        """
        by_name = {section.name: section for section in found}
        zone = await self._backed_zone() if keyed else ""
        wanted: list[Section] = []
        for uplink, key in keyed:
            name, endpoint = uplink.interface, uplink.endpoint
            kept: str | None = endpoint.host
            if not is_literal(endpoint.host):
                kept = peer_address(by_name.get(f"{name}_peer"), endpoint)
            if kept is None:
                at = await self.endpoints.begin(name, endpoint)
                kept = at.host if at is not None else ""
            elif name not in self.endpoints or name not in by_name:
                self.endpoints.adopt(name, endpoint, kept)
            old = by_name[name].options if name in by_name else {}
            style = NetworkStyle(
                zone=str(old.get("zone", "")) or zone,
                dns=tuple(STAND_INS[family] for family in Family if uplink.carries(family)),
                dns_metric=DNS_METRIC,
                address=kept,
                mtu=whole_number(old.get("mtu", "")) or self._mtu(uplink.mtu, kept),
            )
            if routed:
                metric = _metric(by_name.get(name), [*found, *wanted])
                style = replace(style, routed=True, metric=metric)
                wanted += [alias_section(uplink)] if uplink.carries(Family.IPV6) else []
            wanted += wanted_sections(uplink, key, style)
        return wanted

    def _mtu(self, offered: int, endpoint: str) -> int:
        """What a tunnel to that endpoint has room for, as things are now."""
        underlay = self.kernel.device_towards(endpoint) if endpoint else ""
        mtus = {link.name: link.mtu for link in self.kernel.devices()}
        return tunnel_mtu(offered, mtus.get(underlay, 0))

    async def _backed_zone(self) -> str:
        """The firewall zone of the WAN that the tunnels back up."""
        names = {name for wan in await self._wan_names(()) for name in wan}
        return wan_zone((await self.read(FIREWALL)).sections, names)

    async def _wan_names(self, besides: Container[str]) -> list[list[str]]:
        """netifd's names of each WAN's interfaces; tunnels are no WANs, nor are `besides`."""
        await self._netifd.ensure_known()
        routes = [r for family in Family for r in self.kernel.default_routes(family)]
        devices = {r.device for r in routes if not is_own_name(r.device)}
        return [self.interfaces_on(device) for device in devices if device not in besides]

    # --- tunnels

    async def sync(self, tunnels: Sequence[Tunnel]) -> Mapping[str, str]:
        """Have netifd make these tunnels, wait for them at most UP_S, and finish them.

        A tunnel that netifd was reloaded for already is reported while it is down, not waited for.
        """
        wanted = {tunnel.interface for tunnel in tunnels}
        try:
            await self._netifd.subscribe()
            counters = await self.read_counters() if tunnels else {}
            found, links = await self._apply(tunnels, counters)
        except UplinkError as error:
            return {name: str(error) for name in wanted}
        self._reloaded = {tunnel.interface: tunnel for tunnel in tunnels}
        for name in self._applied.keys() - wanted:
            del self._applied[name]
            self.endpoints.forget(name)
        for name in marked_others(links, wanted):  # what netifd left behind
            self.kernel.delete_device(name)
        marked = {link.name for link in links if link.group == DEVICE_GROUP and link.alias}
        failed = {}
        for tunnel in tunnels:
            try:
                if not _is_up(tunnel, found):
                    raise CommandFailed(await self._revive(found.get(tunnel.interface)))
                await self._finish(tunnel, counters, is_marked=tunnel.interface in marked)
            except UplinkError as error:
                failed[tunnel.interface] = str(error)
        return failed

    async def _apply(
        self, tunnels: Sequence[Tunnel], counters: Mapping[str, PeerCounters]
    ) -> tuple[dict[str, Interface], list[Link]]:
        """Have netifd do what is new or gone, and nothing else; what there is behind that."""
        wanted = {tunnel.interface for tunnel in tunnels}
        found, links = await self._netifd.dump(), self.kernel.devices()
        gone = marked_others(links, wanted)
        sections = {section.name for section in (await self.read(NETWORK)).sections}
        # what an earlier run took out of the file, and netifd has not read since
        gone += [name for name in found if is_own_name(name) and name not in sections]
        changed = [t for t in tunnels if not self._is_installed(t, found, counters)]
        new = [t for t in changed if self._reloaded.get(t.interface) != t]
        devices = {link.name for link in links}
        # netifd does not notice that a device was deleted, wireguard.sh not another address
        stale = [t for t in changed if _is_up(t, found) and t.interface not in devices]
        if new or gone:
            await self._netifd.reload()
            found = await self._netifd.settle(
                lambda now: all(_is_up(t, now) for t in new) and not any(n in now for n in gone)
            )
            stale += [t for t in new if _differs(t, found) and t not in stale]
        for tunnel in stale:
            for method in ("down", "up"):
                await self._netifd.call(INTERFACES, method, {"interface": tunnel.interface})
        if stale:
            found = await self._netifd.settle(lambda now: all(_is_up(t, now) for t in stale))
        return found, self.kernel.devices() if new or gone or stale else links

    def _is_installed(
        self, tunnel: Tunnel, found: Mapping[str, Interface], counters: Mapping[str, PeerCounters]
    ) -> bool:
        """Whether netifd and WireGuard have the tunnel as it should be."""
        counted = counters.get(tunnel.interface)
        return (
            _is_up(tunnel, found)
            and not _differs(tunnel, found)
            and counted is not None
            and counted.public_key == tunnel.public_key
            and self._applied.get(tunnel.interface, tunnel) == tunnel
        )

    async def _revive(self, interface: Interface | None) -> str:
        """Why an interface is down; netifd is asked to bring it up if nobody took it down."""
        if interface is None:
            return "netifd has no such interface: is its WireGuard support (wireguard-tools) there?"
        if not interface.stopped:
            await self._netifd.call(INTERFACES, "up", {"interface": interface.name})
        return interface.why_down()

    async def _finish(
        self, tunnel: Tunnel, counters: Mapping[str, PeerCounters], *, is_marked: bool
    ) -> None:
        name = tunnel.interface
        counted = counters.get(name)
        # A peer that was there before is not always changed by netifd's handlers.
        other_key = counted is not None and counted.public_key != tunnel.public_key
        changed = self._applied.get(name, tunnel) != tunnel
        # A device made anew has the section's address, older than what its name has now.
        named = tunnel.endpoint is not None and not is_literal(tunnel.endpoint.host)
        moved = named and not is_marked and name in self._applied
        if not is_marked:
            self._mark(tunnel)
            loosen_reverse_path(name)
        if changed or other_key or moved:
            await self._set_peer(tunnel)
        self._applied[name] = tunnel

    # --- the provider's device

    async def install_provider(
        self,
        gateways: Sequence[str],
        listen_port: int,
        mesh_devices: Collection[str],
        renewal_port: int,
    ) -> None:
        """Sections of `network`, and of `firewall` where there is one."""
        filters: tuple[Section, ...] = ()
        if self.signature(FIREWALL) is not None:
            found = (await self.read(FIREWALL)).sections
            zones = provider_zones(found, await self._wan_names(mesh_devices))
            filters = firewall_sections(zones, listen_port, mesh_devices, renewal_port)
        await self._provider.install(network_section(gateways), filters)

    async def remove_provider(self) -> None:
        """The files are then as they were before `install_provider`."""
        await self._provider.remove()


def _metric(section: Section | None, others: Iterable[Section]) -> int:
    """The metric that a tunnel's section has, or else the first that no interface has.

    Sections of earlier versions have one that is too low, and get another.
    """
    old = whole_number(section.options.get("metric", "")) if section is not None else 0
    if old >= FIRST_METRIC:
        return old
    taken = {str(other.options.get("metric", "")) for other in others}
    return next(n for n in range(FIRST_METRIC, FIRST_METRIC + 1000) if str(n) not in taken)


def _is_up(tunnel: Tunnel, found: Mapping[str, Interface]) -> bool:
    return tunnel.interface in found and found[tunnel.interface].up


def _differs(tunnel: Tunnel, found: Mapping[str, Interface]) -> bool:
    """Whether netifd has the tunnel up with other addresses, or its routes in another place."""
    interface = found.get(tunnel.interface)
    return (
        interface is not None
        and interface.up
        and not (
            interface.addresses >= frozenset(tunnel.addresses)
            and interface.metrics <= frozenset([tunnel.metric])
        )
    )
