"""mwan3's configuration with our uplinks in it and without: what is added, and that all of it goes.

The configurations are mwan3's own, one that carried traffic, and what hypothesis makes of them.
"""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpcd_wireguard_uplink.config.options import Settings
from rpcd_wireguard_uplink.errors import ConfigError
from rpcd_wireguard_uplink.model import Endpoint, Uplink, interface_name
from rpcd_wireguard_uplink.mwan3.dialect import (
    Tracker,
    admit_command,
    catch_alls,
    dismiss_command,
    diverted_marks,
    tracker_of,
)
from rpcd_wireguard_uplink.mwan3.sections import plan_mwan3, plan_tracker, render, wanted_mwan3
from rpcd_wireguard_uplink.platform.tunnels import alias_section
from rpcd_wireguard_uplink.uci import Document, Draft, Section, export, parse

DATA = Path(__file__).parents[2] / "data"
SHIPPED = (DATA / "mwan3-shipped.txt").read_text()
WORKING = (DATA / "mwan3-working.txt").read_text()
BOTH = ("10.0.0.1/32", "fd00::1/128")
LINES = ("wan", "wan6")
SETTINGS = Settings()
TRACKED = """
config interface 'wan'
	option enabled '1'
	list track_ip '192.0.2.1'

config interface 'wan6'
	option enabled '1'
	option family 'ipv6'
"""
"""No globals, and no rule that catches everything."""


def uplink(peer_id: str, weight: int = 10, host: str = "192.0.2.7", **changes: object) -> Uplink:
    made = Uplink(peer_id, interface_name(peer_id, ()), Endpoint(host), "KEY", BOTH, weight=weight)
    return replace(made, **changes)  # type: ignore[arg-type]


A, B = uplink("nodea-with-a-long-name", 20), uplink("nodeb", 50, "2001:db8::7")


def applied(
    document: Document,
    *uplinks: Uplink,
    settings: Settings = SETTINGS,
    lines: tuple[str, ...] = LINES,
) -> Document:
    """The configuration brought up to these uplinks, written and read again."""
    draft = Draft(document)
    found = document.sections
    plan_mwan3(wanted_mwan3(found, uplinks, settings, lines), found).apply(draft)
    return parse(draft.document.render(), file="mwan3")


WAN6_ON = "config interface 'wan6'\n\toption enabled '1'"


WITH_WAN6 = SHIPPED.replace(WAN6_ON.replace("'1'", "'0'"), WAN6_ON)


def read(text: str) -> Document:
    return parse(text, file="mwan3")


def get(document: Document, name: str) -> Section:
    section = document.get(name)
    assert section is not None, name
    return section


def names(document: Document, kind: str = "") -> list[str]:
    return [s.name for s in document.sections if s.type == kind or not kind]


# --- mwan3 as shipped


A4, A6 = f"{A.interface}_m", "wgup6nodeawit_m"
KILL_SWITCH = SHIPPED.replace("option interface 'wan'", "option interface 'vpn'")
BOTH_POLICIES = {"balanced": [A4], "wan_only": [A4]}
JOINED: dict[str, tuple[str, tuple[str, ...], dict[str, list[str]]]] = {
    "the catch-all rules' policy": (WITH_WAN6, (), {"balanced": [A4, A6]}),
    # Our member alone would take all of IPv6, outage or not.
    "without IPv6 where wan6 is disabled, as shipped": (SHIPPED, (), {"balanced": [A4]}),
    "though it is named": (SHIPPED, ("balanced",), {"balanced": [A4]}),
    "not that of a VPN alone": (KILL_SWITCH, (), {}),
    "a named one": (SHIPPED, ("wan_only",), {"wan_only": [A4]}),
    "those that are there": (SHIPPED, ("wan_only", "balanced", "no"), BOTH_POLICIES),
}


def joined(document: Document) -> dict[str, list[str]]:
    """Our members in each of the owner's policies that has any."""
    found = {}
    for policy in document.of_type("policy"):
        ours = [name for name in policy.options.get("use_member", ()) if name.startswith("wgup")]
        found |= {policy.name: ours} if ours and policy.name != "wg_underlay" else {}
    return found


