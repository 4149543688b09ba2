"""A router's configuration files between us and the real `uci`: nobody's changes are lost.

The pending changes of others lie in /tmp/.uci, which no option of `uci` moves: the tests use a
configuration that no machine has, and remove what they left pending.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rpcd_wireguard_uplink.model import Endpoint, Uplink
from rpcd_wireguard_uplink.platform.openwrt import OpenWrt
from rpcd_wireguard_uplink.platform.tunnels import NetworkStyle, plan_sections, wanted_sections
from rpcd_wireguard_uplink.ubus.client import Client
from rpcd_wireguard_uplink.uci import Draft, Section, export
from rpcd_wireguard_uplink.warnings import Warnings
from tests.unit.fakes import key_of
from tests.unit.uci_texts import sections, writable

pytestmark = pytest.mark.needs("uci")

PACKAGE = "wgup-openwrt-contract"
PENDING = Path("/tmp/.uci") / PACKAGE
START = "\nconfig interface 'wan'\n\toption proto 'dhcp'\n\toption metric '10'\n\n"


class Router:
    """Our platform and the real `uci` on one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.file = directory / PACKAGE
        self.platform = OpenWrt(
            str(directory), str(directory / "keys"), Client("/nowhere"), Warnings()
        )

    def uci(self, *arguments: str) -> str:
        argv = [str(shutil.which("uci")), "-c", str(self.directory), *arguments]
        done = subprocess.run(argv, capture_output=True, timeout=20, check=True)
        return done.stdout.decode("utf-8", "surrogateescape")

    def edit(self, change: Callable[[Draft], None]) -> None:
        asyncio.run(self.platform.edit(PACKAGE, change))

    def text(self) -> str:
        return self.file.read_bytes().decode("utf-8", "surrogateescape")


@pytest.fixture
def router(tmp_path: Path) -> Iterator[Router]:
    made = Router(tmp_path)
    made.file.write_text(START)
    had_folder = PENDING.parent.exists()
    try:
        yield made
    finally:
        PENDING.unlink(missing_ok=True)
        if not had_folder:
            with contextlib.suppress(OSError):
                PENDING.parent.rmdir()


def test_pending_changes_of_others_are_neither_committed_nor_lost(router: Router) -> None:
    router.uci("set", f"{PACKAGE}.wan.metric=99")
    assert PENDING.exists()
    document = asyncio.run(router.platform.read(PACKAGE))
    assert document.sections[0].options["metric"] == "10", "what is pending is not in force"
    router.edit(lambda draft: draft.set_section("wgup_a", "interface", {"proto": "wireguard"}))
    assert "99" not in router.text() and "wgup_a" in router.text()
    assert router.uci("changes", PACKAGE).strip() == f"{PACKAGE}.wan.metric='99'"
    router.uci("commit", PACKAGE)
    assert "99" in router.text() and "wgup_a" in router.text()


def test_uci_itself_commits_what_others_left_pending(router: Router) -> None:
    """Why `uci` with a changes directory of its own is not what we write with."""
    router.uci("set", f"{PACKAGE}.wan.metric=99")
    changes = str(router.directory / "changes.d")
    router.uci("-t", changes, "set", f"{PACKAGE}.wan.proto=static")
    router.uci("-t", changes, "commit", PACKAGE)
    assert "99" in router.text()


def test_uci_waits_while_we_write(router: Router) -> None:
    """What it then commits is made from what it opened before (file.c): reconciling mends that."""
    argv = [str(shutil.which("uci")), "-c", str(router.directory), "commit", PACKAGE]
    router.uci("set", f"{PACKAGE}.wan.metric=99")
    others: list[subprocess.Popen[bytes]] = []

    def change(draft: Draft) -> None:
        others.append(subprocess.Popen(argv))
        with pytest.raises(subprocess.TimeoutExpired):
            others[0].wait(0.3)
        draft.set_option("wan", "proto", "static")

    try:
        router.edit(change)
        assert others[0].wait(20) == 0
    finally:
        for other in others:
            other.kill()
            other.wait()
    assert "99" in router.text()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=sections(), after=sections(), data=st.data())
def test_uci_reads_every_edit_as_it_was_meant(
    router: Router, before: list[Section], after: list[Section], data: st.DataObject
) -> None:
    """Any configuration, any named sections set, any removed: `uci export` prints the draft."""
    router.file.write_text("")
    router.edit(lambda draft: put(draft, before))
    gone = data.draw(st.sets(st.sampled_from([s.name for s in before if s.name] or ["-"])))

    def change(draft: Draft) -> None:
        put(draft, after)
        for name in gone:
            if draft.get(name) is not None:
                draft.remove_section(name)
        nonlocal meant
        meant = export(draft.document, PACKAGE)

    meant = ""
    router.edit(change)
    assert router.uci("export", PACKAGE) == meant
    document = asyncio.run(router.platform.read(PACKAGE))
    assert export(document, PACKAGE) == meant


def put(draft: Draft, wanted: list[Section]) -> None:
    for section in wanted:
        options = writable(section.options)
        if section.anonymous:
            draft.add_anonymous(section.type, options)
        else:
            draft.set_section(section.name, section.type, options)


def test_adding_and_removing_an_uplink_leaves_the_same_export(router: Router) -> None:
    before = router.uci("export", PACKAGE)
    uplink = Uplink("n", "wgup_n", Endpoint("2001:db8::1"), key_of("a"), ("10.7.0.2/32",))
    style = NetworkStyle("wan", 1001, True, ("10.7.0.1",), 1001, "2001:db8::1")
    wanted = wanted_sections(uplink, key_of("own"), style)

    def add(draft: Draft) -> None:
        for section in plan_sections(wanted, draft.sections).write:
            draft.set_section(section.name, section.type, section.options)

    router.edit(add)
    first = os.stat(router.file).st_mtime_ns
    assert router.uci("get", f"{PACKAGE}.wgup_n_peer.endpoint_host").strip() == "2001:db8::1"
    assert router.uci("get", f"{PACKAGE}.wgup_n.dns_metric").strip() == "1001"
    router.edit(add)
    assert os.stat(router.file).st_mtime_ns == first, "nothing to write, nothing written"

    def remove(draft: Draft) -> None:
        for name in plan_sections((), draft.sections).remove:
            draft.remove_section(name)

    router.edit(remove)
    assert router.uci("export", PACKAGE) == before
