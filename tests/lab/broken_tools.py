"""A service whose programs a test breaks and mends while it runs."""

from __future__ import annotations

import os

from .altered_service import TurnedService
from .node import environment

FAULTS = {
    "missing": "",
    "failing": "echo broken >&2; exit 1",
    "hanging": "exec /bin/sleep 1000",
    "rubbish": r"printf '}{ \377 0x5 rubbish\n'",
    "endless": "exec /usr/bin/yes rubbish",
}
"""What stands in for a program, as lines of sh; '' for nothing at all."""


class ToolsService(TurnedService):
    """A service that finds its programs by links in a folder of its own."""

    @property
    def argv(self) -> list[str]:
        """The command that runs the service."""
        return ["env", f"PATH={self._programs}", *super().argv]

    @property
    def _programs(self) -> str:
        folder = os.path.join(self.folder, "programs")
        if not os.path.isdir(folder):
            os.makedirs(folder)
            for place in environment()["PATH"].split(":"):
                names = os.listdir(place) if os.path.isdir(place) else ()
                for name in names:
                    if not os.path.lexists(os.path.join(folder, name)):
                        os.symlink(os.path.join(place, name), os.path.join(folder, name))
        return folder

    def break_tools(self, fault: str, *names: str) -> None:
        """Have these programs be what FAULTS says, until mend_tools()."""
        for name in names:
            path = os.path.join(self._programs, name)
            if os.path.islink(path):
                os.rename(path, f"{path}.whole")
            elif os.path.exists(path):
                os.unlink(path)
            if FAULTS[fault]:
                write_script(path, FAULTS[fault])

    def record_tools(self, file: str, *names: str) -> None:
        """Have each start of these programs append its command line and environment to a file,
        until mend_tools().
        """
        self._precede(f"cat /proc/$$/cmdline /proc/$$/environ >>{file}", *names)

    def hold_tools(self, gate: str, *names: str) -> None:
        """Have each start of these programs wait as long as a file is there, until mend_tools()."""
        self._precede(f"while [ -e {gate} ]; do sleep 0.02; done", *names)

    def _precede(self, line: str, *names: str) -> None:
        for name in names:
            path = os.path.join(self._programs, name)
            os.rename(path, f"{path}.whole")
            write_script(path, f'{line}; exec {path}.whole "$@"')

    def mend_tools(self) -> None:
        """Have all programs be whole again."""
        for name in os.listdir(self._programs):
            if name.endswith(".whole"):
                path = os.path.join(self._programs, name)
                os.rename(path, path.removesuffix(".whole"))

    @property
    def memory_mb(self) -> float:
        """The service's resident memory."""
        with open(f"/proc/{self.pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def write_script(path: str, lines: str) -> None:
    """Make an executable file of lines of sh."""
    with open(path, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o755)
        file.write(f"#!/bin/sh\n{lines}\n")
