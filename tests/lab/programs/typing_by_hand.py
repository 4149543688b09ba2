"""A connection in which somebody types: one byte every 50 ms, and the echo of each is waited for.

A script of its own, run inside a node, with the standard library only. Its arguments are the
address of an echo server and, if wanted, the source address. It prints the source that the server
saw, a line `echo` for each answer, and at last the name of the error that ended it.
"""

from __future__ import annotations

import socket
import sys
import time


def main() -> None:
    source = (sys.argv[2], 0) if len(sys.argv) > 2 else None
    with socket.create_connection((sys.argv[1], 7), 2.0, source) as stream:
        stream.settimeout(60.0)
        print(stream.recv(100).split()[0].decode(), flush=True)
        try:
            while True:
                stream.send(b"x")
                if not stream.recv(100):
                    raise ConnectionAbortedError
                print("echo", flush=True)
                time.sleep(0.05)
        except OSError as error:
            print(type(error).__name__, flush=True)


if __name__ == "__main__":
    main()
