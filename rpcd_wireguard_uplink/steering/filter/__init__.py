"""The nftables table `inet wgup`, as commands for nft; here is what its parts share. Pure."""

from __future__ import annotations

from ...model import TABLE

T = f"inet {TABLE}"
# nft 1.1 does not guess the kind in a table of both families.
REJECT = "reject with icmpx port-unreachable"
LAPSE_S = 5.0
