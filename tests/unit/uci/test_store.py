"""Configuration files: locks, atomic writes, and a writer that is killed in the middle."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import stat
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import pytest

from rpcd_wireguard_uplink.errors import ConfigError, Status
from rpcd_wireguard_uplink.uci import ConfigBusy, MissingConfig, Store, UnwritableConfig

TEXT = "# kept\nconfig interface 'wan'\n\toption mtu '1500'\n"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "network").write_text(TEXT)
    return Store(str(tmp_path), lock_timeout_s=0.1)


def set_mtu(store: Store, value: str, config: str = "network") -> None:
    with store.edit(config) as draft:
        draft.set_option("wan", "mtu", value)


def names(store: Store) -> list[str]:
    return sorted(os.listdir(store.directory))


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file as another program that uses libuci does."""
    with path.open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def test_a_missing_file(store: Store) -> None:
    with pytest.raises(MissingConfig, match="dhcp doesn't exist") as caught:
        store.read("dhcp")
    assert caught.value.status == Status.NOT_FOUND
    assert store.read("dhcp", missing_ok=True).sections == ()
    assert store.signature("dhcp") is None


def test_a_new_file_is_private(store: Store, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with store.edit("dhcp") as draft:
            draft.set_section("a", "host", {"name": "x"})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "dhcp").stat().st_mode) == 0o600
    assert store.read("dhcp").sections[0].options == {"name": "x"}
    assert names(store) == ["dhcp", "network"]


def test_mode_and_owner_are_kept(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "network"
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 1234, 4321)
    before = path.stat()
    set_mtu(store, "1420")
    after = path.stat()
    assert after.st_ino != before.st_ino
    for kept in ("st_mode", "st_uid", "st_gid"):
        assert getattr(after, kept) == getattr(before, kept)


def test_a_link_is_written_through(store: Store, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    target.mkdir()
    (tmp_path / "network").rename(target / "real")
    (tmp_path / "network").symlink_to("elsewhere/real")
    set_mtu(store, "1420")
    assert (tmp_path / "network").is_symlink()
    assert "1420" in (target / "real").read_text()
    assert os.listdir(target) == ["real"]


def test_nothing_is_written_without_a_change_or_after_an_error(store: Store) -> None:
    before = store.signature("network")
    set_mtu(store, "1500")
    with store.edit("dhcp"):
        pass
    for config in ("network", "dhcp"):
        with pytest.raises(OSError, match="mine"), store.edit(config) as draft:
            draft.set_section("x", "t", {})
            raise OSError("mine")
    assert store.signature("network") == before
    assert names(store) == ["network"]
    set_mtu(store, "1501")
    assert store.signature("network") != before


def test_a_broken_file_is_not_overwritten(store: Store, tmp_path: Path) -> None:
    (tmp_path / "network").write_text("config interface 'wan\n")
    with pytest.raises(ConfigError, match=r"/network, line 1, column 18: a single quote"):
        set_mtu(store, "1420")
    assert (tmp_path / "network").read_text() == "config interface 'wan\n"


def test_changes_that_would_read_back_differently_are_refused(store: Store) -> None:
    """A named section like the name that libuci will give an anonymous one merges with it."""
    with pytest.raises(ConfigError, match="don't read back"), store.edit("dhcp") as draft:
        draft.set_section("gone", "a", {})
        draft.add_anonymous("a", {})
        draft.remove_section("gone")
        draft.set_section("cfg01b606", "a", {"x": "1"})
    assert names(store) == ["network"]


def test_a_name_that_leaves_the_directory_is_refused(store: Store) -> None:
    for config in ("../network", "", "a/b", ".new", "a\n"):
        with pytest.raises(ConfigError, match="name may only hold"):
            store.read(config)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["fifo", "directory"])
def test_what_is_not_a_file_is_refused(store: Store, tmp_path: Path, make) -> None:
    make(tmp_path / "odd")
    for use in (store.read, lambda config: set_mtu(store, "1", config)):
        with pytest.raises(UnwritableConfig, match="/odd"):
            use("odd")


def test_a_full_disk_leaves_the_old_content(store: Store) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        with pytest.raises(UnwritableConfig, match="/network: File too large; the old") as caught:
            set_mtu(store, "1420")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.status == Status.SYSTEM_ERROR
    assert store.read("network").render() == TEXT
    assert names(store) == ["network"]


