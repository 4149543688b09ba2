"""A mesh of 10,000 routers at one broker, in 100 areas: what a router that hears one area pays.

The broker is a real mosquitto on loopback; one client stands for all routers. The router's side is
the product's transport, which checks each offer's signature, in a process of its own.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rpcd_wireguard_uplink.config.options import MqttSettings
from rpcd_wireguard_uplink.mesh.offers import OfferBook
from rpcd_wireguard_uplink.mesh.wire.offer import Offer, parse_message
from rpcd_wireguard_uplink.mesh.wire.signing import Signer, verify
from tests.lab.node import LabError, environment
from tests.lab.service import variables

from .table import Row

ROUTERS, AREAS = 10_000, 100
REPEAT_S = 300.0  # provider/offer.py: how often a router says its offer again
WINDOW_S = 12.0
# What the service has loaded before is no part of it, what the transport loads is.
_ROUTER = (
    "import rpcd_wireguard_uplink.service, rpcd_wireguard_uplink.daemon\n"
    f"from {__name__} import hear; hear()"
)
KEY = base64.b64encode(bytes(range(32))).decode()
NEWS = range(int(ROUTERS / REPEAT_S * WINDOW_S))


def measure_areas(runs: int) -> list[Row]:
    """Start, memory and messages of a router in a mesh of many areas."""
    found: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        program = shutil.which("mosquitto", path=environment()["PATH"])
        if program is None:
            raise LabError("mosquitto is not on PATH")
        file = Path(folder, "mosquitto.conf")
        file.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nuser root\n")
        broker = subprocess.Popen([program, "-c", str(file)], stderr=subprocess.DEVNULL)
        try:
            seed_file = os.path.join(folder, "identity.seed")
            mesh = _Mesh(port, seed_file)
            mesh.say(range(ROUTERS), 0.0)
            for _ in range(runs):
                argv = [sys.executable, "-c", _ROUTER, str(port), seed_file]
                with subprocess.Popen(argv, stdout=subprocess.PIPE, env=_clean()) as router:
                    assert router.stdout is not None
                    router.stdout.readline()  # it has heard its area
                    mesh.say(NEWS, WINDOW_S / len(NEWS))
                    found.append(json.loads(router.stdout.readline()))
            mesh.client.disconnect()
            mesh.client.loop_stop()
        finally:
            broker.kill()
            broker.wait()
    note = f"{ROUTERS} retained offers of {AREAS} areas, mosquitto, signatures checked"

    def of(name: str) -> tuple[float, ...]:
        return tuple(each[name] for each in found)

    return [
        Row(
            "a mesh of 100 areas: all offers of one's own known", "s", of("start_s"), 2, "p95", note
        ),
        Row(
            "a mesh of 100 areas: memory of it",
            "MB",
            of("memory_mb"),
            3,
            "p95",
            "paho-mqtt without TLS, the connection and the offers",
        ),
        Row(
            "a mesh of 100 areas: messages a minute", "messages", of("per_minute"), 40, "p95", note
        ),
    ]


def _offer(name: str, signer: Signer) -> str:
    sequence = int(time.time()) << 20
    offer = Offer(peer_id=name, host="192.0.2.9", public_key=KEY, sequence=sequence)
    return json.dumps(signer.sign(offer.as_table()))


def _clean() -> dict[str, str]:
    return {**environment(), **variables()}


class _Mesh:
    """All routers, as one client of the broker."""

    def __init__(self, port: int, seed_file: str) -> None:
        import paho.mqtt.client as paho

        kind: Any = getattr(paho, "CallbackAPIVersion", None)
        first = () if kind is None else (kind.VERSION2,)
        self.client: Any = paho.Client(*first)
        deadline = time.monotonic() + 10.0
        while True:
            try:
                self.client.connect("127.0.0.1", port)
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        self.client.loop_start()
        self._signer = Signer.load(seed_file)

    def say(self, routers: range, pause_s: float) -> None:
        """Have these routers say their offers, so many seconds after one another."""
        last = None
        for number in routers:
            name = f"node{number}"
            topic = f"mesh/offer/area{number % AREAS}/{name}"
            last = self.client.publish(topic, _offer(name, self._signer), qos=1, retain=True)
            if pause_s:
                time.sleep(pause_s)
        if last is not None:
            last.wait_for_publish()


async def _hear(port: int, seed_file: str) -> None:
    """Be a router: say when the area is known, and then what a while of news was."""
    from rpcd_wireguard_uplink.extras.mqtt.transport import MqttTransport

    book = OfferBook()
    messages = 0

    def take(peer_id: str, payload: bytes) -> None:
        nonlocal messages
        messages += 1
        offer = parse_message(payload.decode())
        assert verify(payload.decode()) and isinstance(offer, Offer)
        book.accept(offer)

    settings = MqttSettings(True, "127.0.0.1", port, prefix="mesh", areas=("area7",))
    take("", _offer("node7", Signer.load(seed_file)).encode())  # the libraries of any transport
    book.forget("node7")
    before_mb, began_s = _resident_mb(), time.monotonic()
    transport = MqttTransport(settings, "node7", lambda: b"gone", take, lambda problem: None)
    transport.start()
    while len(book.names) < ROUTERS // AREAS:
        await asyncio.sleep(0.005)
    start_s, first = time.monotonic() - began_s, messages
    print("known", flush=True)
    await asyncio.sleep(WINDOW_S)
    heard = {
        "start_s": start_s,
        "memory_mb": _resident_mb() - before_mb,
        "per_minute": (messages - first) * 60 / WINDOW_S,
    }
    print(json.dumps(heard), flush=True)
    await transport.close()


def _resident_mb() -> float:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def hear() -> None:
    """The router's process."""
    asyncio.run(_hear(int(sys.argv[1]), sys.argv[2]))
