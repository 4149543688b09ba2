"""Nothing grows: memory, open files and tasks, over simulated days and over real minutes.

In the simulated days the clock jumps to whatever is due next; the kernel and its commands are the
unit tests' fakes, files are real. Every hour has offers, leases, calls and a changed weight; what
is repeated within a minute is repeated a sixtieth as often.
"""

from __future__ import annotations

import asyncio
import gc
import os
import selectors
import tempfile
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any
from unittest import mock

from rpcd_wireguard_uplink.errors import UplinkError
from rpcd_wireguard_uplink.mesh.wire.lease import LeaseRequest
from rpcd_wireguard_uplink.provider import site
from rpcd_wireguard_uplink.provider.offer import OwnOffer
from rpcd_wireguard_uplink.system import process
from rpcd_wireguard_uplink.uplinks import adding, lifecycle
from tests.lab.lab import Lab
from tests.unit.fakes import Commands, RoutingTables, key_of
from tests.unit.router import CONFIG, NETWORK, Router, offer

from .crashes import Row
from .scene import Scene

SLEEP = asyncio.sleep
STRETCH = 60
HOUR_S = 3600.0
MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None  # writes that nobody waits for
PEERS = [f"peer{number}" for number in range(8)]
PROVIDER = "\nconfig provider 'local'\n\toption enabled '1'\n\toption pool4 '10.61.7.0/24'\n"
LOOKS = (0.0, 1 / 3, 1 / 2, 1.0)  # at what part of the time
GROWN_MB, GROWN_FILES, GROWN_TASKS, GROWN_SHARE = 4.0, 3, 5, 1.02


async def _sleep_longer(delay: float, result: object = None) -> object:
    return await SLEEP(delay * STRETCH if 0.5 <= delay <= 60.0 else delay, result)


class JumpingLoop(asyncio.SelectorEventLoop):
    """A loop whose clock stands while it works and jumps while it would sleep."""

    def __init__(self) -> None:
        self.now_s, self._in_threads = time.monotonic(), 0
        super().__init__(_Jumping(self))

    def time(self) -> float:
        return self.now_s

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, function: Callable[..., Any], *arguments: Any
    ) -> asyncio.Future[Any]:
        """Time stands until the thread's work is done."""
        self._in_threads += 1
        done = super().run_in_executor(executor, function, *arguments)
        done.add_done_callback(self._return)
        return done

    def _return(self, done: asyncio.Future[Any]) -> None:
        self._in_threads -= 1


