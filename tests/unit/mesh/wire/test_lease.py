"""Leases and identities as peers send them: both ways, and what a hostile one may try.

What is written is read back for the recorded messages of test_message.py.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from rpcd_wireguard_uplink.errors import InvalidArgument
from rpcd_wireguard_uplink.mesh.wire.endpoints import ScopedEndpoint
from rpcd_wireguard_uplink.mesh.wire.lease import (
    Denial,
    Deny,
    Identity,
    LeaseGrant,
    LeaseRelease,
    LeaseRequest,
)
from tests.unit.fakes import key_of

KEY = key_of("consumer")
REQUEST = LeaseRequest(peer_id="nodeA", public_key=KEY)
GRANT = LeaseGrant(
    peer_id="nodeB",
    public_key=key_of("provider"),
    addresses=("10.9.8.2/32", "fd12:3456::2/128"),
    endpoints=(ScopedEndpoint("10.40.0.2", 51821, "link"), ScopedEndpoint("b.example.org", 51821)),
    gateways=("10.9.8.1", "fd12:3456::1"),
    dns=("192.0.2.53", "2001:db8::53"),
    mtu=1400,
    limit_mbps=20,
    lease_s=600,
)


def sent(table: dict[str, Any]) -> dict[str, Any]:
    """A table as the other side has it."""
    back: dict[str, Any] = json.loads(json.dumps(table))
    return back


def test_a_request() -> None:
    table = {"type": "lease_request", "peer_id": "nodeA", "public_key": KEY}
    assert REQUEST.as_table() == table
    found = LeaseRequest.parse({**table, "avoid": ["10.1.2.3/8", "FD00::/8", "192.0.2.1"]})
    assert found.avoid == ("10.0.0.0/8", "fd00::/8", "192.0.2.1/32")
    assert found.as_table()["avoid"] == list(found.avoid)
    many = REQUEST.replaced(avoid=tuple(f"10.{number}.0.0/16" for number in range(64)))
    assert LeaseRequest.parse(sent(many.as_table())) == many


def test_a_grant() -> None:
    table = GRANT.as_table()
    assert LeaseGrant.parse(sent(table)) == GRANT
    assert table["endpoints"][0] == {"host": "10.40.0.2", "port": 51821, "scope": "link"}
    assert list(table) == list(LeaseGrant.schema.properties)


def test_the_smallest_grant() -> None:
    table = {name: GRANT.as_table()[name] for name in ("type", "peer_id", "public_key", "lease_s")}
    found = LeaseGrant.parse(
        {**table, "addresses": ["100.64.0.9/32"], "endpoints": [{"host": "192.0.2.1", "port": 9}]}
    )
    assert found == LeaseGrant(
        peer_id="nodeB",
        public_key=GRANT.public_key,
        addresses=("100.64.0.9/32",),
        endpoints=(ScopedEndpoint("192.0.2.1", 9, "public"),),
        lease_s=600,
    )


PRIVATE = r"addresses\[0\] must be one address of a private range such as 10.1.2.3/32"
SOME = r"addresses\[0\] must be an IPv4 or IPv6 address"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"type": "lease_request"}, "type must be one of"),
        ({"public_key": KEY[:-4]}, "public_key must be a WireGuard public key"),
        ({"public_key": KEY[:-2] + "B="}, "public_key must be a WireGuard public key"),
        ({"public_key": "A" * 43 + "="}, "public_key can't be used: no tunnel can be made with it"),
        ({"endpoints": [{"host": "10.0.0.1", "port": 1, "more": "x" * 10240}]}, "the message is"),
        ({"peer_id": "a b"}, "peer_id must be 1 to 64 letters"),
        ({"addresses": []}, "addresses must have from 1 to 2 entries"),
        ({"addresses": ["10.1.1.1/32"] * 3}, "addresses must have from 1 to 2 entries"),
        ({"addresses": ["10.1.1.1/32", "10.1.1.2/32"]}, "addresses has two addresses of one"),
        ({"addresses": ["10.1.1.1/24"]}, PRIVATE),
        ({"addresses": ["8.8.8.8/32"]}, PRIVATE),
        ({"addresses": ["2001:db8::1/128"]}, PRIVATE),
        ({"addresses": ["::ffff:10.1.1.1/128"]}, PRIVATE),
        ({"addresses": ["127.0.0.1/32"]}, PRIVATE),
        ({"addresses": ["172.32.0.1/32"]}, PRIVATE),
        ({"addresses": ["10.1.1.1"]}, r"addresses\[0\] must be an address such as 10.1.2.3/32"),
        ({"addresses": ["fd00::1%lo/128"]}, SOME),
        ({"addresses": ["10.1.1.1/32\n"]}, SOME),
        ({"addresses": [1]}, r"addresses\[0\] must be a string"),
        ({"addresses": "10.1.1.1/32"}, "addresses must be a list, not a string"),
        ({"gateways": ["10.1.1.1/32"]}, r"gateways\[0\] must be an address such as 10.1.2.1"),
        ({"gateways": ["9.9.9.9"]}, r"gateways\[0\] must be one address of a private range"),
        ({"dns": ["127.0.0.1"]}, r"dns\[0\] must be the address of a DNS resolver"),
        ({"dns": ["dead.beef"]}, r"dns\[0\] must be the address of a DNS resolver"),
        ({"dns": ["1.1.1.1/32"]}, r"dns\[0\] must be the address of a DNS resolver"),
        ({"dns": ["1.1.1.1"] * 5}, "dns must have at most 4 entries"),
        ({"mtu": 1279}, "mtu must be from 1280 to 1500, not 1279"),
        ({"mtu": 1501}, "mtu must be from 1280 to 1500, not 1501"),
        ({"lease_s": 4}, "lease_s must be from 5 to 604800, not 4"),
        ({"lease_s": 604801}, "lease_s must be from 5 to 604800, not 604801"),
        ({"lease_s": None}, "lease_s is missing: give seconds that the lease is valid"),
        ({"limit_mbps": -1}, "limit_mbps must be from 0 to 1000000, not -1"),
        ({"endpoints": []}, "endpoints must have from 1 to 8 entries"),
        ({"endpoints": [{"host": "127.0.0.1", "port": 1}]}, r"endpoints\[0\].host can't be used"),
        ({"endpoints": [{"host": "10.0.0.1", "port": 0}]}, r"endpoints\[0\].port must be from 1"),
    ],
)
def test_a_grant_that_can_not_be_used(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidArgument, match=f"^{sentence}") as caught:
        LeaseGrant.parse({**GRANT.as_table(), **changes})
    assert KEY[:-2] not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"avoid": ["10.0.0.0/8"] * 65}, "avoid must have at most 64 entries"),
        ({"avoid": ["10.0.0.0/33"]}, r"avoid\[0\] must be a network such as 10.0.0.0/8"),
        ({"avoid": ["fd00::/8", "::::"]}, r"avoid\[1\] must be a network"),
        ({"avoid": ["10.0.0.0/255.0.0.0"]}, r"avoid\[0\] must be an IPv4 or IPv6 address"),
        ({"avoid": [10]}, r"avoid\[0\] must be a string"),
        ({"public_key": None}, "public_key is missing: give the WireGuard public key"),
        ({"type": None}, "type is missing: give always lease_request"),
    ],
)
def test_a_request_that_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidArgument, match=f"^{sentence}"):
        LeaseRequest.parse({**REQUEST.as_table(), **changes})


def test_another_message_is_no_release_and_another_key_no_identity() -> None:
    with pytest.raises(InvalidArgument, match="type must be one of"):
        LeaseRelease.parse(REQUEST.as_table())
    table = {"type": "uplink_identity", "peer_id": "a", "identity": "c2VjcmV0"}
    with pytest.raises(InvalidArgument, match="identity must be an Ed25519 key: 44 characters"):
        Identity.parse(table)


NO_REASON = "the provider says no and gives no reason"


@pytest.mark.parametrize(
    ("table", "wanted"),
    [
        *((Denial(code, "No, because.").as_table(), Denial(code, "No, because.")) for code in Deny),
        ({"code": "too_sunny", "error": "Wait."}, Denial("too_sunny", "Wait.")),
        ({"code": "A\x1b", "error": "a\x1bb\n"}, Denial("denied", "a\\x1bb\\n")),
        ({"code": ["full"], "error": {}}, Denial("denied", NO_REASON)),
        ({}, Denial("denied", NO_REASON)),
        ({"code": "full", "error": "x" * 999}, Denial("full", "x" * 300)),
        ({"code": "c" * 41, "error": "\x00" * 999}, Denial("denied", "\\x00" * 75)),
    ],
)
def test_any_no_stays_a_no(table: dict[str, Any], wanted: Denial) -> None:
    assert Denial.parse(sent(table)) == wanted
