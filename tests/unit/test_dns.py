"""The redirect of look-ups as text, and which servers a resolv.conf names."""

from __future__ import annotations

import pytest

from rpcd_wireguard_uplink.resolver import parse_resolvers
from rpcd_wireguard_uplink.routing.dns import redirect_script

TARGETS = ("1.1.1.1", "2606:4700:4700::1111")


def lines(*resolvers: str, targets: tuple[str, ...] = TARGETS) -> list[str]:
    return redirect_script(resolvers, targets, 0x01000000).splitlines()


def test_each_family_goes_to_its_own_target() -> None:
    script = lines("192.0.2.1", "2001:db8::1")
    assert "add element inet wgup resolvers4 { 192.0.2.1 }" in script
    assert "add element inet wgup resolvers6 { 2001:db8::1 }" in script
    assert any("ip daddr @resolvers4 dnat ip to 1.1.1.1" in line for line in script)
    assert any("ip6 daddr @resolvers6 dnat ip6 to 2606:4700:4700::1111" in line for line in script)


def test_the_target_itself_is_never_redirected() -> None:
    script = lines("1.1.1.1", "192.0.2.1")
    assert "add element inet wgup resolvers4 { 192.0.2.1 }" in script


@pytest.mark.parametrize(
    ("resolvers", "targets"),
    [((), TARGETS), (("1.1.1.1",), TARGETS), (("192.0.2.1",), ("2606:4700:4700::1111",))],
)
def test_nothing_is_redirected_without_a_resolver_and_a_target(
    resolvers: tuple[str, ...], targets: tuple[str, ...]
) -> None:
    script = lines(*resolvers, targets=targets)
    assert not any("dnat" in line or "add element" in line for line in script)
    assert "flush set inet wgup resolvers4" in script, "what an earlier run redirected ends"


def test_only_packets_in_the_lane_or_on_a_tunnel_are_looked_at() -> None:
    jumps = [line for line in lines("192.0.2.1") if line.endswith("jump elsewhere")]
    assert jumps == [
        "add rule inet wgup asked meta mark & 0x1000000 != 0 jump elsewhere",
        "add rule inet wgup asking meta mark & 0x1000000 != 0 jump elsewhere",
        "add rule inet wgup asking oifname @tunnels jump elsewhere",
    ]


def test_resolv_conf() -> None:
    text = (
        "# Interface wan\nnameserver 192.0.2.1\nnameserver fe80::1%wan\nsearch lan\n"
        "nameserver 127.0.0.53\nnameserver ::1\nnameserver\n nameserver 2001:db8::1 \n"
    )
    assert parse_resolvers(text) == ["192.0.2.1", "2001:db8::1"]