@pytest.mark.parametrize(("text", "policies", "wanted"), JOINED.values(), ids=JOINED)
def test_which_policies_are_joined(
    text: str, policies: tuple[str, ...], wanted: dict[str, list[str]]
) -> None:
    after = applied(read(text), A, settings=Settings(policies=policies))
    assert joined(after) == wanted
    assert "wg_uplinks" not in names(after)


def test_a_family_whose_line_is_switched_off_leaves_the_policy() -> None:
    both = applied(read(WITH_WAN6), A)
    off = read(both.render().replace(WAN6_ON, WAN6_ON.replace("'1'", "'0'")))
    assert joined(applied(off, A)) == {"balanced": [A4]}
    after = applied(read(WITH_WAN6), A, B)
    theirs = get(read(WITH_WAN6), "balanced").options["use_member"]
    ours = ("wgup_nodeb_m", "wgup6nodeb_m", A4, A6)
    assert get(after, "balanced").options["use_member"] == (*theirs, *ours), "by weight"


def test_metrics_are_distinct_behind_the_owners_and_by_weight() -> None:
    after = applied(read(SHIPPED + "\nconfig member 'far'\n\toption metric '99'\n"), A, B)
    metric = {m.name: int(str(m.options["metric"])) for m in after.of_type("member")}
    assert metric["wan_m2_w3"] < metric["wgup_nodeb_m"] < metric[f"{A.interface}_m"] < 99
    heavier = applied(after, replace(A, weight=99), B)
    metric = {m.name: int(str(m.options["metric"])) for m in heavier.of_type("member")}
    assert metric[f"{A.interface}_m"] < metric["wgup_nodeb_m"]
    assert names(heavier) == names(after)


def test_what_was_joined_stays_while_the_lines_are_unknown() -> None:
    named = replace(A, endpoint=Endpoint("gw.example"))
    after = applied(read(SHIPPED), named)
    assert not plan_mwan3(wanted_mwan3(after.sections, [named], SETTINGS, ()), after.sections)
    own = applied(read(TRACKED), A)
    assert not plan_mwan3(wanted_mwan3(own.sections, [A], SETTINGS, ()), own.sections)


@pytest.mark.parametrize("off", [Settings(policies=("none",)), Settings(auto_failover=False)])
def test_switched_off_nothing_is_left(off: Settings) -> None:
    after = applied(applied(read(SHIPPED), A, B), A, B, settings=off)
    assert export(after, "mwan3") == export(read(SHIPPED), "mwan3")


def test_endpoint_rules_come_first_and_lead_to_a_policy_without_tunnels() -> None:
    after = applied(read(SHIPPED), A)
    assert names(after, "rule")[0] == f"{A.interface}_e"
    rule = get(after, f"{A.interface}_e").options
    assert (rule["dest_ip"], rule["dest_port"], rule["proto"]) == ("192.0.2.7", "51820", "udp")
    members = get(after, str(rule["use_policy"])).options["use_member"]
    assert [get(after, m).options["interface"] for m in members] == ["wan"]
    assert f"{A.interface}_e" not in names(
        applied(read(SHIPPED), replace(A, endpoint=Endpoint("h")))
    )


def test_where_mwan3_has_no_line_for_the_endpoint_there_is_no_rule() -> None:
    # mwan3's wan6 is disabled as it is shipped.
    assert names(applied(read(SHIPPED), B), "rule") == names(read(SHIPPED), "rule")


# --- without a catch-all rule


def test_without_a_catch_all_rule_there_is_a_policy_of_ours_with_the_lines_first() -> None:
    after = applied(read(TRACKED), A)
    policy = get(after, "wg_uplinks").options
    assert policy["last_resort"] == "default"
    held = [get(after, m).options for m in policy["use_member"]]
    assert [m["interface"] for m in held] == ["wan", "wan6", A.interface, "wgup6nodeawit"]
    assert names(after, "rule") == [f"{A.interface}_e", "wg_uplinks_v4", "wg_uplinks_v6"]
    assert get(after, "globals").type == "globals"


