"""Our client on the broker and on a real ubusd: the same program must not feel the difference."""

from __future__ import annotations

import asyncio
import getpass
import signal
import socket
import time

import pytest

from rpcd_wireguard_uplink.errors import (
    BusError,
    CallFailed,
    MessageTooLarge,
    NameTaken,
    NotFound,
    Status,
    TimedOut,
)
from rpcd_wireguard_uplink.ubus import BusObject, Call, Encoded, Reply, Type, encode_table
from rpcd_wireguard_uplink.ubus.client import Client
from tests.unit.waiting import until

VALUES = {"s": "aüz", "i": -5, "b": True, "d": 2.5, "l": 1 << 40, "n": None, "e": [], "t": {}}
VALUES |= {"a": [1, "x", None, [True]], "k": {"k": {"n": 0}}}
SECRET = "not for the caller"


class Service:
    """An object with the kinds of answers that a handler can give."""

    def __init__(self, path: str) -> None:
        self.gate = asyncio.Event()
        self.calls: list[Call] = []
        self.object = BusObject(path, {"echo": {"s": Type.STRING}, "slow": {}}, self.handle)

    def handle(self, call: Call):
        self.calls.append(call)
        if call.method == "echo":
            return Reply(call.arguments)
        if call.method == "slow":
            return self.slow()
        if call.method == "encoded":
            return Reply(Encoded(encode_table({"x": 1})))
        if call.method == "refuse":
            return Reply({"success": False, "error": "no such peer"}, Status.NOT_FOUND)
        if call.method == "large":
            return Reply({"x": "y" * (1 << 21)})
        if call.method == "bytes":
            return Reply({"x": b"y"})
        if call.method in ("fail", "fail_later"):
            if call.method == "fail":
                raise ValueError(SECRET)
            return self.fail()
        return Reply(status=Status.METHOD_NOT_FOUND)

    async def slow(self) -> Reply:
        await self.gate.wait()
        return Reply({"slow": True})

    async def fail(self) -> Reply:
        await asyncio.sleep(0)
        raise ValueError(SECRET)


@pytest.fixture
async def served(shared_bus, connect):
    """A service and a client that calls it over another connection."""
    service = Service("test.served")
    await (await connect(shared_bus)).publish(service.object)
    return service, await connect(shared_bus)


async def test_a_call_carries_values_caller_and_reply(served):
    service, client = served
    assert await client.call("test.served", "echo", VALUES) == VALUES
    (call,) = service.calls
    assert (call.path, call.method, call.arguments) == ("test.served", "echo", VALUES)
    assert call.caller.user == getpass.getuser()
    assert call.caller.group
    assert call.caller.client_id >= 1024
    assert await client.call("test.served", "encoded") == {"x": 1}


async def test_calls_are_answered_while_others_wait(served):
    service, client = served
    waiting = [asyncio.create_task(client.call("test.served", "slow")) for _ in range(20)]
    await until(lambda: len(service.calls) == 20)
    replies = await asyncio.gather(
        *(client.call("test.served", "echo", {"i": number}) for number in range(100))
    )
    assert replies == [{"i": number} for number in range(100)]
    assert not any(task.done() for task in waiting)
    service.gate.set()
    assert await asyncio.gather(*waiting) == [{"slow": True}] * 20


@pytest.mark.parametrize(
    ("method", "status", "code"),
    [
        ("refuse", Status.NOT_FOUND, None),
        ("missing", Status.METHOD_NOT_FOUND, None),
        ("fail", Status.UNKNOWN_ERROR, None),
        ("fail_later", Status.UNKNOWN_ERROR, None),
        ("bytes", Status.UNKNOWN_ERROR, None),
        ("large", Status.NO_MEMORY, "too_large"),
    ],
)
async def test_failures_have_a_status_and_spare_the_connection(
    served, method, status, code, caplog
):
    _, client = served
    with pytest.raises(CallFailed) as caught:
        await client.call("test.served", method)
    assert caught.value.status == status
    if method == "refuse":
        assert caught.value.data == {"success": False, "error": "no such peer"}
    if code is not None:
        assert caught.value.data["code"] == code
    assert SECRET not in str(caught.value) + repr(caught.value.data)
    assert (SECRET in caplog.text) == method.startswith("fail")
    assert await client.call("test.served", "echo", {"i": 1}) == {"i": 1}


async def test_a_request_over_the_limit_is_refused_here(served):
    service, client = served
    with pytest.raises(MessageTooLarge):
        await client.call("test.served", "echo", {"x": "y" * (1 << 20)})
    big = {"x": "y" * 900_000}
    assert await client.call("test.served", "echo", big) == big
    assert len(service.calls) == 1


async def test_a_late_answer_belongs_to_nobody(served):
    service, client = served
    with pytest.raises(TimedOut, match=r"test\.served slow"):
        await client.call("test.served", "slow", timeout_s=0.1)
    service.gate.set()
    assert await client.call("test.served", "echo", {"i": 2}) == {"i": 2}


