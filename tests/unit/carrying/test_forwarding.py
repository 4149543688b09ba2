"""The forward hook, evaluated: rulesets of the usual firewalls as data, and who may go where.

tests/data/rulesets holds what nft 1.0.6 and iptables-save 1.8.9 list of them. `wan` is what the LAN
may use; the tunnel is one that the firewall was not told of, unless a case says so.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.carrying.forwarding import (
    Blockage,
    Paths,
    host_on,
    lan_devices,
    look_through,
)
from rpcd_wireguard_uplink.carrying.iptables import parse_save
from rpcd_wireguard_uplink.carrying.ruleset import Chain, Rule, Ruleset, parse_ruleset, read_ruleset
from rpcd_wireguard_uplink.carrying.verdict import Packet, Verdict, judge_packet, meets
from rpcd_wireguard_uplink.errors import CommandFailed
from rpcd_wireguard_uplink.model import Family
from rpcd_wireguard_uplink.system import process
from rpcd_wireguard_uplink.system.process import Completed

DATA = Path(__file__).parents[2] / "data" / "rulesets"
TUNNEL = "wgup_nodea"
LAN = ("192.168.1.1/24", "fd00:1::1/64", "fe80::1/64")
VMS = ("192.168.122.1/24",)


def blockages(ruleset: Ruleset, wanted: Paths) -> list[Blockage]:
    return list(look_through(ruleset, wanted).blockages)


def paths(*lans: str, wan: str = "wan", addresses: tuple[str, ...] = LAN) -> Paths:
    return Paths(dict.fromkeys(lans, addresses), (wan,), {TUNNEL: tuple(Family)})


async def loaded(name: str, mocker: MockerFixture, *, save: bool = True) -> Ruleset:
    """The ruleset as read_ruleset() finds it on a router that has it."""
    listed = json.loads((DATA / f"{name}.json").read_text())
    saved = DATA / f"{name}.save.txt"

    async def run(argv: list[str], **_: Any) -> Completed:
        if argv[:4] == ["nft", "-j", "-t", "list"]:
            bare = [
                {k: {n: v for n, v in row.items() if n != "elem"} for k, row in entry.items()}
                for entry in listed["nftables"]
            ]
            return Completed(0, json.dumps({"nftables": bare}), "")
        if argv[:3] == ["nft", "-j", "list"]:
            kind, family, table, wanted = argv[3:]
            found = [
                entry
                for entry in listed["nftables"]
                if kind in entry
                and [entry[kind][n] for n in ("family", "table", "name")] == [family, table, wanted]
            ]
            return Completed(0, json.dumps({"nftables": found}), "")
        assert argv[0] == "iptables-save" and argv[1:] == ["-t", "filter"]
        if not save:
            raise CommandFailed("no iptables-save here")
        return Completed(0, saved.read_text(), "")

    mocker.patch.object(process, "run", run)
    return await read_ruleset()


CASES = [
    # ruleset, LAN, its addresses, the WAN, who is told to block, and the command
    ("debian", "lan", LAN, "wan", "", ""),
    (
        *("lan_to_wan", "lan", LAN, "wan", "The firewall (nftables, table inet filter)"),
        f'nft insert rule inet filter forward iifname "lan" oifname "{TUNNEL}" accept',
    ),
    (
        *("answers_dropped", "lan", LAN, "wan", "The firewall (nftables, table ip filter)"),
        f'nft insert rule ip filter forward iifname "{TUNNEL}" oifname "lan" '
        "ct state established,related accept",
    ),
    ("ufw", "lan", LAN, "wan", "ufw", f"ufw route allow in on lan out on {TUNNEL}"),
    (
        *("docker", "lan", LAN, "wan", "Docker's firewall"),
        f"iptables -I DOCKER-USER -i lan -o {TUNNEL} -j ACCEPT && iptables -I DOCKER-USER "
        f"-i {TUNNEL} -o lan -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    ),
    ("docker", "docker0", ("172.17.0.1/16",), "wan", "", ""),
    (
        *("firewalld", "lan", LAN, "wan", "firewalld"),
        'firewall-cmd --permanent --zone="$(firewall-cmd --get-zone-of-interface=wan)" '
        f"--change-interface={TUNNEL} && firewall-cmd --reload",
    ),
    ("firewalld", "guest", LAN, "wan", "", ""),
    ("fw4", "br-lan", LAN, "eth1", "", ""),
    ("fw4", "br-guest", LAN, "eth1", "", ""),
    (
        *("fw4_without_zone", "br-lan", LAN, "eth1", "OpenWrt's firewall (fw4)"),
        "zone=$(uci show firewall | sed -n \"s/\\.name='wan'$//p\") && "
        f'uci add_list "$zone.device={TUNNEL}" && uci commit firewall && '
        "/etc/init.d/firewall reload",
    ),
    ("libvirt", "virbr0", VMS, "wan", "", ""),
    ("libvirt", "virbr1", ("192.168.100.1/24",), "wan", "", ""),
    ("libvirt_nft", "virbr0", VMS, "wan", "", ""),
    ("libvirt_nft", "virbr1", ("192.168.100.1/24",), "wan", "", ""),
    ("libvirt_nft", "lan", LAN, "wan", "", ""),
]


@pytest.mark.parametrize(
    ("name", "lan", "addresses", "wan", "who", "mend"), CASES, ids=[f"{c[0]}-{c[1]}" for c in CASES]
)
async def test_the_usual_firewalls(
    mocker: MockerFixture,
    name: str,
    lan: str,
    addresses: tuple[str, ...],
    wan: str,
    who: str,
    mend: str,
) -> None:
    ruleset = await loaded(name, mocker)
    found = blockages(ruleset, paths(lan, wan=wan, addresses=addresses))
    if not who:
        assert found == []
        return
    assert [(b.lans, b.tunnels) for b in found] == [((lan,), (TUNNEL,))]
    assert found[0].what.startswith(f"{who} drops ")
    assert f"chain {found[0].what.split('chain ')[1].split(' ')[0]} " in found[0].what
    assert " ".join(shlex.split(found[0].mend)) == " ".join(shlex.split(mend)) or (
        found[0].mend == f"nft '{mend.removeprefix('nft ')}'"
    )
    assert found[0].mend in found[0].sentence


async def test_what_iptables_hides_is_not_guessed(mocker: MockerFixture) -> None:
    """Without iptables-save nobody knows what `xt match conntrack` matches: nothing is said."""
    ruleset = await loaded("ufw", mocker, save=False)
    assert blockages(ruleset, paths("lan")) == []
    packet = Packet(Family.IPV4, "lan", TUNNEL, "192.168.1.2")
    assert judge_packet(ruleset, packet, "forward", "wgup").verdict is Verdict.UNKNOWN


async def test_each_command_mends_what_it_is_told_for(mocker: MockerFixture) -> None:
    """The rules that iptables' commands add, put where they say, end the complaint."""
    ruleset = await loaded("docker", mocker)
    mend = blockages(ruleset, paths("lan"))[0].mend
    lines = [f"-A {words.split(' -I ')[1]}" for words in mend.split(" && ")]
    text = ":DOCKER-USER -\n" + "\n".join(lines)
    place = ("ip", "filter", "DOCKER-USER")
    chain = ruleset.chains[place]
    added = tuple(Rule(s) for s in parse_save(text, "ip")["DOCKER-USER"])
    mended = Chain("ip", "filter", "DOCKER-USER", (*added, *chain.rules))
    assert blockages(Ruleset({**ruleset.chains, place: mended}), paths("lan")) == []


