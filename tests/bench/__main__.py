"""Runs every measurement and prints the table: `python -m tests.bench [--quick] [--runs=N]
[--only=WORD]`, the last for the measurements that have the word in their names.

Owns what runs beside what: what is timed runs alone, what only counts runs side by side. The exit
status is 0 when all was measured, whatever was found; 1 where something could not be measured.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor

from tests.lab.node import refused
from tests.lab.service import PROJECT

from . import (
    anchors,
    areas,
    calls,
    calm,
    forwarding,
    growth,
    handover,
    large_mesh,
    peers,
    shared_load,
    slow_router,
    switches,
)
from .plot import picture
from .table import Row, table_lines

RUNS = 20
PICTURE = os.path.join(PROJECT, "docs", "benchmarks.svg")
Measurement = tuple[Callable[..., list[Row]], tuple[int, ...]]


def plan(quick: bool, runs: int = RUNS) -> list[list[Measurement]]:
    """What is measured: groups one after another, each group's members at once. With fewer runs
    than usual the quiet time on a slow core is shorter too.
    """
    if quick:
        return [
            [
                (switches.measure_fast_pace, (2,)),
                (switches.measure_default_pace, (2,)),
                (switches.measure_lost_provider, (2,)),
                (calm.simulate_flapping, (2,)),
                (calls.measure_idle, (2,)),
            ],
            [(anchors.measure_anchors, (4,))],
            [(handover.measure_handover, (2,))],
            [(handover.measure_slow_handover, (2,))],
            [(slow_router.measure_slow_router, (2, 20))],
            [(calls.measure_start, (2,))],
            [(calls.measure_calls, (2,))],
            [(growth.measure_growth, (30,))],
            [(forwarding.measure_forwarding, (10,)), (peers.measure_peers, (1,))],
            [(shared_load.measure_shared_load, (2,))],
            [
                (calm.simulate_days, (1,)),
                (large_mesh.measure_mesh, (40, 2)),
                (areas.measure_areas, (2,)),
            ],
        ]
    return [
        [(forwarding.measure_forwarding, (8 * runs,))],
        [(peers.measure_peers, (runs,))],
        [(shared_load.measure_shared_load, (runs,))],
        [(growth.measure_growth, (10 * runs,))],
        [(switches.measure_fast_pace, (runs,))],
        [(switches.measure_default_pace, (runs,))],
        [(switches.measure_lost_provider, (runs,))],
        [(anchors.measure_anchors, (runs,))],
        [(handover.measure_handover, (runs,))],
        [(handover.measure_slow_handover, (runs,))],
        [(slow_router.measure_slow_router, (max(1, runs // 2), 600 * runs // RUNS))],
        [(calls.measure_start, (runs,))],
        [(calls.measure_calls, (runs,))],
        [(calls.measure_idle, (runs,))],
        [
            (calm.simulate_flapping, (runs,)),
            (calm.measure_flapping, ()),
            (calm.simulate_days, (runs,)),
        ],
        [(large_mesh.measure_mesh, (200, RUNS))],
        [(areas.measure_areas, (runs,))],
    ]


def measure(groups: Sequence[Sequence[Measurement]]) -> tuple[list[Row], list[str]]:
    """The rows in the order of the plan, and a sentence for each measurement that failed.

    Each measurement's rows are written to stderr as soon as it is over.
    """
    rows: list[Row] = []
    failures: list[str] = []
    context = multiprocessing.get_context("spawn")
    for group in groups:
        with ProcessPoolExecutor(len(group), context) as pool:
            waiting = [(work.__name__, pool.submit(work, *numbers)) for work, numbers in group]
            for name, future in waiting:
                print(f"{name} ...", file=sys.stderr, flush=True)
                try:
                    rows += (found := future.result())
                    for line in table_lines(found)[1:]:
                        print(line, file=sys.stderr, flush=True)
                except Exception as error:
                    failures.append(f"{name}: {type(error).__name__}: {str(error)[:2000]}")
    return rows, failures


def machine() -> str:
    """A line about where and when this was measured."""
    model = "unknown"
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    load = "/".join(f"{value:.1f}" for value in os.getloadavg())
    stamp = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    return (
        f"{stamp}, {os.cpu_count()} x {model}, Linux {platform.release()}, "
        f"Python {platform.python_version()}, bus: {calls.bus_kind()}, load {load}"
    )


def _given(option: str) -> str:
    """What the command line says of an option, empty where it says nothing."""
    start = f"--{option}="
    return next((word.removeprefix(start) for word in sys.argv[1:] if word.startswith(start)), "")


def main() -> int:
    reason = refused()
    if reason:
        print(reason, file=sys.stderr)
        return 1
    began, quick = time.monotonic(), "--quick" in sys.argv[1:]
    groups, only = plan(quick, int(_given("runs") or RUNS)), _given("only")
    groups = [[work for work in group if only in work[0].__name__] for group in groups]
    print(f"begun  {machine()}", flush=True)
    rows, failures = measure([group for group in groups if group])
    for line in table_lines(rows):
        print(line)
    if not quick and not only:
        with open(PICTURE, "w", encoding="utf-8") as file:
            file.write(picture(rows, f"Numbers and their targets, {time.strftime('%Y-%m-%d')}"))
    print(f"ended  {machine()}, after {time.monotonic() - began:.0f} s")
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
