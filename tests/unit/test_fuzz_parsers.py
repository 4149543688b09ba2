"""Every parser of what others write, with inputs that are nearly right: it reads them or says no.

Each target has inputs that are right, which hypothesis damages, and pure noise besides. Whatever
comes, a parser returns, or raises an error of ours whose sentence is one short printable line.
"""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpcd_wireguard_uplink.api import dashboard
from rpcd_wireguard_uplink.errors import UplinkError
from rpcd_wireguard_uplink.extras.standalone.__main__ import parse_json
from rpcd_wireguard_uplink.mesh.registry import directory as mesh
from rpcd_wireguard_uplink.mesh.registry import master_link
from rpcd_wireguard_uplink.mesh.wire.endpoints import ScopedEndpoint, check_endpoint_host
from rpcd_wireguard_uplink.mesh.wire.lease import (
    Denial,
    Identity,
    LeaseGrant,
    LeaseRelease,
    LeaseRequest,
)
from rpcd_wireguard_uplink.mesh.wire.offer import parse_message
from rpcd_wireguard_uplink.mesh.wire.signing import Signer, verify
from rpcd_wireguard_uplink.model import Family
from rpcd_wireguard_uplink.platform import netifd
from rpcd_wireguard_uplink.probing.icmp import echo_request, parse_reply
from rpcd_wireguard_uplink.schema import endpoints
from rpcd_wireguard_uplink.schema.json_message import parse_json_message
from rpcd_wireguard_uplink.system import dns as resolver
from rpcd_wireguard_uplink.system import wg
from rpcd_wireguard_uplink.system.netlink import parse_messages
from rpcd_wireguard_uplink.system.rtnetlink import link_events
from rpcd_wireguard_uplink.ubus import blobmsg, framing, objects
from rpcd_wireguard_uplink.uci import document, grammar
from rpcd_wireguard_uplink.usage import Ledger
from tests.unit.fakes import key_of

KEY = key_of("a")

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from([10**40, "9" * 5000, "\x1b[2J", "\ud800", "::1", "0.0.0.0/0", "x" * 300, KEY])
)
JUNK = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


@st.composite
def damaged(draw: st.DrawFn, right: list[Any], noise: st.SearchStrategy[Any]) -> Any:
    """One of these texts or bytes with up to three places overwritten, cut out or filled up."""
    whole = draw(st.sampled_from(right))
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(whole)))
        stop = start + draw(st.integers(0, 8))
        whole = whole[:start] + draw(noise) + whole[stop:]
    return whole


@st.composite
def damaged_tables(draw: st.DrawFn, right: list[dict[str, Any]]) -> dict[str, Any]:
    """One of these tables with up to three members, however deep, replaced, removed or added."""
    table = copy.deepcopy(draw(st.sampled_from(right)))
    for _ in range(draw(st.integers(0, 3))):
        places = list(_places(table))
        if not places:
            break
        inside, key = draw(st.sampled_from(places))
        kind = draw(st.sampled_from(["replace", "remove", "add"]))
        if kind == "replace":
            inside[key] = draw(JUNK)
        elif kind == "remove":
            del inside[key]
        elif isinstance(inside, dict):
            inside[draw(st.text(max_size=8))] = draw(JUNK)
        else:
            inside.append(draw(JUNK))
    return table


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in items:
        yield node, key
        if isinstance(value, dict | list):
            yield from _places(value)


def texts(*right: str) -> st.SearchStrategy[str]:
    return damaged([*right, ""], st.text(max_size=6))


def raws(*right: bytes) -> st.SearchStrategy[bytes]:
    return damaged([*right, b""], st.binary(max_size=6))


def lines(*right: str) -> st.SearchStrategy[str]:
    """Lines of a program that is trusted to print its own fields, cut off and out of order."""
    line = st.sampled_from(right) | st.sampled_from(right).flatmap(
        lambda one: st.integers(0, one.count("\t")).map(lambda n: "\t".join(one.split("\t")[:n]))
    )
    return st.lists(line, max_size=6).map("\n".join)


