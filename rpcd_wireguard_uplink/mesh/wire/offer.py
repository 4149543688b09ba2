"""The mesh's messages about uplinks: what a peer may say, read into frozen dataclasses and written.

Owns the form of `uplink_offer` and `uplink_withdraw` (spec.md, "Uplink Capability Advertisement")
with what is added to it. A message comes from another machine: every member is bounded, members it
does not know are skipped, and nothing of a message but single short values is ever quoted. Decided
elsewhere: who sent it, whether it is newer than the last one, whether the peer is trusted. What a
consumer and a provider say to each other is lease_messages.py's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import InvalidArgument
from ...model import DEFAULT_PORT, Endpoint
from ...schema import shapes as s
from ...schema import validation
from ...schema.json_message import parse_json_message
from ...schema.validation import Schema
from ...text import quoted
from .endpoints import (
    MOST_ENDPOINTS,
    SCOPED_ENDPOINT,
    ScopedEndpoint,
    endpoint_rows,
    scoped_endpoints,
    usable_host,
)

LARGEST_EXACT = 2**53 - 1
WEEK_S = 7 * 86400


@dataclass(frozen=True, slots=True)
class OfferMessage:
    """A peer offers its internet.

    `sequence` orders a peer's messages; `timestamp` is what the sender's clock said and is only
    for showing, since routers may have no clock. `bandwidth_mbps` 0 and `latency_ms` -1 mean that
    the peer does not say. `egress` names the line behind the offer, to find loops and shared fate:
    tokens with commas between them, as in "addr=203.0.113.5,uplink=nodeB". `endpoints` are further
    ways to the peer than `endpoint`. `identity` and `signature` are signing.py's, '' without.
    """

    peer_id: str
    endpoint: Endpoint
    public_key: str
    bandwidth_mbps: int = 0
    latency_ms: float = -1.0
    wan_type: str = ""
    available: bool = True
    timestamp: str = ""
    sequence: int | None = None
    ttl_s: int | None = None
    egress: str = ""
    metered: bool = False
    quota_gb: float | None = None
    quota_left_gb: float | None = None
    price_per_gb: float | None = None
    endpoints: tuple[ScopedEndpoint, ...] = ()
    identity: str = ""
    signature: str = ""


@dataclass(frozen=True, slots=True)
class WithdrawMessage:
    """A peer takes its offer back; `reason` is a short line for people."""

    peer_id: str
    timestamp: str = ""
    sequence: int | None = None
    reason: str = ""
    egress: str = ""
    identity: str = ""
    signature: str = ""


def parse_message(raw: Mapping[str, Any] | str) -> OfferMessage | WithdrawMessage:
    """Read a message, given as a table or as JSON text of at most 16,384 bytes.

    Members that are null count as absent, numbers may come as strings. Raises InvalidArgument with
    a sentence that names the member, as in "endpoint.port must be from 1 to 65535, not 0".
    """
    # A lone surrogate can't be sent: as bytes it is no UTF-8, and refused as such.
    table = parse_json_message(raw.encode(errors="surrogatepass")) if isinstance(raw, str) else raw
    kind = table.get("type")
    if kind == "uplink_offer":
        return _offer(parse_table(OFFER, table, "uplink_offer"))
    if kind == "uplink_withdraw":
        found = parse_table(WITHDRAW, table, "uplink_withdraw")
        return WithdrawMessage(
            found["peer_id"],
            found.get("timestamp", ""),
            found.get("sequence"),
            reason=found.get("reason", ""),
            egress=found.get("egress", ""),
            identity=found.get("identity", ""),
            signature=found.get("signature", ""),
        )
    given = f"not {quoted(kind)}" if isinstance(kind, str) else "and it is missing or no string"
    raise InvalidArgument(f"type must be uplink_offer or uplink_withdraw, {given}")


def parse_table(schema: Schema, table: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a message's members, coerced and valid; raises InvalidArgument as validation.parse.

    A list that is too long is refused before its entries are looked at: 5,000 wrong ones would keep
    a router's processor busy for a second.
    """
    for member, tree in schema.properties.items():
        value = table.get(member)
        if isinstance(value, list) and len(value) > tree.get("maxItems", len(value)):
            raise InvalidArgument(f"{member} must {tree['x-must']}")
    return validation.parse(schema, table, name)


def _offer(found: Mapping[str, Any]) -> OfferMessage:
    capabilities, endpoint = found.get("capabilities", {}), found["endpoint"]
    host = usable_host("endpoint.host", endpoint["host"])
    return OfferMessage(
        peer_id=found["peer_id"],
        endpoint=Endpoint(host, endpoint.get("port", DEFAULT_PORT)),
        public_key=endpoint["public_key"],
        bandwidth_mbps=capabilities.get("bandwidth_mbps", 0),
        latency_ms=float(capabilities.get("latency_ms", -1.0)),
        wan_type=capabilities.get("wan_type", ""),
        available=capabilities.get("available", True),
        timestamp=found.get("timestamp", ""),
        sequence=found.get("sequence"),
        ttl_s=found.get("ttl_s"),
        egress=found.get("egress", ""),
        metered=found.get("metered", False),
        quota_gb=found.get("quota_gb"),
        quota_left_gb=found.get("quota_left_gb"),
        price_per_gb=found.get("price_per_gb"),
        endpoints=scoped_endpoints(found.get("endpoints", ())),
        identity=found.get("identity", ""),
        signature=found.get("signature", ""),
    )


