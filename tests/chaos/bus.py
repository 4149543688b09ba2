"""A bus that dies under load, talks rubbish, or is crowded: the service is back within a second.

Clients too: 64 at once, callers that vanish in mid-call, and whoever sends no messages at all.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from rpcd_wireguard_uplink.errors import UplinkError
from rpcd_wireguard_uplink.ubus.blobmsg import encode_table
from rpcd_wireguard_uplink.ubus.blocking import BlockingBus
from rpcd_wireguard_uplink.ubus.framing import MessageType, frame
from tests.lab.lab import Lab
from tests.lab.router import settings
from tests.lab.service import OBJECT

from .crashes import Row
from .scene import ForkedService

CLIENTS = 64
BACK_S = 1.0
CALL_S = 5.0
HELLO = frame(MessageType.HELLO, 0, 77, b"")


def garbage(chance: random.Random) -> list[bytes]:
    """What is no message, or only the beginning of one."""
    noise = chance.randbytes(chance.randrange(1, 5000))
    return [
        noise,
        HELLO[: chance.randrange(1, len(HELLO))],
        HELLO[:8] + (0x7FFFFFFF).to_bytes(4, "big"),
        frame(MessageType.INVOKE, 1, 2, noise[:200]),
        frame(255, 1, 2, b"") * 50,
    ]


def call_once(path: str) -> float:
    """Call a method on a connection of its own; how long that took. Raises UplinkError."""
    began = time.monotonic()
    with contextlib.closing(BlockingBus(path)) as bus:
        found = bus.ask(bus.connection.lookup(OBJECT), CALL_S).object_ids()
        if not found:
            raise UplinkError("the object is not there")
        request = bus.connection.invoke(found[0], "uplink_status", encode_table({}))
        if bus.ask(request, CALL_S).status:
            raise UplinkError("the call failed")
    return time.monotonic() - began


def measure(kills: int, crowd_s: float, seed: int) -> list[Row]:
    """The rows of so many deaths of the bus, and of a crowd for so long."""
    chance = random.Random(f"bus {seed}")
    with Lab() as lab:
        node = lab.node("router")
        service = ForkedService(lab, node, settings((), node_id="router"), "standalone")
        service.start_bus()
        service.start()
        rows = [_kill(service, kills), _rubbish(service, chance, max(1, kills // 10))]
        return [*rows, *_crowd(service, chance, crowd_s)]


def _stop_bus(service: ForkedService) -> None:
    assert service.bus is not None
    service.bus.kill()
    for stream in (service.bus.entered.stdout, service.bus.entered.stderr):
        if stream:
            stream.close()
    os.unlink(service.socket)


def _return(service: ForkedService, row: Row, what: str) -> None:
    """Start the bus, and see how long the object takes to be back on it."""
    service.start_bus()
    began = time.monotonic()
    while time.monotonic() - began < 10.0:
        with contextlib.suppress(UplinkError):
            call_once(service.socket)
            break
        time.sleep(0.005)
    took_s = time.monotonic() - began
    row.add(took_s, f"{what}: back after {took_s:.1f} s" if took_s > BACK_S else "")


@contextlib.contextmanager
def _running(works: Sequence[Callable[[], object]]) -> Iterator[None]:
    """Each work again and again, in a thread of its own, until the block ends."""
    ended = threading.Event()

    def repeat(work: Callable[[], object]) -> None:
        while not ended.is_set():
            work()

    threads = [threading.Thread(target=repeat, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join(2 * CALL_S)


def _kill(service: ForkedService, kills: int) -> Row:
    row = Row("bus killed under load")

    def load() -> None:
        try:
            call_once(service.socket)
        except UplinkError:
            time.sleep(0.01)

    with _running([load] * 4):
        for number in range(kills):
            _stop_bus(service)
            _return(service, row, f"death {number}")
    return row


def _rubbish(service: ForkedService, chance: random.Random, rounds: int) -> Row:
    """Who listens in the bus's place greets, or does not, and then sends what is no message."""
    row = Row("bus that talks rubbish")
    for _ in range(rounds):
        for data in garbage(chance):
            _stop_bus(service)
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(service.socket)
                listener.listen()
                listener.settimeout(CALL_S)
                client = listener.accept()[0]
                with client, contextlib.suppress(OSError):
                    client.sendall(chance.choice([b"", HELLO]) + data)
                    client.settimeout(0.2)
                    client.recv(65536)
            os.unlink(service.socket)
            _return(service, row, f"after {data[:40]!r}")
    return row


def _crowd(service: ForkedService, chance: random.Random, seconds: float) -> list[Row]:
    calls = Row(f"calls by {CLIENTS} clients")
    pests = Row("garbage and callers that vanish")
    lock = threading.Lock()

    def call() -> None:
        try:
            took_s, fault = call_once(service.socket), ""
        except UplinkError as error:
            took_s, fault = CALL_S, f"a call of many: {error}"
        with lock:
            calls.add(took_s, fault)

    def pester() -> None:
        with contextlib.suppress(OSError, UplinkError):
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(service.socket)
                sock.sendall(chance.choice(garbage(chance)))
            with contextlib.closing(BlockingBus(service.socket)) as bus:
                ids = bus.ask(bus.connection.lookup(OBJECT), CALL_S).object_ids()
                for method in ("uplink_status", "uplink_consumers", "uplink_trust"):
                    bus.write(bus.connection.invoke(ids[0], method, encode_table({})).data)
        with lock:
            pests.add(0.0)
        time.sleep(0.01)

    with _running([call] * CLIENTS + [pester] * 2):
        time.sleep(seconds)
    if not service.running:
        pests.add(0.0, f"the service ended: {service.log()}")
    return [calls, pests]
