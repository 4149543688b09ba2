"""What steering is to do, as one frozen value: the wish that the controller makes true.

A diversion takes dead WANs out of the kernel's own routing and gives what is left without a route
to one path. Each path has a table of its own, so that connections can be led into it by their mark
(draining) whatever else happens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from ..model import DefaultRoute, Family

UNDERLAY_TABLE = 5179  # for the tunnels' own packets and a provider's consumers
DIVERTED_TABLE = 5180  # main without the dead WANs
LAST_TABLE = 5181  # where what then has no route goes
BOUND_TABLE = 5182  # for sockets that are bound to a tunnel
FIRST_PATH_TABLE = 5200  # a table for each path, by its slot

STANDING, DIVERTING = 151, 152  # routing protocol numbers that mark rules and routes as ours

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
class Owned:
    """Which devices are what: `tunnels` to providers and the `private` tunnels of the owner (a VPN,
    the mesh), which are no WANs. `wans` are each family's, best first, with gone ones.
    """

    tunnels: tuple[str, ...] = ()
    private: frozenset[str] = frozenset()
    wans: Mapping[Family, tuple[DefaultRoute, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SteeringPlan:
    """The whole wish. `dead` are the WANs that answer nothing, for the order of underlays;
    `expected` those that a diversion would take out next, so that its table is there before.
    `portals` are addresses that stay on their WAN (device -> addresses), `resolvers` those that are
    reached inside each tunnel.
    """

    owned: Owned = Owned()
    dead: Mapping[Family, frozenset[str]] = field(default_factory=dict)
    expected: Mapping[Family, tuple[str, ...]] = field(default_factory=dict)
    diversions: Mapping[Family, Diversion] = field(default_factory=dict)
    portals: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    resolvers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
