"""Leases that the configuration does not hold yet, on tmpfs: a crash of the service loses none.

The flash is written rarely (lease_server.py). A reboot loses what is here, and the consumers ask
again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ..config.options import Consumer
from ..storage.state_file import write_state
from ..system.files import UnusableFile, read_table
from ..warnings import Warnings

log = logging.getLogger(__name__)


class UnkeptLeases:
    """The file of one service: leases that were given, and keys of those that ended, since."""

    def __init__(self, path: str, warnings: Warnings) -> None:
        self._path = path
        self._warnings = warnings
        self._written: object = None  # an earlier run's file may say anything

    def complete(self, kept: Sequence[Consumer]) -> list[Consumer]:
        """The leases that an earlier run had, where `kept` is what the configuration holds."""
        try:
            table = read_table(self._path) or {}
            given = [
                Consumer(str(name), str(peer_id), str(key), tuple(map(str, addresses)))
                for name, peer_id, key, addresses in table.get("given", ())
            ]
            ended = {*map(str, table.get("ended", ()))}
        except UnusableFile as error:
            log.warning("%s: leases of the last hours may be lost", error)
            return [*kept]
        except (ValueError, TypeError, AttributeError):
            log.warning("%s is damaged: leases of the last hours may be lost", self._path)
            return [*kept]
        return [*given, *(c for c in kept if c.public_key not in ended and c not in given)]

    def note(self, held: Sequence[Consumer], kept: Sequence[Consumer]) -> None:
        """Have the file say what the configuration, which holds `kept`, does not say of `held`."""
        keys = {consumer.public_key for consumer in held}
        given = [[c.name, c.peer_id, c.public_key, [*c.addresses]] for c in held if c not in kept]
        ended = [c.public_key for c in kept if c.public_key not in keys]
        if (given, ended) == self._written:
            return
        with self._warnings.catch("unkept leases"):
            write_state(self._path, {"given": given, "ended": ended})
            self._written = (given, ended)
