"""Which path should carry the traffic of one family? State and paths in, a new state out.

All transitions live here: primary -> suspect -> failed over -> holding -> primary, and stranded
where nothing answers. No clock, no I/O: `decide` is a pure function of what it is given, and the
caller carries out what the new state says. Paths come ranked (selection.py), best first; the
primary is not among them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum

from ..config.options import Settings
from ..events import Event
from ..model import Family, Health
from ..reasons import because
from ..values import dataclass, replace


class Phase(Enum):
    DISABLED = "disabled"
    PRIMARY = "primary"
    SUSPECT = "suspect"
    FAILED_OVER = "failed_over"
    HOLDING = "holding"
    STRANDED = "stranded"


BY_HAND = because("chosen")
CALM_HOLDS = 4
AWAY = (Phase.FAILED_OVER, Phase.HOLDING, Phase.STRANDED)


@dataclass(frozen=True, slots=True)
class Path:
    """One path as the machine needs to see it. `usable` holds for backups: trusted, has the
    family, is up or not yet known to be down, and (where it travels over the primary) answers now.
    `is_wan` says that it is a WAN of the router's own, which comes before any tunnel. `refused`
    says who else would not send traffic by the primary yet, although it answers, `below_sla` why
    the primary is not good enough, although it is alive. `is_better` backups clearly are. `tier` is
    what it costs (selection.Terms); the lower one is cheaper.
    """

    name: str
    health: Health
    usable: bool = True
    cause: str = ""
    is_wan: bool = False
    alive_since_s: float | None = None
    refused: str = ""
    below_sla: str = ""
    is_better: bool = False
    tier: int = 0

    @property
    def objection(self) -> str:
        """Why traffic does not go to the primary yet, although it answers."""
        return self.refused or (because("it", self.below_sla) if self.below_sla else "")


@dataclass(frozen=True, slots=True)
class State:
    """What the machine remembers. `active` is the path that carries the traffic, `moved_s` when
    the last change was told, `flaps` how many failovers have followed closely on one another.
    """

    phase: Phase = Phase.PRIMARY
    active: str = ""
    since_s: float = 0.0
    cause: str = ""
    moved_s: float = 0.0
    good_since_s: float | None = None
    flaps: int = 0


@dataclass(frozen=True, slots=True)
class Choice:
    """The owner's choice of a path by hand, until a monotonic time. `device` is '' for the WAN."""

    device: str
    until_s: float

    def is_kept(self, decisions: Iterable[Decision]) -> bool:
        """Whether a family follows it: where it died, it is over for good."""
        return any(each.state.active == (self.device or each.primary) for each in decisions)


