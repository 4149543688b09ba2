"""Sends as fast as it can over many flows, whenever it is told to by a line with seconds.

Arguments: udp or tcp, address, flows. Prints `ready` when all flows are answered; for each line the
packets or bytes that left and the processor seconds that this took, those of the kernel's way
through a laboratory too, since it is walked by whoever sends.
"""

import contextlib
import ctypes
import itertools
import socket
import sys
import time

BATCH, PORT, SIZE, CHUNK = 8, 5002, 64, 65536
kind, address, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
libc = ctypes.CDLL(None, use_errno=True)


class Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


class Message(ctypes.Structure):
    """struct mmsghdr of the kernel."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_size", ctypes.c_uint32),
        ("vectors", ctypes.POINTER(Vector)),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_size", ctypes.c_size_t),
        ("flags", ctypes.c_int),
        ("sent", ctypes.c_uint),
    )


def datagrams() -> list[socket.socket]:
    flows = []
    for _ in range(count):
        flow = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        flow.connect((address, PORT))
        flow.settimeout(0.3)
        for _ in range(20):
            try:
                flow.send(b"?")
                flow.recv(1)
                break
            except OSError:
                continue
        else:
            raise SystemExit("a flow has no answer")
        flow.setblocking(False)
        flows.append(flow)
    return flows


def streams() -> list[socket.socket]:
    flows = []
    for _ in range(count):
        flow = socket.create_connection((address, PORT), 10.0)
        flow.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * CHUNK if count == 1 else CHUNK)
        flow.setblocking(count == 1)
        flows.append(flow)
    return flows


flows = datagrams() if kind == "udp" else streams()
payload = ctypes.create_string_buffer(b"x" * SIZE, SIZE)
vector = Vector(ctypes.addressof(payload), SIZE)
messages = (Message * BATCH)()
for message in messages:
    message.vectors, message.vector_count = ctypes.pointer(vector), 1
print("ready", flush=True)
turn = itertools.cycle(flows)
for line in sys.stdin:
    until, moved, used = time.monotonic() + float(line), 0, time.process_time()
    while time.monotonic() < until:
        flow = next(turn)
        if kind == "udp":
            moved += max(0, libc.sendmmsg(flow.fileno(), messages, BATCH, 0))
        else:
            with contextlib.suppress(BlockingIOError):
                moved += flow.send(bytes(CHUNK))
    print(moved, time.process_time() - used, flush=True)
