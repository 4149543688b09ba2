"""Host names to addresses, with a deadline that holds even where the system's resolver hangs.

A look-up runs in a daemon thread of its own, so that neither the loop nor a stop waits for it.
Also which servers a resolv.conf names. Asks none of them itself (routing/resolvers.py does).
"""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
import socket
import threading
from collections.abc import Iterable, Mapping

from ..errors import InvalidArgument
from ..model import Family
from ..schema.endpoints import parse_host

TIMEOUT_S = 5.0
SERVER_FILES = ("/tmp/resolv.conf.d/resolv.conf.auto", "/etc/resolv.conf")  # noqa: S108 (netifd writes it)
STAND_INS: Mapping[Family, str] = {Family.IPV4: "192.0.0.8", Family.IPV6: "100::8"}
"""Addresses that stand for "the resolver in the tunnel": nobody has them (RFC 7600, RFC 6666).

netifd gives them to dnsmasq with each tunnel. While traffic is diverted they are led to a resolver
that serves there, otherwise they are rejected; so nothing is written when that resolver changes.
"""


async def resolve(host: str, timeout_s: float = TIMEOUT_S) -> str:
    """The address of the host that is to be tried first; '' where none was found."""
    return next(iter(await resolve_all(host, timeout_s)), "")


async def resolve_all(host: str, timeout_s: float = TIMEOUT_S) -> tuple[str, ...]:
    """Every address of the host that another machine can have, in the order to try them.

    getaddrinfo orders by what can be reached (RFC 6724); families take turns after that (RFC 8305,
    section 4), so that a family without a way costs one attempt, however many addresses it has.
    """
    try:
        return (str(ipaddress.ip_address(host)),)
    except ValueError:
        pass
    loop = asyncio.get_running_loop()
    found: asyncio.Future[tuple[str, ...]] = loop.create_future()

    def settle(addresses: tuple[str, ...]) -> None:
        if not found.done():
            found.set_result(addresses)

    def look_up() -> None:
        try:
            rows = socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM)
        except (OSError, UnicodeError):
            rows = []
        try:
            loop.call_soon_threadsafe(settle, in_turns(str(row[4][0]) for row in rows))
        except RuntimeError:
            return  # the loop was closed meanwhile

    threading.Thread(target=look_up, name="resolver", daemon=True).start()
    try:
        async with asyncio.timeout(timeout_s):
            return await found
    except TimeoutError:
        return ()


def in_turns(addresses: Iterable[str]) -> tuple[str, ...]:
    """The addresses with the families taking turns; without repeated ones and such as no other
    machine can have.
    """
    by_family: dict[bool, list[str]] = {}
    for address in dict.fromkeys(addresses):
        try:
            parse_host(address)
        except InvalidArgument:
            continue
        by_family.setdefault(":" in address, []).append(address)
    turns = itertools.zip_longest(*by_family.values())
    return tuple(address for turn in turns for address in turn if address is not None)


def parse_resolvers(text: str) -> list[str]:
    """The servers that a resolv.conf names (resolv.conf(5)).

    Without this machine's own, link-local ones, which belong to one device for good, and ours.
    """
    found = []
    for line in text.splitlines():
        words = line.split()
        server = words[1] if len(words) > 1 and words[0] == "nameserver" else ""
        try:
            ip = ipaddress.ip_address(server)
        except ValueError:
            continue
        own = ip.is_loopback or ip.is_link_local or ip.is_unspecified or "%" in server
        if not own and server not in STAND_INS.values():
            found.append(server)
    return found
