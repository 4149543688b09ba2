"""When a tunnel leaves the way of its outer packets, and when it returns to it."""

from __future__ import annotations

import copy
import time
from dataclasses import replace

import pytest
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.config.probe_profile import DEFAULT_PROFILE
from rpcd_wireguard_uplink.failover.detector import PathHealth
from rpcd_wireguard_uplink.failover.machine import Phase
from rpcd_wireguard_uplink.model import Endpoint, Family, Health
from rpcd_wireguard_uplink.uplinks.underlays import Silence
from tests.unit.fakes import key_of, set_network
from tests.unit.router import CONFIG, LINE, Router

TUNNEL = "wgup_nodea"
UPLINK = f"""
config uplink '{TUNNEL}'
	option peer_id 'nodea'
	option endpoint_host '192.0.2.7'
	option public_key '{key_of("a")}'
	list other_endpoint '172.16.0.2:51820'
"""
WAYS = frozenset((LINE, family) for family in Family)


@pytest.fixture
async def router(router: Router) -> Router:
    """With a tunnel by its WAN, which answers, to a peer that is a neighbour too."""
    await router.with_neighbour(CONFIG + UPLINK)
    router.judge(LINE, Health.UP)
    router.machine.left.clear()
    return router


async def noticed(router: Router) -> bool:
    """Whether there was anything to do about the paths as they are judged now."""
    work = router.daemon.underlays.notice()
    if work is not None:
        await work
    return work is not None


async def test_a_wan_in_doubt_is_left_once(router: Router) -> None:
    assert router.machine.known_endpoints[TUNNEL] == (Endpoint("172.16.0.2"),)
    assert not await noticed(router)
    router.judge(LINE, Health.SUSPECT)
    assert await noticed(router)
    router.judge(LINE, Health.DOWN)
    assert not await noticed(router), "the verdict is no news"
    [(names, ways)] = router.machine.left
    assert names == [TUNNEL] and ways and ways <= WAYS


async def test_a_link_without_carrier_is_a_way_in_doubt(router: Router) -> None:
    state = router.daemon.monitor.network.state
    links = {i: replace(x, carrier=x.name != "mesh0") for i, x in state.links.items()}
    set_network(router.daemon.monitor.network, links=links)
    assert await noticed(router)
    assert {("mesh0", family) for family in Family} == router.machine.left[0][1]


async def test_who_can_step_aside_does_not_share_the_wans_fate(router: Router) -> None:
    network = router.daemon.monitor.network
    assert network.state.underlays == {TUNNEL: LINE}
    assert network.state.second_underlays == {TUNNEL: "mesh0"}
    assert not router.daemon.monitor.sharing_underlay()
    router.write("wireguard-uplink", CONFIG + UPLINK.partition("\tlist other")[0])
    await router.daemon.uplinks.reload()
    await router.daemon.underlays.follow()
    await router.daemon.monitor.reread()
    assert router.daemon.monitor.sharing_underlay() == {TUNNEL}
    router.judge(LINE, Health.DOWN)
    assert not await noticed(router), "it has nowhere to go"


@pytest.mark.parametrize(
    ("way", "is_answered", "phase", "well_s", "returns"),
    [
        ("", True, Phase.PRIMARY, 99.0, False),  # no route
        (LINE, True, Phase.PRIMARY, 99.0, True),
        (LINE, True, Phase.PRIMARY, 29.0, False),  # the hold time is 30 s
        (LINE, True, Phase.HOLDING, 99.0, False),
        ("mesh0", True, Phase.HOLDING, 99.0, True),
        (LINE, False, Phase.HOLDING, 0.0, True),  # nothing was heard by the other way
    ],
)
async def test_the_way_back(
    router: Router, way: str, is_answered: bool, phase: Phase, well_s: float, returns: bool
) -> None:
    monitor, now_s = router.daemon.monitor, time.monotonic()
    router.machine.ways_back[TUNNEL] = (way, Family.IPV4), now_s - 10.0
    for path in monitor.paths.values():
        path.health.last_answer_s = now_s if is_answered else now_s - 11.0
    monitor.states[Family.IPV4] = replace(monitor.states[Family.IPV4], phase=phase)
    router.judge(LINE, Health.DOWN)
    await router.daemon.underlays.follow()
    assert router.machine.returned == ([TUNNEL] if way == "mesh0" or not way else []) * returns
    router.machine.returned.clear()
    router.judge(LINE, Health.UP)
    router.daemon.underlays._take_doubts()
    router.daemon.underlays._well_since_s[LINE, Family.IPV4] = now_s - well_s
    await router.daemon.underlays.follow()
    assert router.machine.returned == [TUNNEL] * returns