def test_a_family_has_a_rule_of_ours_only_where_it_needs_one_and_has_a_line() -> None:
    v4 = "\nconfig rule 'all'\n\toption family 'ipv4'\n\toption use_policy 'default'\n"
    assert "wg_uplinks_v4" not in names(applied(read(TRACKED + v4), A))
    assert "wg_uplinks_v6" in names(applied(read(TRACKED + v4), A))
    assert "wg_uplinks_v6" not in names(applied(read(TRACKED), A, lines=("wan",)))


@pytest.mark.parametrize(
    ("options", "catches"),
    [
        ({}, True),
        ({"dest_ip": "0.0.0.0/0", "family": "ipv4"}, True),
        ({"dest_ip": "::/0", "proto": "all"}, True),
        ({"dest_ip": "::/0", "family": "ipv4"}, False),
        ({"dest_ip": "10.0.0.0/8"}, False),
        ({"proto": "tcp"}, False),
        ({"src_ip": "192.168.1.0/24"}, False),
        ({"src_iface": "guest"}, False),
        ({"ipset": "x"}, False),
        ({"secubox_uplink": "1"}, False),
    ],
)
def test_what_catches_all(options: dict[str, str], catches: bool) -> None:
    rule = Section("rule", "r", False, {"use_policy": "p", **options})
    assert bool(catch_alls([rule])) is catches
    assert not catch_alls([replace(rule, name="longer_than_mwan3_takes")])


# --- names and places


def test_names_fit_and_the_owners_are_never_taken() -> None:
    text = WORKING + "\nconfig policy 'mine'\n\tlist use_member 'wgup_nodeb_m'\n"
    before, after = read(text), applied(read(text), B, uplink("nodea"))
    for section in after.sections:
        if section.type in ("interface", "rule", "policy"):
            assert len(section.name) <= (13 if section.type == "interface" else 15)
    for section in before.sections:
        if section.name != "wg_uplinks":  # used by their catch-all rules
            assert get(after, section.name) == section
    assert get(after, "wgup_nodeb_m2").options["interface"] == "wgup_nodeb"
    assert export(applied(after), "mwan3") == export(before, "mwan3")


def test_an_interface_that_goes_keeps_its_place_until_those_behind_it_have_gone() -> None:
    both = applied(applied(read(SHIPPED), A), A, B)
    without = applied(both, B)
    assert names(without, "interface") == names(both, "interface")
    assert get(without, A.interface).options["enabled"] == "0"
    assert get(without, B.interface).options["enabled"] == "1"
    again = applied(without, A, B)
    assert names(again, "interface") == names(both, "interface")
    assert get(again, A.interface).options["enabled"] == "1"
    assert export(applied(without), "mwan3") == export(read(SHIPPED), "mwan3")


def test_more_interfaces_than_marks_are_refused() -> None:
    many = [uplink(f"n{number}") for number in range(29)]
    with pytest.raises(ConfigError, match="60"):
        applied(read(SHIPPED), *many)


def test_metrics_that_mwan3_ignores_are_refused() -> None:
    text = SHIPPED.replace("option metric '1'", "option metric '255'")
    with pytest.raises(ConfigError, match="255"):
        applied(read(text), A)


OWNERS = st.lists(
    st.sampled_from(
        [
            "config globals 'globals'\n\toption mmx_mask '0x3F00'\n",
            "config interface 'wan'\n\toption enabled '1'\n\tlist track_ip '192.0.2.1'\n",
            "# a note\nconfig interface 'wan6'\n\toption enabled '1'\n\toption family 'ipv6'\n\n",
            "config interface 'wgup_nodeb'\n\toption enabled '0'\n",
            "config member 'wan_m'\n\toption interface 'wan'\n\toption metric '3'\n",
            "config member\n\toption interface 'wan'\n",
            "config member 'wgup_nodeb_m'\n\toption interface 'vpn'\n\n\n",
            "config policy 'balanced'\n\tlist use_member 'wan_m'\n\tlist use_member gone\n",
            "config policy 'wg_uplinks'\n\toption use_member 'wan_m'\n",
            "config policy 'empty'\n",
            "config rule 'default_rule'\n\toption use_policy 'balanced'\n",
            "config rule; option use_policy 'balanced'; option family 'ipv4' # odd\n",
            "config rule 'https'\n\toption dest_port '443'\n\toption proto tcp\n",
            "config rule 'wg_uplinks_v4'\n\toption use_policy 'empty'\n",
        ]
    ),
    unique=True,
).map("".join)
TEXTS = OWNERS | st.sampled_from([SHIPPED, WORKING])
UPLINKS = st.lists(
    st.builds(
        uplink,
        st.sampled_from(["nodea", "nodeb", "nodec", "noded"]),
        st.integers(1, 100),
        st.sampled_from(["192.0.2.7", "2001:db8::7", "gw.example"]),
        addresses=st.sampled_from([BOTH, BOTH[:1], BOTH[1:]]),
    ),
    unique_by=lambda made: made.peer_id,
    max_size=4,
)


