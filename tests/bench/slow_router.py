"""A router with a tenth of a core: start, home, switches, calls, idle CPU, false verdicts, reloads.

Owns the share of a core that the service gets from its first instruction to its last; the network,
the hosts and the peers beside it have all of the machine.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

from rpcd_wireguard_uplink.errors import BusError
from tests.lab.lab import Lab
from tests.lab.meter import Meter, settled
from tests.lab.network import ECHO4, ECHO6
from tests.lab.node import LabError
from tests.lab.router import Router, Status, states

from .calls import MANY, SETTLE_S, begin, bus_kind, cpu_s, lay
from .handover import limited
from .table import Row

SHARE = 0.1
WAIT_S = 120.0
UPLINKS = 2
CALLS = 40


def measure_slow_router(runs: int, watched_s: int) -> list[Row]:
    """Everything at the default pace with two uplinks, and no false verdict in `watched_s`."""
    with Lab() as lab:
        router = begin(lab, UPLINKS)
        starts = [_start(router) for _ in range(max(1, runs // 5))]
        with _slow(router):
            wan = router.network.wan
            silent = [_fail(router, wan.drop, wan.restore) for _ in range(runs)]
            carrier = [_fail(router, wan.carrier_down, wan.carrier_up) for _ in range(runs)]
            calls = [_call_ms(router) for _ in range(CALLS)]
            before = len(router.events())
            idle = _idle_shares(router.service.pid, watched_s)
            false = len(router.events()) - before
            reloads = [_reload_s(router) for _ in range(runs)]
            adding_s = _add_s(router)
    note = f"{SHARE:g} of a core, {UPLINKS} uplinks, default pace, {bus_kind()}"
    registered, home = zip(*starts, strict=True)
    return [
        Row("slow core: start to registered", "s", registered, 6, "worst", note),
        Row("slow core: start to home", "s", home, 10, "worst"),
        Row("slow core: silent death", "s", tuple(silent), 2.5),
        Row("slow core: carrier loss", "s", tuple(carrier), 0.2),
        Row("slow core: uplink_status", "ms", tuple(calls), 200),
        Row("slow core: idle", "% of it", idle, 3, "median", f"{watched_s} s"),
        Row("slow core: false verdicts", "switches", (float(false),), 0, "worst", f"{watched_s} s"),
        Row("a reload that changes nothing", "ms of CPU", tuple(reloads), 20, "median"),
        Row(f"{MANY} uplinks added", "s of CPU", (adding_s,), 3, "worst"),
    ]


@contextlib.contextmanager
def _slow(router: Router) -> Iterator[None]:
    with limited(router.service.pid, SHARE):
        yield


def _start(router: Router) -> tuple[float, float]:
    """Seconds from the command to the object on the bus, and to traffic at home and all usable."""
    service = router.service
    service.stop()
    service.start(wait=False)
    began_s = time.monotonic()
    with _slow(router):
        _until(router, lambda _: True)
        registered_s = time.monotonic() - began_s
        _until(router, _is_home)
        return registered_s, time.monotonic() - began_s


def _fail(router: Router, fault: Callable[[], float], mend: Callable[[], float]) -> float:
    """One outage: seconds until both families' flows were answered by way of the provider."""
    _until(router, _is_home)
    network = router.network
    with ExitStack() as stack:
        meters = [stack.enter_context(Meter(network.host, each)) for each in (ECHO4, ECHO6)]
        settled(*meters)
        began_s = fault()
        by_peer = [source for wan in network.provider_wans for source in wan.addresses]
        answered = [
            meter.wait_for_source(by_peer, since=began_s, timeout_s=WAIT_S).received or 0.0
            for meter in meters
        ]
    mend()
    network.wan.add_routes()
    _until(router, lambda s: s["primary"]["state"] == "up")
    router.service.expect("uplink_use", {"path": "wan", "for": "1"})
    return max(answered) - began_s


def _until(router: Router, fits: Callable[[Status], bool]) -> None:
    """Ask for the status so rarely that it costs a slow service little, until it fits."""
    deadline_s = time.monotonic() + WAIT_S
    seen: object = "nothing"
    while time.monotonic() < deadline_s:
        with contextlib.suppress(BusError):
            status = seen = router.status()
            if fits(status):
                return
        time.sleep(0.25)
    raise LabError(f"not in {WAIT_S:g} s: {seen}\n{router.service.log()}")


def _is_home(status: Status) -> bool:
    ready = all(each["usable"] and each["state"] == "up" for each in status["uplinks"])
    return ready and states(status) == {"primary"} and status["primary"]["state"] == "up"


def _call_ms(router: Router) -> float:
    began_s = time.monotonic()
    router.status()
    taken_ms = (time.monotonic() - began_s) * 1000
    time.sleep(0.25)
    return taken_ms


def _idle_shares(pid: int, watched_s: int) -> tuple[float, ...]:
    """The CPU of each window, in percent of what the service may use."""
    found = []
    time.sleep(SETTLE_S)
    for _ in range(max(1, watched_s // 20)):
        before, at_s = cpu_s(pid), time.monotonic()
        time.sleep(min(20.0, watched_s))
        found.append(100 * (cpu_s(pid) - before) / (time.monotonic() - at_s) / SHARE)
    return tuple(found)


def _reload_s(router: Router) -> float:
    """Milliseconds of CPU that a reload takes beyond what the same second takes without one."""
    pid = router.service.pid
    costs = []
    for reload in (False, True):
        before = cpu_s(pid)
        if reload:
            router.service.reload()
        time.sleep(1.0)
        costs.append(cpu_s(pid) - before)
    return max(0.0, costs[1] - costs[0]) * 1000


def _add_s(router: Router) -> float:
    """Seconds of CPU until twenty more uplinks, which are configured at once, are all usable."""
    before = cpu_s(router.service.pid)
    lay(router, UPLINKS + MANY)
    _until(router, lambda s: len(s["uplinks"]) == UPLINKS + MANY and _is_home(s))
    return cpu_s(router.service.pid) - before
