"""Links, addresses, routes and rules: parsed, written back, and taken by a real kernel."""

from __future__ import annotations

import json
import socket
import struct
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.errors import CommandFailed
from rpcd_wireguard_uplink.model import Family, Link
from rpcd_wireguard_uplink.system import netlink
from rpcd_wireguard_uplink.system.netlink import Message, attribute, nested, number, text
from rpcd_wireguard_uplink.system.rtnetlink import (
    BLACKHOLE,
    CLONED,
    DELLINK,
    GOTO,
    INVERT,
    LINK_GROUPS,
    MAIN,
    NEWADDR,
    NEWLINK,
    NEWROUTE,
    NEWRULE,
    ONLINK,
    PPP,
    PROHIBIT,
    SCOPE_LINK,
    UNICAST,
    UNREACHABLE,
    Hop,
    Kernel,
    Route,
    Rule,
    add_route,
    add_rule,
    delete_route,
    delete_rule,
    filled,
    link_events,
    parse_address,
    parse_link,
    parse_route,
    parse_rule,
    rule_selectors,
)
from tests.unit.apart import apart

V4, V6 = Family.IPV4, Family.IPV6
real = pytest.mark.needs("unshare", "ip")


# --- routes

VIA = (18, b"\x0a\x00" + bytes(16))  # RTA_VIA
PREFSRC, METRICS = (7, b"\1\2\3\4"), (8, number(2, 1400))
TWO_HOPS = (Hop(2, "192.0.2.1", 3, ONLINK), Hop(0x7FFFFFFF, "", 255, 0, (VIA,)))
ROUTES = [
    Route(V4, MAIN),
    Route(V4, 255, "192.0.2.0/24", (Hop(2),), scope=SCOPE_LINK, protocol=2),
    Route(V4, 256, "198.51.100.7/32", (Hop(2, "192.0.2.1", 0, ONLINK),), metric=1),
    Route(V4, 0xFFFFFFFF, "", (Hop(2, other=(VIA,)),), metric=0xFFFFFFFF, tos=16),
    Route(V4, 5180, "", TWO_HOPS, other=(PREFSRC, METRICS)),
    Route(V6, 5180, "", (Hop(2, "fe80::1"),), source="2001:db8:1::/48", protocol=255),
    Route(V6, MAIN, "2001:db8::/32", (Hop(2, "fe80::1", 1), Hop(3, "fe80::2", 2))),
    Route(V6, MAIN, "2001:db8:8::/48", kind=BLACKHOLE, protocol=151),
]


@pytest.mark.parametrize("route", ROUTES, ids=str)
def test_a_route_that_is_written_is_the_one_that_is_parsed(route: Route) -> None:
    assert parse_route(add_route(route)) == route
    assert parse_route(delete_route(route)) == route


def test_requests_say_what_is_to_happen() -> None:
    route, rule = Route(V4, 5180, "", (Hop(3),)), Rule(V4, 99, MAIN)
    assert (add_route(route).kind, add_route(route).flags) == (24, 0x400 | 0x800)
    assert add_route(route, netlink.REPLACE).flags == 0x400 | 0x100
    assert (delete_route(route).kind, delete_route(route).flags) == (25, 0)
    assert (add_rule(rule).kind, add_rule(rule).flags) == (NEWRULE, 0x400 | 0x200)
    assert (delete_rule(rule).kind, delete_rule(rule).flags) == (33, 0)


def route_message(
    *parts: bytes,
    domain: int = socket.AF_INET,
    bits: int = 0,
    kind: int = UNICAST,
    flags: int = 0,
    table: int = 254,
) -> Message:
    head = struct.pack("=BBBBBBBBI", domain, bits, 0, 0, table, 3, 0, kind, flags)
    return Message(24, head + b"".join(parts))


def damaged_hop(length: int) -> Message:
    """One hop, and behind it one that is longer or shorter than can be."""
    hops = struct.pack("=HBBi", 8, 0, 1, 3) + struct.pack("=HBBi", length, 0, 0, 1)
    return route_message(attribute(9, hops))


