"""Links, addresses, routes and policy rules as rtnetlink has them: parsed, and written back.

Routes and rules keep the attributes that nobody here needs to understand as they came, so that a
copy of one means what the original does (a rule's `uidrange`, a route's metrics). Layouts are those
of linux/rtnetlink.h, linux/fib_rules.h and linux/if_link.h.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import field, replace
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

from ..errors import CommandFailed
from ..model import OUTER_MARK, OWN_PROTOCOLS, DefaultRoute, Family, Link
from ..reasons import because, of_errno
from ..values import dataclass
from . import netlink, nft
from .netlink import Message, attribute, nested, number, parse_attributes, text

T = TypeVar("T")

NEWLINK, DELLINK, GETLINK = 16, 17, 18
NEWADDR, DELADDR, GETADDR = 20, 21, 22
NEWROUTE, DELROUTE, GETROUTE = 24, 25, 26
GETNEIGHBOUR = 30
NEWRULE, DELRULE, GETRULE = 32, 33, 34
# RTMGRP_LINK, IPV4_IFADDR, IPV4_ROUTE, IPV4_RULE, IPV6_IFADDR, IPV6_ROUTE; IPv6's rules: group 19
EVENT_GROUPS = 0x1 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400 | 1 << 18
LINK_GROUPS = EVENT_GROUPS & ~(0x80 | 1 << 18)  # without rules

_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg
_ADDRESS = struct.Struct("=BBBBI")  # struct ifaddrmsg
_ROUTE = struct.Struct("=BBBBBBBBI")  # struct rtmsg
_RULE = struct.Struct("=BBBBBxxBI")  # struct fib_rule_hdr
_NEIGHBOUR = struct.Struct("=BxxxiHBB")  # struct ndmsg
_HOP = struct.Struct("=HBBi")  # struct rtnexthop
_UP = 0x1  # IFF_UP
_UP_WITH_CARRIER = _UP | 0x10000  # and IFF_LOWER_UP

_IFNAME, _MTU, _IFALIAS, _LINKINFO, _GROUP, _INFO_KIND = 3, 4, 20, 18, 27, 1
_DST, _SRC, _IIF, _OIF, _GATEWAY, _PRIORITY, _PREFSRC, _METRICS = 1, 2, 3, 4, 5, 6, 7, 8
_MULTIPATH, _CACHEINFO, _TABLE, _MARK, _VIA, _EXPIRES, _NH_ID = 9, 12, 15, 16, 18, 23, 30
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RULE_IIFNAME, _RULE_GOTO, _RULE_PRIORITY, _RULE_FWMARK, _RULE_TABLE = 3, 4, 6, 10, 15
_RULE_FWMASK, _RULE_OIFNAME, _RULE_PROTOCOL, _RULE_SUPPRESS_LENGTH = 16, 17, 21, 14
_RULE_SRC, _RULE_DPORT = 2, 24
_RULE_NOISE = frozenset({_RULE_PRIORITY, _RULE_TABLE, _RULE_PROTOCOL, _RULE_GOTO, 5, 7, 8, 9, 18})

MAIN, LOCAL = 254, 255
UNICAST, BLACKHOLE, UNREACHABLE, PROHIBIT, THROW = 1, 6, 7, 8, 9
ONLINK = 4  # RTNH_F_ONLINK: a gateway need not be in a connected network
CLONED = 0x200
SCOPE_LINK, SCOPE_GLOBAL = 253, 0
PROTO_KERNEL = 2
TO_TABLE, GOTO = 1, 2
INVERT = 0x2  # FIB_RULE_INVERT
NOT_SUPPRESSED = 0xFFFFFFFF
PPP = 512  # ARPHRD_PPP

_DOMAINS = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}
_FAMILIES = {int(number): family for family, number in _DOMAINS.items()}
_LENGTHS = {Family.IPV4: 4, Family.IPV6: 16}

REMEMBERED = 8192  # routes that are not read anew where a large table is looked at again


@dataclass(frozen=True, slots=True)
class Hop:
    """One next hop: the device's index and a gateway ('' for none), as address text."""

    index: int
    gateway: str = ""
    weight: int = 0
    flags: int = 0
    other: tuple[tuple[int, bytes], ...] = ()


