"""A captive portal that answers pings and look-ups, but sends every web page to its login."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from tests.lab.lab import ready
from tests.lab.meter import Meter, settled
from tests.lab.network import ECHO4, ConsumerNetwork
from tests.lab.node import Node
from tests.lab.provider import make_provider
from tests.lab.router import Router, settings, states
from tests.lab.service import Service

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
WEB = """\
import http.server, sys
host, port, code, place = sys.argv[1:]
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(int(code))
        if place:
            self.send_header("Location", place)
        self.send_header("Content-Length", "0")
        self.send_header("X-Asker", self.client_address[0])
        self.end_headers()
    def log_message(self, *args):
        pass
server = http.server.ThreadingHTTPServer((host, int(port)), Page)
print("ready", flush=True)
server.serve_forever()
"""
WATCHING = """\
import sys
from rpcd_wireguard_uplink import __main__
from rpcd_wireguard_uplink.extras import captive
captive.HELD_S = captive.UNKNOWN_S = captive.FREE_S = captive.LOOK_S = 0.5
sys.exit(__main__.main())
"""


class Watching(Service):
    """The service, ever ready to ask for its page."""

    @property
    def argv(self) -> list[str]:
        words = super().argv
        return [words[0], "-c", WATCHING, *words[words.index("serve") :]]


def serve_web(
    network: ConsumerNetwork, node: Node, host: str, port: int, code: int, place: str = ""
) -> None:
    pipe = subprocess.PIPE
    argv = [sys.executable, "-I", "-c", WEB, host, str(port), str(code), place]
    ready(network.lab.at_close(node.popen(argv, stdout=pipe, stderr=pipe)))


def fetch(node: Node, address: str) -> str:
    """The head of what a web server answers, '' where nobody does."""
    script = (
        "import socket, sys\n"
        "try:\n"
        f"    s = socket.create_connection(('{address}', 80), 2)\n"
        "    s.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n')\n"
        "    print(s.recv(4096).decode())\n"
        "except OSError:\n    pass\n"
    )
    return node.run([sys.executable, "-I", "-c", script]).stdout


@pytest.fixture
def router(network: ConsumerNetwork) -> Router:
    network.consumer.resolvers(network.wan.gateway4)
    network.isp1.sh(f"ip addr add {PORTAL}/32 dev lo")
    serve_web(network, network.internet, ECHO4, 80, 204)
    serve_web(network, network.isp1, "0.0.0.0", 8080, 302, LOGIN)
    serve_web(network, network.isp1, PORTAL, 80, 200)
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
        network.isp1.run(["nft", "-f", "-"], input=INTERCEPT)
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
    network.internet.run(
        ["nft", "-f", "-"],
        input="table ip moved { chain c { type nat hook prerouting priority dstnat;\n"
        "tcp dport 80 redirect to :8081\n}\n}",
    )
    serve_web(network, network.internet, "0.0.0.0", 8081, 404)
    status = router.wait(lambda s: any("either" in problem for problem in s["problems"]))
    assert states(status) == {"primary"}
    router.stays("wan", 1.5)
