"""What several downloads get in an outage from two providers, with `spread` and without."""

from __future__ import annotations

import time

from tests.lab.lab import Lab
from tests.lab.node import program
from tests.lab.router import settings
from tests.namespace.test_spread import (
    LEAST_MBPS,
    LOADED4,
    NAMES,
    limit_providers,
    received,
    sharing,
)

from .table import Row

WINDOW_S = 4.0
FILLED_S = 3.0  # until the queues are full


def measure_shared_load(windows: int) -> list[Row]:
    """Mbit/s of downloads from five addresses, by two lines of 8 Mbit/s each."""
    found: dict[bool, list[float]] = {}
    with Lab() as lab:
        router = sharing(lab)
        limit_providers(lab, router)
        for is_shared in (True, False):
            router.configure(settings(NAMES, spread=int(is_shared), hold_time=0))
            wanted = 2 if is_shared else 0
            router.wait(lambda s, n=wanted: len(s["families"]["ipv4"]["spread"]) == n)  # type: ignore[misc]
            seconds = FILLED_S + windows * WINDOW_S + 5.0
            loads = [router.network.host.popen(program("download", a, seconds)) for a in LOADED4]
            time.sleep(FILLED_S)
            for _ in range(windows):
                before, began_s = received(router), time.monotonic()
                time.sleep(WINDOW_S)
                bits = (received(router) - before) * 8
                found.setdefault(is_shared, []).append(bits / 1e6 / (time.monotonic() - began_s))
            for load in loads:
                load.kill()
    note = f"without `spread` {sum(found[False]) / windows:.2f} Mbit/s, in the same run"
    name = "two providers at 8 Mbit/s each, shared"
    return [Row(name, "Mbit/s", tuple(found[True]), LEAST_MBPS, "worst", note, is_floor=True)]
