"""What mwan3 does to packets while it starts, played by its rules alone, must cost no traffic."""

from __future__ import annotations

import time

from tests.lab.meter import Meter, lost
from tests.lab.network import ECHO4, ECHO6, ConsumerNetwork
from tests.lab.provider import make_provider
from tests.lab.router import Router, settings, settled

STARTING = """
table inet mangle_of_mwan3 {
	chain pre {
		type filter hook prerouting priority mangle; policy accept;
		iifname "wgup_nodea" meta mark set meta mark | 0x500
	}
}
"""
"""Answers get the mark of the interface they came in by, whose routing table is still empty."""


def test_answers_from_a_tunnel_need_no_routes_of_mwan3(network: ConsumerNetwork) -> None:
    router = Router.build(network, [make_provider(network.lab, network.providers[0])], settings())
    router.start()
    node = network.consumer
    with Meter(network.host, ECHO4, rate_hz=20) as v4, Meter(network.host, ECHO6, rate_hz=20) as v6:
        settled(v4, v6)
        network.wan.drop()
        router.wait_failed_over()
        v4.wait_for(lambda sample: True, since=time.monotonic())
        v6.wait_for(lambda sample: True, since=time.monotonic())
        began = time.monotonic()
        for family in ("-4", "-6"):
            node.sh(f"ip {family} rule add pref 3005 fwmark 0x500/0x3f00 unreachable")
        node.run(["nft", "-f", "-"], input=STARTING)
        time.sleep(1.5)
        found = [*v4.samples(began), *v6.samples(began)]
    assert len(found) > 30
    assert lost(found) <= 1