def rule(*statements: Mapping[str, Any]) -> Rule:
    return Rule(statements)


def equals(left: Mapping[str, Any], right: Any, op: str = "==") -> Mapping[str, Any]:
    return {"match": {"op": op, "left": left, "right": right}}


def meta(key: str) -> Mapping[str, Any]:
    return {"meta": {"key": key}}


def ct(key: str) -> Mapping[str, Any]:
    return {"ct": {"key": key}}


def payload(protocol: str, field: str) -> Mapping[str, Any]:
    return {"payload": {"protocol": protocol, "field": field}}


ACCEPT, DROP, UNSURE = {"accept": None}, {"drop": None}, {"limit": {"rate": 5}}
MARKED = {"mangle": {"key": meta("mark"), "value": {"|": [meta("mark"), 16]}}}
VMAP = [["lan", {"jump": {"target": "sub"}}], ["guest", DROP]]

OIFNAME, IIFNAME, MARK = meta("oifname"), meta("iifname"), meta("mark")
SADDR, DADDR, DPORT = payload("ip", "saddr"), payload("ip", "daddr"), payload("tcp", "dport")
FIRST_BYTE, FLAGS = {"&": [MARK, 255]}, payload("tcp", "flags")
SYN = {"&": [FLAGS, ["fin", "syn", "rst"]]}
PAIR = {"set": [{"concat": ["lan", TUNNEL]}]}
IS_LOCAL = {"fib": {"result": "type", "flags": ["daddr"]}}


