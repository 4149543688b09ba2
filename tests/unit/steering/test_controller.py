"""The steering controller over a kernel in memory: order, retries, repairs, what is told when."""

from __future__ import annotations

import asyncio
import errno
import sys
import time
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.config.options import Anchor, Settings
from rpcd_wireguard_uplink.errors import CommandFailed
from rpcd_wireguard_uplink.events import Events
from rpcd_wireguard_uplink.failover.machine import (
    Adopted,
    Change,
    Decision,
    Move,
    Moved,
    Phase,
    State,
)
from rpcd_wireguard_uplink.model import (
    INBOUND,
    LED_MARK,
    SLOT_MASK,
    DefaultRoute,
    Endpoint,
    Family,
    Link,
    Tunnel,
    Uplink,
)
from rpcd_wireguard_uplink.platform.network_reader import NetworkReader
from rpcd_wireguard_uplink.steering import controller as module
from rpcd_wireguard_uplink.steering import coordinator, filtering, routing
from rpcd_wireguard_uplink.steering.controller import PlanApplied, SteeringController
from rpcd_wireguard_uplink.steering.coordinator import SteeringCoordinator
from rpcd_wireguard_uplink.steering.filter import early as early_module
from rpcd_wireguard_uplink.steering.filter import table as table_module
from rpcd_wireguard_uplink.steering.plan import (
    DIVERTED_TABLE,
    DIVERTING,
    LAST_TABLE,
    UNDERLAY_TABLE,
    Diversion,
)
from rpcd_wireguard_uplink.steering.rules import SLOT_SHIFT
from rpcd_wireguard_uplink.steering.watchdog import Watchdog
from rpcd_wireguard_uplink.system import nft, proc
from rpcd_wireguard_uplink.system.dns import TunnelResolvers
from rpcd_wireguard_uplink.system.netlink import Message, text
from rpcd_wireguard_uplink.system.nft import Element, OthersChanged, TableDeleted
from rpcd_wireguard_uplink.system.rtnetlink import DELROUTE, NEWROUTE, NEWRULE, Route, Rule
from rpcd_wireguard_uplink.tasks import TaskSet
from rpcd_wireguard_uplink.warnings import Warnings
from tests.unit.fakes import (
    Commands,
    Machine,
    RoutingTables,
    TrackedConnections,
    replace_commands,
    set_network,
)
from tests.unit.steering.lookup import REFUSED, Packet, device_of
from tests.unit.steering.scenes import INDEXES, NAMES, V4, V6, by, connected, hop, ways

UPLINK = Uplink("nodea", "wgup_a", Endpoint("192.0.2.9"), "key", ("10.0.0.1/32",))
OTHER = replace(UPLINK, peer_id="nodeb", interface="wgup_b")
AWAY = Diversion(V4, ("wan",), DefaultRoute(V4, "wgup_a"))
AWAY6 = Diversion(V6, ("wan",), DefaultRoute(V6, "wgup_a"))
TO_WAN2 = Diversion(V4, ("wan",), DefaultRoute(V4, "wan2", "198.51.100.1"))
OVER = Change("failover", "wan", "wgup_a", "dead", 1.0)
BACK = Change("failback", "wgup_a", "wan", "alive", 1.0)
DRILL = Change("drill", "wan", "wgup_a", "asked for", 1.0)
MAIN_ROUTES = {
    V4: [
        by("", hop("wan", "192.0.2.1"), metric=1),
        by("", hop("wan2", "198.51.100.1"), metric=2),
        connected("10.7.0.0/24", "lan"),
        connected("192.0.2.0/24", "wan"),
    ],
    V6: [by("::", hop("wan", "fe80::1"), metric=1), connected("2001:db8:7::/64", "lan")],
}


@dataclass
class Kernel(RoutingTables):
    """A kernel that counts the batches it was given."""

    batches: int = 0

    def change(self, messages: list[Message]) -> list[int]:  # type: ignore[override]
        self.batches += 1
        return super().change(messages)


class Wishing(SteeringCoordinator):
    """Takes parts of the plan one by one, as no decision asks for them."""

    def want(
        self, family: Family, diversion: Diversion | None, change: Change, detection_ms: int
    ) -> None:
        self._divert(family, diversion)
        self.moves = [*getattr(self, "moves", ()), Move(change, family, detection_ms)]

    def renew(self, family: Family, diversion: Diversion | None) -> None:
        self._divert(family, diversion)

    def block(self, blocked: Mapping[Family, tuple[str, ...]]) -> None:
        self._wish = self._wish.filtering(blocked=blocked)

    def bury(self, family: Family, dead: Collection[str]) -> None:
        self._wish = replace(self._wish, dead={**self._wish.dead, family: frozenset(dead)})

    def doubt(self, family: Family, backup: str) -> None:
        """Have new connections leave by a backup; '' to end it."""
        led = {**self._wish.led, family: (backup,)} if backup else self._wish.led
        early = {family: backup} if backup else {}
        self._wish = replace(self._wish, led=led).filtering(early=early)

    def share(self, family: Family, ways: tuple[tuple[str, int], ...]) -> None:
        """Have new connections spread over these paths."""
        led = {**self._wish.led, family: tuple(name for name, _ in ways)} if ways else {}
        wish = replace(self._wish, led=led or self._wish.led)
        self._wish = wish.filtering(spread={family: ways})

    def configure(self, resolvers: tuple[str, ...], drain_s: float) -> None:
        self._wish = self._wish.filtering(public_resolvers=resolvers, drain_s=drain_s)

    def commit(self) -> None:
        moves, self.moves = getattr(self, "moves", []), []
        if self._uplinks is None:
            self.moves = moves
        self._apply(moves)


@dataclass(repr=False)  # asyncio writes down what a fixture returns
class Bench:
    """A controller, its kernel, and what was told."""

    steering: Wishing
    machine: Machine
    kernel: Kernel
    connections: TrackedConnections
    commands: Commands
    problems: Warnings
    events: Events
    told: list[tuple[str, Family, int, int]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    def set_links(self, links: dict[int, Link]) -> None:
        set_network(self.steering._network, links=links)

    @property
    def control(self) -> SteeringController:
        return self.steering.controller

    def scripts(self) -> list[str]:
        return self.commands.inputs("nft -f -")

    def diverted(self, family: Family = V4) -> bool:
        return any(rule.protocol == DIVERTING for rule in self.kernel.rules(family))

    def ours(self) -> list[object]:
        """Every rule and route of ours in the kernel."""
        rules = [r for f in Family for r in self.kernel.rules(f) if r.protocol > 150]
        return [*rules, *(r for f in Family for r in self.kernel.routes(f) if r.protocol > 150)]

    def table(self, number: int, family: Family = V4) -> dict[str, str]:
        return ways([r for r in self.kernel.routes(family) if r.table == number])

    def where(self, to: str = "9.9.9.9", mark: int = 0) -> str:
        family = V6 if ":" in to else V4
        packet = Packet(to, mark=mark)
        found = device_of(packet, self.kernel.rules(family), self.kernel.routes(family))
        return "refused" if found == REFUSED else NAMES.get(found, "nowhere")

    def slot(self, device: str) -> int:
        return self.control.memory.slots[device]

    def mark(self, path: str, also: int = 0) -> int:
        """What leads a connection to this path."""
        return also | self.slot(path) << SLOT_SHIFT

    def forgotten(self) -> list[tuple[Family, str]]:
        """Family and device of each path whose connections were deleted."""
        names = {slot << SLOT_SHIFT: name for name, slot in self.control.memory.slots.items()}
        assert all(mask == INBOUND | SLOT_MASK for *_, mask in self.connections.deleted)
        return [(family, names[mark]) for family, mark, _ in self.connections.deleted]

    @asynccontextmanager
    async def running(self, *works: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(work) for work in works]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()

    def before_scripts(self, mocker: MockerFixture, act: Callable[[str], object]) -> None:
        """Have this done before each script that nftables is given."""
        run = nft.run_script

        async def acted(script: str) -> None:
            act(script)
            await run(script)

        mocker.patch.object(nft, "run_script", acted)

    def decide(self, diversion: Diversion | None, family: Family = V4) -> None:
        """Have a decision carried out, as far as it is at once."""
        self.steering.want(family, diversion, OVER if diversion else BACK, 300 if diversion else -1)
        self.steering.commit()

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.002)

    @property
    def is_kicked(self) -> bool:
        """Whether there is something to do."""
        self.steering.commit()
        return self.control._kicked.is_set()

    async def settle(self) -> None:
        """Have what is wanted carried out."""
        self.steering.commit()
        while self.control._kicked.is_set():
            self.control._kicked.clear()
            await self.control.settle()

    async def divert(self, *wanted: Diversion, change: Change = OVER) -> None:
        for diversion in wanted:
            self.steering.want(diversion.family, diversion, change, 300)
        await self.settle()

    async def go_home(self, family: Family = V4) -> None:
        self.steering.want(family, None, BACK, -1)
        await self.settle()

    def make(self) -> Wishing:
        """Another one, as after a restart."""
        network = self.steering._network
        run_dir = str(Path(self.control.memory.path).parent)
        steering = Wishing(network, run_dir, self.problems, self.events)
        self.events.subscribe(PlanApplied, steering.note_applied)
        return steering

    async def start(self, steering: Wishing) -> Mapping[Family, Adopted]:
        """Start it, and end its tasks at once."""
        found = await steering.start()
        await steering._tasks.close()
        return found


