"""What every Linux has in common: keys and resolvers, read from files that may hold anything."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.platform import inbound, linux
from rpcd_wireguard_uplink.platform.linux import Platform, RollbackPending
from rpcd_wireguard_uplink.platform.tunnels import tunnels_of, wanted_sections
from rpcd_wireguard_uplink.system import nft
from rpcd_wireguard_uplink.system.files import UnusableFile
from rpcd_wireguard_uplink.uci import Section
from rpcd_wireguard_uplink.warnings import Warnings
from tests.unit.fakes import key_of, replace_commands
from tests.unit.platform.test_openwrt import UPLINK

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can plant another user's file")


@pytest.fixture
def machine(tmp_path: Path) -> Platform:
    return Platform(str(tmp_path / "config"), str(tmp_path / "keys"), Warnings())


@pytest.mark.parametrize(("mode", "wanted"), [(0o644, 0o640), (0o600, 0o600)])
async def test_our_configuration_is_not_everybodys_to_lock(
    machine: Platform, tmp_path: Path, mode: int, wanted: int
) -> None:
    """Whoever may read it could hold its lock for ever, and nothing could be changed."""
    path = tmp_path / "config" / "wireguard-uplink"
    path.parent.mkdir()
    path.touch()
    path.chmod(mode)
    await machine.sweep()
    assert path.stat().st_mode & 0o777 == wanted


# --- the filter for what comes in by tunnels


async def test_the_filter_that_stands_is_not_put_up_again(
    machine: Platform, mocker: MockerFixture
) -> None:
    commands = replace_commands(mocker)
    count = mocker.patch.object(nft.TableReader, "count_rules", return_value=0)
    await machine.guard_tunnels([])
    assert len(commands.calls) == 1
    count.return_value = inbound.inbound_script([]).count("add rule")
    await machine.guard_tunnels([])
    assert len(commands.calls) == 1, "a process for nothing"
    await machine.guard_tunnels(["wgup_nodea"])
    assert len(commands.calls) == 2, "the owner opened a tunnel"
    count.return_value -= 1
    await machine.guard_tunnels(["wgup_nodea"])
    assert len(commands.calls) == 3, "somebody took a rule out"
    count.return_value += 1
    await machine.guard_tunnels(None)
    await machine.guard_tunnels(["wgup_nodea"])
    assert len(commands.calls) == 5


def test_the_filter_names_protocols_by_words_of_nfts_own() -> None:
    """Others need /etc/protocols, which a small system lacks."""
    assert "related meta l4proto { icmp, icmpv6 } accept" in inbound.inbound_script([])


# --- resolvers


def _bytes(data: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(data) and None


def _of_nobody(path: Path) -> None:
    path.write_text("nameserver 192.0.2.66\n")
    os.chown(path, 65534, 65534)


@pytest.mark.parametrize(
    ("plant", "wanted"),
    [
        (_bytes(b"# caf\xe9\nnameserver 192.0.2.66\n"), ["192.0.2.66"]),
        (_bytes("# café\nnameserver 192.0.2.66\n".encode()), ["192.0.2.66"]),
        (_bytes(b"\0" * 100), ["192.0.2.1"]),
        (_bytes(b"nameserver evil; flush ruleset\nnameserver 192.0.2.300\n"), ["192.0.2.1"]),
        (os.mkfifo, ["192.0.2.1"]),
        (os.mkdir, ["192.0.2.1"]),
        pytest.param(_of_nobody, ["192.0.2.1"], marks=AS_ROOT),
    ],
)
async def test_resolvers_are_those_of_files_that_can_be_believed(
    machine: Platform,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    plant: Callable[[Path], None],
    wanted: list[str],
) -> None:
    first, second = tmp_path / "resolv.conf.auto", tmp_path / "resolv.conf"
    monkeypatch.setattr(linux, "SERVER_FILES", (str(first), str(second)))
    second.write_text("nameserver 192.0.2.1\n")
    plant(first)
    async with asyncio.timeout(5):
        assert await machine.read_resolvers() == wanted
    is_text = first.is_file() and first.stat().st_uid == os.geteuid()
    assert bool(machine.warnings) is not is_text
    assert all(str(first) in told for told in machine.warnings.values())


# --- keys


@pytest.mark.parametrize(
    "plant",
    [_bytes(b"\0" * 45), _bytes(b""), _bytes(b"caf\xe9"), os.mkfifo, os.mkdir],
    ids=["nuls", "empty", "latin", "fifo", "folder"],
)
async def test_a_key_file_without_a_key_is_named(
    machine: Platform, plant: Callable[[Path], None]
) -> None:
    await machine.write_key("wgup_other", key_of("other"))
    path = Path(machine._key_path("wgup_nodea"))
    plant(path)
    with pytest.raises(UnusableFile) as caught:
        await machine.read_key("wgup_nodea")
    assert str(path) in str(caught.value) and "caf" not in str(caught.value)
    assert await machine.read_key("wgup_other") == key_of("other")
    assert await machine.read_key("wgup_none") == ""


async def test_a_key_is_replaced_whole(machine: Platform, tmp_path: Path) -> None:
    for seed in ("first", "second"):
        await machine.write_key("wgup_nodea", key_of(seed))
        assert await machine.read_key("wgup_nodea") == key_of(seed)
    assert [p.name for p in (tmp_path / "keys").iterdir()] == ["wgup_nodea.key"]
    assert (tmp_path / "keys" / "wgup_nodea.key").stat().st_mode & 0o777 == 0o600


async def test_keys_of_removed_uplinks_are_kept_for_a_day(
    machine: Platform, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    for name in ("wgup_srv", "wgup_a", "wgup_b"):
        await machine.write_key(name, key_of(name))
    (keys / "wgup_c.key").mkdir()  # no key, but in the way
    (keys / "endpoints.json").write_text("{}")
    os.utime(keys / "wgup_b.key", (1.0, 1.0))  # its age counts from the removal
    for _ in range(2):
        await machine.keep_keys({"wgup_srv", "wgup_a"})
    assert sorted(path.name for path in keys.iterdir()) == [
        "endpoints.json",
        "wgup_a.key",
        "wgup_b.key.removed",
        "wgup_c.key.removed",
        "wgup_srv.key",
    ]
    aside = keys / "wgup_b.key.removed"
    assert aside.stat().st_mode & 0o777 == 0o600 and time.time() - aside.stat().st_mtime < 60
    assert await machine.read_key("wgup_b") == ""
    assert await machine.read_removed_key("wgup_b") == key_of("wgup_b")
    assert await machine.read_removed_key("wgup_c") == ""
    (keys / "wgup_c.key.removed").rmdir()
    for age_s, there in ((86300.0, True), (-1e6, True), (86300.0, True), (86500.0, False)):
        os.utime(aside, (time.time() - age_s,) * 2)
        await machine.keep_keys({"wgup_srv", "wgup_a"})
        assert aside.exists() is there, age_s
        if age_s < 0:
            assert abs(time.time() - aside.stat().st_mtime) < 60, "it is not kept for years"
    assert not machine.warnings


# --- sections that somebody edited


@pytest.mark.parametrize("text", ["", "x", "-1", "1e3", "99999999", "\u0663", "70000"])
def test_a_number_that_is_none_counts_as_the_default(text: str) -> None:
    interface, peer = wanted_sections(UPLINK, key_of("private"))
    edited = [
        Section(s.type, s.name, False, {**s.options, **changes})
        for s, changes in (
            (interface, {"mtu": text}),
            (peer, {"endpoint_port": text, "persistent_keepalive": text}),
        )
    ]
    (tunnel,) = tunnels_of(edited)
    assert (tunnel.mtu, tunnel.keepalive_s) == (1420, 25)
    assert tunnel.endpoint is not None and tunnel.endpoint.port == 51820


# --- rpcd's rollback


@pytest.mark.parametrize(
    ("config", "age_s", "is_refused"),
    [("network", 5, True), ("network", 200, False), ("network", -50, False), ("other", 5, False)],
)
async def test_nothing_is_written_that_a_rollback_would_undo(
    machine: Platform,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    config: str,
    age_s: int,
    is_refused: bool,
) -> None:
    monkeypatch.setattr("rpcd_wireguard_uplink.platform.linux.SNAPSHOTS", str(tmp_path))
    (tmp_path / "config").mkdir(exist_ok=True)
    (tmp_path / config).write_text("as it was before\n")
    os.utime(tmp_path / config, (time.time() - age_s,) * 2)
    refuses = pytest.raises(RollbackPending, match="confirm") if is_refused else nullcontext()
    with refuses:
        await machine.edit("network", lambda draft: draft.set_section("lan", "interface", {}))
    assert (tmp_path / "config" / "network").exists() is not is_refused
