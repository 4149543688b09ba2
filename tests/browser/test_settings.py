"""The settings: their options are those of the service, and so is the arithmetic of detection.

The form itself needs LuCI's own code: LUCI_RESOURCES=DIR names it.
"""

from __future__ import annotations

import re
from ipaddress import ip_network
from pathlib import Path

import pytest

from rpcd_wireguard_uplink.config.kinds import MESH_PEER
from rpcd_wireguard_uplink.config.options import ANCHOR_TYPE, SECTIONS, Settings
from rpcd_wireguard_uplink.config.parser import parse_config
from rpcd_wireguard_uplink.config.probe_profile import PROFILES
from rpcd_wireguard_uplink.uci import Store
from tests.unit.config.samples import SAMPLES

from .mesh import SETTINGS, BrowserSession
from .site import HTDOCS, REAL

VIEW = HTDOCS / "view/wireguard-uplink/settings.js"
CONFIG = """\
config wireguard-uplink 'uplink'
	option enabled '1'
	option failover_timeout '12'
	list track_ip '1.1.1.1'
"""

form_only = pytest.mark.skipif(REAL is None, reason="LUCI_RESOURCES names no real LuCI")


def test_every_option_is_one_of_the_service() -> None:
    sections = [kind for kind in SECTIONS.values() if kind.name or kind.type == ANCHOR_TYPE]
    known = {option.name for kind in sections for option in kind.options}
    view = re.sub(r"map\.section\([^_]*", "", VIEW.read_text(encoding="utf-8"))
    names = set(re.findall(r"\[ '([a-z]\w+)', _\(", view))
    assert {"enabled", "failover_timeout", "pace", "quota_gb", "pool4", "ca_file"} <= names
    assert "password_file" not in names, "which file of root's is read is for root to say"
    assert names <= known, f"{names - known}: the service does not read them"


def test_every_field_is_in_a_tab() -> None:
    view = VIEW.read_text(encoding="utf-8")
    tabs = set(re.findall(r"section\.tab\('(\w+)'", view))
    places = re.findall(r"\badd\(section, '(\w*)', \[", view)
    assert set(places) - {""} == tabs
    assert places.count("") == 2, "the broker's section and anchors have no tabs"


SHOWN = set(re.findall(r"\[ '(\w+)', _\(", VIEW.read_text(encoding="utf-8")))
NETWORK = next(o for o in SECTIONS[ANCHOR_TYPE].options if o.name == "source")
PATTERNS = [
    (kind.type, f"{kind.name or kind.type}.{option.name}", option)
    for kind in SECTIONS.values()
    for option in kind.options
    if kind.name or kind.type == ANCHOR_TYPE
    if option.kind.pattern and option.name in SHOWN
]


def test_the_form_takes_what_the_service_takes(session: BrowserSession, page, serve) -> None:
    page.open(serve(session.gateway).url("", session.owner))
    page.until("L.loaded")
    script = (
        "L.require('wireguard-uplink.fields')"
        ".then(o => o.check({}, a[0]).validate('id', a[1]) === true)"
    )
    for section_type, name, option in PATTERNS:
        checked = (
            f"L.require('wireguard-uplink.fields').then(o => o.check({{}}, '{name}').datatype)"
        )
        assert page.js(checked) is None, "LuCI's validator fails with an empty one"
        for sample in SAMPLES[section_type][option.name]:
            for item in (sample,) if isinstance(sample, str) else sample:
                is_taken = page.js(script, name, item)
                assert is_taken or option.why_not(item), (name, item)
                assert not is_taken or not option.why_not(item) or option.kind is MESH_PEER


NETWORKS = (
    *("192.168.1.0/24", "192.168.1.5/24", "10.1.2.3/15", "10.9.255.255/9", "192.168.1.7/32"),
    *("192.168.1.7", "255.255.255.255/1", "2001:db8::/32", "2001:db8::5/32", "fd00:1:2:3::/63"),
    *("fd00::1/128", "fd00::1", "::/0", "0.0.0.0/0"),
)


def test_a_network_with_bits_of_a_host_is_refused_and_named(
    session: BrowserSession, page, serve
) -> None:
    """Before it is saved as the service does: a section that it refuses would not be used."""
    page.open(serve(session.gateway).url("", session.owner))
    page.until("L.loaded")
    script = (
        "L.require('wireguard-uplink.fields').then(o => o.check({}, 'anchor.source')"
        ".validate('id', a[0]))"
    )
    for text in NETWORKS:
        meant, told = ip_network(text, strict=False), page.js(script, text)
        assert (told is True) == (not NETWORK.why_not(text)), text
        if told is not True:
            assert str(meant) in NETWORK.why_not(text)
            assert ip_network(re.findall(r"[0-9a-f.:]+/\d+", told)[0]) == meant


@pytest.fixture
def session(tmp_path: Path) -> BrowserSession:
    (tmp_path / "wireguard-uplink").write_text(CONFIG)
    return BrowserSession.to("/nonexistent", str(tmp_path))


@pytest.fixture
def settings(session: BrowserSession, page, serve):
    page.open(serve(session.gateway).url(SETTINGS, session.owner))
    page.until("!!document.querySelector('#wgup-bound')")
    return page


