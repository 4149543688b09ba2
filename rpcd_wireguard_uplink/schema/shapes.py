"""The pieces that the method table's JSON Schemas are made of: small builders and shared shapes.

Owns what an argument, an offer, an uplink, a path's health and a history entry look like on the
bus, with the unit of every number in its description; docs/methods.md is made from these. Knows no
method. Everything is Draft 2020-12 without oneOf, and patterns never end in a bare `$`, which
Python lets match before a line break.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Tree = dict[str, Any]

STATES = ("primary", "suspect", "failed_over", "holding", "stranded", "disabled")
PATH_STATES = ("up", "suspect", "degraded", "down", "connecting", "unknown")
EVENTS_IN_STATUS = 10
OFFERS_IN_STATUS = 100
LONGEST_HISTORY = 200


def text(description: str, **more: Any) -> Tree:
    """Return the schema of a string."""
    return {"type": "string", "description": description, **more}


def whole(description: str, minimum: int = 0, maximum: int | None = None) -> Tree:
    """Return the schema of an integer from `minimum` on."""
    return {**number(description, minimum, maximum), "type": "integer"}


def number(description: str, minimum: float = 0, maximum: float | None = None) -> Tree:
    """Return the schema of a finite number from `minimum` on."""
    tree: Tree = {"type": "number", "description": description, "minimum": minimum}
    return tree if maximum is None else {**tree, "maximum": maximum}


def flag(description: str) -> Tree:
    """Return the schema of a boolean."""
    return {"type": "boolean", "description": description}


def switch(description: str) -> Tree:
    """Return the schema of 0 or 1: SecuBox's page compares with 1, and `true` is not 1 there."""
    return {"type": "integer", "enum": [0, 1], "description": description}


def rows(description: str, item: Mapping[str, Any], maximum: int | None = None) -> Tree:
    """Return the schema of a list whose entries all look like `item`."""
    tree: Tree = {"type": "array", "description": description, "items": item}
    return tree if maximum is None else {**tree, "maxItems": maximum}


def table(
    properties: Mapping[str, Any],
    description: str = "",
    *,
    optional: Iterable[str] = (),
    more: bool = False,
) -> Tree:
    """Return the schema of a table: all members required but the `optional` ones, and others
    refused unless `more`.
    """
    left_out = set(optional)
    tree: Tree = {
        "type": "object",
        "properties": dict(properties),
        "required": [name for name in properties if name not in left_out],
        "additionalProperties": more,
    }
    return {**tree, "description": description} if description else tree


PEER_ID = text(
    "the id of a mesh peer",
    pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$(?!\n)",
    **{
        "x-must": "be 1 to 64 letters, digits, dots, underscores or hyphens, "
        "and begin with a letter or digit"
    },
)
PUBLIC_KEY = text(
    "the peer's WireGuard public key",
    pattern=r"^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$(?!\n)",
    **{"x-must": "be a WireGuard public key: 44 characters of base64", "x-secret": True},
)
WEIGHT = whole("a weight from 1 to 100; the peer with the higher one is preferred", 1, 100)
ENDPOINT = text(
    'where the peer listens: "host:port", "[IPv6]:port" or a host (port 51820)',
    maxLength=262,
    format="endpoint",
)
HOST = text("a host name or IP address", maxLength=253, format="host")
ADDRESS = text(
    "the tunnel's own IPv4 or IPv6 address, with or without a prefix length",
    maxLength=43,
    format="address",
)
ENABLED = {
    **flag("1 to fail over automatically, 0 not to"),
    "x-words": {"enable": True, "disable": False},
}

