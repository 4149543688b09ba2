"""Netfilter: scripts by the `nft` command; sets, news and tracked connections over netlink.

Numbers are those of linux/netfilter/nf_tables.h; what the kernel sends is in network order.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Iterable, Iterator, Mapping

from ..errors import CommandFailed, UplinkError
from ..events import Event
from ..model import Family
from ..reasons import because, of_errno
from ..values import dataclass
from . import process
from .netlink import NETFILTER, Message, Netlink, attribute, network_number, parse_attributes, text

EVENT_GROUPS = 1 << 6  # NFNLGRP_NFTABLES
_DELTABLE = 10 << 8 | 2  # NFNL_SUBSYS_NFTABLES, NFT_MSG_DELTABLE
_NEWGEN = 10 << 8 | 15
_CHANGE_CONNECTION = 1 << 8  # IPCTNL_MSG_CT_NEW, of one that is there
_GET_CONNECTIONS = 1 << 8 | 1
_DELETE_CONNECTIONS = 1 << 8 | 2  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE
_CONNTRACK = struct.Struct("!BBH")  # struct nfgenmsg; version 1 has the family count for a flush
_TUPLE, _STATUS, _MARK, _ZONE, _MARK_MASK = 1, 3, 8, 18, 21
_SEEN_REPLY = 1 << 1  # enum ip_conntrack_status
MOST_LOOKED_AT = 2000  # each takes some 0.01 ms here, and the event loop waits
_DOMAINS = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}
_TABLE = 1  # the attribute that names the table, whatever the message is about
_GETSETELEM = 10 << 8 | 13  # NFNL_SUBSYS_NFTABLES, NFT_MSG_GETSETELEM
_GETRULE = 10 << 8 | 7
_RULE_CHANGES = (10 << 8 | 6, 10 << 8 | 8, _DELTABLE)  # NFT_MSG_NEWRULE, NFT_MSG_DELRULE
_RULE_TABLE, _RULE_CHAIN, _RULE_EXPRESSIONS = 1, 2, 4
_CT_KEY, _CT_MARK = 2, 3
_XT_NAME, _XT_INFO = 1, 3
_INET = struct.pack("=BBH", 1, 0, 0)  # struct nfgenmsg: NFPROTO_INET
_ANY = struct.pack("=BBH", 0, 0, 0)
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS = 1, 2, 3
_LIST_ELEM = 1
_KEY, _EXPIRATION, _EXPR, _EXPRESSIONS = 1, 5, 7, 11
_DATA_VALUE = 1
_EXPR_NAME, _EXPR_DATA = 1, 2
_COUNTER_PACKETS = 2


@dataclass(frozen=True, slots=True)
class TableDeleted(Event):
    """Somebody has deleted a table; with '' perhaps any."""

    name: str


@dataclass(frozen=True, slots=True)
class OthersChanged(Event):
    """The packet filter was changed in another table than ours."""


async def run_script(script: str) -> None:
    """Carry out nft commands as one transaction. Raises CommandFailed where nft refuses."""
    await process.run_silent(["nft", "-f", "-"], stdin=script)


async def delete_table(family: str, name: str) -> None:
    """Delete a table; one that is not there is no error."""
    await process.run(["nft", "delete", "table", family, name], check=False)


def can_name(device: str) -> bool:
    """Whether nft can be told of a device: it has no way to write a quotation mark in a name, nor a
    backslash before a star at its end (xstrunescape, utils.c); and what is no UTF-8 was not read.
    """
    has_both = "\\" in device and device.endswith("*")
    return not (has_both or '"' in device or "\ufffd" in device)


def names_text(devices: Iterable[str]) -> str:
    """These devices as elements of a set, without those that nft can't be told of."""
    return ", ".join(map(name_text, filter(can_name, devices)))


def name_text(device: str) -> str:
    """A device as nft reads it: a star at the end would stand for any end."""
    return f'"{device[:-1]}\\*"' if device.endswith("*") else f'"{device}"'


async def read_tables() -> set[str]:
    """The names of the inet tables. Raises CommandFailed where nft does not print such a list."""
    return parse_tables((await process.run(["nft", "list", "tables", "inet"])).stdout)


