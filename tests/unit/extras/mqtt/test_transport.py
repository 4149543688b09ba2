"""The MQTT transport with a real broker on loopback."""

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
        for _ in range(400):
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            assert self._process.poll() is None, "mosquitto does not run"
            threading.Event().wait(0.025)
        pytest.fail("mosquitto does not listen")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    made = Broker(tmp_path)
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(module, "LONGEST_PAUSE_S", 0.1)
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

    def cut(self) -> None:
        """The cable is pulled, as the broker sees it."""
        link = self.transport._link
        assert link is not None and link._sock is not None
        link._sock.shutdown(socket.SHUT_RDWR)


@asynccontextmanager
async def peers(
    settings: MqttSettings, *ids: str, folder: str = FOLDER
) -> AsyncIterator[list[Peer]]:
    """Transports, connected; in the end nothing of them is left."""
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


# --- what travels


async def test_an_offer_is_kept_for_who_comes_later(broker: Broker) -> None:
    broker.start()
    async with peers(broker.settings, "nodeA") as (one,):
        await one.connected()
        assert one.transport.publish(b"old") and one.transport.publish(b"new")
        await one.has(("nodeA", b"new"))
        async with peers(broker.settings, "nodeB") as (other,):
            await other.has(("nodeA", b"new"))
            assert other.messages == [("nodeA", b"new")]
            assert one.transport.publish(b"newer")
            await other.has(("nodeA", b"newer"))
        assert {who for who, _ in one.messages} == {"nodeA"}, "its own topic, as everybody's"


async def test_a_router_hears_its_areas_and_who_knows_of_none(broker: Broker) -> None:
    broker.start()
    north, both = (
        replace(broker.settings, areas=areas) for areas in (("north",), ("south", "north"))
    )
    async with peers(broker.settings, "older", "mover") as (older, mover):
        await older.connected()
        await mover.connected()
        older.transport.publish(b"flat")
        mover.transport.publish(b"before it had areas")
        await older.has(("mover", b"before it had areas"))
        await mover.transport.close()
        async with peers(north, "one", "mover") as (one, moved):
            await one.connected()
            await moved.connected()
            async with peers(both, "edge") as (edge,):
                await edge.connected()
                for peer in (one, moved, edge):
                    peer.transport.publish(peer.id.encode())
                heard = [("one", b"one"), ("mover", b"mover"), ("older", b"flat")]
                await edge.has(("edge", b"edge"), *heard)
                await one.has(*heard)
                assert "edge" not in dict(one.messages), "its own goes to its first area"
                assert not {"one", "edge"} & dict(older.messages).keys()
        async with peers(broker.settings, "later") as (later,):
            await later.has(("older", b"flat"))
            assert "mover" not in dict(later.messages), "what it said without areas is gone"


async def test_what_was_said_is_taken_back(broker: Broker) -> None:
    broker.start()
    async with peers(broker.settings, "one") as (one,):
        await one.connected()
        one.transport.publish(b"offer")
        await one.has(("one", b"offer"))
        one.transport.clear()
    async with peers(broker.settings, "other", "later") as (other, later):
        await later.connected()
        other.transport.publish(b"new")
        await later.has(("other", b"new"))
        assert "one" not in dict(later.messages)


async def test_a_renewed_connection_has_a_new_will_and_uses_none(broker: Broker) -> None:
    broker.start()
    async with peers(broker.settings, "nodeA", "nodeB") as (one, other):
        await one.connected()
        await other.connected()
        asked = one.wills
        one.transport.renew()
        await one.connected(times=2)
        assert one.wills == asked + 1
        one.transport.publish(b"offer")
        await other.has(("nodeA", b"offer"))
        assert other.messages == [("nodeA", b"offer")]


async def test_a_death_publishes_the_last_will(broker: Broker) -> None:
    broker.start()
    async with peers(broker.settings, "nodeA", "nodeB") as (one, other):
        await one.connected()
        await other.connected()
        one.transport.publish(b"offer")
        await other.has(("nodeA", b"offer"))
        one.cut()
        await other.has(("nodeA", b"gone nodeA"))
        await one.connected(times=2)
        assert "lost" in one.states[1]
        assert one.wills >= 3, "asked for anew at each connect"
        async with peers(broker.settings, "nodeC") as (later,):
            await later.has(("nodeA", b"gone nodeA"))
        one.transport.publish(b"again")
        await other.has(("nodeA", b"again"))
        assert other.messages[-1] == ("nodeA", b"again")


