"""The provider's sections: what they hold, where consumers leave, and whose sections stay."""

from __future__ import annotations

import pytest

from rpcd_wireguard_uplink.errors import ConfigError
from rpcd_wireguard_uplink.model import Endpoint, Uplink, is_marked
from rpcd_wireguard_uplink.platform.provider_network import (
    firewall_sections,
    installed_sections,
    network_section,
    plan_provider,
    provider_zones,
    wan_zone,
)
from rpcd_wireguard_uplink.platform.tunnels import plan_sections, tunnels_of, wanted_sections
from rpcd_wireguard_uplink.uci import Draft, Section, parse

GATEWAYS = ("10.7.8.1/24", "fd12::1/64")
FIREWALL = """\
config defaults
	option input REJECT   # as it came

config zone
	option name		lan
	list   network		'lan'

config zone 'outside'
	option name 'wan'
	option network 'wan wan6'
	option masq '1'

config zone
	option name lte
	list network lte

config forwarding
	option src		lan
	option dest		wan

"""
UPLINK = Uplink("provider", "wgup_provider", Endpoint("192.0.2.7"), "KEY", ("10.0.0.2/32",))


def sections(text: str) -> tuple[Section, ...]:
    return parse(text, file="firewall").sections


def carried_out(config: str, wanted: tuple[Section, ...], text: str) -> str:
    draft = Draft(parse(text, file=config))
    plan_provider(config, wanted, draft.sections).apply(draft)
    return draft.document.render()


def written(zones: tuple[str, ...] = ("wan",)) -> tuple[Section, ...]:
    return firewall_sections(zones, 51821, ("mesh1", "mesh0"), 7333)


def test_netifd_gets_the_device_with_its_addresses() -> None:
    section = network_section(GATEWAYS)
    assert (section.type, section.name) == ("interface", "wgup_srv")
    wanted = {"proto": "static", "device": "wgup_srv"}
    wanted |= {"ipaddr": ("10.7.8.1/24",), "ip6addr": ("fd12::1/64",)}
    assert wanted.items() <= section.options.items()
    assert "ip6addr" not in network_section(GATEWAYS[:1]).options
    assert tunnels_of([section]) == [], "no tunnel to a peer"


def test_a_zone_that_rejects_with_ways_out_only() -> None:
    zone, *others = written(("lte", "wan"))
    assert zone.type == "zone"
    rejects = {"name": "wgup", "device": ("wgup_srv",), "input": "REJECT", "forward": "REJECT"}
    assert rejects.items() <= zone.options.items()
    ways = [other.options for other in others if other.type == "forwarding"]
    assert [(way["src"], way["dest"]) for way in ways] == [("wgup", "lte"), ("wgup", "wan")]


def test_what_is_accepted_from_whom() -> None:
    rules = [s.options for s in written() if s.type == "rule"]
    accepted = {
        (r["src"], r.get("device"), r["proto"], r.get("dest_port"), r.get("icmp_type"))
        for r in rules
    }
    assert accepted == {
        ("wgup", None, "icmp", None, "echo-request"),
        ("wgup", None, "tcp", "7333", None),
        ("*", None, "udp", "51821", None),
        ("*", "mesh0", "tcp", "7333", None),
        ("*", "mesh1", "tcp", "7333", None),
    }
    assert {r["target"] for r in rules} == {"ACCEPT"}
    assert not any("dest" in r for r in rules), "with a destination a rule is of forwarded packets"


def test_all_are_named_and_marked_and_the_order_of_devices_does_not_matter() -> None:
    found = written()
    assert all(is_marked(s.options) and not s.anonymous for s in found)
    assert len({s.name for s in found}) == len(found)
    assert firewall_sections(("wan",), 51821, ("mesh0", "mesh1"), 7333) == found


OURS = "config forwarding 'wgup_forward1'\n\toption src wgup\n\toption dest {}\n"
MARKED = OURS + "\toption secubox_uplink 1\n"


