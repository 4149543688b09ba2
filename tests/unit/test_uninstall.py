"""What a removal of the package takes back, over a machine of files."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.errors import CommandFailed
from rpcd_wireguard_uplink.model import Family
from rpcd_wireguard_uplink.system import process
from rpcd_wireguard_uplink.system.rtnetlink import MAIN, UNREACHABLE, Route, Rule
from rpcd_wireguard_uplink.uninstall import remove_routing, remove_tables, take_back
from tests.unit.fakes import Commands, RoutingTables, replace_commands
from tests.unit.router import CONFIG, LINE, NETWORK, Router, commands_of_a_router, offer

V4, V6 = Family.IPV4, Family.IPV6
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
    again = await take_back(router.machine, str(router.directory / "run"))
    assert (again, router.files()) == ([], after), "a second time changes nothing"


async def test_what_fails_is_told_and_the_rest_goes_all_the_same(
    router: Router, mocker: MockerFixture
) -> None:
    commands = replace_commands(mocker)
    commands.answers["nft"] = CommandFailed("nft is missing")
    (told,) = await take_back(router.machine, str(router.directory / "run"))
    assert told == "nftables: nft is missing"
    assert router.text("network") == NETWORK
    commands.answers["nft"] = "\x00rubbish"
    (told,) = await take_back(router.machine, str(router.directory / "run"))
    assert told.startswith("nftables: what nft printed can't be understood")


def test_our_rules_and_routes_are_told_by_table_and_protocol() -> None:
    kernel = RoutingTables()
    shipped, six = list(kernel.rules(V4)), list(kernel.rules(V6))
    theirs = [Rule(V4, 2001, 1), Rule(V4, 5270, 52)]
    ours = [Rule(V4, 99, MAIN, protocol=151), Rule(V4, 120, 5180), Rule(V4, 32769, 5181)]
    kernel.found_rules[V4] = [*shipped, *theirs, *ours]
    kept = [Route(V4, MAIN), Route(V4, 52)]
    refusal = Route(V6, 5179, "", (), 4294967294, UNREACHABLE)
    left = [Route(V4, 5180), Route(V4, MAIN, "10.0.0.0/8", (), 1, UNREACHABLE, 151)]
    kernel.found_routes = {V4: [*kept, *left], V6: [refusal]}
    remove_routing(kernel)
    assert kernel.found_rules == {V4: [*shipped, *theirs], V6: six}
    assert kernel.found_routes == {V4: kept, V6: []}


async def test_our_tables_are_told_by_their_names(mocker: MockerFixture) -> None:
    names = ("fw4", "wgup", "wgup_inbound", "wgupper")
    rows = "".join(f"table inet {name}\n" for name in names)
    commands = Commands({"nft list": rows})
    mocker.patch.object(process, "run", commands.run)
    await remove_tables()
    deleted = ["nft delete table inet wgup", "nft delete table inet wgup_inbound"]
    assert commands.lines("nft delete") == deleted
