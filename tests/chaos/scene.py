"""A router that is broken again and again, with a peer that serves it and asks of it.

    keeper, peer == segment and mesh == router (standalone, or OpenWrt with a double of netifd)

The uplink to `keeper` is there throughout. All that the service keeps or makes is seen as one text,
without keys, times and addresses that are chosen anew each time: two of them are equal where the
router is in the same state.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import random
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from rpcd_wireguard_uplink.errors import BusError, UplinkError
from rpcd_wireguard_uplink.ubus.blocking import BlockingBus
from tests.lab.altered_service import AlteredService
from tests.lab.lab import Lab, ready
from tests.lab.mesh import mesh_network
from tests.lab.node import Child, LabError, Node
from tests.lab.peers import Peer, trust_each_other
from tests.lab.provider import make_provider
from tests.lab.router import configure_uplink, settings
from tests.lab.service import Service, variables

from .child import MANY_LEASES

SETTLED_S = 20.0
RESTED_S = 60.0
FIREWALL = "config zone\n\toption name 'wan'\n\toption masq '1'\n\tlist network 'wan'\n"
NETWORK = """\
config interface 'wan'   # the owner's own
	option proto 'static'
	option device 'wan'

config interface 'wgup_mine'
	option proto 'none'
"""
STUBS = {
    "fw4": "#!/bin/sh\nexit 0\n",
    "firewall": """\
#!/bin/sh
nft delete table inet fw4 2>/dev/null
grep -q wgup_zone {etc}/config/firewall && ours='chain input_wgup {{ jump refuse; }};'
echo "table inet fw4 {{ chain input {{ }}; chain refuse {{ }}; $ours }}" | nft -f -
""",
}
KERNEL = r"""set +e
ip -j link | tr '{' '\n' | grep -o '"ifname":"\(wgup\|ifb\)[^}]*' |
  grep -o '"\(ifname\|mtu\|group\|ifalias\)":[^,]*'
ip -o address | grep -o '\(wgup\|ifb\).*scope global' | sort
wg show all allowed-ips | grep wgup | sort
for n in 4 6; do ip -$n rule; ip -$n route show table all | grep 'table 5[0-9][0-9][0-9]'; done |
  sed 's/metric [0-9]*//' | sort
nft list tables | sort
nft list table inet wgup | grep -v counter | grep -o 'wgup_[a-z0-9]*' | sort -u
for table in wgup_inbound wgup_provider; do nft -t list table inet $table; done 2>/dev/null
tc qdisc | grep -o '.*dev wgup[^ ]*'; tc class show dev wgup_srv 2>/dev/null; true
"""
REBOOT = r"""set +e
for name in $(ls /sys/class/net); do
  case $name in wgup*|ifb*) ip link delete $name || true;; esac
done
for n in 4 6; do
  ip -$n rule flush; ip -$n rule add pref 32766 lookup main
  ip -$n route show table all | grep -o 'table 5[0-9][0-9][0-9]' | sort -u |
    while read -r _ table; do ip -$n route flush table $table; done
