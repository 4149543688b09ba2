"""The kernel's rules and routes: what is there, kept by its own events, made what the plan says.

A change by others costs what changed: the copies of main follow it route by route. A table is read
whole where events can't say what became of it: after a device or an address went (IPv4 takes its
routes without a word, fib_flush in fib_frontend.c), and where several routes share a place.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import field, replace

from ..errors import CommandFailed
from ..model import DefaultRoute, Family
from ..reasons import because, of_errno
from ..system import netlink, rtnetlink
from ..system.netlink import Message
from ..system.rtnetlink import MAIN, Kernel, Route, Rule
from ..values import dataclass
from ..warnings import Warnings
from . import rules, tables
from .plan import (
    BOUND_TABLE,
    DIVERTED_TABLE,
    DIVERTING,
    FIRST_PATH_TABLE,
    LAST_TABLE,
    MOST_SLOTS,
    STANDING,
    UNDERLAY_TABLE,
    Diversion,
    Ending,
    Request,
    SteeringPlan,
    device_of_path,
)
from .tables import Place, Table, TableCopy, plan_table

MANY_REPAIRS, REPAIRS_KEPT_S = 3, 600.0
# Programs that are known to remove rules and routes that are not theirs, as /proc names them.
_MANAGERS = frozenset(
    {"systemd-network", "NetworkManager", "netifd", "connmand", "keepalived", "dhcpcd", "firewalld"}
)
_HARMLESS = (0, errno.EEXIST, errno.ESRCH, errno.ENOENT)
_NO_WAY_NOW = (errno.ENODEV, errno.ENETDOWN, errno.ENETUNREACH, errno.EINVAL)
_ROUTING = frozenset({rtnetlink.NEWROUTE, rtnetlink.DELROUTE, rtnetlink.NEWRULE, rtnetlink.DELRULE})
_TAKES_ROUTES = frozenset(
    {rtnetlink.NEWLINK, rtnetlink.DELLINK, rtnetlink.NEWADDR, rtnetlink.DELADDR}
)


@dataclass(slots=True)
class _Found:
    """One family: the main table, our tables by number, other programs' defaults, everybody's
    rules; and what of it is stale, or has changed since the plan was last compared with it.
    """

    main: Table = field(default_factory=dict)
    defaults: list[Route] = field(default_factory=list)
    ours: dict[int, Table] = field(default_factory=dict)
    others: list[Route] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=list)
    routes_stale: bool = True
    rules_stale: bool = True
    touched: set[Place] = field(default_factory=set)  # of main
    changed: set[int] = field(default_factory=set)  # of our tables
    is_compared: bool = False

    @property
    def is_settled(self) -> bool:
        """Whether nothing has changed since the plan was compared with it."""
        return self.is_compared and not self.touched and not self.changed

    def forget(self, *, routes: bool = True, rules: bool = True) -> None:
        self.routes_stale = self.routes_stale or routes
        self.rules_stale = self.rules_stale or rules

    def settle(self) -> None:
        """The plan is being compared with it now."""
        self.touched, self.changed, self.is_compared = set(), set(), True

    def read(self, kernel: Kernel, family: Family) -> None:
        """Read what is stale. Raises CommandFailed where the kernel refuses."""
        if self.rules_stale:
            listed = kernel.rules(family)
            self.rules_stale = False
            if listed != self.rules:
                self.rules, self.is_compared = listed, False
        if self.routes_stale:
            self._read_routes(kernel.routes(family))
            self.routes_stale = False

    def _read_routes(self, routes: Iterable[Route]) -> None:
        main: Table = {}
        ours: dict[int, Table] = {}
        others = []
        for route in routes:
            if route.table == MAIN:
                main.setdefault(route.place, []).append(route)
            elif _is_ours(route):
                ours.setdefault(route.table, {}).setdefault(route.place, []).append(route)
            elif tables.is_default_like(route):
                others.append(route)
        self.touched |= _differences(self.main, main)
        numbers = ours.keys() | self.ours.keys()
        self.changed |= {n for n in numbers if _differences(self.ours.get(n, {}), ours.get(n, {}))}
        self.is_compared = self.is_compared and others == self.others
        self.main, self.ours, self.others = main, ours, others
        self.defaults = _defaults(main)

    def take_route(self, route: Route, message: Message) -> bool:
        """Take the kernel's news of a route; whether anything may have changed."""
        if self.routes_stale:
            return True
        if route.table != MAIN and not _is_ours(route):
            # It may have the place of one of ours, or be a default that mwan3's rules lead to.
            self.routes_stale = _is_our_table(route.table) or tables.is_default_like(route)
            return self.routes_stale
        table = self.main if route.table == MAIN else self.ours.setdefault(route.table, {})
        there = table.get(route.place, [])
        others = [each for each in there if each.identity != route.identity]
        is_known = len(others) < len(there)
        is_new = message.kind == rtnetlink.NEWROUTE
        if is_known is is_new:
            return False
        if others and not (is_new and len(others) == 1 and message.flags & netlink.REPLACE):
            self.routes_stale = True
            return True
        self._put(table, route, [route] if is_new else [])
        return True

    def _put(self, table: Table, route: Route, routes: list[Route]) -> None:
        before = table.pop(route.place, ())
        if routes:
            table[route.place] = routes
        if table is not self.main:
            self.changed.add(route.table)
            return
        self.touched.add(route.place)
        if any(map(tables.is_default_like, (*before, *routes))):
            self.defaults = _defaults(table)

    def learn(self, request: Request) -> None:
        """Take a change of our own that the kernel has carried out."""
        about = request.about
        if isinstance(about, Rule):
            self.rules = [*self.rules]  # what was derived from them has the list as it was
            if request.is_removal:
                self.rules.remove(about)
            else:
                behind = (n for n, r in enumerate(self.rules) if r.priority > about.priority)
                self.rules.insert(next(behind, len(self.rules)), about)
            return
        table = self.ours.setdefault(about.table, {})
        there = table.get(about.place, [])
        if request.is_removal:
            there = [route for route in there if route.identity != about.identity]
        elif request.message.flags & netlink.REPLACE:
            there = [about]
        else:
            there = [*there, about]
        table[about.place] = there
        if not there:
            del table[about.place]


