"""What other pages show of us: LuCI's first page, the dashboard's peers; and the pure parts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rpcd_wireguard_uplink.api import methods
from rpcd_wireguard_uplink.failover.selection import Candidate, reason_against
from rpcd_wireguard_uplink.model import Health, PathKind
from rpcd_wireguard_uplink.reasons import because, code_of, page_texts

from . import site
from .canned import summary_of
from .mesh import ACL, BrowserSession
from .site import HTDOCS, menu

KEY, OTHER = "A" * 43 + "=", "B" * 43 + "="
NAMES = ("uplink_status", "uplink_list", "uplink_trust", "uplink_texts")
UPLINK = {"peer_id": "nodea", "interface": "wgup_nodea", "state": "up", "active": False}
STATUS: dict[str, Any] = {
    "enabled": 1,
    "auto_failover": 1,
    "state": "failed_over",
    "active_path": "wgup_nodea",
    "since_s": 130,
    "cause": "wan lost all probes",
    "uplink_count": 2,
    "families": {"ipv4": {}},
    "detection_bound_ms": 3000,
    "primary": {"path": "wan", "device": "eth0"},
    "wans": [{"path": "wan", "device": "eth0", "state": "down", "portal": ""}],
    "problems": ["name resolution fails"],
    "uplinks": [{**UPLINK, "usable": True, "active": True, "reason": ""}],
}
LISTED: dict[str, Any] = {
    "offers": [{"peer_id": "nodeb", "usable": True, "metered": True, "quota_left_gb": 3.5}],
    "uplinks": [{**UPLINK, "public_key": KEY}],
}
TEXTS = [{"code": code, "text": text} for code, text in page_texts().items()]
TRUST: dict[str, Any] = {"peers": [{"peer_id": "nodeb", "mesh_key": OTHER}]}


@pytest.fixture
def session() -> BrowserSession:
    """A gateway to a service that says what the test wants."""
    made = BrowserSession.to("/nonexistent", "/nonexistent")
    status = {**STATUS, "summary": summary_of(STATUS, LISTED["offers"])}
    replies = dict(zip(NAMES, (status, LISTED, TRUST, {"texts": TEXTS}), strict=True))
    made.gateway.others[methods.OBJECT] = {
        name: (lambda session, given, reply=reply: (0, reply)) for name, reply in replies.items()
    }
    return made


@pytest.fixture
def runtime(session: BrowserSession, page, serve):
    page.open(serve(session.gateway).url("", session.guest))
    page.until("L.loaded")
    return page


def rewritten(session: BrowserSession, **changes: Any) -> None:
    """Have the status be another one."""
    status = {**STATUS, **changes}
    status["summary"] = summary_of(status, LISTED["offers"])
    session.gateway.rewrite = lambda method, table: status if "families" in table else table


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
    assert "wan is down. The internet works, through nodea." in text
    assert "If nodea fails, there is no internet" in text
    assert "What to do: Have wan mended" in text


def test_the_first_page_says_that_failover_is_off(runtime, session: BrowserSession) -> None:
    rewritten(session, auto_failover=0)
    assert "Automatic failover is off" in included(runtime)


def test_the_first_page_is_red_without_the_service(runtime, session: BrowserSession) -> None:
    del session.gateway.others[methods.OBJECT]
    text = included(runtime)
    assert "Nothing watches the internet connection." in text
    assert "Start it under System, Startup" in text
    assert runtime.count("#view .wgup-bad") == 1
    runtime.log()


def test_the_first_page_says_that_settings_wait_to_be_confirmed(
    runtime, session: BrowserSession
) -> None:
    assert "not confirmed" not in included(runtime)
    session.gateway.others[methods.OBJECT]["uplink_pulse"] = lambda _, given: (
        0,
        {"rollback_s": 70},
    )
    text = included(runtime)
    assert "Settings that were just applied are not confirmed." in text
    assert "nothing can be changed here" in text
    assert "wan is down. The internet works, through nodea." in text
    assert runtime.count("#wgup-rollback.wgup-bad") == 1


def test_the_first_page_says_that_the_session_is_over(runtime, session: BrowserSession) -> None:
    included(runtime)
    session.gateway.sessions.clear()
    text = included(runtime)
    assert "Your session is over: log in again." in text
    assert "Nothing watches" not in text, "the service may well be at work"
    assert runtime.count("#view .wgup-bad") == 1
    runtime.log()


def test_the_first_page_when_nothing_answers(runtime, session: BrowserSession) -> None:
    def breaks(_: object, given: object) -> None:
        raise ConnectionError("what asks is let down")

    session.gateway.others[methods.OBJECT] = dict.fromkeys((*NAMES, "uplink_pulse"), breaks)
    text = included(runtime)
    assert "The router can not be reached." in text
    assert "Nothing watches" not in text
    assert runtime.count("#view .wgup-bad") == 1
    runtime.log()


def column(page, key: str) -> str:
    return str(
        page.js(
            "L.require('wireguard-uplink.peers-column').then(c => c.load().then(found =>"
            " c.title + '|' + E('td', {}, [ c.cell(found, a[0]) ]).innerText))",
            key,
        )
    )


@pytest.mark.parametrize(
    ("key", "text"),
    [(KEY, "in use"), (OTHER, "offered, metered, 3.5 GB left"), ("C" * 43 + "=", "-")],
)
def test_the_column_for_the_dashboard(runtime, key: str, text: str) -> None:
    assert column(runtime, key) == f"Uplink|{text}"


def test_the_column_without_the_service(runtime, session: BrowserSession) -> None:
    del session.gateway.others[methods.OBJECT]
    assert column(runtime, KEY) == "Uplink|-"
    runtime.log()


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
    for path, entry in menu().items():
        is_theirs = path.startswith("admin/services/")
        assert is_theirs or set(entry["depends"]["acl"]) <= groups
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
        ("fr", "wan est hors service. Internet fonctionne, par nodea."),
        ("de", "wan ist ausgefallen. Das Internet funktioniert, über nodea."),
    ],
)
def test_in_another_language(session: BrowserSession, page, serve, lang: str, text: str) -> None:
    page.open(serve(session.gateway).url("", session.guest, lang=lang))
    page.until("L.loaded")
    assert text in included(page)


def test_long_words_are_broken_on_a_phone(session: BrowserSession, page, serve) -> None:
    page.open(serve(session.gateway).url("", session.guest), width=360)
    page.until("L.loaded")
    name = "x" * 80
    rewritten(session, primary={"path": name})
    assert name in included(page)
    page.js(
        "L.require('wireguard-uplink.words').then(words => document.getElementById('view')"
        ".append(words.mark('warn', 'a mark of many words '.repeat(9))))"
    )
    page.until("document.documentElement.scrollWidth <= 360")  # once the style sheet is there


API = """'use strict';
'require baseclass';
'require rpc';
const peers = rpc.declare({ object: 'dashboard', method: 'peers', expect: { peers: [] } });
return baseclass.extend({ getPeers: () => peers() });
"""
PEERS_VIEW = """'use strict';
'require view';
'require wireguard-dashboard.api as api';
return view.extend({
	load: () => api.getPeers(),
	render: (peers) => E('table', { 'id': 'peers-table' }, [
		E('tr', {}, [ E('th', {}, [ 'Key' ]), E('th', {}, [ 'Actions' ]) ])
	].concat(peers.map((peer) => E('tr', {}, [
		E('td', {}, [ peer.public_key ]), E('td', {}, [ 'x' ])
	]))))
});
"""


def add_dashboard(api: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Have the site serve this script and the view of a dashboard, kept in a folder."""
    for name, text in (
        ("wireguard-dashboard/api.js", api),
        ("view/wireguard-dashboard/peers.js", PEERS_VIEW),
    ):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(text)
    places = site._places
    monkeypatch.setattr(
        site, "_places", lambda path: [folder / path.partition("resources/")[2], *places(path)]
    )