@given(TEXTS, st.lists(UPLINKS, max_size=4), st.sampled_from([LINES, ("wan",), ()]))
def test_whatever_comes_and_goes_leaves_the_owners_configuration(
    text: str, days: list[list[Uplink]], lines: tuple[str, ...]
) -> None:
    before = read(text)
    owners = [(s.type, s.name) for s in before.sections if not s.anonymous]
    document = before
    for uplinks in days:
        document = applied(document, *uplinks, lines=lines)
        found = document.sections
        assert not plan_mwan3(wanted_mwan3(found, uplinks, SETTINGS, lines), found)
        assert len({section.name for section in found}) == len(found)
        stayed = [
            (s.type, s.name)
            for s in found
            if not s.anonymous and s.options.get("secubox_uplink") != "1"
        ]
        assert stayed == owners
    assert export(applied(document, lines=lines), "mwan3") == export(before, "mwan3")


# --- the tracker


@pytest.mark.parametrize(
    ("tracker", "bound_s"), [(Tracker(4), 130), (Tracker(2), 90), (Tracker(1, 1, 1, 1, 1, 1), 2)]
)
def test_bounds_are_those_that_were_measured_against(tracker: Tracker, bound_s: int) -> None:
    assert tracker.bound_s == bound_s
    assert tracker.arithmetic().endswith(f"= {bound_s} s")


def test_a_trackers_defaults_are_mwan3s() -> None:
    assert tracker_of(get(read(SHIPPED), "wan")).bound_s == 130
    assert tracker_of(get(read(WORKING), "wan")).bound_s == 1 + 3 * 1 + 2 * 1
    odd = Section("interface", "x", False, {"interval": "1s", "down": "-3", "track_ip": ("a",)})
    assert tracker_of(odd) == Tracker(1)


@pytest.mark.parametrize("underlay_s", [0, 6, 130])
def test_ours_is_slower_than_its_slowest_line_and_not_by_more_than_allowed(underlay_s: int) -> None:
    tracker = plan_tracker(2, underlay_s, SETTINGS)
    assert (tracker.down - 1) * tracker.failure_interval_s > underlay_s
    assert tracker.bound_s <= underlay_s + SETTINGS.failover_timeout_s
    assert tracker.interval_s > 1
    patient = Settings(failover_timeout_s=300.0, check_interval_s=20.0)
    assert plan_tracker(2, underlay_s, patient).interval_s == 20


def test_what_cannot_be_met_is_refused_with_the_arithmetic() -> None:
    with pytest.raises(ConfigError) as caught:
        applied(read(SHIPPED), A, settings=Settings(failover_timeout_s=5.0))
    assert "1 + 2 x (2 x (1 + 1 - 1)) + (2 - 1) x 131 = 136 s" in str(caught.value)
    assert "failover_timeout to 6" in str(caught.value)
    applied(read(SHIPPED), A, settings=Settings(failover_timeout_s=6.0))


def test_ours_has_two_targets_of_its_family_whatever_is_configured() -> None:
    after = applied(read(SHIPPED), A, settings=Settings(targets=("192.0.2.9",)))
    targets = get(after, A.interface).options["track_ip"]
    assert targets[0] == "192.0.2.9"
    assert len(set(targets)) == 2
    assert all(":" in t for t in get(after, "wgup6nodeawit").options["track_ip"])


# --- marks


REFUSED = {0x3D00, 0x3E00}
"""What mwan3 blackholes, and what it calls unreachable."""


