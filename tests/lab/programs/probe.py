"""Connections and datagrams, all at once: what became of each, and after how long.

The argument is JSON: rows of kind (tcp, udp; `connect` waits for no word of the server's), address,
port and, if wanted, own address and device. For each it prints the source that the echo server saw
(`connected` for connect), `silence` or an error's name, and the seconds.
"""

import json
import socket
import sys
import threading
import time
from typing import Any


def probe(kind: str, address: str, port: int, source: str = "", device: str = "") -> str:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(
        family, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM
    ) as opened:
        opened.settimeout(1.0)
        try:
            if device:
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
            if source:
                opened.bind((source, 0))
            opened.connect((address, port))
            if kind == "connect":
                return "connected"
            if kind == "udp":
                opened.send(b"12")
            return opened.recv(100).decode().split()[0]
        except TimeoutError:
            return "silence"
        except OSError as error:
            return type(error).__name__


def work(place: int, row: list[Any]) -> None:
    began = time.monotonic()
    found[place] = probe(*row), time.monotonic() - began


wanted = json.loads(sys.argv[1])
found: list[tuple[str, float] | None] = [None] * len(wanted)
threads = [threading.Thread(target=work, args=pair) for pair in enumerate(wanted)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps(found))
