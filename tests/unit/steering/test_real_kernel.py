"""A diversion in a real kernel, beside rules of others: taken once, and led as it should be."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest

from tests.unit.apart import apart

PROGRAM = Path(__file__).with_name("diversion_program.py")
SETUP = """
ip link set lo up
for name in wan wgup_a; do
  ip link add $name type veth peer name far_$name
  ip link set $name up; ip link set far_$name up
done
ip addr add 192.0.2.2/24 dev wan
ip addr add 10.0.0.1/32 dev wgup_a
ip addr add 2001:db8::2/64 dev wan nodad
ip addr add fd00::1/128 dev wgup_a nodad
ip route add default via 192.0.2.1 metric 5
ip route add 203.0.113.0/24 via 192.0.2.1
ip -6 route add default via 2001:db8::1 metric 5
ip -6 route add 2001:db8:9::/48 via 2001:db8::1
"""
OTHERS = {
    "nobody": "",
    "pbr": "pref 30000 lookup main suppress_prefixlength 1",
    "alone": "pref 32765 lookup main suppress_prefixlength 0",
    "early": "pref 100 lookup main",
    "lowest": "pref 1 lookup main",
    "bypass": "pref 5210 fwmark 0x80000/0xff0000 lookup main",
    "behind": "pref 40000 lookup 77",
    "vrf": "pref 1000 l3mdev",
    "local": "pref 32765 lookup local",
}


@pytest.mark.needs("unshare", "ip")
def test_over_and_back() -> None:
    root = Path(__file__).parents[3]
    asked = shlex.quote(json.dumps(OTHERS))
    script = f"export PYTHONPATH={root}\n{SETUP}{sys.executable} {PROGRAM} {asked}"
    told = json.loads(apart(script, cwd=root))
    as_it_should_be = {
        "home": ["wan"] * 4,
        "away": ["wgup_a", "wan"] * 2,  # outer packets go on by the WAN
        "back": ["wan"] * 4,
        "refused": [],
        "again": 0,
        "left": 0,
    }
    for other in OTHERS:
        assert told[other] == dict.fromkeys(("ipv4", "ipv6"), as_it_should_be), other
