"""Links, addresses, routes and rules: parsed, written back, and taken by a real kernel."""

from __future__ import annotations

import base64
import json
import socket
import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.errors import CommandFailed
from rpcd_wireguard_uplink.model import Family, Link
from rpcd_wireguard_uplink.system import netlink, rtnetlink
from rpcd_wireguard_uplink.system.netlink import (
    Message,
    attribute,
    nested,
    number,
    parse_messages,
    text,
)
from rpcd_wireguard_uplink.system.rtnetlink import (
    BLACKHOLE,
    CLONED,
    GOTO,
    INVERT,
    LINK_GROUPS,
    MAIN,
    NEWRULE,
    ONLINK,
    PPP,
    PROHIBIT,
    SCOPE_LINK,
    THROW,
    TO_TABLE,
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

ADDRESSES = {V4: st.ip_addresses(v=4).map(str), V6: st.ip_addresses(v=6).map(str)}
INDEXES = st.integers(1, 0x7FFFFFFF)


@st.composite
def prefixes(draw: st.DrawFn, family: Family) -> str:
    import ipaddress

    bits = draw(st.integers(1, 32 if family is V4 else 128))
    address = draw(ADDRESSES[family])
    return str(ipaddress.ip_network(f"{address}/{bits}", strict=False))


@st.composite
def hops(draw: st.DrawFn, family: Family, weights: st.SearchStrategy[int]) -> Hop:
    gateway = draw(st.just("") | ADDRESSES[family])
    flags = draw(st.sampled_from((0, ONLINK)))
    other = draw(st.sampled_from(((), ((rtnetlink._VIA, b"\x0a\x00" + bytes(16)),))))
    return Hop(draw(INDEXES), gateway, draw(weights), flags, other)


@st.composite
def routes(draw: st.DrawFn) -> Route:
    family = draw(st.sampled_from(Family))
    kind = draw(st.sampled_from((UNICAST, UNICAST, BLACKHOLE, UNREACHABLE, PROHIBIT, THROW)))
    ways: tuple[Hop, ...] = ()
    if kind == UNICAST and draw(st.booleans()):
        ways = (draw(hops(family, st.just(0))),)
    elif kind == UNICAST:
        one = hops(family, st.integers(0, 255))
        ways = tuple(draw(st.lists(one, min_size=2, max_size=4)))
    others = ((rtnetlink._PREFSRC, b"\1\2\3\4"), (rtnetlink._METRICS, number(2, 1400)))
    return Route(
        family=family,
        table=draw(st.integers(0, 0xFFFFFFFF)),
        destination=draw(st.just("") | prefixes(family)),
        hops=ways,
        metric=draw(st.integers(0, 0xFFFFFFFF)),
        kind=kind,
        protocol=draw(st.integers(0, 255)),
        scope=draw(st.sampled_from((0, SCOPE_LINK))),
        source=draw(st.just("") | prefixes(family)),
        tos=draw(st.integers(0, 255)),
        other=tuple(sorted(draw(st.sets(st.sampled_from(others))))),
    )


@given(routes())
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


def test_a_route_as_the_kernel_says_it() -> None:
    """`198.51.100.0/24 via 192.0.2.1 dev 3 metric 7`, with a table number above 255."""
    message = route_message(
        attribute(15, struct.pack("=I", 5180)),
        attribute(1, bytes((198, 51, 100, 0))),
        attribute(6, struct.pack("=I", 7)),
        attribute(5, bytes((192, 0, 2, 1))),
        attribute(4, struct.pack("=I", 3)),
        bits=24,
        table=252,
    )
    assert parse_route(message) == Route(
        V4, 5180, "198.51.100.0/24", (Hop(3, "192.0.2.1"),), 7, protocol=3
    )


def test_prefixes_are_shown_as_short_as_the_kernel_likes() -> None:
    """An IPv4 destination may come with fewer bytes than four."""
    assert parse_route(route_message(attribute(1, b"\x0a"), bits=8)).destination == "10.0.0.0/8"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "message",
    [
        route_message(kind=2),  # local
        route_message(kind=3),  # broadcast
        route_message(kind=5),  # multicast
        route_message(domain=socket.AF_INET6, flags=CLONED),
        route_message(domain=129),  # multicast routing (RTNL_FAMILY_IPMR)
        Message(24, b"\2"),
        Message(24, b""),
    ],
)
def test_routes_that_are_none_of_ours_to_copy(message: Message) -> None:
    assert parse_route(message) is None


