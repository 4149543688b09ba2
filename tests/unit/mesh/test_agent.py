"""The mesh agent on one router: what follows from the mesh, from trust, from a configuration that
changes, and that reading stays quick whatever peers say.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.errors import CommandFailed, NotTrusted
from rpcd_wireguard_uplink.events import PathsChanged
from rpcd_wireguard_uplink.mesh import agent as agent_module
from rpcd_wireguard_uplink.mesh.offers import Source
from rpcd_wireguard_uplink.mesh.wire.offer import Offer
from rpcd_wireguard_uplink.mesh.wire.signing import Signer
from rpcd_wireguard_uplink.uplinks import automatic
from tests.unit.fakes import Commands, key_of
from tests.unit.mesh_router import CONFIG, GIVEN, MeshRouter, say, stranger_speaks
from tests.unit.router import offer
from tests.unit.waiting import until


async def test_what_a_start_finds_is_no_news(mesh_router: MeshRouter) -> None:
    assert mesh_router.kinds("trust") == []
    assert not mesh_router.daemon.peers.distrust_reason("nodea")
    assert "not trusted" in mesh_router.daemon.peers.distrust_reason("nodeb")


async def test_trust_that_its_owner_takes_back_takes_the_offer(mesh_router: MeshRouter) -> None:
    """By an edit of the file, without a call: nothing was told of this peer before."""
    await say(mesh_router)
    await mesh_router.call("uplink_add", peer_id="nodea", **GIVEN)
    mesh_router.write(
        "wireguard-uplink", mesh_router.text("wireguard-uplink").replace("trusted_peer", "line")
    )
    await mesh_router.daemon.uplinks.reload()
    assert (await mesh_router.call("uplink_list"))["offers"] == []
    assert mesh_router.kinds("trust") == ["untrusted"]
    assert mesh_router.daemon.monitor.watch.uplinks == ()
    assert [u.peer_id for u in mesh_router.daemon.store.current.uplinks] == ["nodea"]


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


async def test_an_offer_that_trips_the_watch_does_not_stop_the_probes(
    mesh_router: MeshRouter, mocker: MockerFixture
) -> None:
    mocker.patch.object(mesh_router.daemon.own_offer, "watch", side_effect=KeyError("a secret"))
    mesh_router.daemon.events.publish(PathsChanged())
    problems = (await mesh_router.call("uplink_status"))["problems"]
    assert any(
        "following PathsChanged failed unexpectedly (KeyError" in problem for problem in problems
    )
    assert not any("secret" in problem for problem in problems)


async def test_a_mesh_that_cannot_be_read_stops_nothing(tmp_path: Path, commands: Commands) -> None:
    router = MeshRouter(tmp_path, commands)
    commands.answers["wg show all dump"] = CommandFailed("not installed")
    await router.start()
    try:
        problems = (await router.call("uplink_status"))["problems"]
        assert any("the mesh can't be read: not installed" in problem for problem in problems)
    finally:
        await router.stop()


async def test_no_such_offer_at_a_peer_takes_the_one_that_was_known(
    mesh_router: MeshRouter,
) -> None:
    await say(mesh_router)
    peer = mesh_router.daemon.peers.directory.named("nodea")
    assert peer is not None
    mesh_router.daemon.agent._on_offer(peer, None)
    mesh_router.daemon.agent._on_offer(peer, None)
    assert mesh_router.kinds("offer") == ["offer", "withdrawn"]


async def test_a_stranger_on_the_mesh_goes_by_no_name(mesh_router: MeshRouter) -> None:
    peer = mesh_router.peer("10.9.0.4")
    mesh_router.daemon.agent._on_offer(peer, offer("nodea"))
    mesh_router.daemon.agent._on_identity(peer, {"type": "uplink_identity", "peer_id": "me"})
    mesh_router.daemon.agent._on_identity(peer, {"type": "uplink_identity", "peer_id": "nodea"})
    mesh_router.daemon.agent._on_identity(peer, {"nonsense": 1})
    assert not mesh_router.daemon.offers.names
    assert mesh_router.refused == {"own_id": 1, "other_peer": 1, "invalid_argument": 1}


async def test_1000_offers_and_60_uplinks_are_read_without_a_wait(
    tmp_path: Path, commands: Commands
) -> None:
    """About as long as writing the longest reply as JSON takes, which is tried in turns with it:
    some milliseconds on a PC. The best of several runs counts.
    """
    router = MeshRouter(tmp_path, commands, peers=200)
    sections = "".join(
        f"\nconfig uplink 'wgup_u{n}'\n\toption peer_id 'u{n}'\n"
        f"\toption endpoint_host '192.0.2.{n + 1}'\n\toption public_key '{key_of(f'u{n}')}'\n"
        f"\toption own_public_key '{key_of(f'o{n}')}'\n\tlist address '10.5.0.{n + 1}/32'\n"
        for n in range(60)
    )
    router.write("wireguard-uplink", CONFIG + sections)
    for n in range(60):
        (tmp_path / "keys" / f"wgup_u{n}").write_text(key_of(f"private {n}"))
    service = await router.start()
    assert len(service.store.current.uplinks) == 60
    heard = Offer(peer_id="", host="192.0.2.9", public_key=key_of("k"), received_s=time.monotonic())
    for number in range(1000):
        name = f"p{number}" if number > 60 else f"u{number}"
        carrier = "mesh" if number % 2 else "mqtt"
        service.offers.accept(heard.replaced(peer_id=name, carrier=carrier), Source.DIRECT)
    status, trust = service.status, service.trust_methods
    longest = status.uplink_list().as_table()
    try:
        for read in (status.uplink_list, status.uplink_status, trust.uplink_trust):
            reading, writing = [], []
            for _ in range(6):
                begun_s = time.process_time()
                read().as_table()
                read_s = time.process_time()
                json.dumps(longest)
                reading.append(read_s - begun_s)
                writing.append(time.process_time() - read_s)
            assert min(reading) < 6.0 * min(writing), read.__name__
    finally:
        await router.stop()


async def test_relayed_gossip_of_a_self_styled_peer_is_not_trusted(
    mesh_router: MeshRouter, tmp_path: Path
) -> None:
    """The owner lists an id; a mesh peer that nobody confirmed calls itself so, and signs."""
    mesh_router.write("wireguard-uplink", CONFIG + "\tlist trusted_peer 'nodec'\n")
    service = mesh_router.daemon
    await service.uplinks.reload()
    impostor = Signer.load(str(tmp_path / "impostor.seed"))
    peer = mesh_router.peer("10.9.0.4")
    said = {"type": "uplink_identity", "peer_id": "nodec", "identity": impostor.key}
    assert mesh_router.daemon.peers.heard(peer, said)
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


async def test_a_stranger_by_its_id_does_not_weaken_a_hand_made_uplink(
    mesh_router: MeshRouter,
) -> None:
    mesh_router.write("wireguard-uplink", CONFIG + FRIEND)
    service = mesh_router.daemon
    await service.uplinks.reload()
    watched = service.monitor.watch.uplinks
    assert [uplink.peer_id for uplink in watched] == ["friend"]
    mesh_router.daemon.upstream.tokens = ("isp=ours",)
    peer = await stranger_speaks(
        mesh_router, "friend", metered=True, price_per_gb=9.0, egress="isp=ours", sequence=9
    )
    assert mesh_router.daemon.peers.distrust_reason("friend") == ""
    assert service.monitor.watch.uplinks == watched
    assert service.monitor.terms == {} and not service.monitor.same_wan
    [row] = (await mesh_router.call("uplink_list"))["offers"]
    assert (row["peer_id"], row["trusted"], row["usable"]) == ("friend", False, False)
    # What a program of this router hands in counts, and a stranger neither changes nor ends it.
    await mesh_router.call("uplink_gossip", message=offer("friend", sequence=10))
    mesh_router.daemon.automatic.judge_terms()
    terms = dict(service.monitor.terms)
    assert terms["wgup_friend"].bandwidth_mbps == 100
    await stranger_speaks(mesh_router, "friend", metered=True, sequence=11)
    mesh_router.daemon.agent._on_offer(peer, None)
    mesh_router.daemon.automatic.judge_terms()
    assert service.monitor.terms == terms
    assert service.offers.names["friend"].carrier == "bus"
