"""The redirect of look-ups as text: who is sent where, and what is left alone."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from rpcd_wireguard_uplink.model import Family
from rpcd_wireguard_uplink.steering.dns import Exempt, redirect_script
from rpcd_wireguard_uplink.system.dns import STAND_INS, parse_resolvers
from tests.unit.steering.scenes import V4, V6

TARGETS = {V4: ("1.1.1.1", 0), V6: ("2606:4700:4700::1111", 0)}
STAND_IN4, STAND_IN6 = STAND_INS[V4], STAND_INS[V6]


def lines(*resolvers: str, targets: Mapping[Family, tuple[str, int]] = TARGETS) -> list[str]:
    return redirect_script(resolvers, targets).splitlines()


def rules(script: list[str], chain: str) -> list[str]:
    start = f"add rule inet wgup {chain} "
    return [line.removeprefix(start) for line in script if line.startswith(start)]


@pytest.mark.parametrize(
    ("resolvers", "four", "six"),
    [
        ("192.0.2.1 2001:db8::1", ", 192.0.2.1", ", 2001:db8::1"),
        ("1.1.1.1 192.0.2.1", ", 192.0.2.1", ""),  # never the target itself
        # A bad line in resolv.conf must not keep the table from standing.
        ("FE80::1%eth0 1.2.3.4; 2606:4700:4700:0::1111 2001:DB8::1", "", ", 2001:db8::1"),
    ],
)
def test_what_is_asked_of_resolvers_goes_to_its_familys_target(
    resolvers: str, four: str, six: str
) -> None:
    script = lines(*resolvers.split())
    assert f"add element inet wgup resolvers4 {{ {STAND_IN4}{four} }}" in script
    assert f"add element inet wgup resolvers6 {{ {STAND_IN6}{six} }}" in script
    assert rules(script, "redirect4") == [
        "ip daddr @resolvers4 meta nfproto @diverted dnat ip to 1.1.1.1"
    ]
    assert rules(script, "redirect6") == [
        "ip6 daddr @resolvers6 meta nfproto @diverted dnat ip6 to 2606:4700:4700::1111"
    ]


def test_a_family_without_a_target_is_rejected_on_the_path() -> None:
    script = lines("192.0.2.1", "2001:db8::1", targets={V4: ("1.1.1.1", 0)})
    assert not any("dnat ip6" in line for line in script)
    assert "oifname @tunnels ip6 daddr @resolvers6 reject with icmpx port-unreachable" in rules(
        script, "refuse"
    )


@pytest.mark.parametrize("family", Family)
def test_a_dead_family_is_led_away_or_rejected_on_its_wans_only(family: Family) -> None:
    dead = {family: ["wan", "wwan"]}
    script = redirect_script(["192.0.2.1", "2001:db8::1"], TARGETS, dead).splitlines()
    word, n = ("ip", 4) if family is V4 else ("ip6", 6)
    where = f'oifname {{ "wan", "wwan" }} {word} daddr @resolvers{n}'
    assert f"{where} reject with icmpx port-unreachable" in rules(script, "refuse")
    [own] = [line for line in rules(script, "asking") if '"wan"' in line]
    assert own.endswith(f"{where} dnat {word} to {TARGETS[family][0]}")
    other = "ip6" if word == "ip" else "ip"
    assert not any('"wan"' in line and f" {other} daddr" in line for line in script)
    assert '"wan"' not in redirect_script(["192.0.2.1"], TARGETS, {family: []})


def test_what_was_not_moved_is_looked_at_behind_what_moves() -> None:
    """By then a stand-in that was moved has another destination."""
    script = lines()
    moving = next(line for line in script if "add chain inet wgup asking " in line)
    refusing = next(line for line in script if "add chain inet wgup refuse_asking " in line)
    assert "nat hook output priority -100" in moving
    assert "filter hook output priority 0" in refusing
    assert f"ip daddr {STAND_IN4} reject with icmpx port-unreachable" in rules(script, "refuse")
    jumps = [line for line in script if line.endswith("jump refuse")]
    assert len(jumps) == 1
    assert "{ tcp, udp } th dport 53" in jumps[0], "DoT and DoH stay alone"


def test_hosts_are_moved_while_their_family_is_diverted() -> None:
    """The router's own look-ups are moved wherever they would enter a tunnel."""
    script = lines("192.0.2.1")
    jumps = [line for line in rules(script, "asked") if "jump redirect" in line]
    assert jumps == [
        f"meta nfproto ipv{n} meta l4proto {{ tcp, udp }} th dport 53 jump redirect{n}"
        for n in (4, 6)
    ]
    own = [line for line in rules(script, "asking") if "dnat" in line]
    assert own and all("oifname @tunnels" in line for line in own)


