"""Name look-ups follow the traffic: what goes to a dead line's resolvers is sent into the tunnel.

A line's resolver is often on-link with it, or answers its own customers only, so moving the packets
is not enough. Only port 53 of packets that are in the lane, or that leave by a tunnel, is moved, so
the redirect ends with the lane. Look-ups to any other resolver, DoH and DoT stay as they are.

A look-up that can't be moved is rejected, so that whoever asked goes on to another resolver at
once: one in the lane in a family without a resolver, one of a family that is dead while the other
is in the lane, and what is sent to a tunnel's stand-in while the lane is shut.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from .. import process
from ..model import Family
from ..resolver import STAND_INS
from .lane import LANE_MARK, PROBE_MARK

_TABLE = "inet wgup"
_WORDS = {Family.IPV4: ("ipv4_addr", "ip"), Family.IPV6: ("ipv6_addr", "ip6")}
_LOOK_UP = "meta l4proto { tcp, udp } th dport 53"
_CHAINS = (
    ("asked", "type nat hook prerouting priority -100;"),
    ("asking", "type nat hook output priority -100;"),
    ("refuse_asked", "type filter hook forward priority 0;"),
    ("refuse_asking", "type filter hook output priority 0;"),
)


def redirect_script(
    resolvers: Iterable[str],
    targets: Mapping[Family, str],
    dead: Mapping[Family, Iterable[str]] | None = None,
) -> str:
    """nft commands that put the redirect in its standing form, to be part of the table's script.

    `resolvers` are the lines' own and those of the tunnels, `targets` what answers instead. `dead`
    are the lines of families that have no lane while the other family has one.
    """
    known = _addresses([*resolvers, *STAND_INS.values()])
    out = []
    for name, hook in _CHAINS:
        out += [f"add chain {_TABLE} {name} {{ {hook} policy accept; }}"]
    for name in ("elsewhere", "refuse"):
        out += [f"add chain {_TABLE} {name}"]
    for name in (*(name for name, _ in _CHAINS), "elsewhere", "refuse"):
        out += [f"flush chain {_TABLE} {name}"]
    marked = f"meta mark & {LANE_MARK:#x} != 0"
    ours = f"meta mark & 0xff == {PROBE_MARK:#x} return"
    out += [f"add rule {_TABLE} {name} {ours}" for name in ("asking", "refuse")]
    for family in Family:
        target = targets.get(family, "")
        mine = known - _addresses([target])
        out += _family_rules(family, mine, target, (dead or {}).get(family, ()))
    out += [
        f"add rule {_TABLE} asked {marked} jump elsewhere",
        f"add rule {_TABLE} asking {marked} jump elsewhere",
        f"add rule {_TABLE} asking oifname @tunnels jump elsewhere",
        f"add rule {_TABLE} refuse_asked {_LOOK_UP} jump refuse",
        f"add rule {_TABLE} refuse_asking {_LOOK_UP} jump refuse",
    ]
    return "\n".join(out) + "\n"


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
    family: Family, known: Iterable[str], target: str, dead: Iterable[str]
) -> list[str]:
    """What was moved has another destination by the time that `refuse` looks at it."""
    kind, word = _WORDS[family]
    name = f"resolvers{family.version}"
    mine = sorted(r for r in known if (":" in r) == (family is Family.IPV6))
    out = [
        f"add set {_TABLE} {name} {{ type {kind}; }}",
        f"flush set {_TABLE} {name}",
        f"add element {_TABLE} {name} {{ {', '.join(mine)} }}",
        f"add rule {_TABLE} refuse {word} daddr {STAND_INS[family]} reject",
    ]
    if target:
        out.append(
            f"add rule {_TABLE} elsewhere {_LOOK_UP} {word} daddr @{name} dnat {word} to {target}"
        )
    ways = [f"meta mark & {LANE_MARK:#x} != 0", "oifname @tunnels"]
    quoted = ", ".join(f'"{device}"' for device in dead)
    ways += [f"oifname {{ {quoted} }}"] if quoted else []
    return out + [f"add rule {_TABLE} refuse {way} {word} daddr @{name} reject" for way in ways]


async def lay_redirect(script: str) -> None:
    """Put a redirect in the place of the one that stands; the table must be there."""
    await process.run(["nft", "-f", "-"], stdin=script)
