"""The nftables table `inet wgup`: its standing form, diversions, the kill switch, anchors.

Every connection carries the slot of the path by which its first packet left, in bits of its
connection mark that nobody else uses. So the connections of a path can be deleted at once, or led
back to their path by their mark (draining; answers to what came in by a dead WAN). A packet that
carries a mark of another program is never marked. What steers lapses by itself unless refreshed.

At the first doubt of a WAN a new connection gets the mark of a backup's slot (LED_MARK): the
owner's rules and routes are asked first. One that left by the backup bears its slot from then on,
and the map `kept` leads it there until it ends. For a minute each pair of source and destination
keeps to the backup, so that a site sees one address.

Kill switch: what has no live path is refused at once, so that it neither leaks nor waits. A family
without any live path goes on knocking at its dead WAN, which may be half dead: packets leak, and
hosts wait long before they try the other family. Own link keeping (neighbours, DHCP), our probes,
mwan3's and the tunnels' outer packets pass, and so do the WAN's own network and consumers'. Pure.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import field

from ..config.options import Anchor
from ..model import (
    FOREIGN_MASK,
    INBOUND,
    LED_MARK,
    MWAN3_MASK,
    OUTER_MARK,
    PROBE_MARK,
    PROVIDER_DEVICE,
    SLOT_MASK,
    TABLE,
    Family,
)
from ..values import dataclass
from .plan import MAIN_SLOT, SteeringPlan, anchor_path
from .rules import SLOT_SHIFT
from .tables import PRIVATE

T = f"inet {TABLE}"
# nft 1.1 does not guess the kind in a table of both families.
REJECT = "reject with icmpx port-unreachable"
LAPSE_S = 5.0
REFRESH_S = 1.5
_HOOKS = (
    ("steer", "type filter hook prerouting priority -149; policy accept;"),
    ("steer_own", "type route hook output priority -149; policy accept;"),
    ("own_loop", "type filter hook output priority 1; policy accept;"),
    ("through", "type filter hook forward priority -1; policy accept;"),
    ("stamp", "type filter hook postrouting priority -149; policy accept;"),
    ("nat", "type nat hook postrouting priority 100; policy accept;"),
)

_OURS = INBOUND | SLOT_MASK | LED_MARK
# Others give a packet the whole mark of its connection (wg-quick every UDP packet): our bits of it
# are taken out again, or an answer would be led into the tunnel and no exact `fwmark` rule fit.
_RESTORED = (
    f"ct mark & {SLOT_MASK:#x} != 0 meta mark & {SLOT_MASK:#x} != 0 "
    f"meta mark set meta mark & {0xFFFFFFFF ^ _OURS:#x}"
)


def standing_script(
    tunnels: Sequence[str],
    wans: Mapping[Family, Sequence[str]],
    slots: Mapping[str, int],
    prefixes: Mapping[str, Sequence[str]],
) -> str:
    """nft commands that bring the table to its standing form and leave what is in force alone.

    `wans` are the WAN devices of each family, `slots` the number of each path, `prefixes` each
    WAN's own networks. Everything is one transaction.
    """
    every_wan = list(dict.fromkeys(name for names in wans.values() for name in names))
    out = [f"add table {T}", f"add set {T} diverted {{ type nf_proto; flags timeout; }}"]
    for name in ("tunnels", "wans"):
        out.append(f"add set {T} {name} {{ type ifname; }}")
    out.append(f"add set {T} translated {{ type ifname; flags timeout; }}")
    out.append(f"add set {T} own6 {{ type ifname . ipv6_addr; flags interval; }}")
    for n, kind in ((4, "ipv4_addr"), (6, "ipv6_addr")):
        out += [
            f"add set {T} heard{n} {{ type ifname; counter; }}",
            f"add set {T} onlink{n} {{ type {kind}; flags interval; auto-merge; }}",
            f"add map {T} drain{n} {{ type mark : verdict; flags timeout; }}",
            f"add map {T} kept{n} {{ type mark : verdict; flags timeout; }}",
            f"add map {T} answer{n} {{ type mark : verdict; flags timeout; }}",
        ]
    out += [f"add chain {T} {name}" for name in _ANCHOR_CHAINS]
    for name, hook in _HOOKS:
        out += [f"add chain {T} {name} {{ {hook} }}", f"flush chain {T} {name}"]
    out += early_chains()
    for slot in sorted({MAIN_SLOT, *slots.values()}):
        out += _slot_chains(slot)
    out += [f"add rule {T} steer {rule}" for rule in _steering(every_wan, slots)]
    out += [f"add rule {T} steer_own {rule}" for rule in (_RESTORED, *_restoring(), BEGIN)]
    out += [
        f"add rule {T} own_loop meta mark & 0xff == {OUTER_MARK:#x} oifname @tunnels drop",
        f'add rule {T} through iifname "{PROVIDER_DEVICE}" oifname @tunnels {REJECT}',
        f"add rule {T} through oifname @tunnels tcp flags syn tcp option maxseg size set rt mtu",
        # Where tracking takes up no running connection (tcp_loose 0), it is reset at once.
        f"add rule {T} through oifname @tunnels ct state invalid tcp flags & (syn | rst) == 0 "
        "reject with tcp reset",
        f"add rule {T} stamp jump strayed",
        f"add rule {T} stamp ct mark & {INBOUND | SLOT_MASK:#x} != 0 return",
        *_vmap("stamp", "ct direction original oifname", "out", slots),
        f"add rule {T} nat oifname @tunnels masquerade",
        f"add rule {T} nat oifname @translated oifname . ip6 saddr != @own6 masquerade",
    ]
    for name, devices in (("tunnels", tunnels), ("wans", every_wan)):
        out += [f"flush set {T} {name}", *_elements(name, devices)]
    for family in Family:
        n = family.version
        out += [f"flush set {T} heard{n}", *_elements(f"heard{n}", wans.get(family, ()))]
        nets = [p for w in every_wan for p in prefixes.get(w, ()) if Family.of(p) is family]
        out.append(f"flush set {T} onlink{n}")
        out += [f"add element {T} onlink{n} {{ {', '.join(nets)} }}"] if nets else []
    out.append(f"flush set {T} own6")
    own = [f'"{w}" . {p}' for w in every_wan for p in prefixes.get(w, ()) if ":" in p]
    out += [f"add element {T} own6 {{ {', '.join(own)} }}"] if own else []
    return "\n".join(out) + "\n"


def _slot_chains(slot: int) -> list[str]:
    bits = slot << SLOT_SHIFT
    chains = {
        f"to_{slot}": f"meta mark set meta mark | {bits:#x} accept",
        f"led_{slot}": f"meta mark set meta mark | {LED_MARK | bits:#x} accept",
        f"out_{slot}": f"ct mark set ct mark | {bits:#x}",
        f"in_{slot}": f"ct mark set ct mark | {INBOUND | bits:#x}",
    }
    out = []
    for name, rule in chains.items():
        out += [f"add chain {T} {name}", f"flush chain {T} {name}", f"add rule {T} {name} {rule}"]
    return out + [f"add rule {T} out_{slot} {rule}" for rule in noted_pairs(slot)]


def _steering(wans: Collection[str], slots: Mapping[str, int]) -> list[str]:
    rules = [_RESTORED]
    rules += [
        f"meta nfproto {f.value} ct state established ct direction reply "
        f"{f.word} saddr != @onlink{f.version} iifname @heard{f.version}"
        for f in Family
    ]
    of_wans = {name: slots[name] for name in wans if name in slots}
    fresh = f"ct state new ct mark & {INBOUND | SLOT_MASK:#x} == 0"
    # A late answer to what was moved away is no new connection: it comes from a service's port.
    kinds = ("tcp flags & (syn | ack) == syn", "udp sport 1024-65535", "meta l4proto != { 6, 17 }")
    for what in kinds:
        rules += [_vmap_rule(f"{fresh} {what} iifname", "in", of_wans)] if of_wans else []
    rules += [
        # mwan3 has marked it; while mwan3 starts, a marked answer would find no route to the LAN.
        f"iifname @tunnels meta mark set meta mark & {0xFFFFFFFF ^ MWAN3_MASK:#x} return",
        f'iifname "{PROVIDER_DEVICE}" return',
        "fib daddr type { local, broadcast, multicast } return",
    ]
    return [*rules, *_restoring(), BEGIN]


def _restoring() -> list[str]:
    """Rules that give a packet the mark of its connection's path, where that is asked for."""
    rules = [f"meta mark & {FOREIGN_MASK:#x} != 0 return", "jump anchored"]
    for family in Family:
        for direction, name in (("original", "drain"), ("original", "kept"), ("reply", "answer")):
            rules.append(
                f"meta nfproto {family.value} ct direction {direction} "
                f"ct mark & {INBOUND | SLOT_MASK:#x} vmap @{name}{family.version}"
            )
    return rules


