"""iptables-save's text as the statements that nft's JSON has, as far as both can say the same.

An option that is not known here makes a match that may or may not hold (`UNKNOWN`), never a wrong
one. Only what decides on forwarded packets is translated (iptables-extensions(8)).
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

Statement = Mapping[str, Any]

UNKNOWN: Statement = {"xt": {"type": "match", "name": ""}}
_IGNORED = {"--comment": 1, "-c": 2}  # options that neither match nor decide, and their values
_DEVICES = {"-i": "iifname", "-o": "oifname"}
_PORTS = {"--dport": "dport", "--dports": "dport", "--sport": "sport", "--sports": "sport"}
_VERDICTS = {"ACCEPT": "accept", "DROP": "drop", "REJECT": "reject", "RETURN": "return"}
HARMLESS = frozenset(
    {
        *("LOG", "NFLOG", "ULOG", "TCPMSS", "CLASSIFY", "TRACE", "DSCP", "TOS", "TTL", "HL"),
        *("CHECKSUM", "AUDIT", "SET", "CT", "ECN", "LED", "RATEEST", "CONNSECMARK", "SECMARK"),
    }
)


def parse_save(text: str, family: str) -> dict[str, list[tuple[Statement, ...]]]:
    """The rules of each chain of one table; `family` is ip or ip6."""
    found: dict[str, list[tuple[Statement, ...]]] = {}
    for line in text.splitlines():
        if line.startswith(":"):
            found.setdefault(line[1:].split(" ", 1)[0], [])
        elif line.startswith("-A "):
            try:
                words = shlex.split(line)
            except ValueError:
                words = ["-A", line.split(" ")[1], "--unreadable"]
            found.setdefault(words[1], []).append(tuple(_statements(words[2:], family)))
    return found


def _statements(words: list[str], family: str) -> Iterator[Statement]:
    """Matches first, then what is done; all words behind the target are its own options."""
    protocol, place = "", 0
    while place < len(words):
        negated = words[place] == "!"
        place += negated
        word = words[place] if place < len(words) else "!"
        value = words[place + 1] if place + 1 < len(words) else ""
        if word in ("-j", "-g"):
            yield _target(word, value)
            return
        place += 2
        operator = "!=" if negated else "=="
        if word in _IGNORED:
            place += _IGNORED[word] - 1
        elif word == "-m":
            continue  # its options say what it matches
        elif word in _DEVICES:
            name = value[:-1] + "*" if value.endswith("+") else value
            yield _match(operator, {"meta": {"key": _DEVICES[word]}}, name)
        elif word in ("-s", "-d"):
            name = "saddr" if word == "-s" else "daddr"
            yield _match(operator, _payload(family, name), _prefix(value))
        elif word == "-p":
            protocol = value
            known = "icmpv6" if value in ("ipv6-icmp", "icmpv6") else value
            yield _match(operator, {"meta": {"key": "l4proto"}}, known)
        elif word in _PORTS and protocol:
            right = {"set": [_ports(part) for part in value.split(",")]}
            yield _match(operator, _payload(protocol, _PORTS[word]), right)
        elif word in ("--ctstate", "--state"):
            states = value.lower().split(",")
            known_states = {"new", "established", "related", "invalid", "untracked"}
            if not known_states.issuperset(states):  # DNAT and SNAT are no states of nft's
                yield UNKNOWN
            else:
                yield _match(operator, {"ct": {"key": "state"}}, {"set": states})
        elif word == "--mark":
            yield _marked(operator, value)
        elif word == "--dst-type":
            fib = {"fib": {"result": "type", "flags": ["daddr"]}}
            yield _match(operator, fib, {"set": value.lower().split(",")})
        elif word in ("--icmp-type", "--icmpv6-type"):
            yield _match(operator, _payload("icmp" if family == "ip" else "icmpv6", "type"), value)
        else:
            yield UNKNOWN
            if value.startswith(("-", "!")):
                place -= 1  # an option without a value
            while place < len(words) and not words[place].startswith(("-", "!")):
                place += 1


def _target(option: str, name: str) -> Statement:
    if name in _VERDICTS:
        return {_VERDICTS[name]: None}
    if name in HARMLESS:
        return {"log": None}
    if name in ("MARK", "CONNMARK"):
        return {"mangle": {"key": {"meta": {"key": "mark"}}, "value": None}}
    if name.isupper() and name in ("NFQUEUE", "QUEUE", "TEE", "TPROXY", "SYNPROXY", "FLOWOFFLOAD"):
        return {"xt": {"type": "target", "name": name}}
    return {"goto" if option == "-g" else "jump": {"target": name}}


def _match(operator: str, left: Mapping[str, Any], right: Any) -> Statement:
    return {"match": {"op": operator, "left": left, "right": right}}


def _payload(protocol: str, name: str) -> Statement:
    return {"payload": {"protocol": protocol, "field": name}}


def _prefix(text: str) -> Any:
    address, _, length = text.partition("/")
    if not length.isdigit():
        return address if not length else {"mask": text}
    return {"prefix": {"addr": address, "len": int(length)}}


def _ports(text: str) -> Any:
    low, colon, high = text.partition(":")
    if not (low or "0").isdigit() or not (high or "0").isdigit():
        return text
    return {"range": [int(low or 0), int(high or 65535)]} if colon else int(low)


def _marked(operator: str, text: str) -> Statement:
    value, _, mask = text.partition("/")
    left: Mapping[str, Any] = {"meta": {"key": "mark"}}
    try:
        if mask:
            left = {"&": [left, int(mask, 0)]}
        return _match(operator, left, int(value, 0))
    except ValueError:
        return UNKNOWN
