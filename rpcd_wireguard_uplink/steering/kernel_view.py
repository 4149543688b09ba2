"""What the kernel's rules and routes are now, kept by its own events: each part is read anew only
once something said that it changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ..model import Family
from ..system import rtnetlink
from ..system.kernel import RoutingKernel
from ..system.netlink import Events, Message
from ..system.rtnetlink import MAIN, Route, Rule
from .plan import DIVERTING, FIRST_PATH_TABLE, MOST_SLOTS, STANDING, UNDERLAY_TABLE


@dataclass(slots=True)
class KernelView:
    """`main` are each family's routes of the main table, `ours` those of our tables, `others` the
    rest, `rules` everybody's rules, `indexes` each device's index.
    """

    kernel: RoutingKernel
    indexes: dict[str, int] = field(default_factory=dict)
    main: dict[Family, list[Route]] = field(default_factory=dict)
    ours: dict[Family, list[Route]] = field(default_factory=dict)
    others: dict[Family, list[Route]] = field(default_factory=dict)
    rules: dict[Family, list[Rule]] = field(default_factory=dict)
    _events: Events | None = None
    _stale: set[tuple[str, Family]] = field(default_factory=set)
    _devices_stale: bool = True

    def __post_init__(self) -> None:
        self.forget()

    def listen(self, on_news: Callable[[], None]) -> None:
        """Begin to hear of changes; `on_news` is to take them."""
        self._events = self.kernel.listen(on_news)

    def close(self) -> None:
        """Stop hearing."""
        if self._events is not None:
            self._events.close()
            self._events = None

    def forget(self) -> None:
        """Have everything read anew."""
        self._stale = {(what, family) for what in ("routes", "rules") for family in Family}
        self._devices_stale = True

    def take_news(self) -> bool:
        """Take what the kernel has said since; whether anything may have changed."""
        if self._events is None:
            self.forget()
            return True
        messages, lost = self._events.read()
        if lost:
            self.forget()
            return True
        for message in messages:
            self._note(message)
        return bool(self._stale) or self._devices_stale

    def _note(self, message: Message) -> None:
        if message.kind in (rtnetlink.NEWLINK, rtnetlink.DELLINK):
            self._devices_stale = True
        if message.kind in _TAKES_ROUTES:
            self._stale |= {("routes", family) for family in Family}
        elif message.kind in (rtnetlink.NEWROUTE, rtnetlink.DELROUTE):
            route = rtnetlink.parse_route(message)
            if route is not None:
                self._stale.add(("routes", route.family))
        elif message.kind in (rtnetlink.NEWRULE, rtnetlink.DELRULE):
            rule = rtnetlink.parse_rule(message)
            if rule is not None:
                self._stale.add(("rules", rule.family))

    def read(self) -> set[Family]:
        """Read what is stale; the families of which anything was. Raises CommandFailed where the
        kernel refuses.
        """
        fresh = set(Family) if self._devices_stale else {family for _, family in self._stale}
        if self._devices_stale:
            self.indexes = {d.name: d.index for d in self.kernel.devices()}
            self._devices_stale = False
        for what, family in sorted(self._stale, key=str):
            if what == "rules":
                self.rules[family] = self.kernel.rules(family)
            else:
                self._read_routes(family)
            self._stale.discard((what, family))
        return fresh

    def _read_routes(self, family: Family) -> None:
        main, ours, others = [], [], []
        for route in self.kernel.routes(family):
            if route.table == MAIN:
                main.append(route)
            elif is_our_table(route.table) and route.protocol in (STANDING, DIVERTING):
                ours.append(route)
            else:
                others.append(route)
        self.main[family], self.ours[family], self.others[family] = main, ours, others

    def expect_changes(self, family: Family) -> None:
        """We change rules and routes ourselves now."""
        self._stale |= {("routes", family), ("rules", family)}


# IPv4's routes go without a word with their device or their source (fib_flush, fib_frontend.c).
_TAKES_ROUTES = frozenset(
    {rtnetlink.NEWLINK, rtnetlink.DELLINK, rtnetlink.NEWADDR, rtnetlink.DELADDR}
)


def is_our_table(table: int) -> bool:
    """Whether the routing table is one of ours."""
    return UNDERLAY_TABLE <= table <= FIRST_PATH_TABLE + MOST_SLOTS
