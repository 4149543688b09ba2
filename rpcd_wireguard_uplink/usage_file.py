"""A ledger of bytes on flash: read once, written rarely, and only where it differs.

Owns the file and when it is written. What is counted, and whose bytes they are, it does not know.
"""

from __future__ import annotations

import asyncio
import time

from .state_file import write_state
from .system.files import UnusableFile, read_table
from .usage import Ledger

SAVE_S = 6 * 3600.0  # flash is written rarely


class UsageFile:
    """The file of one ledger. `problems` says what was wrong with it."""

    def __init__(self, path: str, problems: dict[str, str]) -> None:
        self.ledger = Ledger()
        self._path = path
        self._problems = problems
        self._saved = self.ledger.to_table()
        self._saved_s = time.monotonic()

    def load(self) -> None:
        """Take over what an earlier run counted."""
        try:
            table = read_table(self._path)
        except UnusableFile as error:
            self._problems["usage"] = f"{error}: counting traffic begins anew"
            return
        self.ledger, warning = Ledger.from_table(table)
        if warning:
            self._problems["usage"] = f"{self._path}: {warning}"
        self._saved = self.ledger.to_table()

    async def save_if_due(self) -> None:
        """Write what was counted, every six hours."""
        if time.monotonic() - self._saved_s > SAVE_S:
            await self.save()

    async def save(self) -> None:
        """Write what was counted, unless it stands there already."""
        self._saved_s = time.monotonic()
        table = self.ledger.to_table()
        if table == self._saved:
            return
        try:
            await asyncio.to_thread(write_state, self._path, table)
            self._saved = table
        except OSError as error:
            self._problems["usage"] = f"can't write {self._path}: {error.strerror}"
