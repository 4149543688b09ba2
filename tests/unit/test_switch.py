"""The lane's keeper over a lane that only listens: order, retries, and what is told when."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import pytest
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink import switch as switch_module
from rpcd_wireguard_uplink.errors import CommandFailed
from rpcd_wireguard_uplink.failover import Change
from rpcd_wireguard_uplink.landscape import Landscape
from rpcd_wireguard_uplink.model import DefaultRoute, Endpoint, Family, Link, Tunnel, Uplink
from rpcd_wireguard_uplink.routing.lane import Lane, Opening
from rpcd_wireguard_uplink.routing.resolvers import TunnelResolvers
from rpcd_wireguard_uplink.switch import Switch
from tests.unit.fakes import Commands, Machine, replace_commands

V4, V6 = Family.IPV4, Family.IPV6
UPLINK = Uplink("nodea", "wgup_a", Endpoint("192.0.2.9"), "key", ("10.0.0.1/32",))
OPENING = Opening(V4, ("wan",), DefaultRoute(V4, "wgup_a"))
OVER = Change("failover", "wan", "wgup_a", "dead", 1.0)
BACK = Change("failback", "wgup_a", "wan", "alive", 1.0)


@dataclass
class FakeLane:
    """Records what is asked of it; `failures` makes the next moves or refreshes fail."""

    openings: dict[Family, Opening] = field(default_factory=dict)
    standing: dict[Family, Opening] = field(default_factory=dict)
    calls: list[tuple[object, ...]] = field(default_factory=list)
    failures: int = 0
    redirect: str = ""
    scripts: list[str] = field(default_factory=list)
    kept: set[Family] = field(default_factory=set)

    def _note(self, *call: object) -> None:
        self.calls.append(call)
        if self.failures and call[0] in ("move", "refresh"):
            self.failures -= 1
            raise CommandFailed("nft is busy")

    async def read_standing(self) -> dict[Family, Opening]:
        return dict(self.standing)

    async def stand(self, tunnels: object, lines: object, onlink: object, more: str) -> None:
        self._note("stand", tuple(cast(Sequence[str], tunnels)))
        self.redirect = more

    async def move(
        self, wanted: Mapping[Family, Opening | None], more: str, kept: Collection[Family]
    ) -> None:
        self._note("move", dict(wanted))
        self.scripts.append(more)
        self.kept = set(kept)
        for family, opening in wanted.items():
            self.openings.pop(family, None)
            if opening is not None:
                self.openings[family] = opening

    async def refresh(self, more: str = "") -> None:
        self._note("refresh")
        self.scripts.append(more)

    async def remove(self) -> None:
        self.openings.clear()
        self._note("remove")

    async def set_underlay(self, family: Family, routes: Sequence[DefaultRoute]) -> None:
        self._note("underlay", family, [route.device for route in routes])

    async def forget_flows(self, family: Family, addresses: Sequence[str]) -> None:
        self._note("forget", family, list(addresses))

    def verbs(self) -> list[object]:
        return [call[0] for call in self.calls]


@dataclass
class Bench:
    """A switch, its lane, and what was reported."""

    switch: Switch
    lane: FakeLane
    problems: dict[str, str]
    told: list[tuple[str, Family, int, int]]
    commands: Commands
    machine: Machine

    def redirects(self) -> list[str]:
        """What was laid since the table stands, besides it."""
        return self.commands.inputs("nft -f -")

    async def settle(self) -> None:
        """Have what is wanted carried out."""
        task = asyncio.create_task(self.switch.follow())
        try:
            async with asyncio.timeout(20):
                while self.switch._kicked.is_set():
                    await asyncio.sleep(0.005)
                await asyncio.sleep(0.02)
        finally:
            task.cancel()

    async def until(self, count: int) -> None:
        """Follow until so many changes were told."""
        task = asyncio.create_task(self.switch.follow())
        try:
            async with asyncio.timeout(20):
                while len(self.told) < count:
                    await asyncio.sleep(0.005)
                await asyncio.sleep(0.02)
        finally:
            task.cancel()


@pytest.fixture
async def bench(tmp_path: Path, mocker: MockerFixture) -> Bench:
    mocker.patch.object(switch_module, "RETRY_S", 0.02)
    mocker.patch.object(switch_module, "REFRESH_S", 0.01)
    machine = Machine(str(tmp_path))
    machine.routes[V4] = [DefaultRoute(V4, "wan", "", 1), DefaultRoute(V4, "wwan", "", 2)]
    machine.addresses["wan"] = ["198.51.100.2/24", "2001:db8::2/64"]
    machine.addresses["wgup_a"] = ["10.0.0.1/32"]
    landscape = Landscape(machine)
    await landscape.reread([UPLINK])
    lane, told = FakeLane(), list[tuple[str, Family, int, int]]()
    problems: dict[str, str] = {}

    def report(change: Change, family: Family, detection_ms: int, switch_ms: int) -> None:
        told.append((change.kind, family, detection_ms, switch_ms))

    switch = Switch(cast(Lane, lane), landscape, report, problems, (UPLINK,))
    return Bench(switch, lane, problems, told, replace_commands(mocker), machine)


async def test_outer_packets_first_then_traffic_then_old_flows(bench: Bench) -> None:
    bench.switch.dead[V4] = {"wan"}
    bench.switch.want(V4, OPENING, OVER, 300)
    await bench.until(1)
    assert bench.lane.calls == [
        ("underlay", V4, ["wwan", "wan"]),
        ("underlay", V6, []),
        ("move", {V4: OPENING}),
        ("forget", V4, ["198.51.100.2/24"]),
    ]
    [(kind, family, detection_ms, switch_ms)] = bench.told
    assert (kind, family, detection_ms) == ("failover", V4, 300)
    assert switch_ms >= 0


async def test_what_fails_is_tried_again_and_told_once(bench: Bench) -> None:
    bench.lane.failures = 2
    bench.switch.want(V4, OPENING, OVER, 300)
    task = asyncio.create_task(bench.switch.follow())
    async with asyncio.timeout(20):
        while not bench.problems:
            await asyncio.sleep(0.001)
    assert bench.told == [], "what is not in force is not told"
    assert "nft is busy" in " ".join(bench.problems.values())
    task.cancel()
    bench.switch._kicked.set()
    await bench.until(1)
    assert bench.lane.verbs().count("move") == 3
    assert len(bench.told) == 1
    assert bench.problems == {}
    assert bench.lane.openings == {V4: OPENING}


async def test_the_newest_wish_counts(bench: Bench) -> None:
    """Over and back before the lane moved: nothing moves, and both are told."""
    bench.switch.want(V4, OPENING, OVER, 300)
    bench.switch.want(V4, None, BACK, -1)
    await bench.until(2)
    assert "move" not in bench.lane.verbs()
    assert [kind for kind, *_ in bench.told] == ["failover", "failback"]


async def test_both_families_move_at_once(bench: Bench) -> None:
    other = Opening(V6, ("wan",), DefaultRoute(V6, "wgup_a"))
    bench.switch.want(V4, OPENING, OVER, 300)
    bench.switch.want(V6, other, OVER, 310)
    await bench.until(2)
    moves = [call for call in bench.lane.calls if call[0] == "move"]
    assert moves == [("move", {V4: OPENING, V6: other})]


async def test_back_home(bench: Bench) -> None:
    bench.switch.want(V4, OPENING, OVER, 300)
    await bench.until(1)
    bench.lane.calls.clear()
    bench.switch.want(V4, None, BACK, -1)
    await bench.until(2)
    assert bench.lane.calls[-2:] == [("move", {V4: None}), ("forget", V4, ["10.0.0.1/32"])]


async def test_look_ups_go_where_the_traffic_goes(bench: Bench, mocker: MockerFixture) -> None:
    """To the active tunnel's own resolver if that is good, else to a public one."""
    heavy = replace(UPLINK, peer_id="nodeb", interface="wgup_b", weight=50, resolvers=("10.9.0.1",))
    light = replace(UPLINK, resolvers=("10.7.0.1",))
    bench.switch.resolvers = ("1.1.1.1", "2606:4700:4700::1111")
    bench.switch._inside = {"wgup_a": ("10.7.0.1",), "wgup_b": ("10.9.0.1", "fd09::1")}
    await bench.switch.stand([light, heavy])
    assert "dnat ip to 10.9.0.1" in bench.lane.redirect, "the likeliest, ahead of the switch"
    assert "dnat ip6 to fd09::1" in bench.lane.redirect
    assert "10.7.0.1" in bench.lane.redirect, "what another tunnel's resolver is asked moves too"
    bench.switch.want(V4, Opening(V4, ("wan",), DefaultRoute(V4, "wgup_b")), OVER, 300)
    await bench.until(1)
    assert bench.redirects() == [], "nothing more to do in a switch that was foreseen"
    bench.switch.want(V4, OPENING, OVER, 300)
    await bench.until(2)
    assert "dnat ip to 10.7.0.1" in bench.redirects()[-1]
    assert "dnat ip6 to fd09::1" in bench.redirects()[-1]
    bench.switch.want(V4, Opening(V4, ("wan",), DefaultRoute(V4, "wwan")), OVER, 300)
    await bench.until(3)
    assert "dnat ip to 1.1.1.1" in bench.redirects()[-1]


