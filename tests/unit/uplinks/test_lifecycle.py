"""The service when something goes wrong: failures are undone, a bad file changes nothing, a kill at
any step is mended by the next start, and no secret is ever told.
"""

from __future__ import annotations

import errno
import itertools
import json
import logging
import os
import shutil
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.config import store
from rpcd_wireguard_uplink.errors import CommandFailed
from rpcd_wireguard_uplink.model import DefaultRoute, Family, Tunnel
from rpcd_wireguard_uplink.platform.network_reader import NetworkReader
from rpcd_wireguard_uplink.storage import state_file
from rpcd_wireguard_uplink.system.files import UnusableFile
from rpcd_wireguard_uplink.uci import Draft
from rpcd_wireguard_uplink.uci.store import UnwritableConfig
from tests.unit.fakes import Commands, Crash, Machine, key_of
from tests.unit.router import CONFIG, LINE, NETWORK, Router, offer


async def added(router: Router, *peer_ids: str) -> dict[str, str]:
    """Uplinks to these peers; the files then."""
    for peer_id in peer_ids:
        await router.call("uplink_gossip", message=offer(peer_id))
        await router.call("uplink_add", peer_id=peer_id)
    return router.files()


async def problems(router: Router) -> str:
    return "\n".join((await router.call("uplink_status"))["problems"])


def without_nodea(text: str) -> str:
    """Our file without the section of the uplink to nodea, which another one follows."""
    head, _, tail = text.partition("\nconfig uplink 'wgup_nodea'")
    return head + tail[tail.index("\nconfig uplink") :]


# --- what goes wrong


async def test_a_tunnel_that_cannot_be_made_or_changed_is_as_it_was(router: Router) -> None:
    before = router.files()
    router.machine.refusals["wgup_nodea"] = "no kernel module"
    with pytest.raises(CommandFailed, match="no kernel module"):
        await added(router, "nodea")
    assert router.files() == before
    assert router.machine.tunnels == {}
    assert (await router.call("uplink_history"))["events"] == []
    router.machine.refusals.clear()
    before = await added(router, "nodea")
    router.assert_consistent()
    router.machine.refusals["wgup_nodea"] = "no kernel module"
    with pytest.raises(CommandFailed):
        await router.call("uplink_add", peer_id="nodea", weight=99)
    router.machine.refusals.clear()
    await router.daemon.uplinks.reload()
    assert router.files() == before
    router.assert_consistent()


@pytest.mark.parametrize("is_back", [True, False])
async def test_a_change_that_costs_the_router_its_line_is_undone(
    router: Router, is_back: bool
) -> None:
    """netifd may take a default route away for a moment, which is nothing; for good is too much."""
    before, routes = router.files(), dict(router.machine.routes)
    await router.call("uplink_gossip", message=offer("nodea"))
    reads: list[Family] = []

    def read(family: Family) -> list[DefaultRoute]:
        reads.append(family)
        gone = router.machine.tunnels and (not is_back or len(reads) < 5)
        return [] if gone else routes.get(family, [])

    router.machine.kernel.default_routes = read  # type: ignore[method-assign]
    if is_back:
        await router.call("uplink_add", peer_id="nodea")
        router.assert_consistent()
        return
    with pytest.raises(CommandFailed, match=LINE):
        await router.call("uplink_add", peer_id="nodea")
    assert router.files() == before
    assert router.machine.tunnels == {}


async def test_the_last_good_configuration_stays_in_force(router: Router) -> None:
    await added(router, "nodea")
    good = router.text("wireguard-uplink")
    before, tunnels = router.files(), router.machine.tunnels
    bad = CONFIG + "config uplink 'half"
    router.write("wireguard-uplink", bad)
    await router.daemon.uplinks.reload()
    status = await router.call("uplink_status")
    assert status["uplink_count"] == 1
    assert "last good configuration" in "\n".join(status["problems"])
    calls: dict[str, dict[str, Any]] = {
        "uplink_add": {"peer_id": "nodea", "weight": 5},
        "uplink_remove": {"peer_id": "nodea"},
        "uplink_set_priority": {"peer_id": "nodea", "weight": 5},
        "uplink_set_failover": {"enabled": False},
    }
    for name, arguments in calls.items():
        assert (await router.refusal(name, **arguments))[1] == "bad_config"
    assert router.files() == {**before, "wireguard-uplink": bad}
    assert router.machine.tunnels == tunnels
    router.write("wireguard-uplink", good)
    await router.daemon.uplinks.reload()
    others = [told for told in status["problems"] if "last good configuration" not in told]
    assert (await router.call("uplink_status"))["problems"] == others
    router.assert_consistent()


