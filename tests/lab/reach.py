"""Who is reached from a node, and by which way: asked until it is so, or for some time.

The echo servers of the pretend internet name the source that they saw, which tells the way.
"""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TypeVar

from .consumers import ECHO, probe
from .meter import Kind, Meter
from .node import LabError, Node, program

T = TypeVar("T")

Ways = Mapping[str, str | Sequence[str]]
"""For each address that is asked the source, or the sources, that its server may see."""


@contextlib.contextmanager
def asking(
    node: Node, *addresses: str, kind: Kind = "tcp", source: str | None = None
) -> Iterator[dict[str, Meter]]:
    """Ask each address 20 times a second meanwhile; by default a new connection each time."""
    with contextlib.ExitStack() as stack:
        yield {
            address: stack.enter_context(Meter(node, address, kind=kind, rate_hz=20, source=source))
            for address in addresses
        }


def reached(
    node: Node, ways: Ways, *, kind: Kind = "tcp", source: str | None = None, timeout_s: float = 6.0
) -> None:
    """Wait until new connections to each address come by its way. Raises LabError where not."""
    since = time.monotonic()
    with asking(node, *ways, kind=kind, source=source) as meters:
        for address, meter in meters.items():
            left_s = max(0.1, since + timeout_s - time.monotonic())
            meter.wait_for_source(ways[address], since=since, timeout_s=left_s)


def answered(node: Node, *addresses: str, seconds: float, kind: Kind = "tcp") -> set[str]:
    """The sources that were seen of what was asked in so many seconds; none if all was lost."""
    with asking(node, *addresses, kind=kind) as meters:
        time.sleep(seconds)
        found = [sample for meter in meters.values() for sample in meter.stop()]
    assert len(found) > 2, "it has asked"
    return {sample.source for sample in found if sample.source is not None}


def spread(node: Node, address: str, flows: int = 16, *, source: str = "") -> dict[str, int]:
    """Open so many UDP flows at once: how many were seen from each source (or `silence`)."""
    found = probe(node, *(("udp", address, ECHO, source),) * flows)
    return {each: found.count(each) for each in sorted(set(found))}


def loads(node: Node, address: str) -> bool:
    """Whether segments of full size come and go over TCP, 160 kB each way."""
    argv = program("load", address)
    return node.run(argv, check=False, timeout_s=60.0).stdout.strip() == "loaded"


def until(look: Callable[[], T], fits: Callable[[T], object], timeout_s: float = 30.0) -> T:
    """What was seen when it fitted. Raises LabError with the last that did not."""
    deadline = time.monotonic() + timeout_s
    while not fits(seen := look()):
        if time.monotonic() > deadline:
            raise LabError(f"not so in {timeout_s:g} s, but {seen!r}"[:4000])
        time.sleep(0.05)
    return seen


class Typing:
    """A TCP connection that is in use (typing_by_hand.py). A context manager."""

    def __init__(
        self, node: Node, address: str, source: str | None = None, patience_s: float = 10.0
    ) -> None:
        """The first echo comes within `patience_s`."""
        self._patience_s = patience_s
        argv = program("typing_by_hand", address, *([source] if source else []))
        self._child = node.popen(argv, stdout=subprocess.PIPE)
        self.words: list[str] = []
        self._times: list[float] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Typing:
        until(lambda: self.words, lambda words: "echo" in words, self._patience_s)
        return self

    def __exit__(self, *error: object) -> None:
        self._child.kill()
        self._reader.join(5.0)

    @property
    def source(self) -> str:
        """By which source the server saw it come."""
        return self.words[0]

    def longest_s(self, since: float) -> float:
        """The longest time without an echo since then."""
        times = [since, *(at for at in list(self._times) if at > since), time.monotonic()]
        return max(later - earlier for earlier, later in pairwise(times))

    def ended(self, timeout_s: float = 30.0) -> str:
        """Wait for its end; the name of the error. Raises LabError where it goes on or hangs."""
        return until(lambda: self.words[-1], lambda word: word != "echo", timeout_s)

    def _read(self) -> None:
        with self._child.entered.stdout or contextlib.nullcontext(()) as lines:
            for line in lines:
                self._times.append(time.monotonic())
                self.words.append(line.strip())
