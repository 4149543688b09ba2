"""What a path's health rests on: targets that prove nothing, other probes than ping, full size."""

from __future__ import annotations

import time

import pytest

from tests.lab.firewall import NO_PINGS, narrow
from tests.lab.meter import Meter, settled
from tests.lab.network import ECHO4, ECHO6, RESOLVERS4, RESOLVERS6, ConsumerNetwork
from tests.lab.provider import make_provider
from tests.lab.reach import loads
from tests.lab.router import Router, settings, states
from tests.lab.wan import slow_down

pytestmark = pytest.mark.needs("conntrack")

NEARBY = (RESOLVERS4[0], RESOLVERS6[0])


def lay(network: ConsumerNetwork, **options: object) -> Router:
    """One uplink over the neighbour link; the service is not started yet."""
    provider = make_provider(network.lab, network.providers[0])
    return Router.build(network, [provider], settings(**options))


def break_isp(network: ConsumerNetwork, *rules: str) -> None:
    """Filter what the consumer's ISP forwards (nothing ends it); its own addresses answer."""
    network.isp1.filter("forward", *rules)


def answer_nearby(network: ConsumerNetwork, addresses: tuple[str, ...] = NEARBY) -> None:
    """Have the modem, here the ISP's end of the line, answer these addresses itself."""
    for address in addresses:
        length = 128 if ":" in address else 32
        nodad = " nodad" if ":" in address else ""
        network.isp1.sh(f"ip addr add {address}/{length} dev lo{nodad}")


# Row 7: a target that is answered on this side of the outage.


@pytest.mark.parametrize("pace", ["default", "fast"])
def test_a_modem_that_answers_a_target_itself_hides_no_outage(
    network: ConsumerNetwork, pace: str
) -> None:
    router = lay(network, pace=pace)
    router.start()
    answer_nearby(network)
    break_isp(network, "drop")
    began = time.monotonic()
    router.wait_failed_over(timeout_s=8.0)
    assert time.monotonic() - began < (4.0 if pace == "default" else 2.0)
    causes = [entry["cause"] for entry in router.events("failover")]
    assert all("1.1.1.1 is answered by the next hop" in c or ":1111" in c for c in causes), causes
    router.wait(lambda s: s["primary"]["state"] == "down")
    time.sleep(2.0)
    assert states(router.status()) == {"failed_over"}, "that modem's answers bring nothing back"
    break_isp(network)
    router.wait(lambda s: states(s) == {"primary"}, 15.0)


def test_a_modem_that_always_did_hides_none_either(network: ConsumerNetwork) -> None:
    answer_nearby(network)
    router = lay(network, pace="default")
    router.start()
    assert any("1.1.1.1" in problem for problem in router.status()["problems"])
    router.stays("wan", 3.0)
    break_isp(network, "drop")
    router.wait_failed_over(timeout_s=8.0)


def test_a_start_behind_such_a_modem_finds_the_line_dead(network: ConsumerNetwork) -> None:
    answer_nearby(network)
    break_isp(network, "drop")
    router = lay(network, pace="default")
    router.service.start()
    router.wait_failed_over(timeout_s=12.0)


def test_as_many_targets_as_the_owner_says_must_answer(network: ConsumerNetwork) -> None:
    router = lay(network, pace="default", reliability=2)
    router.start()
    break_isp(network, f"ip daddr {RESOLVERS4[1]} drop", f"ip6 daddr {RESOLVERS6[1]} drop")
    status = router.wait_failed_over(timeout_s=10.0)
    assert status["wans"][0]["state"] == "down"
    assert all(
        RESOLVERS4[1] in e["cause"] or "8888" in e["cause"] for e in router.events("failover")
    )
    break_isp(network)
    router.wait_primary()


# Row 8: pings are dropped, all else passes.


def watched_by(router: Router, path: str) -> set[str]:
    """What status says the path is watched by; empty while that is ping."""
    told = [p for p in router.status()["problems"] if p.startswith(f"{path} ") and "ping" in p]
    return {word for word in ("DNS", "TCP", "HTTP") if any(word in problem for problem in told)}


@pytest.mark.parametrize("pace", ["default", "fast"])
def test_a_line_that_never_lets_pings_through_is_no_dead_wan(
    network: ConsumerNetwork, pace: str
) -> None:
    break_isp(network, *NO_PINGS)
    router = lay(network, pace=pace)
    router.start()
    assert router.events("failover") == []
    assert watched_by(router, "wan") == {"DNS"}
    router.stays("wan", 12.0)
    break_isp(network, "drop")
    router.wait_failed_over()
    break_isp(network, *NO_PINGS)
    router.wait_primary()


