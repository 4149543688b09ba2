"""Name look-ups follow the traffic: those to a dead WAN's resolvers go into the tunnel.

A WAN's resolver is often on-link with it, or answers its own customers only, so moving the packets
is not enough. Only port 53 is redirected, only while a family is diverted, and never what the
owner's rules lead elsewhere by input device, source or port. A redirected look-up carries the slot
of its path, so that no other rule leads it out of the dead WAN. DoH and DoT stay as they are.

A look-up that can't be redirected is rejected, so that whoever asked goes on to another resolver at
once: in a family without a resolver on the path, in one that is dead while the other is diverted,
and what is sent to a tunnel's stand-in while nothing is.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Iterable, Mapping, Sequence

from ..config.options import DEFAULT_RESOLVERS, DEFAULT_TARGETS
from ..model import FOREIGN_MASK, PROBE_MARK, Family
from ..system.dns import STAND_INS, TunnelResolvers
from ..system.nft import names_text
from ..system.rtnetlink import Rule
from ..values import dataclass
from .filter import REJECT, T, base_chains
from .plan import SteeringPlan
from .rules import SLOT_SHIFT, policy_sources

_LOOK_UP = "meta l4proto { tcp, udp } th dport 53"
_CHAINS = (
    ("asked", "type nat hook prerouting priority -100; policy accept;"),
    ("asking", "type nat hook output priority -100; policy accept;"),
    ("refuse_asking", "type filter hook output priority 0; policy accept;"),
)
_AWAY_CHAINS = (("led_own", "type route hook output priority -99; policy accept;"),)
PUBLIC = frozenset({*DEFAULT_TARGETS, *DEFAULT_RESOLVERS})
_TARGETS = ("redirect4", "redirect6", "redirected", "refuse")


@dataclass(frozen=True, slots=True)
class Exempt:
    """Look-ups that an owner's own rules lead elsewhere: by input device, by source prefix, or all
    of them where a rule looks at ports.
    """

    devices: frozenset[str] = frozenset()
    sources: frozenset[str] = frozenset()
    everything: bool = False


def redirect_script(
    resolvers: Iterable[str],
    targets: Mapping[Family, tuple[str, int]],
    dead: Mapping[Family, Iterable[str]] | None = None,
    exempt: Exempt | None = None,
    isp: Iterable[str] = (),
    *,
    is_away: bool = True,
) -> str:
    """nft commands that put the redirect in its standing form, to be part of the table's script.

    `resolvers` are the WANs' own and those of the tunnels, `targets` what answers instead, with the
    slot of its path. `dead` are each family's dead WANs, `isp` the resolvers that serve their own
    customers only. `is_away` says that look-ups may be redirected.
    """
    exempt = exempt or Exempt()
    known = _addresses([*resolvers, *STAND_INS.values()])
    out = base_chains(_CHAINS, are_wanted=True) + base_chains(_AWAY_CHAINS, are_wanted=is_away)
    for name in _TARGETS:
        out += [f"add chain {T} {name}", f"flush chain {T} {name}"]
    ours = f"meta mark & 0xff == {PROBE_MARK:#x} return"
    foreign = f"meta mark & {FOREIGN_MASK:#x} != 0 return"
    out += [f"add rule {T} {name} {ours}" for name in ("asking", "refuse")]
    marking = ("led_own",) if is_away else ()
    out += [f"add rule {T} {name} {foreign}" for name in ("asked", "asking", *marking)]
    out += [f"add rule {T} asked {rule} return" for rule in _exempted(exempt)]
    for family in Family:
        name = f"{T} isp{family.version}"
        out += [f"add set {name} {{ type {family.value}_addr; }}", f"flush set {name}"]
        served = sorted(address for address in _addresses(isp) if Family.of(address) is family)
        out += [f"add element {name} {{ {', '.join(served)} }}"] if served else []
        target, slot = targets.get(family, ("", 0))
        mine = known - _addresses([target])
        out += _family_rules(
            family, mine, target, slot, (dead or {}).get(family, ()), is_away=is_away
        )
    for family in Family:
        way = f"meta nfproto {family.value} {_LOOK_UP} jump redirect{family.version}"
        out.append(f"add rule {T} asked {way}")
    out.append(f"add rule {T} refuse_asking {_LOOK_UP} jump refuse")
    return "\n".join(out) + "\n"


def _exempted(exempt: Exempt) -> list[str]:
    if exempt.everything:
        return [_LOOK_UP]
    rules = []
    if names := names_text(sorted(exempt.devices)):
        rules.append(f"iifname {{ {names} }}")
    for source in sorted(exempt.sources):
        rules.append(f"{Family.of(source).word} saddr {source}")
    return rules


def _addresses(texts: Iterable[str]) -> set[str]:
    """Those that nft can take, in their one form: a resolv.conf may hold anything."""
    found = set()
    for text in texts:
        try:
            found.add(str(ipaddress.ip_address(text)))
        except ValueError:
            continue
    return {address for address in found if "%" not in address}


def _family_rules(
    family: Family,
    known: Iterable[str],
    target: str,
    slot: int,
    dead: Iterable[str],
    *,
    is_away: bool,
) -> list[str]:
    """What was redirected has another destination by the time that `refuse` looks at it."""
    word, n = family.word, family.version
    name = f"resolvers{n}"
    mine = sorted(r for r in known if Family.of(r) is family)
    out = [
        f"add set {T} {name} {{ type {family.value}_addr; }}",
        f"flush set {T} {name}",
        f"add element {T} {name} {{ {', '.join(mine)} }}",
        f"add rule {T} refuse {word} daddr {STAND_INS[family]} {REJECT}",
    ]
    names = names_text(dead)
    away = ["oifname @tunnels", *([f"oifname {{ {names} }}"] if names else [])]
    if target:
        asked, redirected = f"{word} daddr @{name}", f"dnat {word} to {target}"
        mark = f" meta mark set meta mark | {slot << SLOT_SHIFT:#x}" if slot else ""
        # The address stands first: behind a set of families nft 1.1 knows none for it.
        rule = f"{asked} meta nfproto @diverted{mark} {redirected}"
        out.append(f"add rule {T} redirect{n} {rule}")
        out += [f"add rule {T} asking {_LOOK_UP} {way} {asked} {redirected}" for way in away]
        if slot:
            # Translation sees the first packet of a connection alone.
            led = f"ct direction original {_LOOK_UP} ct reply {word} saddr {target}"
            out.append(f"add rule {T} redirected {led} meta nfproto @diverted{mark}")
        if slot and is_away:
            led = f"ct status dnat {_LOOK_UP} {word} daddr {target}"  # what is rare comes first
            out.append(f"add rule {T} led_own {led} meta nfproto @diverted{mark}")
    return out + [f"add rule {T} refuse {way} {word} daddr @{name} {REJECT}" for way in away]


class LookUps:
    """Which resolvers serve in the tunnels, and the redirect that follows from the plan."""

    def __init__(self) -> None:
        self._inside: Mapping[str, tuple[str, ...]] = {}
        self._resolvers = TunnelResolvers()

    async def look(self, plan: SteeringPlan) -> bool:
        """Find out which offered resolvers serve; whether others do than before."""
        before = self._inside
        self._inside = await self._resolvers.look(plan.resolvers, time.monotonic())
        return self._inside != before

    def script(
        self, plan: SteeringPlan, slots: Mapping[str, int], found: Iterable[Rule], *, is_away: bool
    ) -> str:
        """The redirect; `found` are everybody's rules. `is_away`: traffic is not back home yet."""
        targets: dict[Family, tuple[str, int]] = {}
        dead: dict[Family, Sequence[str]] = {}
        for family in Family:
            diversion = plan.diversions.get(family)
            if plan.is_share(diversion):
                continue  # look-ups go on as they are
            serving = diversion.route.device if diversion else plan.preferred
            able = [*self._inside.get(serving, ()), *plan.filter.public_resolvers]
            ours = [server for server in able if Family.of(server) is family]
            if ours:
                targets[family] = (ours[0], slots.get(serving, 0))
            if diversion is not None:
                dead[family] = diversion.dead
            elif plan.diversions:
                dead[family] = sorted(plan.known(family) & plan.dead.get(family, frozenset()))
        devices, sources, ports = policy_sources(found)
        offered = [server for servers in plan.resolvers.values() for server in servers]
        exempt = Exempt(frozenset(devices), frozenset(sources), ports)
        known, isp = {*plan.filter.wan_resolvers, *offered}, {*plan.filter.wan_resolvers} - PUBLIC
        isp -= {*plan.filter.public_resolvers}
        return redirect_script(known, targets, dead, exempt, isp, is_away=is_away)
