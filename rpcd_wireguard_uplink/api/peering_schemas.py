"""The shapes of offering, leases and trust in the method table, beside those of schemas.py."""

from __future__ import annotations

from ..schema import shapes as s

_LINE = r"^[0-9A-Za-z_./+ -]{0,32}$(?!\n)"
OFFERING = {
    "bandwidth_mbps": s.whole("Mbit/s to advertise; 0 to say nothing", 0, 1_000_000),
    "latency_ms": s.number("ms to advertise; measured if left out", 0, 60_000),
    "wan_type": s.text(
        "kind of line, such as fiber or lte",
        pattern=_LINE,
        **{"x-must": "be at most 32 letters, digits, spaces or _./+-"},
    ),
    "metered": s.flag("1 if the line is paid by volume") | {"x-words": {"yes": True, "no": False}},
    "quota_gb": s.number("GB a month for all consumers together; 0 for no limit", 0, 1_000_000),
    "price_per_gb": s.number("what a GB costs, as the mesh counts; 0 for nothing", 0, 1_000_000),
    "limit_mbps": s.whole("Mbit/s for each consumer, each way; 0 for no limit", 0, 100_000),
    "max_consumers": s.whole("how many peers are served at once", 1, 200),
    "endpoint": {
        **s.HOST,
        "description": "name or address that peers reach this router by; found out if left out",
    },
}
OWN_OFFER = s.table(
    {
        "peer_id": s.PEER,
        "available": s.flag("whether the offer stands now"),
        "reason": s.text('why it does not stand; else ""'),
        "bandwidth_mbps": s.whole("Mbit/s as advertised; 0 if not said"),
        "latency_ms": s.number("ms as advertised; -1 if not known", -1),
        "wan_type": s.text("kind of line"),
        "metered": s.flag("whether the line is paid by volume"),
        "quota_gb": s.number("GB a month for all consumers; 0 for no limit"),
        "quota_left_gb": s.number("GB left of it; -1 without a quota", -1),
        "limit_mbps": s.whole("Mbit/s for each consumer; 0 for no limit"),
        "max_consumers": s.whole("how many peers are served at once"),
        "consumers": s.whole("how many peers have a lease"),
        "endpoint": s.ENDPOINT_SHOWN,
        "public_key": s.text("this router's public key as a provider"),
    },
    "what this router offers",
)
CONSUMER = s.table(
    {
        "peer_id": s.PEER,
        "public_key": s.PEER_KEY,
        "address": s.text("its IPv4 address in the tunnel"),
        "address6": s.text("its IPv6 address in the tunnel"),
        "expires_s": s.whole("seconds until the lease ends, if it is not renewed"),
        "handshake_age_s": s.HANDSHAKE_AGE,
        "endpoint": s.text('where it comes from, "host:port"; "" if unknown'),
        "rx_bytes": s.whole("bytes that it sent, since its tunnel stands"),
        "tx_bytes": s.whole("bytes that it received, since its tunnel stands"),
        "today_bytes": s.whole("bytes both ways today"),
        "month_bytes": s.whole("bytes both ways since the quota's reset day"),
    }
)
REFUSAL = s.table({"code": s.text("why"), "count": s.whole("how often")})
CONSUMERS_REPLY = s.table(
    {
        "offering": s.switch("1 if this router offers its internet to peers"),
        "offer": OWN_OFFER,
        "consumers": s.rows("peers with a lease", CONSUMER),
        "refused": s.rows("what was refused of peers, by code", REFUSAL),
    }
)
TRUST_STATES = ("trusted", "unbound", "untrusted", "changed")
TRUST_ROW = s.table(
    {
        "peer_id": s.text('the peer\'s id; "" while it is not known'),
        "state": s.text(
            "trusted; unbound: approved, but its mesh key is not confirmed yet; untrusted; "
            "changed: its key or identity is not the one that was confirmed",
            enum=list(TRUST_STATES),
        ),
        "reason": s.text(
            'what is missing, or why it can\'t be used now, and what mends it; else ""'
        ),
        "mesh_address": s.text('its own address on the mesh; "" if not seen'),
        "mesh_key": s.text('its public key on the mesh; "" if not seen'),
        "device": s.text('the WireGuard device that it is a peer of; "" if not seen'),
        "identity": s.text('the key that it signs with; "" if it does not sign'),
        "fingerprint": s.text('master-link\'s fingerprint; "" without'),
        "handshake_age_s": s.HANDSHAKE_AGE,
        "offering": s.flag("whether an offer of it is known"),
    },
    "a mesh peer",
    optional=("device",),
)
