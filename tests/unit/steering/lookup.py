"""What a kernel answers to a packet: policy rules and tables as net/core/fib_rules.c asks them."""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rpcd_wireguard_uplink.system.rtnetlink import GOTO, INVERT, TO_TABLE, UNICAST, Route, Rule

REFUSED, NO_ROUTE = -1, 0


@dataclass(frozen=True)
class Packet:
    to: str
    source: str = ""
    mark: int = 0
    iif: str = ""
    oif: str = ""
    oif_index: int = 0
    vrf: int = 0  # the table of the VRF that its device is in


L3MDEV = 19  # linux/fib_rules.h: the rule asks the table of the packet's VRF


def device_of(packet: Packet, rules: Sequence[Rule], routes: Iterable[Route]) -> int:
    """The index of the device it leaves by, or that it is refused or has no route."""
    tables: dict[int, list[Route]] = {}
    for route in routes:
        tables.setdefault(route.table, []).append(route)
    rules = sorted(rules, key=lambda rule: rule.priority)
    at = 0
    while at < len(rules):
        rule = rules[at]
        at += 1
        if not _matches(rule, packet):
            continue
        if rule.action == GOTO:
            assert rule.target > rule.priority, "backwards jumps are prohibited"
            landing = [n for n, each in enumerate(rules) if each.priority == rule.target]
            at = landing[0] if landing else at
        elif rule.action == TO_TABLE:
            table = packet.vrf if _is_for_vrfs(rule) else rule.table
            found = _best(packet, tables.get(table, ()))
            if found is None or found.length <= _suppressed(rule):
                continue
            return found.hops[0].index if found.kind == UNICAST else REFUSED
        else:
            return REFUSED
    return NO_ROUTE


def _suppressed(rule: Rule) -> int:
    held = dict(rule.selectors)
    return int.from_bytes(held[14], sys.byteorder) if 14 in held else -1


def _is_for_vrfs(rule: Rule) -> bool:
    return L3MDEV in dict(rule.selectors)


def _matches(rule: Rule, packet: Packet) -> bool:
    mark, mask = rule.mark
    fits = packet.mark & mask == mark and (bool(packet.vrf) or not _is_for_vrfs(rule))
    fits = fits and rule.input_device in ("", packet.iif)
    fits = fits and rule.output_device in ("", packet.oif)
    if rule.source:
        network = ipaddress.ip_network(rule.source)
        fits = fits and bool(packet.source) and ipaddress.ip_address(packet.source) in network
    return fits is not bool(rule.flags & INVERT)


def _best(packet: Packet, routes: Iterable[Route]) -> Route | None:
    address = ipaddress.ip_address(packet.to)
    able = [
        r
        for r in routes
        if (not r.destination or address in ipaddress.ip_network(r.destination))
        and (not packet.oif_index or not r.hops or r.hops[0].index == packet.oif_index)
    ]
    return max(able, key=lambda r: (r.length, -r.metric), default=None)
