"""Automatic uplinks: made, kept and dropped by what peers offer and by whom the owner trusts."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import pytest
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.errors import CommandFailed, NotSupported
from rpcd_wireguard_uplink.failover.monitor import Monitor
from rpcd_wireguard_uplink.failover.paths import Watch
from rpcd_wireguard_uplink.failover.selection import kept_terms
from rpcd_wireguard_uplink.mesh import agent as agent_module
from rpcd_wireguard_uplink.mesh.wire.offer import Offer
from rpcd_wireguard_uplink.model import Uplink
from rpcd_wireguard_uplink.uplinks import automatic
from tests.unit.fakes import Commands, key_of
from tests.unit.mesh_router import CONFIG, GIVEN, HAND_MADE, MeshRouter, say
from tests.unit.router import offer
from tests.unit.waiting import until


@pytest.fixture
def router(mesh_router: MeshRouter) -> MeshRouter:
    return mesh_router


async def test_an_uplink_of_our_own_making_goes_with_the_trust(
    router: MeshRouter, mocker: MockerFixture
) -> None:
    """What could not be removed is removed later, once."""
    await router.daemon.adding.add("nodea", HAND_MADE, auto=True)
    router.write(
        "wireguard-uplink", router.text("wireguard-uplink").replace("trusted_peer", "line")
    )
    failing = mocker.patch.object(router.daemon.adding, "remove", side_effect=CommandFailed("x"))
    with pytest.raises(CommandFailed):
        await router.daemon.uplinks.reload()
    mocker.stop(failing)
    await asyncio.gather(*(router.daemon.automatic.drop_untrusted() for _ in range(3)))
    assert router.daemon.store.current.uplinks == ()
    assert router.kinds("uplink") == ["uplink_added", "uplink_removed"]


async def test_a_peer_that_says_no_lets_the_next_one_have_its_turn(
    tmp_path: Path, commands: Commands, mocker: MockerFixture
) -> None:
    mocker.patch.object(agent_module, "MESH_S", 0.05)
    mocker.patch.object(automatic, "LOOK_S", 0.05)
    router = MeshRouter(tmp_path, commands)
    more = "\toption min_uplinks '1'\n\tlist trusted_peer 'nodeb'\n"
    router.write("wireguard-uplink", CONFIG.replace("\toption min_uplinks '0'\n", more))
    await router.start()
    try:
        service, asked = router.daemon, []

        async def ask(wanted: Uplink) -> Uplink | None:
            asked.append(wanted.peer_id)
            if wanted.peer_id == "nodea":
                raise NotSupported("nodea says no: it serves all that it can", code="full")
            return replace(wanted, addresses=("10.1.1.2/32",), leased=True)

        mocker.patch.object(service.lease_client, "ask", ask)
        for number, name in enumerate(("nodea", "nodeb")):
            capabilities = {"bandwidth_mbps": 100 - number, "latency_ms": 1 + number}
            message = offer(name, capabilities=capabilities)
            await router.ask("/v1/message", message, source=f"10.9.0.{number + 2}")
        commands.answers["wg genkey"] = key_of("private")
        await until(lambda: service.store.current.uplinks, 20.0)
        assert [uplink.peer_id for uplink in service.store.current.uplinks] == ["nodeb"]
        assert asked == ["nodea", "nodeb"]
        problems = (await router.call("uplink_status"))["problems"]
        assert any("nodea says no" in problem for problem in problems)
    finally:
        await router.stop()


async def test_fates_are_judged_for_uplinks_alone(router: MeshRouter) -> None:
    automatic_uplinks, upstream = router.daemon.automatic, router.daemon.upstream
    await router.daemon.adding.add("nodea", HAND_MADE)
    upstream.tokens = ("gw=1",)
    for number in range(50):
        other = Offer(peer_id=f"p{number}", host="192.0.2.9", public_key="k", egress=("gw=1",))
        router.daemon.offers.accept(other.replaced(received_s=time.monotonic()))
    await say(router, egress="gw=1,addr=8.8.4.4")
    automatic_uplinks.judge_terms()
    monitor = router.daemon.monitor
    assert monitor.same_wan == {"wgup_nodea"}
    assert set(automatic_uplinks._offer_of) == {"nodea"}, (
        "what is remembered is bounded by the uplinks"
    )
    router.daemon.offers.forget("nodea")
    automatic_uplinks.judge_terms()
    assert monitor.same_wan == {"wgup_nodea"}, "an offer that is gone had its line all the same"


# --- what peers cost


def cost_options(router: MeshRouter) -> list[str]:
    words = ("metered", "price_per_gb", "quota_gb")
    lines = router.text("wireguard-uplink").split("config uplink")[1].splitlines()
    return [line.strip() for line in lines if any(word in line for word in words)]


async def test_a_start_knows_what_an_uplink_costs_before_it_decides_anything(
    router: MeshRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    await say(router, metered=True, price_per_gb=0.5)
    await router.call("uplink_add", peer_id="nodea", **GIVEN)
    assert cost_options(router) == ["option metered '1'", "option price_per_gb '0.5'"]
    seen: list[int] = []
    start = Monitor.start

    async def watched(monitor: Monitor, watch: Watch) -> None:
        for uplink in watch.uplinks:
            terms = monitor.terms.get(uplink.interface) or kept_terms(uplink.cost)
            seen.append(terms.tier)
        await start(monitor, watch)

    monkeypatch.setattr(Monitor, "start", watched)
    for forgets in (False, True):  # a restart, and a reboot
        await router.stop()
        if forgets:
            router.state_file.unlink()
        await router.start()
    assert seen == [1, 1]


async def test_a_cost_that_changes_is_kept_and_flash_is_written_seldom(
    router: MeshRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(automatic.time, "monotonic", lambda: clock[0])
    await say(router)
    await router.call("uplink_add", peer_id="nodea", **GIVEN)
    assert cost_options(router) == ["option metered '0'"]
    written = [router.text("wireguard-uplink")]
    for turn in range(100):  # every five minutes its peer says something else
        clock[0] += 300.0
        await say(router, metered=turn % 2 == 0, price_per_gb=float(turn), sequence=turn + 1)
        router.daemon.automatic.judge_terms()
        await router.daemon.automatic.keep_costs()
        assert router.daemon.monitor.terms["wgup_nodea"].price_per_gb == turn, "at once"
        if router.text("wireguard-uplink") != written[-1]:
            written.append(router.text("wireguard-uplink"))
    assert 3 < len(written) <= 6
    clock[0] += 7200.0
    await router.daemon.automatic.keep_costs()
    assert cost_options(router) == ["option metered '0'", "option price_per_gb '99'"]


async def test_min_uplinks_does_not_bring_back_what_the_owner_removed(router: MeshRouter) -> None:
    text = CONFIG.replace("min_uplinks '0'", "min_uplinks '1'")
    router.write("wireguard-uplink", text)
    service = router.daemon
    await service.uplinks.reload()

    async def grant(wanted: Uplink) -> Uplink:
        return replace(wanted, addresses=("10.66.0.1/32",), leased=True)

    router.daemon.lease_client.ask = grant  # type: ignore[method-assign]
    await say(router)
    await router.daemon.automatic.keep_ready()
    assert [(u.peer_id, u.auto) for u in service.store.current.uplinks] == [("nodea", True)]
    told = await router.call("uplink_remove", peer_id="nodea")
    assert "`wgctl uplink add nodea`" in told["message"]
    written = router.text("wireguard-uplink")
    for _ in range(3):
        await say(router)
        await router.daemon.automatic.keep_ready()
    assert service.store.current.uplinks == () and router.text("wireguard-uplink") == written
    await router.restart()
    service = router.daemon
    router.daemon.lease_client.ask = grant  # type: ignore[method-assign]
    await say(router)
    await router.daemon.automatic.keep_ready()
    assert service.store.current.uplinks == (), "nor does a restart"
    await service.adding.add("nodea")
    assert service.store.current.settings.declined == frozenset()
    await service.adding.remove("nodea", "its peer is not trusted any more", decline=False)
    await router.daemon.automatic.keep_ready()
    assert [u.peer_id for u in service.store.current.uplinks] == ["nodea"], "by nobody's wish"
