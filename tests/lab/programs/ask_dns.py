"""One question to a resolver: its answer, `silence` or `rejected`, and the seconds that took."""

import socket
import sys
import time

address = sys.argv[1]
family = socket.AF_INET6 if ":" in address else socket.AF_INET
query = bytes.fromhex("00070100000100000000000001610474657374000001") + b"\0\1"
began = time.monotonic()
with socket.socket(family, socket.SOCK_DGRAM) as s:
    s.settimeout(2)
    try:
        s.connect((address, 53))
        s.send(query)
        reply = s.recv(512)
        said = socket.inet_ntoa(reply[-4:])
    except TimeoutError:
        said = "silence"
    except OSError:
        said = "rejected"
print(said, time.monotonic() - began)
