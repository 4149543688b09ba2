"""Many clients of a peer API that send a byte now and then: own address, host, how many."""

import contextlib
import socket
import sys
import time

opened = []
for _ in range(int(sys.argv[3])):
    with contextlib.suppress(OSError):
        opened.append(socket.create_connection((sys.argv[2], 7333), 2.0, (sys.argv[1], 0)))
print("ready", flush=True)
for letter in "GET /v1/identity HTTP/1.1\r\nHost: " + "x" * 1000:
    for each in opened:
        with contextlib.suppress(OSError):
            each.send(letter.encode())
    time.sleep(0.3)
