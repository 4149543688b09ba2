"""The mesh's HTTP on loopback, and what strangers may not do to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from rpcd_wireguard_uplink.errors import PeerUnreachable, TimedOut, UplinkError
from rpcd_wireguard_uplink.mesh.http import Request, Response, Server, request
from rpcd_wireguard_uplink.mesh.http import server as server_module
from rpcd_wireguard_uplink.mesh.http.connection import MOST_HEADERS
from rpcd_wireguard_uplink.mesh.http.server import CHECK_S, LEAVE_S
from rpcd_wireguard_uplink.mesh.http.sockets import plain_source
from rpcd_wireguard_uplink.warnings import Warnings
from tests.unit.waiting import LoopClock, until

PATHS = {"/v1/lease": ("POST", "DELETE"), "/v1/message": ("POST",)}
PATHS |= dict.fromkeys(("/v1/identity", "/v1/offer"), ("GET",))
GET = b"GET /v1/offer HTTP/1.1\r\nHost: peer\r\n\r\n"
BEGUN = GET[:-2]
POST = b"POST /v1/lease HTTP/1.1\r\nHost: a\r\n"
REQUEST_S = 5.0
Handler = Callable[[Request], Awaitable[Response]]


@pytest.fixture
async def clock() -> LoopClock:
    return LoopClock()


def free_port(host: str = "127.0.0.1") -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        sock.bind((host, 0))
        return sock.getsockname()[1]


async def mirror(asked: Request) -> Response:
    """Tells what was asked."""
    table = {"method": asked.method, "path": asked.path, "source": asked.source}
    return Response(200, {**table, "length": len(asked.body), "device": asked.device})


class Gate:
    """A handler whose answers wait until it is opened."""

    def __init__(self) -> None:
        self.asked = 0
        self.opened = asyncio.Event()
        self.done = 0

    async def __call__(self, asked: Request) -> Response:
        self.asked += 1
        await self.opened.wait()
        self.done += 1
        return Response(200, {})


def says(text: object) -> Handler:
    """A handler that always says this."""

    async def answer(asked: Request) -> Response:
        return Response(200, {"text": text})

    return answer


@asynccontextmanager
async def serving(
    handler: Handler = mirror, host: str = "127.0.0.1", device: str = "", **options: Any
) -> AsyncIterator[tuple[Server, int]]:
    """A server that takes many requests of one source, if `options` don't say otherwise."""
    port = free_port(host)
    warnings = Warnings()
    server = Server(handler, PATHS, warnings, **{"burst": 10_000, **options})
    server.listen([(host, port, device)])
    try:
        assert not warnings
        yield server, port
    finally:
        await server.close()


async def ask(port: int, method: str = "GET", path: str = "/v1/offer", **more: Any) -> Any:
    return await request("127.0.0.1", port, method, path, **more)


async def read_all(reader: asyncio.StreamReader) -> bytes:
    """What comes until the other side closes, which must not be by a reset."""
    return await asyncio.wait_for(reader.read(), 20)


async def exchange(port: int, data: bytes, source: str = "", *, eof: bool = False) -> bytes:
    """Send bytes and read all that is answered."""
    local = (source, 0) if source else None
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=local)
    with contextlib.suppress(ConnectionError):
        writer.write(data)
        if eof:
            writer.write_eof()
        await writer.drain()
    answer = await read_all(reader)
    writer.close()
    return answer


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


async def nothing_left(server: Server) -> None:
    """Wait until the server holds no connection."""
    await until(lambda: not server._connections)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


# --- requests and answers


