"""What bounds a client: memory, calls in progress, a bus that stopped reading, what is loaded."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys

import pytest

from rpcd_wireguard_uplink.errors import BusError, Status
from rpcd_wireguard_uplink.ubus import BusObject, Reply
from rpcd_wireguard_uplink.ubus.client import Client
from rpcd_wireguard_uplink.ubus.dispatch import MAX_RUNNING, Dispatcher
from rpcd_wireguard_uplink.ubus.framing import Attr, FrameReader, parse_attributes
from rpcd_wireguard_uplink.ubus.link import Link
from rpcd_wireguard_uplink.ubus.protocol import Connection, Invoked

HELLO = b"\0\0\0\0\0\0\x13\x88\0\0\0\4"


def invoked(handler, data: bytes | None = b"", method: str = "m", seq: int = 1) -> Invoked:
    obj = BusObject("test", {}, handler)
    return Invoked(obj, seq, 3000, 2000, method, data, "root", "root", False)


def statuses(written: list[bytes]) -> list[int]:
    messages = FrameReader().feed(b"".join(written))
    found = [parse_attributes(message.body) for message in messages]
    return [one[Attr.STATUS] for one in found if Attr.STATUS in one]


async def test_calls_in_progress_are_bounded():
    gate = asyncio.Event()

    async def slow() -> Reply:
        await gate.wait()
        return Reply()

    dispatcher, written = Dispatcher(), []
    for seq in range(MAX_RUNNING + 3):
        call = invoked(lambda call: slow(), seq=seq)
        dispatcher.handle(call, Connection(), written.append)
    assert statuses(written) == [Status.NO_MEMORY] * 3
    gate.set()
    async with asyncio.timeout(10):
        while len(written) < MAX_RUNNING + 3:
            await asyncio.sleep(0)
    assert statuses(written).count(Status.OK) == MAX_RUNNING
    await dispatcher.close()


@pytest.mark.parametrize(
    ("data", "method", "status"),
    [
        (b"junk", "m", Status.INVALID_ARGUMENT),
        (None, "m", Status.INVALID_ARGUMENT),
        (b"", "", Status.INVALID_ARGUMENT),
        (b"", "m", Status.OK),
    ],
)
async def test_a_malformed_call_is_answered_and_never_reaches_a_handler(data, method, status):
    calls, written = [], []

    def handle(call):
        calls.append(call)
        return Reply()

    Dispatcher().handle(invoked(handle, data, method), Connection(), written.append)
    assert statuses(written) == [status]
    assert len(calls) == (status == Status.OK)


async def test_closing_cancels_what_runs():
    cancelled = []

    async def endless() -> Reply:
        try:
            return await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    dispatcher, written = Dispatcher(), []
    dispatcher.handle(invoked(lambda call: endless()), Connection(), written.append)
    await asyncio.sleep(0)
    await dispatcher.close()
    assert (cancelled, written) == ([True], [])


async def test_a_link_keeps_order_and_refuses_past_its_limit():
    ours, theirs = socket.socketpair()
    link = Link(ours, limit=500_000, received=lambda data: None, lost=lambda: None)
    chunks = [bytes([number]) * 100_000 for number in range(40)]
    taken = [chunk for chunk in chunks if link.send(chunk)]
    assert 5 <= len(taken) < 40
    wanted = b"".join(taken)
    loop = asyncio.get_running_loop()
    theirs.setblocking(False)
    received = b""
    async with asyncio.timeout(20):
        while len(received) < len(wanted):
            received += await loop.sock_recv(theirs, 65536)
    assert received == wanted
    link.close()
    theirs.close()


@pytest.fixture
def listener(tmp_path):
    """A bus that says nothing by itself."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "bus.sock"))
        sock.listen()
        yield sock


async def test_a_bus_that_stopped_reading_counts_as_lost(listener):
    client = Client(listener.getsockname())
    connecting = asyncio.create_task(client.connect())
    await asyncio.sleep(0)
    sock, _ = listener.accept()
    with sock:
        sock.sendall(HELLO)
        await connecting
        calls = []
        while client.connected and len(calls) < 100:
            data = {"v": "x" * 500_000}
            calls.append(asyncio.create_task(client.send("event", data)))
            await asyncio.sleep(0.001)
        results = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 20)
        assert 8 <= len(calls) < 100
        assert all(isinstance(result, BusError) for result in results)
    await client.close()


async def test_a_bus_that_does_not_greet_is_an_error(listener):
    with pytest.raises(BusError, match="does not answer"):
        await Client(listener.getsockname()).connect(0.05)


@pytest.mark.parametrize("module", ["ubus", "extras.standalone.__main__"])
def test_the_package_does_not_load_the_event_loop(module):
    code = f"import sys, rpcd_wireguard_uplink.{module}; print('asyncio' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
