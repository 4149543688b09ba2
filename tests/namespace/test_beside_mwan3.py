"""What mwan3 does to packets while it starts, played by its rules alone, must cost no traffic."""

from __future__ import annotations

import time

from tests.lab.meter import Flows, lost
from tests.lab.router import Router

STARTING = """
table inet mangle_of_mwan3 {
	chain pre {
		type filter hook prerouting priority mangle; policy accept;
		iifname "wgup_nodea" meta mark set meta mark | 0x500
	}
}
"""
"""Answers get the mark of the interface they came in by, whose routing table is still empty."""


def test_answers_from_a_tunnel_need_no_routes_of_mwan3(router: Router) -> None:
    network = router.network
    node = network.consumer
    with Flows(network.host, rate_hz=20) as flows:
        network.wan.drop()
        router.wait_failed_over()
        flows.answered(since=time.monotonic())
        began = time.monotonic()
        for family in ("-4", "-6"):
            node.sh(f"ip {family} rule add pref 3005 fwmark 0x500/0x3f00 unreachable")
        node.nft(STARTING)
        time.sleep(1.5)
        found = [sample for meter in flows for sample in meter.samples(began)]
    for family in ("-4", "-6"):
        node.sh(f"ip {family} rule del pref 3005")
    node.sh("nft delete table inet mangle_of_mwan3")
    assert len(found) > 30
    assert lost(found) <= 1
