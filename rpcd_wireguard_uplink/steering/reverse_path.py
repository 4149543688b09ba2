"""Reverse path filtering: loose on WANs that are diverted from, as it was afterwards.

A strict filter (1) drops the answers to our probes of a dead WAN, since the way back leads into
the tunnel then. The kernel takes the larger of `all` and the device's value, so 2 is the loose one.
What was there is kept in a file until it is given back, by the watchdog if need be.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from dataclasses import dataclass

CONF = "/proc/sys/net/ipv4/conf"
STRICT, LOOSE = "1", "2"


@dataclass(slots=True)
class ReversePath:
    """The filter of this network namespace. `saved_path` holds a line `device value` each."""

    saved_path: str

    def loosen(self, devices: Collection[str]) -> str:
        """Have exactly these devices loose of those that were strict; '' or why not."""
        saved = self._saved()
        try:
            for name in saved.keys() - set(devices):
                before = saved.pop(name)
                if _read(name) == LOOSE:
                    self._write(name, before)
            strict_all = _read("all") == STRICT
            fresh = {
                name: value
                for name in devices
                if (value := _read(name)) == STRICT or (strict_all and value not in (None, LOOSE))
            }
            if fresh or saved != self._saved():
                self._save(saved | fresh)
            for name in fresh:
                self._write(name, LOOSE)
        except OSError as error:
            return f"rp_filter can't be set: {error.strerror}"
        return ""

    def _saved(self) -> dict[str, str]:
        try:
            with open(self.saved_path, encoding="ascii", errors="replace") as file:
                pairs = (line.split() for line in file.read(65536).splitlines())
                return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}
        except OSError:
            return {}

    def _save(self, values: dict[str, str]) -> None:
        if not values:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.saved_path)
            return
        os.makedirs(os.path.dirname(self.saved_path), mode=0o700, exist_ok=True)
        text = "".join(f"{name} {value}\n" for name, value in values.items())
        with open(f"{self.saved_path}.new", "w", encoding="ascii") as file:
            file.write(text)
        os.replace(f"{self.saved_path}.new", self.saved_path)

    def _write(self, name: str, value: str) -> None:
        with open(f"{CONF}/{name}/rp_filter", "w", encoding="ascii") as file:
            file.write(value)


def _read(name: str) -> str | None:
    try:
        with open(f"{CONF}/{name}/rp_filter", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return None
