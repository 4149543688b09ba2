"""The evaluation of the forward hook, held against the kernel's own: the same rules, real packets.

    host -- LAN device, router, two ways out (the WAN and the tunnel) -- far

A connection is made by each way; it stands exactly where new packets and answers are both let
through.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from rpcd_wireguard_uplink.carrying.forwarding import Paths, look_through
from rpcd_wireguard_uplink.carrying.ruleset import parse_ruleset
from rpcd_wireguard_uplink.carrying.verdict import Packet, Verdict, judge_packet
from rpcd_wireguard_uplink.model import Family
from tests.lab.consumers import probe
from tests.lab.lab import Lab
from tests.lab.network import ROUTER
from tests.lab.node import Node, join

DATA = Path(__file__).parent.parent / "data" / "rulesets"
TUNNEL, LAN4, HOST4, FAR4 = "wgup_nodea", "192.168.1.1/24", "192.168.1.2", "100.0.0.1"
NETS = ("198.51.100", "203.0.113")
RULES = [
    'iifname "lan" oifname "wgup_*" accept',
    'iifname "lan" oifname "w*" accept',
    'iifname { "br-*", "lan" } oifname != { "wan", "eth*" } accept',
    'iif "lan" oif "wan" accept',
    "iifname . oifname { lan . wan, guest . wgup_nodea } accept",
    "iifname . oifname vmap { lan . wgup_nodea : accept }",
    "iifname vmap { lan : jump inner, wan : drop }",
    "oifname vmap { wan : goto inner, wgup_nodea : goto outer }",
    "meta nfproto ipv6 accept",
    "meta l4proto { tcp, udp } accept",
    "ip saddr 192.168.0.0/16 ip daddr != 10.0.0.0/8 accept",
    "ip saddr 192.168.1.64-192.168.1.127 accept",
    "tcp dport { 80, 400-500 } accept",
    "tcp dport 80 accept",
    "udp dport != 53 accept",
    "ct state new tcp flags & (fin | syn | rst | ack) == syn accept",
    "tcp flags & (syn | ack) == (syn | ack) accept",
    "ct state vmap { invalid : drop, new : jump inner }",
    "ct state != new accept",
    "ct status dnat accept",
    "ct status ! confirmed accept",
    "ct direction original accept",
    "ct direction reply accept",
    "meta mark set meta mark | 0x10; meta mark & 0xf0 == 0x10 accept",
    "meta mark set 0x3; meta mark & 0x1 == 0 accept",
    "fib daddr type local accept",
    "fib daddr type unicast accept",
    "ip protocol icmp accept; icmp type echo-request accept; ip6 nexthdr tcp accept",
    'iifname "lan" log prefix "x" counter reject; accept',
    "jump inner; accept",
    "goto inner; accept",
]


@dataclass
class ForwardPath:
    host: Node
    router: Node
    far: Node
    lan: str
    wan: str

    def connects(self, out: str) -> bool:
        """Whether a connection stands whose packets leave by that device."""
        net = NETS[out == TUNNEL]
        self.router.sh(f"ip route replace {FAR4} via {net}.2")
        self.far.sh(f"ip route replace 192.168.1.0/24 via {net}.1")
        return probe(self.host, ("connect", FAR4, 443)) == ["connected"]

    def agrees(self, text: str) -> None:
        """Hold the evaluation of what nft lists against connections."""
        ruleset = parse_ruleset(text)
        for out in (self.wan, TUNNEL):
            packets = [
                Packet(Family.IPV4, self.lan, out, HOST4),
                Packet(Family.IPV4, out, self.lan, HOST4, is_reply=True),
            ]
            found = [judge_packet(ruleset, p, "forward", "wgup").verdict for p in packets]
            assert Verdict.UNKNOWN not in found, text
            assert self.connects(out) is (found == [Verdict.ACCEPT] * 2), (out, found)


def forward_path(lab: Lab, lan: str, wan: str) -> ForwardPath:
    host, router, far = lab.node("host"), lab.node("router"), lab.node("far")
    join(router, lan, host, "eth0")
    for device in (wan, TUNNEL):
        join(router, device, far, device)
        router.sh(f"ip addr add {NETS[device == TUNNEL]}.1/30 dev {device}")
        far.sh(f"ip addr add {NETS[device == TUNNEL]}.2/30 dev {device}")
    router.sh(ROUTER + f"ip addr add {LAN4} dev {lan}")
    host.sh(f"ip addr add {HOST4}/24 dev eth0\nip route add default via {LAN4[:-3]}")
    far.sh(f"ip addr add {FAR4}/32 dev lo")
    lab.start(far, "accept", 443, FAR4)
    return ForwardPath(host, router, far, lan, wan)


def test_single_rules(lab: Lab) -> None:
    made = forward_path(lab, "lan", "wan")
    for rule in RULES:
        body = rule.replace("; ", "\n")
        made.router.nft(f"""
flush ruleset
table inet filter {{
  chain inner {{
    oifname "wan" accept
  }}
  chain outer {{
    ct state new accept
  }}
  chain forward {{
    type filter hook forward priority 0; policy drop;
    ct state established,related accept
    {body}
  }}
}}
""")
        made.agrees(made.router.run(["nft", "-j", "list", "ruleset"]).stdout)


@pytest.mark.parametrize(
    ("name", "lan", "wan"),
    [
        *(
            ("debian", "lan", "wan"),
            ("lan_to_wan", "lan", "wan"),
            ("answers_dropped", "lan", "wan"),
        ),
        *(("firewalld", "lan", "wan"), ("fw4", "br-lan", "eth1"), ("libvirt_nft", "lan", "wan")),
        ("fw4_without_zone", "br-lan", "eth1"),
    ],
)
def test_whole_firewalls(lab: Lab, name: str, lan: str, wan: str) -> None:
    made = forward_path(lab, lan, wan)
    made.router.run(["nft", "-j", "-f", "-"], input=(DATA / f"{name}.json").read_text())
    text = made.router.run(["nft", "-j", "list", "ruleset"]).stdout
    made.agrees(text)
    wanted = Paths({lan: [LAN4]}, (wan,), {TUNNEL: (Family.IPV4,)})
    found = look_through(parse_ruleset(text), wanted).blockages
    assert bool(found) is (made.connects(wan) and not made.connects(TUNNEL))
    if found and found[0].mend.startswith("nft "):
        made.router.sh(found[0].mend)
        assert made.connects(TUNNEL)
        made.agrees(made.router.run(["nft", "-j", "list", "ruleset"]).stdout)


def test_the_data_is_what_nft_lists(lab: Lab) -> None:
    """Loaded and listed again, each ruleset is the same: none was made up."""
    node = lab.node("router")
    for path in sorted(DATA.glob("*.json")):
        if '"xt"' in path.read_text():
            continue  # iptables-nft's
        node.sh("nft flush ruleset")
        node.run(["nft", "-j", "-f", "-"], input=path.read_text())
        listed = json.loads(node.run(["nft", "-j", "list", "ruleset"]).stdout)["nftables"]
        wanted = json.loads(path.read_text())["nftables"]
        assert _plain(listed) == _plain(wanted), path.name


def _plain(rows: list[dict[str, dict[str, object]]]) -> list[str]:
    bare = [
        {kind: {k: v for k, v in row.items() if k != "handle"} for kind, row in entry.items()}
        for entry in rows
        if "metainfo" not in entry
    ]
    return sorted(json.dumps(row, sort_keys=True) for row in bare)
