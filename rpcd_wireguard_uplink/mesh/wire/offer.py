"""Offers and withdrawals: what a peer says of the internet that it gives.

`uplink_offer` and `uplink_withdraw` are the specification's ("Uplink Capability Advertisement")
with what is added to them. Who sent one, whether it is newer than the last and whether the peer is
trusted is decided in offer_validation.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import InvalidArgument
from ...model import DEFAULT_PORT, Endpoint
from ...schema import shapes as s
from ...schema.json_message import parse_json_message
from ...text import quoted
from .endpoints import (
    MOST_ENDPOINTS,
    SCOPED_ENDPOINT,
    ScopedEndpoint,
    endpoint_rows,
    scoped_endpoints,
    usable_host,
)
from .message import IDENTITY_KEY, SIGNATURE, WEEK_S, Message, few, line, noted, said

DEFAULT_TTL_S = 900
LARGEST_EXACT = 2**53 - 1
LONGEST_EGRESS = 200
MOST_GB = 1_000_000
_STAMP = line("when the sender says it was sent", "0-9A-Za-z:+. -", 40)
_SEQUENCE = s.whole("number that grows with each message of the peer", 0, LARGEST_EXACT)
_EGRESS = line(
    "the WAN behind the offer: name=value tokens with commas between them", "!-~", LONGEST_EGRESS
)


def _tokens(place: str, text: str) -> tuple[str, ...]:
    return tuple(text.split(",")) if text else ()


class Offer(
    Message,
    name="uplink_offer",
    capabilities="what the WAN can do",
    endpoint="where the peer listens: a table with host, port and public_key",
):
    """A peer offers its internet.

    `timestamp` is only for showing: routers may have no clock. `egress` are tokens that name the
    WAN behind the offer, as "addr=203.0.113.5" or "uplink=nodeB", to find loops and a shared
    underlay. `received_s` is when the offer reached us, `carrier` how: mesh, mqtt, gossip (relayed)
    or bus for what a program of this router handed in.
    """

    # fmt: off
    peer_id: str = said(s.PEER_ID, is_listed=True, column="PEER")
    timestamp: str = said(_STAMP, default="")
    bandwidth_mbps: int = said(s.whole("Mbit/s; 0 if the peer does not say", 0, 1_000_000),
        default=0, inside="capabilities", is_listed=True, column="MBIT/S")
    latency_ms: float = said(s.number("ms; -1 if the peer does not say", 0, 60_000),
        default=-1.0, inside="capabilities", is_listed=True, column="LATENCY")
    wan_type: str = said(line("kind of WAN, such as fiber or lte", "0-9A-Za-z_./+ -", 32),
        default="", inside="capabilities", is_listed=True, column="WAN")
    available: bool = said(s.flag("whether the peer says that its internet works"),
        default=True, inside="capabilities", always=True, is_listed=True)
    host: str = said(s.HOST, inside="endpoint", read=usable_host)
    port: int = said(s.whole("UDP port", 1, 65535),
        default=DEFAULT_PORT, inside="endpoint", always=True)
    public_key: str = said(s.PUBLIC_KEY, inside="endpoint", is_listed=True)
    endpoints: tuple[ScopedEndpoint, ...] = said(
        few("further ways to the peer", SCOPED_ENDPOINT, MOST_ENDPOINTS),
        default=(), read=scoped_endpoints, write=endpoint_rows)
    sequence: int | None = said(_SEQUENCE, default=None)
    ttl_s: int | None = said(s.whole("seconds that the offer is valid", 1, WEEK_S), default=None)
    egress: tuple[str, ...] = said(_EGRESS, default=(), read=_tokens, write=",".join)
    metered: bool = said(s.flag("whether the peer pays by volume"), default=False, is_listed=True)
    quota_gb: float = said(s.number("GB in a period; 0 without a quota", 0, MOST_GB), default=0.0)
    quota_left_gb: float = said(s.number("GB left in this period; -1 without a quota", 0, MOST_GB),
        default=-1.0, is_listed=True)
    price_per_gb: float = said(
        s.number("what a GB costs, in what the mesh counts in; 0 for nothing", 0, MOST_GB),
        default=0.0)
    identity: str = said(IDENTITY_KEY, default="")
    signature: str = said(SIGNATURE, default="")
    # fmt: on
    received_s: float = noted(s.number("seconds of the monotonic clock"), default=0.0)
    carrier: str = noted(s.text("how the offer came"), default="bus")

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(self.host, self.port)

    @property
    def expires_s(self) -> float:
        """Until when the offer counts, in seconds of the monotonic clock."""
        return self.received_s + (DEFAULT_TTL_S if self.ttl_s is None else self.ttl_s)


class Withdrawal(Message, name="uplink_withdraw"):
    """A peer takes its offer back."""

    peer_id: str = said(s.PEER_ID)
    timestamp: str = said(_STAMP, default="")
    sequence: int | None = said(_SEQUENCE, default=None)
    reason: str = said(line("why, for people", " -~", 80), default="")
    egress: tuple[str, ...] = said(_EGRESS, default=(), read=_tokens, write=",".join)
    identity: str = said(IDENTITY_KEY, default="")
    signature: str = said(SIGNATURE, default="")


def parse_message(raw: Mapping[str, Any] | str) -> Offer | Withdrawal:
    """Read a message, given as a table or as JSON text of at most 16,384 bytes.

    Raises InvalidArgument with a sentence that names the member, as in "endpoint.port must be from
    1 to 65535, not 0".
    """
    # A lone surrogate can't be sent: as bytes it is no UTF-8, and refused as such.
    table = parse_json_message(raw.encode(errors="surrogatepass")) if isinstance(raw, str) else raw
    kind = table.get("type")
    if kind == Offer.name:
        return Offer.parse(table)
    if kind == Withdrawal.name:
        return Withdrawal.parse(table)
    given = f"not {quoted(kind)}" if isinstance(kind, str) else "and it is missing or no string"
    raise InvalidArgument(f"type must be uplink_offer or uplink_withdraw, {given}")
