"""Faults and attacks against running services, by what they begin with: one router and two
providers (`home`), or a mesh of routers of which some are hostile (`mesh`).

The number in a test's name is the row's in the list of faults; those without are their relatives.
docs/security.md says who each attacker is and what he can't do.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import glob
import itertools
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from rpcd_wireguard_uplink.errors import BusError
from tests.lab.broken_tools import FAULTS, ToolsService
from tests.lab.consumers import probe
from tests.lab.lab import Lab
from tests.lab.mesh import MeshRouter, mesh_network
from tests.lab.meter import Meter, longest, settled
from tests.lab.network import ECHO4, ECHO_PORT, HOST4, HOST6, consumer_network
from tests.lab.node import Child, Node, program
from tests.lab.peers import Peer, trust_each_other
from tests.lab.provider import (
    DEVICE,
    Provider,
    make_device,
    make_provider,
    make_providers,
    new_keys,
)
from tests.lab.reach import until
from tests.lab.router import Router, Status, settings, states
from tests.lab.troubles import count, counted

pytestmark = pytest.mark.needs("conntrack", "tc")

HUNG_S = 4.0
MENDED_S = 15.0
"""Within that of the mend of a program nothing is told any more."""
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
SHOWN = ("cmdline", "environ")
NESTED = "[" * 100_000
RESOLVERS = "/tmp/resolv.conf.d/resolv.conf.auto"
P2P_PEERS = "/tmp/secubox-p2p-peers.json"
PRIVATE_TMP = """\
mkdir /run/lab /run/upper; mount --bind {folder} /run/lab
mount -t tmpfs none /run/upper; mkdir /run/upper/new /run/upper/work
mount -t overlay overlay -o lowerdir=/tmp,upperdir=/run/upper/new,workdir=/run/upper/work /tmp
mount --bind /run/lab {folder}
mkdir -p /tmp/resolv.conf.d; chmod 1777 /tmp /tmp/resolv.conf.d
"""


class HomeService(ToolsService):
    """What has failed unexpectedly is told for seconds instead of a minute."""

    turned = False
    constants: ClassVar[dict[str, float]] = {"rpcd_wireguard_uplink.tasks:WELL_S": 5.0}


@dataclass(frozen=True)
class Home:
    """The consumer, its service, and what was configured."""

    router: Router
    service: HomeService

    @property
    def node(self) -> Node:
        return self.router.network.consumer

    def path(self, *parts: str) -> str:
        return os.path.join(self.service.folder, *parts)

    def tells(self, word: str, timeout_s: float = 30.0) -> Status:
        """Wait until a problem with this word (a regular expression) is told."""
        return self.router.wait(
            lambda s: any(re.search(word, problem) for problem in s["problems"]), timeout_s
        )

    def is_well(self, timeout_s: float = MENDED_S) -> None:
        """Wait until nothing is told, and all works."""
        self.router.wait(lambda s: all("nearer" in told for told in s["problems"]), timeout_s)
        self.router.wait_primary()

    def fails_over(self) -> None:
        """Have the WAN die, and all traffic leave it in time."""
        self.router.network.wan.drop()
        self.router.wait(lambda s: states(s) == {"failed_over"}, 4.0)

    def replace_section(self, text: str) -> None:
        """Have these sections behind the main one, besides the uplinks."""
        self.service.configure(settings(("nodea", "nodeb")) + text + self.router.uplinks)
        self.service.reload()

    def answers_meanwhile(self, seconds: float) -> float:
        """Ask for the status all the time; the longest that an answer took."""
        ends, slowest_s = time.monotonic() + seconds, 0.0
        while (began := time.monotonic()) < ends:
            self.router.status()
            slowest_s = max(slowest_s, time.monotonic() - began)
            time.sleep(0.02)
        return slowest_s


@pytest.fixture(scope="module")
def laid_home(namespaces: None) -> Iterator[Home]:
    with Lab() as lab:
        network = consumer_network(lab, providers=2)
        network.consumer.sh(PRIVATE_TMP.format(folder=lab.folder))
        network.consumer.resolvers(*network.wan.gateways)
        router = Router.build(
            network, make_providers(network), settings(("nodea", "nodeb")), service=HomeService
        )
        assert isinstance(router.service, HomeService)
        router.start()
        yield Home(router, router.service)


@pytest.fixture
def home(laid_home: Home) -> Iterator[Home]:
    """With traffic on the WAN and nothing told; so it is again after it."""
    yield laid_home
    home = laid_home
    home.service.mend_tools()
    home.router.network.wan.restore()
    home.node.resolvers(*home.router.network.wan.gateways)
    home.node.sh(f"rm -rf {RESOLVERS} {P2P_PEERS}")
    if home.service.running:
        home.replace_section("")
    else:
        home.service.configure(settings(("nodea", "nodeb")) + home.router.uplinks)
        home.service.start()
    home.is_well()


# Files that others write.


def write_bytes(path: str, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)


def test_case_02_start_over_files_that_hold_anything(home: Home) -> None:
    """It starts, names the files, and does without them: the other uplink works."""
    service, key = home.service, home.path("keys", "wgup_nodea.key")
    service.kill()
    home.node.sh(r"printf '# caf\351\nnameserver 198.51.100.1\n' >/run/resolv.conf")
    shutil.copy2(key, home.path("kept"))
    write_bytes(key, bytes(45))
    write_bytes(service.state_file, NESTED.encode())
    for name in ("uplink-usage.json", "usage.json", "last-good", "keys/endpoints.json"):
        write_bytes(home.path(name), b"\xff\x00" + NESTED.encode())
    service.start()
    told = home.tells("wgup_nodea.key")["problems"]
    assert any("uplink-usage.json" in problem for problem in told), told
    home.router.wait(lambda s: next(u for u in s["uplinks"] if u["peer_id"] == "nodeb")["usable"])
    home.fails_over()
    home.router.network.wan.restore()
    os.unlink(key)
    os.mkdir(key)
    service.reload()
    home.tells("wgup_nodea.key is ignored: it is a folder")
    os.rmdir(key)
    os.replace(home.path("kept"), key)
    for name in ("usage.json", "keys/endpoints.json"):
        os.unlink(home.path(name))
    service.restart()


def test_case_03_byte_in_resolv_conf_while_running(home: Home) -> None:
    """The configuration is followed and tunnels are made again, as before."""
    home.node.sh(r"printf '# caf\351\nnameserver 198.51.100.1\n' >/run/resolv.conf")
    uplinks = home.router.uplinks
    home.service.configure(settings(("nodea",)) + uplinks)
    home.router.wait(lambda s: sum(u["usable"] for u in s["uplinks"]) == 1, 6.0)
    home.service.configure(settings(("nodea", "nodeb")) + uplinks)
    home.router.wait(lambda s: all(u["usable"] for u in s["uplinks"]), 6.0)
    home.node.sh("ip link delete wgup_nodea")
    until(lambda: home.node.sh("ip -o link"), lambda shown: "wgup_nodea" in shown)
    home.router.wait_primary()


def nobody(home: Home, script: str) -> None:
    """Have a local user without rights run lines of sh."""
    home.node.run([*NOBODY, "sh", "-e", "-c", script], timeout_s=120.0)


@pytest.fixture
def local_user(home: Home) -> Home:
    if os.geteuid() != 0:
        pytest.skip("other users need root's namespaces")
    return home


def test_case_04_fifos_of_a_local_user(local_user: Home) -> None:
    """They are named and not opened; failover goes on, and SIGTERM ends the service."""
    home = local_user
    nobody(home, f"mkfifo {RESOLVERS} {P2P_PEERS}")
    assert home.answers_meanwhile(2.0) < HUNG_S
    home.service.restart()
    home.tells("resolv.conf.auto is ignored")
    home.fails_over()
    began = time.monotonic()
    assert home.service.stop() == 0
    assert time.monotonic() - began < 4.0
    home.node.sh(f"rm -f {RESOLVERS} {P2P_PEERS}")
    home.service.start()


RACE = f"""\
cd /tmp; ln -s /etc/shadow link; echo '{{}}' >file; i=0
while [ $i -lt 400 ]; do
  i=$((i + 1))
  for name in {P2P_PEERS} {RESOLVERS}; do
    rm -f $name; ln link $name; rm -f $name; mkfifo $name; rm -f $name; cp file $name
  done
