"""The lane's scripts, as text and loaded into a real nft in an empty namespace of its own."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.errors import CommandFailed
from rpcd_wireguard_uplink.model import PROVIDER_DEVICE, DefaultRoute, Family
from rpcd_wireguard_uplink.routing import lane as lane_module
from rpcd_wireguard_uplink.routing.barrier import barrier_script, shut_script
from rpcd_wireguard_uplink.routing.lane import (
    LAPSE_S,
    REFRESH_S,
    Lane,
    Opening,
    close_script,
    open_script,
    plan_underlay,
    refresh_script,
    route_line,
    standing_script,
)
from rpcd_wireguard_uplink.routing.listing import parse_heard
from rpcd_wireguard_uplink.routing.sticky import STICKY_MARK, end_script, keep_script, sticky_script
from tests.unit.apart import apart
from tests.unit.fakes import Commands, replace_commands

V4, V6 = Family.IPV4, Family.IPV6
LINES = {V4: ["wan", "wwan"], V6: ["wan"]}
TUNNELS = ["wgup_a", "wgup_b"]
TO_A = DefaultRoute(V4, "wgup_a")


def opening(family: Family = V4, *dead: str, to: str = "wgup_a") -> Opening:
    return Opening(family, dead or ("wan",), DefaultRoute(family, to))


def opened(family: Family = V4, *dead: str) -> str:
    return open_script(opening(family, *dead), (0, 0x100), TUNNELS)


@pytest.fixture
def commands(mocker: MockerFixture) -> Commands:
    found = replace_commands(mocker)
    found.answers["ip -j -4 rule"] = '[{"priority": 0}, {"priority": 32766}]'
    return found


# --- as text


def test_the_refresh_never_leaves_a_gap_and_is_often_enough() -> None:
    add, delete, again = refresh_script([V4], (0, 0x100)).splitlines()
    assert add == again
    assert add.startswith("add element inet wgup lane4 { 0x0 timeout 5s : goto mark_it")
    assert "0x100 timeout 5s" in add
    assert delete == "delete element inet wgup lane4 { 0x0, 0x100 }"
    assert REFRESH_S * 3 < LAPSE_S, "two refreshes may fail"


def test_closing_shuts_one_family_only() -> None:
    assert "lane6" not in close_script(V4)
    assert "flush map inet wgup lane4" in close_script(V4)


@pytest.mark.parametrize(
    ("route", "metric", "line"),
    [
        (TO_A, None, "route replace default dev wgup_a table 5180"),
        (
            DefaultRoute(V4, "wan", "192.0.2.1", 7),
            10,
            "route replace default via 192.0.2.1 onlink dev wan table 5180 metric 10",
        ),
    ],
)
def test_route_lines(route: DefaultRoute, metric: int | None, line: str) -> None:
    assert route_line(route, 5180, metric) == line


@pytest.mark.parametrize(
    ("devices", "dead", "planned"),
    [
        (["wan", "wwan"], [], ["wan", "wwan"]),
        (["wan", "wwan"], ["wan"], ["wwan", "wan"]),
        (["wan", "wwan"], ["wan", "wwan"], ["wan", "wwan"]),
        (["wgup_a", "wan", PROVIDER_DEVICE], [], ["wan"]),
        (["wgup_a"], [], []),
        ([], [], []),
    ],
)
def test_the_outer_packets_way(devices: list[str], dead: list[str], planned: list[str]) -> None:
    routes = [DefaultRoute(V4, name, f"gw-{name}", 5) for name in devices]
    found = plan_underlay(routes, dead, TUNNELS)
    assert [route.device for route in found] == planned
    assert [route.metric for route in found] == [10 * (n + 1) for n in range(len(found))]
    assert all(route.gateway == f"gw-{route.device}" for route in found)


def test_heard() -> None:
    elements = [{"elem": {"val": "wan", "counter": {"packets": 7, "bytes": 1}}}, "bare"]
    text = json.dumps({"nftables": [{"metainfo": {}}, {"set": {"elem": elements}}]})
    assert parse_heard(text) == {"wan": 7}
    assert parse_heard('{"nftables": [{"set": {}}]}') == {}
    with pytest.raises(CommandFailed):
        parse_heard("oops")


# --- what is run


async def test_standing_adds_only_the_rules_that_are_missing(commands: Commands) -> None:
    commands.answers["ip -j -4 rule"] = json.dumps(
        [{"priority": p} for p in (99, 100, 110, 120)]
        + [{"priority": 32769, "oif": "wgup_a"}, {"priority": 32769, "oif": "wgup_gone"}]
    )
    await Lane().stand(TUNNELS, LINES, ["192.0.2.2/24", "2001:db8::2/64"])
    added, forced = commands.inputs("ip -4")
    assert [line.split()[:4] for line in added.splitlines()] == [
        ["route", "replace", "unreachable", "default"],
        ["rule", "add", "pref", "32768"],
        ["rule", "add", "pref", "32769"],
    ]
    assert "oif wgup_b" in added
    assert "rule del pref 32769 oif wgup_gone lookup 5181" in forced.splitlines()
    assert commands.lines("ip -6") == [], "a family without rules is switched off"
    [script] = commands.inputs("nft -f -")
    assert "add element inet wgup onlink4 { 192.0.2.2/24 }" in script
    assert "add element inet wgup onlink6 { 2001:db8::2/64 }" in script


async def test_opening_and_shutting(commands: Commands) -> None:
    lane = Lane()
    await lane.move({V4: opening(), V6: opening(V6)})
    assert set(lane.openings) == {V4, V6}
    assert len(commands.lines("nft")) == 1, "one transaction for both families"
    assert commands.inputs("ip -4 -batch") == ["route replace default dev wgup_a table 5180\n"]
    await lane.refresh()
    assert "lane4" in commands.inputs("nft")[-1]
    assert "lane6" in commands.inputs("nft")[-1]
    await lane.move({V4: None})
    assert set(lane.openings) == {V6}
    assert commands.inputs("nft")[-1] == close_script(V4)
    assert commands.inputs("ip -4 -force") == ["route flush table 5180\n"]
    await lane.refresh()
    assert "lane4" not in commands.inputs("nft")[-1]


async def test_nothing_open_is_nothing_to_refresh(commands: Commands) -> None:
    await Lane().refresh()
    assert commands.calls == []


@pytest.mark.parametrize("wanted", [{V4: opening(V4, "wwan")}, {V4: None}])
async def test_what_failed_counts_as_not_done(
    commands: Commands, wanted: dict[Family, Opening | None]
) -> None:
    lane = Lane()
    await lane.move({V4: opening()})
    commands.answers["nft"] = CommandFailed("no")
    with pytest.raises(CommandFailed):
        await lane.move(wanted)
    assert lane.openings == {V4: opening()}


async def test_the_underlay_changes_without_a_moment_of_none(commands: Commands) -> None:
    lane = Lane()
    old = [{"dev": "wan", "gateway": "192.0.2.1", "metric": 10}, {"dev": "x", "metric": 30}]
    commands.answers["ip -j -4 route show default table 5179"] = json.dumps(old)
    new = [DefaultRoute(V4, "wwan", "", 10), DefaultRoute(V4, "wan", "192.0.2.1", 20)]
    await lane.set_underlay(V4, new)
    replaced, deleted = commands.inputs("ip -4 -force")
    assert replaced.splitlines() == [route_line(route, 5179, route.metric) for route in new]
    assert deleted == "route del default dev x table 5179 metric 30\n"
    before = len(commands.calls)
    await lane.set_underlay(V4, new)
    assert len(commands.calls) == before


async def test_flows_are_forgotten_by_address(commands: Commands) -> None:
    commands.answers["conntrack"] = CommandFailed("0 flow entries have been deleted")
    await Lane().forget_flows(V6, ["2001:db8::2/64"])
    assert commands.lines() == ["conntrack -f ipv6 -D -q 2001:db8::2"]


async def test_nothing_stands_where_there_is_no_table(commands: Commands) -> None:
    commands.answers["nft -j"] = CommandFailed("No such file or directory")
    assert await Lane().read_standing() == {}
    assert await Lane().read_heard(V4) == {}


async def test_removing_takes_everything_away(commands: Commands) -> None:
    lane = Lane()
    await lane.move({V4: opening()})
    await lane.remove()
    assert "nft delete table inet wgup" in commands.lines()
    [given] = commands.inputs("ip -6 -force")
    for number in (99, 100, 110, 120, 32768):
        assert f"rule del pref {number} " in given
    for table in (5179, 5180, 5181):
        assert f"route flush table {table}" in given
    assert lane.openings == {}


# --- in a real nft


def nft(*scripts: str, then: str = "list ruleset") -> list[dict[str, Any]]:
    """Load scripts one after another in a fresh namespace; what nft lists then."""
    commands = "".join(f"nft -f - <<'END'\n{script}\nEND\n" for script in scripts)
    printed = apart(f"ip link set lo up\n{commands}nft -j {then}\n")
    found: list[dict[str, Any]] = json.loads(printed)["nftables"]
    return found


real = pytest.mark.needs("nft", "unshare", "ip")
STANDING = standing_script(TUNNELS, LINES) + lane_module._onlink_script(
    ["192.0.2.2/24", "192.0.2.3/24", "2001:db8::2/64"]
)


def elements(listed: list[dict[str, Any]], kind: str, name: str) -> list[Any]:
    [found] = [entry[kind] for entry in listed if entry.get(kind, {}).get("name") == name]
    elem: list[Any] = found.get("elem", [])
    return elem


def rules(listed: list[dict[str, Any]], chain: str) -> list[Any]:
    return [e["rule"] for e in listed if e.get("rule", {}).get("chain") == chain]


@real
def test_real_the_standing_part_loads_and_loads_again() -> None:
    once, twice = nft(STANDING), nft(STANDING, STANDING)
    for chain in ("pre", "out", "through", "nat", "mark_it"):
        assert len(rules(twice, chain)) == len(rules(once, chain)) > 0
    assert sorted(elements(twice, "set", "tunnels")) == TUNNELS
    assert parse_heard(json.dumps({"nftables": twice[:1]})) == {}
    assert elements(twice, "map", "lane4") == []
    assert rules(twice, "enter4") == rules(twice, "leave6") == []


@real
def test_real_without_tunnels_or_lines() -> None:
    listed = nft(standing_script([], {}) + lane_module._onlink_script([]))
    assert elements(listed, "set", "tunnels") == []


@real
def test_real_heard_counts_begin_at_nothing() -> None:
    listed = nft(STANDING, then="list set inet wgup heard4")
    assert parse_heard(json.dumps({"nftables": listed})) == {"wan": 0, "wwan": 0}


@real
def test_real_open_and_its_timeout() -> None:
    listed = nft(STANDING, opened())
    held = elements(listed, "map", "lane4")
    assert len(held) == 2
    for key, _ in held:
        assert 0 < key["elem"]["timeout"] <= LAPSE_S
    assert elements(listed, "map", "lane6") == []
    assert rules(listed, "enter4")
    assert rules(listed, "leave4")


@real
def test_real_the_standing_part_leaves_an_open_lane_open() -> None:
    listed = nft(STANDING, opened(), STANDING)
    assert elements(listed, "map", "lane4")
    assert rules(listed, "enter4")


@real
def test_real_refresh_close_and_move() -> None:
    both = opened() + opened(V6)
    listed = nft(STANDING, both, refresh_script([V4, V6], (0, 0x100)), close_script(V6))
    assert elements(listed, "map", "lane4")
    assert elements(listed, "map", "lane6") == []
    moved = nft(STANDING, opened(), opened(V4, "wan", "wwan"))
    assert len(rules(moved, "enter4")) == len(rules(listed, "enter4"))


@real
@pytest.mark.parametrize("dead", [("wan",), ("wan", "wwan")])
def test_real_what_stands_is_read_back(mocker: MockerFixture, dead: tuple[str, ...]) -> None:
    """A new run of the service learns from the kernel what an earlier one left open."""
    script = opened(V4, *dead)
    listed = nft(STANDING, script, then="list map inet wgup lane4")
    chain = nft(STANDING, script, then="list chain inet wgup enter4")
    commands = replace_commands(mocker)
    commands.answers = {
        "nft -j": CommandFailed("no such map"),
        "nft -j list map inet wgup lane4": json.dumps({"nftables": listed}),
        "nft -j list chain inet wgup enter4": json.dumps({"nftables": chain}),
        "ip -j -4 route show default table 5180": '[{"dst": "default", "dev": "wgup_a"}]',
    }
    import asyncio

    assert asyncio.run(Lane().read_standing()) == {V4: Opening(V4, dead, TO_A)}


MORE = barrier_script() + sticky_script(True)


@real
def test_real_what_is_shut_lapses_and_outlives_the_standing_part() -> None:
    both = shut_script({V4: ["wan", "wwan"], V6: ["wan"]})
    listed = nft(STANDING + MORE, both, STANDING + MORE)
    held = elements(listed, "set", "barred4")
    assert {entry["elem"]["val"] for entry in held} == {"wan", "wwan"}
    assert all(0 < entry["elem"]["timeout"] <= LAPSE_S for entry in held)
    once = nft(STANDING + MORE)
    for chain in ("bar", "bar_own", "refuse_all"):
        assert len(rules(listed, chain)) == len(rules(once, chain)) > 0


@real
def test_real_shutting_says_all_that_is_shut() -> None:
    both = shut_script({V4: ["wan"], V6: ["wan"]})
    listed = nft(STANDING + MORE, both, shut_script({V6: ["wan"]}))
    assert elements(listed, "set", "barred4") == []
    assert len(elements(listed, "set", "barred6")) == 1


@real
def test_real_kept_connections_lapse_by_the_kernel() -> None:
    listed = nft(STANDING + MORE, keep_script(V4, 600), keep_script(V6, 30), STANDING + MORE)
    [[key, verdict]] = elements(listed, "map", "keep4")
    assert (key["elem"]["val"], key["elem"]["timeout"]) == (STICKY_MARK, 600)
    assert verdict == {"goto": {"target": "mark_it"}}
    ended = nft(STANDING + MORE, keep_script(V4, 600), keep_script(V6, 30), end_script(V4))
    assert elements(ended, "map", "keep4") == []
    assert len(elements(ended, "map", "keep6")) == 1


@real
def test_real_without_sticky_failback_nothing_is_noted() -> None:
    listed = nft(STANDING + MORE, STANDING + barrier_script() + sticky_script(False))
    for chain in ("note", "kept", "kept_own"):
        assert rules(nft(STANDING + MORE), chain)
        assert not rules(listed, chain)


@real
def test_real_the_marks_of_others_are_left_alone() -> None:
    """Our bit of the conntrack mark is outside of mwan3's, pbr's and Tailscale's masks."""
    others = lane_module.POLICY_MASK | lane_module.CHOSEN_MASK | lane_module.LANE_MARK | 0xFF
    assert STICKY_MARK & others == 0
    [rule] = rules(nft(STANDING + MORE), "note")
    [mangle] = [e["mangle"] for e in rule["expr"] if "mangle" in e]
    assert mangle["key"] == {"ct": {"key": "mark"}}
    assert mangle["value"] == {"|": [{"ct": {"key": "mark"}}, STICKY_MARK]}
