"""What steering must know again after a restart: each path's slot, and the diversions in force.

Kept on a tmpfs, so that a reboot forgets it. A file that can't be read is as good as none.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Any

from ..model import DefaultRoute, Family
from ..system.files import UnusableFile, read_table, replace_file
from ..values import dataclass
from .plan import FIRST_SLOT, MOST_SLOTS, Diversion


@dataclass(slots=True)
class Memory:
    """The memory of one router. `slots` are the numbers of paths."""

    path: str
    slots: dict[str, int] = field(default_factory=dict)
    _diversions: dict[Family, Diversion] = field(default_factory=dict)

    def load(self) -> dict[Family, Diversion]:
        """Read it; the diversions that were in force."""
        try:
            held = read_table(self.path) or {}
            self.slots = _slots(held["slots"])
            self._diversions = {
                Family(name): _diversion(Family(name), row)
                for name, row in held["diversions"].items()
            }
        except (UnusableFile, ArithmeticError, ValueError, LookupError, TypeError, AttributeError):
            return {}
        return dict(self._diversions)

    def number(self, names: Iterable[str], first: int, last: int) -> dict[str, int]:
        """A number for each name; one that it has stays. Too many names: the last have none."""
        wanted = list(dict.fromkeys(names))
        before = dict(self.slots)
        free = [n for n in range(first, last + 1) if n not in self.slots.values()]
        gone = [name for name in self.slots if name not in wanted]
        for name in wanted:
            if name in self.slots:
                continue
            if not free and gone:
                free.append(self.slots.pop(gone.pop(0)))
            if free:
                self.slots[name] = free.pop(0)
        if self.slots != before:
            self._write()
        return {name: self.slots[name] for name in wanted if name in self.slots}

    def save(self, diversions: Mapping[Family, Diversion]) -> None:
        if diversions != self._diversions:
            self._diversions = dict(diversions)
            self._write()

    def _write(self) -> None:
        held = {
            "slots": self.slots,
            "diversions": {f.value: _row(d) for f, d in self._diversions.items()},
        }
        with contextlib.suppress(OSError):  # a restart would divert anew, with a short gap
            replace_file(self.path, json.dumps(held).encode(), is_lasting=False)


def _slots(held: Mapping[str, Any]) -> dict[str, int]:
    """The numbers that a path can have, each once."""
    found: dict[str, int] = {}
    for name, slot in held.items():
        if FIRST_SLOT <= int(slot) <= MOST_SLOTS and int(slot) not in found.values():
            found[str(name)] = int(slot)
    return found


def _row(diversion: Diversion) -> dict[str, Any]:
    route = diversion.route
    return {"dead": list(diversion.dead), "device": route.device, "gateway": route.gateway}


def _diversion(family: Family, row: Mapping[str, Any]) -> Diversion:
    route = DefaultRoute(family, str(row["device"]), str(row["gateway"]))
    return Diversion(family, tuple(map(str, row["dead"])), route)
