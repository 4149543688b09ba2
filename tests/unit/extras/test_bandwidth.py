"""The one bounded download, from a real server on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from rpcd_wireguard_uplink.errors import InvalidArgument, PeerUnreachable, TimedOut
from rpcd_wireguard_uplink.extras import bandwidth
from rpcd_wireguard_uplink.extras.bandwidth import measure_mbps

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def web(answer: Answer) -> AsyncIterator[tuple[str, list[bytes]]]:
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        try:
            await answer(writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}/file?n=1", asked
    finally:
        server.close()
        await server.wait_closed()


async def endless(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.0 200 OK\r\n\r\n")
    while True:
        writer.write(bytes(65536))
        await writer.drain()


async def test_a_large_file_is_measured_within_its_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bandwidth, "LONGEST_S", 0.5)
    monkeypatch.setattr(bandwidth, "WARM_UP_S", 0.1)
    async with web(endless) as (url, asked):
        assert await asyncio.wait_for(measure_mbps(url), 20) >= 1
        assert asked[0].startswith(b"GET /file?n=1 HTTP/1.0\r\nHost: 127.0.0.1:")


async def test_bytes_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bandwidth, "LONGEST_S", 60.0)
    async with web(endless) as (url, _):
        assert await asyncio.wait_for(measure_mbps(url), 20) >= 1


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.0 302 Found\r\nLocation: /\r\n\r\n", "redirect"),
        (b"HTTP/1.0 404 None\r\n\r\n", "did not give"),
        (b"", "did not give"),
        (b"HTTP/1.0 200 OK\r\n\r\nsmall", "too small"),
    ],
)
async def test_what_is_no_file_to_measure_by(answer: bytes, words: str) -> None:
    async def say(writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()

    async with web(say) as (url, _):
        with pytest.raises(PeerUnreachable, match=words):
            await measure_mbps(url)


async def test_a_silent_server_does_not_hold_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bandwidth, "CONNECT_S", 0.2)
    silent = asyncio.Event()

    async def wait(_: asyncio.StreamWriter) -> None:
        await silent.wait()

    async with web(wait) as (url, _):
        with pytest.raises(TimedOut):
            await measure_mbps(url)
        silent.set()


@pytest.mark.parametrize(
    "url", ["https://example.org/x", "example.org", "", "ftp://h/x", "http://"]
)
async def test_what_is_no_http_is_refused(url: str) -> None:
    with pytest.raises(InvalidArgument):
        await measure_mbps(url)


async def test_nobody_there_is_told_with_the_reason() -> None:
    async with web(endless) as (url, _):
        pass
    with pytest.raises(PeerUnreachable, match=r"127\.0\.0\.1 can't be reached"):
        await measure_mbps(url)


async def test_a_download_that_breaks_off_is_told() -> None:
    async def reset(writer: asyncio.StreamWriter) -> None:
        writer.write(b"x" * 100_000)
        await writer.drain()

    async with web(reset) as (url, _):
        with pytest.raises(PeerUnreachable, match="broke the download off"):
            await measure_mbps(url)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:99999/x", "http://[::1/x", "http://127.0.0.1:x/"]
)
async def test_a_url_that_only_looks_like_one(url: str) -> None:
    with pytest.raises(InvalidArgument):
        await measure_mbps(url)