class _Jumping(selectors.DefaultSelector):
    def __init__(self, loop: JumpingLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None or (timeout > 0 and self._loop._in_threads):
            return super().select(0.01)
        found = super().select(0)
        if not found and timeout > 0:
            self._loop.now_s += timeout
        return found


def resources(pid: int | str = "self") -> tuple[float, int]:
    """Resident megabytes, and open files."""
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        pages = int(file.read().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6, len(os.listdir(f"/proc/{pid}/fd"))


def measure_hours(hours: int) -> Row:
    """What grew between the end of the first third of so many simulated hours and their end."""
    began, row = time.monotonic(), Row(f"{hours} simulated hours")
    commands = Commands({"nft -j": '{"nftables": []}'})
    loop = JumpingLoop()
    with (
        tempfile.TemporaryDirectory(dir=MEMORY) as folder,
        mock.patch.object(process, "run", commands.run),
        mock.patch.object(adding, "HANDSHAKE_S", 0.0),
        mock.patch.object(lifecycle, "ROUTE_PAUSES_S", (0.0,)),
        mock.patch.object(site, "forwarding_fault", lambda *_: ("", "")),
        mock.patch.object(OwnOffer, "refusal", lambda _: None),
        mock.patch.object(time, "monotonic", loop.time),
        mock.patch.object(asyncio, "sleep", _sleep_longer),
        asyncio.Runner(loop_factory=lambda: loop) as runner,
    ):
        fault = runner.run(_live(Path(folder), hours, commands))
    row.add(time.monotonic() - began, fault)
    return row


async def _live(folder: Path, hours: int, commands: Commands) -> str:
    router = Router(folder)
    router.write("wireguard-uplink", CONFIG + PROVIDER)
    router.write("network", NETWORK)
    daemon = await router.start()
    before: tuple[float, ...] = ()
    for hour in range(hours):
        await _pass_an_hour(router, hour)
        machine, kernel = router.machine, router.machine.kernel
        assert isinstance(kernel, RoutingTables)
        notes_of = (machine.steps, machine.guards, machine.stalled, machine.left)
        for notes in (commands.calls, *notes_of):
            notes.clear()
        for more in (kernel.requests, router.events, router.replies):
            more.clear()
        if hour == hours // 3:
            before = _count()
    now = _count()
    await daemon.stop()
    names = ("MB", "files", "tasks", "objects")
    allowed = (GROWN_MB, GROWN_FILES, GROWN_TASKS, before[3] * (GROWN_SHARE - 1))
    grown = [
        f"{name} {b:.0f} -> {n:.0f}"
        for name, b, n, most in zip(names, before, now, allowed, strict=True)
        if n - b > most
    ]
    return ", ".join(grown)


def _count() -> tuple[float, ...]:
    gc.collect()
    return (*resources(), float(len(asyncio.all_tasks())), float(len(gc.get_objects())))


async def _pass_an_hour(router: Router, hour: int) -> None:
    """An hour of a router that uses one peer and serves eight."""
    for name in PEERS:
        await router.call("uplink_gossip", message=offer(name, sequence=hour + 1))
    await router.call("uplink_gossip", message=offer("nodea", sequence=hour + 1))
    works: list[Awaitable[object]] = [
        router.call("uplink_add", peer_id="nodea"),
        router.call("uplink_set_priority", peer_id="nodea", weight=hour % 90 + 1),
        router.call("uplink_status"),
        router.call("uplink_remove", peer_id="nodea"),
    ]
    for work in works:
        await work
    server = router.daemon.lease_server
    for name in PEERS:
        request = LeaseRequest(peer_id=name, public_key=key_of(f"{name} {hour // 12}"))
        try:
            await server.grant(request)
        except UplinkError:
            continue
    await asyncio.sleep(HOUR_S)


def measure_use(seconds: float) -> Row:
    """What grew of a real service between a third of so long and its end, in use throughout."""
    row, seen = Row(f"{seconds:.0f} real seconds of use"), list[tuple[float, ...]]()
    with Lab() as lab:
        scene = Scene(lab, "standalone")
        scene.service.stop()
        scene.service.can_strike = False
        scene.service.start()
        changes = [change for change in scene.changes() if change.name not in ("distrust", "lease")]
        began = time.monotonic()
        pid = f"{scene.service.node.pid}/root/proc/{scene.service.forker.do('pid')}"
        while (passed_s := time.monotonic() - began) < seconds or len(seen) < len(LOOKS):
            if passed_s >= seconds * LOOKS[len(seen)]:
                seen.append((*resources(pid), len(os.listdir(f"/proc/{pid}/task"))))
                megabytes, files, threads = seen[-1]
                print(
                    f"{row.kind}, after {passed_s:.0f}: {megabytes:.1f} MB, {files} files, "
                    f"{threads} threads",
                    flush=True,
                )
            for change in changes:
                for is_wanted in (True, False):
                    change.before(is_wanted)
                    (change.do if is_wanted else change.undo)()
            for _ in range(50):
                scene.service.ask("uplink_status")
    _, before, *_, now = seen
    allowed = (GROWN_MB, GROWN_FILES, GROWN_TASKS)
    is_flat = all(n - b <= most for b, n, most in zip(before, now, allowed, strict=True))
    row.add(seconds, "" if is_flat else f"MB, files and threads: {before} became {now}")
    return row
