"""Rates of consumers: what `tc` is told, and how little when one comes or goes."""

from __future__ import annotations

import pytest
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.errors import CommandFailed
from rpcd_wireguard_uplink.provider.plan import Lease
from rpcd_wireguard_uplink.provider.rates import (
    Shaper,
    can_shape,
    class_lines,
    parse_classes,
    queue_lines,
    wanted_shapes,
)
from tests.unit.fakes import Commands, RoutingTables, replace_commands

LINKS = ("lo", "wgup_srv", "wgup_ifb")
A, B = ("10.61.7.2", "fd61:7::2"), ("10.61.7.3", "fd61:7::3")
NUMBER_A, NUMBER_B = 0x702, 0x703
SHOWN = (
    "class htb 1:702 root leaf 8003: prio 0 rate 20Mbit ceil 20Mbit burst 1600b cburst 1600b \n"
    "class htb 1:7ff root prio 0 rate 20Mbit ceil 20Mbit burst 1600b cburst 1600b \n"
    "class fq_codel 8003:1 parent 8003: \n"
)


@pytest.fixture
def commands(mocker: MockerFixture) -> Commands:
    return replace_commands(mocker)


@pytest.fixture
async def shaper(commands: Commands) -> Shaper:
    """The first consumer has its rate."""
    shaper = Shaper(RoutingTables(commands=commands))
    await shaper.apply({NUMBER_A: A}, 20, LINKS)
    commands.calls.clear()
    return shaper


def told(commands: Commands) -> list[str]:
    """What tc was told line by line, and everything else that was run."""
    found = []
    for argv, given in commands.calls:
        found += given.splitlines() if argv[0] == "tc" and given else [" ".join(argv)]
    commands.calls.clear()
    return found


def test_a_class_is_numbered_by_its_address() -> None:
    leases = [
        Lease("a", "A", ("fd61:7::2/128", "10.61.7.2/32")),
        Lease("b", "B", ("fd61:7::9/128",)),
        Lease("c", "C", ()),
    ]
    assert wanted_shapes(leases) == {0x702: ("fd61:7::2", "10.61.7.2"), 9: ("fd61:7::9",)}


def test_filters_tell_the_families_apart() -> None:
    made, four, six = class_lines("wgup_ifb", "src", NUMBER_A, A, 20)
    assert made.startswith("class replace dev wgup_ifb parent 1: classid 1:702 htb rate 20mbit ")
    to = "filter add dev wgup_ifb parent 1: protocol all prio 1794 u32"
    assert four == f"{to} match u8 0x40 0xf0 at 0 match ip src 10.61.7.2/32 flowid 1:702"
    assert six == f"{to} match u8 0x60 0xf0 at 0 match ip6 src fd61:7::2/128 flowid 1:702"


def test_a_queue_holds_a_tenth_of_a_second() -> None:
    assert queue_lines("d", 2, 20)[0].endswith("bfifo limit 250000")
    assert queue_lines("d", 2, 1)[0].endswith("bfifo limit 15000"), "but ten packets at least"


def test_listed_classes() -> None:
    assert parse_classes(SHOWN) == {0x702, 0x7FF}
    assert parse_classes("") == set()


async def test_the_first_consumer(commands: Commands) -> None:
    await Shaper(RoutingTables(commands=commands)).apply({NUMBER_A: A}, 20, ("wgup_srv",))
    first = told(commands)
    assert first[:2] == ["make wgup_ifb ifb", "set wgup_ifb up True"]
    wanted = [
        line
        for device, side in (("wgup_srv", "dst"), ("wgup_ifb", "src"))
        for line in class_lines(device, side, NUMBER_A, A, 20)
    ]
    assert [line for line in first if line in wanted] == wanted
    assert [line for line in first if "dev wan" in line] == []


