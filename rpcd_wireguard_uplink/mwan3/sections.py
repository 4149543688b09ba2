"""The lasting policy: what mwan3's configuration should hold of our uplinks, and nothing else's.

Steering switches; mwan3 is the safety net behind it, and what it does by itself must not stand in
the way of that. Pure: sections in, a plan out. Ours are named and marked, are appended
(mwan3 numbers interfaces by their position), and leave no trace: an owner's policy is joined by
adding a value to its list, and left by that value.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from ..config.options import CONFIG, DEFAULT_TARGETS, Settings
from ..errors import ConfigError
from ..model import MARK_OPTION, PEER_OPTION, Family, Uplink, alias_name, is_marked, is_own_name
from ..platform.tunnels import SectionPlan, plan_sections
from ..reasons import because
from ..schema.endpoints import is_literal
from ..uci import Draft, Section, Value, export, parse
from ..values import dataclass
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
    tracker_of,
    words_of,
)

MWAN3 = "mwan3"
NO_POLICY = "none"
HIGHEST_METRIC = 255  # mwan3.sh: DEFAULT_LOWEST_METRIC is 256, and a member must be below it
Pairs = tuple[tuple[str, str], ...]
"""Policies of the owner with members of ours."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Our sections in their order, and the owner's policies that are joined.

    `first` names the rules that only work before every other.
    """

    sections: tuple[Section, ...] = ()
    joins: Pairs = ()
    first: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do in /etc/config/mwan3."""

    sections: SectionPlan
    join: Pairs
    leave: Pairs
    first: frozenset[str]

    def __bool__(self) -> bool:
        return bool(self.sections or self.join or self.leave)

    def apply(self, draft: Draft) -> None:
        for policy, member in self.leave:
            draft.del_list(policy, "use_member", member)
        for name in self.sections.remove:
            draft.remove_section(name)
        for section in self.sections.write:
            rules = [rule.name for rule in draft.of_type("rule")]
            before = rules[0] if rules and section.name in self.first else ""
            draft.set_section(section.name, section.type, section.options, before=before)
        for policy, member in self.join:
            draft.add_list(policy, "use_member", member)


def wanted_mwan3(
    found: Sequence[Section], uplinks: Sequence[Uplink], settings: Settings, wans: Sequence[str]
) -> Wanted:
    """What mwan3 should hold for these uplinks.

    `wans` are netifd's names of the WANs that the uplinks back up. An owner's policy is joined
    where a catch-all rule uses it and one of those WANs is in it, or where `option policy` names
    it; in a family only where it has an enabled interface of the owner's, since mwan3 would send
    all of that family by the tunnel. A family without a catch-all rule gets a policy and a rule of
    ours. What was joined before stays so while a WAN is unknown. Raises ConfigError for what
    mwan3 can't do.
    """
    if not uplinks or not settings.auto_failover or settings.policies == (NO_POLICY,):
        return Wanted()
    return _Composer(found, uplinks, settings, wans).compose()


