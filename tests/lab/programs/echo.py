"""A server of the pretend internet, run inside a node: echo over UDP and TCP, and a tiny DNS.

Every echo starts with the source address that the server saw, which is how tests learn by which
path a packet came. A script of its own with the standard library only: it must start fast. Its one
argument is JSON: {"echo": [[address, port]], "dns": [[address, port]], "answers": [v4, v6]}. DNS
answers every name with `answers`, names below `whoami.` with the asker's own address, and names
below `.invalid` with NXDOMAIN. It prints `ready` when all sockets are open.
"""

from __future__ import annotations

import json
import selectors
import socket
import struct
import sys
from collections.abc import Callable

TYPE_A, TYPE_SOA, TYPE_AAAA = 1, 6, 28


def open_socket(address: str, port: int, kind: socket.SocketKind) -> socket.socket:
    """A bound socket: one for each address, so that answers leave from the address asked."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    opened = socket.socket(family, kind)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    opened.bind((address, port))
    opened.setblocking(False)
    if kind == socket.SOCK_STREAM:
        opened.listen(128)
    return opened


def answer_dns(query: bytes, source: str, answers: list[str]) -> bytes | None:
    """The reply to a DNS query (RFC 1035, section 4), or None where it is not one."""
    if len(query) < 17 or query[2] & 0x80:
        return None
    end, labels = 12, []
    while end < len(query) and query[end]:
        labels.append(query[end + 1 : end + 1 + query[end]].lower())
        end += 1 + query[end]
    question = query[12 : end + 5]
    if len(question) < end - 7:
        return None
    kind = struct.unpack("!H", question[-4:-2])[0]
    code = 3 if labels[-1:] == [b"invalid"] else 0
    records = b""
    for text in [source] if labels[:1] == [b"whoami"] else answers:
        family = socket.AF_INET6 if ":" in text else socket.AF_INET
        if kind == (TYPE_AAAA if ":" in text else TYPE_A) and code == 0:
            data = socket.inet_pton(family, text)
            records = struct.pack("!HHHIH", 0xC00C, kind, 1, 5, len(data)) + data
    if kind == TYPE_SOA and not labels:  # every resolver knows the root
        records = struct.pack("!HHHIH", 0xC00C, kind, 1, 5, 22) + bytes(22)
    counts = struct.pack("!HHHHH", 0x8180 | code, 1, 1 if records else 0, 0, 0)
    return query[:2] + counts + question + records


class Server:
    """All sockets of one node, served by one loop."""

    def __init__(self, answers: list[str]) -> None:
        self.answers = answers
        self.selector = selectors.DefaultSelector()

    def add(self, opened: socket.socket, serve: Callable[[socket.socket], None]) -> None:
        """Call `serve` whenever the socket is readable."""
        self.selector.register(opened, selectors.EVENT_READ, serve)

    def echo_datagram(self, opened: socket.socket) -> None:
        data, source = opened.recvfrom(65536)
        opened.sendto(source[0].encode() + b" " + data, source)

    def reply_dns(self, opened: socket.socket) -> None:
        data, source = opened.recvfrom(4096)
        reply = answer_dns(data, source[0], self.answers)
        if reply:
            opened.sendto(reply, source)

    def accept(self, opened: socket.socket) -> None:
        stream, source = opened.accept()
        stream.setblocking(False)
        stream.send(source[0].encode() + b"\n")
        self.add(stream, self.echo_stream)

    def echo_stream(self, stream: socket.socket) -> None:
        try:
            data = stream.recv(65536)
            if data:
                stream.send(data)
        except OSError:
            data = b""
        if not data:
            self.selector.unregister(stream)
            stream.close()

    def run(self) -> None:
        """Serve until the node ends."""
        while True:
            for key, _ in self.selector.select():
                try:
                    key.data(key.fileobj)
                except OSError:
                    continue  # an answer that has no way back is lost, as on the real internet


def main() -> None:
    wanted = json.loads(sys.argv[1])
    server = Server(wanted.get("answers", []))
    for address, port in wanted.get("echo", []):
        server.add(open_socket(address, port, socket.SOCK_DGRAM), server.echo_datagram)
        server.add(open_socket(address, port, socket.SOCK_STREAM), server.accept)
    for address, port in wanted.get("dns", []):
        server.add(open_socket(address, port, socket.SOCK_DGRAM), server.reply_dns)
    print("ready", flush=True)
    server.run()


if __name__ == "__main__":
    main()
