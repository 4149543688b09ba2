"""The kill switch: what has no live path is refused at once, and neither leaks nor waits. Pure.

A family without any live path goes on knocking at its dead WAN, which may be half dead: packets
leak, and hosts wait long before they try the other family. Own link keeping (neighbours, DHCP), our
probes, mwan3's and the tunnels' outer packets pass, and so do the WAN's own network and consumers'.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...model import MWAN3_MASK, OUTER_MARK, PROBE_MARK, PROVIDER_DEVICE, SLOT_MASK, Family
from ...system.nft import name_text
from . import LAPSE_S, T, base_chains

CHOSEN_MASK = 0x00FF0000  # where pbr (fw_mask) and Tailscale keep their marks
BYPASS_MARK = 0x00080000  # tailscaled's own packets: they ask for the main table

Blocked = Mapping[Family, Sequence[str]]
"""The devices that are blocked for each family."""

_BLOCK_CHAINS = (
    ("block", "type filter hook forward priority -2; policy accept;"),
    ("block_own", "type filter hook output priority 1; policy accept;"),
)


def kill_switch_script(*, is_blocking: bool) -> str:
    """nft commands for the kill switch's chains; what is blocked stays so."""
    t = T
    out = [f"add set {t} blocked{f.version} {{ type ifname; flags timeout; }}" for f in Family]
    out += base_chains(_BLOCK_CHAINS, are_wanted=is_blocking)
    for name in ("refuse_all", *(f"refuse{f.version}" for f in Family)):
        out += [f"add chain {t} {name}", f"flush chain {t} {name}"]
    out += [
        # An established connection may outlive a short outage: only new ones are reset.
        f"add rule {t} refuse_all tcp flags & (syn | ack) == syn reject with tcp reset",
        # Of the unreachables only this one reaches a UDP socket at once (icmp_err_convert, icmp.c).
        f"add rule {t} refuse_all meta l4proto udp reject with icmpx type port-unreachable",
        f"add rule {t} refuse_all reject with icmpx type no-route",
    ]
    if is_blocking:
        out.append(f'add rule {t} block iifname "{PROVIDER_DEVICE}" return')
        out += [f"add rule {t} block_own {rule}" for rule in _own_that_passes()]
    for family in Family:
        n, word = family.version, family.word
        rule = f"meta nfproto {family.value} oifname @blocked{n} jump refuse{n}"
        out += [f"add rule {t} {chain} {rule}" for chain, _ in _BLOCK_CHAINS if is_blocking]
        for what in ("meta l4proto { tcp, udp } th dport 53", f"{word} daddr != @onlink{n}"):
            out.append(f"add rule {t} refuse{n} {what} goto refuse_all")
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
        names = map(name_text, blocked.get(family, ()))
        devices = ", ".join(f"{each} timeout {LAPSE_S:g}s" for each in names)
        out += [f"add element {name} {{ {devices} }}"] if devices else []
    return "\n".join(out) + "\n"
