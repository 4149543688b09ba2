"""Where a tunnel's other end is, and whether it is alive: clocks that step, names, addresses."""

from __future__ import annotations

import time

import pytest

from tests.lab.lab import Lab
from tests.lab.mesh import mesh_network
from tests.lab.meter import Meter, longest
from tests.lab.network import ECHO4, ECHO6
from tests.lab.peers import Peer, trust_each_other
from tests.lab.scene import settings, settled
from tests.lab.world import TurnedService

pytestmark = pytest.mark.needs("conntrack")

DAY_S = 86400.0


def test_a_stepped_clock_cuts_no_tunnel(lab: Lab) -> None:
    """While failed over, NTP comes through the tunnel: on the consumer, then on the provider."""
    mesh = mesh_network(lab, ("c", "p"), hosts=("c",))
    text = settings((), node_id="{}", min_uplinks=0, pace="default")
    services = {n: TurnedService(lab, r.node, text.format(n)) for n, r in mesh.items()}
    peers = {name: Peer(mesh[name], service) for name, service in services.items()}
    for service in services.values():
        service.start()
    trust_each_other(peers, [("c", "p")])
    c, p = peers["c"], peers["p"]
    p.ask("uplink_offer")
    c.hears_of("p")
    c.ask("uplink_add", peer_id="p")
    c.ready("p")
    assert c.router.host is not None
    with Meter(c.router.host, ECHO4, rate_hz=20) as four, Meter(c.router.host, ECHO6) as six:
        settled(four, six)
        c.router.line.drop()
        since = c.uses("wgup_p") + 1.0
        for service in services.values():
            service.step_clock(DAY_S)
            time.sleep(16.0)  # the provider looks after its consumers every 10 s
        service.step_clock(-DAY_S)
        time.sleep(12.0)
        assert longest(four.so_far(since)).seconds < 1.0
        assert longest(six.so_far(since)).seconds < 1.0
    rows = p.ask("uplink_consumers")["consumers"]
    assert [row["handshake_age_s"] < 300 for row in rows] == [True]
