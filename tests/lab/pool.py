"""Routers that tests share: each is built once, and anew after a test that changed it for good.

A router can be lent again when, WANs and configuration restored, its status, its rules, routes,
addresses and the owner's nftables are what they were. What its service goes on telling ends with a
restart, which is cheaper than another router. The last few are kept.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

from rpcd_wireguard_uplink.errors import BusError

from .lab import Lab
from .node import LabError, Node
from .router import Router, Status

LOOK = """
ip -4 rule; ip -6 rule; echo --
ip -4 route show table all; ip -6 route show table all; echo --
ip -o addr show scope global; echo --
ip -o link; echo --
nft -s list ruleset
"""
SETTLE_S = 3.0
TELLS_S = 0.5
"""A problem that is over is told for so long; others are told for minutes."""
TIDY_S = 1.5
"""A diversion's rules and routes go within that."""
KEPT = 2


class HasRouter(Protocol):
    """What a pool keeps."""

    @property
    def router(self) -> Router: ...


T = TypeVar("T", bound=HasRouter)


@dataclass(frozen=True)
class _Gist:
    """What of a status must be as it was: where traffic is and may go, and what is told."""

    paths: list[object]
    problems: list[str]


@dataclass
class _Kept:
    """A router and what it was like when it was built."""

    lab: Lab
    made: HasRouter
    status: _Gist
    look: list[str]
    config: str
    uplinks: str


class RouterPool:
    """A context manager; at its end all laboratories are gone."""

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}
        self._spoiled = False

    def __enter__(self) -> RouterPool:
        return self

    def __exit__(self, *error: object) -> None:
        self._close_all_but(0)

    @contextlib.contextmanager
    def use(self, build: Callable[[Lab], T]) -> Iterator[T]:
        """Lend what `build` makes."""
        name = f"{build.__module__}.{build.__qualname__}"
        kept = self._kept.pop(name, None)
        if kept is None:
            self._close_all_but(KEPT - 1)
            kept = _make(build)
        self._spoiled = False
        try:
            yield kept.made  # type: ignore[misc]
            if not self._spoiled and _is_as_built(kept):
                self._kept[name] = kept
        finally:
            if name not in self._kept:
                kept.lab.close()

    def spoil(self) -> None:
        """What is lent is not to be lent again, whatever it looks like."""
        self._spoiled = True

    def _close_all_but(self, count: int) -> None:
        while len(self._kept) > count:
            self._kept.pop(next(iter(self._kept))).lab.close()


@contextlib.contextmanager
def added(node: Node, *commands: str) -> Iterator[None]:
    """Have these routes and rules of the owner's (`ip route add ...`) there meanwhile."""
    node.sh("\n".join(commands))
    yield
    gone = [re.sub(r"\b(add|append)\b", "del", command, count=1) for command in commands]
    node.sh("\n".join(f"{command} || true" for command in reversed(gone)))


def look(node: Node) -> list[str]:
    """The node's rules, routes, addresses, devices and nftables, but for our table."""
    rules, routes, addresses, links, ruleset = node.sh(LOOK).split("--\n")
    tables = re.split("^(?=table )", ruleset, flags=re.MULTILINE)
    return [
        *rules.splitlines(),
        *sorted(line for line in routes.splitlines() if not line.startswith("local fe80:")),
        *sorted(line.partition(":")[2] for line in addresses.splitlines()),
        *sorted(re.split("[:@]", line)[1] for line in links.splitlines()),
        *(table for table in tables if "wgup" not in table.partition("\n")[0]),
    ]


def _make(build: Callable[[Lab], T]) -> _Kept:
    lab = Lab()
    try:
        made = build(lab)
        router = made.router
        config = router.service.read_config()
        seen = look(router.network.consumer)
        return _Kept(lab, made, _gist(router.status()), seen, config, router.uplinks)
    except BaseException:
        lab.close()
        raise


def _is_as_built(kept: _Kept) -> bool:
    """Restore WANs and configuration; whether all else is, or becomes in time, as it was."""
    router = kept.made.router
    network, service = router.network, router.service
    for wan in (network.wan, network.wan2, *network.provider_wans):
        if wan is not None:
            wan.restore()
    router.uplinks = kept.uplinks
    if service.read_config() != kept.config:
        service.configure(kept.config)
        if service.running:
            service.reload()
    if not service.running:
        service.start()
    begun = time.monotonic()
    deadline, may_restart = begun + SETTLE_S, True
    try:
        while (found := _gist(router.status())) != kept.status:
            if time.monotonic() > deadline:
                return False
            if (
                may_restart
                and found.paths == kept.status.paths
                and time.monotonic() - begun > TELLS_S
            ):
                service.restart()
                deadline, may_restart = time.monotonic() + SETTLE_S, False
            time.sleep(0.05)
        deadline = time.monotonic() + TIDY_S
        while look(network.consumer) != kept.look:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
    except (LabError, BusError):
        return False
    return True


def _gist(status: Status) -> _Gist:
    rows = [(row["path"], row["state"]) for row in status["wans"]]
    ups = [(row["peer_id"], row["state"], row["usable"]) for row in status["uplinks"]]
    return _Gist([status["families"], rows, ups, status["auto_failover"]], status["problems"])
