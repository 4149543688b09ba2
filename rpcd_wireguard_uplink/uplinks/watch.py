"""Which uplinks and WANs the monitor watches: those that are configured, trusted and there.

A peer that is not trusted carries no traffic. Also has tunnels that are silent try the other
addresses of their provider.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from ..config.store import ConfigStore
from ..events import Events, StatusChanged
from ..failover.machine import AWAY
from ..failover.monitor import Monitor
from ..failover.paths import Watch
from ..model import DEVICE_GROUP, NOT_COUNTED, Health, Uplink
from ..platform.linux import Platform
from ..values import dataclass
from ..warnings import Warnings
from .wans import Wans

STALLED_S = 180.0  # WireGuard gives a session up after 180 s (its whitepaper, section 6.1)
DEAD_S = 20.0  # it asks for a new handshake 15 s after data that nobody answered


@dataclass(eq=False, repr=False)
class WatchList:
    """What one router watches. `distrust_reason` says why a peer is not trusted ('' if it is)."""

    _platform: Platform
    _store: ConfigStore
    _wans: Wans
    _monitor: Monitor
    _distrust_reason: Callable[[str], str]
    _warnings: Warnings
    _events: Events
    _links: frozenset[str] = frozenset()
    _marks: tuple[int, ...] = ()

    @property
    def is_away(self) -> bool:
        return any(state.phase in AWAY for state in self._monitor.states.values())

    @property
    def lacks_tunnel(self) -> bool:
        """Whether a tunnel is missing, or its device was made anew by somebody else."""
        groups = {link.name: link.group for link in self._monitor.network.state.links.values()}
        wanted = self._store.current.wanted_uplinks
        return any(groups.get(uplink.interface) != DEVICE_GROUP for uplink in wanted)

    async def start(self) -> None:
        await self._find()
        await self._monitor.start(self._watch())

    async def follow(self) -> None:
        """Watch by configuration, devices and resolvers as they are, unless that is so already."""
        is_changed, known = await self._find(), self._monitor.network.state
        found = {link.index: link for link in self._platform.kernel.devices()}
        resolvers = await self._platform.read_resolvers() or known.resolvers  # no event tells
        is_changed = is_changed or [*resolvers] != [*known.resolvers]
        if is_changed or (self._watch(), found) != (self._monitor.watch, known.links):
            await self._monitor.configure(self._watch())

    async def _find(self) -> bool:
        """Find WANs and marks by their configuration; whether the marks are others than before."""
        await self._wans.find_devices()
        before, self._marks = self._marks, await self._wans.diverted_marks()
        self._monitor.lead_marks(self._marks)
        return before != self._marks

    async def follow_trust(self) -> None:
        """Watch whose peers are trusted now."""
        if self._watch() != self._monitor.watch:
            await self._monitor.configure(self._watch())
            self._events.publish(StatusChanged())

    async def follow_wans(self, *, afresh: bool = False) -> None:
        """Names of WANs may mean other devices now: PPPoE came up, a stick was put in.

        Cheap where no device came or went; `afresh` says that netifd may know more.
        """
        links = frozenset(link.name for link in self._monitor.network.state.links.values())
        if links == self._links and not afresh:
            return
        self._links = links
        if await self._wans.find_devices():
            await self._monitor.configure(self._watch())
            self._events.publish(StatusChanged())

    async def follow_endpoints(self) -> None:
        """Have tunnels that are silent try their provider's other addresses."""
        with self._warnings.catch("endpoints"):
            if await self._platform.follow_names([u.interface for u in self._silent()]):
                self._monitor.reread_soon()

    def _silent(self) -> Iterator[Uplink]:
        """Those that WireGuard hears nothing from, sooner where no probe is answered either."""
        for uplink in self._store.current.wanted_uplinks:
            counted = self._monitor.network.state.counters.get(uplink.interface, NOT_COUNTED)
            states = {path.health.state for path in self._monitor.paths.of(uplink.interface)}
            within_s = DEAD_S if states == {Health.DOWN} else STALLED_S
            if not counted.is_alive(within_s):
                yield uplink

    def _watch(self) -> Watch:
        config = self._store.current
        uplinks = (u for u in config.wanted_uplinks if not u.pending)
        trusted = tuple(u for u in uplinks if not self._distrust_reason(u.peer_id))
        settings = replace(config.settings, lines=self._wans.named)
        anchors = tuple(anchor for anchor in config.anchors if anchor.enabled)
        return Watch(settings, trusted, config.provider.enabled, anchors)
