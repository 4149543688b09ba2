"""`wgctl uplink use`: packets leave by the path that the owner chooses, until it ends or dies."""

from __future__ import annotations

import json
import re
import time

from tests.lab.meter import Meter, longest, settled
from tests.lab.network import ECHO4, ECHO6
from tests.lab.router import Router
from tests.namespace.conftest import lent
from tests.namespace.conftest import plain as plain_router

router = lent(plain_router)
TUNNEL = "wgup_nodea"


def test_packets_follow_the_owners_choice(router: Router) -> None:
    network, service = router.network, router.service
    router.wait_primary()
    by_peer, by_wan = network.provider_wans[0].addresses, network.wan.addresses
    with Meter(network.host, ECHO4) as four, Meter(network.host, ECHO6) as six:
        settled(four, six)
        began = time.monotonic()
        assert service.wgctl("uplink", "use", "nodea", "--for", "1h").returncode == 0
        for meter, address in zip((four, six), by_peer, strict=True):
            meter.wait_for_source(address, since=began)
        back = time.monotonic()
        assert service.wgctl("uplink", "use", "wan").returncode == 0
        for target, address in ((ECHO4, by_wan[0]), (ECHO6, by_wan[1])):
            with Meter(network.host, target) as new:
                assert new.wait_for(lambda _: True).source == address
        for meter, address in zip((four, six), by_peer, strict=True):
            meter.wait_for_source(address, since=back + 0.5)
            seen = {sample.source for sample in meter.samples(back + 0.5) if sample.source}
            assert seen == {address}, "what is under way finishes where it is"
        samples = four.samples(began)
    assert longest(samples).seconds < 0.5
    kinds = [(entry["kind"], entry["cause"]) for entry in router.events()]
    assert ("failover", "chosen by hand") in kinds and ("failback", "chosen by hand") in kinds


def test_it_is_shown_and_ends_by_itself(router: Router) -> None:
    router.wait_primary()
    service = router.service
    service.expect("uplink_use", {"path": "nodea", "for": "3"})
    status = router.wait_failed_over(TUNNEL)
    assert status["by_hand"]["path"] == "nodea" and 0 < status["by_hand"]["left_s"] <= 3
    assert status["cause"] == "chosen by hand"
    assert "By hand   nodea for" in service.wgctl("uplink", "status").stdout
    status = router.wait(lambda found: "by_hand" not in found)
    router.wait_primary(30.0)


def test_auto_ends_it(router: Router) -> None:
    router.wait_primary()
    router.service.expect("uplink_use", {"path": "nodea"})
    router.wait_failed_over(TUNNEL)
    router.service.expect("uplink_use", {"path": "auto"})
    router.wait_primary(30.0)


def test_a_choice_that_dies_is_over(router: Router) -> None:
    router.wait_primary()
    router.service.expect("uplink_use", {"path": "nodea"})
    router.wait_failed_over(TUNNEL)
    router.network.provider_wans[0].drop()
    try:
        status = router.wait(lambda found: found["active_path"] == "wan")
        assert "by_hand" not in status
        refused = router.service.wgctl("uplink", "use", "nodea", "--json")
        assert refused.returncode != 0
        assert json.loads(refused.stdout)["code"] == "path_down"
        assert "can't be used now: it is down" in refused.stderr
    finally:
        router.network.provider_wans[0].restore()
    router.wait(lambda found: found["uplinks"][0]["usable"], 30.0)


def test_a_dead_wan_and_a_wrong_span_are_refused(router: Router) -> None:
    router.wait_primary()
    for words, said in (
        (("nodea", "--for", "25h"), "for must be from 1s to 24h"),
        (("nodea", "--for", "soon"), "for must be a number of seconds"),
        (("nobody",), "there is no uplink to"),
    ):
        done = router.service.wgctl("uplink", "use", *words)
        assert done.returncode != 0 and said in done.stderr, done.stderr
    router.network.wan.drop()
    try:
        router.wait_failed_over(TUNNEL)
        done = router.service.wgctl("uplink", "use", "wan")
        assert done.returncode != 0 and "no WAN answers" in done.stderr
    finally:
        router.network.wan.restore()
    router.wait_primary(30.0)


def test_a_report_has_it_all_and_no_key(router: Router) -> None:
    router.wait_primary()
    done = router.service.wgctl("uplink", "report", "-", "--config-dir", router.service.config_dir)
    assert done.returncode == 0, done.stderr
    for name in ("doctor", "configuration", "uplink_status", "uplink_explain", "wg show"):
        assert f"== {name}\n" in done.stdout
    assert "wgup_nodea" in done.stdout and "table inet wgup" in done.stdout
    assert not re.search(r"[A-Za-z0-9+/]{43}=", done.stdout)
