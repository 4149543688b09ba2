"""The exchange over a broker: offers travel by MQTT alone, leases are asked for over the mesh.

c, p1, p2 == segment == broker, where somebody else can publish too
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from rpcd_wireguard_uplink.mesh.wire.signing import Signer
from tests.lab.lab import Lab
from tests.lab.mesh import mesh_network
from tests.lab.network import ECHO4
from tests.lab.node import Child, LabError, Node, environment, join, program
from tests.lab.peers import Peer, start_peers, trust_each_other

pytestmark = pytest.mark.needs("mosquitto", "conntrack")

BROKER4 = "172.16.9.100"
TOPIC = "secubox/uplink/offer"
MQTT = f"""
config mqtt 'broker'
	option enabled '1'
	option host '{BROKER4}'
"""


class Broker:
    """A mosquitto on a node of its own at the segment, without memory over a restart."""

    def __init__(self, lab: Lab, segment: Node) -> None:
        self.node = lab.node("broker")
        join(self.node, "eth0", segment, "tobroker")
        segment.sh("ip link set tobroker master br0")
        self.node.sh(f"ip addr add {BROKER4}/24 dev eth0")
        self._lab = lab
        self._file = lab.path("mosquitto.conf")
        with open(self._file, "w", encoding="utf-8") as file:
            file.write(f"listener 1883 {BROKER4}\nallow_anonymous true\nuser root\n")
        self._child: Child | None = None

    def start(self) -> None:
        program = shutil.which("mosquitto", path=environment()["PATH"])
        assert program is not None
        self._child = self._lab.at_close(self.node.popen([program, "-c", self._file]))
        deadline = time.monotonic() + 10.0
        while ":1883" not in self.node.run(["ss", "-ltn"]).stdout:
            if time.monotonic() > deadline:
                raise LabError("mosquitto does not listen")
            time.sleep(0.05)

    def kill(self) -> None:
        assert self._child is not None
        self._child.kill()

    def publish(self, topic: str, table: dict[str, Any]) -> None:
        """Have a third party publish this, to stay."""
        words = program(
            "mqtt_publish", BROKER4, f"{TOPIC}/{topic}", json.dumps(table), packages=True
        )
        self.node.run(words)

    def held(self, topic: str) -> dict[str, Any]:
        """What the broker holds of a peer."""
        words = program("mqtt_hear", BROKER4, f"{TOPIC}/{topic}", packages=True)
        found: dict[str, Any] = json.loads(self.node.run(words).stdout)
        return found


@dataclass(frozen=True, slots=True)
class Mesh:
    lab: Lab
    peers: dict[str, Peer]
    broker: Broker

    @property
    def c(self) -> Peer:
        return self.peers["c"]

    @property
    def p1(self) -> Peer:
        return self.peers["p1"]

    def all_known(self) -> None:
        """Have both offers stand at the consumer, as each test begins."""
        self.c.hears_of("p1", "p2", timeout_s=30.0)


@pytest.fixture(scope="module")
def shared(namespaces: None) -> Iterator[Mesh]:
    """Both providers offer; the mesh carries no offers."""
    pytest.importorskip("nacl", reason="PyNaCl is not installed")
    pytest.importorskip("paho.mqtt.client", reason="paho-mqtt is not installed")
    with Lab() as lab:
        mesh = mesh_network(lab, ("c", "p1", "p2"))
        segment = next(node for node in lab.nodes if node.name == "segment")
        broker = Broker(lab, segment)
        broker.start()
        carrier = "\tlist carrier 'mqtt'\n"
        peers = start_peers(lab, mesh, carrier + MQTT, hold_time=1, max_hold_time=1)
        trust_each_other(peers, (("c", "p1"), ("c", "p2")))
        for name in ("p1", "p2"):
            peers[name].ask("uplink_offer", bandwidth_mbps=50)
        yield Mesh(lab, peers, broker)


@pytest.fixture
def mesh(shared: Mesh) -> Mesh:
    shared.all_known()
    return shared


def test_offers_come_by_the_broker_alone(mesh: Mesh) -> None:
    assert {row["carrier"] for row in mesh.c.offers().values()} == {"mqtt"}
    assert all(row["usable"] for row in mesh.c.offers().values())
    held = mesh.broker.held("p1")
    assert held["type"] == "uplink_offer" and held["signature"] and held["identity"]


def test_an_id_is_all_that_an_uplink_takes(mesh: Mesh) -> None:
    added = mesh.c.ask("uplink_add", peer_id="p1")
    assert added["leased"]
    mesh.c.ready("p1")
    assert mesh.c.through("p1", ECHO4) == [mesh.p1.router.wan.address4]


def test_withdrawing_reaches_everybody(mesh: Mesh) -> None:
    asked = time.monotonic()
    mesh.p1.ask("uplink_withdraw")
    try:
        assert mesh.c.hears_of("p2") - asked < 3.0
        assert mesh.broker.held("p1")["type"] == "uplink_withdraw"
    finally:
        mesh.p1.ask("uplink_offer")
    mesh.all_known()


def test_a_dead_line_withdraws_over_the_broker(mesh: Mesh) -> None:
    provider_wan = mesh.p1.router.wan
    cut = provider_wan.drop()
    try:
        assert mesh.c.hears_of("p2") - cut < 5.0
    finally:
        provider_wan.restore()
    mesh.all_known()


@pytest.mark.parametrize(
    ("how", "reason"), [("kill", "connection lost"), ("stop", "this router's service stops")]
)
def test_a_provider_that_ends_is_gone_at_once(mesh: Mesh, how: str, reason: str) -> None:
    """One that was killed by its last will. It comes back with a higher sequence."""
    ended = time.monotonic()
    getattr(mesh.p1.service, how)()
    try:
        assert mesh.c.hears_of("p2") - ended < 5.0
        assert mesh.broker.held("p1")["reason"] == reason
    finally:
        mesh.p1.service.start()
    mesh.all_known()


def test_a_broker_that_forgot_everything_is_told_again(mesh: Mesh) -> None:
    mesh.broker.kill()
    mesh.c.until(lambda: told(mesh.c), "word of the lost broker")
    assert mesh.c.offers().keys() == {"p1", "p2"}, "a dead broker says nothing about peers"
    mesh.broker.start()
    mesh.c.until(lambda: not told(mesh.c), "the broker again", 60.0)
    deadline = time.monotonic() + 60.0
    while mesh.broker.held("p1")["type"] != "uplink_offer":
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_provider_whose_clock_went_back_is_believed(mesh: Mesh) -> None:
    """It learns from the broker how far it had counted."""
    p1 = mesh.p1
    p1.service.stop()
    try:
        gone = {"type": "uplink_withdraw", "peer_id": "p1", "timestamp": "2030-01-01T00:00:00Z"}
        sequence = int(time.time() + 86400) << 20
        seed = os.path.join(p1.service.keys_dir, "identity.seed")
        mesh.broker.publish("p1", Signer.load(seed).sign(gone | {"sequence": sequence}))
        mesh.c.hears_of("p2")
    finally:
        p1.service.start()
    mesh.all_known()
    assert mesh.broker.held("p1")["sequence"] > sequence


def told(peer: Peer) -> bool:
    return any("MQTT" in problem for problem in peer.status()["problems"])


def signer_of(lab: Lab, name: str) -> Signer:
    folder = lab.path(name, "")
    os.makedirs(folder, exist_ok=True)
    return Signer.load(os.path.join(folder, "seed"))


def test_what_others_publish_is_refused_and_counted(mesh: Mesh) -> None:
    """Each of these would take p1's offer away, or lead its consumers elsewhere."""
    true = mesh.broker.held("p1")
    later = {**true, "sequence": true["sequence"] + 1000}
    unsigned = {k: v for k, v in later.items() if k not in ("signature", "identity")}
    thief = signer_of(mesh.lab, "thief")
    elsewhere = {**later["endpoint"], "host": "198.51.100.66"}
    gone = {"type": "uplink_withdraw", "peer_id": "p1", "sequence": later["sequence"]}
    before = mesh.c.offers()["p1"]["endpoint"]
    try:
        for topic, forged, code in (
            ("p1", later, "bad_signature"),
            ("p1", unsigned, "unsigned"),
            ("p1", thief.sign(later | {"endpoint": elsewhere}), "identity_changed"),
            ("p1", thief.sign(gone), "identity_changed"),
            ("p2", true, "other_peer"),
            ("c", thief.sign({**later, "peer_id": "c"}), "own_id"),
            ("p9", thief.sign({**later, "peer_id": "p9"}), "unknown_identity"),
        ):
            counted = mesh.c.refusals().get(code, 0)
            mesh.broker.publish(topic, forged)
            mesh.c.refuses(code, counted + 1)
            assert mesh.c.refusals()[code] == counted + 1
            assert mesh.c.offers().keys() == {"p1", "p2"}
            assert mesh.c.offers()["p1"]["endpoint"] == before
    finally:
        for name in ("p1", "p2"):  # what the broker holds of them was written over
            mesh.peers[name].ask("uplink_offer")


def test_what_is_old_is_no_news(mesh: Mesh) -> None:
    """An offer that is published again after its withdrawal stays withdrawn."""
    mesh.p1.ask("uplink_offer")
    old = mesh.broker.held("p1")
    assert old["type"] == "uplink_offer"
    mesh.p1.ask("uplink_withdraw")
    try:
        mesh.c.hears_of("p2")
        mesh.broker.publish("p1", old)
        assert mesh.broker.held("p1") == old
        # What the broker passes on later than this proves that the consumer has heard it.
        refused = mesh.c.refusals().get("other_peer", 0)
        mesh.broker.publish("p3", old)
        mesh.c.refuses("other_peer", refused + 1)
        assert mesh.c.offers().keys() == {"p2"}
    finally:
        mesh.p1.ask("uplink_offer")
    mesh.all_known()
