"""Messages of the mesh: the specification's examples, what is added, and hostile ones."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rpcd_wireguard_uplink.errors import InvalidArgument
from rpcd_wireguard_uplink.messages import OfferMessage, WithdrawMessage, parse_message
from rpcd_wireguard_uplink.model import Endpoint

KEY = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="


def offer(**changes: Any) -> dict[str, Any]:
    return {
        "type": "uplink_offer",
        "peer_id": "nodeA",
        "timestamp": "2026-02-28T12:00:00Z",
        "capabilities": {
            "bandwidth_mbps": 100,
            "latency_ms": 20,
            "wan_type": "fiber",
            "available": True,
        },
        "endpoint": {"host": "nodeA.example.com", "port": 51820, "public_key": KEY},
        **changes,
    }


def endpoint(host: Any = "nodeA.example.com", port: Any = 51820, key: Any = KEY) -> dict[str, Any]:
    return {"endpoint": {"host": host, "port": port, "public_key": key}}


def test_the_specifications_offer_as_a_table_and_as_json() -> None:
    wanted = OfferMessage(
        peer_id="nodeA",
        endpoint=Endpoint("nodeA.example.com", 51820),
        public_key=KEY,
        bandwidth_mbps=100,
        latency_ms=20.0,
        wan_type="fiber",
        available=True,
        timestamp="2026-02-28T12:00:00Z",
    )
    assert parse_message(offer()) == wanted
    assert parse_message(json.dumps(offer())) == wanted


def test_the_smallest_offer_says_little() -> None:
    found = parse_message(
        {
            "type": "uplink_offer",
            "peer_id": "b",
            "endpoint": {"host": "10.0.0.9", "public_key": KEY},
        }
    )
    assert found == OfferMessage("b", Endpoint("10.0.0.9", 51820), KEY)
    assert isinstance(found, OfferMessage)
    assert (found.bandwidth_mbps, found.latency_ms, found.available) == (0, -1.0, True)


def test_what_is_added_and_what_is_unknown() -> None:
    found = parse_message(
        offer(
            sequence="12",
            ttl_s=60.0,
            egress="203.0.113.5",
            metered=1,
            quota_gb="12.5",
            quota_left_gb=None,
            colour={"a": [None]},
        )
    )
    assert isinstance(found, OfferMessage)
    assert (found.sequence, found.ttl_s, found.egress) == (12, 60, "203.0.113.5")
    assert (found.metered, found.quota_gb, found.quota_left_gb) == (True, 12.5, None)


def test_withdraw() -> None:
    assert parse_message({"type": "uplink_withdraw", "peer_id": "a"}) == WithdrawMessage("a")
    text = '{"type": "uplink_withdraw", "peer_id": "a", "timestamp": "now", "sequence": 3}'
    assert parse_message(text) == WithdrawMessage("a", "now", 3)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"type": "uplink_steal"},
            'type must be uplink_offer or uplink_withdraw, not "uplink_steal"',
        ),
        (
            {"type": None},
            "type must be uplink_offer or uplink_withdraw, and it is missing or no string",
        ),
        ({"peer_id": None}, "peer_id is missing: give the id of a mesh peer"),
        (
            {"endpoint": None},
            "endpoint is missing: give where the peer listens: "
            "a table with host, port and public_key",
        ),
        ({"endpoint": "h:1"}, "endpoint must be a table, not a string"),
        (endpoint(port=0), "endpoint.port must be from 1 to 65535, not 0"),
        (endpoint(port=65536), "endpoint.port must be from 1 to 65535, not 65536"),
        (endpoint(host=None), "endpoint.host is missing: give a host name or IP address"),
        (
            endpoint(key=None),
            "endpoint.public_key is missing: give the peer's WireGuard public key",
        ),
        (
            endpoint(key="c2VjcmV0"),
            "endpoint.public_key must be a WireGuard public key: 44 characters of base64",
        ),
        (
            endpoint(host="127.0.0.1"),
            'endpoint.host can\'t be used: "127.0.0.1" is a loopback address',
        ),
        (
            endpoint(host="h;reboot"),
            'endpoint.host can\'t be used: "h;reboot" is neither a host name nor an IP address',
        ),
        (
            {"capabilities": {"latency_ms": float("nan")}},
            "capabilities.latency_ms must be a number, not nan",
        ),
        (
            {"capabilities": {"bandwidth_mbps": -1}},
            "capabilities.bandwidth_mbps must be from 0 to 1000000, not -1",
        ),
        (
            {"capabilities": {"wan_type": "\x1b]0;x\x07"}},
            'capabilities.wan_type must be at most 32 plain ASCII characters, not "\\x1b]0;x\\x07"',
        ),
        ({"sequence": -1}, "sequence must be from 0 to 9007199254740991, not -1"),
        ({"sequence": True}, "sequence must be a whole number, not a boolean"),
        ({"ttl_s": float("inf")}, "ttl_s must be a whole number, not inf"),
        ({"timestamp": 1}, "timestamp must be a string, not a number"),
        (
            {"quota_gb": 10**300},
            "quota_gb must be from 0 to 1000000, not a number with too many digits",
        ),
    ],
)
def test_refuses_with_a_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_message(offer(**changes))
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[" * 16000,
        '{"a": ' * 2000,
        '{"sequence": ' + "9" * 9000 + "}",
        '{"type": NaN}',
        "{'type': 'uplink_offer'}",
    ],
)
def test_text_that_is_no_json(text: str) -> None:
    with pytest.raises(InvalidArgument, match=r"^the message is not valid JSON"):
        parse_message(text)


@pytest.mark.parametrize("text", ["[]", "5", "null", '"uplink_offer"'])
def test_json_that_is_no_object(text: str) -> None:
    with pytest.raises(InvalidArgument, match="not an object"):
        parse_message(text)


def test_size_is_counted_in_bytes() -> None:
    text = json.dumps(offer(padding="\u00e4" * 8200), ensure_ascii=False)
    assert len(text) < 16384
    with pytest.raises(InvalidArgument, match="longer than 16384 bytes"):
        parse_message(text)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=50)


@settings(deadline=None, max_examples=200)
@given(
    st.dictionaries(
        st.sampled_from(
            ["peer_id", "timestamp", "sequence", "ttl_s", "egress", "metered", "quota_gb", "x"]
        ),
        SCALARS,
    ),
    st.dictionaries(st.sampled_from(["bandwidth_mbps", "latency_ms", "wan_type"]), SCALARS),
    st.dictionaries(st.sampled_from(["host", "port", "public_key"]), SCALARS),
)
def test_any_message_is_read_or_refused_on_one_line(
    top: dict[str, Any], capabilities: dict[str, Any], place: dict[str, Any]
) -> None:
    raw = offer(**top)
    raw["capabilities"].update(capabilities)
    raw["endpoint"].update(place)
    try:
        found = parse_message(raw)
    except InvalidArgument as error:
        assert str(error).isprintable()
        assert len(str(error)) < 300
    else:
        assert isinstance(found, OfferMessage)
        assert 1 <= found.endpoint.port <= 65535
        assert 0 <= found.bandwidth_mbps <= 1_000_000
        assert repr(found).isprintable()