def _made_once() -> Any:
    return field(default=None, init=False, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Route:
    """One route. `destination` and `source` are prefixes ('' where everything matches);
    `is_by_object`: its hops are a nexthop object's.
    """

    family: Family
    table: int
    destination: str = ""
    hops: tuple[Hop, ...] = ()
    metric: int = 0
    kind: int = UNICAST
    protocol: int = 0
    scope: int = SCOPE_GLOBAL
    source: str = ""
    tos: int = 0
    other: tuple[tuple[int, bytes], ...] = ()
    is_by_object: bool = field(default=False, compare=False)
    _place: tuple[object, ...] | None = _made_once()
    _identity: tuple[object, ...] | None = _made_once()

    @property
    def length(self) -> int:
        """Bits of the destination's prefix."""
        return int(self.destination.rpartition("/")[2]) if self.destination else 0

    @property
    def place(self) -> tuple[object, ...]:
        """What two routes that stand in each other's place have in common."""
        if self._place is None:
            metric = self.metric or (1024 if self.family is Family.IPV6 else 0)
            of = self.family.version, self.table, self.destination, self.source, self.tos, metric
            object.__setattr__(self, "_place", of)
            return of
        return self._place

    @property
    def identity(self) -> tuple[object, ...]:
        """What tells a route from every other, whatever the kernel has filled in."""
        if self._identity is None:
            object.__setattr__(self, "_identity", self._identify())
        return self._identity or ()

    def _identify(self) -> tuple[object, ...]:
        hops = () if self.kind != UNICAST else self.hops
        many = len(hops) > 1
        ways = tuple((h.index, h.gateway, h.weight if many else 0, h.other) for h in hops)
        kept = tuple((key, value) for key, value in self.other if key in (_PREFSRC, _METRICS))
        return *self.place, self.kind, ways, kept


@dataclass(frozen=True, slots=True)
class Rule:
    """One policy rule. `selectors` are its attributes as they came, without those named here.

    `lengths` are those of its destination and source prefix and its TOS, from the header.
    """

    family: Family
    priority: int
    table: int = 0
    action: int = TO_TABLE
    selectors: tuple[tuple[int, bytes], ...] = ()
    lengths: tuple[int, int, int] = (0, 0, 0)
    flags: int = 0
    protocol: int = 0
    target: int = 0

    @property
    def is_plain(self) -> bool:
        """Whether it holds for every packet."""
        suppress = _RULE_SUPPRESS_LENGTH
        meaning = [kind for kind, _ in self.selectors if kind != suppress]
        return not meaning and not any(self.lengths) and not self.flags & INVERT

    @property
    def suppressed(self) -> bool:
        """Whether it passes over short prefixes (`suppress_prefixlength`) or a device group."""
        return any(kind in (13, 14) for kind, _ in self.selectors)

    @property
    def input_device(self) -> str:
        """The device of `iif`, '' without one."""
        return _string(dict(self.selectors).get(_RULE_IIFNAME, b""))

    @property
    def output_device(self) -> str:
        """The device of `oif`, '' without one."""
        return _string(dict(self.selectors).get(_RULE_OIFNAME, b""))

    @property
    def source(self) -> str:
        """The prefix of `from`, '' without one."""
        held = dict(self.selectors).get(_RULE_SRC, b"")
        return _prefix(held, self.lengths[1], self.family)

    @property
    def has_ports(self) -> bool:
        return any(kind == _RULE_DPORT for kind, _ in self.selectors)

    @property
    def mark(self) -> tuple[int, int]:
        """`fwmark` and its mask; (0, 0) without one."""
        held = dict(self.selectors)
        if _RULE_FWMARK not in held:
            return 0, 0
        mask = _number(held.get(_RULE_FWMASK, b"\xff\xff\xff\xff"))
        return _number(held[_RULE_FWMARK]), mask


def rule_selectors(
    *, mark: tuple[int, int] | None = None, input_device: str = "", output_device: str = ""
) -> tuple[tuple[int, bytes], ...]:
    """The attributes of a rule of ours, in the order in which the kernel dumps them."""
    found: list[tuple[int, bytes]] = []
    if input_device:
        found.append((_RULE_IIFNAME, input_device.encode() + b"\0"))
    if output_device:
        found.append((_RULE_OIFNAME, output_device.encode() + b"\0"))
    if mark is not None:
        found += [
            (_RULE_FWMARK, struct.pack("=I", mark[0])),
            (_RULE_FWMASK, struct.pack("=I", mark[1])),
        ]
    return tuple(sorted(found))


NO_DEFAULT = ((_RULE_SUPPRESS_LENGTH, bytes(4)),)
"""The attribute by which a rule passes over default routes (`suppress_prefixlength 0`)."""


def with_mark(rule: Rule, mark: int, mask: int) -> Rule | None:
    """The rule for packets that also bear this mark; None where it can't hold for any of them, or
    where no one rule says so (`not`).
    """
    if not mask:
        return rule
    own, own_mask = rule.mark
    if rule.flags & INVERT or (own ^ mark) & own_mask & mask:
        return None
    kept = [each for each in rule.selectors if each[0] not in (_RULE_FWMARK, _RULE_FWMASK)]
    kept += rule_selectors(mark=(own | mark, own_mask | mask))
    return replace(rule, selectors=tuple(sorted(kept)))


class Address(NamedTuple):
    """A global address of a device, with its prefix length; `in_force` unless it is tentative or
    deprecated.
    """

    device: str
    text: str
    in_force: bool = True


def by_device(addresses: Iterable[Address]) -> dict[str, list[str]]:
    """The addresses of each device that has any."""
    found: dict[str, list[str]] = {}
    for address in addresses:
        found.setdefault(address.device, []).append(address.text)
    return found


# --- parsing


def parse_link(message: Message) -> Link | None:
    """A NEWLINK or DELLINK message; None where it is none."""
    if len(message.body) < _LINK.size:
        return None
    family, hardware, index, flags, _ = _LINK.unpack_from(message.body)
    if family != 0:
        return None  # a bridge's own news (AF_BRIDGE) says nothing of the device
    held = dict(parse_attributes(message.body, _LINK.size))
    info = dict(parse_attributes(held.get(_LINKINFO, b"")))
    return Link(
        index=index,
        name=_string(held.get(_IFNAME, b"")),
        group=_number(held.get(_GROUP, b"")),
        alias=_string(held.get(_IFALIAS, b"")),
        carrier=flags & _UP_WITH_CARRIER == _UP_WITH_CARRIER,
        mtu=_number(held.get(_MTU, b"")),
        kind=_string(info.get(_INFO_KIND, b"")),
        hardware=hardware,
    )


def parse_route(message: Message) -> Route | None:
    """A NEWROUTE or DELROUTE message; None for local, broadcast, cloned and foreign ones."""
    return _parse_route(message.body)


@lru_cache(maxsize=REMEMBERED)
def _parse_route(body: bytes) -> Route | None:
    if len(body) < _ROUTE.size:
        return None
    domain, to_bits, from_bits, tos, table, protocol, scope, kind, flags = _ROUTE.unpack_from(body)
    family = _FAMILIES.get(domain)
    if family is None or kind not in (UNICAST, BLACKHOLE, UNREACHABLE, PROHIBIT, THROW):
        return None
    if flags & CLONED:
        return None
    index, gateway, metric, hops = 0, "", 0, None
    destination = source = b""
    is_by_object = False
    other: list[tuple[int, bytes]] = []
    hop_other: list[tuple[int, bytes]] = []
    for key, value in parse_attributes(body, _ROUTE.size):
        if key == _DST:
            destination = value
        elif key == _SRC:
            source = value
        elif key == _OIF:
            index = _number(value)
        elif key == _GATEWAY:
            gateway = _address(value)
        elif key == _PRIORITY:
            metric = _number(value)
        elif key == _TABLE:
            table = _number(value)
        elif key == _MULTIPATH:
            hops = _parse_hops(value)
        elif key == _VIA:
            hop_other.append((key, value))
        elif key == _NH_ID:
            is_by_object = True
        elif key not in (_CACHEINFO, _EXPIRES):
            other.append((key, value))
    if kind != UNICAST:
        hops = ()  # IPv6 shows a refusal as a way by lo
    if hops is None:
        one = Hop(index, gateway, 0, flags & ONLINK, tuple(hop_other))
        hops = (one,) if index else ()
    return Route(
        family=family,
        table=table,
        destination=_prefix(destination, to_bits, family),
        hops=hops,
        metric=metric,
        kind=kind,
        protocol=protocol,
        scope=scope,
        source=_prefix(source, from_bits, family),
        tos=tos,
        other=tuple(sorted(other)),
        is_by_object=is_by_object,
    )


def _parse_hops(data: bytes) -> tuple[Hop, ...]:
    found, offset = [], 0
    while offset + _HOP.size <= len(data):
        length, flags, weight, index = _HOP.unpack_from(data, offset)
        if length < _HOP.size or offset + length > len(data):
            break
        gateway, other = "", []
        for key, value in parse_attributes(data[offset : offset + length], _HOP.size):
            if key == _GATEWAY:
                gateway = _address(value)
            else:
                other.append((key, value))
        found.append(Hop(index, gateway, weight, flags & ONLINK, tuple(other)))
        offset += (length + 3) & ~3
    return tuple(found)


def parse_rule(message: Message) -> Rule | None:
    """A NEWRULE or DELRULE message; None for other families."""
    if len(message.body) < _RULE.size:
        return None
    domain, to_bits, from_bits, tos, table, action, flags = _RULE.unpack_from(message.body)
    family = _FAMILIES.get(domain)
    if family is None:
        return None
    priority = protocol = target = 0
    selectors = []
    for key, value in parse_attributes(message.body, _RULE.size):
        if key == _RULE_PRIORITY:
            priority = _number(value)
        elif key == _RULE_TABLE:
            table = _number(value)
        elif key == _RULE_PROTOCOL:
            protocol = value[0] if value else 0
        elif key == _RULE_GOTO:
            target = _number(value)
        elif key == _RULE_SUPPRESS_LENGTH and _number(value) == NOT_SUPPRESSED:
            continue
        elif key not in _RULE_NOISE:
            selectors.append((key, value))
    return Rule(
        family=family,
        priority=priority,
        table=table,
        action=action,
        selectors=tuple(sorted(selectors)),
        lengths=(to_bits, from_bits, tos),
        flags=flags & INVERT,
        protocol=protocol,
        target=target,
    )


def parse_address(message: Message) -> tuple[int, str, bool] | None:
    """(index, address with its length, whether it is in force) of a global address."""
    if len(message.body) < _ADDRESS.size:
        return None
    domain, bits, flags, scope, index = _ADDRESS.unpack_from(message.body)
    held = dict(parse_attributes(message.body, _ADDRESS.size))
    value = held.get(_IFA_LOCAL) or held.get(_IFA_ADDRESS)
    if domain not in _FAMILIES or value is None or scope != SCOPE_GLOBAL:
        return None
    flags = _number(held[8]) if 8 in held else flags
    return index, f"{_address(value)}/{bits}", not flags & 0x60  # tentative, deprecated


# --- writing


def add_route(route: Route, flags: int = netlink.APPEND) -> Message:
    """The request that adds a route, beside what has its place, or instead (`REPLACE`)."""
    return Message(NEWROUTE, _route_body(route), netlink.CREATE | flags)


def delete_route(route: Route) -> Message:
    return Message(DELROUTE, _route_body(route))


def _route_body(route: Route) -> bytes:
    family = route.family
    table = route.table if route.table < 256 else 252
    head = _ROUTE.pack(
        _DOMAINS[family],
        route.length,
        int(route.source.rpartition("/")[2]) if route.source else 0,
        route.tos,
        table,
        route.protocol,
        route.scope,
        route.kind,
        route.hops[0].flags if len(route.hops) == 1 else 0,
    )
    parts = [head, number(_TABLE, route.table)]
    if route.destination:
        parts.append(attribute(_DST, _packed(route.destination)))
    if route.source:
        parts.append(attribute(_SRC, _packed(route.source)))
    if route.metric:
        parts.append(number(_PRIORITY, route.metric))
    parts += [attribute(key, value) for key, value in route.other]
    if len(route.hops) == 1:
        hop = route.hops[0]
        parts.append(number(_OIF, hop.index))
        if hop.gateway:
            parts.append(attribute(_GATEWAY, _packed(hop.gateway)))
        parts += [attribute(key, value) for key, value in hop.other]
    elif route.hops:
        parts.append(attribute(_MULTIPATH, b"".join(map(_hop_body, route.hops))))
    return b"".join(parts)


def _address_body(index: int, text: str) -> bytes:
    packed = _packed(text)
    domain = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    head = _ADDRESS.pack(domain, int(text.partition("/")[2]), 0, SCOPE_GLOBAL, index)
    return head + attribute(_IFA_LOCAL, packed) + attribute(_IFA_ADDRESS, packed)


def _hop_body(hop: Hop) -> bytes:
    inner = attribute(_GATEWAY, _packed(hop.gateway)) if hop.gateway else b""
    inner += b"".join(attribute(key, value) for key, value in hop.other)
    return _HOP.pack(_HOP.size + len(inner), hop.flags, hop.weight, hop.index) + inner


def add_rule(rule: Rule) -> Message:
    """The request that adds a rule behind those of its preference."""
    return Message(NEWRULE, _rule_body(rule), netlink.CREATE | netlink.EXCL)


def delete_rule(rule: Rule) -> Message:
    """The request that deletes the first rule that is like this one."""
    return Message(DELRULE, _rule_body(rule))


def _rule_body(rule: Rule) -> bytes:
    table = rule.table if rule.table < 256 else 252
    head = _RULE.pack(
        _DOMAINS[rule.family],
        *rule.lengths,
        table if rule.action == TO_TABLE else 0,
        rule.action,
        rule.flags,
    )
    parts = [head, number(_RULE_PRIORITY, rule.priority)]
    parts += [attribute(key, value) for key, value in rule.selectors]
    if rule.protocol:
        parts.append(attribute(_RULE_PROTOCOL, bytes([rule.protocol])))
    if rule.action == TO_TABLE:
        parts.append(number(_RULE_TABLE, rule.table))
    if rule.action == GOTO:
        parts.append(number(_RULE_GOTO, rule.target))
    return b"".join(parts)


# --- reading


class Kernel:
    """The kernel's routing, asked over one socket. Raises CommandFailed where it refuses."""

    def __init__(self) -> None:
        self._netlink = netlink.Netlink(netlink.ROUTE)

    def close(self) -> None:
        self._netlink.close()

    @property
    def port(self) -> int:
        """By which the kernel's news tell our changes from others'; 0 before the first."""
        return self._netlink.port

    def devices(self) -> list[Link]:
        return self._dump(GETLINK, _LINK.pack(0, 0, 0, 0, 0), parse_link)

    def addresses(self) -> list[Address]:
        """Every device's global addresses."""
        names = dict(socket.if_nameindex())
        found = self._dump(GETADDR, _ADDRESS.pack(0, 0, 0, 0, 0), parse_address)
        return [Address(names[n], text, in_force) for n, text, in_force in found if n in names]

    def routes(self, family: Family) -> list[Route]:
        """The routes of all tables but local ones, in the kernel's order."""
        body = _ROUTE.pack(_DOMAINS[family], 0, 0, 0, 0, 0, 0, 0, 0)
        return self._dump(GETROUTE, body, parse_route)

    def destinations(self) -> list[tuple[str, str]]:
        """(device, prefix) of each route but steering's own, of all tables; '' for a refusal."""
        names = dict(socket.if_nameindex())
        routes = [route for family in Family for route in self.routes(family)]
        others = (route for route in routes if route.protocol not in OWN_PROTOCOLS)
        hops = ((hop, route) for route in others for hop in route.hops or (Hop(0),))
        return [(names.get(hop.index, ""), route.destination) for hop, route in hops]

    def default_routes(self, family: Family) -> list[DefaultRoute]:
        """Those of main, lowest metric first; one with several next hops is one entry a hop."""
        names = dict(socket.if_nameindex())
        found = [
            DefaultRoute(family, names[hop.index], hop.gateway, route.metric)
            for route in self.routes(family)
            if route.table == MAIN and not route.length and route.kind == UNICAST
            for hop in route.hops
            if hop.index in names
        ]
        return sorted(found, key=lambda route: route.metric)

    def rules(self, family: Family) -> list[Rule]:
        """The policy rules in the order in which they are asked; none: no such family here."""
        return self._dump(GETRULE, _RULE.pack(_DOMAINS[family], 0, 0, 0, 0, 0, 0), parse_rule)

    def _dump(self, kind: int, body: bytes, parse: Callable[[Message], T | None]) -> list[T]:
        found = map(parse, self._netlink.dump(kind, body))
        return [each for each in found if each is not None]

    def device_towards(self, address: str, mark: int = OUTER_MARK) -> str:
        """The device that packets with that mark leave by; '' where none does."""
        index = self._way_to(address, number(_MARK, mark))
        try:
            return socket.if_indextoname(index) if index else ""
        except OSError:
            return ""  # it is gone by now

    def has_route(self, address: str, source: str, device: str) -> bool:
        """Whether a packet that came in by that device from there would be sent on."""
        came_by = number(_IIF, index_of(device))
        return self._way_to(address, attribute(_SRC, _packed(source)), came_by) != 0

    def _way_to(self, address: str, *more: bytes) -> int:
        """The index of the device that the kernel would send a packet out of, 0 for none."""
        packed = _packed(address)
        family = Family.IPV6 if len(packed) == 16 else Family.IPV4
        head = _ROUTE.pack(_DOMAINS[family], len(packed) * 8, 0, 0, 0, 0, 0, 0, 0)
        try:
            answer = self._netlink.ask(GETROUTE, b"".join((head, attribute(_DST, packed), *more)))
        except CommandFailed:
            return 0
        kind = answer.body[7] if len(answer.body) > 7 else 0
        held = dict(parse_attributes(answer.body, _ROUTE.size))
        return _number(held.get(_OIF, b"")) if kind == UNICAST else 0

    def neighbour(self, device: str, address: str) -> str:
        """The hardware address that a neighbour was seen to have (00:00:5e:..); '' for none."""
        index, wanted = index_of(device), _packed(address)
        for message in self._netlink.dump(GETNEIGHBOUR, _NEIGHBOUR.pack(0, 0, 0, 0, 0)):
            held = dict(parse_attributes(message.body, _NEIGHBOUR.size))
            is_there = held.get(1) == wanted and index == _NEIGHBOUR.unpack_from(message.body)[1]
            if is_there and 2 in held:  # NDA_DST, NDA_LLADDR
                return held[2].hex(":")
        return ""

    def change(self, messages: Sequence[Message]) -> list[int]:
        """Carry out changes in order; the errno of each, 0 for success."""
        return self._netlink.change(messages) if messages else []

    def listen(
        self, on_news: Callable[[], None], groups: int = EVENT_GROUPS
    ) -> netlink.Events | None:
        """A socket that hears the kernel's own news; None where there is none to hear."""
        return netlink.Events(netlink.ROUTE, groups, on_news)

    def listen_to_tables(self, on_news: Callable[[], None]) -> netlink.Events | None:
        """A socket that hears of changes of nftables."""
        return netlink.Events(netlink.NETFILTER, nft.EVENT_GROUPS, on_news)

    def make_device(self, name: str, kind: str) -> None:
        """Make a device of that kind (wireguard, ifb)."""
        info = nested(_LINKINFO, [text(_INFO_KIND, kind)])
        body = _LINK.pack(0, 0, 0, 0, 0) + text(_IFNAME, name) + info
        self._do("not_made", name, Message(NEWLINK, body, netlink.CREATE | netlink.EXCL))

    def set_device(
        self,
        name: str,
        *,
        alias: str = "",
        group: int | None = None,
        mtu: int = 0,
        up: bool = False,
    ) -> None:
        """Change a device in what is given; `mtu` is in bytes."""
        flags = _UP if up else 0
        parts = [_LINK.pack(0, 0, 0, flags, flags), text(_IFNAME, name)]
        parts += [attribute(_IFALIAS, alias.encode())] if alias else []
        parts += [number(_GROUP, group)] if group is not None else []
        parts += [number(_MTU, mtu)] if mtu else []
        self._do("not_set", name, Message(NEWLINK, b"".join(parts)))

    def delete_device(self, name: str) -> None:
        """Delete a device; one that is not there is no error."""
        body = _LINK.pack(0, 0, 0, 0, 0) + text(_IFNAME, name)
        with suppress(CommandFailed):
            self._do("not_set", name, Message(DELLINK, body))

    def set_addresses(self, device: str, wanted: Collection[str]) -> None:
        """Let a device have these global addresses (with prefix lengths) and no others."""
        index, found = index_of(device), by_device(self.addresses()).get(device, ())
        # Deleted first: a network's first address takes the later ones with it when it goes.
        gone = [Message(DELADDR, _address_body(index, a)) for a in found if a not in wanted]
        flags = netlink.CREATE | netlink.REPLACE
        new = [Message(NEWADDR, _address_body(index, a), flags) for a in wanted]
        self._do("addresses_not_set", device, *gone, *new)

    def _do(self, refused: str, name: str, *messages: Message) -> None:
        """Carry out changes; `refused` is the reason of the error where the kernel refuses one."""
        if code := next(filter(None, self.change(messages)), 0):
            raise CommandFailed(because(refused, name, of_errno(code, os.strerror(code))))


def link_events(messages: Iterable[Message]) -> Iterator[tuple[int, bool] | None]:
    """(index, whether it is there and has its carrier) of each change of a link, and None for each
    of addresses or routes (rtnetlink(7)); routes of other tables than main are left out.
    """
    for message in messages:
        if message.kind in (NEWLINK, DELLINK):
            link = parse_link(message)
            if link is not None:
                yield link.index, link.carrier and message.kind == NEWLINK
        elif message.kind not in (NEWROUTE, DELROUTE) or message.body[4:5] == bytes([MAIN]):
            yield None  # rtm_table of struct rtmsg


def filled(hops: Iterable[Hop]) -> tuple[Hop, ...]:
    """Hops that need no connected network for their gateways."""
    return tuple(replace(h, flags=h.flags | ONLINK) if h.gateway else h for h in hops)


def index_of(device: str) -> int:
    """The device's index, 0 where it is missing."""
    with suppress(OSError):
        return socket.if_nametoindex(device)
    return 0


def _string(value: bytes) -> str:
    return value.rstrip(b"\0").decode("utf-8", "replace")


def _number(value: bytes) -> int:
    return int.from_bytes(value[:4], sys.byteorder)


def _address(value: bytes) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        return ""


def _prefix(value: bytes, bits: int, family: Family) -> str:
    if not bits:
        return ""
    return f"{_address(value.ljust(_LENGTHS[family], bytes(1)))}/{bits}"


def _packed(text: str) -> bytes:
    return ipaddress.ip_address(text.partition("/")[0]).packed
