"""The watchdog: one process, that takes rules back when no word comes, and ends when told."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.steering import watchdog as module
from rpcd_wireguard_uplink.steering.watchdog import ReversePath, Watchdog, find_shell
from rpcd_wireguard_uplink.system import proc

TAKEN_BACK = [
    f"{family} {what} protocol {protocol}"
    for what in ("rule flush", "route flush table all")
    for protocol in (152, 151)
    for family in ("-4", "-6")
]


def wait_for(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 15.0
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.01)


class Scene:
    """A folder of a service, and an `ip` that only notes what it was called for."""

    def __init__(self, path: Path) -> None:
        self.directory = path / "run"
        self.log = path / "ip.log"
        self.children: list[subprocess.Popen[bytes]] = []
        program = path / "bin" / "ip"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\necho "$@" >>{self.log}\n')
        program.chmod(0o755)
        self.path = f"{program.parent}:{os.environ['PATH']}"

    def calls(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    def running(self) -> int:
        return sum(child.poll() is None for child in self.children)

    def begin(self, watchdog: Watchdog) -> None:
        """Have it armed and listening."""
        assert watchdog.beat(armed=True) == ""
        wait_for(self.has_reader)

    def has_reader(self) -> bool:
        try:
            os.close(os.open(self.directory / "heartbeat", os.O_WRONLY | os.O_NONBLOCK))
        except OSError:
            return False
        return True


@pytest.fixture
def scene(tmp_path: Path, mocker: MockerFixture) -> Iterator[Scene]:
    found = Scene(tmp_path)
    mocker.patch.dict(os.environ, {"PATH": found.path})
    start = subprocess.Popen

    def noted(*args: Any, **options: Any) -> Any:
        found.children.append(start(*args, **options))
        return found.children[-1]

    mocker.patch.object(module.subprocess, "Popen", noted)
    yield found
    for child in found.children:
        child.kill()
        child.wait()


@pytest.fixture
def watchdog(scene: Scene) -> Watchdog:
    return Watchdog(str(scene.directory))


def test_without_a_diversion_none_is_started(scene: Scene, watchdog: Watchdog) -> None:
    assert watchdog.beat(armed=False) == ""
    watchdog.leave()
    watchdog.end()
    watchdog.prolong()
    assert scene.children == [] and not scene.directory.exists()


def test_one_is_started_and_ends_when_told(scene: Scene, watchdog: Watchdog) -> None:
    """Two would each hear but a part of the words, and take a diversion back that is in force."""
    for _ in range(5):
        assert watchdog.beat(armed=True) == ""
    assert len(scene.children) == 1
    wait_for(scene.has_reader)
    for _ in range(5):
        assert watchdog.beat(armed=True) == ""
    assert len(scene.children) == 1
    watchdog.end()
    assert scene.running() == 0
    assert watchdog.beat(armed=False) == ""
    assert len(scene.children) == 1 and scene.calls() == []


@pytest.mark.parametrize(
    ("shell", "silence_s"),
    [
        pytest.param("bash", 0.3, marks=pytest.mark.needs("bash")),
        pytest.param("busybox ash", 1, marks=pytest.mark.needs("busybox")),
    ],
)
def test_silence_takes_the_rules_back(
    scene: Scene, watchdog: Watchdog, mocker: MockerFixture, shell: str, silence_s: float
) -> None:
    """Even where it comes right after the first word, before the shell has opened its end."""
    mocker.patch.object(module, "SILENCE_S", silence_s)
    mocker.patch.object(module, "find_shell", return_value=["/usr/bin/env", *shell.split()])
    scene.directory.mkdir()
    Path(watchdog.saved_path).write_text("no-such-device 1\n")
    begun_s = time.monotonic()
    watchdog.beat(armed=True)
    watchdog.leave()
    wait_for(lambda: scene.running() == 0)
    assert time.monotonic() - begun_s > silence_s
    assert scene.calls() == TAKEN_BACK
    assert not os.path.exists(watchdog.saved_path)


def test_a_service_that_is_being_loaded_gives_it_its_full_time(
    scene: Scene, watchdog: Watchdog, mocker: MockerFixture
) -> None:
    mocker.patch.object(module, "SILENCE_S", 1)
    scene.begin(watchdog)
    watchdog.leave()
    time.sleep(0.3)
    begun_s = time.monotonic()
    Watchdog(str(scene.directory)).prolong()
    wait_for(lambda: scene.running() == 0)
    assert time.monotonic() - begun_s > 0.9


def test_a_service_that_is_back_in_time_takes_it_over(scene: Scene, watchdog: Watchdog) -> None:
    scene.begin(watchdog)
    watchdog.leave()
    again = Watchdog(str(scene.directory))
    for _ in range(5):
        assert again.beat(armed=True) == ""
    again.end()
    wait_for(lambda: scene.running() == 0)
    assert scene.calls() == [] and len(scene.children) == 1


def test_calm_ends_the_watchdog(scene: Scene, watchdog: Watchdog) -> None:
    """A service that dies later, while nothing is diverted, leaves no process behind."""
    scene.begin(watchdog)
    watchdog.beat(armed=False)
    wait_for(lambda: scene.running() == 0)
    assert scene.calls() == []
    watchdog.beat(armed=False)
    watchdog.beat(armed=True)
    assert len(scene.children) == 2
    watchdog.end()


def test_calm_or_the_end_before_it_has_begun(scene: Scene, watchdog: Watchdog) -> None:
    watchdog.beat(armed=True)
    watchdog.beat(armed=False)
    wait_for(lambda: watchdog.beat(armed=False) or scene.running() == 0)
    watchdog.beat(armed=True)
    watchdog.end()
    assert scene.running() == 0 and scene.calls() == []


def test_one_that_was_killed_is_started_again(scene: Scene, watchdog: Watchdog) -> None:
    scene.begin(watchdog)
    watchdog.beat(armed=True)
    scene.children[0].kill()
    scene.children[0].wait()
    assert watchdog.beat(armed=True) == ""
    assert len(scene.children) == 2
    wait_for(scene.has_reader)
    watchdog.end()
    assert scene.running() == 0


def test_one_whose_fifo_is_gone_is_replaced(
    scene: Scene, watchdog: Watchdog, mocker: MockerFixture
) -> None:
    """Somebody cleaned /run: it would hear nothing more, and take the diversion back."""
    mocker.patch.object(module, "STARTING_S", 0.0)
    scene.begin(watchdog)
    watchdog.leave()
    (scene.directory / "heartbeat").unlink()
    assert watchdog.beat(armed=True) == ""
    assert scene.running() == 1 and len(scene.children) == 2
    wait_for(scene.has_reader)
    watchdog.end()
    assert scene.running() == 0


def test_a_watchdog_that_does_not_read_holds_nobody_up(scene: Scene, watchdog: Watchdog) -> None:
    """Stopped, or starved: the pipe is full, and the word counts as said."""
    scene.directory.mkdir()
    os.mkfifo(scene.directory / "heartbeat")
    reader = os.open(scene.directory / "heartbeat", os.O_RDWR | os.O_NONBLOCK)
    try:
        with pytest.raises(BlockingIOError):
            while True:
                os.write(reader, b"x" * 4096)
        assert watchdog.beat(armed=True) == ""
        assert scene.children == []
    finally:
        watchdog.leave()
        os.close(reader)


def test_no_shell_is_said(scene: Scene, watchdog: Watchdog, mocker: MockerFixture) -> None:
    mocker.patch.object(module, "find_shell", return_value=[])
    assert "read -t" in watchdog.beat(armed=True)
    mocker.patch.object(module, "find_shell", return_value=["/nowhere/bash"])
    assert "can't be started: No such file" in watchdog.beat(armed=True)


@pytest.mark.parametrize(
    ("there", "found"),
    [
        ({"/x/dash"}, []),
        ({"/x/bash", "/bin/busybox"}, ["/x/bash"]),
        ({"/x/busybox", "/bin/bash"}, ["/bin/bash"]),
        ({"/bin/busybox"}, ["/bin/busybox", "ash"]),
    ],
)
def test_shells(there: set[str], found: list[str], mocker: MockerFixture) -> None:
    """bash, or BusyBox's; dash has no time limit."""
    mocker.patch.object(module.os, "access", lambda path, mode: path in there)
    assert find_shell({"PATH": "/x"}) == found