def _vmap(chain: str, match: str, verb: str, slots: Mapping[str, int]) -> list[str]:
    return [f"add rule {T} {chain} {_vmap_rule(match, verb, slots)}"] if slots else []


def _vmap_rule(match: str, verb: str, slots: Mapping[str, int]) -> str:
    cases = ", ".join(f'"{name}" : jump {verb}_{slot}' for name, slot in slots.items())
    return f"{match} vmap {{ {cases} }}"


def _elements(name: str, devices: Iterable[str]) -> list[str]:
    quoted = ", ".join(f'"{device}"' for device in devices)
    return [f"add element {T} {name} {{ {quoted} }}"] if quoted else []


def refresh_script(diverted: Mapping[Family, Iterable[int]], translated: Iterable[str] = ()) -> str:
    """nft commands that give the elements of diversions their full time again, without a gap.

    `diverted` maps each family with a diversion to the slots of its dead WANs, whose inbound
    connections are still answered by them. `translated` are the WANs that IPv6 is diverted to:
    their ISPs may drop the addresses of another one's prefix.
    """
    out = []
    for name in translated:
        out += _renewed("translated", f'"{name}" timeout {LAPSE_S:g}s', f'"{name}"')
    for family, dead in diverted.items():
        word = family.value
        out += _renewed("diverted", f"{word} timeout {LAPSE_S:g}s", word)
        for slot in dead:
            key = f"{INBOUND | slot << SLOT_SHIFT:#x}"
            full = f"{key} timeout {LAPSE_S:g}s : goto to_{MAIN_SLOT}"
            out += _renewed(f"answer{family.version}", full, key)
    return "\n".join(out) + "\n" if out else ""


