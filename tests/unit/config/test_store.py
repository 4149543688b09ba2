"""The one reader and writer of our file: edits, events, and what stays in force without a file."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rpcd_wireguard_uplink.config.parser import parse_config
from rpcd_wireguard_uplink.config.settings import Config
from rpcd_wireguard_uplink.config.store import ConfigChanged, ConfigStore
from rpcd_wireguard_uplink.errors import ConfigError, NotFound
from rpcd_wireguard_uplink.events import Events
from rpcd_wireguard_uplink.tasks import TaskSet
from rpcd_wireguard_uplink.uci import Document, Draft, Store
from rpcd_wireguard_uplink.warnings import Warnings
from tests.repo import PACKAGE
from tests.unit.config.samples import full, whole_file

FILE = """\
# the owner's
config wireguard-uplink 'uplink'
	option min_uplinks '3'
"""


class Files:
    """A folder of files that counts what is done with them."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(str(folder))
        self.reads = self.edits = 0

    async def read(self, config: str) -> Document:
        self.reads += 1
        return self.store.read(config, missing_ok=True)

    async def edit(self, config: str, change: Callable[[Draft], None]) -> object:
        self.edits += 1
        with self.store.edit(config) as draft:
            change(draft)
        return draft.signature

    def signature(self, config: str) -> object:
        return self.store.signature(config)


