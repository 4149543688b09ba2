"""Fixtures of the service over a machine of files; no command of these tests is really run."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.provider.offer import OwnOffer
from rpcd_wireguard_uplink.system.netlink import Message, Netlink
from tests.unit.fakes import Commands
from tests.unit.mesh_router import CONFIG as MESH_CONFIG
from tests.unit.mesh_router import PROVIDER, MeshRouter
from tests.unit.router import CONFIG, NETWORK, Router, commands_of_a_router

REAL_SOCKET = socket.socket


@pytest.fixture(autouse=True)
def no_change_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Message]]:
    """No unit test changes the network of the machine that it runs on: what needs a real kernel
    runs in a namespace, in a process of its own (apart.py).
    """
    changed: list[Message] = []
    change = Netlink.change

    def guarded(self: Netlink, messages: Sequence[Message]) -> list[int]:
        if messages and isinstance(self._open(), REAL_SOCKET):
            changed.extend(messages)
            pytest.fail("a unit test would change this machine's network")
        return change(self, messages)

    monkeypatch.setattr(Netlink, "change", guarded)
    yield changed
    assert not changed, "a unit test would have changed this machine's network"


@pytest.fixture
def commands(mocker: MockerFixture) -> Commands:
    """What would have been run, and what it prints."""
    return commands_of_a_router(mocker)


@pytest.fixture
async def router(tmp_path: Path, commands: Commands) -> AsyncIterator[Router]:
    """A router with a configuration of its owner's, and the service running on it."""
    router = Router(tmp_path)
    router.write("wireguard-uplink", CONFIG)
    router.write("network", NETWORK)
    await router.start()
    yield router
    await router.stop()


@pytest.fixture
async def mesh_router(tmp_path: Path, commands: Commands) -> AsyncIterator[MeshRouter]:
    """A router on a mesh, which trusts nodea and not nodeb."""
    router = MeshRouter(tmp_path, commands)
    await router.start()
    yield router
    await router.stop()


@pytest.fixture
async def provider(
    tmp_path: Path, commands: Commands, mocker: MockerFixture
) -> AsyncIterator[MeshRouter]:
    """A provider that trusts nodea and not nodeb, whatever its WAN does."""
    mocker.patch.object(OwnOffer, "refusal", return_value=None)
    router = MeshRouter(tmp_path, commands)
    router.write("wireguard-uplink", MESH_CONFIG + PROVIDER)
    await router.start()
    yield router
    await router.stop()
