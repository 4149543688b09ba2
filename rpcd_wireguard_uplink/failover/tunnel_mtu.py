"""Has each tunnel's MTU follow what passes it: when it is searched for, and what comes of that.

Searched when a tunnel comes up or is chosen, when its underlay changes, and rarely: each of these
is some kilobytes. A limit holds for one underlay; while the tunnel is idle it is lifted now and
then, to see whether it is still there. Sends by the paths' own probers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import field, replace

from ..model import LEAST_MTU, Health, PathKind, Uplink
from ..platform.network_reader import NetworkReader
from ..probing.mtu_search import NEVER_S
from ..values import dataclass
from .paths import PathSet, WatchedPath

ACTIVE_S = 15.0  # a hundredth of what the probes of a path in use take
IDLE_S = 3600.0
SOON_S = 60.0  # after a search that found nothing out, or a fault
REFERENCE_S = 2.0  # until a target must have answered by another path
WAIT_S = 1.0
LOOK_S = 1.0  # unless a step is due, or another tunnel is chosen
SETTLE_S = 1.0  # a device's new MTU is read again by then


@dataclass(slots=True)
class _Tunnel:
    """One tunnel: the path that its search goes by, since when that is up, and over what.

    `has_asked` says that its targets were asked for large answers by other paths, `tried_s` when
    the whole MTU was tried.
    """

    path: WatchedPath
    alive_since_s: float | None = None
    underlay: str = ""
    is_active: bool = False
    has_asked: bool = False
    tried_s: float = 0.0

    def notice(self, underlay: str, is_active: bool, now_s: float) -> None:
        """See what makes a search due: that the path is new, or up again, or newly chosen."""
        search, since_s = self.path.mtu, self.path.health.alive_since_s
        underlay = underlay or self.underlay
        if underlay != self.underlay and self.underlay:
            search.forget()
        is_chosen = is_active and not self.is_active
        if since_s != self.alive_since_s or underlay != self.underlay or is_chosen:
            search.interrupt()
            search.schedule(now_s)
        self.alive_since_s, self.underlay, self.is_active = since_s, underlay, is_active

    def step(self, mtu: int, paths: PathSet, now_s: float) -> bool:
        """Take the step that is due; whether the MTU is to be changed. `mtu` is the device's."""
        path, search = self.path, self.path.mtu
        if not search.is_running:
            if search.limit and not self.is_active and now_s >= self.tried_s + IDLE_S:
                search.lift_limit()  # is it still there?
                search.schedule(now_s + SETTLE_S)
                return True
            if not mtu:
                search.schedule(now_s + SOON_S)
                return False
            search.begin(mtu)
            self.tried_s = self.tried_s if search.limit else now_s
        sizes = search.step(max(WAIT_S, 2 * (path.health.round_trip.smoothed_s or 0.0)), now_s)
        if not sizes:
            return self._conclude(paths, now_s)
        able = path.health.targets.able() or list(path.health.addresses)
        target = able[search.turn % len(able)]
        for size in sizes:
            path.send_large(target, size)
        return False

    def _conclude(self, paths: PathSet, now_s: float) -> bool:
        search = self.path.mtu
        proven = frozenset().union(*(path.mtu.proven for path in paths.values()))
        changed = search.conclude(proven)
        if search.is_open and not search.tried & proven and not self.has_asked:
            self.has_asked = True
            self._ask_elsewhere(paths)
            search.schedule(now_s + REFERENCE_S)
            return changed
        self.has_asked = False
        pause_s = ACTIVE_S if self.is_active else IDLE_S
        search.schedule(now_s + (SOON_S if search.fault else pause_s))
        return changed

    def _ask_elsewhere(self, paths: PathSet) -> None:
        """Do the targets answer large probes at all? Ask them by other paths that are up."""
        for other in paths.values():
            is_able = other.family is self.path.family and other.health.state is Health.UP
            if other is not self.path and is_able:
                for target in self.path.mtu.tried:
                    other.send_large(target, LEAST_MTU)


@dataclass(eq=False, repr=False)
class MtuWatch:
    """The MTU of all tunnels. `due_s` is when the next step of a search that runs is due."""

    _paths: PathSet
    _network: NetworkReader
    due_s: float = NEVER_S
    _looked_s: float = -NEVER_S
    _active: Collection[str] = ()
    _tunnels: dict[str, _Tunnel] = field(default_factory=dict)

    def fit(self, uplinks: Iterable[Uplink]) -> tuple[Uplink, ...]:
        """The uplinks with the MTU that is known to pass."""
        limits = {device: tunnel.path.mtu.limit for device, tunnel in self._tunnels.items()}
        return tuple(replace(u, mtu=min(u.mtu, limits.get(u.interface) or u.mtu)) for u in uplinks)

    def fault(self, device: str) -> str:
        """Why a tunnel is of no use, '' where it is."""
        tunnel = self._tunnels.get(device)
        return tunnel.path.mtu.fault if tunnel is not None else ""

    def check(self, device: str, now_s: float) -> None:
        """Have a tunnel searched now, if it is up."""
        if device in self._tunnels:
            self._tunnels[device].path.mtu.schedule(now_s)

    def look(self, active: Collection[str], now_s: float) -> bool:
        """Take all steps that are due; whether a tunnel's MTU is to be changed."""
        is_calm = active == self._active and now_s < self.due_s
        if is_calm and now_s < self._looked_s + LOOK_S:
            return False
        self._looked_s, self._active, changed = now_s, active, False
        network = self._network.state
        for path in self._paths.values():
            if path.kind is PathKind.UPLINK and path.health.state is Health.UP:
                tunnel = self._tunnels.setdefault(path.device, _Tunnel(path))
                if tunnel.path is path:  # one family is enough
                    underlay = network.underlays.get(path.device, "")
                    tunnel.notice(underlay, path.device in active, now_s)
        for device, tunnel in list(self._tunnels.items()):
            path = tunnel.path
            if self._paths.get(path.key) is not path:
                del self._tunnels[device]
            elif path.health.state is not Health.UP:
                path.mtu.interrupt()  # it begins anew once the path answers again
            elif now_s >= path.mtu.due_s:
                changed |= tunnel.step(network.mtu_of(device), self._paths, now_s)
        searches = (tunnel.path.mtu for tunnel in self._tunnels.values())
        self.due_s = min((s.due_s for s in searches if s.is_running), default=NEVER_S)
        return changed
