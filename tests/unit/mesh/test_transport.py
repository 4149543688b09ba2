"""The mesh transport: when peers are asked and told, by a virtual clock and over real HTTP."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from rpcd_wireguard_uplink.config.options import PeerSettings
from rpcd_wireguard_uplink.config.settings import Config
from rpcd_wireguard_uplink.errors import PeerUnreachable
from rpcd_wireguard_uplink.mesh import transport as module
from rpcd_wireguard_uplink.mesh.http import Request, Response
from rpcd_wireguard_uplink.mesh.registry.directory import MeshPeer
from rpcd_wireguard_uplink.mesh.transport import FIRST_RETRY_S, LONGEST_PAUSE_S, MeshTransport
from tests.unit.fakes import store_of
from tests.unit.mesh.test_http import serving
from tests.unit.waiting import until

Table = dict[str, Any]


class Clock:
    """A clock that jumps to the next thing to do; `asyncio.sleep(0)` lets the loop work."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.now_s = 1000.0
        self._loop = loop

    def monotonic(self) -> float:
        return self.now_s

    @asynccontextmanager
    async def timeout(self, timeout_s: float) -> AsyncIterator[None]:
        """asyncio.timeout by this clock: what does not happen at once takes all the time."""
        waiting = asyncio.current_task()
        assert waiting is not None
        is_over = False

        async def pass_by() -> None:
            nonlocal is_over
            for _ in range(12):  # let answers arrive that need no time
                await asyncio.sleep(0)
            is_over = True
            self.now_s += timeout_s
            waiting.cancel()

        passing = self._loop.create_task(pass_by())
        try:
            yield
        except asyncio.CancelledError:
            if is_over and not waiting.uncancel():
                raise TimeoutError from None
            raise
        finally:
            passing.cancel()