NETWORK = attribute(1, bytes((198, 51, 100, 0)))
GATEWAY = attribute(5, bytes((192, 0, 2, 1)))
KERNELS_OWN = attribute(12, bytes(32)) + number(23, 9) + number(30, 4)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        pytest.param(
            route_message(
                number(15, 5180), NETWORK, number(6, 7), GATEWAY, number(4, 3), bits=24, table=252
            ),
            Route(V4, 5180, "198.51.100.0/24", (Hop(3, "192.0.2.1"),), 7, protocol=3),
            id="198.51.100.0/24 via 192.0.2.1 dev 3 metric 7 table 5180",
        ),
        pytest.param(
            route_message(attribute(1, b"\x0a"), bits=8),
            Route(V4, MAIN, "10.0.0.0/8", protocol=3),
            id="a destination as short as the kernel likes",
        ),
        pytest.param(
            route_message(number(4, 1), domain=socket.AF_INET6, kind=UNREACHABLE),
            Route(V6, MAIN, kind=UNREACHABLE, protocol=3),
            id="a refusal of IPv6, which is shown as a way by lo",
        ),
        pytest.param(
            route_message(number(4, 3), KERNELS_OWN),
            Route(V4, MAIN, "", (Hop(3),), protocol=3),
            id="expiry, cache statistics and a next hop object are the kernel's own",
        ),
        *(
            pytest.param(
                damaged_hop(length),
                Route(V4, MAIN, "", (Hop(3, "", 1),), protocol=3),
                id=f"a hop of {length} bytes ends the list",
            )
            for length in (0, 4, 99)
        ),
        pytest.param(route_message(kind=2), None, id="local"),
        pytest.param(route_message(kind=3), None, id="broadcast"),
        pytest.param(route_message(kind=5), None, id="multicast"),
        pytest.param(route_message(domain=socket.AF_INET6, flags=CLONED), None, id="cloned"),
        pytest.param(route_message(domain=129), None, id="multicast routing"),
        pytest.param(Message(24, b"\2"), None, id="cut off"),
        pytest.param(Message(24, b""), None, id="empty"),
    ],
)
def test_routes_as_the_kernel_says_them(message: Message, expected: Route | None) -> None:
    assert parse_route(message) == expected


def test_place_and_identity() -> None:
    """The kernel fills in the IPv6 metric, scopes, protocols and flags; weights of one hop."""
    six = Route(V6, 5180, "2001:db8::/32", (Hop(3),))
    assert six.place == Route(V6, 5180, "2001:db8::/32", (Hop(4),), 1024).place
    four = Route(V4, 5180, "192.0.2.0/24", (Hop(3, "192.0.2.1", 0),))
    shown = Route(V4, 5180, "192.0.2.0/24", (Hop(3, "192.0.2.1", 5, ONLINK),), 0, protocol=151)
    assert four.identity == shown.identity
    assert four.identity != Route(V4, 5180, "192.0.2.0/24", (Hop(3, "192.0.2.9"),)).identity
    assert four.place != Route(V4, 5180, "192.0.2.0/24", (), 1).place
    assert four.place != Route(V4, 5181, "192.0.2.0/24").place
    two = (Hop(3, weight=1), Hop(4))
    assert Route(V4, 1, "", two).identity != Route(V4, 1, "", (Hop(3), Hop(4))).identity
    assert (four.length, Route(V6, 1, "::/3").length, Route(V6, 1).length) == (24, 3, 0)


def test_filled_hops_need_no_connected_network() -> None:
    found = filled([Hop(1, "192.0.2.1"), Hop(2)])
    assert [hop.flags for hop in found] == [ONLINK, 0]


# --- rules

