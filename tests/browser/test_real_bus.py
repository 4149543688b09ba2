"""The pages on real ubusd, rpcd and uhttpd: each of them dies, is told apart, and comes back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tests.contract.router import Router
from tests.lab.lab import Lab

from .mesh import OVERVIEW
from .test_small_parts import API, add_dashboard, included

pytestmark = [
    pytest.mark.needs("ubusd", "ubus", "rpcd", "uhttpd"),
    pytest.mark.xdist_group("router"),
]


class Through:
    """A gateway for the site that hands everything to the router's own uhttpd."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self.owner = SimpleNamespace(sid=router.login("root"), may=lambda *asked: True)
        self.sessions = {self.owner.sid: self.owner}

    def handle(self, body: bytes) -> Any:
        return self.router.post(json.loads(body))


@pytest.fixture
def router(namespaces: None) -> Iterator[Router]:
    with Lab() as lab:
        made = Router(lab)
        made.start_ubusd()
        made.start_rpcd()
        made.start_uhttpd()
        made.start_service()
        made.until(lambda: made.owner() == "ours", "the service is on the bus")
        yield made


@pytest.fixture
def opened(router: Router, page, serve) -> Iterator[Callable[[str], Any]]:
    """Opens a page of the router; what the browser says of failed calls is no matter."""

    def at(path: str) -> Any:
        gateway = Through(router)
        page.open(serve(gateway).url(path, gateway.owner))
        page.until("L.loaded")
        return page

    yield at
    page.log()


def told(page, text: str) -> None:
    """The overview says this, once it has asked again: now, or 6 s later."""
    page.asks_now()
    page.sees(text, "#wgup-gone")


def is_well(page) -> None:
    page.asks_now()
    page.until("!document.querySelector('#wgup-gone') && !!document.querySelector('#wgup-now')")


def test_each_that_dies_is_told_apart_and_the_page_goes_on(router: Router, opened) -> None:
    page = opened(OVERVIEW)
    is_well(page)

    assert router.service is not None
    router.service.stop(15.0)
    told(page, "The service is not running")
    router.start_service()
    is_well(page)

    router.run("/etc/init.d/rpcd", "reload")  # it keeps its sessions
    is_well(page)

    router.bus.stop()
    told(page, "bus (ubus) does not answer")
    router.rpcd.stop()
    router.uhttpd.stop()
    router.start_ubusd()  # and what procd starts again with it
    router.start_rpcd()
    router.start_uhttpd()
    told(page, "Your session is over")  # rpcd has it in its memory
    assert page.count("[role=alert] a") == 1
    is_well(opened(OVERVIEW))

    router.rpcd.kill()
    told(page, "If that fails, rpcd is not running.")


def test_the_first_page_tells_them_apart(router: Router, opened) -> None:
    page = opened("")
    assert "What to do" in included(page)
    router.rpcd.stop()
    assert "Your session is over" in included(page)
    router.bus.stop()
    text = included(page)
    assert "bus (ubus) does not answer" in text and "Nothing watches" not in text


def test_the_dashboards_peers_have_the_column(
    router: Router, opened, monkeypatch, tmp_path
) -> None:
    keys = [letter * 42 + "A=" for letter in "BC"]
    status, _ = router.call(
        "uplink_add", peer_id="nodeA", endpoint="192.0.2.7:51820", public_key=keys[0]
    )
    assert status == 0
    api = API[: API.index("const peers")] + (
        f"const peers = {json.dumps([{'public_key': key} for key in keys])};\n"
        "return baseclass.extend({ getPeers: () => Promise.resolve(peers) });\n"
    )
    add_dashboard(api, monkeypatch, tmp_path)
    page = opened("admin/services/wireguard/peers")
    page.until("document.querySelectorAll('.wgup-column').length == 3")
    cells = "[...document.querySelectorAll('#peers-table tr')].map(r => r.children[1].innerText)"
    page.until(f"{cells} + '' == 'Uplink,connecting,-'")
