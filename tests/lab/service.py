"""The product, running inside a node of a laboratory with a bus of its own.

The bus's socket lies in the laboratory's folder, where the test's own process can connect too.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rpcd_wireguard_uplink.errors import BusError
from rpcd_wireguard_uplink.ubus.blobmsg import decode_table, encode_table
from rpcd_wireguard_uplink.ubus.blocking import BlockingBus

from .lab import Lab
from .node import AHEAD, Child, LabError, Node

OBJECT = "luci.wireguard-dashboard"
CALL_S = 30.0
PROJECT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call returned: the ubus status and the table, empty where there was none."""

    status: int
    data: dict[str, Any]


class Service:
    """One service of one node; it may be ended and started again over the same files."""

    def __init__(
        self, lab: Lab, node: Node, config_text: str, extra_args: Sequence[str] = ()
    ) -> None:
        """Write the configuration; start() starts it."""
        self.node = node
        self.folder = lab.path(node.name, "")
        self.config_dir = lab.path(node.name, "config", "").rstrip("/")
        self.config_file = os.path.join(self.config_dir, "wireguard-uplink")
        self.keys_dir = os.path.join(self.folder, "keys")
        self.socket = os.path.join(self.folder, "ubus.sock")
        self.state_file = os.path.join(self.folder, "wireguard-uplinks.json")
        self.log_file = os.path.join(self.folder, "service.log")
        self.extra_args = list(extra_args)
        self.wrapper: list[str] = []  # a program that starts the service, with its arguments
        self._lab = lab
        self._child: Child | None = None
        self.configure(config_text)

    def configure(self, text: str) -> None:
        """Replace the configuration file as another program would: whole, by a rename."""
        fresh = self.config_file + ".fresh"
        with open(fresh, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(fresh, self.config_file)

    def read_config(self) -> str:
        """The configuration file's text."""
        with open(self.config_file, encoding="utf-8") as file:
            return file.read()

    @property
    def argv(self) -> list[str]:
        """The command that runs the service."""
        return [
            *self.wrapper,
            *(sys.executable, "-m", "rpcd_wireguard_uplink", "serve"),
            *("--platform", "standalone", "--socket", self.socket, "--broker"),
            *("--config-dir", self.config_dir, "--keys-dir", self.keys_dir),
            *("--state-file", self.state_file),
            *self.extra_args,
        ]

    @property
    def pid(self) -> int:
        """The service's own pid as this machine sees it. Raises LabError when it isn't started."""
        return self._running().pid

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._child is not None and self._child.returncode is None

    def start(self, *, timeout_s: float = 30.0, wait: bool = True) -> float:
        """Start it and wait for its object on the bus; returns the seconds that took.

        Raises LabError with the end of its log where it does not come up.
        """
        began = time.monotonic()
        with open(self.log_file, "a", encoding="utf-8") as log:
            started = self.node.popen(self.argv, stdout=log, stderr=log, env=variables())
        self._child = self._lab.at_close(started)
        if wait:
            self.wait_until_up(timeout_s)
        return time.monotonic() - began

    def wait_until_up(self, timeout_s: float = 30.0) -> None:
        """Return when the object answers on the bus."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self._running().returncode is not None:
                break
            with contextlib.suppress(BusError), contextlib.closing(BlockingBus(self.socket)) as bus:
                if bus.ask(bus.connection.lookup(OBJECT), 10.0).object_ids():
                    self._go_ahead()
                    return
            time.sleep(0.02)
        raise LabError(f"the service in {self.node.name} is not up; its log:\n{self.log()}")

    def _go_ahead(self) -> None:
        """It is timed from now on, as its tunnels are; its start was not."""
        if os.geteuid() == 0:
            with contextlib.suppress(OSError):  # it has ended, or a container forbids it
                os.setpriority(os.PRIO_PROCESS, self.pid, AHEAD)

    def call(self, method: str, arguments: Mapping[str, Any] | None = None) -> Answer:
        """Call a method. Raises BusError where there is no bus or no service on it."""
        with contextlib.closing(BlockingBus(self.socket)) as bus:
            ids = bus.ask(bus.connection.lookup(OBJECT), 10.0).object_ids()
            if not ids:
                raise BusError(f"{OBJECT} is not on the bus")
            called = bus.connection.invoke(ids[0], method, encode_table(arguments or {}))
            done = bus.ask(called, CALL_S)
            tables = done.tables()
        return Answer(int(done.status), decode_table(tables[0]) if tables else {})

    def ask(self, method: str, **arguments: object) -> dict[str, Any]:
        """The table of call()'s answer, be it a reply or an error."""
        return self.call(method, arguments).data

    def expect(self, method: str, arguments: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """call() that must succeed: the reply's table. Raises LabError with what it said."""
        answer = self.call(method, arguments)
        if answer.status != 0:
            raise LabError(f"{method} gave status {answer.status}: {answer.data}\n{self.log()}")
        return answer.data

    def wgctl(self, *words: str, timeout_s: float = 30.0) -> subprocess.CompletedProcess[str]:
        """Run wgctl in the node against this service's bus; any exit status is returned."""
        entry = "import sys; from rpcd_wireguard_uplink.cli.main import main; sys.exit(main())"
        argv = [sys.executable, "-c", entry, "--socket", self.socket, *words]
        return self.node.run(_with_variables(argv), timeout_s=timeout_s, check=False)

    def state(self) -> dict[str, Any]:
        """The state file's content, empty where there is none yet."""
        try:
            with open(self.state_file, encoding="utf-8") as file:
                found: dict[str, Any] = json.load(file)
                return found
        except FileNotFoundError:
            return {}

    def log(self, characters: int = 4000) -> str:
        """The end of what the service printed."""
        try:
            with open(self.log_file, encoding="utf-8", errors="replace") as file:
                return file.read()[-characters:]
        except FileNotFoundError:
            return ""

    @contextlib.contextmanager
    def hung(self) -> Iterator[float]:
        """The service hangs (SIGSTOP) meanwhile, from this moment; nsenter, which started it, stops
        with it.
        """
        pid = self.pid
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            parent = int(file.read().rpartition(")")[2].split()[1])
        os.kill(pid, signal.SIGSTOP)
        try:
            yield time.monotonic()
        finally:
            os.kill(pid, signal.SIGCONT)
            os.kill(parent, signal.SIGCONT)

    def reload(self) -> None:
        """Have it read its configuration again (SIGHUP)."""
        self._running().signal(signal.SIGHUP)

    def stop(self) -> int:
        """End it in good order; returns its exit status."""
        return self._running().stop()

    def kill(self) -> None:
        """End it as a crash would (SIGKILL)."""
        self._running().kill()

    def restart(self) -> float:
        """stop() and start(); returns the seconds until it answered again."""
        self.stop()
        return self.start()

    def _running(self) -> Child:
        if self._child is None:
            raise LabError(f"the service in {self.node.name} was not started")
        return self._child


def variables() -> dict[str, str]:
    return {"PYTHONPATH": PROJECT, "PYTHONUNBUFFERED": "1"}


def _with_variables(argv: Sequence[str]) -> list[str]:
    return ["env", *(f"{name}={value}" for name, value in variables().items()), *argv]
