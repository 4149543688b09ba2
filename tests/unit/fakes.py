"""The fakes of unit tests: a machine whose tunnels are a dict, a process.run that only listens.

`Machine` is a Platform: its configuration is real UCI files, its keys are real files, its kernel is
a few values that a test sets. It can die at any step, as a killed process does: from then on no
step has an effect. `Commands` stands in for process.run and never runs anything.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, TypeVar, cast

from pytest_mock import MockerFixture

from rpcd_wireguard_uplink import events
from rpcd_wireguard_uplink.config.settings import Config
from rpcd_wireguard_uplink.config.store import ConfigStore
from rpcd_wireguard_uplink.errors import CommandFailed, NotFound
from rpcd_wireguard_uplink.failover.monitor import Monitor
from rpcd_wireguard_uplink.model import (
    OUTER_MARK,
    DefaultRoute,
    Endpoint,
    Family,
    Link,
    PeerCounters,
    Tunnel,
    Uplink,
)
from rpcd_wireguard_uplink.platform.endpoint_addresses import Way
from rpcd_wireguard_uplink.platform.linux import Platform
from rpcd_wireguard_uplink.platform.network_reader import NetworkReader
from rpcd_wireguard_uplink.platform.tunnels import wanted_sections
from rpcd_wireguard_uplink.steering.controller import PlanApplied
from rpcd_wireguard_uplink.steering.coordinator import SteeringCoordinator
from rpcd_wireguard_uplink.storage.usage import Ledger
from rpcd_wireguard_uplink.system import netlink, process, rtnetlink
from rpcd_wireguard_uplink.system.netlink import Events, Message
from rpcd_wireguard_uplink.system.nft import ConnectionTracking
from rpcd_wireguard_uplink.system.rtnetlink import (
    MAIN,
    Address,
    Kernel,
    Route,
    Rule,
    parse_route,
    parse_rule,
)
from rpcd_wireguard_uplink.tasks import TaskSet
from rpcd_wireguard_uplink.uci import Document, Draft, Section, Store
from rpcd_wireguard_uplink.warnings import Warnings

T = TypeVar("T")


def set_network(network: NetworkReader, **changes: Any) -> None:
    """Have the newest reading of the network differ in these fields."""
    network.state = replace(network.state, **changes)


class Crash(BaseException):
    """The process was killed here."""


def key_of(seed: str) -> str:
    """A WireGuard key that is the same for the same seed."""
    return base64.b64encode(hashlib.sha256(seed.encode()).digest()).decode()


@dataclass
class Machine:
    """A Platform over a directory. `dies_at` counts steps from 1; `after` lets the step happen.

    What the kernel has are `links`, `routes` (defaults), `addresses` and `public_ipv6` by device,
    and the devices `towards` addresses ('': towards any other).
    """

    directory: str
    tunnels: dict[str, Tunnel] = field(default_factory=dict)
    refusals: dict[str, str] = field(default_factory=dict)
    routes: dict[Family, list[DefaultRoute]] = field(default_factory=dict)
    links: list[Link] = field(default_factory=list)
    addresses: dict[str, list[str]] = field(default_factory=dict)
    towards: dict[str, str] = field(default_factory=dict)
    counters: dict[str, PeerCounters] = field(default_factory=dict)
    dies_at: int = 0
    after: bool = False
    steps: list[str] = field(default_factory=list)
    name: str = "fake"
    shares_network: bool = False
    sysctl_file: str = "/etc/sysctl.d/x.conf"
    interfaces: dict[str, str] = field(default_factory=dict)
    rendered: str = ""
    public_ipv6: set[str] = field(default_factory=set)
    warnings: Warnings = field(default_factory=Warnings)
    known_endpoints: dict[str, tuple[Endpoint, ...]] = field(default_factory=dict)
    sure_hosts: dict[str, frozenset[str]] = field(default_factory=dict)
    left: list[tuple[list[str], frozenset[Way]]] = field(default_factory=list)
    returned: list[str] = field(default_factory=list)
    ways_back: dict[str, tuple[Way, float]] = field(default_factory=dict)
    stalled: list[list[str]] = field(default_factory=list)
    removed_keys: dict[str, str] = field(default_factory=dict)
    guards: list[set[str] | None] = field(default_factory=list)
    instances: list[str] = field(default_factory=list)
    mwan3: dict[str, Any] | None = None
    protocols: dict[str, str] = field(default_factory=dict)
    kernel: Kernel = field(default_factory=lambda: RoutingTables())
    connections: ConnectionTracking = field(default_factory=lambda: TrackedConnections())
    enabled: bool = True

    def __post_init__(self) -> None:
        self.endpoints = Endpoints(self)
        os.makedirs(self.config_dir, exist_ok=True)
        os.makedirs(self.keys_dir, exist_ok=True)
        if isinstance(self.kernel, RoutingTables):
            self.kernel.machine = self
        self._store = Store(self.config_dir)
        self._died = False
        self._made = 0

    @property
    def config_dir(self) -> str:
        return os.path.join(self.directory, "config")

    @property
    def keys_dir(self) -> str:
        return os.path.join(self.directory, "keys")

    def keys(self) -> dict[str, str]:
        """Interface -> private key of every key file."""
        found = {}
        for name in os.listdir(self.keys_dir):
            with open(os.path.join(self.keys_dir, name), encoding="ascii") as file:
                found[name] = file.read()
        return found

    def _step(self, what: str, effect: Callable[[], T]) -> T | None:
        if self._died:
            raise Crash(what)
        self.steps.append(what)
        dies = len(self.steps) == self.dies_at
        done = effect() if not dies or self.after else None
        if dies:
            self._died = True
            raise Crash(what)
        return done

    async def read(self, config: str) -> Document:
        return self._store.read(config, missing_ok=True)

    async def edit(self, config: str, change: Callable[[Draft], None]) -> object:
        def write() -> object:
            with self._store.edit(config) as draft:
                change(draft)
            return draft.signature

        return self._step(f"edit {config}", write)

    def signature(self, config: str) -> object:
        return self._store.signature(config)

    async def generate_keys(self, interface: str) -> tuple[str, str]:
        self._made += 1
        private = key_of(f"{self.directory} {interface} {self._made}")

        def write() -> None:
            with open(os.path.join(self.keys_dir, interface), "w", encoding="ascii") as file:
                file.write(private)

        self._step("generate_keys", write)
        return private, key_of(f"public of {private}")

    async def write_key(self, interface: str, private: str) -> None:
        def write() -> None:
            with open(os.path.join(self.keys_dir, interface), "w", encoding="ascii") as file:
                file.write(private)

        self._step("write_key", write)

    async def read_key(self, interface: str) -> str:
        return self.keys().get(interface, "")

    async def install_provider(
        self,
        gateways: Sequence[str],
        listen_port: int,
        mesh_devices: Collection[str],
        renewal_port: int,
    ) -> None:
        self._step("install_provider", lambda: None)

    async def sweep(self) -> None:
        self._store.remove_unfinished("wireguard-uplink")

    async def remove_provider(self) -> None:
        self._step("remove_provider", lambda: None)

    async def keep_keys(self, interfaces: Collection[str]) -> None:
        def delete() -> None:
            for name in self.keys().keys() - set(interfaces):
                self.removed_keys[name] = self.keys()[name]
                os.unlink(os.path.join(self.keys_dir, name))

        self._step("keep_keys", delete)

    async def read_removed_key(self, interface: str) -> str:
        return self.removed_keys.get(interface, "")

    async def wanted_sections(
        self, keyed: Sequence[tuple[Uplink, str]], found: Sequence[Section], *, routed: bool = False
    ) -> list[Section]:
        return [section for uplink, key in keyed for section in wanted_sections(uplink, key)]

    async def read_protocols(self) -> Mapping[str, str]:
        return self.protocols

    def logical_name(self, device: str) -> str:
        return device

    def interfaces_on(self, device: str) -> list[str]:
        return [name for name, held in self.interfaces.items() if held == device]

    def is_enabled(self, service: str) -> bool:
        return self.enabled

    async def reload_network(self) -> None:
        self._step("reload_network", lambda: None)

    async def call(
        self, path: str, method: str, arguments: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        if (path, arguments) == ("service", {"name": "mwan3"}):
            rows = {name: {"running": True} for name in self.instances}
            return {"mwan3": {"instances": rows}}
        if path == "mwan3" and self.mwan3 is not None and arguments is not None:
            return {arguments["section"]: self.mwan3.get(arguments["section"])}
        raise NotFound(f"nobody publishes {path}")

    async def read_interfaces(self) -> Mapping[str, str]:
        return dict(self.interfaces)

    async def keep_rendered(self, text: str) -> None:
        self.rendered = text

    async def guard_tunnels(self, opened: Collection[str] | None) -> None:
        self.guards.append(None if opened is None else set(opened))

    async def sync(self, tunnels: Sequence[Tunnel]) -> Mapping[str, str]:
        def make() -> None:
            self.tunnels = {t.interface: t for t in tunnels if t.interface not in self.refusals}

        self._step("sync", make)
        return {
            t.interface: self.refusals[t.interface] for t in tunnels if t.interface in self.refusals
        }

    async def follow_names(self, stalled: Sequence[str]) -> bool:
        self.stalled.append(list(stalled))
        return False

    async def leave_ways(
        self, names: Sequence[str], doubted: Collection[Way], wans: Collection[str]
    ) -> bool:
        self.left.append((list(names), frozenset(doubted)))
        return False

    async def return_to_ways(self, names: Sequence[str]) -> bool:
        self.returned += names
        return bool(names)

    async def read_resolvers(self) -> list[str]:
        return []

    async def read_counters(self) -> dict[str, PeerCounters]:
        return dict(self.counters)


@dataclass
class Endpoints:
    """The endpoints of a machine's tunnels."""

    machine: Machine

    def also(self, name: str, endpoints: Sequence[Endpoint], sure: Collection[str] = ()) -> bool:
        self.machine.sure_hosts[name] = frozenset(sure)
        known = self.machine.known_endpoints
        before, known[name] = known.get(name, ()), tuple(endpoints)
        return known[name] != before

    def way(self, name: str) -> tuple[Way, float] | None:
        host = self.current(name)
        return ((self.machine.towards.get(host, ""), Family.of(host)), 0.0) if host else None

    def way_back(self, name: str) -> tuple[Way, float] | None:
        return self.machine.ways_back.get(name)

    def other_ways(self, name: str, wans: Collection[str]) -> list[Way]:
        known = self.machine.known_endpoints.get(name, ())
        return [(self.machine.towards.get(each.host, ""), Family.of(each.host)) for each in known]

    def current(self, name: str) -> str:
        tunnel = self.machine.tunnels.get(name)
        return tunnel.endpoint.host if tunnel is not None and tunnel.endpoint is not None else ""


