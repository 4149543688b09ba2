"""Fixtures of the service over a machine of files; no command of these tests is really run."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.system.netlink import Message, Netlink
from tests.unit.exchange_house import CONFIG as EXCHANGE_CONFIG
from tests.unit.exchange_house import PROVIDER, ExchangeHouse
from tests.unit.fakes import Commands
from tests.unit.house import CONFIG, NETWORK, House, commands_of_a_house

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
    return commands_of_a_house(mocker)


@pytest.fixture
async def house(tmp_path: Path, commands: Commands) -> AsyncIterator[House]:
    """A router with a configuration of its owner's, and the service running on it."""
    house = House(tmp_path)
    house.write("wireguard-uplink", CONFIG)
    house.write("network", NETWORK)
    await house.start()
    yield house
    await house.stop()


@pytest.fixture
async def provider_house(tmp_path: Path, commands: Commands) -> AsyncIterator[ExchangeHouse]:
    """A provider that trusts nodea and not nodeb, whatever its line does."""
    house = ExchangeHouse(tmp_path, commands)
    house.write("wireguard-uplink", EXCHANGE_CONFIG + PROVIDER)
    await house.start()
    house.agent.lease_server.refusal = lambda: None
    yield house
    await house.stop()
