"""What a consumer and a provider say to each other over the mesh: leases, and who somebody is.

Owns the form of these messages, both ways, and what an address, a resolver and an endpoint that a
provider gives may be: a consumer configures its own tunnel by them, so a provider must not be able
to name an address that is somebody else's on the internet. What is asked and granted is decided in
leases.py; how the bytes travel is mesh_http.py's.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ...config.peering import LEASE_S
from ...errors import InvalidArgument
from ...schema import shapes as s
from ...schema.endpoints import parse_host
from ...schema.validation import Schema
from ...text import printable, quoted
from .endpoints import (
    MOST_ENDPOINTS,
    SCOPED_ENDPOINT,
    ScopedEndpoint,
    endpoint_rows,
    scoped_endpoints,
)
from .offer import IDENTITY_KEY, WEEK_S, few, kind, parse_table

SHORTEST_LEASE_S = 5
MOST_AVOIDED = 64
LONGEST_ERROR = 300

_PRIVATE = tuple(
    ipaddress.ip_network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
)
_CODE = re.compile(r"[a-z0-9_]{1,40}")


class Deny(Enum):
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


@dataclass(frozen=True, slots=True)
class Denial:
    """A provider's no: its code and a sentence for the owner of the other router."""

    code: Deny
    error: str


@dataclass(frozen=True, slots=True)
class Identity:
    """What a router says of itself: its id, and the Ed25519 key it signs with ('' without)."""

    peer_id: str
    key: str = ""


@dataclass(frozen=True, slots=True)
class LeaseRequest:
    """A consumer asks for a place. `avoid` are prefixes that it uses itself."""

    peer_id: str
    public_key: str
    avoid: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LeaseGrant:
    """What a consumer is given: everything that its tunnel needs, and for how long.

    `gateways` are the provider's own addresses in the tunnel, where the lease is renewed while the
    mesh is away; `dns` are resolvers to be asked through the tunnel; `limit_mbps` 0 is no limit.
    """

    peer_id: str
    public_key: str
    addresses: tuple[str, ...]
    endpoints: tuple[ScopedEndpoint, ...]
    gateways: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    mtu: int = 1420
    limit_mbps: int = 0
    lease_s: int = LEASE_S


@dataclass(frozen=True, slots=True)
class LeaseRelease:
    """A consumer gives its place back."""

    peer_id: str
    public_key: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """A provider's no as a consumer reads it: `code` is one of Deny's values, or another that a
    newer provider or its HTTP server uses.
    """

    code: str
    error: str


def parse_lease_request(table: Mapping[str, Any]) -> LeaseRequest:
    """Read a request. Raises InvalidArgument with a sentence that names the member."""
    found = parse_table(LEASE_REQUEST, table, "lease_request")
    avoid = tuple(
        _prefix(f"avoid[{number}]", text) for number, text in enumerate(found.get("avoid", ()))
    )
    return LeaseRequest(found["peer_id"], found["public_key"], avoid)


def lease_request_table(request: LeaseRequest) -> dict[str, Any]:
    """Return a request as it is sent."""
    table = {"type": "lease_request", "peer_id": request.peer_id, "public_key": request.public_key}
    return {**table, "avoid": list(request.avoid)} if request.avoid else table


def parse_lease_grant(table: Mapping[str, Any]) -> LeaseGrant:
    """Read a grant. Raises InvalidArgument with a sentence that names the member.

    Addresses are single ones of private ranges, at most one of each family.
    """
    found = parse_table(LEASE_GRANT, table, "lease_grant")
    return LeaseGrant(
        peer_id=found["peer_id"],
        public_key=found["public_key"],
        addresses=_private("addresses", found["addresses"], with_prefix=True),
        endpoints=scoped_endpoints(found["endpoints"]),
        gateways=_private("gateways", found.get("gateways", ()), with_prefix=False),
        dns=tuple(
            _resolver(f"dns[{number}]", text) for number, text in enumerate(found.get("dns", ()))
        ),
        lease_s=found["lease_s"],
        **{name: found[name] for name in ("mtu", "limit_mbps") if name in found},
    )


def lease_grant_table(grant: LeaseGrant) -> dict[str, Any]:
    """Return a grant as it is sent; parse_lease_grant reads the same grant from it."""
    return {
        "type": "lease_grant",
        "peer_id": grant.peer_id,
        "public_key": grant.public_key,
        "addresses": list(grant.addresses),
        "endpoints": endpoint_rows(grant.endpoints),
        "gateways": list(grant.gateways),
        "dns": list(grant.dns),
        "mtu": grant.mtu,
        "limit_mbps": grant.limit_mbps,
        "lease_s": grant.lease_s,
    }


def parse_denial(table: Mapping[str, Any]) -> Refusal:
    """Read a denial, or any other answer that is no grant. Never raises: a no stays a no.

    A code that is none becomes "denied", a missing sentence is replaced, a long one cut.
    """
    code, error = table.get("code"), table.get("error")
    if not isinstance(code, str) or not _CODE.fullmatch(code):
        code = "denied"
    if not isinstance(error, str) or not error.strip():
        error = "the provider says no and gives no reason"
    return Refusal(code, printable(error[:LONGEST_ERROR])[:LONGEST_ERROR])


def denial_table(denial: Denial) -> dict[str, Any]:
    """Return a denial as it is sent."""
    return {"code": denial.code.value, "error": denial.error}


def parse_lease_release(table: Mapping[str, Any]) -> LeaseRelease:
    """Read a release. Raises InvalidArgument with a sentence that names the member."""
    found = parse_table(LEASE_RELEASE, table, "lease_release")
    return LeaseRelease(found["peer_id"], found["public_key"])