SUCCESS = {"type": "boolean", "const": True, "description": "always true; an error has false"}
MESSAGE = text("what was done, as a sentence")
PEER = text("the peer's id")
INTERFACE = text("name of the tunnel's network interface")
UPLINK_WEIGHT = whole("1 to 100, the higher one is preferred", 1, 100)
OWN_KEY = text("this router's public key in this tunnel; the peer must know it")
OWN_ADDRESS = text('this router\'s IPv4 address in the tunnel, "" if none')
OWN_ADDRESS6 = text('this router\'s IPv6 address in the tunnel, "" if none')
ENDPOINT_SHOWN = text('where the peer listens, "host:port"; "" while it is not known')
PEER_KEY = text("the peer's WireGuard public key")
SHARED_FATE = flag("whether it travels over the very line that it should replace")
NOTE = text('what the owner should know, as a sentence; else ""')
ACTIVE = flag("whether traffic uses it now")
PATH_STATE = text(
    "up; suspect: probes are being lost; degraded: alive, but too lossy or too slow; down; "
    "connecting: no handshake yet; unknown: not probed",
    enum=list(PATH_STATES),
)
STATE = text(
    "primary: traffic uses the router's own line; suspect: it loses probes; failed_over: traffic "
    "uses an uplink; holding: the line is back and must stay so for the hold time; stranded: "
    "nothing is left; disabled: automatic failover is off",
    enum=list(STATES),
)
ACTIVE_PATH = text('device or uplink interface that traffic leaves by; "" if none')
LATENCY = number("round trip in ms; -1 while unknown", -1)
LOSS = number("lost probes in percent", 0, 100)
HANDSHAKE_AGE = whole("seconds since the last handshake; -1 if there was none", -1)

