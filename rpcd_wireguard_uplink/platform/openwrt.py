"""A router with netifd: tunnels are `proto wireguard` sections of /etc/config/network.

netifd makes the devices. This tells it to read its configuration, waits until it has, and sees to
what netifd does not: the mark, the device group, reverse path filtering, and peers whose change its
handler does not notice. Firewall sections are written for the provider's device only. Speaks to
netifd by the client that it is given, and does not know when a device comes or goes: `sync` is
called again then.
"""

from __future__ import annotations

import asyncio
import contextlib
import glob
import os
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from ..errors import CommandFailed, ConfigError, UplinkError
from ..model import (
    DEVICE_GROUP,
    MARK_OPTION,
    PROVIDER_DEVICE,
    Family,
    Link,
    PeerCounters,
    Tunnel,
    Uplink,
    is_own_name,
)
from ..schema.endpoints import is_literal
from ..system import process
from ..system.resolver import STAND_INS
from ..ubus.objects import Callback
from ..uci import Section
from . import firewall
from .firewall import FIREWALL
from .linux import Linux, loosen_reverse_path
from .netifd import Interface, parse_dump, parse_interface, running_instances, wan_zone
from .provider_sections import (
    ZONE,
    firewall_sections,
    line_zones,
    network_section,
    plan_provider,
    provider_sections,
)
from .tunnels import (
    LOST_NETWORK,
    NETWORK,
    NetworkStyle,
    alias_section,
    has_interfaces,
    peer_address,
    tunnel_mtu,
    wanted_sections,
    whole_number,
)

FIRST_METRIC = 2_147_000_001
"""mwan3 needs a default route of each tunnel. It stands behind those of every WAN, whose metric is
what the owner, a DHCP server or the kernel (1024 in IPv6) chose. netifd takes 31 bits, and the last
value is its own (interface-ip.c, interface_update_proto_addr); mwan3 copies routes as they are."""
DNS_METRIC = 10000  # dnsmasq is told of every line's resolvers first
INTERFACES = "network.interface"
PROCD = "service"
CALL_S = 5.0
UP_S = 8.0  # set-up takes well under a second; a caller on the bus gives up after 20 s
POLL_S = 1.0  # a notification can be lost with the bus


class Bus(Protocol):
    """What is needed of the bus's client."""

    async def call(
        self, path: str, method: str, arguments: Mapping[str, Any] | None, *, timeout_s: float
    ) -> dict[str, Any]:
        """Call a method."""

    async def subscribe(self, path: str, callback: Callback) -> bool:
        """Hear of an object's notifications, also after the bus was gone."""