@dataclass(frozen=True, slots=True)
class _RuleChanges:
    """The rules that are wanted, and what makes them so; `rests_on` is what it was derived from."""

    rests_on: tuple[object, ...]
    wanted: list[Rule] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)


@dataclass(slots=True)
class _Applied:
    """What was last asked of one family, and what the expected diversion will ask for."""

    copies: tuple[TableCopy, TableCopy] = field(
        default_factory=lambda: (TableCopy(DIVERTED_TABLE), TableCopy(UNDERLAY_TABLE))
    )
    tables: dict[int, Table] = field(default_factory=dict)
    rules: list[Rule] = field(default_factory=list)
    wish: object = None
    vpn_default: str = ""
    expected: _RuleChanges = _RuleChanges(())

    def is_new(self, wish: object) -> bool:
        """Whether this is another wish than the last one; it is the last one now."""
        before, self.wish = self.wish, wish
        return before != wish

    def refuse(self, about: Rule | Route) -> None:
        """The kernel refused a part of the wish: ask again."""
        self.wish = None
        self.tables.pop(about.table, None)

    def hold_vpn(self, name: str, *, diverted: bool) -> str:
        """The owner's VPN that has the default route, or had it until the diversion."""
        self.vpn_default = name or (self.vpn_default if diverted else "")
        return self.vpn_default