def test_a_refusal_has_no_way_although_ipv6_shows_lo() -> None:
    found = parse_route(route_message(number(4, 1), domain=socket.AF_INET6, kind=UNREACHABLE))
    assert found is not None and found.hops == ()


def test_what_only_the_kernel_knows_is_not_copied() -> None:
    """Expiry, cache statistics and the number of a next hop object."""
    found = parse_route(
        route_message(number(4, 3), attribute(12, bytes(32)), number(23, 9), number(30, 4))
    )
    assert found == Route(V4, MAIN, "", (Hop(3),), protocol=3)


def test_a_damaged_hop_ends_the_list_of_hops() -> None:
    good = struct.pack("=HBBi", 8, 0, 1, 3)
    for bad in (b"\0" * 8, struct.pack("=HBBi", 4, 0, 0, 1), struct.pack("=HBBi", 99, 0, 0, 1)):
        found = parse_route(route_message(attribute(9, good + bad)))
        assert found is not None and found.hops == (Hop(3, "", 1),)


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

SELECTORS = st.sampled_from(
    [
        (1, bytes((192, 0, 2, 0))),  # FRA_DST
        (2, bytes((192, 0, 2, 0))),  # FRA_SRC
        (3, b"br-lan\0"),  # FRA_IIFNAME
        (17, b"wan\0"),  # FRA_OIFNAME
        (10, struct.pack("=I", 0x100)),  # FRA_FWMARK
        (16, struct.pack("=I", 0x3F00)),  # FRA_FWMASK
        (13, struct.pack("=I", 4)),  # FRA_SUPPRESS_IFGROUP
        (14, struct.pack("=I", 0)),  # FRA_SUPPRESS_PREFIXLEN
        (20, struct.pack("=II", 1000, 1999)),  # FRA_UID_RANGE
        (22, b"\x06"),  # FRA_IP_PROTO
        (23, struct.pack("=HH", 5, 6)),  # FRA_SPORT_RANGE
        (24, struct.pack("=HH", 25, 25)),  # FRA_DPORT_RANGE
        (12, b"\0" * 8),  # FRA_TUN_ID
        (77, b"not known yet"),
    ]
)


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    action = draw(st.sampled_from((TO_TABLE, GOTO, 3, 6, 7, 8)))
    return Rule(
        family=draw(st.sampled_from(Family)),
        priority=draw(st.integers(0, 0xFFFFFFFF)),
        table=draw(st.integers(1, 0xFFFFFFFF)) if action == TO_TABLE else 0,
        action=action,
        selectors=tuple(sorted(draw(st.sets(SELECTORS)))),
        lengths=draw(st.tuples(st.integers(0, 32), st.integers(0, 32), st.integers(0, 255))),
        flags=draw(st.sampled_from((0, INVERT))),
        protocol=draw(st.integers(0, 255)),
        target=draw(st.integers(1, 0xFFFFFFFF)) if action == GOTO else 0,
    )


@given(rules())
def test_a_rule_that_is_written_is_the_one_that_is_parsed(rule: Rule) -> None:
    assert parse_rule(add_rule(rule)) == rule
    assert parse_rule(delete_rule(rule)) == rule


def test_a_rule_as_the_kernel_says_it() -> None:
    """`32766: from all lookup main`: the kernel says of every rule that nothing is suppressed."""
    head = struct.pack("=BBBBBxxBI", socket.AF_INET, 0, 0, 0, 254, 1, 0x10000)
    body = head + number(15, 254) + number(14, 0xFFFFFFFF) + number(6, 32766) + attribute(21, b"\2")
    rule = parse_rule(Message(NEWRULE, body))
    assert rule == Rule(V4, 32766, MAIN, protocol=2)
    assert rule is not None and rule.is_plain and not rule.suppressed
    assert (rule.mark, rule.input_device, rule.output_device, rule.source) == ((0, 0), "", "", "")


