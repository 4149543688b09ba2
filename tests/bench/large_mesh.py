"""A mesh of hundreds of routers in one process: how fast news travels, and what listening costs.

Each router is the product's service, with real requests over loopback; what it would
run (`wg`, `ip`, `nft`) is answered from memory, since no kernel holds so many tunnels. So the CPU
of the commands themselves is not counted. The nodes' addresses are the loopback's in a laboratory.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass
from typing import Any, cast

from rpcd_wireguard_uplink.api.bus import BusService
from rpcd_wireguard_uplink.daemon import Daemon
from rpcd_wireguard_uplink.events import Events
from rpcd_wireguard_uplink.mesh import http
from rpcd_wireguard_uplink.mesh import transport as mesh_carrier
from rpcd_wireguard_uplink.mesh.wire.offer import Offer
from rpcd_wireguard_uplink.platform.linux import Platform
from rpcd_wireguard_uplink.system import process
from rpcd_wireguard_uplink.tasks import TaskSet
from rpcd_wireguard_uplink.warnings import Warnings
from tests.lab.lab import Lab
from tests.lab.node import LabError
from tests.lab.router import settings
from tests.lab.service import variables
from tests.unit.fakes import Machine, QuietBus, key_of

from .table import Row

DEVICE = "lo"
NEVER = "0"
WINDOW_S = 3.0
MEETING_S = 420.0  # for all to have asked everybody who they are


@dataclass(slots=True)
class Router:
    """One router of the mesh. `asked` counts its requests."""

    number: int
    dump: str
    asked: int = 0
    daemon: Daemon | None = None

    @property
    def name(self) -> str:
        return f"node{self.number}"

    @property
    def books(self) -> Daemon:
        assert self.daemon is not None
        return self.daemon


CURRENT: ContextVar[Router] = ContextVar("CURRENT")
"""Whose work the loop is doing: everything that a router starts inherits it."""


def address(number: int) -> str:
    """The mesh address of a router."""
    return f"10.9.{number // 200}.{number % 200 + 1}"


def dump_of(number: int, count: int) -> str:
    """`wg show all dump` of one router: its device, and everybody else as a peer."""
    lines = [f"{DEVICE}\tprivate\t{key_of(str(number))}\t51820\toff"]
    shook = int(time.time())
    for peer in range(count):
        if peer != number:
            fields = [DEVICE, key_of(str(peer)), "(none)", f"192.0.2.1:{20000 + peer}"]
            lines.append("\t".join([*fields, f"{address(peer)}/32", str(shook), "1", "1", NEVER]))
    return "\n".join(lines) + "\n"


async def _run(argv: Sequence[str], **options: Any) -> process.Completed:
    """Stands in for process.run."""
    router = CURRENT.get()
    if list(argv) == ["wg", "show", "all", "dump"]:
        return process.Completed(0, router.dump, "")
    return process.Completed(int("list" in argv), "", "")  # nothing of nft's is there to be listed


async def _request(*arguments: Any, **options: Any) -> tuple[int, dict[str, Any]]:
    """Stands in for the carrier's request: loopback must be told which address is the asker's."""
    router = CURRENT.get()
    router.asked += 1
    return await http.request(*arguments, source=address(router.number), **options)


async def _start(router: Router, folder: str) -> None:
    machine = Machine(os.path.join(folder, router.name))
    machine.addresses[DEVICE] = [f"{address(router.number)}/16"]
    with open(os.path.join(machine.config_dir, "wireguard-uplink"), "w", encoding="utf-8") as file:
        file.write(settings((), node_id=router.name, pace="default"))
    warnings = Warnings()
    tasks = TaskSet(warnings)
    router.daemon = Daemon(
        cast(Platform, machine),
        cast(BusService, QuietBus([])),
        keys_dir=machine.keys_dir,
        state_file=os.path.join(machine.directory, "state.json"),
        warnings=warnings,
        tasks=tasks,
        events=Events(tasks),
    )
    await router.daemon.start()


async def gather(count: int, runs: int, folder: str) -> dict[str, Any]:
    """Start the mesh, let everybody meet, and measure; the values by name."""
    setattr(process, "run", _run)  # noqa: B010
    setattr(mesh_carrier, "request", _request)  # noqa: B010
    routers = [Router(number, dump_of(number, count)) for number in range(count)]
    loop, began = asyncio.get_running_loop(), time.monotonic()
    starting = [loop.create_task(_start(r, folder), context=_context(r)) for r in routers]
    await asyncio.gather(*starting)
    while not all(_knows_all(router, count) for router in routers):
        if time.monotonic() - began > MEETING_S:
            raise LabError(f"{count} routers did not all meet in {MEETING_S:g} s")
        await asyncio.sleep(0.5)
    met_s = time.monotonic() - began
    for router in routers:
        _settle(router)
    cpu, asked = [], []
    for _ in range(runs):
        before, at_s, used_s = sum(r.asked for r in routers), time.monotonic(), time.process_time()
        await asyncio.sleep(WINDOW_S)
        passed_s = time.monotonic() - at_s
        cpu.append(100 * (time.process_time() - used_s) / passed_s / count)
        both_ways = 2 * (sum(r.asked for r in routers) - before)
        asked.append(both_ways * 60 / passed_s / count)
    spread = []
    for router in routers[:runs]:
        spread.append(await loop.create_task(_spread(router, routers), context=_context(router)))
    return {"spread": spread, "cpu": cpu, "asked": asked, "met_s": met_s}


def _settle(router: Router) -> None:
    """Spread its questions as they are after hours: all began within seconds."""
    transport = router.books.agent.transport
    poll_s = router.books.store.current.peering.poll_s
    for known in transport._known.values():
        known.due_s = time.monotonic() + random.uniform(0, poll_s)
    transport._wake.set()


def _context(router: Router) -> Context:
    context = copy_context()
    context.run(CURRENT.set, router)
    return context


def _knows_all(router: Router, count: int) -> bool:
    daemon = router.daemon
    return daemon is not None and len(daemon.peers.directory.peer_ids) == count - 1


async def _spread(router: Router, routers: Sequence[Router]) -> float:
    """Seconds from one router's word to the last other one that has it in its book."""
    daemon, began = router.books, time.monotonic()
    message = Offer(
        peer_id=router.name,
        host="192.0.2.7",
        port=51821,
        public_key=key_of(f"provider {router.number}"),
        bandwidth_mbps=100,
        sequence=daemon.numbering.next(time.time()),
        ttl_s=900,
    )
    daemon.advertiser.publish(message)
    others = [other.books.offers for other in routers if other is not router]
    while not all(book.names.get(router.name) for book in others):
        if time.monotonic() - began > 60.0:
            raise LabError(f"the offer of {router.name} did not reach everybody in 60 s")
        await asyncio.sleep(0.005)
    return time.monotonic() - began


