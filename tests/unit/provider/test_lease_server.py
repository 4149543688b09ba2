"""A router's consumers: what survives trouble with files, commands and the configuration."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import pytest
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.errors import CommandFailed
from rpcd_wireguard_uplink.mesh.wire.lease import Denial, Deny, LeaseGrant, LeaseRequest
from rpcd_wireguard_uplink.model import PeerCounters
from rpcd_wireguard_uplink.provider.device import Provider
from rpcd_wireguard_uplink.provider.lease_server import WRITES
from rpcd_wireguard_uplink.provider.offer import OwnOffer
from rpcd_wireguard_uplink.uci.store import UnwritableConfig
from tests.unit.fakes import key_of, set_network
from tests.unit.mesh_router import CONFIG, MeshRouter

WANTED = LeaseRequest(peer_id="nodea", public_key=key_of("consumer"))


@pytest.fixture
def router(provider: MeshRouter) -> MeshRouter:
    return provider


async def settled() -> None:
    """Until what goes on in the background is done."""
    async with asyncio.timeout(20.0):
        while keeping := [t for t in asyncio.all_tasks() if t.get_name() == "keeping leases"]:
            await asyncio.wait(keeping)


async def grant(router: MeshRouter) -> LeaseGrant:
    granted = await router.daemon.own_offer.grant(WANTED)
    assert isinstance(granted, LeaseGrant), granted
    await settled()
    return granted


def asked_by(peer_id: str, key: str) -> LeaseRequest:
    return LeaseRequest(peer_id=peer_id, public_key=key_of(key))


async def test_a_lease_is_kept_and_a_renewal_writes_nothing(router: MeshRouter) -> None:
    await grant(router)
    kept = router.text("wireguard-uplink")
    assert kept.count("config consumer") == 1
    steps = len(router.machine.steps)
    for _ in range(5):
        await grant(router)
    assert router.text("wireguard-uplink") == kept
    assert "edit wireguard-uplink" not in router.machine.steps[steps:]
    assert router.kinds("lease") == ["lease_granted"]


async def test_the_tunnels_fit_the_narrowest_line(router: MeshRouter) -> None:
    """A line of 1492 (PPPoE) has room for 1412: an IPv6 header, UDP and WireGuard take 80."""
    assert (await grant(router)).mtu == 1420
    network = router.daemon.monitor.network
    links = {i: replace(link, mtu=1492) for i, link in network.state.links.items()}
    set_network(network, links=links)
    assert (await grant(router)).mtu == 1412
    assert router.daemon.lease_server.site.mtu == 1412


async def problems(router: MeshRouter) -> str:
    return " ".join((await router.call("uplink_status"))["problems"])


async def restart_unwritten(router: MeshRouter, mocker: MockerFixture) -> list[tuple[str, str]]:
    """Crash before the file is written again; peer and key of each consumer afterwards."""
    mocker.patch.object(router.daemon.lease_server, "_keep_now")
    await router.restart()
    return [(r.peer_id, r.public_key) for r in router.daemon.lease_server.consumer_rows()]


async def test_a_restart_keeps_the_place(router: MeshRouter, mocker: MockerFixture) -> None:
    granted = await grant(router)
    await router.restart()
    refusal = Denial(Deny.WAN_DOWN, "the WAN is dead")
    mocker.patch.object(OwnOffer, "refusal", return_value=refusal)
    assert (await grant(router)).addresses == granted.addresses
    assert isinstance(await router.daemon.own_offer.grant(asked_by("nodeb", "b")), Denial)


@pytest.mark.parametrize("damage", ["", "{", '{"given": [[1, 2]]}', "[]"])
async def test_a_crash_loses_no_lease_that_is_not_written_yet(
    router: MeshRouter, mocker: MockerFixture, damage: str
) -> None:
    """It was given back and given again within a day, which costs no second write."""
    granted = await grant(router)
    server = router.daemon.lease_server
    assert await server.release(WANTED.public_key, "nodea")
    await server._keep()
    assert await grant(router) == granted
    assert "config consumer" not in router.text("wireguard-uplink")
    if damage:
        Path(server._unkept._path).write_text(damage, encoding="utf-8")
    known = [] if damage else [("nodea", WANTED.public_key)]
    assert await restart_unwritten(router, mocker) == known


async def test_what_an_earlier_run_noted_is_taken_back_once_it_is_kept(
    router: MeshRouter, mocker: MockerFixture
) -> None:
    mocker.patch.object(router.daemon.lease_server, "_keep_now")
    await grant(router)
    await router.restart()
    server = router.daemon.lease_server
    await server._keep()
    assert "config consumer" in router.text("wireguard-uplink")
    assert Path(server._unkept._path).read_text().count("nodea") == 0


async def test_a_lease_that_ended_does_not_come_back_after_a_crash(
    router: MeshRouter, mocker: MockerFixture
) -> None:
    await grant(router)
    assert await router.daemon.lease_server.release(WANTED.public_key, "nodea")
    assert "config consumer" in router.text("wireguard-uplink")
    assert await restart_unwritten(router, mocker) == []


async def test_who_lost_its_trust_while_we_were_away_has_no_place(router: MeshRouter) -> None:
    await grant(router)
    router.write(
        "wireguard-uplink",
        router.text("wireguard-uplink").replace("list trusted_peer", "list line"),
    )
    await router.restart()
    assert router.daemon.lease_server.consumer_rows() == []
    assert "config consumer" not in router.text("wireguard-uplink")


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (CommandFailed("disk full"), "disk full"),
        (UnwritableConfig("No space left"), "leases can't be kept"),  # public case 11
    ],
)
async def test_a_lease_that_could_not_be_kept_is_told_and_kept_later(
    router: MeshRouter, mocker: MockerFixture, fault: Exception, told: str
) -> None:
    failing = mocker.patch.object(router.machine, "edit", side_effect=fault)
    await grant(router)
    assert told in await problems(router)
    mocker.stop(failing)
    pool = router.daemon.lease_server.pool
    assert pool is not None
    await router.daemon.lease_server._keep_house(pool)
    assert "config consumer" in router.text("wireguard-uplink")
    assert told not in await problems(router)


async def test_an_unexpected_failure_is_told_by_its_class(
    router: MeshRouter, mocker: MockerFixture
) -> None:
    mocker.patch.object(router.machine, "edit", side_effect=RuntimeError("a secret"))
    await grant(router)
    told = await problems(router)
    assert "RuntimeError" in told and "secret" not in told


async def test_a_provider_that_is_turned_off_in_the_middle(router: MeshRouter) -> None:
    """The owner turns it off while a lease waits for the lock of changes."""
    async with router.daemon.uplinks.lock:
        granted = await router.daemon.lease_server.grant(WANTED)
        assert isinstance(granted, LeaseGrant)
        router.write("wireguard-uplink", CONFIG)
        await router.daemon.store.reload()
        await router.daemon.lease_server.follow()
        assert router.daemon.lease_server.pool is None
    await settled()
    assert "consumers" not in router.daemon.warnings
    refused = await router.daemon.lease_server.grant(WANTED)
    assert isinstance(refused, Denial)
    assert refused.code is Deny.NOT_OFFERING


async def test_a_kernel_that_refuses_is_told_and_the_next_round_mends_it(
    router: MeshRouter, mocker: MockerFixture
) -> None:
    lease_server = router.daemon.lease_server
    failing = mocker.patch.object(Provider, "apply", side_effect=CommandFailed("no nft"))
    await lease_server.follow()
    assert lease_server.failure == "no nft"
    mocker.stop(failing)
    assert lease_server.pool is not None
    await lease_server._keep_house(lease_server.pool)
    assert not lease_server.failure


async def test_who_renews_while_it_is_silent_is_let_in_again_once_a_minute(
    router: MeshRouter, mocker: MockerFixture
) -> None:
    """Its clock may have gone back (rules.md 13); one that is heard is left alone, whatever the
    age of its handshake by a clock that was stepped.
    """
    await grant(router)
    lease_server = router.daemon.lease_server
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
        await grant(router)
        assert readmit.call_count == calls


async def test_pools_are_chosen_once_and_avoid_our_networks(router: MeshRouter) -> None:
    lease_server = router.daemon.lease_server
    settings = lease_server.site.with_pools(lease_server.site.settings)
    assert (settings.pool4, settings.pool6) == ("10.77.1.0/24", "fd77::/64"), "as configured"


async def test_case_11_new_keys_have_a_pace(router: MeshRouter, mocker: MockerFixture) -> None:
    """And renewals have none: who keeps its key asks as often as it likes."""
    lease_server, clock = router.daemon.lease_server, [time.monotonic()]
    mocker.patch("time.monotonic", lambda: clock[0])

    async def grants(keys: list[str]) -> int:
        found = [await lease_server.grant(asked_by("nodea", key)) for key in keys]
        refused = {each.code for each in found if isinstance(each, Denial)}
        assert refused <= {Deny.TOO_MANY}
        return sum(isinstance(each, LeaseGrant) for each in found)

    assert await grants([f"new {number}" for number in range(60)]) == 4
    assert await grants(["new 3"] * 50) == 50
    clock[0] += 61.0
    assert await grants(["later", "later still"]) == 1
    assert isinstance(await lease_server.grant(asked_by("nodeb", "b")), LeaseGrant)
    assert {row.peer_id for row in lease_server.consumer_rows()} == {"nodea", "nodeb"}


async def test_case_11_many_peers_together_wear_out_no_flash(
    router: MeshRouter, mocker: MockerFixture
) -> None:
    lease_server = router.daemon.lease_server
    kept = mocker.patch.object(type(lease_server), "_keep_now")
    assert lease_server.pool is not None
    lease_server.pool.limit(WRITES + 4, 3600.0)
    for number in range(WRITES + 4):
        granted = await lease_server.grant(asked_by(f"peer{number}", f"key {number}"))
        assert isinstance(granted, LeaseGrant)
    assert kept.call_count == WRITES


async def test_case_11_a_lease_is_written_once_before_it_is_granted(
    router: MeshRouter, mocker: MockerFixture
) -> None:
    """Not again for another key, nor for who comes and goes."""
    lease_server = router.daemon.lease_server
    applied = mocker.spy(Provider, "apply")
    before = applied.call_count

    async def written(*_: object) -> None:
        assert router.text("wireguard-uplink").count("config consumer") == 1

    applied.side_effect = written
    assert isinstance(await lease_server.grant(asked_by("nodea", "one")), LeaseGrant)
    assert applied.call_count == before + 1
    text = router.text("wireguard-uplink")
    assert isinstance(await lease_server.grant(asked_by("nodea", "two")), LeaseGrant)
    assert await lease_server.release(key_of("two"), "nodea")
    assert isinstance(await lease_server.grant(asked_by("nodea", "three")), LeaseGrant)
    assert router.text("wireguard-uplink") == text
    await lease_server.stop()
    assert f"public_key '{key_of('three')}'" in router.text("wireguard-uplink")


async def test_case_11_a_restart_lets_the_key_in_that_was_let_in_last(
    router: MeshRouter, mocker: MockerFixture
) -> None:
    """A crash before it was written cuts nobody off."""
    granted = await grant(router)
    again = await router.daemon.lease_server.grant(asked_by("nodea", "new"))
    assert isinstance(again, LeaseGrant) and again.addresses == granted.addresses
    assert key_of("new") not in router.text("wireguard-uplink")
    assert await restart_unwritten(router, mocker) == [("nodea", key_of("new"))]


async def test_case_13_a_start_removes_what_nothing_names_any_more(
    router: MeshRouter, mocker: MockerFixture
) -> None:
    """Killed while it withdrew: ports of the platform first, then all in the kernel, once."""
    removed = mocker.patch.object(Provider, "remove")
    router.write("wireguard-uplink", CONFIG)
    await router.restart()
    assert removed.call_count == 1
    assert router.machine.steps.count("remove_provider") == 1
    await router.daemon.lease_server.follow()
    assert removed.call_count == 1
