"""What other pages show of us: LuCI's first page, the dashboard's peers; and the pure parts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rpcd_wireguard_uplink.api import methods

from .mesh import ACL, BrowserSession
from .site import HTDOCS, menu

KEY, OTHER = "A" * 43 + "=", "B" * 43 + "="
NAMES = ("uplink_status", "uplink_list", "uplink_trust")
UPLINK = {"peer_id": "nodea", "interface": "wgup_nodea", "state": "up", "active": False}
STATUS: dict[str, Any] = {
    "enabled": 1,
    "auto_failover": 1,
    "state": "failed_over",
    "active_path": "wgup_nodea",
    "since_s": 130,
    "cause": "wan lost all probes",
    "uplink_count": 2,
    "families": {},
    "wans": [],
    "problems": ["name resolution fails"],
    "uplinks": [{**UPLINK, "usable": True, "active": True, "reason": ""}],
}
LISTED: dict[str, Any] = {
    "offers": [
        {"peer_id": "nodeb", "usable": True, "metered": True, "quota_left_gb": 3.5},
    ],
    "uplinks": [{**UPLINK, "public_key": KEY}],
}
TRUST: dict[str, Any] = {"peers": [{"peer_id": "nodeb", "mesh_key": OTHER}]}


@pytest.fixture
def session() -> BrowserSession:
    """A gateway to a service that says what the test wants."""
    made = BrowserSession.to("/nonexistent", "/nonexistent")
    replies = dict(zip(NAMES, (STATUS, LISTED, TRUST), strict=True))
    made.gateway.others[methods.OBJECT] = {
        name: (lambda session, given, reply=reply: (0, reply)) for name, reply in replies.items()
    }
    return made


@pytest.fixture
def runtime(session: BrowserSession, page, serve):
    page.open(serve(session.gateway).url("", session.guest))
    page.until("L.loaded")
    return page


def included(page) -> str:
    """What LuCI's first page shows of us, which loads and draws an include like this."""
    page.js(
        "Promise.all([L.require('view.status.include.35_wireguard-uplink'), L.require('dom')])"
        ".then(([part, dom]) => part.load().then(found => dom.content("
        "document.getElementById('view'), part.render(found))))"
    )
    return str(page.js("document.getElementById('view').innerText"))


def test_the_first_page_says_where_traffic_goes(runtime) -> None:
    text = included(runtime)
    assert "The own line is down: traffic uses the uplink to nodea." in text
    assert "2 min: wan lost all probes" in text
    assert "1 of 2" in text and "name resolution fails" in text


def test_the_first_page_shows_nothing_without_the_service(runtime, session: BrowserSession) -> None:
    del session.gateway.others[methods.OBJECT]
    assert included(runtime) == ""
    runtime.log()


def column(page, key: str) -> str:
    return str(
        page.js(
            "L.require('wireguard-uplink.peers-column').then(c => c.load().then(found => {"
            " const place = E('td', {}, [ c.cell(found, a[0]) ]); const before = place.innerText;"
            " c.update(found, place, a[0]);"
            " return c.title + '|' + before + '|' + place.innerText }))",
            key,
        )
    )


@pytest.mark.parametrize(
    ("key", "text"),
    [(KEY, "in use"), (OTHER, "offered, metered, 3.5 GB left"), ("C" * 43 + "=", "-")],
)
def test_the_column_for_the_dashboard(runtime, key: str, text: str) -> None:
    assert column(runtime, key) == f"Uplink|{text}|{text}"


def test_the_column_without_the_service(runtime, session: BrowserSession) -> None:
    del session.gateway.others[methods.OBJECT]
    assert column(runtime, KEY) == "Uplink|-|-"
    runtime.log()


ORDERS = [
    ([10, 10], 1, -1, [11, 10]),
    ([40, 10], 1, -1, [41, 40]),
    ([100, 100], 1, -1, [100, 99]),
    ([100, 99, 98], 2, -1, [100, 99, 98]),
    ([3, 2, 1], 0, 1, [4, 3, 1]),
    ([1, 1, 1], 0, 1, [3, 2, 1]),
    ([50, 20, 10], 2, -1, [50, 21, 20]),
]


@pytest.mark.parametrize(("weights", "place", "step", "wanted"), ORDERS)
def test_a_new_order_is_strict_and_keeps_weights_legal(
    runtime, weights: list[int], place: int, step: int, wanted: list[int]
) -> None:
    uplinks = [{"peer_id": f"p{i}", "weight": weight} for i, weight in enumerate(weights)]
    changes = runtime.js(
        "L.require('wireguard-uplink.paths').then(p => p.reordered(a[0], a[1], a[2]))",
        uplinks,
        f"p{place}",
        step,
    )
    after = {u["peer_id"]: u["weight"] for u in uplinks}
    after |= {each["peer_id"]: each["weight"] for each in changes}
    order = [u["peer_id"] for u in uplinks]
    order.insert(place + step, order.pop(place))
    assert [after[name] for name in order] == wanted
    assert (
        runtime.js(
            "L.require('wireguard-uplink.paths').then(p => p.reordered(a[0], 'p0', -1))", uplinks
        )
        == []
    )


def test_a_redraw_changes_only_what_differs(runtime) -> None:
    found = runtime.js(
        "L.require('wireguard-uplink.redraw').then(redraw => {"
        " const place = E('div');"
        " const row = (id, text) => E('p', { 'id': id }, [ text ]);"
        " redraw.into(place, [ row('a', '1'), row('b', '2'), 'x' ]);"
        " const [a, b] = place.children;"
        " redraw.into(place, [ row('b', '3'), row('c', '4'), row('a', '1') ]);"
        " return [ place.children[0] === b, place.children[2] === a, place.innerHTML ] })"
    )
    assert found == [True, True, '<p id="b">3</p><p id="c">4</p><p id="a">1</p>']


def test_the_menu_leads_to_views_for_those_who_may_read() -> None:
    groups = {name for file in ACL for name in json.loads(file.read_text(encoding="utf-8"))}
    for entry in menu().values():
        assert set(entry["depends"]["acl"]) <= groups
        if entry["action"]["type"] == "view":
            assert (HTDOCS / "view" / f"{entry['action']['path']}.js").is_file()


def test_no_page_writes_html() -> None:
    for file in HTDOCS.rglob("*.js"):
        text = file.read_text(encoding="utf-8")
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "rawhtml"):
            assert word not in text, f"{file.name}: {word}"
        assert "location.reload" not in text


@pytest.mark.parametrize(
    ("lang", "text"),
    [
        ("fr", "La ligne propre est hors service : le trafic utilise la liaison vers nodea."),
        ("de", "Die eigene Leitung ist ausgefallen: Der Verkehr nimmt die Ersatzleitung zu nodea."),
    ],
)
def test_in_another_language(session: BrowserSession, page, serve, lang: str, text: str) -> None:
    page.open(serve(session.gateway).url("", session.guest, lang=lang))
    page.until("L.loaded")
    assert text in included(page)


def test_long_words_are_broken_on_a_phone(session: BrowserSession, page, serve) -> None:
    page.open(serve(session.gateway).url("", session.guest), width=360)
    page.until("L.loaded")
    sentence = "the offer does not stand now, since " + "x" * 80
    STATUS["problems"].append(sentence)
    try:
        assert sentence in included(page)
    finally:
        STATUS["problems"].remove(sentence)
    page.js(
        "L.require('wireguard-uplink.words').then(words => document.getElementById('view')"
        ".append(words.mark('warn', 'a mark of many words '.repeat(9))))"
    )
    page.until("document.documentElement.scrollWidth <= 360")  # once the style sheet is there
