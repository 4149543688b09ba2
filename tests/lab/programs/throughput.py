"""One TCP connection at full speed for 3 s (`serve`, `ask`), with data going `up` or `down`."""

import socket
import sys
import time

role, address, way = sys.argv[1:4]
family = socket.AF_INET6 if ":" in address else socket.AF_INET
if role == "serve":
    server = socket.create_server((address, 5001), family=family)
    print("ready", flush=True)
    stream = server.accept()[0]
else:
    stream = socket.create_connection((address, 5001), 5.0)
begun, moved = time.monotonic(), 0
stream.settimeout(2.0)
try:
    while (now := time.monotonic()) < begun + 3.0:
        if (role == "serve") == (way == "down"):
            stream.send(bytes(65536))
        elif now < begun + 0.5:
            stream.recv(65536)
        else:
            moved += len(stream.recv(65536))
except OSError:
    pass
print(moved * 8 / 2.5e6)