@pytest.fixture
async def bench(tmp_path: Path, mocker: MockerFixture) -> Bench:
    mocker.patch.object(module, "RETRY_S", 0.02)
    mocker.patch.object(module, "REFRESH_S", 0.01)
    mocker.patch.object(module, "BEAT_S", 0.01)
    mocker.patch.object(module, "CALM_S", 0.01)
    mocker.patch.object(module, "SETTLE_S", 0.0)
    mocker.patch.object(proc, "SETTINGS", str(tmp_path))
    mocker.patch.object(routing, "running_managers", return_value=["netifd"])
    words: list[str] = []

    def beat(self: Watchdog, *, armed: bool) -> str:
        words.append("armed" if armed else "calm")
        return ""

    mocker.patch.object(Watchdog, "beat", beat)
    mocker.patch.object(Watchdog, "end", lambda self: words.append("end"))
    kernel, connections = Kernel(), TrackedConnections()
    kernel.found_devices = [Link(name, index) for name, index in INDEXES.items()]
    kernel.found_routes = {family: list(routes) for family, routes in MAIN_ROUTES.items()}
    machine = Machine(str(tmp_path), kernel=kernel, connections=connections)
    machine.links = [Link(name, index, 0) for name, index in INDEXES.items()]
    machine.routes[V4] = [
        DefaultRoute(V4, "wan", "192.0.2.1", 1),
        DefaultRoute(V4, "wan2", "198.51.100.1", 2),
    ]
    machine.routes[V6] = [DefaultRoute(V6, "wan", "fe80::1", 1)]
    machine.addresses["wan"] = ["192.0.2.2/24", "2001:db8::2/64"]
    commands = replace_commands(mocker)
    network = NetworkReader(machine)
    await network.read([UPLINK, OTHER])
    told: list[tuple[str, Family, int, int]] = []
    problems = Warnings()
    events = Events(TaskSet(problems))

    def report(event: Moved) -> None:
        move = event.move
        told.append((move.change.kind, move.family, move.detection_ms, event.switch_ms))

    events.subscribe(Moved, report)
    steering = Wishing(network, str(tmp_path / "run"), problems, events)
    events.subscribe(PlanApplied, steering.note_applied)
    return Bench(steering, machine, kernel, connections, commands, problems, events, told, words)


@pytest.fixture
async def standing(bench: Bench) -> Bench:
    """With the standing part in force."""
    await bench.steering.ensure([UPLINK, OTHER])
    await bench.settle()
    return bench


@pytest.fixture
async def away(standing: Bench) -> Bench:
    """IPv4 diverted to the first uplink."""
    await standing.divert(AWAY)
    assert standing.where() == "wgup_a"
    return standing


# --- over, and back


async def test_the_standing_part_diverts_nothing(standing: Bench) -> None:
    assert standing.where() == "wan" and standing.where("2001:db8:5::1") == "wan"
    assert standing.where(mark=0x51) == "wan"
    assert standing.table(DIVERTED_TABLE)[""] == "wan2 198.51.100.1", "ready in advance"
    assert standing.problems == {} and standing.told == []


async def test_traffic_first_then_old_connections_then_it_is_told(
    standing: Bench, mocker: MockerFixture
) -> None:
    seen: list[str] = []
    delete = standing.connections.delete_marked

    def noted(family: Family, mark: int, mask: int) -> None:
        seen.append(f"forget in {standing.where()}, told {len(standing.told)}")
        delete(family, mark, mask)

    mocker.patch.object(standing.connections, "delete_marked", noted)
    standing.steering.bury(V4, {"wan"})
    await standing.divert(AWAY)
    assert seen == ["forget in wgup_a, told 0"]
    assert standing.forgotten() == [(V4, "wan")]
    assert standing.where() == "wgup_a" and standing.where("10.7.0.9") == "lan"
    assert standing.where(mark=0x51) == "wan2", "outer packets leave the dead WAN in one go"
    assert standing.where("2001:db8:5::1") == "wan", "the other family stays"
    [(kind, family, detection_ms, switch_ms)] = standing.told
    assert (kind, family, detection_ms) == ("failover", V4, 300)
    assert switch_ms >= 1
    assert "diverted { ipv4 timeout" in standing.scripts()[-1]
    assert standing.words[-1] == "armed"


async def test_a_wish_waits_for_the_standing_part(bench: Bench) -> None:
    await bench.divert(AWAY)
    assert bench.told == [] and bench.ours() == []
    await bench.steering.ensure([UPLINK, OTHER])
    await bench.settle()
    assert [kind for kind, *_ in bench.told] == ["failover"]
    assert bench.where() == "wgup_a"


async def test_what_fails_is_tried_again_and_told_once(standing: Bench) -> None:
    standing.kernel.errors[NEWRULE] = errno.ENOMEM
    standing.decide(AWAY)
    async with standing.running(standing.control.follow()):
        await standing.until(lambda: standing.problems)
        assert standing.told == [] and not standing.steering.diversions
        assert "refused the rule" in standing.problems["switch"]
        assert "Cannot allocate memory" in standing.problems["switch"]
        standing.kernel.errors.clear()
        await standing.until(lambda: standing.told)
    await standing.settle()
    assert len(standing.told) == 1
    assert standing.problems == {}
    assert standing.where() == "wgup_a"


async def test_an_nft_that_fails_on_the_way_home_keeps_the_diversion(away: Bench) -> None:
    """No look-up may be led by a WAN to a tunnel's resolver."""
    away.commands.answers["nft"] = CommandFailed("nft is busy")
    away.decide(None)
    async with away.running(away.control.follow()):
        await away.until(lambda: "switch" in away.problems)
        assert away.where() == "wgup_a" and away.steering.diversions == {V4: AWAY}
        away.commands.answers.clear()
        await away.until(lambda: len(away.told) == 2)
    assert away.where() == "wan"


async def test_an_nft_that_fails_on_the_way_out_holds_up_no_traffic(standing: Bench) -> None:
    standing.commands.answers["nft"] = CommandFailed("nft is busy")
    standing.decide(AWAY)
    async with standing.running(standing.control.follow()):
        await standing.until(lambda: "switch" in standing.problems)
        assert standing.where() == "wgup_a"
        assert len(standing.told) == 1
        standing.commands.answers.clear()
        await standing.until(lambda: "switch" not in standing.problems)
    assert len(standing.told) == 1


async def test_the_newest_wish_counts(standing: Bench) -> None:
    """Over and back before anything moved: nothing moves, and both are told."""
    before = standing.ours()
    standing.steering.want(V4, AWAY, OVER, 300)
    standing.steering.want(V4, None, BACK, -1)
    await standing.settle()
    assert standing.ours() == before and standing.connections.deleted == []
    assert [kind for kind, *_ in standing.told] == ["failover", "failback"]


async def test_both_families_move_in_one_change(standing: Bench) -> None:
    """In it is what leads traffic away: the rules. Path tables are next."""
    before, standing.kernel.batches = {*standing.ours()}, 0
    standing.kernel.requests.clear()
    standing.steering.want(V4, AWAY, OVER, 300)
    standing.decide(AWAY6, V6)
    added = {*standing.ours()} - before
    assert {each.protocol for each in added if isinstance(each, Rule)} == {DIVERTING}
    assert not [each for each in added if isinstance(each, Route)], "it was there before"
    kinds = [message.kind for message in standing.kernel.requests]
    assert kinds[-2:] == [NEWROUTE, DELROUTE] and NEWROUTE not in kinds[:-2]
    assert standing.kernel.batches == 2, "wireguard-go, which hears of routes only, is told behind"
    await standing.settle()
    assert standing.kernel.batches == 4
    assert standing.where() == "wgup_a" and standing.where("2001:db8:5::1") == "wgup_a"
    redirected = standing.where("1.1.1.1", mark=standing.mark("wgup_a"))
    assert redirected == "wgup_a", "whatever else is ruled, as `from <the WAN> lookup main`"
    assert set(standing.forgotten()) == {(V4, "wan"), (V6, "wan")}
    assert len(standing.told) == 2


