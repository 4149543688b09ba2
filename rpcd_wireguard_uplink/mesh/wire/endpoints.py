"""Ways to a peer as messages name them, and which hosts a peer may have.

What a name resolves to is to be checked again where it is used.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...errors import InvalidArgument
from ...model import Endpoint
from ...reasons import because
from ...schema import shapes as s
from ...schema.endpoints import parse_host
from ...text import quoted
from ...values import dataclass

MOST_ENDPOINTS = 8


@dataclass(frozen=True, slots=True)
class ScopedEndpoint:
    """One way to a provider: `scope` is link (a network that both share) or public."""

    host: str
    port: int
    scope: str = "public"

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(self.host, self.port)


def scoped_endpoints(place: str, rows: Sequence[Mapping[str, Any]]) -> tuple[ScopedEndpoint, ...]:
    """Return the endpoints of a valid message. Raises InvalidArgument for unusable hosts."""
    return tuple(
        ScopedEndpoint(
            usable_host(f"{place}[{number}].host", row["host"]),
            int(row["port"]),
            row.get("scope", "public"),
        )
        for number, row in enumerate(rows)
    )


def endpoint_rows(endpoints: Iterable[ScopedEndpoint]) -> list[dict[str, Any]]:
    return [{"host": each.host, "port": each.port, "scope": each.scope} for each in endpoints]


def usable_host(place: str, text: str) -> str:
    """Return a host that a peer may have. Raises InvalidArgument that names the member."""
    try:
        return check_endpoint_host(text)
    except InvalidArgument as error:
        raise InvalidArgument(because("option_unusable", place, error), code=error.code) from error


def check_endpoint_host(host: str, own_addresses: Iterable[str] = ()) -> str:
    """Return a peer's host as it is used: an address in its usual form, or the name as given.

    Raises InvalidArgument for addresses that can't be another machine's (loopback, multicast,
    unspecified) or need a device's name beside them (link-local), with code "bad_endpoint"; and for
    `own_addresses`, with or without prefix lengths, with code "own_address". A name passes: what it
    resolves to is to be checked again.
    """
    try:
        usual = parse_host(host)
    except InvalidArgument as error:
        raise InvalidArgument(str(error), code="bad_endpoint") from error
    try:
        address = _unmapped(usual)
    except ValueError:
        return usual
    if address.is_link_local:
        raise InvalidArgument(because("link_local", quoted(usual)), code="bad_endpoint")
    if any(_unmapped(own) == address for own in own_addresses):
        raise InvalidArgument(because("ours_not_peers", quoted(usual)), code="own_address")
    return usual


def _unmapped(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = ipaddress.ip_interface(text).ip
    return getattr(address, "ipv4_mapped", None) or address


SCOPED_ENDPOINT = s.table(
    {
        "host": s.HOST,
        "port": s.whole("UDP port", 1, 65535),
        "scope": s.text(
            "link: inside a network that both share; public, also if left out: from anywhere",
            enum=["link", "public"],
        ),
    },
    optional=("scope",),
    more=True,
)
