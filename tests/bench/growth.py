"""How calls and memory grow: with 1, 20 and 60 uplinks, then with offers of up to 1,000 peers.

Calls come 20 ms apart, as those of several pages do, so that replies that the service keeps are
there for some of them and not for others. The exponent is that of the last step: 1 where a call
takes as many times longer as there is more.
"""

from __future__ import annotations

import math
import time

from rpcd_wireguard_uplink.ubus.blobmsg import encode_table
from rpcd_wireguard_uplink.ubus.blocking import BlockingBus
from rpcd_wireguard_uplink.ubus.protocol import Completed
from tests.lab.lab import Lab
from tests.lab.node import LabError
from tests.lab.router import Router
from tests.lab.service import OBJECT

from .calls import _found, _resident_mb, begin, bus_kind, lay
from .table import Row, quantile

UPLINKS = (1, 20, 60)
OFFERS = (100, 1000)
PAUSE_S = 0.02
WAIT_S = 90.0
METHODS = ("uplink_status", "uplink_list")
LIMIT_MS = {"uplink_status": 20.0, "uplink_list": 50.0}
LIMIT_MB = 45.0


def measure_growth(calls: int) -> list[Row]:
    """Milliseconds of calls and MB of memory at each size, and how they grow."""
    rows: list[Row] = []
    with Lab() as lab:
        router = begin(lab, UPLINKS[0])
        bus = BlockingBus(router.service.socket)
        means: dict[str, list[float]] = {method: [] for method in METHODS}
        for count in UPLINKS:
            lay(router, count)
            router.wait(lambda s, n=count: len(s["uplinks"]) == n, WAIT_S)  # type: ignore[misc]
            router.wait_primary(WAIT_S)
            rows += _measured(router, bus, f"{count} uplink{'s' * (count > 1)}", calls, means)
        rows += _exponents(means, UPLINKS, "uplinks")
        means = {method: [] for method in METHODS}
        known = 0
        for count in OFFERS:
            while known < count:
                message = router.providers[0].offer("192.0.2.99") | {"peer_id": f"peer{known:04}"}
                router.service.expect("uplink_gossip", {"message": message})
                known += 1
            what = f"{UPLINKS[-1]} uplinks, {count} offers"
            rows += _measured(router, bus, what, calls, means)
        rows += _exponents(means, OFFERS, "offers")
        bus.close()
    return rows


def _measured(
    router: Router, bus: BlockingBus, what: str, calls: int, means: dict[str, list[float]]
) -> list[Row]:
    rows = []
    for method in METHODS:
        found = [_call_ms(bus, method) for _ in range(calls)]
        means[method].append(sum(found) / calls)
        note = f"p50 {quantile(found, 0.5):.3f} ms, mean {means[method][-1]:.3f}, {bus_kind()}"
        rows.append(Row(f"{method}: {what}", "ms", tuple(found), LIMIT_MS[method], "p95", note))
    memory = _resident_mb(router.service.pid)
    return [*rows, Row(f"RSS: {what}", "MB", (memory,), LIMIT_MB, "worst")]


def _call_ms(bus: BlockingBus, method: str) -> float:
    time.sleep(PAUSE_S)
    target = _found(bus, OBJECT)
    began_s = time.monotonic()
    done = bus.ask(bus.connection.invoke(target, method, encode_table({})), 10.0)
    taken_ms = (time.monotonic() - began_s) * 1000
    if not isinstance(done, Completed) or done.status != 0:
        raise LabError(f"{method} was answered by {done}")
    return taken_ms


def _exponents(means: dict[str, list[float]], counts: tuple[int, ...], what: str) -> list[Row]:
    """Those of the last step, which has the least of what does not grow."""
    rows = []
    for method, found in means.items():
        step = math.log(found[-1] / found[-2]) / math.log(counts[-1] / counts[-2])
        name = f"{method}: growth from {counts[-2]} to {counts[-1]} {what}"
        rows.append(Row(name, "exponent", (step,), 1, "worst", "of the mean"))
    return rows