async def test_back_home(standing: Bench) -> None:
    rules = standing.kernel.rules(V4)
    await standing.divert(AWAY)
    standing.connections.deleted.clear()
    await standing.go_home()
    assert standing.where() == "wan" and not standing.diverted()
    assert standing.forgotten() == [(V4, "wgup_a")], "the tunnel's, not the WAN's"
    assert standing.told[-1][0] == "failback"
    assert standing.words[-1] == "calm"
    assert "delete element inet wgup diverted { ipv4 }" in "".join(standing.scripts())
    assert standing.kernel.rules(V4) == rules, "what stands has stood"


@pytest.mark.parametrize(
    ("path", "dead", "left"),
    [
        ("wgup_b", ["wan"], "wgup_a"),
        ("wan2", ["wan"], "wgup_a"),
        ("wgup_a", ["wan", "wan2"], "wan2"),
    ],
)
async def test_only_what_traffic_leaves_or_what_is_newly_dead_is_forgotten(
    away: Bench, path: str, dead: list[str], left: str
) -> None:
    away.connections.deleted.clear()
    route = TO_WAN2.route if path == "wan2" else DefaultRoute(V4, path)
    await away.divert(Diversion(V4, tuple(dead), route))
    assert away.where() == path and away.forgotten() == [(V4, left)]


async def test_being_stranded_moves_nothing(standing: Bench) -> None:
    batches = standing.kernel.batches
    standing.steering.want(V4, None, Change("stranded", "wan", "wan", "silence", 1.0), 1500)
    await standing.settle()
    assert standing.told == [("stranded", V4, 1500, -1)]
    assert standing.kernel.batches == batches and standing.connections.deleted == []


async def test_a_path_without_a_number_forgets_nothing_else(
    standing: Bench, mocker: MockerFixture
) -> None:
    del standing.control.memory.slots["wan"]
    await standing.divert(AWAY)
    assert standing.connections.deleted == [] and standing.where() == "wgup_a"


# --- renewed, and drills


async def test_a_diversion_is_renewed_and_nothing_is_told(away: Bench) -> None:
    """Its gateway changed, say, or another WAN died."""
    away.steering.renew(V4, AWAY)
    assert not away.is_kicked
    away.steering.renew(V4, replace(AWAY, dead=("wan", "wan2")))
    await away.settle()
    assert away.steering.diversions[V4].dead == ("wan", "wan2")
    assert len(away.told) == 1


async def test_a_drill_lasts_until_its_end_or_a_change(standing: Bench) -> None:
    """Its primary is alive: nothing but the drill asks for the diversion."""
    at_home = Decision(State(Phase.PRIMARY, "wan"), "wan")
    standing.steering.drill(AWAY, DRILL)
    for _ in range(2):
        standing.steering.carry_out({V4: at_home, V6: at_home})
        await standing.settle()
        assert standing.where() == "wgup_a" and standing.steering.carrying(V4) == {"wgup_a"}
    standing.steering.end_drill(V4, DRILL)
    assert standing.diverted(), "nftables comes first"
    await standing.settle()
    assert standing.where() == "wan" and [kind for kind, *_ in standing.told] == ["drill"] * 2
    standing.steering.drill(AWAY, DRILL)
    over = replace(OVER, to_path="wgup_b")
    failed = Decision(State(Phase.FAILED_OVER, "wgup_b"), "wan", frozenset({"wan"}), over, 300)
    standing.steering.carry_out({V4: failed, V6: at_home})
    assert standing.where() == "wgup_b", "in the same turn in which it was decided"
    await standing.settle()
    assert standing.told[-1][:3] == ("failover", V4, 300)


# --- the standing part


async def test_the_standing_part_follows_changes_only(standing: Bench) -> None:
    scripts, batches = len(standing.scripts()), standing.kernel.batches
    await standing.steering.ensure([UPLINK, OTHER])
    await standing.settle()
    assert (len(standing.scripts()), standing.kernel.batches) == (scripts, batches)
    await standing.steering.ensure([UPLINK])
    assert "wgup_b" not in standing.scripts()[-1].split("tunnels {")[1].split("}")[0]
    assert len(standing.scripts()) == scripts + 1


def hooks(bench: Bench) -> set[str]:
    """The chains that are at a hook which forwarded packets pass, after all that nft was told."""
    found: set[str] = set()
    for line in "".join(bench.scripts()).splitlines():
        words = line.split()
        if words[:2] == ["add", "chain"] and "hook" in words and words[7] != "nat":
            found |= {words[4]} if words[9] != "output" else set()
        elif words[:2] == ["delete", "chain"]:
            found.discard(words[4])
    return found


async def test_at_rest_no_chain_sees_forwarded_packets(
    standing: Bench, mocker: MockerFixture
) -> None:
    """But where others use connection marks, while a WAN is suspect, and with a new table."""
    asked = "others_use_connection_marks"
    shared = mocker.patch.object(nft.TableReader, asked, return_value=True)
    legacy = mocker.patch.object(filtering, "has_legacy_marks", return_value=False)
    control = standing.control
    now_s = time.monotonic()
    assert control._filter._watched_until_s > now_s + 500.0 and hooks(standing) == IDLE
    control._filter._watched_until_s = now_s

    async def ticked() -> set[str]:
        async with standing.running(control.keep_fresh()):
            await asyncio.sleep(0.05)
        await standing.settle()
        return hooks(standing)

    assert await ticked() == IDLE and shared.call_count == 1
    shared.return_value = False
    control._table_news = news = mocker.Mock()
    for kind, table, is_kicked in ((12, "fw4", False), (6, "wgup", False), (8, "fw4", True)):
        body = bytes(4) + text(1, table)
        news.read.return_value = [Message(10 << 8 | kind, body)], False
        control._on_table_news()
        assert standing.is_kicked is is_kicked
    assert await ticked() == set()
    legacy.return_value = True
    assert await ticked() == IDLE
    legacy.return_value = False
    assert await ticked() == set()
    standing.steering.listen()
    assert standing.is_kicked
    await standing.settle()
    assert hooks(standing) == IDLE
    standing.steering.listen()
    assert not standing.is_kicked, "it is told once"


IDLE = {"steer", "stamp"}
ENTERED = {*IDLE, "forth"}
CARRYING = {*ENTERED, "carry_late"}


async def test_chains_are_at_their_hooks_while_something_needs_them(standing: Bench) -> None:
    standing.steering.configure((), 600.0)
    assert hooks(standing) == IDLE
    standing.steering.doubt(V4, "wgup_a")
    await standing.settle()
    assert hooks(standing) == ENTERED
    standing.steering.doubt(V4, "")
    await standing.divert(AWAY)
    assert hooks(standing) == CARRYING
    standing.steering.block({V6: ("wan",)})
    await standing.settle()
    assert hooks(standing) == {*CARRYING, "block"}
    standing.steering.block({})
    await standing.go_home()
    assert hooks(standing) == ENTERED, "connections finish on the tunnel"
    assert "@drain4" in standing.control._filter.parts["leading"]
    standing.steering.bury(V4, {"wgup_a"})
    await standing.settle()
    assert hooks(standing) == IDLE


async def test_rules_that_draining_needs_are_there_before_its_element(away: Bench) -> None:
    away.steering.configure((), 600.0)
    await away.go_home()
    told = "".join(away.scripts())
    assert told.index("vmap @drain4") < told.index("add element inet wgup drain4")


async def test_an_outage_by_another_wan_counts_no_tunnel(standing: Bench) -> None:
    await standing.divert(TO_WAN2)
    assert hooks(standing) == ENTERED


async def test_an_owners_own_default_by_a_tunnel_has_it_looked_after(bench: Bench) -> None:
    """As pbr has it, in a table of its own: segment size, consumers of ours."""
    bench.kernel.found_routes[V4].append(replace(by("", hop("wgup_a")), table=256))
    await bench.steering.ensure([UPLINK, OTHER])
    await bench.settle()
    assert "forth" in hooks(bench)


