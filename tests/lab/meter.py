"""Steady traffic from a node: what was answered, from where, and for how long it was not.

programs/traffic.py sends it inside the node. Times are CLOCK_MONOTONIC, the same in the test and in
every node.
"""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .network import ECHO4, ECHO6
from .node import LabError, Node, program, timed

Kind = Literal["udp", "tcp", "dns"]
PORTS: dict[Kind, int] = {"udp": 7, "tcp": 7, "dns": 53}
SOME_S = 0.2


@dataclass(frozen=True, slots=True)
class Sample:
    """One packet, connection or query. `source` is what the server saw (for dns: the answer)."""

    seq: int
    sent: float
    received: float | None = None
    source: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Outage:
    """A run of unanswered samples: from the first of them to the next that was answered."""

    began: float
    seconds: float
    lost: int


def outages(samples: Iterable[Sample]) -> list[Outage]:
    """Every run of unanswered samples; the last may be one that never ended."""
    found: list[Outage] = []
    began, last, missed = 0.0, 0.0, 0
    for sample in samples:
        last = sample.sent
        if sample.received is None:
            began = began if missed else sample.sent
            missed += 1
        elif missed:
            found.append(Outage(began, sample.sent - began, missed))
            missed = 0
    if missed:
        found.append(Outage(began, last - began, missed))
    return found


def longest(samples: Iterable[Sample]) -> Outage:
    """The longest outage; one of 0 seconds where every sample was answered."""
    return max(outages(samples), key=lambda o: o.seconds, default=Outage(0.0, 0.0, 0))


def lost(samples: Iterable[Sample]) -> int:
    """How many samples were never answered."""
    return sum(sample.received is None for sample in samples)


def sources(samples: Iterable[Sample]) -> list[str]:
    """The sources in the order in which they took turns."""
    seen: list[str] = []
    for sample in samples:
        if sample.source is not None and seen[-1:] != [sample.source]:
            seen.append(sample.source)
    return seen


class Meter:
    """Traffic that is being sent from a node. A context manager; stop() ends it earlier."""

    def __init__(
        self,
        node: Node,
        address: str,
        *,
        kind: Kind = "udp",
        rate_hz: float = 100.0,
        deadline_s: float = 0.4,
        device: str | None = None,
        source: str | None = None,
        tos: int = 0,
        uid: int = 0,
        count: int | None = None,
        name: str | None = None,
    ) -> None:
        """Start sending to the echo (udp, tcp) or resolver (dns) at `address`.

        A sample is lost when `deadline_s` passes without an answer. `device` and `source` (an
        address) bind the sockets, which are those of `uid` where that is given; `name` is what dns
        asks for, by default the asker's own address; a # in it is the sample's number.
        """
        wanted = {
            "kind": kind,
            "address": address,
            "port": PORTS[kind],
            "interval_s": 1 / rate_hz,
            "deadline_s": deadline_s,
            "count": count,
            "device": device,
            "source": source,
            "tos": tos,
            "uid": uid,
            "name": name,
        }
        argv = timed(program("traffic", json.dumps(wanted)))
        self.deadline_s = deadline_s
        self._found: dict[int, Sample] = {}
        self._answered: list[Sample] = []
        self._news = threading.Condition()
        pipe = subprocess.PIPE
        self._child = node.popen(argv, stdin=pipe, stdout=pipe, stderr=pipe)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def so_far(self, since: float = 0.0) -> list[Sample]:
        """The samples sent since then whose fate is known now: answered, failed, past deadline."""
        oldest = time.monotonic() - self.deadline_s
        running = self._reader.is_alive()
        with self._news:
            found = sorted(self._found.values(), key=lambda sample: sample.seq)
        return [
            s
            for s in found
            if s.sent >= since and (s.received or s.error or s.sent < oldest or not running)
        ]

    def samples(self, since: float = 0.0, until: float | None = None) -> list[Sample]:
        """All samples sent in that time; waits until the fate of each is known.

        `until` is now where it is not given, but never before some were sent since then.
        """
        end = max(time.monotonic(), since + SOME_S) if until is None else until
        while self._reader.is_alive() and time.monotonic() < end + self.deadline_s + 0.05:
            time.sleep(0.01)
        return [sample for sample in self.so_far(since) if sample.sent <= end]

    def wait_for(
        self, fits: Callable[[Sample], bool], *, since: float = 0.0, timeout_s: float = 30.0
    ) -> Sample:
        """The first answered sample sent after `since` that fits; waits until there is one.

        Raises LabError when none arrives in time, telling what did.
        """
        deadline = time.monotonic() + timeout_s
        looked_at = 0
        with self._news:
            while (left_s := deadline - time.monotonic()) > 0:
                for sample in self._answered[looked_at:]:
                    if sample.sent >= since and fits(sample):
                        return sample
                looked_at = len(self._answered)
                if not self._reader.is_alive():
                    break
                self._news.wait(min(left_s, 0.1))
        recent = self.so_far(since)
        raise LabError(
            f"{self._child.name}: no fitting answer in {timeout_s:g} s; "
            f"{lost(recent)} of {len(recent)} lost, seen {sources(recent)}, "
            f"errors {sorted({s.error for s in recent if s.error})}"
        )

    def wait_for_source(
        self, wanted: str | Sequence[str], *, since: float = 0.0, timeout_s: float = 30.0
    ) -> Sample:
        """The first sample sent after `since` that the server saw come from `wanted`."""
        accepted = [wanted] if isinstance(wanted, str) else list(wanted)
        return self.wait_for(lambda s: s.source in accepted, since=since, timeout_s=timeout_s)

    def stop(self) -> list[Sample]:
        """Send no more, wait for what is under way, and return all samples."""
        child = self._child.entered
        if child.stdin and not child.stdin.closed:
            child.stdin.close()
            try:
                self._child.wait(self.deadline_s + 5.0)
            except LabError:
                self._child.kill()
            self._reader.join(5.0)
            for stream in (child.stdout, child.stderr):
                if stream:
                    stream.close()
        return self.samples()

    def _read(self) -> None:
        for line in self._child.entered.stdout or ():
            try:
                sample = Sample(**json.loads(line))
            except ValueError:
                continue  # a line cut short by the node's end
            with self._news:
                self._found[sample.seq] = sample
                if sample.received is not None:
                    self._answered.append(sample)
                    self._news.notify_all()