done
rm -f {P2P_PEERS} {RESOLVERS} link file
"""


def test_case_04_races_of_a_local_user(local_user: Home) -> None:
    """Between FIFO, link to root's files and a file of his own: nothing hangs, nothing is told on.

    A service reads each file whenever its mesh and its resolvers are looked at: it is reloaded.
    """
    home = local_user
    racing = threading.Thread(target=nobody, args=(home, RACE))
    racing.start()
    while racing.is_alive():
        home.service.reload()
        assert home.answers_meanwhile(0.2) < HUNG_S
    racing.join()
    assert "root:" not in home.service.log() + json.dumps(home.router.status())
    assert home.service.running


def test_case_05_provider_that_knocks_in_an_outage(home: Home) -> None:
    """At the LAN's host, the router and its other networks: only answers come in."""
    router, provider = home.router, home.router.providers[0]
    hosts = (HOST4, "192.168.1.1", HOST6, "fd00:1::1")
    key, places = next(iter(provider.admitted.items()))
    nets = [f"{text}/{128 if ':' in text else 32}" for text in (*places, *hosts)]
    provider.node.run(["wg", "set", DEVICE, "peer", key, "allowed-ips", ",".join(nets)])
    provider.node.sh("\n".join(f"ip route replace {each} dev {DEVICE}" for each in nets))
    home.fails_over()
    home.node.sh(
        f"ip route add {provider.tunnel4} dev wgup_nodea\n"
        f"ip route add {provider.tunnel6} dev wgup_nodea"
    )
    with Meter(router.network.host, ECHO4) as meter:
        settled(meter)
        tried = [("connect", each, port) for each in hosts for port in (ECHO_PORT, 22, 53)]
        tried += [("udp", each, 53) for each in hosts]
        assert {*probe(provider.node, *tried)} == {"silence"}
        lines = [f"ping -c1 -W1 -s3000 {each} >/dev/null && echo {each} &" for each in hosts]
        assert provider.node.sh("\n".join((*lines, "wait"))) == ""
        assert longest(meter.so_far()).seconds < 0.5, "answers come in meanwhile"
    home.node.sh(f"ip route del {provider.tunnel4}; ip route del {provider.tunnel6}")