# --- reverse path filtering


class Conf:
    """A /proc/sys/net/ipv4/conf of files."""

    def __init__(self, path: Path, **values: str) -> None:
        self.path = path
        for name, value in values.items():
            self.set(name, value)

    def set(self, name: str, value: str) -> None:
        (self.path / name).mkdir(parents=True, exist_ok=True)
        (self.path / name / "rp_filter").write_text(value + "\n")

    def get(self, name: str) -> str:
        return (self.path / name / "rp_filter").read_text().strip()


@pytest.fixture
def conf(tmp_path: Path, mocker: MockerFixture) -> Conf:
    mocker.patch.object(proc, "SETTINGS", str(tmp_path))
    return Conf(
        tmp_path / "ipv4" / "conf", all="0", wan="1", wwan="1", lan="1", open="0", loose="2"
    )


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return tmp_path / "run" / "rp_filter"


@pytest.fixture
def filtering(conf: Conf, saved: Path) -> ReversePath:
    return ReversePath(str(saved))


def test_strict_ones_are_loosened_and_given_back(
    conf: Conf, filtering: ReversePath, saved: Path
) -> None:
    assert filtering.loosen({"wan"}) == ""
    assert (conf.get("wan"), conf.get("wwan"), conf.get("lan")) == ("2", "1", "1")
    assert saved.read_text() == "wan 1\n"
    assert filtering.loosen({"wan", "wwan"}) == ""
    assert (conf.get("wan"), conf.get("wwan")) == ("2", "2")
    assert filtering.loosen({"wwan"}) == ""
    assert (conf.get("wan"), conf.get("wwan")) == ("1", "2")
    assert filtering.loosen(()) == ""
    assert (conf.get("wan"), conf.get("wwan")) == ("1", "1")
    assert not saved.exists()