async def test_beside_mwan3_packets_may_enter_a_tunnel_at_any_time(standing: Bench) -> None:
    for marks, expected in (((0,), IDLE), ((0, 0x100), ENTERED)):
        standing.steering.lead_marks(marks)
        await standing.settle()
        assert hooks(standing) == expected


async def test_removal_leaves_nothing(away: Bench) -> None:
    foreign = away.kernel.rules(V4)[0], away.kernel.routes(V4)[0]
    await away.steering.ensure([])
    assert away.ours() == [] and away.connections.cleared == INBOUND | SLOT_MASK
    assert away.where() == "wan"
    assert foreign[0] in away.kernel.rules(V4) and foreign[1] in away.kernel.routes(V4)
    assert away.commands.lines("nft delete") == ["nft delete table inet wgup"]
    assert away.words[-1] == "end"
    assert away.control.memory.load() == {}
    requests = len(away.kernel.requests)
    await away.steering.ensure([])
    assert len(away.kernel.requests) == requests
    assert len(away.commands.lines("nft delete")) == 1
    await away.steering.ensure([UPLINK, OTHER])
    await away.settle()
    assert away.where() == "wan"
    await away.divert(AWAY)
    assert away.where() == "wgup_a", "uplinks that come again work again"


async def test_leftovers_of_an_earlier_run_are_removed(away: Bench) -> None:
    """Its uplinks were removed from the file while it was down."""
    again = away.make()
    await again.ensure([])
    assert away.ours() == []


async def test_a_tunnel_that_was_made_anew_gets_its_routes_back(away: Bench) -> None:
    """A device that goes takes its routes along, in every table."""
    away.kernel.found_routes[V4] = [
        r for r in away.kernel.routes(V4) if not any(h.index == INDEXES["wgup_a"] for h in r.hops)
    ]
    away.kernel.found_devices = [d for d in away.kernel.devices() if d.name != "wgup_a"]
    away.kernel.found_devices.append(Link("wgup_a", 77))
    await away.steering.ensure([UPLINK, OTHER])
    [default] = [r for r in away.kernel.routes(V4) if r.table == LAST_TABLE and not r.destination]
    assert default.hops[0].index == 77


# --- a restart


async def test_an_earlier_run_is_taken_over(away: Bench) -> None:
    requests, scripts = len(away.kernel.requests), len(away.scripts())
    again = away.make()
    assert await away.start(again) == {V4: Adopted("wgup_a", ("wan",))}
    assert again.diversions == {V4: AWAY}
    assert "diverted { ipv4 timeout" in away.scripts()[scripts]
    assert len(away.kernel.requests) == requests, "nothing is touched"
    assert away.words[-1] == "armed"
    await again.ensure([UPLINK, OTHER])
    assert away.where() == "wgup_a"
    rules = [m for m in away.kernel.requests[requests:] if m.kind in (NEWRULE, 33)]
    assert rules == [], "no rule goes and comes"
    await again.stop()


async def test_what_was_taken_back_meanwhile_is_not_taken_over(away: Bench) -> None:
    rules = away.kernel.found_rules[V4]
    rules[:] = [rule for rule in rules if rule.protocol != DIVERTING]
    assert await away.start(away.make()) == {}


async def test_rules_without_a_memory_are_taken_back(away: Bench) -> None:
    """A lost file: nobody knows what they are for, and the monitor will ask anew."""
    Path(away.control.memory.path).unlink()
    again = away.make()
    assert await away.start(again) == {}
    await again.ensure([UPLINK, OTHER])
    assert not away.diverted() and away.where() == "wan"


# --- somebody else


async def follow_news(bench: Bench, count: int = 1) -> None:
    """Have the kernel's news followed so many times."""
    async with bench.running(bench.control.follow_kernel()):
        for _ in range(count):
            bench.control._news.set()
            await bench.until(lambda: not bench.control._news.is_set())


def flush(found: dict[Family, Any]) -> None:
    """What systemd-networkd and netifd do at their start to rules, and others to routes."""
    for family in Family:
        found[family] = [each for each in found[family] if each.protocol < 150]


async def test_rules_that_somebody_removes_are_put_back_and_told_after_three(away: Bench) -> None:
    for count in range(1, 4):
        flush(away.kernel.found_rules)
        assert away.where() == "wan"
        await follow_news(away)
        assert away.where() == "wgup_a"
        assert ("repairs" in away.problems) is (count == 3)
    assert "3 times" in away.problems["repairs"] and "netifd" in away.problems["repairs"]


async def test_routes_that_somebody_removes_are_put_back(away: Bench) -> None:
    flush(away.kernel.found_routes)
    await follow_news(away)
    assert away.where() == "wgup_a" and away.table(UNDERLAY_TABLE)
    await follow_news(away, 3)
    assert "repairs" not in away.problems


async def test_our_own_changes_are_no_repairs(standing: Bench) -> None:
    for _ in range(4):
        await standing.divert(AWAY)
        await follow_news(standing)
        await standing.go_home()
        await follow_news(standing)
    assert standing.problems == {}


async def test_a_change_of_main_is_followed(away: Bench) -> None:
    away.kernel.found_routes[V4].append(by("10.8.0.0/16", hop("lan", "10.7.0.2")))
    await follow_news(away)
    assert away.where("10.8.0.9") == "lan"
    away.kernel.found_routes[V4] = [
        r for r in away.kernel.routes(V4) if r.destination != "10.8.0.0/16" or r.table != 254
    ]
    await follow_news(away)
    assert away.where("10.8.0.9") == "refused", "a private network without a route"
    batches = away.kernel.batches
    await follow_news(away, 3)
    assert away.kernel.batches == batches, "quiet news ask for nothing"


async def test_a_kernel_that_refuses_while_it_is_followed(away: Bench) -> None:
    flush(away.kernel.found_rules)
    away.kernel.errors[NEWRULE] = errno.EPERM
    away.control._news.set()
    async with away.running(away.control.follow_kernel()):
        await away.until(lambda: "steering" in away.problems)
        away.kernel.errors.clear()
        await away.until(lambda: "steering" not in away.problems)
    assert away.where() == "wgup_a"


async def test_an_odd_route_that_is_not_taken_is_told_and_holds_nothing_up(
    standing: Bench, mocker: MockerFixture
) -> None:
    """It can't be copied, say for an encapsulation of a module that is gone."""
    odd = by("10.66.0.0/16", hop("lan", "10.7.0.2"))
    standing.kernel.found_routes[V4].append(odd)
    change = standing.kernel.change

    def refuse(messages: list[Message]) -> list[int]:
        codes = change(messages)
        return [
            errno.EOPNOTSUPP if m.kind == NEWROUTE and bytes((10, 66, 0, 0)) in m.body else code
            for m, code in zip(messages, codes, strict=True)
        ]

    mocker.patch.object(standing.kernel, "change", refuse)
    await standing.divert(AWAY)
    assert standing.where() == "wgup_a" and len(standing.told) == 1
    assert "10.66.0.0/16 was not copied" in standing.problems["route"]


async def test_a_table_that_somebody_deleted_is_built_anew(away: Bench) -> None:
    """fw4's reload flushes only its own table, but people type `nft flush ruleset`."""
    away.steering.block({V6: ("wan",), V4: ()})
    await away.settle()
    before = len(away.scripts())
    away.commands.answers["nft"] = CommandFailed("No such file or directory")
    async with away.running(away.control.keep_fresh(), away.control.follow()):
        await away.until(lambda: "refresh" in away.problems)
        away.commands.answers.clear()
        await away.until(lambda: not {"refresh", "switch"} & {*away.problems})
        await away.until(lambda: 'blocked6 { "wan"' in away.scripts()[-1])
    after = away.scripts()[before:]
    built = max(n for n, script in enumerate(after) if "add table inet wgup" in script)
    assert "diverted { ipv4 timeout" in after[built], "what is in force comes with it"
    assert away.where() == "wgup_a" and len(away.told) == 1


async def test_both_families_without_rules(bench: Bench) -> None:
    """IPv6 is off: it has no rules, and nothing is asked of it."""
    bench.kernel.found_rules[V6] = []
    bench.kernel.found_routes[V6] = []
    await bench.steering.ensure([UPLINK, OTHER])
    await bench.divert(AWAY)
    assert bench.kernel.rules(V6) == [] and bench.kernel.routes(V6) == []
    assert bench.where() == "wgup_a"


