"""Datagrams both ways at a rate for 3 s (`serve`, `ask`): prints what arrived, in Mbit/s."""

import contextlib
import socket
import sys
import time

role, address, rate_mbps = sys.argv[1], sys.argv[2], float(sys.argv[3])
family = socket.AF_INET6 if ":" in address else socket.AF_INET
opened = socket.socket(family, socket.SOCK_DGRAM)
if role == "serve":
    opened.bind((address, 5001))
    print("ready", flush=True)
    opened.settimeout(10.0)
    opened.connect(opened.recvfrom(2000)[1])
else:
    opened.connect((address, 5001))
opened.setblocking(False)
begun, sent, heard = time.monotonic(), 0, 0
while (passed := time.monotonic() - begun) < 3.0:
    while sent < passed * rate_mbps * 125000:
        with contextlib.suppress(OSError):
            opened.send(bytes(1200))
        sent += 1228
    try:
        while True:
            size = len(opened.recv(2000)) + 28
            heard += size if 1.0 < passed < 3.0 else 0
    except OSError:
        time.sleep(0.002)
print(heard * 8 / 2e6)