async def test_a_dead_family_without_a_lane_is_rejected(bench: Bench) -> None:
    bench.switch.landscape.lines[V6].known["wan"] = DefaultRoute(V6, "wan")
    bench.switch.dead[V6] = {"wan", "wgup_a"}
    await bench.switch.stand([UPLINK])
    assert '"wan"' not in bench.lane.redirect, "while no family is in the lane it may be alive"
    bench.switch.want(V4, OPENING, OVER, 300)
    await bench.until(1)
    assert 'oifname { "wan" } ip6 daddr @resolvers6 reject' in bench.redirects()[-1]
    bench.switch.want(V4, None, BACK, -1)
    await bench.until(2)
    assert '"wan"' not in bench.redirects()[-1]


async def test_new_public_resolvers_are_laid(bench: Bench) -> None:
    await bench.switch.stand([UPLINK])
    await bench.settle()
    bench.switch.resolvers = ("9.9.9.9",)
    await bench.switch.stand([UPLINK])
    await bench.settle()
    [laid] = bench.redirects()
    assert "dnat ip to 9.9.9.9" in laid
    assert bench.lane.verbs().count("stand") == 1


async def test_resolvers_are_looked_for_while_no_lane_is_open(
    bench: Bench, mocker: MockerFixture
) -> None:
    mocker.patch.object(switch_module, "RESOLVERS_S", 0.01)
    offered = replace(UPLINK, resolvers=("10.7.0.1",))
    look = mocker.patch.object(TunnelResolvers, "look", return_value={"wgup_a": ("10.7.0.1",)})
    await bench.switch.stand([offered])
    bench.lane.openings[V4] = OPENING
    task = asyncio.create_task(bench.switch.check_resolvers())
    try:
        await asyncio.sleep(0.05)
        look.assert_not_called()
        bench.lane.openings.clear()
        async with asyncio.timeout(20):
            while not look.called:
                await asyncio.sleep(0.005)
        await bench.settle()
        assert "dnat ip to 10.7.0.1" in bench.redirects()[-1]
    finally:
        task.cancel()


