"""The packet filter's ruleset as nft and iptables-save list it: chains, rules, the sets they use.

Rules keep the statements of libnftables-json(5) as they are; what a later release adds is for
verdict.py to leave open. What iptables-nft hides from nft (its `xt` statements) is taken from
iptables-save. Listings beyond MOST_CHARACTERS are not read.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from typing import Any

from ..errors import CommandFailed, UplinkError
from ..model import Family
from ..reasons import because
from ..system import process
from ..values import dataclass
from .iptables import parse_save

Statement = Mapping[str, Any]
Place = tuple[str, str, str]
"""Family (ip, ip6, inet), table, and the name of a chain or a set."""

MOST_CHARACTERS = 8_000_000
LONG_LISTING = 300_000
MOST_SETS = 16
LIST_S = 10.0
_HEAD = re.compile(r'\s*\{\s*"nftables"\s*:\s*\[\s*')
_BETWEEN = re.compile(r"[\s,]*")
_SAVE = {"ip": "iptables-save", "ip6": "ip6tables-save"}


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: what it matches and does, in order."""

    statements: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Chain:
    """One chain; a base chain has a hook, and a policy for what no rule decides."""

    family: str
    table: str
    name: str
    rules: tuple[Rule, ...] = ()
    hook: str = ""
    priority: int = 0
    policy: str = "accept"

    def sees(self, family: Family) -> bool:
        """Whether packets of that family pass through its table."""
        return self.family in ("inet", "ip" if family is Family.IPV4 else "ip6")


@dataclass(frozen=True, slots=True)
class Ruleset:
    """All chains by place, and the elements of those sets that were read; `unread` are the sets
    and maps (with that word) of device names whose elements were left out of the listing.
    """

    chains: Mapping[Place, Chain] = field(default_factory=dict)
    elements: Mapping[Place, Sequence[Any]] = field(default_factory=dict)
    unread: Sequence[tuple[str, Place]] = ()

    @property
    def size(self) -> int:
        return sum(len(chain.rules) for chain in self.chains.values())

    def hooked(self, hook: str, family: Family) -> list[Chain]:
        """The base chains at a hook that see the family, in the kernel's order."""
        found = [c for c in self.chains.values() if c.hook == hook and c.sees(family)]
        return sorted(found, key=lambda chain: chain.priority)


def parse_ruleset(text: str) -> Ruleset:
    """Read `nft -j list ruleset`. Raises CommandFailed for what is no such listing."""
    with process.understood("nft"):
        return _parsed(text)


def _parsed(text: str) -> Ruleset:
    heads: dict[Place, Mapping[str, Any]] = {}
    rules: dict[Place, list[Rule]] = {}
    elements: dict[Place, Sequence[Any]] = {}
    unread: list[tuple[str, Place]] = []
    for kind, row in _rows(text):
        if kind == "chain":
            heads[row["family"], row["table"], row["name"]] = row
        elif kind == "rule":
            place = (row["family"], row["table"], row["chain"])
            if not _is_ours(row) or heads[place].get("hook") == "postrouting":
                rules.setdefault(place, []).append(Rule(tuple(row.get("expr", ()))))
        elif kind in ("set", "map") and "elem" in row:
            elements[row["family"], row["table"], row["name"]] = row["elem"]
        elif kind in ("set", "map") and "ifname" in row.get("type", ()) and _is_wanted(row):
            unread.append((kind, (row["family"], row["table"], row["name"])))
    chains = {
        place: Chain(
            *place,
            tuple(rules.get(place, ())),
            row.get("hook", ""),
            int(row.get("prio", 0)),
            row.get("policy", "accept"),
        )
        for place, row in heads.items()
    }
    return Ruleset(chains, elements, unread)


def _is_ours(row: Mapping[str, Any]) -> bool:
    """Whether it is of our own tables; of them only counts what a packet's addresses become."""
    name: str = row["table"]
    return name.startswith("wgup")


def _is_wanted(row: Mapping[str, Any]) -> bool:
    """Whether a packet's way depends on the set."""
    return not _is_ours(row) or row["name"] == "tunnels"


def _rows(text: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The rows of a listing, one read after another: all at once are ten times their text."""
    head = _HEAD.match(text)
    if head is None:
        raise ValueError("no listing")
    place, decode = head.end(), json.JSONDecoder().raw_decode
    while text[place] != "]":
        entry, place = decode(text, place)
        place = _BETWEEN.match(text, place).end()  # type: ignore[union-attr] # it may be empty
        for kind, row in entry.items():
            if isinstance(row, Mapping) and "family" in row and "table" in row:
                yield kind, row


async def read_ruleset() -> Ruleset:
    """The ruleset in force, without the elements of large sets. Raises UplinkError."""
    listed = await process.run(["nft", "-j", "-t", "list", "ruleset"], timeout_s=LIST_S)
    if len(listed.stdout) > MOST_CHARACTERS:
        raise CommandFailed(because("ruleset_too_large"))
    is_long = len(listed.stdout) > LONG_LISTING  # what takes long must not hold up the probes
    found = (
        await asyncio.to_thread(parse_ruleset, listed.stdout)
        if is_long
        else parse_ruleset(listed.stdout)
    )
    chains, elements = dict(found.chains), dict(found.elements)
    for kind, place in found.unread[:MOST_SETS]:
        argv = ["nft", "-j", "list", kind, *place]
        read = await process.run(argv, timeout_s=LIST_S, check=False)
        if read.returncode == 0:
            elements.update(parse_ruleset(read.stdout).elements)
    for family, table in sorted({(c.family, c.table) for c in chains.values() if _is_hidden(c)}):
        saved = await _read_save(family, table)
        if saved:
            of_table = {p: c for p, c in chains.items() if p[:2] == (family, table)}
            chains.update({p: _with_rules(c, saved.get(c.name)) for p, c in of_table.items()})
    return Ruleset(chains, elements)


def _is_hidden(chain: Chain) -> bool:
    """Whether iptables-nft made a rule of the chain that nft can't show in full."""
    return chain.family in _SAVE and any("xt" in s for r in chain.rules for s in r.statements)


async def _read_save(family: str, table: str) -> Mapping[str, list[tuple[Statement, ...]]]:
    try:
        argv = [_SAVE[family], "-t", table]
        saved = await process.run(argv, timeout_s=LIST_S, check=False)
        is_sound = saved.returncode == 0 and len(saved.stdout) <= MOST_CHARACTERS
        with process.understood("iptables-save"):
            return parse_save(saved.stdout, family) if is_sound else {}
    except UplinkError:
        return {}


def _with_rules(chain: Chain, saved: Sequence[tuple[Statement, ...]] | None) -> Chain:
    """The chain with iptables' view of its rules; its own where iptables doesn't list it."""
    if saved is None or len(saved) != len(chain.rules):
        return chain  # another program added rules that iptables-save leaves out
    rules = tuple(Rule(statements) for statements in saved)
    return Chain(
        chain.family, chain.table, chain.name, rules, chain.hook, chain.priority, chain.policy
    )
