"""Kernel events about links, addresses and routes of the main table.

Tells only that something changed and which link has which flags; what it means is for others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from . import netlink
from .netlink import Message
from .rtnetlink import DELLINK, DELROUTE, MAIN, NEWLINK, NEWROUTE, parse_link

# RTMGRP_LINK, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE
_GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
_ROUTE_TABLE = 4  # offset of rtm_table in struct rtmsg


@dataclass(frozen=True, slots=True)
class LinkEvent:
    """A link changed or went away. `carrier` is what the kernel's flags say of it now."""

    index: int
    carrier: bool
    gone: bool


def link_events(messages: Iterable[Message]) -> Iterator[LinkEvent | None]:
    """One item a message: a LinkEvent, or None for a change of addresses or routes (rtnetlink(7)).

    Routes of other tables than main are left out.
    """
    for message in messages:
        if message.kind in (NEWLINK, DELLINK):
            link = parse_link(message)
            if link is not None:
                yield LinkEvent(link.index, link.carrier, message.kind == DELLINK)
        elif message.kind not in (NEWROUTE, DELROUTE) or message.body[_ROUTE_TABLE:][:1] == _MAIN:
            yield None


_MAIN = bytes([MAIN])


class LinkWatch:
    """Calls back for each link event, and once a batch where anything changed."""

    def __init__(self, on_link: Callable[[LinkEvent], None], on_routes: Callable[[], None]) -> None:
        self._on_link = on_link
        self._on_routes = on_routes
        self._events: netlink.Events | None = None

    def start(self) -> None:
        """Begin to listen, on the running loop."""
        self._events = netlink.Events(netlink.ROUTE, _GROUPS, self._read)

    def stop(self) -> None:
        """Stop listening."""
        if self._events is not None:
            self._events.close()
            self._events = None

    def _read(self) -> None:
        messages, lost = self._events.read() if self._events is not None else ([], False)
        found = list(link_events(messages))
        for event in found:
            if event is not None:
                self._on_link(event)
        if found or lost:  # what was lost may have been anything
            self._on_routes()