# Writes that fail.


def in_mid_add(home: Home, trouble: Callable[[], None]) -> dict[str, Any]:
    """Call uplink_add, and cause trouble once its first write is there; what the call replied."""
    replies: list[dict[str, Any]] = []

    def add() -> None:
        provider = home.router.providers[0]
        offer = provider.offer("172.16.70.2") | {"peer_id": "nodec"}
        home.service.ask("uplink_gossip", message=offer)
        replies.append(home.service.ask("uplink_add", peer_id="nodec"))

    text = settings(("nodea", "nodeb", "nodec")) + home.router.uplinks
    home.service.configure(text)
    home.service.reload()
    gate = home.path("gate")
    write_bytes(gate, b"")
    home.service.hold_tools(gate, "wg")
    adding = threading.Thread(target=add)
    adding.start()
    until(home.service.read_config, lambda text: "option pending" in text, 5.0)
    trouble()
    os.unlink(gate)
    adding.join()
    home.service.mend_tools()
    return replies[0]


def undone_or_finished(home: Home, reply: dict[str, Any]) -> None:
    """The half of an add that failed is undone or finished, whole, and the next one works."""
    assert reply.get("success") is not True, reply

    def is_whole() -> bool:
        links, keys = home.node.sh("ip -o link"), os.listdir(home.path("keys"))
        text = home.service.read_config().replace("trusted_peer 'nodec'", "")
        parts = ("nodec" in text, "wgup_nodec" in links, "wgup_nodec.key" in keys)
        return "pending" not in text and len({*parts}) == 1

    until(is_whole, bool, 20.0)
    added = home.service.ask("uplink_add", peer_id="nodec")
    assert added["success"] is True, added
    watched = home.router.wait(lambda s: len(s["uplinks"]) == 3)
    assert "nodec" in {uplink["peer_id"] for uplink in watched["uplinks"]}
    home.service.expect("uplink_remove", {"peer_id": "nodec"})


def test_case_08_lock_held_in_mid_add(home: Home) -> None:
    """Another program holds the file for 7 s, longer than a write waits."""
    with contextlib.ExitStack() as stack:

        def hold() -> None:
            held = stack.enter_context(open(home.service.config_file, "rb"))
            fcntl.flock(held, fcntl.LOCK_EX)
            threading.Timer(7.0, stack.close).start()

        reply = in_mid_add(home, hold)
        undone_or_finished(home, reply)


def test_case_08_no_room_in_mid_add(home: Home) -> None:
    """No file can grow any more for a while."""
    pid = home.service.pid

    def let(size: int) -> None:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def fill() -> None:
        let(0)
        threading.Timer(2.0, let, (resource.RLIM_INFINITY,)).start()

    reply = in_mid_add(home, fill)
    undone_or_finished(home, reply)


# Programs that fail.


def test_case_12_program_that_prints_without_end(home: Home) -> None:
    """It is ended and told; the service keeps its size and goes on when the program is whole."""
    before_mb = home.service.memory_mb
    home.service.break_tools("endless", "wg")
    home.fails_over()
    home.tells("printed more than")
    assert home.answers_meanwhile(2.0) < HUNG_S
    assert home.service.memory_mb < before_mb + 16
    home.router.network.wan.restore()
    home.service.mend_tools()
    home.is_well()


@pytest.mark.parametrize("fault", FAULTS)
def test_case_16_failover_without_programs_is_told(home: Home, fault: str) -> None:
    """Failover goes on without `wg` and `nft`, and status says what is wrong. Soon after they are
    whole nothing is told, and the next outage is carried.
    """
    router, service, before_mb = home.router, home.service, home.service.memory_mb
    service.break_tools(fault, "wg", "nft")
    home.tells(r"\bwg\b")
    home.fails_over()
    home.tells(r"\bnft\b")
    assert home.answers_meanwhile(1.0) < HUNG_S
    assert service.memory_mb < before_mb + 16
    router.network.wan.restore()
    service.mend_tools()
    home.is_well()
    home.fails_over()
    with Meter(router.network.host, ECHO4) as meter:
        meter.wait_for_source([wan.address4 for wan in router.network.provider_wans])


