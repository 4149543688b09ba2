"""Who and what is on a broker's bus: peers, objects, signatures.

Owns the records and how ids are made. Knows nothing of messages; router.py changes the records,
system.py reads them.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ...ubus.framing import FIRST_ID


@dataclass(eq=False, slots=True)
class Peer:
    """A client of the bus. `send` returns False where it dropped the message."""

    client_id: int
    user: bytes
    group: bytes
    privileged: bool
    send: Callable[[bytes], bool]
    is_idle: Callable[[], bool]
    objects: dict[int, PublishedObject] = field(default_factory=dict)
    lookups: deque[Iterator[bool]] = field(default_factory=deque)
    monitor_seq: int = 0


@dataclass(eq=False, slots=True)
class Signature:
    type_id: int
    data: bytes
    users: int = 0


@dataclass(eq=False, slots=True)
class PublishedObject:
    object_id: int
    owner: Peer
    path: bytes | None
    signature: Signature | None
    patterns: list[bytes] = field(default_factory=list)
    subscribers: list[PublishedObject] = field(default_factory=list)
    targets: list[PublishedObject] = field(default_factory=list)
    seq: int = 0


def new_id(taken: dict[int, Any]) -> int:
    """Return a random id that is free, as ubus_alloc_id (ubusd_id.c) does."""
    while True:
        number = int.from_bytes(os.urandom(4), "big")
        if number >= FIRST_ID and number not in taken:
            return number
