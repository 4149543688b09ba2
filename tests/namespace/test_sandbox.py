"""The service does its work with no more rights than debian/wireguard-uplink.service leaves it."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from tests.lab.lab import Lab
from tests.lab.meter import Meter, settled
from tests.lab.network import ECHO4, ECHO6, consumer_network
from tests.lab.provider import make_provider
from tests.lab.reach import until
from tests.lab.router import Router, settings
from tests.lab.service import PROJECT, Service

pytestmark = [pytest.mark.needs("conntrack"), pytest.mark.needs("setpriv")]

UNIT = Path(PROJECT) / "debian/wireguard-uplink.service"


def capabilities() -> list[str]:
    """Those that the unit leaves the service, as setpriv(1) names them."""
    found = re.search(r"^CapabilityBoundingSet=(.*)$", UNIT.read_text(), re.M)
    assert found is not None
    return [word.removeprefix("CAP_").lower() for word in found[1].split()]


def test_the_main_job_needs_two_capabilities_and_systemd_hears_of_it(
    lab: Lab, tmp_path: Path
) -> None:
    network = consumer_network(lab)
    router = Router.build(network, [make_provider(lab, network.providers[0])], settings())
    kept = ",".join(["-all", *(f"+{name}" for name in capabilities())])
    router.service.wrapper = [
        *("setpriv", "--no-new-privs", f"--bounding-set={kept}", "--inh-caps=-all"),
        *("env", f"NOTIFY_SOCKET={tmp_path / 'notify'}", "WATCHDOG_USEC=400000"),
    ]
    with Notified(tmp_path / "notify") as notified:
        router.start()
        notified.hears("READY=1", "WATCHDOG=1")
        effective = re.search(r"^CapEff:\s*(\w+)$", status(router.service.pid), re.M)
        assert effective is not None
        assert bin(int(effective[1], 16)).count("1") == len(capabilities())
        with Meter(network.host, ECHO4) as four, Meter(network.host, ECHO6) as six:
            settled(four, six)
            network.wan.drop()
            router.wait_failed_over()
            cut = time.monotonic()
            for meter, address in zip((four, six), network.provider_wans[0].addresses, strict=True):
                meter.wait_for_source(address, since=cut)
            network.wan.restore()
            router.wait_primary(30.0)
        router.wait(lambda status: status["problems"] == [])
        router.service.stop()
        notified.hears("STOPPING=1")


def status(pid: int) -> str:
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return file.read()


class Notified:
    """What a service tells systemd by this socket. A context manager.

    It is read all the time: what comes while the kernel's short queue is full would be lost.
    """

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._states: set[str] = set()
        self._reader = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Notified:
        self._reader.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.shutdown(socket.SHUT_RD)
        self._reader.join(5.0)
        self._socket.close()

    def hears(self, *wanted: str) -> None:
        """Wait until all of these states came."""
        until(lambda: set(self._states), lambda states: states.issuperset(wanted))

    def _read(self) -> None:
        while state := self._socket.recv(100).decode():
            self._states.add(state)


def test_the_unit_names_the_programs_it_starts() -> None:
    assert set(capabilities()) == {"net_admin", "net_raw"}
    assert os.access(UNIT, os.R_OK) and "NoNewPrivileges=yes\n" in UNIT.read_text()


def test_a_crash_leaves_no_memory_behind(lab: Lab, tmp_path: Path) -> None:
    service = Service(lab, lab.node("alone"), settings(()))
    service.wrapper = ["prlimit", "--core=unlimited", "env", "-C", str(tmp_path)]
    service.start()
    pid = service.pid
    with open(f"/proc/{pid}/limits", encoding="ascii") as file:
        assert re.search(r"^Max core file size\s+1\s+1\s", file.read(), re.M)
    os.kill(pid, signal.SIGABRT)
    deadline = time.monotonic() + 10.0
    while service.running and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not service.running and not [p for p in tmp_path.iterdir() if "core" in p.name]