def test_case_15_what_began_again_is_forgotten(home: Home) -> None:
    """Without descriptors work fails unexpectedly; it is told until it has run well for a while."""
    home.is_well()
    home.service.ask("uplink_history", limit=1)  # who lacks them while it still loads may end
    pid, before = home.service.pid, home.service.log(10**6)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, 4096))
    try:
        home.node.filter("forward", "counter")  # so that it looks through the firewall
        until(lambda: home.service.log(10**6).removeprefix(before), lambda told: "ERROR" in told)
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (1024, 4096))
        home.node.filter("forward")
    home.tells("was begun again")
    home.is_well()


# What kills leave.

LEFT = """\
ip link add wgup_try type ifb
ip rule add pref 99 oif wgup_gone lookup 5178 protocol 151
ip -6 rule add pref 99 oif wgup_gone lookup 5178 protocol 151
ip rule add pref 98 oif wgup_mine lookup 257
"""


def test_case_14_leftovers_of_kills_are_gone_after_the_next_start(home: Home) -> None:
    home.service.kill()
    unfinished = [home.path(n) for n in ("config/.wireguard-uplink.new", "config/.network.new")]
    unfinished += [home.path(n) for n in ("keys/wgup_x.key.new", "last-good.new")]
    others = [home.path("config/.owner.new"), home.path("config/wireguard-uplink.backup")]
    for path in (*unfinished, *others):
        write_bytes(path, b"half")
    home.node.sh(LEFT)
    home.service.start()
    until(lambda: home.node.sh("ip -o link"), lambda shown: "wgup_try" not in shown)
    rules = until(
        lambda: home.node.sh("ip rule; ip -6 rule"), lambda shown: "wgup_gone" not in shown
    )
    assert "wgup_mine" in rules, "the owner's own"
    assert [path for path in unfinished if os.path.exists(path)] == []
    assert all(map(os.path.exists, others))
    home.node.sh("ip rule del pref 98")
    for path in others:
        os.unlink(path)


# A delegated login of LuCI: whoever may write the configuration.


def hoard(home: Home, node: Node, address: str, port: int) -> tuple[Child, str]:
    """A listener that keeps what it is sent, and the file that it keeps it in."""
    path = home.path(f"hoard-{address}-{port}")
    write_bytes(path, b"")
    lab = home.router.network.lab
    return lab.start(node, "hoard", address, port, path), path


