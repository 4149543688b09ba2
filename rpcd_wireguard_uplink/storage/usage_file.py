"""A ledger of bytes on flash: read once, written rarely, and only where it differs."""

from __future__ import annotations

import asyncio
import time

from ..errors import InvalidArgument
from ..reasons import because
from ..system.files import UnusableFile, read_table
from ..warnings import Warnings
from .state_file import write_state
from .usage import Ledger

SAVE_S = 6 * 3600.0  # flash is written rarely


class UsageFile:
    """The file of one ledger, which goes on with what an earlier run counted."""

    def __init__(self, path: str, warnings: Warnings) -> None:
        self._path = path
        self._warnings = warnings
        self._topic = f"usage {path}"
        self.ledger = self._load()
        self._saved = self.ledger.to_table()
        self._saved_s = time.monotonic()

    def _load(self) -> Ledger:
        try:
            table = read_table(self._path)
            return Ledger() if table is None else Ledger.from_table(table)
        except UnusableFile as error:
            told = because("usage_anew", error)
        except InvalidArgument as error:
            told = because("of", self._path, error)
        self._warnings.set(self._topic, told)
        return Ledger()

    async def save_if_due(self) -> bool:
        """Write what was counted, every six hours; whether it was time."""
        is_due = time.monotonic() - self._saved_s > SAVE_S
        if is_due:
            await self.save()
        return is_due

    async def save(self) -> None:
        """Write what was counted, unless it stands there already."""
        self._saved_s = time.monotonic()
        table = self.ledger.to_table()
        if table == self._saved:
            return
        with self._warnings.catch(self._topic):
            await asyncio.to_thread(write_state, self._path, table)
            self._saved = table