NETWORK_BYTES = bytes((192, 0, 2, 0))
RULES = [
    Rule(V4, 0, 255, protocol=2),
    Rule(V6, 0xFFFFFFFF, 256),
    Rule(V4, 99, 0xFFFFFFFF, flags=INVERT, lengths=(24, 16, 0x10)),
    Rule(V4, 900, 7, selectors=((1, NETWORK_BYTES), (2, NETWORK_BYTES)), lengths=(24, 24, 0)),
    Rule(V4, 901, 7, selectors=rule_selectors(mark=(1, 15), input_device="a", output_device="b")),
    # FRA_SUPPRESS_IFGROUP, FRA_SUPPRESS_PREFIXLEN, FRA_UID_RANGE, FRA_IP_PROTO
    Rule(V4, 902, 7, selectors=((13, struct.pack("=I", 4)), (14, bytes(4)))),
    Rule(V4, 903, 7, selectors=((20, struct.pack("=II", 1000, 1999)), (22, b"\6"))),
    # FRA_SPORT_RANGE, FRA_DPORT_RANGE, FRA_TUN_ID, and what is not known yet
    Rule(V4, 904, 7, selectors=((23, b"\5\0\6\0"), (24, b"\7\0\7\0"))),
    Rule(V4, 905, 7, selectors=((12, bytes(8)), (77, b"not known yet"))),
    Rule(V4, 906, action=GOTO, target=32766),
    Rule(V6, 907, action=PROHIBIT),
]


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_rule_that_is_written_is_the_one_that_is_parsed(rule: Rule) -> None:
    assert parse_rule(add_rule(rule)) == rule
    assert parse_rule(delete_rule(rule)) == rule


def test_a_rule_as_the_kernel_says_it() -> None:
    """`32766: from all lookup main`: the kernel says of every rule that nothing is suppressed."""
    head = struct.pack("=BBBBBxxBI", socket.AF_INET, 0, 0, 0, 254, 1, 0x10000)
    body = head + number(15, 254) + number(14, 0xFFFFFFFF) + number(6, 32766) + attribute(21, b"\2")
    assert parse_rule(Message(NEWRULE, body)) == Rule(V4, 32766, MAIN, protocol=2)


def test_what_a_rule_looks_at() -> None:
    plain = Rule(V4, 32766, MAIN)
    assert plain.is_plain and not plain.suppressed
    assert (plain.mark, plain.source) == ((0, 0), "")
    assert (plain.input_device, plain.output_device) == ("", "")
    marked = Rule(V4, 9, 7, selectors=rule_selectors(mark=(0x100, 0x3F00)))
    assert (marked.mark, marked.is_plain) == ((0x100, 0x3F00), False)
    exact = Rule(V4, 9, 7, selectors=((10, struct.pack("=I", 0xCA6C)),))
    assert exact.mark == (0xCA6C, 0xFFFFFFFF)
    wild = Rule(V4, 9, 7, selectors=rule_selectors(input_device="guest", output_device="wan"))
    assert (wild.input_device, wild.output_device, wild.is_plain) == ("guest", "wan", False)
    sourced = Rule(V6, 9, 7, selectors=((2, b"\x20\x01\x0d\xb8"),), lengths=(0, 32, 0))
    assert (sourced.source, sourced.is_plain) == ("2001:db8::/32", False)
    assert Rule(V4, 9, 7, selectors=((24, bytes(4)),)).has_ports
    short = Rule(V4, 9, MAIN, selectors=((14, bytes(4)),))
    assert short.is_plain and short.suppressed and not short.has_ports
    assert Rule(V4, 9, MAIN, selectors=((13, bytes(4)),)).suppressed
    assert not Rule(V4, 9, MAIN, flags=INVERT).is_plain


# --- links and addresses


def link_message(
    *parts: bytes, flags: int = 0x10001, family: int = 0, hardware: int = 1, kind: int = NEWLINK
) -> Message:
    return Message(kind, struct.pack("=BxHiII", family, hardware, 7, flags, 0) + b"".join(parts))