def kept(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


BROKER = """
config mqtt 'broker'
	option enabled '1'
	option host '{host}'
	option user 'thief'
	option password_file '{file}'
"""


def test_case_10_password_file_of_a_delegated_login(home: Home) -> None:
    """No file of root's is sent to a host of his; what is the password's is for one broker only."""
    pytest.importorskip("paho.mqtt.client", reason="paho-mqtt is not installed")
    internet = home.router.network.internet
    trap, found = hoard(home, internet, ECHO4, 1883)
    other, found_other = hoard(home, internet, "1.1.1.1", 1883)
    os.symlink("/etc/passwd", home.path("link"))
    secret = home.path("keys", "wgup_nodea.key")
    with open(secret, encoding="ascii") as file:
        key = file.read().strip().encode()
    write_bytes(home.path("mqtt-password"), b"fits\n")
    os.chmod(home.path("mqtt-password"), 0o600)
    for path in (secret, "/etc/passwd", home.path("link"), home.path("state", "..", "link")):
        home.replace_section(BROKER.format(host=ECHO4, file=path))
        home.tells("password_file")
    assert kept(found) == b""
    home.replace_section(BROKER.format(host=ECHO4, file=home.path("mqtt-password")))
    until(lambda: kept(found), lambda sent: b"fits" in sent)
    home.replace_section(BROKER.format(host="1.1.1.1", file=home.path("mqtt-password")))
    home.tells("the broker's settings are others now")
    assert b"fits" not in kept(found_other)
    assert key not in kept(found) and b"root:" not in kept(found)
    home.replace_section("")
    for name in ("link", "mqtt-password", "mqtt-password.broker"):
        os.unlink(home.path(name))
    for child in (trap, other):
        child.kill()


# A mesh with hostile peers.


class MeshService(ToolsService):
    """A service that looks after its consumers every other second."""

    constants: ClassVar[dict[str, float]] = {
        "rpcd_wireguard_uplink.provider.lease_server:HOUSEKEEPING_S": 2.0
    }


@dataclass(frozen=True)
class Mesh:
    """Consumer `c` and provider `p` trust each other and `evil`, who is one of PROGRAMS. A stranger
    calls itself `friend`, as an uplink is called that c's owner made by hand to the router `far`.
    """

    lab: Lab
    routers: dict[str, MeshRouter]
    peers: dict[str, Peer]
    internet: Node
    friend: Provider
    says: str

    @property
    def c(self) -> Peer:
        return self.peers["c"]

    @property
    def p(self) -> Peer:
        return self.peers["p"]

    @property
    def evil(self) -> MeshRouter:
        return self.routers["evil"]

    def evil_says(self, **paths: Any) -> None:
        """What evil's peer API answers: [status, table] by the last word of the path."""
        who = {"type": "uplink_identity", "peer_id": "evil"}
        table = {"/v1/identity": [200, who], "/v1/offer": self.offered()}
        table |= {f"/v1/{name}": said for name, said in paths.items()}
        with open(f"{self.says}.fresh", "w", encoding="utf-8") as file:
            json.dump(table, file)
        os.replace(f"{self.says}.fresh", self.says)

    def offered(self, **changes: Any) -> list[Any]:
        """An offer of evil's as its peer API gives it."""
        offer = {
            "type": "uplink_offer",
            "peer_id": "evil",
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "capabilities": {"bandwidth_mbps": 900, "latency_ms": 1, "available": True},
            "endpoint": {"host": self.evil.segment4, "port": 51821, "public_key": KEY},
        }
        return [200, offer | changes]

    def grant(self, **changes: Any) -> list[Any]:
        """A grant of evil's."""
        given = {
            "type": "lease_grant",
            "peer_id": "evil",
            "public_key": KEY,
            "addresses": ["10.66.6.9/32", "fd66:6::9/128"],
            "endpoints": [{"host": self.evil.segment4, "port": 51821, "scope": "link"}],
            "lease_s": 3600,
        }
        return [200, given | changes]


KEY = base64.b64encode(b"k" * 32).decode()


@pytest.fixture(scope="module")
def laid_mesh(namespaces: None) -> Iterator[Mesh]:
    with Lab() as lab:
        routers = mesh_network(lab, ("c", "p", "s", "evil", "far"), hosts=("c",))
        internet = next(node for node in lab.nodes if node.name == "internet")
        routers["p"].node.sh(PRIVATE_TMP.format(folder=lab.folder))
        says = lab.path("evil.json")
        friend = make_provider(
            lab, routers["far"].node, peer_id="friend", place=7, listen_port=51999
        )
        peers = {}
        for name in ("c", "p", "s"):
            trusted = {"c": ("friend", "evil"), "p": ("evil",), "s": ()}[name]
            node_id = "friend" if name == "s" else name
            text = settings(trusted, node_id=node_id, min_uplinks=0, pace="default")
            text += "".join(
                f"\tlist peer '{known} {routers[known].mesh4}'\n" for known in ("evil",)
            )
            peers[name] = Peer(routers[name], MeshService(lab, routers[name].node, text))
        mesh = Mesh(lab, routers, peers, internet, friend, says)
        mesh.evil_says()
        lab.start(routers["evil"].node, "evil_peer", routers["evil"].mesh4, says)
        for peer in peers.values():
            peer.service.start(wait=False)
        for peer in peers.values():
            peer.service.wait_until_up()
        trust_each_other(peers, [("c", "p")])
        mesh.p.ask("uplink_offer", limit_mbps=8)
        mesh.c.until(lambda: {"p", "evil"} <= mesh.c.offers().keys(), "both offers", 30.0)
        mesh.c.ask("uplink_add", peer_id="p")
        mesh.c.ready("p")
        yield mesh


@pytest.fixture
def mesh(laid_mesh: Mesh) -> Iterator[Mesh]:
    """With an uplink from c to p that could take over; nothing of evil's stays."""
    yield laid_mesh
    mesh = laid_mesh
    mesh.evil_says()
    for peer in mesh.peers.values():
        peer.router.wan.restore()
    for row in mesh.c.status()["uplinks"]:
        if row["peer_id"] == "evil":
            mesh.c.ask("uplink_remove", peer_id="evil")
    mesh.c.wait_primary()
    mesh.c.ready("p")


def test_case_01_clocks_that_jump_in_an_outage(mesh: Mesh) -> None:
    """A day ahead at the consumer, two at the provider: the tunnel in use goes on."""
    host = mesh.c.router.host
    assert host is not None
    with Meter(host, ECHO4) as meter:
        mesh.c.router.wan.drop()
        mesh.c.uses("wgup_p")
        meter.wait_for_source(mesh.p.router.wan.address4, since=time.monotonic())
        since = time.monotonic()
        for peer, days in ((mesh.c, 1), (mesh.p, 2)):
            assert isinstance(peer.service, MeshService)
            peer.service.step_clock(days * 86400.0)
        time.sleep(5.0)  # both have looked at ages by then
        assert longest(meter.samples(since)).seconds < 1.0
    for peer in (mesh.c, mesh.p):
        assert isinstance(peer.service, MeshService)
        peer.service.step_clock(0.0)


def test_case_06_and_07_stranger_with_the_name_of_an_uplink(mesh: Mesh) -> None:
    """What the owner gives is used as given; what a stranger calls himself changes nothing."""
    c, friend = mesh.c, mesh.friend
    c.until(
        lambda: (
            mesh.routers["s"].mesh_key
            in {row["mesh_key"] for row in c.ask("uplink_trust")["peers"]}
        ),
        "the stranger on the mesh",
    )
    endpoint = f"{mesh.routers['far'].segment4}:51999"
    mesh.peers["s"].ask("uplink_offer")
    added = c.ask("uplink_add", peer_id="friend", endpoint=endpoint, public_key=friend.public_key)
    node = c.router.node
    shown = node.sh(f"wg show {added['interface']} endpoints")
    assert shown.split() == [friend.public_key, endpoint]
    friend.admit_reply(added, node, c.router.segment4)
    c.ready("friend")
    mesh.peers["s"].ask("uplink_withdraw")
    mesh.peers["s"].ask("uplink_offer")
    deadline = time.monotonic() + 4.0
    while time.monotonic() < deadline:
        row = c.uplink("friend")
        assert row["usable"], row["reason"]
        time.sleep(0.1)
    assert node.sh(f"wg show {added['interface']} endpoints").split() == shown.split()
    c.ask("uplink_remove", peer_id="friend")
    mesh.peers["s"].ask("uplink_withdraw")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, "taken"),
        ({"addresses": ["10.9.0.3/32"]}, "address_conflict"),
        ({"addresses": ["10.9.0.1/32", "fd66:6::9/128"]}, "address_conflict"),
        ({"addresses": ["192.168.1.1/32"]}, "address_conflict"),
        ({"addresses": ["10.64.7.9/32"]}, "address_conflict"),
        ({"addresses": ["8.8.8.8/32"]}, ""),
        ({"addresses": ["0.0.0.0/0"]}, ""),
        ({"peer_id": "p"}, ""),
        ({"dns": ["127.0.0.1"]}, ""),
        ({"endpoints": [{"host": "127.0.0.1", "port": 51821, "scope": "link"}]}, ""),
        ({"endpoints": [{"host": "10.9.0.1", "port": 51821, "scope": "link"}]}, ""),
        ({"mtu": 0}, ""),
        ({"lease_s": 0}, ""),
        ({"addresses": []}, ""),
        ({"gateways": ["8.8.8.8"]}, ""),
        ({"lease_s": 1e400}, ""),
    ],
)
def test_case_09_grants_of_an_evil_provider(mesh: Mesh, changes: dict[str, Any], code: str) -> None:
    """Addresses of somebody else's, of a network known by a route only, and other nonsense."""
    c, node = mesh.c, mesh.c.router.node
    node.sh("ip route replace 10.64.7.0/24 via 192.168.1.100 dev lan")
    mesh.evil_says(lease=mesh.grant(**changes))
    c.until(lambda: c.offers().get("evil", {}).get("usable"), "evil's offer")
    before, links = c.service.read_config(), node.sh("ip -o link")
    answer = c.service.call("uplink_add", {"peer_id": "evil"})
    if code == "taken":
        assert answer.data["success"], answer.data
        return
    assert answer.status != 0, answer.data
    assert code in ("", answer.data["code"]), answer.data
    assert (c.service.read_config(), node.sh("ip -o link")) == (before, links)
    assert c.uplink("p")["usable"]


