"""Services with other constants, or with a clock and a resolver that a test turns."""

from __future__ import annotations

import json
import os
from typing import ClassVar

from .node import program
from .service import Service


class AlteredService(Service):
    """A service whose modules have other constants (module:NAME)."""

    constants: ClassVar[dict[str, float]] = {}
    turned = False

    @property
    def argv(self) -> list[str]:
        """The command that runs the service."""
        folder = self.folder.rstrip("/") if self.turned else ""
        altered = json.dumps({"constants": self.constants, "folder": folder})
        return [*program("altered_service", altered, packages=True), *super().argv[3:]]


class RestingService(AlteredService):
    """A service whose table watches packets for a second or two where nothing is in force."""

    constants: ClassVar[dict[str, float]] = {
        "rpcd_wireguard_uplink.steering.filtering:OLDER_S": 1.0,
        "rpcd_wireguard_uplink.steering.filtering:WATCH_S": 2.0,
    }


class TurnedService(AlteredService):
    """A service whose wall clock and resolver are this module's."""

    turned = True

    def step_clock(self, seconds: float) -> None:
        """Have its wall clock be so far ahead from now on."""
        self._write("clock", str(seconds))

    def names(self, **addresses: str) -> None:
        """Have these names, dots written as underscores, resolve to addresses (blanks between)."""
        rows = [f"{name.replace('_', '.')} {found}" for name, found in addresses.items()]
        self._write("hosts", "\n".join(rows) + "\n")

    def lose_resolver(self) -> None:
        """No name is resolved any more."""
        os.unlink(os.path.join(self.folder, "hosts"))

    def _write(self, name: str, text: str) -> None:
        fresh = os.path.join(self.folder, f".{name}")
        with open(fresh, "w", encoding="ascii") as file:
            file.write(text)
        os.replace(fresh, os.path.join(self.folder, name))
