"""Names: resolvers asked by hand out of one device, the system's resolver with a deadline.

One question and one answer over UDP (RFC 1035, section 4), by sockets that steering and mwan3 leave
alone. Knows which offered resolvers may serve inside each tunnel; does not redirect anything.
"""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
import os
import socket
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field

from ..errors import InvalidArgument
from ..model import Family
from ..schema.endpoints import parse_host
from ..tasks import begin_thread
from ..values import dataclass
from .sockets import bound_socket, receive

A, AAAA, SOA, RRSIG = 1, 28, 6, 46
PORT = 53
TIMEOUT_S = 1.0
TRIES = 2
KNOWN_S = 6 * 3600.0  # what a resolver does changes rarely
SILENT_S = 30.0

RESOLVE_S = 5.0
SERVER_FILES = ("/tmp/resolv.conf.d/resolv.conf.auto", "/etc/resolv.conf")  # noqa: S108 (netifd writes it)
STAND_INS: Mapping[Family, str] = {Family.IPV4: "192.0.0.8", Family.IPV6: "100::8"}
"""Addresses that stand for "the resolver in the tunnel": nobody has them (RFC 7600, RFC 6666).

netifd gives them to dnsmasq with each tunnel. While traffic is diverted they are led to a resolver
that serves there, otherwise they are rejected; so nothing is written when that resolver changes.
"""

_HEADER = struct.Struct("!HHHHHH")
_RECORD = struct.Struct("!HHIH")
_RECURSE = 0x0100
_RESPONSE = 0x8000
_OPT = b"\0" + struct.pack("!HHIH", 41, 1232, 0x8000, 0)  # EDNS with the DO bit (RFC 3225)


def question(number: int, name: str, kind: int, *, signed: bool = False) -> bytes:
    """A query for one type of a name ('' is the root), `signed` to have the signatures as well.

    Raises ValueError where the name can't be asked for.
    """
    labels = [label.encode("ascii") for label in name.strip(".").split(".") if label]
    if any(len(label) > 63 for label in labels):
        raise ValueError(f"{name[:40]} is no host name")
    wire = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    header = _HEADER.pack(number, _RECURSE, 1, 0, 0, int(signed))
    return header + wire + struct.pack("!HH", kind, 1) + (_OPT if signed else b"")


def parse_answers(reply: bytes, number: int) -> list[tuple[int, bytes]] | None:
    """(type, data) of each record of the answer section, [] where the resolver says no.

    None where it is no reply to that number, or can't be read.
    """
    try:
        found, flags, questions, answers, _, _ = _HEADER.unpack_from(reply)
        if found != number or not flags & _RESPONSE:
            return None
        if flags & 0x000F:
            return []
        offset = _HEADER.size
        for _ in range(questions):
            offset = _behind_name(reply, offset) + 4
        records = []
        for _ in range(answers):
            offset = _behind_name(reply, offset)
            kind, _, _, length = _RECORD.unpack_from(reply, offset)
            offset += _RECORD.size + length
            if offset > len(reply):
                return None
            records.append((kind, reply[offset - length : offset]))
    except (struct.error, IndexError):
        return None
    return records


def _behind_name(reply: bytes, offset: int) -> int:
    while length := reply[offset]:
        if length >= 0xC0:  # a pointer ends the name
            return offset + 2
        offset += 1 + length
    return offset + 1


async def ask(
    server: str, device: str, name: str, kind: int, *, signed: bool = False
) -> list[tuple[int, bytes]] | None:
    """The records that a resolver answers through a device; None where it does not answer."""
    number = int.from_bytes(os.urandom(2), "big")
    try:
        query = question(number, name, kind, signed=signed)
        with bound_socket(device, server, socket.SOCK_DGRAM) as sock:
            await asyncio.get_running_loop().sock_connect(sock, (server, PORT))
            for _ in range(TRIES):
                found = await _exchange(sock, query, number)
                if found is not None:
                    return found
    except (OSError, ValueError):
        return None
    return None


async def _exchange(
    sock: socket.socket, query: bytes, number: int
) -> list[tuple[int, bytes]] | None:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await loop.sock_sendall(sock, query)
            while True:
                found = parse_answers(await receive(sock, 4096), number)
                if found is not None:
                    return found
    except TimeoutError:
        return None


async def look_up(host: str, servers: Iterable[str], device: str) -> list[str]:
    """The host's addresses, as the first of these resolvers that knows any tells them."""
    for server in servers:
        for kind, family in ((A, socket.AF_INET), (AAAA, socket.AF_INET6)):
            records = await ask(server, device, host, kind) or []
            size = 4 if kind == A else 16
            found = [data for type_, data in records if type_ == kind and len(data) == size]
            if found:
                return [socket.inet_ntop(family, data) for data in found]
    return []


@dataclass(slots=True)
class TunnelResolvers:
    """Which offered resolvers may serve inside each tunnel: those that pass signatures on.

    A dnsmasq that validates would take every answer of another one for forged.
    """

    _verdicts: dict[tuple[str, str], tuple[bool, float]] = field(default_factory=dict)

    async def look(
        self, resolvers: Mapping[str, Sequence[str]], now_s: float
    ) -> Mapping[str, tuple[str, ...]]:
        """Device -> its good resolvers, in the order of the offer; each is asked anew rarely."""
        offered = [(device, server) for device, found in resolvers.items() for server in found]
        self._verdicts = {key: v for key, v in self._verdicts.items() if key in offered}
        for key in offered:
            if self._verdicts.get(key, (False, now_s))[1] <= now_s:
                device, server = key
                records = await ask(server, device, "", SOA, signed=True)
                is_good = any(kind == RRSIG for kind, _ in records or ())
                until_s = now_s + (SILENT_S if records is None else KNOWN_S)
                self._verdicts[key] = (is_good, until_s)
        found: dict[str, tuple[str, ...]] = {}
        for device, server in offered:
            if self._verdicts[device, server][0]:
                found[device] = (*found.get(device, ()), server)
        return found


async def resolve_all(host: str, timeout_s: float = RESOLVE_S) -> tuple[str, ...]:
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

    try:
        begin_thread(look_up)
        async with asyncio.timeout(timeout_s):
            return await found
    except OSError:  # a TimeoutError too
        return ()


def in_turns(addresses: Iterable[str]) -> tuple[str, ...]:
    """The addresses with the families taking turns; without repeated ones and such as no other
    machine can have.
    """
    by_family: dict[Family, list[str]] = {}
    for address in dict.fromkeys(addresses):
        try:
            parse_host(address)
        except InvalidArgument:
            continue
        by_family.setdefault(Family.of(address), []).append(address)
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
