"""The lasting policy: what mwan3's configuration should hold of our uplinks, and nothing else's.

Steering switches; mwan3 is the safety net behind it, and what it does by itself must not stand in
the way of that. Pure: sections in, a plan out. Ours are named and marked, are appended
(mwan3 numbers interfaces by their position), and leave no trace: an owner's policy is joined by
adding a value to its list, and left by that value. Knows no health and runs no command.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..config.options import CONFIG, DEFAULT_TARGETS, MAIN_NAME
from ..config.settings import Settings
from ..errors import ConfigError
from ..model import MARK_OPTION, PEER_OPTION, Family, Uplink, alias_name, is_marked, is_own_name
from ..platform.tunnels import SectionPlan, plan_sections
from ..uci import Draft, Section, Value, export, parse
from .dialect import (
    ANYWHERE,
    RULE_NAME_LENGTH,
    Tracker,
    catch_alls,
    families_of,
    is_enabled,
    mask_of,
    number_of,
    policies_of,
    text_of,
    tracker_of,
    words_of,
)

MWAN3 = "mwan3"
NO_POLICY = "none"
HIGHEST_METRIC = 255  # mwan3.sh: DEFAULT_LOWEST_METRIC is 256, and a member must be below it


@dataclass(frozen=True, slots=True)
class Wanted:
    """Our sections in their order, and (policy, member) for each owner's policy that is joined.

    `first` names the rules that only work before every other.
    """

    sections: tuple[Section, ...] = ()
    joins: tuple[tuple[str, str], ...] = ()
    first: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do in /etc/config/mwan3."""

    sections: SectionPlan
    join: tuple[tuple[str, str], ...]
    leave: tuple[tuple[str, str], ...]
    first: frozenset[str]

    def __bool__(self) -> bool:
        return bool(self.sections or self.join or self.leave)


def wanted_mwan3(
    found: Sequence[Section], uplinks: Sequence[Uplink], settings: Settings, lines: Sequence[str]
) -> Wanted:
    """What mwan3 should hold for these uplinks.

    `lines` are netifd's names of the lines that the uplinks back up. An owner's policy is joined
    where a catch-all rule uses it and one of those lines is in it, or where `option policy` names
    it; in a family only where it has an enabled interface of the owner's, since mwan3 would send
    all of that family by the tunnel. A family without a catch-all rule gets a policy and a rule of
    ours. What was joined before stays so while a line is unknown. Raises ConfigError for what
    mwan3 can't do.
    """
    if not uplinks or not settings.auto_failover or settings.policies == (NO_POLICY,):
        return Wanted()
    return _Composer(found, uplinks, settings, lines).compose()


