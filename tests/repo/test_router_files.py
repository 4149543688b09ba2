"""The shell scripts of a router: what they ask of procd, of `uci` and of the bus, and how fast."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rpcd_wireguard_uplink.extras.standalone.broker import Broker
from rpcd_wireguard_uplink.schema.shapes import PEER_ID
from rpcd_wireguard_uplink.ubus.client import Client
from tests.repo import ROOT

TREE = ROOT / "root"
INIT = TREE / "etc/init.d/wireguard-uplink"
DEFAULTS = TREE / "etc/uci-defaults/90-wireguard-uplink"
HOTPLUG = TREE / "etc/hotplug.d/iface/17-wireguard-uplink"
KEPT = TREE / "lib/upgrade/keep.d/wireguard-uplink"
GOSSIP = TREE / "usr/libexec/wireguard-uplink/gossip-handler.sh"


def scripts() -> list[Path]:
    """Every shell script of ours that a router gets."""
    files = (path for path in sorted(TREE.rglob("*")) if path.is_file())
    return [path for path in files if path.read_bytes().startswith(b"#!/bin/sh")]


def test_the_scripts_are_found() -> None:
    assert {INIT, DEFAULTS, HOTPLUG} <= set(scripts())


@pytest.mark.needs("shellcheck")
@pytest.mark.parametrize("path", scripts(), ids=lambda path: path.name)
def test_a_script_suits_busybox(path: Path) -> None:
    # BusyBox's shell is a relative of dash; this version of the program may not know it by name.
    words = ["shellcheck", "--shell=dash", str(path)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def run_script(text: str, *, path: Path | None = None, **variables: str) -> str:
    """Run shell text with nothing in the environment but PATH and what is given."""
    search = os.environ["PATH"] if path is None else f"{path}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-c", text],
        env={"PATH": search, **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def command(directory: Path, name: str, body: str) -> None:
    """Make a command of that name."""
    path = directory / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


# --- procd

PROCD = "\n".join(
    f'{name}() {{ echo "{name} $*"; }}'
    for name in (
        *("procd_open_instance", "procd_set_param", "procd_close_instance"),
        *("procd_add_reload_trigger", "procd_send_signal"),
    )
)


def asked_of_procd(function: str, tmp_path: Path) -> list[str]:
    command(tmp_path, "dashboard", 'echo "dashboard $*"')
    copy = tmp_path / "init"
    ours = "/usr/libexec/wireguard-uplink/dashboard"
    copy.write_text(INIT.read_text().replace(ours, str(tmp_path / "dashboard")))
    return run_script(f"set -f; {PROCD}\n. {copy}\n{function}").splitlines()


def test_the_service_is_kept_running(tmp_path: Path) -> None:
    linked, *asked = asked_of_procd("start_service", tmp_path)
    assert linked == "dashboard link"
    assert asked[0].strip() == "procd_open_instance"
    assert asked[-1].strip() == "procd_close_instance"
    parameters = dict(line.removeprefix("procd_set_param ").split(" ", 1) for line in asked[1:-1])
    assert parameters == {
        "command": "/usr/bin/rpcd-wireguard-uplink serve --syslog",
        "respawn": "60 2 0",
        "stderr": "1",
        "pidfile": "/var/run/wireguard-uplink.pid",
        "term_timeout": "10",
    }


def test_a_reload_is_a_signal(tmp_path: Path) -> None:
    told = asked_of_procd("reload_service", tmp_path)
    assert told == ["procd_send_signal wireguard-uplink * HUP"]
    told = asked_of_procd("service_triggers", tmp_path)
    assert told == ["procd_add_reload_trigger wireguard-uplink"]


def test_rc_common_starts_it() -> None:
    assert INIT.read_text().startswith("#!/bin/sh /etc/rc.common\n")
    assert os.access(INIT, os.X_OK)
    order = run_script(f'. {INIT}; echo "$USE_PROCD $START $STOP"').split()
    assert order[0] == "1"
    network_start, network_stop = 20, 90  # OpenWrt's package/network/config/netifd
    assert network_start < int(order[1]) < 100 and int(order[2]) < network_stop


# --- uci-defaults


def test_defaults_make_the_folder_of_the_keys(tmp_path: Path) -> None:
    command(tmp_path, "uci", "exit 0")
    run_script(f". {DEFAULTS}", path=tmp_path, IPKG_INSTROOT=str(tmp_path))
    for name in ("etc/wireguard-uplink", "etc/wireguard-uplink/keys"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o700


@pytest.mark.needs("uci")
@pytest.mark.parametrize("before", [None, "", "config uplink 'wgup_a'\n\toption peer_id 'a'\n"])
def test_defaults_complete_a_configuration(tmp_path: Path, before: str | None) -> None:
    config = tmp_path / "etc/config"
    config.mkdir(parents=True)
    file = config / "wireguard-uplink"
    if before is not None:
        file.write_text(before)
    real = shutil.which("uci")
    command(tmp_path, "uci", f'exec {real} -c {config} -t {tmp_path / "changes"} "$@"')
    for _ in range(2):
        run_script(f". {DEFAULTS}", path=tmp_path, IPKG_INSTROOT=str(tmp_path))
        text = file.read_text()
        assert text.count("config wireguard-uplink 'uplink'") == 1
        assert (before or "").strip() in text


@pytest.mark.needs("uci")
def test_defaults_leave_what_is_there(tmp_path: Path) -> None:
    config = tmp_path / "etc/config"
    config.mkdir(parents=True)
    shutil.copy(TREE / "etc/config/wireguard-uplink", config)
    before = (config / "wireguard-uplink").read_bytes()
    command(tmp_path, "uci", f'exec {shutil.which("uci")} -c {config} "$@"')
    run_script(f". {DEFAULTS}", path=tmp_path, IPKG_INSTROOT=str(tmp_path))
    assert (config / "wireguard-uplink").read_bytes() == before


# --- hotplug


def test_an_event_is_sent(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command(tmp_path, "ubus", f'printf "%s\n" "$@" >{log}.new && mv {log}.new {log}')
    news = {"ACTION": "ifup", "INTERFACE": "wan", "DEVICE": "br-lan.5@x"}
    run_script(f"( . {HOTPLUG} )", path=tmp_path, **news)
    deadline = time.monotonic() + 30
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert log.read_text().splitlines() == [
        *("-t", "2", "send", "wireguard-uplink.hotplug"),
        '{"action":"ifup","interface":"wan","device":"br-lan.5@x"}',
    ]


@pytest.mark.parametrize(
    "variables",
    [
        {"ACTION": "ifupdate", "INTERFACE": "wan"},
        {"ACTION": "connected", "INTERFACE": "wan", "FIRSTCONNECT": "1"},
        {"ACTION": "disconnected", "INTERFACE": "wan", "MWAN3_SHUTDOWN": "1"},
        {"ACTION": "connected", "INTERFACE": ""},
        {"ACTION": "connected", "INTERFACE": 'w"an'},
        {"ACTION": "connected", "INTERFACE": "wan", "DEVICE": "a\\b"},
        {"ACTION": "connected", "INTERFACE": "wan", "DEVICE": "a\nb"},
    ],
)
def test_no_event_is_sent(tmp_path: Path, variables: dict[str, str]) -> None:
    command(tmp_path, "ubus", f"touch {tmp_path}/called")
    # Sourced without a subshell, and its exits taken away, so that `wait` sees what it started.
    text = HOTPLUG.read_text().replace("exit 0", "return 0")
    (tmp_path / "script").write_text(text)
    run_script(f". {tmp_path}/script; wait", path=tmp_path, **variables)
    assert not (tmp_path / "called").exists()
    run_script(f". {tmp_path}/script; wait", path=tmp_path, ACTION="ifup", INTERFACE="wan")
    assert (tmp_path / "called").exists()


def test_a_bus_that_hangs_delays_nobody(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    command(tmp_path, "ubus", f"echo $$ >{pid}.new; mv {pid}.new {pid}; exec sleep 60")
    began = time.monotonic()
    run_script(f"( . {HOTPLUG} )", path=tmp_path, ACTION="ifdown", INTERFACE="wan", DEVICE="eth1")
    assert time.monotonic() - began < 30
    while not pid.exists() and time.monotonic() - began < 30:
        time.sleep(0.01)
    os.kill(int(pid.read_text()), signal.SIGKILL)


SEND = """
import json, sys
from rpcd_wireguard_uplink.ubus import encode_table
from rpcd_wireguard_uplink.ubus.blocking import BlockingBus
socket, _, _, command, name, data = sys.argv[1:]
bus = BlockingBus(socket)
bus.ask(bus.connection.send_event(name, encode_table(json.loads(data))))
"""
"""`ubus -t SECONDS send NAME JSON`, for where the command is not."""


async def test_the_event_on_a_bus(tmp_path: Path) -> None:
    socket = str(tmp_path / "ubus.sock")
    (tmp_path / "send.py").write_text(SEND)
    ours = f'PYTHONPATH={ROOT} exec {sys.executable} {tmp_path}/send.py {socket} "$@"'
    real = shutil.which("ubus")
    command(tmp_path, "ubus", f'exec {real} -s {socket} "$@"' if real else ours)
    broker, client = Broker(socket), Client(socket)
    heard: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    await broker.start()
    try:
        await client.connect()
        await client.listen("wireguard-uplink.hotplug", lambda _, data: heard.put_nowait(data))
        text, news = f"( . {HOTPLUG} )", {"ACTION": "disconnected", "INTERFACE": "wan"}
        await asyncio.to_thread(run_script, text, path=tmp_path, **news)
        async with asyncio.timeout(30):
            told = await heard.get()
        assert told == {"action": "disconnected", "interface": "wan", "device": ""}
    finally:
        await client.close()
        await broker.close()


# --- mirrornet's gossip


def handle(*words: str, path: Path) -> subprocess.CompletedProcess[str]:
    """Run the handler as mirrornet does, with nothing in the environment but PATH."""
    env = {"PATH": f"{path}:{os.environ['PATH']}"}
    return subprocess.run(
        [str(GOSSIP), *words], env=env, capture_output=True, text=True, timeout=60, check=False
    )


HOSTILE = [
    '{"type":"uplink_offer"}',
    '{ "a": "it\'s", "b": "\\"\\\\ \\n" }',
    '{"a":1},"origin":null,"x":{"b":1}',
    '","origin":"nodeB","x":"',
    "$(touch owned) `touch owned` ${HOME} %s %d !! ~ *",
    "-n",
    "--help",
    "\\",
    '"',
    '{"a":\t1,\r\n"b":2}\n\n',
    "\x01\x1f\x7f",
    "ä€😀",
    "x" * 16384,
    '"' * 16384,
    " ",
    "",
]


@pytest.mark.parametrize("data", HOSTILE, ids=lambda data: repr(data[:20]))
@pytest.mark.parametrize("action", [[], ["uplink_offer"]], ids=["plain", "action"])
def test_a_message_of_the_gossip_stays_one_text(
    tmp_path: Path, data: str, action: list[str]
) -> None:
    command(tmp_path, "ubus", f'printf "%s\\0" "$@" >{tmp_path}/called')
    done = handle("handle", *action, data, "nodeA", path=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    *words, text, end = (tmp_path / "called").read_text().split("\0")
    assert words == ["-t", "5", "-S", "call", "luci.wireguard-dashboard", "uplink_gossip"]
    control = dict.fromkeys((*range(32), 127), " ")
    assert json.loads(text) == {"message": data.translate(control), "origin": "nodeA"}
    assert end == "" and {path.name for path in tmp_path.iterdir()} == {"ubus", "called"}


@pytest.mark.parametrize(
    ("origin", "told"),
    [
        ("did:plc:0123abcd", "0123abcd"),
        ("sb-0011aabbccdd", "sb-0011aabbccdd"),
        ("", "unknown"),
        ("did:plc:", "unknown"),
        ("-a", "unknown"),
        ('a","b', "a...b"),
        ("a\nb", "a.b"),
        ("ä", "unknown"),
        ("x" * 100, "x" * 64),
    ],
)
def test_the_origin_is_always_told(tmp_path: Path, origin: str, told: str) -> None:
    command(tmp_path, "ubus", f'printf "%s\\0" "$@" >{tmp_path}/called')
    assert handle("handle", "{}", origin, path=tmp_path).returncode == 0
    text = (tmp_path / "called").read_text().split("\0")[-2]
    assert json.loads(text) == {"message": "{}", "origin": told}
    assert re.fullmatch(PEER_ID["pattern"], told)


@pytest.mark.parametrize(
    "words",
    [
        ["handle", "offer", "x" * 16385, "nodeA"],
        ["handle", "ä" * 8193, "nodeA"],
        ["handle", "{}"],
        ["handle", "a", "{}", "nodeA", "more"],
        ["other", "{}", "nodeA"],
        [],
    ],
    ids=lambda words: " ".join(words)[:20],
)
def test_no_message_is_handed_in(tmp_path: Path, words: list[str]) -> None:
    command(tmp_path, "ubus", f"touch {tmp_path}/called")
    done = handle(*words, path=tmp_path)
    assert done.returncode in (1, 2) and done.stderr.count("\n") == 1
    assert not (tmp_path / "called").exists()


def test_a_message_that_is_refused(tmp_path: Path) -> None:
    command(tmp_path, "ubus", "exit 6")
    assert handle("handle", "offer", "{}", "nodeA", path=tmp_path).returncode == 6


def test_the_handler_lies_where_mirrornet_has_its_handlers() -> None:
    link = TREE / "usr/lib/wireguard-uplink/gossip-handler.sh"
    assert link.resolve() == GOSSIP.resolve() and not os.readlink(link).startswith("/")
    assert os.access(GOSSIP, os.X_OK)


# --- sysupgrade


def test_what_a_sysupgrade_keeps() -> None:
    kept = KEPT.read_text().split()
    own = ["/etc/config/wireguard-uplink", "/etc/wireguard-uplink/", "/etc/wireguard-uplink.d/"]
    assert kept == own
    assert (TREE / kept[0].lstrip("/")).is_file()
