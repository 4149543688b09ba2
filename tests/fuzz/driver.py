"""Feeds one parser: no exception but its own, no input that takes a second, flat memory."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rpcd_wireguard_uplink.errors import UplinkError

from .mutate import damaged
from .targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
HANG_S = 1.0
GROWN_MB = 8.0
LONGEST_SENTENCE = 400


@dataclass(slots=True)
class Row:
    """What came of one parser. `faults` are sentences with the input that reproduces each."""

    parser: str
    inputs: int = 0
    worst_s: float = 0.0
    faults: list[str] = field(default_factory=list)


class _Hangs(BaseException):
    """An input takes too long."""


def fuzz(name: str, seconds: float, seed: int) -> Row:
    """Feed a parser with the files of its corpus, then for so long with damaged ones."""
    target, row, chance = TARGETS[name], Row(name), random.Random(f"{name} {seed}")
    seeds = [(CORPUS / file).read_bytes() for file in target.seeds]
    began, warm_mb, places = time.monotonic(), 0.0, set[str]()
    queue = [*seeds, b""]
    with _alarm():
        while (passed_s := time.monotonic() - began) < seconds or row.inputs < len(seeds) + 1:
            data = queue.pop(0) if queue else damaged(chance, seeds)
            fault, place, took_s = _feed(name, data)
            row.inputs += 1
            row.worst_s = max(row.worst_s, took_s)
            if fault and place not in places and len(row.faults) < 5:
                places.add(place)
                row.faults.append(f"{fault}: {data[:300]!r}")
            if not warm_mb and passed_s > seconds / 3:
                warm_mb = _resident_mb()
    grown_mb = _resident_mb() - warm_mb if warm_mb else 0.0
    if grown_mb > GROWN_MB:
        row.faults.append(f"memory grew by {grown_mb:.0f} MB")
    return row


def _feed(name: str, data: bytes) -> tuple[str, str, float]:
    """What is wrong with how the parser takes it ('' for nothing), where, and how long it took."""
    began, fault, place = time.process_time(), "", ""
    signal.setitimer(signal.ITIMER_PROF, HANG_S)  # of CPU: others work on this machine too
    try:
        TARGETS[name].parse(data)
    except UplinkError as error:
        told = str(error)
        is_sentence = told.isprintable() and 10 < len(told) < LONGEST_SENTENCE and error.code
        fault = "" if is_sentence else f"no sentence: {told[:100]!r}"
    except _Hangs:
        fault = f"takes more than {HANG_S:g} s"
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{type(error).__name__} at {os.path.basename(last.filename)}:{last.lineno}"
        fault = place
    finally:
        with contextlib.suppress(_Hangs):
            signal.setitimer(signal.ITIMER_PROF, 0.0)
    return fault, place, time.process_time() - began


@contextlib.contextmanager
def _alarm() -> Iterator[None]:
    def rung(number: int, frame: object) -> None:
        raise _Hangs

    before = signal.signal(signal.SIGPROF, rung)
    try:
        yield
    finally:
        signal.signal(signal.SIGPROF, before)


def _resident_mb() -> float:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
