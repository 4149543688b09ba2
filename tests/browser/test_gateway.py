"""The gateway is uhttpd in what pages can see: recorded conversations, and the ACL as it ships."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rpcd_wireguard_uplink.api import methods
from rpcd_wireguard_uplink.errors import Status
from rpcd_wireguard_uplink.extras.standalone.broker import Broker
from rpcd_wireguard_uplink.ubus import BusObject, Call, Reply
from rpcd_wireguard_uplink.ubus.blobmsg import Type
from rpcd_wireguard_uplink.ubus.client import Client

from .gateway import Gateway, Session, log_in

ROOT = Path(__file__).parents[2]
RECORDED = json.loads((ROOT / "tests/data/uhttpd-ubus.json").read_text(encoding="utf-8"))
ACL = sorted((ROOT / "acl.d").glob("*.json"))
TEXT = {"a": Type.STRING, "ubus_rpc_session": Type.STRING}
SIGNATURES = {
    "with_session": TEXT,
    "without_session": {"a": Type.STRING},
    "fails_with_table": {"ubus_rpc_session": Type.STRING},
}


def answer(call: Call) -> Reply:
    """What the object of the recording does."""
    if call.method == "with_session":
        return Reply(call.arguments)
    if call.method == "without_session":
        return Reply(status=Status.INVALID_ARGUMENT)
    if call.method == "fails_with_table":
        table = {"success": False, "error": "peer nodeX is not known", "code": "unknown_peer"}
        return Reply(table, Status.UNKNOWN_ERROR)
    return Reply(status=Status.METHOD_NOT_FOUND)


@pytest.fixture(scope="module")
def bus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The recording's object on a bus, served by a thread of its own."""
    path = str(tmp_path_factory.mktemp("bus") / "bus.sock")
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        broker = Broker(path)
        await broker.start()
        clients = [Client(path), Client(path)]
        for client, name in zip(clients, ("luci.test", methods.OBJECT), strict=True):
            await client.connect()
            await client.publish(BusObject(name, SIGNATURES, answer))
        ready.set()
        await stop.wait()
        for client in clients:
            await client.close()
        await broker.close()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(10)
    yield path
    loop.call_soon_threadsafe(stop.set)
    thread.join(10)
    loop.close()


def session_for(*methods: str) -> Session:
    session = Session()
    session.grant({"ubus": {"luci.test": list(methods)}}, "read")
    return session


@pytest.mark.parametrize("record", RECORDED, ids=lambda record: record["note"])
def test_recorded_conversation(bus: str, record: dict[str, Any]) -> None:
    gateway = Gateway(bus)
    known = ("with_session", "without_session", "fails_with_table", "nope")
    session = gateway.admit(session_for(*known))
    request = record["request"]
    text = request if isinstance(request, str) else json.dumps(request)
    if record["note"].startswith("over"):
        text = json.dumps(RECORDED[0]["request"]).replace('"x"', '"' + "x" * 65536 + '"')
    said = gateway.handle(text.replace("<session>", session.sid).encode())
    assert json.loads(json.dumps(said).replace(session.sid, "<session>")) == record["reply"]


def call(gateway: Gateway, session: Session, method: str) -> Any:
    params = [session.sid, methods.OBJECT, method, {}]
    request = {"jsonrpc": "2.0", "id": 1, "method": "call", "params": params}
    return gateway.handle(json.dumps(request).encode())


@pytest.mark.parametrize("write", [False, True])
def test_the_acl_as_it_ships(bus: str, write: bool) -> None:
    """A reading session can call what only looks, and nothing else; the bus's own methods never."""
    gateway = Gateway(bus)
    session = gateway.admit(log_in(ACL, write=write))
    for name, method in methods.METHODS.items():
        reply = call(gateway, session, name)
        allowed = method.access == "read" or (write and method.access == "write")
        # The stand-in on the bus knows none of them: status 3 shows that it was asked.
        assert reply.get("result") == ([3] if allowed else None), name
        assert reply.get("error", {}).get("code") == (None if allowed else -32002), name
    assert session.may("uci", "wireguard-uplink", "read")
    assert session.may("uci", "wireguard-uplink", "write") is write
    assert not session.may("uci", "network", "read"), "it would show private keys"
