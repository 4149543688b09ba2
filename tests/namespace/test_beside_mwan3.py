"""What mwan3 does to packets while it starts, played by its rules alone, must cost no traffic."""

from __future__ import annotations

import time

from tests.lab.meter import Meter, lost
from tests.lab.network import ECHO4, ECHO6, ConsumerNetwork
from tests.lab.provider import make_provider
from tests.lab.scene import Scene, settings, settled

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
    scene = Scene.lay(network, [make_provider(network.lab, network.providers[0])], settings())
    scene.start()
    router = network.consumer
    with Meter(network.host, ECHO4, rate_hz=20) as v4, Meter(network.host, ECHO6, rate_hz=20) as v6:
        settled(v4, v6)
        network.wan.drop()
        scene.away()
        v4.wait_for(lambda sample: True, since=time.monotonic())
        v6.wait_for(lambda sample: True, since=time.monotonic())
        began = time.monotonic()
        for family in ("-4", "-6"):
            router.sh(f"ip {family} rule add pref 3005 fwmark 0x500/0x3f00 unreachable")
        router.run(["nft", "-f", "-"], input=STARTING)
        time.sleep(1.5)
        found = [*v4.samples(began), *v6.samples(began)]
    assert len(found) > 30
    assert lost(found) <= 1
