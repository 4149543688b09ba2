"""Inputs that are nearly right: files of the corpus, damaged in a few places."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

TOKENS = (
    *(b"\0", b"\xff", b"\n", b"\r\n", b"\t", b"'", b'"', b"\\", b"#", b" ", b"%", b"::", b"/"),
    *(b"\x1b[2J", b"\xed\xa0\x80", b"\xc3", b"-1", b"0", b"1e999", b"nan", b"9" * 5000, b"a" * 300),
    *(b"[" * 3000, b'{"a":' * 3000, b"\x00" * 64, b"\xff" * 64, b"4294967296", b"0x", b"true"),
)
VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1.5, 10**40, 1e308, float("nan"), float("inf"), 2**63, "9" * 5000),
    *("", "x" * 300, "\x1b[2J", "\ud800", "::1", "0.0.0.0/0", "\0", "a b\nc", [], {}, [[]]),
    *({"a": {"b": {"c": []}}}, [1, "b", None], ["x"] * 50),
)


def damaged(chance: random.Random, seeds: list[bytes]) -> bytes:
    """One of the seeds with up to four places overwritten, cut out, doubled or filled up; of a
    JSON object mostly members, however deep, replaced, removed or added.
    """
    seed = chance.choice(seeds)
    if seed[:1] in (b"{", b"[") and chance.random() < 0.7:
        try:
            table = json.loads(seed)
        except ValueError:
            table = {}
        for _ in range(chance.randrange(4)):
            _damage_table(chance, table)
        return json.dumps(table).encode()
    for _ in range(chance.randrange(5)):
        start = chance.randrange(len(seed) + 1)
        stop = min(len(seed), start + chance.choice((0, 1, 2, 8, 40, len(seed))))
        other = chance.choice(seeds)
        at = chance.randrange(len(other) + 1)
        filled = (
            *(b"", chance.randbytes(chance.randrange(1, 9)), chance.choice(TOKENS)),
            *(seed[start:stop] * 2, other[at : at + 40]),
        )
        seed = seed[:start] + chance.choice(filled) + seed[stop:]
    return seed


def _damage_table(chance: random.Random, table: Any) -> None:
    places = list(_places(table))
    if not places:
        return
    inside, key = chance.choice(places)
    what, value = chance.randrange(3), copy.deepcopy(chance.choice(VALUES))
    if what == 0:
        inside[key] = value
    elif what == 1:
        del inside[key]
    elif isinstance(inside, dict):
        inside[chance.choice(("a", "peer_id", "x" * 100, "\ud800", str(key)))] = value
    else:
        inside.append(value)


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in items:
        yield node, key
        if isinstance(value, dict | list):
            yield from _places(value)