class Routing:
    """One router's rules and routes. `indexes` are the devices' by name."""

    def __init__(self, kernel: Kernel, warnings: Warnings) -> None:
        self.indexes: dict[str, int] = {}
        self._kernel = kernel
        self._warnings = warnings
        self._found = {family: _Found() for family in Family}
        self._applied = {family: _Applied() for family in Family}
        self._devices_stale = True
        self._events: netlink.Events | None = None
        self._repaired_s: list[float] = []
        self._is_untold = False

    # --- what is there

    def listen(self, on_news: Callable[[], None]) -> None:
        """Begin to hear of changes; `on_news` is to take them."""
        self._events = self._kernel.listen(on_news)

    def close(self) -> None:
        if self._events is not None:
            self._events.close()
            self._events = None

    def take_news(self) -> bool:
        """Take what the kernel has said since; whether anything may have changed."""
        messages, lost = ([], True) if self._events is None else self._events.read()
        if lost:
            self.forget()
            return True
        own = self._kernel.port
        changed = False
        for message in messages:
            if message.kind in _ROUTING and own and message.port == own:
                continue  # our own changes are known
            changed = self._take(message) or changed
        return changed

    def forget(self) -> None:
        self._devices_stale = True
        for found in self._found.values():
            found.forget()

    def _take(self, message: Message) -> bool:
        if message.kind in _TAKES_ROUTES:
            if message.kind in (rtnetlink.NEWLINK, rtnetlink.DELLINK):
                self._devices_stale = True
            for found in self._found.values():
                found.forget(rules=False)
            return True
        if message.kind in (rtnetlink.NEWROUTE, rtnetlink.DELROUTE):
            route = rtnetlink.parse_route(message)
            return route is not None and self._found[route.family].take_route(route, message)
        if message.kind in (rtnetlink.NEWRULE, rtnetlink.DELRULE):
            rule = rtnetlink.parse_rule(message)
            if rule is None:
                return False
            self._found[rule.family].forget(routes=False)
            return True
        return False

    def read(self) -> None:
        """Read what is stale. Raises CommandFailed where the kernel refuses."""
        if self._devices_stale:
            self.indexes = {device.name: device.index for device in self._kernel.devices()}
            self._devices_stale = False
        for family, found in self._found.items():
            found.read(self._kernel, family)

    def holds_ours(self, protocol: int | None = None) -> set[Family]:
        """The families in which the kernel has rules or routes of ours (or of that protocol)."""
        self.take_news()
        self.read()
        return {
            family
            for family, found in self._found.items()
            if any(r.protocol == protocol if protocol else rules.is_ours(r) for r in found.rules)
            or (protocol is None and any(found.ours.values()))
        }

    def rules(self) -> list[Rule]:
        return [rule for found in self._found.values() for rule in found.rules]

    def leads_by(self, devices: Iterable[str]) -> bool:
        """Whether a default route that is not ours, in any table, leads to one of these devices."""
        wanted = {self.indexes[name] for name in devices if name in self.indexes}
        defaults = (r for found in self._found.values() for r in (*found.defaults, *found.others))
        return any(hop.index in wanted for route in defaults for hop in route.hops)

    # --- as the plan says

    def follow(self, plan: SteeringPlan, slots: Mapping[Family, Mapping[str, int]]) -> set[Family]:
        """Make rules and routes what the plan says; the families of which others had removed rules.

        `slots` are each family's paths that something is led into by its mark. Without tunnels
        everything of ours goes. Raises CommandFailed where the kernel refuses what traffic depends
        on.
        """
        self.take_news()
        self.read()
        requests: list[Request] = []
        asked_before: dict[Family, list[Rule]] = {}
        for family in Family:
            plan = self._hold_back(plan, family)
        for family, found in self._found.items():
            if not found.rules:
                continue  # the family is off
            wish = (plan.of(family), slots.get(family, {}), self.indexes)
            is_new = self._applied[family].is_new(wish)
            if found.is_settled and not is_new:
                continue
            asked_before[family] = self._applied[family].rules
            requests += self._compare(plan, family, slots.get(family, {}))
            found.settle()
        if requests:
            try:
                codes = self._kernel.change([request.message for request in requests])
            except CommandFailed:
                self.forget()
                for applied in self._applied.values():
                    applied.tables.clear()
                raise
            for request, code in zip(requests, codes, strict=True):
                self._learn(request, code)
            self._is_untold = self._is_untold or any(isinstance(r.about, Rule) for r in requests)
            self._judge(requests, codes)
        removed = {f for f, asked in asked_before.items() if _are_put_back(requests, f, asked)}
        if removed:
            self.note_repair()
        return removed

    def tell(self) -> None:
        """Have who looks ways up again at news of routes do so, where rules have changed."""
        if self._is_untold:
            self._kernel.change(rules.route_signal())
            self._is_untold = False

    def _compare(
        self, plan: SteeringPlan, family: Family, slots: Mapping[str, int]
    ) -> list[Request]:
        """What is to be asked for."""
        found = self._found[family]
        changes = self._rule_changes(plan, family, slots)
        added: list[Request] = []
        removed: list[Request] = []
        wishes = self._wanted_tables(plan, family, slots)
        applied = self._applied[family]
        for number in found.ours.keys() - wishes.keys():
            wishes[number] = ({}, None)
        for number, (table, places) in wishes.items():
            is_ready = number not in found.changed and applied.tables.get(number) is table
            if is_ready and places is None and number not in _COPIES:
                continue
            is_narrow = is_ready and places is not None
            more, less = plan_table(
                found.ours.get(number, {}), table, places if is_narrow else None
            )
            added += more
            removed += less
            applied.tables[number] = table
        applied.rules = changes.wanted
        return [*added, *changes.requests, *removed]

    def prepare(self, plan: SteeringPlan, slots: Mapping[Family, Mapping[str, int]]) -> None:
        """Derive now the rules that the death of each family's primary will ask for."""
        for family, primary in plan.primary.items():
            if family not in plan.diversions and plan.tunnels and self._found[family].rules:
                by = DefaultRoute(family, plan.preferred)  # by which path is the tables' matter
                diversions = {family: Diversion(family, (primary,), by)}
                expected = replace(plan, diversions=diversions)
                self._applied[family].expected = self._rule_changes(
                    expected, family, slots.get(family, {})
                )

    def _rule_changes(
        self, plan: SteeringPlan, family: Family, slots: Mapping[str, int]
    ) -> _RuleChanges:
        found, diversion = self._found[family], plan.diversions.get(family)
        rests_on = (
            diversion and diversion.dead,
            plan.led_paths(family),
            plan.tunnels,
            plan.known(family),
            plan.routed.get(family),
            plan.marks,
            dict(slots),
            self.indexes,
            found.rules,
            found.defaults,
            found.others,
        )
        expected = self._applied[family].expected
        if rests_on == expected.rests_on:
            return expected
        wanted = self._wanted_rules(plan, family, slots)
        ours = [rule for rule in found.rules if rules.is_ours(rule)]
        new, changed, gone = rules.plan_rules(ours, wanted, rules.overtaken(found.rules))
        return _RuleChanges(rests_on, wanted, [*new, *changed, *gone])

    def _wanted_rules(
        self, plan: SteeringPlan, family: Family, slots: Mapping[str, int]
    ) -> list[Rule]:
        if not plan.tunnels:
            return []
        found = self._found[family]
        unbound = tables.unbound_wans(plan, family, found.defaults, self.indexes)
        wanted = rules.standing_rules(plan, family, found.rules, slots.values(), unbound)
        if family not in plan.diversions and not plan.led_paths(family):
            return wanted
        names = {index: name for name, index in self.indexes.items()}
        bound = {names[h.index] for r in found.defaults for h in r.hops if h.index in names}
        bound = (bound | plan.known(family)) - {*plan.tunnels}
        diversion = plan.diversions.get(family)
        dead = diversion.dead if diversion is not None else (plan.primary.get(family, ""),)
        live = {self.indexes.get(d) for d in plan.routed.get(family, ()) if d not in dead}
        live_tables = {r.table for r in found.others if any(h.index in live for h in r.hops)}
        about = (plan, family, found.rules, bound, live_tables)
        return wanted + rules.led_rules(*about, slots) + rules.diverting_rules(*about)

    def _wanted_tables(
        self, plan: SteeringPlan, family: Family, slots: Mapping[str, int]
    ) -> dict[int, tuple[Table, Iterable[Place] | None]]:
        """Each table by number, with the places of it that may differ (None: any)."""
        if not plan.tunnels:
            self._applied[family] = _Applied()
            return {}
        found, indexes = self._found[family], self.indexes
        diverted, underlay = self._applied[family].copies
        portals = tables.portal_routes(plan, family, indexes)
        unbound = tables.unbound_wans(plan, family, found.defaults, indexes)
        how = tables.diverted_copy(plan, family, found.defaults, indexes)
        under = tables.underlay_copy(plan, family, found.defaults, indexes)
        ways = tables.underlay_defaults(plan, family, found.defaults, indexes)
        places = diverted.follow(how, portals if how else [], found.main, found.touched)
        underlay_places = underlay.follow(under, ways, found.main, found.touched)
        wanted: dict[int, tuple[Table, Iterable[Place] | None]] = {
            DIVERTED_TABLE: (diverted.table, places),
            UNDERLAY_TABLE: (underlay.table, underlay_places),
            LAST_TABLE: (tables.last_table(plan, family, indexes), None),
            BOUND_TABLE: (tables.bound_table(plan, family, indexes, unbound), None),
        }
        for path, slot in slots.items():
            number, device = rules.path_table(slot), device_of_path(path)
            wanted[number] = (tables.path_table(plan, family, device, number, indexes), None)
        return wanted

    def _learn(self, request: Request, code: int) -> None:
        """Take a change of our own that the kernel has carried out; else it is to be read."""
        about = request.about
        found = self._found[about.family]
        if code:
            found.forget(routes=isinstance(about, Route), rules=isinstance(about, Rule))
            self._applied[about.family].refuse(about)
        else:
            found.learn(request)

    def _judge(self, requests: Sequence[Request], codes: Sequence[int]) -> None:
        for request, code in zip(requests, codes, strict=True):
            if code in _HARMLESS or request.is_removal:
                continue
            about = request.about
            said = of_errno(code, os.strerror(code))
            if isinstance(about, Rule):
                raise CommandFailed(because("rule_refused", about.priority, said))
            if about.table == DIVERTED_TABLE and about.destination:
                told = because("route_not_copied", about.destination, said)
                self._warnings.set("route", told)
            elif code not in _NO_WAY_NOW:
                raise CommandFailed(because("route_refused", about.table, said))

    # --- an owner's VPN

    def _hold_back(self, plan: SteeringPlan, family: Family) -> SteeringPlan:
        """The plan, with the diversion refused where an owner's VPN had the default route until the
        outage: nothing may leave in clear then.
        """
        diversion, name = plan.diversions.get(family), self._private_default(plan, family)
        vpn = self._applied[family].hold_vpn(name, diverted=diversion is not None)
        is_held = diversion is not None and not name and bool(vpn)
        told = because("vpn_gone", vpn, family.value) if is_held else ""
        self._warnings.set(f"vpn {family.value}", told)
        if diversion is None or not is_held:
            return plan
        held: dict[Family, Diversion] = {**plan.diversions}
        held[family] = replace(diversion, ending=Ending.UNREACHABLE)
        return replace(plan, diversions=held)

    def _private_default(self, plan: SteeringPlan, family: Family) -> str:
        """The owner's tunnel that has a default route now; '' where none has."""
        private = {self.indexes.get(name, 0): name for name in plan.private}
        hops = (hop for route in self._found[family].defaults for hop in route.hops)
        return next((private[hop.index] for hop in hops if hop.index in private), "")

    # --- repairs

    def note_repair(self) -> None:
        """Something of ours was removed by others: warn where that happens again and again."""
        now_s = time.monotonic()
        self._repaired_s = [s for s in self._repaired_s if now_s - s < REPAIRS_KEPT_S] + [now_s]
        if len(self._repaired_s) < MANY_REPAIRS:
            return
        who = ", ".join(running_managers()) or "another program"
        minutes = f"{REPAIRS_KEPT_S / 60:g}"
        self._warnings.set("repairs", because("repairs", len(self._repaired_s), minutes, who))


