"""`wgctl`: the command line against a real bus with a service that answers from canned replies."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import os
import pty
import shlex
import signal
import subprocess
import sys
import termios
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from docs.schemas import check_reply, reply_schema
from rpcd_wireguard_uplink import __version__
from rpcd_wireguard_uplink.api.methods import (
    METHODS,
    OBJECT,
    error_reply,
    parse_arguments,
    signature,
)
from rpcd_wireguard_uplink.cli import main
from rpcd_wireguard_uplink.cli.render import duration, render
from rpcd_wireguard_uplink.cli.start import start_command
from rpcd_wireguard_uplink.errors import NotFound, NotTrusted, Status, UplinkError
from rpcd_wireguard_uplink.extras.standalone.broker import Broker
from rpcd_wireguard_uplink.ubus import BusObject, Call, Reply
from rpcd_wireguard_uplink.ubus.client import Client
from tests.unit.waiting import until

KEY = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="
ROOT = Path(__file__).resolve().parents[3]
DATA = ROOT / "tests" / "data"
SHOWN = DATA / "wgctl.txt"
UNIT = "usr/lib/systemd/system/wireguard-uplink.service"
HOSTILE = "\x1b[2J\x07evil\u202e\r\nnext"


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """80 columns, and a clock in UTC."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


def canned() -> dict[str, Any]:
    """A reply of each method."""
    replies: dict[str, Any] = json.loads((DATA / "replies.json").read_text(encoding="utf-8"))
    return replies


@dataclass
class Service:
    """What the CLI talks to: canned replies, an error to raise instead, and the calls seen."""

    socket: str
    replies: dict[str, Any]
    error: Exception | None = None
    delay_s: float = 0.0
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    callers: list[int] = field(default_factory=list)

    async def answer(self, call: Call) -> Reply:
        method = METHODS[call.method]
        self.callers.append(call.caller.client_id)
        try:
            self.calls.append((call.method, parse_arguments(method, call.arguments)))
            await asyncio.sleep(self.delay_s)
            if self.error is not None:
                raise self.error
        except UplinkError as error:
            return Reply(*error_reply(error))
        check_reply(method, self.replies[call.method])
        return Reply(self.replies[call.method])


@dataclass(frozen=True)
class Said:
    """What one run of the CLI left."""

    status: int
    out: str
    err: str


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[str]:
    socket = str(tmp_path / "ubus.sock")
    broker = Broker(socket)
    await broker.start()
    try:
        yield socket
    finally:
        await broker.close()


@pytest.fixture
async def service(bus: str) -> AsyncIterator[Service]:
    made = Service(bus, canned())
    client = Client(bus)
    await client.connect()
    methods = {name: signature(method) for name, method in METHODS.items()}
    await client.publish(BusObject(OBJECT, methods, made.answer))
    try:
        yield made
    finally:
        await client.close()


