"""The overview as an owner uses it: real routers, their offers and trust, real tunnels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from tests.lab.lab import Lab
from tests.lab.node import LabError

from .canned import outage
from .mesh import OFFERS, OVERVIEW, Mesh

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
    closed(page)


def closed(page) -> None:
    page.until("!document.body.classList.contains('modal-overlay-active')")


def confirm(page, button: str) -> None:
    page.click(button)
    page.click(".modal .wgup-do")


def test_it_says_which_way_traffic_takes(overview) -> None:
    overview.sees("The internet works, through wan.", "#wgup-now")
    overview.sees("in use", "#wgup-path-wan")


def test_trust_is_confirmed_with_the_key_in_view_and_the_uplink_is_made(
    overview, mesh: Mesh, session
) -> None:
    overview.sees("not trusted", "#wgup-peer-nodea")
    overview.sees("metered, 20 GB left", "#wgup-peer-nodeb")
    overview.click("#wgup-add-nodea")
    overview.click(".modal summary")
    overview.sees(mesh.peers["nodea"].router.mesh_key, ".modal")
    assert "uplink_trust_accept" not in dict(session.gateway.asked), "not before the answer"
    overview.click(".modal .wgup-do")
    answered(overview, "The internet answers through nodea")
    overview.sees("1. nodea", "#wgup-path-wgup_nodea")
    overview.sees("is a backup", "#wgup-peer-nodea")
    assert mesh.home.uplink("nodea")["peer_id"] == "nodea"


@pytest.mark.home("nodea")
def test_a_test_through_the_tunnel(overview, mesh: Mesh) -> None:
    mesh.home.ready("nodea")
    overview.click("#wgup-test-wgup_nodea")
    answered(overview, "The internet answers through nodea")


def test_questions_that_change_nothing(overview, mesh: Mesh) -> None:
    before = mesh.home.status()["active_path"]
    overview.click("#wgup-more summary")
    overview.click("#wgup-why")
    answered(overview, "IPv4")
    overview.click("#wgup-what-if")
    overview.click(".modal .wgup-do")
    answered(overview, "IPv6")
    assert mesh.home.status()["active_path"] == before


@pytest.mark.home("nodea")
def test_a_rehearsal_and_a_check(overview, mesh: Mesh) -> None:
    overview.click("#wgup-more summary")
    confirm(overview, "#wgup-rehearse")
    answered(overview, "nodea would")
    found = mesh.home.ask("uplink_check")["findings"]
    overview.click("#wgup-check")
    overview.sees(found[0]["what"] if found else "Nothing is wrong.", ".modal")


@pytest.mark.home("nodea")
def test_a_backup_is_used_by_hand(overview, mesh: Mesh) -> None:
    mesh.home.ready("nodea")
    confirm(overview, "#wgup-use-wgup_nodea")
    closed(overview)
    overview.sees("You chose nodea", "#wgup-chosen")
    assert mesh.home.status()["by_hand"]["path"] == "nodea"
    overview.click("#wgup-release")
    overview.until("!document.querySelector('#wgup-chosen')")
    mesh.home.wait_primary()
    overview.asks_now()
    overview.sees("The internet works, through wan.", "#wgup-now")


@pytest.mark.home(trusted=["nodea"])
def test_the_internet_is_offered_and_withdrawn(overview, mesh: Mesh) -> None:
    overview.sees("Your internet is not offered", "#wgup-offering")
    assert overview.count("#wgup-withdraw") == 0
    overview.click("#wgup-offer")
    overview.js("(document.querySelector('.modal [name=bandwidth_mbps]').value = 30)")
    overview.js("(document.querySelector('.modal [name=quota_gb]').value = 12.5)")
    overview.js("(document.querySelector('.modal [name=metered]').click(), 1)")
    overview.click(".modal .wgup-do")
    overview.sees("12.5 of 12.5 GB left", "#wgup-offering")
    offer = mesh.home.ask("uplink_consumers")["offer"]
    assert (offer["bandwidth_mbps"], offer["quota_gb"], offer["metered"]) == (30, 12.5, True)
    overview.press("ESCAPE")
    closed(overview)

    mesh.peers["nodea"].ask("uplink_offer", bandwidth_mbps=80)
    mesh.peers["nodea"].hears_of("home", "nodeb")
    mesh.peers["nodea"].ask("uplink_add", peer_id="home")
    overview.asks_now()
    overview.sees("nodea", "#wgup-consumers")

    overview.click("#wgup-withdraw")
    overview.sees("nodea lose this way", ".modal")
    overview.click(".modal .wgup-do")
    closed(overview)
    overview.sees("Your internet is not offered", "#wgup-offering")
    mesh.peers["nodea"].ask("uplink_remove", peer_id="home")


@pytest.mark.home("nodea", "nodeb")
def test_an_uplink_is_removed_and_trust_revoked(overview, mesh: Mesh) -> None:
    confirm(overview, "#wgup-remove-wgup_nodeb")
    closed(overview)
    overview.until("!document.querySelector('#wgup-path-wgup_nodeb')")
    confirm(overview, "#wgup-revoke-nodeb")
    closed(overview)
    overview.sees("not trusted", "#wgup-peer-nodeb")
    overview.sees("Backup nodeb removed", "#wgup-history")
    assert [u["peer_id"] for u in mesh.home.status()["uplinks"]] == ["nodea"]


# --- who may do what, and who says what


def test_a_reading_session_that_tries_all_the_same(mesh: Mesh, session, page, serve) -> None:
    bring(mesh, "nodea")
    page.open(serve(session.gateway).url(OVERVIEW, session.guest))
    page.until(SHOWN)
    page.js(
        "(b => { b.disabled = false; b.click() })(document.querySelector('#wgup-test-wgup_nodea'))"
    )
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
    told = {"uplink_history": {"events": outage()}}
    session.gateway.rewrite = lambda method, table: hostile(table | told.get(method, {}))
    page.open(serve(session.gateway).url(OVERVIEW, session.owner))
    page.until(SHOWN)
    for place in ("now", "wans", "peers", "history"):
        page.sees("<img src=x", f"#wgup-{place}-section")
    page.js("(document.querySelector('#wgup-peers button').click(), 1)")
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
    page.sees("Start it under System, Startup", "#view [role=alert]")