def test_links() -> None:
    info = nested(18, [text(1, "wireguard")])
    full = link_message(text(3, "wgup_a"), number(4, 1420), number(27, 51), text(20, "ours"), info)
    assert parse_link(full) == Link("wgup_a", 7, 51, "ours", True, 1420, "wireguard", 1)
    assert parse_link(link_message(hardware=PPP)) == Link("", 7, hardware=PPP)


def address_message(*parts: bytes, domain: int = socket.AF_INET, scope: int = 0) -> Message:
    return Message(20, struct.pack("=BBBBI", domain, 24, 0x80, scope, 7) + b"".join(parts))


def test_addresses() -> None:
    peer, own = attribute(1, bytes((192, 0, 2, 9))), attribute(2, bytes((192, 0, 2, 1)))
    assert parse_address(address_message(peer, own)) == (7, "192.0.2.1/24", True)
    assert parse_address(address_message(peer)) == (7, "192.0.2.9/24", True)
    for state in (0x40, 0x20):  # tentative, deprecated
        assert parse_address(address_message(own, number(8, state))) == (7, "192.0.2.1/24", False)
    for nothing in (
        address_message(),
        address_message(own, scope=253),
        address_message(own, domain=129),
        Message(20, b"\2"),
    ):
        assert parse_address(nothing) is None


@pytest.mark.parametrize(
    ("messages", "events"),
    [
        ([link_message(flags=0x10001)], [(7, True)]),
        ([link_message(flags=0x11043)], [(7, True)]),
        ([link_message(flags=0x1)], [(7, False)]),
        ([link_message(flags=0x10000)], [(7, False)]),
        ([link_message(flags=0)], [(7, False)]),
        ([link_message(kind=DELLINK)], [(7, False)]),
        ([link_message(family=7)], []),  # a bridge's own news
        ([Message(NEWLINK, b"short")], []),
        ([Message(NEWADDR, b""), link_message(b"abc")], [None, (7, True)]),
        ([route_message(table=254)], [None]),
        ([route_message(table=255)], []),
        ([route_message(table=51)], []),
        ([Message(NEWROUTE, b"")], []),
    ],
)
def test_news_of_links(messages: list[Message], events: list[tuple[int, bool] | None]) -> None:
    """A carrier needs both flags (IFF_UP, IFF_LOWER_UP); only routes of main count."""
    assert list(link_events(messages)) == events


# --- damaged and hostile messages


@given(
    st.sampled_from((socket.AF_INET, socket.AF_INET6)),
    st.integers(0, 255),
    st.lists(st.tuples(st.integers(0, 40), st.binary(max_size=20)), max_size=8),
)
def test_attributes_of_any_length_never_raise(
    domain: int, bits: int, pairs: list[tuple[int, bytes]]
) -> None:
    parts = [attribute(kind, value) for kind, value in pairs]
    route = parse_route(route_message(*parts, domain=domain, bits=bits))
    assert route is not None
    _ = route.place, route.identity, route.length
    body = struct.pack("=BBBBBxxBI", domain, bits, bits, 0, 0, 1, 0) + b"".join(parts)
    rule = parse_rule(Message(NEWRULE, body))
    assert rule is not None
    _ = rule.mark, rule.source, rule.input_device, rule.is_plain, rule.has_ports
    parse_link(link_message(*parts))
    parse_address(address_message(*parts, domain=domain))


# --- asking


def test_the_device_towards_an_address(mocker: MockerFixture) -> None:
    kernel = Kernel()
    mocker.patch("socket.if_indextoname", side_effect={3: "wan"}.get)
    ask = mocker.patch.object(kernel._netlink, "ask", return_value=route_message(number(4, 3)))
    assert kernel.device_towards("192.0.2.9") == "wan"
    kind, body = ask.call_args.args
    held = dict(netlink.parse_attributes(body, 12))
    assert (kind, held[1], held[16]) == (26, bytes((192, 0, 2, 9)), struct.pack("=I", 0x51))
    ask.side_effect = [
        route_message(number(4, 1), kind=UNREACHABLE),
        Message(24, b""),
        CommandFailed("Network is unreachable"),
    ]
    for address in ("2001:db8::9", "192.0.2.9", "192.0.2.9"):
        assert kernel.device_towards(address) == ""