OFFER = table(
    {
        "peer_id": PEER,
        "trusted": flag("whether the owner trusts this peer"),
        "usable": flag("whether an uplink can be made from the offer now"),
        "reason": text('why it is not usable; else ""'),
        "bandwidth_mbps": whole("what the peer advertises, Mbit/s; 0 if it does not say"),
        "latency_ms": number("what the peer advertises, ms; -1 if it does not say", -1),
        "wan_type": text("kind of the peer's line, such as fiber or lte"),
        "available": flag("whether the peer says that its internet works"),
        "endpoint": ENDPOINT_SHOWN,
        "public_key": PEER_KEY,
        "age_s": whole("seconds since the offer was received"),
        "carrier": text(
            "how the offer came: mesh, mqtt, gossip, or bus for this router's own programs"
        ),
        "metered": flag("whether the peer pays by volume"),
        "quota_left_gb": number("GB left of its quota this month; -1 without a quota", -1),
        "configured": flag("whether there is an uplink to this peer"),
    }
)
UPLINK = table(
    {
        "peer_id": PEER,
        "interface": INTERFACE,
        "weight": UPLINK_WEIGHT,
        "endpoint": ENDPOINT_SHOWN,
        "public_key": PEER_KEY,
        "address": OWN_ADDRESS,
        "address6": OWN_ADDRESS6,
        "state": PATH_STATE,
        "active": ACTIVE,
        "shared_fate": SHARED_FATE,
        "note": NOTE,
    }
)
WAN_HEALTH = table(
    {
        "path": text("name of the line"),
        "device": text("its network device"),
        "state": {
            **PATH_STATE,
            "enum": [*PATH_STATES, "captive"],
            "description": f"{PATH_STATE['description']}; captive: a portal wants a login first",
        },
        "portal": text('where to log in, the portal\'s URL; "" if there is none'),
        "latency_ms": LATENCY,
        "loss_pct": LOSS,
        "last_ok_s": number("seconds since a probe was last answered; -1 if never", -1),
    },
    "health of a line of the router's own",
)
UPLINK_HEALTH = table(
    {
        "peer_id": PEER,
        "interface": INTERFACE,
        "weight": UPLINK_WEIGHT,
        "state": PATH_STATE,
        "active": ACTIVE,
        "latency_ms": LATENCY,
        "loss_pct": LOSS,
        "handshake_age_s": HANDSHAKE_AGE,
        "rx_bytes": whole("bytes received through the tunnel"),
        "tx_bytes": whole("bytes sent through the tunnel"),
        "today_bytes": whole("bytes both ways today"),
        "month_bytes": whole("bytes both ways since the first of the month"),
        "quota_left_gb": number(
            "GB that the peer's offer says are left this month; -1 without a quota or an offer", -1
        ),
        "endpoint": ENDPOINT_SHOWN,
        "probe_mb_a_day": number("what probes take at their present pace, both ways, MB a day"),
        "mtu": whole("the tunnel's MTU in bytes; 0 while it is not there"),
        "underlay": text('device that the tunnel\'s outer packets leave by; "" if unknown'),
        "shared_fate": SHARED_FATE,
        "usable": flag("whether traffic could be moved to it now"),
        "reason": text('why it is not usable; else ""'),
        "note": NOTE,
    }
)
FAMILY = table(
    {
        "state": {**STATE, "description": "as above, for this family"},
        "active_path": ACTIVE_PATH,
        "carrying": {
            "type": ["boolean", "null"],
            "description": "while an uplink is in use: true where flows of the LAN are answered "
            "through it, false where none is (problems says why), null where nothing lately tells",
        },
    },
    "one address family",
)
EVENT = table(
    {
        "at": text("when, ISO 8601 in UTC"),
        "kind": text(
            "failover, failback, switch (from uplink to uplink), stranded, not_carrying, carrying, "
            "uplink_added, uplink_removed and others",
            pattern=r"^[a-z_]{1,32}$(?!\n)",
        ),
        "family": text('the address family it concerns; "" for both or none')
        | {"enum": ["ipv4", "ipv6", ""]},
        "from": text('path before; "" if none'),
        "to": text('path after; "" if none'),
        "peer_id": text('the peer it concerns; "" if none'),
        "cause": text("why, as a sentence"),
        "detection_ms": whole("ms from the first lost probe to the decision; -1 if none", -1),
        "switch_ms": whole("ms from the decision to moved traffic; -1 if none", -1),
        "duration_s": number("seconds that the state before lasted; -1 if unknown", -1),
        "outage_ms": whole(
            "ms without internet from the first lost probe on; -1 if none or unknown", -1
        ),
    }
)
PEER_OFFER = table(
    {
        "node_id": PEER,
        "bandwidth": whole("Mbit/s; 0 if the peer does not say"),
        "latency": number("ms; 0 if the peer does not say"),
        "public_key": PEER_KEY,
        "endpoint": ENDPOINT_SHOWN,
        "bandwidth_mbps": whole("the same as bandwidth"),
        "latency_ms": number("the same as latency"),
    }
)
CONSUMER_TRAFFIC = table(
    {
        "peer_id": PEER,
        "address": text("its address in the tunnel"),
        "handshake_age_s": HANDSHAKE_AGE,
        "rx_bytes": whole("bytes that it sent"),
        "tx_bytes": whole("bytes that it received"),
        "month_bytes": whole("bytes both ways since the quota's reset day"),
    }
)
MWAN3_VIEW = table(
    {
        "available": flag("whether mwan3 answers"),
        "interfaces": rows(
            "its enabled interfaces",
            table(
                {
                    "name": text("netifd's name of it"),
                    "status": text("mwan3's word for it: online, offline, unknown and others"),
                    "tracking": text("active, paused, down, or disabled (it is not watched)"),
                }
            ),
        ),
        "policies": rows(
            "its policies",
            table(
                {
                    "name": text("the policy's name"),
                    "family": text("the address family") | {"enum": ["ipv4", "ipv6"]},
                    "interfaces": rows(
                        "where it sends traffic now; none: its last resort", text("an interface")
                    ),
                }
            ),
        ),
    },
    "mwan3's own view; absent where it is not installed",
)
STATUS_REPLY = table(
    {
        "available": flag("always true: SecuBox's plugin says false where it can't do anything"),
        "enabled": switch("1 if the service does anything at all"),
        "auto_failover": switch("1 if traffic is moved automatically"),
        "offering": switch("1 if this router offers its internet to peers"),
        "consumers": rows("peers that use this router's internet", CONSUMER_TRAFFIC),
        "state": STATE,
        "active_path": ACTIVE_PATH,
        "since_s": number("seconds in this state"),
        "cause": text("what led to this state, as a sentence"),
        "release_s": number(
            "seconds until traffic may go back to a line that answers again; -1 if none waits", -1
        ),
        "detection_bound_ms": whole("ms after which a dead line is noticed at the latest"),
        "uplink_count": whole("number of configured uplinks"),
        "active_count": whole("number of configured uplinks that are not disabled"),
        "primary": WAN_HEALTH,
        "families": table({"ipv4": FAMILY, "ipv6": FAMILY}, "the state of each address family"),
        "wans": rows("the router's own lines", WAN_HEALTH),
        "uplinks": rows("the configured uplinks, best first", UPLINK_HEALTH),
        "peer_offers": rows(
            "the newest offers of peers that have internet now, as SecuBox's page reads them",
            PEER_OFFER,
            OFFERS_IN_STATUS,
        ),
        "events": rows("the last changes, newest first", EVENT, EVENTS_IN_STATUS),
        "problems": rows("what the owner should mend", text("a sentence")),
        "mwan3": MWAN3_VIEW,
        "mwan3_available": flag("as in mwan3, for SecuBox; absent where mwan3 is not installed"),
        "mwan3_status": text("each interface's status in words; absent like mwan3"),
    },
    optional=("mwan3", "mwan3_available", "mwan3_status"),
    more=True,
)
TEST_REPLY = table(
    {
        "success": {**SUCCESS, "description": "true: the test ran, whatever it found"},
        "peer_id": PEER,
        "interface": INTERFACE,
        "target": text("what was probed"),
        "reachable": flag("whether any probe was answered"),
        "sent": whole("probes sent"),
        "received": whole("probes answered"),
        "latency_ms": number("median round trip in ms; -1 without an answer", -1),
        "loss_pct": LOSS,
        "handshake_age_s": HANDSHAKE_AGE,
        "exit_address": text('address that the internet sees; "" if it can\'t be told'),
        "error": text('why nothing was reachable, as a sentence; else ""'),
    }
)

