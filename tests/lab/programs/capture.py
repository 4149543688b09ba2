"""Prints each IP packet that passes a device: time, direction, size, protocol, ends and number."""

import socket
import struct
import sys
import time

s = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
s.setsockopt(socket.SOL_SOCKET, 35, 1)  # SO_TIMESTAMPNS
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
s.bind((sys.argv[1], 3))
print("ready", flush=True)
while True:
    data, extra, _, sender = s.recvmsg(2048, 64)
    seconds, rest = struct.unpack("qq", extra[0][2][:16])
    at = seconds + rest / 1e9 - time.time() + time.monotonic()
    out = int(sender[2] == socket.PACKET_OUTGOING)
    if sender[1] == 0x0800:
        family, start, protocol = socket.AF_INET, (data[0] & 15) * 4, data[9]
        ends = data[12:16], data[16:20]
    elif sender[1] == 0x86DD:
        family, start, protocol = socket.AF_INET6, 40, data[6]
        ends = data[8:24], data[24:40]
    else:
        continue
    ports = struct.unpack_from("!HH", data, start) if protocol in (6, 17) else (0, 0)
    text = data[start + 8 : start + 28]
    number = int(text) if protocol == 17 and text.isdigit() else int.from_bytes(text[:2], "big")
    near, far = (socket.inet_ntop(family, end) for end in ends)
    print(at, out, len(data) + 14, protocol, near, ports[0], far, ports[1], number, flush=True)
