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
from rpcd_wireguard_uplink.mesh.http.sockets import plain_source
from rpcd_wireguard_uplink.warnings import Warnings
from tests.unit.waiting import until

PATHS = {"/v1/offer": ("GET",), "/v1/lease": ("POST", "DELETE")}
GET = b"GET /v1/offer HTTP/1.1\r\nHost: peer\r\n\r\n"
Handler = Callable[[Request], Awaitable[Response]]


def free_port(host: str = "127.0.0.1") -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        sock.bind((host, 0))
        return sock.getsockname()[1]


async def mirror(asked: Request) -> Response:
    """Tells what was asked."""
    table = {"method": asked.method, "path": asked.path, "source": asked.source}
    return Response(200, {**table, "length": len(asked.body), "device": asked.device})


@asynccontextmanager
async def serving(
    handler: Handler = mirror, host: str = "127.0.0.1", **options: Any
) -> AsyncIterator[tuple[Server, int]]:
    """A server that takes many requests of one source, if `options` don't say otherwise."""
    port = free_port(host)
    warnings = Warnings()
    server = Server(handler, PATHS, warnings, **{"burst": 10_000, **options})
    server.listen([(host, port, "")])
    try:
        assert not warnings
        yield server, port
    finally:
        await server.close()


async def exchange(port: int, data: bytes, host: str = "127.0.0.1", source: str = "") -> bytes:
    """Send bytes and read until the server closes, which must not be by a reset."""
    local = (source, 0) if source else None
    reader, writer = await asyncio.open_connection(host, port, local_addr=local)
    answer = b""
    with contextlib.suppress(ConnectionError):
        writer.write(data)
        await writer.drain()
    while part := await asyncio.wait_for(reader.read(65536), 20):
        answer += part
    writer.close()
    return answer


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


async def ask(port: int, method: str = "GET", path: str = "/v1/offer", **more: Any) -> Any:
    return await request("127.0.0.1", port, method, path, **more)


# --- requests and answers


async def test_a_request_reaches_the_handler() -> None:
    async with serving() as (_, port):
        status, table = await ask(
            port, "POST", "/v1/lease?x=1", table={"a": "b"}, source="127.0.0.7"
        )
        assert (status, table["path"], table["method"]) == (200, "/v1/lease", "POST")
        assert (table["source"], table["length"]) == ("127.0.0.7", len('{"a":"b"}'))


async def test_ipv6_and_many_requests() -> None:
    async with serving(host="::1") as (_, port):
        for _ in range(50):
            status, table = await request("::1", port, "GET", "/v1/offer")
            assert (status, table["source"]) == (200, "::1")


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
        assert (await ask(port))[0] == 500


async def test_an_answer_that_is_no_json_is_a_failure_of_ours() -> None:
    async def answer(asked: Request) -> Response:
        return Response(200, {"bytes": b"x"})

    async with serving(answer) as (_, port):
        assert (await ask(port))[0] == 500


async def test_a_large_answer_to_a_slow_reader() -> None:
    async def answer(asked: Request) -> Response:
        return Response(200, {"text": "x" * 3_000_000})

    async with serving(answer) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET)
        await asyncio.sleep(0.3)
        data = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        assert len(json.loads(data.partition(b"\r\n\r\n")[2])["text"]) == 3_000_000


