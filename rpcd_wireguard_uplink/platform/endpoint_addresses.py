"""Which address each tunnel's provider is tried at: every one that its endpoints have, in turn.

An address that stays silent gives way to the next within seconds, and a name is looked up again
when all were tried. The addresses that answered last are kept in a file, so that a boot without a
resolver finds the provider; it is written when another address answers, never for a look-up.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import (
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Mapping,
    MutableMapping,
    Sequence,
)
from dataclasses import dataclass
from typing import Any

from ..errors import CommandFailed, InvalidArgument
from ..model import Endpoint, PeerCounters
from ..schema.endpoints import is_literal, parse_endpoint
from ..system.files import read_or_tell, read_table
from ..system.resolver import resolve_all

FIRST_TRY_S = 4.0  # a handshake takes a round trip, and is begun anew after 5 s
TRY_S = 8.0  # so each address has at least one attempt (WireGuard's whitepaper, section 6.1)
LONGEST_REST_S = 60.0
LOOK_UP_S = 5.0
HASTY_LOOK_UP_S = 1.0  # where a good address is known
FRESH_S = 10.0  # a look-up this old is not repeated
MOST_GOOD = 4  # addresses of one tunnel: those of a name that changes in turn are all known
MOST_KEPT = 100  # tunnels
MOST_ADDRESSES = 8  # of one name
WRITES, WRITE_PAUSE_S = 4, 3 * 3600.0  # so many at once, and one more in each pause

LookUp = Callable[[str, float], Awaitable[Sequence[str]]]


@dataclass(slots=True)
class _Trial:
    """One tunnel's search. `untried` are left of this round, `current` is what WireGuard has.

    `rx_bytes` is what it had received when that was set or heard last, None while nobody knows.
    """

    endpoint: Endpoint
    others: tuple[Endpoint, ...] = ()
    current: Endpoint | None = None
    untried: tuple[Endpoint, ...] = ()
    is_complete: bool = False
    rounds: int = 0
    set_s: float = 0.0
    heard_s: float = float("-inf")
    pause_s: float = FIRST_TRY_S
    rx_bytes: int | None = None

    @property
    def all(self) -> tuple[Endpoint, ...]:
        return tuple(dict.fromkeys((self.endpoint, *self.others)))


class EndpointAddresses:
    """The search of every tunnel, and the file of good addresses at `path`.

    `has_way` gives '' for an address that no route leads to: it is tried last. `problems` maps a
    topic to a sentence.
    """

    def __init__(
        self,
        path: str,
        has_way: Callable[[str], Awaitable[str]],
        problems: MutableMapping[str, str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock = clock
        self.look_up: LookUp = resolve_all
        self._path = path
        self._has_way = has_way
        self._problems = problems
        self._trials: dict[str, _Trial] = {}
        self._known: dict[str, tuple[float, tuple[str, ...]]] = {}
        self._good: dict[str, tuple[str, tuple[Endpoint, ...]]] | None = None
        self._received: dict[str, int] = {}
        self._is_dirty = False
        self._writes_left, self._wrote_s = float(WRITES), clock()

    def __contains__(self, name: str) -> bool:
        return name in self._trials

    def current(self, name: str) -> str:
        """The address that a tunnel's provider is tried at, '' while there is none."""
        trial = self._trials.get(name)
        return trial.current.host if trial is not None and trial.current is not None else ""

    def forget(self, name: str) -> None:
        """The tunnel is gone; what answered is kept."""
        self._trials.pop(name, None)
        self._received.pop(name, None)

    def also(self, name: str, endpoints: Iterable[Endpoint]) -> None:
        """Other endpoints of the tunnel's provider, to be tried after its own."""
        trial = self._trials.get(name)
        if trial is not None and trial.others != (others := tuple(endpoints)):
            trial.others, trial.untried, trial.is_complete = others, (), False

    # --- the first address

    async def look_up_all(self, wanted: Mapping[str, Endpoint]) -> None:
        """Look names up at the same time, for `begin` to find: without a resolver each takes its
        whole patience.
        """
        await asyncio.gather(*(self._look_up(n, e.host) for n, e in wanted.items()))

    async def begin(self, name: str, endpoint: Endpoint) -> Endpoint | None:
        """Begin the search anew: the address to try first, None where none is known."""
        before = self._trials.get(name)
        trial = _Trial(endpoint)
        if before is not None and before.endpoint == endpoint:
            trial.others, trial.current = before.others, before.current
        found = await self._ordered(name, trial)
        self._trials[name] = trial
        trial.untried, trial.is_complete = found[1:], bool(found)
        self._set(name, trial, found[0] if found else None, FIRST_TRY_S)
        return trial.current

    def adopt(self, name: str, endpoint: Endpoint, address: str) -> None:
        """Somebody else has set the tunnel's address, and set it only once."""
        trial = self._trials[name] = _Trial(endpoint)
        trial.current = Endpoint(address, endpoint.port) if address else None
        trial.set_s = self.clock()
        trial.pause_s = FIRST_TRY_S if address else 0.0

    def _set(self, name: str, trial: _Trial, at: Endpoint | None, pause_s: float) -> None:
        trial.current, trial.set_s, trial.pause_s = at, self.clock(), pause_s
        trial.rx_bytes = self._received.get(name, 0)

    # --- the next one

    def saw(self, counters: Mapping[str, PeerCounters], read_s: float) -> None:
        """Take a reading that was begun then: who was heard since its address was set."""
        self._received = {name: counted.rx_bytes for name, counted in counters.items()}
        for name, trial in self._trials.items():
            counted = counters.get(name)
            if counted is None or read_s < trial.set_s:
                continue
            if trial.rx_bytes is not None and counted.rx_bytes > trial.rx_bytes:
                trial.heard_s, trial.rounds, trial.pause_s = read_s, 0, TRY_S
                trial.untried, trial.is_complete = (), False
                self._note_good(name, trial, counted.endpoint)
            trial.rx_bytes = counted.rx_bytes

    def due(self, stalled: Collection[str]) -> list[str]:
        """Those of the stalled tunnels whose present address had its time and that have another."""
        now_s = self.clock()
        return [
            name
            for name in stalled
            if (trial := self._trials.get(name)) is not None
            and now_s - max(trial.set_s, trial.heard_s) >= trial.pause_s
            and (len(trial.all) > 1 or trial.untried or not is_literal(trial.endpoint.host))
        ]

    async def another(self, name: str) -> Endpoint | None:
        """Go on to the tunnel's next address; None where it is the one that is set already.

        After a whole round the best one rests, for longer and longer: WireGuard goes on with it.
        """
        trial = self._trials[name]
        before, pause_s = trial.current, TRY_S
        if not trial.untried:
            found = await self._ordered(name, trial)
            if self._trials.get(name) is not trial:
                return None  # begun anew meanwhile
            trial.untried = tuple(each for each in found if each != before)
            if trial.is_complete or not trial.untried:
                trial.rounds += 1
                trial.untried = found
                pause_s = min(LONGEST_REST_S, TRY_S * 2.0 ** min(trial.rounds, 8))
            trial.is_complete = True
        chosen, trial.untried = (*trial.untried, before)[0], trial.untried[1:]
        self._set(name, trial, chosen, pause_s)
        return chosen if chosen != before else None

    async def _ordered(self, name: str, trial: _Trial) -> tuple[Endpoint, ...]:
        """Where to try: what answered last first if it still belongs to the endpoints, then what
        the names have now, what has no way there behind it, and at last what they had before.
        """
        good, endpoints = self._good_of(name, trial.endpoint), trial.all
        looked_up = await asyncio.gather(*(self._look_up(name, e.host) for e in endpoints))
        found = [
            Endpoint(address, endpoint.port)
            for endpoint, addresses in zip(endpoints, looked_up, strict=True)
            for address in addresses
        ]
        if len(set(found)) > 1:
            ways = [await self._has_way(each.host) for each in found]
            found = [each for _, each in sorted(zip(ways, found, strict=True), key=_has_no_way)]
        first = [each for each in good if each in found]
        last = [*good, *([trial.current] if trial.current is not None else [])]
        return tuple(dict.fromkeys((*first, *found, *last)))

    async def _look_up(self, name: str, host: str) -> tuple[str, ...]:
        if is_literal(host):
            return (host,)
        known = self._known.get(host)
        if known is not None and self.clock() - known[0] < FRESH_S:
            return known[1]
        patience_s = HASTY_LOOK_UP_S if name in self._kept else LOOK_UP_S
        answer = await self.look_up(host, patience_s)
        found, now_s = tuple(answer)[:MOST_ADDRESSES], self.clock()
        self._known = {h: each for h, each in self._known.items() if now_s - each[0] < FRESH_S}
        self._known[host] = (now_s, found)
        return found

    # --- what answered

    @property
    def _kept(self) -> dict[str, tuple[str, tuple[Endpoint, ...]]]:
        if self._good is None:
            table = read_or_tell(read_table, self._path, None, self._problems)
            rows = ((name, _parse(row)) for name, row in (table or {}).items())
            self._good = {name: kept for name, kept in rows if kept is not None}
        return self._good

    def _good_of(self, name: str, endpoint: Endpoint) -> tuple[Endpoint, ...]:
        told, found = self._kept.get(name, ("", ()))
        return found if told == str(endpoint) else ()

    def _note_good(self, name: str, trial: _Trial, live: str) -> None:
        """Keep where the tunnel was heard from, but for what the configuration says anyway."""
        try:
            at = parse_endpoint(live)
        except InvalidArgument:
            return
        if at.port != trial.endpoint.port and at != trial.current:
            at = trial.current or at  # behind a translation: where it answers is not where it is
        good = self._good_of(name, trial.endpoint)
        is_known = at in good or at == trial.endpoint
        if good[:1] == (at,) or (is_known and not good):
            return
        self._kept.pop(name, None)
        self._kept[name] = (str(trial.endpoint), tuple(dict.fromkeys((at, *good)))[:MOST_GOOD])
        self._is_dirty = self._is_dirty or not is_known
        while len(self._kept) > MOST_KEPT:
            del self._kept[next(iter(self._kept))]

    async def save_if_due(self) -> None:
        """Write the file where it should say something else. Raises CommandFailed, once a pause."""
        if not self._is_dirty:
            return
        now_s = self.clock()
        gained = (now_s - self._wrote_s) / WRITE_PAUSE_S
        if self._writes_left + gained < 1.0:
            return
        self._writes_left = min(WRITES, self._writes_left + gained) - 1.0
        self._wrote_s, self._is_dirty = now_s, False
        rows = {
            name: {"endpoint": told, "good": [str(each) for each in found]}
            for name, (told, found) in self._kept.items()
        }
        try:
            await asyncio.to_thread(_write, self._path, json.dumps(rows, indent=1) + "\n")
        except OSError as error:
            self._is_dirty = True
            raise CommandFailed(
                f"{self._path} can't be written ({error.strerror}): after a boot without a "
                "resolver the providers' addresses would not be known"
            ) from error


def _has_no_way(pair: tuple[str, Endpoint]) -> bool:
    return not pair[0]


def _parse(row: Any) -> tuple[str, tuple[Endpoint, ...]] | None:
    """One tunnel's row: the endpoint as configured, and the addresses that answered."""
    try:
        good = tuple(parse_endpoint(text) for text in row["good"][:MOST_GOOD])
        return str(row["endpoint"]), tuple(each for each in good if is_literal(each.host))
    except (InvalidArgument, KeyError, TypeError, AttributeError):
        return None


def _write(path: str, text: str) -> None:
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    fresh = f"{path}.new"
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)
