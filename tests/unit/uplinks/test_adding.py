"""Adding an uplink: what the owner gave, what an offer says, and what a lease grants."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rpcd_wireguard_uplink.errors import NotTrusted
from rpcd_wireguard_uplink.model import Endpoint, Uplink
from tests.unit.fakes import key_of
from tests.unit.mesh_router import CONFIG, MeshRouter, say, stranger_speaks


@pytest.fixture
def router(mesh_router: MeshRouter) -> MeshRouter:
    return mesh_router


async def test_given_values_are_used_as_given(router: MeshRouter) -> None:
    """A stranger would even grant a lease; and so would a peer of the owner's, by another key."""
    router.write("wireguard-uplink", CONFIG + "\tlist trusted_peer 'friend'\n")
    service = router.daemon
    await service.uplinks.reload()
    await stranger_speaks(router, "friend")
    asked: list[str] = []

    async def grant(wanted: Uplink) -> Uplink:
        asked.append(wanted.peer_id)
        granted = replace(wanted, endpoint=Endpoint("192.0.2.66", 6), public_key=key_of("evil"))
        return replace(granted, addresses=("10.66.0.1/32",), leased=True)

    router.daemon.lease_client.ask = grant  # type: ignore[method-assign]
    given = {"endpoint": "192.0.2.7:1", "public_key": key_of("given")}
    for peer_id in ("friend", "nodea"):
        reply = await router.call("uplink_add", peer_id=peer_id, **given)
        uplink = service.uplinks.require(peer_id)
        assert (str(uplink.endpoint), uplink.public_key) == tuple(given.values())
        assert (reply["endpoint"], reply["leased"], uplink.leased) == ("192.0.2.7:1", False, False)
        given["public_key"] = key_of("given too")
    assert asked == ["nodea"], "the stranger was not even asked"
    await router.call("uplink_remove", peer_id="nodea")

    async def refuse(wanted: Uplink) -> Uplink:
        raise NotTrusted("nodea says no")

    router.daemon.lease_client.ask = refuse  # type: ignore[method-assign]
    assert (await router.call("uplink_add", peer_id="nodea", **given))["created"]


async def test_a_lease_keeps_the_endpoint_that_was_given(router: MeshRouter) -> None:
    await say(router)

    async def grant(wanted: Uplink) -> Uplink:
        granted = replace(wanted, endpoint=Endpoint("192.0.2.66", 6), leased=True)
        return replace(granted, addresses=("10.66.0.1/32",))

    router.daemon.lease_client.ask = grant  # type: ignore[method-assign]
    reply = await router.call("uplink_add", peer_id="nodea", endpoint="192.0.2.8:8")
    assert (reply["endpoint"], reply["leased"]) == ("192.0.2.8:8", True)