done
ip rule add pref 32767 lookup default
nft list tables | grep -v wan_nat | while read -r table; do nft delete $table; done
"""
CHANGING = (
    (r"[A-Za-z0-9+/]{43}=", "KEY"),
    (r"\b10\.(?!9\.0\.)\d+\.\d+\.\d+\b", "ADDRESS"),
    (r"\bfd[0-9a-f]{2}:[0-9a-f:]+", "ADDRESS"),
    (r"\b1[6-9]\d{8}\b", "TIME"),
    (r"consumer_[0-9a-f]{8}", "consumer"),
    (r"counter packets \d+ bytes \d+", "counter"),
    (r"(expires|timeout) [0-9smhd]+", r"\1"),
    (r"filter .*fh 8[0-9a-f]+:.*|  (match|\*flowid).*", ""),
)


class Fork:
    """A forked service as tests/lab has its children."""

    def __init__(self, forker: Forker) -> None:
        self._forker = forker

    @property
    def returncode(self) -> int | None:
        found: int | None = self._forker.do("poll")
        return found

    def wait(self) -> int:
        return int(self._forker.do("wait"))

    def signal(self, number: int) -> None:
        self._forker.do("signal", number=number)

    def stop(self) -> int:
        self.signal(15)
        deadline = time.monotonic() + 15.0
        while self.returncode is None and time.monotonic() < deadline:
            time.sleep(0.02)
        return self.kill()

    def kill(self) -> int:
        self.signal(9)
        return self.wait()


class Forker:
    """What forks the services of one node."""

    def __init__(self, lab: Lab, node: Node, path: str) -> None:
        argv = ["env", f"PATH={path}:{os.environ['PATH']}:/usr/sbin:/sbin"]
        argv += [sys.executable, "-m", "tests.chaos.child"]
        pipe = subprocess.PIPE
        self._child = lab.at_close(node.popen(argv, stdin=pipe, stdout=pipe, env=variables()))
        self._lock = threading.Lock()  # who changes something is another thread than who looks on

    def do(self, what: str, **more: Any) -> Any:
        """Give an order; its answer."""
        stdin, stdout = self._child.entered.stdin, self._child.entered.stdout
        assert stdin is not None and stdout is not None
        with self._lock:
            stdin.write(json.dumps({"do": what, **more}) + "\n")
            stdin.flush()
            return json.loads(stdout.readline())


class ForkedService(Service):
    """A service whose files are below one folder, `etc`, but for what a reboot takes away."""

    def __init__(self, lab: Lab, node: Node, config_text: str, platform: str) -> None:
        self.etc = lab.path(node.name, "etc", "").rstrip("/")
        self.run_dir = lab.path(node.name, "run", "").rstrip("/")
        self.platform = platform
        super().__init__(lab, node, config_text)
        shutil.rmtree(self.config_dir)
        self.config_dir = os.path.join(self.etc, "config")
        self.config_file = os.path.join(self.config_dir, "wireguard-uplink")
        self.keys_dir = os.path.join(self.etc, "wireguard-uplink", "keys")
        self.state_file = os.path.join(self.run_dir, "state.json")
        self.note = os.path.join(self.folder, "cut")
        os.makedirs(self.config_dir)
        self.configure(config_text)
        self.forker = Forker(lab, node, os.path.join(self.folder, "bin"))
        self.bus: Child | None = None
        self.can_strike = True

    def write(self, config: str, text: str) -> None:
        """Write another of the configuration's files."""
        with open(os.path.join(self.config_dir, config), "w", encoding="ascii") as file:
            file.write(text)

    @property
    def argv(self) -> list[str]:
        return [
            *("serve", "--platform", self.platform, "--socket", self.socket),
            *("--config-dir", self.config_dir, "--keys-dir", self.keys_dir),
            *("--state-file", self.state_file, "--hooks-dir", os.path.join(self.etc, "hooks")),
        ]

    def start_bus(self) -> None:
        """Start the bus, and netifd on a router."""
        argv = [sys.executable, "-m", "tests.chaos.netifd", self.socket, self.config_dir]
        if self.platform != "openwrt":
            argv = [sys.executable, "-m", "rpcd_wireguard_uplink.extras.standalone", "broker"]
            argv += ["-s", self.socket]
        pipe = subprocess.PIPE
        with open(self.log_file, "a", encoding="utf-8") as log:  # a full pipe would stop the bus
            err = pipe if self.platform == "openwrt" else log
            self.bus = self.node.popen(argv, stdout=pipe, stderr=err, env=variables())
        self._lab.at_close(self.bus)
        if self.platform == "openwrt":
            ready(self.bus)
            return
        deadline = time.monotonic() + 10.0
        while time.monotonic() < deadline:
            with contextlib.suppress(BusError):
                BlockingBus(self.socket).close()
                return
            time.sleep(0.005)
        raise LabError("no bus")

    def start(self, *, timeout_s: float = 10.0, wait: bool = True) -> float:
        began = time.monotonic()
        self.forker.do(
            "start",
            argv=self.argv,
            log=self.log_file,
            root=self.etc,
            note=self.note if self.can_strike else "",
        )
        self._child = Fork(self.forker)  # type: ignore[assignment]
        if wait:
            self.wait_until_up(timeout_s)
        return time.monotonic() - began

    def _go_ahead(self) -> None:
        """It is as quick as any other process: nothing here is timed closely."""

    def strike(self, at: int, mode: int) -> None:
        """Have the service struck at its so many-th point from now."""
        self.forker.do("set", values={"mode": mode, "left": at})

    def passed(self, of: int) -> int:
        """How many of so many points have passed since `strike`."""
        return of - int(self.forker.do("get", name="left"))

    def reboot(self, chance: random.Random | None) -> None:
        """The kernel begins anew, and so does what is in memory; with `chance` files are what a
        power cut left of them.
        """
        assert self.bus is not None
        self.bus.kill()
        if self.bus.entered.stdout:
            self.bus.entered.stdout.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.socket)
        self.node.sh(REBOOT)
        shutil.rmtree(self.run_dir)
        os.mkdir(self.run_dir)
        if chance is not None:
            with open(self.note, "rb") as file:
                pickle.load(file).restore(chance)
        self.boot()

    def boot(self) -> None:
        if self.platform == "openwrt":
            self.node.sh("/etc/init.d/firewall reload")
        self.start_bus()

    def devices(self) -> set[str]:
        """The standing uplink's device, with its index: one that was made anew has another."""
        return set(self.node.sh("ip -o link | grep -o '^[0-9]*: wgup_keeper' || true").splitlines())

    def snapshot(self) -> str:
        """All that is kept and made, without what differs each time."""
        kept = []
        for above, folders, names in sorted(os.walk(self.etc)):
            folders.sort()
            for name in sorted(names):
                path = os.path.join(above, name)
                with contextlib.suppress(FileNotFoundError), open(path, errors="replace") as file:
                    text = file.read()
                    mode = os.fstat(file.fileno()).st_mode & 0o777
                    if name.endswith(".key.removed") and mode == 0o600:
                        continue  # keys that were put aside stay for a day
                    text = "a table" if name.endswith(".json") and _is_table(text) else text
                    kept.append(f"== {os.path.relpath(path, self.etc)} {mode:o}\n{text}")
        with contextlib.suppress(UplinkError):
            status = self.ask("uplink_status")
            paths = [f"{u['peer_id']} {u['state']} {u['usable']}" for u in status["uplinks"]]
            kept += [*sorted(paths), status["primary"]["state"], *sorted(status["problems"])]
        text = "\n".join([*kept, self.node.sh(KERNEL)])
        for pattern, word in CHANGING:
            text = re.sub(pattern, word, text)
        return text