# --- SecuBox's older names: what its page sends is text, and "" for what is not given


def digits(description: str, pattern: str, low: int, high: int) -> Tree:
    """Return the schema of a whole number that may come as text, and is declared as text."""
    tree = {**whole(description, low, high), "type": ["string", "integer"], "pattern": pattern}
    return {**tree, "x-must": f"be a whole number from {low} to {high}"}


_TO_100 = r"^(?:[1-9][0-9]?|100)$(?!\n)"
OLDER_INTERFACE = text(
    "the name of an uplink's network interface",
    pattern=r"^[A-Za-z0-9_.-]{1,15}$(?!\n)",
    **{"x-must": "be 1 to 15 letters, digits, dots, underscores or hyphens"},
)
OLDER_PRIORITY = digits("1 to 100, the lower one is preferred: 101 - weight", _TO_100, 1, 100)
OLDER_WEIGHT = digits(
    "1 to 100, the higher one is preferred; counts where no priority is given", _TO_100, 1, 100
)
OLDER_SWITCH = {
    **digits("1 to fail over automatically, 0 not to", r"^[01]$(?!\n)", 0, 1),
    "type": ["string", "integer", "boolean"],
    "x-must": "be 1 or 0",
}
OLDER_AMOUNT = r"^[0-9]{1,6}$(?!\n)"
OLDER_UPLINK = table(
    {
        "interface": INTERFACE,
        "node_id": PEER,
        "peer_pubkey": PEER_KEY,
        "endpoint": ENDPOINT_SHOWN,
        "priority": whole("1 to 100, the lower one is preferred", 1, 100),
        "weight": UPLINK_WEIGHT,
        "status": text(
            "active: ready or in use; testing: not known yet; down",
            enum=["active", "testing", "down"],
        ),
        "enabled": flag("whether its section is enabled"),
        "state": text("up or down", enum=["up", "down"]),
        "connectivity": text("ok, failed or unknown", enum=["ok", "failed", "unknown"]),
    }
)
OLDER_DONE = table({"success": SUCCESS, "message": MESSAGE, "interface": INTERFACE}, more=True)
