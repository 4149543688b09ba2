"""The table's scripts, as text and loaded into a real nft in a namespace of its own."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from rpcd_wireguard_uplink import model as marks
from rpcd_wireguard_uplink.carrying.counters import carrying_script, counting_script
from rpcd_wireguard_uplink.model import PROVIDER_DEVICE, DefaultRoute, Family
from rpcd_wireguard_uplink.steering import dns
from rpcd_wireguard_uplink.steering.filter import LAPSE_S
from rpcd_wireguard_uplink.steering.filter.early import BEGIN, EarlyConnections
from rpcd_wireguard_uplink.steering.filter.kill_switch import (
    CHOSEN_MASK,
    block_script,
    kill_switch_script,
)
from rpcd_wireguard_uplink.steering.filter.table import (
    REFRESH_S,
    Leading,
    drain_script,
    ended_script,
    leading_script,
    refresh_script,
    standing_script,
    undrain_script,
)
from rpcd_wireguard_uplink.steering.plan import (
    FIRST_SLOT,
    MAIN_SLOT,
    MOST_SLOTS,
    Diversion,
    SteeringPlan,
)
from rpcd_wireguard_uplink.steering.rules import SLOT_SHIFT
from tests.unit.apart import apart
from tests.unit.steering.scenes import V4, V6

TUNNELS = ["wgup_a", "wgup_b"]
WANS = {V4: ["wan", "wwan"], V6: ["wan"]}
SLOTS = {"wgup_a": 2, "wgup_b": 3, "wan": 4, "wwan": 5}
PREFIXES = {
    "wan": ["192.0.2.0/24", "2001:db8::/64", "2001:db8:100::/56"],
    "wwan": ["198.51.100.0/24"],
}
LED = Leading(frozenset({"answer", "drain", "kept"}), anchors=True, begins=True)
STANDING = standing_script(TUNNELS, WANS, SLOTS, PREFIXES)
STANDING += carrying_script(TUNNELS)
STANDING += leading_script(LED, enters=True, is_counting=True, is_watching=True)


FOREIGN = "meta mark"


def rules_of(script: str, chain: str) -> list[str]:
    start = f"add rule inet wgup {chain} "
    return [line.removeprefix(start) for line in script.splitlines() if line.startswith(start)]


# --- as text


def test_the_refresh_never_leaves_a_gap_and_is_often_enough() -> None:
    add, delete, again = refresh_script({V4: ()}).splitlines()
    assert add == again == "add element inet wgup diverted { ipv4 timeout 5s }"
    assert delete == "delete element inet wgup diverted { ipv4 }"
    assert REFRESH_S * 3 < LAPSE_S, "two refreshes may fail"
    assert refresh_script({}) == ""
    script = refresh_script({V6: [4]}, ["wwan"])
    assert "add element inet wgup answer6 { 0x44000000 timeout 5s : goto to_1 }" in script
    assert "delete element inet wgup answer6 { 0x44000000 }" in script
    assert "answer4" not in script
    assert 'add element inet wgup translated { "wwan" timeout 5s }' in script


def test_the_end_is_of_one_family_only() -> None:
    assert "answer6" not in ended_script(V4) and "ipv6" not in ended_script(V4)
    assert "translated" not in ended_script(V4), "IPv6 may still need it"
    assert "flush set inet wgup translated" in ended_script(V6)


def test_draining_ends_what_drained_before() -> None:
    assert drain_script(V4, 3, 600.2).splitlines() == [
        "flush map inet wgup drain4",
        "add element inet wgup drain4 { 0x3000000 timeout 600s : goto to_3 }",
    ]
    assert "timeout 1s" in drain_script(V4, 3, 0.1), "0 would be for ever"
    assert undrain_script(V6) == "flush map inet wgup drain6\n"


def test_the_marks_of_others_are_left_alone() -> None:
    """Ours are outside of mwan3's, pbr's and Tailscale's masks."""
    ours = marks.SLOT_MASK | marks.INBOUND | marks.LED_MARK
    others = marks.MWAN3_MASK | CHOSEN_MASK | 0xFF
    assert ours & others == 0 and marks.SLOT_MASK & marks.INBOUND == 0
    for slot in (MAIN_SLOT, FIRST_SLOT, MOST_SLOTS):
        assert (slot << SLOT_SHIFT) & ~marks.SLOT_MASK == 0
    for chain in ("unled", "running"):
        found = rules_of(STANDING, chain)
        foreign = found.index("meta mark & 0xc0ffc0ff != 0 return")
        assert all("vmap @" not in rule and "restoring" not in rule for rule in found[:foreign])
        assert sum("restoring" in rule for rule in found[foreign:]) == 1
    for n in (4, 6):
        assert all(f"vmap @{kind}{n}" in STANDING for kind in ("drain", "kept", "answer"))
        assert sum("vmap @" in rule for rule in rules_of(STANDING, f"restoring{n}")) == 3