@dataclass(frozen=True, slots=True)
class Change:
    """A transition worth telling: kind is failover, switch, failback, stranded
    or recovered (from being stranded, without a change of path). Where `is_gentle`, the path
    that is left works: connections may finish there.
    """

    kind: str
    from_path: str
    to_path: str
    cause: str
    lasted_s: float
    is_gentle: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided of one family: its `state` with the `primary` WAN that it had ('no WAN':
    none), the devices that are `dead` and those `answering`, and the change that the state brings.
    `detection_ms` is how long the death took to be detected that caused it, -1 where none did. New
    connections leave by `early` while the primary is in doubt ('': it is not), and soon perhaps by
    `ready`. In an outage they may be `spread` over several uplinks, with their speeds in Mbit/s.
    """

    state: State
    primary: str
    dead: frozenset[str] = frozenset()
    change: Change | None = None
    detection_ms: int = -1
    answering: frozenset[str] = frozenset()
    ready: str = ""
    early: str = ""
    spread: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Move:
    """A change of one family that is to be in force, and how long its cause took to detect."""

    change: Change
    family: Family
    detection_ms: int


@dataclass(frozen=True, slots=True)
class Moved(Event):
    """A move is in force; `switch_ms` is -1 where no traffic had to be moved."""

    move: Move
    switch_ms: int


@dataclass(frozen=True, slots=True)
class Adopted:
    """What an earlier run left in force of one family: its traffic goes by `active`, not `dead`."""

    active: str
    dead: tuple[str, ...]


def decide(
    state: State,
    primary: Path,
    backups: Sequence[Path],
    settings: Settings,
    now_s: float,
    chosen: str = "",
) -> tuple[State, Change | None]:
    """The state that follows, and the change that it brings, if any.

    Nothing is given up while there is nowhere better: a dead active path stays active until
    another one is usable or the primary is back. `chosen` is the path that the owner wants by hand
    ('': none); it counts while it can be used.
    """
    away = state.phase in AWAY and state.active != primary.name
    if chosen and settings.enabled and state.phase is not Phase.STRANDED:
        if chosen == primary.name and primary.health in (Health.UP, Health.SUSPECT):
            return _stay_home_by_hand(state, primary, away, now_s)
        if any(backup.name == chosen and backup.usable for backup in backups):
            return _use_by_hand(state, primary, chosen, away, now_s)
    if not settings.enabled or not settings.auto_failover:
        phase = Phase.PRIMARY if settings.enabled else Phase.DISABLED
        cause = because("failover_off" if settings.enabled else "disabled")
        if away:
            return _move(state, phase, primary.name, "failback", cause, now_s)
        return _stay(state, phase, primary.name, cause, now_s), None
    if away:
        return _decide_away(state, primary, backups, settings, now_s)
    return _decide_home(state, primary, backups, settings, now_s)


def _stay_home_by_hand(
    state: State, primary: Path, away: bool, now_s: float
) -> tuple[State, Change | None]:
    phase = Phase.SUSPECT if primary.health is Health.SUSPECT else Phase.PRIMARY
    if away:
        state = replace(state, flaps=0)  # the owner knows better: the next failback is not held up
        return _gently(_move(state, phase, primary.name, "failback", BY_HAND, now_s))
    return _stay(state, phase, primary.name, BY_HAND, now_s), None


def _use_by_hand(
    state: State, primary: Path, chosen: str, away: bool, now_s: float
) -> tuple[State, Change | None]:
    is_good = primary.health is Health.UP and not primary.objection
    good_since_s = (
        (now_s if state.good_since_s is None else state.good_since_s) if is_good else None
    )
    if away and state.active == chosen:
        staying = _stay(state, Phase.FAILED_OVER, chosen, BY_HAND, now_s)
        return replace(staying, good_since_s=good_since_s), None
    kind = "switch" if away else "failover"
    return _gently(_move(state, Phase.FAILED_OVER, chosen, kind, BY_HAND, now_s))


def _decide_home(
    state: State, primary: Path, backups: Sequence[Path], settings: Settings, now_s: float
) -> tuple[State, Change | None]:
    if primary.health is not Health.DOWN:
        better = next((b for b in backups if b.usable and b.is_better), None)
        if primary.below_sla and better is not None:
            cause = because("worse", primary.name, primary.below_sla)
            state = replace(state, flaps=_flaps(state, settings, now_s))
            return _move(state, Phase.FAILED_OVER, better.name, "failover", cause, now_s)
        suspect = primary.health is Health.SUSPECT
        phase = Phase.SUSPECT if suspect else Phase.PRIMARY
        if state.phase is Phase.STRANDED:
            cause = because("maybe_again", primary.name)
            if primary.health is Health.UP:
                cause = because("answers_again", primary.name)
            return _move(state, phase, primary.name, "recovered", cause, now_s)
        return _stay(state, phase, primary.name, primary.cause if suspect else "", now_s), None
    best = next((b for b in backups if b.usable), None)
    if best is not None:
        cause = because("of", primary.name, primary.cause)
        state = replace(state, flaps=_flaps(state, settings, now_s))
        return _move(state, Phase.FAILED_OVER, best.name, "failover", cause, now_s)
    cause = because("nothing_else", because("of", primary.name, primary.cause))
    return _strand(state, primary.name, cause, now_s)


def _decide_away(
    state: State, primary: Path, backups: Sequence[Path], settings: Settings, now_s: float
) -> tuple[State, Change | None]:
    active = next((b for b in backups if b.name == state.active), None)
    alive = active is not None and active.usable
    if primary.health is Health.UP:
        good_since_s = state.good_since_s
        if good_since_s is None or primary.objection:
            good_since_s = now_s
        good_s = now_s - good_since_s
        if not alive or (good_s >= settings.held_s(state.flaps) and not primary.objection):
            cause: str = because("answers_instead", primary.name, state.active)
            if alive:
                cause = because("answers_for", primary.name, f"{good_s:.1f}")
            return _move(state, Phase.PRIMARY, primary.name, "failback", cause, now_s)
        cause = because("answers_again", primary.name)
        if primary.objection:
            cause = because("answers_but", primary.name, primary.objection)
        holding = _stay(state, Phase.HOLDING, state.active, cause, now_s)
        return replace(holding, good_since_s=good_since_s), None
    if primary.health is Health.DOWN:
        state = replace(state, good_since_s=None)
    if alive:
        if state.phase is Phase.STRANDED:
            cause = because("answers_again", state.active)
            return _move(state, Phase.FAILED_OVER, state.active, "recovered", cause, now_s)
        if state.phase is Phase.HOLDING and state.good_since_s is None:
            cause = because("lost_again", primary.cause)
            return _stay(state, Phase.FAILED_OVER, state.active, cause, now_s), None
        wan = None if active is None or active.is_wan else _held_wan(backups, settings, now_s)
        if wan is not None:
            cause = because("own_wan_answers", wan.name, f"{settings.hold_s:g}")
            return _move(state, Phase.FAILED_OVER, wan.name, "switch", cause, now_s)
        cheaper = None if active is None else _cheaper(active, backups, settings, now_s)
        if cheaper is not None:
            cause = because("cheaper_answers", cheaper.name, f"{settings.hold_s:g}")
            return _gently(_move(state, Phase.FAILED_OVER, cheaper.name, "switch", cause, now_s))
        return state, None
    best = next((b for b in backups if b.usable and b.name != state.active), None)
    if best is not None:
        why = active.cause if active is not None else "is gone"
        cause = because("of", state.active, why)
        return _move(state, Phase.FAILED_OVER, best.name, "switch", cause, now_s)
    if active is None and primary.health is not Health.DOWN:
        phase = Phase.SUSPECT if primary.health is Health.SUSPECT else Phase.PRIMARY
        cause = because("gone", state.active)
        return _move(state, phase, primary.name, "failback", cause, now_s)
    stays = state.active if active is not None else primary.name
    return _strand(state, stays, because("nothing_answers", primary.name), now_s)


def _flaps(state: State, settings: Settings, now_s: float) -> int:
    """How many failovers have followed closely, this one included.

    Close is within CALM_HOLDS times as long as the last failback was held up.
    """
    calm_s = CALM_HOLDS * settings.held_s(state.flaps)
    return state.flaps + 1 if state.flaps and now_s - state.moved_s < calm_s else 1


def _held_wan(backups: Sequence[Path], settings: Settings, now_s: float) -> Path | None:
    """The best WAN of the router's own that has been good for the hold time."""
    for path in backups:
        since_s = path.alive_since_s
        if (
            path.is_wan
            and path.usable
            and since_s is not None
            and now_s - since_s >= settings.hold_s
        ):
            return path
    return None