class Mesh:
    """Peers that answer or don't, and when each was asked."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.asked: list[tuple[float, str, str]] = []
        self.dead: set[str] = set()

    async def request(
        self, host: str, port: int, method: str, path: str, table: Any = None, **more: Any
    ) -> tuple[int, Table]:
        self.asked.append((self.clock.now_s, host, path))
        if host in self.dead:
            raise PeerUnreachable("no route")
        return (200, {}) if path == "/v1/identity" else (404, {})

    def times(self, host: str, path: str = "/v1/offer") -> list[float]:
        return [at_s for at_s, asked, what in self.asked if (asked, what) == (host, path)]


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock(asyncio.get_running_loop())
    monkeypatch.setattr(module.time, "monotonic", made.monotonic)
    monkeypatch.setattr(module.asyncio, "timeout", made.timeout)
    monkeypatch.setattr(module.random, "uniform", random.Random(7).uniform)
    return made


@pytest.fixture
def routers(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Mesh:
    made = Mesh(clock)
    monkeypatch.setattr(module, "request", made.request)
    return made


def peers(count: int) -> list[MeshPeer]:
    return [MeshPeer("wg0", f"key{n}", (f"10.9.{n // 250}.{n % 250 + 1}",)) for n in range(count)]


@asynccontextmanager
async def running(transport: MeshTransport) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.get_running_loop().create_task(transport.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def run_until(transport: MeshTransport, clock: Clock, end_s: float) -> None:
    async with running(transport) as task:
        while clock.now_s < end_s:
            await asyncio.sleep(0)
            assert not task.done()


def transport_to(
    count: int, hear: Callable[..., None] = lambda peer, table: None, **settings: Any
) -> MeshTransport:
    """One that asks so many peers; `hear` gets what they offer."""
    store = store_of(Config(peering=PeerSettings(**settings)))
    made = MeshTransport(store, lambda peer, table: None, hear)
    made.follow(peers(count))
    return made


async def test_200_peers_are_spread_over_the_interval(routers: Mesh, clock: Clock) -> None:
    transport = transport_to(200)
    await run_until(transport, clock, 2000.0)
    first = {host: at_s for at_s, host, _ in reversed(routers.asked)}
    assert len(first) == 200
    assert max(first.values()) < 1012.0, "everybody is met soon"
    per_second = Counter(int(at_s) for at_s, _, path in routers.asked if path == "/v1/offer")
    late = {second: n for second, n in per_second.items() if second > 1600}
    assert max(late.values()) <= 12, "never all at once"
    for host in first:
        times = routers.times(host)
        gaps = [b - a for a, b in pairwise(times)]
        assert all(90.0 < gap < 150.0 for gap in gaps)
        assert 7 <= len(times) <= 12
        assert len(routers.times(host, "/v1/identity")) <= 2


async def test_who_is_silent_is_asked_less_and_less(routers: Mesh, clock: Clock) -> None:
    transport = transport_to(1)
    host = "10.9.0.1"
    routers.dead = {host}
    await run_until(transport, clock, 1000.0 + 4 * 3600.0)
    times = routers.times(host, "/v1/identity")
    gaps = [b - a for a, b in pairwise(times)]
    assert 0.75 * FIRST_RETRY_S <= gaps[0] <= 1.3 * FIRST_RETRY_S
    assert all(b > 1.2 * a for a, b in pairwise(gaps[:8]))
    assert max(gaps) <= 1.3 * LONGEST_PAUSE_S
    assert len(times) < 20


async def test_a_fresh_handshake_ends_the_waiting(routers: Mesh, clock: Clock) -> None:
    transport = transport_to(1)
    host, known = "10.9.0.1", peers(1)[0]
    transport.follow([replace(known, handshake_age_s=500.0)])
    routers.dead = {host}
    await run_until(transport, clock, 1000.0 + 3000.0)
    before = len(routers.asked)
    routers.dead = set()
    transport.follow([replace(known, handshake_age_s=600.0)])
    await run_until(transport, clock, clock.now_s + 5.0)
    assert len(routers.asked) <= before + 1, "the same session is no news"
    transport.follow([replace(known, handshake_age_s=1.0)])
    before = len(routers.times(host))
    await run_until(transport, clock, clock.now_s + 5.0)
    assert len(routers.times(host)) == before + 1


async def test_a_peer_that_makes_itself_heard_is_asked_once_a_second(
    routers: Mesh, clock: Clock
) -> None:
    transport = transport_to(1)
    await run_until(transport, clock, 1030.0)
    routers.asked.clear()
    begun_s = clock.now_s
    async with running(transport):
        while clock.now_s < begun_s + 600.0:
            transport.ask_soon("key0")
            transport.ask_soon("nobody")
            clock.now_s += 0.05
            for _ in range(20):
                await asyncio.sleep(0)
    times = routers.times("10.9.0.1")
    assert len(times) > 5
    assert all(b - a >= 1.0 for a, b in pairwise(times))


async def test_a_peer_is_never_asked_twice_at_once(clock: Clock, monkeypatch: Any) -> None:
    """Else one that does not answer would take every place from the others."""
    hanging = asyncio.Event()
    going_on: Counter[str] = Counter()
    most: Counter[str] = Counter()

    async def request(host: str, *_: Any, **__: Any) -> tuple[int, Table]:
        going_on[host] += 1
        most[host] = max(most[host], going_on[host])
        if host == "10.9.0.1":
            await hanging.wait()
        going_on[host] -= 1
        return 404, {}

    monkeypatch.setattr(module, "request", request)
    transport = transport_to(3)
    async with running(transport):
        while clock.now_s < 1400.0:
            transport.ask_soon("key0")
            await asyncio.sleep(0)
        assert most["10.9.0.1"] == 1
        assert {"10.9.0.2", "10.9.0.3"} <= most.keys()


async def test_who_is_gone_is_asked_no_more(routers: Mesh, clock: Clock) -> None:
    transport = transport_to(3)
    await run_until(transport, clock, 1300.0)
    transport.follow([*peers(1), MeshPeer("wg0", "proves nothing")])
    routers.asked.clear()
    await run_until(transport, clock, clock.now_s + 600.0)
    assert {host for _, host, _ in routers.asked} == {"10.9.0.1"}


async def test_a_listener_that_fails_is_told_and_the_others_go_on(
    routers: Mesh, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(peer: MeshPeer, table: Table | None) -> None:
        if peer.key == "key0":
            raise KeyError("a secret that must not be told")

    await run_until(transport_to(3, broken), clock, 1400.0)
    assert len(routers.times("10.9.0.2")) >= 2
    assert "KeyError" in caplog.text
    assert "secret" not in caplog.text


async def test_without_offers_to_ask_only_identities_are(routers: Mesh, clock: Clock) -> None:
    transport = transport_to(2, carriers=frozenset({"bus"}))
    await run_until(transport, clock, 1000.0 + 1800.0)
    assert [path for _, _, path in routers.asked] == ["/v1/identity"] * 2


# --- over real HTTP

HERE = MeshPeer("", "key", ("127.0.0.1",))


async def test_what_a_peer_answers_is_heard() -> None:
    async def answer(request: Request) -> Response:
        return Response(200, {"id": 1}) if request.path == "/v1/identity" else Response(404, {})

    heard: list[Any] = []
    async with serving(answer) as (_, port):
        store = store_of(Config(peering=PeerSettings(mesh_port=port)))
        transport = MeshTransport(store, *[lambda peer, table: heard.append((peer, table))] * 2)
        transport.follow([HERE])
        transport.ask_soon("key")
        async with running(transport):
            await until(lambda: len(heard) >= 2)
    assert heard == [(HERE, {"id": 1}), (HERE, None)]


async def test_a_message_reaches_every_peer_and_a_newer_one_replaces_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "SEND_PAUSES_S", (0.0, 0.01, 0.01))
    told: list[bytes] = []

    async def answer(request: Request) -> Response:
        told.append(request.body)
        return Response(200, {})

    async with serving(answer) as (_, port):
        transport = transport_to(0, mesh_port=port)
        dead = MeshPeer("", "dead", ("127.0.0.2",))
        transport.follow([HERE, dead, replace(HERE, key="two")])
        transport.publish({"n": 1})
        transport.publish({"n": 2})
        assert transport.sending is not None
        await asyncio.wait_for(transport.sending, 20)
    assert told == [b'{"n":2}'] * 2
