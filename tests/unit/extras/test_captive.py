"""Captive portals: what a page's answer means, when a line is looked at, and what is told."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.config.options import Settings
from rpcd_wireguard_uplink.errors import InvalidArgument
from rpcd_wireguard_uplink.extras import captive
from rpcd_wireguard_uplink.extras.captive import (
    BAD_PAGE,
    FREE_S,
    HELD_S,
    UNKNOWN_S,
    WRONG_PAGE,
    CaptiveWatch,
    Verdict,
    fetch_head,
    look_out,
    parse_answer,
    parse_check,
)
from rpcd_wireguard_uplink.failover.monitor import Monitor
from rpcd_wireguard_uplink.failover.paths import PathSet, Watch
from rpcd_wireguard_uplink.model import DefaultRoute, Endpoint, Family, Link, Uplink
from rpcd_wireguard_uplink.platform.network_reader import NetworkReader
from rpcd_wireguard_uplink.warnings import Warnings
from tests.unit.fakes import Machine

V4 = Family.IPV4
PAGE = "http://check.example/generate_204"
LOGIN = "http://198.51.100.200/login"
FREE, HELD = Verdict(), Verdict(LOGIN, ("198.51.100.200",))


@pytest.mark.parametrize(
    ("head", "portal"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", ""),
        (b"HTTP/1.0 204\r\n\r\n", ""),
        (
            b"HTTP/1.1 302 Found\r\nX: y\r\nLOCATION:  http://a.example/in?x=1\r\n\r\n",
            "a.example/in?x=1",
        ),
        (b"HTTP/1.1 307 T\r\nLocation: https://a.example\r\n\r\n", "a.example"),
        (b"HTTP/1.1 302 Found\r\nLocation: /login\r\n\r\n", "check.example/login"),
        (b"HTTP/1.1 302 Found\r\nLocation: javascript:alert(1)\r\n\r\n", PAGE),
        (b"HTTP/1.1 302 Found\r\nLocation: http://[bad\r\n\r\n", PAGE),
        (b"HTTP/1.1 302 F\r\nLocation: http://a.example/" + b"x" * 300 + b"\r\n\r\n", PAGE),
        (b"HTTP/1.1 200 OK\r\n\r\n<html>log in", PAGE),
        (b"HTTP/1.1 511 Network Authentication Required\r\n\r\n", PAGE),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", None),
        (b"SSH-2.0-OpenSSH\r\n", None),
        (b"", None),
    ],
)
def test_what_an_answer_means(head: bytes, portal: str | None) -> None:
    found = parse_answer(head, PAGE)
    if portal:
        assert found is not None
        assert found.split("//", 1)[1] == portal.removeprefix("http://")
    else:
        assert found == portal


@pytest.mark.parametrize(
    "url",
    [
        *("", "check.example", "https://check.example/", "http://", "http://a b/"),
        *("http://a:99999/", "http://a\r\nX: y/", "http://[bad/", "http://a:0/", "ftp://a/"),
    ],
)
def test_a_page_that_cannot_be_asked_for(url: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_check(url)


@dataclass
class Web:
    """A web server of this machine that gives one answer."""

    answer: bytes = b""
    requests: list[bytes] = field(default_factory=list)
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.requests.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(self.answer)
        await writer.drain()
        writer.close()


@pytest.fixture
async def web(mocker: MockerFixture) -> AsyncIterator[Web]:
    """Sockets are not bound to a device, which needs root; loopback counts as an address."""

    def plain_socket(device: str, address: str, kind: socket.SocketKind) -> socket.socket:
        assert device == "wan"
        return socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK)

    mocker.patch.object(captive, "bound_socket", plain_socket)
    mocker.patch.object(captive, "_is_usable", return_value=True)
    found = Web()
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0)
    found.port = server.sockets[0].getsockname()[1]
    yield found
    server.close()
    await server.wait_closed()


async def test_the_head_is_fetched_as_browsers_do_and_no_more(web: Web) -> None:
    web.answer = b"HTTP/1.1 204 No Content\r\nX: y\r\n\r\n"
    url = f"http://check.example:{web.port}/a?b=c"
    assert await fetch_head(url, "127.0.0.1", "wan") == web.answer
    [request] = web.requests
    assert request.startswith(b"GET /a?b=c HTTP/1.1\r\n")
    assert f"\r\nHost: check.example:{web.port}\r\n".encode() in request
    web.answer = b"HTTP/1.1 200 OK\r\n" + b"x" * 1_000_000
    assert len(await fetch_head(url, "127.0.0.1", "wan")) < captive.LONGEST_HEAD + 4096


async def test_looking_out(web: Web, mocker: MockerFixture) -> None:
    asked = mocker.patch.object(captive, "look_up", return_value=["192.0.2.1", "192.0.2.2"])
    url = f"http://127.0.0.1:{web.port}/"
    web.answer = b"HTTP/1.1 204 N\r\n\r\n"
    free = await look_out(url, ["192.0.2.53"], "wan")
    assert free == Verdict(page=captive.page_at(url, "127.0.0.1"))
    web.answer = b"HTTP/1.1 302 F\r\nLocation: http://portal.example/in\r\n\r\n"
    found = await look_out(url, ["192.0.2.53"], "wan")
    assert found == Verdict("http://portal.example/in", ("192.0.2.1", "192.0.2.2"))
    asked.assert_called_once_with("portal.example", ["192.0.2.53"], "wan")
    web.answer = b"HTTP/1.1 502 B\r\n\r\n"
    assert await look_out(url, [], "wan") is None
    mocker.patch.object(captive, "bound_socket", side_effect=OSError("no such device"))
    assert await look_out(url, [], "wan") is None


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "0.0.0.0", "224.0.0.1", "::1", "fe80::1", "169.254.0.1"]
)
async def test_a_portal_is_never_this_machine(address: str) -> None:
    assert await captive._addresses(address, [], "wan") == ()


class Bench:
    """A watch over lines that a table answers for."""

    def __init__(self, directory: Path, mocker: MockerFixture) -> None:
        self.machine = Machine(str(directory))
        self.machine.links = [Link("wan", 2, 0), Link("wwan", 3, 0), Link("wgup_a", 4, 51)]
        self.machine.routes[V4] = [
            DefaultRoute(V4, d, "", n) for n, d in enumerate(("wan", "wwan"))
        ]
        self.network = NetworkReader(self.machine)
        self.verdicts: dict[str, Verdict | None] = {"wan": FREE, "wwan": FREE, "wgup_a": FREE}
        self.asked: list[str] = []
        self.url = PAGE
        self.excepted: list[object] = []
        self.portals: dict[str, str] = {}
        uplink = Uplink("nodea", "wgup_a", Endpoint("192.0.2.9"), "key", ())
        self.monitor = SimpleNamespace(
            network=self.network,
            paths=PathSet(lambda path: None, Warnings()),
            warnings=Warnings(),
            platform=self.machine,
            watch=Watch(Settings(), (uplink,)),
            hold_portals=self._hold_portals,
        )
        self.watch = CaptiveWatch(cast(Monitor, self.monitor), lambda: self.url)
        mocker.patch.object(captive, "look_out", self._look_out)

    def _hold_portals(self, portals: dict[str, tuple[str, tuple[str, ...]]]) -> None:
        self.portals = {device: url for device, (url, _) in portals.items()}
        self.excepted.append({device: addresses for device, (_, addresses) in portals.items()})

    async def _look_out(self, url: str, resolvers: list[str], device: str) -> Verdict | None:
        assert url == PAGE
        self.asked.append(device)
        return self.verdicts[device]

    async def look(self, now_s: float) -> list[str]:
        """Which devices were asked at that time."""
        await self.network.read([])
        self.asked.clear()
        await self.watch.look(now_s)
        return sorted(self.asked)


@pytest.fixture
def bench(tmp_path: Path, mocker: MockerFixture) -> Bench:
    return Bench(tmp_path, mocker)


async def test_a_line_that_is_held(bench: Bench) -> None:
    bench.verdicts["wan"] = HELD
    await bench.look(0.0)
    assert bench.portals == {"wan": LOGIN}
    assert bench.excepted == [{"wan": HELD.addresses}]
    [problem] = bench.monitor.warnings.values()
    assert problem == (f"wan is held by a captive portal: open {LOGIN} (198.51.100.200) to log in")
    bench.verdicts["wan"] = None
    await bench.look(HELD_S)
    assert bench.portals == {"wan": LOGIN}, "silence frees no line"
    bench.verdicts["wan"] = FREE
    await bench.look(2 * HELD_S)
    assert bench.portals == {}
    assert bench.monitor.warnings == {}
    assert bench.excepted[-1] == {}


async def test_when_a_line_is_looked_at(bench: Bench) -> None:
    bench.verdicts["wwan"] = None
    assert await bench.look(0.0) == ["wan", "wwan"]
    assert await bench.look(1.0) == []
    assert await bench.look(UNKNOWN_S) == ["wwan"]
    bench.verdicts["wwan"] = HELD
    assert await bench.look(2 * UNKNOWN_S) == ["wgup_a", "wwan"], "elsewhere the page is right"
    assert await bench.look(2 * UNKNOWN_S + HELD_S) == ["wwan"]
    assert await bench.look(FREE_S) == ["wan", "wwan"]


async def test_a_line_is_looked_at_when_its_probes_say_something_new(bench: Bench) -> None:
    await bench.look(0.0)
    health = SimpleNamespace(alive_since_s=0.5)
    bench.monitor.paths["wan", V4] = SimpleNamespace(
        family=V4, health=health, use_page=lambda page: None
    )
    assert await bench.look(1.0) == ["wan"]
    assert await bench.look(2.0) == []
    health.alive_since_s = None
    assert await bench.look(3.0) == ["wan"]


async def test_a_line_that_lost_its_route_has_no_portal(bench: Bench) -> None:
    bench.verdicts["wan"] = HELD
    await bench.look(0.0)
    del bench.machine.routes[V4][0]
    assert await bench.look(1.0) == []
    assert bench.portals == {}
    bench.machine.routes[V4].insert(0, DefaultRoute(V4, "wan"))
    assert "wan" in await bench.look(2.0)


async def test_a_page_that_is_wrong_everywhere_holds_no_line(bench: Bench) -> None:
    bench.verdicts |= {"wan": HELD, "wgup_a": HELD}
    await bench.look(0.0)
    assert bench.portals == {}
    assert "wgup_a either" in bench.monitor.warnings[WRONG_PAGE]
    bench.verdicts["wgup_a"] = None
    await bench.look(UNKNOWN_S)
    assert bench.portals == {"wan": LOGIN}, "nobody else can say"
    assert WRONG_PAGE not in bench.monitor.warnings


async def test_nothing_is_asked_without_a_page(bench: Bench) -> None:
    bench.verdicts["wan"] = HELD
    await bench.look(0.0)
    bench.url = ""
    assert await bench.look(HELD_S) == []
    assert bench.portals == {}
    bench.url = PAGE
    bench.monitor.watch = Watch(Settings(enabled=False))
    assert await bench.look(HELD_S) == []
    bench.monitor.watch = Watch(Settings())
    bench.url = "ftp://a.example"
    assert await bench.look(HELD_S) == []
    assert "http://" in bench.monitor.warnings[BAD_PAGE]
    bench.url = PAGE
    assert await bench.look(HELD_S)
    assert BAD_PAGE not in bench.monitor.warnings