@pytest.fixture
def wgctl(capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs one command line beside the bus, which lives in this test's event loop."""

    async def run(*argv: str) -> Said:
        capsys.readouterr()
        status = await asyncio.to_thread(main.main, list(argv))
        captured = capsys.readouterr()
        return Said(status, captured.out, captured.err)

    return run


MADE_BY_HAND = {"peer_id": "nodeA", "weight": 20, "endpoint": "h:1", "public_key": KEY}
ALL_TRAFFIC = {"peer_id": "nodeA", "all_traffic": True, "seconds": 5}
COMMANDS = [
    ("list", "uplink_list", {}),
    ("status", "uplink_status", {}),
    ("add nodeA", "uplink_add", {"peer_id": "nodeA"}),
    (f"add nodeA --weight 20 --endpoint h:1 --public-key {KEY}", "uplink_add", MADE_BY_HAND),
    ("add --address 10.0.0.2/32 a", "uplink_add", {"peer_id": "a", "address": "10.0.0.2/32"}),
    ("remove nodeA", "uplink_remove", {"peer_id": "nodeA"}),
    ("test a --target h --count 5", "uplink_test", {"peer_id": "a", "target": "h", "count": 5}),
    ("failover enable", "uplink_set_failover", {"enabled": True}),
    ("failover disable", "uplink_set_failover", {"enabled": False}),
    ("priority nodeA 20", "uplink_set_priority", {"peer_id": "nodeA", "weight": 20}),
    ("history --limit 3", "uplink_history", {"limit": 3}),
    ("why", "uplink_explain", {}),
    ("simulate wan nodeA", "uplink_simulate", {"fail": ["wan", "nodeA"]}),
    ("drill nodeA --all-traffic --seconds 5", "uplink_drill", ALL_TRAFFIC),
]


@pytest.mark.parametrize(("words", "method", "arguments"), COMMANDS)
async def test_every_command_calls_its_method_and_prints_json(
    service: Service, wgctl: Any, words: str, method: str, arguments: dict[str, Any]
) -> None:
    said = await wgctl("uplink", *words.split(), "--json", "-s", service.socket)
    assert said.status == (method == "uplink_drill"), "a rehearsal that failed is 1"
    assert service.calls == [(method, arguments)]
    assert json.loads(said.out) == service.replies[method]


@pytest.mark.parametrize(
    "line",
    [
        "-s {} --json uplink status",
        "uplink -s {} --json status",
        "uplink status -s {} --json",
        "--json uplink status --socket={}",
    ],
)
async def test_common_options_stand_anywhere(service: Service, wgctl: Any, line: str) -> None:
    said = await wgctl(*line.format(service.socket).split())
    assert (said.status, said.err) == (0, "")
    assert json.loads(said.out) == service.replies["uplink_status"]


def test_what_people_see() -> None:
    """A change of what is printed is a change of that file."""
    replies = canned()
    shown = [
        f"$ wgctl uplink {method.command}\n{render(name, replies[name])}"
        for name, method in METHODS.items()
        if method.command
    ]
    assert "\n".join(shown) == SHOWN.read_text(encoding="utf-8")


async def test_metrics_are_printed(service: Service, wgctl: Any) -> None:
    said = await wgctl("uplink", "metrics", "-s", service.socket)
    assert (said.status, said.err) == (0, "")
    path = 'path="nodeA",device="wgup_nodea",kind="uplink"'
    assert f"wireguard_uplink_path_up{{{path}}} 1\n" in said.out


def ipv4(state: str, **more: Any) -> dict[str, Any]:
    return {"families": {"ipv4": {"state": state, "active_path": "x", **more}}}


DEAD = {"reachable": False, "received": 0, "handshake_age_s": -1, "error": "it is silent"}
DEAD_TEXT = """\
nodeA does not carry traffic: 0 of 5 probes to 1.1.1.1 were answered through wgup_nodea
it is silent
There was no handshake yet
"""
OF_EARLY_PATH = "new connections by y, since the WAN is in doubt"


@pytest.mark.parametrize(
    ("command", "changes", "wanted"),
    [
        ("list", {"offers": []}, "No mesh peer offers its internet."),
        ("list", {"uplinks": []}, "`wgctl uplink add PEER` makes one"),
        ("history", {"events": []}, "Nothing has happened yet.\n"),
        ("status", {"auto_failover": 0}, "`wgctl uplink failover enable` turns it on"),
        ("status", {"enabled": 0}, "the service is switched off (option enabled)"),
        ("status", {"release_s": 12.0}, "Failback  in 12 s, if the WAN stays good\n"),
        (
            "status",
            ipv4("holding", carrying=False),
            "holding, leaves by x, and nothing comes back\n",
        ),
        ("status", ipv4("suspect", early_path="y"), f"suspect, leaves by x, {OF_EARLY_PATH}\n"),
        ("status", ipv4("holding", spread=["w", "x"]), "holding, leaves by x, shared with w\n"),
        ("consumers", {"offering": 0}, "This router does not offer its internet"),
        ("trust", {"peers": []}, "No mesh peer has been seen"),
        ("test", DEAD, DEAD_TEXT),
    ],
)
def test_other_replies_for_people(command: str, changes: dict[str, Any], wanted: str) -> None:
    name = f"uplink_{command}"
    assert wanted in render(name, {**canned()[name], **changes})


# --- watching


@contextlib.asynccontextmanager
async def watched(service: Service, *, json: bool) -> AsyncIterator[Terminal]:
    """The terminal on which the status is watched."""
    options = argparse.Namespace(socket=service.socket, json=json)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "stdout", terminal := Terminal())
        patched.setattr(main, "WATCH_S", 0.01)
        watching = asyncio.create_task(main._watch(METHODS["uplink_status"], options))
        yield terminal
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def test_the_status_is_watched_while_the_service_comes_and_goes(service: Service) -> None:
    """Over one connection."""
    async with watched(service, json=True) as terminal:

        def last() -> dict[str, Any]:
            found: dict[str, Any] = json.loads((terminal.getvalue().splitlines() or ["{}"])[-1])
            return found

        await until(lambda: last() == service.replies["uplink_status"])
        service.error = NotFound("it is away")
        await until(lambda: "it is away" in last().get("error", ""))
        service.error = None
        await until(lambda: last() == service.replies["uplink_status"])
    assert len(set(service.callers)) == 1


