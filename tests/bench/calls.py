"""What a call costs and what the service weighs: RPC, start, memory, idle CPU, bytes of probing.

Owns a consumer with any number of uplinks to one provider, on a bus of its own: the real ubusd
where that is on PATH, else the project's broker in a process of its own.
"""

from __future__ import annotations

import os
import selectors
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

from rpcd_wireguard_uplink.errors import BusError
from rpcd_wireguard_uplink.ubus.blobmsg import encode_table
from rpcd_wireguard_uplink.ubus.blocking import BlockingBus
from rpcd_wireguard_uplink.ubus.framing import Attr
from rpcd_wireguard_uplink.ubus.protocol import Completed
from tests.lab.capture import UDP, Capture
from tests.lab.lab import Lab, ready
from tests.lab.network import ConsumerNetwork, consumer_network
from tests.lab.node import LabError, environment
from tests.lab.provider import make_provider
from tests.lab.router import Router, configure_uplink, settings
from tests.lab.service import OBJECT, Service, variables

from . import noop
from .table import Row, quantile

MANY = 20
CLIENTS = 64
CALLS = 100  # a round of one client; of many clients, each has CALLS // 10
SETTLE_S = 15.0  # after the start: new paths are probed more often
WINDOW_S = 12.0  # commands' CPU comes in steps of 10 ms
DAY_S = 86400.0


class OnBus(Service):
    """A service on a bus that is there already, with bytecode of its own as a package ships it."""

    @property
    def argv(self) -> list[str]:
        words = [word for word in super().argv if word != "--broker"]
        kept = f"PYTHONPYCACHEPREFIX={os.path.join(self.folder, 'bytecode')}"
        return ["env", "-u", "PYTHONDONTWRITEBYTECODE", kept, *words]


def bus_kind() -> str:
    """What the calls go through."""
    return "ubusd" if shutil.which("ubusd", path=environment()["PATH"]) else "broker"


def measure_calls(rounds: int) -> list[Row]:
    """A status beside a method that does nothing, for one uplink and for many."""
    rows = []
    with Lab() as lab:
        router = begin(lab, 1)
        _serve_noop(router)
        for count in (1, MANY):
            lay(router, count)
            router.wait(lambda s: len(s["uplinks"]) == count)  # noqa: B023
            router.wait_primary(60.0)
            if count == 1:
                rows += _compare_with_c(router, 5 * rounds)
            for clients in (1, CLIENTS):
                rows.append(_compare(router.service.socket, count, clients, rounds))
    return rows


def measure_start(runs: int) -> list[Row]:
    """From the command to the object on the bus, with many uplinks configured."""
    with Lab() as lab:
        router = begin(lab, MANY)
        times = []
        for _ in range(runs):
            router.service.stop()
            bus = BlockingBus(router.service.socket)
            began = time.monotonic()
            router.service.start(wait=False)
            while not _found(bus, OBJECT):
                time.sleep(0.002)
            times.append(time.monotonic() - began)
            bus.close()
            router.status()  # answered when all is loaded
    note = f"{MANY} uplinks, {bus_kind()}"
    return [Row("start to registered", "s", tuple(times), 0.1, "p95", note)]


def measure_idle(windows: int) -> list[Row]:
    """CPU, memory, and the bytes of keeping each of many backups ready; nobody uses the line."""
    with Lab() as lab:
        router = begin(lab, MANY)
        pid, cpu, memory = router.service.pid, [], []
        time.sleep(SETTLE_S)
        capture = Capture(router.network.consumer, "mesh0")
        began = time.monotonic()
        for _ in range(windows):
            before, at_s = cpu_s(pid), time.monotonic()
            time.sleep(WINDOW_S)
            cpu.append(100 * (cpu_s(pid) - before) / (time.monotonic() - at_s))
            memory.append(_resident_mb(pid))
        packets = capture.stop()
        passed_s = time.monotonic() - began
    sizes: dict[int, int] = {}
    for packet in packets:
        if packet.protocol == UDP:
            port = packet.source_port if packet.leaves else packet.target_port
            sizes[port] = sizes.get(port, 0) + packet.size
    daily = tuple(size * DAY_S / passed_s / 1e6 for size in sizes.values())
    note = f"{MANY} uplinks, default pace"
    whole = f"each of {MANY} backups for {passed_s:.0f} s, outer frames both ways with keepalive"
    return [
        Row("bytes a day for an idle backup", "MB", daily, 5, "p95", whole),
        Row("RSS", "MB", tuple(memory), 28, "p95", note),
        Row("idle CPU", "% of a core", tuple(cpu), 0.3, "p95", note),
    ]


def begin(lab: Lab, count: int, kind: type[OnBus] = OnBus) -> Router:
    """A running service with so many uplinks, all of them ready."""
    network = consumer_network(lab)
    provider = make_provider(lab, network.providers[0])
    service = kind(lab, network.consumer, "")
    _start_bus(network, service.socket)
    router = Router(network, (provider,), service, "")
    lay(router, count)
    service.start()
    router.status()  # answered when all is loaded, and so all bytecode written
    service.restart()
    router.wait_primary(60.0)
    return router


def lay(router: Router, count: int) -> None:
    """Have so many uplinks in the configuration; those that are there stay."""
    names = [f"node{number:02}" for number in range(count)]
    for place in range(router.uplinks.count("config uplink"), count):
        router.uplinks += configure_uplink(
            router.network.consumer,
            router.service.keys_dir,
            replace(router.providers[0], peer_id=names[place]),
            router.network.neighbours[0].provider4,
            place=10 + place,
        )
    router.configure(settings(names, pace="default", hold_time=30))


