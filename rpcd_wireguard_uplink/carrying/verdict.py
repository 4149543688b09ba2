"""What a hook's filter chains do with a packet, found out from the ruleset without sending one.

The packet is an ordinary one: TCP to port 443 of a public address that no rule names. What can't
be known from the ruleset (limits, extensions of iptables, marks of others) makes a match that may
or may not hold; the verdict is UNKNOWN where that matters. As in the kernel, an accept ends its
base chain only, a drop ends all (nf_tables_core.c, nft_do_chain).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping, Sequence
from dataclasses import field, replace
from enum import Enum
from socket import IPPROTO_TCP
from typing import Any

from ..model import Family
from ..values import dataclass
from .iptables import HARMLESS
from .ruleset import Chain, Rule, Ruleset

MOST_STEPS = 20_000
MOST_JUMPS = 16  # NFT_JUMP_STACK_SIZE, nf_tables.h
ORDINARY = {Family.IPV4: "100.0.0.1", Family.IPV6: "2600::1"}
PORT, OWN_PORT = 443, 50_000

_UNKNOWN = object()
_ABSENT = object()  # no such field in this packet: the kernel ends the rule, whatever the operator
_EFFECTS = frozenset(
    {
        *("counter", "log", "comment", "quota", "last", "flow", "notrack", "set", "map", "meter"),
        *("ct helper", "ct timeout", "ct expectation", "secmark", "synproxy", "ct count"),
    }
)
_UNSURE_EFFECTS = frozenset({"quota", "ct count", "synproxy", "meter"})
_PLAIN = HARMLESS | {"comment"}  # extensions of iptables that match all and decide nothing


class Verdict(Enum):
    """What becomes of the packet."""

    ACCEPT = "accept"
    DROP = "drop"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Packet:
    """A forwarded packet: a connection's first, or (`is_reply`) an answer to one.

    `source` is an address of the LAN's host, '' where it is not known.
    """

    family: Family
    iif: str
    oif: str
    source: str = ""
    is_reply: bool = False
    mark: int | None = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """A verdict, the base chain it is of, and the chain that gave it; no rule: its policy."""

    verdict: Verdict
    base: Chain | None = None
    chain: Chain | None = None
    rule: Rule | None = None


def judge_packet(ruleset: Ruleset, packet: Packet, hook: str, ours: str) -> Outcome:
    """What all base chains at the hook do together; tables whose names begin with `ours` are left
    out. The outcome of a drop names who drops it.
    """
    result = Outcome(Verdict.ACCEPT)
    for base in ruleset.hooked(hook, packet.family):
        if base.table.startswith(ours):
            continue
        walk = _Walk(ruleset, base, packet)
        found = walk.run()
        packet = replace(packet, mark=walk.packet.mark)
        if found.verdict is Verdict.DROP:
            return found
        if found.verdict is Verdict.UNKNOWN:
            result = found
    return result


def meets(ruleset: Ruleset, packet: Packet, hook: str, kinds: Collection[str]) -> bool:
    """Whether the packet may meet a statement of these kinds at the hook, in anybody's chains."""
    for base in ruleset.hooked(hook, packet.family):
        walk = _Walk(ruleset, base, packet)
        walk.run()
        if not walk.met.isdisjoint(kinds):
            return True
    return False


