"""`make fuzz SECONDS=60 SEED=...`: all parsers, side by side on all cores, and a table."""

from __future__ import annotations

import logging
import os
import random
import sys
from concurrent.futures import ProcessPoolExecutor

from .driver import Row, fuzz
from .targets import TARGETS

HEAD = f"{'parser':24}{'inputs':>10}{'worst s':>10}{'faults':>8}"


def main(seconds: float, seed: int) -> int:
    """The exit status: 1 where a parser has a fault."""
    cores = os.cpu_count() or 1
    each_s = seconds * cores / len(TARGETS)
    print(f"{each_s:.1f} s for each parser, seed {seed}\n{HEAD}", flush=True)
    failed: list[Row] = []
    logging.disable()  # of each file that is damaged
    with ProcessPoolExecutor(cores) as pool:
        for row in pool.map(fuzz, TARGETS, [each_s] * len(TARGETS), [seed] * len(TARGETS)):
            numbers = f"{row.inputs:>10}{row.worst_s:>10.3f}{len(row.faults):>8}"
            print(f"{row.parser:24}{numbers}", flush=True)
            failed += [row] if row.faults else []
    for row in failed:
        print(row.parser, *row.faults, sep="\n    ")
    return int(bool(failed))


if __name__ == "__main__":
    given = sys.argv[1:]
    sys.exit(main(float(given[0]), int(given[1]) if given[1:] else random.randrange(1 << 32)))
