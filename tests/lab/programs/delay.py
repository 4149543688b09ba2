"""Carries frames between two devices and holds each up for a while, run inside a node.

For lines that take their time, address resolution included: this kernel has no netem. A script of
its own with the standard library only. Its one argument is JSON: {"ports": [device, device],
"delay_s": seconds}, or {"whole": device} to have the kernel fill in checksums and cut segments of
what this device sends, because frames are carried as they are. It prints `ready`.
"""

from __future__ import annotations

import collections
import ctypes
import fcntl
import json
import select
import socket
import struct
import sys
import time

ETH_P_ALL = 3
PACKET_OUTGOING = 4
SIOCETHTOOL = 0x8946
ETHTOOL_STXCSUM, ETHTOOL_STSO, ETHTOOL_SGSO = 0x17, 0x1F, 0x24  # linux/ethtool.h


def send_whole(device: str) -> None:
    """Switch off checksums and segments that are left to the hardware."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for command in (ETHTOOL_STSO, ETHTOOL_SGSO, ETHTOOL_STXCSUM):
            value = ctypes.create_string_buffer(struct.pack("II", command, 0))
            request = struct.pack("16sP8x", device.encode(), ctypes.addressof(value))
            fcntl.ioctl(sock, SIOCETHTOOL, request)


def carry(ports: list[str], delay_s: float) -> None:
    """Carry frames until the node ends."""
    sockets = []
    for port in ports:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        sock.bind((port, ETH_P_ALL))
        sock.setblocking(False)
        sockets.append(sock)
    waiting: collections.deque[tuple[float, socket.socket, bytes]] = collections.deque()
    print("ready", flush=True)
    while True:
        timeout_s = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        able, _, _ = select.select(sockets, [], [], timeout_s)
        for sock in able:
            frame, source = sock.recvfrom(65536)
            if source[2] != PACKET_OUTGOING:
                other = sockets[1] if sock is sockets[0] else sockets[0]
                waiting.append((time.monotonic() + delay_s, other, frame))
        while waiting and waiting[0][0] <= time.monotonic():
            _, other, frame = waiting.popleft()
            try:
                other.send(frame)
            except OSError:
                continue  # a frame that can't go on is lost, as on a real line


def main() -> None:
    wanted = json.loads(sys.argv[1])
    if "whole" in wanted:
        send_whole(wanted["whole"])
    else:
        carry(wanted["ports"], wanted["delay_s"])


if __name__ == "__main__":
    main()
