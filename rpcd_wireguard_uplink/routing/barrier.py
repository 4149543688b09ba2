"""What has nowhere good to go is refused at once, so that it neither leaks nor waits.

A family without any live path goes on knocking at its dead line, which may be half dead: packets
leak, and hosts wait long before they try the other family. Here that line is shut for it, in nft
sets whose elements lapse as the lane's do. Own link keeping (neighbours, DHCP), our probes, mwan3's
and the tunnels' outer packets pass, and so do the line's own network and a provider's consumers.
Which line is shut, and why, is for others to say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..model import PROVIDER_DEVICE, Family
from ..wireguard import OUTER_MARK
from .lane import (
    BYPASS_MARK,
    CHOSEN_MASK,
    LANE_MARK,
    LAPSE_S,
    POLICY_MASK,
    PROBE_MARK,
    TABLE,
)

Barred = Mapping[Family, Sequence[str]]
"""The devices that are shut for each family."""

_CHAINS = (
    ("bar", "type filter hook forward priority -2; policy accept;"),
    ("bar_own", "type filter hook output priority 1; policy accept;"),
)


def barrier_script() -> str:
    """nft commands for the standing part, to follow the lane's; what is shut stays shut."""
    t = f"inet {TABLE}"
    out = [f"add set {t} barred{f.version} {{ type ifname; flags timeout; }}" for f in Family]
    out += [f"add chain {t} {name} {{ {hook} }}" for name, hook in _CHAINS]
    out.append(f"add chain {t} refuse_all")
    out += [f"flush chain {t} {name}" for name in ("bar", "bar_own", "refuse_all")]
    out += [
        # An established connection may outlive a short outage: only new ones are reset.
        f"add rule {t} refuse_all tcp flags & (syn | ack) == syn reject with tcp reset",
        # Of the unreachables only this one reaches a UDP socket at once (icmp_err_convert, icmp.c).
        f"add rule {t} refuse_all meta l4proto udp reject with icmpx type port-unreachable",
        f"add rule {t} refuse_all reject with icmpx type no-route",
        f'add rule {t} bar iifname "{PROVIDER_DEVICE}" return',
    ]
    out += [f"add rule {t} bar_own {rule}" for rule in _own_that_passes()]
    for family in Family:
        n, word = family.version, "ip" if family is Family.IPV4 else "ip6"
        shut = f"meta nfproto {family.value} oifname @barred{n}"
        for what in ("meta l4proto { tcp, udp } th dport 53", f"{word} daddr != @onlink{n}"):
            rule = f"{shut} {what} goto refuse_all"
            out += [f"add rule {t} {chain} {rule}" for chain, _ in _CHAINS]
    return "\n".join(out) + "\n"


def _own_that_passes() -> tuple[str, ...]:
    return (
        f"meta mark & 0xff == {{ {OUTER_MARK:#x}, {PROBE_MARK:#x} }} return",
        f"meta mark & {POLICY_MASK:#x} == {POLICY_MASK:#x} return",  # mwan3's trackers
        # Led elsewhere by their mark, which oifname does not show here.
        f"meta mark & {LANE_MARK:#x} != 0 return",
        f"meta mark & {CHOSEN_MASK:#x} != {{ 0, {BYPASS_MARK:#x} }} return",
        "udp dport { 67, 547 } return",
        "ip6 daddr fe80::/10 return",
        "fib daddr type { local, broadcast, multicast } return",
    )


def shut_script(barred: Barred) -> str:
    """nft commands that shut exactly these devices, for the lane's time to lapse; no gap."""
    out = []
    for family in Family:
        name = f"inet {TABLE} barred{family.version}"
        out.append(f"flush set {name}")
        shut = ", ".join(f'"{d}" timeout {LAPSE_S:g}s' for d in barred.get(family, ()))
        out += [f"add element {name} {{ {shut} }}"] if shut else []
    return "\n".join(out) + "\n"