def _renewed(name: str, full: str, key: str) -> list[str]:
    add = f"add element {T} {name} {{ {full} }}"
    return [add, f"delete element {T} {name} {{ {key} }}", add]


def ended_script(family: Family) -> str:
    """nft commands that end what a family's diversion had in force."""
    return (
        f"add element {T} diverted {{ {family.value} timeout 1s }}\n"
        f"delete element {T} diverted {{ {family.value} }}\n"
        f"flush map {T} answer{family.version}\n"
        f"flush map {T} early{family.version}\n"
        + (f"flush set {T} translated\n" if family is Family.IPV6 else "")
    )


def drain_script(family: Family, slot: int, seconds: float) -> str:
    """nft commands that keep a path's connections on it for so long, and end any other draining."""
    key = f"{slot << SLOT_SHIFT:#x} timeout {max(1, round(seconds))}s : goto to_{slot}"
    return undrain_script(family) + f"add element {T} drain{family.version} {{ {key} }}\n"


def undrain_script(family: Family) -> str:
    """nft commands that end draining before its time."""
    return f"flush map {T} drain{family.version}\n"


class Draining:
    """Connections that may finish on a tunnel although traffic has left it: family -> the tunnel,
    and until when.
    """

    def __init__(self) -> None:
        self._until: dict[Family, tuple[str, float]] = {}

    def tunnel(self, family: Family) -> str:
        """The tunnel on which connections finish; '' for none."""
        return self._until.get(family, ("", 0.0))[0]

    def leave(self, family: Family, tunnel: str, until_s: float) -> None:
        """Traffic leaves the tunnel, '' for one that is not drained: what drained before ends."""
        self._until.pop(family, None)
        if tunnel:
            self._until[family] = (tunnel, until_s)

    def overdue(self, plan: SteeringPlan, now_s: float) -> set[Family]:
        """The families whose draining must end now."""
        return {
            family
            for family, (device, until_s) in self._until.items()
            if now_s >= until_s or not can_drain(plan, family, device)
        }

    def script(self, slots: Mapping[str, int], now_s: float) -> str:
        return "".join(
            drain_script(family, slots[device], until_s - now_s)
            for family, (device, until_s) in self._until.items()
            if device in slots
        )


def can_drain(plan: SteeringPlan, family: Family, device: str) -> bool:
    """Whether connections can go on by a tunnel."""
    return device in plan.tunnels and device not in plan.dead.get(family, ())


# --- new connections that leave early

PAIR_S = 60
KEPT_S = 120  # how long connections stay without a look at whether there are any
LOOK_S = 50.0
MOST_PAIRS = 16384
SHARES, SEED = 100, 0x77677570


