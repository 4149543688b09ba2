"""The policy rules of steering, derived from everybody's rules and the plan. Pure.

Standing rules come before every rule of others, wherever those begin: the tunnels' own packets, our
bound probes, a provider's consumers, connections that their mark holds on a path.

A diversion puts a twin just before each rule that asks main (or mwan3's table of a dead WAN). The
twin has the same selectors and asks table 5180, then sends the packet past the rule itself, so that
owner's rules before main and after it are asked as ever. What has no route then comes to table
5181, at the end, or at once where the owner's own rules would refuse it.

New connections that are led to a path by their mark (LED_MARK and its slot) have such twins too,
which stand before the diversion's: they are asked for the defaults of main last, in the path's
table.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from ..model import LED_MARK, MWAN3_MASK, OUTER_MARK, PROBE_MARK, PROVIDER_DEVICE, SLOT_MASK, Family
from ..system.netlink import Message
from ..system.rtnetlink import (
    GOTO,
    LOCAL,
    MAIN,
    NO_DEFAULT,
    TO_TABLE,
    UNREACHABLE,
    Route,
    Rule,
    add_route,
    add_rule,
    delete_route,
    delete_rule,
    rule_selectors,
    with_mark,
)
from ..values import dataclass
from .plan import (
    BOUND_TABLE,
    DIVERTED_TABLE,
    DIVERTING,
    FIRST_PATH_TABLE,
    LAST_TABLE,
    MAIN_SLOT,
    STANDING,
    UNDERLAY_TABLE,
    Request,
    SteeringPlan,
)

FIRST_PRIORITY = 99
BOUND_PRIORITY = 32769
END_PRIORITY = 0xFFFFFFFE
SLOT_SHIFT = 24


def is_ours(rule: Rule) -> bool:
    return rule.protocol in (STANDING, DIVERTING)


def first_priority(others: Iterable[Rule]) -> int:
    """The preference of the standing rules: before every rule of others but `local`.

    wg-quick takes the preference below the lowest; then ours move below that.
    """
    lowest = min((r.priority for r in others if r.priority), default=FIRST_PRIORITY + 1)
    return max(0, min(FIRST_PRIORITY, lowest - 1))


def standing_rules(
    plan: SteeringPlan,
    family: Family,
    found: Sequence[Rule],
    slots: Iterable[int],
    unbound: Iterable[str] = (),
) -> list[Rule]:
    """Those that stand as long as there are uplinks. Sockets that are bound to one of the `unbound`
    WANs are led by any of them in main.
    """
    others = [rule for rule in found if not is_ours(rule)]
    first = first_priority(others)
    # Where VRFs are in use `local` stands behind the rule that asks them (the kernel's vrf.rst).
    is_local_first = any(r.table == LOCAL and r.is_plain and r.priority < first for r in others)
    about = (family, first, plan.tunnels, tuple(slots), tuple(unbound), is_local_first)
    return list(_standing(*about))


@lru_cache(maxsize=8)  # a switch asks for what it asked for before
def _standing(
    family: Family,
    first: int,
    tunnels: tuple[str, ...],
    slots: tuple[int, ...],
    unbound: tuple[str, ...],
    is_local_first: bool,
) -> tuple[Rule, ...]:
    def rule(table: int, priority: int, **selectors: object) -> Rule:
        return Rule(
            family,
            priority,
            table,
            TO_TABLE,
            rule_selectors(**selectors),  # type: ignore[arg-type]
            protocol=STANDING,
        )

    wanted = [
        rule(UNDERLAY_TABLE, first, mark=(OUTER_MARK, 0xFF)),
        *(rule(BOUND_TABLE, first, mark=(PROBE_MARK, 0xFF), output_device=w) for w in unbound),
        rule(MAIN, first, mark=(PROBE_MARK, 0xFF)),
        rule(BOUND_TABLE, first, mark=(PROBE_MARK, 0xFF)),
        rule(UNDERLAY_TABLE, first, input_device=PROVIDER_DEVICE),
        rule(MAIN, first, mark=(MAIN_SLOT << SLOT_SHIFT, SLOT_MASK)),
    ]
    if not is_local_first:  # what a provider's consumers ask of the router itself
        wanted.insert(0, rule(LOCAL, first, input_device=PROVIDER_DEVICE))
    wanted += [
        rule(path_table(slot), first, mark=(slot << SLOT_SHIFT, LED_MARK | SLOT_MASK))
        for slot in slots
    ]
    wanted += [rule(BOUND_TABLE, BOUND_PRIORITY, output_device=name) for name in tunnels]
    return tuple(wanted)


def path_table(slot: int) -> int:
    return FIRST_PATH_TABLE + slot


def diverting_rules(
    plan: SteeringPlan,
    family: Family,
    found: Sequence[Rule],
    bound_devices: Iterable[str],
    live_tables: Collection[int],
) -> list[Rule]:
    """Those of the family's diversion; none without one.

    `bound_devices` are those whose bound sockets go on asking main (DHCP, an owner's programs),
    `live_tables` the tables that lead out of a WAN that is alive: what mwan3 sends there is left
    alone.
    """
    if family not in plan.diversions:
        return []
    return _leading(plan, family, found, bound_devices, live_tables, _DIVERTED)


def led_rules(
    plan: SteeringPlan,
    family: Family,
    found: Sequence[Rule],
    bound_devices: Iterable[str],
    live_tables: Collection[int],
    slots: Mapping[str, int],
) -> list[Rule]:
    """Those for new connections that their mark leads to one of the plan's `led` paths, whose
    `slots` these are; none without such a path.
    """
    marks = [
        (LED_MARK | slots[name] << SLOT_SHIFT, LED_MARK | SLOT_MASK, path_table(slots[name]))
        for name in plan.led_paths(family)
        if name in slots
    ]
    if not marks:
        return []
    has_copy = bool(plan.primary.get(family)) or family in plan.diversions
    copy = DIVERTED_TABLE if has_copy else MAIN
    way = _Way(STANDING, (LED_MARK, LED_MARK), tuple(marks), copy, NO_DEFAULT)
    return _leading(plan, family, found, bound_devices, live_tables, way)


@dataclass(frozen=True, slots=True)
class _Way:
    """How twins lead: the `mark` and mask of what they are for, the table that they ask instead of
    main, with these attributes more, and the tables at the `ends`, each with a mark and a mask.
    """

    protocol: int
    mark: tuple[int, int]
    ends: tuple[tuple[int, int, int], ...]
    copy: int = DIVERTED_TABLE
    more: tuple[tuple[int, bytes], ...] = ()


_DIVERTED = _Way(DIVERTING, (0, 0), ((0, 0, LAST_TABLE),))


def _leading(
    plan: SteeringPlan,
    family: Family,
    found: Sequence[Rule],
    bound_devices: Iterable[str],
    live_tables: Collection[int],
    way: _Way,
) -> list[Rule]:
    others = [rule for rule in found if not is_ours(rule) and rule.priority]
    bound = [rule_selectors(output_device=name) for name in sorted(bound_devices)]
    led = [r for r in others if _asks_main(r) or _asks_dead_wan(r, plan.marks, live_tables)]
    entries = {r.priority for r in others} | {r.priority - 1 for r in led}
    wanted = [
        twin
        for p in sorted({r.priority for r in led})
        for twin in _twins(led, p, p - 1, bound, way)
    ]
    wanted = [_aimed(rule, entries, way) if rule.action == GOTO else rule for rule in wanted]
    last = Rule(family, END_PRIORITY, protocol=way.protocol)
    return list(dict.fromkeys([*wanted, *_ends(last, way)]))


def _ends(rule: Rule, way: _Way) -> list[Rule]:
    """A rule as it asks the tables that have the last word."""
    found = []
    for mark, mask, table in way.ends:
        marked = with_mark(rule, mark, mask)
        found += [replace(marked, table=table)] if marked is not None else []
    return found


def _asks_main(rule: Rule) -> bool:
    return rule.action == TO_TABLE and rule.table == MAIN


def _asks_dead_wan(rule: Rule, marks: Collection[int], live_tables: Collection[int]) -> bool:
    """Whether it is mwan3's for the traffic of a WAN, and leads out of none that is alive."""
    mark, mask = rule.mark
    is_wans = mask == MWAN3_MASK and mark != 0 and mark in marks
    return is_wans and rule.table not in live_tables


def _twins(
    led: Sequence[Rule],
    priority: int,
    at: int,
    bound: Collection[tuple[tuple[int, bytes], ...]],
    way: _Way,
) -> list[Rule]:
    """What asks table 5180 at preference `at` instead of the rules at `priority`.

    A packet can't be sent into the middle of a preference: the twins of rules that follow at once
    are asked here too, before it is sent past all of them (`target` 0: the last one's preference).
    """
    made: list[Rule] = []
    past: list[Rule] = []
    for rule in (rule for rule in led if rule.priority == priority):
        unmarked = replace(rule, priority=at, action=TO_TABLE, protocol=way.protocol)
        before = with_mark(unmarked, *way.mark)
        if before is None:
            continue
        plain = rule.is_plain and _asks_main(rule)
        if plain and not rule.suppressed:
            made += [replace(_and(before, selectors), table=MAIN) for selectors in bound]
        copied = before if rule.suppressed else _and(before, way.more)
        made.append(replace(copied, table=way.copy))
        if not plain:
            made += _ends(unmarked, way)
        if _asks_main(rule):
            past.append(replace(before, table=0, action=GOTO, target=priority))
    following = _twins(led, priority + 1, at, bound, way) if made else []
    last = max((rule.target for rule in following), default=priority)
    return made + following + [replace(rule, target=last) for rule in past]


def _and(rule: Rule, more: tuple[tuple[int, bytes], ...]) -> Rule:
    return replace(rule, selectors=tuple(sorted(rule.selectors + more)))


def _aimed(rule: Rule, entries: Iterable[int], way: _Way) -> Rule:
    """The rule that sends a packet on behind its target, to a rule of others or to its twin."""
    able = [each for each in (*entries, BOUND_PRIORITY, END_PRIORITY) if each > rule.target]
    if not able:  # nothing is behind
        return replace(rule, action=TO_TABLE, table=way.ends[0][2], target=0)
    return replace(rule, target=min(able))


def policy_sources(found: Iterable[Rule]) -> tuple[set[str], set[str], bool]:
    """What the owner leads elsewhere by rules of his own: input devices, source prefixes, and
    whether name look-ups are among it (by port). Rules that only ask main do not count.
    """
    devices: set[str] = set()
    sources: set[str] = set()
    ports = False
    for rule in found:
        if is_ours(rule) or rule.action != TO_TABLE or rule.table in (MAIN, 253, 255):
            continue
        if rule.input_device and rule.input_device != "lo":
            devices.add(rule.input_device)
        if rule.source:
            sources.add(rule.source)
        ports = ports or rule.has_ports
    return devices, sources, ports


def overtaken(found: Iterable[Rule]) -> set[int]:
    """The preferences at which a rule of others has come to stand behind one of ours."""
    ours: set[int] = set()
    late: set[int] = set()
    for rule in found:
        if is_ours(rule):
            ours.add(rule.priority)
        elif rule.priority in ours:
            late.add(rule.priority)
    return late


def plan_rules(
    found: Sequence[Rule], wanted: Sequence[Rule], late: Collection[int] = ()
) -> tuple[list[Request], list[Request], list[Request]]:
    """What turns found rules of ours into the wanted ones: rules of new preferences, of those where
    some stood already, and those that go.

    What a rule sends packets on to is there before it and goes after it; the standing rules are
    there first and go last.

    Of one preference the order counts, and the kernel puts a new rule behind the others: what
    stands behind a new one is taken away and put back, and so are those of the preferences `late`,
    where others' rules are to be asked before ours.
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
        if had == want and priority not in late:
            continue
        same = 0
        most = 0 if priority in late else min(len(had), len(want))
        while same < most and had[same] == want[same]:
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


def route_signal() -> list[Message]:
    """A route that comes and goes, so that who looks ways up again when routes change does so now.

    wireguard-go keeps the source of its packets until then (conn's sticky sockets); it hears of
    routes of IPv4, not of rules (device/sticky_linux.go).
    """
    route = Route(Family.IPV4, LAST_TABLE, "192.0.0.8/32", (), 1, UNREACHABLE, STANDING)
    return [add_route(route), delete_route(route)]