def test_a_consumer_of_ours_enters_no_tunnel() -> None:
    found = rules_of(STANDING, "forth")
    assert f'iifname != "{PROVIDER_DEVICE}"' in found[0], "the short way is not for it"
    assert found[3:5] == [
        'oifname != "wgup_*" return',
        f'iifname "{PROVIDER_DEVICE}" oifname @tunnels reject with icmpx port-unreachable',
    ]


def test_what_is_not_in_force_costs_a_running_connection_nothing() -> None:
    for watched in (False, True):
        closed = leading_script(Leading(), enters=False, is_watching=watched)
        heard = ["ct direction reply jump heard"]
        assert rules_of(closed, "running") == (heard if watched else [])
        assert rules_of(closed, "unled") == rules_of(closed, "forth") == []
        assert bool(rules_of(closed, "steer")) is bool(rules_of(closed, "stamp")) is watched
        assert "jump strayed" not in rules_of(closed, "stamp")


@pytest.mark.parametrize(
    ("leading", "expected"),
    [
        (Leading(frozenset({"answer"})), ["ct direction", FOREIGN, "ct status", "meta nfproto"]),
        (Leading(frozenset({"answer", "drain"})), [FOREIGN, "ct status", "meta nfproto"]),
        (Leading(anchors=True), [FOREIGN, "jump anchored"]),
        (Leading(frozenset({"kept"}), anchors=True), [FOREIGN, "jump anchored", "meta nfproto"]),
        (Leading(begins=True), ["ct direction", FOREIGN]),
    ],
)
def test_only_what_leads_is_asked(leading: Leading, expected: list[str]) -> None:
    script = leading_script(leading, enters=True)
    found = [" ".join(rule.split()[:2]) for rule in rules_of(script, "running")]
    assert found == expected
    maps = {name for rule in rules_of(script, "restoring4") for name in LED.maps if name in rule}
    assert maps == leading.maps
    assert (BEGIN in rules_of(script, "unled")) is leading.begins


def test_where_only_answers_are_led_the_rest_is_asked_nothing() -> None:
    """But for look-ups that were redirected, which bear their path's mark."""
    running = rules_of(leading_script(Leading(frozenset({"answer"})), enters=True), "running")
    assert running[0] == "ct direction original ct status & dnat == 0 return"


# --- in a real nft


def nft(*scripts: str, then: str = "list ruleset") -> list[dict[str, Any]]:
    """Check, then load scripts one after another in a fresh namespace; what nft lists then."""
    commands = "".join(
        f"nft {check} -f - <<'END'\n{script}\nEND\n" for script in scripts for check in ("-c", "")
    )
    printed = apart(f"ip link set lo up\n{commands}nft -j {then}\n")
    found: list[dict[str, Any]] = json.loads(printed)["nftables"]
    return found


real = pytest.mark.needs("nft", "unshare", "ip")
REDIRECT = dns.redirect_script(
    ["192.0.2.1", "2001:db8::1"],
    {V4: ("1.1.1.1", 2), V6: ("2606:4700:4700::1111", 2)},
    {V4: ["wan"]},
    dns.Exempt(frozenset({"guest"}), frozenset({"10.8.0.0/16", "2001:db8:9::/48"})),
)
KILL_SWITCH = kill_switch_script(is_blocking=True)
EVERYTHING = STANDING + KILL_SWITCH + REDIRECT
EVERYTHING += counting_script(is_counting=True)
CLOSED = "".join(
    (
        leading_script(Leading(), enters=False),
        kill_switch_script(is_blocking=False),
        counting_script(is_counting=False),
        dns.redirect_script(["192.0.2.1"], {V4: ("1.1.1.1", 2)}, is_away=False),
    )
)
WATCHED = {"steer", "stamp"}
REFRESH = refresh_script({V4: [4], V6: [4]}, ["wwan"])