def monitor_of(machine: Machine) -> Monitor:
    """A monitor of this machine, whose news nobody hears."""
    warnings = Warnings()
    news = events.Events(TaskSet(warnings))
    platform = cast(Platform, machine)
    network = NetworkReader(platform)
    steering = SteeringCoordinator(network, machine.directory, warnings, news)
    news.subscribe(PlanApplied, steering.note_applied)
    return Monitor(platform, network, steering, lambda *_: "", Ledger(), warnings, news)


@dataclass
class Commands:
    """What would have been run. `answers` maps the beginning of a command to what it prints."""

    answers: dict[str, str | Exception] = field(default_factory=dict)
    calls: list[tuple[list[str], str]] = field(default_factory=list)

    async def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str | None = None,
        timeout_s: float = 5.0,
        check: bool = True,
    ) -> process.Completed:
        self.calls.append((list(argv), stdin or ""))
        line = " ".join(argv)
        matching = [start for start in self.answers if line.startswith(start)]
        plain = key_of(line + (stdin or "")) if line in ("wg genkey", "wg pubkey") else ""
        answer = self.answers[max(matching, key=len)] if matching else plain
        if isinstance(answer, Exception):
            if check:
                raise answer
            return process.Completed(1, "", str(answer))
        is_tracking = argv[0] == "conntrack" and not answer
        said = "0 flow entries have been deleted." if is_tracking else ""
        return process.Completed(0, answer, said)

    def lines(self, start: str = "") -> list[str]:
        """The commands that begin so, as one line each."""
        lines = [" ".join(argv) for argv, _ in self.calls]
        return [line for line in lines if line.startswith(start)]

    def inputs(self, start: str) -> list[str]:
        """What the commands that begin so were given to read."""
        return [stdin for argv, stdin in self.calls if " ".join(argv).startswith(start)]


