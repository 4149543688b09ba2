"""Whether 160 kB come and go over one connection to an echo server: prints `loaded`."""

import socket
import sys

with socket.create_connection((sys.argv[1], 7), 5) as s:
    s.settimeout(8)
    s.recv(1000)  # who we are
    for _ in range(20):
        s.sendall(bytes(8000))
        got = 0
        while got < 8000:
            more = s.recv(65536)
            assert more
            got += len(more)
print("loaded")