class Router:
    """A folder with our file, and the stores of the services that ran there."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "config" / "wireguard-uplink"
        self.path.parent.mkdir()
        self.path.write_text(FILE)
        self.kept = folder / "last-good"
        self.has_made = False
        self.start()

    def start(self) -> None:
        self.files, self.warnings = Files(self.path.parent), Warnings()
        self.heard: list[ConfigChanged] = []
        events = Events(TaskSet(self.warnings))
        events.subscribe(ConfigChanged, self.heard.append)

        async def has_made() -> bool:
            return self.has_made

        self.store = ConfigStore(self.files, has_made, events, self.warnings, str(self.kept))

    async def restart(self) -> bool:
        self.start()
        return await self.store.reload()

    def fill(self) -> None:
        """Have the file hold a section of every type."""
        with self.files.store.edit("wireguard-uplink") as draft:
            for section in whole_file(full("uplink", pending=None)):
                draft.set_section(section.name, section.type, section.options)


@pytest.fixture
async def router(tmp_path: Path) -> Router:
    made = Router(tmp_path)
    await made.store.reload()
    return made


def fewer(config: Config) -> Config:
    return config.with_settings(min_uplinks=1)


async def test_an_edit_is_one_write_and_one_event(router: Router) -> None:
    reads = router.files.reads
    assert (await router.store.edit(fewer)).settings.min_uplinks == 1
    assert router.path.read_text() == FILE.replace("'3'", "'1'")
    assert (router.files.reads, router.files.edits) == (reads, 1)
    [event] = router.heard
    assert (event.old and event.old.settings.min_uplinks, event.new) == (3, router.store.current)
    assert event.touches("settings", "pins") and not event.touches("pins", "provider")
    assert not router.store.changed_outside, "what it wrote itself is no news"
    await router.store.edit(fewer)
    await router.store.require()
    assert len(router.heard) == 1 and router.files.reads == reads


async def test_edits_that_nobody_hears_of_are_told_together(router: Router) -> None:
    await router.store.edit(fewer, tell=False)
    await router.store.edit(lambda config: config.with_settings(enabled=False), tell=False)
    assert router.heard == []
    await router.store.tell()
    await router.store.tell()
    [event] = router.heard
    assert (event.new.settings.min_uplinks, event.new.settings.enabled) == (1, False)


async def test_edits_follow_one_another(router: Router) -> None:
    def add(number: int) -> Callable[[Config], Config]:
        return lambda c: c.with_settings(declined=c.settings.declined | {f"node{number}"})

    await asyncio.gather(*(router.store.edit(add(number)) for number in range(5)))
    assert len(router.store.current.settings.declined) == 5


async def test_what_stops_an_edit_leaves_everything(router: Router) -> None:
    def refuse(config: Config) -> Config:
        raise NotFound("no such uplink")

    before = router.store.current
    with pytest.raises(NotFound):
        await router.store.edit(refuse)
    assert router.path.read_text() == FILE and router.store.current is before
    assert not router.heard


async def test_an_edit_takes_what_the_owner_has_just_written(router: Router) -> None:
    router.path.write_text(FILE + "\toption fail_closed '1'\n")
    assert router.store.changed_outside
    assert (await router.store.edit(fewer)).settings.fail_closed
    router.path.write_text(FILE)
    assert not (await router.store.require()).settings.fail_closed
    assert await router.store.reload()
    assert [event.new.settings.fail_closed for event in router.heard] == [True]
    await router.store.tell()
    assert [event.new.settings.fail_closed for event in router.heard] == [True, False]


BAD = {
    "no UCI": "config wireguard-uplink 'half",
    "bytes": "\0\0\0",
    "empty": "",
    "cut off": "config mqtt 'broker'\n",
    "gone": None,
}


@pytest.mark.parametrize("name", BAD)
async def test_a_file_that_says_nothing_changes_nothing(router: Router, name: str) -> None:
    router.fill()
    await router.store.reload()
    before, text = router.store.current, BAD[name]
    if text is None:
        router.path.unlink()
    else:
        router.path.write_text(text)
    for _ in range(2):
        assert not await router.store.reload()
        assert router.store.current is before
    assert "wireguard-uplink" in router.warnings["config"]
    for attempt in (router.store.edit(fewer), router.store.require()):
        with pytest.raises(ConfigError):
            await attempt
    assert not router.path.exists() if text is None else router.path.read_text() == text
    # The next start has it from the copy, and the file's own word as soon as there is one.
    assert not await router.restart() and router.store.understood
    assert replace(router.store.current, good=()) == replace(before, good=())
    router.path.write_text(FILE)
    assert await router.store.reload()
    assert router.store.current.uplinks == () and router.store.current.settings.min_uplinks == 3
    assert "config" not in router.warnings


async def test_one_bad_option_at_a_start_has_its_last_good_value(router: Router) -> None:
    router.fill()
    await router.store.reload()
    before = router.store.current
    with router.files.store.edit("wireguard-uplink") as draft:
        draft.set_option("uplink", "fail_closed", "x")
        draft.set_option("local", "limit_mbps", "x")
        draft.remove_section("wgup_a")
    assert await router.restart()
    assert router.store.current.settings == before.settings
    assert router.store.current.provider == before.provider
    assert router.store.current.uplinks == (), "what the bad file removed stays removed"
    assert len(router.store.current.faults) == 2


async def test_the_copy_is_private_plain_and_written_only_when_it_differs(router: Router) -> None:
    assert router.kept.stat().st_mode & 0o777 == 0o600
    assert "min_uplinks '3'" in router.kept.read_text()
    written = router.kept.stat().st_mtime_ns
    await router.store.edit(lambda config: config)
    await router.restart()
    assert router.kept.stat().st_mtime_ns == written
    [uplink] = parse_config([full("uplink", pending="1")]).uplinks
    await router.store.edit(lambda config: config.with_uplink(uplink))
    assert router.kept.stat().st_mtime_ns == written, "nothing half made is kept"
    await router.store.edit(lambda config: config.with_uplink(replace(uplink, pending=False)))
    assert "wgup_a" in router.kept.read_text()


async def test_a_copy_that_can_not_be_used_is_no_reason_to_stop(router: Router) -> None:
    router.kept.write_text("config half '")
    assert await router.restart()
    router.kept.unlink()
    router.kept.mkdir()
    assert await router.restart()
    await router.store.edit(fewer)
    assert "can't be kept" in router.warnings["kept config"]
    router.path.write_text("config half '")
    assert not await router.restart() and not router.store.understood


@pytest.mark.parametrize("has_made", [False, True])
async def test_a_router_without_a_file(router: Router, has_made: bool) -> None:
    """It begins anew, unless something is there that an earlier configuration made."""
    router.path.unlink()
    router.kept.unlink()
    router.has_made = has_made
    assert await router.restart() is not has_made
    if has_made:
        assert not router.store.understood
        with pytest.raises(ConfigError):
            await router.store.edit(fewer)
        return
    await router.store.edit(fewer)
    assert router.path.read_text() == (
        "config wireguard-uplink 'uplink'\n\toption min_uplinks '1'\n"
    )


def test_nobody_else_reads_or_writes_our_file() -> None:
    """But for commands that work without a service."""
    apart = {"config", "cli"}
    for path in PACKAGE.rglob("*.py"):
        if path.relative_to(PACKAGE).parts[0] not in apart:
            text = path.read_text(encoding="utf-8")
            assert not re.search(
                r"\.(?:read|edit|signature)\((?:CONFIG|\"wireguard-uplink\")", text
            ), path