async def test_one_bad_option_stops_nothing_else(router: Router) -> None:
    """Nor does a section that can't be used: what is wrong is told, and left as it is."""
    await added(router, "nodea")
    tunnels = router.machine.tunnels
    half = "\nconfig uplink 'x'\n\toption peer_id 'nodeb'\n"
    router.write(
        "wireguard-uplink", router.text("wireguard-uplink").replace("'60'", "'soon'") + half
    )
    await router.daemon.uplinks.reload()
    told = await problems(router)
    assert "check_interval is 'soon': it must be a whole number from 1 to 3600" in told
    assert "the last good value, 60, stays in force: `wgctl uplink set check_interval 60`" in told
    assert "wireguard-uplink.x: an uplink's section is named like its interface" in told
    assert router.config.settings.check_interval_s == 60
    await router.call("uplink_set_priority", peer_id="nodea", weight=5)
    await router.call("uplink_set_failover", enabled=False)
    text = router.text("wireguard-uplink")
    assert "'soon'" in text and half in text and "auto_failover '0'" in text
    assert router.machine.tunnels == tunnels
    router.write("wireguard-uplink", without_nodea(text))
    await router.daemon.uplinks.reload()
    assert not router.machine.tunnels, "what a bad file takes out stays out"


async def test_a_state_file_that_cannot_be_written_is_a_problem_and_no_more(router: Router) -> None:
    router.state_file.unlink()
    router.state_file.mkdir()
    assert (await router.call("uplink_gossip", message=offer("nodea")))["accepted"]
    router.daemon.state_file.write()
    assert "can't write" in await problems(router)


# --- crashes

FIFOS = shutil.ignore_patterns("heartbeat")


def unchanging(files: Mapping[str, str]) -> dict[str, str]:
    """Files without what differs between two makings of one uplink: its own keys and address."""
    kept = {}
    for name, text in files.items():
        words = ("private_key 'SECRET", "private_key", "own_public_key", "address")
        lines = text.splitlines() if "/" not in name else ["a key"]
        kept[name] = "\n".join(
            line for line in lines if words[0] in line or not any(w in line for w in words[1:])
        )
    return kept


@pytest.mark.usefixtures("commands")
@pytest.mark.parametrize(
    ("prepare", "name", "arguments", "least"),
    [
        # intent, keys, values, network, tunnel, keys kept, pending gone
        pytest.param("", "uplink_add", {}, 7, id="an addition"),
        pytest.param("uplink_add", "uplink_remove", {}, 1, id="a removal"),
        pytest.param("uplink_add", "uplink_add", {"endpoint": "198.51.100.1:7"}, 1, id="a change"),
    ],
)
async def test_killed_at_any_step_of(
    tmp_path: Path, prepare: str, name: str, arguments: dict[str, Any], least: int
) -> None:
    """Before and after each step, and started anew each time."""
    template = Router(tmp_path / "template")
    template.write("wireguard-uplink", CONFIG)
    template.write("network", NETWORK)
    await template.start()
    await template.call("uplink_gossip", message=offer("nodea"))
    if prepare:
        await template.call(prepare, peer_id="nodea")
    await template.stop()

    async def copy(folder: str) -> Router:
        shutil.copytree(template.directory, tmp_path / folder, ignore=FIFOS)
        router = Router(tmp_path / folder)
        await router.start()
        return router

    done = await copy("done")
    old, steps = unchanging(done.files()), len(done.machine.steps)
    await done.call(name, peer_id="nodea", **arguments)
    new, count = unchanging(done.files()), len(done.machine.steps) - steps
    await done.stop()
    assert count >= least
    for step, after in itertools.product(range(1, count + 1), (False, True)):
        router = await copy(f"{step}-{after}")
        router.machine.dies_at, router.machine.after = len(router.machine.steps) + step, after
        with pytest.raises(Crash):
            await router.call(name, peer_id="nodea", **arguments)
        await router.restart()
        assert unchanging(router.files()) in (old, new), (step, after)
        router.assert_consistent()
        status = await router.call("uplink_status")
        assert status["uplink_count"] == len(router.machine.tunnels)
        await router.stop()


