"""Kernel events about links, addresses and routes, from an rtnetlink socket.

Tells only that something changed and which link has which flags; what it means is for others.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg
_NEWLINK, _DELLINK = 16, 17
_NEWROUTE, _DELROUTE = 24, 25
_ROUTE_TABLE = 4  # offset of rtm_table in struct rtmsg
_MAIN_TABLE = 254
_GROUPS = (
    0x1 | 0x10 | 0x40 | 0x100 | 0x400
)  # LINK, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE
_UP_WITH_CARRIER = 0x1 | 0x10000  # IFF_UP and IFF_LOWER_UP


@dataclass(frozen=True, slots=True)
class LinkEvent:
    """A link changed or went away. `carrier` is what the kernel's flags say of it now."""

    index: int
    carrier: bool
    gone: bool


def parse_events(data: bytes) -> Iterator[LinkEvent | None]:
    """One item a message: a LinkEvent, or None for a change of addresses or routes (rtnetlink(7)).

    Routes of other tables than main are left out. A message that is cut off ends the iteration.
    """
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size or offset + length > len(data):
            return
        body = offset + _HEADER.size
        if kind in (_NEWLINK, _DELLINK):
            if length >= _HEADER.size + _LINK.size:
                _, _, index, flags, _ = _LINK.unpack_from(data, body)
                carrier = flags & _UP_WITH_CARRIER == _UP_WITH_CARRIER
                yield LinkEvent(index, carrier, kind == _DELLINK)
        elif kind not in (_NEWROUTE, _DELROUTE) or _is_main(data[body : offset + length]):
            yield None
        offset += (length + 3) & ~3


def _is_main(route: bytes) -> bool:
    return len(route) > _ROUTE_TABLE and route[_ROUTE_TABLE] == _MAIN_TABLE


class LinkWatch:
    """Calls back for each link event, and once a batch where addresses or routes changed."""

    def __init__(self, on_link: Callable[[LinkEvent], None], on_routes: Callable[[], None]) -> None:
        self._on_link = on_link
        self._on_routes = on_routes
        self._socket: socket.socket | None = None

    def start(self) -> None:
        """Begin to listen, on the running loop."""
        sock = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
        )
        sock.bind((0, _GROUPS))
        asyncio.get_running_loop().add_reader(sock.fileno(), self._read)
        self._socket = sock

    def stop(self) -> None:
        """Stop listening."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _read(self) -> None:
        if self._socket is None:
            return
        routes = False
        for _ in range(64):
            try:
                data = self._socket.recv(65536)
            except BlockingIOError:
                break
            except OSError:  # ENOBUFS: events were lost, so anything may have changed
                routes = True
                break
            for event in parse_events(data):
                if event is None:
                    routes = True
                else:
                    self._on_link(event)
                    routes = True
        if routes:
            self._on_routes()