async def test_a_terminal_is_cleared_before_each_status(service: Service) -> None:
    async with watched(service, json=False) as terminal:
        await until(lambda: terminal.getvalue().count(main._CLEAR) > 2)
    before, *frames = terminal.getvalue().split(main._CLEAR)
    assert before == ""
    assert all(frame.startswith("State     ") for frame in frames)


@contextlib.asynccontextmanager
async def child(*words: str, **streams: Any) -> AsyncIterator[asyncio.subprocess.Process]:
    """`wgctl` in a process of its own, which ends with the block."""
    argv = [sys.executable, "-m", "rpcd_wireguard_uplink.cli.main", *words]
    made = await asyncio.create_subprocess_exec(*argv, cwd=ROOT, **streams)
    try:
        async with asyncio.timeout(30):
            yield made
    finally:
        if made.returncode is None:
            made.kill()
            await made.wait()


async def test_ctrl_c_ends_watching(service: Service) -> None:
    words = ("-s", service.socket, "uplink", "status", "--watch", "--json")
    # A shell that runs the tests in the background has Ctrl-C ignored.
    start = partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    async with child(*words, stdout=subprocess.PIPE, preexec_fn=start) as watching:
        assert watching.stdout is not None
        assert json.loads(await watching.stdout.readline()) == service.replies["uplink_status"]
        watching.send_signal(signal.SIGINT)
        assert await watching.wait() == 0


async def test_q_ends_watching_and_the_terminal_is_as_before(service: Service) -> None:
    outer, inner = pty.openpty()
    before = termios.tcgetattr(inner)
    words = ("status", "--watch", "-s", service.socket)
    try:
        async with child(*words, stdin=inner, stdout=subprocess.PIPE) as watching:
            assert watching.stdout is not None and await watching.stdout.readline()
            await until(lambda: not termios.tcgetattr(inner)[3] & termios.ICANON)
            os.write(outer, b"q")
            assert await watching.wait() == 0
        assert termios.tcgetattr(inner) == before
    finally:
        os.close(outer)
        os.close(inner)


# --- what is wrong


async def test_the_version_is_told(wgctl: Any) -> None:
    assert await wgctl("--version") == Said(0, f"wgctl {__version__}\n", "")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (NotFound("no offer of nodeA is known: wait for one, or give endpoint"), 4, "not_found"),
        (NotTrusted("nodeA is not trusted: add it to trusted_peer"), 6, "not_trusted"),
    ],
)
async def test_the_services_errors_are_told(
    service: Service, wgctl: Any, error: UplinkError, status: int, code: str
) -> None:
    service.error = error
    said = await wgctl("uplink", "add", "nodeA", "-s", service.socket)
    assert said == Said(status, "", f"{error}\n")
    said = await wgctl("uplink", "add", "nodeA", "--json", "-s", service.socket)
    assert (said.status, said.err) == (status, f"{error}\n")
    quoted = {"error_code": "reported", "error_args": [str(error)]}
    assert json.loads(said.out) == {"success": False, "error": str(error), "code": code, **quoted}


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("add", "the following arguments are required: PEER; see `wgctl uplink add --help`"),
        ("add 'a b'", 'begin with a letter or digit, not "a b"'),
        ("add a --weight heavy", 'weight must be a whole number, not "heavy"'),
        ("priority a -5", "weight must be from 1 to 100, not -5"),
        ("add a --weigh 5", "unrecognized arguments: --weigh 5"),
        ("stauts", "did you mean `wgctl uplink status`?"),
        ("failover maybe", 'enabled must be enable or disable, not "maybe"'),
        ("list \x1b[2J", "unrecognized arguments: \\x1b[2J"),
        ("history --limit 0", "limit must be from 1 to 200, not 0"),
        # Options as they were typed.
        ("offer --max-consumers 0", "--max-consumers must be from 1 to 200, not 0"),
        ("use nodea --for soon", "--for must be a number of seconds"),
    ],
)
async def test_a_wrong_command_line_is_2_and_calls_nothing(
    service: Service, wgctl: Any, line: str, sentence: str
) -> None:
    said = await wgctl("uplink", "-s", service.socket, *shlex.split(line))
    assert (said.status, said.out, service.calls) == (2, "", [])
    assert sentence in said.err and len(said.err.splitlines()) == 1


