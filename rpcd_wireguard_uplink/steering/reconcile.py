"""Found and wanted rules and routes, and the requests that make one the other. Pure.

Equal input gives no request. A route that takes another's place replaces it, so that no packet
meets a gap, and what is new comes before what goes. What a rule sends packets on to is there before
it and goes after it; the standing rules are there first and go last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..model import Family
from ..system import netlink
from ..system.netlink import Message
from ..system.rtnetlink import (
    GOTO,
    UNREACHABLE,
    Route,
    Rule,
    add_route,
    add_rule,
    delete_route,
    delete_rule,
)
from .plan import LAST_TABLE, STANDING


@dataclass(frozen=True, slots=True)
class Request:
    """One change, and what it is about, for people."""

    message: Message
    about: Route | Rule
    is_removal: bool = False


def plan_changes(
    found_routes: Iterable[Route],
    wanted_routes: Iterable[Route],
    found_rules: Sequence[Rule],
    wanted_rules: Sequence[Rule],
) -> list[Request]:
    """What turns the found rules and routes, all of them ours, into the wanted ones."""
    added, removed = _plan_routes(found_routes, wanted_routes)
    new, changed, gone = _plan_rules(found_rules, wanted_rules)
    signals = [_signal(family) for family in Family if _moves(family, [*new, *changed, *gone])]
    return [*added, *new, *changed, *gone, *removed, *(one for pair in signals for one in pair)]


def _moves(family: Family, requests: Iterable[Request]) -> bool:
    return any(request.about.family is family for request in requests)


def _signal(family: Family) -> tuple[Request, Request]:
    """A route that comes and goes, so that who looks ways up again when routes change does so now.

    wireguard-go keeps the source of its packets until then (conn's sticky sockets); it hears of
    routes, not of rules.
    """
    address = "192.0.0.8/32" if family is Family.IPV4 else "100::/128"
    route = Route(family, LAST_TABLE, address, (), 1, UNREACHABLE, STANDING)
    return Request(add_route(route), route), Request(delete_route(route), route, True)


def _plan_rules(
    found: Sequence[Rule], wanted: Sequence[Rule]
) -> tuple[list[Request], list[Request], list[Request]]:
    """Rules of new preferences, of those where some stood already, and those that go.

    Of one preference the order counts, and the kernel puts a new rule behind the others: what
    stands behind a new one is taken away and put back.
    """
    new: list[Request] = []
    changed: list[Request] = []
    gone: list[Request] = []
    by_priority: dict[int, tuple[list[Rule], list[Rule]]] = {}
    for which, rules in enumerate((found, wanted)):
        for rule in rules:
            by_priority.setdefault(rule.priority, ([], []))[which].append(rule)
    standing = {rule.priority for rule in (*found, *wanted) if rule.protocol == STANDING}
    for priority in sorted(by_priority, key=lambda each: (each not in standing, -each)):
        had, want = by_priority[priority]
        same = 0
        while same < min(len(had), len(want)) and had[same] == want[same]:
            same += 1
        while taken := [n for n in range(same) if any(_fits(r, had[n]) for r in had[same:])]:
            same = taken[0]
        removals = [Request(delete_rule(r), r, True) for r in sorted(had[same:], key=_leaving)]
        additions = [Request(add_rule(r), r) for r in want[same:]]
        if not had:
            new += additions
        elif want:
            changed += removals + additions
        else:
            gone = removals + gone
    return new, changed, gone


def _fits(asked: Rule, rule: Rule) -> bool:
    """Whether the kernel may take a rule for the one that it is asked to delete: what is not said
    fits everything (fib_rules.c, rule_find), and the first that fits goes.
    """
    alike = (asked.action, asked.table) == (rule.action, rule.table)
    return alike and {*asked.selectors} <= {*rule.selectors}


def _leaving(rule: Rule) -> int:
    """In a preference what sends packets on goes first, then what catches them; else in order."""
    return 0 if rule.action == GOTO else 1 if rule.table == LAST_TABLE else 2


def _plan_routes(
    found: Iterable[Route], wanted: Iterable[Route]
) -> tuple[list[Request], list[Request]]:
    had = {route.identity: route for route in found}
    want = {route.identity: route for route in wanted}
    new = [route for key, route in want.items() if key not in had]
    gone = {key: route for key, route in had.items() if key not in want}
    places = Counter(route.place for route in want.values()) if new else Counter()
    held: dict[object, list[Route]] = {}
    for route in had.values() if new else ():
        held.setdefault(route.place, []).append(route)
    added = []
    for route in new:
        there = held.get(route.place, [])
        if places[route.place] == 1 and len(there) == 1:
            gone.pop(there[0].identity, None)
            added.append(Request(add_route(route, netlink.REPLACE), route))
        else:
            added.append(Request(add_route(route), route))
    return added, [Request(delete_route(route), route, True) for route in gone.values()]
