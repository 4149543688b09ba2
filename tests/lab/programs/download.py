"""Eight downloads at once for some seconds: one alone fills no queue."""

import selectors
import socket
import sys
import time

until = time.monotonic() + float(sys.argv[2])
streams = selectors.DefaultSelector()
for _ in range(8):
    streams.register(socket.create_connection((sys.argv[1], 5001), 5), selectors.EVENT_READ)
while time.monotonic() < until:
    for key, _ in streams.select(0.5):
        assert isinstance(key.fileobj, socket.socket)
        key.fileobj.recv(65536)
