"""What size of packets passes a tunnel: the search on one path, by echo requests that are not cut.

A tunnel whose underlay drops large packets answers every small probe and loads no page. So a probe
of the tunnel's whole MTU is sent when the path comes up or is chosen, and rarely afterwards. Where
several are lost, one probe of each size says what passes. A target may itself drop or shorten large
probes: where none of the large ones comes back whole nothing is concluded, unless the same target
is known to answer them by another path. No clock, no I/O.
"""

from __future__ import annotations

from dataclasses import field

from ..model import LEAST_MTU
from ..reasons import because
from ..values import dataclass

STEP = 16  # WireGuard pads what it carries to multiples of it (its whitepaper, section 5.4.6)
CONTROL = 64  # passes everywhere: whether the path answers at all now
TRIES = 3  # probes of the whole MTU, to targets in turn
ROUNDS, SURE_ROUNDS = 3, 2  # of all sizes; the second where something large passed
NEVER_S = float("inf")


@dataclass(slots=True)
class MtuSearch:
    """The search on one path; begin() it, then step() whenever `due_s` has come, until it is done.

    `limit` is the largest size that passed where the whole MTU did not, 0 where it does or is not
    known; `fault` says why the path is of no use.
    """

    limit: int = 0
    fault: str = ""
    due_s: float = NEVER_S
    is_running: bool = False
    tried: frozenset[str] = frozenset()
    _mtu: int = 0
    _stage: int = 0
    _best: int = 0
    _is_alive: bool = False
    _sent: dict[int, tuple[int, str]] = field(default_factory=dict)
    _proven: set[str] = field(default_factory=set)

    def begin(self, mtu: int) -> None:
        """Look anew whether packets of that size pass."""
        self.is_running, self._mtu, self._stage, self._best = True, mtu, 0, 0
        self._is_alive, self._sent, self.due_s = False, {}, -NEVER_S
        self.tried = frozenset()

    def interrupt(self) -> None:
        """Give the search up: what was found before stays."""
        self.is_running = False

    def schedule(self, due_s: float) -> None:
        """Have the next step, or the next search, at that time."""
        self.due_s = due_s

    def lift_limit(self) -> None:
        """Suppose that the whole MTU passes again."""
        self.limit = 0

    def forget(self) -> None:
        """Packets take another way now."""
        self.limit, self.fault = 0, ""

    def step(self, wait_s: float, now_s: float) -> tuple[int, ...]:
        """The sizes to be sent now, all to one target; none: the search is done."""
        rounds = SURE_ROUNDS if self._best else ROUNDS
        if self._best >= self._mtu or self._stage >= TRIES + rounds:
            self.is_running = False
            return ()
        self._stage += 1
        self.due_s = now_s + wait_s
        if self._stage <= TRIES:
            return (self._mtu,)
        return (CONTROL, *range(LEAST_MTU, self._mtu, STEP), self._mtu)

    def sent(self, sequence: int, size: int, target: str) -> None:
        self._sent[sequence] = size, target
        if size >= LEAST_MTU:
            self.tried |= {target}

    def answered(self, sequence: int, length: int) -> None:
        """A probe came back; one that was shortened says nothing."""
        size, target = self._sent.pop(sequence, (0, ""))
        if not size:
            return
        self._is_alive = True
        if size >= LEAST_MTU and length >= size:
            self._proven.add(target)
            self._best = max(self._best, size)
            if size >= self._mtu:
                self.due_s = -NEVER_S  # enough is known

    @property
    def turn(self) -> int:
        """How many probes have left to a target of their own."""
        return self._stage

    @property
    def proven(self) -> frozenset[str]:
        """The targets that have answered large probes by this path."""
        return frozenset(self._proven)

    def conclude(self, proven: frozenset[str]) -> bool:
        """Take the result; whether `limit` or `fault` changed. To be called once it is done.

        `proven` are the targets that answer large probes by whatever path.
        """
        before = self.limit, self.fault
        if self._best >= self._mtu:
            self.fault = ""
        elif self._best:
            self.limit, self.fault = self._best, ""
        elif self._is_alive and self.tried & proven:
            self.fault = because("size_no_pass", LEAST_MTU)
        return (self.limit, self.fault) != before

    @property
    def is_open(self) -> bool:
        """Whether the last search found nothing out, although the path answers small probes."""
        return self._is_alive and not self._best and not self.fault
