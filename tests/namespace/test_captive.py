"""A captive portal that answers pings and look-ups, but sends every web page to its login."""

from __future__ import annotations

import time
from typing import ClassVar

import pytest

from tests.lab.altered_service import AlteredService
from tests.lab.meter import Meter, settled
from tests.lab.network import ECHO4, ConsumerNetwork
from tests.lab.node import Node
from tests.lab.provider import make_provider
from tests.lab.router import Router, settings, states

pytestmark = pytest.mark.needs("conntrack")

PORTAL = "198.51.100.200"
LOGIN = f"http://{PORTAL}/login"
PAGE = f"http://{ECHO4}/generate_204"
INTERCEPT = """\
table ip captive {
chain c { type nat hook prerouting priority dstnat;
iifname line0 ip daddr != 198.51.100.200 tcp dport 80 redirect to :8080
}
}"""


class Watching(AlteredService):
    """The service, ever ready to ask for its page."""

    constants: ClassVar[dict[str, float]] = {
        f"rpcd_wireguard_uplink.extras.captive:{name}": 0.5
        for name in ("HELD_S", "UNKNOWN_S", "FREE_S", "LOOK_S")
    }


def fetch(node: Node, address: str) -> str:
    """The head of what a web server answers, '' where nobody does."""
    return node.ask("fetch", address)


@pytest.fixture
def router(network: ConsumerNetwork) -> Router:
    network.consumer.resolvers(network.wan.gateway4)
    network.isp1.sh(f"ip addr add {PORTAL}/32 dev lo")
    network.lab.start(network.internet, "web", ECHO4, 80, 204)
    network.lab.start(network.isp1, "web", "0.0.0.0", 8080, 302, LOGIN)
    network.lab.start(network.isp1, "web", PORTAL, 80, 200)
    provider = make_provider(network.lab, network.providers[0])
    laid = Router.build(network, [provider], settings(captive_check=PAGE), service=Watching)
    laid.start()
    return laid


def test_a_portal_is_no_way_to_the_internet(router: Router) -> None:
    network, wan = router.network, router.network.wan
    time.sleep(1.5)
    assert states(router.status()) == {"primary"}, "a free line is left alone"
    with Meter(network.host, ECHO4) as meter:
        settled(meter)
        began = time.monotonic()
        network.isp1.nft(INTERCEPT)
        # As a router behind a portal starts: the page was asked for long ago, or never.
        meter.wait_for_source(network.provider_wans[0].address4, since=began, timeout_s=8.0)
        status = router.wait_failed_over()
        (line,) = status["wans"]
        assert (line["state"], line["portal"]) == ("captive", LOGIN)
        assert status["primary"]["state"] == "captive"
        assert any(LOGIN in problem for problem in status["problems"])
        login = fetch(network.host, PORTAL)
        assert "200" in login.splitlines()[0]
        assert f"X-Asker: {wan.address4}" in login, "the login goes by the line that wants it"
        assert "204" in fetch(network.host, ECHO4).splitlines()[0], "all else by the tunnel"
        network.isp1.sh("nft delete table ip captive")
        status = router.wait_primary()
        assert status["wans"][0]["portal"] == ""
        assert not any("captive" in problem for problem in status["problems"])
        meter.wait_for_source(wan.address4, since=time.monotonic())
    routes = network.consumer.run(["ip", "route", "show", "table", "5180"], check=False).stdout
    assert PORTAL not in routes


def test_a_wrong_page_holds_no_line(router: Router) -> None:
    """What answers 404 everywhere is no portal."""
    network = router.network
    network.internet.nft(
        "table ip moved { chain c { type nat hook prerouting priority dstnat;\n"
        "tcp dport 80 redirect to :8081\n}\n}"
    )
    network.lab.start(network.internet, "web", "0.0.0.0", 8081, 404)
    status = router.wait(lambda s: any("either" in problem for problem in s["problems"]))
    assert states(status) == {"primary"}
    router.stays("wan", 1.5)
