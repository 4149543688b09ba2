"""The overview as an owner uses it: real routers, their offers and trust, real tunnels."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.lab.lab import Lab
from tests.lab.node import LabError

from .mesh import OFFERS, OVERVIEW, Mesh

FOLDER = Path(__file__).parent
SAMPLES = 40 if "SCREENSHOTS" in os.environ else 3
pytestmark = pytest.mark.needs("conntrack")
SHOWN = """
!!document.querySelector('#wgup-now') && !!document.querySelector('#wgup-history-section > *')
&& [...document.styleSheets].some(sheet => (sheet.href || '').includes('uplink.css'))
"""


@pytest.fixture(scope="module")
def mesh(namespaces: None) -> Iterator[Mesh]:
    with Lab() as lab:
        yield Mesh.build(lab)


@pytest.fixture
def session(mesh: Mesh):
    return mesh.enter()


def bring(mesh: Mesh, *uplinks: str, trusted: Sequence[str] = ()) -> None:
    """Have home trust these peers and those of its uplinks, which are the only ones (weight 40)."""
    home = mesh.home
    for name in {row["peer_id"] for row in home.status()["uplinks"]} - set(uplinks):
        home.ask("uplink_remove", peer_id=name)
    for name in OFFERS:
        wanted, row = name in (*uplinks, *trusted), home.offers().get(name, {"trusted": False})
        if wanted and not row["trusted"]:
            home.trust(name)
        elif row["trusted"] and not wanted:
            home.ask("uplink_trust_revoke", peer_id=name)
        if name not in home.offers():  # what a peer said goes with its trust
            mesh.peers[name].ask("uplink_offer", **OFFERS[name])
    home.hears_of(*OFFERS)
    for name in uplinks:
        home.until(lambda name=name: home.offers()[name]["usable"], "a usable offer")
        home.ask("uplink_add", peer_id=name, weight=40)


@pytest.fixture
def overview(mesh: Mesh, session, page, serve, request: pytest.FixtureRequest):
    """The page, as a session that may change things sees it."""
    mark = request.node.get_closest_marker("home")
    bring(mesh, *(mark.args if mark else ()), **(mark.kwargs if mark else {}))
    page.open(serve(session.gateway).url(OVERVIEW, session.owner))
    page.until(SHOWN)
    return page


def answered(page, text: str) -> None:
    """The window tells this; close it."""
    page.sees(text, ".modal-overlay-active .modal")
    page.click(".modal-overlay-active .modal .right button")
    page.until("!document.body.classList.contains('modal-overlay-active')")


def confirm(page, button: str) -> None:
    page.click(button)
    page.click(".modal .wgup-do")


def test_it_says_which_way_traffic_takes(overview) -> None:
    overview.sees("Traffic uses the own line wan.", "#wgup-now")
    overview.sees("at the latest", "#wgup-indicator-section")
    overview.sees("own line", "#wgup-path-wan")
    overview.until("document.querySelectorAll('#wgup-path-wan polyline').length == 2")


def test_nobody_is_trusted_by_itself(overview) -> None:
    overview.sees("not trusted", "#wgup-trust-nodea")
    overview.sees("not trusted", "#wgup-offer-nodeb")
    assert overview.js("document.querySelector('#wgup-add-nodeb').disabled")


def test_trust_is_confirmed_with_the_key_in_view(overview, mesh: Mesh, session) -> None:
    overview.click("#wgup-accept-nodea")
    key = mesh.peers["nodea"].router.mesh_key
    overview.sees(key, ".modal")
    assert "uplink_trust_accept" not in dict(session.gateway.asked), (
        "nothing is done before the answer"
    )
    overview.click(".modal .wgup-do")
    answered(overview, "nodea")
    overview.sees("trusted", "#wgup-trust-nodea .wgup-good")
    overview.until("!document.querySelector('#wgup-add-nodea').disabled")
    overview.sees("80 Mbit/s", "#wgup-offer-nodea")
    overview.sees("fiber", "#wgup-offer-nodea")
    overview.sees("metered, 20.0 GB left", "#wgup-offer-nodeb")


@pytest.mark.home(trusted=["nodea"])
def test_an_uplink_is_added_from_an_offer(overview, mesh: Mesh) -> None:
    overview.click("#wgup-add-nodea")
    overview.sees("carries traffic only when", ".modal")
    overview.js("(document.querySelector('.modal [name=weight]').value = 40)")
    overview.click(".modal .wgup-do")
    answered(overview, "nodea")
    overview.sees("uplink, weight 40", "#wgup-path-wgup_nodea")
    overview.sees("in use as uplink", "#wgup-offer-nodea")
    assert mesh.home.uplink("nodea")["weight"] == 40
    overview.until(
        "/^up/.test(document.querySelector('#wgup-path-wgup_nodea .wgup-mark').innerText)"
    )


@pytest.mark.home("nodea", trusted=["nodeb"])
def test_the_second_one_and_their_order(overview, mesh: Mesh) -> None:
    overview.click("#wgup-add-nodeb")
    overview.click(".modal .wgup-do")
    answered(overview, "nodeb")
    order = "[...document.querySelectorAll('#wgup-paths tr strong')].map(e => e.innerText)"
    overview.until(f"{order}.filter(t => t.startsWith('node')) + '' == 'nodea,nodeb'")
    overview.click("#wgup-up-wgup_nodeb")
    overview.until(f"{order}.filter(t => t.startsWith('node')) + '' == 'nodeb,nodea'")
    weights = {u["peer_id"]: u["weight"] for u in mesh.home.status()["uplinks"]}
    assert weights == {"nodea": 40, "nodeb": 41}
    assert overview.js("document.querySelector('#wgup-up-wgup_nodeb').disabled"), "it is the first"


@pytest.mark.home("nodea")
def test_a_test_through_the_tunnel(overview, mesh: Mesh) -> None:
    mesh.home.ready("nodea")
    overview.click("#wgup-test-wgup_nodea")
    answered(overview, "The internet answers through nodea")


def test_questions_that_change_nothing(overview, mesh: Mesh) -> None:
    before = mesh.home.status()["active_path"]
    overview.click("#wgup-why")
    answered(overview, "IPv4")
    overview.click("#wgup-what-if")
    overview.click(".modal .wgup-do")
    answered(overview, "IPv6")
    assert mesh.home.status()["active_path"] == before


@pytest.mark.home("nodea")
def test_a_rehearsal(overview) -> None:
    confirm(overview, "#wgup-rehearse")
    answered(overview, "nodea would")


@pytest.mark.home(trusted=["nodea"])
def test_the_line_is_offered_changed_and_withdrawn(overview, mesh: Mesh) -> None:
    overview.sees("This line is not offered", "#wgup-offering")
    assert overview.js("document.querySelector('#wgup-withdraw').disabled")
    overview.click("#wgup-offer")
    overview.js("(document.querySelector('.modal [name=bandwidth_mbps]').value = 30)")
    overview.js("(document.querySelector('.modal [name=quota_gb]').value = 12.5)")
    overview.js("(document.querySelector('.modal [name=metered]').click(), 1)")
    overview.click(".modal .wgup-do")
    answered(overview, ".")
    overview.sees("12.5 of 12.5 GB left", "#wgup-offering")
    offer = mesh.home.ask("uplink_consumers")["offer"]
    assert (offer["bandwidth_mbps"], offer["quota_gb"], offer["metered"]) == (30, 12.5, True)

    mesh.peers["nodea"].ask("uplink_offer", bandwidth_mbps=80)
    mesh.peers["nodea"].hears_of("home", "nodeb")
    mesh.peers["nodea"].ask("uplink_add", peer_id="home")
    overview.sees("nodea", "#wgup-consumers")

    overview.click("#wgup-withdraw")
    overview.sees("nodea lose this way", ".modal")
    overview.click(".modal .wgup-do")
    answered(overview, ".")
    overview.sees("This line is not offered", "#wgup-offering")
    mesh.peers["nodea"].ask("uplink_remove", peer_id="home")


def test_failover_is_turned_off_only_when_confirmed(overview, mesh: Mesh) -> None:
    overview.click("#wgup-failover")
    overview.sees("stays on a dead line", ".modal")
    overview.press("ESCAPE")
    overview.until("!document.body.classList.contains('modal-overlay-active')")
    assert mesh.home.status()["auto_failover"] == 1
    confirm(overview, "#wgup-failover")
    overview.sees("Automatic failover is off", "#wgup-now")
    assert mesh.home.status()["auto_failover"] == 0
    overview.click("#wgup-failover")
    overview.sees("Traffic uses the own line", "#wgup-now")


def test_a_refusal_is_a_sentence(overview) -> None:
    overview.click("#wgup-by-hand")
    for name, value in (("peer_id", "x y"), ("endpoint", "192.0.2.9"), ("public_key", "A" * 44)):
        overview.find(f".modal [name={name}]").send_keys(value)
    overview.click(".modal .wgup-do")
    answered(overview, "peer_id")


@pytest.mark.home("nodea", "nodeb")
def test_an_uplink_is_removed_and_trust_revoked(overview, mesh: Mesh) -> None:
    confirm(overview, "#wgup-remove-wgup_nodeb")
    answered(overview, "nodeb")
    overview.until("!document.querySelector('#wgup-path-wgup_nodeb')")
    confirm(overview, "#wgup-revoke-nodeb")
    answered(overview, "nodeb")
    overview.sees("not trusted", "#wgup-trust-nodeb")
    overview.sees("uplink added", "#wgup-history")
    overview.sees("uplink removed", "#wgup-history")
    assert [u["peer_id"] for u in mesh.home.status()["uplinks"]] == ["nodea"]


# --- who may do what, and who says what


def test_a_reading_session_sees_and_cannot_act(mesh: Mesh, session, page, serve) -> None:
    bring(mesh, "nodea")
    page.open(serve(session.gateway).url(OVERVIEW, session.guest))
    page.until(SHOWN)
    page.sees("nodea", "#wgup-paths")
    page.sees("only reads", "#wgup-readonly")
    enabled = "[...document.querySelectorAll('#view button:enabled')].map(e => e.id)"
    assert page.js(enabled) == ["wgup-why", "wgup-what-if"]

    # A page that tried all the same would not get through.
    page.js("[...document.querySelectorAll('#view button')].forEach(b => { b.disabled = false })")
    page.js("(document.querySelector('#wgup-test-wgup_nodea').click(), 1)")
    answered(page, "This login may look")
    assert session.gateway.refused == ["uplink_test"]
    assert "uplink_test" not in dict(session.gateway.asked)


HOSTILE = "<img src=x onerror=\"window.owned=1\"><b>'bold'</b>"


def hostile(value: object) -> object:
    """Every text of a reply as a peer without manners would send it; ids stay apart."""
    if isinstance(value, dict):
        return {key: hostile(each) for key, each in value.items()}
    if isinstance(value, list):
        return [hostile(each) for each in value]
    return HOSTILE if isinstance(value, str) else value


def test_hostile_texts_stay_text(mesh: Mesh, session, page, serve) -> None:
    """The service refuses such names; a page must not depend on that."""
    session.gateway.rewrite = lambda method, table: hostile(table)
    page.open(serve(session.gateway).url(OVERVIEW, session.owner))
    page.until(SHOWN)
    for place in ("indicator", "paths", "offers", "trust", "history"):
        page.sees("<img src=x", f"#wgup-{place}-section")
    page.js("(document.querySelector('#wgup-trust button').click(), 1)")
    page.sees("<img src=x", ".modal")
    page.press("ESCAPE")
    assert page.js("document.querySelectorAll('#view img, #view b, .modal img').length") == 0
    assert page.js("window.owned === undefined")


def test_a_hostile_offer_does_not_even_arrive(mesh: Mesh) -> None:
    offer = {"type": "uplink_offer", "peer_id": HOSTILE, "wan_type": HOSTILE}
    with pytest.raises(LabError, match=r"peer_id|message|refused|success"):
        mesh.home.ask("uplink_gossip", message=offer)


def test_without_the_service_the_page_says_what_to_do(mesh: Mesh, page, serve, tmp_path) -> None:
    from .mesh import BrowserSession

    session = BrowserSession.to(str(tmp_path / "no.sock"), str(tmp_path))
    page.open(serve(session.gateway).url(OVERVIEW, session.owner))
    page.sees("The service is not running. Start it under System", "#view [role=alert]")


# --- how it looks and is used


def test_on_a_phone_nothing_is_cut_off(mesh: Mesh, session, page, serve) -> None:
    page.open(serve(session.gateway).url(OVERVIEW, session.owner), width=360, height=740)
    page.until(SHOWN)
    wide = "e => e.getBoundingClientRect().right > 360"
    found = f"[...document.querySelectorAll('#view *')].filter({wide}).map(e => e.outerHTML)"
    assert [html[:200] for html in page.js(found)] == []
    assert page.js("document.documentElement.scrollWidth") <= 360
    page.click("#wgup-by-hand")
    assert page.js("document.querySelector('.modal').getBoundingClientRect().right") <= 360


@pytest.mark.home("nodea")
def test_by_keyboard_alone(overview, mesh: Mesh) -> None:
    """Tab reaches every enabled button; a window keeps the focus and gives it back."""
    wanted = overview.js("document.querySelectorAll('#view button:enabled').length")
    assert wanted > 4
    seen: set[str] = set()
    for _ in range(wanted + 15):
        overview.press("TAB")
        seen.add(overview.js("document.activeElement.id"))
    buttons = overview.js("[...document.querySelectorAll('#view button:enabled')].map(b => b.id)")
    assert set(buttons) <= seen

    overview.js("(document.querySelector('#wgup-failover').focus(), 1)")
    overview.press("ENTER")
    overview.sees("stays on a dead line", ".modal")
    assert overview.focused() == "Cancel"
    for _ in range(5):
        overview.press("TAB")
        assert overview.js("!!document.activeElement.closest('.modal')")
    overview.press("ESCAPE")
    assert overview.js("document.activeElement.id") == "wgup-failover"


@pytest.mark.home("nodea")
def test_what_has_the_focus_survives_a_redraw(overview) -> None:
    overview.js("(document.querySelector('#wgup-test-wgup_nodea').focus(), 1)")
    overview.js("(window.kept = document.activeElement, 1)")
    shown = overview.text("#wgup-indicator-section")
    overview.until("document.querySelector('#wgup-indicator-section').innerText != a[0]", shown)
    assert overview.js("document.activeElement === kept && kept.isConnected")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_contrast(mesh: Mesh, session, page, serve, dark: bool) -> None:
    """WCAG 2.1 AA: 4.5:1 for text, 3:1 for the coloured edges."""
    page.open(serve(session.gateway).url(OVERVIEW, session.owner, dark=dark))
    page.until(SHOWN)
    page.js("(document.querySelector('#wgup-by-hand').click(), 1)")
    page.sees("Add an uplink by hand", ".modal")
    found = page.js((FOLDER / "contrast.js").read_text().strip().partition("*/")[2])
    assert len(found) > 30
    assert not [(round(seen, 2), what[:120]) for seen, least, what in found if seen < least]


@pytest.mark.parametrize(("name", "width"), [("overview", 1000), ("phone", 360)])
def test_pictures(mesh: Mesh, session, page, serve, pictures: Path, name: str, width: int) -> None:
    """Of both themes, with some seconds in the plots; `make screenshots` keeps them."""
    page.open(serve(session.gateway).url(OVERVIEW, session.owner), width=width)
    page.until(SHOWN)
    page.until(
        f"document.querySelector('#wgup-path-wan polyline').points.length > {SAMPLES}", timeout_s=90
    )
    page.pictures(pictures, name)