@pytest.mark.parametrize("number", range(4))
def test_case_13_killed_while_it_withdraws(mesh: Mesh, number: int) -> None:
    """The next start finds and removes what no configuration names any more."""
    provider, node = mesh.peers["s"], mesh.routers["s"].node
    provider.until(
        lambda: provider.service.call("uplink_offer", {"limit_mbps": 8}).status == 0, "an offer"
    )
    assert provider.service.pid > 0
    withdrawing = threading.Thread(target=withdraw, args=(provider,))
    withdrawing.start()
    time.sleep((0.004, 0.02, 0.05, 0.09)[number])
    provider.service.kill()
    withdrawing.join()
    is_withdrawn = "option enabled '0'" in provider.service.read_config().split("provider")[-1]
    node.sh("ip link add wgup_ifb type ifb || true; nft add table inet wgup_provider")
    if not is_withdrawn:
        text = provider.service.read_config()
        head, found, rest = text.partition("config provider")
        provider.service.configure(head + found + rest.replace("enabled '1'", "enabled '0'"))
    provider.service.start()
    until(
        lambda: node.sh("ip -o link; nft list tables"),
        lambda shown: (
            "wgup_srv" not in shown and "wgup_ifb" not in shown and "_provider" not in shown
        ),
        5.0,
    )


def withdraw(provider: Peer) -> None:
    with contextlib.suppress(BusError):
        provider.service.ask("uplink_withdraw")


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("tool", ["wg", "nft", "tc"])
def test_program_of_a_provider_that_fails(mesh: Mesh, tool: str, fault: str) -> None:
    """It is told, nothing waits for it, and all is well soon after it is whole again."""
    p, service = mesh.p, mesh.p.service
    assert isinstance(service, MeshService)
    rate = p.ask("uplink_consumers")["offer"].get("limit_mbps", 0)
    before_mb = service.memory_mb
    service.break_tools(fault, tool)
    try:
        answer = service.call("uplink_offer", {"limit_mbps": 9 if rate == 8 else 8})
        if tool == "tc":  # nothing is changed that it could not do
            assert answer.status != 0, answer.data
        else:
            p.until(lambda: p.status()["problems"], "what is told", 20.0)
        answers_in_time(p)
        assert service.memory_mb < before_mb + 16
    finally:
        service.mend_tools()
    p.until(lambda: not p.status()["problems"], "nothing is told", MENDED_S)
    mesh.c.answered_by("p", 10.0)