@dataclass(slots=True)
class _Walk:
    """One packet's way through one base chain. `_found` are the verdicts that it may meet, `met`
    the kinds of statements that decided on it.
    """

    ruleset: Ruleset
    base: Chain
    packet: Packet
    met: set[str] = field(default_factory=set)
    _found: list[Outcome] = field(default_factory=list)
    _steps: int = 0

    def run(self) -> Outcome:
        if self._goes_on(self.base, 0):
            policy = Verdict.DROP if self.base.policy == "drop" else Verdict.ACCEPT
            self._found.append(Outcome(policy, self.base, self.base))
        verdicts = {outcome.verdict for outcome in self._found}
        if len(verdicts) == 1:
            return self._found[-1]
        return Outcome(Verdict.UNKNOWN, self.base, self.base)

    def _goes_on(self, chain: Chain, depth: int) -> bool:
        """Walk the chain; whether the packet may come out at its end."""
        for rule in chain.rules:
            self._steps += 1
            if self._steps > MOST_STEPS or depth > MOST_JUMPS:
                self._found.append(Outcome(Verdict.UNKNOWN, self.base, chain, rule))
                return False
            try:
                ended = self._apply(chain, rule, depth)
            except (AttributeError, KeyError, TypeError, ValueError):  # of a later nft's shape
                self._found.append(Outcome(Verdict.UNKNOWN, self.base, chain, rule))
                continue
            if ended is not None:
                return ended
        return True

    def _apply(self, chain: Chain, rule: Rule, depth: int) -> bool | None:
        """Apply a rule: None where the chain's next rule follows in any case, else whether the
        packet may leave this chain at its end.
        """
        is_sure = True
        for statement in rule.statements:
            kind, body = _only(statement)
            if kind == "match":
                holds = self._holds(body, chain)
                if holds is False:
                    return None
                is_sure = is_sure and holds is True
            elif kind == "mangle":
                self._mangle(body, is_sure)
            elif kind == "vmap":
                return self._vmap(body, chain, rule, depth, is_sure)
            elif kind in _EFFECTS:
                is_sure = is_sure and kind not in _UNSURE_EFFECTS
            elif kind == "limit":
                is_sure = False
            elif kind == "xt":
                name = body.get("name", "") if isinstance(body, Mapping) else ""
                if name == "REJECT":
                    return self._decide("reject", None, chain, rule, depth, is_sure)
                if name in _PLAIN:
                    continue
                is_sure = False
                if not isinstance(body, Mapping) or body.get("type") == "target":
                    self._found.append(Outcome(Verdict.UNKNOWN, self.base, chain, rule))
            else:
                return self._decide(kind, body, chain, rule, depth, is_sure)
        return None

    def _decide(
        self, kind: str, body: Any, chain: Chain, rule: Rule, depth: int, is_sure: bool
    ) -> bool | None:
        self.met.add(kind)
        if kind in ("continue", "tproxy", "dup"):
            return None
        if kind == "return":
            return True if is_sure else None
        if kind in ("jump", "goto"):
            target = self.ruleset.chains.get((chain.family, chain.table, _target_of(body)))
            goes_on = target is None or self._goes_on(target, depth + 1)
            if not is_sure or (goes_on and kind == "jump"):
                return None
            return goes_on
        known = {"accept": Verdict.ACCEPT, "drop": Verdict.DROP, "reject": Verdict.DROP}
        self._found.append(Outcome(known.get(kind, Verdict.UNKNOWN), self.base, chain, rule))
        return False if is_sure else None

    def _vmap(
        self, body: Mapping[str, Any], chain: Chain, rule: Rule, depth: int, is_sure: bool
    ) -> bool | None:
        key = self._value(body.get("key"))
        if key is _ABSENT:
            return None
        entries = self._elements(body.get("data"), chain)
        if entries is None:
            entries, is_sure = [], False
            self._found.append(Outcome(Verdict.UNKNOWN, self.base, chain, rule))
        for entry in entries:
            if not isinstance(entry, Sequence) or len(entry) != 2:
                continue
            holds = _is_in(key, _bare(entry[0]))
            if holds is False:
                continue
            verdict = entry[1].get("elem", {}).get("val", entry[1])
            kind, inner = _only(verdict)
            sure = is_sure and holds is True
            ended = self._decide(kind, inner, chain, rule, depth, sure)
            if sure:
                return ended
        return None

    def _mangle(self, body: Mapping[str, Any], is_sure: bool) -> None:
        if body.get("key") != {"meta": {"key": "mark"}}:
            return
        value = self._value(body.get("value"))
        is_known = is_sure and isinstance(value, int)
        self.packet = replace(self.packet, mark=value if is_known else None)

    def _holds(self, body: Mapping[str, Any], chain: Chain) -> bool | None:
        value, right = self._value(body.get("left")), body.get("right")
        if value is _ABSENT:
            return False
        operator = body.get("op", "==")
        if isinstance(right, str) and right.startswith("@"):
            elements = self._elements(right, chain)
            right = {"set": elements} if elements is not None else None
        if right is None:
            return None
        is_exact = isinstance(value, frozenset) and operator in ("==", "!=")
        holds = _is_exactly(value, right) if is_exact else _is_in(value, right)
        if operator in ("==", "in"):
            return holds
        if operator in ("!=", "!"):
            return None if holds is None else not holds
        return None  # <, >, <=, >=

    def _elements(self, data: Any, chain: Chain) -> Sequence[Any] | None:
        """The elements of a set or map, named or not; None where they were not read."""
        if isinstance(data, str):
            return self.ruleset.elements.get((chain.family, chain.table, data.removeprefix("@")))
        if isinstance(data, Mapping):
            found = data.get("set")
            return found if isinstance(found, list) else None
        return None

    def _value(self, left: Any) -> Any:
        """What an expression gives for this packet: a value, _ABSENT or _UNKNOWN."""
        if not isinstance(left, Mapping):
            return left
        kind, body = _only(left)
        if kind == "meta":
            return self._meta(body["key"])
        if kind == "payload":
            return self._payload(body.get("protocol", ""), body.get("field", ""))
        if kind == "ct":
            return self._connection(body)
        if kind == "fib":
            is_type = body.get("result") == "type" and "daddr" in body.get("flags", ())
            return "unicast" if is_type else _UNKNOWN
        if kind == "concat":
            return tuple(self._value(part) for part in body)
        if kind in ("&", "|", "^") and isinstance(body, list) and len(body) == 2:
            return _combined(kind, self._value(body[0]), body[1])
        return _UNKNOWN

    def _meta(self, key: str) -> Any:
        packet = self.packet
        known: Mapping[str, Any] = {
            "iif": packet.iif,
            "iifname": packet.iif,
            "oif": packet.oif,
            "oifname": packet.oif,
            "nfproto": packet.family.value,
            "protocol": "ip" if packet.family is Family.IPV4 else "ip6",
            "l4proto": "tcp",
            "mark": _UNKNOWN if packet.mark is None else packet.mark,
            "pkttype": "host",
        }
        return known.get(key, _UNKNOWN)

    def _payload(self, protocol: str, name: str) -> Any:
        packet = self.packet
        if protocol in ("ip", "ip6"):
            if (protocol == "ip") is not (packet.family is Family.IPV4):
                return _ABSENT
            far, near = ORDINARY[packet.family], packet.source or _UNKNOWN
            ends = (far, near) if packet.is_reply else (near, far)
            known = {"saddr": ends[0], "daddr": ends[1], "protocol": "tcp", "nexthdr": "tcp"}
            return known.get(name, _UNKNOWN)
        if protocol in ("tcp", "th"):
            ports = (PORT, OWN_PORT) if packet.is_reply else (OWN_PORT, PORT)
            flags = frozenset({"syn", "ack"} if packet.is_reply else {"syn"})
            return {"sport": ports[0], "dport": ports[1], "flags": flags}.get(name, _UNKNOWN)
        if protocol in ("udp", "udplite", "icmp", "icmpv6", "sctp", "dccp", "esp", "ah", "igmp"):
            return _ABSENT
        return _UNKNOWN

    def _connection(self, body: Mapping[str, Any]) -> Any:
        is_reply = self.packet.is_reply
        if body.get("key") == "state":
            return "established" if is_reply else "new"
        if body.get("key") == "status":
            return frozenset({"seen-reply", "confirmed", "snat"} if is_reply else ())
        if body.get("key") == "direction":
            return "reply" if is_reply else "original"
        return _UNKNOWN


