"""The provider's part of the kernel: what is run for a plan, and that a second time is nothing."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.errors import CommandFailed, NotFound
from rpcd_wireguard_uplink.model import Family, Link, mark_alias
from rpcd_wireguard_uplink.platform.tunnels import marked_others, plan_devices
from rpcd_wireguard_uplink.provider.device import PROVIDER_ALIAS, Provider
from rpcd_wireguard_uplink.provider.plan import Lease, ProviderPlan
from rpcd_wireguard_uplink.system import process
from tests.unit.fakes import Commands, Machine, RoutingTables, key_of

SECRET = key_of("secret")
A = Lease("nodea", key_of("a"), ("10.61.7.2/32", "fd61:7::2/128"))
B = Lease("nodeb", key_of("b"), ("10.61.7.3/32", "fd61:7::3/128"))
PLAN = ProviderPlan(
    SECRET, 51821, ("10.61.7.1/24", "fd61:7::1/64"), (A, B), {Family.IPV4: ("wan",)}, ("1.1.1.1",)
)
DEVICE = Link("wgup_srv", 9, 51)


@dataclass
class Scene(Commands):
    """Commands whose answers follow what the provider's device should be like."""

    kernel: RoutingTables = field(default_factory=RoutingTables)

    def __post_init__(self) -> None:
        self.kernel.commands = self

    def has(self, *leases: Lease, alias: str = PROVIDER_ALIAS, key: str = SECRET) -> None:
        """The device stands, with these consumers."""
        self.kernel.found_devices = [replace(DEVICE, alias=alias)]
        lines = [f"{key}\t{key_of('public')}\t51821\t0x51"]
        lines += [
            f"{each.public_key}\t(none)\t192.0.2.9:4\t{','.join(each.addresses)}\t0\t11\t22\toff"
            for each in leases
        ]
        self.answers["wg show wgup_srv dump"] = "\n".join(lines) + "\n"


@pytest.fixture
def scene(mocker: MockerFixture) -> Scene:
    made = Scene(answers={"nft list tables": "table inet fw4\ntable inet wgup_provider\n"})
    mocker.patch.object(process, "run", made.run)
    return made


@pytest.fixture
async def installed(scene: Scene) -> Provider:
    """The plan is in force, with both consumers."""
    scene.has(A, B)
    provider = Provider(scene.kernel)
    await provider.apply(PLAN)
    scene.calls.clear()
    return provider


def changing(scene: Commands) -> list[str]:
    """What was run that is more than reading."""
    reading = ("wg show", "nft list")
    lines = [line for line in scene.lines() if not line.startswith(reading)]
    scene.calls.clear()
    return lines


async def test_rules_stand_before_the_device_and_consumers_come_last(scene: Scene) -> None:
    addresses = {"wan": ["198.51.100.2/29"], "lan": ["192.0.2.1/24"]}
    machine = SimpleNamespace(addresses=addresses, public_ipv6=set(), links=[])
    scene.kernel.machine = cast(Machine, machine)
    await Provider(scene.kernel).apply(PLAN)
    [script] = scene.inputs("nft -f -")
    assert "198.51.100.0/29" in script and "192.0.2.0" not in script, "the WAN's own network"
    assert scene.inputs("wg set wgup_srv private-key") == [SECRET + "\n"], "by standard input"
    run = changing(scene)
    assert run[:2] == ["nft -f -", "make wgup_srv wireguard"]
    assert run[-1] == (
        f"wg set wgup_srv peer {A.public_key} allowed-ips 10.61.7.2/32,fd61:7::2/128 "
        f"peer {B.public_key} allowed-ips 10.61.7.3/32,fd61:7::3/128"
    )
    assert "wg set wgup_srv private-key /dev/stdin listen-port 51821 fwmark 0x51" in run
    assert not [line for line in run if SECRET in line]


async def test_the_same_plan_again_only_reads(scene: Scene, installed: Provider) -> None:
    await installed.apply(PLAN)
    assert len(scene.calls) <= 4
    assert changing(scene) == []


async def test_what_somebody_undid_is_done_again(scene: Scene, installed: Provider) -> None:
    scene.answers["nft list tables"] = "table inet fw4\ntable inet wgup_provider2\n"
    await installed.apply(PLAN)
    assert changing(scene) == ["nft -f -"]
    scene.answers["nft list tables"] = "table inet wgup_provider\n"
    scene.kernel.found_devices = [replace(DEVICE, carrier=False, alias=PROVIDER_ALIAS)]
    await installed.apply(PLAN)
    assert changing(scene) == [
        "set wgup_srv mtu 1420 up True",
        "address wgup_srv 10.61.7.1/24 fd61:7::1/64",
    ]
    scene.kernel.found_devices = []
    await installed.apply(PLAN)
    run = changing(scene)
    assert run[0] == "make wgup_srv wireguard"
    assert len([line for line in run if " allowed-ips " in line]) == 1