@pytest.mark.parametrize(
    ("text", "lines", "zones"),
    [
        pytest.param(FIREWALL, [["wan", "wan6"]], ("wan",), id="the line's zone"),
        pytest.param(FIREWALL, [["wan6"], ["lte_4", "lte"]], ("lte", "wan"), id="two lines"),
        pytest.param(FIREWALL, [["strange"]], ("wan",), id="in no zone: the one that masquerades"),
        pytest.param(FIREWALL, [], ("wan",), id="no line now"),
        pytest.param(FIREWALL + MARKED.format("lte"), [["wan"]], ("lte", "wan"), id="one is down"),
        pytest.param(FIREWALL + MARKED.format("lte"), [], ("lte",), id="the only one is down"),
        pytest.param(FIREWALL + MARKED.format("gone"), [["wan"]], ("wan",), id="a zone is gone"),
        pytest.param(FIREWALL + OURS.format("lan"), [["wan"]], ("wan",), id="not marked"),
    ],
)
def test_where_consumers_leave(text: str, lines: list[list[str]], zones: tuple[str, ...]) -> None:
    assert provider_zones(sections(text), lines) == zones


def test_our_own_zone_is_no_way_out() -> None:
    text = carried_out("firewall", written(), FIREWALL).replace(
        "option forward 'REJECT'", "option forward 'REJECT'\n\toption masq 1"
    )
    only_ours = "config zone" + text.split("config zone")[-1]
    assert "option masq 1" in only_ours
    for without in (only_ours, "config zone\n\toption name lan\n"):
        with pytest.raises(ConfigError, match="no zone has a WAN"):
            provider_zones(sections(without), [["wan"]])


def test_written_once_appended_and_removed_without_a_trace() -> None:
    text = carried_out("firewall", written(), FIREWALL)
    assert text.startswith(FIREWALL.rstrip())
    assert carried_out("firewall", written(), text) == text
    assert installed_sections("firewall", sections(text)) == written()
    changed = carried_out("firewall", firewall_sections(("lte",), 5, (), 7333), text)
    assert "'5'" in changed and "51821" not in changed and "mesh" not in changed
    assert carried_out("firewall", (), changed) == FIREWALL


@pytest.mark.parametrize("config", ["network", "firewall"])
def test_a_name_that_another_holds_is_told_and_nothing_planned(config: str) -> None:
    wanted = (network_section(GATEWAYS),) if config == "network" else written()
    text = f"config thing '{wanted[-1].name}'\n\toption own 1\n"
    with pytest.raises(ConfigError, match=f"{config}: a section {wanted[-1].name} "):
        plan_provider(config, wanted, sections(text))


def test_uplinks_and_provider_leave_each_other_s_sections_alone() -> None:
    """Even where the peer of an uplink is called provider."""
    uplink, gateway = wanted_sections(UPLINK, "SECRET"), network_section(GATEWAYS)
    assert not plan_sections([], [gateway])
    assert not plan_sections(uplink, [gateway, *uplink])
    assert plan_sections([], [gateway, *uplink]).remove == ("wgup_provider", "wgup_provider_peer")
    assert not plan_provider("network", [], uplink)
    assert plan_provider("network", [], [gateway, *uplink]).remove == ("wgup_srv",)
    assert installed_sections("network", [gateway, *uplink]) == (gateway,)


LAN = "config zone\n\toption name 'lan'\n\tlist network 'lan'\n"
WAN = "config zone\n\toption name 'wan'\n\toption network 'wan wan6'\n\toption masq '1'\n"
DSL = "config zone 'dsl'\n\toption name 'dsl'\n\tlist network 'dsl'\n"


@pytest.mark.parametrize(
    ("firewall", "interfaces", "zone"),
    [
        (LAN + WAN, {"wan"}, "wan"),
        (LAN + WAN, {"wan6"}, "wan"),
        (LAN + WAN + DSL, {"dsl"}, "dsl"),
        (LAN + WAN, set(), "wan"),
        (LAN + WAN, {"wa"}, "wan"),
        (LAN, {"wan"}, ""),
        ("config rule\n\tlist network 'wan'\n\toption name 'x'\n", {"wan"}, ""),
        ("", {"wan"}, ""),
    ],
)
def test_the_zone_of_the_wan(firewall: str, interfaces: set[str], zone: str) -> None:
    assert wan_zone(sections(firewall), interfaces) == zone
