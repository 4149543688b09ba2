"""What the pages tell people to type: each command and option is one that there is."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rpcd_wireguard_uplink.api.methods import METHODS, OBJECT, parse_arguments
from rpcd_wireguard_uplink.cli.main import below, command_line
from rpcd_wireguard_uplink.command_line import command_line as service
from rpcd_wireguard_uplink.config.options import SECTIONS
from tests.repo import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
STAND_INS = {
    **{"PEER": "nodea", "PEER_ID": "nodea", "WEIGHT": "50", "OPTION": "min_uplinks", "VALUE": "1"},
    **{"HOST:PORT": "192.0.2.1:51820", "KEY": "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="},
    **{"PATH": "wan", "FAIL": "wan", "COMMAND": "status"},
}
SYNOPSIS = re.compile(r"[\[\]|]|\.\.\.")
TARGETS = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)


def commands(program: str) -> Iterator[tuple[str, str]]:
    """Each command line of a program on the pages, in a block or in backticks, with its page."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\|", "|")
        text = re.sub(r"\\\n\s*", "", text)
        blocks = re.findall(r"^(?:    |[$#] |\w+# )+(?:\S+/)?(.*)$", text, re.M)
        for line in (*blocks, *re.findall(r"`([^`\n]+)`", text)):
            found = re.match(rf"(?:sudo )?{re.escape(program)}(?: .*)?$", line.strip())
            if found:
                ends = r"\s+(?:#|>|&&)\s*" if "[" in found[0] else r"\s+(?:#|>|\||&&)\s*"
                yield page.name, re.split(ends, found[0] + " ")[0].strip()


def cases(program: str) -> list[object]:
    found = sorted(set(commands(program)))
    return [pytest.param(line, id=f"{page}: {line}") for page, line in found]


def words_of(line: str) -> list[str]:
    """The arguments of a line of wgctl, with values in the place of names; [] of a mere name. What
    may be left out is left out, of alternatives the first is taken.
    """
    words = [STAND_INS.get(word, word) for word in shlex.split(line)[1:]]
    if "--help" in words or words == ["--version"] or is_named_only(words):
        return []
    if SYNOPSIS.search(line):
        words = shlex.split(re.sub(r"\[[^\]]*\]", "", line))[1:]
        words = [STAND_INS.get(w.split("|")[0], w.split("|")[0]) for w in words if w != "..."]
    return words if words[0] == "uplink" else ["uplink", *words]


@pytest.mark.parametrize("line", cases("wgctl"))
def test_a_line_of_wgctl_is_understood(line: str) -> None:
    words = words_of(line)
    assert not words or callable(command_line().parse_args(words).run)


def is_named_only(words: list[str]) -> bool:
    """Whether these are the words of a command, or of some, without what it takes."""
    parser = command_line()
    for word in words:
        if word not in below(parser):
            return False
        parser = below(parser)[word]
    return True


@pytest.mark.parametrize("line", cases("rpcd-wireguard-uplink"))
def test_a_line_of_the_service_is_understood(line: str) -> None:
    if words := shlex.split(line)[1:]:
        assert service().parse_args(words).command in ("serve", "uninstall")


@pytest.mark.parametrize("line", cases("ubus call"))
def test_a_call_on_the_bus_is_taken(line: str) -> None:
    words = shlex.split(line)[2:]
    if words[:1] == [OBJECT] and len(words) > 1 and words[1].islower():
        method = METHODS[words[1]]
        given = json.loads(words[2]) if len(words) > 2 else {}
        if "a b" not in str(given):  # what is refused there, and shown so
            parse_arguments(method, given)


@pytest.mark.parametrize("status", [0, 4])
def test_the_program_on_the_page_of_methods_runs(tmp_path: Path, status: int) -> None:
    """Beside a `ubus` that has one reply."""
    page = (ROOT / "docs/methods.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
    reply = json.loads((ROOT / "tests/data/replies.json").read_text())["uplink_status"]
    reply |= {"error": "there is none"} if status else {}
    (tmp_path / "reply").write_text(json.dumps(reply))
    (tmp_path / "ubus").write_text(
        f'#!/bin/sh\n[ "$1 $4 $5" = "-S uplink_status {{}}" ] || exit 1\n'
        f"cat {tmp_path}/reply; exit {status}\n"
    )
    (tmp_path / "ubus").chmod(0o755)
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([sys.executable, "-c", program], env=path, capture_output=True, text=True)
    assert done.stdout == ("" if status else "nodeA is usable\n")
    assert ("RuntimeError: there is none" in done.stderr) is bool(status)


@pytest.mark.parametrize("line", cases("make"))
def test_a_make_target_is_there(line: str) -> None:
    named = [word for word in shlex.split(line)[1:] if re.fullmatch(r"[a-z-]+", word)]
    assert not named or {*named} & {*TARGETS} or "/" in line, line


def test_an_option_on_a_page_is_in_the_table() -> None:
    known = {option.name for section in SECTIONS.values() for option in section.options}
    others = {"metric", "masq", "forward", "proto", "ipaddr"}
    others |= {"device", "network", "input", "output"}
    for page in PAGES:
        if page.name.startswith("adding-"):  # of one that does not exist yet
            continue
        text = page.read_text(encoding="utf-8")
        for word in re.findall(r"`(?:option|list) ([a-z][a-z0-9_]+)", text):
            assert word in known | others | REMOVED, f"{page.name}: {word}"


REMOVED = {"webhook", "metrics", "drill_interval", "probe_budget"}
"""Options of earlier releases that pages still name, to say so."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_link_leads_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), target