async def test_what_is_not_there_is_not_found(served):
    _, client = served
    for path in ("test.nowhere", "nothing.*"):
        with pytest.raises(CallFailed) as caught:
            await client.call(path, "echo")
        assert caught.value.status == Status.NOT_FOUND


async def test_a_path_belongs_to_one(shared_bus, connect):
    one, two = await connect(shared_bus), await connect(shared_bus)
    await one.publish(Service("test.one").object)
    with pytest.raises(NameTaken, match=r"test\.one"):
        await two.publish(Service("test.one").object)
    with pytest.raises(NameTaken):
        await one.publish(Service("test.one").object)
    await one.withdraw("test.one")
    with pytest.raises(NotFound):
        await one.withdraw("test.one")
    await two.publish(Service("test.one").object)
    assert await one.call("test.one", "echo", {"i": 3}) == {"i": 3}


async def test_an_object_that_came_back_under_another_id_is_found(shared_bus, connect):
    one, two = await connect(shared_bus), await connect(shared_bus)
    for number in range(3):
        await one.publish(Service("test.again").object)
        assert await two.call("test.again", "echo", {"i": number}) == {"i": number}
        await one.withdraw("test.again")


async def test_looking_up(shared_bus, connect):
    one, two = await connect(shared_bus), await connect(shared_bus)
    for path in ("look.b", "look.a", "lookout"):
        await one.publish(Service(path).object)
    assert [info.path for info in await two.lookup("look.*")] == ["look.a", "look.b"]
    (info,) = await two.lookup("look.a")
    assert info.methods == {"echo": {"s": Type.STRING}, "slow": {}}
    assert [info.path for info in await two.lookup()] == ["look.a", "look.b", "lookout"]
    assert await two.lookup("nothing") == await two.lookup("nothing*") == []
    await one.close()
    await until_async(two, [])


async def until_async(client: Client, paths: list[str]) -> None:
    async with asyncio.timeout(10):
        while [info.path for info in await client.lookup()] != paths:
            await asyncio.sleep(0.01)


async def test_a_look_up_larger_than_the_sockets_buffer_arrives_whole(shared_bus, connect):
    one, two = await connect(shared_bus), await connect(shared_bus)
    methods = {f"method_{number:03}": {"argument" * 4: Type.STRING} for number in range(150)}
    paths = [f"many.{number:03}" for number in range(120)]
    for path in paths:
        await one.publish(BusObject(path, methods, lambda call: Reply()))
    found = await two.lookup()
    assert [info.path for info in found] == paths
    assert all(info.methods == methods for info in found)


async def test_events_reach_those_who_listen(shared_bus, connect):
    one, two = await connect(shared_bus), await connect(shared_bus)
    heard: list[tuple[str, str, dict]] = []
    for pattern in ("a.b", "a.*", "*"):
        await two.listen(pattern, lambda name, data, by=pattern: heard.append((by, name, data)))
    await one.listen("a.*", lambda name, data: heard.append(("sender", name, data)))
    await one.send("a.b", VALUES)
    await one.send("a.bc", {})
    await one.send("b", {"i": 1})
    await until(lambda: len(heard) >= 6)
    assert sorted((by, name) for by, name, _ in heard) == [
        ("*", "a.b"),
        ("*", "a.bc"),
        ("*", "b"),
        ("a.*", "a.b"),
        ("a.*", "a.bc"),
        ("a.b", "a.b"),
    ]
    assert all(data == VALUES for _, name, data in heard if name == "a.b")
    with pytest.raises(CallFailed) as caught:
        await one.send("ubus.object.add", {"path": "x"})
    assert caught.value.status == Status.PERMISSION_DENIED


async def test_objects_that_come_and_go_are_announced(shared_bus, connect):
    one, two = await connect(shared_bus), await connect(shared_bus)
    heard: list[tuple[str, object]] = []
    await two.listen("ubus.object.*", lambda name, data: heard.append((name, data.get("path"))))
    await one.publish(Service("test.comes").object)
    await one.withdraw("test.comes")
    await one.publish(Service("test.dies").object)
    await one.close()
    await until(lambda: len(heard) >= 4)
    assert heard == [
        ("ubus.object.add", "test.comes"),
        ("ubus.object.remove", "test.comes"),
        ("ubus.object.add", "test.dies"),
        ("ubus.object.remove", "test.dies"),
    ]


async def test_notifications_follow_an_object_that_comes_later_and_again(shared_bus, connect):
    one, two = await connect(shared_bus), await connect(shared_bus)
    heard: list[tuple[str, dict]] = []
    assert not await two.subscribe("sub.late", lambda name, data: heard.append((name, data)))
    for number in range(3):
        await one.publish(Service("sub.late").object)
        async with asyncio.timeout(10):
            while len(heard) == number:
                await one.notify("sub.late", "changed", {"i": number})
                await asyncio.sleep(0.05)
        assert heard[number] == ("changed", {"i": number})
        del heard[number + 1 :]
        await one.withdraw("sub.late")
    with pytest.raises(NotFound):
        await one.notify("sub.late", "changed", {})
    await one.publish(Service("sub.own").object)
    with pytest.raises(CallFailed) as caught:
        await one.subscribe("sub.own", lambda name, data: None)
    assert caught.value.status == Status.INVALID_ARGUMENT