# --- bounds of one request


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x00\xff" * 5000, 400),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET /v1/offer HTTP/1.1\r\n\r\n", 400),
        (b"GET /v1/offer HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
        (
            b"GET /v1/offer HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            400,
        ),
        (b"GET /v1/offer HTTP/1.1\r\nHost: a\r\nX: " + b"y" * MOST_HEADERS + b"\r\n\r\n", 431),
        (b"GET /v1/offer HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 200_000, 431),
        (b"GET /" + b"x" * 1_000_000, 431),
        (b"POST /v1/lease HTTP/1.1\r\nHost: a\r\nContent-Length: 16385\r\n\r\n", 413),
        (
            b"POST /v1/lease HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"
            + b"z" * 1_000_000,
            413,
        ),
        (
            b"POST /v1/lease HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            + b"1\r\nx\r\n" * 100_000,
            411,
        ),
        (
            b"POST /v1/lease HTTP/1.1\r\nHost: a\r\nContent-Length: 16384\r\n\r\n" + b"z" * 16384,
            200,
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else repr(value[:50]),
)
async def test_what_one_request_may_be(data: bytes, status: int) -> None:
    async with serving() as (_, port):
        answer = await exchange(port, data)
        assert status_of(answer) == status
        table = json.loads(answer.partition(b"\r\n\r\n")[2])
        assert table.get("success", True) == (status == 200)
        assert len(str(table)) < 200
        assert (await ask(port))[0] == 200


async def test_the_largest_headers_are_taken() -> None:
    rest = MOST_HEADERS - len(GET) - len(b"X: \r\n")
    async with serving() as (_, port):
        answer = await exchange(port, GET[:-2] + b"X: " + b"y" * rest + b"\r\n\r\n")
        assert status_of(answer) == 200


async def test_pipelined_requests_get_one_answer() -> None:
    asked: list[str] = []

    async def count(request: Request) -> Response:
        asked.append(request.path)
        return Response(200, {})

    async with serving(count) as (_, port):
        answer = await exchange(port, GET * 300)
        assert answer.count(b"HTTP/1.1 ") == 1 and status_of(answer) == 200
        assert asked == ["/v1/offer"]


async def test_a_half_closed_client_is_answered() -> None:
    async with serving() as (server, port):
        for data, status in ((GET, 200), (GET[:-2], 400)):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(data)
            writer.write_eof()
            answer = await asyncio.wait_for(reader.read(), 10)
            writer.close()
            assert status_of(answer) == status
        assert await exchange_eof(port) == b""
        await nothing_left(server)


async def exchange_eof(port: int) -> bytes:
    """A client that connects and says nothing but its end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write_eof()
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return answer


async def nothing_left(server: Server) -> None:
    """Wait until the server holds no connection."""
    await until(lambda: not server._connections)


async def test_slow_clients_are_closed() -> None:
    async with serving(request_s=0.5) as (server, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        silent, other = await asyncio.open_connection("127.0.0.1", port)
        closing = asyncio.create_task(reader.read())
        for letter in (GET[:-2] + b"X: " + b"y" * 400).decode():
            writer.write(letter.encode())
            await asyncio.sleep(0.05)
            if closing.done():
                break
        else:
            pytest.fail("it was let go on for 20 s")
        with contextlib.suppress(ConnectionError):
            await closing
        assert await asyncio.wait_for(silent.read(), 10) == b""
        writer.close()
        other.close()
        await nothing_left(server)


async def test_a_client_that_does_not_take_its_answer_is_closed() -> None:
    async def answer(asked: Request) -> Response:
        return Response(200, {"text": "x" * 10_000_000})

    async with serving(answer, request_s=0.5) as (server, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(GET)
        await asyncio.sleep(0.2)
        assert server._connections
        await nothing_left(server)
        del reader
        writer.transport.abort()


async def test_a_client_that_leaves_does_not_end_the_work() -> None:
    done = asyncio.Event()
    begun = asyncio.Event()

    async def slow(asked: Request) -> Response:
        begun.set()
        await asyncio.sleep(0.4)
        done.set()
        return Response(200, {})

    async with serving(slow, request_s=0.2) as (server, port):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET)
        await asyncio.wait_for(begun.wait(), 10)
        writer.transport.abort()
        await asyncio.sleep(0.25)
        assert server._connections, "it keeps its place while it is worked on"
        await asyncio.wait_for(done.wait(), 10)
        await nothing_left(server)


async def test_close_ends_everything() -> None:
    async def forever(asked: Request) -> Response:
        await asyncio.Event().wait()
        raise AssertionError

    before = len(os.listdir("/proc/self/fd"))
    async with serving(forever) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET)
        await asyncio.sleep(0.1)
    with contextlib.suppress(ConnectionError):
        assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()
    await asyncio.sleep(0.05)
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(PeerUnreachable):
        await ask(port)


# --- many clients


async def test_a_source_has_its_rate() -> None:
    async with serving(burst=5, rate_per_s=2.0) as (_, port):
        found = [status_of(await exchange(port, GET)) for _ in range(12)]
        assert found[:5] == [200] * 5 and 429 in found[5:]
        assert status_of(await exchange(port, GET, source="127.0.0.2")) == 200
        await asyncio.sleep(1.0)
        assert (await ask(port))[0] == 200


async def test_who_is_turned_away_reads_why_although_its_request_comes_later() -> None:
    """A close before it would be answered to the request with a reset, which takes the answer."""
    async with serving(burst=1, rate_per_s=0.001) as (_, port):
        await exchange(port, GET)
        before = len(os.listdir("/proc/self/fd"))
        for pause_s in (0.0, 0.05, 0.2):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.sleep(pause_s)
            for part in (GET[:5], GET[5:]):
                writer.write(part)
                await asyncio.sleep(0.02)
            assert status_of(await reader.read()) == 429
            writer.close()
        async with asyncio.timeout(10):
            while len(os.listdir("/proc/self/fd")) > before:
                await asyncio.sleep(0.05)


async def test_a_crowd_that_is_turned_away_keeps_few_descriptors() -> None:
    async with serving(burst=1, rate_per_s=0.001, most_connections=8) as (_, port):
        await exchange(port, GET)
        before = len(os.listdir("/proc/self/fd"))
        async with crowd(port, 60):
            await asyncio.sleep(0.1)
            assert len(os.listdir("/proc/self/fd")) - before <= 60 + 8


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


async def test_500_idle_connections_do_not_keep_a_good_client_out() -> None:
    async with serving() as (server, port), crowd(port, 500, GET[:20]):
        assert len(server._connections) <= 64
        for _ in range(20):
            assert (await ask(port, source="127.0.0.2", timeout_s=10))[0] == 200
        assert len(server._connections) <= 64


async def test_requests_in_work_are_never_pushed_out() -> None:
    gate = asyncio.Event()

    async def wait(asked: Request) -> Response:
        await gate.wait()
        return Response(200, {})

    async with serving(wait, most_connections=4) as (server, port):
        asking = [asyncio.create_task(ask(port)) for _ in range(4)]
        while sum(c.work is not None for c in server._connections) < 4:
            await asyncio.sleep(0.01)
        status, table = await ask(port)
        assert (status, table["code"]) == (503, "busy")
        gate.set()
        assert [status for status, _ in await asyncio.gather(*asking)] == [200] * 4


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 4000,
        GET * 200,
        GET[:-2] + b"X: y\r\n" * 5000,
        b"POST /v1/lease HTTP/1.1\r\nHost: a\r\nContent-Length: 16384\r\n\r\nx",
        b"POST /v1/lease HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 100_000,
    ],
    ids=["silent", "garbage", "pipelined", "headers", "waiting", "large"],
)
async def test_an_attacker_slows_nobody(data: bytes) -> None:
    async def attack(port: int) -> None:
        while True:
            with contextlib.suppress(OSError):
                async with crowd(port, 30, data):
                    await asyncio.sleep(0.05)

    async with serving() as (_, port):
        attacker = asyncio.create_task(attack(port))
        loop = asyncio.get_running_loop()
        worst_s = 0.0
        for _ in range(15):
            began_s = loop.time()
            assert (await ask(port, source="127.0.0.3"))[0] == 200
            worst_s = max(worst_s, loop.time() - began_s)
            await asyncio.sleep(0.05)
        attacker.cancel()
        await asyncio.gather(attacker, return_exceptions=True)
        assert worst_s < 5.0


# --- listeners


async def test_addresses_change_without_dropping_the_others() -> None:
    gate = asyncio.Event()

    async def wait(asked: Request) -> Response:
        await gate.wait()
        return Response(200, {})

    async with serving(wait) as (server, port):
        asking = asyncio.create_task(ask(port))
        await asyncio.sleep(0.1)
        one, other = ("127.0.0.1", port, ""), ("127.0.0.9", port, "")
        kept = server._listeners[one]
        server.listen([one, other])
        assert server._listeners[one] is kept
        gate.set()
        assert (await request("127.0.0.9", port, "GET", "/v1/offer"))[0] == 200
        server.listen([other])
        assert (await asking)[0] == 200
        with pytest.raises(PeerUnreachable):
            await ask(port)


async def test_an_address_that_can_not_be_listened_on_is_told_and_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_module, "CHECK_S", 0.1)
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    port = taken.getsockname()[1]
    warnings = Warnings()
    server = Server(mirror, PATHS, warnings)
    try:
        server.listen(
            [
                ("127.0.0.1", port, ""),
                ("127.0.0.5", port, ""),
                ("mesh.example", port, ""),
                ("10.9.0.1", port, "nodevice0"),
            ]
        )
        assert len(warnings) == 3
        assert "no address" in warnings[f"peers at mesh.example port {port}"]
        assert "nodevice0" in " ".join(warnings.values())
        assert (await request("127.0.0.5", port, "GET", "/v1/offer"))[0] == 200
        taken.close()
        await until(lambda: len(warnings) == 2)
        assert (await ask(port))[0] == 200
    finally:
        taken.close()
        await server.close()


async def test_an_address_that_is_not_there_yet_is_no_problem() -> None:
    warnings = Warnings()
    server = Server(mirror, PATHS, warnings)
    try:
        server.listen([("192.0.2.1", free_port(), ""), ("2001:db8::1", free_port(), "")])
        assert not warnings
    finally:
        await server.close()


async def test_a_listener_without_descriptors_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "CHECK_S", 0.2)

    class Spent(socket.socket):
        def accept(self) -> Any:
            raise OSError(24, "Too many open files")

    make = server_module.listener
    async with serving() as (server, port):
        address = ("127.0.0.1", port, "")
        server.listen([])
        first = make(address)
        spent = Spent(fileno=first.detach())
        monkeypatch.setattr(server_module, "listener", lambda address: spent)
        server.listen([address])
        monkeypatch.setattr(server_module, "listener", make)
        with contextlib.suppress(PeerUnreachable, TimedOut):
            await ask(port, timeout_s=1.0)
        await asyncio.sleep(0.5)
        assert (await ask(port))[0] == 200
        assert not server._warnings


@pytest.mark.parametrize(
    ("host", "plain"),
    [
        ("10.9.0.1", "10.9.0.1"),
        ("::ffff:10.9.0.1", "10.9.0.1"),
        ("fe80::1%wg0", "fe80::1"),
        ("fd00::1", "fd00::1"),
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


def reply(body: bytes, extra: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n" % (len(body), extra) + body


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 1_000_000,
        reply(b"[1]"),
        reply(b"{"),
        reply(b'{"a": NaN}'),
        reply(b"[" * 16000),
        reply(b"\xff\xfe"),
        reply(b'{"a": ' + b"9" * 10000 + b"}"),
        reply(b'{"a": "' + b"x" * 17000 + b'"}'),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"a": 1}',
        b"HTTP/1.1 100 Continue\r\n\r\n" * 1000 + reply(b'{"a": 1}'),
    ],
    ids=lambda data: repr(data[:60]),
)
async def test_what_is_no_peer_is_told(data: bytes) -> None:
    async with answering(data) as port:
        with pytest.raises(PeerUnreachable) as caught:
            await ask(port)
        assert caught.value.code == "bad_reply"
        assert str(port) in str(caught.value) and len(str(caught.value)) < 120


@pytest.mark.parametrize(
    "data",
    [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n"],
    ids=["no answer yet", "long"],
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
        await request("127.0.0.1", server.getsockname()[1], "GET", "/v1/offer", timeout_s=0.5)
    await asyncio.to_thread(sending.join)
    assert was_left.is_set()


async def test_a_reset_is_unreachable() -> None:
    async with answering(b"", reset=True) as port:
        with pytest.raises(PeerUnreachable):
            await ask(port)


async def test_an_answer_before_the_request_was_read_is_read() -> None:
    many = {"a": "x" * 8_000_000}
    async with serving() as (_, port):
        status, table = await ask(port, "POST", "/v1/lease", table=many)
        assert (status, table["code"]) == (413, "too_large")
    async with answering(reply(b'{"a": 1}')) as port:
        assert await ask(port, "POST", "/v1/lease", table=many) == (200, {"a": 1})


async def test_a_silent_peer_times_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(TimedOut, match=r"0\.3 s"):
        await ask(silent.getsockname()[1], timeout_s=0.3)


@pytest.mark.parametrize("host", ["mesh.example", "", "10.9.0", "fd00::x", "fe80::1%lo"])
async def test_only_addresses_are_asked(host: str) -> None:
    with pytest.raises(PeerUnreachable, match="no address"):
        await request(host, 1, "GET", "/v1/offer")


async def test_a_device_that_is_not_there() -> None:
    with pytest.raises(PeerUnreachable, match="No such device"):
        await ask(1, device="nodevice0")


async def test_a_device_is_bound_to_at_both_ends() -> None:
    port = free_port()
    warnings = Warnings()
    server = Server(mirror, PATHS, warnings)
    try:
        server.listen([("127.0.0.1", port, "lo")])
        assert not warnings
        assert (await ask(port, device="lo"))[1]["device"] == "lo"
    finally:
        await server.close()
