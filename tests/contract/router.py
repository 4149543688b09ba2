"""A router of its own over this machine: real ubusd, rpcd and uhttpd, their files in an overlay.

Owns the files and the programs; all ends with the node. The dashboard is a small plugin in rpcd's
format, whose answers show every rule that rpcd has for plugins.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.lab.lab import Lab
from tests.lab.node import Child, LabError, Node, missing_tools
from tests.lab.overlay import TOP, inside, lay_over

PROJECT = Path(__file__).parents[2]
SOCKET = "/run/ubus.sock"
OBJECT = "luci.wireguard-dashboard"
PLUGIN = f"/usr/libexec/rpcd/{OBJECT}"
WGCTL = "/usr/sbin/wgctl"
LIBRARY = "/usr/lib/wireguard-dashboard/uplink.sh"
PASSWORD = "secret"
HASH = "$5$uplinktests$QkwOGdUfosS9z.mEf5g8G873Lp/AqoRRNqIuAadDg.3"  # crypt(PASSWORD)

PLUGIN_TEXT = """\
#!/bin/sh
case "$1" in
list)
	echo '{"status":{},"echo":{"text":"x","small":16,"flag":true,"rows":[]},"words":{},'
	echo '"nothing":{},"failing":{},"slow":{},"endless":{},"number":{},"two":{},"cut":{},'
	echo '"uplinks":{},"add_uplink":{"peer_pubkey":"x"}}'
	;;
call)
	case "$2" in
	status) echo '{"name":"plugin","big":4294967296,"half":0.5,"none":null,"yes":true}' ;;
	echo) read -r given; printf '{"given":%s}' "$given" ;;
	words) echo hello ;;
	number) echo 5 ;;
	two) echo '{"first":1} {"second":2}' ;;
	cut) printf '{"a":' ;;
	failing) echo '{"failed":1}'; echo oops >&2; exit 3 ;;
	slow) sleep 2; echo '{"slow":true}' ;;
	endless) echo $$ >/run/endless.pid; sleep 100 ;;
	uplinks) echo '{"uplinks":"of the plugin"}' ;;
	esac
	;;
esac
"""
RPCD_CONFIG = f"""\
config login
	option username 'root'
	option password '{HASH}'
	list read '*'
	list write '*'

config login
	option username 'guest'
	option password '{HASH}'
	list read 'unauthenticated'
"""
UNAUTHENTICATED = (
    '{"unauthenticated":{"description":"login","read":{"ubus":{"session":["access","login"]}}}}'
)
INIT_RPCD = """\
#!/bin/sh
[ "$1" = reload ] && kill -HUP "$(cat /run/rpcd.pid)" && echo reload >>/run/reloads
"""
CONFIG = """\
config wireguard-uplink 'uplink'
	option check_interval '60'
	list trusted_peer 'nodeA'