async def test_a_deleted_table_is_heard_of(away: Bench, mocker: MockerFixture) -> None:
    heard: list[str] = []
    away.events.subscribe(TableDeleted, lambda event: heard.append(event.name))
    away.events.subscribe(OthersChanged, lambda event: heard.append("others"))
    gone = Message(10 << 8 | 2, bytes(4) + text(1, "wgup"))
    other = Message(10 << 8 | 2, bytes(4) + text(1, "wgup_inbound"))
    theirs = Message(10 << 8 | 6, bytes(4) + text(1, "fw4"))
    news = away.control._table_news = mocker.Mock()
    some = ([gone, gone, other], False, 1), ([theirs], False, 0)
    for messages, lost, built in (([], False, 0), *some, ([], True, 1)):
        before = len(away.scripts())
        news.read.return_value = (messages, lost)
        away.control._on_table_news()
        await away.settle()
        assert "".join(away.scripts()[before:]).count("add table inet wgup") == built
    told = ["wgup", "wgup", "wgup_inbound", "others", "others", ""]
    assert heard == told, "something was lost: any may have gone"


async def test_draining_outlives_the_table(away: Bench) -> None:
    away.steering.configure((), 600.0)
    await away.go_home()
    away.control._lose_table()
    await away.steering.ensure([UPLINK, OTHER])
    [script] = [s for s in away.scripts()[-2:] if "add table inet wgup" in s]
    assert f"drain4 {{ {away.slot('wgup_a') << SLOT_SHIFT:#x} timeout " in script


# --- VPNs and shares


@pytest.fixture
async def vpn(standing: Bench) -> Bench:
    """An owner's VPN has the default route, its server an exception by the WAN."""
    set_network(standing.steering._network, private=frozenset({"vpn"}))
    server = by("203.0.113.5/32", hop("wan", "192.0.2.1"))
    standing.kernel.found_routes[V4] += [by("", "vpn"), server]
    standing.steering.commit()
    await follow_news(standing)
    return standing


async def test_a_tunnel_that_is_the_only_default_is_asked_about(standing: Bench) -> None:
    state = standing.steering._network.state
    without = {**state.wans, V4: replace(state.wans[V4], routes=())}
    set_network(standing.steering._network, wans=without, private_default={V4: "vpn"})
    await standing.steering.ensure([UPLINK, OTHER])
    assert "`list wan 'vpn'`" in standing.problems["only default ipv4"]
    set_network(standing.steering._network, wans=state.wans)
    await standing.steering.ensure([UPLINK, OTHER])
    assert standing.problems == {}


async def test_a_vpns_default_stays_and_its_server_takes_the_tunnel(vpn: Bench) -> None:
    await vpn.divert(AWAY)
    assert (vpn.where(), vpn.where("203.0.113.5")) == ("vpn", "wgup_a")
    assert vpn.problems == {}


async def test_a_vpns_default_that_goes_in_the_outage_is_refused_and_told(vpn: Bench) -> None:
    await vpn.divert(AWAY)
    routes = vpn.kernel.found_routes[V4]
    gone = [r for r in routes if r.table == 254 and r.hops and r.hops[0].index == INDEXES["vpn"]]
    routes[:] = [r for r in routes if r not in gone]
    await follow_news(vpn)
    assert vpn.where() == "refused", "nothing leaves in clear"
    assert vpn.where("203.0.113.5") == "wgup_a", "so that it can come back"
    assert vpn.where("10.7.0.9") == "lan"
    assert vpn.problems["vpn ipv4"].startswith("the default route by vpn, a VPN, went away")
    vpn.kernel.found_routes[V4] += gone
    await follow_news(vpn)
    assert vpn.where() == "vpn" and "vpn ipv4" not in vpn.problems
    routes = vpn.kernel.found_routes[V4]
    routes[:] = [r for r in routes if r not in gone]
    await follow_news(vpn)
    await vpn.go_home()
    assert vpn.where() == "wan" and "vpn ipv4" not in vpn.problems


async def test_an_ending_that_was_found_is_no_new_wish(vpn: Bench) -> None:
    await vpn.divert(AWAY)
    routes = vpn.kernel.found_routes[V4]
    routes[:] = [r for r in routes if not (r.table == 254 and r.hops == (hop("vpn"),))]
    await follow_news(vpn)
    vpn.connections.deleted.clear()
    vpn.steering.renew(V4, AWAY)
    vpn.steering.except_portals({"wan": ["192.0.2.80"]})
    await vpn.settle()
    assert vpn.connections.deleted == [] and vpn.where() == "refused"


async def test_the_share_of_a_dead_balanced_wan_is_told(standing: Bench) -> None:
    share = Diversion(V4, ("wan2",), DefaultRoute(V4, "wan", "192.0.2.1"))
    standing.steering.renew(V4, share)
    await standing.settle()
    assert standing.where() == "wan" and standing.told == []
    assert standing.problems == {"share ipv4": "wan2 does not answer (ipv4): its share goes by wan"}
    assert standing.forgotten() == [(V4, "wan2")]
    standing.steering.renew(V4, None)
    await standing.settle()
    assert standing.problems == {} and not standing.diverted()


# --- portals and blocks


async def test_a_portal_stays_on_its_wan(standing: Bench) -> None:
    standing.steering.except_portals({"wan": ["203.0.113.80", "2001:db8:80::80"]})
    await standing.settle()
    await standing.divert(AWAY)
    assert standing.where("203.0.113.80") == "wan" and standing.where("203.0.113.81") == "wgup_a"
    standing.steering.except_portals({"wan": ["203.0.113.81"]})
    await standing.settle()
    assert standing.where("203.0.113.80") == "wgup_a" and standing.where("203.0.113.81") == "wan"
    standing.steering.except_portals({})
    await standing.settle()
    assert standing.where("203.0.113.81") == "wgup_a"
    standing.steering.except_portals({})
    assert not standing.is_kicked


BLOCKED = {V4: (), V6: ("wan",)}


async def hang(script: str) -> None:
    """What an nft does that never ends."""
    await asyncio.Event().wait()


async def test_what_is_blocked_waits_for_the_standing_part_and_is_refreshed(bench: Bench) -> None:
    bench.steering.block(BLOCKED)
    assert not bench.is_kicked, "there is no table yet"
    await bench.steering.ensure([UPLINK, OTHER])
    await bench.settle()
    assert 'add element inet wgup blocked6 { "wan" timeout 5s }' in bench.scripts()[-1]
    bench.steering.block(dict(BLOCKED))
    assert not bench.is_kicked
    laid = len(bench.scripts())
    async with bench.running(bench.control.keep_fresh()):
        await bench.until(lambda: len(bench.scripts()) > laid)
    assert 'blocked6 { "wan"' in bench.scripts()[-1]
    bench.steering.block({})
    await bench.settle()
    assert "flush set inet wgup blocked6" in bench.scripts()[-1]
    assert '"wan"' not in bench.scripts()[-1]


async def test_diverting_and_blocking_are_one_transaction(standing: Bench) -> None:
    before = len(standing.scripts())
    standing.steering.block(BLOCKED)
    await standing.divert(AWAY)
    [script] = standing.scripts()[before:]
    assert 'blocked6 { "wan"' in script and "diverted { ipv4" in script


async def test_nothing_in_force_is_nothing_to_refresh(standing: Bench) -> None:
    before = len(standing.scripts())
    async with standing.running(standing.control.keep_alive(), standing.control.keep_fresh()):
        await standing.until(lambda: standing.words.count("calm") > 3)
    assert len(standing.scripts()) == before


async def test_an_nft_that_hangs_keeps_nobody_from_saying_that_the_process_lives(
    away: Bench, mocker: MockerFixture
) -> None:
    """Else the watchdog would end the diversion, and it would be taken for somebody's removal."""
    hanging = mocker.patch.object(nft, "run_script", side_effect=hang)
    async with away.running(away.control.keep_alive(), away.control.keep_fresh()):
        await away.until(lambda: hanging.called)
        before = len(away.words)
        await away.until(lambda: len(away.words) > before + 3)
    assert "repairs" not in away.problems


# --- draining


@pytest.fixture
async def draining(away: Bench) -> Bench:
    """Back home, with connections that may finish on the tunnel."""
    away.steering.configure((), 600.0)
    away.connections.deleted.clear()
    await away.go_home()
    return away