class _Composer:
    """The found configuration, taken apart, and what is added to it."""

    def __init__(
        self,
        found: Sequence[Section],
        uplinks: Sequence[Uplink],
        settings: Settings,
        wans: Sequence[str],
    ) -> None:
        self.found = found
        self.settings = settings
        self.theirs = [section for section in found if not is_marked(section.options)]
        self.their_interfaces = [s for s in self.theirs if s.type == "interface"]
        self.their_policies = policies_of(self.theirs)
        self.uplinks = sorted(uplinks, key=lambda uplink: (-uplink.weight, uplink.interface))
        # (uplink, family, interface), in the order of the members
        self.tunnels = [
            (uplink, family, interface_of(uplink, family))
            for uplink in self.uplinks
            for family in Family
            if uplink.carries(family)
        ]
        ours = [section for section in found if is_marked(section.options)]
        kept = [s.text("interface") for s in ours if s.type == "member"]
        known_wans = {*wans, *(name for name in kept if not is_own_name(name))}
        self.wans = {
            family: [
                s.name
                for s in self.their_interfaces
                if s.name in known_wans and is_enabled(s) and _family_of(s) == family.value
            ]
            for family in Family
        }
        self.known_wans = known_wans
        self.ours = {section.name for section in ours}
        # A list may name a member that isn't there: it must not become ours by its name.
        self.taken = {section.name for section in self.theirs}
        for policy in self.their_policies:
            self.taken.update(set(words_of(policy)) - self.ours)

    def compose(self) -> Wanted:
        joined = self.joined()
        interfaces = [*self.interfaces()]
        members = self.members(self.lowest_metric(joined))
        endpoints = [*self.endpoint_rules()]
        covered = {family for rule in catch_alls(self.found) for family in families_of(rule)}
        missing = [family for family in Family if family not in covered and self.wans[family]]
        sections = [
            *([] if "globals" in self.taken else [_marked("globals", "globals", {})]),
            *interfaces,
            *members,
            *self.own_policies(members, missing, underlay=bool(endpoints)),
            *endpoints,
            *map(self.catch_all_rule, missing),
        ]
        joins = (
            (policy, member.name)
            for policy, families in joined.items()
            for (_, family, _), member in zip(self.tunnels, members, strict=True)
            if family in families
        )
        first = frozenset(rule.name for rule in endpoints)
        return Wanted((*sections, *self.place_holders(sections)), tuple(joins), first)

    def free(self, name: str) -> str:
        """The name, or one like it, that nothing of the owner's has."""
        number, free = 1, name
        while free in self.taken:
            number += 1
            free = f"{name[: RULE_NAME_LENGTH - len(str(number))]}{number}"
        return free

    # --- the owner's policies

    def joined(self) -> dict[str, list[Family]]:
        """The owner's policies that our members join, each with the families in which they do."""
        named = self.settings.policies
        used = named or {rule.text("use_policy") for rule in catch_alls(self.theirs)}
        found = {}
        for policy in (p for p in self.their_policies if p.name in used):
            members = words_of(policy)
            held = self.interfaces_in(members)
            wanted = bool(named) or not self.ours.isdisjoint(members)
            if wanted or any(interface.name in self.known_wans for interface in held):
                families = {_family_of(s) for s in held if is_enabled(s)}
                found[policy.name] = [f for f in Family if f.value in families]
        return {name: families for name, families in found.items() if families}

    def interfaces_in(self, members: Sequence[str]) -> list[Section]:
        """The owner's interfaces that these members are of."""
        held = {
            s.text("interface") for s in self.theirs if s.type == "member" and s.name in members
        }
        return [s for s in self.their_interfaces if s.name in held]

    def lowest_metric(self, joined: Collection[str]) -> int:
        """The first of our metrics: behind every member of the policies that we join."""
        names = {m for p in self.their_policies if p.name in joined for m in words_of(p)}
        members = [s for s in self.theirs if s.type == "member" and s.name in names]
        metrics = [m for s in members if (m := number_of(s, "metric", 1)) <= HIGHEST_METRIC]
        lowest = max([9, *metrics]) + 1
        if lowest + len(self.uplinks) - 1 > HIGHEST_METRIC:
            raise ConfigError(because("mwan3_metrics", lowest - 1, HIGHEST_METRIC))
        return lowest

    # --- our sections

    def interfaces(self) -> Iterator[Section]:
        """One a family. mwan3 finds an interface by netifd's name, so the names are given."""
        limit = 2 ** mask_of(self.found).bit_count() - 4
        if len(self.their_interfaces) + len(self.tunnels) > limit:
            theirs, ours = len(self.their_interfaces), len(self.tunnels)
            raise ConfigError(because("mwan3_full", theirs, ours, limit))
        bounds_s = (tracker_of(s).bound_s for s in self.their_interfaces if is_enabled(s))
        slowest_s = max(bounds_s, default=0)
        for uplink, family, name in self.tunnels:
            targets = _targets(self.settings, family)
            tracker = plan_tracker(len(targets), slowest_s, self.settings)
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
            yield _marked("interface", name, options, uplink)

    def members(self, lowest_metric: int) -> list[Section]:
        """One an interface; an uplink's have one metric."""
        members = []
        for uplink, _, name in self.tunnels:
            metric = str(lowest_metric + self.uplinks.index(uplink))
            options: dict[str, Value] = {"interface": name, "metric": metric}
            members.append(_marked("member", self.free(f"{name}_m"), options, uplink))
        return members

    def endpoint_rules(self) -> Iterator[Section]:
        """Outer packets never go by a policy that a tunnel is in; names are steering's business."""
        for uplink in self.uplinks:
            family = Family.of(uplink.endpoint.host)
            if is_literal(uplink.endpoint.host) and self.wans[family]:
                options: dict[str, Value] = {
                    "family": family.value,
                    "proto": "udp",
                    "dest_ip": uplink.endpoint.host,
                    "dest_port": str(uplink.endpoint.port),
                    "use_policy": self.free("wg_underlay"),
                }
                yield _marked("rule", self.free(f"{uplink.interface}_e"), options, uplink)

    def own_policies(
        self, members: Iterable[Section], missing: Sequence[Family], *, underlay: bool
    ) -> Iterator[Section]:
        """The WANs' own members and the policies made of them, as far as a rule needs them."""
        names = []
        for family in (f for f in Family if underlay or f in missing):
            for metric, wan in enumerate(self.wans[family], start=1):
                names.append(self.free(f"wgup_{wan}_m"))
                yield _marked("member", names[-1], {"interface": wan, "metric": str(metric)})
        if underlay:
            yield _policy(self.free("wg_underlay"), names)
        if missing:
            yield _policy(self.free("wg_uplinks"), [*names, *(m.name for m in members)])

    def catch_all_rule(self, family: Family) -> Section:
        """The rule of a family that no rule of the owner's covers."""
        options: dict[str, Value] = {
            "family": family.value,
            "dest_ip": ANYWHERE[family],
            "use_policy": self.free("wg_uplinks"),
        }
        return _marked("rule", self.free(f"wg_uplinks_v{family.version}"), options)

    def place_holders(self, sections: Iterable[Section]) -> Iterator[Section]:
        """A disabled section for each interface that went before another of ours.

        An interface's number is its position, so one that went would move those behind it.
        """
        wanted = {section.name for section in sections}
        placed = [s for s in self.found if s.type == "interface" and s.name in self.ours]
        last = max((i for i, s in enumerate(placed) if s.name in wanted), default=0)
        for section in placed[:last]:
            if section.name not in wanted:
                options: dict[str, Value] = {"enabled": "0", "family": _family_of(section)}
                yield _marked("interface", section.name, options)


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


