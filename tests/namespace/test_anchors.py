"""Anchored connections keep their address: they leave by their peer's tunnel, whatever dies."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from tests.lab.lab import Lab, ready
from tests.lab.meter import Flows, ask, sources
from tests.lab.network import ECHO4, ECHO6, HOST4, PROVIDER4, RESOLVERS4, RESOLVERS6
from tests.lab.reach import Typing, reached, until
from tests.lab.router import Router, settings
from tests.namespace.conftest import lent
from tests.namespace.test_underlays import goes_by

pytestmark = pytest.mark.needs("conntrack")

ANCHOR = f"""
config anchor 'calls'
	option peer 'nodea'
	list destination '{ECHO4}'
	list destination '{ECHO6}'
"""
MAIN = settings() + ANCHOR
LAPSE_S = 5.0
VOICE4 = "10.20.0.5"  # a server of the ISP's own, which no peer is asked for


def anchored(lab: Lab) -> Router:
    return Router.started(lab, MAIN, hosts=[PROVIDER4], has_two_ways=True)


router = lent(anchored)


@dataclass
class Sessions:
    """A host's sessions to the anchored servers: 50 datagrams a second and TCP, both families."""

    router: Router

    def __enter__(self) -> Sessions:
        host = self.router.network.host
        by_tunnel = dict(zip((ECHO4, ECHO6), self.router.network.by_uplink, strict=True))
        reached(host, by_tunnel)
        with ExitStack() as stack:
            self.flows = stack.enter_context(Flows(host, rate_hz=50))
            self.typing = [stack.enter_context(Typing(host, a)) for a in (ECHO4, ECHO6)]
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def gap_s(self, since: float) -> float:
        """The longest gap since then of flows that all kept their address, and lost nobody."""
        for meter, address in zip(self.flows, self.router.network.by_uplink, strict=True):
            assert sources(meter.so_far(since)) == [address]
        for typing, address in zip(self.typing, self.router.network.by_uplink, strict=True):
            assert typing.source == address and typing.words[-1] == "echo"
            words = len(typing.words)
            until(lambda t=typing: len(t.words), lambda n, w=words: n > w)  # type: ignore[misc]
        return self.flows.longest_s(since)


@pytest.mark.parametrize("fault", ["silent", "carrier"])
def test_sessions_outlive_the_wan_and_its_return(router: Router, fault: str) -> None:
    network = router.network
    router.wait_primary()
    goes_by(router, "wan")
    wan = network.wan
    drop, restore = (wan.drop, wan.restore) if fault == "silent" else (wan.unplug, wan.plug_in)
    others = dict(zip((RESOLVERS4[0], RESOLVERS6[0]), network.by_wan, strict=True))
    moved = dict(zip(others, network.by_uplink, strict=True))
    with Sessions(router) as sessions:
        reached(network.host, others)  # what no anchor names
        began = time.monotonic()
        drop()
        router.wait_failed_over()
        reached(network.host, moved)
        restore()
        router.wait_primary()
        goes_by(router, "wan")
        reached(network.host, others)
        gap_s = sessions.gap_s(began)
        print(f"\n{fault}: {gap_s:.2f} s")
        assert gap_s < 1.0


def test_only_what_fits_is_anchored(router: Router) -> None:
    """The LAN, the router itself and its own networks stay what they are, and so do look-ups."""
    network, host = router.network, router.network.host
    by_host = f"\nconfig anchor 'host'\n\toption peer 'nodea'\n\tlist source '{HOST4}'\n"
    by_port = "\nconfig anchor 'port'\n\toption peer 'nodea'\n\toption port '7'\n"
    router.configure(settings() + by_host)
    reached(host, {ECHO4: network.by_uplink[0], ECHO6: network.by_wan[1]})
    reached(network.consumer, {ECHO4: network.by_wan[0]})
    assert ask(host, RESOLVERS4[0], kind="dns") == network.by_wan[0]
    assert ask(host, network.wan.gateway4, kind="dns") == network.by_wan[0], "on-link"
    host.run(["ping", "-c1", "-W2", "192.168.1.1"])
    neighbour = network.neighbours[0].provider4
    router.configure(settings() + by_port)
    network.internet.sh(f"ip addr add {VOICE4}/32 dev lo")
    network.isp1.sh(f"ip route add {VOICE4} via 192.0.2.5")
    ready(network.lab.serve(network.internet, echo=[VOICE4]))
    for node in (host, network.consumer):
        reached(node, dict(zip((ECHO4, ECHO6), network.by_uplink, strict=True)))
        reached(node, {VOICE4: network.by_wan[0]})
    assert network.consumer.run(["ping", "-c1", "-W2", neighbour]).returncode == 0
    router.configure(MAIN)
    reached(host, {ECHO4: network.by_uplink[0], RESOLVERS4[0]: network.by_wan[0]})


def test_the_usual_way_while_the_peer_is_dead(router: Router) -> None:
    network = router.network
    to_wan = dict(zip((ECHO4, ECHO6), network.by_wan, strict=True))
    to_tunnel = dict(zip((ECHO4, ECHO6), network.by_uplink, strict=True))
    with Sessions(router) as sessions:
        began = network.provider_wans[0].drop()
        sessions.flows.by(network.by_wan, since=began)
        for typing in sessions.typing:
            assert typing.ended() != "echo"
        reached(network.host, to_wan)
        network.provider_wans[0].restore()
        reached(network.host, to_tunnel)
        time.sleep(0.5)
        kept = [meter.so_far(time.monotonic() - 0.5) for meter in sessions.flows]
        assert [sources(found) for found in kept] == [[a] for a in network.by_wan]


def test_a_killed_service_leaves_nothing_stuck(router: Router) -> None:
    network = router.network
    with Sessions(router) as sessions:
        killed = time.monotonic()
        router.service.kill()
        time.sleep(1.5)
        router.service.start()
        router.wait_primary()
        time.sleep(LAPSE_S)
        assert sessions.gap_s(killed) < 0.3, "a restart in time leaves no gap"
        killed = time.monotonic()
        router.service.kill()
        back = sessions.flows.by(network.by_wan, since=killed)
        assert back - killed < LAPSE_S + 2.0
        reached(network.host, dict(zip((ECHO4, ECHO6), network.by_wan, strict=True)))
    assert "proto 151" not in network.consumer.sh("ip rule; ip -6 rule")
    router.start()
    reached(network.host, dict(zip((ECHO4, ECHO6), network.by_uplink, strict=True)))