def _only(statement: Mapping[str, Any]) -> tuple[str, Any]:
    """The one member that a statement or an expression has: its kind, and the rest."""
    return next(iter(statement.items()), ("", None))


def _target_of(body: Any) -> str:
    return str(body.get("target", "")) if isinstance(body, Mapping) else ""


def _combined(operator: str, value: Any, mask: Any) -> Any:
    if isinstance(value, frozenset) and operator == "&":
        return value & frozenset([mask] if isinstance(mask, str) else mask)
    if not isinstance(value, int) or not isinstance(mask, int):
        return _ABSENT if value is _ABSENT else _UNKNOWN
    return value & mask if operator == "&" else value | mask if operator == "|" else value ^ mask


def _bare(element: Any) -> Any:
    """An element without its timeout, counter or comment."""
    if isinstance(element, Mapping) and "elem" in element:
        return element["elem"].get("val")
    return element


def _is_in(value: Any, right: Any) -> bool | None:
    """Whether the value is what the right side says; None where that is not known."""
    if isinstance(right, Mapping) and "set" in right:
        members = right["set"] if isinstance(right["set"], list) else [right["set"]]
        found = [_is_in(value, _bare(member)) for member in members]
        return True if True in found else None if None in found else False
    if isinstance(right, Mapping) and "|" in right:
        right = right["|"]
    if value is _UNKNOWN:
        return True if right == "*" else None
    if isinstance(value, tuple):
        parts = right.get("concat") if isinstance(right, Mapping) else None
        if not isinstance(parts, list) or len(parts) != len(value):
            return None
        each = [_is_in(mine, part) for mine, part in zip(value, parts, strict=True)]
        return False if False in each else None if None in each else True
    if isinstance(value, frozenset):
        if isinstance(right, str):
            return right in value
        return bool(value & frozenset(right)) if isinstance(right, list) else None
    if isinstance(right, list):  # alternatives: ct state established,related
        return value in right
    if isinstance(right, Mapping):
        return _is_within(value, right)
    if isinstance(value, str) and isinstance(right, str):
        return _is_same_text(value, right)
    if isinstance(value, int) and isinstance(right, (int, str)):
        number = _number(right)
        return None if number is None else value == number
    if isinstance(value, str) and isinstance(right, int):
        # nft lists protocols by number where there is no /etc/protocols.
        return value == "tcp" and right == IPPROTO_TCP
    return None