def elements(listed: list[dict[str, Any]], kind: str, name: str) -> list[Any]:
    [found] = [entry[kind] for entry in listed if entry.get(kind, {}).get("name") == name]
    elem: list[Any] = found.get("elem", [])
    return elem


def chains(listed: list[dict[str, Any]]) -> dict[str, int]:
    """How many rules each chain has."""
    found = {e["chain"]["name"]: 0 for e in listed if "chain" in e}
    for entry in listed:
        if "rule" in entry:
            found[entry["rule"]["chain"]] += 1
    return found


@real
def test_real_the_standing_part_loads_and_loads_again() -> None:
    once, twice = nft(EVERYTHING), nft(EVERYTHING, EVERYTHING)
    assert chains(once) == chains(twice)
    for chain in ("steer", "unled", "forth", "stamp", "nat", "block", "asked", "refuse"):
        assert chains(once)[chain] > 0
    assert sorted(elements(twice, "set", "tunnels")) == TUNNELS
    assert sorted(elements(twice, "set", "wans")) == ["wan", "wwan"]
    assert elements(twice, "map", "drain4") == elements(twice, "map", "answer6") == []
    assert elements(twice, "set", "diverted") == []
    heard = [entry["elem"] for entry in elements(twice, "set", "heard4")]
    assert {each["val"]: each["counter"]["packets"] for each in heard} == {"wan": 0, "wwan": 0}


def hooked(listed: list[dict[str, Any]]) -> set[str]:
    """The base chains that each forwarded packet passes; translation sees a first one only."""
    found = [entry["chain"] for entry in listed if "chain" in entry]
    return {
        each["name"]
        for each in found
        if each.get("hook") in ("prerouting", "forward", "postrouting") and each["type"] != "nat"
    }


@real
def test_real_base_chains_are_there_while_something_needs_them() -> None:
    assert hooked(nft(EVERYTHING)) == WATCHED | {"forth", "block", "carry_late"}
    standing = standing_script(TUNNELS, WANS, SLOTS, PREFIXES) + carrying_script(TUNNELS)
    watched = leading_script(Leading(), enters=False, is_watching=True)
    assert hooked(nft(standing + CLOSED)) == hooked(nft(EVERYTHING, CLOSED)) == set()
    assert hooked(nft(standing + CLOSED, watched)) == WATCHED
    assert chains(nft(standing + CLOSED, EVERYTHING)) == chains(nft(EVERYTHING))


BEFORE = """table inet wgup {
    set diverted { type nf_proto; flags timeout; elements = { ipv4 timeout 5s } }
    set wans { type ifname; elements = { "wan" } }
    map answer4 { type mark : verdict; flags timeout;
        elements = { 0x44000000 timeout 5s : goto to_1 } }
    chain to_1 { meta mark set meta mark | 0x1000000 accept; }
    chain anchored { }
    chain running { jump anchored; ct mark & 0x7f000000 vmap @answer4; }
    chain steer { type filter hook prerouting priority -149; goto running; }
    chain led { type filter hook prerouting priority -99; meta mark 1 return; }
    chain through { type filter hook forward priority -1; oifname != "wgup_*" return; }
    chain block { type filter hook forward priority -2; iifname "wgup_srv" return; }
    chain refuse_asked { type filter hook forward priority 0; udp dport 53 drop; }
    chain carry_early { type filter hook forward priority -10; return; }
    chain carry_late { type filter hook forward priority 1000; return; }
    chain stamp { type filter hook postrouting priority -149; jump anchored; }
}
"""
"""A table as releases had it whose chains were at their hooks at all times, in an outage."""


@real
def test_real_the_table_of_an_earlier_release_is_taken_over() -> None:
    standing = standing_script(TUNNELS, WANS, SLOTS, PREFIXES) + carrying_script(TUNNELS)
    listed = nft(BEFORE, standing + CLOSED)
    assert hooked(listed) == set() and chains(listed) == chains(nft(standing + CLOSED))
    listed = nft(BEFORE, EVERYTHING)
    assert chains(listed) == chains(nft(EVERYTHING))
    assert len(elements(listed, "map", "answer4")) == len(elements(listed, "set", "diverted")) == 1


