"""What the pages rely on in LuCI's runtime: one table of rules, for the stand-in and the real one.

LUCI_RESOURCES=DIR runs it, and all other tests here, against a real LuCI.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from .catalogue import translation_script
from .gateway import Gateway, Session
from .rpcd import Rpcd

FAILURE = {"success": False, "error": "no such peer", "code": "unknown_peer"}
ANSWERS: dict[str, tuple[int, Any]] = {
    "table": (0, {"a": 1, "list": [1], "text": "x"}),
    "status": (5, None),
    "nothing": (0, None),
    "failure": (4, FAILURE),
}
OPTIONS = "object: 'test', method: a[0]"
RPC = [
    ("data is the result", "table", "", {"a": 1, "list": [1], "text": "x"}),
    ("a status alone is a number", "status", "", 5),
    ("no data and no error is 0", "nothing", "", 0),
    ("data hides the status", "failure", "", FAILURE),
    ("a member is expected", "table", "expect: {a: 0}", 1),
    ("another type gives the default", "table", "expect: {text: []}", []),
    ("an error vanishes in an expectation", "failure", "expect: {peers: []}", []),
    ("reject raises and drops the data", "failure", "reject: true", "rejected"),
    ("reject lets success through", "table", "reject: true, expect: {a: 0}", 1),
    ("what is denied is rejected", "denied", "", "rejected"),
    ("a filter has the last word", "table", "filter: v => v.text + '!'", "x!"),
    ("without a batch it is the same", "table", "nobatch: true, expect: {a: 0}", 1),
]


@pytest.fixture(scope="module")
def opened(browser, serve) -> Iterator[Any]:
    """A page with LuCI's runtime and no view."""
    from .page import Page

    gateway = Gateway("/nonexistent")
    rpcd = Rpcd("/nonexistent")
    session = gateway.admit(rpcd.admit(Session()))
    session.grant({"ubus": {"test": [*ANSWERS, "echo"]}}, "read")
    made = {name: (lambda s, t, answer=answer: answer) for name, answer in ANSWERS.items()}
    gateway.others = {"test": {**made, "echo": lambda s, t: (0, t)}, **rpcd.objects}
    page = Page(browser)
    page.open(serve(gateway).url("", session))
    page.until("L.loaded")
    yield page
    page.close()


@pytest.fixture
def runtime(opened) -> Iterator[Any]:
    """That page, of which the browser does not complain."""
    opened.log()
    yield opened
    assert not opened.log()


def declared(page, method: str, options: str = "", *arguments: object) -> Any:
    call = (
        f"L.require('rpc').then(rpc => rpc.declare({{ {OPTIONS}, {options} }})(...a[1])"
        ".then(v => JSON.stringify(v), e => '\"rejected\"'))"
    )
    return json.loads(page.js(call, method, arguments))


@pytest.mark.parametrize(("rule", "method", "options", "wanted"), RPC, ids=[r[0] for r in RPC])
def test_rpc(runtime, rule: str, method: str, options: str, wanted: Any) -> None:
    assert declared(runtime, method, options) == wanted


def test_arguments_by_their_place_and_absent_ones_are_left_out(runtime) -> None:
    found = declared(runtime, "echo", "params: ['one', 'two', 'three']", "1", None, 3)
    assert found == {"one": "1", "two": None, "three": 3}
    assert declared(runtime, "echo", "params: ['one', 'two']", 5) == {"one": 5}


RULES = [
    ("'%s is %d of %d, %.1f %%'.format('a', 1.9, '3', 2.25)", "a is 1 of 3, 2.3 %"),
    ("'%1024.1mB'.format(2048)", "2.0 KiB"),
    ("'%1000.1m'.format(5)", "5 "),
    ("'%t'.format(3725)", "1h 2m 5s"),
    ("E('p', {}, [ '<b>x</b>' ]).textContent", "<b>x</b>"),
    ("E('p', {}, '<b>x</b>').textContent", "x"),
    ("E('p', { 'title': '<b>', 'id': null }).outerHTML", '<p title="&lt;b&gt;"></p>'),
    ("E([ E('i'), E('b') ]).childNodes.length", 2),
    ("E('p', { 'click': function() { this.id = 'seen' } }, []).onclick", None),
    ("L.resource('a/b.css')", "/luci-static/resources/a/b.css"),
    ("L.toArray(null).length + L.toArray('a b').length", 2),
    ("L.isObject(null) || L.isObject('')", False),
    ("L.hasViewPermission()", False),
    ("L.resolveDefault(Promise.reject(1), 2)", 2),
    ("L.bind(function(b) { return this.a + b }, { a: 1 }, 2)()", 3),
]


def same(found: Any, wanted: Any) -> bool:
    """`%.1f` of 2.25 may be rounded either way."""
    return found == wanted or found == str(wanted).replace("2.3", "2.2")


@pytest.mark.parametrize(("script", "wanted"), RULES, ids=[r[0] for r in RULES])
def test_document_and_texts(runtime, script: str, wanted: Any) -> None:
    assert same(runtime.js(script), wanted)


def test_dialogs_notifications_and_handlers(runtime) -> None:
    runtime.js(
        "L.require('ui').then(ui => { window.ui = ui; ui.showModal('T', [ E('p', ['<i>']) ]);"
        " ui.addNotification(null, E('p', [ 'told' ]), 'warning') })"
    )
    assert runtime.text(".modal") == "T\n\n<i>" or "<i>" in runtime.text(".modal")
    assert "told" in runtime.text("#maincontent .alert-message.warning")
    runtime.js("ui.hideModal()")
    runtime.until("!document.body.classList.contains('modal-overlay-active')")
    runtime.js(
        "(b => { document.body.append(b); window.b = b; b.click() })(E('button', { 'click':"
        " ui.createHandlerFn({}, () => new Promise(done => { window.done = done })) }, ['x']))"
    )
    assert runtime.js("b.disabled")
    runtime.js("done()")
    runtime.until("!b.disabled")


def test_poll(runtime) -> None:
    runtime.js(
        "L.require('poll').then(poll => { window.seen = 0; window.f = () => { seen++ };"
        " poll.add(f, 1); return poll.add(f, 1) })"
    )
    runtime.until("seen >= 2")
    assert runtime.js("L.require('poll').then(poll => poll.remove(f))")


def test_a_translated_text_is_found(runtime) -> None:
    texts = {"Add an uplink": "Ajouter", "One": "Un", "ab": "x", "abc": "y", "é": "z"}
    runtime.js("(eval(a[0]), 1)", translation_script(texts))
    for text, translated in texts.items():
        assert runtime.js("_(a[0])", text) == translated
    assert runtime.js("_('Unknown')") == "Unknown"
