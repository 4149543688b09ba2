"""What our nftables table costs packets of the LAN: absent, closed and in use, in turn.

A host sends as fast as it can through the router. The kernel's way through all of the laboratory's
namespaces is walked on the sender's processor, so what counts is packets (or bytes) for each second
of it: other work on the machine takes time from both, not from one. The router's own address
translation and connection tracking are there in all cases. A short time with the table stands
between two without it, so that a machine that becomes faster or slower meanwhile changes nothing;
single ones still differ by a third, so there are many.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack

from tests.lab.lab import Lab, ready
from tests.lab.network import ECHO4
from tests.lab.node import Child, program
from tests.lab.router import Router, settings

from .table import Row, quantile

TUNNEL = "wgup_nodea"
EACH_S, WARM_S = 0.1, 0.03
FLOWS = (1, 2000)
MOST_LOST_PCT = 5.0
IN_USE_PCT = 10.0


def measure_forwarding(times: int) -> list[Row]:
    """The share of packets, and of bytes over TCP, that the table costs, in percent."""
    rows = []
    with Lab() as lab:
        router = Router.started(lab, settings(pace="default", hold_time=1))
        for kind in ("udp", "tcp"):
            rows += [_compared(router, kind, flows, times, "closed") for flows in FLOWS]
        router.network.wan.drop()
        router.wait_failed_over()
        router.until_told("failover")
        rows += [_compared(router, "udp", flows, times, "in use") for flows in FLOWS]
    return rows


def _compared(router: Router, kind: str, flows: int, times: int, how: str) -> Row:
    """With the table, and without it before and after, on the same flows."""
    network, pipe = router.network, subprocess.PIPE
    losses: list[float] = []
    rates: dict[bool, list[float]] = {True: [], False: []}
    with ExitStack() as stack:
        far = network.internet.popen(
            program("swallow", kind, ECHO4), stdin=pipe, stdout=pipe, stderr=pipe
        )
        stack.callback(far.kill)
        ready(far)
        near = network.host.popen(
            program("saturate", kind, ECHO4, flows), stdin=pipe, stdout=pipe, stderr=pipe
        )
        stack.callback(near.kill)
        ready(near)
        if kind == "udp":
            _tell(far, "\n")

        def rate() -> float:
            """Of a short time, once the caches have seen the path."""
            _tell(near, f"{WARM_S}\n")
            assert near.entered.stdout is not None
            near.entered.stdout.readline()
            before, kernel_s = _sent(router), _kernel_s()
            _tell(near, f"{EACH_S}\n")
            moved, used_s = map(float, near.entered.stdout.readline().split())
            forwarded = _sent(router) - before if kind == "udp" else moved
            return forwarded / (used_s + _kernel_s() - kernel_s)

        def rate_without() -> float:
            with _without_table(router):
                return rate()

        rates[False].append(rate_without())
        for _ in range(times):
            rates[True].append(rate())
            rates[False].append(rate_without())
            beside = sum(rates[False][-2:]) / 2
            losses.append(100 * (1 - rates[True][-1] / beside))
    unit, scale = ("packets/s", 1e3) if kind == "udp" else ("Mbit/s", 125e3)
    without, within = (quantile(rates[has], 0.5) / scale for has in (False, True))
    thousand = "thousand " if kind == "udp" else ""
    note = f"a second of one core: {without:.0f} {thousand}{unit} without it, {within:.0f} with it"
    limit = MOST_LOST_PCT if how == "closed" else IN_USE_PCT
    plural = "s" * (flows > 1)
    name = f"our table {how}: {'packets' if kind == 'udp' else 'TCP'}, {flows} flow{plural}"
    return Row(name, "% lost", tuple(losses), limit, "median", note)


def _sent(router: Router) -> float:
    """Packets that left the router, or would have if a tunnel took all."""
    folder = "/sys/class/net/{}/statistics/tx_{}"
    names = (folder.format(d, k) for d in ("wan", TUNNEL) for k in ("packets", "dropped"))
    return float(sum(map(int, router.network.consumer.sh("cat " + " ".join(names)).split())))


def _kernel_s() -> float:
    """The time of the kernel's own threads for packets, which take over where there are many."""
    found = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            with open(f"/proc/{pid}/comm", encoding="ascii", errors="replace") as file:
                is_one = file.read().startswith("ksoftirqd")
            if is_one:
                with open(f"/proc/{pid}/schedstat", encoding="ascii") as file:
                    found += int(file.read().split()[0])
    return found / 1e9


def _tell(child: Child, line: str) -> None:
    stdin = child.entered.stdin
    assert stdin is not None
    stdin.write(line)
    stdin.flush()


@contextlib.contextmanager
def _without_table(router: Router) -> Iterator[None]:
    """Have the table gone meanwhile. The service, which would put it back, is held up so long."""
    consumer, pid = router.network.consumer, router.service.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        kept = consumer.sh("nft list table inet wgup")
        consumer.nft("delete table inet wgup")
        try:
            yield
        finally:
            consumer.nft(kept)
    finally:
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.2)
