"""The chains of `config anchor`: connections that always leave by one peer's tunnel. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence

from ...config.options import Anchor
from ...model import INBOUND, LED_MARK, MWAN3_MASK, SLOT_MASK, Family
from ..plan import SteeringPlan, anchor_path
from ..rules import SLOT_SHIFT
from . import TO_PRIVATE, T

_PORTED = ("tcp", "udp")
ANCHOR_CHAINS = ("anchored", "anchoring", "anchoring_names", "strayed")


def anchors_script(plan: SteeringPlan, slots: Mapping[str, int]) -> str:
    """nft commands that have exactly the plan's anchors in force, in chains of their own.

    A new connection that fits gets the anchor's slot, which is another one than its tunnel's: what
    is done to connections of the tunnel does not touch it. What the owner's rules and routes lead
    elsewhere is no anchored connection any more.
    """
    tunnels = list(dict.fromkeys(device for _, device in plan.filter.anchors))
    marked = {name: slots[path] for name in tunnels if (path := anchor_path(name)) in slots}
    out = []
    for name in (*ANCHOR_CHAINS, *(f"anchor_{slot}" for slot in marked.values())):
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
            *TO_PRIVATE,
            "meta l4proto { tcp, udp } th dport 53 goto anchoring_names",
            "goto anchoring",
        )
    ]
    for anchor, name in plan.filter.anchors:
        for family in Family:
            match = _match(anchor, family) if name in plan.filter.anchoring.get(family, ()) else ""
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