@pytest.mark.parametrize("lasts", [True, False])
async def test_what_was_written_although_the_disk_refused_is_undone(
    router: Router, mocker: MockerFixture, lasts: bool
) -> None:
    """The section is there whole, and only its folder can't be synced: the caller hears "no"."""
    before = router.files()
    refused = mocker.patch("os.fsync", side_effect=_refuse_folders)
    await router.call("uplink_gossip", message=offer("nodea"))
    with pytest.raises(UnwritableConfig):
        await router.call("uplink_add", peer_id="nodea")
    assert "pending" in router.text("wireguard-uplink")
    if lasts:
        await router.daemon.uplinks.reload()
        assert "undoing wgup_nodea failed" in await problems(router)
        assert (await router.call("uplink_history"))["events"] == [], "not undone, and not told so"
    mocker.stop(refused)
    await router.daemon.uplinks.reload()
    assert router.files() == before
    router.assert_consistent()


def _refuse_folders(descriptor: int) -> None:
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


async def test_a_reload_that_changes_nothing_does_nothing(
    router: Router, mocker: MockerFixture
) -> None:
    await added(router, "nodea")
    await router.daemon.uplinks.reload()
    places = (store, "parse_config"), (state_file, "write_state"), (NetworkReader, "read")
    done = [mocker.spy(*place) for place in places]
    await router.daemon.uplinks.reload()
    assert [spy.call_count for spy in done] == [0, 0, 0]
    mocker.patch.object(router.machine, "read_resolvers", return_value=["192.0.2.53"])
    await router.daemon.uplinks.reload()
    assert router.daemon.monitor.network.state.resolvers == ["192.0.2.53"], "no event tells of it"
    router.write("wireguard-uplink", router.text("wireguard-uplink").replace("'10'", "'11'"))
    await router.daemon.uplinks.reload()
    assert all(spy.call_count for spy in done)


# --- secrets


