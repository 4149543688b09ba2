"""`wgctl`: the command line against a real bus with a service that answers from canned replies."""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
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

KEY = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="
ROOT = Path(__file__).resolve().parents[3]
DATA = ROOT / "tests" / "data"
SHOWN = DATA / "wgctl.txt"
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
    "argv",
    [
        ("-s", "{}", "--json", "uplink", "status"),
        ("uplink", "-s", "{}", "--json", "status"),
        ("uplink", "status", "-s", "{}", "--json"),
        ("--json", "uplink", "status", "--socket={}"),
    ],
)
async def test_common_options_stand_anywhere(
    service: Service, wgctl: Any, argv: tuple[str, ...]
) -> None:
    said = await wgctl(*(word.format(service.socket) for word in argv))
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
            {"families": {"ipv4": {"state": "failed_over", "active_path": "x", "carrying": False}}},
            "IPv4      failed_over, leaves by x, and nothing comes back\n",
        ),
        (
            "status",
            {"families": {"ipv4": {"state": "suspect", "active_path": "x", "early_path": "y"}}},
            "IPv4      suspect, leaves by x, new connections by y, since the WAN is in doubt\n",
        ),
        (
            "status",
            {
                "families": {
                    "ipv4": {"state": "failed_over", "active_path": "x", "spread": ["w", "x"]}
                }
            },
            "IPv4      failed_over, leaves by x, shared with w\n",
        ),
        ("consumers", {"offering": 0}, "This router does not offer its internet"),
        ("trust", {"peers": []}, "No mesh peer has been seen"),
        (
            "test",
            {"reachable": False, "received": 0, "handshake_age_s": -1, "error": "it is silent"},
            "nodeA does not carry traffic: 0 of 5 probes to 1.1.1.1 were answered through "
            "wgup_nodea\nit is silent\nThere was no handshake yet\n",
        ),
    ],
)
def test_other_replies_for_people(command: str, changes: dict[str, Any], wanted: str) -> None:
    name = f"uplink_{command}"
    assert wanted in render(name, {**canned()[name], **changes})