def test_the_dashboards_view_of_peers_gets_the_column(
    session: BrowserSession, page, serve, monkeypatch, tmp_path
) -> None:
    """The dashboard stays as it is: its menu entry leads to a view that wraps its own."""
    add_dashboard(API, monkeypatch, tmp_path)
    peers = {"peers": [{"public_key": KEY}, {"public_key": OTHER}, {"public_key": "C"}]}
    session.gateway.others["dashboard"] = {"peers": lambda session, given: (0, peers)}
    session.guest.grant({"ubus": {"dashboard": ["peers"]}}, "read")
    page.open(serve(session.gateway).url("admin/services/wireguard/peers", session.guest))
    page.until("document.querySelectorAll('.wgup-column').length == 4")
    cells = "[...document.querySelectorAll('#peers-table tr')].map(r => r.children[1].innerText)"
    assert page.js(cells) == ["Uplink", "in use", "offered, metered, 3.5 GB left", "-"]


def test_sentences_of_the_service_are_translated(session: BrowserSession, page, serve) -> None:
    """The service's own sentences, as its decisions make them."""
    page.open(serve(session.gateway).url("", session.guest, lang="de"))
    page.until("L.loaded")
    page.js("L.require('wireguard-uplink.words').then(w => w.learn({ texts: a[0] }))", TEXTS)
    candidate = Candidate("wgup_a", PathKind.UPLINK, Health.UP, last_answer_age_s=1.0)
    said = [
        reason_against(replace(candidate, **change))
        for change in (
            {"carries_family": False},
            {"health": Health.DOWN, "cause": because("no_answer", 3, "4.2")},
            {"health": Health.UNKNOWN},
            {"shares_underlay": True, "outlives_primary": False},
        )
    ]
    script = "L.require('wireguard-uplink.words').then(w => a[0].map(t => w.said(t, 'is')))"

    def told(*sentences: str) -> list[str]:
        coded = ((text, *code_of(text)) for text in sentences)
        rows = [{"is": text, "is_code": code, "is_args": args} for text, code, args in coded]
        return list(page.js(script, rows))

    found = told(*said)
    assert not set(found) & set(said)
    assert "keine Antwort auf 3" in found[1] and "4,2" in found[1]
    unknown = "a sentence of a newer service"
    assert told(unknown) == [unknown]
    newer = {"is": unknown, "is_code": "down/newer", "is_args": ["3"]}
    assert page.js(script, [newer, {"is": unknown}]) == [unknown] * 2