def ask(
    node: Node,
    address: str,
    *,
    kind: Kind = "udp",
    timeout_s: float = 1.0,
    device: str | None = None,
    source: str | None = None,
    name: str | None = None,
) -> str | None:
    """Send once: the source that the server saw (dns: the address answered), None if lost."""
    with Meter(
        node,
        address,
        kind=kind,
        deadline_s=timeout_s,
        count=1,
        device=device,
        source=source,
        name=name,
    ) as meter:
        meter._child.wait(timeout_s + 5.0)
        found = meter.stop()
    return found[0].source if found else None


class Flows:
    """A node's steady UDP flows to the echo servers of both families. A context manager."""

    def __init__(
        self, node: Node, rate_hz: float = 100.0, patience_s: float = 30.0, **of_meter: Any
    ) -> None:
        """The first answers come within `patience_s`."""
        self.patience_s = patience_s
        self.ipv4 = Meter(node, ECHO4, rate_hz=rate_hz, **of_meter)
        self.ipv6 = Meter(node, ECHO6, rate_hz=rate_hz, **of_meter)

    def __enter__(self) -> Flows:
        settled(*self, timeout_s=self.patience_s)
        return self

    def __exit__(self, *error: object) -> None:
        for meter in self:
            meter.stop()

    def __iter__(self) -> Iterator[Meter]:
        return iter((self.ipv4, self.ipv6))

    def by(self, addresses: Sequence[str], *, since: float = 0.0, timeout_s: float = 30.0) -> float:
        """Wait until the servers see both come from these addresses; when the later was sent."""
        deadline = time.monotonic() + timeout_s
        return max(
            meter.wait_for_source(address, since=since, timeout_s=deadline - time.monotonic()).sent
            for meter, address in zip(self, addresses, strict=True)
        )

    def answered(self, *, since: float, timeout_s: float = 30.0) -> None:
        """Wait until both are answered again, by whatever way."""
        for meter in self:
            meter.wait_for(lambda sample: True, since=since, timeout_s=timeout_s)

    def longest_s(self, since: float) -> float:
        """The longest gap of either since then."""
        return max(longest(meter.samples(since)).seconds for meter in self)


def settled(*meters: Meter, timeout_s: float = 30.0) -> None:
    """Wait until each meter has been answered."""
    for meter in meters:
        meter.wait_for(lambda sample: True, timeout_s=timeout_s)