def _is_table(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def nothing(is_wanted: bool) -> None:
    """No preparation is needed."""


@dataclass(frozen=True, slots=True)
class Change:
    """Something that an owner or a peer does, and what takes it back."""

    name: str
    back: str
    do: Callable[[], bool]
    undo: Callable[[], bool]
    is_done: Callable[[], bool]
    before: Callable[[bool], object] = nothing
    """Called before `do` (True) and before `undo` (False)."""


class Generous(AlteredService):
    """A provider whose consumer may ask again and again."""

    constants: ClassVar[dict[str, float]] = {
        "rpcd_wireguard_uplink.provider.lease_server:NEW_BURST": MANY_LEASES
    }


class Scene:
    """The router under test. Calls return whether they succeeded."""

    def __init__(self, lab: Lab, platform: str) -> None:
        mesh = mesh_network(lab, ("router", "peer", "keeper"))
        self.platform = platform
        node = mesh["router"].node
        self.service = service = ForkedService(lab, node, "", platform)
        keeper = make_provider(
            lab, mesh["keeper"].node, peer_id="keeper", listen_port=51830, resolver=False
        )
        host = mesh["keeper"].segment4
        config = settings(("keeper",), node_id="router", pace="default")
        service.configure(config + configure_uplink(node, service.keys_dir, keeper, host))
        service.write("network", NETWORK)
        if platform == "openwrt":
            self._install_stubs()
        service.boot()
        service.start(wait=False)
        config = settings((), node_id="peer", pace="default")
        self.router = Peer(mesh["router"], service)
        self.peer = Peer(mesh["peer"], Generous(lab, mesh["peer"].node, config))
        self.peer.service.start()
        trust_each_other({"peer": self.peer, "router": self.router}, [("peer", "router")])
        self.peer.ask("uplink_offer")
        self.router.hears_of("peer")
        self.router.ready("keeper")
        for method in ("uplink_offer", "uplink_withdraw"):  # its pools and keys are there from now
            self.router.ask(method)

    def _install_stubs(self) -> None:
        service, node = self.service, self.service.node
        service.write("firewall", FIREWALL)
        folder = os.path.join(service.folder, "bin")
        os.mkdir(folder)
        for name, text in STUBS.items():
            with open(os.path.join(folder, name), "w", encoding="ascii") as file:
                file.write(text.format(etc=service.etc))
                os.fchmod(file.fileno(), 0o755)
        node.sh(f"mount --bind {folder} /etc/init.d")

    def changes(self) -> list[Change]:
        """Everything that is done to the router."""
        router, peer = self.router, self.peer

        def call(at: Peer, method: str, **arguments: object) -> Callable[[], bool]:
            def do() -> bool:
                try:
                    return at.service.ask(method, **arguments).get("success") is True
                except UplinkError:
                    return False

            return do

        def rewrite(old: str, new: str) -> bool:
            text = self.service.read_config().replace(old, "")
            mode = os.stat(self.service.config_file).st_mode & 0o777
            self.service.configure(text.replace("\toption hold_time", f"{new}\toption hold_time"))
            os.chmod(self.service.config_file, mode)  # as whoever edits it keeps it
            self.service.reload()
            return True

        def text() -> str:
            return self.service.read_config()

        def prepare_lease(is_wanted: bool) -> None:
            """The peer's side is as it will be asked to be no longer."""
            if "option enabled '1'" not in text().partition("config provider")[2]:
                self.router.ask("uplink_offer")
            self.peer.hears_of("router")
            has_uplink = self.peer.ask("uplink_list")["uplinks"]
            if bool(has_uplink) is is_wanted:
                method = "uplink_remove" if has_uplink else "uplink_add"
                peer.ask(method, peer_id="router")

        def seen() -> bool:
            rows = router.ask("uplink_trust")["peers"]
            return any(row["peer_id"] == "peer" and row["identity"] for row in rows)

        costly = "\toption max_hold_time '2'\n"
        plain = "\toption max_hold_time '1'\n"
        weigh = "uplink_set_priority"
        return [
            Change(
                *("add", "remove"),
                call(router, "uplink_add", peer_id="peer"),
                call(router, "uplink_remove", peer_id="peer"),
                lambda: "wgup_peer" in text(),
                lambda _: router.hears_of("peer"),
            ),
            Change(
                *("priority", "priority"),
                call(router, weigh, peer_id="keeper", weight=70),
                call(router, weigh, peer_id="keeper", weight=10),
                lambda: "weight '70'" in text(),
            ),
            Change(
                *("apply", "apply"),
                lambda: rewrite(plain, costly),
                lambda: rewrite(costly, plain),
                lambda: costly in text(),
            ),
            Change(
                *("distrust", "trust"),
                call(router, "uplink_trust_revoke", peer_id="peer"),
                call(router, "uplink_trust_accept", peer_id="peer"),
                lambda: "config trust" not in text(),
                lambda _: router.until(seen, "the peer on the mesh"),
            ),
            Change(
                *("offer", "withdraw"),
                call(router, "uplink_offer"),
                call(router, "uplink_withdraw"),
                lambda: "option enabled '1'" in text().partition("config provider")[2],
            ),
            Change(
                *("lease", "release"),
                call(peer, "uplink_add", peer_id="router"),
                call(peer, "uplink_remove", peer_id="router"),
                lambda: bool(router.ask("uplink_consumers")["consumers"]),
                prepare_lease,
            ),
        ]

    def settle(self, fits: Callable[[str], bool], timeout_s: float = SETTLED_S) -> str:
        """The first snapshot that fits, or the last one."""
        deadline = time.monotonic() + timeout_s
        while True:
            seen = self.service.snapshot()
            if fits(seen) or time.monotonic() > deadline:
                return seen
            time.sleep(0.1)

    def rest(self) -> str:
        """The snapshot once it has stayed the same for a while."""
        seen, since = self.service.snapshot(), time.monotonic()
        deadline = since + RESTED_S
        while time.monotonic() - since < 1.5:
            if time.monotonic() > deadline:
                raise LabError(f"the router does not come to rest: {seen}")
            time.sleep(0.2)
            now = self.service.snapshot()
            if now != seen:
                seen, since = now, time.monotonic()
        return seen
