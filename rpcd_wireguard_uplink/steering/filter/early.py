"""New connections that a mark leads to a path: at a first doubt, and spread in an outage. Pure.

At the first doubt of a WAN a new connection gets the mark of a backup's slot (LED_MARK): the
owner's rules and routes are asked first. One that left by the backup bears its slot from then on,
and the map `kept` leads it there until it ends. For a minute each pair of source and destination
that was answered there keeps to the backup, so that a site sees one address; what nobody answered
goes back. What has no ports (ESP, GRE, a tunnel of the router's own as DS-Lite) belongs to a
session that was begun before, and stays on the WAN.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field

from ...model import INBOUND, SLOT_MASK, Family
from ...system.nft import name_text
from ...values import dataclass
from ..plan import SteeringPlan
from ..rules import SLOT_SHIFT
from . import LAPSE_S, TO_PRIVATE, T

PAIR_S = 60
KEPT_S = 120  # how long connections stay without a look at whether there are any
LOOK_S = 50.0  # a look at a large table of connections takes milliseconds
ANSWER_S = 3.0  # what has no answer so long after a doubt goes back to the WAN
MOST_PAIRS = 16384
SHARES, SEED = 100, 0x77677570


def early_chains() -> list[str]:
    """nft commands for what stands, but for the rules that lead into the chain `begin`."""
    out = [f"add chain {T} begin", f"flush chain {T} begin"]
    begin = [
        "iifname @wans return",
        "fib daddr type { local, broadcast, multicast } return",
        "udp dport { 67, 547 } return",  # a lease of the WAN's, by a socket that is not bound
    ]
    begin += TO_PRIVATE
    # An ISP's resolver refuses others, and alone knows some names.
    asked = "meta l4proto { tcp, udp } th dport 53"
    begin += [f"{asked} {f.word} daddr @isp{f.version} return" for f in Family]
    for family in Family:
        kind, n = f"{family.value}_addr", family.version
        out.append(f"add set {T} isp{n} {{ type {kind}; }}")
        out += [
            f"add map {T} {name}{n} {{ type nf_proto : verdict; flags timeout; }}"
            for name in ("early", "again")
        ]
        out.append(
            f"add set {T} pairs{n} {{ type {kind} . {kind}; size {MOST_PAIRS}; "
            f"flags dynamic, timeout; timeout {PAIR_S}s; }}"
        )
        out.append(f"add chain {T} spread{n}")
        alone = f"meta nfproto != @diverted {_pair(family)} != @pairs{n}"
        begin.append(f"meta l4proto != {{ tcp, udp, icmp, ipv6-icmp }} {alone} return")
        begin.append(f"meta nfproto vmap @early{n}")
        begin.append(f"{_pair(family)} @pairs{n} meta nfproto vmap @again{n}")
    return out + [f"add rule {T} begin {rule}" for rule in begin]


BEGIN = f"ct state new ct direction original ct mark & {INBOUND | SLOT_MASK:#x} == 0 jump begin"
"""The rule for packets whose marks are nobody's, and which have no path yet."""


def noted_pairs() -> list[str]:
    """Rules for the packets of a connection that is kept on the path where it began."""
    return [f"ct status seen-reply add @pairs{f.version} {{ {_pair(f)} }}" for f in Family]


def _pair(family: Family) -> str:
    return f"{family.word} saddr . {family.word} daddr"


Ways = tuple[tuple[str, int], ...]
"""Paths by which new connections leave, with the weight of each."""


