"""New connections at the first doubt of a WAN, in both families, with packets.

They leave by a backup at once and finish there; what is established stays. A verdict comes 1.7 s
after the first lost probe.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from rpcd_wireguard_uplink.config.probe_profile import DEFAULT_PROFILE
from tests.lab.altered_service import RestingService
from tests.lab.guest import TABLE, guest_network
from tests.lab.lab import Lab, ready
from tests.lab.meter import Flows, Meter, lost, settled, sources
from tests.lab.network import ECHO4, ECHO6, RESOLVERS4, RESOLVERS6
from tests.lab.node import LabError, program
from tests.lab.pool import added
from tests.lab.reach import Typing, asking, reached, until
from tests.lab.router import Router, Status, settings, states
from tests.namespace.conftest import lent

pytestmark = pytest.mark.needs("conntrack")

BACKUP = "wgup_nodea"
MAPS = "nft list map inet wgup early4; nft list map inet wgup early6"
OTHERS = (RESOLVERS4[0], RESOLVERS6[0])  # they serve echoes too


def at_default_pace(lab: Lab) -> Router:
    options = settings(pace="default", hold_time=0)
    return Router.started(lab, options, service=RestingService)


router = lent(at_default_pace)


def early(status: Status) -> set[str]:
    """By which paths new connections of the families leave early."""
    return {family["early_path"] for family in status["families"].values()}


def is_told(router: Router) -> bool:
    """Whether new connections of both families leave early; the status says so a moment before."""
    return router.network.consumer.sh(MAPS).count("goto") == 2


def doubt(router: Router, backup: str = BACKUP) -> None:
    """Have the WAN silent and in doubt. Where a busy machine's tunnel answers late it is no backup
    for that: then the verdict comes first, and it is done once more.
    """
    for _ in range(10):
        router.wait_primary()
        router.network.wan.drop()
        while states(status := router.status()) != {"failed_over"}:
            if early(status) == {backup} and is_told(router):
                return
            time.sleep(0.02)
        router.network.wan.restore()
    raise LabError("no doubt, but verdicts")


@contextmanager
def typing(router: Router, ways: tuple[str, str]) -> Iterator[list[Typing]]:
    """A connection in use of each family, which came by these sources."""
    with ExitStack() as stack:
        made = [stack.enter_context(Typing(router.network.host, a)) for a in (ECHO4, ECHO6)]
        assert tuple(each.source for each in made) == ways
        yield made


def in_use(connections: list[Typing]) -> None:
    """Wait until each has had further answers."""
    for each in connections:
        count = len(each.words)
        until(lambda e=each: e.words[-1], lambda word: word == "echo")  # type: ignore[misc]
        until(lambda e=each, n=count: len(e.words) > n + 5, bool)  # type: ignore[misc]
        assert set(each.words[1:]) == {"echo"}


def test_new_connections_leave_early_and_finish_where_they_began(router: Router) -> None:
    """The WAN was alive after all."""
    assert any(alive_after_all(router) for _ in range(10))


def alive_after_all(router: Router) -> bool:
    """False where a verdict came before the WAN was heard again (see `doubt`)."""
    network = router.network
    up, own = network.by_uplink, network.by_wan
    failovers = len(router.events("failover"))
    with Flows(network.host, rate_hz=20) as flows, typing(router, own) as old:
        router.wait_primary()
        with asking(network.host, ECHO4, ECHO6) as new:
            settled(*new.values())
            died = network.wan.drop()
            for meter, way in zip(new.values(), up, strict=True):
                meter.wait_for_source(way, since=died)
            network.wan.restore()
        router.wait(lambda s: early(s) == {""})
        if router.wait_primary() and len(router.events("failover")) != failovers:
            return False
        with typing(router, up) as begun:  # each pair keeps its way
            reached(network.host, dict(zip(OTHERS, own, strict=True)))
            in_use(old + begun)
            flows.answered(since=time.monotonic())
            for meter, way in zip(flows, own, strict=True):
                seen = {sample.source for sample in meter.so_far(died)}
                assert seen <= {way, None}, "an established one moves at a verdict only"
    return len(router.events("failover")) == failovers


SERVICE4 = "198.51.100.250"
SEND = "import socket; socket.socket(2, 3, {0}).sendto(bytes(60), ('{1}', 0))"
GRE, ESP = 47, 50


def test_what_others_refuse_is_back_with_the_wan(router: Router) -> None:
    """The ISP serves its own customers only; parts of a session that was begun before stay."""
    network, own = router.network, router.network.wan.address4
    isp, host = network.isp1, network.host
    isp.sh(f"ip addr add {SERVICE4}/32 dev lo")
    isp.filter("input", f"ip daddr {SERVICE4} ip saddr != {own} drop", table="customers")
    ready(network.lab.serve(isp, echo=[SERVICE4]))
    doubt(router)
    with Meter(host, SERVICE4, rate_hz=20) as flow, asking(host, SERVICE4, ECHO4) as new:
        for protocol in (GRE, ESP):
            host.run(["python3", "-c", SEND.format(protocol, OTHERS[0])])
        tracked = network.consumer.sh("conntrack -L 2>/dev/null").splitlines()
        new[ECHO4].wait_for_source(network.by_uplink[0])
        back = network.wan.restore()
        router.wait(lambda s: early(s) == {""})
        new[SERVICE4].wait_for_source(own, since=back, timeout_s=2.0)
        assert flow.wait_for_source(own, timeout_s=8.0).sent - back > 1.0, "it had its time"
    for protocol in (GRE, ESP):
        assert any(f" {protocol} " in each and f"dst={own} " in each for each in tracked), tracked


def test_a_verdict_resets_nothing_that_began_on_the_backup(router: Router) -> None:
    network = router.network
    doubt(router)
    with typing(router, network.by_uplink) as begun:
        router.wait_failed_over()
        router.until_told("failover")
        in_use(begun)
        assert early(router.status()) == {""}
    network.wan.restore()
    router.wait_primary()


def seen_until_the_verdict(router: Router) -> set[str]:
    """The paths by which new connections left early before traffic was moved."""
    seen = set()
    router.network.wan.drop()
    router.wait(lambda s: bool(seen.update(early(s))) or "failed_over" in str(s["families"]))
    router.network.wan.restore()
    router.wait_primary()
    return seen - {""}


def test_only_who_costs_nothing_is_asked_unless_the_owner_says_so(router: Router) -> None:
    free, main = router.uplinks, settings(pace="default", hold_time=0)
    router.wait_primary()
    try:
        for option in ("metered '1'", "quota_gb '50'", "price_per_gb '0.5'"):
            router.uplinks = f"{free}\toption {option}\n"
            router.configure(main)
            router.wait_primary()
            assert seen_until_the_verdict(router) == set()
        router.configure(settings(pace="default", hold_time=0, early_failover="all"))
        doubt(router)
        router.network.wan.restore()
        router.wait_primary()
        router.uplinks = free
        router.configure(settings(pace="default", hold_time=0, early_failover="off"))
        assert seen_until_the_verdict(router) == set()
    finally:
        router.uplinks = free
        router.configure(main)


def test_a_backup_that_dies_keeps_none(router: Router) -> None:
    network = router.network
    doubt(router)
    with Meter(network.host, ECHO4, rate_hz=50) as flow:
        flow.wait_for_source(network.by_uplink[0])
        network.wan.restore()
        router.wait(lambda s: early(s) == {""})
        died = network.provider_wans[0].drop()
        flow.wait_for_source(network.wan.address4, since=died, timeout_s=8.0)
        reached(network.host, {ECHO4: network.wan.address4, ECHO6: network.wan.address6})
    network.provider_wans[0].restore()
    router.wait_primary()


def kept_for_s(router: Router) -> int:
    """For how long connections stay on the backup without another look, in both families."""
    shown = "".join(router.network.consumer.sh(f"nft list map inet wgup kept{n}") for n in (4, 6))
    lasts = re.findall(r"expires (?:(\d+)m)?(\d+)s", shown)
    assert len(lasts) == 2, shown
    return min(60 * int(minutes or 0) + int(seconds) for minutes, seconds in lasts)


def test_a_killed_service_leaves_no_doubt(router: Router) -> None:
    network, node = router.network, router.network.consumer
    doubt(router)
    router.service.kill()
    with typing(router, network.by_uplink) as begun:  # it lapses after 5 s
        network.wan.restore()
        reached(network.host, dict(zip(OTHERS, network.by_wan, strict=True)), timeout_s=12.0)
        until(lambda: node.sh(MAPS), lambda shown: "goto" not in shown)
        in_use(begun)
        before = kept_for_s(router)
        router.start()
        # The next run has seen that connections are left: it keeps them there.
        until(lambda: kept_for_s(router), lambda now: now > before)
        in_use(begun)
    reached(network.host, dict(zip(OTHERS, network.by_wan, strict=True)))


SATURATED_S = 10
QUEUE = "tbf rate 4mbit burst 16kb latency 2000ms"


@pytest.mark.needs("tc")
def test_a_saturated_wan_is_in_no_doubt(lab: Lab) -> None:
    """Its queue grows to two seconds: probes are late, and what arrives says that it lives."""
    router = at_default_pace(lab)
    network = router.network
    network.isp1.sh(f"tc qdisc add dev {network.wan.isp_device} root {QUEUE}")
    lab.start(network.internet, "serve_downloads", ECHO4)
    load = network.host.popen(program("download", ECHO4, SATURATED_S))
    with ExitStack() as stack:
        meters = [
            stack.enter_context(Meter(network.host, a, kind="tcp", rate_hz=20, deadline_s=5.0))
            for a in OTHERS
        ]
        until(lambda: load.returncode, lambda code: code is not None, SATURATED_S + 10.0)
        for meter, backup in zip(meters, network.by_uplink, strict=True):
            made = [sample for sample in meter.stop() if sample.received]
            slow = [s for s in made if s.received and s.received - s.sent > 1.0]
            assert len(made) > 100 and len(slow) > 20, "the queue was long"
            assert sum(s.source == backup for s in made) <= len(made) / 100
    assert not router.events("failover"), "the load is of IPv4, the queue is before both"


def test_false_doubts_break_nothing(router: Router) -> None:
    """On a WAN that loses 2 % each way, and all for a third of a second again and again."""
    network = router.network
    router.wait_primary()
    failovers = len(router.events("failover"))
    network.wan.drop(2)
    doubts, connections = 0, []
    with (
        ExitStack() as stack,
        Meter(network.host, ECHO4, kind="tcp", rate_hz=20, deadline_s=8.0) as four,
        Meter(network.host, ECHO6, kind="tcp", rate_hz=20, deadline_s=8.0) as six,
    ):
        while doubts < 3:
            connections += [stack.enter_context(Typing(network.host, a)) for a in (ECHO4, ECHO6)]
            network.wan.drop()
            with suppress(LabError):
                router.wait(lambda s: early(s) == {BACKUP}, 0.6)
                doubts += 1
            network.wan.drop(2)
            router.wait(lambda s: early(s) == {""})
        in_use(connections)
        made = [*four.stop(), *six.stop()]
    network.wan.restore()
    assert len(router.events("failover")) == failovers
    assert len(made) > 100 and not lost(made)
    assert {s.source for s in made} == {*network.by_wan, *network.by_uplink}


def test_another_wan_comes_first_and_an_owners_rule_stays(lab: Lab) -> None:
    """The WAN's IPv6 prefix is translated there; guests go by the second WAN as ever."""
    main = settings(pace="default", hold_time=0, check_interval=1)
    router = Router.started(lab, main, second_wan=True, wan_metric=10)
    network, wan2 = router.network, router.network.wan2
    assert wan2 is not None
    guest = guest_network(network)
    routes = [
        f"ip route add default via {wan2.gateway4} dev wan2 table {TABLE}",
        f"ip -6 route add default via {wan2.gateway6} dev wan2 table {TABLE}",
        *guest.rule("iif guest"),
    ]
    ways = dict(zip((ECHO4, ECHO6), wan2.addresses, strict=True))
    with added(network.consumer, *routes), asking(guest.node, *ways) as theirs:
        for address, meter in theirs.items():
            meter.wait_for_source(ways[address])
        begun = time.monotonic()
        assert any(second_wan_is_tried(router, ways) for _ in range(10))
        for address, meter in theirs.items():
            assert sources(meter.samples(begun)) == [ways[address]]
    reached(network.host, dict(zip(OTHERS, network.by_wan, strict=True)))


def second_wan_is_tried(router: Router, ways: dict[str, str]) -> bool:
    """New connections leave by it in a doubt; False where the silence grew so long meanwhile that
    it was a verdict.
    """
    failovers = len(router.events("failover"))
    doubt(router, "wan2")
    reached(router.network.host, ways)
    router.network.wan.restore()
    router.wait(lambda s: early(s) == {""})
    router.wait_primary()
    verdicts = router.events("failover")[failovers:]
    assert all(each["detection_ms"] >= DEFAULT_PROFILE.silence_s * 1000 for each in verdicts)
    return not verdicts
