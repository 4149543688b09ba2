"""How often others removed what steering put up, and who may it be."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field

MANY, KEPT_S = 3, 600.0
# Programs that are known to remove rules and routes that are not theirs, as /proc names them.
_MANAGERS = frozenset(
    {"systemd-network", "NetworkManager", "netifd", "connmand", "keepalived", "dhcpcd", "firewalld"}
)


@dataclass(slots=True)
class Repairs:
    """The repairs of the last ten minutes."""

    _at_s: list[float] = field(default_factory=list)

    def note(self, now_s: float) -> None:
        """Something was put back."""
        self._at_s.append(now_s)

    def sentence(self, now_s: float) -> str:
        """What to tell the owner; '' as long as it happened seldom."""
        self._at_s = [at_s for at_s in self._at_s if now_s - at_s < KEPT_S]
        if len(self._at_s) < MANY:
            return ""
        who = ", ".join(running_managers()) or "another program"
        return (
            f"our routing rules, routes or nftables table were removed {len(self._at_s)} times "
            f"within {KEPT_S / 60:g} min and put back: find out whether {who} removes them, and "
            "have it leave foreign ones alone (systemd-networkd: "
            "ManageForeignRoutingPolicyRules=no and ManageForeignRoutes=no)"
        )


def running_managers(proc: str = "/proc") -> list[str]:
    """The names of running programs that manage a machine's network."""
    found = set()
    for entry in os.listdir(proc):
        if entry.isdigit():
            with contextlib.suppress(OSError), open(f"{proc}/{entry}/comm", "rb") as file:
                name = file.read(64).decode("ascii", "replace").strip()
                if name in _MANAGERS:
                    found.add("systemd-networkd" if name == "systemd-network" else name)
    return sorted(found)