def test_what_a_rule_looks_at() -> None:
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
    assert Rule(V4, 9, MAIN, selectors=((13, number(13, 1)),)).suppressed
    assert not Rule(V4, 9, MAIN, flags=INVERT).is_plain


# --- links and addresses


def link_message(
    *parts: bytes, flags: int = 0x10001, family: int = 0, hardware: int = 1
) -> Message:
    return Message(16, struct.pack("=BxHiII", family, hardware, 7, flags, 0) + b"".join(parts))


def test_links() -> None:
    info = nested(18, [text(1, "wireguard")])
    full = link_message(text(3, "wgup_a"), number(4, 1420), number(27, 51), text(20, "ours"), info)
    assert parse_link(full) == Link("wgup_a", 7, 51, "ours", True, 1420, "wireguard", 1)
    for flags in (0x1, 0x10000, 0):
        found = parse_link(link_message(flags=flags))
        assert found is not None and not found.carrier
    assert parse_link(link_message(hardware=PPP)) == Link("", 7, hardware=PPP)
    assert parse_link(link_message(family=7)) is None, "a bridge's own news"
    assert parse_link(Message(16, b"")) is None


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
    route = parse_route(route_message(*parts, domain=int(domain), bits=bits))
    for each in (route,):
        if each is not None:
            _ = each.place, each.identity, each.length
    body = struct.pack("=BBBBBxxBI", domain, bits, bits, 0, 0, 1, 0) + b"".join(parts)
    rule = parse_rule(Message(NEWRULE, body))
    assert rule is not None
    _ = rule.mark, rule.source, rule.input_device, rule.is_plain, rule.has_ports
    parse_link(link_message(*parts))
    parse_address(address_message(*parts, domain=int(domain)))


# --- asking


def test_the_device_towards_an_address(mocker: MockerFixture) -> None:
    kernel = Kernel()
    mocker.patch("socket.if_indextoname", side_effect={3: "wan"}.get)
    ask = mocker.patch.object(kernel._netlink, "ask", return_value=route_message(number(4, 3)))
    assert kernel.device_towards("192.0.2.9") == "wan"
    kind, body = ask.call_args.args
    held = dict(netlink.parse_attributes(body, 12))
    assert (kind, held[1]) == (26, bytes((192, 0, 2, 9)))
    assert held[16] == struct.pack("=I", 0x51)
    ask.return_value = route_message(number(4, 1), kind=UNREACHABLE)
    assert kernel.device_towards("2001:db8::9") == ""
    ask.return_value = Message(24, b"")
    assert kernel.device_towards("192.0.2.9") == ""
    ask.side_effect = CommandFailed("Network is unreachable")
    assert kernel.device_towards("192.0.2.9") == ""


def test_no_change_is_no_request(mocker: MockerFixture) -> None:
    kernel = Kernel()
    change = mocker.patch.object(kernel._netlink, "change", return_value=[0])
    assert kernel.change([]) == []
    change.assert_not_called()


# --- a real kernel

PROGRAM = Path(__file__).with_name("kernel_program.py")


def in_a_namespace(what: str, setup: str) -> str:
    script = f"{setup}\n{sys.executable} {PROGRAM} {what}"
    root = Path(__file__).parents[3]
    return apart(f"export PYTHONPATH={root}\n{script}", cwd=root)


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


@real
def test_real_what_the_kernel_has_is_understood() -> None:
    told = json.loads(in_a_namespace("tell", SETUP))
    assert told["devices"]["wan"] and told["devices"]["tun0"]
    assert "192.0.2.2/24" in told["addresses"] and "2001:db8::2/64" in told["addresses"]
    assert told["rules"]["ipv4"] == [0, 900, 901, 902, 32766, 32767]
    assert told["rules"]["ipv6"] == [0, 900, 901, 32766]
    assert told["defaults"] == {"ipv4": ["192.0.2.1"], "ipv6": ["2001:db8::1", "2001:db8::1"]}
    assert told["towards"] == {"192.0.2.9": "wan", "10.9.0.1": ""}