async def test_connections_stay_on_the_tunnel(draining: Bench) -> None:
    assert draining.connections.deleted == []
    assert draining.where() == "wan"
    assert draining.where(mark=draining.mark("wgup_a")) == "wgup_a"
    [script] = [s for s in draining.scripts() if "add element inet wgup drain4" in s]
    assert f"{draining.slot('wgup_a') << SLOT_SHIFT:#x} timeout 600s" in script
    assert draining.steering.carrying(V4) == {"wgup_a"}
    assert not draining.steering.carrying(V6)


async def test_draining_begins_before_the_traffic_leaves(
    away: Bench, mocker: MockerFixture
) -> None:
    away.steering.configure((), 600.0)
    seen: list[str] = []
    away.before_scripts(mocker, lambda s: seen.append(away.where()) if "drain4 {" in s else None)
    await away.go_home()
    assert seen == ["wgup_a"]


@pytest.mark.parametrize("why", ["time", "dead", "removed"])
async def test_they_end_by_time_with_the_tunnel_or_its_uplink(draining: Bench, why: str) -> None:
    mark = draining.mark("wgup_a")
    if why == "time":
        draining.control._filter.draining.leave(V4, "wgup_a", 0.0)
    elif why == "dead":
        draining.steering.bury(V4, {"wgup_a"})
    else:
        draining.steering._uplinks = (OTHER,)
    draining.steering.commit()
    async with draining.running(draining.control.keep_fresh()):
        await draining.until(draining.control._kicked.is_set)
    await draining.settle()
    assert draining.connections.deleted == [(V4, mark, INBOUND | SLOT_MASK)]
    assert "flush map inet wgup drain4" in draining.scripts()[-1]
    assert not draining.steering.carrying(V4)


async def test_it_ends_when_all_have_finished(draining: Bench, mocker: MockerFixture) -> None:
    mocker.patch.object(table_module, "LOOK_S", 0.0)
    filtering, plan = draining.control._filter, draining.control._course.plan
    draining.connections.are_left = True
    filtering.look_at_drained()
    assert not filtering.draining.overdue(plan, time.monotonic())
    failing = mocker.patch.object(
        draining.connections, "has_marked", side_effect=CommandFailed("no")
    )
    filtering.look_at_drained()
    assert not filtering.draining.overdue(plan, time.monotonic()), "a failed look proves nothing"
    mocker.stop(failing)
    draining.connections.are_left = False
    async with draining.running(draining.control.keep_fresh()):
        await draining.until(draining.control._kicked.is_set)
    await draining.settle()
    assert "flush map inet wgup drain4" in draining.scripts()[-1]
    assert not draining.steering.carrying(V4), "nor is it probed like a path in use"


@pytest.mark.parametrize("to", ["wgup_a", "wan2"])
async def test_a_failover_takes_them_along(draining: Bench, to: str) -> None:
    await draining.divert(AWAY if to == "wgup_a" else TO_WAN2)
    assert "flush map inet wgup drain4" in "".join(draining.scripts()[-2:])
    assert ((V4, "wgup_a") in draining.forgotten()) is (to == "wan2")
    assert draining.control._filter.draining.tunnel(V4) == ""


@pytest.mark.parametrize(
    ("to", "left"), [(AWAY, "wgup_a"), (TO_WAN2, "wan2")], ids=["a dead tunnel", "a WAN"]
)
async def test_what_drains_nothing(standing: Bench, to: Diversion, left: str) -> None:
    standing.steering.configure((), 600.0)
    await standing.divert(to)
    standing.steering.bury(V4, {"wgup_a"})
    standing.connections.deleted.clear()
    await standing.go_home()
    assert standing.control._filter.draining.tunnel(V4) == "" and standing.forgotten() == [
        (V4, left)
    ]


# --- shared load


async def test_load_is_shared_by_marks_until_the_failback(away: Bench) -> None:
    ways = (("wgup_a", 8), ("wgup_b", 8))
    away.steering.share(V4, ways)
    await away.settle()
    assert "early4 { ipv4 timeout 5s : goto spread4 }" in away.scripts()[-1]
    slot = away.mark("wgup_b")
    assert away.where() == "wgup_a"
    assert away.where(mark=LED_MARK | slot) == away.where(mark=slot) == "wgup_b"
    assert away.where("10.7.0.9", mark=LED_MARK | slot) == "lan"
    assert away.steering.carrying(V4) == {"wgup_a", "wgup_b"}
    away.connections.deleted.clear()
    away.steering.share(V4, ())
    await away.go_home()
    assert sorted(away.forgotten()) == [(V4, "wgup_a"), (V4, "wgup_b")]
    assert away.where() == "wan" and away.steering.carrying(V4) == set()


async def test_the_active_one_dies_and_the_rest_goes_on(away: Bench) -> None:
    away.steering.share(V4, (("wgup_a", 8), ("wgup_b", 8)))
    await away.settle()
    away.connections.deleted.clear()
    away.steering.share(V4, ())
    away.steering.bury(V4, {"wan", "wgup_a"})
    await away.divert(replace(AWAY, route=DefaultRoute(V4, "wgup_b")))
    assert away.where() == "wgup_b" and away.forgotten() == [(V4, "wgup_a")]


# --- the first doubt


@pytest.fixture
async def doubted(standing: Bench) -> Bench:
    """New IPv4 connections leave by the first uplink."""
    standing.steering.doubt(V4, "wgup_a")
    await standing.settle()
    return standing


async def test_new_connections_leave_early_and_finish_there(doubted: Bench) -> None:
    slot = doubted.slot("wgup_a")
    assert f"early4 {{ ipv4 timeout 5s : goto led_{slot} }}" in doubted.scripts()[-1]
    kept = f"kept4 {{ {doubted.mark('wgup_a'):#x} timeout 120s : goto kept_{slot} }}"
    assert kept in doubted.scripts()[-1]
    assert doubted.where() == "wan" and not doubted.diverted()
    assert doubted.where(mark=doubted.mark("wgup_a", LED_MARK)) == "wgup_a"
    assert doubted.where("10.7.0.9", mark=doubted.mark("wgup_a", LED_MARK)) == "lan"
    assert "wgup_a" in doubted.steering.carrying(V4) - doubted.steering.carrying(V6)
    doubted.steering.doubt(V4, "")
    await doubted.settle()
    assert "flush map inet wgup early4" in doubted.scripts()[-1]
    assert f"again4 {{ ipv4 timeout 60s : goto led_{slot} }}" in doubted.scripts()[-1]
    assert "kept4" not in doubted.scripts()[-1], "it stays"
    assert doubted.where(mark=doubted.mark("wgup_a")) == "wgup_a"
    assert doubted.connections.deleted == []


@pytest.mark.parametrize("are_left", [True, False])
async def test_they_are_kept_as_long_as_there_are_any(
    doubted: Bench, are_left: bool, mocker: MockerFixture
) -> None:
    doubted.steering.doubt(V4, "")
    await doubted.settle()
    doubted.connections.are_left = are_left
    mocker.patch.object(early_module, "LOOK_S", -1.0)
    count = len(doubted.scripts())
    await doubted.control._filter.look_at_early_ones()
    renewed = [
        script for script in doubted.scripts()[count:] if "add element inet wgup kept4" in script
    ]
    assert bool(renewed) is are_left
    assert bool(doubted.control._filter.early.kept) is are_left


async def test_a_verdict_leaves_them_alone(doubted: Bench) -> None:
    doubted.steering.doubt(V4, "")
    await doubted.divert(AWAY)
    assert doubted.where() == "wgup_a" and doubted.forgotten() == [(V4, "wan")]
    script = doubted.scripts()[-1]
    assert "flush map inet wgup early4" in script and "again4 {" not in script
    assert (
        f"delete element inet wgup kept4 {{ {doubted.slot('wgup_a') << SLOT_SHIFT:#x} }}" in script
    )
    await doubted.go_home()
    assert doubted.where() == "wan" and not doubted.diverted()
    assert doubted.where(mark=doubted.mark("wgup_a", LED_MARK)) == "wgup_a", "ready for the next"


async def test_a_verdict_for_another_path_keeps_them_on_theirs(doubted: Bench) -> None:
    doubted.steering.doubt(V4, "")
    await doubted.divert(TO_WAN2)
    assert doubted.forgotten() == [(V4, "wan")]
    assert "delete element inet wgup kept4" not in doubted.scripts()[-1]
    assert doubted.where(mark=doubted.mark("wgup_a")) == "wgup_a"