def measure_mesh(count: int, runs: int) -> list[Row]:
    """The same as rows, in a node of its own."""
    with Lab() as lab:
        node = lab.node("mesh")
        node.sh("\n".join(f"ip addr add {address(n)}/32 dev {DEVICE}" for n in range(count)))
        argv = [sys.executable, "-m", __name__, str(count), str(runs), lab.path("routers", "")]
        pipe = subprocess.PIPE
        child = lab.at_close(node.popen(argv, stdout=pipe, stderr=pipe, env=variables()))
        said, error = child.entered.communicate(timeout=MEETING_S + 600.0)
        if child.returncode != 0:
            raise LabError(f"the mesh failed: {error.strip()[-800:]}")
    found = json.loads(said)
    met = f"all {count} met within {found['met_s']:.0f} s, in one process"
    polled = "requests and answers; every peer is asked once in 2 minutes"
    served = "commands are answered from memory"
    most = 1.25 * 2 * (count - 1) / 2  # each of the others asked, and asking, every two minutes
    return [
        Row(f"mesh of {count}: everyone knows an offer", "s", tuple(found["spread"]), 5, note=met),
        Row(
            f"mesh of {count}: messages of a node a minute",
            "messages",
            tuple(found["asked"]),
            most,
            "median",
            polled,
        ),
        Row(f"mesh of {count}: CPU of a node", "% of a core", tuple(found["cpu"]), 1, note=served),
    ]


if __name__ == "__main__":
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    wanted_count, wanted_runs, wanted_folder = sys.argv[1:]
    result = asyncio.run(gather(int(wanted_count), int(wanted_runs), wanted_folder))
    print(json.dumps(result), flush=True)
    os._exit(0)  # hundreds of services need not say good-bye to each other