# --- a real kernel

PROGRAM = Path(__file__).with_name("kernel_program.py")
SETUP = """
ip link set lo up
ip link add wan type veth peer name far
ip link add tun0 type veth peer name far0
ip link set far0 up
ip addr add 192.0.2.2/24 dev wan
ip addr add 2001:db8::2/64 dev wan nodad
ip link set wan up; ip link set far up; ip link set tun0 up
ip route add default via 192.0.2.1 metric 5
ip route add 198.51.100.0/24 via 192.0.2.7 mtu 1400
ip route add 203.0.113.0/24 nexthop via 192.0.2.1 weight 3 nexthop dev tun0
ip route add unreachable 10.9.0.0/16
ip -6 route add default via 2001:db8::1 metric 5
ip -6 route add default from 2001:db8:1::/48 via 2001:db8::1 metric 6
ip -6 route add 2001:db8:9::/48 nexthop via 2001:db8::1 weight 2 nexthop via 2001:db8::7
ip -6 route add unreachable 2001:db8:8::/48
ip rule add pref 900 from 198.51.100.0/24 iif tun0 dport 25 lookup 77
ip rule add pref 901 not fwmark 0xca6c lookup main suppress_prefixlength 0
ip rule add pref 902 fwmark 0x100/0x3f00 tos 0x10 uidrange 1000-1999 goto 32766
ip -6 rule add pref 900 from 2001:db8:1::/48 lookup main
ip -6 rule add pref 901 oif tun0 prohibit
"""
MORE = {
    "copy": "seq 0 999 | while read n; do echo "
    '"route add 172.$((16+n/250)).$((n%250)).0/24 via 192.0.2.1"; done | ip -batch -\n',
    "change": "ip neigh add 192.0.2.1 lladdr 02:00:00:00:00:09 dev wan\n"
    "sysctl -qw net.ipv4.ip_forward=1\n",
}
EXPECTED = {
    "tell": {
        "devices": {"far": True, "far0": True, "lo": True, "tun0": True, "wan": True},
        "addresses": ["192.0.2.2/24", "2001:db8::2/64"],
        "rules": {"ipv4": [0, 900, 901, 902, 32766, 32767], "ipv6": [0, 900, 901, 32766]},
        "defaults": {"ipv4": ["192.0.2.1"], "ipv6": ["2001:db8::1", "2001:db8::1"]},
        "towards": {"192.0.2.9": "wan", "10.9.0.1": ""},
    },
    # Every route of main and every rule, written once: they read as what was wanted.
    "copy": {"refused": [], "are_many": True, "again": 0, "left": 0},
    "change": {
        "device": ["ours", 51, 1400, "bridge", True],
        "addresses": ["10.1.2.2/24", "10.1.3.1/32", "fd00::2/128"],
        "routes": [True, False],
        "neighbour": ["02:00:00:00:00:09", ""],
        "defaults": [["wan", "192.0.2.1", 5]],
        "destinations": [["tun0", "203.0.113.0/24"], ["", "10.9.0.0/16"]],
        "left": [],
    },
    "news": {
        "kinds": [16, 24, 25, 32, 33],
        "mtu": 1300,
        "missing": "can't set gone: No such device",
        "carriers": {"far": False, "wan": False},
    },
}


@real
@pytest.mark.parametrize("what", EXPECTED)
def test_real(what: str) -> None:
    root = Path(__file__).parents[3]
    run = f"PYTHONPATH={root} {sys.executable} {PROGRAM} {what}"
    assert json.loads(apart(f"{SETUP}{MORE.get(what, '')}{run}", cwd=root)) == EXPECTED[what]


async def test_it_listens_and_stops() -> None:
    """A real socket: joining the groups must be allowed to anybody."""
    news = Kernel().listen(lambda: None, LINK_GROUPS)
    assert news is not None and news.read() == ([], False)
    news.close()
