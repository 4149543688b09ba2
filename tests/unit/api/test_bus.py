"""The service's object on a bus that comes and goes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from rpcd_wireguard_uplink.__main__ import published
from rpcd_wireguard_uplink.api.bus import BusService
from rpcd_wireguard_uplink.api.methods import METHODS, OBJECT
from rpcd_wireguard_uplink.errors import BusError, TimedOut, UplinkError
from rpcd_wireguard_uplink.events import Events
from rpcd_wireguard_uplink.extras.standalone.broker import Broker
from rpcd_wireguard_uplink.schema.record import Record, member
from rpcd_wireguard_uplink.schema.validation import Schema
from rpcd_wireguard_uplink.tasks import TaskSet
from rpcd_wireguard_uplink.ubus.client import Client
from rpcd_wireguard_uplink.warnings import Warnings


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[BusService]:
    tasks = TaskSet(Warnings())
    broker = Broker(str(tmp_path / "bus.sock"))
    await broker.start()
    made = BusService(str(tmp_path / "bus.sock"), tasks, Events(tasks))
    yield made
    await made.close()
    await broker.close()


@pytest.mark.parametrize("step", ["connect", "publish", "listen"])
@pytest.mark.parametrize("error", [BusError("the connection was lost"), TimedOut("no answer")])
async def test_a_bus_that_is_lost_while_it_is_joined_ends_no_service(
    service: BusService, monkeypatch: pytest.MonkeyPatch, step: str, error: UplinkError
) -> None:
    async def fail(*arguments: Any) -> None:
        raise error

    with monkeypatch.context() as lost:
        lost.setattr(Client, step, fail)
        await service.join()
    await service.join()
    found = await service.client.lookup(OBJECT)
    assert [info.path for info in found] == [OBJECT]
    await asyncio.sleep(0)


async def test_a_call_that_comes_before_the_service_is_loaded_waits(tmp_path: Path) -> None:
    """Its object is there from the first moment, whoever reads what comes then."""
    socket, tasks = str(tmp_path / "bus.sock"), TaskSet(Warnings())
    assert published(socket) is None, "no bus"
    broker, caller = Broker(socket), Client(socket)
    await broker.start()
    await caller.connect()
    bus = await asyncio.to_thread(published, socket)
    assert bus is not None
    first, second = (asyncio.ensure_future(caller.call(OBJECT, "uplink_pulse")) for _ in range(2))
    while len(bus.hand_over()[2]) < 2:  # it has both, and nobody who would answer
        await asyncio.to_thread(bus.ask, bus.connection.ping())
    assert await asyncio.to_thread(published, socket) is None, "the name is taken"

    service = BusService(socket, tasks, Events(tasks), bus)
    await service.join()
    assert not first.done()
    await service.begin([Part()])
    assert [await first, await second] == [{"told": "{}"}] * 2
    assert (await caller.call(OBJECT, "uplink_pulse")) == {"told": "{}"}
    for each in (caller, service, broker):
        await each.close()


class Part:
    """Answers every method with what it was given."""

    def __getattr__(self, name: str) -> Any:
        return lambda **arguments: Echo(told=repr(arguments))


class Echo(Record):
    told: str = member("what was given")


async def test_a_reply_stands_until_it_is_forgotten(service: BusService) -> None:
    class Counting:
        def __getattr__(self, name: str) -> Any:
            return lambda: Echo(told=str(next(numbers)))

    numbers = count()
    await service.begin([Counting()])
    await service.join()

    async def told(calls: int) -> list[Any]:
        found = [await service.client.call(OBJECT, "uplink_status") for _ in range(calls)]
        return [each["told"] for each in found]

    assert await told(4) == ["0"] * 4
    service.forget_replies()
    assert await told(4) == ["1"] * 4
    service.forget_replies()
    assert await told(1) == ["2"]


async def test_what_loads_a_library_keeps_nobody_waiting(
    service: BusService, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema = Schema(METHODS["uplink_test"].arguments.tree)
    monkeypatch.setitem(vars(METHODS["uplink_test"]), "arguments", schema)
    await service.begin([Part()])
    await service.join()
    call = service.client.call
    assert schema.is_ready({}) is False and METHODS["uplink_history"].arguments.is_ready({})

    where: list[str] = []
    prepare = Schema.prepare
    monkeypatch.setattr(
        Schema,
        "prepare",
        lambda each: where.append(threading.current_thread().name) or prepare(each),
    )
    told = [
        await call(OBJECT, "uplink_test", {"peer_id": "a", "count": "5"}, timeout_s=20)
        for _ in range(2)
    ]
    assert told == [{"told": "{'peer_id': 'a', 'count': 5}"}] * 2
    assert [name == "MainThread" for name in where] == [False, True, True], "once, in a thread"