async def test_a_portal_stays_on_its_line(bench: Bench) -> None:
    bench.switch.landscape.lines[V4].known["wan"] = DefaultRoute(V4, "wan", "198.51.100.1")
    bench.switch.except_portals({"wan": ["192.0.2.80", "2001:db8::80"]})
    await bench.settle()
    assert bench.commands.inputs("ip -4") == [], "no lane, no exception"
    bench.switch.want(V4, OPENING, OVER, 300)
    await bench.until(1)
    route = "192.0.2.80 via 198.51.100.1 onlink dev wan table 5180"
    assert bench.commands.inputs("ip -4") == [f"route replace {route}\n"]
    assert bench.commands.inputs("ip -6") == []
    bench.switch.except_portals({"wan": ["192.0.2.81"]})
    await bench.settle()
    assert bench.commands.inputs("ip -4")[1].splitlines() == [
        f"route del {route}",
        f"route replace {route.replace('.80', '.81')}",
    ]
    bench.switch.except_portals({})
    await bench.settle()
    assert bench.commands.inputs("ip -4")[2].startswith("route del 192.0.2.81 ")


async def test_an_exception_is_put_back_with_the_table(bench: Bench) -> None:
    await bench.switch.stand([UPLINK])
    bench.switch.except_portals({"wan": ["192.0.2.80"]})
    bench.switch.want(V4, OPENING, OVER, 300)
    await bench.until(1)
    other = replace(UPLINK, peer_id="nodeb", interface="wgup_b")
    await bench.switch.stand([UPLINK, other])
    await bench.settle()
    assert len(bench.commands.inputs("ip -4")) == 2