_COPIES = (DIVERTED_TABLE, UNDERLAY_TABLE)


def _is_our_table(table: int) -> bool:
    return UNDERLAY_TABLE <= table <= FIRST_PATH_TABLE + MOST_SLOTS


def _are_put_back(requests: Iterable[Request], family: Family, asked: Collection[Rule]) -> bool:
    """Whether rules that were asked for before are asked for again: somebody has removed them."""
    rules = [r for r in requests if isinstance(r.about, Rule) and r.about.family is family]
    moved = {r.about for r in rules if r.is_removal}
    return not {r.about for r in rules if not r.is_removal}.isdisjoint({*asked} - moved)


def _is_ours(route: Route) -> bool:
    """Whether we made the route: an owner may use a number of our tables."""
    return _is_our_table(route.table) and route.protocol in (STANDING, DIVERTING)


def _defaults(main: Table) -> list[Route]:
    return [route for routes in main.values() for route in routes if tables.is_default_like(route)]


def _differences(before: Table, now: Table) -> set[Place]:
    """The places at which two tables differ."""
    return {
        place
        for place in before.keys() | now.keys()
        if [r.identity for r in before.get(place, ())] != [r.identity for r in now.get(place, ())]
    }


def running_managers(proc: str = "/proc") -> list[str]:
    """The names of running programs that manage a machine's network."""
    found = set()
    for entry in os.listdir(proc):
        if entry.isdigit():
            with contextlib.suppress(OSError), open(f"{proc}/{entry}/comm", "rb") as file:
                name = file.read(64).decode("ascii", "replace").strip()
                if name in _MANAGERS:
                    found.add("systemd-networkd" if name == "systemd-network" else name)
    return sorted(found)
