"""Which address each tunnel's provider is tried at: every one that its endpoints have, in turn.

An address that stays silent gives way to the next within seconds, and a name is looked up again
when all were tried. One whose way there is in doubt is left at once, while that lasts, for one that
is reached otherwise. The addresses that answered last are kept in a file, so that a boot without a
resolver finds the provider; it is written when another address answers, never for a look-up.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from ..errors import CommandFailed, InvalidArgument
from ..model import Endpoint, Family, PeerCounters
from ..reasons import because, of_system
from ..schema.endpoints import is_literal, parse_endpoint
from ..system.dns import resolve_all
from ..system.files import read_or_tell, read_table, replace_file
from ..values import dataclass
from ..warnings import Warnings

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
Endpoints = tuple[Endpoint, ...]
Way = tuple[str, Family]
"""The device that packets to an address leave by, '' for none, and the address's family."""


@dataclass(slots=True)
class _Search:
    """One tunnel's search: `current` is the address that WireGuard has, `_untried` are those of
    this round, which `_is_complete` once it has begun with all; `_rx_bytes` is of the time when the
    address was set or heard last. `origin` is what was left because its way is in doubt, `sure` are
    hosts that are the provider's for certain: one of a network of ours may be somebody else's.
    """

    endpoint: Endpoint
    others: Endpoints = ()
    sure: frozenset[str] = frozenset()
    current: Endpoint | None = None
    origin: Endpoint | None = None
    _untried: Endpoints = ()
    _is_complete: bool = False
    _rounds: int = 0
    set_s: float = 0.0
    _heard_s: float = float("-inf")
    _pause_s: float = FIRST_TRY_S
    _rx_bytes: int | None = None

    @property
    def endpoints(self) -> Endpoints:
        """All of the provider's endpoints, the configured one first."""
        return tuple(dict.fromkeys((self.endpoint, *self.others)))

    @property
    def needs_addresses(self) -> bool:
        """Whether a new round begins with the next address."""
        return not self._untried

    def also(self, others: Endpoints, sure: Collection[str]) -> bool:
        self.sure |= {*sure}
        if self.others == others:
            return False
        self.others, self._untried, self._is_complete = others, (), False
        return True

    def adopt(self, now_s: float) -> None:
        """Somebody else has set `current`, and set it only once."""
        self.set_s = now_s
        self._pause_s = FIRST_TRY_S if self.current is not None else 0.0

    def begin(self, found: Endpoints, now_s: float, rx_bytes: int) -> None:
        self._untried, self._is_complete = found[1:], bool(found)
        self._set(found[0] if found else None, now_s, FIRST_TRY_S, rx_bytes)

    def go_on(self, found: Endpoints, now_s: float, rx_bytes: int) -> Endpoint | None:
        """Go on to the next address; None where it is the one that is set already.

        `found` are all addresses, for a new round. After a whole round the best one rests, for
        longer and longer: WireGuard goes on with it.
        """
        before, pause_s, self.origin = self.current, TRY_S, None
        if self.needs_addresses:
            self._untried = tuple(each for each in found if each != before)
            if self._is_complete or not self._untried:
                self._rounds += 1
                self._untried = found
                pause_s = min(LONGEST_REST_S, TRY_S * 2.0 ** min(self._rounds, 8))
            self._is_complete = True
        chosen, self._untried = (*self._untried, before)[0], self._untried[1:]
        self._set(chosen, now_s, pause_s, rx_bytes)
        return chosen if chosen != before else None

    def step(self, at: Endpoint, origin: Endpoint | None, now_s: float, rx_bytes: int) -> None:
        """Go to another address without a silence: away from `origin`, or back (None)."""
        self.origin = origin
        self._set(at, now_s, TRY_S, rx_bytes)

    def _set(self, at: Endpoint | None, now_s: float, pause_s: float, rx_bytes: int) -> None:
        self.current, self.set_s, self._pause_s = at, now_s, pause_s
        self._rx_bytes = rx_bytes

    def hear(self, rx_bytes: int, read_s: float) -> bool:
        """Take a reading that was begun then: whether the address has answered since it was set."""
        if read_s < self.set_s:
            return False
        heard = self._rx_bytes is not None and rx_bytes > self._rx_bytes
        if heard:
            self._heard_s, self._rounds, self._pause_s = read_s, 0, TRY_S
            self._untried, self._is_complete = (), False
        self._rx_bytes = rx_bytes
        return heard

    def is_due(self, now_s: float) -> bool:
        """Whether the address had its time, and there is another."""
        had_its_time = now_s - max(self.set_s, self._heard_s) >= self._pause_s
        has_more = len(self.endpoints) > 1 or self._untried or not is_literal(self.endpoint.host)
        return had_its_time and bool(has_more)


