"""More WANs than one: further lines, and default routes that balance over several of them."""

from __future__ import annotations

from collections.abc import Sequence

from .line import Line
from .network import ConsumerNetwork, _line

PLACE = 4
"""Of a third line at the first ISP, where network.py has one only."""


def third_wan(network: ConsumerNetwork, metric: int = 30) -> Line:
    """A third WAN of the consumer's, `wan3`, at the first ISP; its owner masquerades it."""
    made = _line(network.consumer, "wan3", network.isp1, 1, PLACE, metric=metric)
    network.consumer.sh("nft add rule inet house postrouting oifname wan3 masquerade")
    return made


def balance(lines: Sequence[Line]) -> None:
    """Replace these WANs' default routes by one of each family that spreads flows over them.

    Flows are told apart by their ports too, as owners of balanced lines configure it.
    """
    router = lines[0].router
    for line in lines:
        line.remove_routes()
    hops4 = " ".join(f"nexthop via {line.gateway4} dev {line.device} weight 1" for line in lines)
    hops6 = " ".join(f"nexthop via {line.gateway6} dev {line.device} weight 1" for line in lines)
    router.sysctl("net/ipv4/fib_multipath_hash_policy", 1)
    router.sysctl("net/ipv6/fib_multipath_hash_policy", 1)
    router.sh(f"ip route replace default {hops4}\nip -6 route replace default {hops6}")


def balance_by_objects(lines: Sequence[Line]) -> None:
    """The same by nexthop objects and a group of them in each family, in place of balance()."""
    router = lines[0].router
    for ip, base in (("ip", 100), ("ip -6", 200)):
        ids = []
        for number, line in enumerate(lines, start=base + 1):
            gateway = line.gateway4 if ip == "ip" else line.gateway6
            router.sh(f"{ip} nexthop add id {number} via {gateway} dev {line.device}")
            ids.append(str(number))
        router.sh(
            f"ip nexthop add id {base} group {'/'.join(ids)}\n"
            f"{ip} route del default\n{ip} route add default nhid {base}"
        )
