"""What steering is to do, as one frozen value: the wish that the controller makes true. Pure.

A diversion takes dead WANs out of the kernel's own routing and gives what is left without a route
to one path. Each path has a table of its own, so that connections can be led into it by their mark
(draining) whatever else happens.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import field
from enum import Enum
from typing import Any

from ..config.options import Anchor
from ..failover.machine import AWAY, Phase, State
from ..model import OWN_PROTOCOLS, DefaultRoute, Family, Uplink, is_own_name
from ..system.netlink import Message
from ..system.network import NetworkState
from ..system.rtnetlink import Route, Rule
from ..values import dataclass, replace

UNDERLAY_TABLE = 5179  # for the tunnels' own packets and a provider's consumers
DIVERTED_TABLE = 5180  # main without the dead WANs
LAST_TABLE = 5181  # where what then has no route goes
BOUND_TABLE = 5182  # for sockets that are bound to a tunnel
FIRST_PATH_TABLE = 5200  # a table for each path, by its slot

STANDING, DIVERTING = OWN_PROTOCOLS

MAIN_SLOT = 1
FIRST_SLOT, MOST_SLOTS = 2, 63

LAST_METRIC = 4294967294  # `ip -6 route flush` leaves an unreachable default of one more alone


class Ending(Enum):
    """What becomes of packets that have no route once the dead WANs are taken out."""

    PATH = "path"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class Diversion:
    """One family's traffic away from `dead` WANs. `route` is the default route of the path that
    takes what has no other way; with `ending` UNREACHABLE nothing does, and it is refused.
    """

    family: Family
    dead: tuple[str, ...]
    route: DefaultRoute
    ending: Ending = Ending.PATH


@dataclass(frozen=True, slots=True)
class FilterPlan:
    """What nftables alone is to do: no rule or route follows from it.

    `prefixes` are each WAN's own networks; by the devices that are `blocked` nothing may leave.
    Connections may stay on a tunnel for `drain_s` once traffic has left it.

    `anchors` are the owner's with the tunnels that they lead to; new connections of theirs are led
    to those `anchoring`. `early` are the backups by which new connections of a family leave, while
    its WAN is in doubt; while it is diverted they may be `spread` over several, with the weight of
    each.

    `public_resolvers` serve by any path, `wan_resolvers` are those of the WANs.
    """

    prefixes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    blocked: Mapping[Family, tuple[str, ...]] = field(default_factory=dict)
    drain_s: float = 0.0
    anchors: tuple[tuple[Anchor, str], ...] = ()
    anchoring: Mapping[Family, frozenset[str]] = field(default_factory=dict)
    early: Mapping[Family, str] = field(default_factory=dict)
    spread: Mapping[Family, tuple[tuple[str, int], ...]] = field(default_factory=dict)
    public_resolvers: tuple[str, ...] = ()
    wan_resolvers: tuple[str, ...] = ()


_NO_FILTER = FilterPlan()


@dataclass(frozen=True, slots=True)
class SteeringPlan:
    """The whole wish; without tunnels nothing of ours is wanted.

    `tunnels` lead to providers, `private` are tunnels of the owner (a VPN, the mesh). `wans` are
    each family's, best first, with gone ones; those that have a default route now are `routed`, and
    `primary` is the one that a diversion takes out next, so that its table is there before. `dead`
    are the devices that answer nothing.

    `portals` are addresses that stay on their WAN (device -> addresses), `marks` mwan3's for the
    WANs' traffic.

    `led` are the paths that new connections may be led to by a mark, whatever is diverted: the
    kernel's own rules and routes come first, but for those by a WAN. Connections of anchors stay on
    a family's `anchored` tunnels.

    `resolvers` serve inside each tunnel; while nothing is diverted those of the `preferred` tunnel
    are ready.
    """

    tunnels: tuple[str, ...] = ()
    private: frozenset[str] = frozenset()
    wans: Mapping[Family, tuple[DefaultRoute, ...]] = field(default_factory=dict)
    routed: Mapping[Family, frozenset[str]] = field(default_factory=dict)
    primary: Mapping[Family, str] = field(default_factory=dict)
    dead: Mapping[Family, frozenset[str]] = field(default_factory=dict)
    diversions: Mapping[Family, Diversion] = field(default_factory=dict)
    portals: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    marks: tuple[int, ...] = ()
    led: Mapping[Family, tuple[str, ...]] = field(default_factory=dict)
    anchored: Mapping[Family, tuple[str, ...]] = field(default_factory=dict)
    resolvers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    preferred: str = ""
    filter: FilterPlan = _NO_FILTER

    def filtering(self, **changes: Any) -> SteeringPlan:
        """The plan with these changes of what nftables alone does."""
        return replace(self, filter=replace(self.filter, **changes))

    def known(self, family: Family) -> frozenset[str]:
        return frozenset(wan.device for wan in self.wans.get(family, ()))

    def led_paths(self, family: Family) -> tuple[str, ...]:
        """The paths that connections are led to by a mark; anchors' first, which stand longest."""
        anchored = map(anchor_path, self.anchored.get(family, ()))
        return (*anchored, *self.led.get(family, ()))

    def of(self, family: Family) -> SteeringPlan:
        """What rules and routes of the family follow from."""
        diversion = self.diversions.get(family)
        diversions = {} if diversion is None else {family: diversion}
        dead = {family: self.dead.get(family, frozenset())}
        return replace(self, dead=dead, diversions=diversions, filter=_NO_FILTER)

    def is_share(self, diversion: Diversion | None) -> bool:
        """Whether only another WAN's share of the traffic is moved, to the primary."""
        return diversion is not None and (
            diversion.route.device == self.primary.get(diversion.family)
        )


def anchor_path(tunnel: str) -> str:
    """What the path of a tunnel's anchored connections is called: it has a slot of its own."""
    return f"{tunnel} anchored"


def device_of_path(path: str) -> str:
    """The device of a path that has a slot."""
    return path.partition(" ")[0]


@dataclass(frozen=True, slots=True)
class Request:
    """One change of the kernel's routing, and what it is about, for people."""

    message: Message
    about: Route | Rule
    is_removal: bool = False


def plan_of(network: NetworkState, uplinks: Sequence[Uplink], wish: SteeringPlan) -> SteeringPlan:
    """The plan with what follows from the network and the uplinks as they are now."""
    wans = {}
    for family, known in network.wans.items():
        names = [route.device for route in known.routes]
        gone = [wan for wan in known.known.values() if wan.device not in names]
        wans[family] = (*known.routes, *gone)
    plan = replace(
        wish,
        tunnels=tuple(uplink.interface for uplink in uplinks),
        private=network.private,
        wans=wans,
        routed={f: frozenset(r.device for r in w.routes) for f, w in network.wans.items()},
        primary={f: w.primary.device for f, w in network.wans.items() if w.primary is not None},
        resolvers={uplink.interface: tuple(uplink.resolvers) for uplink in uplinks},
        preferred=max(uplinks, key=lambda u: u.weight).interface if uplinks else "",
    )
    return plan.filtering(
        prefixes={name: tuple(network.prefixes_of(name)) for name in network.wan_devices()},
        wan_resolvers=tuple(network.resolvers),
    )


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
    this one: hosts take the other family at once. A WAN that a captive portal holds stays open, or
    nobody could log in.
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
