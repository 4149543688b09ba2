"""Our command against the recorded output, and byte by byte against the real one."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest

from rpcd_wireguard_uplink.errors import Status
from rpcd_wireguard_uplink.ubus import BusObject, Call, Reply, Type

from .conftest import COMMAND, first_line, run

RECORDED = json.loads((Path(__file__).parent.parent / "data" / "ubus-wire.json").read_text())
COMMANDS = {
    one["what"]: one for one in RECORDED["conversations"] if one["what"].startswith("ubus ")
}
ECHO = {"s": Type.STRING, "i": Type.INT32, "b": Type.BOOL, "d": Type.DOUBLE}
ECHO |= {"l": Type.INT64, "a": Type.ARRAY, "t": Type.TABLE}
ALL = dict(ECHO, u=Type.UNSPEC, h=Type.INT16)
VALUES = (
    '{"s":"aüz\\u0001\\f\\n\\t\\"\\\\/","i":-5,"b":true,"f":false,"d":2.5,"e":1e300,"k":-2147483648,'
    '"l":9007199254740993,"m":99999999999999999999,"o":-99999999999999999999,"z":"a\\u0000b",'
    '"a":[1,"x",null,[true],[],{}],"t":{"k":{"n":0}},"n":null} and more'
)


def uplink(number: int) -> dict[str, object]:
    return {
        "interface": f"wgup_{number}",
        "peer_id": f"nodé{number}",
        "enabled": True,
        "rx_bytes": 5_000_000_000 + number,
        "latency_ms": 12.5 + number,
        "tags": [],
        "none": {},
    }


def handle(call: Call):
    if call.method == "echo" and isinstance(call.arguments.get("s", ""), str):
        return Reply(call.arguments)
    if call.method == "echo":
        return Reply(status=Status.INVALID_ARGUMENT)
    if call.method == "big":
        return Reply({"uplinks": [uplink(number) for number in range(3)]})
    if call.method == "refuse":
        return Reply({"success": False, "error": "no"}, Status.NOT_FOUND)
    if call.method == "never":
        return asyncio.get_running_loop().create_future()
    return Reply(status=Status.METHOD_NOT_FOUND)


@pytest.fixture
async def server(shared_bus, connect):
    client = await connect(shared_bus)
    await client.publish(BusObject("test.object", {"echo": ECHO, "big": {}}, handle))
    return client


@pytest.mark.parametrize(
    "what", [what for what in COMMANDS if what.split()[1] not in ("listen", "wait_for", "send")]
)
async def test_output_and_status_are_those_recorded(shared_bus, server, what):
    status, out, _ = await run(*COMMAND, "-s", shared_bus.path, *what.split(" ")[1:])
    recorded = COMMANDS[what]
    (info,) = await server.lookup("test.object")
    wanted = recorded["stdout"].replace("2d8859fa", f"{info.object_id:08x}")
    assert (status, out.decode()) == (recorded["exit"], wanted)


async def test_events_are_printed_as_recorded(shared_bus, server):
    async def tell():
        await server.send("other", {})
        await server.send("wireguard-uplink.failover", {"peer_id": "nodeA", "outage_ms": 320})

    child = await asyncio.create_subprocess_exec(
        *COMMAND, "-s", shared_bus.path, "listen", "wireguard-uplink.*", stdout=-1
    )
    try:
        wanted = COMMANDS["ubus listen wireguard-uplink.*"]["stdout"]
        assert await first_line(child, tell) == wanted
    finally:
        child.terminate()
        assert await child.wait() == 0


async def test_waiting_ends_when_the_object_comes(shared_bus, server):
    waiting = asyncio.create_task(run(*COMMAND, "-s", shared_bus.path, "wait_for", "late.object"))
    await asyncio.sleep(0.5)
    assert not waiting.done()
    await server.publish(BusObject("late.object", {}, handle))
    assert await waiting == (COMMANDS["ubus wait_for late.object"]["exit"], b"", b"")


SAME = [
    ["list"],
    ["-v", "list"],
    ["list", "-v", "test.all"],
    ["-S", "-v", "list"],
    ["list", "test.*"],
    ["list", "nope"],
    ["-S", "list", "nope"],
    ["list", "nope*"],
    ["list", ""],
    ["call", "test.all", "echo", VALUES],
    ["-S", "call", "test.all", "echo", VALUES],
    ["call", "test.all", "echo"],
    ["call", "test.all", "big"],
    ["call", "test.all", "echo", "{"],
    ["-S", "call", "test.all", "echo", "{"],
    ["call", "test.all", "echo", "[]"],
    ["call", "test.all", "echo", ""],
    ["call", "test.all", "echo", "null"],
    ["call", "test.all", "refuse"],
    ["-S", "call", "test.all", "refuse"],
    ["call", "test.all", "missing", "{}"],
    ["call", "nope", "x"],
    ["-S", "call", "nope", "x"],
    ["-t", "1", "call", "test.all", "never"],
    ["-S", "-t", "1", "call", "test.all", "never"],
    ["call", "test.*", "echo", '{"i":1}'],
    ["wait_for", "test.all"],
    ["-t", "1", "wait_for", "nope", "test.all"],
    ["-t", "1", "listen", "x*", "y"],
    ["listen", ""],
    ["-s", "/nonexistent", "list"],
    ["-S", "-s", "/nonexistent", "list"],
]
USAGE = [[], ["nonsense"], ["-x"], ["call", "a"], ["list", "a", "b"], ["wait_for"]]


@pytest.mark.needs("ubus")
@pytest.mark.parametrize("arguments", SAME, ids=" ".join)
async def test_the_real_command_prints_the_same(shared_bus, connect, arguments):
    client = await connect(shared_bus)
    await client.publish(BusObject("test.all", {"echo": ALL, "big": {}}, handle))
    theirs, ours = await asyncio.gather(
        run(shutil.which("ubus"), "-s", shared_bus.path, *arguments),
        run(*COMMAND, "-s", shared_bus.path, *arguments),
    )
    assert ours == theirs


@pytest.mark.needs("ubus")
@pytest.mark.parametrize("arguments", USAGE, ids=" ".join)
async def test_a_wrong_use_has_the_real_commands_status(shared_bus, arguments):
    theirs = await run(shutil.which("ubus"), "-s", shared_bus.path, *arguments)
    ours = await run(*COMMAND, "-s", shared_bus.path, *arguments)
    assert ours[:2] == theirs[:2]
    assert b"Usage: " in ours[2]
