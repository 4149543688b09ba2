"""mwan3's own view of the router: asked for on the bus, read leniently, shown in the status.

Nothing is judged by it: steering has its own probes, and an owner may compare.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from ..errors import UplinkError
from ..model import Family
from ..platform.linux import Platform
from ..values import dataclass


@dataclass(frozen=True, slots=True)
class Tracked:
    """An interface as mwan3 sees it: its word for it, and what its tracker does."""

    status: str
    tracking: str


@dataclass(frozen=True, slots=True)
class View:
    """What mwan3 says of its enabled interfaces, and which of them its policies use now."""

    interfaces: Mapping[str, Tracked] = field(default_factory=dict)
    policies: Mapping[Family, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)

    @property
    def told(self) -> str:
        """The interfaces' states in one line, as SecuBox's plugin gave them."""
        told = ", ".join(f"{name} is {seen.status}" for name, seen in self.interfaces.items())
        return told or "mwan3 does not answer"


async def read_view(platform: Platform) -> View:
    """Ask mwan3; nothing is in the view where it does not answer.

    Not for the whole status: its connected networks are many, and nobody asked for them.
    """
    parts = []
    for section in ("interfaces", "policies"):
        try:
            parts.append(parse_status(await platform.call("mwan3", "status", {"section": section})))
        except UplinkError:
            return View()
    return View(parts[0].interfaces, parts[1].policies)


def parse_status(table: Any) -> View:
    """The reply of mwan3's method `status`; what is no reply says nothing.

    An interface whose tracker has not written its status yet is `unknown`. Percentages are not
    taken: those of balanced members are wrong.
    """
    interfaces = {
        name: Tracked(str(row.get("status") or "unknown"), str(row.get("tracking") or "unknown"))
        for name, row in _rows(table, "interfaces")
        if row.get("enabled") is not False
    }
    policies = {}
    for family in Family:
        found = _rows(dict(_rows(table, "policies")), family.value, list)
        policies[family] = {
            name: tuple(
                str(m["interface"]) for m in rows if isinstance(m, dict) and "interface" in m
            )
            for name, rows in found
        }
    return View(interfaces, policies)


def _rows(table: Any, key: str, kind: type = dict) -> list[tuple[str, Any]]:
    inner = table.get(key) if isinstance(table, dict) else None
    items = inner.items() if isinstance(inner, dict) else ()
    return [(name, row) for name, row in items if isinstance(row, kind)]
