"""A router for unit tests: netifd's two objects on a real bus, and a kernel behind `process.run`.

The double reads the same `network` file as netifd and answers with the tables that it recorded
(tests/data/netifd.json; test_openwrt.py holds it to them). Its handler is one of two: `uc` makes a
device anew for any change, `sh` only for options that it declares and not for peers or addresses;
a changed metric moves its routes in place. Default routes are there before anybody is told of the
interface; `seen` is awaited then, for whoever listens to the kernel.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rpcd_wireguard_uplink.errors import CommandFailed, Status
from rpcd_wireguard_uplink.model import Family, Link
from rpcd_wireguard_uplink.system import process
from rpcd_wireguard_uplink.system.rtnetlink import MAIN, Hop, Route
from rpcd_wireguard_uplink.ubus import BusObject, Call, Reply
from rpcd_wireguard_uplink.ubus.blobmsg import Type
from rpcd_wireguard_uplink.ubus.client import Client
from rpcd_wireguard_uplink.uci import Section, Store
from tests.unit.fakes import RoutingTables, key_of

DECLARED = ("private_key", "mtu", "fwmark", "listen_port")
WAN = {
    "interface": "wan",
    "up": True,
    "autostart": True,
    "l3_device": "pppoe-wan",
    "proto": "pppoe",
    "ipv4-address": [{"address": "192.0.2.2", "mask": 32}],
}


@dataclass
class Kernel:
    """Devices, their marks, their peers. `commands` are those that changed something."""

    alias: dict[str, str] = field(default_factory=dict)
    group: dict[str, str] = field(default_factory=dict)
    peers: dict[str, str] = field(default_factory=dict)
    endpoints: dict[str, str] = field(default_factory=dict)
    routes: list[str] = field(default_factory=lambda: ["pppoe-wan"])
    routes6: dict[str, int] = field(default_factory=dict)
    metrics: dict[str, int] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)
    made: int = 0
    handshake: int = 0

    def make(self, name: str, peer: str, endpoint: str) -> None:
        self.made += 1
        self.alias[name], self.group[name] = "", "default"
        self.peers[name], self.endpoints[name] = peer, endpoint

    def delete(self, name: str) -> None:
        for table in (self.alias, self.group, self.peers, self.endpoints):
            table.pop(name, None)
        self.route(name, 0)

    def route(self, name: str, metric: int) -> None:
        """The device's default routes of both families; metric 0 takes them away."""
        self.routes = [device for device in self.routes if device != name]
        for table in (self.metrics, self.routes6):
            table.pop(name, None)
        if metric:
            self.routes.append(name)
            self.metrics[name] = self.routes6[name] = metric

    @property
    def routing(self) -> RoutingTables:
        """What netlink says of the devices."""
        return Devices(kernel=self)

    async def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str | None = None,
        timeout_s: float = 5.0,
        check: bool = True,
    ) -> process.Completed:
        """In the place of process.run."""
        return process.Completed(0, self._answer(list(argv), stdin or ""), "")

    def _answer(self, argv: list[str], stdin: str) -> str:
        match argv:
            case ["wg", "genkey"]:
                return key_of(f"key {len(self.commands)} {self.made}")
            case ["wg", "pubkey"]:
                return key_of(stdin)
            case ["wg", "show", "all", "dump"]:
                return "".join(
                    f"{name}\tSECRET\tPUBLIC\t1\toff\n"
                    + "\t".join((name, peer, "(none)", self.endpoints[name] or "(none)", "x"))
                    + f"\t{self.handshake}\t0\t0\t25\n"
                    for name, peer in self.peers.items()
                )
            case ["wg", "show", name, "peers"]:
                return self.peers[name]
        self.commands.append(" ".join(argv))
        match argv:
            case ["wg", "set", name, *rest]:
                if "peer" in rest and "remove" not in rest:
                    self.peers[name] = rest[rest.index("peer") + 1]
                if "endpoint" in rest:
                    self.endpoints[name] = rest[rest.index("endpoint") + 1]
        return ""


@dataclass
class Devices(RoutingTables):
    """The kernel's routing with the double's devices."""

    kernel: Kernel = field(default_factory=Kernel)

    def devices(self) -> list[Link]:
        groups = {name: int(g) if g.isdigit() else 0 for name, g in self.kernel.group.items()}
        return [
            Link(name, number, groups[name], alias)
            for number, (name, alias) in enumerate(self.kernel.alias.items(), 1)
        ] + [Link(name, 900 + n) for n, name in enumerate(self._wans())]

    def set_device(self, name: str, **changes: object) -> None:
        super().set_device(name, **changes)
        if name not in self.kernel.alias:
            raise CommandFailed(f"can't set {name}: No such device")
        self.kernel.commands.append(self.changes[-1])
        self.kernel.alias[name] = str(changes.get("alias", self.kernel.alias[name]))
        self.kernel.group[name] = str(changes.get("group", self.kernel.group[name]))

    def delete_device(self, name: str) -> None:
        self.kernel.commands.append(f"delete {name}")
        self.kernel.delete(name)

    def _wans(self) -> list[str]:
        """Devices that have a route and are not netifd's tunnels."""
        named = [*self.kernel.routes, *self.kernel.routes6]
        return sorted({name for name in named if name not in self.kernel.alias})

    def routes(self, family: Family) -> list[Route]:
        """The default routes of the main table."""
        indexes = {device.name: device.index for device in self.devices()}
        fours = {name: self.kernel.metrics.get(name, 0) for name in self.kernel.routes}
        found = fours if family is Family.IPV4 else self.kernel.routes6
        return [
            Route(family, MAIN, "", (Hop(indexes[name]),), metric) for name, metric in found.items()
        ]