def test_a_file_that_another_program_holds_is_busy(store: Store, tmp_path: Path) -> None:
    with (
        locked(tmp_path / "network"),
        pytest.raises(ConfigBusy, match="network is being changed") as caught,
    ):
        set_mtu(store, "1420")
    assert caught.value.status == Status.TIMEOUT
    set_mtu(store, "1420")


@pytest.mark.parametrize("config", ["network", "dhcp"])
def test_an_edit_within_an_edit_is_busy(store: Store, config: str) -> None:
    with store.edit(config) as outer:
        with pytest.raises(ConfigBusy), store.edit(config):
            pass
        with store.edit("other") as other:
            other.set_section("x", "t", {})
        outer.set_section("x", "t", {})
    assert names(store) == sorted({"network", "other", config})


def test_a_lock_that_comes_free_in_time_is_taken(store: Store, tmp_path: Path) -> None:
    patient = Store(store.directory, lock_timeout_s=30)
    with locked(tmp_path / "network"):
        waiting = threading.Thread(target=set_mtu, args=(patient, "1420"))
        waiting.start()
        # The holder replaces the file, as libuci does: the waiter must read the new one.
        time.sleep(0.05)
        (tmp_path / "new").write_text(TEXT + "\nconfig added\n")
        (tmp_path / "new").rename(tmp_path / "network")
    waiting.join(30)
    expected = TEXT.replace("1500", "1420") + "\nconfig added\n"
    assert (tmp_path / "network").read_text() == expected


@pytest.mark.parametrize("config", ["network", "dhcp"])
def test_a_change_by_a_program_that_does_not_lock_is_not_lost(
    store: Store, tmp_path: Path, config: str
) -> None:
    with (
        pytest.raises(ConfigBusy, match=f"{config} was changed by another program"),
        store.edit(config) as draft,
    ):
        draft.set_section("x", "t", {})
        (tmp_path / config).write_text("config theirs\n\toption a 'b'\n")
    assert (tmp_path / config).read_text() == "config theirs\n\toption a 'b'\n"


def test_no_change_is_lost_between_writers(store: Store) -> None:
    def count(mine: int) -> None:
        patient = Store(store.directory, lock_timeout_s=60)
        for _ in range(15):
            with patient.edit("counter") as draft:
                found = draft.get("a")
                total = int(str(found.options["n"])) if found else 0
                draft.set_section("a", "t", {"n": str(total + 1), "last": str(mine)})

    writers = [threading.Thread(target=count, args=(mine,)) for mine in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(90)
    section = store.read("counter").get("a")
    assert section is not None
    assert section.options["n"] == "60"
    assert names(store) == ["counter", "network"]


def killed_before_call(store: Store, config: str, call: int) -> bool:
    """Set an MTU in a child that is killed before its system call of that number, if there is."""
    child = os.fork()
    if child == 0:
        calls = 0

        def watch(frame: FrameType, event: str, function: object) -> None:
            nonlocal calls
            if event == "c_call" and getattr(function, "__module__", "") in ("posix", "fcntl"):
                calls += 1
                if calls == call:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.setprofile(watch)
        with suppress(BaseException), store.edit(config) as draft:
            draft.set_section("wan", "interface", {"mtu": "1420"})
        sys.setprofile(None)
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("config", ["network", "dhcp"])
def test_a_writer_killed_between_any_two_calls_leaves_old_or_new(
    store: Store, tmp_path: Path, config: str
) -> None:
    old = TEXT if config == "network" else None
    path = tmp_path / config
    left: list[str | None] = []
    while killed_before_call(store, config, len(left) + 1):
        left.append(path.read_text() if path.exists() else None)
        # The next writer isn't held up by what the killed one left, and clears it away.
        with store.edit(config) as draft:
            draft.set_section("next", "t", {})
        assert names(store) == sorted({"network", config})
        path.unlink()
        if old is not None:
            path.write_text(old)
    new = TEXT.replace("1500", "1420") if old else "config interface 'wan'\n\toption mtu '1420'\n"
    written = left.index(new)
    assert left[:written] == [old] * written
    assert set(left[written:]) == {new}
    assert written > 5, "the calls were not seen"


def test_a_killed_writer_of_a_new_file_leaves_no_lock_and_no_text(
    store: Store, tmp_path: Path
) -> None:
    (tmp_path / ".dhcp.new").write_text("config half 'wri")
    with store.edit("dhcp") as draft:
        assert draft.sections == ()
        draft.set_section("a", "t", {})
    assert (tmp_path / "dhcp").read_text() == "config t 'a'\n"
    assert names(store) == ["dhcp", "network"]
