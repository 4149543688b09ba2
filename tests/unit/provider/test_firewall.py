"""The provider's table: as text, and loaded into a real nft in an empty namespace of its own."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpcd_wireguard_uplink.model import Family
from rpcd_wireguard_uplink.provider.firewall import NOT_INTERNET, provider_script
from rpcd_wireguard_uplink.provider.plan import ProviderPlan
from tests.unit.apart import apart

PLAN = ProviderPlan(
    "secret",
    51821,
    ("10.61.7.1/24", "fd61:7::1/64"),
    wans={Family.IPV4: ("wan", "wan2"), Family.IPV6: ("wan",)},
    resolvers=("fe80::1%wan", "127.0.0.1", "192.168.8.1", "192.0.2.53", "2001:db8::53"),
)
ONLINK = ("198.51.100.2/29", "192.168.8.2/24", "2001:db8:1::2/64")


def chain(script: str, name: str) -> list[str]:
    """The rules of a chain, its hook included."""
    found = re.search(rf"^chain {name} {{\n(.*?)^}}", script, re.M | re.S)
    assert found is not None
    return found[1].splitlines()


def place(rules: list[str], beginning: str) -> int:
    [found] = [number for number, rule in enumerate(rules) if rule.startswith(beginning)]
    return found


def test_what_is_allowed_comes_in_this_order() -> None:
    rules = chain(provider_script(PLAN, ONLINK), "from_consumers")
    tunnels = place(rules, 'oifname "wgup*" reject')
    lines = place(rules, 'meta nfproto ipv4 oifname != { "wan", "wan2" } reject')
    dns = place(rules, "ct status dnat ip daddr 192.168.8.1 meta l4proto { tcp, udp } th dport 53")
    private = place(rules, "ip daddr {")
    assert tunnels < lines < dns < private < len(rules) - 1
    assert rules[-1] == "accept"


def test_own_networks_and_the_special_ones_are_merged() -> None:
    rules = chain(provider_script(PLAN, ONLINK), "from_consumers")
    four, six = rules[place(rules, "ip daddr {")], rules[place(rules, "ip6 daddr {")]
    assert "198.51.100.0/29" in four
    assert "192.168.8.0" not in four, "it is inside 192.168.0.0/16"
    assert "2001:db8:1::/64" in six


@given(st.lists(st.ip_addresses(), max_size=6), st.integers(0, 32))
def test_sets_never_overlap(addresses: list[ipaddress.IPv4Address], length: int) -> None:
    """nft refuses anonymous sets with networks in each other."""
    rules = chain(provider_script(PLAN, [f"{a}/{length}" for a in addresses]), "from_consumers")
    for word in ("ip daddr {", "ip6 daddr {"):
        text = rules[place(rules, word)].partition("{")[2].partition("}")[0]
        nets = [ipaddress.ip_network(each.strip()) for each in text.split(",")]
        assert all(not a.overlaps(b) for a in nets for b in nets if a is not b)


PRIVATE = (
    "10.1.2.3 100.64.0.1 169.254.169.254 172.31.9.9 192.168.1.1 127.0.0.1 0.0.0.1 224.0.0.1 "
    "250.1.1.1 255.255.255.255 2002:c0a8:101::1"
)
PUBLIC = "1.1.1.1 172.32.0.1 100.128.0.1 192.0.1.1 223.9.9.9 2606:4700:4700::1111"


def test_private_addresses() -> None:
    nets = [ipaddress.ip_network(text) for family in Family for text in NOT_INTERNET[family]]
    closed = [
        text
        for text in f"{PRIVATE} {PUBLIC}".split()
        if any(ipaddress.ip_address(text) in net for net in nets)
    ]
    assert closed == PRIVATE.split()


def test_look_ups_go_to_the_first_resolver_that_a_line_leads_to() -> None:
    _, four, six = chain(provider_script(PLAN, ONLINK), "dns")
    assert four.startswith('iifname "wgup_srv" ip daddr 10.61.7.1 ')
    assert four.endswith("dport 53 dnat ip to 192.168.8.1")
    assert six.endswith("dport 53 dnat ip6 to 2001:db8::53")


def test_a_family_without_a_resolver_is_refused() -> None:
    script = provider_script(replace(PLAN, resolvers=("2001:db8::53",)), ONLINK)
    assert not [rule for rule in chain(script, "dns") if " dnat ip to" in rule]
    rules = chain(script, "input")
    assert rules[-2:] == [
        "meta l4proto { tcp, udp } th dport 53 reject with icmpx port-unreachable",
        "drop",
    ]


def test_only_echo_and_renewal_reach_the_router() -> None:
    rules = chain(provider_script(replace(PLAN, renewal_port=7444), ONLINK), "input")
    accepted = [rule for rule in rules if rule.endswith(" accept") and "daddr" in rule]
    assert accepted == [
        "ip daddr 10.61.7.1 icmp type echo-request accept",
        "ip daddr 10.61.7.1 tcp dport 7444 accept",
        "ip6 daddr fd61:7::1 icmpv6 type echo-request accept",
        "ip6 daddr fd61:7::1 tcp dport 7444 accept",
    ]


@pytest.mark.parametrize("plan", [replace(PLAN, is_open=False), replace(PLAN, wans={})])
def test_a_closed_provider_forwards_nothing(plan: ProviderPlan) -> None:
    script = provider_script(plan, ())
    allowed = [rule for rule in chain(script, "from_consumers") if rule.endswith("accept")]
    refused = [rule for rule in chain(script, "from_consumers") if "oifname !=" not in rule]
    if plan.is_open:
        for word in ("ipv4", "ipv6"):
            before = refused.index(f"meta nfproto {word} reject with icmpx admin-prohibited")
            assert before < min(refused.index(rule) for rule in allowed)
    else:
        assert allowed == []
        assert chain(script, "to_consumers") == ["reject with icmpx admin-prohibited"]
    assert "tcp dport 7333 accept" in script


def test_new_flows_of_a_consumer_have_a_pace() -> None:
    _, four, six = chain(provider_script(PLAN, ONLINK), "pace")
    limit = "limit rate over 50/second burst 1000 packets } drop"
    assert four == f'iifname "wgup_srv" ct state new update @new4 {{ ip saddr {limit}'
    assert six == four.replace("@new4", "@new6").replace("ip saddr", "ip6 saddr")


def test_consumers_get_answers_only() -> None:
    assert chain(provider_script(PLAN, ONLINK), "to_consumers") == [
        "ct state established,related accept",
        "reject with icmpx admin-prohibited",
    ]


def test_only_pools_are_translated_and_only_on_lines() -> None:
    rules = chain(provider_script(PLAN, ONLINK), "nat")
    assert rules[1:] == [
        'ip saddr 10.61.7.0/24 oifname { "wan", "wan2" } masquerade',
        'ip6 saddr fd61:7::/64 oifname { "wan" } masquerade',
    ]
    one = provider_script(replace(PLAN, wans={Family.IPV4: ("wan",)}), ONLINK)
    assert not [rule for rule in chain(one, "nat") if "ip6 saddr" in rule]


def test_segments_fit_the_tunnel() -> None:
    rules = chain(provider_script(replace(PLAN, mtu=1300), ONLINK), "forward")
    assert rules[2].endswith("ipv4 tcp flags syn tcp option maxseg size set 1260")
    assert rules[3].endswith("ipv6 tcp flags syn tcp option maxseg size set 1240")


def test_the_table_tells_no_key_and_depends_on_no_limit() -> None:
    script = provider_script(PLAN, ONLINK)
    assert PLAN.private_key not in script
    assert provider_script(replace(PLAN, private_key="other", limit_mbps=5), ONLINK) == script


@pytest.mark.needs("nft", "unshare")
@pytest.mark.parametrize(
    "plan", [PLAN, replace(PLAN, is_open=False), replace(PLAN, wans={}, resolvers=(), gateways=())]
)
def test_real_it_loads_and_loads_again(plan: ProviderPlan) -> None:
    script = provider_script(plan, ONLINK)
    printed = apart(f"nft -f - <<'END'\n{script}{script}END\nnft list tables\n")
    assert printed == "table inet wgup_provider\n"
