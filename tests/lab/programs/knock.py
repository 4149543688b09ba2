"""New flows without an end, ten a second: kind (tcp, udp), port, addresses."""

import socket
import sys
import time

kind, port, addresses = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
while True:
    for address in addresses:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        s = socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
        s.setblocking(False)
        if kind == "tcp":
            s.connect_ex((address, port))
        else:
            s.sendto(b"<14>one way", (address, port))
        time.sleep(0.1)
        s.close()