def test_our_own_questions_come_first() -> None:
    for chain in ("asking", "refuse"):
        assert rules(lines("192.0.2.1"), chain)[0] == "meta mark & 0xff == 0x52 return"


@pytest.mark.parametrize("chain", ["asked", "asking", "led_own"])
def test_packets_with_marks_of_others_are_left_alone(chain: str) -> None:
    found = rules(lines("192.0.2.1", targets={V4: ("1.1.1.1", 3)}), chain)
    foreign = "meta mark & 0xc0ffc0ff != 0 return"
    assert foreign in found[:2]
    for rule in found[found.index(foreign) + 1 :]:
        assert "return" not in rule.split()[-1:], rule


def test_a_redirected_look_up_carries_the_slot_of_its_path() -> None:
    script = lines("192.0.2.1", targets={V4: ("10.9.0.1", 3)})
    mark = "meta nfproto @diverted meta mark set meta mark | 0x3000000"
    look_up = "meta l4proto { tcp, udp } th dport 53"
    assert rules(script, "led_own")[1:] == [f"ct status dnat {look_up} ip daddr 10.9.0.1 {mark}"]
    assert rules(script, "redirect4") == [f"ip daddr @resolvers4 {mark} dnat ip to 10.9.0.1"]
    later = f"ct direction original {look_up} ct reply ip saddr 10.9.0.1 {mark}"
    assert rules(script, "redirected") == [later]
    assert "meta mark set" not in "".join(lines("192.0.2.1")), "no slot, no mark"


def test_no_chain_marks_look_ups_while_none_is_led() -> None:
    script = redirect_script(["192.0.2.1"], {V4: ("10.9.0.1", 3)}, is_away=False).splitlines()
    assert rules(script, "led_own") == [] and "delete chain inet wgup led_own" in script


def test_what_the_owner_leads_elsewhere_is_exempt() -> None:
    exempt = Exempt(frozenset({"guest", "iot"}), frozenset({"10.8.0.0/16", "2001:db8::/32"}))
    script = redirect_script(["192.0.2.1"], TARGETS, None, exempt).splitlines()
    found = rules(script, "asked")
    assert 'iifname { "guest", "iot" } return' in found
    assert "ip saddr 10.8.0.0/16 return" in found
    assert "ip6 saddr 2001:db8::/32 return" in found
    last = max(n for n, rule in enumerate(found) if rule.endswith("return"))
    assert last < min(n for n, rule in enumerate(found) if "jump" in rule)
    by_port = redirect_script(["192.0.2.1"], TARGETS, None, Exempt(everything=True)).splitlines()
    assert "meta l4proto { tcp, udp } th dport 53 return" in rules(by_port, "asked")


def test_equal_input_gives_equal_text() -> None:
    """The text says whether nft is asked again: a set's order may not show."""
    names = [f"192.0.2.{n}" for n in range(1, 40)]
    devices = frozenset(f"lan{n}" for n in range(40))
    one = redirect_script(names, TARGETS, {V4: ["wan"]}, Exempt(devices, frozenset(names)))
    other = redirect_script(
        set(names), TARGETS, {V4: ["wan"]}, Exempt(devices, frozenset(names[::-1]))
    )
    assert one == other


def test_resolv_conf() -> None:
    text = (
        "# Interface wan\nnameserver 192.0.2.1\nnameserver fe80::1%wan\nsearch lan\n"
        "nameserver 127.0.0.53\nnameserver ::1\nnameserver\n nameserver 2001:db8::1 \n"
        f"nameserver {STAND_IN4}\nnameserver {STAND_IN6}\n"
    )
    assert parse_resolvers(text) == ["192.0.2.1", "2001:db8::1"]
