"""TCP sockets for address literals, bound to a device: nothing is ever looked up here."""

from __future__ import annotations

import socket

from ...system.rtnetlink import index_of

Address = tuple[str, int, str]
"""Host literal, TCP port, and the device to be bound to ('' for any)."""

BACKLOG = 128

# IP_FREEBIND and IPV6_FREEBIND of linux/in.h and in6.h, which Python does not name.
_FREEBIND = {socket.AF_INET: (socket.IPPROTO_IP, 15), socket.AF_INET6: (socket.IPPROTO_IPV6, 78)}


def tcp_socket(host: str, device: str) -> socket.socket:
    """A socket that does not block, for an address literal, bound to a device ('' for none).

    Raises OSError, without strerror where `host` is not an address.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    socket.inet_pton(family, host)
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        if device:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode() + b"\0")
    except OSError:
        sock.close()
        raise
    return sock


def listener(address: Address) -> socket.socket:
    """A listening socket; the address need not be there yet, its device must. Raises OSError."""
    host, port, device = address
    sock = tcp_socket(host, device)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(*_FREEBIND[sock.family], 1)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(name_of(host, port, device))
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def name_of(host: str, port: int, device: str) -> tuple[str, int] | tuple[str, int, int, int]:
    """An address as bind and connect take it; a link-local one needs its device's number too."""
    if host.lower().startswith("fe80:"):
        return host, port, 0, index_of(device)
    return host, port


def plain_source(host: str) -> str:
    """An address as the kernel gives it, without a scope and not mapped into IPv6."""
    host = host.partition("%")[0]
    return host[7:] if host.startswith("::ffff:") and "." in host else host