@pytest.mark.parametrize(("host", "source"), [("127.0.0.1", "127.0.0.7"), ("::1", "::1")])
async def test_a_request_reaches_the_handler(host: str, source: str) -> None:
    sent = {"table": {"a": "b"}, "source": source}
    async with serving(host=host) as (_, port):
        status, table = await request(host, port, "POST", "/v1/lease?x=1", **sent)
        assert (status, table["path"], table["method"]) == (200, "/v1/lease", "POST")
        assert (table["source"], table["length"]) == (source, len('{"a":"b"}'))


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "not_found"),
        ("GET", "/v1/offer/", 404, "not_found"),
        ("POST", "/v1/offer", 405, "method_not_allowed"),
        ("BREW", "/v1/lease", 405, "method_not_allowed"),
    ],
)
async def test_unknown_paths_and_methods(method: str, path: str, status: int, code: str) -> None:
    async with serving() as (_, port):
        found, table = await ask(port, method, path)
        assert (found, table["code"], table["success"]) == (status, code, False)


async def test_a_failing_handler_says_nothing_of_its_reason(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(asked: Request) -> Response:
        raise RuntimeError("private key QWERTY")

    async with serving(fail) as (_, port):
        with caplog.at_level(logging.DEBUG):
            status, table = await ask(port)
        assert (status, table["code"]) == (500, "internal")
        assert "RuntimeError" in caplog.text
        assert "QWERTY" not in caplog.text + str(table)
    async with serving(says(b"no JSON")) as (_, port):
        assert (await ask(port))[0] == 500


async def test_a_slow_reader_gets_a_large_answer_in_time_or_none(clock: LoopClock) -> None:
    async with serving(says("x" * 10_000_000)) as (server, port):
        for is_in_time in (True, False):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
            writer.write(GET)
            await until(lambda: server._connections)
            if is_in_time:
                body = (await read_all(reader)).partition(b"\r\n\r\n")[2]
                assert len(json.loads(body)["text"]) == 10_000_000
            else:
                clock.jump(REQUEST_S)
            await nothing_left(server)
            writer.transport.abort()


# --- bounds of one request


@pytest.mark.parametrize(
    ("data", "status"),
    [
        pytest.param(b"\x00\xff" * 5000, 400, id="garbage"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", 400, id="another protocol"),
        pytest.param(b"GET /v1/offer HTTP/1.1\r\n\r\n", 400, id="no host"),
        pytest.param(POST + b"Content-Length: -1\r\n\r\n", 400, id="negative length"),
        pytest.param(BEGUN + b"X: " + b"y" * MOST_HEADERS + b"\r\n\r\n", 431, id="long header"),
        pytest.param(BEGUN + b"X: y\r\n" * 200_000, 431, id="many headers"),
        pytest.param(b"GET /" + b"x" * 1_000_000, 431, id="long path"),
        pytest.param(POST + b"Content-Length: 16385\r\n\r\n", 413, id="long body to come"),
        pytest.param(POST + b"Content-Length: 1000000\r\n\r\n" + b"z" * 1_000_000, 413, id="body"),
        pytest.param(
            POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 100_000, 411, id="chunks"
        ),
        pytest.param(POST + b"Content-Length: 16384\r\n\r\n" + b"z" * 16384, 200, id="largest"),
        pytest.param(
            BEGUN + b"X: " + b"y" * (MOST_HEADERS - len(GET) - len(b"X: \r\n")) + b"\r\n\r\n",
            200,
            id="largest headers",
        ),
    ],
)
async def test_what_one_request_may_be(data: bytes, status: int) -> None:
    async with serving() as (_, port):
        answer = await exchange(port, data)
        assert status_of(answer) == status
        table = json.loads(answer.partition(b"\r\n\r\n")[2])
        assert table.get("success", True) == (status == 200)
        assert len(str(table)) < 200
        assert (await ask(port))[0] == 200


async def test_pipelined_requests_get_one_answer() -> None:
    gate = Gate()
    gate.opened.set()
    async with serving(gate) as (_, port):
        answer = await exchange(port, GET * 300)
        assert answer.count(b"HTTP/1.1 ") == 1 and status_of(answer) == 200
        assert gate.asked == 1


async def test_a_half_closed_client_is_answered() -> None:
    async with serving() as (server, port):
        assert status_of(await exchange(port, GET, eof=True)) == 200
        assert status_of(await exchange(port, BEGUN, eof=True)) == 400
        assert await exchange(port, b"", eof=True) == b""
        await nothing_left(server)


async def test_slow_clients_are_closed(clock: LoopClock) -> None:
    """Who says nothing, and who says a letter now and then."""
    refused: list[str] = []
    async with serving(refused=refused.append) as (server, port):
        silent, one = await asyncio.open_connection("127.0.0.1", port)
        slow, other = await asyncio.open_connection("127.0.0.1", port)
        await until(lambda: len(server._connections) == 2)
        for letter in range(4):
            other.write(GET[letter : letter + 1])
            await asyncio.sleep(0)
            assert not refused
            clock.jump(REQUEST_S / 4)
        assert await read_all(silent) == b""
        with contextlib.suppress(ConnectionError):
            assert await read_all(slow) == b""
        await nothing_left(server)
        assert refused == ["too_slow"] * 2
        one.close()
        other.close()


async def test_a_client_that_leaves_does_not_end_the_work(clock: LoopClock) -> None:
    gate = Gate()
    async with serving(gate) as (server, port):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET)
        await until(lambda: gate.asked)
        writer.transport.abort()
        clock.jump(REQUEST_S)
        (connection,) = server._connections
        await until(lambda: connection._sock.fileno() < 0)
        assert server._connections, "it keeps its place while it is worked on"
        gate.opened.set()
        await nothing_left(server)
        assert gate.done == 1


async def test_close_ends_everything() -> None:
    gate = Gate()
    before = descriptors()
    async with serving(gate) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET)
        await until(lambda: gate.asked)
    with contextlib.suppress(ConnectionError):
        assert await read_all(reader) == b""
    writer.close()
    await until(lambda: descriptors() == before)
    with pytest.raises(PeerUnreachable):
        await ask(port)