@real
def test_real_copies_of_everything_are_taken_once() -> None:
    """Every route of main and every rule is copied; reading them again asks for no change."""
    told = json.loads(in_a_namespace("copy", SETUP))
    assert told["refused"] == []
    assert told["first"] > 8
    assert told["again"] == 0, "what was written reads as what was wanted"
    assert told["left"] == 0, "and can all be taken away"


@real
def test_real_many_routes_are_copied() -> None:
    setup = SETUP + "seq 0 999 | while read n; do\n"
    setup += 'echo "route add 172.$((16+n/250)).$((n%250)).0/24 via 192.0.2.1"; done | ip -batch -'
    told = json.loads(in_a_namespace("copy", setup))
    assert (told["refused"], told["again"], told["left"]) == ([], 0, 0)
    assert told["first"] > 1000


MISSING = "can't set gone: No such device"


@real
def test_real_devices_are_changed() -> None:
    setup = SETUP + "ip neigh add 192.0.2.1 lladdr 02:00:00:00:00:09 dev wan\n"
    told = json.loads(in_a_namespace("change", setup + "sysctl -qw net.ipv4.ip_forward=1\n"))
    assert told == {
        "device": ["ours", 51, 1400, "bridge", True],
        "addresses": ["10.1.2.2/24", "10.1.3.1/32", "fd00::2/128"],
        "routes": [True, False],
        "neighbour": ["02:00:00:00:00:09", ""],
        "defaults": [["wan", "192.0.2.1", 5]],
        "destinations": [["tun0", "203.0.113.0/24"], ["", "10.9.0.0/16"]],
        "left": [],
    }


@real
def test_real_news_and_the_mtu() -> None:
    told = json.loads(in_a_namespace("news", SETUP))
    assert told == {"kinds": [16, 24, 25, 32, 33], "mtu": 1300, "missing": MISSING}


# --- news of links


NEWLINK, DELLINK, NEWADDR, NEWROUTE = 16, 17, 20, 24
UP, LOWER_UP = 0x1, 0x10000

RECORDED = (
    b"c-rk+O;6NN6g_>NG6fNe!GM@3Mxz)P4rpB9_yOo{7Pup<h=IgJBbtEgE?xK!+z?$zqAL@&h9BS(5*Pje<H8jSH%z"
    b"_v_D!Z!+ks)2fe!B`Gq=rq_v5v<=j7ei+1hdd4^gq8=->AE2*|_6;yB>qG=ABDL$gVd9+24%W<<Nl;itoT0*~bU7"
    b"J`8Fc|CqX>w8*XlsGQN^t|g5+r^~T543)$^<Df8@}!G;{<QWpDt;VX(&v{YZx=W9c|p#*BrDdBb>7!R_t5Cm4S)K"
    b"Z%g2g*vjE>Qgiet~x{IxrUfiH-s^r+i8FbTieY3RkEW8Jf)J!j3{g=zHSC>|oP_Revj^@9WyA!Rx+8-jiS@GzWa}"
    b"CFZ{jaGW$}@~KNcnONe0q_`*ji|_qu0jO$aNmildEQ}zv|zg?1ulul6B9i>N6I#S@@lvtCf(ql`@`mef&Rn>W+)#"
    b"Ld9$4{NwX(TQ;u3NF!3D8b9dMHke@PP*t*ALEoPCIo$VinDU)ORJR4yttzS)vVrQBMs=l8-P$LrPizmp|M0`0dMi"
    b";~WfawS<_)SF$rh?(Wrfa$8SJ$5kdr`>GkF^O5lA#kbW~h6u|hPrC2H@UQ62Im@_$r%Sjs9aKaN_~QOo|}MNMb08"
    b"858oBnIm;3}zUta~aI9FxVHvV1~i6%wV}@7)%|M!E((oSff#$)XrKBgN=7KgPG2n>8zzOnCYw;$sB`~O5zRp*k?c"
    b"gJO`*@Un-F+d=tuYshU|=_a`oVvFXwX7zAIb`uT@qF}Al-qs)h873IUK=e*Y8ek#Fwn0althS#(;_F*ltckP7OLE"
    b"Ji>-Bg|TMheIKy^$SbH+4XEi=*p&OlOJRDu_DYqWlfJbvC<I#!7YathbId`=ge<YOK^?-u2kcY8Si7PU&1^q#Zk@"
    b"gsAP<70%Am-`SeAZtkks`W80)piCGaWp94E`Nzz@DIQPN;l%K*8&Z3g$NgK1MmaI9XK6Um^ej!!(r{wdI58d7d8a"
    b"d#g6isopnBTf$ResIu~R!y9R}46svA^4;+>9%)_v8GzSHs0!Y?=ycRF@#eTD6zpiCIQpPf$F1&w-az6%<?DvfkO)"
    b"%rTk8%W`2j$`=Q@bh8ubGPvG@~aR_MjFDL<VscXN<E=Hb5p6ur&9j`UXP%y"
)
"""What Linux 6 sent while a veth pair (3 and 2) came up, got an address, lost its carrier by its
other end (2) going down, and was deleted; each datagram behind its length."""


