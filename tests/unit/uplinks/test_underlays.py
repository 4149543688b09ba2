"""When a tunnel leaves the way of its outer packets, and when it returns to it."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from rpcd_wireguard_uplink.failover.machine import Phase
from rpcd_wireguard_uplink.model import Endpoint, Family, Health, Link
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


async def begun(router: Router) -> Router:
    """With an uplink by the WAN whose peer is a neighbour too, and a WAN that answers."""
    router.machine.towards = {"192.0.2.7": LINE, "172.16.0.2": "mesh0"}
    router.machine.links.append(Link("mesh0", 77))
    router.write("wireguard-uplink", CONFIG + UPLINK)
    await router.daemon.uplinks.reload()
    await router.daemon.underlays.follow()
    await router.daemon.monitor.reread()
    doubt(router, Health.UP)
    router.machine.left.clear()
    return router


def doubt(router: Router, health: Health) -> None:
    for path in router.daemon.monitor.paths.values():
        if path.device == LINE:
            path.health.state = health


async def noticed(router: Router) -> bool:
    """Whether there was anything to do about the paths as they are judged now."""
    work = router.daemon.underlays.notice()
    if work is not None:
        await work
    return work is not None


async def test_a_wan_in_doubt_is_left_once(router: Router) -> None:
    router = await begun(router)
    assert router.machine.known_endpoints[TUNNEL] == (Endpoint("172.16.0.2"),)
    assert not await noticed(router)
    doubt(router, Health.SUSPECT)
    assert await noticed(router)
    doubt(router, Health.DOWN)
    assert not await noticed(router), "the verdict is no news"
    [(names, ways)] = router.machine.left
    assert names == [TUNNEL] and ways == {w for w in WAYS if w in ways} != set()


async def test_a_link_without_carrier_is_a_way_in_doubt(router: Router) -> None:
    router = await begun(router)
    state = router.daemon.monitor.network.state
    links = {i: replace(x, carrier=x.name != "mesh0") for i, x in state.links.items()}
    set_network(router.daemon.monitor.network, links=links)
    assert await noticed(router)
    assert {("mesh0", family) for family in Family} == router.machine.left[0][1]


async def test_who_can_step_aside_does_not_share_the_wans_fate(router: Router) -> None:
    router = await begun(router)
    network = router.daemon.monitor.network
    assert network.state.underlays == {TUNNEL: LINE}
    assert network.state.second_underlays == {TUNNEL: "mesh0"}
    assert not router.daemon.monitor.sharing_underlay()
    router.write("wireguard-uplink", CONFIG + UPLINK.partition("\tlist other")[0])
    await router.daemon.uplinks.reload()
    await router.daemon.underlays.follow()
    await router.daemon.monitor.reread()
    assert router.daemon.monitor.sharing_underlay() == {TUNNEL}
    doubt(router, Health.DOWN)
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
    router = await begun(router)
    monitor, now_s = router.daemon.monitor, time.monotonic()
    router.machine.ways_back[TUNNEL] = (way, Family.IPV4), now_s - 10.0
    for path in monitor.paths.values():
        path.health.last_answer_s = now_s if is_answered else now_s - 11.0
    monitor.states[Family.IPV4] = replace(monitor.states[Family.IPV4], phase=phase)
    doubt(router, Health.DOWN)
    await router.daemon.underlays.follow()
    assert router.machine.returned == ([TUNNEL] if way == "mesh0" or not way else []) * returns
    router.machine.returned.clear()
    doubt(router, Health.UP)
    router.daemon.underlays._take_doubts()
    router.daemon.underlays._well_since_s[LINE, Family.IPV4] = now_s - well_s
    await router.daemon.underlays.follow()
    assert router.machine.returned == [TUNNEL] * returns