async def test_private_keys_are_never_told(
    router: Router, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await added(router, "nodea", "nodeb")
    secrets = [*router.machine.keys().values(), "SECRET-OF-THE-OWNER"]
    assert len(secrets) == 3
    router.machine.refusals["wgup_nodea"] = "refused"
    with pytest.raises(CommandFailed) as caught:
        await router.call("uplink_add", peer_id="nodea", weight=3)
    await router.daemon.uplinks.reload()
    for name in ("uplink_list", "uplink_status", "uplink_history"):
        await router.call(name)
    told = [
        *router.replies,
        json.dumps(router.events),
        router.state_file.read_text(),
        caplog.text,
        str(caught.value),
        repr(router.machine.tunnels),
        router.text("wireguard-uplink"),
    ]
    for secret in secrets:
        assert not [text for text in told if secret in text]


# --- a key file that holds no key


async def test_a_bad_key_file_takes_down_only_its_uplink_and_is_named(
    router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    await added(router, "nodea", "nodeb")
    read_key, generated = Machine.read_key, Machine.generate_keys

    async def broken(machine: Machine, interface: str) -> str:
        if interface == "wgup_nodea":
            raise UnusableFile("keys/wgup_nodea.key holds no WireGuard key")
        return await read_key(machine, interface)

    monkeypatch.setattr(Machine, "read_key", broken)
    monkeypatch.setattr(Machine, "generate_keys", None)
    router.write("network", NETWORK)
    await router.restart()
    assert set(router.machine.tunnels) == {"wgup_nodeb"}
    assert "wgup_nodea.key" in await problems(router)
    monkeypatch.setattr(Machine, "read_key", read_key)
    monkeypatch.setattr(Machine, "generate_keys", generated)
    await router.daemon.uplinks.reload()
    assert set(router.machine.tunnels) == {"wgup_nodea", "wgup_nodeb"}
    assert "wgup_nodea.key" not in await problems(router)


async def test_a_lost_key_file_ends_no_tunnel(router: Router) -> None:
    await added(router, "nodea")
    before, keys = router.machine.tunnels["wgup_nodea"], router.machine.keys()
    (router.directory / "keys" / "wgup_nodea").unlink()
    await router.restart()
    assert router.machine.tunnels["wgup_nodea"] == before
    assert router.machine.keys() == keys


# --- the filter for what comes in by tunnels


async def test_the_filter_stands_before_a_tunnel_and_goes_after_the_last(
    router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, set[str]]] = []
    sync = Machine.sync

    async def watched(machine: Machine, tunnels: Sequence[Tunnel]) -> Mapping[str, str]:
        seen.append((len(tunnels), set(machine.guards[-1] or ()) if machine.guards else {"none"}))
        return await sync(machine, tunnels)

    monkeypatch.setattr(Machine, "sync", watched)
    router.machine.guards.clear()
    await added(router, "nodea", "nodeb")
    assert seen == [(1, set()), (2, set())] and router.machine.guards == [set()]
    text = router.text("wireguard-uplink")
    router.write("wireguard-uplink", text + "\toption inbound '1'\n")
    await router.daemon.uplinks.reload()
    assert seen[-1] == (2, {"wgup_nodeb"})
    await router.call("uplink_set_priority", peer_id="nodeb", weight=5)
    assert "inbound '1'" in router.text("wireguard-uplink"), "what the owner opened stays open"
    await router.daemon.uplinks.guard_tunnels()
    assert router.machine.guards == [set(), {"wgup_nodeb"}, {"wgup_nodeb"}]
    for peer_id in ("nodea", "nodeb"):
        await router.call("uplink_remove", peer_id=peer_id)
    assert router.machine.guards[-1] is None


async def test_a_filter_that_can_not_stand_is_told(
    router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(machine: Machine, opened: object) -> None:
        raise CommandFailed("nft failed: no such file")

    monkeypatch.setattr(Machine, "guard_tunnels", fail)
    await added(router, "nodea")
    told = await problems(router)
    assert "can't be filtered (nft failed" in told
    monkeypatch.undo()
    await router.daemon.uplinks.guard_tunnels()
    assert "filtered" not in await problems(router)


# --- absence is not intent


LOST = {
    "empty": "",
    "blank": "\n# nothing\n",
    "cut off": "config wireguard-uplink 'uplink'\n\toption enabl"[:20],
    "unparsable": "config wireguard-uplink 'uplink\n",
    "without the main section": "config mqtt 'broker'\n\toption enabled '0'\n",
    "gone": None,
    "bytes": "\0\0\0\0",
}


@pytest.mark.parametrize("name", LOST)
async def test_a_configuration_that_is_lost_deletes_nothing(router: Router, name: str) -> None:
    before, text = await added(router, "nodea", "nodeb"), LOST[name]
    tunnels = dict(router.machine.tunnels)
    path = router.directory / "config" / "wireguard-uplink"
    for restarts in (False, True):
        if text is None:
            path.unlink()
        else:
            path.write_text(text)
        if restarts:
            await router.restart()
        for _ in range(2):
            await router.daemon.uplinks.reload()
            await router.daemon.uplinks.restore_tunnels()
        found = {k: v for k, v in router.files().items() if k != "wireguard-uplink"}
        assert found == {k: v for k, v in before.items() if k != "wireguard-uplink"}
        assert router.machine.tunnels == tunnels
        assert "wireguard-uplink" in await problems(router)
        refusal = await router.refusal("uplink_set_failover", enabled=False)
        assert refusal[1] == "bad_config", "nothing is written on top of what is lost"
        assert not path.exists() if text is None else path.read_text() == text
        router.write("wireguard-uplink", before["wireguard-uplink"])
        await router.daemon.uplinks.reload()
        assert router.files() == before and router.machine.tunnels == tunnels
        assert "wireguard-uplink" not in await problems(router)
        assert "uplink_removed" not in [table.get("kind") for _, table in router.events]


async def test_a_whole_file_without_a_section_is_a_removal_that_is_remembered(
    router: Router, commands: Commands
) -> None:
    whole = (await added(router, "nodea", "nodeb"))["wireguard-uplink"]
    tunnels, private = dict(router.machine.tunnels), router.machine.keys()["wgup_nodea"]
    router.write("wireguard-uplink", without_nodea(whole))
    await router.daemon.uplinks.reload()
    assert set(router.machine.tunnels) == set(router.machine.keys()) == {"wgup_nodeb"}
    assert router.config.settings.declined == {"nodea"}
    written = router.text("wireguard-uplink")
    for _ in range(3):
        await router.daemon.uplinks.reload()
    assert router.text("wireguard-uplink") == written
    # A section that comes back finds its key.
    commands.answers["wg pubkey"] = key_of(f"public of {private}")
    router.write("wireguard-uplink", whole)
    await router.daemon.uplinks.reload()
    assert router.machine.tunnels == tunnels and router.machine.keys()["wgup_nodea"] == private
    # Somebody else's section by the same name gets a key of its own.
    commands.answers["wg pubkey"] = key_of("another")
    for text in (without_nodea(whole), whole):
        router.write("wireguard-uplink", text)
        await router.daemon.uplinks.reload()
    assert router.machine.keys()["wgup_nodea"] not in ("", private)
    router.write("wireguard-uplink", without_nodea(whole))
    await router.daemon.uplinks.reload()
    await router.call("uplink_add", peer_id="nodea")
    assert "declined" not in router.text("wireguard-uplink"), "he wants it again"
    router.assert_consistent()


async def test_a_new_router_without_a_file_begins_anew(router: Router) -> None:
    (router.directory / "config" / "wireguard-uplink").unlink()
    await router.restart()
    assert "lost" not in await problems(router)
    await router.call("uplink_set_failover", enabled=True)
    assert "config wireguard-uplink 'uplink'" in router.text("wireguard-uplink")


@pytest.mark.parametrize("text", ["", None, "config interface 'lan\n", "\0"])
async def test_a_lost_network_file_is_no_reason_to_end_a_tunnel(
    router: Router, text: str | None
) -> None:
    """It holds what is derived: where it is ours alone it is made anew, with the same keys."""
    before = await added(router, "nodea", "nodeb")
    tunnels, path = dict(router.machine.tunnels), router.directory / "config" / "network"
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    await router.restart()
    await router.daemon.uplinks.reload()
    assert router.machine.tunnels == tunnels
    assert router.files()["keys/wgup_nodea"] == before["keys/wgup_nodea"]
    is_bad = bool(text)
    assert ("network" in await problems(router)) is is_bad
    router.write("network", before["network"])
    await router.daemon.uplinks.restore_tunnels()
    assert router.files() == before and router.machine.tunnels == tunnels
    assert "network" not in await problems(router)


# --- a disk that is full, a file that is locked


@pytest.mark.parametrize("last", [1, 2, 3, 4])
@pytest.mark.parametrize("how", ["add", "wait"])
async def test_what_can_not_be_written_is_undone_or_finished_by_the_next_try(
    router: Router, monkeypatch: pytest.MonkeyPatch, last: int, how: str
) -> None:
    """The disk is full from the `last` write of an add on, also for undoing it."""
    before = router.files()
    await router.call("uplink_gossip", message=offer("nodea"))
    written, edit = 0, Machine.edit

    async def full(machine: Machine, config: str, change: Callable[[Draft], None]) -> None:
        nonlocal written
        written += 1
        if written >= last:
            raise UnwritableConfig(f"{config}: No space left on device; the old content is kept")
        await edit(machine, config, change)

    with monkeypatch.context() as patched:
        patched.setattr(Machine, "edit", full)
        assert await router.refusal("uplink_add", peer_id="nodea") == (13, "config_io")
        told = await problems(router)
        assert ("undoing wgup_nodea failed" in told) is (last > 1)
    if how == "add":
        assert (await router.call("uplink_add", peer_id="nodea"))["success"]
    else:
        await router.daemon.uplinks.restore_tunnels()
    router.assert_consistent()
    uplinks = router.config.uplinks
    if how == "add" or uplinks:
        assert [u.peer_id for u in router.daemon.monitor.watch.uplinks] == ["nodea"]
    else:
        assert router.files() == before
    assert "undo" not in await problems(router)


async def test_the_last_good_copy_is_kept_once_there_is_room_again(router: Router) -> None:
    kept = router.directory / "last-good"
    text = kept.read_text()
    kept.unlink()
    kept.mkdir()
    await router.call("uplink_set_failover", enabled=False)
    assert "can't be kept" in await problems(router)
    kept.rmdir()
    assert await router.daemon.uplinks.restore_tunnels()
    assert "can't be kept" not in await problems(router)
    assert text != kept.read_text() and "auto_failover '0'" in kept.read_text()
    assert not await router.daemon.uplinks.restore_tunnels()


async def test_a_removal_that_the_disk_cuts_short_is_finished_soon(
    router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our file says that the uplink is gone: what is derived from it follows, by itself."""
    await added(router, "nodea")
    edit = Machine.edit

    async def refuse(machine: Machine, config: str, change: Callable[[Draft], None]) -> object:
        if config == "network":
            raise CommandFailed("no space left on device")
        return await edit(machine, config, change)

    with monkeypatch.context() as patched:
        patched.setattr(Machine, "edit", refuse)
        with pytest.raises(CommandFailed, match="no space"):
            await router.call("uplink_remove", peer_id="nodea")
    assert "no space left on device" in router.daemon.warnings.all()
    assert "wgup_nodea" in router.machine.tunnels
    assert await router.daemon.uplinks.restore_tunnels()
    router.assert_consistent()
    assert router.machine.tunnels == {}
    assert "no space left on device" not in router.daemon.warnings.all()
