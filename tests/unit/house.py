"""A house with a router: a machine of files and the services that run on it, one after another.

The configuration is real UCI in a directory; the kernel is a fake. Every reply that a test gets
through `House.call` has been held against the method table.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.api.methods import METHODS, check_reply
from rpcd_wireguard_uplink.errors import CommandFailed, Status, UplinkError
from rpcd_wireguard_uplink.model import DefaultRoute, Family, Link
from rpcd_wireguard_uplink.provider import lease_server as serving_module
from rpcd_wireguard_uplink.uplinks import lifecycle as uplinks_module
from rpcd_wireguard_uplink.uplinks import service as service_module
from rpcd_wireguard_uplink.uplinks.service import Service
from tests.unit.fakes import Commands, Machine, key_of, replace_commands

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


class House:
    """A machine and the services that ran on it, one after another."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.machine = _router(directory)
        self.state_file = directory / "state.json"
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.running: list[Service] = []
        self.replies: list[str] = []

    def make(self) -> Service:
        """A service that runs from now on; it is for the caller to start it."""
        service = Service(
            self.machine,
            str(self.state_file),
            lambda name, table: self.events.append((name, table)),
            lambda: None,
        )
        self.running.append(service)
        return service

    async def start(self) -> Service:
        service = self.make()
        await service.start()
        return service

    async def stop(self) -> None:
        while self.running:
            await self.running.pop().stop()

    async def restart(self) -> Service:
        """A new process on the same machine: files and tunnels are what stays."""
        await self.stop()
        tunnels = self.machine.tunnels
        self.machine = _router(self.directory)
        self.machine.tunnels = tunnels
        return await self.start()

    async def call(self, name: str, **arguments: Any) -> dict[str, Any]:
        """Call a method of the last service; its reply must be what the method table says."""
        method = METHODS[name]
        result = getattr(self.running[-1], method.handler)(**arguments)
        reply: dict[str, Any] = result if isinstance(result, dict) else await result
        check_reply(method, reply)
        self.replies.append(json.dumps(reply))
        return reply

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
        uplinks = {u.interface for u in self.running[-1].uplinks.config.uplinks}
        assert set(self.machine.keys()) == uplinks
        assert set(self.machine.tunnels) == uplinks
        for name in uplinks:
            assert f"config interface '{name}'" in self.text("network")
            assert f"config wireguard_{name} '{name}_peer'" in self.text("network")
        assert self.text("network").count("secubox_uplink") == 2 * len(uplinks)
        assert self.text("network").startswith(NETWORK)
        assert "pending" not in self.text("wireguard-uplink")


def commands_of_a_house(mocker: MockerFixture) -> Commands:
    """Commands of a machine without an nft table, and no waiting for a handshake that never is."""
    mocker.patch.object(service_module, "HANDSHAKE_S", 0.0)
    mocker.patch.object(serving_module, "forwarding_fault", return_value=("", ""))
    mocker.patch.object(uplinks_module, "ROUTE_PAUSES_S", (0.0, 0.01))
    found = replace_commands(mocker)
    found.answers["nft -j"] = CommandFailed("no such table")
    return found


def _router(directory: Path) -> Machine:
    machine = Machine(str(directory))
    machine.routes[Family.IPV4] = [DefaultRoute(Family.IPV4, LINE, "192.0.2.1")]
    machine.links = [Link(LINE, 2, 0)]
    return machine
