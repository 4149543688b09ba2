"""What the lane should be like, given what was decided: the step from failover.py to switch.py.

Reads the monitor's view. Decides nothing and moves nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from .candidates import Watch
from .failover import AWAY, Phase, State
from .model import Family
from .routing.lane import Opening

if TYPE_CHECKING:
    from .landscape import Landscape
    from .switch import Switch


class View(Protocol):
    """What is looked at: the monitor's own view."""

    watch: Watch
    landscape: Landscape
    states: dict[Family, State]
    switch: Switch


def opening_of(view: View, family: Family, primary: str) -> Opening | None:
    """The lane as the family's state wants it; None: shut."""
    state = view.states[family]
    if state.phase not in AWAY or state.active == primary:
        return None
    known = view.landscape.lines[family].known
    dead = view.switch.dead[family]
    moved = tuple(d for d in known if d != state.active and (d == primary or d in dead))
    route = view.landscape.route_of(state.active, family)
    return Opening(family, moved, replace(route, metric=0))


def barred_of(view: View, family: Family) -> tuple[str, ...]:
    """The dead lines by which nothing of the family may leave.

    Those of a family with no live path at all, where the owner wants that (`fail_closed`), or
    while the other family uses an uplink, which can't carry this one: hosts take the other family
    at once. A line that a captive portal holds stays open, or nobody could log in.
    """
    state = view.states[family]
    known = view.landscape.lines[family].known
    if state.phase is not Phase.STRANDED or state.active not in known:
        return ()
    if not (view.watch.settings.fail_closed or _another_is_away(view.states, family)):
        return ()
    dead: Collection[str] = view.switch.dead[family]
    return tuple(sorted(d for d in known if d in dead and d not in view.landscape.portals))


def _another_is_away(states: Mapping[Family, State], family: Family) -> bool:
    away = (Phase.FAILED_OVER, Phase.HOLDING)
    return any(state.phase in away for other, state in states.items() if other is not family)