@dataclass(slots=True)
class EarlyConnections:
    """What nftables was last told: the backups by which each family's new connections leave, the
    one that pairs keep to and until when, and the paths that connections finish on, with the time
    of the last look at whether there are any. `shares` are those of the outage, whoever is dead.
    """

    leaving: dict[Family, Ways] = field(default_factory=dict)
    paired: dict[Family, tuple[str, float]] = field(default_factory=dict)
    kept: dict[tuple[Family, str], float] = field(default_factory=dict)
    shares: dict[Family, Ways] = field(default_factory=dict)

    def devices(self, family: Family, now_s: float) -> set[str]:
        """The paths by which new connections may leave."""
        paired, until_s = self.paired.get(family, ("", 0.0))
        return {*dict(self.leaving.get(family, ())), paired if now_s < until_s else ""}

    def leads(self, now_s: float) -> bool:
        """Whether new connections leave by another path, or pairs keep to one."""
        return bool(self.leaving) or any(now_s < until_s for _, until_s in self.paired.values())

    @staticmethod
    def taken_over(kept: Iterable[tuple[Family, str]]) -> EarlyConnections:
        """What an earlier run left, as nftables still has it; it is looked at soon."""
        return EarlyConnections(kept=dict.fromkeys(kept, float("-inf")))

    def follow(
        self, plan: SteeringPlan, slots: Mapping[str, int], now_s: float
    ) -> tuple[EarlyConnections, str, list[tuple[Family, str]]]:
        """What is to be told now, by which commands, and the paths on which nothing can finish."""
        wanted = {f: ways for f in Family if (ways := _wanted(plan, f, slots))}
        shares = {f: ways for f, ways in self.shares.items() if f in plan.diversions}
        for family in wanted.keys() & plan.diversions.keys():
            shares[family], wanted[family] = _steady(shares.get(family, ()), wanted[family])
        paired = dict(self.paired)
        with_traffic = {(f, d.route.device) for f, d in plan.diversions.items()}
        leading = {(family, device) for family, ways in wanted.items() for device, _ in ways}
        kept = dict.fromkeys(leading - with_traffic, now_s) | self.kept
        gone = [each for each in kept if not _is_there(plan, *each)]
        gone += [each for each in kept if self._was_spread(plan, *each)]
        out = []
        for family in Family:
            before, now = self.leaving.get(family, ()), wanted.get(family, ())
            over = {d for f, d in (*gone, *with_traffic) if f is family}
            if now and now != before:
                for device in dict(now).keys() - over:
                    out += _keeping(family, slots[device])
                out += _leaving(plan, family, now, slots)
            elif before and not now:
                out.append(f"flush map {T} early{family.version}")
                last = before[0][0] if len(before) == 1 else ""
                if last in slots and last not in over and family not in plan.diversions:
                    out += _leading("again", family, f"led_{slots[last]}", PAIR_S)
                    paired[family] = last, now_s + PAIR_S
                    kept[family, last] = now_s - LOOK_S + ANSWER_S
            for device in over & {d for f, d in kept if f is family}:
                out.append(f"flush map {T} again{family.version}")
                out.append(f"flush set {T} pairs{family.version}")
                paired.pop(family, None)
                out += _keeping(family, slots[device])[:2] if device in slots else []
        kept = {each: at_s for each, at_s in kept.items() if each not in {*gone, *with_traffic}}
        return EarlyConnections(wanted, paired, kept, shares), _script(out), gone

    def _was_spread(self, plan: SteeringPlan, family: Family, device: str) -> bool:
        """Whether an outage is over in which new connections were led there: they begin anew, as
        those of the path that had the rest, unless they may finish.
        """
        ways = dict(self.leaving.get(family, ()))
        is_over = family not in plan.diversions and not plan.filter.drain_s
        return is_over and len(ways) > 1 and device in ways

    def refreshed(self, plan: SteeringPlan, slots: Mapping[str, int]) -> str:
        """Commands that give what is in force its full time again."""
        out = []
        for family, ways in self.leaving.items():
            if slots.keys() >= dict(ways).keys():
                out += _leaving(plan, family, ways, slots)
        return _script(out)

    def overdue(self, now_s: float) -> list[tuple[Family, str]]:
        """The paths for which it is time to look whether connections are left there."""
        return [each for each, at_s in self.kept.items() if now_s - at_s >= LOOK_S]

    def looked(self, family: Family, device: str, *, are_left: bool, now_s: float) -> None:
        """Note whether connections were left on a path, which nothing finishes on otherwise."""
        self.kept.pop((family, device), None)
        if are_left or device in dict(self.leaving.get(family, ())):
            self.kept[family, device] = now_s

    def keeping(self, slots: Mapping[str, int]) -> str:
        """Commands that keep connections on their paths for the full time."""
        out = []
        for family, device in self.kept:
            if device in slots:
                out += _keeping(family, slots[device])
        return _script(out)


