"""How often a path is probed: often while it is suspect or in use, rarely as an idle backup.

And whether people use a WAN, by the packets that it sends: one that nobody uses is probed less. A
router that is too busy to be on time probes less too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..config.probe_profile import ProbeProfile
from ..model import Health
from ..system.proc import DeviceCounters, read_devices
from ..values import dataclass, replace
from .machine import AWAY, Phase
from .paths import WatchedPath

DEAR_S = 1.0  # between two probes that are a connection each
NEW_PATH_S = 60.0
NEW_PATH_INTERVAL_S = 1.0
AWAY_INTERVAL_S = 5.0
CONFIRM_AGE_S = 1.0  # an answer older than this is asked for anew before a switch
IDLE_PACKETS_PER_S = 1.0
TOGETHER_S = 0.05  # probes of one round: their counters are read once
LATE_S = 0.05  # a tick that comes later than this was held up
BUSY_SHARE, BUSY_WINDOW_S = 0.5, 20.0  # of the time before late ticks, and it is not one hiccup
CALM_SHARE, CALM_AFTER_S = 0.1, 300.0
LONGEST_STEP_S = 2.0  # what one tick may count for


@dataclass(frozen=True, slots=True)
class Role:
    """What a path is to its family now. `is_wanted` says that the primary may soon be left for a
    better path.
    """

    phase: Phase
    is_primary: bool
    is_active: bool
    is_wanted: bool = False


@dataclass(frozen=True, slots=True)
class Roles:
    """What each path is to one family: its primary WAN or one that shares its traffic, one that
    carries traffic, else a `backup`.
    """

    primaries: frozenset[str]
    actives: frozenset[str]
    backup: Role

    def of(self, device: str) -> Role:
        is_primary, is_active = device in self.primaries, device in self.actives
        if not (is_primary or is_active):
            return self.backup
        return replace(self.backup, is_primary=is_primary, is_active=is_active)


def interval_s(
    path: WatchedPath, role: Role, profile: ProbeProfile, check_interval_s: float, now_s: float
) -> float:
    """Seconds between two probes of the path as things stand."""
    if path.health.state is Health.SUSPECT:
        return profile.confirm_interval_s
    if role.is_primary or role.is_active:
        is_calm = role.phase is Phase.PRIMARY and path.health.state is Health.UP
        wanted_s = profile.interval_s if path.is_used or not is_calm else profile.idle_interval_s
        return max(wanted_s, DEAR_S) if path.kinds.present.is_dear else wanted_s
    answered_s = path.health.last_answer_s
    is_stale = answered_s is None or now_s - answered_s > CONFIRM_AGE_S
    if role.phase is Phase.SUSPECT and is_stale:
        return profile.confirm_interval_s
    if role.phase is Phase.STRANDED or role.is_wanted:
        return profile.interval_s
    if path.health.state is not Health.UP and now_s - path.born_s < NEW_PATH_S:
        return NEW_PATH_INTERVAL_S
    return min(check_interval_s, AWAY_INTERVAL_S) if role.phase in AWAY else check_interval_s


@dataclass(slots=True)
class Busyness:
    """Whether this router is too busy to probe at the usual pace: most ticks of the probe loop come
    late. It is again what it was once that has not been so for minutes.
    """

    is_busy: bool = False
    late_share: float = 0.0
    _noted_s: float = -math.inf
    _busy_s: float = -math.inf

    def ticked(self, lag_s: float, now_s: float) -> bool:
        """A tick came so late; whether `is_busy` has changed by that."""
        step_s = min(now_s - self._noted_s, LONGEST_STEP_S)
        self._noted_s = now_s
        self.late_share += ((lag_s > LATE_S) - self.late_share) * step_s / BUSY_WINDOW_S
        if self.late_share >= BUSY_SHARE:
            self._busy_s = now_s
        was_busy, is_late = self.is_busy, self.late_share > CALM_SHARE
        is_recent = now_s - self._busy_s < CALM_AFTER_S
        self.is_busy = self._busy_s == now_s or (was_busy and (is_late or is_recent))
        return self.is_busy is not was_busy


@dataclass(slots=True)
class Traffic:
    """Tells whether people use a device, from its packet counters less our own probes."""

    window_s: float = 10.0
    is_used: bool = True
    _packets: int | None = None
    _since_s: float = 0.0
    _own: int = 0

    def probed(self) -> None:
        self._own += 1

    def seen(self, sent_packets: int, now_s: float) -> bool:
        """Take the device's count of sent packets; whether it counts as used.

        Use is noticed at once, idleness only after a whole window.
        """
        if self._packets is None or sent_packets < self._packets:
            self._begin(sent_packets, now_s)
            return self.is_used
        others = sent_packets - self._packets - self._own
        if others > IDLE_PACKETS_PER_S * self.window_s:
            self.is_used = True
            self._begin(sent_packets, now_s)
        elif now_s - self._since_s >= self.window_s:
            self.is_used = False
            self._begin(sent_packets, now_s)
        return self.is_used

    def _begin(self, sent_packets: int, now_s: float) -> None:
        self._packets, self._since_s, self._own = sent_packets, now_s, 0


class WanUse:
    """Which devices people use. `is_used` is to be asked once for each probe that leaves."""

    def __init__(self) -> None:
        self._traffic: dict[str, Traffic] = {}
        self._sent: tuple[float, Mapping[str, DeviceCounters]] = (-math.inf, {})

    def is_used(self, device: str, now_s: float) -> bool:
        traffic = self._traffic.setdefault(device, Traffic())
        traffic.probed()
        if now_s - self._sent[0] > TOGETHER_S:
            self._sent = (now_s, read_devices())
        counted = self._sent[1].get(device)
        return traffic.seen(counted.tx_packets if counted is not None else 0, now_s)