def render(wanted: Wanted) -> str:
    """The configuration for people to read; mwan3 does not read it."""
    draft = Draft(parse("", file=MWAN3))
    for section in wanted.sections:
        draft.set_section(section.name, section.type, section.options)
    joined = "".join(f"# {member} is in policy {policy}\n" for policy, member in wanted.joins)
    head = f"# Made by {CONFIG} for reading: what it holds in {MWAN3}.\n"
    return head + joined + export(draft.document, MWAN3)


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
        given = f"{settings.failover_timeout_s:g}", fastest.arithmetic(), underlay_s
        raise ConfigError(because("mwan3_timeout", *given, fastest.bound_s - underlay_s, NO_POLICY))
    interval_s = min(1 + room_s, max(1, int(settings.check_interval_s)))
    return Tracker(track_ips, interval_s, underlay_s + 1, timeout_s=1, down=2)


def interface_of(uplink: Uplink, family: Family) -> str:
    """The name of an uplink's mwan3 interface: as long as the tunnel's, so never too long."""
    return uplink.interface if family is Family.IPV4 else alias_name(uplink.interface)


def _family_of(interface: Section) -> str:
    return interface.text("family", "ipv4")


def _marked(
    section_type: str, name: str, options: Mapping[str, Value], uplink: Uplink | None = None
) -> Section:
    peer: dict[str, Value] = {} if uplink is None else {PEER_OPTION: uplink.peer_id}
    return Section(section_type, name, False, {**options, MARK_OPTION: "1", **peer})


def _policy(name: str, members: Iterable[str]) -> Section:
    return _marked("policy", name, {"use_member": tuple(members), "last_resort": "default"})


def _targets(settings: Settings, family: Family) -> tuple[str, ...]:
    own = settings.targets_of(family)
    spare = (t for t in DEFAULT_TARGETS if Family.of(t) is family)
    return tuple(dict.fromkeys((*own, *spare)))[:2]  # one that fails by itself must not count