def _is_exactly(flags: frozenset[str], right: Any) -> bool | None:
    """Whether exactly these flags are set."""
    if isinstance(right, Mapping) and "|" in right:
        right = right["|"]
    if isinstance(right, int):
        return not flags if right == 0 else None
    if isinstance(right, (str, list)):
        return flags == frozenset([right] if isinstance(right, str) else right)
    return None


def _is_same_text(value: str, right: str) -> bool:
    if right.endswith("*"):
        return value.startswith(right[:-1])
    if value == right:
        return True
    if ":" in value and ":" in right:
        with_value = _address(value)
        return with_value is not None and with_value == _address(right)
    return False


def _is_within(value: Any, right: Mapping[str, Any]) -> bool | None:
    if "prefix" in right:
        address = _address(value)
        try:
            body = right["prefix"]
            network = ipaddress.ip_network(f"{body['addr']}/{body['len']}", strict=False)
        except (ValueError, KeyError, TypeError):
            return None
        return None if address is None else address in network
    if "range" in right and len(right["range"]) == 2:
        low, high = right["range"]
        if isinstance(value, int) and isinstance(low, int) and isinstance(high, int):
            return low <= value <= high
        ends = [_address(low), _address(value), _address(high)]
        keys = [(end.version, int(end)) for end in ends if end is not None]
        return keys[0] <= keys[1] <= keys[2] if len(keys) == 3 else None
    return None


def _address(text: Any) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text) if isinstance(text, str) else None
    except ValueError:
        return None


def _number(text: int | str) -> int | None:
    if isinstance(text, int):
        return text
    try:
        return int(text, 0)
    except ValueError:
        return None
