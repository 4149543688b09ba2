"""The commands of README and docs that change nothing, each run as it is printed, in a lab."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator

import pytest

from tests.lab.demo import HOME, PEER, Story, Timeline, add_uplink, build
from tests.lab.lab import Lab
from tests.lab.picture import terminal
from tests.repo.test_docs import commands, words_of

READS = (
    *("list", "status", "why", "history", "simulate", "get", "metrics", "report"),
    *("consumers", "trust", "doctor", "test", "drill", "notify"),
)
CHANGES = {"accept", "revoke", "--watch", "--all-traffic", "--help"}


def lines() -> Iterator[tuple[str, ...]]:
    """The arguments of each line that is run; the docs' nodeA is the lab's peer."""
    for _, line in commands("wgctl"):
        words = words_of(line) or shlex.split(line)[1:]
        is_run = words[:1] == ["uplink"] and words[1:2] and words[1] in READS
        if is_run and not CHANGES & {*words} and words[1:] not in (["simulate"], ["test"]):
            yield tuple(PEER if word == "nodeA" else word for word in words)


LINES = sorted({*lines()})


@pytest.fixture(scope="module")
def story() -> Iterator[Story]:
    with Lab() as lab:
        made = build(lab, Timeline())
        add_uplink(made)
        yield made


def test_the_pages_have_such_commands() -> None:
    assert {words[1] for words in LINES} >= {"list", "status", "why", "history", "test", "doctor"}


@pytest.mark.parametrize("words", LINES, ids=" ".join)
def test_a_command_of_the_pages(story: Story, words: tuple[str, ...]) -> None:
    done = story.consumer_service.wgctl(*words)
    if words[1] == "doctor":  # finds this machine's own faults
        assert done.returncode in (0, 1) and done.stdout
        return
    assert done.returncode == 0 and done.stdout, done.stderr
    assert all(told.endswith(" ...") for told in done.stderr.splitlines()), done.stderr
    if "--json" in words:
        json.loads(done.stdout)


def test_the_screenshot_is_of_what_was_printed(story: Story) -> None:
    printed = story.consumer_service.wgctl("uplink", "status").stdout
    picture = terminal("wgctl uplink status", printed)
    for word in ("State", "Traffic", PEER, "wgup_nodea"):
        assert word in picture
    assert HOME not in picture
    assert picture.count("<text") == 1 + sum(map(bool, printed.splitlines()))
