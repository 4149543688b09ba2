"""A router with mwan3, through the service: what a call changes there, and what it leaves alone."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.errors import CommandFailed, TimedOut
from rpcd_wireguard_uplink.failover.machine import Phase, State
from rpcd_wireguard_uplink.model import Family
from rpcd_wireguard_uplink.mwan3 import sync
from rpcd_wireguard_uplink.mwan3.status import Tracked, View
from rpcd_wireguard_uplink.system import process
from rpcd_wireguard_uplink.uci import export, parse
from tests.unit.fakes import Commands
from tests.unit.router import CONFIG, LINE, NETWORK, Router, commands_of_a_router, offer

SHIPPED = (Path(__file__).parents[2] / "data" / "mwan3-shipped.txt").read_text()


@pytest.fixture
def commands(mocker: MockerFixture, tmp_path: Path) -> Commands:
    state = tmp_path / "iface_state"
    state.mkdir()
    (state / "wan").write_text("online\n")
    (state / "wan6").write_text("offline\n")
    (tmp_path / "track").mkdir()
    where = (str(state), str(tmp_path / "track"))
    mocker.patch.object(sync.Keeper.__init__, "__defaults__", where)
    return commands_of_a_router(mocker)


@pytest.fixture
async def router(tmp_path: Path, commands: Commands) -> AsyncIterator[Router]:
    found = Router(tmp_path)
    found.write("wireguard-uplink", CONFIG)
    found.write("network", NETWORK)
    found.write("mwan3", SHIPPED)
    found.machine.name = "openwrt"
    found.machine.interfaces = {"wan6": LINE, "wan": LINE}
    found.machine.instances = ["rtmon_ipv4", "track_wan"]
    await found.start()
    await found.call("uplink_gossip", message=offer("nodea"))
    await found.call("uplink_gossip", message=offer("nodeb"))
    try:
        yield found
    finally:
        await found.stop()


def exported(router: Router) -> str:
    return export(parse(router.text("mwan3"), file="mwan3"), "mwan3")


def metrics(router: Router) -> dict[str, int]:
    members = parse(router.text("mwan3"), file="mwan3").of_type("member")
    return {m.name: int(str(m.options["metric"])) for m in members}


def shells(commands: Commands) -> list[str]:
    """What a running mwan3 was told since the last look."""
    found = commands.lines("sh -c")
    commands.calls.clear()
    return found


def track(tmp_path: Path, *names: str) -> None:
    """Have mwan3 watch these interfaces."""
    for name in names:
        (tmp_path / "track" / name).mkdir()
        (tmp_path / "track" / name / "PID").write_text(f"{os.getpid()}\n")


async def test_what_is_removed_or_switched_off_leaves_the_configuration_as_it_was(
    router: Router, mocker: MockerFixture
) -> None:
    """mwan3 knows an interface before it comes up, and until it is gone."""
    before, steps = exported(router), router.machine.steps
    applied = mocker.spy(router.daemon.steering.controller, "apply")
    steps.clear()
    await router.call("uplink_add", peer_id="nodea")
    assert steps.index("edit mwan3") < steps.index("edit network") < steps.index("sync")
    assert "list use_member 'wgup_nodea_m'" in (with_uplink := exported(router))
    assert set(applied.call_args.args[0].marks) >= {0, 0x100, 0x200, 0x500, 0x3F00}
    await router.call("uplink_set_failover", enabled=False)
    assert exported(router) == before
    await router.call("uplink_set_failover", enabled=True)
    assert exported(router) == with_uplink
    await router.call("uplink_add", peer_id="nodeb", weight=30)
    assert "wgup_nodeb_m is in policy balanced" in router.machine.rendered
    await router.call("uplink_remove", peer_id="nodeb")
    steps.clear()
    await router.call("uplink_remove", peer_id="nodea")
    assert steps.index("sync") < steps.index("edit mwan3")
    assert exported(router) == before and router.machine.rendered == ""


async def test_a_new_uplink_is_taken_in_without_a_reload(
    router: Router, commands: Commands, tmp_path: Path
) -> None:
    await router.call("uplink_add", peer_id="nodea")
    (told,) = shells(commands)
    for name in ("wgup_nodea", "wgup6nodea"):
        assert f'{name})" = online ] || mwan3_ifup {name} cmd' in told
        assert f"rc_procd start_tracker {name}" in told
    assert "mwan3_create_policies_iptables wg_underlay\nmwan3_set_user_rules" in told
    assert told.endswith("&"), "nobody waits for it"
    track(tmp_path, "wgup_nodea", "wgup6nodea")
    await router.daemon.uplinks.reload()
    assert not shells(commands)
    (tmp_path / "track" / "wgup_nodea" / "PID").write_text("0\n")
    await router.daemon.uplinks.reload()
    (told,) = shells(commands)
    assert "start_tracker wgup_nodea" in told
    assert "wgup6nodea" not in told and "user_rules" not in told


async def test_mwan3_lets_an_interface_go_before_its_section_does(
    router: Router, commands: Commands, tmp_path: Path, mocker: MockerFixture
) -> None:
    await router.call("uplink_add", peer_id="nodea")
    track(tmp_path, "wgup_nodea", "wgup6nodea")
    shells(commands)
    seen: list[tuple[str, bool]] = []

    async def run(argv: Sequence[str], **options: Any) -> process.Completed:
        if argv[0] == "sh":
            seen.append((argv[2], "config interface 'wgup_nodea'" in router.text("mwan3")))
            raise TimedOut("sh did not finish")
        return await commands.run(argv, **options)

    mocker.patch.object(process, "run", run)
    await router.call("uplink_remove", peer_id="nodea")
    (gone, there), (rules, still_there) = seen
    assert "mwan3_interface_hotplug_shutdown wgup_nodea 1\nprocd_kill mwan3 track_wgup_n" in gone
    assert there
    assert "mwan3_set_user_rules" in rules and "wgup" not in rules
    assert not still_there


@pytest.mark.parametrize("instances", [[], ["track_wgup_nodea"]])
async def test_a_stopped_mwan3_is_told_nothing(
    router: Router, commands: Commands, instances: list[str]
) -> None:
    """Its folder of states is there nevertheless: its hotplug script makes it at any `ifup`."""
    router.machine.instances = instances
    await router.call("uplink_add", peer_id="nodea")
    await router.call("uplink_set_priority", peer_id="nodea", weight=90)
    await router.call("uplink_remove", peer_id="nodea")
    assert not shells(commands)


async def test_an_mwan3_that_was_never_enabled_is_left_alone(
    router: Router, commands: Commands
) -> None:
    router.machine.instances, router.machine.enabled = [], False
    before = exported(router)
    await router.call("uplink_add", peer_id="nodea")
    assert exported(router) == before and not shells(commands)
    router.machine.enabled = True
    await router.daemon.uplinks.reload()
    assert "wgup_nodea" in exported(router), "for when it is started"
    assert not shells(commands)
    router.machine.enabled = False
    await router.daemon.uplinks.reload()
    assert exported(router) == before


async def test_a_priority_is_followed_by_a_rebuild_of_the_policies(
    router: Router, commands: Commands, tmp_path: Path
) -> None:
    await router.call("uplink_add", peer_id="nodea")
    await router.call("uplink_add", peer_id="nodeb")
    track(tmp_path, "wgup_nodea", "wgup6nodea", "wgup_nodeb", "wgup6nodeb")
    assert metrics(router)["wgup_nodea_m"] < metrics(router)["wgup_nodeb_m"]
    assert not any("mwan3_set_policies_iptables" in told for told in shells(commands))
    await router.call("uplink_set_priority", peer_id="nodeb", weight=90)
    assert metrics(router)["wgup_nodea_m"] > metrics(router)["wgup_nodeb_m"]
    (told,) = shells(commands)
    assert "\nmwan3_set_policies_iptables\n" in told
    router.daemon.monitor.states[Family.IPV4] = State(Phase.STRANDED, LINE)
    await router.call("uplink_set_priority", peer_id="nodeb", weight=1)
    assert not shells(commands), "not during an outage"


async def test_a_line_that_mwan3_holds_to_be_offline_is_refused(
    router: Router, tmp_path: Path
) -> None:
    wans = router.daemon.wans
    note = tmp_path / "iface_state" / "wan"
    assert wans.mwan3.who_refuses(LINE, Family.IPV4) == ""
    note.write_text("offline\n")
    assert wans.mwan3.who_refuses(LINE, Family.IPV4) == "mwan3 holds wan to be offline"
    assert wans.mwan3.who_refuses(LINE, Family.IPV6) == "", "its own wan6 is disabled"
    assert wans.mwan3.who_refuses("other0", Family.IPV4) == ""
    note.unlink()
    assert wans.mwan3.who_refuses(LINE, Family.IPV4) == ""


async def test_mwan3s_view_is_read_when_told_and_once_for_a_burst(
    router: Router, mocker: MockerFixture
) -> None:
    words = iter(("online", "online", "offline"))

    async def read_view(_: object) -> View:
        await asyncio.sleep(0)
        policies = {Family.IPV4: {"balanced": ("wan",)}}
        return View({"wan": Tracked(next(words), "active")}, policies)

    mocker.patch.object(sync, "read_view", read_view)
    wans = router.daemon.wans
    assert await wans.follow_mwan3()
    assert wans.mwan3_view.told == "wan is online"
    told = await asyncio.gather(*(wans.follow_mwan3() for _ in range(5)))
    assert sum(told) == 1
    assert not list(words), "asked once, and once more for those who came meanwhile"
    assert wans.mwan3_view.told == "wan is offline"
    status = await router.call("uplink_status")
    assert status["mwan3"] == {
        "available": True,
        "interfaces": [{"name": "wan", "status": "offline", "tracking": "active"}],
        "policies": [{"name": "balanced", "family": "ipv4", "interfaces": ["wan"]}],
    }
    assert (status["mwan3_available"], status["mwan3_status"]) == (True, "wan is offline")


async def test_what_mwan3_cannot_do_is_told_and_stops_nothing(
    router: Router, commands: Commands
) -> None:
    router.write(
        "wireguard-uplink", CONFIG + "\toption failover_timeout '3'\n\toption pace 'fast'\n"
    )
    before = exported(router)
    await router.call("uplink_add", peer_id="nodea")
    assert exported(router) == before
    (problem,) = [p for p in (await router.call("uplink_status"))["problems"] if "mwan3" in p]
    assert "= 136 s" in problem
    router.write("wireguard-uplink", router.text("wireguard-uplink").replace("'3'", "'8'"))
    await router.daemon.uplinks.reload()
    assert exported(router) != before
    assert not [p for p in (await router.call("uplink_status"))["problems"] if "mwan3" in p]
    commands.answers["sh -c"] = CommandFailed("can't run sh")
    await router.call("uplink_add", peer_id="nodeb")
    assert "can't run sh" in (await router.call("uplink_status"))["problems"]


async def test_an_owners_change_of_mwan3_is_noticed_and_our_own_is_not(router: Router) -> None:
    service = router.daemon
    await router.call("uplink_add", peer_id="nodea")
    assert not service.uplinks.changed_outside
    added = "\nconfig interface 'wanc'\n\toption enabled '1'\n"
    router.write("mwan3", router.text("mwan3") + added)
    assert service.uplinks.changed_outside
    await service.uplinks.reload()
    assert not service.uplinks.changed_outside
    assert added in router.text("mwan3")


async def test_without_mwan3_no_file_is_made(
    tmp_path: Path, commands: Commands, mocker: MockerFixture
) -> None:
    found = Router(tmp_path)
    found.write("wireguard-uplink", CONFIG)
    found.write("network", NETWORK)
    found.machine.name = "openwrt"
    service = await found.start()
    await found.call("uplink_gossip", message=offer("nodea"))
    applied = mocker.spy(service.steering.controller, "apply")
    await found.call("uplink_add", peer_id="nodea")
    assert not (tmp_path / "config" / "mwan3").exists()
    assert applied.call_args.args[0].marks == (0,)
    assert not await service.wans.follow_mwan3()
    assert service.wans.mwan3_view is None
    assert not shells(commands) and not commands.lines("ubus")
    await found.stop()
