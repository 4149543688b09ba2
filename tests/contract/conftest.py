"""The buses that the contract is held against: our broker, and ubusd where there is one."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from rpcd_wireguard_uplink.errors import BusError
from rpcd_wireguard_uplink.ubus.blocking import BlockingBus
from rpcd_wireguard_uplink.ubus.client import Client

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "rpcd_wireguard_uplink.extras.standalone")


class Bus:
    """A bus in a process of its own."""

    def __init__(self, kind: str, directory: Path) -> None:
        self.kind = kind
        self.path = str(directory / "bus.sock")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        argv = (shutil.which("ubusd") or "ubusd",) if self.kind == "ubusd" else (*COMMAND, "broker")
        self._process = subprocess.Popen((*argv, "-s", self.path), cwd=ROOT)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                BlockingBus(self.path).close()
            except BusError:
                time.sleep(0.02)
            else:
                return
        raise AssertionError(f"{self.kind} does not serve {self.path}")

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(20)
            self._process = None


KINDS = ["broker", pytest.param("ubusd", marks=pytest.mark.needs("ubusd"))]


def _run(kind: str, directory: Path) -> Iterator[Bus]:
    bus = Bus(kind, directory)
    bus.start()
    try:
        yield bus
    finally:
        bus.stop()


@pytest.fixture(scope="module", params=["broker", "ubusd"])
def shared_bus(request: pytest.FixtureRequest, tmp_path_factory) -> Iterator[Bus]:
    """One bus for the tests of a module."""
    if request.param == "ubusd" and shutil.which("ubusd") is None:
        pytest.skip("ubusd is not on PATH")
    yield from _run(request.param, tmp_path_factory.mktemp("bus"))


@pytest.fixture(params=KINDS)
def own_bus(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bus]:
    """A bus that the test may stop."""
    yield from _run(request.param, tmp_path)


@pytest.fixture
async def connect() -> Iterator[Callable[..., Awaitable[Client]]]:
    """Make connected clients that are closed after the test."""
    clients: list[Client] = []

    async def make(bus: Bus, **options: object) -> Client:
        client = Client(bus.path, **options)
        clients.append(client)
        await client.connect()
        return client

    yield make
    for client in clients:
        await client.close()


async def run(*argv: str, **more: str) -> tuple[int, bytes, bytes]:
    """Run a command; return its exit status, output and error output."""
    child = await asyncio.create_subprocess_exec(
        *argv,
        cwd=ROOT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **more},
    )
    out, err = await asyncio.wait_for(child.communicate(), 60)
    return child.returncode or 0, out, err


async def first_line(
    child: asyncio.subprocess.Process, tell: Callable[[], Awaitable[object]]
) -> str:
    """What a child prints first, told again and again until it listens."""
    reading = asyncio.create_task(child.stdout.readline())
    while not reading.done():
        await tell()
        await asyncio.wait([reading], timeout=0.2)
    return reading.result().decode()
