"""This router as a consumer: what a provider's answer may be, over a real server on loopback."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.errors import InvalidArgument, NotSupported, NotTrusted, UplinkError
from rpcd_wireguard_uplink.events import PeerAnswered
from rpcd_wireguard_uplink.mesh.http import Request, Response, Server
from rpcd_wireguard_uplink.mesh.registry.directory import Directory, MeshPeer
from rpcd_wireguard_uplink.mesh.registry.peers import Peers
from rpcd_wireguard_uplink.mesh.registry.trust import State, Verdict
from rpcd_wireguard_uplink.mesh.wire.endpoints import ScopedEndpoint
from rpcd_wireguard_uplink.mesh.wire.lease import LeaseGrant
from rpcd_wireguard_uplink.model import Endpoint, Uplink
from rpcd_wireguard_uplink.system.rtnetlink import Address
from rpcd_wireguard_uplink.uplinks import lease_client as module
from rpcd_wireguard_uplink.uplinks.lease_client import LeaseClient, taken
from rpcd_wireguard_uplink.warnings import Warnings
from tests.unit.fakes import Commands, RoutingTables, key_of
from tests.unit.mesh.test_http import free_port
from tests.unit.router import CONFIG, Router, commands_of_a_router, offer
from tests.unit.waiting import until

WANTED = Uplink("nodea", "", Endpoint("192.0.2.7"), key_of("old"), (), key_of("own"))
GRANT = LeaseGrant(
    peer_id="nodea",
    public_key=key_of("provider"),
    addresses=("10.77.1.2/32", "fd77::2/128"),
    endpoints=(ScopedEndpoint("192.0.2.7", 51821), ScopedEndpoint("192.168.1.1", 51821, "link")),
    lease_s=3600,
)


def given(**changes: Any) -> dict[str, Any]:
    """A grant that differs."""
    return GRANT.replaced(**changes).as_table()


REFUSALS: list[tuple[int, dict[str, Any], type[UplinkError], str]] = [
    (403, {"code": "not_trusted", "error": "no"}, NotTrusted, "not_trusted"),
    (503, {"code": "full", "error": "no"}, NotSupported, "full"),
    (500, {}, NotSupported, "denied"),
    (200, {}, InvalidArgument, "invalid_argument"),
    (200, given(peer_id="nodeb"), InvalidArgument, "invalid_argument"),
    (200, given(public_key=key_of("own")), InvalidArgument, "key_is_ours"),
    (200, given(addresses=("192.168.1.77/32",)), InvalidArgument, "address_conflict"),
    (200, given(endpoints=(ScopedEndpoint("192.168.1.1", 1),)), NotSupported, "no_endpoint"),
]


class Provider:
    """A provider's server on loopback, that answers what a test says."""

    def __init__(self) -> None:
        self.answer = Response(200, GRANT.as_table())
        self.asked: list[Request] = []
        self.peer: MeshPeer | None = MeshPeer("", key_of("mesh"), ("127.0.0.1",))

    async def handle(self, request: Request) -> Response:
        self.asked.append(request)
        return self.answer


@pytest.fixture
def commands(mocker: MockerFixture) -> Commands:
    return commands_of_a_router(mocker)


@pytest.fixture
async def provider() -> Provider:
    return Provider()


@pytest.fixture
async def router(
    tmp_path: Path, commands: Commands, provider: Provider, mocker: MockerFixture
) -> AsyncIterator[Router]:
    """A router that sees one peer on the mesh, which is on loopback."""
    port = free_port()
    paths = {"/v1/lease": ("POST", "DELETE")}
    server = Server(provider.handle, paths, Warnings(), burst=1000)
    server.listen([("127.0.0.1", port, "")])
    router = Router(tmp_path)
    more = f"\toption mesh_port '{port}'\n\toption node_id 'me'\n"
    router.write("wireguard-uplink", CONFIG + more)
    router.machine.addresses["lan0"] = ["192.168.1.1/24"]
    router.machine.towards |= {"": "wan0", "192.168.1.9": "lan0"}
    mocker.patch.object(Directory, "named", lambda self, peer_id: provider.peer)
    mocker.patch.object(Peers, "distrust_reason", return_value="")
    mocker.patch.object(module, "rest", lambda seconds: asyncio.sleep(seconds / 100))
    await router.start()
    yield router
    await router.stop()
    await server.close()


@pytest.fixture
def lease_client(router: Router) -> LeaseClient:
    return router.daemon.lease_client


def keep(router: Router, uplink: Uplink) -> None:
    """Have the configuration hold this uplink."""
    config = replace(router.config, uplinks=(replace(uplink, own_public_key=key_of("own")),))
    router.daemon.store.current = config


async def place(client: LeaseClient, provider: Provider, **changes: Any) -> Uplink:
    """What a grant with these changes makes of the wish."""
    provider.answer = Response(200, given(**changes))
    granted = await client.ask(WANTED)
    assert granted is not None
    return granted