async def test_status_is_watched(service: Service) -> None:
    """Once a second over one connection, also while the service is away, until Ctrl-C."""
    argv = [sys.executable, "-m", "rpcd_wireguard_uplink.cli.main", "-s", service.socket]
    child = await asyncio.create_subprocess_exec(
        *(*argv, "uplink", "status", "--watch", "--json"),
        stdout=subprocess.PIPE,
        cwd=ROOT,
        # A shell that runs the tests in the background has Ctrl-C ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert child.stdout is not None

    async def following() -> Any:
        return json.loads(await asyncio.wait_for(child.stdout.readline(), 30))

    try:
        assert await following() == service.replies["uplink_status"]
        service.error = NotFound("it is away")
        while "it is away" not in (shown := await following()).get("error", ""):
            assert shown == service.replies["uplink_status"]
        service.error = None
        while "error" in await following():
            pass
        child.send_signal(signal.SIGINT)
        await asyncio.wait_for(child.wait(), 30)
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    assert child.returncode == 0
    assert len(set(service.callers)) == 1


async def test_q_ends_watching_and_the_terminal_is_as_before(service: Service) -> None:
    outer, inner = pty.openpty()
    before = termios.tcgetattr(inner)
    words = ["-m", "rpcd_wireguard_uplink.cli.main", "status", "--watch", "-s", service.socket]
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(
        sys.executable, *words, cwd=ROOT, stdin=inner, stdout=pipe
    )
    try:
        async with asyncio.timeout(30):
            assert child.stdout is not None and await child.stdout.readline()
            while termios.tcgetattr(inner)[3] & termios.ICANON:
                await asyncio.sleep(0.02)
            os.write(outer, b"q")
            assert await child.wait() == 0
        assert termios.tcgetattr(inner) == before
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
        os.close(outer)
        os.close(inner)


async def test_a_terminal_is_cleared_before_each_status(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(main, "WATCH_S", 0.01)
    options = argparse.Namespace(socket=service.socket, json=False)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2):
            await main._watch(METHODS["uplink_status"], options)
    frames = terminal.getvalue().split(main._CLEAR)
    assert frames[0] == "" and len(frames) > 2
    assert all(frame.startswith("State     ") for frame in frames[1:])


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
    assert json.loads(said.out) == {"success": False, "error": str(error), "code": code}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("add",), "the following arguments are required: PEER; see `wgctl uplink add --help`"),
        (("add", "a b"), 'begin with a letter or digit, not "a b"'),
        (("add", "a", "--weight", "heavy"), 'weight must be a whole number, not "heavy"'),
        (("priority", "a", "-5"), "weight must be from 1 to 100, not -5"),
        (("add", "a", "--weigh", "5"), "unrecognized arguments: --weigh 5"),
        (("stauts",), "did you mean `wgctl uplink status`?"),
        (("failover", "maybe"), 'enabled must be enable or disable, not "maybe"'),
        (("list", "\x1b[2J"), "unrecognized arguments: \\x1b[2J"),
        (("history", "--limit", "0"), "limit must be from 1 to 200, not 0"),
    ],
)
async def test_a_wrong_command_line_is_2_and_calls_nothing(
    service: Service, wgctl: Any, words: tuple[str, ...], sentence: str
) -> None:
    said = await wgctl("uplink", "-s", service.socket, *words)
    assert said.status == 2
    assert sentence in said.err
    assert len(said.err.splitlines()) == 1
    assert said.out == ""
    assert service.calls == []


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


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("offer", "--max-consumers", "0"), "--max-consumers must be from 1 to 200, not 0"),
        (("use", "nodea", "--for", "soon"), "--for must be a number of seconds"),
        (("priority", "nodea", "101"), "weight must be from 1 to 100, not 101"),
    ],
)
async def test_an_error_names_what_was_typed(wgctl: Any, words: tuple[str, ...], said: str) -> None:
    done = await wgctl("uplink", *words)
    assert done.status == 2 and done.err.startswith(said)


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
    assert start_command(root=root) == "rpcd-wireguard-uplink serve --platform standalone --broker"
    (tmp_path / "usr/lib/systemd/system").mkdir(parents=True)
    (tmp_path / "usr/lib/systemd/system/wireguard-uplink.service").touch()
    assert start_command(root=root).endswith("--broker")  # systemd itself does not run
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    assert start_command(root=root) == "systemctl start wireguard-uplink"
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/openwrt_release").touch()
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
    for name in ("uplink_list", "uplink_status", "uplink_add", "uplink_test", "uplink_history"):
        service.replies[name] = poisoned(service.replies[name], reply_schema(METHODS[name]).tree)
    for words, method, _ in COMMANDS:
        said = await wgctl("uplink", *words.split(), "-s", service.socket)
        assert said.status == (method == "uplink_drill")
        assert all(line.isprintable() for line in said.out.split("\n")), method
        assert not any(line.startswith("next") for line in said.out.splitlines())
        said = await wgctl("uplink", *words.split(), "-s", service.socket, "--json")
        assert said.out.isascii()
        assert all(line.isprintable() for line in said.out.split("\n"))
    service.replies["uplink_test"]["reachable"] = False
    said = await wgctl("uplink", "test", "nodeA", "-s", service.socket)
    assert "evil" in said.out
    assert all(line.isprintable() for line in said.out.split("\n"))
    service.error = NotFound(HOSTILE)
    said = await wgctl("uplink", "remove", "nodeA", "-s", service.socket)
    assert said.status == 4
    assert all(line.isprintable() for line in said.err.split("\n"))


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
    service.delay_s = 0.3
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    argv = ["uplink", "test", "nodeA", "-s", service.socket]
    assert await asyncio.to_thread(main.main, argv) == 0
    said = terminal.getvalue()
    assert said.startswith("\rsending probes through the tunnel ... 0 s")
    assert said.endswith("\r\x1b[K")


async def test_colour_only_on_a_terminal_and_never_against_no_color(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    argv = ["uplink", "list", "-s", service.socket]
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    assert await asyncio.to_thread(main.main, argv) == 0
    assert "\x1b[32mup" in terminal.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    assert await asyncio.to_thread(main.main, argv) == 0
    assert "\x1b" not in terminal.getvalue()


async def test_a_closed_pipe_is_no_traceback(service: Service) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "rpcd_wireguard_uplink.cli.main"),
        *("uplink", "list", "-s", service.socket),
        stdout=writing,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    )
    os.close(writing)
    _, err = await asyncio.wait_for(child.communicate(), 30)
    assert (child.returncode, err) == (0, b"")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "-"),
        (0, "0 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7200, "2 h"),
        (172800, "2 d"),
        (1e9, "11574 d"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
