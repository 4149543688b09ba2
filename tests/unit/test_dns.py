"""The redirect of look-ups as text, and which servers a resolv.conf names."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from rpcd_wireguard_uplink.model import Family
from rpcd_wireguard_uplink.resolver import STAND_INS, parse_resolvers
from rpcd_wireguard_uplink.routing.dns import redirect_script

V4, V6 = Family.IPV4, Family.IPV6
TARGETS = {V4: "1.1.1.1", V6: "2606:4700:4700::1111"}
STAND_IN4, STAND_IN6 = STAND_INS[V4], STAND_INS[V6]


def lines(*resolvers: str, targets: Mapping[Family, str] = TARGETS) -> list[str]:
    return redirect_script(resolvers, targets).splitlines()


def test_each_family_goes_to_its_own_target() -> None:
    script = lines("192.0.2.1", "2001:db8::1")
    assert f"add element inet wgup resolvers4 {{ {STAND_IN4}, 192.0.2.1 }}" in script
    assert f"add element inet wgup resolvers6 {{ {STAND_IN6}, 2001:db8::1 }}" in script
    assert any("ip daddr @resolvers4 dnat ip to 1.1.1.1" in line for line in script)
    assert any("ip6 daddr @resolvers6 dnat ip6 to 2606:4700:4700::1111" in line for line in script)


def test_the_target_itself_is_never_moved_nor_rejected() -> None:
    script = lines("1.1.1.1", "192.0.2.1")
    assert f"add element inet wgup resolvers4 {{ {STAND_IN4}, 192.0.2.1 }}" in script


def test_what_is_no_address_is_left_out() -> None:
    """A bad line in resolv.conf must not keep the lane from standing."""
    script = lines("FE80::1%eth0", "1.2.3.4;", "2606:4700:4700:0::1111", "2001:DB8::1")
    assert f"add element inet wgup resolvers4 {{ {STAND_IN4} }}" in script
    assert f"add element inet wgup resolvers6 {{ {STAND_IN6}, 2001:db8::1 }}" in script


def test_a_family_without_a_target_is_rejected_in_the_lane() -> None:
    script = lines("192.0.2.1", "2001:db8::1", targets={V4: "1.1.1.1"})
    assert not any("dnat ip6" in line for line in script)
    marked = "meta mark & 0x1000000 != 0 ip6 daddr @resolvers6 reject"
    assert f"add rule inet wgup refuse {marked}" in script
    assert "add rule inet wgup refuse oifname @tunnels ip6 daddr @resolvers6 reject" in script


@pytest.mark.parametrize("family", Family)
def test_a_dead_family_is_rejected_on_its_lines_only(family: Family) -> None:
    script = redirect_script(["192.0.2.1", "2001:db8::1"], TARGETS, {family: ["wan", "wwan"]})
    found = [line for line in script.splitlines() if '"wan"' in line]
    word, n = ("ip", 4) if family is V4 else ("ip6", 6)
    assert found == [
        f'add rule inet wgup refuse oifname {{ "wan", "wwan" }} {word} daddr @resolvers{n} reject'
    ]
    assert '"wan"' not in redirect_script(["192.0.2.1"], TARGETS, {family: []})


def test_what_was_not_moved_is_looked_at_behind_what_moves() -> None:
    """By then a stand-in that was moved has another destination."""
    script = lines()
    moving = next(line for line in script if "add chain inet wgup asking " in line)
    refusing = next(line for line in script if "add chain inet wgup refuse_asking " in line)
    assert "nat hook output priority -100" in moving
    assert "filter hook output priority 0" in refusing
    assert f"add rule inet wgup refuse ip daddr {STAND_IN4} reject" in script
    jumps = [line for line in script if line.endswith("jump refuse")]
    assert len(jumps) == 2
    assert all("{ tcp, udp } th dport 53" in line for line in jumps), "DoT and DoH stay alone"


def test_only_packets_in_the_lane_or_on_a_tunnel_are_moved() -> None:
    jumps = [line for line in lines("192.0.2.1") if line.endswith("jump elsewhere")]
    assert jumps == [
        "add rule inet wgup asked meta mark & 0x1000000 != 0 jump elsewhere",
        "add rule inet wgup asking meta mark & 0x1000000 != 0 jump elsewhere",
        "add rule inet wgup asking oifname @tunnels jump elsewhere",
    ]


@pytest.mark.parametrize("chain", ["asking", "refuse"])
def test_our_own_questions_come_first(chain: str) -> None:
    rules = [line for line in lines("192.0.2.1") if f"add rule inet wgup {chain} " in line]
    assert rules[0] == f"add rule inet wgup {chain} meta mark & 0xff == 0x52 return"


def test_resolv_conf() -> None:
    text = (
        "# Interface wan\nnameserver 192.0.2.1\nnameserver fe80::1%wan\nsearch lan\n"
        "nameserver 127.0.0.53\nnameserver ::1\nnameserver\n nameserver 2001:db8::1 \n"
        f"nameserver {STAND_IN4}\nnameserver {STAND_IN6}\n"
    )
    assert parse_resolvers(text) == ["192.0.2.1", "2001:db8::1"]
