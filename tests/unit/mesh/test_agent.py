"""The exchange on one router: what follows from the mesh, from trust, from a configuration that
changes, and that reading stays quick whatever peers say.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.errors import CommandFailed, NotSupported, NotTrusted
from rpcd_wireguard_uplink.events import PathsChanged, TrustChanged
from rpcd_wireguard_uplink.failover.monitor import Monitor
from rpcd_wireguard_uplink.failover.paths import Watch
from rpcd_wireguard_uplink.failover.selection import kept_terms
from rpcd_wireguard_uplink.mesh import agent as agent_module
from rpcd_wireguard_uplink.mesh.directory import MeshPeer
from rpcd_wireguard_uplink.mesh.offers import Source
from rpcd_wireguard_uplink.mesh.wire.signing import Signer
from rpcd_wireguard_uplink.model import Endpoint, Offer, Uplink
from rpcd_wireguard_uplink.uplinks import automatic
from rpcd_wireguard_uplink.uplinks.adding import Given
from tests.unit.fakes import Commands, key_of
from tests.unit.mesh_router import CONFIG, MeshRouter
from tests.unit.router import offer


@pytest.fixture
async def router(tmp_path: Path, commands: Commands) -> AsyncIterator[MeshRouter]:
    made = MeshRouter(tmp_path, commands)
    await made.start()
    yield made
    await made.stop()


GIVEN = {"endpoint": "192.0.2.7:1", "public_key": key_of("k"), "address": "10.5.5.5"}
HAND_MADE = Given(**GIVEN)


async def say(router: MeshRouter, **changes: Any) -> None:
    """nodea offers its internet over the mesh."""
    assert (await router.ask("/v1/message", offer("nodea", **changes))).status == 200


async def test_what_a_start_finds_is_no_news(router: MeshRouter) -> None:
    assert router.kinds("trust") == []
    assert not router.daemon.peers.distrust_reason("nodea")
    assert "not trusted" in router.daemon.peers.distrust_reason("nodeb")


async def test_trust_that_its_owner_takes_back_takes_the_offer(router: MeshRouter) -> None:
    """By an edit of the file, without a call: nothing was told of this peer before."""
    await say(router)
    await router.call("uplink_add", peer_id="nodea", **GIVEN)
    router.write(
        "wireguard-uplink", router.text("wireguard-uplink").replace("trusted_peer", "line")
    )
    await router.daemon.uplinks.reload()
    assert (await router.call("uplink_list"))["offers"] == []
    assert router.kinds("trust") == ["untrusted"]
    assert router.daemon.monitor.watch.uplinks == ()
    assert [u.peer_id for u in router.daemon.store.current.uplinks] == ["nodea"]


async def test_an_uplink_of_our_own_making_goes_with_the_trust(router: MeshRouter) -> None:
    await router.daemon.adding.add("nodea", HAND_MADE, auto=True)
    router.write(
        "wireguard-uplink", router.text("wireguard-uplink").replace("trusted_peer", "line")
    )
    await asyncio.gather(*(router.daemon.uplinks.reload() for _ in range(3)))
    assert router.daemon.store.current.uplinks == ()
    assert router.kinds("uplink") == ["uplink_added", "uplink_removed"]


async def test_what_could_not_be_removed_is_removed_later(
    router: MeshRouter, mocker: MockerFixture
) -> None:
    await router.daemon.adding.add("nodea", HAND_MADE, auto=True)
    router.write(
        "wireguard-uplink", router.text("wireguard-uplink").replace("trusted_peer", "line")
    )
    failing = mocker.patch.object(router.daemon.adding, "remove", side_effect=CommandFailed("x"))
    with pytest.raises(CommandFailed):
        await router.daemon.uplinks.reload()
    mocker.stop(failing)
    await router.daemon.automatic.drop_untrusted()
    assert router.daemon.store.current.uplinks == ()


async def until(holds: Any, timeout_s: float) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.02)


async def test_a_configuration_that_a_call_read_first_is_followed(
    tmp_path: Path, commands: Commands, mocker: MockerFixture
) -> None:
    """A call reads what the owner has just changed, so that no reload sees a difference."""
    mocker.patch.object(agent_module, "MESH_S", 0.05)
    mocker.patch.object(automatic, "LOOK_S", 0.05)
    router = MeshRouter(tmp_path, commands)
    await router.start()
    try:
        router.write("wireguard-uplink", CONFIG.replace("10.9.0.3", "10.9.0.4"))
        await router.daemon.store.require()
        assert not router.daemon.store.changed_outside
        followed = mocker.spy(router.daemon.lease_server, "follow")
        await until(lambda: followed.call_count > 0, 20.0)
        named = router.daemon.peers.directory.named("nodeb")
        assert named is not None and named.addresses == ("10.9.0.4",)
    finally:
        await router.stop()


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


async def test_an_offer_that_trips_the_watch_does_not_stop_the_probes(
    router: MeshRouter, mocker: MockerFixture
) -> None:
    mocker.patch.object(router.daemon.own_offer, "watch", side_effect=KeyError("a secret"))
    router.daemon.events.publish(PathsChanged())
    problems = (await router.call("uplink_status"))["problems"]
    assert any(
        "following PathsChanged failed unexpectedly (KeyError" in problem for problem in problems
    )
    assert not any("secret" in problem for problem in problems)


@pytest.mark.parametrize("command", ["wg show all dump", "ip -j address show"])
async def test_a_mesh_that_cannot_be_read_stops_nothing(
    tmp_path: Path, commands: Commands, command: str
) -> None:
    router = MeshRouter(tmp_path, commands)
    commands.answers[command] = CommandFailed("not installed")
    await router.start()
    try:
        problems = (await router.call("uplink_status"))["problems"]
        assert any("the mesh can't be read: not installed" in problem for problem in problems)
    finally:
        await router.stop()


async def test_fates_are_judged_for_uplinks_alone(router: MeshRouter) -> None:
    automatic_uplinks, upstream = router.daemon.automatic, router.daemon.upstream
    await router.daemon.adding.add("nodea", HAND_MADE)
    upstream.tokens = ("gw=1",)
    for number in range(50):
        other = Offer(f"p{number}", Endpoint("192.0.2.9"), "k", egress=("gw=1",))
        router.daemon.offers.accept(replace(other, received_s=time.monotonic()))
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


async def test_no_such_offer_at_a_peer_takes_the_one_that_was_known(router: MeshRouter) -> None:
    await say(router)
    peer = router.daemon.peers.directory.named("nodea")
    assert peer is not None
    router.daemon.agent._on_offer(peer, None)
    router.daemon.agent._on_offer(peer, None)
    assert router.kinds("offer") == ["offer", "withdrawn"]


async def test_a_stranger_on_the_mesh_goes_by_no_name(router: MeshRouter) -> None:
    peer = router.peer("10.9.0.4")
    router.daemon.agent._on_offer(peer, offer("nodea"))
    router.daemon.agent._on_identity(peer, {"type": "uplink_identity", "peer_id": "me"})
    router.daemon.agent._on_identity(peer, {"type": "uplink_identity", "peer_id": "nodea"})
    router.daemon.agent._on_identity(peer, {"nonsense": 1})
    assert not router.daemon.offers.names
    assert router.refused == {"own_id": 1, "other_peer": 1, "invalid_argument": 1}


async def test_1000_offers_and_60_uplinks_are_read_in_10_ms(
    tmp_path: Path, commands: Commands
) -> None:
    """The best of several runs, so that other work on the machine does not count; the bound is the
    design's with some slack for slow machines.
    """
    router = MeshRouter(tmp_path, commands, peers=200)
    sections = "".join(
        f"\nconfig uplink 'wgup_u{n}'\n\toption peer_id 'u{n}'\n"
        f"\toption endpoint_host '192.0.2.{n + 1}'\n\toption public_key '{key_of(f'u{n}')}'\n"
        f"\toption own_public_key '{key_of(f'o{n}')}'\n\tlist address '10.5.0.{n + 1}/32'\n"
        for n in range(60)
    )
    router.write("wireguard-uplink", CONFIG + sections)
    await router.start()
    try:
        service = router.daemon
        assert len(service.store.current.uplinks) == 60
        for number in range(1000):
            service.offers.accept(
                Offer(
                    f"p{number}" if number > 60 else f"u{number}",
                    Endpoint("192.0.2.9"),
                    key_of("k"),
                    received_s=time.monotonic(),
                    carrier="mesh" if number % 2 else "mqtt",
                ),
                Source.DIRECT,
            )
        for read in (
            service.status.uplink_list,
            service.status.uplink_status,
            service.trust_methods.uplink_trust,
        ):
            times = []
            for _ in range(15):
                begun_s = time.process_time()
                read().as_table()
                times.append((time.process_time() - begun_s) * 1000)
            print(f"{read.__name__}: {min(times):.2f} ms")
            assert min(times) < 20.0, read.__name__
    finally:
        await router.stop()


async def test_relayed_gossip_of_a_self_styled_peer_is_not_trusted(
    router: MeshRouter, tmp_path: Path
) -> None:
    """The owner lists an id; a mesh peer that nobody confirmed calls itself so, and signs."""
    router.write("wireguard-uplink", CONFIG + "\tlist trusted_peer 'nodec'\n")
    service = router.daemon
    await service.uplinks.reload()
    impostor = Signer.load(str(tmp_path / "impostor.seed"))
    peer = router.peer("10.9.0.4")
    said = {"type": "uplink_identity", "peer_id": "nodec", "identity": impostor.key}
    assert router.daemon.peers.heard(peer, said)
    message = impostor.sign(offer("nodec", sequence=5))
    assert service.uplink_methods.uplink_gossip(message, origin="nodeb").accepted
    listed = {row.peer_id: row for row in service.status.uplink_list().offers}["nodec"]
    assert (listed.trusted, listed.usable) == (False, False)
    assert "trust accept nodec" in listed.reason
    with pytest.raises(NotTrusted):
        await service.adding.add("nodec")


# --- a stranger who goes by the id of what the owner wrote by hand

FRIEND = f"""\
	list trusted_peer 'friend'

