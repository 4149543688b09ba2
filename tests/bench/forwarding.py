"""What our nftables table costs packets of the LAN: absent, closed and in use, in turn.

A host sends as fast as it can through the router. The kernel's way through all of the laboratory's
namespaces is walked on the sender's processor, so what counts is packets (or bytes) for each second
of it: other work on the machine takes time from both, not from one. The router's own address
translation and connection tracking are there in all cases.

Our table is put to sleep (nftables calls it dormant: no chain of it is at a hook) and woken, in
turns of some hundredths of a second: asleep, awake, awake, asleep. So a machine that becomes evenly
faster or slower changes nothing. Single fours still differ by some percent: there are many, and the
median counts. The sender goes before all else on its processor.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from contextlib import ExitStack

from tests.lab.altered_service import RestingService
from tests.lab.lab import Lab, ready
from tests.lab.network import ECHO4
from tests.lab.node import Child, program
from tests.lab.router import Router, settings

from .table import Row

TUNNEL = "wgup_nodea"
AHEAD = ("chrt", "-r", "20") if os.geteuid() == 0 else ()
EACH_S, WARM_S = 0.02, 0.004
REST_S = 5.0  # until the table watches nothing, with this service
FLOWS = (1, 2000)
MOST_LOST_PCT = 5.0
IN_USE_PCT = 10.0


def measure_forwarding(times: int) -> list[Row]:
    """The share of packets, and of bytes over TCP, that the table costs, in percent: at rest, while
    it watches (for a minute after a suspicion), and in use.
    """
    with Lab() as lab:
        main = settings(pace="default", hold_time=1)
        router = Router.started(lab, main, service=RestingService)
        time.sleep(REST_S)
        rows = [
            _compared(router, kind, flows, times, "closed")
            for kind in ("udp", "tcp")
            for flows in FLOWS
        ]
        router.network.wan.drop()
        router.wait_failed_over()
        router.until_told("failover")
        time.sleep(REST_S)
        rows += [_compared(router, "udp", flows, times, "in use") for flows in FLOWS]
    with Lab() as lab:
        router = Router.started(lab, main)
        return rows + [_compared(router, "udp", flows, times, "watching") for flows in FLOWS]


def _compared(router: Router, kind: str, flows: int, times: int, how: str) -> Row:
    """Without the table, with it, with it and without it, on the same flows."""
    network, pipe = router.network, subprocess.PIPE
    settled = router.wait_failed_over if how == "in use" else router.wait_primary
    losses: list[float] = []
    rates: dict[bool, list[float]] = {True: [], False: []}
    with ExitStack() as stack:
        far = network.internet.popen(
            program("swallow", kind, ECHO4), stdin=pipe, stdout=pipe, stderr=pipe
        )
        stack.callback(far.kill)
        ready(far)
        sender = [*AHEAD, *program("saturate", kind, ECHO4, flows)]
        near = network.host.popen(sender, stdin=pipe, stdout=pipe, stderr=pipe)
        stack.callback(near.kill)
        ready(near)
        if kind == "udp":
            _tell(far, "\n")
        threads = _packet_threads()
        stack.callback(_wake, router)

        def rate(*, is_awake: bool) -> float:
            """Of a short time, once the caches have seen the path."""
            _wake(router, is_awake=is_awake)
            _send(near, WARM_S)
            before, kernel_s = _sent(router), _used_s(threads)
            moved, used_s = _send(near, EACH_S)
            forwarded = _sent(router) - before if kind == "udp" else moved
            rates[is_awake].append(forwarded / (used_s + _used_s(threads) - kernel_s))
            return rates[is_awake][-1]

        for _ in range(times):
            settled()  # on a busy machine a tunnel may answer late, and be left
            asleep = rate(is_awake=False)
            awake = rate(is_awake=True) + rate(is_awake=True)
            losses.append(100 * (1 - awake / (asleep + rate(is_awake=False))))
    unit, scale = ("packets/s", 1e3) if kind == "udp" else ("Mbit/s", 125e3)
    without, within = (statistics.median(rates[has]) / scale for has in (False, True))
    thousand = "thousand " if kind == "udp" else ""
    note = f"a second of one core: {without:.0f} {thousand}{unit} without it, {within:.0f} with it"
    limit = IN_USE_PCT if how == "in use" else MOST_LOST_PCT
    plural = "s" * (flows > 1)
    name = f"our table {how}: {'packets' if kind == 'udp' else 'TCP'}, {flows} flow{plural}"
    return Row(name, "% lost", tuple(losses), limit, "median", note)


def _send(near: Child, seconds: float) -> tuple[float, float]:
    """What was moved in this time, and the processor seconds that it took."""
    _tell(near, f"{seconds}\n")
    assert near.entered.stdout is not None
    moved, used_s = map(float, near.entered.stdout.readline().split())
    return moved, used_s


def _sent(router: Router) -> int:
    """Packets that left the router, or would have if a tunnel took all."""
    found = 0
    with open(f"/proc/{router.service.pid}/net/dev", encoding="ascii") as file:
        for line in file:
            device, _, counted = line.partition(":")
            if device.strip() in ("wan", TUNNEL):
                numbers = counted.split()
                found += int(numbers[9]) + int(numbers[11])
    return found


def _packet_threads() -> list[str]:
    """The kernel's own threads for packets, which take over where there are many."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/comm", encoding="ascii", errors="replace") as file:
                if file.read().startswith("ksoftirqd"):
                    found.append(f"/proc/{pid}/schedstat")
        except OSError:
            continue
    return found


def _used_s(threads: list[str]) -> float:
    found = 0
    for name in threads:
        with open(name, encoding="ascii") as file:
            found += int(file.read().split()[0])
    return found / 1e9


def _tell(child: Child, line: str) -> None:
    stdin = child.entered.stdin
    assert stdin is not None
    stdin.write(line)
    stdin.flush()


def _wake(router: Router, *, is_awake: bool = True) -> None:
    """Have the table at its hooks, or at none; all that it holds stays."""
    flags = "" if is_awake else " { flags dormant; }"
    router.network.consumer.nft(f"add table inet wgup{flags}")
