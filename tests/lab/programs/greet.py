"""Sends a datagram (base64) to an address and port and prints the first byte of the answer."""

import base64
import socket
import sys

opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
opened.settimeout(2.0)
opened.sendto(base64.b64decode(sys.argv[3]), (sys.argv[1], int(sys.argv[2])))
try:
    print(opened.recv(200)[0])
except TimeoutError:
    print("silence")
