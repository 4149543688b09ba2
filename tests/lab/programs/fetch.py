"""Prints the head of what a web server answers, nothing where nobody does."""

import contextlib
import socket
import sys

with contextlib.suppress(OSError), socket.create_connection((sys.argv[1], 80), 2) as stream:
    stream.sendall(b"GET / HTTP/1.0\r\n\r\n")
    print(stream.recv(4096).decode())
