"""The overview in each state of a router, on a service that is canned."""

from __future__ import annotations

import importlib.util
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rpcd_wireguard_uplink.reasons import because

from . import canned
from .canned import Service
from .conftest import lacking
from .mesh import OVERVIEW
from .site import HTDOCS, packaged

FOLDER = Path(__file__).parent
REPLIES = FOLDER.parent / "data" / "replies.json"
SHOWN = """
!!document.querySelector('#wgup-history-section > *, #wgup-gone')
&& [...document.styleSheets].some(sheet => (sheet.href || '').includes('uplink.css'))
"""
MODAL = ".modal-overlay-active .modal"


@pytest.fixture
def show(page, serve) -> Iterator[Callable[..., Any]]:
    """Open the overview of a service; the page and the gateway's sessions are returned."""

    def shown(service: Service, **how: Any) -> Any:
        session = canned.enter(service)
        size = {name: how.pop(name) for name in ("width", "height", "speed") if name in how}
        page.open(
            serve(session.gateway).url(OVERVIEW, how.pop("who", session.owner), **how), **size
        )
        page.until(SHOWN)
        page.session = session
        return page

    return shown


def wait_for(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# --- what is the matter, in three seconds

SENTENCES = {
    "calm": (
        "The internet works, through wan.",
        "traffic moves to nodea within 3 s",
        "Nothing to do.",
    ),
    "failed_over": ("wan is down. The internet works, through nodea.", "no backup is ready", ""),
    "stranded": ("There is no internet", "", "Look at modem and cables"),
    "failover_off": (
        "traffic stays on wan even when it fails",
        "The internet works, through wan.",
        "Turn automatic failover on.",
    ),
    "rollback": ("The internet works, through wan.", "to nodea within 3 s", "Confirm the settings"),
    "by_hand": ("The internet works, through nodea: you chose it.", "traffic moves to wan", ""),
    "first_run": (
        "The internet works, through wan.",
        "no backup is ready",
        "nodec offers its internet",
    ),
}


@pytest.mark.parametrize("state", SENTENCES)
def test_one_sentence_what_if_and_one_advice(show, state: str) -> None:
    page = show(canned.STATES[state]())
    now, what_if, advice = SENTENCES[state]
    assert now in page.text("#wgup-now")
    assert what_if in page.text("#wgup-next")
    assert advice in page.text("#wgup-advice")


def test_the_picture_shows_the_way_in_use_and_dead_ones(show) -> None:
    service = canned.calm()
    page = show(service)
    ways = "[...document.querySelectorAll('#wgup-picture > g')].map(g => g.getAttribute('class'))"
    assert page.js(ways) == ["wgup-path-used", "wgup-path-ready", "wgup-path-dead"]
    assert page.count("#wgup-picture .wgup-flow") == 2, "traffic is seen to move"
    assert "12 ms · 2.5 Mbit/s" in page.js("document.querySelector('#wgup-picture').textContent")
    assert "nodea: 22 ms" in page.js(
        "document.querySelector('#wgup-picture').getAttribute('aria-label')"
    )
    service.replies = canned.failed_over().replies
    service.happens()
    page.asks_now()
    page.until(f"{ways} + '' == 'wgup-path-dead,wgup-path-used,wgup-path-dead'")
    page.sees("through nodea", "#wgup-now")


def test_stopped_is_grey_and_says_what_to_do(show, pictures: Path) -> None:
    page = show(canned.calm(), width=768)
    objects = page.session.gateway.others.pop(canned.OBJECT)
    page.asks_now()
    page.sees("The service is not running, so nothing happens when a WAN fails.", "#wgup-gone")
    page.sees("What is shown below is old.", "[role=alert]")
    assert page.count("#wgup-now") == 0, "no green sentence"
    assert (
        page.js("getComputedStyle(document.querySelector('#wgup-picture')).filter")
        == "grayscale(1)"
    )
    assert page.js("document.querySelectorAll('#view button:enabled').length") == 0
    page.pictures(pictures, "stopped-768")
    page.session.gateway.others[canned.OBJECT] = objects
    page.asks_now()
    page.sees("The internet works", "#wgup-now")
    page.log()


def test_a_pending_rollback_is_unmistakable(show) -> None:
    service = canned.calm()
    page = show(service)
    assert page.count("#wgup-rollback") == 0
    service.rollback_s = 80
    page.asks_now()
    page.sees("Settings that were just applied are not confirmed.", "#wgup-rollback")
    service.rollback_s = 0
    page.asks_now()
    page.until("!document.querySelector('#wgup-rollback')")


def test_reasons_are_in_the_readers_language(show) -> None:
    service = canned.failed_over()
    said = because("program_said", "nft -f -", "Error: syntax error")
    service.status["problems"] = [because("same_wan", "nodea"), said]
    page = show(service, lang="de")
    page.sees("wan: keine Antwort auf 3 Prüfpakete in 1,4 s", "#wgup-now-section")
    page.sees("sie ist ausgefallen: keine Antwort auf 3 Prüfpakete in 4,2 s", "#wgup-backups")
    page.sees("nodea nutzt denselben Internetanschluss", "#wgup-problems")
    page.sees("nft -f - ist fehlgeschlagen und meldet: ", "#wgup-problems")
    quoted = "[...document.querySelectorAll('#wgup-problems q')].map(q => [q.lang, q.innerText])"
    assert page.js(quoted) == [["en", "Error: syntax error"]], "a screen reader reads it right"


def test_why_and_what_if_are_in_the_readers_language(show) -> None:
    service = canned.calm()
    replies = json.loads(REPLIES.read_text(encoding="utf-8"))
    service.replies |= {name: replies[name] for name in ("uplink_explain", "uplink_simulate")}
    page = show(service, lang="de")
    page.click("#wgup-more summary")
    page.click("#wgup-why")
    page.sees("IPv4 nutzt wan, und nodeA, wenn das ausfällt.", MODAL)
    page.sees("nodeB kommt nach nodeA: sie kostet nach Volumen, die andere nichts.", MODAL)
    page.sees("nodeC wird nicht genutzt: über sie hat noch nichts geantwortet.", MODAL)
    page.press("ESCAPE")
    page.click("#wgup-what-if")
    page.click(".modal .wgup-do")
    page.sees("IPv4 würde nodeA nutzen, und nodeB, wenn auch das ausfiele.", MODAL)


def test_findings_steps_and_errors_are_in_the_readers_language(show) -> None:
    service = canned.calm()
    what = because("missing", "wg", because("wg_for"))
    service.replies["uplink_check"]["findings"] = [
        {"check": "programs", "level": "wrong", "what": what, "mend": "apk add x"}
    ]
    service.errors["uplink_test"] = because("path_unusable", "nodea", because("no_wan_answers"))
    replies = json.loads(REPLIES.read_text(encoding="utf-8"))
    drill = service.replies["uplink_drill"] = replies["uplink_drill"]
    step = {"step": "mtu", "ok": False, "told": because("size_stops", 1420), "took_ms": 9}
    drill["drills"] = [{**drill["drills"][0], "ok": False, "note": "", "steps": [step]}]
    page = show(service, lang="de")
    page.click("#wgup-more summary")
    page.click("#wgup-check")
    page.sees("wg fehlt: Tunnel können nicht gemacht werden.", MODAL)
    page.press("ESCAPE")
    page.click("#wgup-rehearse")
    page.click(".modal .wgup-do")
    page.sees("Pakete von 1420 Bytes kommen nicht durch", MODAL)
    page.press("ESCAPE")
    page.click("#wgup-test-wgup_nodea")
    page.sees("nodea ist jetzt nicht nutzbar: kein WAN antwortet", MODAL)


def test_a_session_that_is_over(show) -> None:
    page = show(canned.calm())
    page.session.gateway.sessions.clear()
    page.asks_now()
    page.sees("Your session is over: log in again.", "#wgup-gone")
    assert page.count("[role=alert] a") == 1
    page.log()


# --- backups


def cards(page) -> list[str]:
    return page.js("[...document.querySelectorAll('#wgup-backups h4')].map(e => e.innerText)")


def test_backups_in_the_order_of_use_with_reasons(show) -> None:
    page = show(canned.calm())
    assert [text.split() for text in cards(page)] == [
        ["1.", "nodea", "ready"],
        ["2.", "nodeb", "not", "ready"],
    ]
    page.sees("it is down: no answer to 3 probes in 4.2 s", "#wgup-path-wgup_nodeb")
    page.sees("1.2 GB today", "#wgup-path-wgup_nodea")


def test_a_gap_is_a_gap(show) -> None:
    page = show(canned.calm())
    assert page.count("#wgup-path-wgup_nodea polyline") == 2
    label = "document.querySelector('#wgup-path-wgup_nodea svg').getAttribute('aria-label')"
    assert page.js(label) == "Last hour: latency up to 26 ms, 6 gaps"


def test_arrows_only_where_a_weight_decides(show) -> None:
    service = canned.calm()
    service.status["uplinks"] = [
        canned.uplink("nodea", weight=10),
        canned.uplink("nodeb", weight=10),
        canned.uplink("nodec", weight=90, cost="metered"),
    ]
    page = show(service)
    page.js("document.querySelectorAll('details').forEach(d => { d.open = true })")
    arrows = "[...document.querySelectorAll('#wgup-backups details button')].map(b => b.id)"
    assert page.js(arrows) == ["wgup-down-wgup_nodea", "wgup-up-wgup_nodeb"]
    page.click("#wgup-up-wgup_nodeb")
    wait_for(service.acts)
    assert service.acts() == [("uplink_set_priority", {"peer_id": "nodeb", "weight": 11})]


ORDERS = [
    ([10, 10], 1, -1, [11, 10]),
    ([40, 10], 1, -1, [41, 40]),
    ([100, 100], 1, -1, [100, 99]),
    ([100, 99, 98], 2, -1, [100, 99, 98]),
    ([3, 2, 1], 0, 1, [4, 3, 1]),
    ([1, 1, 1], 0, 1, [3, 2, 1]),
    ([50, 20, 10], 2, -1, [50, 21, 20]),
]


def test_a_new_order_is_strict_and_keeps_weights_legal(page, serve) -> None:
    session = canned.enter(canned.calm())
    page.open(serve(session.gateway).url("", session.guest))
    page.until("L.loaded")
    script = "L.require('wireguard-uplink.cards').then(p => p.reordered(a[0], a[1], a[2]))"
    for weights, place, step, wanted in ORDERS:
        uplinks = [canned.uplink(f"p{i}", weight=weight) for i, weight in enumerate(weights)]
        changes = page.js(script, uplinks, f"p{place}", step)
        after = {u["peer_id"]: u["weight"] for u in uplinks}
        after |= {each["peer_id"]: each["weight"] for each in changes}
        order = [u["peer_id"] for u in uplinks]
        order.insert(place + step, order.pop(place))
        assert [after[name] for name in order] == wanted, (weights, place, step)
        assert page.js(script, uplinks, "p0", -1) == []


def test_a_backup_is_used_by_hand_and_released(show) -> None:
    service = canned.calm()
    page = show(service)
    page.click("#wgup-use-wgup_nodea")
    page.sees("All traffic leaves by it", MODAL)
    page.js("(document.querySelector('.modal [name=for]').value = '1h')")
    service.replies["uplink_status"] = canned.by_hand().status
    service.happens()
    page.click(".modal .wgup-do")
    page.until("!document.body.classList.contains('modal-overlay-active')")
    assert ("uplink_use", {"path": "nodea", "for": "1h"}) in service.acts()
    page.sees("You chose nodea, for another 8 min.", "#wgup-chosen")
    page.click("#wgup-release")
    wait_for(lambda: ("uplink_use", {"path": "auto"}) in service.acts())


# --- forms


def test_a_refused_form_keeps_what_was_typed(show) -> None:
    service = canned.calm()
    service.errors["uplink_add"] = "endpoint has no port"
    page = show(service)
    page.click("#wgup-more summary")
    page.click("#wgup-by-hand")
    for name, value in (("peer_id", "x"), ("endpoint", "192.0.2.9"), ("public_key", "A" * 44)):
        page.find(f".modal [name={name}]").send_keys(value)
    page.click(".modal .wgup-do")
    page.sees("endpoint has no port", f"{MODAL} [role=alert]")
    assert page.js("document.querySelector('.modal [name=endpoint]').value") == "192.0.2.9"
    assert page.js("document.activeElement.name") == "peer_id"


def test_an_emptied_field_clears(show) -> None:
    service = canned.calm()
    page = show(service)
    page.click("#wgup-offer")
    assert page.js("document.querySelector('.modal [name=quota_gb]').value") == "50"
    for name in ("quota_gb", "limit_mbps", "wan_type", "max_consumers", "bandwidth_mbps"):
        page.find(f".modal [name={name}]").clear()
    page.click(".modal .wgup-do")
    page.until("!document.body.classList.contains('modal-overlay-active')")
    cleared = {"quota_gb": 0, "limit_mbps": 0, "wan_type": "", "max_consumers": 8}
    cleared |= {"bandwidth_mbps": 0, "metered": False}
    assert service.acts() == [("uplink_offer", cleared)]


def test_a_dialog_is_named_and_gives_the_focus_back(show) -> None:
    page = show(canned.calm())
    page.js("(document.querySelector('#wgup-remove-wgup_nodea').focus(), 1)")
    page.press("ENTER")
    page.sees("Remove nodea?", MODAL)
    named = "document.querySelector('.modal').getAttribute('aria-labelledby')"
    assert page.text(f"#{page.js(named)}") == "Remove nodea?"
    assert page.focused() == "Cancel"
    for _ in range(5):
        page.press("TAB")
        assert page.js("!!document.activeElement.closest('.modal')")
    page.press("ESCAPE")
    assert page.js("document.activeElement.id") == "wgup-remove-wgup_nodea"


def test_the_focus_survives_numbers_and_no_number_is_read_out(show) -> None:
    service = canned.calm()
    page = show(service)
    page.js("(document.querySelector('#wgup-test-wgup_nodea').focus(), 1)")
    page.js("(window.kept = document.activeElement, 1)")
    page.js(
        "(window.told = 0, new MutationObserver(() => { told++ }).observe("
        "document.querySelector('#wgup-now'), { subtree: true, characterData: true }), 1)"
    )
    service.status["uplinks"][0]["latency_ms"] = 77
    service.status["since_s"] = 200000
    page.asks_now()
    page.sees("77 ms", "#wgup-path-wgup_nodea")
    assert page.js("document.activeElement === kept && kept.isConnected")
    assert page.js("told") == 0


# --- peers


def test_from_an_offer_to_a_tested_backup_in_one_dialog(show) -> None:
    service = canned.first_run()
    page = show(service)
    page.click("#wgup-advice-add")
    page.sees("Add nodec as backup", MODAL)
    assert "wgctl" not in page.text("body"), "no command line in a page"
    assert not service.acts(), "nothing is done before the answer"
    service.replies["uplink_list"]["offers"] = [canned.offer("nodec", trusted=True, usable=True)]
    page.click(".modal .wgup-do")
    page.sees("The internet answers through nodec: 23 ms, 0 % lost.", MODAL)
    assert service.acts() == [
        ("uplink_trust_accept", {"peer_id": "nodec"}),
        ("uplink_add", {"peer_id": "nodec"}),
        ("uplink_test", {"peer_id": "nodec"}),
    ]
    page.click(".modal .right button")
    page.until("!document.body.classList.contains('modal-overlay-active')")


def test_search_paging_and_who_is_trusted_first(show) -> None:
    page = show(canned.crowd())
    rows = "[...document.querySelectorAll('#wgup-peers tr[id]')].map(r => r.id)"
    first = page.js(rows)
    assert len(first) == 10
    assert first[:2] == ["wgup-peer-peer198", "wgup-peer-peer199"]
    assert page.js("document.documentElement.scrollHeight") < 6000
    page.click("#wgup-more-peers")
    page.until(f"{rows}.length == 30")
    page.find("#wgup-search").send_keys("peer15")
    page.until(f"{rows} + '' == a[0]", ",".join(f"wgup-peer-peer15{i}" for i in range(10)))
    assert page.js("document.activeElement.id") == "wgup-search"


def test_no_frame_is_long_with_a_crowd(show) -> None:
    """Numbers alone, a change, and every card anew; the best of some, since others use the machine
    too.
    """
    page = show(canned.crowd())
    for what in ("v.draw(true)", "v.draw()", "(v.signs = {}, v.draw())"):
        took = page.js(
            "L.require('view.wireguard-uplink.overview').then(v => {"
            f" const drawn = () => {{ const t = performance.now(); {what};"
            " v.root.getBoundingClientRect(); return performance.now() - t };"
            " const took = [drawn()];"
            " while (took.length < 60 && Math.min(...took) >= 50) took.push(drawn());"
            " return took })"
        )
        assert min(took) < 50, (what, took)


def test_numbers_are_written_where_nothing_else_differs(show) -> None:
    service = canned.calm()
    page = show(service)
    page.js("(window.card = document.querySelector('#wgup-path-wgup_nodea h4'), 1)")
    service.status["uplinks"][0].update(latency_ms=77, today_bytes=2_000_000_000)
    page.asks_now()
    page.sees("77 ms", "#wgup-path-wgup_nodea")
    service.status["uplinks"][0].update(usable=False, reason=because("not_watched"))
    service.happens()
    page.asks_now()
    page.sees("it is not watched yet", "#wgup-path-wgup_nodea")
    page.sees("2 GB today", "#wgup-path-wgup_nodea")
    assert page.js("card.isConnected && card.innerText.includes('not ready')")


# --- the rest


def test_one_row_a_failover(show) -> None:
    page = show(canned.calm())
    rows = page.js(
        "[...document.querySelectorAll('#wgup-history tr')].slice(1).map(r => r.innerText)"
    )
    assert len(rows) == 1
    assert "wan failed, nodea took over, for 4 min, 340 MB used, 1.5 s without internet" in rows[0]


def test_the_first_run_in_four_steps(show) -> None:
    page = show(canned.first_run())
    steps = "[...document.querySelectorAll('#wgup-guide li')].map(e => e.className)"
    assert page.js(steps) == ["wgup-done", "wgup-done", "", ""]
    assert show(canned.calm()).count("#wgup-guide") == 0


def test_check_this_router(show) -> None:
    service = canned.calm()
    service.replies["uplink_check"]["findings"] = [
        {"check": "programs", "level": "wrong", "what": "wg is missing.", "mend": "apk add x"}
    ]
    page = show(service)
    page.click("#wgup-more summary")
    page.click("#wgup-check")
    page.sees("wg is missing.", MODAL)
    page.press("ESCAPE")
    page.click("#wgup-notify")
    page.sees("10-mail: ran well", MODAL)


def test_failover_is_turned_off_only_when_confirmed(show) -> None:
    service = canned.calm()
    page = show(service)
    page.click("#wgup-more summary")
    page.click("#wgup-failover")
    page.sees("stays on a dead WAN", MODAL)
    assert not service.acts()
    page.click(".modal .wgup-do")
    page.until("!document.body.classList.contains('modal-overlay-active')")
    assert service.acts() == [("uplink_set_failover", {"enabled": False})]


def test_a_reading_session_sees_and_cannot_act(page, serve) -> None:
    session = canned.enter(canned.calm())
    page.open(serve(session.gateway).url(OVERVIEW, session.guest))
    page.until(SHOWN)
    page.sees("may look, but change nothing", "#wgup-readonly")
    enabled = "[...document.querySelectorAll('#view button:enabled')].map(e => e.id)"
    assert page.js(enabled) == ["wgup-why", "wgup-what-if"]


ASKED = """
performance.getEntriesByType('resource').filter(e => e.name.includes('/ubus'))
  .map(e => [e.startTime / 1000, e.encodedBodySize])
"""


SPEED = 8
"""How many times as fast a page's timers run where a test waits for them."""


@pytest.mark.parametrize("state", [pytest.param("calm", marks=pytest.mark.deep), "crowd"])
def test_requests_and_bytes_of_a_quiet_minute(show, state: str) -> None:
    """At most 15 requests and 30 KB a minute, by two pauses between three requests."""
    page = show(canned.STATES[state](), speed=SPEED)
    page.js("(performance.clearResourceTimings(), 1)")
    page.until(f"({ASKED}).length > 2", timeout_s=60)
    (begun_s, _), (_, second), (ended_s, third), *_ = page.js(ASKED)
    minutes = (ended_s - begun_s) / 60 * SPEED
    assert 2 / minutes <= 15
    assert (second + third) / minutes <= 30_000


def test_a_hidden_page_asks_nothing(show) -> None:
    service = canned.calm()
    page = show(service, speed=SPEED)
    page.js("(Object.defineProperty(document, 'hidden', { value: true, configurable: true }), 1)")
    page.js("(window.t = performance.now(), 1)")
    page.until("performance.now() - t > 1000")  # what was under way
    service.calls.clear()
    page.until(f"performance.now() - t > 1000 + 8000 / {SPEED}")
    assert not service.calls
    page.js("(delete document.hidden, document.dispatchEvent(new Event('visibilitychange')), 1)")
    wait_for(lambda: service.calls)


@pytest.mark.parametrize("width", [320, 768])
def test_from_right_to_left(show, width: int) -> None:
    page = show(canned.calm(), width=width)
    page.js("(document.documentElement.dir = 'rtl')")
    edges = "(s => [s.borderRightWidth, s.borderLeftWidth])(getComputedStyle(a[0]))"
    assert page.js(edges, page.find(".wgup-now")) == ["6px", "0px"]
    outside = f"e => (r => r.left < 0 || r.right > {width})(e.getBoundingClientRect())"
    assert page.js(f"[...document.querySelectorAll('#view *')].filter({outside}).length") == 0


# --- how it looks and is used


@pytest.mark.parametrize(
    ("state", "lang"), [("calm", "de"), ("by_hand", "fr"), ("stranded", "de"), ("crowd", "en")]
)
def test_at_320_px_nothing_is_cut_off(show, state: str, lang: str) -> None:
    page = show(canned.STATES[state](), width=320, height=640, lang=lang)
    cut = "[...document.querySelectorAll('#wgup-picture text')].map(e => e.textContent)"
    assert not [text for text in page.js(cut) if "…" in text]
    wide = "e => e.getBoundingClientRect().right > 320"
    found = f"[...document.querySelectorAll('#view *')].filter({wide}).map(e => e.outerHTML)"
    assert [html[:200] for html in page.js(found)] == []
    assert page.js("document.documentElement.scrollWidth") <= 320
    page.click("#wgup-offer")
    assert page.js("document.querySelector('.modal').getBoundingClientRect().right") <= 320


def test_every_button_is_reached_by_keyboard(show) -> None:
    page = show(canned.calm())
    page.js("document.querySelectorAll('details').forEach(d => { d.open = true })")
    buttons = set(page.js("[...document.querySelectorAll('#view button:enabled')].map(b => b.id)"))
    page.js("(window.seen = [], addEventListener('focusin', e => seen.push(e.target.id)), 1)")
    page.press(*["TAB"] * (len(buttons) + 15))
    assert buttons <= set(page.js("seen"))


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_contrast(show, dark: bool) -> None:
    """WCAG 2.2 AA: 4.5:1 for text, 3:1 for the coloured edges."""
    page = show(canned.calm(), dark=dark)
    page.click("#wgup-offer")
    page.sees("Offer your internet", MODAL)
    page.until("!document.querySelector('#modal_overlay').getAnimations().length")
    found = page.js((FOLDER / "contrast.js").read_text().strip().partition("*/")[2])
    assert len(found) > 30
    assert not [(round(seen, 2), what[:120]) for seen, least, what in found if seen < least]


@pytest.fixture(scope="module")
def axe() -> str:
    """The script of axe-core: the file that AXE names, or that of a package of a registry."""
    if "AXE" in os.environ:
        return Path(os.environ["AXE"]).read_text(encoding="utf-8")
    found = importlib.util.find_spec("axe_core_python")
    if found is None or found.origin is None:
        lacking("axe-core-python is not installed; `make ready` installs it")
    return (Path(found.origin).parent / "axe.min.js").read_text(encoding="utf-8")


AXE = """
axe.run(document.querySelector(a[0]), { runOnly: [
  'wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa' ] })
.then(r => r.violations.flatMap(v => v.nodes.map(n => v.id + ': ' + n.html.slice(0, 150))))
"""


AXE_SEES = [
    pytest.param(
        state,
        dark,
        id=f"{state}-{'dark' if dark else 'light'}",
        marks=[pytest.mark.deep] if dark and state != "calm" else [],
    )
    for state in canned.STATES
    for dark in (False, True)
]


@pytest.mark.parametrize(("state", "dark"), AXE_SEES)
def test_wcag_as_axe_sees_it(show, axe: str, state: str, dark: bool) -> None:
    page = show(canned.STATES[state](), dark=dark)
    page.js("document.querySelectorAll('details').forEach(d => { d.open = true })")
    page.js("(eval(a[0]), 1)", axe)
    assert page.js(AXE, "#view") == []
    page.js("(document.querySelector('#view').append(E('img', { id: 'unnamed', src: '' })), 1)")
    assert len(page.js(AXE, "#view")) == 1, "it sees what is wrong"
    page.js("(document.querySelector('#unnamed').remove(), 1)")
    page.click("#wgup-offer")
    page.sees("Offer your internet", MODAL)
    page.until("!document.querySelector('#modal_overlay').getAnimations().length")
    assert page.js(AXE, MODAL) == []


def test_what_the_overview_loads_is_small(show) -> None:
    """45 KB, as the packages carry it; all pages together are 60 KB."""
    page = show(canned.calm())
    loaded = page.js(
        "performance.getEntriesByType('resource').filter(e => /wireguard-uplink/.test(e.name))"
        ".map(e => [e.name.split('resources/')[1], e.decodedBodySize])"
    )
    assert sum(size for _, size in loaded) <= 48_000, loaded
    files = [file for file in HTDOCS.rglob("*") if file.is_file()]
    sizes = {file.name: len(packaged(file)) for file in files}
    assert sum(sizes.values()) <= 60_000, sizes


WIDTHS = [(state, 768) for state in canned.STATES]
WIDTHS += [(state, width) for state in ("calm", "failed_over", "stranded") for width in (320, 1200)]


@pytest.mark.parametrize(("state", "width"), WIDTHS)
def test_pictures(show, pictures: Path, state: str, width: int) -> None:
    """Of every state in both themes; `make screenshots` keeps them."""
    if "SCREENSHOTS" not in os.environ and (state, width) != ("calm", 768):
        pytest.skip("`make screenshots` makes the others")
    page = show(canned.STATES[state](), width=width)
    page.pictures(pictures, f"{state.replace('_', '-')}-{width}")


DIALOGS = {"add": ("#wgup-advice-add", "Trust, add"), "rehearse": ("#wgup-rehearse", "Rehearse")}


@pytest.mark.parametrize("name", DIALOGS)
def test_pictures_of_dialogs(show, pictures: Path, name: str) -> None:
    """A peer's offer, and the rehearsal."""
    if "SCREENSHOTS" not in os.environ:
        pytest.skip("`make screenshots` makes them")
    page = show(canned.first_run() if name == "add" else canned.calm(), width=768)
    page.js("document.querySelectorAll('#wgup-more').forEach(d => { d.open = true })")
    opener, text = DIALOGS[name]
    page.click(opener)
    page.sees(text, MODAL)
    page.until("!document.querySelector('#modal_overlay').getAnimations().length")
    page.pictures(pictures, f"dialog-{name}-768", height=420)
