"""Name look-ups follow the traffic: what goes to a dead line's resolvers is sent to public ones.

A line's resolver is often on-link with it, or answers its own customers only, so moving the packets
is not enough. Only port 53 of packets that are in the lane, or that leave by a tunnel, is touched,
so the redirect ends with the lane. Look-ups to any other resolver, DoH and DoT stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..model import Family

_TABLE = "inet wgup"
_WORDS = {Family.IPV4: ("ipv4_addr", "ip"), Family.IPV6: ("ipv6_addr", "ip6")}


def redirect_script(resolvers: Iterable[str], targets: Sequence[str], lane_mark: int) -> str:
    """nft commands that put the redirect in its standing form, to be part of the table's script.

    `resolvers` are the lines' own, `targets` what answers instead: the first of each family.
    """
    known = sorted(set(resolvers) - set(targets))
    out = []
    for name, hook in (("asked", "prerouting"), ("asking", "output")):
        out += [
            f"add chain {_TABLE} {name} {{ type nat hook {hook} priority -100; policy accept; }}",
            f"flush chain {_TABLE} {name}",
        ]
    out += [f"add chain {_TABLE} elsewhere", f"flush chain {_TABLE} elsewhere"]
    for family, (kind, word) in _WORDS.items():
        n = family.version
        mine = [r for r in known if (":" in r) == (family is Family.IPV6)]
        target = next((t for t in targets if (":" in t) == (family is Family.IPV6)), "")
        out += [
            f"add set {_TABLE} resolvers{n} {{ type {kind}; }}",
            f"flush set {_TABLE} resolvers{n}",
        ]
        if mine and target:
            out.append(f"add element {_TABLE} resolvers{n} {{ {', '.join(mine)} }}")
            out.append(
                f"add rule {_TABLE} elsewhere meta l4proto {{ tcp, udp }} th dport 53 "
                f"{word} daddr @resolvers{n} dnat {word} to {target}"
            )
    moved = f"meta mark & {lane_mark:#x} != 0 jump elsewhere"
    out += [
        f"add rule {_TABLE} asked {moved}",
        f"add rule {_TABLE} asking {moved}",
        f"add rule {_TABLE} asking oifname @tunnels jump elsewhere",
    ]
    return "\n".join(out) + "\n"
