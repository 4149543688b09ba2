"""From the verdict on a WAN to the first packet by the new path, also on a slow processor.

Owns the flows that are watched (datagrams of a LAN host, two thousand a second in each family, so
that the next one comes soon), the clock inside the service, and the share of a core that the
service gets.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack

from tests.lab.capture import Capture
from tests.lab.lab import Lab
from tests.lab.network import ECHO4, ECHO6
from tests.lab.node import LabError, program
from tests.lab.router import Router, settings

from .calls import MANY, OnBus, begin, bus_kind
from .table import Row, quantile

TUNNEL = "wgup_node00"
EVERY_S = 0.0005
DISCARD_PORT = 9
PERIOD_US = 10_000  # of a control group: a share of it is a slow core rather than one that stops
WAIT_S = 60.0
_V1, _V2 = "/sys/fs/cgroup/cpu", "/sys/fs/cgroup"


class Timed(OnBus):
    """A service that writes down its verdicts and its deletions of tracked connections."""

    @property
    def times(self) -> str:
        """The file that it writes to."""
        return os.path.join(self.folder, "times")

    @property
    def argv(self) -> list[str]:
        words = super().argv
        place = words.index("-m")
        return [
            *words[: place - 1],
            *program("timed_service", self.times, packages=True),
            *words[place + 2 :],
        ]

    def read_times(self, word: str, since_s: float) -> list[list[str]]:
        """The lines that begin so, without that word, of what happened since then."""
        with open(self.times, encoding="ascii") as file:
            lines = [line.split() for line in file]
        at = {"verdict": 3, "connections": 1}[word]
        return [line[1:] for line in lines if line[0] == word and float(line[at]) >= since_s]


def measure_handover(runs: int) -> list[Row]:
    """Milliseconds from the verdict to the first packet by the tunnel, of the later family."""
    return _measure(runs, 1.0)


def measure_slow_handover(runs: int) -> list[Row]:
    """The same with a tenth of a core for the service."""
    return _measure(runs, 0.1)


def _measure(runs: int, share: float) -> list[Row]:
    found: list[float] = []
    deleted: list[float] = []
    with Lab() as lab, ExitStack() as stack:
        router = begin(lab, MANY, Timed)
        names = [f"node{number:02}" for number in range(MANY)]
        router.uplinks = router.uplinks.replace("weight '10'", "weight '20'", 1)
        router.configure(settings(names, pace="fast"))
        router.wait_primary(WAIT_S)
        argv = program("stream", EVERY_S, DISCARD_PORT, ECHO4, ECHO6)
        stack.callback(router.network.host.popen(argv).kill)
        stack.enter_context(limited(router.service.pid, share))
        for number in range(runs):
            moved_ms, deletion_ms = _move(router, number)
            found.append(moved_ms)
            deleted.append(deletion_ms)
    core = f"{share:g} of a core, " if share < 1 else ""
    note = (
        f"{core}both families, a packet each {EVERY_S * 1000:g} ms; deleting tracked connections "
        f"takes {quantile(deleted, 0.5):.2g} ms beside, {bus_kind()}"
    )
    name = "verdict to the first packet moved, 20 uplinks" + (", slow core" if share < 1 else "")
    return [Row(name, "ms", tuple(found), 3 if share == 1 else 30, "median", note)]


def _move(router: Router, number: int) -> tuple[float, float]:
    """One outage: the milliseconds of the move, and those of them for tracked connections."""
    service, wan = router.service, router.network.wan
    assert isinstance(service, Timed)
    router.wait_primary(WAIT_S)
    time.sleep(0.5 + 0.013 * number)  # not always at the same moment between two probes
    with Capture(router.network.consumer, TUNNEL) as capture:
        began_s = wan.drop()
        router.wait_failed_over(TUNNEL, WAIT_S)
        first = {
            family: _first(capture, address, began_s)
            for family, address in (("ipv4", ECHO4), ("ipv6", ECHO6))
        }
    wan.restore()
    verdicts = {family: float(at) for _, family, at in _of_wan(service, began_s)}
    moved_s = max(first[family] - verdicts[family] for family in first)
    deletions = service.read_times("connections", began_s)
    spent = [float(took) for at, took in deletions if float(at) < max(first.values()) + 0.05]
    return moved_s * 1000, sum(spent) * 1000


def _first(capture: Capture, target: str, since_s: float) -> float:
    """When the first packet to this target left. Raises LabError where none does."""
    deadline_s = time.monotonic() + WAIT_S
    while time.monotonic() < deadline_s:
        for packet in list(capture.packets):
            is_flow = packet.leaves and packet.target == target
            if is_flow and packet.target_port == DISCARD_PORT and packet.at_s > since_s:
                return packet.at_s
        time.sleep(0.05)
    raise LabError(f"nothing to {target} took the tunnel")


def _of_wan(service: Timed, since_s: float) -> list[list[str]]:
    return [line for line in service.read_times("verdict", since_s) if line[0] == "wan"]


@contextlib.contextmanager
def limited(pid: int, share: float) -> Iterator[None]:
    """Have a process use no more than this share of a core. Raises OSError where that can't be."""
    if share >= 1:
        yield
        return
    is_v1 = os.path.isdir(_V1)
    group = os.path.join(_V1 if is_v1 else _V2, f"wgup-bench-{os.getpid()}")
    quota_us = round(share * PERIOD_US)
    limits = {"cpu.max": f"{quota_us} {PERIOD_US}"}
    if is_v1:
        limits = {"cpu.cfs_period_us": str(PERIOD_US), "cpu.cfs_quota_us": str(quota_us)}
    os.mkdir(group)
    # What is ahead of other work (`chrt`) can't be given a share.
    for thread in os.listdir(f"/proc/{pid}/task"):
        os.sched_setscheduler(int(thread), os.SCHED_OTHER, os.sched_param(0))
    try:
        for name, value in {**limits, "cgroup.procs": str(pid)}.items():
            _write(os.path.join(group, name), value)
        yield
    finally:
        _dissolve(group)


def _dissolve(group: str) -> None:
    """Have what is in the group, and was started by it, go on without it."""
    deadline_s = time.monotonic() + 5.0
    while True:
        with open(os.path.join(group, "cgroup.procs"), encoding="ascii") as file:
            members = file.read().split()
        for member in members:
            with contextlib.suppress(ProcessLookupError):
                _write(os.path.join(os.path.dirname(group), "cgroup.procs"), member)
        try:
            return os.rmdir(group)
        except OSError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.05)


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