# --- many clients


async def test_a_source_has_its_rate(clock: LoopClock) -> None:
    async with serving(burst=5, rate_per_s=0.01) as (_, port):
        found = [status_of(await exchange(port, GET)) for _ in range(7)]
        assert found == [200] * 5 + [429] * 2
        assert status_of(await exchange(port, GET, source="127.0.0.2")) == 200
        clock.jump(100.0)
        assert (await ask(port))[0] == 200


async def test_who_is_turned_away_reads_why_although_its_request_comes_later(
    clock: LoopClock,
) -> None:
    """A close before it would be answered to the request with a reset, which takes the answer."""
    refused: list[str] = []
    async with serving(burst=1, rate_per_s=0.0001, refused=refused.append) as (_, port):
        await exchange(port, GET)
        before = descriptors()
        for number in range(1, 4):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            await until(lambda number=number: len(refused) == number)
            for part in (GET[:5], GET[5:]):
                writer.write(part)
                await asyncio.sleep(0)
            assert status_of(await reader.read()) == 429
            writer.close()
        clock.jump(2 * LEAVE_S)
        await until(lambda: descriptors() <= before)


async def test_a_crowd_that_is_turned_away_keeps_few_descriptors() -> None:
    refused: list[str] = []
    options = {"burst": 1, "rate_per_s": 0.001, "most_connections": 8}
    async with serving(refused=refused.append, **options) as (_, port):
        await exchange(port, GET)
        before = descriptors()
        async with crowd(port, 60):
            await until(lambda: len(refused) == 60)
            assert descriptors() - before <= 60 + 8