def early_chains() -> list[str]:
    """nft commands for what stands, but for the rules that lead into the chain `begin`."""
    out = [f"add chain {T} begin", f"flush chain {T} begin"]
    begin = [
        "iifname @wans return",
        "fib daddr type { local, broadcast, multicast } return",
        "ip6 daddr fe80::/10 return",
        "udp dport { 67, 547 } return",  # a lease of the WAN's, by a socket that is not bound
    ]
    # A peer is not asked for these; the WAN may know a way.
    begin += [f"{f.word} daddr {{ {', '.join(PRIVATE[f])} }} return" for f in Family]
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
        begin.append(f"meta nfproto vmap @early{n}")
        begin.append(f"{_pair(family)} @pairs{n} meta nfproto vmap @again{n}")
    return out + [f"add rule {T} begin {rule}" for rule in begin]


BEGIN = f"ct state new ct direction original ct mark & {INBOUND | SLOT_MASK:#x} == 0 jump begin"
"""The rule for packets whose marks are nobody's, and which have no path yet."""


def noted_pairs(slot: int) -> list[str]:
    """Rules for the first packet of a connection that leaves by the path of that slot."""
    led = f"meta mark & {LED_MARK | SLOT_MASK:#x} == {LED_MARK | slot << SLOT_SHIFT:#x}"
    return [f"{led} add @pairs{f.version} {{ {_pair(f)} }}" for f in Family]


def _pair(family: Family) -> str:
    return f"{family.word} saddr . {family.word} daddr"


Ways = tuple[tuple[str, int], ...]
"""Paths by which new connections leave, with the weight of each."""


@dataclass(slots=True)
class EarlyConnections:
    """What nftables was last told: the backups by which each family's new connections leave, the
    one that pairs keep to and until when, and the paths that connections finish on, with the time
    of the last look at whether there are any.
    """

    leaving: dict[Family, Ways] = field(default_factory=dict)
    paired: dict[Family, tuple[str, float]] = field(default_factory=dict)
    kept: dict[tuple[Family, str], float] = field(default_factory=dict)

    def devices(self, family: Family, now_s: float) -> set[str]:
        """The paths by which new connections may leave."""
        paired, until_s = self.paired.get(family, ("", 0.0))
        return {*dict(self.leaving.get(family, ())), paired if now_s < until_s else ""}

    @staticmethod
    def taken_over(kept: Iterable[tuple[Family, str]]) -> EarlyConnections:
        """What an earlier run left, as nftables still has it; it is looked at soon."""
        return EarlyConnections(kept=dict.fromkeys(kept, float("-inf")))

    def follow(
        self, plan: SteeringPlan, slots: Mapping[str, int], now_s: float
    ) -> tuple[EarlyConnections, str, list[tuple[Family, str]]]:
        """What is to be told now, by which commands, and the paths on which nothing can finish."""
        wanted = {
            family: _steady(self.leaving.get(family, ()), ways)
            for family in Family
            if (ways := _wanted(plan, family, slots))
        }
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
            for device in over & {d for f, d in kept if f is family}:
                out.append(f"flush map {T} again{family.version}")
                out.append(f"flush set {T} pairs{family.version}")
                paired.pop(family, None)
                out += _keeping(family, slots[device])[:2] if device in slots else []
        kept = {each: at_s for each, at_s in kept.items() if each not in {*gone, *with_traffic}}
        return EarlyConnections(wanted, paired, kept), _script(out), gone

    def _was_spread(self, plan: SteeringPlan, family: Family, device: str) -> bool:
        """Whether an outage is over in which new connections were led there: they begin anew, as
        those of the path that had the rest, unless they may finish.
        """
        ways = dict(self.leaving.get(family, ()))
        is_over = family not in plan.diversions and not plan.drain_s
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
    early = plan.early.get(family, "")
    is_away = family in plan.diversions
    ways = plan.spread.get(family, ()) if is_away else ((early, 1),) if early else ()
    able = [way for way in ways if way[0] in slots and _is_there(plan, family, way[0])]
    return tuple(able) if len(able) > is_away else ()


def _steady(before: Ways, now: Ways) -> Ways:
    """The weights that there were, so that a site sees one address: what is lost goes to others."""
    able = dict(now)
    if len(now) < 2 or not able.keys() <= dict(before).keys():
        return now
    heir = max(now, key=lambda way: way[1])[0]
    return tuple((device if device in able else heir, weight) for device, weight in before)