class _Composer:
    """The found configuration, taken apart, and what is added to it."""

    def __init__(
        self,
        found: Sequence[Section],
        uplinks: Sequence[Uplink],
        settings: Settings,
        lines: Sequence[str],
    ) -> None:
        self.found = found
        self.theirs = [section for section in found if not is_marked(section.options)]
        self.uplinks = sorted(uplinks, key=lambda uplink: (-uplink.weight, uplink.interface))
        self.settings = settings
        ours = {section.name: section for section in found if is_marked(section.options)}
        kept = [text_of(s, "interface") for s in ours.values() if s.type == "member"]
        self.lines = [*lines, *(name for name in kept if not is_own_name(name))]
        self.ours = ours.keys()
        # A list may name a member that isn't there: it must not become ours by its name.
        self.taken = {section.name for section in self.theirs}
        for policy in policies_of(self.theirs):
            self.taken.update(set(words_of(policy, "use_member")) - self.ours)

    def compose(self) -> Wanted:
        interfaces = [*self.interfaces()]
        joined = self.joined()
        lowest = self.lowest_metric(joined)
        members = [
            _marked(
                "member",
                self.free(f"{name}_m"),
                {"interface": name, "metric": str(lowest + place)},
                uplink,
            )
            for place, uplink in enumerate(self.uplinks)
            for name in _names(uplink)
        ]
        families = [family for uplink in self.uplinks for family in _carried(uplink)]
        covered = {family for rule in catch_alls(self.found) for family in families_of(rule)}
        lines = {family: self.line_interfaces(family) for family in Family}
        endpoints = [*self.endpoint_rules(lines)]
        missing = [f for f in Family if f not in covered and lines[f]]
        own = [*self.own_policies(lines, members, missing, bool(endpoints))]
        globals_ = [] if "globals" in self.taken else [_marked("globals", "globals", {})]
        sections = [*globals_, *interfaces, *members, *own, *endpoints]
        sections += [
            _marked(
                "rule",
                self.free(f"wg_uplinks_v{family.version}"),
                {
                    "family": family.value,
                    "dest_ip": ANYWHERE[family],
                    "use_policy": self.free("wg_uplinks"),
                },
            )
            for family in missing
        ]
        return Wanted(
            tuple(self.kept_places(sections)),
            tuple(
                (policy, member.name)
                for policy, joinable in joined.items()
                for family, member in zip(families, members, strict=True)
                if family in joinable
            ),
            frozenset(rule.name for rule in endpoints),
        )

    def free(self, name: str) -> str:
        """The name, or one like it, that nothing of the owner's has."""
        number, free = 1, name
        while free in self.taken:
            number += 1
            free = f"{name[: RULE_NAME_LENGTH - len(str(number))]}{number}"
        return free

    def interfaces(self) -> Iterator[Section]:
        """One a family. mwan3 finds an interface by netifd's name, so the names are given."""
        theirs = [s for s in self.theirs if s.type == "interface"]
        ours = [(uplink, family) for uplink in self.uplinks for family in _carried(uplink)]
        limit = 2 ** mask_of(self.found).bit_count() - 4
        if len(theirs) + len(ours) > limit:
            raise ConfigError(
                f"{MWAN3}: {len(theirs)} interfaces and {len(ours)} of the uplinks are more than "
                f"the {limit} that mmx_mask has room for: remove an uplink"
            )
        slowest = max((tracker_of(s).bound_s for s in theirs if is_enabled(s)), default=0)
        for uplink, family in ours:
            targets = _targets(self.settings, family)
            tracker = plan_tracker(len(targets), slowest, self.settings)
            options: dict[str, Value] = {
                "enabled": "1",
                "family": family.value,
                "track_ip": targets,
                "reliability": "1",
                "count": str(tracker.count),
                "timeout": str(tracker.timeout_s),
                "interval": str(tracker.interval_s),
                "failure_interval": str(tracker.failure_interval_s),
                "recovery_interval": str(tracker.interval_s),
                "down": str(tracker.down),
                "up": str(tracker.down),
            }
            yield _marked("interface", interface_of(uplink, family), options, uplink)

    def joined(self) -> dict[str, list[Family]]:
        """The owner's policies that our members join, each with the families in which they do."""
        named = self.settings.policies
        used = {text_of(rule, "use_policy") for rule in catch_alls(self.theirs)}
        found = {}
        for policy in policies_of(self.theirs):
            if policy.name not in (named or used):
                continue
            members = words_of(policy, "use_member")
            wanted = bool(named) or not self.ours.isdisjoint(members)
            held = self.interfaces_in(members)
            if wanted or any(interface.name in self.lines for interface in held):
                families = {text_of(s, "family", "ipv4") for s in held if is_enabled(s)}
                found[policy.name] = [f for f in Family if f.value in families]
        return {name: families for name, families in found.items() if families}

    def interfaces_in(self, members: Sequence[str]) -> list[Section]:
        """The owner's interfaces that these members are of."""
        held = {
            text_of(s, "interface") for s in self.theirs if s.type == "member" and s.name in members
        }
        return [s for s in self.theirs if s.type == "interface" and s.name in held]

    def lowest_metric(self, joined: Collection[str]) -> int:
        """The first of our metrics: behind every member of the policies that we join."""
        names = {m for p in policies_of(self.theirs) if p.name in joined for m in words_of(p)}
        members = [s for s in self.theirs if s.type == "member" and s.name in names]
        metrics = [m for s in members if (m := number_of(s, "metric", 1)) <= HIGHEST_METRIC]
        lowest = max([9, *metrics]) + 1
        if lowest + len(self.uplinks) - 1 > HIGHEST_METRIC:
            raise ConfigError(
                f"{MWAN3}: a member has metric {lowest - 1}, and the uplinks need metrics behind "
                f"it, but mwan3 takes none above {HIGHEST_METRIC}: lower the members' metrics"
            )
        return lowest

    def line_interfaces(self, family: Family) -> list[str]:
        """The owner's enabled interfaces of one family that are lines."""
        return [
            section.name
            for section in self.theirs
            if section.type == "interface"
            and section.name in self.lines
            and is_enabled(section)
            and text_of(section, "family", "ipv4") == family.value
        ]

    def endpoint_rules(self, lines: Mapping[Family, Sequence[str]]) -> Iterator[Section]:
        """Outer packets never go by a policy that a tunnel is in; names are steering's business."""
        for uplink in self.uplinks:
            try:
                version = ipaddress.ip_address(uplink.endpoint.host).version
            except ValueError:
                continue
            family = Family.IPV4 if version == 4 else Family.IPV6
            if lines[family]:
                options: dict[str, Value] = {
                    "family": family.value,
                    "proto": "udp",
                    "dest_ip": uplink.endpoint.host,
                    "dest_port": str(uplink.endpoint.port),
                    "use_policy": self.free("wg_underlay"),
                }
                yield _marked("rule", self.free(f"{uplink.interface}_e"), options, uplink)

    def own_policies(
        self,
        lines: Mapping[Family, Sequence[str]],
        members: Iterable[Section],
        missing: Sequence[Family],
        underlay: bool,
    ) -> Iterator[Section]:
        """The lines' own members and the policies made of them, as far as a rule needs them."""
        needed = [f for f in Family if underlay or f in missing]
        names = []
        for family in needed:
            for metric, line in enumerate(lines[family], start=1):
                names.append(self.free(f"wgup_{line}_m"))
                yield _marked("member", names[-1], {"interface": line, "metric": str(metric)})
        if underlay:
            yield _policy(self.free("wg_underlay"), names)
        if missing:
            all_names = [*names, *(member.name for member in members)]
            yield _policy(self.free("wg_uplinks"), all_names)

    def kept_places(self, sections: Iterable[Section]) -> Iterator[Section]:
        """The sections, and a disabled one for each that went before another of ours.

        An interface's number is its position, so one that went would move those behind it.
        """
        sections = list(sections)
        wanted = {section.name for section in sections}
        placed = [s for s in self.found if s.type == "interface" and s.name in self.ours]
        last = max((i for i, s in enumerate(placed) if s.name in wanted), default=0)
        yield from sections
        for section in placed[:last]:
            if section.name not in wanted:
                family = {"family": text_of(section, "family", "ipv4")}
                yield _marked("interface", section.name, {"enabled": "0", **family})