@pytest.mark.parametrize("why", ["dead", "removed"])
async def test_a_backup_that_is_lost_keeps_none(doubted: Bench, why: str) -> None:
    mark = doubted.mark("wgup_a")
    if why == "dead":
        doubted.steering.bury(V4, {"wgup_a"})
    else:
        doubted.steering._uplinks = (OTHER,)
    await doubted.settle()
    assert doubted.connections.deleted == [(V4, mark, INBOUND | SLOT_MASK)]
    for gone in ("flush map inet wgup early4", "flush set inet wgup pairs4"):
        assert gone in doubted.scripts()[-1]
    assert not doubted.steering.carrying(V4)


async def test_a_restart_takes_over_what_finishes_on_a_backup(
    doubted: Bench, mocker: MockerFixture
) -> None:
    key = doubted.mark("wgup_a").to_bytes(4, sys.byteorder)
    steering = doubted.make()
    kept = {"kept4": [Element(key)], "kept6": []}
    mocker.patch.object(steering.controller._filter._sets, "read", kept.__getitem__)
    await doubted.start(steering)
    assert [*steering.controller._filter.early.kept] == [(V4, "wgup_a")]
    assert steering.controller._filter.early.overdue(0.0), "looked at soon"


# --- look-ups


def target(script: str) -> list[str]:
    """Where look-ups are redirected to, by family."""
    return sorted(
        {
            line.split(" to ")[1]
            for line in script.splitlines()
            if " dnat " in line and " to " in line
        }
    )


async def test_look_ups_go_where_the_traffic_goes(bench: Bench) -> None:
    """To the active tunnel's own resolver if that is good, else to a public one."""
    heavy = replace(OTHER, weight=50, resolvers=("10.9.0.1",))
    light = replace(UPLINK, resolvers=("10.7.7.1",))
    bench.steering.configure(("1.1.1.1", "2606:4700:4700::1111"), 0.0)
    bench.control._filter.look_ups._inside = {
        "wgup_a": ("10.7.7.1",),
        "wgup_b": ("10.9.0.1", "fd09::1"),
    }
    await bench.steering.ensure([light, heavy])
    await bench.settle()
    assert target(bench.scripts()[0]) == ["10.9.0.1", "fd09::1"], "the likeliest, in advance"
    assert "10.7.7.1" in bench.scripts()[0], "what another tunnel's resolver is asked moves too"
    await bench.divert(replace(AWAY, route=DefaultRoute(V4, "wgup_b")))
    await bench.divert(AWAY)
    assert target(bench.scripts()[-1]) == ["10.7.7.1", "fd09::1"]
    await bench.divert(TO_WAN2)
    assert target(bench.scripts()[-1]) == ["1.1.1.1", "fd09::1"]


async def test_look_ups_are_led_home_before_the_traffic(away: Bench, mocker: MockerFixture) -> None:
    away.steering.configure(("1.1.1.1",), 0.0)
    await away.steering.ensure([UPLINK, OTHER])
    await away.settle()
    seen: list[tuple[str, bool]] = []
    ended = "delete element inet wgup diverted"
    away.before_scripts(mocker, lambda script: seen.append((away.where(), ended in script)))
    await away.go_home()
    assert seen[0] == ("wgup_a", True)


async def test_a_dead_family_without_a_path_is_rejected(bench: Bench) -> None:
    bench.steering.bury(V6, {"wan", "wgup_a"})
    await bench.steering.ensure([UPLINK, OTHER])
    await bench.settle()
    refused = 'oifname { "wan" } ip6 daddr @resolvers6 reject with icmpx port-unreachable'
    assert refused not in "".join(bench.scripts()), "while nothing is diverted it may be alive"
    await bench.divert(AWAY)
    assert refused in bench.scripts()[-1]
    await bench.go_home()
    assert refused not in bench.scripts()[-1]


async def test_new_public_resolvers_are_laid(standing: Bench) -> None:
    before = len(standing.scripts())
    standing.steering.configure(("9.9.9.9",), 0.0)
    await standing.steering.ensure([UPLINK, OTHER])
    await standing.settle()
    [laid] = standing.scripts()[before:]
    assert target(laid) == ["9.9.9.9"]
    assert "add table" not in laid, "the standing part stays"


async def test_a_share_that_moved_leaves_look_ups_alone(standing: Bench) -> None:
    before = standing.control._filter.parts["redirect"]
    standing.steering.renew(V4, Diversion(V4, ("wan2",), DefaultRoute(V4, "wan", "192.0.2.1")))
    await standing.settle()
    assert target(standing.control._filter.parts["redirect"]) == target(before)


async def test_resolvers_are_looked_for_while_nothing_is_diverted(
    away: Bench, mocker: MockerFixture
) -> None:
    mocker.patch.object(module, "RESOLVERS_S", 0.01)
    look = mocker.patch.object(TunnelResolvers, "look", return_value={"wgup_a": ("10.7.7.1",)})
    async with away.running(away.control.follow_resolvers()):
        await asyncio.sleep(0.03)
        look.assert_not_called()
        await away.go_home()
        await away.until(lambda: look.called)
        await away.settle()
        assert "10.7.7.1" in target(away.scripts()[-1])


# --- underlays and MTU


async def test_a_tunnel_fits_its_underlay(bench: Bench, mocker: MockerFixture) -> None:
    bench.set_links({2: Link("wan", 2, 0, mtu=1492), 5: Link("wgup_a", 5, 51, mtu=1420)})
    bench.steering._uplinks = (UPLINK,)
    await bench.steering.follow_underlays()
    assert bench.kernel.changes == [], "its underlay is not known yet"
    bench.machine.tunnels["wgup_a"] = Tunnel("wgup_a", "nodea", "K", endpoint=UPLINK.endpoint)
    bench.machine.towards["192.0.2.9"] = "wan"
    failing = mocker.patch.object(Kernel, "set_device", side_effect=CommandFailed("busy"))
    await bench.steering.follow_underlays()
    assert bench.problems == {"mtu wgup_a": "busy"}
    mocker.stop(failing)
    await bench.steering.follow_underlays()
    assert bench.kernel.changes == ["set wgup_a mtu 1412"] and bench.problems == {}
    bench.set_links({2: Link("wan", 2, 0, mtu=1492), 5: Link("wgup_a", 5, 51, mtu=1412)})
    await bench.steering.follow_underlays()
    assert len(bench.kernel.changes) == 1, "what fits is left alone"


async def test_tunnels_fit_when_outer_packets_move(standing: Bench) -> None:
    """The route towards the endpoint is another one then, and no event says so."""
    standing.set_links(
        {
            INDEXES[name]: Link(name, INDEXES[name], group, mtu=mtu)
            for name, group, mtu in (("wan", 0, 1500), ("wan2", 0, 1400), ("wgup_a", 51, 1420))
        }
    )
    standing.machine.tunnels["wgup_a"] = Tunnel("wgup_a", "nodea", "K", endpoint=UPLINK.endpoint)
    standing.machine.towards["192.0.2.9"] = "wan2"
    standing.steering.bury(V4, {"wan"})
    async with standing.running(standing.steering._follow_underlays()):
        await standing.divert(AWAY)
        await standing.until(lambda: standing.kernel.changes)
    assert standing.kernel.changes == ["set wgup_a mtu 1320"]
    assert standing.steering._network.state.underlays["wgup_a"] == "wan2"


# --- rp_filter and the watchdog


async def test_a_strict_filter_is_loose_while_diverted(standing: Bench, tmp_path: Path) -> None:
    for name in ("all", "wan"):
        (tmp_path / "ipv4" / "conf" / name).mkdir(parents=True)
        (tmp_path / "ipv4" / "conf" / name / "rp_filter").write_text("1\n")
    value = tmp_path / "ipv4" / "conf" / "wan" / "rp_filter"
    await standing.divert(AWAY)
    assert value.read_text() == "2"
    await standing.go_home()
    assert value.read_text() == "1"


async def test_a_missing_watchdog_is_told(standing: Bench, mocker: MockerFixture) -> None:
    beat = mocker.patch.object(Watchdog, "beat", return_value="no shell here")
    await standing.divert(AWAY)
    assert standing.problems["watchdog"] == "no shell here"
    beat.return_value = ""
    await standing.go_home()
    assert standing.problems == {}


