"""The watch over the path in use: what it tells when, and why; the kernel's side is given to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.carrying import watch as carrying_watch
from rpcd_wireguard_uplink.carrying.ruleset import Chain, Rule, Ruleset
from rpcd_wireguard_uplink.carrying.watch import CarryingWatch, InUse
from rpcd_wireguard_uplink.errors import CommandFailed
from rpcd_wireguard_uplink.events import CarryingChanged, Events
from rpcd_wireguard_uplink.model import PROVIDER_DEVICE, DefaultRoute, Family
from rpcd_wireguard_uplink.system import proc, rtnetlink
from rpcd_wireguard_uplink.system.proc import Losses, is_strict, read_losses
from rpcd_wireguard_uplink.system.rtnetlink import Address
from rpcd_wireguard_uplink.tasks import TaskSet
from rpcd_wireguard_uplink.warnings import Warnings

FOUR, TUNNEL = Family.IPV4, "wgup_a"
NAT = Chain("inet", "wgup", "nat", (Rule(({"masquerade": None},)),), "postrouting", 100)
ACCEPT = {"accept": None}
TO_WAN = Rule(
    ({"match": {"op": "==", "left": {"meta": {"key": "oifname"}}, "right": "wan"}}, ACCEPT)
)


ANSWERS = Rule(
    ({"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": "established"}}, ACCEPT)
)


def firewall(*rules: Rule, policy: str = "drop", table: str = "filter") -> Chain:
    return Chain("inet", table, "forward", (ANSWERS, *rules), "forward", 0, policy)


@dataclass
class Kernel:
    """What the watch reads."""

    chains: list[Chain] = field(default_factory=lambda: [NAT])
    counters: dict[str, int] = field(default_factory=dict)
    losses: Losses = field(default_factory=Losses)
    strict: bool = False
    provides: bool = False
    routed: bool = True
    failing: bool = False
    looks: int = 0

    async def read_ruleset(self) -> Ruleset:
        self.looks += 1
        if self.failing:
            raise CommandFailed("nft failed")
        return Ruleset({(c.family, c.table, c.name): c for c in self.chains})

    def read_counters(self, _: object) -> dict[str, int]:
        if self.failing:
            raise CommandFailed("nft failed")
        return dict(self.counters)

    def addresses(self) -> list[Address]:
        held = {"lan": "192.168.1.1/24", "wan": "198.51.100.2/29", TUNNEL: "10.0.0.2/32"}
        held |= {PROVIDER_DEVICE: "10.129.44.1/24"} if self.provides else {}
        return [Address(device, text) for device, text in held.items()]

    def default_routes(self, family: Family) -> list[DefaultRoute]:
        return [DefaultRoute(family, device) for device in ("wan", TUNNEL)]

    def has_route(self, address: str, source: str, device: str) -> bool:
        return self.routed

    def flows(self, *what: str, packets: int = 3) -> None:
        """Three new destinations are tried, and these counters rise."""
        for name in what:
            key = f"{name}4 {TUNNEL}"
            self.counters[key] = self.counters.get(key, 0) + packets
        for seen, name in (("tried", "entered"), ("sent", "left")):
            if name in what:
                self.counters |= {f"{seen}4 192.0.2.{n}": 500 for n in range(3)}


@dataclass
class Scene:
    kernel: Kernel
    watch: CarryingWatch
    problems: Warnings
    told: list[tuple[str, str]]
    used: dict[str, InUse]
    now_s: float = 1000.0

    async def second(self) -> None:
        self.now_s += 1.0
        await self.watch._step(self.now_s)

    async def seconds(self, count: int, *what: str) -> None:
        for _ in range(count):
            self.kernel.flows(*what)
            await self.second()

    @property
    def sentence(self) -> str:
        return self.watch.sentences.get(FOUR, "")


AWAY = InUse({FOUR: TUNNEL}, ("wan",), {TUNNEL: (FOUR,)})


@pytest.fixture
def scene(mocker: MockerFixture) -> Iterator[Scene]:
    kernel = Kernel()
    warnings, told = Warnings(), []
    events = Events(TaskSet(warnings))
    events.subscribe(CarryingChanged, lambda event: told.append((event.path, event.cause)))
    used = {"now": AWAY}
    watch = CarryingWatch(cast(rtnetlink.Kernel, kernel), lambda: used["now"], warnings, events)
    made = Scene(kernel, watch, warnings, told, used)
    mocker.patch.object(carrying_watch, "read_ruleset", kernel.read_ruleset)
    mocker.patch.object(carrying_watch, "read_counters", kernel.read_counters)
    mocker.patch.object(carrying_watch, "read_losses", lambda: kernel.losses)
    mocker.patch.object(carrying_watch, "is_strict", lambda device: kernel.strict)
    mocker.patch.object(time, "monotonic", lambda: made.now_s)
    yield made


async def test_flows_that_are_answered(scene: Scene) -> None:
    await scene.second()
    assert scene.watch.carrying(FOUR) is None
    await scene.seconds(5, "entered", "left", "back", "home")
    assert scene.watch.carrying(FOUR) is True
    assert scene.watch.carrying(Family.IPV6) is None
    assert scene.problems == {} and scene.told == []


SILENT = "IPv4 flows of the LAN leave by wgup_a and nothing comes back"
PEER = "does the peer forward and translate"
UNNAMED = [NAT, firewall(TO_WAN, Rule(({"xt": None},)))]
CAUSES: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "the peer": ({}, "entered left", SILENT, PEER),
    "translation": (
        {"chains": []},
        "entered left",
        SILENT,
        "nothing translates the LAN's addresses",
    ),
    "a strict filter that drops nothing": ({"strict": True}, "entered left", SILENT, PEER),
    "a strict filter that drops": (
        {"strict": True, "losses": Losses(reverse_path=9)},
        "entered left",
        SILENT,
        "`sysctl -w net.ipv4.conf.wgup_a.rp_filter=2`",
    ),
    "answers that are dropped here": (
        {},
        "entered left back",
        "IPv4 answers from wgup_a are dropped on this router",
        "a rule drops them that can't be named",
    ),
    "a rule that can't be judged": (
        {"chains": UNNAMED},
        "entered",
        "IPv4 flows of the LAN towards wgup_a are dropped on this router",
        "a rule drops them that can't be named",
    ),
}


@pytest.mark.parametrize(("found", "flows", "what", "cause"), CAUSES.values(), ids=CAUSES)
async def test_why_nothing_comes_back(
    scene: Scene, found: dict[str, Any], flows: str, what: str, cause: str
) -> None:
    await scene.second()
    for name, value in found.items():
        setattr(scene.kernel, name, value)
    scene.watch.look_at_rules()
    await scene.seconds(14, *flows.split())
    assert scene.sentence.startswith(what)
    assert cause in scene.sentence
    assert scene.problems["carrying ipv4"] == scene.sentence
    assert scene.told == [(TUNNEL, scene.sentence)], "it is told once"
    assert scene.watch.carrying(FOUR) is False
    await scene.seconds(1, "entered", "left", "back", "home")
    assert scene.told[1:] == [(TUNNEL, "")] and "carrying ipv4" not in scene.problems
    assert scene.watch.carrying(FOUR) is True


async def test_a_firewall_that_drops_what_consumers_send_is_named(scene: Scene) -> None:
    scene.kernel.provides = True
    scene.used["now"] = InUse({}, ("wan",))
    scene.kernel.chains.append(firewall())
    await scene.second()
    (told,) = scene.problems.values()
    assert told.startswith("The firewall (nftables, table inet filter) drops what wgup_srv sends")
    assert "into wan (IPv4: the policy" in told and "`nft 'insert rule inet filter forward" in told
    scene.kernel.chains[-1] = firewall(policy="accept")
    scene.watch.look_at_rules()
    for _ in range(4):
        await scene.second()
    assert scene.problems == {}


async def test_a_firewall_is_known_before_and_named(scene: Scene) -> None:
    scene.kernel.chains.append(firewall(TO_WAN, Rule((ACCEPT,))))
    scene.used["now"] = InUse({}, AWAY.wans, AWAY.uplinks)
    await scene.second()
    assert scene.problems == {}
    scene.kernel.chains[-1] = firewall(TO_WAN)
    scene.watch.look_at_rules()
    await scene.second()
    assert scene.problems == {}, "ten seconds lie between two looks in calm"
    scene.now_s += 10
    await scene.second()
    assert list(scene.problems) == ["forwarding 0"]
    blockage = scene.problems["forwarding 0"]
    assert await scene.watch.blocked_by_firewall(TUNNEL) == [f"{blockage}."]
    assert await scene.watch.blocked_by_firewall("wgup_other") == []
    scene.used["now"] = AWAY
    await scene.second()
    await scene.seconds(3, "entered")
    assert scene.sentence == (
        f"IPv4 flows of the LAN towards wgup_a are dropped on this router: {blockage}"
    )
    scene.kernel.chains[-1] = firewall(TO_WAN, policy="accept")
    scene.watch.look_at_rules()
    await scene.seconds(2, "entered")
    assert scene.problems == {} and scene.told[-1] == (TUNNEL, "")


async def test_hosts_that_the_owner_keeps_from_the_internet_are_no_complaint(scene: Scene) -> None:
    """A camera's packets never pass the forward hook; all that is known lets the LAN pass."""
    left = {"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}}}
    left["match"]["right"] = "192.168.1.50"
    scene.kernel.chains.append(firewall(Rule((left, {"drop": None})), policy="accept"))
    await scene.second()
    await scene.seconds(30, "entered")
    assert scene.problems == {} and scene.told == []
    assert scene.watch.carrying(FOUR) is None


async def test_many_rules_are_judged_beside_the_probes(scene: Scene, mocker: MockerFixture) -> None:
    mocker.patch.object(carrying_watch, "MANY_RULES", 1)
    scene.kernel.chains.append(firewall(TO_WAN))
    beside = mocker.spy(asyncio, "to_thread")
    await scene.second()
    assert beside.call_count == 1 and list(scene.problems) == ["forwarding 0"]


async def test_another_path_begins_anew(scene: Scene) -> None:
    await scene.second()
    await scene.seconds(4, "entered", "left")
    assert scene.sentence
    scene.used["now"] = InUse({FOUR: "wgup_b"}, AWAY.wans, {"wgup_b": (FOUR,)})
    await scene.second()
    assert scene.sentence == "" and scene.problems == {}
    scene.used["now"] = InUse()
    await scene.second()
    assert scene.watch.carrying(FOUR) is None


@pytest.mark.parametrize("routed", [False, True])
async def test_no_route(scene: Scene, routed: bool) -> None:
    await scene.second()
    scene.kernel.routed = routed
    await scene.seconds(5)
    assert scene.sentence == "", "an idle LAN loses nothing"
    scene.kernel.losses = Losses((7, 0))
    await scene.second()
    assert scene.sentence.startswith("" if routed else "IPv4 flows of the LAN have no route")
    assert bool(scene.sentence) is not routed
    await scene.seconds(2, "entered", "left", "back", "home")
    assert scene.sentence == ""


async def test_what_can_not_be_read_is_told(scene: Scene) -> None:
    scene.kernel.failing = True
    await scene.second()
    assert scene.problems == {"carrying": "whether traffic comes back is not known: nft failed"}
    scene.kernel.failing = False
    await scene.second()
    assert scene.problems == {}


async def test_calm_costs_nothing_until_the_rules_change(
    scene: Scene, mocker: MockerFixture
) -> None:
    async def woken(kicked: asyncio.Event, pause_s: float | None) -> None:
        if pause_s is None:
            await kicked.wait()
        scene.now_s += pause_s or 0.0

    async def looks() -> int:
        for _ in range(20):
            await asyncio.sleep(0)
        return scene.kernel.looks

    mocker.patch.object(carrying_watch, "woken", woken)
    scene.used["now"] = InUse({}, AWAY.wans, AWAY.uplinks)
    task = asyncio.create_task(scene.watch.follow())
    assert await looks() == 1
    for _ in range(20):  # a firewall that is loaded anew changes in many steps
        scene.watch.look_at_rules()
    assert await looks() == 2 and scene.now_s == 1010.0
    for _ in range(2):
        scene.watch.notice("home", "devices")
    assert await looks() == 3
    scene.watch.notice("away", "devices")
    assert await looks() == 3
    task.cancel()


async def test_fw4_is_given_time_to_take_the_tunnel_in(scene: Scene, mocker: MockerFixture) -> None:
    scene.kernel.chains.append(firewall(TO_WAN, table="fw4"))

    async def sleep(seconds: float) -> None:
        scene.now_s += seconds
        if scene.now_s > 1002:
            scene.kernel.chains[-1] = firewall(TO_WAN, policy="accept", table="fw4")

    mocker.patch.object(asyncio, "sleep", sleep)
    assert await scene.watch.blocked_by_firewall(TUNNEL) == []
    scene.now_s = 0.0
    scene.kernel.chains[-1] = firewall(TO_WAN, table="fw4")
    found = await scene.watch.blocked_by_firewall(TUNNEL)
    assert len(found) == 1 and "uci " in found[0] and 4.0 <= scene.now_s < 5.0


def test_losses_are_read(tmp_path: Any, mocker: MockerFixture) -> None:
    (tmp_path / "netstat").write_text(
        "TcpExt: SyncookiesSent IPReversePathFilter\nTcpExt: 1 5\n"
        "IpExt: InNoRoutes InTruncatedPkts\nIpExt: 7 0\n"
    )
    (tmp_path / "snmp6").write_text("Ip6InReceives \t 9\nIp6InNoRoutes \t 3\nbroken\n")
    assert read_losses(str(tmp_path)) == Losses((7, 3), 5)
    assert read_losses(str(tmp_path / "none")) == Losses()
    for name, value in (("all", "0"), ("wgup_a", "1"), ("loose", "2")):
        folder = tmp_path / "ipv4" / "conf" / name
        folder.mkdir(parents=True)
        (folder / "rp_filter").write_text(f"{value}\n")
    mocker.patch.object(proc, "SETTINGS", str(tmp_path))
    found = {name: is_strict(name) for name in ("wgup_a", "loose", "none")}
    assert found == {"wgup_a": True, "loose": False, "none": False}
