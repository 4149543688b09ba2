"""Rehearsals without packets: what counts as well, and who may be drilled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from pytest_mock import MockerFixture

from docs.schemas import check_reply
from rpcd_wireguard_uplink.api.methods import METHODS
from rpcd_wireguard_uplink.api.replies import DrillStep
from rpcd_wireguard_uplink.config.options import Settings
from rpcd_wireguard_uplink.errors import NotFound, NotSupported, NotTrusted, UplinkError
from rpcd_wireguard_uplink.extras import drill
from rpcd_wireguard_uplink.extras.drill import Drills, rehearse
from rpcd_wireguard_uplink.failover.machine import Phase
from rpcd_wireguard_uplink.failover.monitor import Monitor
from rpcd_wireguard_uplink.mesh.registry.peers import Peers
from rpcd_wireguard_uplink.model import Family, Link, PeerCounters
from rpcd_wireguard_uplink.probing import tunnel_test
from rpcd_wireguard_uplink.system.network import Wans
from tests.unit.choices import Choices, offer_of, uplink_of
from tests.unit.fakes import Commands, Machine, key_of, set_network
from tests.unit.router import CONFIG, Router

Result = tunnel_test.Tested  # pytest would take the name for a test class
GOOD = Result(5, 5, 21.0, 0.0)
LOST = Result(5, 0)
UPLINK = replace(uplink_of("nodeA"), resolvers=("9.9.9.9",))
SETTINGS = Settings(targets=("192.0.2.1", "192.0.2.2", "2001:db8::1"), resolvers=("1.1.1.1",))


def router(tmp_path: Path, handshake_age_s: float | None = 12.0, mtu: int = 1420) -> Monitor:
    """A router with lines in both families and a tunnel to nodeA."""
    monitor = Choices.lay(tmp_path, [UPLINK]).monitor
    counted = PeerCounters("k", "192.0.2.7:1", handshake_age_s, 0, 0)
    machine_of(monitor).counters = {"wgup_nodea": counted}
    set_network(monitor.network, links={7: Link("wgup_nodea", 7, 51, mtu=mtu)})
    return monitor


def machine_of(monitor: Monitor) -> Machine:
    return cast(Machine, monitor.platform)


async def steps(monitor: Monitor, *tokens: str) -> dict[str, DrillStep]:
    offer = offer_of("nodeA", egress=tokens)
    return {step.step: step for step in await rehearse(UPLINK, SETTINGS, monitor, offer)}


async def test_all_is_well(tmp_path: Path, mocker: MockerFixture) -> None:
    tests = mocker.patch.object(drill, "run_test", return_value=GOOD)
    mocker.patch.object(drill, "ask", return_value=[(6, b"")])
    found = await steps(router(tmp_path), "addr=203.0.113.5", "addr=2001:db8:100::", "gw=x")
    assert [(step.step, step.ok, step.told) for step in found.values()] == [
        ("tunnel", True, "the last handshake was 12 s ago"),
        ("ipv4", True, "5 of 5 probes were answered, 21 ms"),
        ("ipv6", True, "5 of 5 probes were answered, 21 ms"),
        ("dns", True, "9.9.9.9 answers"),
        ("mtu", True, "packets of 1420 bytes pass"),
        ("exit", True, "the internet sees 203.0.113.5, says nodeA"),
    ]
    sized = [call.args for call in tests.call_args_list if call.args[3]]
    assert sized == [("wgup_nodea", "192.0.2.1", 2, 1420), ("wgup_nodea", "192.0.2.2", 2, 1420)]
    assert {call.args[0] for call in tests.call_args_list} == {"wgup_nodea"}


async def test_nothing_is_well(tmp_path: Path, mocker: MockerFixture) -> None:
    mocker.patch.object(drill, "run_test", return_value=LOST)
    mocker.patch.object(drill, "ask", return_value=None)
    found = await steps(router(tmp_path, None))
    assert [(step.step, step.ok, step.told) for step in found.values()] == [
        ("tunnel", False, "no handshake with 192.0.2.7:1 yet"),
        ("ipv4", False, "0 of 5 probes were answered"),
        ("ipv6", False, "0 of 5 probes were answered"),
        ("dns", False, "no answer, from 9.9.9.9, 1.1.1.1"),
        ("mtu", False, "packets of 1420 bytes don't pass"),
    ]
    monitor = router(tmp_path)
    machine_of(monitor).counters = {}
    assert (await steps(monitor))["tunnel"].told == "wgup_nodea is not there"


async def test_a_family_without_a_line_is_not_tried(tmp_path: Path, mocker: MockerFixture) -> None:
    mocker.patch.object(drill, "run_test", return_value=LOST)
    mocker.patch.object(drill, "ask", return_value=None)
    monitor = router(tmp_path)
    set_network(monitor.network, wans={**monitor.network.state.wans, Family.IPV6: Wans()})
    assert list(await steps(monitor)) == ["tunnel", "ipv4", "dns", "mtu"]
    set_network(monitor.network, wans=dict.fromkeys(Family, Wans()))
    assert list(await steps(monitor)) == ["tunnel", "dns"]


async def test_one_target_or_resolver_that_answers_is_enough(
    tmp_path: Path, mocker: MockerFixture
) -> None:
    async def run_test(device: str, target: str, count: int, size: int = 0) -> Result:
        return GOOD if target == "192.0.2.2" else LOST

    async def ask(server: str, device: str, name: str, kind: int) -> list[tuple[int, bytes]] | None:
        return [(6, b"")] if server == "1.1.1.1" else []

    mocker.patch.object(drill, "run_test", run_test)
    mocker.patch.object(drill, "ask", ask)
    found = await steps(router(tmp_path, mtu=0))
    assert {name: step.ok for name, step in found.items()} == {
        "tunnel": True,
        "ipv4": True,
        "ipv6": False,
        "dns": True,
    }
    assert found["dns"].told == "1.1.1.1 answers"


@pytest.fixture
async def running(
    tmp_path: Path, commands: Commands, mocker: MockerFixture
) -> AsyncIterator[tuple[Router, Drills]]:
    """A router with an uplink to nodea; tunnels answer nothing, and nothing waits for them."""
    mocker.patch.object(drill, "run_test", return_value=LOST)
    mocker.patch.object(drill, "ask", return_value=None)
    made = Router(tmp_path)
    made.write("wireguard-uplink", CONFIG)
    made.write("network", "")
    daemon = await made.start()
    await made.call(
        "uplink_add", peer_id="nodea", endpoint="192.0.2.7:1", public_key=key_of("provider a")
    )
    yield (
        made,
        Drills(
            daemon.store,
            daemon.monitor,
            daemon.steering,
            daemon.uplinks,
            daemon.offers,
            daemon.peers,
            daemon.events,
        ),
    )
    await made.stop()


async def refusal(drills: Drills, **arguments: object) -> UplinkError:
    with pytest.raises(UplinkError) as caught:
        await drills.uplink_drill(**arguments)  # type: ignore[arg-type]
    return caught.value


async def test_a_drill_is_told_and_kept(running: tuple[Router, Drills]) -> None:
    made, drills = running
    reply = (await drills.uplink_drill()).as_table()
    check_reply(METHODS["uplink_drill"], reply)
    assert reply["message"] == "0 of 1 uplinks passed the drill."
    done = reply["drills"][0]
    assert (done["peer_id"], done["ok"]) == ("nodea", False)
    assert done["note"].startswith("tunnel: wgup_nodea is not there; ipv4: 0 of 5 probes")
    event = (await made.call("uplink_history", limit=1))["events"][0]
    assert (event["kind"], event["peer_id"]) == ("drill_failed", "nodea")
    assert made.events[-1][0] == "wireguard-uplink.drill"
    await made.call("uplink_explain")
    await made.call("uplink_simulate", fail=["nodea"])


async def test_who_can_not_be_drilled(
    running: tuple[Router, Drills], mocker: MockerFixture
) -> None:
    made, drills = running
    found = await refusal(drills, peer_id="nodeb")
    assert (type(found), found.code) == (NotFound, "no_uplink")
    distrusting = mocker.patch.object(Peers, "distrust_reason", return_value="it is not trusted")
    assert type(await refusal(drills, peer_id="nodea")) is NotTrusted
    mocker.stop(distrusting)
    found = await refusal(drills, peer_id="nodea", all_traffic=True)
    assert (type(found), found.code) == (NotSupported, "no_usable_uplink")
    await made.call("uplink_remove", peer_id="nodea")
    found = await refusal(drills)
    assert (type(found), found.code) == (NotFound, "no_uplink")


async def test_no_drill_with_all_traffic_in_an_outage(running: tuple[Router, Drills]) -> None:
    made, drills = running
    states = made.daemon.monitor.states
    states[Family.IPV4] = replace(states[Family.IPV4], phase=Phase.FAILED_OVER)
    assert (await refusal(drills, all_traffic=True)).code == "failed_over"
    assert (await drills.uplink_drill()).success, "the harmless kind touches nothing"


async def test_one_drill_at_a_time(running: tuple[Router, Drills], mocker: MockerFixture) -> None:
    _, drills = running
    going_on = asyncio.Event()

    async def ask(*_: object) -> None:
        await going_on.wait()

    mocker.patch.object(drill, "ask", ask)
    first = asyncio.create_task(drills.uplink_drill())
    await asyncio.sleep(0)
    assert (await refusal(drills)).code == "drill_running"
    going_on.set()
    assert (await first).success
    assert (await drills.uplink_drill()).success