async def test_a_tunnel_fits_its_underlay(bench: Bench) -> None:
    bench.machine.links = [Link("wan", 2, 0, mtu=1492), Link("wgup_a", 4, 51, mtu=1420)]
    bench.switch.landscape.links = {link.index: link for link in bench.machine.links}
    bench.switch.uplinks = (UPLINK,)
    await bench.switch.follow_underlays({})
    assert bench.machine.steps == [], "its underlay is not known yet"
    bench.machine.tunnels["wgup_a"] = Tunnel("wgup_a", "nodea", "K", endpoint=UPLINK.endpoint)
    bench.machine.towards["192.0.2.9"] = "wan"
    await bench.switch.follow_underlays({})
    assert bench.machine.steps == ["set_mtu wgup_a 1412"]
    bench.switch.landscape.links[4] = Link("wgup_a", 4, 51, mtu=1412)
    await bench.switch.follow_underlays({})
    assert len(bench.machine.steps) == 1, "what fits is left alone"


async def test_an_mtu_that_cannot_be_set_is_told(bench: Bench, mocker: MockerFixture) -> None:
    bench.switch.landscape.links = {2: Link("wan", 2, 0, mtu=1492), 4: Link("wgup_a", 4, 51, mtu=9)}
    bench.switch.landscape.underlays["wgup_a"] = "wan"
    bench.switch.uplinks = (UPLINK,)
    setting = mocker.patch.object(Machine, "set_mtu", side_effect=CommandFailed("busy"))
    await bench.switch.follow_underlays({})
    assert bench.problems == {"mtu wgup_a": "busy"}
    setting.side_effect = None
    await bench.switch.follow_underlays({})
    assert bench.problems == {}


async def test_tunnels_fit_when_outer_packets_move(bench: Bench) -> None:
    """The route towards the endpoint is another one then, and no event says so."""
    bench.switch.landscape.links = {
        n: Link(name, n, group, mtu=mtu)
        for n, name, group, mtu in (
            (2, "wan", 0, 1500),
            (3, "wwan", 0, 1400),
            (4, "wgup_a", 51, 1420),
        )
    }
    bench.machine.tunnels["wgup_a"] = Tunnel("wgup_a", "nodea", "K", endpoint=UPLINK.endpoint)
    bench.machine.towards["192.0.2.9"] = "wwan"
    bench.switch.dead[V4] = {"wan"}
    bench.switch.want(V4, OPENING, OVER, 300)
    await bench.until(1)
    assert bench.machine.steps == ["set_mtu wgup_a 1320"]
    assert bench.switch.landscape.underlays == {"wgup_a": "wwan"}