class OpenWrt(Linux):
    """The platform of a router. What netifd was told of is not told again until it changes."""

    name = "openwrt"
    shares_network = True

    def __init__(self, config_dir: str, keys_dir: str, bus: Bus) -> None:
        super().__init__(config_dir, keys_dir)
        self._bus = bus
        self._subscribed = False
        self._news = asyncio.Event()
        self._devices: dict[str, str] = {}
        self._protocols: dict[str, str] = {}
        self._told: dict[str, Tunnel] = {}

    # --- what the sections hold

    async def read_protocols(self) -> Mapping[str, str]:
        """As netifd said last; of several interfaces on a device the first that has one."""
        if not self._devices:
            with contextlib.suppress(UplinkError):  # `sync` tells that netifd isn't there
                await self._dump()
        return self._protocols

    def logical_name(self, device: str) -> str:
        """netifd's name of the interface on that device, the shortest of several (wan, wan6)."""
        names = [name for name, held in self._devices.items() if held == device]
        return min(names, key=lambda name: (len(name), name), default=device)

    def interfaces_on(self, device: str) -> list[str]:
        """netifd's names, and those of the interfaces that made them (wwan of wwan_4)."""
        names = [name for name, held in self._devices.items() if held == device]
        return [*names, *(name[:-2] for name in names if name.endswith(("_4", "_6")))]

    async def read_interfaces(self) -> Mapping[str, str]:
        """From netifd; what it told before where it can't be asked."""
        names: Iterable[str] = ()
        with contextlib.suppress(UplinkError):
            names = await self._dump()
        return dict.fromkeys(names, "") | self._devices

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
                at = await self._endpoints.begin(name, endpoint)
                kept = at.host if at is not None else ""
            elif name not in self._endpoints or name not in by_name:
                self._endpoints.adopt(name, endpoint, kept)
            old = by_name[name].options if name in by_name else {}
            style = NetworkStyle(
                zone=str(old.get("zone", "")) or zone,
                dns=tuple(STAND_INS[family] for family in Family if uplink.carries(family)),
                dns_metric=DNS_METRIC,
                address=kept,
                mtu=whole_number(old.get("mtu", "")) or await self._mtu(uplink.mtu, kept),
            )
            if routed:
                metric = _metric(by_name.get(name), [*found, *wanted])
                style = replace(style, routed=True, metric=metric)
                wanted += [alias_section(uplink)] if uplink.carries(Family.IPV6) else []
            wanted += wanted_sections(uplink, key, style)
        return wanted

    async def _mtu(self, offered: int, endpoint: str) -> int:
        """What a tunnel to that endpoint has room for, as things are now."""
        underlay = await self.device_towards(endpoint) if endpoint else ""
        mtus = {link.name: link.mtu for link in await self.read_links()}
        return tunnel_mtu(offered, mtus.get(underlay, 0))

    async def _backed_zone(self) -> str:
        """The firewall zone of the line that the tunnels back up."""
        names = {name for line in await self._line_names(()) for name in line}
        return wan_zone((await self.read(FIREWALL)).sections, names)

    async def _line_names(self, besides: Container[str]) -> list[list[str]]:
        """netifd's names of each line's interfaces; tunnels are no lines, nor are `besides`."""
        if not self._devices:
            with contextlib.suppress(UplinkError):  # `sync` tells that netifd isn't there
                await self._dump()
        routes = [r for family in Family for r in await self.read_default_routes(family)]
        devices = {r.device for r in routes if not is_own_name(r.device)}
        return [self.interfaces_on(device) for device in devices if device not in besides]

    # --- tunnels

    async def sync(self, tunnels: Sequence[Tunnel]) -> Mapping[str, str]:
        """Have netifd make these tunnels, wait for them at most UP_S, and finish them.

        A tunnel that netifd was told of already is reported while it is down, not waited for.
        """
        wanted = {tunnel.interface for tunnel in tunnels}
        try:
            await self._subscribe()
            counters = await self.read_counters() if tunnels else {}
            found, links = await self._reload(tunnels, counters)
        except UplinkError as error:
            return {name: str(error) for name in wanted}
        self._told = {tunnel.interface: tunnel for tunnel in tunnels}
        for name in self._applied.keys() - wanted:
            del self._applied[name]
            self._endpoints.forget(name)
        for name in _marked_others(links, wanted):  # what netifd left behind
            await process.run(["ip", "link", "delete", "dev", name], check=False)
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

    async def _reload(
        self, tunnels: Sequence[Tunnel], counters: Mapping[str, PeerCounters]
    ) -> tuple[dict[str, Interface], list[Link]]:
        """Tell netifd what is new or gone, and nothing else; what there is behind that."""
        wanted = {tunnel.interface for tunnel in tunnels}
        found, links = await self._dump(), await self.read_links()
        gone = _marked_others(links, wanted)
        gone += [name for name in self._told if name in found and name not in wanted]
        changed = [t for t in tunnels if not self._stands(t, found, counters)]
        new = [t for t in changed if self._told.get(t.interface) != t]
        stale = _without_device(changed, found, links)
        if new or gone:
            await self._call("network", "reload")
            found = await self._settle(new, gone)
            stale += [t for t in new if _differs(t, found) and t not in stale]
        if stale:
            found = await self._start_again(stale)
        return found, await self.read_links() if new or gone or stale else links

    def _stands(
        self,
        tunnel: Tunnel,
        found: Mapping[str, Interface],
        counters: Mapping[str, PeerCounters],
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

    async def _settle(self, new: Sequence[Tunnel], gone: Sequence[str]) -> dict[str, Interface]:
        """netifd's interfaces once the new ones are up and the others gone, or after UP_S."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + UP_S
        while True:
            self._news.clear()
            found = await self._dump()
            up = all(_is_up(t, found) for t in new)
            left_s = deadline - loop.time()
            if (up and not any(name in found for name in gone)) or left_s <= 0:
                return found
            try:
                async with asyncio.timeout(min(POLL_S, left_s)):
                    await self._news.wait()
            except TimeoutError:
                continue

    async def _start_again(self, stale: Sequence[Tunnel]) -> dict[str, Interface]:
        """Have interfaces set up anew where a reload is not noticed.

        wireguard.sh does not see other addresses, and netifd not that a device was deleted.
        """
        for tunnel in stale:
            for method in ("down", "up"):
                await self._call(INTERFACES, method, {"interface": tunnel.interface})
        return await self._settle(stale, ())

    async def _revive(self, interface: Interface | None) -> str:
        """Why an interface is down; netifd is asked to bring it up if nobody took it down."""
        if interface is None:
            return "netifd has no such interface: is its WireGuard support (wireguard-tools) there?"
        if not interface.stopped:
            await self._call(INTERFACES, "up", {"interface": interface.name})
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
            await self._mark(tunnel)
            loosen_reverse_path(name)
        if changed or other_key or moved:
            await self._set_peer(tunnel)
        self._applied[name] = tunnel

    # --- the provider's device

    async def stand_provider(
        self,
        gateways: Sequence[str],
        listen_port: int,
        mesh_devices: Collection[str],
        renewal_port: int,
    ) -> None:
        """Sections of `network` and `firewall`. What stands is neither written nor told again."""
        filters: tuple[Section, ...] = ()
        if self.signature(FIREWALL) is not None:
            found = (await self.read(FIREWALL)).sections
            zones = line_zones(found, await self._line_names(mesh_devices))
            if not zones:
                raise ConfigError("firewall: no zone has a line: add the WAN's interface to one")
            filters = firewall_sections(zones, listen_port, mesh_devices, renewal_port)
        wanted = {FIREWALL: filters, NETWORK: (network_section(gateways),)}
        if not has_interfaces((await self.read(NETWORK)).sections):
            raise ConfigError(LOST_NETWORK)
        before = {c: provider_sections(c, (await self.read(c)).sections) for c in wanted}
        try:
            await self._write_provider(wanted)
        except BaseException:
            with contextlib.suppress(UplinkError):
                await asyncio.shield(self._write_provider(before))
            raise

    async def remove_provider(self) -> None:
        """The files are then as they were before `stand_provider`."""
        await self._write_provider({FIREWALL: (), NETWORK: ()})

    async def _write_provider(self, wanted: Mapping[str, Sequence[Section]]) -> None:
        """Files first, both of them: a reload that fails leaves none of them half done."""
        changed = set()
        for config, sections in wanted.items():
            plan = plan_provider(config, sections, (await self.read(config)).sections)
            if plan:
                await self.edit(config, plan.apply)
                changed.add(config)
        if FIREWALL in changed or await firewall.has_zone(ZONE) != bool(wanted[FIREWALL]):
            await firewall.reload()
        if NETWORK in changed or (PROVIDER_DEVICE in await self._dump()) != bool(wanted[NETWORK]):
            await self._call("network", "reload")

    # --- netifd

    async def _call(
        self, path: str, method: str, arguments: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        return await self._bus.call(path, method, arguments, timeout_s=CALL_S)

    def is_enabled(self, service: str) -> bool:
        """As `/etc/init.d/X enabled` tells (rc.common)."""
        parent = os.path.dirname(self._store.directory.rstrip("/"))
        return bool(glob.glob(os.path.join(glob.escape(parent), "rc.d", f"S??{service}")))

    async def reload_network(self) -> None:
        """netifd compares it with what it has."""
        await self._call("network", "reload")

    async def running_instances(self, service: str) -> list[str]:
        """As procd has it; a service that was stopped is not in its list."""
        listed = await self._call(PROCD, "list", {"name": service})
        return running_instances(listed, service)

    async def _dump(self) -> dict[str, Interface]:
        found = parse_dump(await self._call(INTERFACES, "dump"))
        for interface in found.values():
            self._learn(interface)
        return found

    def _learn(self, interface: Interface) -> None:
        if interface.device:  # one that is down keeps the device that it had
            self._devices[interface.name] = interface.device
            if interface.protocol != "none" and interface.device not in self._protocols:
                self._protocols[interface.device] = interface.protocol

    async def _subscribe(self) -> None:
        if not self._subscribed:
            await self._bus.subscribe(INTERFACES, self._on_notification)
            self._subscribed = True

    def _on_notification(self, _: str, table: Mapping[str, Any]) -> None:
        """Take `interface.update` and `interface.down`; one that comes twice does no harm."""
        self._learn(parse_interface(table))
        self._news.set()


def _metric(section: Section | None, others: Iterable[Section]) -> int:
    """The metric that a tunnel's section has, or else the first that no interface has.

    Sections of earlier versions have one that is too low, and get another.
    """
    old = whole_number(section.options.get("metric", "")) if section is not None else 0
    if old >= FIRST_METRIC:
        return old
    taken = {str(other.options.get("metric", "")) for other in others}
    return next(n for n in range(FIRST_METRIC, FIRST_METRIC + 1000) if str(n) not in taken)


def _marked_others(links: Iterable[Link], wanted: Container[str]) -> list[str]:
    """Devices with our mark that no tunnel means any more."""
    mark = f"{MARK_OPTION}:"
    return [link.name for link in links if link.alias.startswith(mark) and link.name not in wanted]


def _without_device(
    tunnels: Iterable[Tunnel], found: Mapping[str, Interface], links: Iterable[Link]
) -> list[Tunnel]:
    """Tunnels that netifd believes to be up while the kernel has no such device."""
    names = {link.name for link in links}
    return [t for t in tunnels if _is_up(t, found) and t.interface not in names]


def _is_up(tunnel: Tunnel, found: Mapping[str, Interface]) -> bool:
    return tunnel.interface in found and found[tunnel.interface].up


def _differs(tunnel: Tunnel, found: Mapping[str, Interface]) -> bool:
    """Whether netifd has the tunnel up with other addresses, or its routes in another place."""
    if not _is_up(tunnel, found):
        return False
    interface = found[tunnel.interface]
    return not (
        interface.addresses >= frozenset(tunnel.addresses)
        and interface.metrics <= frozenset([tunnel.metric])
    )