def passes(left: Mapping[str, Any], right: Any, op: str = "==") -> list[Rule]:
    """The one rule of a chain: what meets this is accepted."""
    return [rule(equals(left, right, op), ACCEPT)]


def network(address: str, length: int) -> Mapping[str, Any]:
    return {"prefix": {"addr": address, "len": length}}


def vmap(data: Any) -> Rule:
    return rule({"vmap": {"key": IIFNAME, "data": data}})


EXPRESSIONS = [
    # rules of a chain whose policy is drop, and what becomes of a new connection lan -> wgup_nodea
    ("policy", [], "drop"),
    ("wildcard", passes(OIFNAME, "wgup_*"), "accept"),
    ("wildcard in a set", passes(OIFNAME, {"set": ["wgup*"]}), "accept"),
    ("not", passes(OIFNAME, "wan", "!="), "accept"),
    ("not in a set", passes(IIFNAME, {"set": ["lan"]}, "!="), "drop"),
    ("iif by index", passes(meta("iif"), 17), "drop"),
    ("iif by name", passes(meta("iif"), "lan"), "accept"),
    ("nfproto", passes(meta("nfproto"), "ipv4"), "accept"),
    ("other nfproto", passes(meta("nfproto"), "ipv6"), "drop"),
    ("l4proto", passes(meta("l4proto"), {"set": ["tcp", "udp"]}), "accept"),
    ("l4proto by number", passes(meta("l4proto"), {"set": [6, 17]}), "accept"),
    ("another by number", passes(meta("l4proto"), 17), "drop"),
    ("state", passes(ct("state"), ["established", "related"], "in"), "drop"),
    ("new", passes(ct("state"), "new", "in"), "accept"),
    ("not invalid", passes(ct("state"), "invalid", "!="), "accept"),
    ("status", passes(ct("status"), "dnat", "in"), "drop"),
    ("unconfirmed", passes(ct("status"), "confirmed", "!"), "accept"),
    ("direction", passes(ct("direction"), "original"), "accept"),
    ("a connection's mark", passes(ct("mark"), 5), "unknown"),
    ("mark", passes(FIRST_BYTE, 16), "drop"),
    ("mark set before", [rule(MARKED), *passes(FIRST_BYTE, 16)], "accept"),
    ("mark set perhaps", [rule(UNSURE, MARKED), *passes(MARK, 16)], "unknown"),
    ("source", passes(SADDR, network("192.168.1.0", 24)), "accept"),
    ("other source", passes(SADDR, {"range": ["10.0.0.1", "10.0.0.9"]}), "drop"),
    ("destination", passes(DADDR, network("10.0.0.0", 8), "!="), "accept"),
    ("of the other family", passes(payload("ip6", "daddr"), "::", "!="), "drop"),
    ("port", passes(DPORT, {"set": [80, 443]}), "accept"),
    ("ports", passes(DPORT, {"set": [{"range": [400, 500]}]}), "accept"),
    ("udp", passes(payload("udp", "dport"), 443, "!="), "drop"),
    ("flags", passes(SYN, "syn"), "accept"),
    ("no flags", passes({"&": [FLAGS, ["fin"]]}, 0), "accept"),
    ("a limit", [rule(UNSURE, ACCEPT)], "unknown"),
    ("a limited drop", [rule(UNSURE, DROP)], "drop"),
    ("an unknown expression", passes({"osf": {}}, "Linux"), "unknown"),
    ("an unknown operator", passes(MARK, 5, "<"), "unknown"),
    ("an unknown statement", [rule({"queue": {"num": 1}})], "unknown"),
    ("xt of an old nft", [rule({"xt": None})], "unknown"),
    ("an unread set", passes(IIFNAME, "@big"), "unknown"),
    ("a read set", passes(IIFNAME, "@lans"), "accept"),
    ("an unread map", [vmap("@big")], "unknown"),
    ("fib type", [rule(equals(IS_LOCAL, "local"), DROP)], "drop"),
    ("jump", [rule({"jump": {"target": "sub"}})], "accept"),
    ("goto", [rule({"goto": {"target": "empty"}}), rule(ACCEPT)], "drop"),
    ("jump and back", [rule({"jump": {"target": "empty"}}), rule(ACCEPT)], "accept"),
    ("return", [rule({"return": None}), rule(ACCEPT)], "drop"),
    ("vmap", [vmap({"set": VMAP})], "accept"),
    ("concatenation", passes({"concat": [IIFNAME, OIFNAME]}, PAIR), "accept"),
    ("an element with a counter", passes(IIFNAME, "@counted"), "accept"),
    ("a loop of gotos", [rule({"jump": {"target": "loop"}}), rule(ACCEPT)], "unknown"),
    ("counter, log and accept", [rule({"counter": {}}, {"log": None}, ACCEPT)], "accept"),
    ("reject", [rule({"reject": {"type": "tcp reset"}})], "drop"),
]


