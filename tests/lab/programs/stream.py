"""Sends a UDP datagram to each address at a steady pace and waits for no answer, until killed.

Arguments: seconds between two rounds, port, addresses.
"""

import contextlib
import socket
import sys
import time

interval_s, port, addresses = float(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
flows = [
    (socket.socket(socket.AF_INET6 if ":" in a else socket.AF_INET, socket.SOCK_DGRAM), a)
    for a in addresses
]
due_s = time.monotonic()
while True:
    for flow, address in flows:
        with contextlib.suppress(OSError):
            flow.sendto(b"0", (address, port))
    due_s = max(due_s + interval_s, time.monotonic() - interval_s)
    time.sleep(max(0.0, due_s - time.monotonic()))
