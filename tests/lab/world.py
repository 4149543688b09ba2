"""A service whose clock and resolver a test turns: two files in its folder say how.

`clock` holds the seconds that its wall clock is ahead, `hosts` lines of a name and its addresses;
without that file no resolver is reached. WireGuard and the monotonic clock go on as they are.
"""

from __future__ import annotations

import os
import sys

from .service import Service

CODE = """
import socket, sys, time
folder = {folder!r}
real_time, real_look_up = time.time, socket.getaddrinfo
def step():
    try:
        return float(open(folder + "/clock").read())
    except OSError:
        return 0.0
def look_up(host, port, *more, **named):
    try:
        rows = dict(line.split(" ", 1) for line in open(folder + "/hosts").read().splitlines())
    except OSError:
        raise socket.gaierror("no resolver is reached")
    if host not in rows:
        return real_look_up(host, port, *more, **named)
    return [(0, 0, 0, "", (address, port or 0)) for address in rows[host].split()]
time.time, socket.getaddrinfo = (lambda: real_time() + step()), look_up
from rpcd_wireguard_uplink.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


class TurnedService(Service):
    """A service whose wall clock and resolver are this module's."""

    @property
    def argv(self) -> list[str]:
        """The command that runs the service."""
        code = CODE.format(folder=self.folder.rstrip("/"))
        return [sys.executable, "-c", code, *super().argv[3:]]

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
