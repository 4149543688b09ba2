"""News inside the process: what happened, told to whoever subscribed. daemon.py does all of it.

News only: who needs an answer calls, and who must act in a certain order is called in that order.
A handler that fails is logged and keeps no other from hearing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

log = logging.getLogger("wireguard-uplink")


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened."""


E = TypeVar("E", bound=Event)


class Events:
    """Subscriptions by the class of the event."""

    def __init__(self) -> None:
        self._handlers: dict[type[Event], list[Callable[[Any], None]]] = {}

    def subscribe(self, kind: type[E], handler: Callable[[E], None]) -> None:
        """Have `handler` called with each later event of this very class."""
        self._handlers.setdefault(kind, []).append(handler)

    def publish(self, event: Event) -> None:
        """Tell everybody who subscribed, in the order of the subscriptions."""
        for handler in self._handlers.get(type(event), ()):
            try:
                handler(event)
            except Exception:
                log.exception("%s was not handled", type(event).__name__)