@pytest.mark.parametrize("pace", ["default", "fast"])
def test_a_line_that_drops_pings_later_is_no_dead_wan(network: ConsumerNetwork, pace: str) -> None:
    router = lay(network, pace=pace)
    router.start()
    break_isp(network, *NO_PINGS)
    router.stays("wan", 13.0)
    assert watched_by(router, "wan") == {"DNS"}
    assert router.events("failover") == []
    dropped = time.monotonic()
    network.wan.drop()
    router.wait_failed_over()
    assert time.monotonic() - dropped < 4.0
    network.wan.restore()
    router.wait_primary()


def test_a_line_that_lets_connections_through_only_is_no_dead_wan(network: ConsumerNetwork) -> None:
    """Neither ping nor DNS over UDP; something accepts connections at the targets."""
    network.lab.start(network.internet, "accept", 443, *RESOLVERS4, *RESOLVERS6)
    router = lay(network, pace="default")
    router.start()
    break_isp(network, *NO_PINGS, "udp dport 53 drop")
    router.stays("wan", 8.0)
    assert watched_by(router, "wan") == {"TCP"}


def test_a_line_that_lets_web_pages_through_only_is_no_dead_wan(network: ConsumerNetwork) -> None:
    network.lab.start(network.internet, "web", ECHO4, 80, 204)
    page = f"http://{ECHO4}/generate_204"
    router = lay(network, pace="default", captive_check=page, targets=RESOLVERS4)
    router.start()
    time.sleep(3.0)
    break_isp(network, *NO_PINGS, "udp dport 53 drop", "tcp dport { 53, 443 } drop")
    router.stays("wan", 10.0)
    assert watched_by(router, "wan") == {"HTTP"}


def test_a_tunnel_whose_provider_drops_pings_is_usable(network: ConsumerNetwork) -> None:
    network.providers[0].filter("forward", *NO_PINGS)
    router = lay(network)
    router.start()
    assert watched_by(router, "nodea") == {"DNS"}
    with Meter(network.host, ECHO4) as meter:
        settled(meter)
        began = network.wan.drop()
        provider_wan = network.provider_wans[0]
        meter.wait_for_source(provider_wan.address4, since=began, timeout_s=5.0)
        router.stays("wgup_nodea", 4.0)


# Row 14: an underlay that passes small packets only.


def mtu_of(router: Router) -> int:
    found: int = router.status()["uplinks"][0]["mtu"]
    return found


def test_a_tunnel_fits_what_its_underlay_passes(network: ConsumerNetwork) -> None:
    narrow(network, 1380)
    router = lay(network)
    router.start()
    router.wait(lambda s: s["uplinks"][0]["mtu"] == 1312)
    network.wan.drop()
    router.wait_failed_over()
    for address in (ECHO4, ECHO6):
        assert loads(network.host, address), router.status()
    assert router.status()["uplinks"][0]["usable"]


def test_an_underlay_that_becomes_narrow_is_noticed_when_it_is_used(
    network: ConsumerNetwork,
) -> None:
    router = lay(network)
    router.start()
    time.sleep(1.0)
    assert mtu_of(router) == 1420
    narrow(network, 1380)
    network.wan.drop()
    router.wait_failed_over()
    router.wait(lambda s: s["uplinks"][0]["mtu"] == 1312)
    for address in (ECHO4, ECHO6):
        assert loads(network.host, address), router.status()


def test_a_tunnel_that_passes_too_little_is_not_used(network: ConsumerNetwork) -> None:
    narrow(network, 1300)
    router = lay(network)
    router.service.start()
    status = router.wait(
        lambda s: s["uplinks"][0]["state"] == "up" and "1280 bytes" in s["uplinks"][0]["reason"],
        20.0,
    )
    assert not status["uplinks"][0]["usable"]


# Row 20: lines that take their time.


@pytest.mark.parametrize(("pace", "delay_s"), [("fast", 0.7), ("fast", 2.0), ("default", 2.0)])
def test_a_slow_line_is_not_left_after_a_start(
    network: ConsumerNetwork, pace: str, delay_s: float
) -> None:
    slow_down(network.lab, network.wan, delay_s)
    router = lay(network, pace=pace)
    for _ in range(3):
        network.consumer.sh("ip neigh flush all")
        router.start()
        router.stays("wan", 4.0)
        moved = router.events("failover", "switch", "stranded")
        assert [entry["cause"] for entry in moved] == []
        router.service.stop()
