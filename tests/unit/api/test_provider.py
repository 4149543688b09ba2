"""The methods about offering and trust, over a machine of files; replies as the table says."""

from __future__ import annotations

from unittest.mock import Mock

import pytest
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.errors import CommandFailed, NotFound, NotSupported, Status, UplinkError
from rpcd_wireguard_uplink.provider import offer as offering_module
from rpcd_wireguard_uplink.provider import site as serving_module
from rpcd_wireguard_uplink.provider.device import Provider
from rpcd_wireguard_uplink.provider.offer import OwnOffer
from tests.unit.fakes import key_of
from tests.unit.mesh_router import MeshRouter
from tests.unit.router import offer

LEASE_REQUEST = {"type": "lease_request", "peer_id": "nodea", "public_key": key_of("c")}


@pytest.fixture
async def router(mesh_router: MeshRouter, wan_is_alive: Mock) -> MeshRouter:
    """A router on a mesh whose WAN is alive."""
    return mesh_router


@pytest.fixture
def wan_is_alive(mocker: MockerFixture) -> Mock:
    mocker.patch.object(offering_module, "MEASURE_S", 0.01)
    found: Mock = mocker.patch.object(OwnOffer, "_wan_is_alive", return_value=True)
    return found


@pytest.mark.parametrize("alive", [False, None])
async def test_a_dead_line_is_not_offered_and_nothing_is_written(
    router: MeshRouter, wan_is_alive: Mock, alive: bool | None
) -> None:
    before = router.files()
    wan_is_alive.return_value = alive
    assert await router.refusal("uplink_offer") == (Status.NOT_SUPPORTED, "wan_down")
    assert router.files() == before


async def test_an_offer_and_its_end(router: MeshRouter) -> None:
    reply = await router.call("uplink_offer", bandwidth_mbps=50, metered=True)
    assert (reply["offer"]["available"], reply["offer"]["bandwidth_mbps"]) == (True, 50)
    assert reply["offer"]["endpoint"] == "8.8.4.4:51821"
    told = await router.ask("/v1/offer")
    assert (told.status, told.table["metered"]) == (200, True)
    assert (await router.call("uplink_consumers"))["offering"] == 1
    kept = router.text("wireguard-uplink")
    assert "option bandwidth_mbps '50'" in kept and "option pool4 '10." in kept
    assert router.kinds("offer") == ["offering"]
    await router.call("uplink_withdraw")
    assert (await router.ask("/v1/offer")).table["code"] == "not_offering"
    assert router.kinds("offer") == ["offering", "withdrawn"]
    assert (await router.call("uplink_consumers"))["offering"] == 0
    assert "did not offer" in (await router.call("uplink_withdraw"))["message"]


async def test_what_the_kernel_refuses_is_taken_back(
    router: MeshRouter, mocker: MockerFixture
) -> None:
    mocker.patch.object(Provider, "apply", side_effect=CommandFailed("nft is missing"))
    with pytest.raises(CommandFailed, match="nothing is offered: nft is missing"):
        await router.call("uplink_offer", bandwidth_mbps=50)
    assert (await router.call("uplink_consumers"))["offering"] == 0
    assert (await router.ask("/v1/offer")).status == 404
    assert "option enabled '1'" not in router.text("wireguard-uplink").partition("provider")[2]


async def test_a_router_that_forwards_nothing_offers_nothing(
    router: MeshRouter, mocker: MockerFixture
) -> None:
    off = mocker.patch.object(
        serving_module, "forwarding_fault", return_value=("it forwards nothing", "sysctl -w x=1")
    )
    with pytest.raises(
        NotSupported, match=r"nothing: `sysctl -w x=1`, and keep it in /etc/sysctl\.d/"
    ) as caught:
        await router.call("uplink_offer", bandwidth_mbps=50)
    assert caught.value.code == "no_forwarding"
    assert "option enabled '1'" not in router.text("wireguard-uplink").partition("provider")[2]
    off.return_value = ("", "")
    await router.call("uplink_offer", bandwidth_mbps=50)
    off.return_value = ("it forwards nothing", "sysctl -w x=1")
    lease_server = router.daemon.lease_server
    assert lease_server.pool is not None
    await lease_server._keep_house(lease_server.pool)
    router.daemon.own_offer.watch()
    told = await router.ask("/v1/offer")
    assert (told.status, "sysctl" in told.table["error"]) == (404, True)
    assert (await router.ask("/v1/lease", LEASE_REQUEST)).table["code"] == "not_offering"
    status = await router.call("uplink_status")
    assert any("sysctl -w x=1" in problem for problem in status["problems"])
    off.return_value = ("", "")
    await lease_server._keep_house(lease_server.pool)
    router.daemon.own_offer.watch()
    assert (await router.ask("/v1/offer")).status == 200
    assert "forwarding" not in router.daemon.warnings


async def test_a_limit_needs_what_shapes(router: MeshRouter, mocker: MockerFixture) -> None:
    mocker.patch.object(Provider, "can_shape", return_value="install tc-tiny kmod-ifb")
    refused = await router.refusal("uplink_offer", limit_mbps=5)
    assert refused == (Status.NOT_SUPPORTED, "no_shaping")
    assert (await router.call("uplink_offer"))["success"]


async def test_a_line_that_dies_takes_the_offer_and_names_itself(
    router: MeshRouter, wan_is_alive: Mock
) -> None:
    await router.call("uplink_offer")
    wan_is_alive.return_value = False
    router.daemon.own_offer.watch()
    assert router.kinds("offer") == ["offering", "withdrawn"]
    told = await router.ask("/v1/offer")
    assert (told.status, told.table["error"]) == (404, "the WAN is dead")
    wan_is_alive.return_value = True
    router.daemon.own_offer.watch()
    assert (await router.ask("/v1/offer")).status == 404, "it must stay so for the hold time"
    assert (await router.ask("/v1/lease", LEASE_REQUEST)).table["code"] == "wan_down"


async def test_an_address_that_goes_while_the_offer_stands(router: MeshRouter) -> None:
    await router.call("uplink_offer")
    router.daemon.lease_server.site.endpoints = ()
    router.daemon.own_offer.announce()
    router.daemon.own_offer.watch()
    assert (await router.ask("/v1/offer")).status == 404


async def test_what_was_counted_is_shown_though_the_device_is_gone(
    router: MeshRouter, mocker: MockerFixture
) -> None:
    await router.call("uplink_offer")
    mocker.patch.object(Provider, "read_peers", side_effect=CommandFailed("wg: not found"))
    assert (await router.call("uplink_consumers"))["offering"] == 1


async def test_accepting_and_revoking(router: MeshRouter) -> None:
    rows = {row["peer_id"]: row for row in (await router.call("uplink_trust"))["peers"]}
    assert (rows["nodea"]["state"], rows["nodeb"]["state"]) == ("trusted", "untrusted")
    reply = await router.call("uplink_trust_accept", peer_id="nodeb")
    assert (reply["peer"]["state"], reply["peer"]["mesh_key"]) == ("trusted", key_of("mesh 3"))
    assert router.kinds("trust") == ["trusted"]
    assert (await router.ask("/v1/message", offer("nodeb"), source="10.9.0.3")).status == 200
    await router.call("uplink_trust_revoke", peer_id="nodeb")
    assert router.kinds("trust") == ["trusted", "untrusted"]
    assert "nodeb" not in router.daemon.offers.names
    with pytest.raises(NotFound):
        await router.call("uplink_trust_revoke", peer_id="nodeb")
    with pytest.raises(UplinkError):
        await router.call("uplink_trust_accept", peer_id="nobody")