async def test_a_place_is_asked_for_with_what_is_to_be_avoided(
    lease_client: LeaseClient, provider: Provider
) -> None:
    granted = await place(lease_client, provider)
    assert (granted.addresses, granted.public_key) == (GRANT.addresses, GRANT.public_key)
    assert granted.leased
    assert granted.endpoint == Endpoint("192.0.2.7", 51821), "our own address is no provider's"
    asked = json.loads(provider.asked[0].body)
    assert (asked["peer_id"], asked["avoid"]) == ("me", ["192.168.1.0/24"])


@pytest.mark.parametrize(("status", "table", "kind", "code"), REFUSALS)
async def test_what_a_provider_must_not_give(
    lease_client: LeaseClient,
    provider: Provider,
    status: int,
    table: dict[str, Any],
    kind: type[UplinkError],
    code: str,
) -> None:
    provider.answer = Response(status, table)
    with pytest.raises(kind) as caught:
        await lease_client.ask(WANTED)
    assert caught.value.code == code
    assert key_of("own") not in str(caught.value)


async def test_no_resolver_is_this_routers_own_or_in_a_network_of_its(
    router: Router, lease_client: LeaseClient, provider: Provider
) -> None:
    kernel = cast(RoutingTables, router.machine.kernel)
    kernel.found_destinations = [("lan0", "192.168.1.0/24"), ("lan0", "fe80::/64"), ("wan0", "")]
    offered = ("192.168.1.1", "10.77.1.1", "fe80::1", "1.1.1.1")
    granted = await place(lease_client, provider, dns=offered)
    assert granted.resolvers == ("10.77.1.1", "1.1.1.1")


@pytest.mark.parametrize("way", ["link", "where the mesh reaches it"])
async def test_a_provider_may_be_a_host_of_a_shared_network(
    router: Router, lease_client: LeaseClient, provider: Provider, way: str
) -> None:
    assert provider.peer is not None
    scope, live = ("link", "") if way == "link" else ("public", "192.168.1.9:51820")
    provider.peer = replace(provider.peer, endpoint=live)
    near = ScopedEndpoint("192.168.1.9", 51821, scope)
    assert (await place(lease_client, provider, endpoints=(near,))).endpoint == near.endpoint


async def test_a_host_of_the_lan_is_named_where_it_is_refused(
    lease_client: LeaseClient, provider: Provider
) -> None:
    provider.answer = Response(200, given(endpoints=(ScopedEndpoint("192.168.1.9", 1),)))
    with pytest.raises(NotSupported) as caught:
        await lease_client.ask(WANTED)
    assert str(caught.value) == (
        "nodea named no endpoint that this router could use: 192.168.1.9 is in this router's "
        "network 192.168.1.0/24, where the mesh does not reach it"
    )


async def test_a_grant_with_anothers_key_changes_nothing_of_the_other(
    router: Router, lease_client: LeaseClient, provider: Provider
) -> None:
    provider.answer = Response(200, given(peer_id="nodeb", limit_mbps=7))
    other = await lease_client.ask(replace(WANTED, peer_id="nodeb"))
    assert other is not None
    await place(lease_client, provider, limit_mbps=100, lease_s=604800)
    assert lease_client.limit_mbps(other) == 7


async def test_without_a_peer_on_the_mesh_nobody_is_asked(
    lease_client: LeaseClient, provider: Provider
) -> None:
    provider.peer = None
    assert await lease_client.ask(WANTED) is None


async def test_an_uplink_that_is_gone_gives_its_lease_back(
    lease_client: LeaseClient, provider: Provider
) -> None:
    granted = await place(lease_client, provider)
    provider.answer = Response(200, {"released": True})
    lease_client.release(granted)
    lease_client.release(replace(granted, leased=False))
    await until(lambda: len(provider.asked) >= 2)
    assert [request.method for request in provider.asked] == ["POST", "DELETE"]


async def test_a_renewal_that_fails_is_told_until_its_uplink_is_gone(
    router: Router, lease_client: LeaseClient, provider: Provider, mocker: MockerFixture
) -> None:
    uplink = replace(await place(lease_client, provider), interface="wgup_nodea")
    held, warnings = lease_client._held["nodea"], router.daemon.warnings
    provider.answer = Response(503, {"code": "full", "error": "no place"})
    await lease_client._renew(uplink, held)
    assert "no place" in warnings["lease wgup_nodea"]
    assert 0 < held.due_s - time.monotonic() < 10
    keep(router, uplink)
    held.due_s = time.monotonic() + 300
    lease_client.hasten(PeerAnswered("nodeb"))
    assert held.due_s - time.monotonic() > 290, "another peer"
    lease_client.hasten(PeerAnswered("nodea"))
    assert held.due_s - time.monotonic() < 6, "a peer that is back is not waited for"
    mocker.patch.object(lease_client, "_renew_now", side_effect=RuntimeError("a secret"))
    await lease_client._renew(uplink, held)
    assert "RuntimeError" in warnings["lease wgup_nodea"]
    assert "secret" not in warnings["lease wgup_nodea"]
    router.daemon.store.current = replace(router.config, uplinks=())
    await until(lambda: "lease wgup_nodea" not in warnings)


