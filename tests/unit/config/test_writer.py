"""Settings to sections: what differs is written, and reads back as it was meant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpcd_wireguard_uplink.config.options import SECTIONS, ProviderSettings
from rpcd_wireguard_uplink.config.parser import parse_config
from rpcd_wireguard_uplink.config.settings import Config
from rpcd_wireguard_uplink.config.writer import section_of, sections_of, write_config
from rpcd_wireguard_uplink.uci import Draft, parse
from tests.unit.config.samples import NAMES, SAMPLES, full, whole_file

GOOD = parse_config(whole_file())
FILE = """\
config wireguard-uplink 'uplink'
	option enabled '1'  # the owner's
	option min_uplinks '61'
	list trusted_peer 'nodea'
	# and this one
	list trusted_peer 'nodeb'
	option colour 'red'

config uplink 'wgup_a'
	option peer_id 'nodea'
"""


def edited(text: str, change: Callable[[Config], Config]) -> str:
    draft = Draft(parse(text, file="f"))
    before = parse_config(draft.sections)
    write_config(draft, before, change(before))
    return draft.document.render()


@pytest.mark.parametrize("kind", [k for k in SAMPLES if k not in ("mqtt", "anchor")])
def test_every_option_is_written_as_it_was(kind: str) -> None:
    """`mqtt` and `anchor` are written by their owner only, `fail_closed 0` is the default."""
    section = sections_of(GOOD)[NAMES[kind]]
    wanted = dict(full(kind).options)
    if kind == "wireguard-uplink":
        del wanted["fail_closed"]
        wanted["carrier"] = ("bus", "mqtt")
    assert section.options == wanted
    assert not parse_config([section, full("mqtt")]).faults


def test_only_what_is_no_default_is_written() -> None:
    assert section_of(ProviderSettings()).options == {}
    provider = ProviderSettings(enabled=True, limit_mbps=5)
    assert section_of(provider).options == {"enabled": "1", "limit_mbps": "5"}


AMOUNTS = st.integers(0, 10**11).map(lambda number: number / 10**6)


@given(quota=AMOUNTS, latency=AMOUNTS, day=st.integers(1, 31), is_metered=st.booleans())
def test_every_amount_survives(quota: float, latency: float, day: int, is_metered: bool) -> None:
    settings = ProviderSettings(
        quota_gb=quota, latency_ms=min(latency, 60_000.0), reset_day=day, metered=is_metered
    )
    assert parse_config([section_of(settings)]).provider == settings


@pytest.mark.parametrize(
    "option", [o for o in SECTIONS["wireguard-uplink"].options if "whole" in o.kind.must]
)
def test_every_whole_number_survives_its_unit(option: object) -> None:
    for number in (1, 7, 29, 57, 58, 86, 100):
        kind = option.kind  # type: ignore[attr-defined]
        if not option.why_not(str(number)):  # type: ignore[attr-defined]
            assert kind.write(kind.parse(str(number))) == str(number)


def test_an_edit_leaves_every_other_line() -> None:
    """Also a bad value, an unknown option, and a section that can't be used."""
    assert edited(FILE, lambda config: config) == FILE
    assert edited(FILE, lambda config: config.with_settings(auto_failover=False)) == FILE.replace(
        "'red'\n", "'red'\n\toption auto_failover '0'\n"
    )
    fewer = edited(FILE, lambda config: config.with_settings(trusted_peers=frozenset({"nodeb"})))
    assert fewer == FILE.replace("\tlist trusted_peer 'nodea'\n", "")
    more = edited(FILE, lambda c: c.with_settings(trusted_peers=frozenset({"a", "nodea", "nodeb"})))
    assert more == FILE.replace("'nodeb'\n", "'nodeb'\n\tlist trusted_peer 'a'\n")


def test_a_list_in_one_option_is_edited_too() -> None:
    text = "config wireguard-uplink 'uplink'\n\toption trusted_peer 'nodea nodeb'\n"
    found = edited(text, lambda config: config.with_settings(trusted_peers=frozenset({"nodeb"})))
    assert found == "config wireguard-uplink 'uplink'\n\tlist trusted_peer 'nodeb'\n"


def test_records_come_change_and_go() -> None:
    uplink, pin = GOOD.uplinks[0], GOOD.pins[0]

    def add(config: Config) -> Config:
        return replace(config.with_uplink(uplink).with_pin(pin), provider=GOOD.provider)

    text = edited("config wireguard-uplink 'uplink'\n", add)
    read = parse_config(parse(text, file="f").sections)
    assert (read.uplinks, read.pins, read.provider) == ((uplink,), (pin,), GOOD.provider)
    lighter = edited(text, lambda config: config.with_uplink(replace(uplink, weight=9, mtu=1420)))
    assert lighter == text.replace("weight '42'", "weight '9'").replace("\toption mtu '1400'\n", "")
    gone = edited(
        text, lambda c: replace(c.without_uplink("wgup_a"), pins=(), provider=ProviderSettings())
    )
    assert gone == "config wireguard-uplink 'uplink'\n\nconfig provider 'local'\n"
    whole = edited(FILE, lambda config: config.with_uplink(uplink))
    assert "option own_public_key" in whole and whole.count("config uplink") == 1


def test_the_main_section_is_the_one_there_is_or_a_new_one() -> None:
    off = lambda config: config.with_settings(enabled=False)  # noqa: E731
    assert edited("config wireguard-uplink\n", off) == (
        "config wireguard-uplink\n\toption enabled '0'\n"
    )
    assert edited("", off) == "config wireguard-uplink 'uplink'\n\toption enabled '0'\n"