def _leaving(plan: SteeringPlan, family: Family, ways: Ways, slots: Mapping[str, int]) -> list[str]:
    device = ways[0][0]
    if len(ways) > 1:
        spread = _spreading(family, [(slots[name], weight) for name, weight in ways])
        return spread + _leading("early", family, f"spread{family.version}", LAPSE_S)
    out = _leading("early", family, f"led_{slots[device]}", LAPSE_S)
    if family is Family.IPV6 and device not in plan.tunnels:
        # Another WAN, whose ISP may drop addresses of the first one's prefix.
        add = f'add element {T} translated {{ "{device}" timeout {LAPSE_S:g}s }}'
        out += [add, f'delete element {T} translated {{ "{device}" }}', add]
    return out


def _keeping(family: Family, slot: int) -> list[str]:
    """What has lapsed can't be deleted: it is added before."""
    name, key = f"kept{family.version}", f"{slot << SLOT_SHIFT:#x}"
    add = f"add element {T} {name} {{ {key} timeout {KEPT_S}s : goto to_{slot} }}"
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


# --- the kill switch


CHOSEN_MASK = 0x00FF0000  # where pbr (fw_mask) and Tailscale keep their marks
BYPASS_MARK = 0x00080000  # tailscaled's own packets: they ask for the main table

Blocked = Mapping[Family, Sequence[str]]
"""The devices that are blocked for each family."""

_BLOCK_CHAINS = (
    ("block", "type filter hook forward priority -2; policy accept;"),
    ("block_own", "type filter hook output priority 1; policy accept;"),
)


def kill_switch_script() -> str:
    """nft commands for the kill switch's standing part; what is blocked stays so."""
    t = T
    out = [f"add set {t} blocked{f.version} {{ type ifname; flags timeout; }}" for f in Family]
    out += [f"add chain {t} {name} {{ {hook} }}" for name, hook in _BLOCK_CHAINS]
    out.append(f"add chain {t} refuse_all")
    out += [f"flush chain {t} {name}" for name in ("block", "block_own", "refuse_all")]
    out += [
        # An established connection may outlive a short outage: only new ones are reset.
        f"add rule {t} refuse_all tcp flags & (syn | ack) == syn reject with tcp reset",
        # Of the unreachables only this one reaches a UDP socket at once (icmp_err_convert, icmp.c).
        f"add rule {t} refuse_all meta l4proto udp reject with icmpx type port-unreachable",
        f"add rule {t} refuse_all reject with icmpx type no-route",
        f'add rule {t} block iifname "{PROVIDER_DEVICE}" return',
    ]
    out += [f"add rule {t} block_own {rule}" for rule in _own_that_passes()]
    for family in Family:
        n, word = family.version, family.word
        refused = f"meta nfproto {family.value} oifname @blocked{n}"
        for what in ("meta l4proto { tcp, udp } th dport 53", f"{word} daddr != @onlink{n}"):
            rule = f"{refused} {what} goto refuse_all"
            out += [f"add rule {t} {chain} {rule}" for chain, _ in _BLOCK_CHAINS]
    return "\n".join(out) + "\n"


def _own_that_passes() -> tuple[str, ...]:
    return (
        f"meta mark & 0xff == {{ {OUTER_MARK:#x}, {PROBE_MARK:#x} }} return",
        f"meta mark & {MWAN3_MASK:#x} == {MWAN3_MASK:#x} return",  # mwan3's trackers
        # Led elsewhere by their mark, which oifname does not show here.
        f"meta mark & {SLOT_MASK:#x} != 0 return",
        f"meta mark & {CHOSEN_MASK:#x} != {{ 0, {BYPASS_MARK:#x} }} return",
        "udp dport { 67, 547 } return",
        "ip6 daddr fe80::/10 return",
        "fib daddr type { local, broadcast, multicast } return",
    )


def block_script(blocked: Blocked) -> str:
    """nft commands that block exactly these devices, until it lapses; no gap."""
    out = []
    for family in Family:
        name = f"{T} blocked{family.version}"
        out.append(f"flush set {name}")
        devices = ", ".join(f'"{d}" timeout {LAPSE_S:g}s' for d in blocked.get(family, ()))
        out += [f"add element {name} {{ {devices} }}"] if devices else []
    return "\n".join(out) + "\n"