def plan_mwan3(wanted: Wanted, found: Sequence[Section]) -> Plan:
    """What turns the found configuration into the wanted one."""
    ours = {section.name for section in found if is_marked(section.options)}
    theirs = [policy for policy in policies_of(found) if policy.name not in ours]
    held = {(policy.name, member) for policy in theirs for member in words_of(policy)}
    return Plan(
        plan_sections(wanted.sections, found),
        tuple(pair for pair in wanted.joins if pair not in held),
        tuple(sorted(pair for pair in held if pair[1] in ours and pair not in wanted.joins)),
        wanted.first,
    )


def carry_out(plan: Plan, draft: Draft) -> None:
    """Do what the plan says."""
    for policy, member in plan.leave:
        draft.del_list(policy, "use_member", member)
    for name in plan.sections.remove:
        draft.remove_section(name)
    for section in plan.sections.write:
        rules = [rule.name for rule in draft.of_type("rule")]
        before = rules[0] if rules and section.name in plan.first else ""
        draft.set_section(section.name, section.type, section.options, before=before)
    for policy, member in plan.join:
        draft.add_list(policy, "use_member", member)


def render(wanted: Wanted) -> str:
    """The configuration for people to read; mwan3 does not read it."""
    document = parse("", file=MWAN3)
    for section in wanted.sections:
        document = document.set_section(section.name, section.type, section.options)
    joined = "".join(f"# {member} is in policy {policy}\n" for policy, member in wanted.joins)
    return f"# Made by {CONFIG} for reading: what it holds in {MWAN3}.\n{joined}" + export(
        document, MWAN3
    )


def plan_tracker(track_ips: int, underlay_s: int, settings: Settings) -> Tracker:
    """A tunnel's tracker: slower than its slowest underlay's, by failover_timeout at most.

    Two failed rounds lie further apart than mwan3 takes to see that the underlay is dead, so a
    tunnel is not given up while its packets are only about to find another way. Raises ConfigError
    where failover_timeout leaves no time for it.
    """
    limit_s = underlay_s + int(settings.failover_timeout_s)
    fastest = Tracker(track_ips, 1, underlay_s + 1, timeout_s=1, down=2)
    room_s = limit_s - fastest.bound_s
    if room_s < 0:
        raise ConfigError(
            f"{CONFIG}.{MAIN_NAME}.failover_timeout is {settings.failover_timeout_s:g} s, but "
            f"mwan3's tracker of a tunnel needs {fastest.arithmetic()}, which is more than the "
            f"{underlay_s} s of its slowest line and failover_timeout: set failover_timeout to "
            f"{fastest.bound_s - underlay_s} or more, or `option policy '{NO_POLICY}'`"
        )
    interval_s = min(1 + room_s, max(1, int(settings.check_interval_s)))
    return Tracker(track_ips, interval_s, underlay_s + 1, timeout_s=1, down=2)


def interface_of(uplink: Uplink, family: Family) -> str:
    """The name of an uplink's mwan3 interface: as long as the tunnel's, so never too long."""
    if family is Family.IPV4:
        return uplink.interface
    return alias_name(uplink.interface)


def _marked(
    section_type: str, name: str, options: Mapping[str, Value], uplink: Uplink | None = None
) -> Section:
    ours: dict[str, Value] = {**options, MARK_OPTION: "1"}
    if uplink is not None:
        ours[PEER_OPTION] = uplink.peer_id
    return Section(section_type, name, False, ours)


def _policy(name: str, members: Iterable[str]) -> Section:
    return _marked("policy", name, {"use_member": tuple(members), "last_resort": "default"})


def _carried(uplink: Uplink) -> list[Family]:
    return [family for family in Family if uplink.carries(family)]


def _names(uplink: Uplink) -> list[str]:
    return [interface_of(uplink, family) for family in _carried(uplink)]


def _targets(settings: Settings, family: Family) -> tuple[str, ...]:
    own = settings.targets_of(family)
    spare = (t for t in DEFAULT_TARGETS if (":" in t) == (family is Family.IPV6))
    return tuple(dict.fromkeys((*own, *spare)))[:2]  # one that fails by itself must not count
