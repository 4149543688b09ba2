"""The nftables table `inet wgup`: its standing form, and the elements of a diversion. Pure.

Every connection carries the slot of the path by which its first packet left, in bits of its
connection mark that nobody else uses. So the connections of a path can be deleted at once, or led
back to their path by their mark (draining; answers to what came in by a dead WAN). A packet that
carries a mark of another program is never marked. What steers lapses by itself unless refreshed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from ..model import PROVIDER_DEVICE, Family
from ..system.marks import FOREIGN_MASK, INBOUND, MWAN3_MASK, OUTER_MARK, SLOT_MASK, TABLE
from .plan import MAIN_SLOT
from .rules import SLOT_SHIFT

T = f"inet {TABLE}"
LAPSE_S = 5.0
REFRESH_S = 1.5
_NFPROTO = {Family.IPV4: "ipv4", Family.IPV6: "ipv6"}
_SADDR = {Family.IPV4: "ip saddr", Family.IPV6: "ip6 saddr"}
_HOOKS = (
    ("steer", "type filter hook prerouting priority -149; policy accept;"),
    ("steer_own", "type route hook output priority -149; policy accept;"),
    ("own_loop", "type filter hook output priority 1; policy accept;"),
    ("through", "type filter hook forward priority -1; policy accept;"),
    ("stamp", "type filter hook postrouting priority -149; policy accept;"),
    ("nat", "type nat hook postrouting priority 100; policy accept;"),
)

_OURS = INBOUND | SLOT_MASK
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
            f"add map {T} answer{n} {{ type mark : verdict; flags timeout; }}",
        ]
    for name, hook in _HOOKS:
        out += [f"add chain {T} {name} {{ {hook} }}", f"flush chain {T} {name}"]
    for slot in sorted({MAIN_SLOT, *slots.values()}):
        out += _slot_chains(slot)
    out += [f"add rule {T} steer {rule}" for rule in _steering(every_wan, slots)]
    out += [f"add rule {T} steer_own {rule}" for rule in (_RESTORED, *_restoring())]
    out += [
        f"add rule {T} own_loop meta mark & 0xff == {OUTER_MARK:#x} oifname @tunnels drop",
        f'add rule {T} through iifname "{PROVIDER_DEVICE}" oifname @tunnels reject',
        f"add rule {T} through oifname @tunnels tcp flags syn tcp option maxseg size set rt mtu",
        # Where tracking takes up no running connection (tcp_loose 0), it is reset at once.
        f"add rule {T} through oifname @tunnels ct state invalid tcp flags & (syn | rst) == 0 "
        "reject with tcp reset",
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
        nets = [p for w in every_wan for p in prefixes.get(w, ()) if _is_of(p, family)]
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
        f"out_{slot}": f"ct mark set ct mark | {bits:#x}",
        f"in_{slot}": f"ct mark set ct mark | {INBOUND | bits:#x}",
    }
    out = []
    for name, rule in chains.items():
        out += [f"add chain {T} {name}", f"flush chain {T} {name}", f"add rule {T} {name} {rule}"]
    return out


def _steering(wans: Collection[str], slots: Mapping[str, int]) -> list[str]:
    rules = [_RESTORED]
    rules += [
        f"meta nfproto {_NFPROTO[f]} ct state established ct direction reply "
        f"{_SADDR[f]} != @onlink{f.version} iifname @heard{f.version}"
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
    return rules + _restoring()


def _restoring() -> list[str]:
    """Rules that give a packet the mark of its connection's path, where that is asked for."""
    rules = [f"meta mark & {FOREIGN_MASK:#x} != 0 return"]
    for family in Family:
        for direction, name in (("original", "drain"), ("reply", "answer")):
            rules.append(
                f"meta nfproto {_NFPROTO[family]} ct direction {direction} "
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


def _is_of(prefix: str, family: Family) -> bool:
    return (":" in prefix) == (family is Family.IPV6)


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
        word = _NFPROTO[family]
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
        f"add element {T} diverted {{ {_NFPROTO[family]} timeout 1s }}\n"
        f"delete element {T} diverted {{ {_NFPROTO[family]} }}\n"
        f"flush map {T} answer{family.version}\n"
        + (f"flush set {T} translated\n" if family is Family.IPV6 else "")
    )


def drain_script(family: Family, slot: int, seconds: float) -> str:
    """nft commands that keep a path's connections on it for so long, and end any other draining."""
    key = f"{slot << SLOT_SHIFT:#x} timeout {max(1, round(seconds))}s : goto to_{slot}"
    return undrain_script(family) + f"add element {T} drain{family.version} {{ {key} }}\n"


def undrain_script(family: Family) -> str:
    """nft commands that end draining before its time."""
    return f"flush map {T} drain{family.version}\n"
