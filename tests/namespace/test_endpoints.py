"""Where a tunnel's other end is, and whether it is alive: clocks that step, names, addresses."""

from __future__ import annotations

import os
import time

import pytest

from tests.lab.altered_service import TurnedService
from tests.lab.lab import Lab
from tests.lab.mesh import mesh_network
from tests.lab.meter import Meter, longest, settled
from tests.lab.network import ECHO4, ECHO6, ConsumerNetwork
from tests.lab.peers import Peer, lease_uplink, trust_each_other
from tests.lab.provider import make_provider
from tests.lab.router import Router, settings

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
    lease_uplink(c, p)
    assert c.router.host is not None
    with Meter(c.router.host, ECHO4, rate_hz=20) as four, Meter(c.router.host, ECHO6) as six:
        settled(four, six)
        c.router.wan.drop()
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


@pytest.fixture
def named(network: ConsumerNetwork) -> Router:
    """An uplink whose endpoint is a name: its IPv6 address is nobody's, its IPv4 one the
    provider's, and getaddrinfo has them in that order.
    """
    provider = make_provider(network.lab, network.providers[0])
    made = Router.build(network, [provider], settings(), hosts=["p.example"], service=TurnedService)
    turned(made).names(p_example=f"2001:db8:dead::1 {network.neighbours[0].provider4}")
    return made


def turned(router: Router) -> TurnedService:
    assert isinstance(router.service, TurnedService)
    return router.service


def test_a_dead_address_of_a_name_gives_way_to_the_other(named: Router) -> None:
    turned(named).start()
    began = time.monotonic()
    named.wait_primary(timeout_s=20.0)
    took_s = time.monotonic() - began
    assert took_s < 12.0
    print(f"\nthe other address carries after {took_s:.1f} s")


def test_the_last_good_address_outlives_a_power_cut_in_an_outage(named: Router) -> None:
    named.start()
    kept = os.path.join(turned(named).keys_dir, "endpoints.json")
    named.wait(lambda status: os.path.exists(kept), 60.0)
    before = os.stat(kept)
    named.network.wan.drop()
    named.wait_failed_over()
    time.sleep(3.0)
    turned(named).kill()
    turned(named).lose_resolver()
    named.network.consumer.sh("ip link delete wgup_nodea")
    os.unlink(turned(named).state_file)
    turned(named).start()
    named.wait_failed_over(timeout_s=20.0)
    after = os.stat(kept)
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns), "no write"
