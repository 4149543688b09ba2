"""What really leaves a node by a device, seen below everything that could redirect it."""

from __future__ import annotations

import subprocess
import threading
from dataclasses import dataclass

from .node import LabError, Node, program

TCP, UDP = 6, 17


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

    @property
    def version(self) -> int:
        """4 or 6."""
        return 6 if ":" in self.source else 4


class Capture:
    """Watches one device from its making to stop(). `packets` grows meanwhile."""

    def __init__(self, node: Node, device: str) -> None:
        argv, pipe = program("capture", device), subprocess.PIPE
        self.child = node.popen(argv, stdout=pipe, stderr=pipe)
        self._out = self.child.entered.stdout
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

    def __enter__(self) -> Capture:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self) -> list[Packet]:
        """End the capture; all that was seen."""
        self.child.kill()
        self._reader.join(5.0)
        for stream in (self.child.entered.stdout, self.child.entered.stderr):
            if stream is not None:
                stream.close()
        return self.packets
