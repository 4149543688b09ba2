"""The main job: a dead WAN's traffic moves into the tunnel in time, comes back, and all is told."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import pytest

from rpcd_wireguard_uplink.ubus.client import Client
from tests.lab.lab import Lab
from tests.lab.meter import Flows, Meter, longest, lost, outages, settled
from tests.lab.network import ECHO4, ECHO6, consumer_network
from tests.lab.provider import make_provider
from tests.lab.reach import until
from tests.lab.router import Router, settings, states
from tests.lab.service import Service
from tests.namespace.conftest import lent

pytestmark = pytest.mark.needs("conntrack")

CUTS = 3
HOLD_S = 1
RESOLVER = "8.8.8.8"


def fast_router(lab: Lab) -> Router:
    return Router.started(lab, settings(hold_time=HOLD_S))


fast = lent(fast_router)


def measure(
    router: Router,
    times: int,
    fault: Callable[[int], float],
    mend: Callable[[], object],
    pulse_s: float = 0.1,
) -> dict[str, list[float]]:
    """Seconds from each fault to the first answer by the tunnel: of a LAN host's flows in both
    families, and of the router's own look-ups. The WAN has answered within `pulse_s` of the fault:
    a busy machine's probes are late and would be the beginning of a silence.
    """
    provider_wan = router.network.provider_wans[0]
    found: dict[str, list[float]] = {"ipv4": [], "ipv6": [], "own look-ups": []}
    with (
        Meter(router.network.host, ECHO4) as ipv4,
        Meter(router.network.host, ECHO6) as ipv6,
        Meter(router.network.consumer, RESOLVER, kind="dns", rate_hz=50) as own,
    ):
        meters = {"ipv4": ipv4, "ipv6": ipv6, "own look-ups": own}
        settled(*meters.values())
        for number in range(times):
            router.wait_primary()
            time.sleep(0.15 + 0.03 * number)  # not always at the same moment between two probes
            router.wait(lambda s: 0 <= s["wans"][0]["last_ok_s"] <= pulse_s)  # no doubt of its own
            began = fault(number)
            for name, meter in meters.items():
                source = provider_wan.address6 if name == "ipv6" else provider_wan.address4
                sample = meter.wait_for_source(source, since=began)
                assert sample.received is not None
                found[name].append(round(sample.received - began, 3))
            router.wait_failed_over()
            mend()
        router.wait_primary()
    return found


def test_silent_death_is_over_within_a_second(fast: Router) -> None:
    wan = fast.network.wan
    found = measure(fast, CUTS, lambda number: wan.drop(), wan.restore)
    assert all(len(gaps) == CUTS for gaps in found.values())
    assert all(median(gaps) < 1.0 for gaps in found.values()), found
    assert max(max(gaps) for gaps in found.values()) < 3.0, found
    assert min(found["ipv4"]) > 0.15, "three lost probes take longer: it switched before it knew"


def test_carrier_loss_is_over_at_once(fast: Router) -> None:
    wan = fast.network.wan

    def unplug(number: int) -> float:
        began = wan.carrier_down()
        if number % 2:
            wan.remove_routes()  # as netifd does; without it the kernel keeps them
        return began

    def plug_in() -> None:
        wan.carrier_up()
        wan.add_routes()

    found = measure(fast, CUTS, unplug, plug_in)
    assert min(found["ipv4"]) < 0.1 and min(found["ipv6"]) < 0.1, found
    assert max(found["own look-ups"]) < 1.0, found
    assert max(found["ipv4"] + found["ipv6"]) < 1.0, found


def test_default_pace_keeps_three_seconds(namespaces: None) -> None:
    with Lab() as lab:
        router = Router.started(lab, settings(pace="default", hold_time=HOLD_S))
        assert router.status()["detection_bound_ms"] <= 10_000
        wan = router.network.wan
        found = measure(router, 2, lambda number: wan.drop(), wan.restore, pulse_s=0.3)
        assert max(max(gaps) for gaps in found.values()) < 3.0, found


def test_failback_waits_for_the_hold_time_and_loses_little(fast: Router) -> None:
    network, wan = fast.network, fast.network.wan
    with Flows(network.host, deadline_s=1.5) as flows:  # what comes late is not lost
        wan.drop()
        fast.wait_failed_over()
        mended = wan.restore()
        for meter, address in zip(flows, wan.addresses, strict=True):
            back = meter.wait_for_source(address, since=mended)
            assert HOLD_S <= back.sent - mended < HOLD_S + 3.0
            time.sleep(0.3)
            since = meter.samples(mended)
            assert lost(since) <= 5, [(o.began - mended, o.lost) for o in outages(since)]
            assert longest(since).seconds < 0.2


def written_state(router: Router, wanted: str) -> dict[str, Any]:
    """The state file once it says so, which must be soon."""
    return until(router.service.state, lambda state: state["state"] == wanted, 2.0)


async def test_a_failover_is_told_everywhere(fast: Router) -> None:
    """By the state file, the history, events on the bus and wgctl: cause and times."""
    heard: list[tuple[str, dict[str, Any]]] = []
    client = Client(fast.service.socket)
    await client.connect()
    try:
        await client.listen("wireguard-uplink.*", lambda name, data: heard.append((name, data)))
        await asyncio.to_thread(failover_is_told, fast)
        deadline = time.monotonic() + 3.0
        while len(heard) < 4 and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
    finally:
        await client.close()
    assert [name for name, _ in heard] == [
        *["wireguard-uplink.failover"] * 2,
        *["wireguard-uplink.failback"] * 2,
    ]
    first = heard[0][1]
    assert (first["peer_id"], first["from"], first["to"]) == ("nodea", "wan", "wgup_nodea")
    assert first["cause"] and first["at"].endswith("Z") and first["detection_ms"] > 0


def failover_is_told(router: Router) -> None:
    service, wan = router.service, router.network.wan
    died = wan.drop()
    router.wait_failed_over()
    over = time.monotonic()
    state = written_state(router, "failed_over")
    assert state["active_path"] == "wgup_nodea"
    assert state["history"][-1]["kind"] == "failover"
    shown = service.wgctl("uplink", "status")
    assert shown.returncode == 0, shown.stderr
    assert "failed_over" in shown.stdout and "leaves by wgup_nodea" in shown.stdout
    assert states(json.loads(service.wgctl("uplink", "status", "--json").stdout)) == {"failed_over"}
    history = service.wgctl("uplink", "history")
    assert history.returncode == 0 and "failover" in history.stdout
    assert "no answer" in history.stdout
    rows = json.loads(service.wgctl("uplink", "history", "--json").stdout)["events"]
    assert rows[0]["kind"] == "failover"
    lasted_s = time.monotonic() - over
    wan.restore()
    router.wait_primary()
    whole_s = time.monotonic() - died
    assert written_state(router, "primary")["history"][-1]["kind"] == "failback"
    assert "primary" in service.wgctl("uplink", "status").stdout
    told = router.events("failover", "failback")[-4:]
    assert [entry["kind"] for entry in told] == ["failover"] * 2 + ["failback"] * 2
    assert {entry["family"] for entry in told[:2]} == {"ipv4", "ipv6"}
    for entry in told[:2]:
        assert (entry["from"], entry["to"], entry["peer_id"]) == ("wan", "wgup_nodea", "nodea")
        assert "no answer" in entry["cause"]
        assert 100 < entry["detection_ms"] < 3000
        assert 0 <= entry["switch_ms"] < 1000
    for entry in told[2:]:
        assert (entry["from"], entry["to"]) == ("wgup_nodea", "wan")
        assert "wan has answered" in entry["cause"]
        assert lasted_s + HOLD_S < entry["duration_s"] < whole_s


def test_everything_by_calls_from_an_offer_to_the_failover(namespaces: None) -> None:
    """As an owner does it: no tunnel there, an offer heard, one call, the provider admits."""
    with Lab() as lab:
        network = consumer_network(lab)
        provider = make_provider(lab, network.providers[0])
        service = Service(lab, network.consumer, settings())
        service.start()
        message = provider.offer(network.neighbours[0].provider4)
        assert service.expect("uplink_gossip", {"message": message})["accepted"]
        added = service.expect("uplink_add", {"peer_id": "nodea"})
        assert added["note"] == ""
        provider.admit_reply(added, network.consumer, network.neighbours[0].consumer4)
        router = Router(network, (provider,), service, "")
        router.wait_primary()
        tested = service.expect("uplink_test", {"peer_id": "nodea", "count": 3})
        assert tested["reachable"] and tested["received"] == 3
        with Meter(network.host, ECHO4) as meter:
            settled(meter)
            began = network.wan.drop()
            meter.wait_for_source(network.provider_wans[0].address4, since=began, timeout_s=3.0)
