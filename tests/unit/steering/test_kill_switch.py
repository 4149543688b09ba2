"""The kill switch as text: exactly these devices, each for its family, for as long as refreshed."""

from __future__ import annotations

from rpcd_wireguard_uplink.model import Family
from rpcd_wireguard_uplink.steering.filter import LAPSE_S, block_script, kill_switch_script

V4, V6 = Family.IPV4, Family.IPV6


def test_blocking_says_all_that_is_blocked() -> None:
    script = block_script({V4: ("wan", "wwan"), V6: ()}).splitlines()
    assert script == [
        "flush set inet wgup blocked4",
        f'add element inet wgup blocked4 {{ "wan" timeout {LAPSE_S:g}s, "wwan" timeout 5s }}',
        "flush set inet wgup blocked6",
    ]
    assert "add" not in block_script({})


def test_what_is_blocked_outlives_the_standing_part() -> None:
    script = kill_switch_script()
    assert "flush set" not in script and "delete" not in script
    for chain in ("block", "block_own", "refuse_all"):
        assert f"flush chain inet wgup {chain}" in script


def test_own_packets_that_pass_come_before_what_is_refused() -> None:
    rules = [x for x in kill_switch_script().splitlines() if "add rule inet wgup block_own " in x]
    passing = [rule for rule in rules if rule.endswith(" return")]
    assert rules[: len(passing)] == passing
    assert any("0x51, 0x52" in rule for rule in passing), "outer packets and probes"
    assert any("0x3f00 == 0x3f00" in rule for rule in passing), "mwan3's trackers"
    assert any("67, 547" in rule for rule in passing), "DHCP"


def test_the_wans_own_network_stays_reachable_but_for_look_ups() -> None:
    for n, word in ((4, "ip"), (6, "ip6")):
        rules = [x for x in kill_switch_script().splitlines() if f"@blocked{n}" in x]
        assert sum(f"{word} daddr != @onlink{n} goto refuse_all" in x for x in rules) == 2
        assert sum("th dport 53 goto refuse_all" in x for x in rules) == 2
        assert all(f"meta nfproto ipv{n} " in x for x in rules)
