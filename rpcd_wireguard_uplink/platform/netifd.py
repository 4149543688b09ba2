"""netifd and procd over the bus: what they say as typed values, and waiting for netifd's work.

netifd's tables are those of `network.interface dump` and of its notifications, which carry one
interface's status each (netifd's ubus.c, netifd_dump_status). procd's is that of `service list`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import UplinkError
from ..reasons import because
from ..tasks import woken
from ..ubus.client import Client
from ..values import dataclass

INTERFACES = "network.interface"
CALL_S = 5.0
UP_S = 8.0  # set-up takes well under a second; a caller on the bus gives up after 20 s
POLL_S = 1.0  # a notification can be lost with the bus


@dataclass(frozen=True, slots=True)
class Interface:
    """One interface of netifd. `device` is '' while it is down, `error` why it does not come up.

    `metrics` are those of its default routes.
    """

    name: str
    up: bool = False
    device: str = ""
    addresses: frozenset[str] = frozenset()
    metrics: frozenset[int] = frozenset()
    stopped: bool = False
    protocol: str = ""
    error: str = ""

    def why_down(self) -> str:
        """A sentence for the owner."""
        if self.stopped:
            return because("taken_down", self.name)
        return because("netifd_fails", self.error or "no reason was given")


def parse_interface(row: Mapping[str, Any]) -> Interface:
    """One interface's status; what is missing or of another type counts as not there."""
    addresses = [
        f"{each['address']}/{each['mask']}"
        for key in ("ipv4-address", "ipv6-address")
        for each in _rows(row, key)
        if "address" in each and "mask" in each
    ]
    own_metric = row.get("metric", 0)
    metrics = [
        each.get("metric", own_metric) for each in _rows(row, "route") if each.get("mask") == 0
    ]
    errors = [str(each.get("code", "")) for each in _rows(row, "errors")]
    return Interface(
        name=str(row.get("interface", "")),
        up=row.get("up") is True,
        device=str(row.get("l3_device", "")),
        addresses=frozenset(addresses),
        metrics=frozenset(metric for metric in metrics if isinstance(metric, int)),
        stopped=row.get("autostart") is False,
        protocol=str(row.get("proto", "")),
        error=", ".join(filter(None, errors)),
    )


def parse_dump(reply: Mapping[str, Any]) -> dict[str, Interface]:
    """The reply of `network.interface dump`, by name."""
    interfaces = [parse_interface(row) for row in _rows(reply, "interface")]
    return {interface.name: interface for interface in interfaces if interface.name}


def running_instances(reply: Mapping[str, Any], service: str) -> list[str]:
    """The names of a service's running instances in procd's reply of `service list`."""
    listed = reply.get(service)
    instances = listed.get("instances") if isinstance(listed, Mapping) else None
    rows = instances.items() if isinstance(instances, Mapping) else ()
    return [name for name, row in rows if isinstance(row, Mapping) and row.get("running") is True]


def _rows(table: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    rows = table.get(key)
    return [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []


class Netifd:
    """netifd over the bus. `devices` maps an interface to the device that it has or had,
    `protocols` a device to the protocol of the first interface on it that has one.
    """

    def __init__(self, bus: Client) -> None:
        self.devices: dict[str, str] = {}
        self.protocols: dict[str, str] = {}
        self._bus = bus
        self._subscribed = False
        self._news = asyncio.Event()

    async def call(
        self, path: str, method: str, arguments: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Call netifd, or procd. Raises BusError or TimedOut."""
        return await self._bus.call(path, method, arguments, timeout_s=CALL_S)

    async def subscribe(self) -> None:
        if not self._subscribed:
            await self._bus.subscribe(INTERFACES, self._on_notification)
            self._subscribed = True

    def _on_notification(self, _: str, table: Mapping[str, Any]) -> None:
        """Take `interface.update` and `interface.down`; one that comes twice does no harm."""
        self._learn(parse_interface(table))
        self._news.set()

    async def dump(self) -> dict[str, Interface]:
        found = parse_dump(await self.call(INTERFACES, "dump"))
        for interface in found.values():
            self._learn(interface)
        return found

    def _learn(self, interface: Interface) -> None:
        if interface.device:  # one that is down keeps the device that it had
            self.devices[interface.name] = interface.device
            if interface.protocol != "none":
                self.protocols.setdefault(interface.device, interface.protocol)

    async def ensure_known(self) -> None:
        """Ask once for interfaces and devices; who needs netifd says that it isn't there."""
        if not self.devices:
            with contextlib.suppress(UplinkError):
                await self.dump()

    def names_on(self, device: str) -> list[str]:
        return [name for name, held in self.devices.items() if held == device]

    async def reload(self) -> None:
        """Have netifd read its configuration; it compares it with what it has."""
        await self.call("network", "reload")

    async def settle(self, fits: Callable[[dict[str, Interface]], bool]) -> dict[str, Interface]:
        """The interfaces as soon as they fit, or after UP_S."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + UP_S
        while True:
            self._news.clear()
            found = await self.dump()
            left_s = deadline - loop.time()
            if fits(found) or left_s <= 0:
                return found
            await woken(self._news, min(POLL_S, left_s))