async def test_a_killed_process_publishes_the_last_will(broker: Broker) -> None:
    broker.start()
    code = (
        "import asyncio, sys\n"
        "from rpcd_wireguard_uplink.extras.mqtt.transport import MqttTransport\n"
        "from rpcd_wireguard_uplink.config.options import MqttSettings\n"
        "async def main():\n"
        "    told = lambda problem: problem or transport.publish(b'offer')\n"
        f"    settings = MqttSettings(True, '127.0.0.1', {broker.port}, prefix='mesh')\n"
        "    transport = MqttTransport(settings, 'nodeK', lambda: b'dead', print, told)\n"
        "    transport.start()\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    async with peers(broker.settings, "nodeB") as (other,):
        await other.connected()
        process = subprocess.Popen([sys.executable, "-c", code])
        try:
            await other.has(("nodeK", b"offer"))
        finally:
            process.kill()
            process.wait()
        await other.has(("nodeK", b"dead"))


async def test_a_proper_end_has_no_last_will(broker: Broker) -> None:
    broker.start()
    async with peers(broker.settings, "watcher") as (watcher,):
        await watcher.connected()
        async with peers(broker.settings, "nodeA") as (one,):
            await one.connected()
            one.transport.publish(b"offer")
            one.transport.publish(b"withdrawn")
            await one.transport.close()
            assert not one.transport.publish(b"too late")
            assert one.states == [""], "an end that was asked for is no problem"
        await watcher.has(("nodeA", b"withdrawn"))
        await asyncio.sleep(0.2)
        assert [payload for _, payload in watcher.messages] == [b"offer", b"withdrawn"]


async def test_what_is_not_passed_on(broker: Broker) -> None:
    broker.start()
    async with raw(broker) as client, peers(broker.settings, "nodeA") as (one,):
        await one.connected()
        topic = "mesh/offer/"
        for name, payload in (
            ("nodeB", b"x" * (MOST_PAYLOAD + 1)),
            ("nodeC", b"x" * 5_000_000),
            ("nodeD", b""),
            ("n" * 65, b"long name"),
            ("deep/er", b"no"),
            ("nodeE", b"x" * MOST_PAYLOAD),
        ):
            client.publish(topic + name, payload, qos=1)
        client.publish("mesh/other", b"no", qos=1)
        await until(lambda: one.messages)
        assert [who for who, _ in one.messages] == ["nodeE"]
        assert one.states == [""]


@asynccontextmanager
async def raw(broker: Broker) -> AsyncIterator[Any]:
    """A client that is not ours."""
    import paho.mqtt.client as paho

    kind = getattr(paho, "CallbackAPIVersion", None)
    client = paho.Client(*(() if kind is None else (kind.VERSION2,)), client_id="stranger")
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    try:
        yield client
    finally:
        client.disconnect()
        client.loop_stop()


async def test_a_burst_leaves_the_loop_free(broker: Broker) -> None:
    broker.start()
    async with raw(broker) as client, peers(broker.settings, "nodeA") as (one,):
        await one.connected()
        loop = asyncio.get_running_loop()
        code = (
            "import sys, paho.mqtt.client as paho\n"
            "kind = getattr(paho, 'CallbackAPIVersion', None)\n"
            "client = paho.Client(*(() if kind is None else (kind.VERSION2,)))\n"
            f"client.connect('127.0.0.1', {broker.port}); client.loop_start()\n"
            "for n in range(1000):\n"
            "    last = client.publish(f'mesh/offer/n{n}', b'x' * 1000, 1)\n"
            "last.wait_for_publish(); client.disconnect(); client.loop_stop()\n"
        )
        process = subprocess.Popen([sys.executable, "-c", code])
        try:
            gaps, before_s = [], loop.time()
            while len(one.messages) < 1000:
                await asyncio.sleep(0.01)
                gaps.append(loop.time() - before_s - 0.01)
                before_s = loop.time()
                assert len(gaps) < 3000, f"{len(one.messages)} messages came"
        finally:
            process.kill()
            process.wait()
        assert len({who for who, _ in one.messages}) == 1000
        assert len(gaps) > 20, "the loop had its turns meanwhile"
        assert sorted(gaps)[len(gaps) // 2] < 0.1 and max(gaps) < 1.0
        assert client.is_connected()


async def test_a_receiver_that_fails_loses_one_message(broker: Broker) -> None:
    broker.start()
    async with peers(broker.settings, "nodeA", "nodeB") as (one, other):
        await one.connected()
        await other.connected()
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


# --- brokers that are away, refuse, or are none


async def test_a_broker_that_restarts_is_found_again(broker: Broker) -> None:
    async with peers(broker.settings, "nodeA", "nodeB") as (one, other):
        await until(lambda: one.states)
        assert "refused" in one.states[0] and str(broker.port) in one.states[0]
        assert not one.transport.publish(b"nobody hears")
        broker.start()
        await one.connected()
        await other.connected()
        broker.stop()
        await until(lambda: "" not in (one.states[-1], other.states[-1]))
        await asyncio.sleep(0.5)
        told = len(one.states)
        assert told <= 4, f"the same is told once: {one.states}"
        broker.start()
        await one.connected(times=2)
        await other.connected(times=2)
        one.transport.publish(b"offer")
        await other.has(("nodeA", b"offer"))


async def test_the_pauses_grow(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.1)
    monkeypatch.setattr(module, "LONGEST_PAUSE_S", 60.0)
    async with peers(broker.settings, "nodeA") as (one,):
        await asyncio.sleep(2.0)
        assert 3 <= one.wills <= 8
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
    async with peers(settings, "nodeA", folder=str(own.parent)) as (one,):
        await until(lambda: one.states)
        assert "refuses the user or the password" in one.states[0]
        assert "wrong" not in " ".join(one.states)
        assert not own.with_name("mqtt-password.broker").exists(), "it opened nothing yet"
        own.write_text("right\nanything\n")
        await one.connected()
        known = json.loads(own.with_name("mqtt-password.broker").read_text())
        assert known == {"host": "127.0.0.1", "port": broker.port, "tls": False}
        own.unlink()
        one.cut()
        await until(lambda: "password_file" in one.states[-1])
    async with peers(broker.settings, "nodeB") as (nobody,):
        await until(lambda: nobody.states)
        assert "refuses the user or the password" in nobody.states[0]


@pytest.mark.needs("openssl")
async def test_tls(broker: Broker, tmp_path: Path) -> None:
    certificates(tmp_path)
    broker.start(
        "allow_anonymous true",
        f"certfile {tmp_path / 'broker.crt'}",
        f"keyfile {tmp_path / 'broker.key'}",
    )
    trusting = replace(broker.settings, tls=True, ca_file=str(tmp_path / "ca.crt"))
    async with peers(trusting, "nodeA", "nodeB") as (one, other):
        await one.connected()
        await other.connected()
        one.transport.publish(b"first")
        await other.has(("nodeA", b"first"))  # its subscription has arrived
        for number in range(100):
            one.transport.publish(b"%d" % number * 300)
        await other.has(("nodeA", b"99" * 300))
        assert len(other.messages) == 101
    for settings, word in (
        (replace(trusting, ca_file=""), "certificate is not valid"),
        (replace(trusting, ca_file=str(tmp_path / "other.crt")), "certificate is not valid"),
        (broker.settings, "127.0.0.1"),
    ):
        async with peers(settings, "nodeC") as (refused,):
            await until(lambda refused=refused: refused.states)
            assert word in refused.states[0] and "" not in refused.states


@pytest.mark.needs("openssl")
async def test_what_tls_holds_back_is_read(tmp_path: Path) -> None:
    """Many messages in one record: the socket is readable once, and for the first ones only."""
    certificates(tmp_path)
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.load_cert_chain(tmp_path / "broker.crt", tmp_path / "broker.key")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(b"\x20\x03\x00\x00\x00")  # CONNACK
        await reader.read(1000)
        writer.write(b"".join(published(f"mesh/offer/n{n}", b"offer") for n in range(100)))
        await reader.read(1000)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=own)
    port = server.sockets[0].getsockname()[1]
    settings = MqttSettings(True, "127.0.0.1", port, tls=True, prefix="mesh")
    async with peers(replace(settings, ca_file=str(tmp_path / "ca.crt")), "nodeA") as (one,):
        await until(lambda: len(one.messages) == 100)
        assert one.messages[99] == ("n99", b"offer")
    server.close()


def published(topic: str, payload: bytes) -> bytes:
    """A PUBLISH as MQTT 5 has it, without acknowledgement (3.3)."""
    name = topic.encode()
    body = len(name).to_bytes(2, "big") + name + b"\x00" + payload
    return bytes((0x30, len(body))) + body


def certificates(folder: Path) -> None:
    """An authority, a broker's certificate signed by it, and an authority that signed nothing."""
    for name in ("ca", "other"):
        openssl(folder, "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt",
                "ec_paramgen_curve:prime256v1", "-keyout", f"{name}.key", "-out", f"{name}.crt",
                "-days", "2", "-subj", f"/CN={name}")  # fmt: skip
    openssl(folder, "req", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
            "-keyout", "broker.key", "-out", "broker.csr", "-subj", "/CN=broker")  # fmt: skip
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    openssl(folder, "x509", "-req", "-in", "broker.csr", "-CA", "ca.crt", "-CAkey", "ca.key",
            "-CAcreateserial", "-days", "2", "-extfile", "names", "-out", "broker.crt")  # fmt: skip


def openssl(folder: Path, *words: str) -> None:
    done = subprocess.run(["openssl", *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "must speak MQTT 5"),
        (b"\xff" * 200, ""),
        (b"\x20\x02\x00\x01", "reason 132"),
        (b"\x20\x03\x00\x88\x00", "reason 136"),
        (b"\x20\x03\x00\x42\x00", "speak MQTT 5"),
        (b"", "closed the connection"),
    ],
    ids=["http", "ones", "older", "unavailable", "unknown", "closed"],
)
async def test_what_is_no_broker_is_told(
    answer: bytes, word: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await reader.read(10)
            writer.write(answer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with peers(MqttSettings(True, "127.0.0.1", port), "nodeA") as (one,):
        await until(lambda: one.wills > 3)
        assert one.states and word in one.states[0] and "" not in one.states
    server.close()
    gc.collect()
    assert "never retrieved" not in caplog.text


async def test_a_packet_without_end_is_not_waited_for() -> None:
    """256 MB are announced and begin to come."""
    sent: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(b"\x20\x03\x00\x00\x00")  # CONNACK
        await reader.read(1000)
        writer.write(b"\x30\xff\xff\xff\x7f")
        with suppress(ConnectionError):
            for number in range(256):
                sent.append(number)
                writer.write(bytes(1 << 20))
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with peers(MqttSettings(True, "127.0.0.1", port), "nodeA") as (one,):
        await until(lambda: len(one.states) > 1)
        assert "larger than was asked for" in one.states[1]
    server.close()
    assert sent.count(100) == 0


@asynccontextmanager
async def evil(send: bytes) -> AsyncIterator[MqttSettings]:
    """A broker that takes everybody, sends this at the subscription, and answers nothing else."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(b"\x20\x03\x00\x00\x00")  # CONNACK
        await reader.read(1000)
        with suppress(ConnectionError):
            writer.write(send)
            while await reader.read(10000):
                pass
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield MqttSettings(True, "127.0.0.1", server.sockets[0].getsockname()[1])
    server.close()


async def test_messages_that_are_never_finished_are_not_kept() -> None:
    """With QoS 2 the library keeps each until the broker says that it may be passed on."""
    packets = [
        bytes((0x34, 0x8B, 0x08, 0, 1, 97)) + number.to_bytes(2, "big") + bytes(1030)
        for number in range(1, 2000)
    ]
    async with evil(b"".join(packets)) as settings, peers(settings, "nodeA") as (one,):
        await until(lambda: len(one.states) > 1)
        assert "a quality of service that was not asked for" in one.states[1]


async def test_packets_that_are_no_messages_leave_the_loop_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns, real = [0], connection.Link._readable

    def counted(link: connection.Link) -> None:
        turns[0] += 1
        real(link)

    async with evil(b"\xd0\x00" * 5000) as settings, peers(settings, "nodeA") as (one,):
        monkeypatch.setattr(connection.Link, "_readable", counted)
        await one.connected()
        monkeypatch.setattr(connection, "TURN_S", 60.0)
        turns[0] = 0
        await asyncio.sleep(0.2)
        assert turns[0] <= 2


async def test_a_broker_that_acknowledges_nothing_is_left() -> None:
    async with evil(b"") as settings, peers(settings, "nodeA") as (one,):
        await one.connected()
        assert sum(one.transport.publish(b"x") for _ in range(1000)) <= 200
        await until(lambda: len(one.states) > 1)
        assert "acknowledges nothing" in one.states[1]


async def test_a_silent_broker_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = MqttSettings(True, "127.0.0.1", silent.getsockname()[1])
        async with peers(settings, "nodeA") as (one,):
            await until(lambda: one.states)
            assert "does not answer" in one.states[0]


async def test_a_close_does_not_wait_for_a_look_up(monkeypatch: pytest.MonkeyPatch) -> None:
    hang = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    connect = socket.create_connection

    def look_up(*_: Any, **__: Any) -> socket.socket:
        hang.wait(30)
        return connect(listener.getsockname())

    monkeypatch.setattr(socket, "create_connection", look_up)
    before = len(os.listdir("/proc/self/fd"))
    one = Peer(MqttSettings(True, "mesh.example"))
    try:
        one.transport.start()
        await asyncio.sleep(0.2)
        await asyncio.wait_for(one.transport.close(), 5)
    finally:
        hang.set()
    await until(lambda: len(os.listdir("/proc/self/fd")) == before)
    listener.close()


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
    one = Peer(MqttSettings(True, "127.0.0.1"))
    with pytest.raises(NotSupported, match="python3-paho-mqtt"):
        one.transport.start()