def parse_tables(text: str) -> set[str]:
    """The names in a list of inet tables. Raises CommandFailed where it is none."""
    with process.understood("nft"):
        rows = [line.split() for line in text.splitlines()]
        if any(row[:2] != ["table", "inet"] for row in rows):
            raise ValueError("a row that is no table")
        return {row[2] for row in rows}


def deleted_tables(messages: Iterable[Message]) -> list[str]:
    return [_table_of(message) for message in messages if message.kind == _DELTABLE]


def changes_others(messages: Iterable[Message], ours: str) -> bool:
    """Whether one of these events is about a table whose name does not begin with `ours`."""
    return any(m.kind != _NEWGEN and not _table_of(m).startswith(ours) for m in messages)


def changes_others_rules(messages: Iterable[Message], ours: str) -> bool:
    """Whether one of these events is about rules of a table whose name does not begin so."""
    return any(m.kind in _RULE_CHANGES and not _table_of(m).startswith(ours) for m in messages)


def uses_connection_marks(rule: Message, bits: int) -> bool:
    """Whether a rule looks at connection marks, or changes them; where iptables made it, whether
    that can be these bits.
    """
    found = dict(parse_attributes(rule.body, len(_INET))).get(_RULE_EXPRESSIONS, b"")
    for _, expression in parse_attributes(found):
        parts = dict(parse_attributes(expression))
        name = parts.get(_EXPR_NAME, b"").rstrip(b"\0")
        data = dict(parse_attributes(parts.get(_EXPR_DATA, b"")))
        if name == b"ct" and _number(data.get(_CT_KEY, b"")) == _CT_MARK:
            return True
        if name == b"target" and data.get(_XT_NAME, b"").rstrip(b"\0") == b"CONNMARK":
            # struct xt_connmark_tginfo1: ctmark, ctmask
            mask = data.get(_XT_INFO, b"")[4:8]
            return len(mask) < 4 or bool(int.from_bytes(mask, sys.byteorder) & bits)
    return False


def _table_of(message: Message) -> str:
    found = dict(parse_attributes(message.body, len(_INET))).get(_TABLE, b"")
    return found.rstrip(b"\0").decode(errors="replace")


@dataclass(frozen=True, slots=True)
class Element:
    """One element: its key as the kernel has it, its counter, and in how many ms it lapses."""

    key: bytes
    packets: int = 0
    left_ms: int = 0

    @property
    def text(self) -> str:
        """The key of a set of device names."""
        return self.key.rstrip(b"\0").decode(errors="replace")


class TableReader:
    """Reads sets of one inet table, and counts rules, over a socket that stays open."""

    def __init__(self, table: str) -> None:
        self._table = table
        self._netlink = Netlink(NETFILTER)

    def read(self, name: str) -> list[Element]:
        """The elements of a set. Raises UplinkError where the kernel has no such set."""
        body = _INET + text(_LIST_TABLE, self._table) + text(_LIST_SET, name)
        messages = self._netlink.dump(_GETSETELEM, body)
        return [each for message in messages for each in parse_elements(message.body)]

    def count_rules(self, chain: str) -> int:
        """How many rules a chain has; 0 where there is none such."""
        body = _INET + text(_RULE_TABLE, self._table) + text(_RULE_CHAIN, chain)
        try:
            return len(self._netlink.dump(_GETRULE, body))
        except UplinkError:
            return 0

    def others_use_connection_marks(self, bits: int) -> bool:
        """Whether rules of other tables do, as far as can be told."""
        try:
            rules = self._netlink.dump(_GETRULE, _ANY)
        except UplinkError:
            return True
        theirs = (rule for rule in rules if not _table_of(rule).startswith(self._table))
        return any(uses_connection_marks(rule, bits) for rule in theirs)

    def packets(self, name: str) -> dict[str, int]:
        """Packets counted by each element of a set of device names; {} where there is none such."""
        try:
            return {each.text: each.packets for each in self.read(name)}
        except UplinkError:
            return {}