def _start_bus(network: ConsumerNetwork, socket: str) -> None:
    command = ["ubusd"]
    if bus_kind() == "broker":
        command = [sys.executable, "-m", "rpcd_wireguard_uplink.extras.standalone", "broker"]
    network.lab.at_close(network.consumer.popen([*command, "-s", socket], env=variables()))
    deadline = time.monotonic() + 10.0
    while True:
        try:
            return BlockingBus(socket).close()
        except BusError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _serve_noop(router: Router) -> None:
    argv = [sys.executable, "-m", noop.__name__, router.service.socket]
    pipe = subprocess.PIPE
    node, lab = router.network.consumer, router.network.lab
    ready(lab.at_close(node.popen(argv, stdout=pipe, stderr=pipe, env=variables())))


def _compare(socket: str, uplinks: int, clients: int, rounds: int) -> Row:
    buses = [BlockingBus(socket) for _ in range(clients)]
    each = CALLS if clients == 1 else CALLS // 10
    quiet, status = _found(buses[0], noop.OBJECT), _found(buses[0], OBJECT)
    ratios, found, beside = [], [], []
    try:
        for _ in range(rounds):
            nothing = _round(buses, quiet, "nothing", each)
            told = _round(buses, status, "uplink_status", each)
            ratios.append(quantile(told, 0.5) / quantile(nothing, 0.5))
            found += told
            beside += nothing
    finally:
        for bus in buses:
            bus.close()
    note = (
        f"p50/p99 {_microseconds(found)} us, no-op {_microseconds(beside)} us, "
        f"{len(found)} calls without an error, {bus_kind()}"
    )
    counted = f"{uplinks} uplink{'s' * (uplinks > 1)}, {clients} client{'s' * (clients > 1)}"
    name = f"uplink_status beside a no-op, p50: {counted}"
    return Row(name, "ratio", tuple(ratios), 1.5 if uplinks > 1 else 1.3, "median", note)


def _compare_with_c(router: Router, rounds: int) -> list[Row]:
    """A status and a small reply of a server in C, both asked by a client in C; no row where there
    is no compiler, no libubus or no ubusd. In the 20 ms of a round nobody changes the processor:
    there are to be many.
    """
    node, lab, peer = router.network.consumer, router.network.lab, router.network.lab.path("peer")
    source = os.path.join(os.path.dirname(__file__), "peer.c")
    words = ["cc", "-O2", "-o", peer, source, "-lubus", "-lubox"]
    if bus_kind() == "broker" or not shutil.which("cc") or subprocess.run(words).returncode:
        return []
    pipe = subprocess.PIPE
    ready(lab.at_close(node.popen([peer, router.service.socket], stdout=pipe, stderr=pipe)))
    asked = ["bench.c", "small", OBJECT, "uplink_status"]
    ratios: list[float] = []
    found: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        told = node.run([peer, router.service.socket, str(CALLS), *asked], timeout_s=60.0).stdout
        times = [[float(word) / 1e6 for word in line.split()] for line in told.splitlines()]
        ratios.append(quantile(times[1], 0.5) / quantile(times[0], 0.5))
        for kept, more in zip(found, times, strict=True):
            kept += more
    note = f"p50/p99 {_microseconds(found[1])} us, C {_microseconds(found[0])} us, client in C"
    name = "uplink_status beside a small reply of a server in C, p50: 1 uplink"
    return [Row(name, "ratio", tuple(ratios), 1.5, "median", note)]


def _microseconds(values: Sequence[float]) -> str:
    return "/".join(f"{quantile(values, share) * 1e6:.0f}" for share in (0.5, 0.99))


def _round(buses: Sequence[BlockingBus], target: int, method: str, each: int) -> list[float]:
    """Seconds of each call; every client has one call under way until it made `each` of them.

    Raises LabError for a call that fails.
    """
    arguments, times = encode_table({}), []
    left = dict.fromkeys(buses, each)
    with selectors.DefaultSelector() as waiting:

        def ask(bus: BlockingBus) -> None:
            left[bus] -= 1
            data = bus.connection.invoke(target, method, arguments).data
            began[bus] = time.monotonic()
            bus.write(data)

        began: dict[BlockingBus, float] = {}
        for bus in buses:
            waiting.register(bus._sock, selectors.EVENT_READ, bus)
            ask(bus)
        while began:
            for key, _ in waiting.select(10.0):
                bus = key.data
                answer = bus.next_event(time.monotonic() + 10.0)
                if not isinstance(answer, Completed) or answer.status != 0:
                    raise LabError(f"{method} was answered by {answer}")
                times.append(time.monotonic() - began.pop(bus))
                if left[bus]:
                    ask(bus)
    return times


def _found(bus: BlockingBus, name: str) -> int:
    """The object's number, 0 where it is not on the bus."""
    replies = bus.ask(bus.connection.lookup(name), 10.0).replies
    return next((int(reply[Attr.OBJID]) for reply in replies if Attr.OBJID in reply), 0)


def cpu_s(pid: int) -> float:
    """The CPU time of a process and of the commands that it has waited for, in seconds.

    The process's own in nanoseconds, the commands' in ticks (proc_pid_schedstat, proc_pid_stat).
    """
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        words = file.read().rsplit(")", 1)[1].split()
    waited_s = sum(int(word) for word in words[13:15]) / os.sysconf("SC_CLK_TCK")
    own = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/schedstat", encoding="ascii") as file:
            own += int(file.read().split()[0])
    return own / 1e9 + waited_s


def _resident_mb(pid: int) -> float:
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        pages = int(file.read().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