async def test_only_who_comes_or_goes_is_touched(commands: Commands, shaper: Shaper) -> None:
    await shaper.apply({NUMBER_A: A}, 20, LINKS)
    assert told(commands) == [], "what stands is not told again"
    await shaper.apply({NUMBER_A: A, NUMBER_B: B}, 20, LINKS)
    came = told(commands)
    await shaper.apply({NUMBER_A: A}, 20, LINKS)
    gone = told(commands)
    for line in came + gone:
        assert f"1:{NUMBER_B:x}" in line or f"prio {NUMBER_B}" in line
    assert [line.split()[:2] for line in gone] == [["filter", "delete"], ["class", "delete"]] * 2


async def test_another_rate_keeps_the_queues(commands: Commands, shaper: Shaper) -> None:
    await shaper.apply({NUMBER_A: A}, 30, LINKS)
    changed = told(commands)
    assert len([line for line in changed if " rate 30mbit " in line]) == 2
    assert not [line for line in changed if line.startswith(("qdisc", "class delete"))]


async def test_other_addresses_replace_the_filters(commands: Commands, shaper: Shaper) -> None:
    await shaper.apply({NUMBER_A: (A[0], "fd61:7::22")}, 20, LINKS)
    changed = told(commands)
    assert changed.index("filter delete dev wgup_srv parent 1: prio 1794") < next(
        number for number, line in enumerate(changed) if "fd61:7::22" in line
    )


async def test_what_an_earlier_run_left_is_taken_over(commands: Commands) -> None:
    commands.answers["tc class show"] = SHOWN
    await Shaper(RoutingTables(commands=commands)).apply({NUMBER_A: A, NUMBER_B: B}, 20, LINKS)
    lines = told(commands)
    assert "class delete dev wgup_srv classid 1:7ff" in lines
    assert "class delete dev wgup_ifb classid 1:7ff" in lines
    assert "filter delete dev wgup_srv parent 1: prio 1794" in lines
    queues = {line.split()[5] for line in lines if "fq_codel" in line}
    assert queues == {"1:703"}, "a queue that is there may hold packets"


@pytest.mark.parametrize("links", [("wgup_srv",), ("wgup_ifb",)])
async def test_a_device_made_anew_gets_everything_again(
    commands: Commands, shaper: Shaper, links: tuple[str, ...]
) -> None:
    await shaper.apply({NUMBER_A: A}, 20, links)
    lines = told(commands)
    assert "qdisc replace dev wgup_srv root handle 1: htb" in lines
    assert ("make wgup_ifb ifb" in lines) is ("wgup_ifb" not in links)
    assert len([line for line in lines if line.startswith("class replace")]) == 2


@pytest.mark.parametrize(("shapes", "rate_mbps"), [({}, 20), ({NUMBER_A: A}, 0)])
async def test_nothing_to_shape(
    commands: Commands, shaper: Shaper, shapes: dict[int, tuple[str, ...]], rate_mbps: int
) -> None:
    await Shaper(RoutingTables(commands=commands)).apply(shapes, rate_mbps, ("wgup_srv",))
    assert told(commands) == [], "no tc is needed for it"
    await shaper.apply(shapes, rate_mbps, LINKS)
    assert told(commands)[-1] == "delete wgup_ifb"
    await shaper.apply(shapes, rate_mbps, ("wgup_srv",))
    assert told(commands) == []


async def test_what_failed_is_begun_again(commands: Commands, shaper: Shaper) -> None:
    commands.answers["tc -batch"] = CommandFailed("no")
    with pytest.raises(CommandFailed):
        await shaper.apply({NUMBER_A: A, NUMBER_B: B}, 20, LINKS)
    del commands.answers["tc -batch"]
    told(commands)
    await shaper.apply({NUMBER_A: A, NUMBER_B: B}, 20, LINKS)
    assert len([line for line in told(commands) if line.startswith("class replace")]) == 4


async def test_why_it_can_not_be_done(commands: Commands) -> None:
    kernel = RoutingTables(commands=commands)
    assert await can_shape(kernel) == ""
    commands.answers["tc -batch"] = CommandFailed("Specified qdisc kind is unknown.")
    assert "kmod-sched-core" in await can_shape(kernel)
    kernel.refusals["make"] = CommandFailed("Operation not supported")
    assert commands.lines()[-1] == "delete wgup_try"
    assert "kmod-ifb" in await can_shape(kernel)
