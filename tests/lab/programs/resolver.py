"""A resolver with one answer for every name; it passes signatures on (`signed`) or not."""

import socket
import sys

signed = sys.argv[2] == "signed"
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], 53))
print("ready", flush=True)
while True:
    query, asker = s.recvfrom(4096)
    end = query.index(b"\0", 12) + 5
    if query[end - 4 : end - 2] == b"\0\6":
        record = bytes.fromhex("c00c002e00010000003c0002abcd") if signed else b""
    else:
        record = bytes.fromhex("c00c000100010000003c0004") + socket.inet_aton(sys.argv[3])
    counts = bytes.fromhex("81800001") + bytes([0, bool(record)]) + bytes(4)
    s.sendto(query[:2] + counts + query[12:end] + record, asker)
