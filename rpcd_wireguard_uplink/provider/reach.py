"""Where consumers can reach this router: the ways that an offer names. Pure.

The configured place first, then public addresses, then those of networks that a neighbour may
share. What is behind somebody else's translation is told as a neighbour's way only.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping, Sequence

from ..config.peering import ProviderSettings, ScopedEndpoint
from ..model import is_own_name

MOST_ENDPOINTS = 8


def reachable_by(
    addresses: Mapping[str, Sequence[str]], tunnels: Collection[str], settings: ProviderSettings
) -> tuple[ScopedEndpoint, ...]:
    """The endpoints of a provider with these addresses (by device, with prefix lengths).

    `tunnels` are devices of the mesh or of uplinks, whose addresses would lead a tunnel into
    another one.
    """
    found = [ScopedEndpoint(settings.endpoint, settings.listen_port)] if settings.endpoint else []
    near: list[ScopedEndpoint] = []
    for device, texts in addresses.items():
        if device in tunnels or is_own_name(device):
            continue
        for text in texts:
            ip = ipaddress.ip_interface(text).ip
            if ip.is_global:
                found.append(ScopedEndpoint(str(ip), settings.listen_port, "public"))
            else:
                near.append(ScopedEndpoint(str(ip), settings.listen_port, "link"))
    return tuple((found + near)[:MOST_ENDPOINTS])