@real
def test_real_prefixes_that_overlap_or_repeat() -> None:
    """A delegated prefix is often within the WAN's own; two WANs may be in one network."""
    prefixes = {
        "wan": ["192.0.2.0/24", "2001:db8::/48", "fe80::/64"],
        "wwan": ["192.0.2.0/24", "192.0.0.0/16", "2001:db8:0:1::/64", "fe80::/64"],
    }
    both = {family: ["wan", "wwan"] for family in Family}
    bare = standing_script([], {}, {}, {}) + KILL_SWITCH + dns.redirect_script([], {})
    listed = nft(bare, standing_script(TUNNELS, both, SLOTS, prefixes))
    assert len(elements(listed, "set", "onlink4")) == 1, "merged"
    assert len(elements(listed, "set", "own6")) == 4


@real
def test_real_refreshed_elements_lapse_and_outlive_the_standing_part() -> None:
    blocked = block_script({V4: ["wan", "wwan"], V6: ["wan"]})
    listed = nft(EVERYTHING, REFRESH, REFRESH, blocked, EVERYTHING)
    held = [each["elem"] for each in elements(listed, "set", "diverted")]
    assert {each["val"] for each in held} == {"ipv4", "ipv6"}
    [[answer, _]] = elements(listed, "map", "answer4")
    shut = [each["elem"] for each in elements(listed, "set", "blocked4")]
    assert {each["val"] for each in shut} == {"wan", "wwan"}
    translated = [each["elem"] for each in elements(listed, "set", "translated")]
    for each in (*held, answer["elem"], *translated, *shut):
        assert 0 < each["timeout"] <= LAPSE_S


@real
def test_real_each_part_ends_by_itself() -> None:
    drained = drain_script(V4, 2, 600) + drain_script(V6, 3, 30)
    blocked = block_script({V4: ["wan", "wwan"], V6: ["wan"]})
    ends = ended_script(V6) + undrain_script(V4) + block_script({V6: ["wan"]})
    begun = nft(EVERYTHING, ended_script(V4), REFRESH, drained, EVERYTHING)
    [[key, verdict]] = elements(begun, "map", "drain4")
    assert (key["elem"]["val"], key["elem"]["timeout"]) == (2 << SLOT_SHIFT, 600)
    assert verdict == {"goto": {"target": "to_2"}}
    listed = nft(EVERYTHING, REFRESH, drained, blocked, ends)
    assert [e["elem"]["val"] for e in elements(listed, "set", "diverted")] == ["ipv4"]
    assert elements(listed, "map", "answer6") == [] and elements(listed, "map", "answer4")
    assert elements(listed, "set", "translated") == []
    assert elements(listed, "map", "drain4") == [] and len(elements(listed, "map", "drain6")) == 1
    assert elements(listed, "set", "blocked4") == []
    assert len(elements(listed, "set", "blocked6")) == 1


@real
def test_real_a_slot_that_is_no_longer_used_harms_nothing() -> None:
    fewer = standing_script(TUNNELS[:1], {V4: ["wan"]}, {"wgup_a": 2, "wan": 4}, {})
    other = standing_script(TUNNELS, WANS, {**SLOTS, "wgup_a": 7, "new": 63}, PREFIXES)
    listed = nft(EVERYTHING, drain_script(V4, 3, 30), fewer)
    assert sorted(elements(listed, "set", "tunnels")) == ["wgup_a"]
    assert chains(nft(EVERYTHING, other))["to_63"] == 1


@real
def test_real_every_redirect_loads() -> None:
    targets = {V4: ("10.9.0.1", 2), V6: ("fd09::1", 0)}
    scripts = [
        dns.redirect_script(["FE80::1%eth0", "x"], {}),
        dns.redirect_script(["192.0.2.1"], {V4: ("192.0.2.1", 0)}),
        dns.redirect_script(["192.0.2.1"], targets, {V4: ["wan"], V6: ["wan", "wwan"]}),
        dns.redirect_script([], targets, {}, dns.Exempt(everything=True)),
    ]
    assert chains(nft(EVERYTHING, *scripts))["refuse"] > 0


PLAN = SteeringPlan(
    tunnels=tuple(TUNNELS),
    wans={f: (DefaultRoute(f, "wan"), DefaultRoute(f, "wwan")) for f in Family},
)


def leaving(**paths: str) -> SteeringPlan:
    """A plan by which new connections of these families leave early."""
    return PLAN.filtering(early={Family(name): path for name, path in paths.items()})