@pytest.mark.parametrize(
    ("rules", "wanted"), [c[1:] for c in EXPRESSIONS], ids=[c[0] for c in EXPRESSIONS]
)
def test_expressions(rules: list[Rule], wanted: str) -> None:
    def chain(name: str, *inner: Rule, hook: str = "") -> Chain:
        return Chain("inet", "filter", name, inner, hook, 0, "drop")

    chains = [
        chain("forward", *rules, hook="forward"),
        chain("sub", rule(ACCEPT)),
        chain("empty", rule(equals(meta("iifname"), "other"), DROP)),
        chain("loop", rule({"jump": {"target": "loop"}})),
    ]
    elements = {
        ("inet", "filter", "lans"): ["guest", "lan"],
        ("inet", "filter", "counted"): [{"elem": {"val": "lan", "counter": {}}}],
    }
    ruleset = Ruleset({(c.family, c.table, c.name): c for c in chains}, elements)
    packet = Packet(Family.IPV4, "lan", TUNNEL, "192.168.1.2")
    found = judge_packet(ruleset, packet, "forward", "wgup").verdict
    assert found is Verdict(wanted)


def test_all_tables_must_let_it_pass_and_ours_are_left_out() -> None:
    def base(table: str, policy: str, priority: int) -> Chain:
        return Chain("inet", table, "forward", (), "forward", priority, policy)

    ours = base("wgup", "drop", -1)
    open_, shut = base("a", "accept", 0), base("b", "drop", 5)
    packet = Packet(Family.IPV6, "lan", TUNNEL)
    one = Ruleset({("inet", c.table, "forward"): c for c in (ours, open_)})
    assert judge_packet(one, packet, "forward", "wgup").verdict is Verdict.ACCEPT
    two = Ruleset({("inet", c.table, "forward"): c for c in (shut, ours, open_)})
    found = judge_packet(two, packet, "forward", "wgup")
    assert (found.verdict, found.base) == (Verdict.DROP, shut)


def test_a_ruleset_that_never_ends_is_given_up() -> None:
    rules = tuple(rule(equals(meta("iifname"), "x"), DROP) for _ in range(30_000))
    chain = Chain("inet", "big", "forward", rules, "forward", 0, "accept")
    packet = Packet(Family.IPV4, "lan", TUNNEL)
    ruleset = Ruleset({("inet", "big", "forward"): chain})
    assert judge_packet(ruleset, packet, "forward", "wgup").verdict is Verdict.UNKNOWN


async def test_a_long_listing_is_read_all_the_same(mocker: MockerFixture) -> None:
    head = '{"nftables": [{"chain": {"family": "inet", "table": "t", "name": "c"}}'
    row = ', {"rule": {"family": "inet", "table": "t", "chain": "c", "expr": [{"accept": null}]}}'
    texts = {"long": head + 5000 * row + "]}", "endless": " " * 8_000_001}

    async def run(argv: list[str], **_: Any) -> Completed:
        return Completed(0, texts[wanted], "")

    mocker.patch.object(process, "run", run)
    wanted = "long"
    assert (await read_ruleset()).size == 5000
    wanted = "endless"
    with pytest.raises(CommandFailed, match="too large"):
        await read_ruleset()