def parse_elements(body: bytes) -> Iterator[Element]:
    """The elements of one message of a dump; what is cut off is left out."""
    for kind, value in parse_attributes(body, len(_INET)):
        if kind == _LIST_ELEMENTS:
            for _, element in parse_attributes(value):
                found = dict(parse_attributes(element))
                key = dict(parse_attributes(found.get(_KEY, b""))).get(_DATA_VALUE, b"")
                expr = found.get(_EXPR, b"")
                for _, listed in parse_attributes(found.get(_EXPRESSIONS, b"")):
                    expr = expr or listed
                yield Element(key, _packets(expr), _number(found.get(_EXPIRATION, b"")))


def _packets(expr: bytes) -> int:
    found = dict(parse_attributes(expr))
    if found.get(_EXPR_NAME, b"").rstrip(b"\0") != b"counter":
        return 0
    data = dict(parse_attributes(found.get(_EXPR_DATA, b"")))
    return _number(data.get(_COUNTER_PACKETS, b""))


def _number(value: bytes) -> int:
    return int.from_bytes(value, "big")


def _which(connection: Mapping[int, bytes]) -> bytes:
    """What tells one connection from all others."""
    return b"".join(attribute(k, connection[k]) for k in (_TUPLE, _ZONE) if k in connection)


class ConnectionTracking:
    """The kernel's table of connections. Raises CommandFailed where it refuses.

    It compares mark and mask itself (CTA_MARK, CTA_MARK_MASK; ctnetlink_flush_conntrack).
    """

    def __init__(self) -> None:
        self._netlink = Netlink(NETFILTER)

    def close(self) -> None:
        self._netlink.close()

    def has_marked(self, family: Family, mark: int, mask: int) -> bool:
        """Whether the family has connections whose mark is that."""
        return bool(self._marked(family, mark, mask))

    def _marked(self, family: Family, mark: int, mask: int) -> list[Message]:
        body = _CONNTRACK.pack(_DOMAINS[family], 0, 0)
        body += network_number(_MARK, mark) + network_number(_MARK_MASK, mask)
        return self._netlink.dump(_GET_CONNECTIONS, body)

    def delete_unanswered(self, family: Family, mark: int, mask: int) -> bool:
        """Delete those of the connections with that mark that had no answer, if they are not too
        many (a scan); whether others are left.
        """
        head, gone = _CONNTRACK.pack(_DOMAINS[family], 0, 0), []
        for message in (marked := self._marked(family, mark, mask))[:MOST_LOOKED_AT]:
            found = dict(parse_attributes(message.body, len(head)))
            if _TUPLE in found and not _number(found.get(_STATUS, b"")) & _SEEN_REPLY:
                gone.append(Message(_DELETE_CONNECTIONS, head + _which(found)))
        self._netlink.change(gone)  # some have ended meanwhile
        return len(gone) < len(marked)

    def clear_bits(self, bits: int) -> None:
        """Take these bits out of all connections' marks, and leave the rest of each."""
        for family, domain in _DOMAINS.items():
            head = _CONNTRACK.pack(domain, 0, 0)
            cleared = network_number(_MARK, 0) + network_number(_MARK_MASK, bits)
            changes = []
            for message in self._netlink.dump(_GET_CONNECTIONS, head):
                found = dict(parse_attributes(message.body, len(head)))
                if _number(found.get(_MARK, b"")) & bits:
                    changes.append(Message(_CHANGE_CONNECTION, head + _which(found) + cleared))
            errors = {*self._netlink.change(changes)} - {0, errno.ENOENT}  # some ended meanwhile
            if errors:
                told = of_errno(code := min(errors), os.strerror(code))
                raise CommandFailed(because("marks_stay", family.shown, told))

    def delete_marked(self, family: Family, mark: int, mask: int) -> None:
        """Delete the family's connections whose mark is that; none at all is no error."""
        body = _CONNTRACK.pack(_DOMAINS[family], 1, 0)
        body += network_number(_MARK, mark) + network_number(_MARK_MASK, mask)
        error = self._netlink.change([Message(_DELETE_CONNECTIONS, body)])[0]
        if error not in (0, errno.ENOENT):
            raise CommandFailed(because("connections_stay", of_errno(error, os.strerror(error))))
