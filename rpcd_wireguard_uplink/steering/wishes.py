"""What the state of each family asks of steering: a diversion, a block, or nothing. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from ..failover.machine import AWAY, Phase, State
from ..model import Family, is_own_name
from ..system.network import NetworkState
from .plan import Diversion


def diversion_of(
    state: State,
    network: NetworkState,
    family: Family,
    primary: str,
    dead: Collection[str],
    used: Collection[str],
) -> Diversion | None:
    """The diversion of a family whose primary WAN is `primary`, in this state; None: none.

    While the primary carries the traffic, another dead WAN may still have a share of it (balanced
    defaults, routes of its own): `used` are the WANs that have one, and theirs goes by the primary.
    """
    known = network.wans[family].known
    if state.phase in AWAY and state.active != primary:
        moved = tuple(d for d in known if d != state.active and (d == primary or d in dead))
        return Diversion(family, moved, replace(network.route_of(state.active, family), metric=0))
    if state.phase in AWAY or primary not in known or primary in dead:
        return None
    shares = tuple(d for d in known if d != primary and d in dead and d in used)
    if not shares:
        return None
    return Diversion(family, shares, replace(network.route_of(primary, family), metric=0))


def blocked_of(
    states: Mapping[Family, State],
    network: NetworkState,
    family: Family,
    dead: Collection[str],
    portals: Collection[str],
    *,
    fail_closed: bool,
) -> Sequence[str]:
    """The dead paths by which nothing of the family may leave.

    The WANs, and the uplink that was used last, of a family with no live path at all, where the
    owner wants that (`fail_closed`), or while the other family uses an uplink, which can't carry
    this one: hosts take the other family
    at once. A WAN that a captive portal holds stays open, or nobody could log in.
    """
    state = states[family]
    known = network.wans[family].known
    by_uplink = is_own_name(state.active)
    if state.phase is not Phase.STRANDED or not (by_uplink or state.active in known):
        return ()
    away = (Phase.FAILED_OVER, Phase.HOLDING)
    another = any(s.phase in away for other, s in states.items() if other is not family)
    if not (fail_closed or another):
        return ()
    shut = {d for d in known if d in dead and d not in portals}
    return tuple(sorted({*shut, state.active} if by_uplink else shut))
