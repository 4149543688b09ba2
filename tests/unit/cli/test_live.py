"""`wgctl uplink status --watch`: what is drawn, what is written, and the terminal afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import io
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rpcd_wireguard_uplink.api.methods import METHODS, OBJECT, signature
from rpcd_wireguard_uplink.cli import live
from rpcd_wireguard_uplink.cli.live import ENTER, HOME, LEAVE, Blocks, cut, essence, frame
from rpcd_wireguard_uplink.extras.standalone.broker import Broker
from rpcd_wireguard_uplink.ubus import BusObject, Call, Client, Reply

ROOT = Path(__file__).resolve().parents[3]
ENTRY = "import sys; from rpcd_wireguard_uplink.cli.main import main; sys.exit(main())"
CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture
def status() -> dict[str, Any]:
    text = (ROOT / "tests" / "data" / "replies.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)["uplink_status"]
    return found


# --- drawing


@pytest.mark.parametrize(
    ("line", "width", "shown"),
    [
        ("short", 80, "short"),
        ("abcdef", 3, "abc"),
        ("\x1b[32mup\x1b[0m and running", 6, "\x1b[32mup\x1b[0m and\x1b[0m"),
        ("a \x1b[31mdown\x1b[0m", 4, "a \x1b[31mdo\x1b[0m\x1b[0m"),
    ],
)
def test_lines_are_cut_to_the_width(line: str, width: int, shown: str) -> None:
    assert cut(line, width) == shown


def test_a_frame_fits_and_tells_what_does_not() -> None:
    drawn = frame([f"{n} {'x' * 200}" for n in range(30)], 80, 24)
    lines = CODES.sub("", drawn).split("\r\n")
    assert len(lines) == 24 and max(map(len, lines)) == 80
    assert lines[-1] == "... and 7 lines more"
    assert drawn.startswith(HOME)


def test_a_short_frame_clears_what_was_below_it() -> None:
    assert frame(["a"], 80, 24) == f"{HOME}a\x1b[K\x1b[J"


# --- writing


def later(status: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The same a second later: numbers differ."""
    moved = json.loads(json.dumps(status), parse_int=int, parse_float=float)
    moved["since_s"] += 1.0
    moved["uplinks"][0]["latency_ms"] += 3.5
    moved["uplinks"][0]["rx_bytes"] += 1000
    moved["cause"] = f"wan: no answer for {moved['since_s']:g} s"
    return {**moved, **changes}


def test_numbers_alone_are_no_change(status: dict[str, Any]) -> None:
    assert essence(later(status)) == essence(status)


@pytest.mark.parametrize(
    "change",
    [
        {"state": "stranded"},
        {"auto_failover": 0},
        {"enabled": 0},
        {"offering": 1},
        {"active_path": "elsewhere"},
        {"problems": ["something new"]},
        {"events": []},
    ],
)
def test_these_are_changes(status: dict[str, Any], change: dict[str, Any]) -> None:
    status |= {"offering": 0, "enabled": 1, "auto_failover": 1}
    assert essence({**status, **change}) != essence(status)


def test_an_uplinks_state_is_a_change(status: dict[str, Any]) -> None:
    other = later(status)
    other["uplinks"][0]["state"] = "down"
    assert essence(other) != essence(status)


def test_a_block_is_written_for_each_change(status: dict[str, Any]) -> None:
    out = io.StringIO()
    blocks = Blocks(out, as_json=False)
    for shown in (status, later(status), later(status, state="stranded")):
        blocks.show(shown, "")
    for _ in range(2):
        blocks.show(None, "gone\x1b[2J")
    written = out.getvalue()
    assert [line[:4] for line in written.splitlines()].count("--- ") == 3
    assert "State     stranded" in written and written.endswith("gone\\x1b[2J\n\n")
    assert "\x1b" not in written


def test_json_is_a_line_for_each_change(status: dict[str, Any]) -> None:
    out = io.StringIO()
    blocks = Blocks(out, as_json=True)
    for shown in (status, later(status), None):
        blocks.show(shown, "gone")
    assert [json.loads(line) for line in out.getvalue().splitlines()] == [status, {"error": "gone"}]


def test_another_releases_reply_is_shown_as_it_is() -> None:
    out = io.StringIO()
    Blocks(out, as_json=False).show({"state": "new"}, "")
    assert '"state": "new"' in out.getvalue()


# --- the whole, against a bus


@dataclass
class Service:
    """Answers uplink_status, and knows who asked."""

    socket: str
    status: dict[str, Any]
    callers: list[int] = field(default_factory=list)
    client: Client | None = None

    def answer(self, call: Call) -> Reply:
        self.callers.append(call.caller.client_id)
        return Reply(self.status)

    async def publish(self) -> None:
        self.client = Client(self.socket)
        await self.client.connect()
        methods = {name: signature(method) for name, method in METHODS.items()}
        await self.client.publish(BusObject(OBJECT, methods, self.answer))

    async def close(self) -> None:
        if self.client is not None:
            await self.client.close()