@real
def test_real_new_connections_leave_early_and_come_back() -> None:
    early, begin, _ = EarlyConnections().follow(leaving(ipv4="wgup_a", ipv6="wwan"), SLOTS, 0.0)
    listed = nft(EVERYTHING, begin, early.refreshed(PLAN, SLOTS), EVERYTHING)
    [[key, verdict]] = elements(listed, "map", "early4")
    assert key["elem"]["val"] == "ipv4" and 0 < key["elem"]["timeout"] <= LAPSE_S
    assert verdict == {"goto": {"target": "led_2"}}
    assert elements(listed, "map", "early6") and elements(listed, "set", "translated")
    [[key, verdict]] = elements(listed, "map", "kept4")
    assert (key["elem"]["val"], verdict) == (2 << SLOT_SHIFT, {"goto": {"target": "kept_2"}})
    other, switch, _ = early.follow(leaving(ipv4="wgup_b"), SLOTS, 1.0)
    over, ended, gone = other.follow(PLAN, SLOTS, 2.0)
    listed = nft(EVERYTHING, begin, switch, ended)
    assert elements(listed, "map", "early4") == elements(listed, "map", "early6") == []
    assert elements(listed, "map", "again4")[0][1] == {"goto": {"target": "led_3"}}
    assert len(elements(listed, "map", "kept4")) == 2, "some may finish on either"
    assert gone == [] and over.follow(PLAN, SLOTS, 3.0)[1] == "", "nothing is told twice"
    dead = replace(PLAN, dead={V4: frozenset({"wgup_b"})})
    _, lost, gone = over.follow(dead, SLOTS, 4.0)
    listed = nft(EVERYTHING, begin, switch, ended, lost)
    assert gone == [(V4, "wgup_b")] and elements(listed, "map", "again4") == []
    assert len(elements(listed, "map", "kept4")) == 1


AWAY = replace(PLAN, diversions={V4: Diversion(V4, ("wan",), DefaultRoute(V4, "wgup_a"))})
THREE = {**SLOTS, "wgup_c": 6}


def spreading(*ways: tuple[str, int], **changes: Any) -> SteeringPlan:
    """A plan by which new IPv4 connections spread while the WAN is dead."""
    tunnels = ("wgup_a", "wgup_b", "wgup_c", "wgup_d")
    return replace(AWAY, tunnels=tunnels, **changes).filtering(spread={V4: ways})


def shares(script: str) -> list[str]:
    [hashed] = [rule for rule in rules_of(script, "spread4") if "jhash" in rule]
    return hashed.partition("vmap { ")[2].removesuffix(" }").split(", ")


def test_shares_follow_the_speeds_and_what_dies_goes_to_another_alone() -> None:
    begun, script, _ = EarlyConnections().follow(
        spreading(("wgup_a", 50), ("wgup_b", 30), ("wgup_c", 20)), THREE, 0.0
    )
    all_three = ["0-49 : goto led_2", "50-79 : goto led_3", "80-99 : goto led_6"]
    assert shares(script) == all_three
    assert begun.kept.keys() == {(V4, "wgup_b"), (V4, "wgup_c")}, "the rest follows the diversion"
    assert begun.follow(spreading(("wgup_a", 9), ("wgup_b", 9), ("wgup_c", 9)), THREE, 1.0)[1] == ""
    dead = spreading(("wgup_a", 50), ("wgup_c", 20), dead={V4: frozenset({"wgup_b"})})
    less, script, gone = begun.follow(dead, THREE, 2.0)
    assert gone == [(V4, "wgup_b")]
    assert shares(script) == ["0-49 : goto led_2", "50-79 : goto led_2", "80-99 : goto led_6"]
    none, _, _ = less.follow(spreading(), THREE, 3.0)  # while another path is chosen
    back, script, _ = none.follow(
        spreading(("wgup_a", 9), ("wgup_b", 9), ("wgup_c", 9)), THREE, 4.0
    )
    assert shares(script) == all_three, "who is back has his own share, and nobody another"
    _, script, _ = back.follow(spreading(("wgup_a", 5), ("wgup_d", 5)), THREE | {"wgup_d": 7}, 5.0)
    assert shares(script) == ["0-49 : goto led_2", "50-99 : goto led_7"], "another set begins anew"