async def test_only_what_differs_is_touched(scene: Scene, installed: Provider) -> None:
    await installed.apply(replace(PLAN, leases=(A,)))
    assert changing(scene) == [f"wg set wgup_srv peer {B.public_key} remove"]
    scene.has(A)
    moved = replace(A, addresses=("10.61.7.9/32",))
    await installed.apply(replace(PLAN, leases=(moved,)))
    assert changing(scene) == [f"wg set wgup_srv peer {A.public_key} allowed-ips 10.61.7.9/32"]
    await installed.apply(replace(PLAN, leases=(A,), listen_port=6000))
    [line] = changing(scene)
    assert line.endswith("listen-port 6000 fwmark 0x51")


@pytest.mark.parametrize(
    ("alias", "key", "is_ours"),
    [
        (PROVIDER_ALIAS, key_of("older"), True),
        ("", SECRET, True),
        ("", "(none)", True),
        ("", key_of("older"), False),
        ("somebody's", SECRET, False),
        (mark_alias("provider"), SECRET, False),
    ],
)
async def test_a_device_of_that_name(scene: Scene, alias: str, key: str, is_ours: bool) -> None:
    scene.has(A, B, alias=alias, key=key)
    if is_ours:
        await Provider(scene.kernel).apply(PLAN)
        marked = f"set wgup_srv alias {PROVIDER_ALIAS} group 51" in scene.lines()
        assert marked is (alias == "")
        return
    with pytest.raises(CommandFailed, match="not ours"):
        await Provider(scene.kernel).apply(PLAN)
    await Provider(scene.kernel).remove()
    assert not [line for line in changing(scene) if "wgup_srv" in line]


def test_the_platforms_leave_the_device_alone() -> None:
    links = [Link("wgup_srv", 9, 51, PROVIDER_ALIAS), Link("wgup_x", 10, 51, mark_alias("x"))]
    assert plan_devices([], links, {}).delete == ("wgup_x",)
    assert marked_others(links, ()) == ["wgup_x"]


@pytest.mark.parametrize("failing", ["nft -f", "wg set", "set wgup_srv", "tc -batch"])
async def test_what_failed_is_tried_again(scene: Scene, failing: str) -> None:
    provider, plan = Provider(scene.kernel), replace(PLAN, limit_mbps=20)
    held: dict[str, Any] = scene.kernel.refusals if "wgup" in failing else scene.answers
    held[failing] = CommandFailed("no")
    with pytest.raises(CommandFailed):
        await provider.apply(plan)
    del held[failing]
    scene.calls.clear()
    await provider.apply(plan)
    assert scene.lines(failing.replace("tc -batch", "tc")) != []


async def test_closing_is_the_first_that_happens(scene: Scene, installed: Provider) -> None:
    await installed.apply(replace(PLAN, is_open=False))
    [script] = scene.inputs("nft -f -")
    assert "accept" not in script.partition("chain from_consumers")[2].partition("}")[0]
    assert changing(scene) == [
        "nft -f -",
        "conntrack -f ipv4 -D -s 10.61.7.0/24",
        "conntrack -f ipv6 -D -s fd61:7::/64",
    ]


@pytest.mark.parametrize("answer", [CommandFailed("broken"), "}{ rubbish"])
async def test_running_connections_that_are_not_deleted_are_told_and_tried_again(
    scene: Scene, installed: Provider, answer: str | Exception
) -> None:
    scene.answers["conntrack"] = answer
    for _ in range(2):
        with pytest.raises(CommandFailed, match="running connections of consumers go on"):
            await installed.apply(replace(PLAN, is_open=False))
    del scene.answers["conntrack"]
    scene.calls.clear()
    await installed.apply(replace(PLAN, is_open=False))
    assert len(scene.lines("conntrack")) == 2


@pytest.mark.parametrize("command", ["nft -f", "wg set", "tc -batch"])
async def test_a_program_that_prints_where_it_never_does_is_another(
    scene: Scene, command: str
) -> None:
    scene.answers[command] = "}{ rubbish"
    with pytest.raises(CommandFailed, match="is it the program that is meant"):
        await Provider(scene.kernel).apply(replace(PLAN, limit_mbps=20))


async def test_counters(scene: Scene) -> None:
    scene.has(A, B)
    found = await Provider(scene.kernel).read_peers()
    assert found.keys() == {A.public_key, B.public_key}
    assert (found[A.public_key].rx_bytes, found[A.public_key].tx_bytes) == (11, 22)
    scene.answers["wg show wgup_srv dump"] = CommandFailed("No such device")
    assert await Provider(scene.kernel).read_peers() == {}


async def test_a_consumer_is_let_in_again_until_all_is_removed(
    scene: Scene, installed: Provider
) -> None:
    await installed.readmit(A.public_key)
    assert changing(scene) == [
        f"wg set wgup_srv peer {A.public_key} remove "
        f"peer {A.public_key} allowed-ips 10.61.7.2/32,fd61:7::2/128"
    ]
    await installed.remove()
    gone = ["delete wgup_try", "delete wgup_srv", "nft delete table inet wgup_provider"]
    assert changing(scene) == gone
    with pytest.raises(NotFound):
        await installed.readmit(A.public_key)
    await installed.apply(PLAN)
    assert "nft -f -" in changing(scene)