_PORTED = ("tcp", "udp")
_ANCHOR_CHAINS = ("anchored", "anchoring", "anchoring_names", "strayed")


def anchors_script(plan: SteeringPlan, slots: Mapping[str, int]) -> str:
    """nft commands that have exactly the plan's anchors in force, in chains of their own.

    A new connection that fits gets the anchor's slot, which is another one than its tunnel's: what
    is done to connections of the tunnel does not touch it. What the owner's rules and routes lead
    elsewhere is no anchored connection any more.
    """
    tunnels = list(dict.fromkeys(device for _, device in plan.anchors))
    marked = {name: slots[path] for name in tunnels if (path := anchor_path(name)) in slots}
    out = []
    for name in (*_ANCHOR_CHAINS, *(f"anchor_{slot}" for slot in marked.values())):
        out += [f"add chain {T} {name}", f"flush chain {T} {name}"]
    for name, slot in marked.items():
        bits = slot << SLOT_SHIFT
        is_there = f"ct mark & {INBOUND | SLOT_MASK:#x} == {bits:#x}"
        out.append(
            f"add rule {T} anchor_{slot} ct mark set ct mark | {bits:#x} "
            # mwan3 has marked it already, for a WAN.
            f"meta mark set meta mark & {0xFFFFFFFF ^ MWAN3_MASK:#x} "
            f"meta mark set meta mark | {LED_MARK | bits:#x} accept"
        )
        out += [
            f"add rule {T} anchored meta nfproto {family.value} ct direction original {is_there} "
            f"goto anchor_{slot}"
            for family in Family
            if name in plan.anchored.get(family, ())
        ]
        out.append(
            f'add rule {T} strayed ct direction original {is_there} oifname != "{name}" '
            f"ct mark set ct mark & {0xFFFFFFFF ^ SLOT_MASK:#x}"
        )
    out += [
        f"add rule {T} anchored {rule}"
        for rule in (
            "ct state != new return",
            f"ct mark & {INBOUND | SLOT_MASK:#x} != 0 return",
            "iifname @wans return",
            "meta l4proto { tcp, udp } th dport 53 goto anchoring_names",
            "goto anchoring",
        )
    ]
    for anchor, name in plan.anchors:
        for family in Family:
            match = _match(anchor, family) if name in plan.anchoring.get(family, ()) else ""
            if match and name in marked:
                chains = ["anchoring", *(["anchoring_names"] if anchor.asks_names else [])]
                rule = f"{match} goto anchor_{marked[name]}"
                out += [f"add rule {T} {chain} {rule}" for chain in chains]
    return "\n".join(out) + "\n"


def _match(anchor: Anchor, family: Family) -> str:
    """What the anchor's connections of a family look like; '' where there can be none."""
    addresses = anchor.addresses(family)
    if addresses is None:
        return ""
    found = [f"meta nfproto {family.value}"]
    for side, given in zip(("saddr", "daddr"), addresses, strict=True):
        if given:
            found.append(f"{family.word} {side} {_set(_collapsed(given))}")
    if anchor.dscp:
        found.append(f"{family.word} dscp {_set(map(str, sorted(anchor.dscp)))}")
    protocols = [p for p in sorted(anchor.protocols) if not anchor.ports or p in _PORTED]
    if anchor.ports:
        ports = _set(f"{low}-{high}" if low < high else str(low) for low, high in _merged(anchor))
        found.append(f"meta l4proto {_set(protocols or _PORTED)} th dport {ports}")
    elif protocols:
        six = {"icmp": "icmpv6"} if family is Family.IPV6 else {}
        found.append(f"meta l4proto {_set(six.get(p, p) for p in protocols)}")
    return " ".join(found)


def _set(items: Iterable[str]) -> str:
    return f"{{ {', '.join(items)} }}"


def _collapsed(texts: Sequence[str]) -> list[str]:
    """Networks of one family, none inside another: nft refuses sets that overlap."""
    networks = [ipaddress.ip_network(text) for text in texts]
    return list(map(str, ipaddress.collapse_addresses(networks)))  # type: ignore[type-var]


def _merged(anchor: Anchor) -> list[tuple[int, int]]:
    """The anchor's ranges of ports, none of which overlap."""
    found: list[tuple[int, int]] = []
    for low, high in sorted(anchor.ports):
        if found and low <= found[-1][1] + 1:
            found[-1] = found[-1][0], max(high, found[-1][1])
        else:
            found.append((low, high))
    return found
