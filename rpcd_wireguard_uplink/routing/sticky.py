"""Sticky failback: connections that are on the tunnel finish there, new ones use the line again.

A connection that the lane leads into a tunnel is noted in one bit of its conntrack mark, apart from
mwan3's, pbr's and Tailscale's bits. Once the lane is shut, elements of a verdict map lead what is
noted into the tunnel still, and the kernel ends that by their timeout, whatever becomes of this
service. Knows nothing of why or when.
"""

from __future__ import annotations

from ..model import Family
from .lane import LANE_MARK, TABLE

STICKY_MARK = 0x02000000

_CHAINS = (
    ("note", "type filter hook postrouting priority 99; policy accept;"),
    ("kept", "type filter hook prerouting priority -148; policy accept;"),
    ("kept_own", "type route hook output priority -148; policy accept;"),
)


def sticky_script(is_wanted: bool) -> str:
    """nft commands for the standing part, to follow the lane's; without rules where not wanted."""
    t = f"inet {TABLE}"
    out = [f"add map {t} keep{f.version} {{ type mark : verdict; flags timeout; }}" for f in Family]
    out += [f"add chain {t} {name} {{ {hook} }}" for name, hook in _CHAINS]
    out += [f"flush chain {t} {name}" for name, _ in _CHAINS]
    if is_wanted:
        noted = f"ct mark & {STICKY_MARK:#x}"
        out.append(
            f"add rule {t} note oifname @tunnels meta mark & {LANE_MARK:#x} != 0 "
            f"ct mark set ct mark | {STICKY_MARK:#x}"
        )
        out += [
            f"add rule {t} {chain} meta nfproto {f.value} ct direction original "
            f"{noted} vmap @keep{f.version}"
            for chain in ("kept", "kept_own")
            for f in Family
        ]
    return "\n".join(out) + "\n"


def keep_script(family: Family, seconds: float) -> str:
    """nft commands that keep the family's noted connections in the lane's table for so long."""
    element = f"{STICKY_MARK:#x} timeout {round(seconds)}s : goto mark_it"
    return end_script(family) + f"add element inet {TABLE} keep{family.version} {{ {element} }}\n"


def end_script(family: Family) -> str:
    """nft commands that end it before its time."""
    return f"flush map inet {TABLE} keep{family.version}\n"
