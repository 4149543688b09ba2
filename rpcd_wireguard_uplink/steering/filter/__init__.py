"""The nftables table `inet wgup`, as commands for nft; here is what its parts share. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from ...model import TABLE, Family
from ..tables import PRIVATE

T = f"inet {TABLE}"
# nft 1.1 does not guess the kind in a table of both families.
REJECT = "reject with icmpx port-unreachable"
LAPSE_S = 5.0

# A peer is not asked for these; the WAN may know a way.
TO_PRIVATE = [
    *(f"{f.word} daddr {{ {', '.join(PRIVATE[f])} }} return" for f in Family),
    "ip6 daddr fe80::/10 return",
]


def base_chains(chains: Iterable[tuple[str, str]], *, are_wanted: bool) -> list[str]:
    """nft commands that have these chains (name, hook) at their hooks, empty, or take them away:
    each costs every packet some 50 ns.
    """
    out = []
    for name, hook in chains:
        out += [f"add chain {T} {name}" + (f" {{ {hook} }}" if are_wanted else "")]
        out += [f"flush chain {T} {name}", *([] if are_wanted else [f"delete chain {T} {name}"])]
    return out
