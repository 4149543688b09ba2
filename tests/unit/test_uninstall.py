"""What a removal of the package takes back, over a machine of files."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.errors import CommandFailed
from rpcd_wireguard_uplink.system import process
from rpcd_wireguard_uplink.uninstall import (
    remove_tables,
    route_deletions,
    rule_deletions,
    take_back,
)
from tests.unit.fakes import Commands, replace_commands
from tests.unit.router import CONFIG, LINE, NETWORK, Router, commands_of_a_router, offer

MWAN3 = (Path(__file__).parents[1] / "data" / "mwan3-shipped.txt").read_text()


@pytest.fixture
async def router(tmp_path: Path, mocker: MockerFixture) -> AsyncIterator[Router]:
    """A router whose service has made an uplink and was stopped."""
    commands_of_a_router(mocker)
    found = Router(tmp_path)
    for name, text in (("wireguard-uplink", CONFIG), ("network", NETWORK), ("mwan3", MWAN3)):
        found.write(name, text)
    found.machine.name = "openwrt"
    found.machine.interfaces = {"wan": LINE}
    await found.start()
    await found.call("uplink_gossip", message=offer("nodea"))
    await found.call("uplink_add", peer_id="nodea")
    await found.stop()
    yield found


async def test_only_our_own_configuration_and_the_keys_stay(
    router: Router, mocker: MockerFixture
) -> None:
    before = router.files()
    assert before["network"] != NETWORK and before["mwan3"] != MWAN3
    replace_commands(mocker)
    (router.directory / "run").mkdir()
    (router.directory / "run" / "steering.json").touch()
    assert await take_back(router.machine, str(router.directory / "run")) == []
    after = router.files()
    assert after == before | {"network": NETWORK, "mwan3": MWAN3}
    assert not (router.directory / "run").exists()
    assert router.machine.tunnels == {} and router.machine.rendered == ""
    assert await take_back(router.machine, str(router.directory / "run")) == [], (
        "a second time changes nothing"
    )
    assert router.files() == after


async def test_what_fails_is_told_and_the_rest_goes_all_the_same(
    router: Router, mocker: MockerFixture
) -> None:
    commands = replace_commands(mocker)
    commands.answers["nft"] = CommandFailed("nft is missing")
    (told,) = await take_back(router.machine, str(router.directory / "run"))
    assert told == "nftables: nft is missing"
    assert router.text("network") == NETWORK


def test_our_rules_are_told_by_table_mark_and_protocol() -> None:
    rules = [
        {"priority": 0, "src": "all", "table": "local"},
        {"priority": 99, "fwmark": "0x51", "fwmask": "0xff", "table": "main"},
        {"priority": 120, "fwmark": "0x1000000", "fwmask": "0x1000000", "table": "5180"},
        {"priority": 2001, "fwmark": "0x100", "fwmask": "0x3f00", "table": "1"},
        {"priority": 5270, "fwmark": "0x80000", "fwmask": "0xff0000", "table": "52"},
        {"priority": 30000, "table": "main", "protocol": "152"},
        {"priority": 32766, "table": "main", "protocol": "kernel"},
        {"priority": 32768, "iif": "lo", "table": "5180"},
        {"priority": 32769, "oif": "wgup_a", "table": "5181"},
        {"priority": 40000, "action": "unreachable"},
    ]
    assert rule_deletions(rules) == [
        "rule del pref 99 fwmark 0x51/0xff lookup main",
        "rule del pref 120 fwmark 0x1000000/0x1000000 lookup 5180",
        "rule del pref 30000 lookup main protocol 152",
        "rule del pref 32768 iif lo lookup 5180",
        "rule del pref 32769 oif wgup_a lookup 5181",
    ]


def test_our_routing_tables_are_emptied() -> None:
    unreachable = {"type": "unreachable", "dst": "default", "metric": 4294967295}
    routes = [
        {"dst": "default", "dev": "wan", "metric": 10},
        {"type": "local", "dst": "192.0.2.1", "table": "local"},
        {"dst": "default", "dev": "wan", "table": "52"},
        {**unreachable, "table": "5179"},
        {"dst": "default", "dev": "wgup_a", "table": "5180"},
        {"dst": "192.0.2.0/24", "dev": "wan", "table": "5179"},
    ]
    assert route_deletions(routes) == [
        "route del unreachable default table 5179 metric 4294967295",
        "route flush table 5179",
        "route flush table 5180",
    ]


async def test_our_tables_are_told_by_their_names(mocker: MockerFixture) -> None:
    names = ("fw4", "wgup", "wgup_inbound", "wgupper")
    rows = [{"metainfo": {}}, *({"table": {"family": "inet", "name": name}} for name in names)]
    commands = Commands({"nft -j": json.dumps({"nftables": rows})})
    mocker.patch.object(process, "run", commands.run)
    await remove_tables()
    deleted = ["nft delete table inet wgup", "nft delete table inet wgup_inbound"]
    assert commands.lines("nft delete") == deleted
