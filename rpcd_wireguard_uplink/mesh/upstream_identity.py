"""What a router's way to the internet is called, so that two routers see that they share one.

A WAN's tokens are its public address and a hash of its gateway's hardware address: two routers
behind one modem have the same gateway. They say nothing that a peer could use otherwise. Reads the
kernel's neighbours; compares and decides nothing.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable

from ..model import DefaultRoute, Family
from ..system.network import NetworkState
from ..system.rtnetlink import Kernel
from .wire.offer import LONGEST_EGRESS, Offer

LOOP_PREFIX = "uplink="


class Upstream:
    """What this router's way out is called now; a dead WAN keeps the name that it had."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.tokens: tuple[str, ...] = ()

    def follow(self, network: NetworkState) -> bool:
        """Take the WANs that the router's own traffic takes first; whether the name is another
        than before.
        """
        found: set[str] = set()
        for family in Family:
            route = network.wans[family].primary
            if route is not None:
                found |= address_tokens(network.addresses_of(route.device, family))
                found |= self._gateway_tokens(route)
        before, self.tokens = self.tokens, tuple(sorted(found)) or self.tokens
        return self.tokens != before

    def _gateway_tokens(self, route: DefaultRoute) -> set[str]:
        hardware = self._kernel.neighbour(route.device, route.gateway) if route.gateway else ""
        digest = hashlib.sha256(hardware.encode()).hexdigest()[:16]
        return {f"gw={digest}"} if hardware else set()

    def is_shared(self, offer: Offer) -> bool:
        """Whether the peer leaves by the same WAN as this router."""
        return bool({t for t in offer.egress if not t.startswith(LOOP_PREFIX)} & {*self.tokens})


def address_tokens(addresses: Iterable[str]) -> set[str]:
    """`addr=` for each public address; of IPv6 the /56, which one WAN has as a whole."""
    found = set()
    for text in addresses:
        ip = ipaddress.ip_interface(text).ip
        if not ip.is_global:
            continue
        if ip.version == 6:
            ip = ipaddress.ip_network((ip, 56), strict=False).network_address
        found.add(f"addr={ip}")
    return found


def fitting(tokens: Iterable[str]) -> tuple[str, ...]:
    """The tokens that an offer has room for."""
    taken: tuple[str, ...] = ()
    for token in tokens:
        if len(",".join((*taken, token))) <= LONGEST_EGRESS:
            taken = (*taken, token)
    return taken
