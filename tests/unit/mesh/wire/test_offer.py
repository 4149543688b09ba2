"""Offers and withdrawals: the specification's example, what is added to it, and hostile ones.

What is written is read back for the recorded messages of test_message.py.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.errors import InvalidArgument
from rpcd_wireguard_uplink.mesh.wire.endpoints import ScopedEndpoint, check_endpoint_host
from rpcd_wireguard_uplink.mesh.wire.offer import Offer, Withdrawal, parse_message
from rpcd_wireguard_uplink.schema.json_message import parse_json_message

KEY = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="
SIGNATURE = "AQEB" * 21 + "AQ=="
NEAR = {"host": "10.1.1.1", "port": 1}


def offer(**changes: Any) -> dict[str, Any]:
    line = {"bandwidth_mbps": 100, "latency_ms": 20, "wan_type": "fiber", "available": True}
    return {
        "type": "uplink_offer",
        "peer_id": "nodeA",
        "timestamp": "2026-02-28T12:00:00Z",
        "capabilities": line,
        "endpoint": {"host": "nodeA.example.com", "port": 51820, "public_key": KEY},
        **changes,
    }


def endpoint(host: Any = "nodeA.example.com", port: Any = 51820, key: Any = KEY) -> dict[str, Any]:
    return {"endpoint": {"host": host, "port": port, "public_key": key}}


def parsed_offer(**changes: Any) -> Offer:
    found = parse_message(offer(**changes))
    assert isinstance(found, Offer)
    return found


def test_the_specifications_offer_as_a_table_and_as_json() -> None:
    wanted = Offer(
        peer_id="nodeA",
        host="nodeA.example.com",
        port=51820,
        public_key=KEY,
        bandwidth_mbps=100,
        latency_ms=20.0,
        wan_type="fiber",
        available=True,
        timestamp="2026-02-28T12:00:00Z",
    )
    assert parse_message(offer()) == parse_message(json.dumps(offer())) == wanted
    assert json.dumps(wanted.as_table()) == json.dumps(offer())


def test_the_smallest_offer_says_little() -> None:
    least = {"type": "uplink_offer", "peer_id": "b"}
    found = parse_message({**least, "endpoint": {"host": "10.0.0.9", "public_key": KEY}})
    assert isinstance(found, Offer)
    assert (found.port, found.bandwidth_mbps, found.latency_ms) == (51820, 0, -1.0)
    assert found.available


def test_what_is_added_and_what_is_unknown() -> None:
    rows = [
        {"host": "2001:DB8:0::7", "port": 51821},
        {"host": "10.40.0.2", "port": 51821.0, "scope": "link", "colour": 1},
    ]
    found = parsed_offer(
        sequence="12",
        ttl_s=60.0,
        egress="203.0.113.5",
        metered=1,
        quota_gb="12.5",
        quota_left_gb=None,
        endpoints=rows,
        identity=KEY,
        signature=SIGNATURE,
        colour={"a": [None]},
    )
    assert (found.sequence, found.ttl_s, found.egress) == (12, 60, ("203.0.113.5",))
    assert (found.metered, found.quota_gb, found.quota_left_gb) == (True, 12.5, -1.0)
    assert found.endpoints == (
        ScopedEndpoint("2001:db8::7", 51821, "public"),
        ScopedEndpoint("10.40.0.2", 51821, "link"),
    )
    assert [type(each.port) for each in found.endpoints] == [int, int]
    assert (found.identity, found.signature) == (KEY, SIGNATURE)
    assert parse_message(found.as_table()) == found


def test_a_withdrawal() -> None:
    raw = {"type": "uplink_withdraw", "peer_id": "a", "reason": "wan is down", "egress": "wan=1"}
    wanted = Withdrawal(peer_id="a", reason="wan is down", egress=("wan=1",))
    assert parse_message(raw) == wanted


def test_what_is_not_said_is_not_written_but_zero_is_said() -> None:
    said = {"latency_ms": 0.0, "sequence": 0, "quota_gb": 5.0, "quota_left_gb": 0.0}
    table = Offer(peer_id="b", host="10.0.0.9", public_key=KEY, **said).as_table()
    assert ".0" not in json.dumps(table).replace("10.0.0.9", "")
    assert table == {
        "type": "uplink_offer",
        "peer_id": "b",
        "capabilities": {"latency_ms": 0, "available": True},
        "endpoint": {"host": "10.0.0.9", "port": 51820, "public_key": KEY},
        "sequence": 0,
        "quota_gb": 5,
        "quota_left_gb": 0,
    }


HOSTS = """
    127.0.0.1 ::1 224.0.0.5 ff02::1 0.0.0.0 :: 255.255.255.255 169.254.10.1 fe80::1 127.1
    ::ffff:127.0.0.1 ::ffff:169.254.0.1 localhost fe80::1%eth0
