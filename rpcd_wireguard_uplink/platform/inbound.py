"""Packet filter for what arrives by uplink tunnels: only answers, as text for nft. Pure.

A provider is trusted with traffic that goes out, not with the LAN, the router or the mesh. Only the
reply direction of tracked connections passes, and ICMP errors about them; a connection that the
provider begins is dropped in both families before address translation, so that no port forward
leads it on. The names of all tunnels begin alike, so the filter is there before a tunnel is made. A
drop here is final, whatever other tables accept (nft(8), verdict statements).
"""

from __future__ import annotations

from collections.abc import Iterable

from ..model import PROVIDER_DEVICE, TUNNEL_PREFIX

TABLE, CHAIN = "wgup_inbound", "from_tunnels"
RULES = 5
PRIORITY = -140  # after connection tracking (-200), before translation (-100)


def inbound_script(opened: Iterable[str]) -> str:
    """nft commands that put the table in place of what there is, in one transaction.

    It is not deleted for that: a table that is deleted was deleted by somebody else.

    `opened` are the tunnels whose providers may begin connections, by the owner's word.
    """
    names = ", ".join(f'"{name}"' for name in sorted({PROVIDER_DEVICE, *opened}))
    rules = (
        f'iifname != "{TUNNEL_PREFIX}*" accept',
        f"iifname {{ {names} }} accept",
        "ct state established ct direction reply accept",
        "ct state related meta l4proto { icmp, icmpv6 } accept",
        "counter drop",
    )
    chain = f"inet {TABLE} {CHAIN}"
    hook = f"type filter hook prerouting priority {PRIORITY}; policy accept;"
    out = [f"add table inet {TABLE}", f"add chain {chain} {{ {hook} }}", f"flush chain {chain}"]
    return "\n".join([*out, *(f"add rule {chain} {rule}" for rule in rules)]) + "\n"
