"""Leases and identities: what a consumer and a provider say to each other over the mesh.

A consumer configures its tunnel by what a provider gives, so a provider must not be able to name an
address that is somebody else's on the internet. What is granted is decided in provider/lease_pool.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, TypeVar

from ...errors import InvalidArgument
from ...schema import shapes as s
from ...schema.endpoints import parse_host
from ...text import printable, quoted
from ...values import dataclass
from .endpoints import (
    MOST_ENDPOINTS,
    SCOPED_ENDPOINT,
    ScopedEndpoint,
    endpoint_rows,
    scoped_endpoints,
)
from .message import IDENTITY_KEY, WEEK_S, Message, few, said

T = TypeVar("T")

SHORTEST_LEASE_S = 5
MOST_AVOIDED = 64
LONGEST_ERROR = 300

_PRIVATE = tuple(
    ipaddress.ip_network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
)
_CODE = re.compile(r"[a-z0-9_]{1,40}")


class Deny(StrEnum):
    """Why a provider says no. The values are stable: programs compare them."""

    NOT_OFFERING = "not_offering"
    WAN_DOWN = "wan_down"
    NOT_TRUSTED = "not_trusted"
    UNBOUND = "unbound"
    OTHER_PEER = "other_peer"
    FULL = "full"
    QUOTA_SPENT = "quota_spent"
    KEY_IN_USE = "key_in_use"
    ADDRESS_CONFLICT = "address_conflict"
    NO_ADDRESS = "no_address"
    NO_LEASE = "no_lease"
    TOO_MANY = "too_many"


def _each(place: str, texts: Sequence[str], read: Callable[[str], T], must: str) -> list[T]:
    """What `read` makes of each; `must` says what one has to be that it raises ValueError for."""
    found = []
    for number, text in enumerate(texts):
        try:
            found.append(read(text))
        except (InvalidArgument, ValueError) as error:
            told = f"{place}[{number}] must be {must}, not {quoted(text)}"
            raise InvalidArgument(told) from error
    return found


def _prefixes(place: str, texts: Sequence[str]) -> tuple[str, ...]:
    read = functools.partial(ipaddress.ip_network, strict=False)
    return tuple(map(str, _each(place, texts, read, "a network such as 10.0.0.0/8 or fd00::/8")))


def _private(place: str, texts: Sequence[str], *, with_prefix: bool) -> tuple[str, ...]:
    """Single addresses of private ranges, at most one of each family, in their usual form."""

    def read(text: str) -> ipaddress.IPv4Interface | ipaddress.IPv6Interface:
        if ("/" in text) is not with_prefix:
            raise ValueError(text)
        return ipaddress.ip_interface(text)

    def check(text: str) -> None:
        each = read(text)
        is_host = each.network.prefixlen == each.max_prefixlen
        if not is_host or not any(each.ip in network for network in _PRIVATE):
            raise ValueError(text)

    such = "10.1.2.3/32 or fd00::2/128" if with_prefix else "10.1.2.1 or fd00::1"
    found = _each(place, texts, read, f"an address such as {such}")
    _each(place, texts, check, f"one address of a private range such as {such}")
    if len({each.version for each in found}) < len(found):
        raise InvalidArgument(f"{place} has two addresses of one family; send one of each")
    return tuple(str(each if with_prefix else each.ip) for each in found)


def _resolvers(place: str, texts: Sequence[str]) -> tuple[str, ...]:
    def read(text: str) -> str:
        return parse_host(str(ipaddress.ip_address(text)))

    return tuple(_each(place, texts, read, "the address of a DNS resolver"))


def _address(description: str) -> s.Tree:
    pattern = r"^[0-9A-Fa-f.:]{2,45}(?:/[0-9]{1,3})?$(?!\n)"
    return s.text(description, "be an IPv4 or IPv6 address", pattern=pattern)


_CONSUMER = {**s.PEER_ID, "description": "the consumer's id"}
_CONSUMER_KEY = {**s.PUBLIC_KEY, "description": "the WireGuard public key of the consumer's tunnel"}


class LeaseRequest(Message, name="lease_request"):
    """A consumer asks for a place, or to keep the one it has: `POST /v1/lease`."""

    peer_id: str = said(_CONSUMER)
    public_key: str = said(_CONSUMER_KEY)
    avoid: tuple[str, ...] = said(
        few("networks that the consumer uses itself", _address("a network"), MOST_AVOIDED),
        default=(),
        read=_prefixes,
    )


class LeaseGrant(Message, name="lease_grant"):
    """A provider gives a place: the answer to a lease_request.

    It is everything that the consumer's tunnel needs.
    """

    peer_id: str = said({**s.PEER_ID, "description": "the provider's id"})
    public_key: str = said({**s.PUBLIC_KEY, "description": "the provider's WireGuard public key"})
    # fmt: off
    addresses: tuple[str, ...] = said(
        few("the consumer's addresses in the tunnel, one IPv4 /32 and one IPv6 /128",
            _address("an address with /32 or /128"), 2, 1),
        read=functools.partial(_private, with_prefix=True))
    endpoints: tuple[ScopedEndpoint, ...] = said(
        few("ways to the provider", SCOPED_ENDPOINT, MOST_ENDPOINTS, 1),
        read=scoped_endpoints, write=endpoint_rows)
    gateways: tuple[str, ...] = said(
        few("the provider's own addresses in the tunnel, where the lease is renewed",
            _address("an address"), 2),
        default=(), always=True, read=functools.partial(_private, with_prefix=False))
    dns: tuple[str, ...] = said(
        few("resolvers to be asked through the tunnel", _address("an address"), 4),
        default=(), always=True, read=_resolvers)
    mtu: int = said(s.whole("bytes of the tunnel's largest packet", 1280, 1500),
        default=1420, always=True)
    limit_mbps: int = said(s.whole("Mbit/s each way; 0 for no limit", 0, 1_000_000),
        default=0, always=True)
    # fmt: on
    lease_s: int = said(s.whole("seconds that the lease is valid", SHORTEST_LEASE_S, WEEK_S))


class LeaseRelease(Message, name="lease_release"):
    """A consumer gives its place back: `DELETE /v1/lease`."""

    peer_id: str = said(_CONSUMER)
    public_key: str = said(_CONSUMER_KEY)


class Identity(Message, name="uplink_identity"):
    """Who a router is: the answer to `GET /v1/identity`."""

    peer_id: str = said({**s.PEER_ID, "description": "the router's id"})
    key: str = said(IDENTITY_KEY, wire="identity", default="")


@dataclass(frozen=True, slots=True)
class Denial:
    """A provider's no: a value of Deny, or of a newer provider another one, and a sentence for the
    owner of the other router.
    """

    code: str
    error: str

    @classmethod
    def parse(cls, table: Mapping[str, Any]) -> Denial:
        """Read a denial, or any other answer that is no grant. Never raises: a no stays a no.

        A code that is none becomes "denied", a missing sentence is replaced, a long one cut.
        """
        code, error = table.get("code"), table.get("error")
        if not isinstance(code, str) or not _CODE.fullmatch(code):
            code = "denied"
        if not isinstance(error, str) or not error.strip():
            error = "the provider says no and gives no reason"
        return cls(code, printable(error[:LONGEST_ERROR])[:LONGEST_ERROR])

    def as_table(self) -> dict[str, Any]:
        return {"code": str(self.code), "error": self.error}