"""


@pytest.mark.parametrize("host", [*HOSTS.split(), "", "a b"])
def test_a_host_that_no_peer_can_have(host: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_endpoint_host(host)
    assert caught.value.code == "bad_endpoint"


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("192.0.2.7", "192.0.2.7/24"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:0::1", "2001:db8::1/64"),
    ],
)
def test_our_own_address_is_no_peers(host: str, own: str) -> None:
    with pytest.raises(InvalidArgument, match="own address") as caught:
        check_endpoint_host(host, ["10.0.0.1/8", own])
    assert caught.value.code == "own_address"


def test_hosts_that_pass() -> None:
    assert check_endpoint_host("2001:DB8::0:1", ["192.0.2.1/24"]) == "2001:db8::1"
    assert check_endpoint_host("nodeA.example.com", ["192.0.2.1/24"]) == "nodeA.example.com"
    assert check_endpoint_host("192.0.2.9", ["192.0.2.1/24"]) == "192.0.2.9"


LINK_LOCAL = "is link-local; give an address that can be routed"
REFUSED = [
    ({"type": "uplink_steal"}, 'type must be uplink_offer or uplink_withdraw, not "uplink_steal"'),
    ({"type": None},
     "type must be uplink_offer or uplink_withdraw, and it is missing or no string"),
    ({"peer_id": None}, "peer_id is missing: give the id of a mesh peer"),
    ({"endpoint": None}, "endpoint is missing: give where the peer listens: "
                         "a table with host, port and public_key"),
    ({"endpoint": "h:1"}, "endpoint must be a table, not a string"),
    (endpoint(port=0), "endpoint.port must be from 1 to 65535, not 0"),
    (endpoint(port=65536), "endpoint.port must be from 1 to 65535, not 65536"),
    (endpoint(host=None), "endpoint.host is missing: give a host name or IP address"),
    (endpoint(key=None), "endpoint.public_key is missing: give the peer's WireGuard public key"),
    (endpoint(key="c2VjcmV0"),
     "endpoint.public_key must be a WireGuard public key: 44 characters of base64"),
    (endpoint(key="A" * 43 + "="),
     "endpoint.public_key can't be used: no tunnel can be made with it; give the peer's own"),
    ({"more": {"x": "y" * 10240}}, "the message is longer than 8192 bytes; send less"),
    (endpoint(host="127.0.0.1"), 'endpoint.host can\'t be used: "127.0.0.1" is a loopback address'),
    (endpoint(host="h;reboot"),
     'endpoint.host can\'t be used: "h;reboot" is neither a host name nor an IP address'),
    ({"capabilities": {"latency_ms": float("nan")}},
     "capabilities.latency_ms must be a number, not nan"),
    ({"capabilities": {"bandwidth_mbps": -1}},
     "capabilities.bandwidth_mbps must be from 0 to 1000000, not -1"),
    ({"capabilities": {"wan_type": "\x1b]0;x\x07"}},
     'capabilities.wan_type must be at most 32 plain ASCII characters, not "\\x1b]0;x\\x07"'),
    ({"sequence": -1}, "sequence must be from 0 to 9007199254740991, not -1"),
    ({"sequence": True}, "sequence must be a whole number, not a boolean"),
    ({"ttl_s": float("inf")}, "ttl_s must be a whole number, not inf"),
    ({"timestamp": 1}, "timestamp must be a string, not a number"),
    ({"endpoints": [NEAR] * 9}, "endpoints must have at most 8 entries"),
    ({"endpoints": [NEAR, {"port": 1}]},
     "endpoints[1].host is missing: give a host name or IP address"),
    ({"endpoints": [{**NEAR, "scope": "lan"}]},
     'endpoints[0].scope must be one of "link", "public", not "lan"'),
    ({"endpoints": [{**NEAR, "host": "169.254.1.1"}]},
     f'endpoints[0].host can\'t be used: "169.254.1.1" {LINK_LOCAL}'),
    ({"egress": "a=1, b=2"}, 'egress must be at most 200 plain ASCII characters, not "a=1, b=2"'),
    ({"identity": "c2VjcmV0"}, "identity must be an Ed25519 key: 44 characters of base64"),
    ({"signature": KEY}, "signature must be an Ed25519 signature: 88 characters of base64"),
    ({"quota_gb": 10**300},
     "quota_gb must be from 0 to 1000000, not a number with too many digits"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "sentence"), REFUSED)
def test_refuses_with_a_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_message(offer(**changes))
    assert str(caught.value) == sentence


def test_a_list_that_is_too_long_costs_nothing(mocker: MockerFixture) -> None:
    looked = mocker.patch("rpcd_wireguard_uplink.schema.validation.parse_message")
    with pytest.raises(InvalidArgument, match="endpoints must have at most 8"):
        parse_message(offer(endpoints=[{}] * 5000))
    looked.assert_not_called()


def test_size_is_counted_in_bytes() -> None:
    text = json.dumps(offer(padding="\u00e4" * 8200), ensure_ascii=False)
    assert len(text) < 16384
    with pytest.raises(InvalidArgument, match="longer than 16384 bytes") as caught:
        parse_message(text)
    assert caught.value.code == "too_large"


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (b"", "not valid JSON"),
        (b"[" * 16000, "not valid JSON"),
        (b'{"sequence": ' + b"9" * 9000 + b"}", "not valid JSON"),
        (b'{"a": 1, "a": 1}', "a member twice"),
        (b'{"x": [{"a": 1, "\\u0061": 2}]}', "a member twice"),
        (b'{"a": ' + b"[" * 16 + b"]" * 16 + b"}", "more than 16 levels"),
        (b'{"a": ' * 17 + b"1" + b"}" * 17, "more than 16 levels"),
        (b'{"a": 1e999}', "not valid JSON"),
        (b'{"a": -Infinity}', "not valid JSON"),
        (b'{"a": "\xff"}', "not valid JSON"),
        (b'{"a": "\xed\xa0\x80"}', "not valid JSON"),
        (b'\xef\xbb\xbf{"a": 1}', "not valid JSON"),
        ('{"a": 1}'.encode("utf-16"), "not valid JSON"),
        (b'{"a": 1} {}', "not valid JSON"),
        (b'["type"]', "not an object"),
        (b"null", "not an object"),
    ],
)
def test_foreign_json_is_read_strictly(raw: bytes, sentence: str) -> None:
    with pytest.raises(InvalidArgument, match=sentence) as caught:
        parse_json_message(raw)
    assert caught.value.code == "bad_json"


def test_the_limits_are_what_they_say() -> None:
    assert parse_json_message(b'{"a": ' * 16 + b"1" + b"}" * 16)
    assert parse_json_message(b'{"a": [[], {}, "\xc3\xa4", null, 1.5]}') == {
        "a": [[], {}, "\u00e4", None, 1.5]
    }
    assert parse_json_message(b"{}", limit=2) == {}
    with pytest.raises(InvalidArgument, match="longer than 2 bytes"):
        parse_json_message(b"{ }", limit=2)