class QuietBus:
    """A bus on which events are kept, and no other object answers."""

    def __init__(self, events: list[tuple[str, dict[str, Any]]]) -> None:
        self._events = events

    async def call(self, path: str, method: str) -> dict[str, Any]:
        raise NotFound(f"nobody publishes {path}")

    def send_event(self, name: str, table: dict[str, Any]) -> None:
        self._events.append((name, table))

    def forget_replies(self) -> None:
        pass

    async def close(self) -> None:
        pass


def replace_commands(mocker: MockerFixture) -> Commands:
    """Have `process.run` call a new `Commands` for the rest of the test."""
    commands = Commands()
    mocker.patch.object(process, "run", commands.run)
    return commands


@dataclass
class RoutingTables(Kernel):
    """A kernel's devices, routes and rules, in memory; it does what requests ask of it.

    `changes` of devices are only noted, among the `commands` too; what begins as one of the
    `refusals` is refused.
    """

    found_devices: list[Link] = field(default_factory=list)
    found_routes: dict[Family, list[Route]] = field(default_factory=dict)
    found_rules: dict[Family, list[Rule]] = field(default_factory=dict)
    requests: list[Message] = field(default_factory=list)
    errors: dict[int, int] = field(default_factory=dict)
    port: int = 0
    found_destinations: list[tuple[str, str]] = field(default_factory=list)
    neighbours: dict[tuple[str, str], str] = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)
    refusals: dict[str, CommandFailed] = field(default_factory=dict)
    machine: Machine | None = None
    commands: Commands | None = None

    def __post_init__(self) -> None:
        for family in Family:
            self.found_rules.setdefault(
                family, [Rule(family, 0, 255), Rule(family, 32766, MAIN), Rule(family, 32767, 253)]
            )

    @property
    def _held(self) -> Machine:
        return self.machine if self.machine is not None else _NO_MACHINE

    def devices(self) -> list[Link]:
        return [*self.found_devices, *([] if self.found_devices else self._held.links)]

    def addresses(self) -> list[Address]:
        listed = [Address(d, text) for d, texts in self._held.addresses.items() for text in texts]
        return listed + [Address(d, "2001:db8:ff::1/64") for d in sorted(self._held.public_ipv6)]

    def routes(self, family: Family) -> list[Route]:
        return list(self.found_routes.get(family, ()))

    def default_routes(self, family: Family) -> list[DefaultRoute]:
        if self.machine is not None and family in self.machine.routes:
            return list(self.machine.routes[family])
        names = {device.index: device.name for device in self.devices()}
        return [
            DefaultRoute(family, names[hop.index], hop.gateway, route.metric)
            for route in self.routes(family)
            if route.table == MAIN and not route.length
            for hop in route.hops
            if hop.index in names
        ]

    def destinations(self) -> list[tuple[str, str]]:
        return list(self.found_destinations)

    def rules(self, family: Family) -> list[Rule]:
        return list(self.found_rules.get(family, ()))

    def device_towards(self, address: str, mark: int = OUTER_MARK) -> str:
        return self._held.towards.get(address, self._held.towards.get("", ""))

    def has_route(self, address: str, source: str, device: str) -> bool:
        return True

    def neighbour(self, device: str, address: str) -> str:
        return self.neighbours.get((device, address), "")

    def make_device(self, name: str, kind: str) -> None:
        self._note(f"make {name} {kind}")

    def set_device(self, name: str, **changes: object) -> None:
        self._note(f"set {name} " + " ".join(f"{what} {value}" for what, value in changes.items()))

    def delete_device(self, name: str) -> None:
        self._note(f"delete {name}")

    def set_addresses(self, device: str, wanted: Collection[str]) -> None:
        self._note(f"address {device} {' '.join(wanted)}")

    def _note(self, what: str) -> None:
        for start, error in self.refusals.items():
            if what.startswith(start):
                raise error
        self.changes.append(what)
        if self.commands is not None:
            self.commands.calls.append((what.split(), ""))

    def listen(self, on_news: Callable[[], None], groups: int = 0) -> Events | None:
        return None

    def listen_to_tables(self, on_news: Callable[[], None]) -> Events | None:
        return None

    def change(self, messages: Sequence[Message]) -> list[int]:
        codes = []
        for message in messages:
            self.requests.append(message)
            code = self.errors.get(message.kind, 0)
            codes.append(code)
            if not code:
                self._carry_out(message)
        return codes

    def _carry_out(self, message: Message) -> None:
        route, rule = parse_route(message), parse_rule(message)
        if message.kind == rtnetlink.NEWROUTE and route is not None:
            held = self.found_routes.setdefault(route.family, [])
            if message.flags & netlink.REPLACE:
                held[:] = [r for r in held if r.place != route.place]
            held.append(route)
        elif message.kind == rtnetlink.DELROUTE and route is not None:
            held = self.found_routes.setdefault(route.family, [])
            held[:] = [r for r in held if r.identity != route.identity]
        elif message.kind == rtnetlink.NEWRULE and rule is not None:
            rules = self.found_rules[rule.family]
            rules.append(rule)
            rules.sort(key=lambda each: each.priority)
        elif message.kind == rtnetlink.DELRULE and rule is not None:
            self.found_rules[rule.family].remove(rule)


_NO_MACHINE = cast(
    Machine, SimpleNamespace(links=[], addresses={}, public_ipv6=set(), towards={}, routes={})
)


@dataclass
class TrackedConnections(ConnectionTracking):
    """Connection tracking that only notes what was deleted: family, mark, mask. `are_left` is what
    it says of any mark.
    """

    deleted: list[tuple[Family, int, int]] = field(default_factory=list)
    are_left: bool = False
    cleared: int = 0

    def has_marked(self, family: Family, mark: int, mask: int) -> bool:
        return self.are_left

    def delete_unanswered(self, family: Family, mark: int, mask: int) -> bool:
        return self.are_left

    def clear_bits(self, bits: int) -> None:
        self.cleared |= bits

    def delete_marked(self, family: Family, mark: int, mask: int) -> None:
        self.deleted.append((family, mark, mask))


def store_of(config: Config | None = None) -> ConfigStore:
    """A store in which this configuration is in force, without a file."""
    return cast(ConfigStore, SimpleNamespace(current=config or Config(), understood=True))