def silence(router: Router, losses: int, losses6: int) -> None:
    """So many of the tunnel's probes were lost since the last answer, in IPv4 and IPv6."""
    paths = router.daemon.monitor.paths
    if (TUNNEL, Family.IPV6) not in paths:
        paths[TUNNEL, Family.IPV6] = copy.copy(paths[TUNNEL, Family.IPV4])
        paths[TUNNEL, Family.IPV6].health = PathHealth(DEFAULT_PROFILE, ("::1",))
    for family, lost in zip(Family, (losses, losses6), strict=True):
        health = paths[TUNNEL, family].health
        health.last_answer_s, health._row_lost = time.monotonic(), lost


async def test_a_tunnel_that_falls_silent_by_a_good_way_tries_the_other(
    router: Router, mocker: MockerFixture
) -> None:
    now_s = time.monotonic()
    clock = mocker.patch("rpcd_wireguard_uplink.uplinks.underlays.time")
    clock.monotonic.return_value = now_s
    for losses in ((2, 2), (3, 0)):
        silence(router, *losses)
        assert not await noticed(router)
    silence(router, 3, 1)
    assert await noticed(router) and not await noticed(router)
    (_, ways), (names, left) = router.machine.left
    assert ways == frozenset() and names == [TUNNEL] and left == {(LINE, Family.IPV4)}
    router.machine.ways_back[TUNNEL] = (LINE, Family.IPV4), now_s - 99.0
    for after_s, returns, leaves in (
        (59.0, False, False),
        (61.0, True, True),  # it returns, and is silent at once
        (61.0 + 119.0, False, False),
        (61.0 + 121.0, True, True),  # for so much longer
    ):
        clock.monotonic.return_value = now_s + after_s
        router.machine.returned.clear()
        await router.daemon.underlays.follow()
        assert (router.machine.returned == [TUNNEL]) == returns
        assert (await noticed(router)) == leaves


async def test_a_tunnel_that_is_silent_by_a_wan_in_doubt_says_nothing_of_it(router: Router) -> None:
    router.judge(LINE, Health.SUSPECT)
    silence(router, 9, 9)
    assert await noticed(router)
    router.judge(LINE, Health.UP)
    silence(router, 0, 0)
    await noticed(router)
    assert router.daemon.underlays._silent == {}


async def test_a_silence_may_end_while_others_leave_theirs(router: Router) -> None:
    second = UPLINK.replace("nodea", "nodeb").replace(key_of("a"), key_of("b"))
    await router.with_neighbour(CONFIG + UPLINK + second)
    underlays, names = router.daemon.underlays, [TUNNEL, "wgup_nodeb"]
    until_s = time.monotonic() + 60.0
    silent = Silence((LINE, Family.IPV4), until_s, 60.0)

    async def leave(leaving: list[str], *_: object) -> bool:
        if leaving == names[:1]:
            del underlays._silent[names[1]]
        return False

    router.machine.leave_ways = leave  # type: ignore[method-assign]
    underlays._silent.update(dict.fromkeys(names, silent))
    await underlays.follow()
    assert underlays._silent.keys() == {TUNNEL}