def _is_there(plan: SteeringPlan, family: Family, device: str) -> bool:
    is_known = device in plan.tunnels or device in plan.known(family)
    return is_known and device not in plan.dead.get(family, ())


def _wanted(plan: SteeringPlan, family: Family, slots: Mapping[str, int]) -> Ways:
    """By which paths new connections leave: by one in a doubt, by several in an outage."""
    early = plan.filter.early.get(family, "")
    is_away = family in plan.diversions
    ways = plan.filter.spread.get(family, ()) if is_away else ((early, 1),) if early else ()
    able = [way for way in ways if way[0] in slots and _is_there(plan, family, way[0])]
    return tuple(able) if len(able) > is_away else ()


def _steady(before: Ways, now: Ways) -> tuple[Ways, Ways]:
    """The shares that there were, so that a site sees one address, and who has them now: those of
    the dead go to the quickest of the others, until they are back.
    """
    able = dict(now)
    if not able.keys() <= dict(before).keys():
        return now, now
    heir = max(now, key=lambda way: way[1])[0]
    return before, tuple((device if device in able else heir, share) for device, share in before)


def _leaving(plan: SteeringPlan, family: Family, ways: Ways, slots: Mapping[str, int]) -> list[str]:
    device = ways[0][0]
    if len(ways) > 1:
        spread = _spreading(family, [(slots[name], weight) for name, weight in ways])
        return spread + _leading("early", family, f"spread{family.version}", LAPSE_S)
    out = _leading("early", family, f"led_{slots[device]}", LAPSE_S)
    if family is Family.IPV6 and device not in plan.tunnels:
        # Another WAN, whose ISP may drop addresses of the first one's prefix.
        name = name_text(device)
        add = f"add element {T} translated {{ {name} timeout {LAPSE_S:g}s }}"
        out += [add, f"delete element {T} translated {{ {name} }}", add]
    return out


def _keeping(family: Family, slot: int) -> list[str]:
    """What has lapsed can't be deleted: it is added before."""
    name, key = f"kept{family.version}", f"{slot << SLOT_SHIFT:#x}"
    add = f"add element {T} {name} {{ {key} timeout {KEPT_S}s : goto kept_{slot} }}"
    return [add, f"delete element {T} {name} {{ {key} }}", add]


def _spreading(family: Family, weights: Sequence[tuple[int, int]]) -> list[str]:
    """Each pair of source and destination by one of these slots, as many as its weight says."""
    chain, cases, begin, done = f"{T} spread{family.version}", [], 0, 0
    whole = sum(weight for _, weight in weights)
    for slot, weight in weights:
        done += weight
        end = SHARES * done // whole
        if end > begin:
            last = f"-{end - 1}" if end - begin > 1 else ""
            cases.append(f"{begin}{last} : goto led_{slot}")
        begin = end
    # Without a seed the kernel takes another one for each rule that is made.
    hashed = f"jhash {_pair(family)} mod {SHARES} seed {SEED:#x} vmap {{ {', '.join(cases)} }}"
    # What is redirected to the active path's resolver goes by that path.
    asked = "meta l4proto { tcp, udp } th dport 53 return"
    rules = [f"add rule {chain} {rule}" for rule in (asked, hashed)]
    return [f"add chain {chain}", f"flush chain {chain}", *rules]


def _leading(name: str, family: Family, chain: str, seconds: float) -> list[str]:
    name += f"{family.version}"
    element = f"{family.value} timeout {seconds:g}s : goto {chain}"
    return [f"flush map {T} {name}", f"add element {T} {name} {{ {element} }}"]


def _script(commands: list[str]) -> str:
    return "".join(f"{command}\n" for command in commands)
