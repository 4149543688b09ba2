"""Wanted against found: plans, what is never in one, and that a plan carried out leaves none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rpcd_wireguard_uplink.model import Endpoint, Link, Tunnel, Uplink, mark_alias
from rpcd_wireguard_uplink.platform.tunnels import (
    NetworkStyle,
    plan_devices,
    plan_sections,
    tunnel_mtu,
    tunnels_of,
    wanted_sections,
)
from rpcd_wireguard_uplink.uci import Draft, Section, parse

UPLINK = Uplink(
    "nodea", "wgup_a", Endpoint("gw.example", 7), "PEER", ("10.0.0.1/32", "fd00::1/128")
)
OTHER = replace(UPLINK, peer_id="nodeb", interface="wgup_b")
THEIRS = Section("interface", "lan", False, {"proto": "static", "ipaddr": "192.168.1.1"})


def sections(*uplinks: Uplink) -> list[Section]:
    return [section for uplink in uplinks for section in wanted_sections(uplink, "SECRET")]


def carried_out(wanted: list[Section], text: str) -> str:
    """The text after the plan."""
    draft = Draft(parse(text, file="network"))
    plan_sections(wanted, draft.sections).apply(draft)
    return draft.document.render()


def test_a_plan_carried_out_leaves_none() -> None:
    wanted = sections(UPLINK, OTHER)
    text = carried_out(wanted, "config interface 'lan'\n")
    assert not plan_sections(wanted, parse(text, file="network").sections)
    fewer = carried_out(sections(OTHER), text)
    assert "wgup_a" not in fewer
    assert carried_out([], fewer).rstrip() == "config interface 'lan'"


@pytest.mark.parametrize(
    "changed",
    [
        replace(UPLINK, endpoint=Endpoint("gw.example", 8)),
        replace(UPLINK, endpoint=Endpoint("192.0.2.1", 7)),
        replace(UPLINK, addresses=("10.0.0.1/32",)),
        replace(UPLINK, public_key="NEW"),
        replace(UPLINK, peer_id="nodec"),
    ],
)
def test_every_difference_is_seen(changed: Uplink) -> None:
    plan = plan_sections(sections(changed), sections(UPLINK))
    assert {s.name for s in plan.write} <= {"wgup_a", "wgup_a_peer"}
    assert plan.write
    assert plan.remove == ()


def test_what_is_left_alone() -> None:
    """What is not ours or not in `network`; but an option that somebody added to ours goes."""
    assert not plan_sections([], [THEIRS])
    assert not plan_sections(sections(replace(UPLINK, weight=99)), sections(UPLINK))
    taken = Section("interface", "wgup_a", False, {"proto": "none"})
    unmarked = Section("interface", "wgup_old", False, {"secubox_uplink": "0"})
    plan = plan_sections(sections(UPLINK), [THEIRS, taken, unmarked])
    assert ([s.name for s in plan.write], plan.remove) == (["wgup_a_peer"], ())
    interface, peer = sections(UPLINK)
    edited = replace(interface, options={**interface.options, "metric": "0"})
    assert plan_sections([interface, peer], [edited, peer]).write == (interface,)


def test_tunnels_are_what_complete_sections_mean() -> None:
    interface, peer = sections(UPLINK)
    assert tunnels_of([THEIRS, interface, peer]) == [
        Tunnel("wgup_a", "nodea", "SECRET", UPLINK.addresses, "PEER", Endpoint("gw.example", 7))
    ]
    disabled = replace(interface, options={**interface.options, "disabled": "1"})
    bare = {k: v for k, v in interface.options.items() if k != "secubox_uplink"}
    for left_out in (
        [interface],
        [peer],
        [disabled, peer],
        [replace(interface, options=bare), peer],
    ):
        assert tunnels_of(left_out) == []


TUNNEL = Tunnel("wgup_a", "nodea", "SECRET")
OURS = Link("wgup_a", 5, 51, mark_alias("nodea"))


@pytest.mark.parametrize(
    ("wanted", "links", "applied", "create", "update", "delete"),
    [
        ([TUNNEL], [], {}, ["wgup_a"], [], ()),
        ([TUNNEL], [OURS], {}, [], ["wgup_a"], ()),
        ([TUNNEL], [OURS], {"wgup_a": TUNNEL}, [], [], ()),
        ([TUNNEL], [OURS], {"wgup_a": replace(TUNNEL, mtu=1280)}, [], ["wgup_a"], ()),
        ([TUNNEL], [], {"wgup_a": TUNNEL}, ["wgup_a"], [], ()),
        ([], [OURS], {}, [], [], ("wgup_a",)),
        ([], [Link("wgup_a", 5, 0, "somebody's"), Link("wg0", 6, 51)], {}, [], [], ()),
    ],
)
def test_devices(
    wanted: list[Tunnel],
    links: list[Link],
    applied: dict[str, Tunnel],
    create: list[str],
    update: list[str],
    delete: tuple[str, ...],
) -> None:
    plan = plan_devices(wanted, links, applied)
    made, changed = ([each.interface for each in part] for part in (plan.create, plan.update))
    assert (made, changed, plan.delete, plan.refused) == (create, update, delete, {})


@pytest.mark.parametrize("alias", ["", "mine", mark_alias("nodeb")])
def test_a_device_under_our_name_that_is_not_this_uplinks_is_refused(alias: str) -> None:
    plan = plan_devices([TUNNEL], [Link("wgup_a", 5, 0, alias)], {})
    assert (plan.create, plan.update, plan.delete) == ((), (), ())
    assert "wgup_a" in plan.refused["wgup_a"]


@pytest.mark.parametrize(
    ("offered", "underlay", "mtu"),
    [
        (1420, 1500, 1420),
        (1420, 1492, 1412),
        (1380, 1492, 1380),
        (1420, 9000, 1420),
        (1420, 1300, 1280),
        (1200, 1500, 1280),
        (1400, 0, 1400),
    ],
)
def test_mtu_of_a_tunnel(offered: int, underlay: int, mtu: int) -> None:
    assert tunnel_mtu(offered, underlay) == mtu


@pytest.mark.parametrize(("style_mtu", "mtu"), [(0, 1380), (1412, 1412)])
def test_mtu_in_the_section(style_mtu: int, mtu: int) -> None:
    uplink = replace(UPLINK, mtu=1380)
    found = wanted_sections(uplink, "SECRET", NetworkStyle(mtu=style_mtu))
    assert found[0].options["mtu"] == str(mtu)
    assert [tunnel.mtu for tunnel in tunnels_of(found)] == [mtu]