def test_detection_is_computed_as_the_service_does(session: BrowserSession, page, serve) -> None:
    page.open(serve(session.gateway).url("", session.owner))
    page.until("L.loaded")
    for pace in PROFILES:
        for timeout in (1, 2, 3, 4, 5, 6, 8, 10, 30, 3600):
            ours = Settings(
                profile_name=pace, failover_timeout_s=float(timeout)
            ).detection_bound_s()
            script = "L.require('wireguard-uplink.fields').then(d => d.bound(a[0], a[1]))"
            assert page.js(script, pace, timeout) == pytest.approx(ours), (pace, timeout)
    script = "L.require('wireguard-uplink.fields').then(d => d.bound('other', 10))"
    assert page.js(script) is None


def enter(page, name: str, value: str) -> None:
    place = f"[id='widget.cbid.wireguard-uplink.uplink.{name}']"
    page.js("(document.querySelector(\"[data-tab='detection'] a\").click(), 1)")
    page.find(place).clear()
    page.find(place).send_keys(value + "\t")


@form_only
def test_the_bound_follows_the_fields(settings) -> None:
    def bound(pace: str, timeout: float) -> str:
        seconds = Settings(profile_name=pace, failover_timeout_s=timeout).detection_bound_s()
        return f"after {seconds:.1f} s at the latest".replace(".0 s", " s")

    assert bound("default", 12) in settings.js("document.querySelector('#wgup-bound').textContent")
    enter(settings, "failover_timeout", "2")
    settings.until("document.querySelector('#wgup-bound').textContent.includes('more than 2 s')")
    settings.js(
        "(s => { s.value = 'fast'; s.dispatchEvent(new Event('change', { bubbles: true })) })"
        "(document.querySelector(\"[id='widget.cbid.wireguard-uplink.uplink.pace']\"))"
    )
    settings.until(
        "document.querySelector('#wgup-bound').textContent.includes(a[0])", bound("fast", 2)
    )


@form_only
def test_what_is_saved_is_what_the_service_reads(settings, session: BrowserSession) -> None:
    enter(settings, "failover_timeout", "7")
    enter(settings, "hold_time", "45")
    settings.js("(document.querySelector('.cbi-button-save').click(), 1)")
    deadline_seen = "document.querySelectorAll('#indicators [data-indicator=uci-changes]').length"
    settings.until(deadline_seen)
    session.rpcd.commit()
    found = parse_config(Store(session.rpcd.config_dir).read("wireguard-uplink").sections)
    assert not found.warnings
    assert (found.settings.failover_timeout_s, found.settings.hold_s) == (7, 45)
    assert found.settings.targets == ("1.1.1.1",), "what was not touched stays"


@form_only
def test_a_promise_that_cannot_be_kept_is_not_saved(settings, session: BrowserSession) -> None:
    enter(settings, "failover_timeout", "1")
    settings.js("(document.querySelector('.cbi-button-save').click(), 1)")
    settings.sees("This pace needs", ".modal, .cbi-tooltip, #maincontent")
    assert not session.rpcd.pending
    assert "Longest time to a switch" in settings.log()[0], "LuCI logs what it does not save"


@form_only
def test_a_reading_session_gets_a_form_that_cannot_be_saved(
    session: BrowserSession, page, serve
) -> None:
    page.open(serve(session.gateway).url(SETTINGS, session.guest))
    page.until("!!document.querySelector('#wgup-bound')")
    assert page.js(
        "[...document.querySelectorAll('#view input:not([type=hidden])')].every(i => i.disabled)"
    )
    assert page.js("document.querySelector('.cbi-button-save').disabled")


@form_only
def test_pictures(session: BrowserSession, page, serve, pictures: Path) -> None:
    page.open(serve(session.gateway).url(SETTINGS, session.owner), width=768)
    page.until("!!document.querySelector('#wgup-bound')")
    page.js("(document.querySelector(\"[data-tab='detection'] a\").click(), 1)")
    page.until("!document.getAnimations().length")
    page.pictures(pictures, "settings-768")


ANCHOR = f"{CONFIG}\nconfig anchor\n\toption peer 'nodeB'\n\tlist source '192.168.1.20'\n"
ROWS = "document.querySelectorAll('#cbi-wireguard-uplink-anchor tr.cbi-section-table-row').length"


@form_only
def test_an_anchor_is_listed_made_and_removed(session: BrowserSession, page, serve) -> None:
    """One dialog; what the service would not use is not taken."""
    Path(session.rpcd.config_dir, "wireguard-uplink").write_text(ANCHOR)
    page.open(serve(session.gateway).url(SETTINGS, session.owner))
    page.sees("192.168.1.20", "#cbi-wireguard-uplink-anchor")
    page.click("#cbi-wireguard-uplink-anchor .cbi-button-add")
    place = ".modal [data-name=%s] input:not([type=hidden])"
    page.find(place % "peer").send_keys("nodeC\t")
    page.click(".modal .cbi-button-positive.important")
    page.sees("Say which connections", ".modal, .cbi-tooltip")
    page.find(place % "port").send_keys("5060\n")
    page.until("!document.querySelector('.modal .cbi-input-invalid')")
    page.click(".modal .cbi-button-positive.important")
    page.until(f"{ROWS} == 2 && !document.body.classList.contains('modal-overlay-active')")
    page.click("#cbi-wireguard-uplink-anchor .cbi-button-remove")
    page.until(f"{ROWS} == 1")
    page.js("(document.querySelector('.cbi-button-save').click(), 1)")
    page.until("document.querySelectorAll('#indicators [data-indicator=uci-changes]').length")
    session.rpcd.commit()
    found = parse_config(Store(session.rpcd.config_dir).read("wireguard-uplink").sections)
    assert not found.warnings
    [anchor] = found.anchors
    assert (anchor.peer_id, anchor.ports, anchor.enabled) == ("nodeC", ((5060, 5060),), True)