def test_marks_of_the_lines_and_ours_but_not_of_a_vpn() -> None:
    vpn = SHIPPED.replace("config interface 'wanb6'", "config interface 'vpn'")
    after = applied(read(vpn.replace("list use_member 'wanb6_m1_w3'", "")), A)
    covered = {0, 0x100, 0x200, 0x300, 0x500, 0x600, 0x3F00}
    assert set(diverted_marks(after.sections, ("wan",))) == covered | REFUSED


def test_what_mwan3_refuses_counts_only_where_no_other_policy_could_mean_it() -> None:
    assert set(diverted_marks(applied(read(SHIPPED), A).sections, ("wan",))) >= REFUSED
    one_host = "\nconfig rule 'tv'\n\toption src_ip '192.0.2.9'\n\toption use_policy 'wan_only'\n"
    assert not set(diverted_marks(read(SHIPPED + one_host).sections, ("wan",))) & REFUSED
    harmless = one_host.replace("wan_only", "default")
    assert set(diverted_marks(read(SHIPPED + harmless).sections, ("wan",))) >= REFUSED


def test_marks_of_a_catch_all_policy_without_a_line_are_left_alone() -> None:
    killswitch = read(SHIPPED.replace("option interface 'wan'", "option interface 'wanb'"))
    assert diverted_marks(killswitch.sections, ("wan",)) == (0, 0x100, 0x3F00), (
        "nor what it refuses"
    )
    assert diverted_marks(read(WORKING).sections, ()) == (0, 0x100, 0x300, 0x400, 0x600, 0x3F00)


def test_marks_without_mwan3_or_with_a_mask_that_nobody_understands() -> None:
    assert set(diverted_marks((), ("wan",))) == {0, 0x3F00} | REFUSED
    bad = read(TRACKED + "\nconfig globals 'globals'\n\toption mmx_mask 'all'\n")
    assert set(diverted_marks(bad.sections, ("wan",))) == {0, 0x100, 0x3F00} | REFUSED
    sparse = read(TRACKED + "\nconfig globals 'globals'\n\toption mmx_mask '0x2A00'\n")
    assert diverted_marks(sparse.sections, LINES) == (0, 0x200, 0x800, 0x2200, 0x2800, 0x2A00)


@pytest.mark.parametrize(
    "command",
    [
        admit_command(["wgup_a", "wgup6a"], ["wg_underlay"], rules=True, rebuild=True),
        admit_command([], rules=False, rebuild=True),
        dismiss_command(["wgup_a", "wgup6a"]),
    ],
)
def test_commands_are_understood_by_a_shell_and_reload_nothing(command: list[str]) -> None:
    assert command[:2] == ["sh", "-c"]
    assert subprocess.run(["sh", "-n", "-c", command[2]], stderr=subprocess.PIPE).stderr == b""
    assert "reload" not in command[2] and "restart" not in command[2]
    before, _, after = command[2].partition("\nmwan3_init\n")
    assert before.endswith("\nprocd_running mwan3 rtmon_ipv4 || exit 0"), "it may stop meanwhile"
    assert "wgup" not in before and ("wgup" in after or "policies" in after)


def test_what_mwan3_leaves_of_an_interface_is_deleted() -> None:
    """mwan3 2.12.2 deletes IPv6's rules only where IPv4 has the same, and never the chains."""
    text = dismiss_command(["wgup6a"])[2]
    assert text.index("hotplug_shutdown wgup6a") < text.index("$IP6 rule del pref")
    assert text.index("-j mwan3_iface_in_wgup6a") < text.index("-X mwan3_iface_in_wgup6a")


def test_netifd_knows_the_name_of_every_ipv6_interface() -> None:
    after = applied(read(SHIPPED), A, replace(B, addresses=BOTH[:1]))
    alias = alias_section(A)
    assert alias.options["device"] == f"@{A.interface}"
    assert get(after, alias.name).options["family"] == "ipv6"
    assert alias.options["secubox_uplink"] == "1"


def test_what_people_read_is_a_configuration() -> None:
    wanted = wanted_mwan3(read(SHIPPED).sections, [A], SETTINGS, LINES)
    text = render(wanted)
    assert {s.name for s in read(text).sections} == {s.name for s in wanted.sections}
    assert f"{A.interface}_m is in policy balanced" in text