async def test_a_provider_that_gives_another_place_each_time_wears_no_flash(
    router: Router, lease_client: LeaseClient, provider: Provider, mocker: MockerFixture
) -> None:
    mocker.patch.object(Peers, "verdict", return_value=Verdict(State.TRUSTED))
    await router.call("uplink_gossip", message=offer("nodea"))
    await router.call("uplink_add", peer_id="nodea")
    texts = [router.text("wireguard-uplink")]
    for number in range(3, 30):
        addresses = (f"10.77.1.{number}/32", f"fd77::{number}/128")
        provider.answer = Response(200, given(addresses=addresses))
        uplink = router.config.uplink_to("nodea")
        assert uplink is not None
        await lease_client._renew(uplink, lease_client._held["nodea"])
        texts.append(router.text("wireguard-uplink"))
    assert len({*texts}) == 3, "who was set up anew is followed, twice"
    assert "10.77.1.4/32" in texts[-1]
    assert "addresses of the lease again and again" in router.daemon.warnings["lease wgup_nodea"]
    provider.answer = Response(200, given(addresses=("10.77.1.4/32", "fd77::4/128")))
    await lease_client._renew(uplink, lease_client._held["nodea"])
    assert "lease wgup_nodea" not in router.daemon.warnings


async def test_the_other_endpoints_of_a_lease_are_known(
    router: Router, lease_client: LeaseClient, provider: Provider
) -> None:
    """Whoever follows the tunnel's addresses tries them once its own stays silent; the one where
    the mesh reaches the peer is surely the peer's.
    """
    assert provider.peer is not None
    provider.peer = replace(provider.peer, endpoint="[fd70:9::2]:51820")
    granted = await place(lease_client, provider)
    named = ScopedEndpoint("p.example", 9)
    lease_client._held["nodea"].endpoints += (named,)
    keep(router, replace(granted, interface="wgup_nodea"))
    await until(lambda: router.machine.known_endpoints)
    assert router.machine.known_endpoints == {"wgup_nodea": (granted.endpoint, named.endpoint)}
    assert router.machine.sure_hosts == {"wgup_nodea": {"fd70:9::2"}}


ROUTES = [
    ("wan", ""),
    ("vpn", "0.0.0.0/1"),
    ("vpn", "2000::/3"),
    ("lan0", "10.55.0.0/16"),
    ("vpn", "10.44.0.5/32"),
    ("", "fd55::/48"),
    ("wgup_nodea", "10.77.1.0/24"),
    ("wgup_srv", "10.66.0.0/24"),
]
OWN = [Address("wg0", "10.9.0.1/24"), Address("wgup_nodea", "10.77.1.2/32")]
NEIGHBOURS = (
    MeshPeer("wg0", key_of("m"), ("10.9.0.2",), allowed=("10.9.0.2/32", "192.168.7.0/24")),
    MeshPeer("wg0", key_of("n"), allowed=("0.0.0.0/0", "fd09::3/128")),
)


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("10.77.1.2/32", ""),
        ("fd77::2/128", ""),
        ("10.55.3.4/32", "that a route leads to (10.55.0.0/16)"),
        ("10.44.0.5/32", "that a route leads to (10.44.0.5)"),
        ("fd55::9/128", "that a route leads to (fd55::/48)"),
        ("10.66.0.9/32", "that a route leads to (10.66.0.0/24)"),
        ("10.9.0.1/32", "of this router's own (10.9.0.1)"),
        ("10.9.0.2/32", f"of mesh peer {key_of('m')[:8]} (10.9.0.2/32)"),
        ("192.168.7.9/32", f"of mesh peer {key_of('m')[:8]} (192.168.7.0/24)"),
        ("fd09::3/128", f"of mesh peer {key_of('n')[:8]} (fd09::3/128)"),
        ("10.88.0.2/32", "that the uplink to nodeb has (10.88.0.2)"),
    ],
)
def test_an_address_that_is_somebodys(address: str, told: str) -> None:
    for addresses in ((address,), ("10.77.1.9/32", address)):
        assert taken(addresses, ROUTES, OWN, {"10.88.0.2/32": "nodeb"}, NEIGHBOURS) == told


async def test_a_place_in_a_routed_network_is_refused_and_given_back(
    lease_client: LeaseClient, provider: Provider, router: Router
) -> None:
    kernel = cast(RoutingTables, router.machine.kernel)
    kernel.found_destinations = [("lan0", "10.77.0.0/16")]
    with pytest.raises(InvalidArgument, match=r"nodea gave an address that a route leads to") as it:
        await lease_client.ask(WANTED)
    assert it.value.code == "address_conflict"
    await until(lambda: len(provider.asked) >= 2)
    assert [request.method for request in provider.asked] == ["POST", "DELETE"]
    held = replace(WANTED, interface="wgup_nodea", addresses=GRANT.addresses)
    assert (await lease_client._request(held, "127.0.0.1", "")).addresses == GRANT.addresses, (
        "what one has already is kept"
    )
