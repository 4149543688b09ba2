"""Values of every option: one that is good and is no default, then such as are not."""

from __future__ import annotations

from rpcd_wireguard_uplink.uci import Section, Value
from tests.unit.fakes import key_of

KEY = key_of("peer")
LOOPBACK = "127.0.0.1"
FLAGS = ("maybe", "2", ("1", "1"))

SAMPLES: dict[str, dict[str, tuple[Value, ...]]] = {
    "wireguard-uplink": {
        "enabled": ("0", *FLAGS),
        "auto_failover": ("0", *FLAGS),
        "min_uplinks": ("3", "61", "-1", "1.5"),
        "check_interval": ("60", "0", "3601", "1.5", "\u0661", "9" * 50, "soon"),
        "failover_timeout": ("20", "0", "x", ("1", "2")),
        "prefer_latency": ("0", *FLAGS),
        "pace": ("fast", "slow"),
        "early_failover": ("all", "some"),
        "hold_time": ("0", "86401"),
        "max_hold_time": ("900", "x"),
        "track_ip": (("192.0.2.1", "2001:db8::1"), "example.com", ("1.1.1",)),
        "reliability": ("2", "21"),
        "trusted_peer": (("nodeb", "nodec"), "-x", ("no such!",)),
        "declined": (("noded",), "a/b"),
        "wan": (("wan", "wwan"),),
        "policy": (("balanced",),),
        "dns": (("192.0.2.53",), "dns.example"),
        "captive_check": ("http://a.example/generate_204", "https://a.example/", "a.example"),
        "fail_closed": ("0", *FLAGS),
        "spread": ("1", *FLAGS),
        "sticky_failback": ("1", *FLAGS),
        "sticky_time": ("60", "0"),
        "max_loss": ("57", "101"),
        "max_latency": ("250", "60001"),
        "imported": ("1", *FLAGS),
        "node_id": ("nodeA", "-a", "a\n"),
        "mesh": (("wg0", "wg1"), "wgup_nodea", "a-name-too-long-x"),
        "mesh_port": ("7444", "0", "65536"),
        "carrier": (("bus",), "pigeon"),
        "peer": (
            ("nodeB 10.9.0.2", "nodeB fd00::2", "nodeC fd00::3"),
            ("nodeB",),
            "nodeB 10.9.0.0/24",
            "10.9.0.1 nodeB",
        ),
        "trust": ("uci", "everybody"),
        "poll_interval": ("5", "0"),
    },
    "provider": {
        "enabled": ("1", *FLAGS),
        "bandwidth_mbps": ("100", "-1"),
        "latency_ms": ("12.5", "-1", "nan", "1e3", "\u0661"),
        "wan_type": ("fiber", "a;b"),
        "metered": ("1", *FLAGS),
        "quota_gb": ("250.25", "1000001"),
        "price_per_gb": ("0.5", "x"),
        "reset_day": ("31", "0", "32"),
        "limit_mbps": ("20", "1.5"),
        "max_consumers": ("3", "0", "201"),
        "lease_time": ("600", "4", "604801"),
        "listen_port": ("51900", "65536"),
        "endpoint": ("gw.example", LOOPBACK, "a b"),
        "pool4": (
            "10.77.0.0/24",
            *("10.0.0.1/24", "10.0.0.0/31", "100.64.0.0/24", "192.0.2.0/24", "10.0.0.0/7"),
            "fd00::/64",
        ),
        "pool6": ("fd12:3456::/64", "2001:db8::/64", "fd00::/121", "10.0.0.0/24"),
        "dns": (("9.9.9.9", "2620:fe::fe"), "dns.example"),
    },
    "mqtt": {
        "enabled": ("1", *FLAGS),
        "host": ("mq.example", "a b", "224.0.0.1"),
        "port": ("8884", "0"),
        "user": ("router",),
        "password_file": ("/etc/wireguard-uplink/mqtt", "secret"),
        "tls": ("1", *FLAGS),
        "ca_file": ("/etc/ssl/ca.pem", "/"),
        "prefix": ("site/uplinks", "a/#", "/a"),
        "area": (("north", "harbour.2"), "a/b", "+", "n#"),
        "password": ("", "hunter2"),
    },
    "uplink": {
        "peer_id": ("nodea", ("a", "b")),
        "endpoint_host": ("192.0.2.1", LOOPBACK, "a b"),
        "endpoint_port": ("1234", "0"),
        "other_endpoint": (("172.16.0.2:51820", "[fd00::2]:7"), f"{LOOPBACK}:1", "a:0"),
        "public_key": (KEY, "perhaps-a-private-key"),
        "weight": ("42", "101"),
        "own_public_key": (key_of("own"),),
        "address": (("10.1.2.3/32", "fd00::1/128"), "224.0.0.1", ("10.1.2.3/32", "x")),
        "dns": (("10.1.2.1",), "x"),
        "mtu": ("1400", "1279", "1501"),
        "metered": ("1", *FLAGS),
        "quota_gb": ("50", "-1"),
        "price_per_gb": ("0.25", "-1"),
        "enabled": ("0", *FLAGS),
        "pending": ("1", *FLAGS),
        "auto": ("1", *FLAGS),
        "leased": ("1", *FLAGS),
        "inbound": ("1", *FLAGS),
    },
    "anchor": {
        "peer": ("nodea", "a b"),
        "source": (("192.168.1.7/32", "fd00:1::/64"), "192.168.1.7/24", ("10.0.0.1", "x")),
        "destination": (("203.0.113.9/32", "2001:db8::/32"), "example.com"),
        "protocol": (("udp", "tcp"), "quic"),
        "port": (("5060", "10000-20000"), "20-10", "0", "1-65536"),
        "dscp": (("46", "10"), "64", "EFF"),
        "enabled": ("0", *FLAGS),
    },
    "consumer": {
        "peer_id": ("nodeb", "a b"),
        "public_key": (key_of("consumer"), "hidden"),
        "address": (("10.9.0.2/32", "fd00::2/128"), "10.0.0.1/24", LOOPBACK, "x"),
    },
    "trust": {
        "peer_id": ("nodeb", "a b"),
        "mesh_key": (key_of("mesh"), "hidden"),
        "identity": (key_of("identity"), "hidden"),
        "fingerprint": ("ab:12/Z+=", "a b"),
    },
}
NAMES = {
    "wireguard-uplink": "uplink",
    "provider": "local",
    "mqtt": "broker",
    "uplink": "wgup_a",
    "anchor": "calls",
    "consumer": "consumer_a",
    "trust": "trust_b",
}


def section(section_type: str, options: dict[str, Value], name: str = "") -> Section:
    """A section of that type, by the name that it usually has."""
    return Section(section_type, name or NAMES[section_type], False, options)


def full(section_type: str, **changes: Value | None) -> Section:
    """A section with every option's good value but for the changes; None leaves one out."""
    good = {name: values[0] for name, values in SAMPLES[section_type].items() if values[0]}
    options = {**good, **changes}
    return section(section_type, {name: value for name, value in options.items() if value})


def whole_file(*other: Section) -> list[Section]:
    """A section of each type, those in `other` in the place of the usual ones."""
    changed = {each.type: each for each in other}
    return [changed.get(section_type, full(section_type)) for section_type in SAMPLES]