OFFER = {
    "type": "uplink_offer",
    "peer_id": "nodeA",
    "timestamp": "2026-02-28T12:00:00Z",
    "capabilities": {"bandwidth_mbps": 100, "latency_ms": 20, "wan_type": "lte", "available": True},
    "endpoint": {"host": "nodeA.example.com", "port": 51820, "public_key": KEY},
    "endpoints": [{"host": "10.0.0.1", "port": 5, "scope": "link"}, {"host": "fd::1", "port": 6}],
    "sequence": 3,
    "ttl_s": 900,
    "egress": "addr=203.0.113.5",
    "metered": True,
    "quota_gb": 10,
    "quota_left_gb": 1.5,
    "identity": KEY,
    "signature": "AQEB" * 21 + "AQ==",
}
WITHDRAWAL = {"type": "uplink_withdraw", "peer_id": "nodeA", "sequence": 4, "reason": "wan down"}
REQUEST = LeaseRequest(peer_id="a", public_key=KEY, avoid=("10.0.0.0/8", "fd00::/8")).as_table()
RELEASE = LeaseRelease(peer_id="a", public_key=KEY).as_table()
GRANT = LeaseGrant(
    peer_id="b",
    public_key=KEY,
    addresses=("10.1.1.2/32", "fd00::2/128"),
    endpoints=(ScopedEndpoint("192.0.2.1", 51821),),
    gateways=("10.1.1.1", "fd00::1"),
    dns=("192.0.2.53",),
    lease_s=3600,
).as_table()
DENIAL = {"code": "full", "error": "No place is free."}
IDENTITY = Identity(peer_id="a", key=KEY).as_table()
TABLES = [OFFER, WITHDRAWAL, REQUEST, GRANT, DENIAL, IDENTITY, RELEASE]

PACKED = blobmsg.encode_table({"a": 1, "b": "c", "d": {"e": [1, 2.5, None]}, "f": True, "g": 2**40})
FRAMES = framing.frame(4, 1, 7, framing.put_number(3, 9) + framing.put_string(4, b"name")) * 2
UCI = "config uplink 'a'\n\toption x 'it'\\''s'\n\tlist y \"b c\"\n# end\nconfig b\n"
DUMP = (
    f"wg0\t(none)\t{KEY}\t51820\toff",
    f"wg0\t{KEY}\t(none)\t192.0.2.1:51821\t10.9.0.2/32,fd00::2/128\t1700000000\t11\t22\t25",
    f"wg0\t{key_of('b')}\t(none)\t(none)\t0.0.0.0/0\t0\t0\t0\toff",
    f"wgup_a\t{KEY}\t(none)\t[2001:db8::1]:9\t(none)\t0\t0\t0\toff",
)
LINK = bytes.fromhex("20000000 10000000 00000000 00000000 00000100 07000000 43100100 00000000")
ROUTE = bytes.fromhex("1c000000 18000000 00000000 00000000 02000000 fe030001 00000000")
ECHO = echo_request(Family.IPV4, 1, 2, b"token")[1:]
REPLY4, REPLY6 = b"\x45" + bytes(20) + ECHO, b"\x81" + ECHO
NETIFD = {
    "interface": [
        {
            "interface": "wan",
            "up": True,
            "l3_device": "eth0",
            "ipv4-address": [{"address": "192.0.2.2", "mask": 24}],
            "errors": [{"subsystem": "x", "code": "NO_DEVICE"}],
        }
    ]
}
RECORD = {
    "id": "nodeA",
    "name": "A",
    "wg_addresses": "10.9.0.2,fd00::2",
    "addresses": [{"address": "192.0.2.2"}],
    "fingerprint": "ab" * 16,
    "hostname": "a",
    "address": "192.0.2.2",
    "status": "approved",
    "is_local": False,
}
LEDGER = {
    "version": 1,
    "day": "2026-11-01",
    "keys": {KEY: [1, 2, 3]},
    "gone": [0, 0],
}


def everything(parse: Callable[[Any], Any]) -> Callable[[Any], object]:
    """The parser with all that it yields."""
    return lambda value: list(parse(value))


def message_bytes(parse: Callable[[Any], object]) -> Callable[[bytes], object]:
    """A message's whole way in, from the bytes that arrived."""
    return lambda raw: parse(parse_json_message(raw))


