"""A router's consumers: what survives trouble with files, commands and the configuration."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.errors import CommandFailed
from rpcd_wireguard_uplink.mesh.wire.lease import Denial, Deny, LeaseGrant, LeaseRequest
from rpcd_wireguard_uplink.model import PeerCounters
from rpcd_wireguard_uplink.provider.device import Provider
from tests.unit.exchange_house import CONFIG, ExchangeHouse
from tests.unit.fakes import key_of, set_network

WANTED = LeaseRequest("nodea", key_of("consumer"))


@pytest.fixture
def house(provider_house: ExchangeHouse) -> ExchangeHouse:
    return provider_house


async def settled(house: ExchangeHouse) -> None:
    """Until what goes on in the background is done."""
    deadline_s = time.monotonic() + 20
    while house.agent.lease_server._tasks and time.monotonic() < deadline_s:
        await asyncio.sleep(0.01)


async def grant(house: ExchangeHouse) -> LeaseGrant:
    granted = await house.agent.lease_server.grant(WANTED)
    assert isinstance(granted, LeaseGrant), granted
    await settled(house)
    return granted


async def test_a_lease_is_kept_and_a_renewal_writes_nothing(house: ExchangeHouse) -> None:
    await grant(house)
    kept = house.text("wireguard-uplink")
    assert kept.count("config consumer") == 1
    steps = len(house.machine.steps)
    for _ in range(5):
        await grant(house)
    assert house.text("wireguard-uplink") == kept
    assert "edit wireguard-uplink" not in house.machine.steps[steps:]
    assert house.kinds("lease") == ["lease_granted"]


async def test_the_tunnels_fit_the_narrowest_line(house: ExchangeHouse) -> None:
    """A line of 1492 (PPPoE) has room for 1412: an IPv6 header, UDP and WireGuard take 80."""
    assert (await grant(house)).mtu == 1420
    network = house.agent.service.monitor.network
    links = {i: replace(link, mtu=1492) for i, link in network.state.links.items()}
    set_network(network, links=links)
    assert (await grant(house)).mtu == 1412
    assert house.agent.lease_server.pool is not None
    assert (await house.agent.lease_server._plan(house.agent.lease_server.pool)).mtu == 1412


async def test_a_restart_keeps_the_place(house: ExchangeHouse) -> None:
    granted = await grant(house)
    await house.restart()
    house.agent.lease_server.refusal = lambda: Denial(Deny.WAN_DOWN, "the line is dead")
    assert (await grant(house)).addresses == granted.addresses
    other = await house.agent.lease_server.grant(LeaseRequest("nodeb", key_of("b")))
    assert isinstance(other, Denial)


async def test_who_lost_its_trust_while_we_were_away_has_no_place(house: ExchangeHouse) -> None:
    await grant(house)
    house.write(
        "wireguard-uplink", house.text("wireguard-uplink").replace("list trusted_peer", "list line")
    )
    await house.restart()
    assert house.agent.lease_server.consumer_rows() == []
    assert "config consumer" not in house.text("wireguard-uplink")


async def test_a_lease_that_could_not_be_kept_is_told_and_kept_later(
    house: ExchangeHouse, mocker: MockerFixture
) -> None:
    failing = mocker.patch.object(house.machine, "edit", side_effect=CommandFailed("disk full"))
    await grant(house)
    problems = (await house.call("uplink_status"))["problems"]
    assert any("disk full" in problem for problem in problems)
    mocker.stop(failing)
    pool = house.agent.lease_server.pool
    assert pool is not None
    await house.agent.lease_server._keep_house(pool)
    assert "config consumer" in house.text("wireguard-uplink")
    assert not any("disk full" in p for p in (await house.call("uplink_status"))["problems"])


async def test_an_unexpected_failure_is_told_by_its_class(
    house: ExchangeHouse, mocker: MockerFixture
) -> None:
    mocker.patch.object(house.machine, "edit", side_effect=RuntimeError("a secret"))
    await grant(house)
    problems = " ".join((await house.call("uplink_status"))["problems"])
    assert "RuntimeError" in problems
    assert "secret" not in problems


async def test_a_provider_that_is_turned_off_in_the_middle(house: ExchangeHouse) -> None:
    """The owner turns it off while a lease waits for the lock of changes."""
    async with house.running[-1].lock:
        granted = await house.agent.lease_server.grant(WANTED)
        assert isinstance(granted, LeaseGrant)
        house.write("wireguard-uplink", CONFIG)
        await house.running[-1].uplinks.read()
        await house.agent.lease_server.follow()
        assert house.agent.lease_server.pool is None
    await settled(house)
    assert house.agent.lease_server.problems == {}
    refused = await house.agent.lease_server.grant(WANTED)
    assert isinstance(refused, Denial)
    assert refused.code is Deny.NOT_OFFERING


async def test_a_kernel_that_refuses_is_told_and_the_next_round_mends_it(
    house: ExchangeHouse, mocker: MockerFixture
) -> None:
    lease_server = house.agent.lease_server
    failing = mocker.patch.object(Provider, "apply", side_effect=CommandFailed("no nft"))
    await lease_server.follow()
    assert lease_server.problems["provider"] == "no nft"
    mocker.stop(failing)
    assert lease_server.pool is not None
    await lease_server._keep_house(lease_server.pool)
    assert "provider" not in lease_server.problems


async def test_who_renews_while_it_is_silent_is_let_in_again_once_a_minute(
    house: ExchangeHouse, mocker: MockerFixture
) -> None:
    """Its clock may have gone back (rules.md 13); one that is heard is left alone, whatever the
    age of its handshake by a clock that was stepped.
    """
    await grant(house)
    lease_server = house.agent.lease_server
    readmit = mocker.patch.object(Provider, "readmit")
    key = WANTED.public_key
    for age_s, silent_s, stale_s, calls in (
        (5.0, 5.0, 5.0, 0),
        (None, 500.0, 500.0, 0),
        (90000.0, 5.0, 5.0, 0),
        (90000.0, 100.0, 100.0, 0),
        (500.0, 5.0, 500.0, 0),
        (500.0, 20.0, 190.0, 1),
        (500.0, 500.0, 500.0, 1),
    ):
        lease_server.peers = {key: PeerCounters(key, "", age_s, 0, 0, silent_s, stale_s)}
        await grant(house)
        assert readmit.call_count == calls


async def test_pools_are_chosen_once_and_avoid_our_networks(house: ExchangeHouse) -> None:
    lease_server = house.agent.lease_server
    settings = await lease_server.with_pools(lease_server.settings)
    assert (settings.pool4, settings.pool6) == ("10.77.1.0/24", "fd77::/64"), "as configured"