def answers_in_time(peer: Peer) -> None:
    slowest_s, ends = 0.0, time.monotonic() + 1.0
    while (began := time.monotonic()) < ends:
        peer.status()
        slowest_s = max(slowest_s, time.monotonic() - began)
    assert slowest_s < HUNG_S


def test_case_04_resolver_of_a_local_user(mesh: Mesh) -> None:
    """What he plants is not what consumers' look-ups are sent to."""
    if os.geteuid() != 0:
        pytest.skip("other users need root's namespaces")
    p, node = mesh.p, mesh.p.router.node
    node.run([*NOBODY, "sh", "-c", f"echo nameserver 192.0.2.66 >{RESOLVERS}"])
    p.ask("uplink_offer")
    time.sleep(2.5)  # consumers are looked after every 2 s
    assert "192.0.2.66" not in node.sh("nft list table inet wgup_provider")
    node.sh(f"rm {RESOLVERS}")


SQUAT = """
import os, socket, sys, time
os.setgroups([]), os.setgid(65534), os.setuid(65534)
held = socket.create_server((sys.argv[1], 7333)), socket.socket(type=socket.SOCK_DGRAM)
held[1].bind(("", 51821))
print("held", flush=True)
time.sleep(60)
"""


def test_ports_that_a_local_user_holds(mesh: Mesh) -> None:
    """Told, and taken as soon as they are free; peers are asked by no other."""
    if os.geteuid() != 0:
        pytest.skip("other users need root's namespaces")
    s, router = mesh.peers["s"], mesh.routers["s"]
    s.service.kill()
    router.node.sh("ip link delete wgup_srv || true")
    words = [sys.executable, "-c", SQUAT, router.mesh4]
    user = router.node.popen(words, stdout=subprocess.PIPE)
    assert user.entered.stdout is not None and user.entered.stdout.readline() == "held\n"
    s.service.start()
    told = "port 7333 of wg0: Address already in use"
    s.until(lambda: told in " ".join(s.status()["problems"]), "that the port is held")
    refused = s.service.call("uplink_offer")
    assert refused.status != 0 and "Address already in use" in refused.data["error"]
    user.kill()
    s.until(lambda: not s.status()["problems"], "the port is taken", MENDED_S)
    s.ask("uplink_offer")
    s.ask("uplink_withdraw")


@pytest.fixture
def tunnel(mesh: Mesh) -> Iterator[str]:
    """A tunnel from evil to p as p has granted it; evil's address in it."""
    node, p = mesh.evil.node, mesh.p
    private, public = new_keys(node)
    body = {"type": "lease_request", "peer_id": "evil", "public_key": public}
    asked = (mesh.evil.mesh4, p.router.mesh4, json.dumps(body))
    status, lease = until(lambda: json.loads(node.ask("post", *asked)), lambda r: r[0] == 200, 70.0)
    assert status == 200
    make_device(node, "tunnel")
    words = ["wg", "set", "tunnel", "private-key", "/dev/stdin", "peer", lease["public_key"]]
    words += ["endpoint", f"{p.router.segment4}:{lease['endpoints'][0]['port']}"]
    node.run([*words, "allowed-ips", "0.0.0.0/0,::/0"], input=private)
    four = lease["addresses"][0].partition("/")[0]
    node.sh(f"ip addr add {four}/32 dev tunnel; ip link set tunnel mtu 1400 up")
    node.sh(f"ip route add {ECHO4} dev tunnel; ip route add {lease['gateways'][0]} dev tunnel")
    until(lambda: probe(node, ("tcp", ECHO4, ECHO_PORT, four)), lambda seen: seen[0][0].isdigit())
    yield four
    node.sh("ip link delete tunnel")


def test_consumer_that_is_not_content_with_the_internet(mesh: Mesh, tunnel: str) -> None:
    """The provider's networks, other consumers, fragments, sources and redirects of his own."""
    node, p, c = mesh.evil.node, mesh.p, mesh.c
    gateway = p.router.node.addresses("wgup_srv")[0].partition("/")[0]
    other = next(a for a in c.router.node.addresses("wgup_p") if "." in a).partition("/")[0]
    wan = p.router.wan
    near = (gateway, wan.address4, wan.gateway4, p.router.segment4, p.router.mesh4, other)
    near += (c.router.mesh4, "192.168.1.1", "169.254.169.254", "127.0.0.2")
    tried = [("tcp", each, port, tunnel, "tunnel") for each in near for port in (22, 53, ECHO_PORT)]
    assert not any(seen[0].isdigit() for seen in probe(node, *tried))
    ping = "ping -c1 -W1 -s3000 -I tunnel"
    lines = [f"{ping} {each} >/dev/null && echo {each} &" for each in (ECHO4, *near[1:])]
    assert node.sh("\n".join((*lines, "wait"))).split() == [ECHO4], "fragments"
    count(
        p.router.node,
        "prerouting",
        f"iifname wgup_srv ip saddr {{ 192.0.2.55, {other} }} udp dport 9",
    )
    for source in ("192.0.2.55", other):
        node.sh(f"ip addr add {source}/32 dev tunnel")
        probe(node, ("udp", ECHO4, 9, source, "tunnel"))
    assert counted(p.router.node) == 0, "a source that is not its own"
    route = p.router.node.sh(f"ip route get {ECHO4}; ip route get 1.1.1.1")
    for destination in (ECHO4, "1.1.1.1"):
        for target in (gateway, wan.address4):
            node.ask("redirect", tunnel, target, destination, tunnel)
    assert p.router.node.sh(f"ip route get {ECHO4}; ip route get 1.1.1.1") == route
    assert c.uplink("p")["usable"]


