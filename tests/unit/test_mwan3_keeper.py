"""A router with mwan3, through the service: what a call changes there, and what it leaves alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.errors import CommandFailed
from rpcd_wireguard_uplink.failover import Phase, State
from rpcd_wireguard_uplink.model import Family
from rpcd_wireguard_uplink.routing import mwan3_keeper
from rpcd_wireguard_uplink.uci import export, parse
from tests.unit.fakes import Commands
from tests.unit.house import CONFIG, LINE, NETWORK, House, commands_of_a_house, offer

SHIPPED = (Path(__file__).parents[1] / "data" / "mwan3-shipped.txt").read_text()


@pytest.fixture
def commands(mocker: MockerFixture, tmp_path: Path) -> Commands:
    state = tmp_path / "iface_state"
    state.mkdir()
    (state / "wan").write_text("online\n")
    (state / "wan6").write_text("offline\n")
    mocker.patch.object(mwan3_keeper.Keeper.__init__, "__defaults__", (str(state),))
    return commands_of_a_house(mocker)


@pytest.fixture
async def house(tmp_path: Path, commands: Commands) -> AsyncIterator[House]:
    found = House(tmp_path)
    found.write("wireguard-uplink", CONFIG)
    found.write("network", NETWORK)
    found.write("mwan3", SHIPPED)
    found.machine.name = "openwrt"
    found.machine.interfaces = {"wan6": LINE, "wan": LINE}
    await found.start()
    await found.call("uplink_gossip", message=offer("nodea"))
    await found.call("uplink_gossip", message=offer("nodeb"))
    try:
        yield found
    finally:
        await found.stop()


def exported(house: House) -> str:
    return export(parse(house.text("mwan3"), file="mwan3"), "mwan3")


def metrics(house: House) -> dict[str, int]:
    members = parse(house.text("mwan3"), file="mwan3").of_type("member")
    return {m.name: int(str(m.options["metric"])) for m in members}


def rebuilds(commands: Commands) -> list[str]:
    return commands.lines("env -i ACTION=connected")


async def test_adding_and_removing_restores_the_configuration(house: House) -> None:
    before = exported(house)
    await house.call("uplink_add", peer_id="nodea")
    await house.call("uplink_add", peer_id="nodeb", weight=30)
    assert "list use_member 'wgup_nodea_m'" in exported(house)
    assert "wgup_nodeb_m is in policy balanced" in house.machine.rendered
    await house.call("uplink_remove", peer_id="nodea")
    await house.call("uplink_remove", peer_id="nodeb")
    assert exported(house) == before
    assert house.machine.rendered == ""


async def test_mwan3_knows_an_interface_before_it_comes_up_and_until_it_is_gone(
    house: House,
) -> None:
    house.machine.steps.clear()
    await house.call("uplink_add", peer_id="nodea")
    steps = house.machine.steps
    assert steps.index("edit mwan3") < steps.index("edit network") < steps.index("sync")
    steps.clear()
    await house.call("uplink_remove", peer_id="nodea")
    assert steps.index("sync") < steps.index("edit mwan3")


async def test_a_priority_is_followed_by_a_rebuild_of_the_policies(
    house: House, commands: Commands
) -> None:
    await house.call("uplink_add", peer_id="nodea")
    await house.call("uplink_add", peer_id="nodeb")
    assert metrics(house)["wgup_nodea_m"] < metrics(house)["wgup_nodeb_m"]
    assert not rebuilds(commands)
    await house.call("uplink_set_priority", peer_id="nodeb", weight=90)
    assert metrics(house)["wgup_nodea_m"] > metrics(house)["wgup_nodeb_m"]
    assert rebuilds(commands) == [
        f"env -i ACTION=connected INTERFACE=wan DEVICE={LINE} sh /etc/hotplug.d/iface/15-mwan3"
    ]


async def test_nothing_is_rebuilt_during_an_outage(house: House, commands: Commands) -> None:
    await house.call("uplink_add", peer_id="nodea")
    house.running[-1].monitor.states[Family.IPV4] = State(Phase.STRANDED, LINE)
    await house.call("uplink_set_priority", peer_id="nodea", weight=90)
    assert not rebuilds(commands)


async def test_failover_switched_off_leaves_mwan3_as_it_was(house: House) -> None:
    before = exported(house)
    await house.call("uplink_add", peer_id="nodea")
    with_uplink = exported(house)
    await house.call("uplink_set_failover", enabled=False)
    assert exported(house) == before
    await house.call("uplink_set_failover", enabled=True)
    assert exported(house) == with_uplink


async def test_the_lane_covers_the_marks_of_the_lines(house: House) -> None:
    lane = house.running[-1].monitor.switch.lane
    assert set(lane.marks) >= {0, 0x100, 0x200, 0x3F00}
    await house.call("uplink_add", peer_id="nodea")
    assert set(lane.marks) >= {0, 0x100, 0x200, 0x500, 0x3F00}


async def test_what_mwan3_cannot_do_is_told_and_stops_nothing(house: House) -> None:
    house.write(
        "wireguard-uplink", CONFIG + "\toption failover_timeout '3'\n\toption pace 'fast'\n"
    )
    before = exported(house)
    await house.call("uplink_add", peer_id="nodea")
    assert exported(house) == before
    (problem,) = [p for p in (await house.call("uplink_status"))["problems"] if "mwan3" in p]
    assert "= 136 s" in problem
    house.write("wireguard-uplink", house.text("wireguard-uplink").replace("'3'", "'8'"))
    await house.running[-1].reload()
    assert exported(house) != before
    assert not [p for p in (await house.call("uplink_status"))["problems"] if "mwan3" in p]


async def test_a_rebuild_that_fails_is_told(house: House, commands: Commands) -> None:
    await house.call("uplink_add", peer_id="nodea")
    commands.answers["env -i"] = CommandFailed("env failed: no such file")
    await house.call("uplink_set_priority", peer_id="nodea", weight=90)
    assert "env failed: no such file" in (await house.call("uplink_status"))["problems"]


async def test_an_owners_change_of_mwan3_is_noticed_and_our_own_is_not(house: House) -> None:
    service = house.running[-1]
    await house.call("uplink_add", peer_id="nodea")
    assert not service.config_changed()
    added = "\nconfig interface 'wanc'\n\toption enabled '1'\n"
    house.write("mwan3", house.text("mwan3") + added)
    assert service.config_changed()
    await service.reload()
    assert not service.config_changed()
    assert added in house.text("mwan3")


async def test_without_mwan3_no_file_is_made(tmp_path: Path, commands: Commands) -> None:
    found = House(tmp_path)
    found.write("wireguard-uplink", CONFIG)
    found.write("network", NETWORK)
    found.machine.name = "openwrt"
    service = await found.start()
    await found.call("uplink_gossip", message=offer("nodea"))
    await found.call("uplink_add", peer_id="nodea")
    assert not (tmp_path / "config" / "mwan3").exists()
    assert service.monitor.switch.lane.marks == (0,)
    await found.stop()