async def test_a_callback_that_fails_is_logged_and_the_rest_goes_on(shared_bus, connect, caplog):
    one, two = await connect(shared_bus), await connect(shared_bus)
    heard: list[str] = []

    def callback(name: str, data: dict) -> None:
        heard.append(name)
        raise ValueError("in a callback")

    await two.listen("fail.*", callback)
    await one.send("fail.1", {})
    await one.send("fail.2", {})
    await until(lambda: len(heard) == 2)
    assert "in a callback" in caplog.text
    assert two.connected


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_everything_is_back_soon_after_the_bus_is(own_bus, connect, number):
    changes: list[bool] = []
    heard: list[str] = []
    server = await connect(own_bus, on_connection=changes.append)
    client = await connect(own_bus)
    service = Service("test.back")
    await server.publish(service.object)
    await client.listen("back.*", lambda name, data: heard.append(name))
    await client.subscribe("test.back", lambda name, data: heard.append(name))
    pending = asyncio.create_task(client.call("test.back", "slow"))
    await until(lambda: service.calls)
    own_bus.stop(number)
    await until(lambda: not server.connected)
    await until(lambda: not client.connected)
    with pytest.raises(BusError, match="lost"):
        await pending
    started = time.monotonic()
    with pytest.raises(BusError, match="not connected"):
        await client.call("test.back", "echo")
    assert time.monotonic() - started < 0.5
    assert changes == [True, False]
    service.gate.set()
    await asyncio.sleep(0.5)
    own_bus.start()
    started = time.monotonic()
    await until(lambda: server.connected and client.connected)
    assert time.monotonic() - started < 3.0
    assert changes == [True, False, True]
    assert await client.call("test.back", "echo", {"i": 1}) == {"i": 1}
    await server.send("back.1", {})
    async with asyncio.timeout(10):
        while "told" not in heard:
            await server.notify("test.back", "told", {})
            await asyncio.sleep(0.05)
    assert "back.1" in heard


async def test_a_name_that_was_taken_meanwhile_is_claimed_again(own_bus, connect):
    one = await connect(own_bus)
    await one.publish(Service("test.claimed").object)
    own_bus.stop()
    await until(lambda: not one.connected)
    own_bus.start()
    rival = BusObject("test.claimed", {}, lambda call: Reply({"rival": True}))
    two = await connect(own_bus)
    try:
        await two.publish(rival)
    except NameTaken:
        pytest.skip("the client was back before its rival")
    await until(lambda: one.connected)
    assert one.unpublished == {"test.claimed"}
    await two.withdraw("test.claimed")
    await until(lambda: not one.unpublished)
    assert await two.call("test.claimed", "echo", {"i": 1}) == {"i": 1}


async def test_a_callee_that_dies_leaves_the_caller_to_its_timeout(shared_bus, connect):
    one, two = await connect(shared_bus), await connect(shared_bus)
    service = Service("test.mortal")
    await one.publish(service.object)
    call = asyncio.create_task(two.call("test.mortal", "slow", timeout_s=1.0))
    await until(lambda: service.calls)
    await one.close()
    with pytest.raises(TimedOut):
        await call
    assert await two.lookup("test.mortal") == []


async def test_a_caller_that_dies_harms_nobody(shared_bus, connect):
    one, two = await connect(shared_bus), await connect(shared_bus)
    service = Service("test.patient")
    await one.publish(service.object)
    call = asyncio.create_task(two.call("test.patient", "slow"))
    await until(lambda: service.calls)
    await two.close()
    with pytest.raises(BusError):
        await call
    service.gate.set()
    three = await connect(shared_bus)
    assert await three.call("test.patient", "echo", {"i": 1}) == {"i": 1}


@pytest.mark.parametrize("garbage", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0" * 64])
async def test_garbage_from_the_bus_is_a_lost_connection(own_bus, connect, tmp_path, garbage):
    path = str(tmp_path / "liar.sock")
    hello = b"\0\0\0\0\0\0\x13\x88\0\0\0\4"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        listener.setblocking(False)
        loop = asyncio.get_running_loop()
        client = Client(path)
        try:
            for number in range(2):
                connecting = asyncio.create_task(client.connect()) if number == 0 else None
                sock, _ = await asyncio.wait_for(loop.sock_accept(listener), 5)
                with sock:
                    await loop.sock_sendall(sock, hello)
                    if connecting is not None:
                        await connecting
                    await until(lambda: client.connected)
                    await loop.sock_sendall(sock, garbage)
                    await until(lambda: not client.connected)
        finally:
            await client.close()


async def test_where_there_is_no_bus_the_error_says_what_to_do(tmp_path):
    path = str(tmp_path / "none.sock")
    with pytest.raises(BusError, match="no ubusd runs there") as caught:
        await Client(path).connect()
    assert path in str(caught.value)
    with pytest.raises(BusError, match="not connected"):
        await Client(path).call("a", "b")
    with pytest.raises(BusError):
        await Client("/" + "x" * 200).connect()