"""
SETUP = """\
mkdir {top}/run/rpcd {top}/run/wireguard
rm -rf {top}/etc/config {top}/etc/wireguard-uplink {top}/usr/libexec/rpcd {top}/usr/share/rpcd
mkdir -p {top}/etc/config {top}/usr/libexec/rpcd {top}/usr/share/rpcd/acl.d {top}/www
mkdir -p {top}/usr/sbin {top}/usr/lib/wireguard-dashboard {top}/etc/init.d
prefix={prefix}
[ "$prefix" = /usr ] || {{
  rm -rf {top}$prefix/libexec {top}$prefix/share/rpcd
  mkdir -p {top}$prefix/libexec {top}$prefix/share
  ln -s /usr/libexec/rpcd {top}$prefix/libexec/rpcd
  ln -s /usr/share/rpcd {top}$prefix/share/rpcd
}}
cp -R {project}/root/usr/. {top}/usr/
cp {project}/acl.d/*.json {top}/usr/share/rpcd/acl.d/
chmod -R go-w {top}/usr/share/rpcd
"""
POST = """\
import json, sys, urllib.request
request = urllib.request.Request("http://127.0.0.1:8080/ubus", data=sys.stdin.buffer.read())
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
print(opener.open(request, timeout=30).read().decode())
"""


class Router:
    """One router. `start_*` start the programs in the order of a boot."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.node: Node = lab.node("router")
        rpcd = os.path.realpath(shutil.which("rpcd") or "/usr/sbin/rpcd")
        self._rpcd = rpcd
        prefix = os.path.dirname(os.path.dirname(rpcd))
        lay_over(lab, self.node)
        words = {"top": TOP, "prefix": prefix, "project": PROJECT}
        self.node.sh(SETUP.format(**words), timeout_s=30)
        self.write("/etc/config/rpcd", RPCD_CONFIG)
        self.write("/etc/config/wireguard-uplink", CONFIG)
        self.write("/etc/init.d/rpcd", INIT_RPCD, mode=0o755)
        command = (
            f'PYTHONPATH={PROJECT} exec {sys.executable} -m rpcd_wireguard_uplink.cli.main "$@"'
        )
        self.write("/usr/bin/wgctl", f"#!/bin/sh\n{command}\n", mode=0o755)
        self.write("/usr/share/rpcd/acl.d/unauthenticated.json", UNAUTHENTICATED)
        self.service: Child | None = None

    # --- files

    def outside(self, path: str) -> str:
        """A path of the router as this process reaches it."""
        return os.path.join("/proc", str(self.node.pid), "root" + TOP + path)

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        file = Path(self.outside(path))
        file.write_text(text, encoding="utf-8")
        file.chmod(mode)

    def read(self, path: str) -> str:
        return Path(self.outside(path)).read_text(encoding="utf-8")

    def mode(self, path: str) -> int:
        return os.stat(self.outside(path)).st_mode & 0o7777

    def install_dashboard(self) -> None:
        self.write(PLUGIN, PLUGIN_TEXT, mode=0o755)
        for path in (WGCTL, LIBRARY):
            self.run("rm", "-f", path)
            self.write(path, '#!/bin/sh\necho "the dashboard was asked: $*"\n', mode=0o755)

    # --- programs

    def run(self, *argv: str, input: str | None = None, check: bool = True) -> str:
        return self.node.run(inside(*argv), input=input, timeout_s=40, check=check).stdout

    def _start(self, *argv: str, log: str, path: str = "") -> Child:
        with open(self.lab.path("logs", log), "a", encoding="utf-8") as file:
            child = self.node.popen(
                inside(*argv),
                stdout=file,
                stderr=file,
                env={"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"},
            )
        return self.lab.at_close(child)

    def log(self, name: str = "service") -> str:
        return Path(self.lab.path("logs", name)).read_text(encoding="utf-8")[-4000:]

    def start_ubusd(self) -> Child:
        self.bus = self._start("ubusd", "-s", SOCKET, log="ubusd")
        self.until(lambda: os.path.exists(self.outside(SOCKET)), "ubusd")
        return self.bus

    def start_rpcd(self) -> None:
        script = f"echo $$ >/run/rpcd.pid; exec {self._rpcd} -s {SOCKET} -t 30"
        self.rpcd = self._start("sh", "-c", script, log="rpcd")
        # Plugins are asked for their methods one by one, after rpcd's own objects are there.
        hosts_plugin = os.path.exists(self.outside(PLUGIN)) and self.mode(PLUGIN) & 0o111
        awaited = {"session", OBJECT} if hosts_plugin else {"session"}
        self.until(lambda: awaited <= {*self.objects()}, "rpcd")

    def start_uhttpd(self) -> None:
        words = ["uhttpd", "-f", "-p", "127.0.0.1:8080", "-h", "/www", "-u", "/ubus", "-U", SOCKET]
        self.uhttpd = self._start(*words, log="uhttpd")

    def start_service(self, python_path: str = str(PROJECT)) -> Child:
        words = [sys.executable, "-m", "rpcd_wireguard_uplink", "serve", "--socket", SOCKET]
        self.service = self._start(
            *words, "--platform", "standalone", log="service", path=python_path
        )
        return self.service

    # --- the bus

    def ubus(self, *words: str) -> tuple[int, str]:
        done = self.node.run(inside("ubus", "-s", SOCKET, "-S", *words), timeout_s=40, check=False)
        return done.returncode, done.stdout

    def objects(self) -> list[str]:
        return self.ubus("list")[1].split()

    def call(self, method: str, **arguments: Any) -> tuple[int, Any]:
        """Status and reply, None where there was none."""
        status, out = self.ubus("call", OBJECT, method, json.dumps(arguments))
        return status, json.loads(out) if out.strip() else None

    def signature(self) -> str:
        """The object's methods as `ubus -v list` prints them."""
        words = ["ubus", "-s", SOCKET, "-v", "list", OBJECT]
        return self.node.run(inside(*words), check=False).stdout

    def owner(self) -> str:
        """Who answers under the name: "ours", "plugin" or ""."""
        listed = self.signature()
        if '"uplink_list"' in listed:
            return "ours"
        return "plugin" if '"add_uplink"' in listed else ""

    def until(self, fits: Callable[[], object], what: str, timeout_s: float = 30.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not fits():
            if time.monotonic() > deadline:
                logs = "\n".join(
                    f"--- {name}\n{self.log(name)}"
                    for name in os.listdir(self.lab.path("logs", ""))
                )
                raise LabError(f"waited {timeout_s:g} s in vain: {what}\n{logs}")
            time.sleep(0.05)

    # --- the web

    def post(self, request: Any) -> Any:
        """The reply of uhttpd's /ubus to a request or a batch."""
        return json.loads(self.run(sys.executable, "-c", POST, input=json.dumps(request)))

    def web_call(self, session: str, method: str, arguments: dict[str, Any], path: str = OBJECT):
        return {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "call",
            "params": [session, path, method, arguments],
        }

    def login(self, user: str) -> str:
        """The id of a new session."""
        arguments = {"username": user, "password": PASSWORD}
        reply = self.post(self.web_call("0" * 32, "login", arguments, "session"))
        return str(reply["result"][1]["ubus_rpc_session"])


def missing() -> list[str]:
    """The real programs that are not here."""
    return missing_tools(("ubusd", "ubus", "rpcd", "uhttpd"))
