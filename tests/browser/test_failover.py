"""A failover and a failback in the page: it follows by itself, at once, without a reload."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.lab.lab import Lab
from tests.lab.network import consumer_network
from tests.lab.provider import make_provider
from tests.lab.router import Router, settings

from .mesh import OVERVIEW, BrowserSession

pytestmark = pytest.mark.needs("conntrack")
FOLLOWS_S = 7.0  # the pulse is asked for every 6 s
WATCH = """
(window.seen = [], window.loaded = 'once', new MutationObserver(() => {
  const text = document.querySelector('#wgup-now').innerText;
  if (!seen.length || seen[seen.length - 1][1] != text) seen.push([Date.now() / 1000, text]);
}).observe(document.querySelector('#view'),
  { subtree: true, childList: true, characterData: true }), 1)
"""


@pytest.fixture
def router(namespaces: None) -> Iterator[Router]:
    with Lab() as lab:
        network = consumer_network(lab)
        provider = make_provider(lab, network.providers[0])
        made = Router.build(network, [provider], settings(pace="fast", hold_time=2))
        made.start()
        yield made


def seen_at(page, text: str) -> float:
    """The moment (time.time) when the page first said this."""
    page.until("seen.some(s => s[1].includes(a[0]))", text)
    return float(page.js("seen.find(s => s[1].includes(a[0]))[0]", text))


def test_the_page_follows_a_failover(router: Router, page, serve) -> None:
    session = BrowserSession.to(router.service.socket, router.service.config_dir)
    page.open(serve(session.gateway).url(OVERVIEW, session.owner))
    page.sees("The internet works, through wan.", "#wgup-now")
    page.js(WATCH)

    router.network.wan.drop()
    router.wait_failed_over()
    moved = time.time()
    followed = seen_at(page, "The internet works, through nodea")
    assert followed - moved < FOLLOWS_S
    page.sees("in use", "#wgup-path-wgup_nodea")
    page.sees("down", "#wgup-path-wan")
    page.sees("wan failed, nodea took over, it lasts", "#wgup-history")

    router.network.wan.restore()
    router.wait_primary()
    back = time.time()
    page.js("(seen.splice(0), 1)")
    page.sees("The internet works, through wan.", "#wgup-now")
    assert time.time() - back < FOLLOWS_S + 1.0
    page.until("!document.querySelector('#wgup-history').innerText.includes('it lasts')")
    assert page.js("loaded") == "once", "the page was loaded again"
