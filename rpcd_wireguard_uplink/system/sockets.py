"""Sockets out of one device, and reading from one without holding others up."""

from __future__ import annotations

import asyncio
import socket

from ..model import MWAN3_MASK, PROBE_MARK

_SO_BINDTODEVICE = getattr(socket, "SO_BINDTODEVICE", 25)
_SO_MARK = getattr(socket, "SO_MARK", 36)


def bound_socket(
    device: str, address: str, kind: socket.SocketKind, protocol: int = 0
) -> socket.socket:
    """A non-blocking socket towards an address that leaves by the device, whatever is diverted.

    Its mark has all of mwan3's bits (MMX_DEFAULT, what mwan3 leaves to the main table). mwan3 would
    mark a probe for the WAN that its policies prefer now, and by that WAN's table IPv6 finds no way
    out of another device.

    Raises OSError where the device is missing or this user may not.
    """
    domain = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(domain, kind | socket.SOCK_NONBLOCK, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_BINDTODEVICE, device.encode() + b"\0")
        sock.setsockopt(socket.SOL_SOCKET, _SO_MARK, PROBE_MARK | MWAN3_MASK)
    except OSError:
        sock.close()
        raise
    return sock


async def receive(sock: socket.socket, most: int) -> bytes:
    """The next bytes of a socket. The loop's own sock_recv gives nobody else a turn, and no timeout
    either, as long as there is something to read.
    """
    await asyncio.sleep(0)
    return await asyncio.get_running_loop().sock_recv(sock, most)
