"""The sending half of a meter, run inside a node: steady traffic, one JSON line for each result.

A script of its own with the standard library only: it must start fast. Its one argument is JSON:
kind (udp, tcp or dns), address, port, interval_s, deadline_s, and optional count, device, source,
tos, uid (whose sockets they are) and name (a # in it is the sample's number).
`udp` is one flow from one socket; `tcp` and `dns` are a new connection or query each time. Lines:
{"seq", "sent"} when sent, then {"seq", "sent", "received", "source"} or {"seq", "sent", "error"}.
Times are CLOCK_MONOTONIC, which all namespaces share. It ends when its standard input does, after
the answers under way.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import selectors
import socket
import struct
import sys
import time
from typing import Any


class Sender:
    """One run of one kind of traffic."""

    def __init__(self, wanted: dict[str, Any]) -> None:
        self.kind: str = wanted["kind"]
        self.target: tuple[str, int] = (wanted["address"], wanted["port"])
        self.family = socket.AF_INET6 if ":" in self.target[0] else socket.AF_INET
        self.interval_s: float = wanted["interval_s"]
        self.deadline_s: float = wanted["deadline_s"]
        self.count: int | None = wanted.get("count")
        self.device: str | None = wanted.get("device")
        self.source: str | None = wanted.get("source")
        self.tos: int = wanted.get("tos", 0)
        self.name: str = wanted.get("name") or "whoami.test"
        self.late_s = 0.0
        self.selector = selectors.DefaultSelector()
        self.waiting: dict[int, tuple[float, socket.socket | None]] = {}
        self.flow = self.open(socket.SOCK_DGRAM) if self.kind == "udp" else None
        if self.flow:
            self.selector.register(self.flow, selectors.EVENT_READ, None)

    def open(self, kind: socket.SocketKind) -> socket.socket:
        opened = socket.socket(self.family, kind)
        opened.setblocking(False)
        if self.device:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self.device.encode())
        if self.tos and self.family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, self.tos)
        elif self.tos:
            opened.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, self.tos)
        if self.source:
            opened.bind((self.source, 0))
        return opened

    def send(self, seq: int) -> None:
        sent = time.monotonic()
        own: socket.socket | None = None
        tell({"seq": seq, "sent": sent})
        try:
            if self.flow:
                self.flow.sendto(str(seq).encode(), self.target)
            elif self.kind == "dns":
                own = self.open(socket.SOCK_DGRAM)
                own.sendto(self.query(seq), self.target)
            else:
                own = self.open(socket.SOCK_STREAM)
                code = own.connect_ex(self.target)
                if code not in (0, errno.EINPROGRESS):
                    raise OSError(code, os.strerror(code))
        except OSError as error:
            if own:
                own.close()
            tell({"seq": seq, "sent": sent, "error": name_of(error)})
            return
        self.waiting[seq] = (sent, own)
        if own:
            self.selector.register(own, selectors.EVENT_READ, seq)

    def query(self, seq: int) -> bytes:
        head = struct.pack("!HHHHHH", seq & 0xFFFF, 0x0100, 1, 0, 0, 0)
        name = self.name.replace("#", str(seq))
        labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
        return head + labels + b"\0" + struct.pack("!HH", 28 if ":" in self.target[0] else 1, 1)

    def receive(self, opened: socket.socket, seq: int | None) -> None:
        now = time.monotonic()
        try:
            data = opened.recv(65536)
        except OSError as error:
            if seq is not None:
                self.finish(seq, {"error": name_of(error)})
            return
        if seq is None:
            source, _, number = data.decode().partition(" ")
            if number.isdigit():
                self.finish(int(number), {"received": now, "source": source})
        elif self.kind == "dns":
            self.finish(seq, {"received": now, "source": self.answer(data)})
        elif data:
            self.finish(seq, {"received": now, "source": data.decode().split("\n")[0]})
        else:
            self.finish(seq, {"error": "closed"})

    def answer(self, data: bytes) -> str:
        size = 16 if self.family == socket.AF_INET6 else 4
        if struct.unpack("!H", data[6:8])[0] == 0:
            return ""
        return socket.inet_ntop(self.family, data[-size:])

    def finish(self, seq: int, result: dict[str, Any]) -> None:
        """Tell the result, once. Packets that waited in a queue beyond the deadline are lost."""
        sent, own = self.waiting.pop(seq, (None, None))
        if own:
            self.selector.unregister(own)
            own.close()
        if sent is None:
            return
        if result.get("received", sent) - sent > self.deadline_s + self.late_s:
            result = {"error": "deadline"}
        tell({"seq": seq, "sent": sent, **result})

    def expire(self, now: float) -> None:
        oldest = now - self.deadline_s - self.late_s
        for seq in [s for s, (sent, _) in self.waiting.items() if sent < oldest]:
            self.finish(seq, {"error": "deadline"})

    def run(self) -> None:
        self.selector.register(sys.stdin, selectors.EVENT_READ, None)
        seq, due = 0, time.monotonic()
        ends: float | None = None
        while ends is None or (self.waiting and time.monotonic() < ends):
            now = time.monotonic()
            if ends is None and now >= due:
                self.send(seq)
                seq += 1
                due = max(due + self.interval_s, now)
            if ends is None and self.count is not None and seq >= self.count:
                ends = now + self.deadline_s
            wait_s = 0.05 if ends is not None else max(0.0, due - time.monotonic())
            ready = self.selector.select(wait_s)
            # What this process slept through is no fault of the network's.
            self.late_s = max(0.0, time.monotonic() - due) if ends is None else 0.0
            for key, _ in ready:
                if key.fileobj is sys.stdin:
                    self.selector.unregister(sys.stdin)
                    ends = time.monotonic() + self.deadline_s
                elif isinstance(key.fileobj, socket.socket):
                    self.receive(key.fileobj, key.data)
            self.expire(time.monotonic())


def name_of(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, "error")


def tell(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        chosen = json.loads(sys.argv[1])
        if chosen.get("uid"):
            os.setuid(chosen["uid"])
        Sender(chosen).run()