def _cheaper(
    active: Path, backups: Sequence[Path], settings: Settings, now_s: float
) -> Path | None:
    """The first backup before the active one that costs less and was good for the hold time."""
    for path in backups:
        if path.name == active.name:
            return None
        since_s = path.alive_since_s
        is_held = since_s is not None and now_s - since_s >= settings.hold_s
        if path.usable and path.tier < active.tier and is_held:
            return path
    return None


def _strand(state: State, active: str, cause: str, now_s: float) -> tuple[State, Change | None]:
    if state.phase is Phase.STRANDED and state.active == active:
        return replace(state, cause=cause), None
    return _move(state, Phase.STRANDED, active, "stranded", cause, now_s)


def _stay(state: State, phase: Phase, active: str, cause: str, now_s: float) -> State:
    if state.phase is phase and state.active == active:
        return replace(state, cause=cause)
    good_since_s = state.good_since_s if phase in AWAY else None
    return State(phase, active, now_s, cause, state.moved_s, good_since_s, state.flaps)


def _move(
    state: State, phase: Phase, to: str, kind: str, cause: str, now_s: float
) -> tuple[State, Change]:
    change = Change(kind, state.active, to, cause, max(0.0, now_s - state.moved_s))
    return State(phase, to, now_s, cause, moved_s=now_s, flaps=state.flaps), change


def _gently(moved: tuple[State, Change]) -> tuple[State, Change]:
    return moved[0], replace(moved[1], is_gentle=True)
