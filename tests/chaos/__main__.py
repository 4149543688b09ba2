"""`make chaos N=300 SEED=...`: what was tried, what was survived, how long the worst took."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable

from tests.lab.node import refused

from . import bus, crashes, limits, soak
from .crashes import Row

HEAD = f"{'kind':44}{'tried':>8}{'survived':>10}{'worst recovery':>17}"


def parts(tries: int, seed: int, days: int, minutes: float) -> list[Callable[[], list[Row]]]:
    """All that is done, in this order."""
    rounds = max(1, tries // 100)
    return [
        *(lambda p=p: crashes.measure(tries // 2, seed, (p,)) for p in crashes.PLATFORMS),
        lambda: limits.measure(rounds, seed),
        lambda: bus.measure(max(3, tries // 3), min(60.0, tries / 5), seed),
        lambda: [soak.measure_hours(24 * days)],
        lambda: [soak.measure_use(60 * minutes)],
    ]


def main(tries: int, seed: int, days: int, minutes: float) -> int:
    """The exit status: 1 where something was not survived."""
    if reason := refused():
        print(reason, file=sys.stderr)
        return 1
    began, lost = time.monotonic(), 0
    print(f"N={tries} SEED={seed}\n{HEAD}", flush=True)
    for part in parts(tries, seed, days, minutes):
        for row in part():
            lost += row.tried - row.survived
            numbers = f"{row.tried:>8}{row.survived:>10}{row.worst_s:>15.1f} s"
            print(f"{row.kind:44}{numbers}", flush=True)
    print(f"after {time.monotonic() - began:.0f} s: {lost} not survived")
    return int(bool(lost))


if __name__ == "__main__":
    words = sys.argv[1:]
    sys.exit(
        main(
            int(words[0]),
            int(words[1]) if words[1:] and words[1] else random.randrange(1 << 32),
            int(words[2]) if words[2:] else 30,
            float(words[3]) if words[3:] else 10.0,
        )
    )
