"""The standing form of the table, and what a diversion and its draining have in force. Pure.

Every connection carries the slot of the path by which its first packet left, in bits of its
connection mark that nobody else uses. So the connections of a path can be deleted at once, or led
back to their path by their mark (draining; answers to what came in by a dead WAN). A packet that
carries a mark of another program is never marked. What steers lapses by itself unless refreshed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from ...carrying.counters import ENTERING, UNDER_WAY
from ...model import (
    FOREIGN_MASK,
    INBOUND,
    LED_MARK,
    MWAN3_MASK,
    OUTER_MARK,
    PROVIDER_DEVICE,
    SLOT_MASK,
    TUNNEL_PREFIX,
    Family,
)
from ...system.nft import name_text, names_text
from ...values import dataclass
from ..plan import MAIN_SLOT, SteeringPlan
from ..rules import SLOT_SHIFT
from . import LAPSE_S, REJECT, T, base_chains
from .anchors import ANCHOR_CHAINS
from .early import BEGIN, LOOK_S, early_chains, noted_pairs

REFRESH_S = 1.5
_OWN_NAMES = f'"{TUNNEL_PREFIX}*"'  # tunnels, and the provider's device
_HOOKS = (
    # Translation sees the first packet of a connection alone.
    ("began", "type nat hook prerouting priority -149; policy accept;"),
    ("left", "type nat hook postrouting priority -149; policy accept;"),
    ("steer_own", "type route hook output priority -149; policy accept;"),
    ("own_loop", "type filter hook output priority 1; policy accept;"),
    ("nat", "type nat hook postrouting priority 100; policy accept;"),
)
_STEER = ("steer", "type filter hook prerouting priority -149; policy accept;")
_FORTH = ("forth", "type filter hook forward priority -10; policy accept;")
_STAMP = ("stamp", "type filter hook postrouting priority -149; policy accept;")
_FORMER = ("led", "refuse_asked", "through", "carry_early")  # base chains of earlier releases

_FILLED = ("running", "unled", "restoring4", "restoring6", "redirected", "refuse")  # elsewhere
_OURS = INBOUND | SLOT_MASK | LED_MARK
_UNNOTED = f"ct mark & {INBOUND | SLOT_MASK:#x} == 0"
_STAMPED = f"ct direction original {_UNNOTED} jump noted"
_CLAMP = f"oifname {_OWN_NAMES} tcp flags syn oifname @tunnels tcp option maxseg size set rt mtu"
# Others give a packet the whole mark of its connection (wg-quick every UDP packet): our bits of it
# are taken out again, or an answer would be led into the tunnel and no exact `fwmark` rule fit.
_RESTORED = (
    f"meta mark & {SLOT_MASK:#x} != 0 ct mark & {SLOT_MASK:#x} != 0 "
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
    out += [f"add chain {T} {name}" for name in ANCHOR_CHAINS]
    out += [f"add chain {T} {name}" for name in _FILLED]
    out += base_chains(((name, "") for name in _FORMER), are_wanted=False)
    out += base_chains(_HOOKS, are_wanted=True)
    out += early_chains()
    for slot in sorted({MAIN_SLOT, *slots.values()}):
        out += _slot_chains(slot)
    hooked = dict(_HOOKS)
    for name, rules in _standing(every_wan, slots).items():
        if name not in hooked:
            out += [f"add chain {T} {name}", f"flush chain {T} {name}"]
        out += [f"add rule {T} {name} {rule}" for rule in rules]
    out += [
        f"add rule {T} own_loop meta mark & 0xff == {OUTER_MARK:#x} oifname @tunnels drop",
        f"add rule {T} began {_UNNOTED} jump arrived",
        f"add rule {T} left {_CLAMP}",
        f"add rule {T} left {_STAMPED}",
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
    own = [f"{name_text(w)} . {p}" for w in every_wan for p in prefixes.get(w, ()) if ":" in p]
    out += [f"add element {T} own6 {{ {', '.join(own)} }}"] if own else []
    return "\n".join(out) + "\n"


def _slot_chains(slot: int) -> list[str]:
    bits = slot << SLOT_SHIFT
    chains = {
        f"to_{slot}": [f"meta mark set meta mark | {bits:#x} accept"],
        f"kept_{slot}": [*noted_pairs(), f"goto to_{slot}"],
        f"led_{slot}": [f"meta mark set meta mark | {LED_MARK | bits:#x} accept"],
        f"out_{slot}": [f"ct mark set ct mark | {bits:#x}"],
        f"in_{slot}": [f"ct mark set ct mark | {INBOUND | bits:#x}"],
    }
    out = []
    for name, rules in chains.items():
        out += [f"add chain {T} {name}", f"flush chain {T} {name}"]
        out += [f"add rule {T} {name} {rule}" for rule in rules]
    return out


def _standing(wans: Collection[str], slots: Mapping[str, int]) -> dict[str, list[str]]:
    """The rules of each chain that stands: of the path by which a connection came or left, of what
    arrives from beyond a WAN, and of the router's own packets.
    """
    of_wans = {name: slots[name] for name in wans if name in slots}
    # A late answer to what was moved away is no new connection: it comes from a service's port.
    kinds = ("tcp flags & (syn | ack) == syn", "udp sport 1024-65535", "meta l4proto != { 6, 17 }")
    return {
        "arrived": [_vmap(f"{what} iifname", "in", of_wans) for what in kinds if of_wans],
        "noted": [_vmap("oifname", "out", slots)] if slots else [],
        "heard": [
            f"meta nfproto {f.value} {f.word} saddr != @onlink{f.version} iifname @heard{f.version}"
            for f in Family
        ],
        "steer_own": [_RESTORED, "goto unled"],
    }


@dataclass(frozen=True, slots=True)
class Leading:
    """What leads packets by marks now: which of the maps `answer`, `drain` and `kept` hold
    something, whether there are anchors, and whether new connections begin elsewhere.
    """

    maps: frozenset[str] = frozenset()
    anchors: bool = False
    begins: bool = False

    def __bool__(self) -> bool:
        return bool(self.maps) or self.anchors or self.begins


def leading_script(
    leading: Leading, *, enters: bool, is_counting: bool = False, is_watching: bool = False
) -> str:
    """nft commands for the rules that lead packets by marks, as far as anything is led, for what
    holds where packets may enter a tunnel (`enters`), and be counted, and for what is done to each
    packet while a WAN is watched, or others use connection marks (`is_watching`).
    """
    marked = ["jump anchored"] if leading.anchors else []
    if "answer" in leading.maps:
        marked.append("ct status dnat jump redirected")
    if leading.maps:
        marked.append("meta nfproto vmap { ipv4 : jump restoring4, ipv6 : jump restoring6 }")
    if leading:
        marked.insert(0, f"meta mark & {FOREIGN_MASK:#x} != 0 return")
    local = ["fib daddr type { local, broadcast, multicast } return"] if leading else []
    running = ["ct direction reply jump heard"] if is_watching else []
    if marked and not leading.anchors and leading.maps <= {"answer"}:
        running.append("ct direction original ct status & dnat == 0 return")
    chains = {
        "running": [*running, *marked],
        "unled": [*marked[:1], *local, *marked[1:], *([BEGIN] if leading.begins else [])],
    }
    for family in Family:
        chains[f"restoring{family.version}"] = [
            f"ct direction {direction} ct mark & {INBOUND | SLOT_MASK:#x} "
            f"vmap @{name}{family.version}"
            for name, direction in _LED_BY
            if name in leading.maps
        ]
    out = []
    for name, regular in chains.items():
        out += [f"add chain {T} {name}", f"flush chain {T} {name}"]
        out += [f"add rule {T} {name} {rule}" for rule in regular]
    # Most packets are of running connections, and to compare a prefix takes less than a look-up.
    steer = (
        *([_RESTORED] if is_watching else []),
        f"ct state established iifname != {_OWN_NAMES} goto running",
        # mwan3 has marked it; while mwan3 starts, a marked answer would find no way to the LAN.
        f"iifname @tunnels meta mark set meta mark & {0xFFFFFFFF ^ MWAN3_MASK:#x} return",
        f'iifname "{PROVIDER_DEVICE}" return',
        "goto unled",
    )
    forth = (
        f'{UNDER_WAY} iifname != "{PROVIDER_DEVICE}" th dport != 53 return',
        *([f"jump {ENTERING}"] if is_counting else []),
        "th dport 53 meta l4proto { tcp, udp } jump refuse",
        f"oifname != {_OWN_NAMES} return",
        f'iifname "{PROVIDER_DEVICE}" oifname @tunnels {REJECT}',
        # Where tracking takes up no running connection (tcp_loose 0), it is reset at once.
        "tcp flags & (syn | rst) == 0 ct state invalid oifname @tunnels reject with tcp reset",
        _CLAMP,
    )
    # Others may have taken the note off, and some connections are older than the table.
    stamp = (*(["jump strayed"] if leading.anchors else []), _STAMPED)
    for chain, rules, are_wanted in (
        (_STEER, steer, enters or is_watching),
        (_FORTH, forth, enters),
        (_STAMP, stamp, is_watching or leading.anchors),
    ):
        out += base_chains((chain,), are_wanted=are_wanted)
        out += [f"add rule {T} {chain[0]} {rule}" for rule in rules if are_wanted]
    return "\n".join(out) + "\n"


_LED_BY = (("drain", "original"), ("kept", "original"), ("answer", "reply"))


def _vmap(match: str, verb: str, slots: Mapping[str, int]) -> str:
    cases = ", ".join(f"{name_text(w)} : jump {verb}_{slot}" for w, slot in slots.items())
    return f"{match} vmap {{ {cases} }}"


def _elements(name: str, devices: Iterable[str]) -> list[str]:
    names = names_text(devices)
    return [f"add element {T} {name} {{ {names} }}"] if names else []


def refresh_script(diverted: Mapping[Family, Iterable[int]], translated: Iterable[str] = ()) -> str:
    """nft commands that give the elements of diversions their full time again, without a gap.

    `diverted` maps each family with a diversion to the slots of its dead WANs, whose inbound
    connections are still answered by them. `translated` are the WANs that IPv6 is diverted to:
    their ISPs may drop the addresses of another one's prefix.
    """
    out = []
    for name in translated:
        element = name_text(name)
        out += _renewed("translated", f"{element} timeout {LAPSE_S:g}s", element)
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
    and until when; it ends before where there are none.
    """

    def __init__(self) -> None:
        self._until: dict[Family, tuple[str, float]] = {}
        self._looked_s: dict[Family, float] = {}

    def tunnel(self, family: Family) -> str:
        """The tunnel on which connections finish; '' for none."""
        return self._until.get(family, ("", 0.0))[0]

    def leave(self, family: Family, tunnel: str, until_s: float) -> None:
        """Traffic leaves the tunnel, '' for one that is not drained: what drained before ends."""
        self._until.pop(family, None)
        self._looked_s.pop(family, None)
        if tunnel:
            self._until[family] = (tunnel, until_s)

    def to_look_at(self, now_s: float) -> list[tuple[Family, str]]:
        """The tunnels for which it is time to look whether connections are left there."""
        return [
            (family, tunnel)
            for family, (tunnel, _) in self._until.items()
            if now_s - self._looked_s.setdefault(family, now_s) >= LOOK_S
        ]

    def looked(self, family: Family, *, are_left: bool, now_s: float) -> None:
        """Note whether connections were left on the family's tunnel."""
        self._looked_s[family] = now_s
        if not are_left:
            self._until[family] = (self.tunnel(family), now_s)

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
