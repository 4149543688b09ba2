"""What really leaves a node by a device, seen below everything that could redirect it.

Owns a packet socket in the node and the list of what left. Judges nothing.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import dataclass

from tests.lab.node import LabError, Node

UDP = 17
SCRIPT = """
import socket, struct, sys, time
s = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
s.setsockopt(socket.SOL_SOCKET, 35, 1)  # SO_TIMESTAMPNS
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
s.bind((sys.argv[1], 3))
print("ready", flush=True)
while True:
    data, extra, _, sender = s.recvmsg(2048, 64)
    seconds, rest = struct.unpack("qq", extra[0][2][:16])
    at = seconds + rest / 1e9 - time.time() + time.monotonic()
    out = int(sender[2] == socket.PACKET_OUTGOING)
    if sender[1] == 0x0800:
        family, start, protocol = socket.AF_INET, (data[0] & 15) * 4, data[9]
        ends = data[12:16], data[16:20]
    elif sender[1] == 0x86DD:
        family, start, protocol = socket.AF_INET6, 40, data[6]
        ends = data[8:24], data[24:40]
    else:
        continue
    ports = struct.unpack_from("!HH", data, start) if protocol in (6, 17) else (0, 0)
    text = data[start + 8 : start + 28]
    number = int(text) if protocol == 17 and text.isdigit() else int.from_bytes(text[:2], "big")
    near, far = (socket.inet_ntop(family, end) for end in ends)
    print(at, out, len(data) + 14, protocol, near, ports[0], far, ports[1], number, flush=True)
"""


@dataclass(frozen=True, slots=True)
class Packet:
    """An IP packet. `at_s` is CLOCK_MONOTONIC, `size` is with the Ethernet header; `number` is what
    a meter counts its datagrams and look-ups by.
    """

    at_s: float
    leaves: bool
    size: int
    protocol: int
    source: str
    source_port: int
    target: str
    target_port: int
    number: int


class Capture:
    """Watches one device from its making to stop(). `packets` grows meanwhile."""

    def __init__(self, node: Node, device: str) -> None:
        argv = [sys.executable, "-I", "-S", "-c", SCRIPT, device]
        self._child = node.popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._out = self._child.entered.stdout
        if self._out is None or self._out.readline() != "ready\n":
            raise LabError(f"no capture on {device} of {node.name}")
        self.packets: list[Packet] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._out or ():
            at, out, size, protocol, source, port, target, target_port, number = line.split()
            packet = Packet(
                at_s=float(at),
                leaves=out == "1",
                size=int(size),
                protocol=int(protocol),
                source=source,
                source_port=int(port),
                target=target,
                target_port=int(target_port),
                number=int(number),
            )
            self.packets.append(packet)

    def stop(self) -> list[Packet]:
        """End the capture; all that was seen."""
        self._child.kill()
        self._reader.join(5.0)
        for stream in (self._child.entered.stdout, self._child.entered.stderr):
            if stream is not None:
                stream.close()
        return self.packets