@pytest.fixture
async def service(tmp_path: Path, status: dict[str, Any]) -> AsyncIterator[Service]:
    broker = Broker(str(tmp_path / "ubus.sock"))
    await broker.start()
    made = Service(str(tmp_path / "ubus.sock"), status)
    await made.publish()
    try:
        yield made
    finally:
        await made.close()
        await broker.close()


async def until(fits: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not fits():
            await asyncio.sleep(0.02)


@dataclass
class Terminal:
    """A pseudo-terminal with `wgctl uplink status --watch` on it."""

    child: subprocess.Popen[bytes]
    screen: int
    shown: str = ""

    def read(self) -> str:
        with contextlib.suppress(BlockingIOError, OSError):
            while data := os.read(self.screen, 65536):
                self.shown += data.decode()
        return self.shown


@pytest.fixture
def terminal(service: Service, request: pytest.FixtureRequest) -> Iterator[Terminal]:
    screen, inner = pty.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    os.set_blocking(screen, False)
    argv = [sys.executable, "-c", ENTRY, "-s", service.socket, "uplink", "status", "--watch"]
    if hasattr(request, "param"):
        hurry = f"live.INTERVAL_S = {request.param}"
        argv[2] = f"from rpcd_wireguard_uplink.cli import live; {hurry}\n{ENTRY}"
    variables = {**os.environ, "TERM": "xterm", "PYTHONPATH": str(ROOT)}
    # Its controlling terminal is the new one, so that Ctrl-C reaches it as it reaches a user's.
    child = subprocess.Popen(
        argv, stdin=inner, stdout=inner, stderr=inner, env=variables, preexec_fn=_own_terminal
    )
    os.close(inner)
    try:
        yield Terminal(child, screen)
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()
        os.close(screen)


def _own_terminal() -> None:
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.mark.parametrize("end", ["Ctrl-C", "SIGTERM"])
async def test_a_terminal_is_drawn_and_given_back(
    service: Service, terminal: Terminal, end: str
) -> None:
    await until(lambda: terminal.read().count(HOME) >= 2)
    service.status = {**service.status, "state": "stranded"}
    await until(lambda: "stranded" in terminal.read())
    if end == "Ctrl-C":
        os.write(terminal.screen, b"\x03")
    else:
        terminal.child.send_signal(signal.SIGTERM)
    await until(lambda: terminal.read() != "" and terminal.child.poll() is not None)
    assert terminal.child.returncode == 0
    shown = terminal.read()
    assert shown.count(ENTER) == shown.count(LEAVE) == 1
    assert "Traceback" not in shown
    frames = shown.partition(ENTER)[2].partition(LEAVE)[0].split(HOME)[1:]
    for each in frames:
        lines = CODES.sub("", each).replace("\r\r", "\r").split("\r\n")
        assert len(lines) <= 24 and max(map(len, lines)) <= 80
    assert len(set(service.callers)) == 1, "it asked over more than one connection"


@pytest.mark.parametrize("terminal", [300.0], indirect=True)
async def test_another_size_is_drawn_at_once(service: Service, terminal: Terminal) -> None:
    await until(lambda: HOME in terminal.read())
    fcntl.ioctl(terminal.screen, termios.TIOCSWINSZ, struct.pack("HHHH", 6, 30, 0, 0))
    await until(lambda: "lines more" in terminal.read().rpartition(HOME)[2])
    lines = CODES.sub("", terminal.read().rpartition(HOME)[2]).replace("\r\r", "\r").split("\r\n")
    assert len(lines) == 6 and max(map(len, lines)) <= 30


async def test_a_service_that_goes_and_comes_is_waited_for(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "INTERVAL_S", 0.02)
    out, client = io.StringIO(), Client(service.socket)
    await client.connect()
    watching = asyncio.create_task(live.watch(client, out))
    try:
        await until(lambda: "State " in out.getvalue())
        await service.close()
        await until(lambda: "does not answer" in out.getvalue())
        service.status = {**service.status, "state": "holding"}
        await service.publish()
        await until(lambda: "State     holding" in out.getvalue())
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(watching, 10)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await client.close()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGWINCH):
            loop.remove_signal_handler(number)
    assert out.getvalue().count("--- ") == 3


async def test_a_pipe_that_is_closed_ends_it(service: Service) -> None:
    argv = [sys.executable, "-c", ENTRY, "-s", service.socket, "uplink", "status", "--watch"]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stderr is not None
        try:
            assert (await asyncio.to_thread(child.stdout.readline)).startswith(b"--- ")
            child.stdout.close()
            service.status = {**service.status, "state": "stranded"}
            await until(lambda: child.poll() is not None)
        finally:
            child.kill()
        assert child.returncode == 0 and child.stderr.read() == b""


async def test_without_a_bus_it_says_so(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", ENTRY, "-s", str(tmp_path / "none"), "uplink", "status"]
    done = subprocess.run([*argv, "--watch"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 10 and "Is the service running?" in done.stderr