@pytest.mark.parametrize("argv", [(), ("uplink",)])
async def test_without_a_command_it_explains_itself(wgctl: Any, argv: tuple[str, ...]) -> None:
    said = await wgctl(*argv)
    assert said.status == 2
    assert "uplink" in said.err
    said = await wgctl(*argv, "--help")
    assert (said.status, said.err) == (0, "")


async def test_help_comes_from_the_table(wgctl: Any) -> None:
    said = await wgctl("uplink", "--help")
    text = " ".join(said.out.split())
    for method in METHODS.values():
        assert (method.doc in text) is (bool(method.command) and " " not in method.command)
    said = await wgctl("uplink", "trust", "--help")
    below = " ".join(said.out.split())
    assert METHODS["uplink_trust_accept"].doc in below
    said = await wgctl("uplink", "add", "--help")
    text = " ".join(said.out.split())
    for name, schema in METHODS["uplink_add"].arguments.properties.items():
        assert schema["description"] in text
        assert ("PEER" if name == "peer_id" else name.upper()) in text
    assert "For example: wgctl uplink add nodea --weight 50" in text


def test_every_example_is_a_command_line() -> None:
    for method in METHODS.values():
        if method.command:
            words = ["uplink", *method.command.split(), *method.example.split()]
            assert main.command_line().parse_args(words).run.args[0] is method


@pytest.mark.parametrize("words", [("status",), ("--json", "status"), ("-s", "status", "status")])
async def test_uplink_may_be_left_out(service: Service, words: tuple[str, ...]) -> None:
    parser = main.command_line()
    options = parser.parse_args(main._with_uplink(parser, list(words)))
    assert options.run.args[0] is METHODS["uplink_status"]
    assert main._with_uplink(parser, ["stauts"]) == ["stauts"]


async def test_a_test_that_fails_is_1(service: Service, wgctl: Any) -> None:
    assert (await wgctl("uplink", "drill", "-s", service.socket)).status == 1
    service.replies["uplink_test"]["reachable"] = False
    assert (await wgctl("uplink", "test", "nodeA", "-s", service.socket)).status == 1


def test_a_full_disk_is_told_in_a_sentence() -> None:
    words = [sys.executable, "-m", "rpcd_wireguard_uplink.cli.main", "uplink", "get"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert done.stderr == "the output can't be written: No space left on device\n"


async def test_without_a_bus_it_is_10_and_says_how_to_start(wgctl: Any, tmp_path: Path) -> None:
    socket = str(tmp_path / "nothing.sock")
    said = await wgctl("uplink", "status", "-s", socket)
    assert (said.status, said.out) == (10, "")
    assert socket in said.err
    assert f"`{start_command()}` starts it" in said.err
    said = await wgctl("uplink", "status", "--json", "-s", socket)
    assert said.status == 10
    assert json.loads(said.out)["success"] is False


async def test_a_bus_that_is_roots_alone_is_told(wgctl: Any, monkeypatch: Any) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("rpcd_wireguard_uplink.ubus.session.socket.socket.connect", refuse)
    said = await wgctl("uplink", "status", "-s", "/x.sock")
    assert said.err == "only root may use the bus at /x.sock: put sudo in front\n"
    assert said.status == 10


async def test_without_the_service_it_is_10(bus: str, wgctl: Any) -> None:
    said = await wgctl("uplink", "status", "-s", bus)
    assert (said.status, said.out) == (10, "")
    assert f"{OBJECT} is not on the bus" in said.err
    assert f"`{start_command()}` starts it" in said.err


def test_what_starts_the_service(tmp_path: Path) -> None:
    root = str(tmp_path)
    for there, command in (
        ("etc/hostname", "rpcd-wireguard-uplink serve --platform standalone --broker"),
        # A unit alone: systemd itself does not run.
        (UNIT, "rpcd-wireguard-uplink serve --platform standalone --broker"),
        ("run/systemd/system/x", "systemctl start wireguard-uplink"),
        ("etc/openwrt_release", "/etc/init.d/wireguard-uplink start"),
    ):
        (tmp_path / there).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / there).touch()
        assert start_command(root=root) == command
    assert start_command("restart", root) == "/etc/init.d/wireguard-uplink restart"