def test_devices_of_any_name_are_loosened(conf: Conf, filtering: ReversePath) -> None:
    name = "b\xfcro"
    conf.set(name, "1")
    assert filtering.loosen({name}) == "" and conf.get(name) == "2"
    assert filtering.loosen(()) == "" and conf.get(name) == "1"


def test_what_is_not_strict_is_left_alone_unless_all_are(
    conf: Conf, filtering: ReversePath, saved: Path
) -> None:
    """The kernel takes the larger of `all` and the device's."""
    assert filtering.loosen({"open", "loose"}) == ""
    assert (conf.get("open"), conf.get("loose")) == ("0", "2")
    assert not saved.exists()
    conf.set("all", "1")
    assert filtering.loosen({"open", "loose"}) == ""
    assert (conf.get("open"), conf.get("loose"), conf.get("all")) == ("2", "2", "1")
    filtering.loosen(())
    assert (conf.get("open"), conf.get("loose")) == ("0", "2")


def test_a_killed_run_is_given_back_by_the_next(conf: Conf, saved: Path) -> None:
    ReversePath(str(saved)).loosen({"wan"})
    assert ReversePath(str(saved)).loosen({"wan"}) == ""
    assert saved.read_text() == "wan 1\n", "its own loose value is not taken for the owner's"
    ReversePath(str(saved)).loosen(())
    assert conf.get("wan") == "1"


def test_devices_that_are_gone(conf: Conf, filtering: ReversePath, saved: Path) -> None:
    assert filtering.loosen({"ppp0"}) == ""
    saved.parent.mkdir(exist_ok=True)
    saved.write_text("ppp0 1\nwan 1\ngarbage\n\nthree of them\n")
    assert filtering.loosen(()) == ""
    assert conf.get("wan") == "1"


def test_what_cannot_be_written_is_told(conf: Conf, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    told = ReversePath(str(tmp_path / "file" / "rp_filter")).loosen({"wan"})
    assert told.startswith("rp_filter can't be set: ")
    assert conf.get("wan") == "1", "nothing is changed that could not be given back"


def test_strict_again_in_the_outage_is_loosened_again(conf: Conf, filtering: ReversePath) -> None:
    conf.set("all", "1")
    conf.set("wan", "0")
    filtering.loosen({"wan"})
    conf.set("wan", "1")
    filtering.loosen({"wan"})
    assert conf.get("wan") == "2"
    filtering.loosen(())
    assert conf.get("wan") == "1", "what the owner said last"


def test_what_the_owner_has_set_meanwhile_stays(conf: Conf, filtering: ReversePath) -> None:
    filtering.loosen({"wan"})
    conf.set("wan", "0")
    filtering.loosen(())
    assert conf.get("wan") == "0"
