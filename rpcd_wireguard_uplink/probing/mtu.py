"""Has each tunnel's MTU follow what passes it: when it is searched for, and what comes of that.

Searched when a tunnel comes up or is chosen, when its underlay changes, and rarely: each of these
is some kilobytes. A limit holds for one underlay; while the tunnel is idle it is lifted now and
then, to see whether it is still there. What is found goes into the uplinks that the switch is
given. Sends by the paths' own probers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace

from ..failover.paths import PathSet, WatchedPath
from ..model import LEAST_MTU, Health, PathKind, Uplink
from ..platform.network_reader import NetworkReader
from .mtu_search import NEVER_S

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


@dataclass(slots=True)
class MtuWatch:
    """The MTU of all tunnels. `due_s` is when the next step of a search that runs is due."""

    paths: PathSet
    network: NetworkReader
    due_s: float = NEVER_S
    _looked_s: float = -NEVER_S
    _active: Collection[str] = ()
    _tunnels: dict[str, _Tunnel] = field(default_factory=dict)

    def fit(self, uplinks: Iterable[Uplink]) -> tuple[Uplink, ...]:
        """The uplinks with the MTU that is known to pass."""
        return tuple(
            replace(uplink, mtu=min(uplink.mtu, self._limit(uplink.interface) or uplink.mtu))
            for uplink in uplinks
        )

    def fault(self, device: str) -> str:
        """Why a tunnel is of no use, '' where it is."""
        tunnel = self._tunnels.get(device)
        return tunnel.path.mtu.fault if tunnel is not None else ""

    def check(self, device: str, now_s: float) -> None:
        """Have a tunnel searched now, if it is up."""
        if device in self._tunnels:
            self._tunnels[device].path.mtu.due_s = now_s

    def look(self, active: Collection[str], now_s: float) -> bool:
        """Take all steps that are due; whether a tunnel's MTU is to be changed."""
        is_calm = active == self._active and now_s < self.due_s
        if is_calm and now_s < self._looked_s + LOOK_S:
            return False
        self._looked_s, self._active, changed = now_s, active, False
        for path in self.paths.values():
            if path.kind is PathKind.UPLINK and path.health.state is Health.UP:
                self._notice(path, active, now_s)
        for device, tunnel in list(self._tunnels.items()):
            path = tunnel.path
            if self.paths.get(path.key) is not path:
                del self._tunnels[device]
            elif path.health.state is not Health.UP:
                path.mtu.is_running = False  # it begins anew once the path answers again
            elif now_s >= path.mtu.due_s:
                changed |= self._step(tunnel, now_s)
        running = (t.path.mtu.due_s for t in self._tunnels.values() if t.path.mtu.is_running)
        self.due_s = min(running, default=NEVER_S)
        return changed

    def _limit(self, device: str) -> int:
        tunnel = self._tunnels.get(device)
        return tunnel.path.mtu.limit if tunnel is not None else 0

    def _notice(self, path: WatchedPath, active: Collection[str], now_s: float) -> None:
        """See what makes a search due: that the path is new, or up again, or newly chosen."""
        tunnel = self._tunnels.get(path.device)
        if tunnel is None:
            tunnel = self._tunnels[path.device] = _Tunnel(path)
        elif tunnel.path is not path:
            return  # one family is enough
        underlay = self.network.state.underlays.get(path.device) or tunnel.underlay
        since_s, is_active = path.health.alive_since_s, path.device in active
        if underlay != tunnel.underlay and tunnel.underlay:
            path.mtu.limit, path.mtu.fault = 0, ""
        newly_active = is_active and not tunnel.is_active
        if since_s != tunnel.alive_since_s or underlay != tunnel.underlay or newly_active:
            path.mtu.due_s, path.mtu.is_running = now_s, False
        tunnel.alive_since_s, tunnel.underlay, tunnel.is_active = since_s, underlay, is_active

    def _step(self, tunnel: _Tunnel, now_s: float) -> bool:
        path, search = tunnel.path, tunnel.path.mtu
        if not search.is_running:
            mtu = self.network.state.mtu_of(path.device)
            if search.limit and not tunnel.is_active and now_s >= tunnel.tried_s + IDLE_S:
                search.limit, search.due_s = 0, now_s + SETTLE_S  # is it still there?
                return True
            if not mtu:
                search.due_s = now_s + SOON_S
                return False
            search.begin(mtu)
            tunnel.tried_s = tunnel.tried_s if search.limit else now_s
        wait_s = max(WAIT_S, 2 * (path.health.smoothed_rtt_s or 0.0))
        sizes = search.step(wait_s, now_s)
        if sizes:
            self._send(path, sizes)
            return False
        return self._conclude(tunnel, now_s)

    def _send(self, path: WatchedPath, sizes: Iterable[int]) -> None:
        able = path.health.targets.able() or list(path.health.addresses)
        target = able[path.mtu.turn % len(able)]
        for size in sizes:
            sequence = path.prober.send(target, size)
            if sequence is not None:
                path.mtu.sent(sequence, size, target)

    def _conclude(self, tunnel: _Tunnel, now_s: float) -> bool:
        path, search = tunnel.path, tunnel.path.mtu
        proven = frozenset().union(*(p.mtu.proven for p in self.paths.values()))
        changed = search.conclude(proven)
        if search.is_open and not search.tried & proven and not tunnel.has_asked:
            tunnel.has_asked = True
            self._ask_elsewhere(path)
            search.due_s = now_s + REFERENCE_S
            return changed
        tunnel.has_asked = False
        pause_s = ACTIVE_S if tunnel.is_active else IDLE_S
        search.due_s = now_s + (SOON_S if search.fault else pause_s)
        return changed

    def _ask_elsewhere(self, path: WatchedPath) -> None:
        """Do the targets answer large probes at all? Ask them by other paths that are up."""
        for other in self.paths.values():
            is_able = other.family is path.family and other.health.state is Health.UP
            if other is path or not is_able:
                continue
            for target in path.mtu.tried:
                sequence = other.prober.send(target, LEAST_MTU)
                if sequence is not None:
                    other.mtu.sent(sequence, LEAST_MTU, target)