config uplink 'wgup_friend'
	option peer_id 'friend'
	option endpoint_host '192.0.2.77'
	option public_key '{key_of("friend")}'
	list address '10.6.0.2/32'
"""


async def stranger_speaks(router: MeshRouter, peer_id: str, **changes: Any) -> MeshPeer:
    """The mesh peer at 10.9.0.4, whom nobody knows, says that he is this one and offers."""
    peer = router.peer("10.9.0.4")
    router.daemon.agent._on_identity(peer, {"type": "uplink_identity", "peer_id": peer_id})
    router.daemon.agent._on_offer(peer, offer(peer_id, **changes))
    await router.daemon.agent.follow_mesh()
    await router.daemon.agent._announce_config()
    await router.daemon.events.publish_and_wait(TrustChanged())
    router.daemon.automatic.judge_terms()
    return peer


async def test_a_stranger_by_its_id_does_not_weaken_a_hand_made_uplink(
    router: MeshRouter,
) -> None:
    router.write("wireguard-uplink", CONFIG + FRIEND)
    service = router.daemon
    await service.uplinks.reload()
    watched = service.monitor.watch.uplinks
    assert [uplink.peer_id for uplink in watched] == ["friend"]
    router.daemon.upstream.tokens = ("isp=ours",)
    peer = await stranger_speaks(
        router, "friend", metered=True, price_per_gb=9.0, egress="isp=ours", sequence=9
    )
    assert router.daemon.peers.distrust_reason("friend") == ""
    assert service.monitor.watch.uplinks == watched
    assert service.monitor.terms == {} and not service.monitor.same_wan
    [row] = (await router.call("uplink_list"))["offers"]
    assert (row["peer_id"], row["trusted"], row["usable"]) == ("friend", False, False)
    # What a program of this router hands in counts, and a stranger neither changes nor ends it.
    await router.call("uplink_gossip", message=offer("friend", sequence=10))
    router.daemon.automatic.judge_terms()
    terms = dict(service.monitor.terms)
    assert terms["wgup_friend"].bandwidth_mbps == 100
    await stranger_speaks(router, "friend", metered=True, sequence=11)
    router.daemon.agent._on_offer(peer, None)
    router.daemon.automatic.judge_terms()
    assert service.monitor.terms == terms
    assert service.offers.names["friend"].carrier == "bus"


async def test_given_values_are_used_as_given(router: MeshRouter) -> None:
    """A stranger would even grant a lease; and so would a peer of the owner's, by another key."""
    router.write("wireguard-uplink", CONFIG + "\tlist trusted_peer 'friend'\n")
    service = router.daemon
    await service.uplinks.reload()
    await stranger_speaks(router, "friend")
    service.offers.forget("friend")
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


async def test_min_uplinks_does_not_bring_back_what_the_owner_removed(
    router: MeshRouter,
) -> None:
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