def test_translation_is_seen() -> None:
    nat = Chain(
        *("inet", "wgup", "nat"),
        (rule(equals(meta("oifname"), TUNNEL), {"masquerade": None}),),
        "postrouting",
    )
    ruleset = Ruleset({("inet", "wgup", "nat"): nat})
    kinds = ("masquerade", "snat")
    assert meets(ruleset, Packet(Family.IPV4, "", TUNNEL), "postrouting", kinds)
    assert not meets(ruleset, Packet(Family.IPV4, "", "wan"), "postrouting", kinds)


@pytest.mark.parametrize(
    "text",
    [
        *("", "{}", "[]", '{"nftables": 3}', "null", "[" * 3000),
        '{"nftables": [{"chain": {"family": "inet", "table": "t"}}]}',
        '{"nftables": [{"chain": {"family": "inet", "table": ["t"], "name": "c"}}]}',
        '{"nftables": [{"chain": {"family": "ip", "table": "t", "name": "c", "prio": "x"}}]}',
    ],
)
def test_what_is_no_listing_is_an_error(text: str) -> None:
    with pytest.raises(CommandFailed):
        parse_ruleset(text)


NAMES = [
    *("match", "left", "right", "op", "meta", "key", "vmap", "data", "set", "elem", "jump"),
    *("target", "xt", "payload", "protocol", "prefix", "range", "&", "concat"),
]
JSON = st.recursive(
    st.none() | st.integers(0, 99) | st.sampled_from(["lan", "@lans", "tcp", "saddr", "*", ""]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(st.lists(st.dictionaries(st.sampled_from(["match", "vmap", "mangle", "xt"]), JSON)))
def test_what_a_later_nft_may_print_breaks_nothing(statements: list[dict[str, Any]]) -> None:
    chain = Chain("inet", "t", "forward", (Rule(tuple(statements)),), "forward", 0, "drop")
    ruleset = Ruleset({("inet", "t", "forward"): chain})
    packet = Packet(Family.IPV4, "lan", TUNNEL, "192.168.1.2")
    assert judge_packet(ruleset, packet, "forward", "wgup").verdict is not Verdict.ACCEPT


def test_several_lans_and_tunnels_are_one_command() -> None:
    ruleset = parse_ruleset((DATA / "lan_to_wan.json").read_text().replace('"lan"', '"br-*"'))
    wanted = Paths(
        {"br-lan": LAN, "br-guest": ("10.1.0.1/24",)},
        ("wan",),
        {"wgup_a": tuple(Family), "wgup_b": (Family.IPV4,)},
    )
    found = blockages(ruleset, wanted)
    assert len(found) == 1 and found[0].families == tuple(Family)
    assert found[0].mend == (
        'nft \'insert rule inet filter forward iifname { "br-lan", "br-guest" } '
        'oifname { "wgup_a", "wgup_b" } accept\''
    )
    assert "until the firewall is loaded anew" in found[0].sentence


def test_a_lan_that_is_kept_from_all_wans_is_left_alone() -> None:
    ruleset = parse_ruleset((DATA / "lan_to_wan.json").read_text())
    assert blockages(ruleset, paths("iot")) == []
    # Answers from the WAN would be let through to it, but it may not begin anything.
    text = (DATA / "answers_dropped.json").read_text().replace('["wan", "lan"]', '["wan", "iot"]')
    assert blockages(parse_ruleset(text), paths("iot")) == []
    without_wan = Paths({"iot": LAN}, (), {TUNNEL: tuple(Family)})
    assert [b.lans for b in blockages(ruleset, without_wan)] == [("iot",)]


def test_ufw_in_both_families_is_told_once() -> None:
    four = parse_save((DATA / "ufw.save.txt").read_text(), "ip")
    chains = {}
    for family, prefix in (("ip", "ufw-"), ("ip6", "ufw6-")):
        for name, rules in four.items():
            own = name.replace("ufw-", prefix)
            hook = "forward" if name == "FORWARD" else ""
            body = tuple(
                Rule(json.loads(json.dumps(s).replace('"ufw-', f'"{prefix}'))) for s in rules
            )
            chains[family, "filter", own] = Chain(family, "filter", own, body, hook, 0, "drop")
    found = blockages(Ruleset(chains), paths("lan"))
    assert [(b.families, b.mend) for b in found] == [
        (tuple(Family), f"ufw route allow in on lan out on {TUNNEL}")
    ]


def test_lan_devices() -> None:
    addresses = {
        "lo": ["127.0.0.1/8", "::1/128"],
        "wan": ["198.51.100.2/29"],
        "br-lan": ["192.168.1.1/24", "fe80::1/64"],
        "v6only": ["2001:db8:7::1/64"],
        "p2p": ["10.9.0.1/32"],
        "linklocal": ["fe80::2/64"],
        "wg0": ["10.8.0.1/24"],
        "wgup_srv": ["10.61.7.1/24"],
        "bare": [],
    }
    assert list(lan_devices(addresses, {"wan", "wg0"})) == ["br-lan", "v6only"]
    assert host_on(addresses["br-lan"], Family.IPV4) == "192.168.1.2"
    assert host_on(addresses["br-lan"], Family.IPV6) == ""
    assert host_on(["192.168.1.2/24"], Family.IPV4) == "192.168.1.1"
    assert host_on(addresses["v6only"], Family.IPV6) == "2001:db8:7::2"


SAVED = [
    ("-i br+ ! -o wan -j DROP", [meta("iifname"), meta("oifname")], "drop"),
    ("-s 10.0.0.0/8 -j RETURN", [payload("ip", "saddr")], "return"),
    ("-p tcp -m multiport --dports 80,443 -j ACCEPT", [meta("l4proto"), None], "accept"),
    ("-m conntrack --ctstate NEW,ESTABLISHED -j ACCEPT", [ct("state")], "accept"),
    ("-m mark --mark 0x10/0xff -g out", [{"&": [meta("mark"), 255]}], "goto"),
    ('-m comment --comment "it\'s \\"mine\\"" -j LOG --log-prefix "-j DROP "', [], "log"),
    ("-m physdev --physdev-is-bridged -j ACCEPT", ["unknown"], "accept"),
    ("-m physdev --physdev-is-bridged ! -i lan -j ACCEPT", ["unknown", meta("iifname")], "accept"),
    ("-p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu", None, "log"),
    ("-m set --match-set bad src -j DROP", ["unknown"], "drop"),
    ("-m conntrack --ctstate DNAT -j ACCEPT", ["unknown"], "accept"),
    ("-j NFQUEUE --queue-num 3", [], "xt"),
]


@pytest.mark.parametrize(("text", "lefts", "verdict"), SAVED, ids=[row[0][:30] for row in SAVED])
def test_iptables_save(text: str, lefts: list[Any] | None, verdict: str) -> None:
    found = parse_save(f"*filter\n:FORWARD DROP [0:0]\n-A FORWARD {text}\nCOMMIT\n", "ip")
    statements = found["FORWARD"][0]
    assert next(iter(statements[-1])) == verdict
    matches = [s.get("match", {}).get("left", "unknown") for s in statements[:-1]]
    if lefts is not None:
        assert len(matches) == len(lefts)
        assert all(left in (None, match) for left, match in zip(lefts, matches, strict=True))


def test_a_blockage_names_its_place() -> None:
    found = blockages(parse_ruleset((DATA / "lan_to_wan.json").read_text()), paths("lan"))
    assert isinstance(found[0], Blockage)
    assert found[0].what == (
        "The firewall (nftables, table inet filter) drops what lan sends into wgup_nodea "
        "(IPv4 and IPv6: the policy of chain forward of table inet filter)"
    )


def test_of_our_own_table_only_what_is_translated_is_kept() -> None:
    def row(kind: str, **members: object) -> dict[str, object]:
        return {kind: {"family": "inet", "table": "wgup", **members}}

    listed = [
        {"metainfo": {"version": "1.0.6"}},
        row("chain", name="nat", hook="postrouting", prio=100, policy="accept"),
        row("chain", name="steer", hook="prerouting", prio=-149, policy="accept"),
        row("chain", name="out_10"),
        row("rule", chain="nat", expr=[{"masquerade": None}]),
        *[row("rule", chain=chain, expr=[{"accept": None}]) for chain in ("steer", "out_10")],
    ]
    for text in (json.dumps({"nftables": listed}), json.dumps({"nftables": listed}, indent=1)):
        found = parse_ruleset(text)
        counts = {name: len(chain.rules) for (*_, name), chain in found.chains.items()}
        assert counts == {"nat": 1, "steer": 0, "out_10": 0}
