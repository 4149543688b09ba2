"""A router: a machine of files and the services that run on it, one after another.

The configuration is real UCI in a directory; the kernel is a fake. Every reply that a test gets
through `Router.call` has been held against the method table.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pytest_mock import MockerFixture

from docs.schemas import check_reply
from rpcd_wireguard_uplink.api.methods import METHODS
from rpcd_wireguard_uplink.config.settings import Config
from rpcd_wireguard_uplink.daemon import Daemon
from rpcd_wireguard_uplink.errors import CommandFailed, Status, UplinkError
from rpcd_wireguard_uplink.events import Events
from rpcd_wireguard_uplink.mesh import advertiser
from rpcd_wireguard_uplink.model import DefaultRoute, Family, Health, Link
from rpcd_wireguard_uplink.platform.linux import Platform
from rpcd_wireguard_uplink.provider import site
from rpcd_wireguard_uplink.schema.record import Record
from rpcd_wireguard_uplink.tasks import TaskSet
from rpcd_wireguard_uplink.uplinks import adding, lifecycle
from rpcd_wireguard_uplink.warnings import Warnings
from tests.unit.fakes import Commands, Machine, QuietBus, key_of, replace_commands

CONFIG = """\
# what the owner wrote
config wireguard-uplink 'uplink'
	option enabled '1'
	option check_interval '60'
	list trusted_peer 'nodea'
	list trusted_peer 'nodeb'
"""
NETWORK = """\
config interface 'loopback'
	option device	lo   # an odd line of the owner's

config interface 'wgup_mine'
	option proto 'wireguard'
	option private_key 'SECRET-OF-THE-OWNER'
"""
LINE = "no-such-wan0"
"""The router's one line. No machine has it, so no probe ever leaves."""


def offer(peer_id: str, **changes: Any) -> dict[str, Any]:
    """An offer as the specification writes it."""
    return {
        "type": "uplink_offer",
        "peer_id": peer_id,
        "timestamp": "2026-01-28T10:30:00Z",
        "capabilities": {"bandwidth_mbps": 100, "latency_ms": 15, "available": True},
        "endpoint": {"host": "192.0.2.7", "port": 51820, "public_key": key_of(f"key {peer_id}")},
        **changes,
    }


def daemon_of(
    platform: Platform, directory: Path, told: list[tuple[str, dict[str, Any]]] | None = None
) -> Daemon:
    """A service over this platform that keeps its files in a folder; `told` gets its events."""
    warnings = Warnings()
    tasks = TaskSet(warnings)
    return Daemon(
        platform,
        QuietBus([] if told is None else told),
        keys_dir=str(directory / "keys"),
        state_file=str(directory / "state.json"),
        warnings=warnings,
        tasks=tasks,
        events=Events(tasks),
    )


class Router:
    """A machine and the services that ran on it, one after another."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.machine = _machine(directory)
        self.state_file = directory / "state.json"
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.running: list[Daemon] = []
        self.replies: list[str] = []

    @property
    def daemon(self) -> Daemon:
        """The service that was started last."""
        return self.running[-1]

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self.daemon.store.current

    def make(self) -> Daemon:
        """A service that runs from now on; it is for the caller to start it."""
        daemon = daemon_of(self.machine, self.directory, self.events)
        self.running.append(daemon)
        return daemon

    async def start(self) -> Daemon:
        daemon = self.make()
        await daemon.start()
        return daemon

    async def stop(self) -> None:
        while self.running:
            await self.running.pop().stop()

    async def restart(self) -> Daemon:
        """A new process on the same machine: files and tunnels are what stays."""
        await self.stop()
        tunnels = self.machine.tunnels
        self.machine = _machine(self.directory)
        self.machine.tunnels = tunnels
        return await self.start()

    async def call(self, name: str, **arguments: Any) -> dict[str, Any]:
        """Call a method of the last service; its reply must be what the method table says."""
        method = METHODS[name]
        part = next(part for part in self.daemon.methods if hasattr(part, name))
        result = getattr(part, name)(**arguments)
        found: Record = result if isinstance(result, Record) else await result
        reply = found.as_table()
        check_reply(method, reply)
        self.replies.append(json.dumps(reply))
        return reply

    async def with_neighbour(self, config: str) -> None:
        """Use this configuration of an uplink by the WAN to a peer that is a neighbour too."""
        self.machine.towards = {"192.0.2.7": LINE, "172.16.0.2": "mesh0"}
        self.machine.links.append(Link("mesh0", 77))
        self.write("wireguard-uplink", config)
        await self.daemon.uplinks.reload()
        await self.daemon.underlays.follow()
        await self.daemon.monitor.reread()

    def judge(self, device: str, health: Health) -> None:
        """Have the device's paths be like that."""
        for path in self.daemon.monitor.paths.values():
            if path.device == device:
                path.health.state = health

    async def refusal(self, name: str, **arguments: Any) -> tuple[Status, str]:
        with pytest.raises(UplinkError) as caught:
            await self.call(name, **arguments)
        return caught.value.status, caught.value.code

    def text(self, config: str) -> str:
        return (self.directory / "config" / config).read_text()

    def write(self, config: str, text: str) -> None:
        (self.directory / "config" / config).write_text(text)

    def files(self) -> dict[str, str]:
        """Everything that an owner could find: configuration and keys, by path."""
        found = {p.name: p.read_text() for p in (self.directory / "config").iterdir()}
        return found | {f"keys/{name}": text for name, text in self.machine.keys().items()}

    def assert_consistent(self) -> None:
        """One uplink section, one pair of network sections, one key, one tunnel for each uplink."""
        uplinks = {u.interface for u in self.config.uplinks}
        assert set(self.machine.keys()) == uplinks
        assert set(self.machine.tunnels) == uplinks
        for name in uplinks:
            assert f"config interface '{name}'" in self.text("network")
            assert f"config wireguard_{name} '{name}_peer'" in self.text("network")
        assert self.text("network").count("secubox_uplink") == 2 * len(uplinks)
        assert self.text("network").startswith(NETWORK)
        assert "pending" not in self.text("wireguard-uplink")


def commands_of_a_router(mocker: MockerFixture) -> Commands:
    """Commands of a machine without an nft table, and no waiting for a handshake that never is, nor
    for peers that nobody plays to hear of an end.
    """
    mocker.patch.object(adding, "HANDSHAKE_S", 0.0)
    mocker.patch.object(advertiser, "FAREWELL_S", 0.05)
    mocker.patch.object(site, "forwarding_fault", return_value=("", ""))
    mocker.patch.object(lifecycle, "ROUTE_PAUSES_S", (0.0, 0.01))
    found = replace_commands(mocker)
    found.answers["nft -j"] = CommandFailed("no such table")
    return found


def _machine(directory: Path) -> Machine:
    machine = Machine(str(directory))
    machine.routes[Family.IPV4] = [DefaultRoute(Family.IPV4, LINE, "192.0.2.1")]
    machine.links = [Link(LINE, 2, 0)]
    return machine