def test_stranger_that_holds_connections_open(mesh: Mesh) -> None:
    """Two hundred that send a byte now and then: others are answered meanwhile."""
    p, node = mesh.p, mesh.routers["s"].node
    words = program("slow_clients", mesh.routers["s"].mesh4, p.router.mesh4, 200)
    slow = node.popen(words, stdout=subprocess.PIPE)
    assert slow.entered.stdout is not None
    assert slow.entered.stdout.readline() == "ready\n"
    body = json.dumps({"type": "lease_request", "peer_id": "c", "public_key": KEY})
    for _ in range(3):
        began = time.monotonic()
        ends = (mesh.routers["far"].mesh4, p.router.mesh4)
        status, table = json.loads(mesh.routers["far"].node.ask("post", *ends, body))
        assert (status, table["code"]) == (403, "other_peer"), table
        assert time.monotonic() - began < HUNG_S
    began = time.monotonic()
    p.status()
    assert time.monotonic() - began < HUNG_S
    slow.kill()


def test_private_keys_show_nowhere(mesh: Mesh) -> None:
    """Not in a command line or environment, a log, a reply, the state file or the configuration;
    of any of the mesh's routers. A core dump: test_a_crash_leaves_no_memory_behind.
    """
    c, keys, seen = mesh.c, set[str](), [""]
    recorded = mesh.lab.path("recorded")
    assert isinstance(c.service, MeshService)
    c.service.record_tools(recorded, "wg", "ip", "nft", "tc")
    mesh.evil_says(lease=mesh.grant())
    for _ in range(3):
        seen.append(json.dumps(c.ask("uplink_add", peer_id="evil")))
        keys |= {path.read_text().strip() for path in Path(c.service.keys_dir).glob("*.key")}
        for path in itertools.chain(*(glob.glob(f"/proc/[0-9]*/{name}") for name in SHOWN)):
            with contextlib.suppress(OSError):
                seen.append(Path(path).read_text(errors="replace"))
        seen.append(json.dumps(c.ask("uplink_remove", peer_id="evil")))
    c.service.mend_tools()
    seen.append(Path(recorded).read_text(errors="replace"))
    assert "/wg\0" in seen[-1], "a command line was seen"
    assert "PATH=" in seen[-1], "an environment was seen"
    for peer in mesh.peers.values():
        service = peer.service
        keys |= {path.read_text().strip() for path in Path(service.keys_dir).glob("*.key")}
        for method in ("uplink_list", "uplink_status", "uplink_history", "uplink_consumers"):
            seen.append(json.dumps(peer.ask(method)))
        seen += [service.log(10**6), json.dumps(service.state()), service.read_config()]
        seen.append(service.wgctl("uplink", "doctor").stdout)
        seen += [path.read_text(errors="replace") for path in Path(service.folder).glob("*.json")]
    assert len(keys) >= 4
    assert not [key for key in keys for text in seen if key in text]


def test_case_11_new_keys_without_end(mesh: Mesh) -> None:
    """A trusted consumer asks 60 times, each time with another key, then gives each back."""
    p = mesh.p
    before, taken = os.stat(p.service.config_file).st_ino, set[int]()
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            taken.add(os.stat(p.service.config_file).st_ino)
            time.sleep(0.01)

    looking = threading.Thread(target=look)
    looking.start()
    node, ends = mesh.evil.node, (mesh.evil.mesh4, p.router.mesh4)
    found = json.loads(node.ask("ask_leases", *ends, "evil", 45, 0.05, timeout_s=60.0))
    found += json.loads(node.ask("ask_leases", *ends, "evil", 15, 0.05, "release", timeout_s=60.0))
    ended.set()
    looking.join()
    granted = [row for row in found if row[0] == 200]
    assert 1 <= len(granted) <= 5, found
    assert {row[0] for row in found} == {200, 429}, found
    assert len(taken - {before}) <= 1, "a write for each"
    rows = p.ask("uplink_consumers")["consumers"]
    assert sum(row["peer_id"] == "evil" for row in rows) <= 1
    served = p.router.node.sh("wg show wgup_srv peers").split()
    assert len(served) == len(rows)
    mesh.c.answered_by("p", 5.0)
