"""Sends ICMP redirects (RFC 792): from, to, the destination that is redirected, the new gateway."""

import socket
import struct
import sys

source, target, destination, gateway = map(socket.inet_aton, sys.argv[1:])


def checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


quoted = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 36, 1, 0, 64, 17, 0, target, destination)
quoted += struct.pack("!HHHH", 4000, 53, 16, 0)
for code in (0, 1):
    body = struct.pack("!BBH4s", 5, code, 0, gateway) + quoted
    body = body[:2] + struct.pack("!H", checksum(body)) + body[4:]
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
        raw.bind((sys.argv[1], 0))
        raw.sendto(body, (sys.argv[2], 0))
