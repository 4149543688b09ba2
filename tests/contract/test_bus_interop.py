"""python-ubus and the real command as peers of our client, over the broker and over ubusd."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import shutil
import sys

import pytest

from rpcd_wireguard_uplink.errors import CallFailed, NameTaken, Status
from rpcd_wireguard_uplink.ubus import BusObject, Reply, Type
from tests.unit.waiting import until

from .conftest import first_line, run

python_ubus = pytest.mark.skipif(
    importlib.util.find_spec("ubus") is None, reason="python-ubus (extra interop) is not installed"
)
VALUES = {"s": "aüz", "i": -5, "b": True, "d": 2.5, "a": [1, "x", [True]], "t": {"k": {"n": 0}}}

CALLER = """
import json, sys, ubus
ubus.connect(sys.argv[1])
print(json.dumps([
    sorted(ubus.objects()),
    ubus.objects()["test.ours"],
    ubus.call("test.ours", "echo", json.loads(sys.argv[2])),
]))
ubus.send("from.python", {"i": 1})
try:
    ubus.call("test.ours", "missing", {})
except Exception as error:
    print(error)
ubus.disconnect()
"""

SERVER = """
import sys, ubus
def echo(handler, data):
    handler.reply(data)
ubus.connect(sys.argv[1])
ubus.add("test.theirs", {"echo": {"method": echo, "signature": {"s": ubus.BLOBMSG_TYPE_STRING}}})
ubus.listen(("from.us", lambda event, data: print(event, data, flush=True)))
print("ready", flush=True)
ubus.loop()
"""


def ours() -> BusObject:
    def handle(call):
        if call.method == "echo":
            return Reply(call.arguments)
        return Reply(status=Status.METHOD_NOT_FOUND)

    return BusObject("test.ours", {"echo": {"s": Type.STRING}}, handle)


@python_ubus
async def test_python_ubus_calls_us(shared_bus, connect):
    client = await connect(shared_bus)
    heard = []
    await client.listen("from.*", lambda name, data: heard.append((name, data)))
    await client.publish(ours())
    status, out, err = await run(sys.executable, "-c", CALLER, shared_bus.path, json.dumps(VALUES))
    assert status == 0, err
    reply, error = out.decode().splitlines()
    assert json.loads(reply) == [["test.ours"], {"echo": {"s": 3}}, [VALUES]]
    assert "Method not found" in error
    await until(lambda: heard)
    assert heard == [("from.python", {"i": 1})]


@python_ubus
async def test_we_call_python_ubus(shared_bus, connect):
    client = await connect(shared_bus)
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVER, shared_bus.path, stdout=-1
    )
    try:
        assert await asyncio.wait_for(child.stdout.readline(), 20) == b"ready\n"
        assert await client.call("test.theirs", "echo", {"s": "aüz"}) == {"s": "aüz"}
        with pytest.raises(CallFailed) as caught:
            await client.call("test.theirs", "echo", {"s": 1})
        assert caught.value.status == Status.INVALID_ARGUMENT
        with pytest.raises(NameTaken):
            await client.publish(BusObject("test.theirs", {}, lambda call: Reply()))
        await client.send("from.us", {"i": 2})
        assert await asyncio.wait_for(child.stdout.readline(), 20) == b"from.us {'i': 2}\n"
    finally:
        child.kill()
        await child.wait()


@pytest.mark.needs("ubus")
async def test_the_real_command_hears_and_waits(shared_bus, connect):
    client = await connect(shared_bus)
    command = (shutil.which("ubus"), "-s", shared_bus.path)
    child = await asyncio.create_subprocess_exec(*command, "listen", "from.*", stdout=-1)
    waiting = asyncio.create_task(run(*command, "wait_for", "test.ours"))
    try:
        wanted = json.dumps(VALUES, ensure_ascii=False, separators=(",", ":"))
        wanted = wanted.replace("2.5", "2.500000")
        told = await first_line(child, lambda: client.send("from.us", VALUES))
        assert told == f'{{ "from.us": {wanted} }}\n'
        assert not waiting.done()
        await client.publish(ours())
        assert await waiting == (0, b"", b"")
    finally:
        child.terminate()
        await child.wait()


@pytest.mark.needs("ubus")
async def test_the_real_command_hears_our_notifications(shared_bus, connect):
    client = await connect(shared_bus)
    await client.publish(ours())
    command = (shutil.which("ubus"), "-s", shared_bus.path, "subscribe", "test.ours")
    child = await asyncio.create_subprocess_exec(*command, stdout=-1)
    try:
        told = await first_line(child, lambda: client.notify("test.ours", "changed", {"i": 1}))
        assert told == '{ "changed": {"i":1} }\n'
    finally:
        child.terminate()
        await child.wait()