async def nobody() -> None:
    """Listens to the kernel."""


class Netifd:
    """netifd's objects `network` and `network.interface` over a directory of configurations."""

    def __init__(self, bus: Client, kernel: Kernel, config_dir: str) -> None:
        self.handler = "uc"
        self.seen: Callable[[], Awaitable[object]] = nobody
        self.stuck: set[str] = set()
        self.reloads = 0
        self.calls: list[str] = []
        self.told: list[tuple[str, dict[str, Any]]] = []
        self._bus = bus
        self._kernel = kernel
        self._store = Store(config_dir)
        self._loaded: dict[str, tuple[Section, ...]] = {}
        self._rows: dict[str, dict[str, Any]] = {"wan": dict(WAN)}

    async def publish(self) -> None:
        await self._bus.publish(BusObject("network", {"reload": {}}, self._network))
        named = {"interface": Type.STRING}
        methods = {"dump": {}, "status": named, "up": named, "down": named}
        await self._bus.publish(BusObject("network.interface", methods, self._interface))
        # procd's; it runs nothing here
        await self._bus.publish(
            BusObject("service", {"list": {"name": Type.STRING}}, lambda call: Reply({}))
        )

    async def also(self, name: str, device: str) -> None:
        """Another line of the router comes up."""
        self._rows[name] = {**WAN, "interface": name, "l3_device": device}
        await self._tell("interface.update", name)

    def row(self, name: str) -> dict[str, Any]:
        """An interface as the next dump shows it."""
        return self._rows[name]

    def forget(self, name: str) -> None:
        """An interface is gone from netifd, but not from its file."""
        del self._rows[name]

    async def _network(self, call: Call) -> Reply:
        self.reloads += 1
        sections = self._store.read("network", missing_ok=True).sections
        wanted = {
            s.name: (s, *(p for p in sections if p.type == f"wireguard_{s.name}"))
            for s in sections
            if s.type == "interface" and s.options.get("proto") == "wireguard"
        }
        for name in self._loaded.keys() - wanted.keys():
            await self._down(name)
            del self._rows[name]
        static = [s for s in sections if s.options.get("proto") == "static"]
        for name in [n for n, row in self._rows.items() if row["proto"] == "static"]:
            del self._rows[name]
        self._rows |= {s.name: self._row(s.name, "static") for s in static}
        for name, group in wanted.items():
            if name not in self._loaded or self._notices(self._loaded[name], group):
                if name in self._loaded:
                    await self._down(name)
                await self._up(name, group)
            elif self._rows[name]["up"]:
                await self._route(name, group)
        self._loaded = wanted
        return Reply()

    def _notices(self, old: tuple[Section, ...], new: tuple[Section, ...]) -> bool:
        if self.handler == "uc":
            return old != new
        return any(old[0].options.get(o) != new[0].options.get(o) for o in DECLARED)

    async def _interface(self, call: Call) -> Reply:
        self.calls.append(call.method)
        name = call.arguments.get("interface", "")
        if call.method == "dump":
            return Reply({"interface": list(self._rows.values())})
        if name not in self._rows:
            return Reply(status=Status.NOT_FOUND)
        if call.method == "down":
            await self._down(name)
            self._rows[name]["autostart"] = False
        elif call.method == "up":
            await self._up(name, self._loaded[name])
        return Reply(self._rows[name] if call.method == "status" else None)

    async def _up(self, name: str, group: tuple[Section, ...]) -> None:
        self._rows[name] = self._row(name, "wireguard")
        if name in self.stuck:
            self._rows[name]["errors"] = [{"subsystem": "interface", "code": "NO_DEVICE"}]
            return
        peer = group[1].options
        host = str(peer.get("endpoint_host", ""))
        self._kernel.make(
            name, str(peer["public_key"]), f"{host}:{peer['endpoint_port']}" if host else ""
        )
        await self._route(name, group)
        addresses = [a.split("/") for a in group[0].options["addresses"]]
        for key, mark in (("ipv4-address", "."), ("ipv6-address", ":")):
            rows = [{"address": a, "mask": int(m)} for a, m in addresses if mark in a]
            self._rows[name][key] = rows
        self._rows[name] |= {"up": True, "l3_device": name}
        await self._tell("interface.update", name)

    async def _route(self, name: str, group: tuple[Section, ...]) -> None:
        routed = group[1].options.get("route_allowed_ips") == "1"
        metric = int(str(group[0].options.get("metric", "0")))
        self._rows[name]["metric"] = metric
        if self._kernel.metrics.get(name, 0) != (metric if routed else 0):
            self._kernel.route(name, metric if routed else 0)
            await self.seen()
        targets = ("::", "0.0.0.0") if routed else ()
        routes = [{"target": t, "mask": 0, "nexthop": t, "source": f"{t}/0"} for t in targets]
        by_uc = {"metric": metric} if self.handler == "uc" else {}
        self._rows[name]["route"] = [route | by_uc for route in routes]

    async def _down(self, name: str) -> None:
        self._kernel.delete(name)
        await self.seen()
        self._rows[name] = self._row(name, "wireguard")
        for _ in range(2):  # netifd tells it twice
            await self._tell("interface.down", name)

    @staticmethod
    def _row(name: str, proto: str) -> dict[str, Any]:
        common = {"pending": False, "available": True, "autostart": True, "dynamic": False}
        return {"interface": name, "up": False, **common, "proto": proto, "data": {}}

    async def _tell(self, event: str, name: str) -> None:
        self.told.append((event, dict(self._rows[name])))
        await self._bus.notify("network.interface", event, self._rows[name])


def shape(row: Mapping[str, Any]) -> dict[str, str]:
    """The names and types of a table's values."""
    return {key: type(value).__name__ for key, value in row.items()}