class GoodAddresses:
    """The addresses that answered last, by tunnel, in a file that is written seldom."""

    def __init__(self, path: str, warnings: Warnings, now_s: float) -> None:
        self._path = path
        self._warnings = warnings
        self._loaded: dict[str, tuple[str, Endpoints]] | None = None
        self._is_dirty = False
        self._writes_left, self._wrote_s = float(WRITES), now_s

    @property
    def _kept(self) -> dict[str, tuple[str, Endpoints]]:
        if self._loaded is None:
            table = read_or_tell(read_table, self._path, None, self._warnings)
            rows = ((name, _parse_row(row)) for name, row in (table or {}).items())
            self._loaded = {name: kept for name, kept in rows if kept is not None}
        return self._loaded

    def __contains__(self, name: str) -> bool:
        return name in self._kept

    def of(self, name: str, endpoint: Endpoint) -> Endpoints:
        """A tunnel's, best first, as long as its endpoint is configured as it was then."""
        configured, found = self._kept.get(name, ("", ()))
        return found if configured == str(endpoint) else ()

    def note(self, name: str, endpoint: Endpoint, at: Endpoint) -> None:
        """Keep an address that answered, but for what the configuration says anyway."""
        good = self.of(name, endpoint)
        is_known = at in good or at == endpoint
        if good[:1] == (at,) or (is_known and not good):
            return
        self._kept.pop(name, None)
        self._kept[name] = (str(endpoint), tuple(dict.fromkeys((at, *good)))[:MOST_GOOD])
        self._is_dirty = self._is_dirty or not is_known
        while len(self._kept) > MOST_KEPT:
            del self._kept[next(iter(self._kept))]

    async def save_if_due(self, now_s: float) -> None:
        """Write the file where it should say something else. Raises CommandFailed, once a pause."""
        gained = (now_s - self._wrote_s) / WRITE_PAUSE_S
        if not self._is_dirty or self._writes_left + gained < 1.0:
            return
        self._writes_left = min(WRITES, self._writes_left + gained) - 1.0
        self._wrote_s, self._is_dirty = now_s, False
        rows = {
            name: {"endpoint": configured, "good": [str(each) for each in found]}
            for name, (configured, found) in self._kept.items()
        }
        data = (json.dumps(rows, indent=1) + "\n").encode()
        try:
            await asyncio.to_thread(replace_file, self._path, data)
        except OSError as error:
            self._is_dirty = True
            raise CommandFailed(
                because("addresses_unwritten", self._path, of_system(error))
            ) from error


def _parse_row(row: Any) -> tuple[str, Endpoints] | None:
    """One tunnel's row: the endpoint as configured, and the addresses that answered."""
    try:
        good = tuple(parse_endpoint(text) for text in row["good"][:MOST_GOOD])
        return str(row["endpoint"]), tuple(each for each in good if is_literal(each.host))
    except (InvalidArgument, KeyError, TypeError, AttributeError):
        return None


