"""The MQTT transport with a real broker on loopback, and with what is none."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rpcd_wireguard_uplink.config.options import MqttSettings
from rpcd_wireguard_uplink.errors import ConfigError, NotSupported
from rpcd_wireguard_uplink.extras.mqtt import connection
from rpcd_wireguard_uplink.extras.mqtt import transport as module
from rpcd_wireguard_uplink.extras.mqtt.password import FOLDER
from rpcd_wireguard_uplink.extras.mqtt.transport import MOST_PAYLOAD, MqttTransport
from tests.lab.node import environment
from tests.unit.waiting import until

pytestmark = pytest.mark.needs("mosquitto")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Broker:
    """A mosquitto of its own, on loopback."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.settings = MqttSettings(True, "127.0.0.1", self.port, prefix="mesh")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *lines: str) -> None:
        file = self.folder / "mosquitto.conf"
        words = [f"listener {self.port} 127.0.0.1", "user root", "persistence false", *lines]
        if not lines:
            words.append("allow_anonymous true")
        file.write_text("\n".join(words) + "\n")
        program = shutil.which("mosquitto", path=environment()["PATH"])
        assert program is not None
        self._process = subprocess.Popen([program, "-c", str(file)], stderr=subprocess.DEVNULL)
        for _ in range(2000):
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            assert self._process.poll() is None, "mosquitto does not run"
            threading.Event().wait(0.005)
        pytest.fail("mosquitto does not listen")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """One that a test starts by itself."""
    made = Broker(tmp_path)
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    made = Broker(tmp_path_factory.mktemp("broker"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture
def settings(running: Broker, request: pytest.FixtureRequest) -> MqttSettings:
    """A broker that runs, where no test has a topic of another."""
    return replace(running.settings, prefix=request.node.name)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(module, "LONGEST_PAUSE_S", 0.02)
    yield
    gc.enable()


class Peer:
    """A transport and what it told."""

    def __init__(
        self, settings: MqttSettings, peer_id: str = "nodeA", folder: str = FOLDER
    ) -> None:
        self.messages: list[tuple[str, bytes]] = []
        self.states: list[str] = []
        self.wills = 0
        self.id = peer_id
        self.transport = MqttTransport(
            settings,
            peer_id,
            self._will,
            lambda who, payload: self.messages.append((who, payload)),
            self.states.append,
            folder,
        )

    def _will(self) -> bytes:
        self.wills += 1
        return f"gone {self.id}".encode()

    async def connected(self, times: int = 1) -> None:
        await until(lambda: self.states.count("") >= times)

    async def has(self, *messages: tuple[str, bytes]) -> None:
        await until(lambda: all(message in self.messages for message in messages))

    async def told(self, word: str, place: int = 0) -> None:
        """What it told at that place has this word."""
        await until(lambda: len(self.states) > place)
        assert word in self.states[place]

    def cut(self) -> None:
        """The cable is pulled, or the process killed, as the broker sees it."""
        link = self.transport._link
        assert link is not None and link._sock is not None
        link._sock.shutdown(socket.SHUT_RDWR)


@asynccontextmanager
async def trying(
    settings: MqttSettings, *ids: str, folder: str = FOLDER
) -> AsyncIterator[list[Peer]]:
    """Transports that were started; in the end nothing of them is left."""
    gc.collect()
    gc.disable()  # files must be closed when nobody needs them, not when the collector comes by
    before = len(os.listdir("/proc/self/fd"))
    made = [Peer(settings, peer_id, folder) for peer_id in ids]
    try:
        for peer in made:
            peer.transport.start()
        yield made
    finally:
        for peer in made:
            await peer.transport.close()
    made.clear()
    await until(lambda: len(os.listdir("/proc/self/fd")) <= before)


@asynccontextmanager
async def peers(settings: MqttSettings, *ids: str) -> AsyncIterator[list[Peer]]:
    """The same, connected."""
    async with trying(settings, *ids) as made:
        for peer in made:
            await peer.connected()
        yield made


# --- what travels


async def test_an_offer_is_kept_for_who_comes_later(settings: MqttSettings) -> None:
    async with peers(settings, "nodeA") as (one,):
        assert one.transport.publish(b"old") and one.transport.publish(b"new")
        await one.has(("nodeA", b"new"))
        async with peers(settings, "nodeB") as (other,):
            await other.has(("nodeA", b"new"))
            assert other.messages == [("nodeA", b"new")]
            assert one.transport.publish(b"newer")
            await other.has(("nodeA", b"newer"))
        assert {who for who, _ in one.messages} == {"nodeA"}, "its own topic, as everybody's"
        one.transport.clear()
    async with peers(settings, "other", "later") as (other, later):
        other.transport.publish(b"new")
        await later.has(("other", b"new"))
        assert "nodeA" not in dict(later.messages), "what was said is taken back"


async def test_a_router_hears_its_areas_and_who_knows_of_none(settings: MqttSettings) -> None:
    north, both = (replace(settings, areas=areas) for areas in (("north",), ("south", "north")))
    async with peers(settings, "older", "mover") as (older, mover):
        older.transport.publish(b"flat")
        mover.transport.publish(b"before it had areas")
        await older.has(("mover", b"before it had areas"))
        await mover.transport.close()
        async with peers(north, "one", "mover") as (one, moved), peers(both, "edge") as (edge,):
            for peer in (one, moved, edge):
                peer.transport.publish(peer.id.encode())
            heard = [("one", b"one"), ("mover", b"mover"), ("older", b"flat")]
            await edge.has(("edge", b"edge"), *heard)
            await one.has(*heard)
            assert "edge" not in dict(one.messages), "its own goes to its first area"
            assert not {"one", "edge"} & dict(older.messages).keys()
        async with peers(settings, "later") as (later,):
            await later.has(("older", b"flat"))
            assert "mover" not in dict(later.messages), "what it said without areas is gone"


async def test_a_renewed_connection_has_a_new_will_and_uses_none(settings: MqttSettings) -> None:
    async with peers(settings, "nodeA", "nodeB") as (one, other):
        asked = one.wills
        one.transport.renew()
        await one.connected(times=2)
        assert one.wills == asked + 1
        one.transport.publish(b"offer")
        await other.has(("nodeA", b"offer"))
        assert other.messages == [("nodeA", b"offer")]


async def test_a_death_publishes_the_last_will(settings: MqttSettings) -> None:
    async with peers(settings, "nodeA", "nodeB") as (one, other):
        one.transport.publish(b"offer")
        await other.has(("nodeA", b"offer"))
        one.cut()
        await other.has(("nodeA", b"gone nodeA"))
        await one.connected(times=2)
        assert "lost" in one.states[1]
        assert one.wills >= 3, "asked for anew at each connect"
        async with peers(settings, "nodeC") as (later,):
            await later.has(("nodeA", b"gone nodeA"))
        one.transport.publish(b"again")
        await other.has(("nodeA", b"again"))
        assert other.messages[-1] == ("nodeA", b"again")


async def test_a_proper_end_has_no_last_will(settings: MqttSettings) -> None:
    async with peers(settings, "watcher") as (watcher,):
        async with peers(settings, "nodeA") as (one,):
            one.transport.publish(b"offer")
            one.transport.publish(b"withdrawn")
            await one.transport.close()
            assert not one.transport.publish(b"too late")
            assert one.states == [""], "an end that was asked for is no problem"
        watcher.transport.publish(b"later")
        await watcher.has(("watcher", b"later"))
        assert [payload for _, payload in watcher.messages] == [b"offer", b"withdrawn", b"later"]


async def test_what_is_not_passed_on(settings: MqttSettings) -> None:
    paho = pytest.importorskip("paho.mqtt.client")
    kind = getattr(paho, "CallbackAPIVersion", None)
    client = paho.Client(*(() if kind is None else (kind.VERSION2,)), client_id="stranger")
    client.connect(settings.host, settings.port)
    client.loop_start()
    async with peers(settings, "nodeA") as (one,):
        topic = f"{settings.prefix}/offer/"
        for name, payload in (
            ("nodeB", b"x" * (MOST_PAYLOAD + 1)),
            ("nodeC", b"x" * 5_000_000),
            ("nodeD", b""),
            ("n" * 65, b"long name"),
            ("deep/er", b"no"),
            ("../other", b"no"),
            ("nodeE", b"x" * MOST_PAYLOAD),
        ):
            client.publish(topic + name, payload, qos=1)
        await until(lambda: one.messages)
        assert [who for who, _ in one.messages] == ["nodeE"]
        assert one.states == [""]
    client.disconnect()
    client.loop_stop()


async def test_a_receiver_that_fails_loses_one_message(settings: MqttSettings) -> None:
    async with peers(settings, "nodeA", "nodeB") as (one, other):
        taken: list[bytes] = []

        def take(who: str, payload: bytes) -> None:
            if payload == b"bad":
                raise RuntimeError("secret")
            taken.append(payload)

        other.transport._on_message = take
        one.transport.publish(b"bad")
        one.transport.publish(b"good")
        await until(lambda: taken == [b"good"])
        assert other.states == [""]


# --- brokers that are away, or refuse


async def test_a_broker_that_restarts_is_found_again(broker: Broker) -> None:
    async with trying(broker.settings, "nodeA", "nodeB") as (one, other):
        await one.told("refused")
        assert str(broker.port) in one.states[0]
        assert not one.transport.publish(b"nobody hears")
        broker.start()
        await one.connected()
        await other.connected()
        broker.stop()
        await until(lambda: "" not in (one.states[-1], other.states[-1]))
        tried = one.wills
        await until(lambda: one.wills > tried + 4)
        assert len(one.states) <= 4, f"the same is told once: {one.states}"
        broker.start()
        await one.connected(times=2)
        await other.connected(times=2)
        one.transport.publish(b"offer")
        await other.has(("nodeA", b"offer"))


async def test_the_pauses_grow(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        await asyncio.sleep(0 if len(pauses) < 8 else 3600)

    monkeypatch.setattr(module, "FIRST_PAUSE_S", 1.0)
    monkeypatch.setattr(module, "LONGEST_PAUSE_S", 60.0)
    monkeypatch.setattr(module, "asyncio", SimpleNamespace(**vars(asyncio) | {"sleep": sleep}))
    monkeypatch.setattr(module, "random", SimpleNamespace(uniform=lambda low, high: high))
    async with trying(broker.settings, "nodeA") as (one,):
        await until(lambda: len(pauses) == 8)
        assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
        assert len(one.states) == 1


@pytest.mark.needs("mosquitto_passwd")
async def test_user_and_password(broker: Broker, tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    program = shutil.which("mosquitto_passwd", path=environment()["PATH"])
    words = [str(program), "-b", "-c", str(passwords), "mesh", "right"]
    subprocess.run(words, check=True, capture_output=True)
    broker.start("allow_anonymous false", f"password_file {passwords}")
    own = tmp_path / "own" / "mqtt-password"
    own.parent.mkdir()
    settings = replace(broker.settings, user="mesh", password_file=str(own))
    own.write_text("wrong\n")
    own.chmod(0o600)
    async with trying(settings, "nodeA", folder=str(own.parent)) as (one,):
        await one.told("refuses the user or the password")
        assert "wrong" not in " ".join(one.states)
        assert not own.with_name("mqtt-password.broker").exists(), "it opened nothing yet"
        own.write_text("right\nanything\n")
        await one.connected()
        known = json.loads(own.with_name("mqtt-password.broker").read_text())
        assert known == {"host": "127.0.0.1", "port": broker.port, "tls": False}
        own.unlink()
        one.cut()
        await until(lambda: "password_file" in one.states[-1])
    async with trying(broker.settings, "nodeB") as (nobody,):
        await nobody.told("refuses the user or the password")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, a broker's certificate signed by it, and an authority that signed nothing."""
    folder = tmp_path_factory.mktemp("certificates")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    for name in ("ca", "other"):
        openssl(folder, "req", "-x509", *key, "-keyout", f"{name}.key", "-out", f"{name}.crt",
                "-days", "2", "-subj", f"/CN={name}")  # fmt: skip
    openssl(folder, "req", *key, "-keyout", "broker.key", "-out", "broker.csr",
            "-subj", "/CN=broker")  # fmt: skip
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    openssl(folder, "x509", "-req", "-in", "broker.csr", "-CA", "ca.crt", "-CAkey", "ca.key",
            "-CAcreateserial", "-days", "2", "-extfile", "names", "-out", "broker.crt")  # fmt: skip
    return folder


def openssl(folder: Path, *words: str) -> None:
    done = subprocess.run(["openssl", *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.needs("openssl")
async def test_tls(broker: Broker, certificates: Path) -> None:
    broker.start(
        "allow_anonymous true",
        f"certfile {certificates / 'broker.crt'}",
        f"keyfile {certificates / 'broker.key'}",
    )
    trusting = replace(broker.settings, tls=True, ca_file=str(certificates / "ca.crt"))
    async with peers(trusting, "nodeA", "nodeB") as (one, other):
        one.transport.publish(b"first")
        await other.has(("nodeA", b"first"))  # its subscription has arrived
        for number in range(100):
            one.transport.publish(b"%d" % number * 300)
        await other.has(("nodeA", b"99" * 300))
        assert len(other.messages) == 101
    for settings, word in (
        (replace(trusting, ca_file=""), "certificate is not valid"),
        (replace(trusting, ca_file=str(certificates / "other.crt")), "certificate is not valid"),
        (broker.settings, "127.0.0.1"),
    ):
        async with trying(settings, "nodeC") as (refused,):
            await refused.told(word)
            assert "" not in refused.states


# --- what is no broker, or a hostile one

CONNACK = b"\x20\x03\x00\x00\x00"


@asynccontextmanager
async def saying(
    *answers: bytes, stays: bool = True, tls: ssl.SSLContext | None = None
) -> AsyncIterator[MqttSettings]:
    """What gives an answer to each thing that it reads, and then reads on or closes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            for answer in answers:
                await reader.read(1000)
                writer.write(answer)
            await writer.drain()
            while stays and await reader.read(10000):
                pass
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    yield MqttSettings(True, "127.0.0.1", port, tls=tls is not None, prefix="mesh")
    server.close()


def published(topic: str, payload: bytes) -> bytes:
    """A PUBLISH as MQTT 5 has it, without acknowledgement (3.3)."""
    name = topic.encode()
    body = len(name).to_bytes(2, "big") + name + b"\x00" + payload
    return bytes((0x30, len(body))) + body


MANY = b"".join(published(f"mesh/offer/n{number}", b"offer") for number in range(100))


@pytest.mark.needs("openssl")
async def test_what_tls_holds_back_is_read(certificates: Path) -> None:
    """Many messages in one record: the socket is readable once, and for the first ones only."""
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.load_cert_chain(certificates / "broker.crt", certificates / "broker.key")
    async with saying(CONNACK, MANY, tls=own) as settings:
        trusting = replace(settings, ca_file=str(certificates / "ca.crt"))
        async with peers(trusting, "nodeA") as (one,):
            await until(lambda: len(one.messages) == 100)
            assert one.messages[99] == ("n99", b"offer")


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", "must speak MQTT 5", id="http"),
        pytest.param(b"\xff" * 200, "", id="ones"),
        pytest.param(b"\x20\x02\x00\x01", "reason 132", id="older"),
        pytest.param(b"\x20\x03\x00\x88\x00", "reason 136", id="unavailable"),
        pytest.param(b"\x20\x03\x00\x42\x00", "speak MQTT 5", id="unknown"),
        pytest.param(b"", "closed the connection", id="closed"),
    ],
)
async def test_what_is_no_broker_is_told(
    answer: bytes, word: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with saying(answer, stays=False) as settings, trying(settings, "nodeA") as (one,):
        await until(lambda: one.wills > 3)
        assert one.states and word in one.states[0] and "" not in one.states
    gc.collect()
    assert "never retrieved" not in caplog.text


UNFINISHED = [
    bytes((0x34, 0x8B, 0x08, 0, 1, 97)) + number.to_bytes(2, "big") + bytes(1030)
    for number in range(1, 2000)
]


@pytest.mark.parametrize(
    ("data", "word"),
    [
        # 256 MB are announced and begin to come.
        pytest.param(b"\x30\xff\xff\xff\x7f" + bytes(5000), "larger than was asked", id="endless"),
        # With QoS 2 the library keeps each until the broker says that it may be passed on.
        pytest.param(b"".join(UNFINISHED), "a quality of service that was not asked", id="QoS 2"),
    ],
)
async def test_a_broker_that_sends_too_much_is_left(data: bytes, word: str) -> None:
    async with saying(CONNACK, data) as settings, peers(settings, "nodeA") as (one,):
        await one.told(word, place=1)


@pytest.mark.parametrize("data", [b"\xd0\x00" * 5000, MANY * 10], ids=["no messages", "messages"])
async def test_a_burst_leaves_the_loop_free(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few packets are read, and no more before the next turn, which does not come here."""
    async with saying(CONNACK, b"", data) as settings, peers(settings, "nodeA") as (one,):
        monkeypatch.setattr(connection, "TURN_S", 60.0)
        link = one.transport._link
        assert link is not None
        before = link._heard
        while link._heard == before:
            link.client.subscribe("go on")
            await asyncio.sleep(0.01)
        for _ in range(100):
            await asyncio.sleep(0)
        assert link._heard <= before + connection.MOST_AT_ONCE
        assert len(one.messages) <= connection.MOST_AT_ONCE


async def test_a_broker_that_acknowledges_nothing_is_left() -> None:
    async with saying(CONNACK) as settings, peers(settings, "nodeA") as (one,):
        assert sum(one.transport.publish(b"x") for _ in range(1000)) <= 200
        await one.told("acknowledges nothing", place=1)


async def test_a_silent_broker_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_S", 0.05)
    async with saying() as settings, trying(settings, "nodeA") as (one,):
        await one.told("does not answer")


async def test_a_close_does_not_wait_for_a_look_up(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, hang = threading.Event(), threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    connect = socket.create_connection

    def look_up(*_: Any, **__: Any) -> socket.socket:
        begun.set()
        hang.wait(30)
        return connect(listener.getsockname())

    monkeypatch.setattr(socket, "create_connection", look_up)
    before = len(os.listdir("/proc/self/fd"))
    one = Peer(MqttSettings(True, "mesh.example"))
    try:
        one.transport.start()
        await until(begun.is_set)
        await asyncio.wait_for(one.transport.close(), 5)
    finally:
        hang.set()
    await until(lambda: len(os.listdir("/proc/self/fd")) == before)
    listener.close()


async def test_a_close_at_the_moment_of_the_connection_leaves_no_socket(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "begin_thread", lambda work: work())
    mqtt = SimpleNamespace(Properties=lambda packet: SimpleNamespace())
    with socket.socket() as sock:
        client = SimpleNamespace(connect=lambda *_, **__: None, socket=lambda: sock)
        connecting = asyncio.create_task(connection.connect(mqtt, client, "mesh.example", 1883))
        for _ in range(2):  # until it is connected, and nobody knows yet
            await asyncio.sleep(0)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        assert sock.fileno() == -1


# --- settings


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"password_file": "/nonexistent/password", "user": "x"}, "password_file"),
        ({"ca_file": "/nonexistent/ca.crt", "tls": True}, "ca_file"),
        ({"ca_file": "/etc/hostname", "tls": True}, "ca_file"),
    ],
    ids=["password", "ca", "no ca"],
)
async def test_settings_that_can_not_be_used(change: dict[str, Any], word: str) -> None:
    one = Peer(replace(MqttSettings(True, "127.0.0.1"), **change))
    with pytest.raises(ConfigError, match=word):
        one.transport.start()
    await one.transport.close()


async def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "paho.mqtt.client", None)
    with pytest.raises(NotSupported, match="python3-paho-mqtt"):
        Peer(MqttSettings(True, "127.0.0.1")).transport.start()


@pytest.fixture
def no_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a router without python3-openssl, which OpenWrt's paho-mqtt does not depend on."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "paho"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ssl", None)


async def test_without_openssl(no_tls: None, settings: MqttSettings) -> None:
    async with peers(settings, "nodeA", "nodeB") as (one, other):
        one.transport.publish(b"offer")
        await other.has(("nodeA", b"offer"))
    with pytest.raises(NotSupported, match="python3-openssl"):
        Peer(replace(settings, tls=True)).transport.start()