async def test_being_stranded_moves_nothing(bench: Bench) -> None:
    change = Change("stranded", "wan", "wan", "nothing answers", 1.0)
    bench.switch.want(V4, None, change, 1500)
    await bench.until(1)
    assert bench.told == [("stranded", V4, 1500, -1)]
    assert not {"move", "forget"} & set(bench.lane.verbs())


async def test_an_open_lane_is_renewed_and_nothing_is_told(bench: Bench) -> None:
    """Its gateway changed, say. A lane that is shut is not opened so."""
    better = Opening(V4, ("wan", "wwan"), DefaultRoute(V4, "wgup_a"))
    await bench.switch.stand([UPLINK])
    bench.switch.renew(V4, better)
    assert bench.switch._wanted == {}
    bench.switch.want(V4, OPENING, OVER, 300)
    await bench.until(1)
    bench.switch.renew(V4, OPENING)
    assert not bench.switch._kicked.is_set()
    bench.switch.renew(V4, better)
    await bench.until(1)
    assert bench.lane.openings == {V4: better}
    assert len(bench.told) == 1


async def test_the_standing_part_follows_changes_only(bench: Bench) -> None:
    await bench.switch.stand([UPLINK])
    await bench.switch.stand([UPLINK])
    assert bench.lane.verbs().count("stand") == 1
    other = Uplink("nodeb", "wgup_b", Endpoint("192.0.2.9"), "key", ())
    await bench.switch.stand([UPLINK, other])
    assert bench.lane.calls[-3] == ("stand", ("wgup_a", "wgup_b"))
    await bench.switch.stand([])
    await bench.switch.stand([])
    assert bench.lane.verbs().count("remove") == 1


async def test_an_earlier_run_is_taken_over(bench: Bench) -> None:
    bench.lane.standing = {V4: OPENING}
    assert await bench.switch.take_over() == {V4: OPENING}
    assert bench.lane.openings == {V4: OPENING}
    assert bench.lane.verbs() == ["refresh"]


async def test_a_table_that_somebody_deleted_is_built_anew(bench: Bench) -> None:
    """fw4's reload flushes only its own table, but people type `nft flush ruleset`."""
    bench.switch.want(V4, OPENING, OVER, 300)
    await bench.until(1)
    bench.lane.failures = 1
    rebuilds: list[asyncio.Task[None]] = []

    def rebuild() -> None:
        rebuilds.append(asyncio.create_task(bench.switch.stand([UPLINK])))

    tasks = [
        asyncio.create_task(bench.switch.keep_open(rebuild)),
        asyncio.create_task(bench.switch.follow()),
    ]
    try:
        async with asyncio.timeout(20):
            while bench.lane.verbs().count("move") < 2:
                await asyncio.sleep(0.005)
    finally:
        for task in tasks:
            task.cancel()
    assert len(rebuilds) == 1
    verbs = bench.lane.verbs()
    assert verbs.index("stand") < len(verbs) - 1 - verbs[::-1].index("move")
    assert bench.lane.openings == {V4: OPENING}
    assert len(bench.told) == 1, "the same change is not told twice"


BARRED = {V4: (), V6: ("wan",)}


async def test_what_is_shut_waits_for_the_standing_part_and_is_refreshed(bench: Bench) -> None:
    bench.switch.bar(BARRED)
    assert not bench.switch._kicked.is_set(), "there is no table yet"
    await bench.switch.stand([UPLINK])
    await bench.settle()
    assert 'add element inet wgup barred6 { "wan" timeout 5s }' in bench.lane.scripts[-1]
    bench.switch.bar(dict(BARRED))
    assert not bench.switch._kicked.is_set()
    task = asyncio.create_task(bench.switch.keep_open(lambda: None))
    async with asyncio.timeout(20):
        while "refresh" not in bench.lane.verbs():
            await asyncio.sleep(0.005)
    task.cancel()
    assert 'barred6 { "wan"' in bench.lane.scripts[-1]
    bench.switch.bar({})
    await bench.settle()
    assert "flush set inet wgup barred6" in bench.lane.scripts[-1]
    assert '"wan"' not in bench.lane.scripts[-1]