@asynccontextmanager
async def crowd(port: int, number: int, data: bytes = b"") -> AsyncIterator[None]:
    """Connections that are opened and kept."""
    opened = []
    for _ in range(number):
        sock = socket.socket()
        sock.setblocking(False)
        opened.append(sock)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        if data:
            with contextlib.suppress(OSError):
                sock.send(data)
    try:
        yield
    finally:
        for sock in opened:
            sock.close()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="silent"),
        pytest.param(GET[:20], id="idle"),
        pytest.param(b"\xff" * 4000, id="garbage"),
        pytest.param(GET * 200, id="pipelined"),
        pytest.param(BEGUN + b"X: y\r\n" * 5000, id="headers"),
        pytest.param(POST + b"Content-Length: 16384\r\n\r\nx", id="waiting"),
        pytest.param(POST + b"Content-Length: 1000000\r\n\r\n" + b"x" * 100_000, id="large"),
    ],
)
async def test_a_crowd_keeps_no_good_client_out(data: bytes) -> None:
    async with serving() as (server, port):
        for _ in range(2):
            async with crowd(port, 100, data):
                assert (await ask(port, source="127.0.0.3"))[0] == 200
                assert len(server._connections) <= 64


async def test_requests_in_work_are_never_pushed_out() -> None:
    gate = Gate()
    async with serving(gate, most_connections=4) as (_, port):
        asking = [asyncio.create_task(ask(port)) for _ in range(4)]
        await until(lambda: gate.asked == 4)
        status, table = await ask(port)
        assert (status, table["code"]) == (503, "busy")
        gate.opened.set()
        assert [status for status, _ in await asyncio.gather(*asking)] == [200] * 4


# --- listeners


async def test_addresses_change_without_dropping_the_others() -> None:
    gate = Gate()
    async with serving(gate) as (server, port):
        asking = asyncio.create_task(ask(port))
        await until(lambda: gate.asked)
        one, other = ("127.0.0.1", port, ""), ("127.0.0.9", port, "")
        kept = server._listeners[one]
        server.listen([one, other])
        assert server._listeners[one] is kept
        gate.opened.set()
        assert (await request("127.0.0.9", port, "GET", "/v1/offer"))[0] == 200
        server.listen([other])
        assert (await asking)[0] == 200
        with pytest.raises(PeerUnreachable):
            await ask(port)


async def test_an_address_that_can_not_be_listened_on_is_told_and_tried_again(
    clock: LoopClock,
) -> None:
    taken = socket.create_server(("127.0.0.1", 0))
    port = taken.getsockname()[1]
    warnings = Warnings()
    server = Server(mirror, PATHS, warnings)
    rows = [("127.0.0.1", ""), ("127.0.0.5", ""), ("mesh.example", ""), ("10.9.0.1", "nodevice0")]
    absent = [("192.0.2.1", port, ""), ("2001:db8::1", port, "")]
    try:
        server.listen([*((host, port, device) for host, device in rows), *absent])
        assert len(warnings) == 3, "an address that is not there yet is no fault"
        assert "no address" in warnings[f"peers at mesh.example port {port}"]
        assert "nodevice0" in " ".join(warnings.values())
        assert (await request("127.0.0.5", port, "GET", "/v1/offer"))[0] == 200
        taken.close()
        clock.jump(CHECK_S)
        await until(lambda: len(warnings) == 2)
        assert (await ask(port))[0] == 200
    finally:
        taken.close()
        await server.close()