BYTES = raws(*(json.dumps(table).encode() for table in TABLES), b'{"a": [[[{"b": 1e5}]]]}')
TARGETS: dict[str, tuple[st.SearchStrategy[Any], Callable[[Any], object]]] = {
    "json": (BYTES | st.binary(max_size=60), parse_json_message),
    "message from bytes": (BYTES, message_bytes(parse_message)),
    "message from text": (texts(json.dumps(OFFER), json.dumps(WITHDRAWAL)), parse_message),
    "message from a table": (damaged_tables(TABLES), parse_message),
    "signature": (damaged_tables(TABLES), verify),
    "lease_request": (damaged_tables([REQUEST, GRANT]), LeaseRequest.parse),
    "lease_grant": (damaged_tables([GRANT, DENIAL]), LeaseGrant.parse),
    "lease_denial": (damaged_tables(TABLES), Denial.parse),
    "lease_release": (damaged_tables([RELEASE, REQUEST]), LeaseRelease.parse),
    "uplink_identity": (damaged_tables([IDENTITY, OFFER]), Identity.parse),
    "endpoint": (texts("192.0.2.1:5", "[fd00::1]:5", "a.example:9"), endpoints.parse_endpoint),
    "host": (texts("192.0.2.1", "::ffff:127.0.0.1", "a.example"), endpoints.parse_host),
    "address": (texts("192.0.2.1/24", "fd00::1/64"), endpoints.parse_address),
    "a peer's host": (
        texts("192.0.2.1", "fe80::1", "a.example"),
        lambda text: check_endpoint_host(text, ["192.0.2.1/24", "fd00::1"]),
    ),
    "blobmsg": (raws(PACKED) | st.binary(max_size=80), blobmsg.decode_table),
    "ubus frames": (raws(FRAMES), lambda raw: list(framing.FrameReader(4096).feed(raw))),
    "ubus attributes": (raws(FRAMES[12:]), framing.parse_attributes),
    "ubus signature": (raws(PACKED), objects.parse_signature),
    "uci lines": (texts(UCI), lambda text: list(grammar.read_lines(text, file="f"))),
    "uci document": (texts(UCI), lambda text: document.parse(text, file="f")),
    "uci bytes": (raws(UCI.encode()), lambda raw: document.parse(raw, file="f")),
    "wg show all dump": (lines(*DUMP), lambda text: wg.parse_dump(text, wg.Ages())),
    "mesh peers": (
        lines(*DUMP),
        lambda text: mesh.peers_on(wg.parse_dump(text, wg.Ages()), ["10.9.0.1"]),
    ),
    "addresses of peers": (texts("10.9.0.1/32", "::ffff:10.9.0.1%x"), mesh.plain_address),
    "rtnetlink": (
        raws(LINK + ROUTE, ROUTE + LINK),
        everything(lambda data: link_events(m for _, m in parse_messages(data))),
    ),
    "echo reply": (raws(REPLY4), lambda raw: parse_reply(Family.IPV4, raw)),
    "echo reply, IPv6": (raws(REPLY6), lambda raw: parse_reply(Family.IPV6, raw)),
    "resolv.conf": (texts("nameserver 192.0.2.1\nsearch lan\n"), resolver.parse_resolvers),
    "netifd": (damaged_tables([NETIFD]), netifd.parse_dump),
    "approvals": (damaged_tables([RECORD]), lambda row: master_link.parse_approvals([row])),
    "peers' records": (damaged_tables([RECORD]), lambda row: master_link.parse_records([row])),
    "usage": (damaged_tables([LEDGER]), Ledger.from_table),
    "a plugin's reply": (texts(json.dumps(NETIFD)), dashboard.parse_reply),
    "a plugin's list": (texts(json.dumps({"a": {"b": 32}})), dashboard.parse_signatures),
}


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.data())
def test_it_reads_or_says_no(name: str, data: st.DataObject) -> None:
    inputs, parse = TARGETS[name]
    given_input = data.draw(inputs)
    try:
        parse(given_input)
    except UplinkError as error:
        assert str(error).isprintable()
        assert 10 < len(str(error)) < 400
        assert error.code


@given(texts(json.dumps(OFFER)))
def test_the_bus_command_reads_json_or_says_no(text: str) -> None:
    with contextlib.suppress(UplinkError, ValueError):
        assert objects.encode_table(parse_json(text)) is not None


@given(damaged_tables([OFFER, WITHDRAWAL]))
def test_a_signed_message_that_was_damaged_is_never_believed(
    signer: Signer, table: dict[str, Any]
) -> None:
    signed = signer.sign({**OFFER, "identity": None, "signature": None})
    forged = {**table, "identity": signed["identity"], "signature": signed["signature"]}
    try:
        verify(forged)
    except UplinkError:
        return
    assert forged == signed


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return Signer.load(str(tmp_path_factory.mktemp("keys") / "identity"))


@pytest.mark.parametrize(
    "raw",
    [
        b"[" * 16384,
        b'{"a":' * 3276,
        b'{"a":[' + b"[]," * 5000 + b"1]}",
        b'{"a":' + b"9" * 16000 + b"}",
        b'{"a":0.' + b"9" * 16000 + b"}",
        b'{"a":1e' + b"9" * 16000 + b"}",
        b"{" + b",".join(b'"%d":1' % number for number in range(1700)) + b"}",
        b'{"a":"' + b"\\u0000" * 2600 + b'"}',
        b" " * 16384,
        bytes(16384),
        b'{"type":"uplink_offer","peer_id":"' + b"a" * 16000 + b'"}',
    ],
)
def test_the_heaviest_messages_are_read_or_refused(raw: bytes) -> None:
    try:
        parse_message(parse_json_message(raw))
    except UplinkError as error:
        assert len(str(error)) < 200
    else:
        pytest.fail("none of these is an offer")
