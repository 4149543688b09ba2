"""News reach whoever subscribed to their class, whatever another handler does."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from rpcd_wireguard_uplink.errors import CommandFailed
from rpcd_wireguard_uplink.events import Event, Events
from rpcd_wireguard_uplink.tasks import TaskSet
from rpcd_wireguard_uplink.warnings import Warnings


@dataclass(frozen=True, slots=True)
class Came(Event):
    name: str


@dataclass(frozen=True, slots=True)
class Went(Event):
    name: str


class Asked(Event):
    """Without fields, as ReloadAsked is."""


@pytest.fixture
def warnings() -> Warnings:
    return Warnings()


@pytest.fixture
def events(warnings: Warnings) -> Events:
    return Events(TaskSet(warnings))


async def test_news_reach_those_who_subscribed(
    events: Events, warnings: Warnings, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[str] = []

    def fail(event: Came) -> None:
        raise KeyError("a secret")

    events.subscribe(Came, fail)
    events.subscribe(Came, lambda event: heard.append(event.name))
    events.publish(Came("a"))
    events.publish(Went("b"))
    assert heard == ["a"]
    assert "following Came failed unexpectedly (KeyError" in warnings["task following Came"]
    assert "a secret" not in caplog.text


async def test_work_that_follows_goes_on_in_order_and_may_be_waited_for(events: Events) -> None:
    done: list[str] = []

    async def follow(event: Came) -> None:
        await asyncio.sleep(0)
        done.append(event.name)

    async def refuse(event: Came) -> None:
        done.append("refused")
        raise CommandFailed("no")

    events.subscribe(Came, follow)
    events.subscribe(Came, refuse)
    events.subscribe(Came, lambda event: done.append("told"))
    events.subscribe(Came, follow)
    with pytest.raises(CommandFailed):
        await events.publish_and_wait(Came("a"))
    assert done == ["told", "a", "refused", "a"]
    events.publish(Came("b"))
    assert done[4:] == ["told"]
    async with asyncio.timeout(10):
        while len(done) < 8:
            await asyncio.sleep(0)
    assert done[5:] == ["b", "refused", "b"]


async def test_a_flood_of_one_event_is_followed_by_one_run_and_one_more(events: Events) -> None:
    begun, going = 0, asyncio.Event()

    async def follow() -> None:
        nonlocal begun
        begun += 1
        await going.wait()

    events.subscribe(Asked, lambda event: follow())
    for _ in range(3):  # before anything has run, while the first runs, while one waits
        for _ in range(1000):
            events.publish(Asked())
        await asyncio.sleep(0)
    assert begun == 1
    going.set()
    async with asyncio.timeout(10):
        while begun < 2 or len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0)
    assert begun == 2
    events.publish(Asked())
    async with asyncio.timeout(10):
        while begun < 3:
            await asyncio.sleep(0)
