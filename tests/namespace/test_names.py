"""Names that the owner gives and nothing here has: told, and nothing is lost by them."""

from __future__ import annotations

import pytest

from tests.lab.lab import Lab
from tests.lab.network import consumer_network
from tests.lab.provider import make_provider
from tests.lab.router import Router, settings

pytestmark = pytest.mark.needs("conntrack")

NAMES = "\tlist wan 'wan_fiber'\n\tlist mesh 'wg9'\n\tlist trusted_peer 'no such!'\n"


def test_unknown_names_are_told_and_the_wan_is_covered(lab: Lab) -> None:
    network = consumer_network(lab)
    provider = make_provider(network.lab, network.providers[0])
    router = Router.build(network, [provider], settings() + NAMES)
    router.start()
    router.stays("wan", 3.0)
    problems = router.status()["problems"]
    doctor = router.service.wgctl("uplink", "doctor").stdout
    for told in (
        'list wan names "wan_fiber", which this router does not have (there are ',
        'list mesh names "wg9", which this router does not have',
        "trusted_peer is 'no such!': it must be 1 to 64 letters",
    ):
        assert any(told in problem for problem in problems), problems
        assert told in doctor
    network.wan.drop()
    router.wait_failed_over()
    network.wan.restore()
    router.wait_primary(timeout_s=30.0)
    router.configure(settings() + "\tlist wan 'eth99'\n\tlist wan 'wan'\n")
    router.wait(lambda status: any('"eth99"' in told for told in status["problems"]))
    router.stays("wan", 2.0)
    router.configure(settings())
    router.wait(lambda status: not any("list wan" in told for told in status["problems"]))