@pytest.mark.parametrize("drain_s", [0.0, 600.0])
def test_an_outage_that_is_over_spreads_nothing(drain_s: float) -> None:
    begun, _, _ = EarlyConnections().follow(spreading(("wgup_a", 1), ("wgup_b", 1)), THREE, 0.0)
    home = PLAN.filtering(drain_s=drain_s)
    over, script, gone = begun.follow(home, THREE, 1.0)
    assert "flush map inet wgup early4" in script and over.leaving == {}
    assert gone == ([] if drain_s else [(V4, "wgup_b")])
    assert "again4 {" not in script and over.follow(home, THREE, 2.0)[1:] == ("", [])


def test_nothing_is_spread_over_one_or_without_an_outage() -> None:
    alone = spreading(("wgup_a", 1), ("wgup_b", 1), dead={V4: frozenset({"wgup_b"})})
    for plan in (alone, replace(spreading(("wgup_a", 1), ("wgup_b", 1)), diversions={})):
        assert EarlyConnections().follow(plan, THREE, 0.0)[0].leaving == {}


@real
def test_real_shares_load_and_lapse() -> None:
    plan = spreading(("wgup_a", 1000), ("wgup_b", 1))
    begun, script, _ = EarlyConnections().follow(plan, SLOTS, 0.0)
    assert shares(script) == ["0-98 : goto led_2", "99 : goto led_3"]
    again = begun.refreshed(plan, SLOTS)
    listed = nft(EVERYTHING, script, again, EVERYTHING, again)
    [[key, verdict]] = elements(listed, "map", "early4")
    assert verdict == {"goto": {"target": "spread4"}} and key["elem"]["timeout"] <= LAPSE_S
    assert chains(listed)["spread4"] == 2


def test_what_is_never_led_away_early() -> None:
    rules = rules_of(STANDING, "begin")
    led = [n for n, rule in enumerate(rules) if "vmap" in rule]
    kept = " ".join(rules[: led[0]])
    for what in ("iifname @wans", "fib daddr type", "192.168.0.0/16", "fc00::/7", "@isp4"):
        assert what in kept
    assert all("return" in rule for rule in rules[: led[0]])
    assert all(rules_of(STANDING, name)[-1] == "goto unled" for name in ("steer", "steer_own"))
    assert rules_of(STANDING, "unled")[0] == "meta mark & 0xc0ffc0ff != 0 return"
    assert rules_of(STANDING, "unled")[-1] == BEGIN
    assert "iifname @tunnels" in " ".join(rules_of(STANDING, "steer"))
    assert BEGIN not in rules_of(STANDING, "running")


# --- the kill switch


def test_blocking_says_all_that_is_blocked() -> None:
    script = block_script({V4: ("wan", "wwan"), V6: ()}).splitlines()
    assert script == [
        "flush set inet wgup blocked4",
        f'add element inet wgup blocked4 {{ "wan" timeout {LAPSE_S:g}s, "wwan" timeout 5s }}',
        "flush set inet wgup blocked6",
    ]
    assert "add" not in block_script({})


def test_what_is_blocked_outlives_the_standing_part() -> None:
    script = KILL_SWITCH
    assert "flush set" not in script and "delete" not in script
    for chain in ("block", "block_own", "refuse_all"):
        assert f"flush chain inet wgup {chain}" in script


def test_own_packets_that_pass_come_before_what_is_refused() -> None:
    rules = [x for x in KILL_SWITCH.splitlines() if "add rule inet wgup block_own " in x]
    passing = [rule for rule in rules if rule.endswith(" return")]
    assert rules[: len(passing)] == passing
    assert any("0x51, 0x52" in rule for rule in passing), "outer packets and probes"
    assert any("0x3f00 == 0x3f00" in rule for rule in passing), "mwan3's trackers"
    assert any("67, 547" in rule for rule in passing), "DHCP"


def test_the_wans_own_network_stays_reachable_but_for_look_ups() -> None:
    for n, word in ((4, "ip"), (6, "ip6")):
        rules = [x for x in KILL_SWITCH.splitlines() if f"@blocked{n}" in x]
        assert len(rules) == 2, "forwarded packets and the router's own"
        assert all(f"meta nfproto ipv{n} " in x and f"jump refuse{n}" in x for x in rules)
        refused = [rule for rule in KILL_SWITCH.splitlines() if f"refuse{n} " in rule]
        assert sum(f"{word} daddr != @onlink{n} goto refuse_all" in x for x in refused) == 1
        assert sum("th dport 53 goto refuse_all" in x for x in refused) == 1
