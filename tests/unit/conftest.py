"""Fixtures of the service over a machine of files; no command of these tests is really run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pytest_mock import MockerFixture

from tests.unit.exchange_house import CONFIG as EXCHANGE_CONFIG
from tests.unit.exchange_house import PROVIDER, ExchangeHouse
from tests.unit.fakes import Commands
from tests.unit.house import CONFIG, NETWORK, House, commands_of_a_house


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
