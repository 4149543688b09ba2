"""Leases and identities as peers send them: both ways, and what a hostile one may try."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


def grant(**changes: Any) -> dict[str, Any]:
    return {**GRANT.as_table(), **changes}


def test_a_request() -> None:
    table = {"type": "lease_request", "peer_id": "nodeA", "public_key": KEY}
    assert LeaseRequest(peer_id="nodeA", public_key=KEY).as_table() == table
    assert LeaseRequest.parse(table) == LeaseRequest(peer_id="nodeA", public_key=KEY)
    found = LeaseRequest.parse({**table, "avoid": ["10.1.2.3/8", "FD00::/8", "192.0.2.1"]})
    assert found.avoid == ("10.0.0.0/8", "fd00::/8", "192.0.2.1/32")
    assert found.as_table()["avoid"] == list(found.avoid)


def test_a_grant() -> None:
    table = GRANT.as_table()
    assert LeaseGrant.parse(sent(table)) == GRANT
    assert table["endpoints"][0] == {"host": "10.40.0.2", "port": 51821, "scope": "link"}
    assert list(table) == list(LeaseGrant.schema.properties)


def test_the_smallest_grant() -> None:
    table = {name: grant()[name] for name in ("type", "peer_id", "public_key", "lease_s")}
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


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"type": "lease_request"}, "type must be one of"),
        ({"public_key": KEY[:-4]}, "public_key must be a WireGuard public key"),
        ({"public_key": KEY[:-2] + "B="}, "public_key must be a WireGuard public key"),
        ({"public_key": "A" * 43 + "="}, "public_key can't be used: no tunnel can be made with it"),
        ({"more": "x" * 10240}, "the message is longer than 8192 bytes; send less"),
        ({"endpoints": [{"host": "10.0.0.1", "port": 1, "more": "x" * 10240}]}, "the message is"),
        ({"peer_id": "a b"}, "peer_id must be 1 to 64 letters"),
        ({"addresses": []}, "addresses must have from 1 to 2 entries"),
        ({"addresses": ["10.1.1.1/32"] * 3}, "addresses must have from 1 to 2 entries"),
        ({"addresses": ["10.1.1.1/32", "10.1.1.2/32"]}, "addresses has two addresses of one"),
        ({"addresses": ["10.1.1.1/24"]}, r"addresses\[0\] must be one address of a private range"),
        ({"addresses": ["8.8.8.8/32"]}, r"addresses\[0\] must be one address of a private range"),
        ({"addresses": ["2001:db8::1/128"]}, r"addresses\[0\] must be one address of a private"),
        ({"addresses": ["::ffff:10.1.1.1/128"]}, r"addresses\[0\] must be one address of a"),
        ({"addresses": ["127.0.0.1/32"]}, r"addresses\[0\] must be one address of a private range"),
        ({"addresses": ["172.32.0.1/32"]}, r"addresses\[0\] must be one address of a private"),
        ({"addresses": ["10.1.1.1"]}, r"addresses\[0\] must be an address such as 10.1.2.3/32"),
        ({"addresses": ["fd00::1%lo/128"]}, r"addresses\[0\] must be an IPv4 or IPv6 address"),
        ({"addresses": ["10.1.1.1/32\n"]}, r"addresses\[0\] must be an IPv4 or IPv6 address"),
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
        ({"endpoints": [{"host": "224.0.0.1", "port": 1}]}, r"endpoints\[0\].host can't be used"),
        ({"endpoints": [{"host": "0.0.0.0", "port": 1}]}, r"endpoints\[0\].host can't be used"),
        ({"endpoints": [{"host": "169.254.9.9", "port": 1}]}, r"endpoints\[0\].host can't be used"),
        ({"endpoints": [{"host": "10.0.0.1", "port": 0}]}, r"endpoints\[0\].port must be from 1"),
    ],
)
def test_a_grant_that_can_not_be_used(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidArgument, match=f"^{sentence}") as caught:
        LeaseGrant.parse(grant(**changes))
    assert KEY[:-2] not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"avoid": ["10.0.0.0/8"] * 65}, "avoid must have at most 64 entries"),
        ({"avoid": ["10.0.0.0/33"]}, r"avoid\[0\] must be a network such as 10.0.0.0/8"),
        ({"avoid": ["fd00::/8", "::::"]}, r"avoid\[1\] must be a network"),
        ({"avoid": ["10.0.0.0/255.0.0.0"]}, r"avoid\[0\] must be an IPv4 or IPv6 address"),
        ({"avoid": [10]}, r"avoid\[0\] must be a string"),
        ({"avoid": "10.0.0.0/8"}, "avoid must be a list"),
        ({"public_key": None}, "public_key is missing: give the WireGuard public key"),
        ({"type": None}, "type is missing: give always lease_request"),
    ],
)
def test_a_request_that_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidArgument, match=f"^{sentence}"):
        LeaseRequest.parse({**LeaseRequest(peer_id="a", public_key=KEY).as_table(), **changes})


def test_64_prefixes_pass() -> None:
    request = LeaseRequest(
        peer_id="a", public_key=KEY, avoid=tuple(f"10.{number}.0.0/16" for number in range(64))
    )
    assert LeaseRequest.parse(sent(request.as_table())) == request


@pytest.mark.parametrize("code", list(Deny))
def test_every_denial_of_ours_is_read_as_it_was_written(code: Deny) -> None:
    table = Denial(code, "No, because.").as_table()
    assert Denial.parse(sent(table)) == Denial(code, "No, because.")


@pytest.mark.parametrize(
    ("table", "wanted"),
    [
        ({"code": "too_sunny", "error": "Wait."}, Denial("too_sunny", "Wait.")),
        ({"code": "A\x1b", "error": "a\x1bb\n"}, Denial("denied", "a\\x1bb\\n")),
        (
            {"code": ["full"], "error": {}},
            Denial("denied", "the provider says no and gives no reason"),
        ),
        ({}, Denial("denied", "the provider says no and gives no reason")),
        ({"code": "full", "error": "x" * 999}, Denial("full", "x" * 300)),
        ({"code": "c" * 41, "error": "\x00" * 999}, Denial("denied", "\\x00" * 75)),
    ],
)
def test_any_no_stays_a_no(table: dict[str, Any], wanted: Denial) -> None:
    assert Denial.parse(table) == wanted


def test_a_release() -> None:
    release = LeaseRelease(peer_id="nodeA", public_key=KEY)
    assert LeaseRelease.parse(sent(release.as_table())) == release
    with pytest.raises(InvalidArgument, match="type must be one of"):
        LeaseRelease.parse({**release.as_table(), "type": "lease_request"})


@pytest.mark.parametrize(
    "identity", [Identity(peer_id="nodeA"), Identity(peer_id="nodeA", key=key_of("identity"))]
)
def test_an_identity(identity: Identity) -> None:
    table = identity.as_table()
    assert Identity.parse(sent(table)) == identity
    assert ("identity" in table) == bool(identity.key)


def test_an_identity_that_is_none() -> None:
    table = {"type": "uplink_identity", "peer_id": "a", "identity": "c2VjcmV0"}
    with pytest.raises(InvalidArgument, match="identity must be an Ed25519 key: 44 characters"):
        Identity.parse(table)


ADDRESSES = st.tuples(
    st.ip_addresses(network="10.0.0.0/8") | st.ip_addresses(network="172.16.0.0/12"),
    st.ip_addresses(network="fc00::/7"),
)
PUBLIC = st.ip_addresses(network="192.0.2.0/24") | st.ip_addresses(network="2001:db8::/32")
GRANTS = st.builds(
    LeaseGrant,
    peer_id=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True),
    public_key=st.just(KEY),
    addresses=ADDRESSES.map(lambda both: (f"{both[0]}/32", f"{both[1]}/128")),
    endpoints=st.lists(
        st.builds(
            ScopedEndpoint,
            PUBLIC.map(str),
            st.integers(1, 65535),
            st.sampled_from(["link", "public"]),
        ),
        min_size=1,
        max_size=8,
    ).map(tuple),
    gateways=st.just(()) | ADDRESSES.map(lambda both: tuple(map(str, both))),
    dns=st.lists(PUBLIC.map(str), max_size=4).map(tuple),
    mtu=st.integers(1280, 1500),
    limit_mbps=st.integers(0, 1_000_000),
    lease_s=st.integers(5, 604800),
)


@given(GRANTS)
def test_a_grant_is_read_as_it_was_written(message: LeaseGrant) -> None:
    assert LeaseGrant.parse(sent(message.as_table())) == message
