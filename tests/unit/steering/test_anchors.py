"""The nftables rules of anchors: what fits, whose slot it gets, what strays."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rpcd_wireguard_uplink.config.options import Anchor
from rpcd_wireguard_uplink.model import LED_MARK, SLOT_MASK, Family
from rpcd_wireguard_uplink.steering.filter.anchors import anchors_script
from rpcd_wireguard_uplink.steering.plan import SteeringPlan, anchor_path, device_of_path
from tests.unit.steering.scenes import V4, V6

CALLS = Anchor("calls", "a", ports=((5060, 5061),))
SLOTS = {"wgup_a": 2, "wgup_a anchored": 3, "wgup_b anchored": 4}


def rules(
    *anchors: tuple[Anchor, str],
    anchored: dict[Family, tuple[str, ...]] | None = None,
    anchoring: dict[Family, frozenset[str]] | None = None,
) -> dict[str, list[str]]:
    """The rules by chain; by default every tunnel takes new connections of both families."""
    tunnels = tuple(device for _, device in anchors)
    plan = SteeringPlan(
        anchored=anchored if anchored is not None else dict.fromkeys(Family, tunnels)
    ).filtering(
        anchors=anchors,
        anchoring=(
            anchoring if anchoring is not None else dict.fromkeys(Family, frozenset(tunnels))
        ),
    )
    found: dict[str, list[str]] = {}
    for line in anchors_script(plan, SLOTS).splitlines():
        _, kind, _, _, chain, *rest = line.split(" ", 5)
        if kind == "chain":
            found.setdefault(chain, [])
        else:
            found[chain].append(rest[0])
    return found


def test_an_anchored_connection_has_a_slot_of_its_own() -> None:
    found = rules((CALLS, "wgup_a"))
    [marking] = found["anchor_3"]
    assert f"ct mark set ct mark | {3 << 24:#x}" in marking
    assert f"meta mark set meta mark | {LED_MARK | 3 << 24:#x} accept" in marking
    assert "meta mark set meta mark & 0xffffc0ff" in marking, "mwan3's choice is another"
    assert found["anchored"][:2] == [
        f"meta nfproto {f.value} ct direction original ct mark & 0x7f000000 == 0x3000000 "
        "goto anchor_3"
        for f in Family
    ]
    assert found["strayed"] == [
        'ct direction original ct mark & 0x7f000000 == 0x3000000 oifname != "wgup_a" '
        f"ct mark set ct mark & {0xFFFFFFFF ^ SLOT_MASK:#x}"
    ]
    assert found["anchoring"] == [
        f"meta nfproto {f.value} meta l4proto {{ tcp, udp }} th dport {{ 5060-5061 }} goto anchor_3"
        for f in Family
    ]


@pytest.mark.parametrize(
    ("anchor", "family", "match"),
    [
        (Anchor("a", "a", sources=("10.0.0.0/8", "10.1.0.0/16")), V4, "ip saddr { 10.0.0.0/8 }"),
        (Anchor("a", "a", sources=("10.7.0.9/32",)), V6, ""),
        (Anchor("a", "a", destinations=("2001:db8::/32",)), V4, ""),
        (
            Anchor("a", "a", ("10.7.0.9/32", "fd00::/8"), ("2001:db8::1/128",)),
            V6,
            "ip6 saddr { fd00::/8 } ip6 daddr { 2001:db8::1/128 }",
        ),
        (Anchor("a", "a", dscp=frozenset({46, 0})), V4, "ip dscp { 0, 46 }"),
        (Anchor("a", "a", dscp=frozenset({46})), V6, "ip6 dscp { 46 }"),
        (Anchor("a", "a", protocols=frozenset({"icmp", "gre"})), V4, "meta l4proto { gre, icmp }"),
        (Anchor("a", "a", protocols=frozenset({"icmp"})), V6, "meta l4proto { icmpv6 }"),
        (
            Anchor("a", "a", protocols=frozenset({"udp", "icmp"}), ports=((9, 9), (1, 4), (3, 6))),
            V4,
            "meta l4proto { udp } th dport { 1-6, 9 }",
        ),
    ],
)
def test_what_fits(anchor: Anchor, family: Family, match: str) -> None:
    found = rules((anchor, "wgup_a"), anchoring={family: frozenset({"wgup_a"})})["anchoring"]
    whole = f"meta nfproto {family.value} {match} goto anchor_3"
    assert found == ([whole] if match else [])


def test_the_first_that_fits_counts_and_look_ups_are_asked_for() -> None:
    names = replace(CALLS, name="names", ports=((50, 60),))
    found = rules((CALLS, "wgup_a"), (names, "wgup_b"))
    assert [rule.rpartition("_")[2] for rule in found["anchoring"]] == ["3", "3", "4", "4"]
    assert [rule.rpartition("_")[2] for rule in found["anchoring_names"]] == ["4", "4"]
    assert found["anchored"][-2:] == [
        "meta l4proto { tcp, udp } th dport 53 goto anchoring_names",
        "goto anchoring",
    ]


def test_a_tunnel_that_does_not_answer_takes_no_new_one_and_keeps_the_old() -> None:
    found = rules((CALLS, "wgup_a"), anchoring={})
    assert found["anchoring"] == [] and "goto anchor_3" in found["anchored"][0]
    found = rules((CALLS, "wgup_a"), anchored={V6: ("wgup_a",)}, anchoring={})
    assert [rule for rule in found["anchored"] if "goto anchor_3" in rule] == [
        found["anchored"][0]
    ] and "nfproto ipv6" in found["anchored"][0]


def test_without_anchors_the_chains_are_empty() -> None:
    found = rules()
    assert not any("goto anchor_" in rule for rules in found.values() for rule in rules)
    assert found["strayed"] == []


def test_a_paths_device() -> None:
    assert device_of_path(anchor_path("wgup_a")) == device_of_path("wgup_a") == "wgup_a"
