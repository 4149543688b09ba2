"""The product's service, which also writes down when it gives a verdict and what follows takes.

The first argument is a file. Lines: `verdict DEVICE FAMILY TIME` for a path that is held to be dead
from then on, `connections TIME SECONDS` for each deletion of tracked connections (CLOCK_MONOTONIC).
"""

import importlib
import os
import sys
import time
from typing import Any

file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
paths: Any = importlib.import_module("rpcd_wireguard_uplink.failover.paths")
detector: Any = importlib.import_module("rpcd_wireguard_uplink.failover.detector").PathHealth
tracking: Any = importlib.import_module("rpcd_wireguard_uplink.system.nft").ConnectionTracking
make_path, fall, delete = paths._new_path, detector._fall, tracking.delete_marked
names: dict[int, str] = {}


def new_path(key: Any, *more: Any) -> Any:
    made = make_path(key, *more)
    names[id(made.health)] = f"{key[0]} {key[1].value}"
    return made


def note_verdict(health: Any, cause: str, now_s: float) -> None:
    os.write(file, f"verdict {names[id(health)]} {time.monotonic()}\n".encode())
    fall(health, cause, now_s)


def time_deletion(*given: Any) -> None:
    begun_s = time.monotonic()
    delete(*given)
    now_s = time.monotonic()
    os.write(file, f"connections {now_s} {now_s - begun_s}\n".encode())


paths._new_path, detector._fall, tracking.delete_marked = new_path, note_verdict, time_deletion
sys.exit(importlib.import_module("rpcd_wireguard_uplink.__main__").main(sys.argv[2:]))
