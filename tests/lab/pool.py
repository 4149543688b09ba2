"""Scenes that tests share: each built once, and anew after a test that did not leave it as found.

A scene is as it was found when its service is the same process, traffic is at home, the router's
rules, routes, addresses and the owner's nftables are what they were, and nobody called spoil().
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from rpcd_wireguard_uplink.errors import BusError

from .lab import Lab
from .node import LabError, Node
from .router import Router, Status

LOOK = """
for family in -4 -6; do
  ip $family rule; ip $family route show table all
done
ip -o addr show scope global; ip -o link | cut -d: -f2
nft -s list tables | grep -v wgup | while read -r words; do nft -s list $words; done
"""
SETTLE_S = 6.0


class Laid(Protocol):
    """What a stage keeps: anything that has a scene."""

    @property
    def router(self) -> Router: ...


T = TypeVar("T", bound=Laid)


@dataclass
class _Kept:
    lab: Lab
    laid: Laid
    calm: Status
    look: str
    pid: int


class RouterPool:
    """A context manager; at its end all scenes are gone."""

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}
        self._spoiled = False

    def __enter__(self) -> RouterPool:
        return self

    def __exit__(self, *error: object) -> None:
        for name in list(self._kept):
            self._kept.pop(name).lab.close()

    @contextlib.contextmanager
    def use(self, build: Callable[[Lab], T]) -> Iterator[T]:
        """Lend the scene that `build` makes."""
        name = build.__qualname__
        kept = self._kept.pop(name, None) or _make(build)
        self._spoiled = False
        try:
            yield kept.laid  # type: ignore[misc]
            for wan in (kept.laid.router.network.wan, kept.laid.router.network.wan2):
                if wan is not None:
                    wan.restore()
            if not self._spoiled and _as_found(kept):
                self._kept[name] = kept
        finally:
            if name not in self._kept:
                kept.lab.close()

    def spoil(self) -> None:
        """The scene that is lent is not to be lent again, whatever it looks like."""
        self._spoiled = True


@contextlib.contextmanager
def added(node: Node, *commands: str) -> Iterator[None]:
    """Have these routes and rules of the owner's (`ip route add ...`) there meanwhile."""
    node.sh("\n".join(commands))
    yield
    gone = [re.sub(r"\b(add|append)\b", "del", command, count=1) for command in commands]
    node.sh("\n".join(f"{command} || true" for command in reversed(gone)))


def _make(build: Callable[[Lab], T]) -> _Kept:
    lab = Lab()
    try:
        laid = build(lab)
        router = laid.router
        return _Kept(lab, laid, router.status(), look(router.network.consumer), router.service.pid)
    except BaseException:
        lab.close()
        raise


def _as_found(kept: _Kept) -> bool:
    """Whether it becomes so in time."""
    router = kept.laid.router
    deadline = time.monotonic() + SETTLE_S
    while time.monotonic() < deadline:
        try:
            if (
                router.service.pid == kept.pid
                and _told(router.status()) == _told(kept.calm)
                and look(router.network.consumer) == kept.look
            ):
                return True
        except (LabError, BusError):
            return False
        time.sleep(0.05)
    return False


def look(node: Node) -> str:
    """The node's rules, routes, addresses, devices and nftables, but for our table."""
    return node.sh(LOOK)


def _told(status: Status) -> Sequence[object]:
    rows = [(row["path"], row["state"]) for row in status["wans"]]
    ups = [(row["peer_id"], row["state"], row["usable"]) for row in status["uplinks"]]
    return [status["families"], rows, ups]