class EndpointAddresses:
    """The searches of all tunnels, and the file of good addresses at `path`.

    `device_towards` gives '' for an address that no route leads to: it is tried last.
    """

    def __init__(
        self,
        path: str,
        device_towards: Callable[[str], str],
        warnings: Warnings,
        clock: Callable[[], float] = time.monotonic,
        look_up: LookUp = resolve_all,
    ) -> None:
        self.clock = clock
        self.look_up = look_up
        self._device_towards = device_towards
        self._good = GoodAddresses(path, warnings, clock())
        self._searches: dict[str, _Search] = {}
        self._looked_up: dict[str, tuple[float, tuple[str, ...]]] = {}
        self._received: dict[str, int] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._searches

    def current(self, name: str) -> str:
        """The address that a tunnel's provider is tried at, '' while there is none."""
        search = self._searches.get(name)
        return search.current.host if search is not None and search.current is not None else ""

    def is_at(self, name: str, at: Endpoint) -> bool:
        """Whether the address is the one that is tried now."""
        return name in self._searches and self._searches[name].current == at

    def forget(self, name: str) -> None:
        """The tunnel is gone; what answered is kept."""
        self._searches.pop(name, None)
        self._received.pop(name, None)

    def also(self, name: str, endpoints: Iterable[Endpoint], sure: Collection[str] = ()) -> bool:
        """Other endpoints of the provider, to be tried after its own; whether it is news. The hosts
        that are `sure` are known to be its own.
        """
        return name in self._searches and self._searches[name].also(tuple(endpoints), sure)

    # --- ways in doubt

    def other_ways(self, name: str, wans: Collection[str]) -> list[Way]:
        """The ways to the addresses of the tunnel's provider that are not tried now."""
        return [way for _, way in self._others(name, wans)]

    def step_aside(
        self, name: str, doubted: Collection[Way], wans: Collection[str]
    ) -> Endpoint | None:
        """Leave an address whose way is doubted, or has none; None where no other is better."""
        search = self._searches.get(name)
        if search is None or search.current is None or not self._elsewhere(search):
            return None
        way = self._way_to(search.current)
        if way[0] and way not in doubted:
            return None
        able = (e for e, way in self._others(name, wans) if way[0] and way not in doubted)
        at = next(able, None)
        if at is not None:
            search.step(at, search.origin or search.current, *self._reading(name))
        return at

    def step_back(self, name: str) -> Endpoint | None:
        """Return to the address that was left; None where none was."""
        search = self._searches.get(name)
        origin = search.origin if search is not None else None
        if search is not None and origin is not None:
            search.step(origin, None, *self._reading(name))
        return origin

    def way(self, name: str) -> tuple[Way, float] | None:
        """The way to the address that is tried now, and since when (monotonic); None for none."""
        search = self._searches.get(name)
        if search is None or search.current is None:
            return None
        return self._way_to(search.current), search.set_s

    def way_back(self, name: str) -> tuple[Way, float] | None:
        """The way to the address that was left, and when (monotonic); None where none was.

        Its device is '' where none leads there now.
        """
        search = self._searches.get(name)
        if search is None or search.origin is None:
            return None
        return self._way_to(search.origin), search.set_s

    def _others(self, name: str, wans: Collection[str]) -> list[tuple[Endpoint, Way]]:
        """The provider's other addresses with their ways; by a device that is none of the `wans`
        only those that are surely its own.
        """
        search = self._searches.get(name)
        if search is None:
            return []
        found = ((each, self._way_to(each)) for each in self._elsewhere(search))
        return [(each, way) for each, way in found if each.host in search.sure or way[0] in wans]

    def _elsewhere(self, search: _Search) -> list[Endpoint]:
        known = (each for each in search.endpoints if is_literal(each.host))
        return [each for each in known if each != search.current]

    def _way_to(self, at: Endpoint) -> Way:
        return self._device_towards(at.host), Family.of(at.host)

    def _reading(self, name: str) -> tuple[float, int]:
        return self.clock(), self._received.get(name, 0)

    # --- searching

    async def look_up_all(self, wanted: Mapping[str, Endpoint]) -> None:
        """Look names up at the same time, for `begin` to find: without a resolver each takes its
        whole patience.
        """
        await asyncio.gather(*(self._look_up(n, e.host) for n, e in wanted.items()))

    async def begin(self, name: str, endpoint: Endpoint) -> Endpoint | None:
        """Begin the search anew: the address to try first, None where none is known."""
        before = self._searches.get(name)
        if before is not None and before.endpoint == endpoint:
            search = _Search(endpoint, before.others, before.sure, before.current)
        else:
            search = _Search(endpoint)
        found = await self._ordered(name, search)
        self._searches[name] = search
        search.begin(found, self.clock(), self._received.get(name, 0))
        return search.current

    def adopt(self, name: str, endpoint: Endpoint, address: str) -> None:
        """Somebody else has set the tunnel's address ('' for none)."""
        current = Endpoint(address, endpoint.port) if address else None
        search = self._searches[name] = _Search(endpoint, current=current)
        search.adopt(self.clock())

    def saw(self, counters: Mapping[str, PeerCounters], read_s: float) -> None:
        """Take a reading that was begun then: who was heard since its address was set."""
        self._received = {name: counted.rx_bytes for name, counted in counters.items()}
        for name, search in self._searches.items():
            counted = counters.get(name)
            if counted is None or not search.hear(counted.rx_bytes, read_s):
                continue
            if search.current is not None and str(search.current) == counted.endpoint:
                search.sure |= {search.current.host}
            if search.origin is None:
                self._note_good(name, search, counted.endpoint)

    def _note_good(self, name: str, search: _Search, live: str) -> None:
        try:
            at = parse_endpoint(live)
        except InvalidArgument:
            return
        if at.port != search.endpoint.port and at != search.current:
            at = search.current or at  # behind a translation: where it answers is not where it is
        self._good.note(name, search.endpoint, at)

    def due(self, stalled: Collection[str]) -> list[str]:
        """Those of the stalled tunnels whose present address had its time and that have another."""
        now_s, known = self.clock(), self._searches
        return [name for name in stalled if name in known and known[name].is_due(now_s)]

    async def another(self, name: str) -> Endpoint | None:
        """Go on to the tunnel's next address; None where it is the one that is set already."""
        search = self._searches[name]
        found = await self._ordered(name, search) if search.needs_addresses else ()
        if self._searches.get(name) is not search:
            return None  # begun anew meanwhile
        return search.go_on(found, self.clock(), self._received.get(name, 0))

    async def _ordered(self, name: str, search: _Search) -> Endpoints:
        """Where to try: what answered last first if it still belongs to the endpoints, then what
        the names have now, what has no way there behind it, and at last what they had before.
        """
        good, endpoints = self._good.of(name, search.endpoint), search.endpoints
        looked_up = await asyncio.gather(*(self._look_up(name, e.host) for e in endpoints))
        found = [
            Endpoint(address, endpoint.port)
            for endpoint, addresses in zip(endpoints, looked_up, strict=True)
            for address in addresses
        ]
        if len(set(found)) > 1:
            found.sort(key=lambda each: not self._device_towards(each.host))
        first = [each for each in good if each in found]
        last = [*good, *([search.current] if search.current is not None else [])]
        return tuple(dict.fromkeys((*first, *found, *last)))

    async def _look_up(self, name: str, host: str) -> tuple[str, ...]:
        if is_literal(host):
            return (host,)
        known = self._looked_up.get(host)
        if known is not None and self.clock() - known[0] < FRESH_S:
            return known[1]
        patience_s = HASTY_LOOK_UP_S if name in self._good else LOOK_UP_S
        found, now_s = tuple(await self.look_up(host, patience_s))[:MOST_ADDRESSES], self.clock()
        fresh = {h: each for h, each in self._looked_up.items() if now_s - each[0] < FRESH_S}
        self._looked_up = fresh | {host: (now_s, found)}
        return found

    async def save_if_due(self) -> None:
        """Write the file of good addresses where that is due. Raises CommandFailed."""
        await self._good.save_if_due(self.clock())