def offer_table(message: OfferMessage) -> dict[str, Any]:
    """Return an offer as it is sent; parse_message reads the same message from it.

    What the message does not say is left out. A received message is passed on as it came instead:
    members that this release does not know count in its signature.
    """
    endpoint = message.endpoint
    latency_ms = _short(message.latency_ms) if message.latency_ms >= 0 else None
    return _said(
        {
            "type": "uplink_offer",
            "peer_id": message.peer_id,
            "timestamp": message.timestamp,
            "capabilities": {
                **_said({"bandwidth_mbps": message.bandwidth_mbps or None}),
                **_said({"latency_ms": latency_ms, "wan_type": message.wan_type}),
                "available": message.available,
            },
            "endpoint": {
                "host": endpoint.host,
                "port": endpoint.port,
                "public_key": message.public_key,
            },
            "endpoints": endpoint_rows(message.endpoints),
            "sequence": message.sequence,
            "ttl_s": message.ttl_s,
            "egress": message.egress,
            "metered": message.metered,
            "quota_gb": _short(message.quota_gb),
            "quota_left_gb": _short(message.quota_left_gb),
            "price_per_gb": _short(message.price_per_gb),
            "identity": message.identity,
            "signature": message.signature,
        }
    )


def withdraw_table(message: WithdrawMessage) -> dict[str, Any]:
    """Return a withdrawal as it is sent; parse_message reads the same message from it."""
    return _said(
        {
            "type": "uplink_withdraw",
            "peer_id": message.peer_id,
            "timestamp": message.timestamp,
            "sequence": message.sequence,
            "reason": message.reason,
            "egress": message.egress,
            "identity": message.identity,
            "signature": message.signature,
        }
    )


def _said(members: Mapping[str, Any]) -> dict[str, Any]:
    # By identity: a sequence of 0 and a quota with 0 left are said, and 0 equals False.
    return {
        name: value
        for name, value in members.items()
        if value is not None and value is not False and value != "" and value != []
    }


def _short(value: float | None) -> float | None:
    """20 for 20.0, as the specification writes it and shells can read it."""
    return int(value) if value is not None and float(value).is_integer() else value


def _line(description: str, characters: str, longest: int) -> s.Tree:
    return s.text(
        description,
        pattern=rf"^[{characters}]{{0,{longest}}}$(?!\n)",
        **{"x-must": f"be at most {longest} plain ASCII characters"},
    )


def few(description: str, item: Mapping[str, Any], most: int, least: int = 0) -> s.Tree:
    """Return the schema of a short list. Its sentence tells the bounds, never what is in it."""
    bounds = f"at most {most} entries" if not least else f"from {least} to {most} entries"
    words = {"minItems": least, "x-must": f"have {bounds}", "x-secret": True}
    return {**s.rows(description, item, most), **words}


def kind(name: str) -> s.Tree:
    """Return the schema of a message's `type`."""
    return s.text(f"always {name}", enum=[name])


IDENTITY_KEY = s.text(
    "the sender's Ed25519 key that it signs with",
    pattern=s.PUBLIC_KEY["pattern"],
    must="be an Ed25519 key: 44 characters of base64",
) | {"x-secret": True}
_ORDER = {
    "peer_id": s.PEER_ID,
    "timestamp": _line("when the sender says it was sent", "0-9A-Za-z:+. -", 40),
    "sequence": s.whole("number that grows with each message of the peer", 0, LARGEST_EXACT),
}
_SIGNED = {
    "egress": _line(
        "the line behind the offer: name=value tokens with commas between them", "!-~", 200
    ),
    "identity": IDENTITY_KEY,
    "signature": s.text(
        "Ed25519 signature of all other members",
        pattern=r"^[A-Za-z0-9+/]{85}[AQgw]==$(?!\n)",
        must="be an Ed25519 signature: 88 characters of base64",
    )
    | {"x-secret": True},
}
_CAPABILITIES = {
    "bandwidth_mbps": s.whole("Mbit/s", 0, 1_000_000),
    "latency_ms": s.number("ms", 0, 60_000),
    "wan_type": _line("kind of line", "0-9A-Za-z_./+ -", 32),
    "available": s.flag("whether the peer's internet works"),
}
OFFER = Schema(
    s.table(
        {
            "type": kind("uplink_offer"),
            **_ORDER,
            "capabilities": s.table(
                _CAPABILITIES, "what the line can do", optional=_CAPABILITIES, more=True
            ),
            "endpoint": s.table(
                {
                    "host": s.HOST,
                    "port": s.whole("UDP port", 1, 65535),
                    "public_key": s.PUBLIC_KEY,
                },
                "where the peer listens: a table with host, port and public_key",
                optional=("port",),
                more=True,
            ),
            "endpoints": few("further ways to the peer", SCOPED_ENDPOINT, MOST_ENDPOINTS),
            "ttl_s": s.whole("seconds that the offer stands", 1, WEEK_S),
            "metered": s.flag("whether the peer pays by volume"),
            "quota_gb": s.number("GB in a period", 0, 1_000_000),
            "quota_left_gb": s.number("GB left in this period", 0, 1_000_000),
            "price_per_gb": s.number("what a GB costs, in what the mesh counts in", 0, 1_000_000),
            **_SIGNED,
        },
        "A peer offers its internet.",
        optional=(
            *("timestamp", "sequence", "capabilities", "endpoints", "ttl_s", "metered"),
            *("quota_gb", "quota_left_gb", "price_per_gb", *_SIGNED),
        ),
        more=True,
    )
)
WITHDRAW = Schema(
    s.table(
        {
            "type": kind("uplink_withdraw"),
            **_ORDER,
            "reason": _line("why, for people", " -~", 80),
            **_SIGNED,
        },
        "A peer takes its offer back.",
        optional=("timestamp", "sequence", "reason", *_SIGNED),
        more=True,
    )
)