async def test_opening_and_shutting_off_are_one_transaction(bench: Bench) -> None:
    await bench.switch.stand([UPLINK])
    await bench.settle()
    bench.switch.want(V4, OPENING, OVER, 300)
    bench.switch.bar(BARRED)
    await bench.until(1)
    moves = [call for call in bench.lane.calls if call[0] == "move"]
    assert moves == [("move", {V4: OPENING})]
    assert 'barred6 { "wan"' in bench.lane.scripts[-1]


@pytest.fixture
async def sticky(bench: Bench) -> Bench:
    """Back home by sticky failback."""
    bench.switch.sticky_s = 600.0
    await bench.switch.stand([UPLINK])
    bench.switch.want(V4, OPENING, OVER, 300)
    await bench.until(1)
    bench.lane.calls.clear()
    bench.switch.want(V4, None, BACK, -1)
    await bench.until(2)
    return bench


async def test_connections_stay_on_the_tunnel(sticky: Bench) -> None:
    assert "forget" not in sticky.lane.verbs()
    assert sticky.lane.kept == {V4}, "the lane's route stays"
    assert "keep4 { 0x2000000 timeout 600s" in sticky.lane.scripts[-1]
    assert sticky.switch.carries("wgup_a", V4)
    assert not sticky.switch.carries("wgup_a", V6) and not sticky.switch.carries("wgup_b", V4)


@pytest.mark.parametrize("why", ["time", "dead", "removed"])
async def test_they_end_by_time_with_the_tunnel_or_its_uplink(sticky: Bench, why: str) -> None:
    sticky.lane.calls.clear()
    if why == "time":
        sticky.switch._kept[V4] = ("wgup_a", 0.0)
    elif why == "dead":
        sticky.switch.dead[V4] = {"wgup_a"}
    else:
        other = replace(UPLINK, peer_id="nodeb", interface="wgup_b")
        sticky.switch.uplinks = (other,)
    task = asyncio.create_task(sticky.switch.keep_open(lambda: None))
    async with asyncio.timeout(20):
        while not sticky.switch._kicked.is_set():
            await asyncio.sleep(0.005)
    task.cancel()
    await sticky.settle()
    assert ("move", {V4: None}) in sticky.lane.calls
    assert ("forget", V4, ["10.0.0.1/32"]) in sticky.lane.calls
    assert sticky.lane.kept == set() and "flush map inet wgup keep4" in sticky.lane.scripts[-1]
    assert not sticky.switch.carries("wgup_a", V4)


@pytest.mark.parametrize("to", ["wgup_a", "wwan"])
async def test_a_failover_takes_them_along(sticky: Bench, to: str) -> None:
    sticky.lane.calls.clear()
    sticky.switch.want(V4, Opening(V4, ("wan",), DefaultRoute(V4, to)), OVER, 300)
    await sticky.until(3)
    assert "flush map inet wgup keep4" in sticky.lane.scripts[-1] and sticky.lane.kept == set()
    forgotten = ("forget", V4, ["10.0.0.1/32"]) in sticky.lane.calls
    assert forgotten is (to == "wwan")


async def test_a_dead_tunnel_keeps_nothing(bench: Bench) -> None:
    bench.switch.sticky_s = 600.0
    await bench.switch.stand([UPLINK])
    bench.switch.want(V4, OPENING, OVER, 300)
    await bench.until(1)
    bench.switch.dead[V4] = {"wgup_a"}
    bench.switch.want(V4, None, BACK, -1)
    await bench.until(2)
    assert bench.lane.kept == set()
    assert ("forget", V4, ["10.0.0.1/32"]) in bench.lane.calls