async def test_a_refresh_beside_a_failback_renews_no_redirect(
    away: Bench, mocker: MockerFixture
) -> None:
    """A look-up would be led to the tunnel's resolver after the traffic went home."""
    scripts: list[str] = []
    away.before_scripts(mocker, scripts.append)
    run, beside = nft.run_script, list[asyncio.Task[None]]()

    async def run_beside(script: str) -> None:
        if not beside:
            beside.append(asyncio.create_task(away.control._filter.refresh()))
            await asyncio.sleep(0)
        await run(script)

    mocker.patch.object(nft, "run_script", run_beside)
    await away.go_home()
    await beside[0]
    assert "delete element inet wgup diverted" in scripts[0]
    assert not [s for s in scripts[1:] if "add element inet wgup diverted { ipv4 timeout" in s]


@pytest.mark.parametrize("drain_s", [0.0, 600.0])
async def test_the_other_family_that_goes_home_meanwhile_is_prepared_too(
    standing: Bench, mocker: MockerFixture, drain_s: float
) -> None:
    """Its look-ups would be led to the tunnel's resolver, and its connections be cut, otherwise."""
    standing.steering.configure((), drain_s)
    await standing.divert(AWAY, AWAY6)
    scripts: list[str] = []

    def decide(script: str) -> None:
        if not scripts:
            standing.decide(None, V6)
        scripts.append(script if standing.diverted(V6) else "")

    standing.before_scripts(mocker, decide)
    await standing.go_home()
    before = "".join(scripts)
    assert "delete element inet wgup diverted { ipv6 }" in before
    assert ("add element inet wgup drain6" in before) is (drain_s > 0)
    assert not standing.diverted(V4) and not standing.diverted(V6)


async def test_the_other_family_waits_for_no_nftables(
    standing: Bench, mocker: MockerFixture
) -> None:
    """Its verdict falls while nftables is told of the first family, which has moved."""
    seen: list[bool] = []

    def decide(script: str) -> None:
        if not seen:
            standing.decide(AWAY6, V6)
            seen.append(standing.diverted(V4) and standing.diverted(V6))

    standing.before_scripts(mocker, decide)
    await standing.divert(AWAY)
    assert seen == [True]
    assert set(standing.forgotten()) == {(V4, "wan"), (V6, "wan")}
    assert [family for _, family, *_ in standing.told] == [V4, V6]
    assert {"ipv4", "ipv6"} <= set(" ".join(standing.scripts()[-2:]).replace(",", " ").split())


@pytest.mark.parametrize(("uplinks", "at_once"), [([UPLINK], True), ([OTHER, UPLINK], False)])
async def test_a_verdict_waits_for_nftables_only_where_it_does_not_know_the_path(
    standing: Bench, mocker: MockerFixture, uplinks: list[Uplink], at_once: bool
) -> None:
    """It falls while nftables is told of other uplinks than before, and that may take seconds."""
    await standing.steering.ensure([OTHER, *([UPLINK] if at_once else [])])
    seen: list[bool] = []

    def decide(script: str) -> None:
        if not seen:
            standing.decide(AWAY)
            seen.append(standing.diverted())

    standing.before_scripts(mocker, decide)
    await standing.steering.ensure(uplinks)
    assert seen == [at_once]
    assert standing.where() == "wgup_a" and [kind for kind, *_ in standing.told] == ["failover"]


async def test_a_stop_finishes_the_change_that_was_begun(standing: Bench) -> None:
    """A new run takes over both families, or watches the one that was forgotten from the start."""
    standing.steering.want(V4, AWAY, OVER, 300)
    standing.decide(AWAY6, V6)
    await standing.steering.stop()
    assert set(standing.control.memory.load()) == {V4, V6}
    assert len(standing.told) == 2


async def test_a_stop_waits_only_so_long_for_what_hangs(
    standing: Bench, mocker: MockerFixture
) -> None:
    mocker.patch.object(module, "LAST_CHANGE_S", 0.02)
    hanging = mocker.patch.object(nft, "run_script", side_effect=hang)
    standing.decide(AWAY)
    async with asyncio.timeout(5):
        await standing.steering.stop()
    hanging.assert_called()


# --- anchors

CALLS = Anchor("calls", "nodea", ports=((5060, 5060),))
ANCHORED = "wgup_a anchored"


async def judged(bench: Bench, *, dead: Collection[str] = (), answering: Collection[str]) -> None:
    """Both families at home, with these paths dead and those answering."""
    found = Decision(
        State(Phase.PRIMARY, "wan"), "wan", frozenset(dead), answering=frozenset(answering)
    )
    bench.steering.carry_out(dict.fromkeys(Family, found))
    await bench.settle()


@pytest.fixture
async def anchoring(standing: Bench) -> Bench:
    """With an anchor by the first uplink, which answers."""
    standing.steering.use(Settings(), (CALLS,))
    await judged(standing, answering={"wan", "wgup_a"})
    return standing


def led(bench: Bench, to: str = "9.9.9.9") -> str:
    """Where a packet of an anchored connection goes."""
    return bench.where(to, bench.mark(ANCHORED, LED_MARK))


def takes_new(bench: Bench) -> bool:
    """Whether the last word on it was that new connections are anchored."""
    scripts = [text for text in bench.scripts() if "flush chain inet wgup anchoring\n" in text]
    return "dport { 5060 } goto anchor_" in scripts[-1]


async def test_what_is_anchored_stays_through_failover_and_failback(anchoring: Bench) -> None:
    bench = anchoring

    def stays() -> bool:
        return led(bench) == led(bench, "2001:db8:5::1") == "wgup_a"

    assert stays() and takes_new(bench) and bench.where() == "wan"
    assert led(bench, "10.7.0.9") == "lan" and "wgup_a" in bench.steering.carrying(V4)
    assert bench.words[-1] == "armed", "a killed service must leave nothing stuck"
    rules = [r for r in bench.kernel.rules(V4) if r.mark[0] & LED_MARK]
    await bench.divert(replace(AWAY, route=DefaultRoute(V4, "wgup_b")))
    assert bench.where() == "wgup_b" and stays()
    await bench.divert(AWAY, AWAY6)
    await bench.go_home()
    await bench.go_home(V6)
    assert bench.where() == "wan" and stays()
    assert (V4, "wgup_a") in bench.forgotten()
    assert ANCHORED not in {device for _, device in bench.forgotten()}
    assert [r for r in bench.kernel.rules(V4) if r.mark[0] & LED_MARK] == rules


async def test_a_dead_tunnel_takes_no_new_one_and_lets_the_old_go(
    anchoring: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = anchoring
    await judged(bench, dead={"wgup_a"}, answering={"wan"})
    assert not takes_new(bench) and led(bench) == "wgup_a" and bench.forgotten() == []
    await judged(bench, answering={"wan", "wgup_a"})
    assert takes_new(bench)
    monkeypatch.setattr(coordinator, "GRACE_S", 0.0)
    await judged(bench, dead={"wgup_a"}, answering={"wan"})
    assert sorted(bench.forgotten(), key=str) == [(V4, ANCHORED), (V6, ANCHORED)]
    assert led(bench) == "wan" and bench.words[-1] == "calm"


async def test_without_its_anchor_a_connection_begins_anew(anchoring: Bench) -> None:
    anchoring.steering.use(Settings(), ())
    await judged(anchoring, answering={"wan", "wgup_a"})
    assert {device for _, device in anchoring.forgotten()} == {ANCHORED}
    assert led(anchoring) == "wan" and not takes_new(anchoring)


async def test_an_owners_vpn_with_the_default_route_is_no_way_around(anchoring: Bench) -> None:
    set_network(anchoring.steering._network, private_default={V4: "vpn"})
    await judged(anchoring, answering={"wan", "wgup_a"})
    assert led(anchoring) == "wan" and led(anchoring, "2001:db8:5::1") == "wgup_a"


async def test_a_restart_leaves_anchored_connections_alone(anchoring: Bench) -> None:
    before = anchoring.kernel.rules(V4), anchoring.kernel.rules(V6)
    removals = anchoring.kernel.batches
    anchoring.steering = anchoring.make()
    await anchoring.start(anchoring.steering)
    anchoring.steering.use(Settings(), (CALLS,))
    await anchoring.steering.ensure([UPLINK, OTHER])
    await anchoring.settle()
    assert (anchoring.kernel.rules(V4), anchoring.kernel.rules(V6)) == before
    assert anchoring.kernel.batches == removals and led(anchoring) == "wgup_a"
    assert not takes_new(anchoring), "nothing has answered it yet"
