"""The methods about offering and trust, over a machine of files; replies as the table says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.api.methods import METHODS, check_reply
from rpcd_wireguard_uplink.errors import CommandFailed, NotFound, NotSupported, UplinkError
from rpcd_wireguard_uplink.provider import lease_server as serving_module
from rpcd_wireguard_uplink.provider import offer as offering_module
from rpcd_wireguard_uplink.provider.device import Provider
from tests.unit.exchange_house import ExchangeHouse
from tests.unit.fakes import Commands, key_of
from tests.unit.house import offer


@pytest.fixture
async def house(
    tmp_path: Path, commands: Commands, mocker: MockerFixture
) -> AsyncIterator[ExchangeHouse]:
    mocker.patch.object(offering_module, "MEASURE_S", 0.2)
    made = ExchangeHouse(tmp_path, commands)
    await made.start()
    yield made
    await made.stop()


async def call(house: ExchangeHouse, name: str, **arguments: Any) -> dict[str, Any]:
    method = METHODS[name]
    result = getattr(house.peer_service, method.handler)(**arguments)
    reply: dict[str, Any] = result if isinstance(result, dict) else await result
    check_reply(method, reply)
    return reply


def line_is(house: ExchangeHouse, mocker: MockerFixture, alive: bool | None) -> None:
    mocker.patch.object(house.agent.own_offer, "_line_is_alive", return_value=alive)


async def test_a_dead_line_is_not_offered_and_nothing_is_written(
    house: ExchangeHouse, mocker: MockerFixture
) -> None:
    before = house.files()
    for alive in (False, None):
        line_is(house, mocker, alive)
        with pytest.raises(NotSupported) as caught:
            await call(house, "uplink_offer")
        assert caught.value.code == "wan_down"
    assert house.files() == before


async def test_an_offer_and_its_end(house: ExchangeHouse, mocker: MockerFixture) -> None:
    line_is(house, mocker, True)
    reply = await call(house, "uplink_offer", bandwidth_mbps=50, metered=True)
    assert (reply["offer"]["available"], reply["offer"]["bandwidth_mbps"]) == (True, 50)
    assert reply["offer"]["endpoint"] == "8.8.4.4:51821"
    told = await house.ask("/v1/offer")
    assert told.status == 200, told
    assert told.table["metered"] is True
    assert (await call(house, "uplink_consumers"))["offering"] == 1
    kept = house.text("wireguard-uplink")
    assert "option bandwidth_mbps '50'" in kept and "option pool4 '10." in kept
    assert house.kinds("offer") == ["offering"]
    await call(house, "uplink_withdraw")
    assert (await house.ask("/v1/offer")).table["code"] == "not_offering"
    assert house.kinds("offer") == ["offering", "withdrawn"]
    assert (await call(house, "uplink_consumers"))["offering"] == 0
    assert "did not offer" in (await call(house, "uplink_withdraw"))["message"]


async def test_what_the_kernel_refuses_is_taken_back(
    house: ExchangeHouse, mocker: MockerFixture
) -> None:
    line_is(house, mocker, True)
    mocker.patch.object(Provider, "apply", side_effect=CommandFailed("nft is missing"))
    with pytest.raises(CommandFailed, match="nothing is offered: nft is missing"):
        await call(house, "uplink_offer", bandwidth_mbps=50)
    assert (await call(house, "uplink_consumers"))["offering"] == 0
    assert (await house.ask("/v1/offer")).status == 404
    assert "option enabled '1'" not in house.text("wireguard-uplink").partition("provider")[2]


async def test_a_router_that_forwards_nothing_offers_nothing(
    house: ExchangeHouse, mocker: MockerFixture
) -> None:
    line_is(house, mocker, True)
    off = mocker.patch.object(
        serving_module, "forwarding_fault", return_value=("it forwards nothing", "sysctl -w x=1")
    )
    with pytest.raises(NotSupported, match=r"it forwards nothing: `sysctl -w x=1`") as caught:
        await call(house, "uplink_offer", bandwidth_mbps=50)
    assert caught.value.code == "no_forwarding"
    assert "option enabled '1'" not in house.text("wireguard-uplink").partition("provider")[2]
    off.return_value = ("", "")
    await call(house, "uplink_offer", bandwidth_mbps=50)
    off.return_value = ("it forwards nothing", "sysctl -w x=1")
    lease_server = house.agent.lease_server
    assert lease_server.pool is not None
    await lease_server._keep_house(lease_server.pool)
    house.agent.own_offer.watch()
    told = await house.ask("/v1/offer")
    assert (told.status, "sysctl" in told.table["error"]) == (404, True)
    wanted = {"type": "lease_request", "peer_id": "nodea", "public_key": key_of("c")}
    assert (await house.ask("/v1/lease", wanted)).table["code"] == "not_offering"
    status = house.running[-1].status()
    assert any("sysctl -w x=1" in problem for problem in status["problems"])
    off.return_value = ("", "")
    await lease_server._keep_house(lease_server.pool)
    house.agent.own_offer.watch()
    assert (await house.ask("/v1/offer")).status == 200
    assert "forwarding" not in lease_server.problems


async def test_a_limit_needs_what_shapes(house: ExchangeHouse, mocker: MockerFixture) -> None:
    line_is(house, mocker, True)
    mocker.patch.object(Provider, "can_shape", return_value="install tc-tiny kmod-ifb")
    with pytest.raises(NotSupported) as caught:
        await call(house, "uplink_offer", limit_mbps=5)
    assert caught.value.code == "no_shaping"
    assert (await call(house, "uplink_offer"))["success"]


async def test_a_line_that_dies_takes_the_offer_and_names_itself(
    house: ExchangeHouse, mocker: MockerFixture
) -> None:
    line_is(house, mocker, True)
    await call(house, "uplink_offer")
    line_is(house, mocker, False)
    house.agent.own_offer.watch()
    assert house.kinds("offer") == ["offering", "withdrawn"]
    told = await house.ask("/v1/offer")
    assert (told.status, told.table["error"]) == (404, "the line is dead")
    line_is(house, mocker, True)
    house.agent.own_offer.watch()
    assert (await house.ask("/v1/offer")).status == 404, "it must stay so for the hold time"
    denied = await house.ask(
        "/v1/lease", {"type": "lease_request", "peer_id": "nodea", "public_key": key_of("c")}
    )
    assert denied.table["code"] == "wan_down"


async def test_an_address_that_goes_while_the_offer_stands(
    house: ExchangeHouse, mocker: MockerFixture
) -> None:
    line_is(house, mocker, True)
    await call(house, "uplink_offer")
    house.agent.lease_server.endpoints = ()
    house.agent.own_offer.announce()
    house.agent.own_offer.watch()
    assert (await house.ask("/v1/offer")).status == 404


async def test_what_was_counted_is_shown_though_the_device_is_gone(
    house: ExchangeHouse, mocker: MockerFixture
) -> None:
    line_is(house, mocker, True)
    await call(house, "uplink_offer")
    mocker.patch.object(Provider, "read_peers", side_effect=CommandFailed("wg: not found"))
    assert (await call(house, "uplink_consumers"))["offering"] == 1


async def test_accepting_and_revoking(house: ExchangeHouse) -> None:
    rows = {row["peer_id"]: row for row in (await call(house, "uplink_trust"))["peers"]}
    assert (rows["nodea"]["state"], rows["nodeb"]["state"]) == ("trusted", "untrusted")
    reply = await call(house, "uplink_trust_accept", peer_id="nodeb")
    assert (reply["peer"]["state"], reply["peer"]["mesh_key"]) == ("trusted", key_of("mesh 3"))
    assert house.kinds("trust") == ["trusted"]
    assert (await house.ask("/v1/message", offer("nodeb"), source="10.9.0.3")).status == 200
    await call(house, "uplink_trust_revoke", peer_id="nodeb")
    assert house.kinds("trust") == ["trusted", "untrusted"]
    assert "nodeb" not in house.running[-1].offers.names
    with pytest.raises(NotFound):
        await call(house, "uplink_trust_revoke", peer_id="nodeb")
    with pytest.raises(UplinkError):
        await call(house, "uplink_trust_accept", peer_id="nobody")