async def test_another_program_with_the_name_is_told(bus: str, wgctl: Any) -> None:
    client = Client(bus)
    await client.connect()
    try:
        other = BusObject(OBJECT, {}, lambda _call: Reply(status=Status.METHOD_NOT_FOUND))
        await client.publish(other)
        said = await wgctl("uplink", "status", "-s", bus)
    finally:
        await client.close()
    assert (said.status, said.out) == (3, "")
    assert "another program or release holds the name" in said.err


async def test_what_peers_say_can_not_reach_the_terminal(service: Service, wgctl: Any) -> None:
    def is_harmless(text: str) -> bool:
        return all(line.isprintable() for line in text.split("\n"))

    for name in ("uplink_list", "uplink_status", "uplink_add", "uplink_test", "uplink_history"):
        service.replies[name] = poisoned(service.replies[name], reply_schema(METHODS[name]).tree)
    for words, method, _ in COMMANDS:
        said = await wgctl("uplink", *words.split(), "-s", service.socket)
        assert said.status == (method == "uplink_drill")
        assert is_harmless(said.out) and "\nnext" not in said.out, method
        said = await wgctl("uplink", *words.split(), "-s", service.socket, "--json")
        assert said.out.isascii() and is_harmless(said.out)
    service.replies["uplink_test"]["reachable"] = False
    said = await wgctl("uplink", "test", "nodeA", "-s", service.socket)
    assert "evil" in said.out and is_harmless(said.out)
    service.error = NotFound(HOSTILE)
    said = await wgctl("uplink", "remove", "nodeA", "-s", service.socket)
    assert said.status == 4 and is_harmless(said.err)


def poisoned(value: Any, schema: dict[str, Any]) -> Any:
    """Return a reply with the hostile text in every string that its schema leaves free."""
    if isinstance(value, dict):
        return {k: poisoned(v, schema["properties"][k]) for k, v in value.items()}
    if isinstance(value, list):
        return [poisoned(v, schema["items"]) for v in value]
    if isinstance(value, str) and not {"enum", "pattern"} & schema.keys():
        return HOSTILE
    return value


async def test_a_reply_of_another_release_is_shown_as_it_is(
    service: Service, wgctl: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.replies["uplink_test"] = {"success": True, "new": 1}
    monkeypatch.setattr(f"{__name__}.check_reply", lambda _method, _reply: None)
    said = await wgctl("uplink", "test", "nodeA", "-s", service.socket)
    assert said.status == 0
    assert json.loads(said.out) == {"success": True, "new": 1}


async def test_progress_on_a_terminal_counts_and_goes_away(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.delay_s = 0.05
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    argv = ["uplink", "test", "nodeA", "-s", service.socket]
    assert await asyncio.to_thread(main.main, argv) == 0
    said = terminal.getvalue()
    assert said.startswith("\rsending probes through the tunnel ... 0 s")
    assert said.endswith("\r\x1b[K")


@pytest.mark.parametrize("no_color", [None, "1"])
async def test_colour_only_on_a_terminal_and_never_against_no_color(
    service: Service, monkeypatch: pytest.MonkeyPatch, no_color: str | None
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color is not None:
        monkeypatch.setenv("NO_COLOR", no_color)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    argv = ["uplink", "list", "-s", service.socket]
    assert await asyncio.to_thread(main.main, argv) == 0
    assert ("\x1b[32mup" in terminal.getvalue()) is (no_color is None)
    assert ("\x1b" in terminal.getvalue()) is (no_color is None)


async def test_a_closed_pipe_is_no_traceback(service: Service) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    words = ("uplink", "list", "-s", service.socket)
    async with child(*words, stdout=writing, stderr=subprocess.PIPE) as made:
        os.close(writing)
        _, err = await made.communicate()
    assert (made.returncode, err) == (0, b"")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "-"), (0, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (172800, "2 d")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