def lease_release_table(release: LeaseRelease) -> dict[str, Any]:
    """Return a release as it is sent."""
    return {
        "type": "lease_release",
        "peer_id": release.peer_id,
        "public_key": release.public_key,
    }


def parse_identity(table: Mapping[str, Any]) -> Identity:
    """Read who a router says it is. Raises InvalidArgument with a sentence."""
    found = parse_table(UPLINK_IDENTITY, table, "uplink_identity")
    return Identity(found["peer_id"], found.get("identity", ""))


def identity_table(identity: Identity) -> dict[str, Any]:
    """Return an identity as it is sent, without a key where there is none."""
    table = {"type": "uplink_identity", "peer_id": identity.peer_id}
    return {**table, "identity": identity.key} if identity.key else table


def _prefix(where: str, text: str) -> str:
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError as error:
        raise InvalidArgument(
            f"{where} must be a network such as 10.0.0.0/8 or fd00::/8, not {quoted(text)}"
        ) from error


def _private(name: str, texts: Sequence[str], *, with_prefix: bool) -> tuple[str, ...]:
    """Single addresses of private ranges, at most one of each family, in their usual form."""
    wanted = "10.1.2.3/32 or fd00::2/128" if with_prefix else "10.1.2.1 or fd00::1"
    found = []
    for number, text in enumerate(texts):
        try:
            if ("/" in text) is not with_prefix:
                raise ValueError(text)
            each = ipaddress.ip_interface(text)
        except ValueError as error:
            raise InvalidArgument(
                f"{name}[{number}] must be an address such as {wanted}, not {quoted(text)}"
            ) from error
        is_host = each.network.prefixlen == each.max_prefixlen
        if not is_host or not any(each.ip in network for network in _PRIVATE):
            raise InvalidArgument(
                f"{name}[{number}] must be one address of a private range such as {wanted}, "
                f"not {quoted(text)}"
            )
        found.append(each)
    if len({each.version for each in found}) < len(found):
        raise InvalidArgument(f"{name} has two addresses of one family; send one of each")
    return tuple(str(each if with_prefix else each.ip) for each in found)


def _resolver(where: str, text: str) -> str:
    try:
        return parse_host(str(ipaddress.ip_address(text)))
    except (InvalidArgument, ValueError) as error:
        raise InvalidArgument(
            f"{where} must be the address of a DNS resolver, not {quoted(text)}"
        ) from error


def _address(description: str) -> s.Tree:
    return s.text(
        description,
        pattern=r"^[0-9A-Fa-f.:]{2,45}(?:/[0-9]{1,3})?$(?!\n)",
        **{"x-must": "be an IPv4 or IPv6 address"},
    )


_CONSUMER = {"description": "the consumer's id"}
_CONSUMER_KEY = {"description": "the WireGuard public key of the consumer's tunnel"}
LEASE_REQUEST = Schema(
    s.table(
        {
            "type": kind("lease_request"),
            "peer_id": {**s.PEER_ID, **_CONSUMER},
            "public_key": {**s.PUBLIC_KEY, **_CONSUMER_KEY},
            "avoid": few(
                "networks that the consumer uses itself", _address("a network"), MOST_AVOIDED
            ),
        },
        "A consumer asks for a place, or to keep the one it has: `POST /v1/lease`.",
        optional=("avoid",),
        more=True,
    )
)
LEASE_GRANT = Schema(
    s.table(
        {
            "type": kind("lease_grant"),
            "peer_id": {**s.PEER_ID, "description": "the provider's id"},
            "public_key": {**s.PUBLIC_KEY, "description": "the provider's WireGuard public key"},
            "addresses": few(
                "the consumer's addresses in the tunnel, one IPv4 /32 and one IPv6 /128",
                _address("an address with /32 or /128"),
                2,
                1,
            ),
            "endpoints": few("ways to the provider", SCOPED_ENDPOINT, MOST_ENDPOINTS, 1),
            "gateways": few(
                "the provider's own addresses in the tunnel, where the lease is renewed",
                _address("an address"),
                2,
            ),
            "dns": few("resolvers to be asked through the tunnel", _address("an address"), 4),
            "mtu": s.whole("bytes of the tunnel's largest packet", 1280, 1500),
            "limit_mbps": s.whole("Mbit/s each way; 0 for no limit", 0, 1_000_000),
            "lease_s": s.whole("seconds that the lease stands", SHORTEST_LEASE_S, WEEK_S),
        },
        "A provider gives a place: the answer to a lease_request.",
        optional=("gateways", "dns", "mtu", "limit_mbps"),
        more=True,
    )
)
LEASE_DENIAL = Schema(
    s.table(
        {
            "code": s.text(
                f"why, for programs: {', '.join(each.value for each in Deny)}; newer providers "
                "may have others",
                pattern=r"^[a-z0-9_]{1,40}$(?!\n)",
            ),
            "error": s.text("why, for the consumer's owner", maxLength=LONGEST_ERROR),
        },
        "A provider says no: the answer to a lease_request with a status from 400 on.",
        more=True,
    )
)
LEASE_RELEASE = Schema(
    s.table(
        {
            "type": kind("lease_release"),
            "peer_id": {**s.PEER_ID, **_CONSUMER},
            "public_key": {**s.PUBLIC_KEY, **_CONSUMER_KEY},
        },
        "A consumer gives its place back: `DELETE /v1/lease`.",
        more=True,
    )
)
UPLINK_IDENTITY = Schema(
    s.table(
        {
            "type": kind("uplink_identity"),
            "peer_id": {**s.PEER_ID, "description": "the router's id"},
            "identity": IDENTITY_KEY,
        },
        "Who a router is: the answer to `GET /v1/identity`.",
        optional=("identity",),
        more=True,
    )
)
