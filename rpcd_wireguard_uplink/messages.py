"""The mesh's messages about uplinks: what a peer may say, read into frozen dataclasses.

Owns the form of `uplink_offer` and `uplink_withdraw` (spec.md, "Uplink Capability Advertisement")
and what is added to it. A message comes from another machine: every member is bounded, members it
does not know are skipped, and nothing of a message but single short values is ever quoted. Who sent
it, whether it is newer than the last one, and whether the peer is trusted is decided elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from . import schemas as s
from . import validation
from .endpoints import parse_host
from .errors import InvalidArgument
from .model import DEFAULT_PORT, Endpoint
from .quoting import quoted
from .validation import Schema

LONGEST_JSON = 16384
_LARGEST_EXACT = 2**53 - 1
_WEEK_S = 7 * 86400


@dataclass(frozen=True, slots=True)
class OfferMessage:
    """A peer offers its internet.

    `sequence` orders a peer's messages; `timestamp` is what the sender's clock said and is only
    for showing, since routers may have no clock. `bandwidth_mbps` 0 and `latency_ms` -1 mean that
    the peer does not say. `egress` names the line behind the offer, to find loops and shared fate.
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


@dataclass(frozen=True, slots=True)
class WithdrawMessage:
    """A peer takes its offer back."""

    peer_id: str
    timestamp: str = ""
    sequence: int | None = None


def parse_message(raw: Mapping[str, Any] | str) -> OfferMessage | WithdrawMessage:
    """Read a message, given as a table or as JSON text of at most 16,384 bytes.

    Members that are null count as absent, numbers may come as strings. Raises InvalidArgument with
    a sentence that names the member, as in "endpoint.port must be from 1 to 65535, not 0".
    """
    table = _parse_json(raw) if isinstance(raw, str) else raw
    kind = table.get("type")
    if kind == "uplink_offer":
        return _offer(validation.parse(_OFFER, table, "uplink_offer"))
    if kind == "uplink_withdraw":
        found = validation.parse(_WITHDRAW, table, "uplink_withdraw")
        return WithdrawMessage(found["peer_id"], found.get("timestamp", ""), found.get("sequence"))
    given = f"not {quoted(kind)}" if isinstance(kind, str) else "and it is missing or no string"
    raise InvalidArgument(f"type must be uplink_offer or uplink_withdraw, {given}")


def _offer(found: Mapping[str, Any]) -> OfferMessage:
    capabilities, endpoint = found.get("capabilities", {}), found["endpoint"]
    return OfferMessage(
        peer_id=found["peer_id"],
        endpoint=Endpoint(parse_host(endpoint["host"]), endpoint.get("port", DEFAULT_PORT)),
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
    )


def _parse_json(text: str) -> Mapping[str, Any]:
    # Lone surrogates count three bytes here; json would read them, the patterns refuse them.
    if len(text.encode(errors="surrogatepass")) > LONGEST_JSON:
        raise InvalidArgument(f"the message is longer than {LONGEST_JSON} bytes; send less")
    try:
        table = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument("the message is not valid JSON; send one JSON object") from error
    if not isinstance(table, dict):
        raise InvalidArgument("the message is JSON, but not an object; send one JSON object")
    return table


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _line(description: str, characters: str, longest: int) -> s.Tree:
    return s.text(
        description,
        pattern=rf"^[{characters}]{{0,{longest}}}$(?!\n)",
        **{"x-must": f"be at most {longest} plain ASCII characters"},
    )


_ORDER = {
    "peer_id": s.PEER_ID,
    "timestamp": _line("when the sender says it was sent", "0-9A-Za-z:+. -", 40),
    "sequence": s.whole("number that grows with each message of the peer", 0, _LARGEST_EXACT),
}
_WITHDRAW = Schema(s.table(_ORDER, optional=("timestamp", "sequence"), more=True))
_OFFER_OPTIONAL = (
    "timestamp",
    "sequence",
    "capabilities",
    "ttl_s",
    "egress",
    "metered",
    "quota_gb",
    "quota_left_gb",
)
_OFFER = Schema(
    s.table(
        {
            **_ORDER,
            "capabilities": s.table(
                {
                    "bandwidth_mbps": s.whole("Mbit/s", 0, 1_000_000),
                    "latency_ms": s.number("ms", 0, 60_000),
                    "wan_type": _line("kind of line", "0-9A-Za-z_./+ -", 32),
                    "available": s.flag("whether the peer's internet works"),
                },
                optional=("bandwidth_mbps", "latency_ms", "wan_type", "available"),
                more=True,
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
            "ttl_s": s.whole("seconds that the offer stands", 1, _WEEK_S),
            "egress": _line("the line behind the offer", "!-~", 64),
            "metered": s.flag("whether the peer pays by volume"),
            "quota_gb": s.number("GB in a period", 0, 1_000_000),
            "quota_left_gb": s.number("GB left in this period", 0, 1_000_000),
        },
        optional=_OFFER_OPTIONAL,
        more=True,
    )
)
