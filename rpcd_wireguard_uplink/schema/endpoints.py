"""Hosts, endpoints, tunnel addresses and keys as text: which of them a peer or a tunnel can have.

Owns that check only. It looks no name up and does not know who may use which address; a name that
passes here can still resolve to anything.
"""

from __future__ import annotations

import binascii
import ipaddress
import re

from ..errors import InvalidArgument
from ..reasons import because
from ..text import quoted
from ..values import dataclass

# A label of a host name; underscores are no part of host names, but names on local networks have
# them and resolvers take them.
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
# Resolvers read a name whose last label looks like a number as an IPv4 address in short form:
# "127.1" and "0x7f000001" are the loopback address.
_NUMERIC_LABEL = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")
_PREFIX = re.compile(r"[0-9]{1,3}")
_LONGEST_NAME = 253
_FIELD = 2**255 - 1
_SMALL_POINTS = {  # cr.yp.to/ecdh.html#validate
    *(0, 1, 2**255 - 20, 2**255 - 19, 2**255 - 18),
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
}
DEFAULT_PORT = 51820


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a WireGuard peer is reached: a host name or address literal, and a UDP port."""

    host: str
    port: int = DEFAULT_PORT

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_endpoint(text: str) -> Endpoint:
    """Read "host:port", "[IPv6]:port" or a host alone (port 51820).

    Raises InvalidArgument where the port is not from 1 to 65535 or the host can't be a peer's.
    """
    host, port = text, ""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise InvalidArgument(because("endpoint_brackets", "[address]:port"))
        port = rest[1:]
    elif text.count(":") == 1:
        host, port = text.split(":")
    if not port:
        return Endpoint(parse_host(host))
    if not (port.isascii() and port.isdigit() and len(port) < 6 and 1 <= int(port) <= 65535):
        raise InvalidArgument(because("endpoint_port"))
    return Endpoint(parse_host(host), int(port))


def parse_host(text: str) -> str:
    """Return a host as it is used: an IP literal in its usual form, or the name as given.

    Raises InvalidArgument for what is neither, and for addresses that no other machine can have
    (loopback, multicast, unspecified, broadcast), also where they hide in an IPv6 address.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return _checked_name(text)
    _refuse_unusable(address)
    return str(address)


def is_literal(host: str) -> bool:
    """Whether the host is an address and need not be resolved."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def parse_address(text: str) -> str:
    """Return a tunnel's own address, with its prefix length if one was given.

    Raises InvalidArgument where it is not an IPv4 or IPv6 address, its prefix length does not fit,
    or no machine can have it.
    """
    host, slash, prefix = text.partition("/")
    try:
        address = ipaddress.ip_address(host)
    except ValueError as error:
        raise InvalidArgument(because("no_ip_address", quoted(text))) from error
    _refuse_unusable(address)
    if not slash:
        return str(address)
    if not _PREFIX.fullmatch(prefix) or not 1 <= int(prefix) <= address.max_prefixlen:
        raise InvalidArgument(because("prefix_length", quoted(text), address.max_prefixlen))
    return f"{address}/{int(prefix)}"


def parse_key(text: str) -> str:
    """Return a WireGuard public key as it is. Raises InvalidArgument for a point of small order,
    with which X25519 gives everybody the same secret, and WireGuard makes no tunnel (noise.c).
    """
    try:
        number = int.from_bytes(binascii.a2b_base64(text), "little")
    except ValueError:
        return text  # its pattern is for others to check
    if number & _FIELD in _SMALL_POINTS:
        raise InvalidArgument(because("weak_key"))
    return text


def _checked_name(text: str) -> str:
    labels = text.split(".")
    if len(text) > _LONGEST_NAME or not all(_LABEL.fullmatch(label) for label in labels):
        raise InvalidArgument(because("no_host", quoted(text)))
    if _NUMERIC_LABEL.fullmatch(labels[-1]):
        raise InvalidArgument(because("no_ipv4", quoted(text)))
    if labels[-1].lower() == "localhost":
        raise InvalidArgument(because("is_localhost", quoted(text)))
    return text


def _refuse_unusable(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            raise InvalidArgument(because("names_device", quoted(str(address))))
        if address.ipv4_mapped is not None:
            address = address.ipv4_mapped
    shown = quoted(str(address))
    if address.is_loopback:
        raise InvalidArgument(because("is_loopback", shown))
    if address.is_multicast:
        raise InvalidArgument(because("is_multicast", shown))
    if isinstance(address, ipaddress.IPv4Address):
        # 0.0.0.0/8 is "this network", 240.0.0.0/4 is reserved and ends in the broadcast address.
        if address.packed[0] == 0 or address.is_reserved:
            raise InvalidArgument(because("no_machines", shown))
    elif address.is_unspecified:
        raise InvalidArgument(because("is_unspecified", shown))