def message(kind: int, body: bytes, length: int | None = None) -> bytes:
    size = 16 + len(body) if length is None else length
    padding = b"\0" * (-len(body) % 4)
    return struct.pack("=IHHII", size, kind, 0, 0, 0) + body + padding


def link(index: int, flags: int, kind: int = NEWLINK, attributes: bytes = b"") -> bytes:
    return message(kind, struct.pack("=BxHiII", 0, 1, index, flags, 0) + attributes)


def parse_events(data: bytes) -> list[tuple[int, bool] | None]:
    return list(link_events(message for _, message in parse_messages(data)))


def recorded() -> Iterator[bytes]:
    data = zlib.decompress(base64.b85decode(RECORDED))
    while data:
        size = int.from_bytes(data[:2], "big")
        yield data[2 : 2 + size]
        data = data[2 + size :]


@pytest.mark.parametrize(
    ("flags", "carrier"),
    [(UP | LOWER_UP, True), (UP, False), (LOWER_UP, False), (0, False), (0x11043, True)],
)
def test_carrier_needs_both_flags(flags: int, carrier: bool) -> None:
    assert parse_events(link(7, flags)) == [(7, carrier)]


def test_a_link_that_goes() -> None:
    assert parse_events(link(7, UP | LOWER_UP, DELLINK)) == [(7, False)]


def test_several_messages_in_one_datagram() -> None:
    data = link(1, UP, attributes=b"abc") + message(NEWADDR, b"12345") + link(2, 0)
    assert parse_events(data) == [(1, False), None, (2, False)]


@pytest.mark.parametrize(("table", "events"), [(254, [None]), (255, []), (0, []), (51, [])])
def test_only_routes_of_the_main_table_count(table: int, events: list[None]) -> None:
    body = struct.pack("=BBBBBBBBI", 2, 0, 0, 0, table, 4, 0, 1, 0)
    assert parse_events(message(NEWROUTE, body)) == events


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 15,
        b"\0" * 64,
        message(NEWLINK, b"", length=15),
        message(NEWLINK, b"1234", length=4096),
        message(NEWLINK, b"short"),
    ],
)
def test_what_is_cut_off_or_nonsense_is_no_event(data: bytes) -> None:
    assert parse_events(data) == []


def test_what_a_kernel_sent() -> None:
    events = [event for data in recorded() for event in parse_events(data)]
    links = [event for event in events if event is not None]
    assert events.count(None) == 9
    assert links[:2] == [(2, False), (3, True)]
    assert (2, True) in links
    assert (3, False) in links[4:]
    assert links[-2:] == [(3, False), (2, False)]


def test_any_cut_of_a_recording_is_read_without_an_error() -> None:
    data = next(recorded())
    whole = parse_events(data)
    for end in range(0, len(data), 7):
        assert parse_events(data[:end]) in ([], whole)


async def test_it_listens_and_stops() -> None:
    """A real socket: joining the groups must be allowed to anybody."""
    news = Kernel().listen(lambda: None, LINK_GROUPS)
    assert news is not None and news.read() == ([], False)
    news.close()