async def test_a_listener_without_descriptors_comes_back(
    clock: LoopClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Spent(socket.socket):
        def accept(self) -> Any:
            raise OSError(24, "Too many open files")

    make = server_module.listener
    async with serving() as (server, port):
        address = ("127.0.0.1", port, "")
        server.listen([])
        spent = Spent(fileno=make(address).detach())
        monkeypatch.setattr(server_module, "listener", lambda address: spent)
        server.listen([address])
        monkeypatch.setattr(server_module, "listener", make)
        with contextlib.suppress(PeerUnreachable, TimedOut):
            await ask(port)
        assert "Too many open files" in server._warnings[f"peers at 127.0.0.1 port {port}"]
        clock.jump(CHECK_S)
        await until(lambda: not server._warnings)
        assert (await ask(port))[0] == 200


@pytest.mark.parametrize(
    ("host", "plain"),
    [
        ("10.9.0.1", "10.9.0.1"),
        ("::ffff:10.9.0.1", "10.9.0.1"),
        ("fe80::1%wg0", "fe80::1"),
        ("::ffff:1", "::ffff:1"),
    ],
)
def test_a_source_has_one_form(host: str, plain: str) -> None:
    assert plain_source(host) == plain


# --- the client


@asynccontextmanager
async def answering(data: bytes, *, reset: bool = False) -> AsyncIterator[int]:
    """A server that sends these bytes to whoever connects, and closes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            if reset:
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                await reader.readuntil(b"\r\n\r\n")
            writer.write(data)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


OK = b"HTTP/1.1 200 OK\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def reply(body: bytes) -> bytes:
    return OK + b"Content-Length: %d\r\n\r\n" % len(body) + body


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"SSH-2.0-OpenSSH\r\n", id="another protocol"),
        pytest.param(OK + b"X: " + b"y" * 1_000_000, id="long header"),
        pytest.param(reply(b"[1]"), id="no object"),
        pytest.param(reply(b'{"a": "' + b"x" * 17000 + b'"}'), id="long"),
        pytest.param(OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", id="chunks"),
        pytest.param(OK + b'Content-Length: 100\r\n\r\n{"a": 1}', id="cut short"),
        pytest.param(CONTINUE * 1000 + reply(b'{"a": 1}'), id="says to go on"),
    ],
)
async def test_what_is_no_peer_is_told(data: bytes) -> None:
    async with answering(data) as port:
        with pytest.raises(PeerUnreachable) as caught:
            await ask(port)
        assert caught.value.code == "bad_reply"
        assert str(port) in str(caught.value) and len(str(caught.value)) < 120


@pytest.mark.parametrize(
    "data", [CONTINUE, OK + b"Content-Length: 99999999\r\n\r\n"], ids=["no answer yet", "long"]
)
async def test_a_peer_that_sends_without_end_holds_nobody_up(data: bytes) -> None:
    """Not even the loop: there is always something to read, and no pause in it."""
    server = socket.create_server(("127.0.0.1", 0))
    was_left = threading.Event()

    def serve() -> None:
        with server, server.accept()[0] as sock:
            end_s = time.monotonic() + 20
            try:
                while time.monotonic() < end_s:
                    sock.sendall(data * 1000)
            except OSError:
                was_left.set()

    sending = threading.Thread(target=serve)
    sending.start()
    with pytest.raises(UplinkError):
        await ask(server.getsockname()[1], timeout_s=0.5)
    await asyncio.to_thread(sending.join)
    assert was_left.is_set()


async def test_an_answer_before_the_request_was_read_is_read() -> None:
    many = {"a": "x" * 8_000_000}
    async with serving() as (_, port):
        status, table = await ask(port, "POST", "/v1/lease", table=many)
        assert (status, table["code"]) == (413, "too_large")
    async with answering(reply(b'{"a": 1}')) as port:
        assert await ask(port, "POST", "/v1/lease", table=many) == (200, {"a": 1})


async def test_a_peer_that_is_silent_or_resets_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(TimedOut, match=r"0\.1 s"):
        await ask(silent.getsockname()[1], timeout_s=0.1)
    async with answering(b"", reset=True) as port:
        with pytest.raises(PeerUnreachable):
            await ask(port)


@pytest.mark.parametrize("host", ["mesh.example", "", "10.9.0", "fd00::x", "fe80::1%lo"])
async def test_only_addresses_are_asked(host: str) -> None:
    with pytest.raises(PeerUnreachable, match="no address"):
        await request(host, 1, "GET", "/v1/offer")


async def test_a_device_is_bound_to_at_both_ends() -> None:
    with pytest.raises(PeerUnreachable, match="No such device"):
        await ask(1, device="nodevice0")
    async with serving(device="lo") as (_, port):
        assert (await ask(port, device="lo"))[1]["device"] == "lo"
