"""Sections of the exchange to settings and back; sentences that name section, option and value."""

from __future__ import annotations

import re
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpcd_wireguard_uplink.config.peer_settings import (
    consumer_options,
    pin_options,
    provider_options,
)
from rpcd_wireguard_uplink.config.peering import (
    Consumer,
    MqttSettings,
    PeerSettings,
    Pin,
    ProviderSettings,
    consumer_name,
    pin_name,
)
from rpcd_wireguard_uplink.config.settings import Config, parse_config
from rpcd_wireguard_uplink.errors import ConfigError
from rpcd_wireguard_uplink.uci import Section, Value, parse
from tests.repo import ROOT
from tests.unit.fakes import key_of

KEY = key_of("consumer")
CONSUMER: dict[str, Value] = {
    "peer_id": "nodeb",
    "public_key": KEY,
    "address": ("10.9.0.2/32", "fd00::2/128"),
}
PIN: dict[str, Value] = {"peer_id": "nodeb", "mesh_key": key_of("mesh")}
FULL = ProviderSettings(
    enabled=True,
    bandwidth_mbps=100,
    latency_ms=12.5,
    wan_type="fiber",
    metered=True,
    quota_gb=250.25,
    price_per_gb=0.5,
    reset_day=31,
    limit_mbps=20,
    max_consumers=3,
    lease_s=600,
    listen_port=51900,
    endpoint="gw.example",
    pool4="10.77.0.0/24",
    pool6="fd12:3456::/64",
    resolvers=("9.9.9.9", "2620:fe::fe"),
)


def main(**options: Value) -> Section:
    return Section("wireguard-uplink", "uplink", False, options)


def section(kind: str, name: str, options: dict[str, Value]) -> Section:
    return Section(kind, name, False, options)


def read(kind: str, name: str, options: dict[str, Value]) -> Config:
    config = parse_config([section(kind, name, options)])
    assert not config.warnings
    return config


def mistake(*sections: Section) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config(sections)
    return str(caught.value)


# --- the mesh


def test_without_sections_the_defaults_stand() -> None:
    config = parse_config([])
    assert config.peering == PeerSettings()
    assert config.provider == ProviderSettings()
    assert config.mqtt == MqttSettings()
    assert (config.consumers, config.pins) == ((), ())
    assert parse_config([main()]).peering == PeerSettings()
    assert read("provider", "local", {}).provider == ProviderSettings()


def test_the_mesh() -> None:
    config = parse_config(
        [
            main(
                node_id="nodeA",
                mesh=("wg0", "wg1"),
                mesh_port="7444",
                carrier="mesh",
                peer=("nodeB 10.9.0.2", "nodeC  FD00:0::3", "nodeB fd00::2"),
                trust="uci",
                poll_interval="5",
            )
        ]
    )
    assert config.peering == PeerSettings(
        node_id="nodeA",
        mesh_devices=("wg0", "wg1"),
        mesh_port=7444,
        carriers=frozenset({"mesh"}),
        peers=(("nodeB", "10.9.0.2"), ("nodeC", "fd00::3"), ("nodeB", "fd00::2")),
        trust_source="uci",
        poll_s=5.0,
    )
    assert not config.warnings


def test_one_peer_may_be_an_option() -> None:
    assert parse_config([main(peer="nodeB 10.9.0.2")]).peering.peers == (("nodeB", "10.9.0.2"),)


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("node_id", "-a", "node_id is '-a': it must be 1 to 64 letters"),
        ("node_id", "a\n", "it must be 1 to 64 letters"),
        ("mesh", "wgup_nodea", "mesh is 'wgup_nodea': it must be a WireGuard device"),
        ("mesh", "a-name-too-long-x", "mesh is 'a-name-too-long-x'"),
        ("mesh_port", "0", "mesh_port is '0': it must be a whole number from 1 to 65535"),
        ("carrier", ("mesh", "pigeon"), "carrier is 'pigeon': it must be one of mesh, bus, mqtt"),
        ("carrier", "mqtt", "carrier names mqtt: set enabled and host in a section"),
        ("peer", ("nodeB",), "peer is 'nodeB': it must be a peer's id and its address"),
        ("peer", ("nodeB 10.9.0.0/24",), "peer is 'nodeB 10.9.0.0/24'"),
        ("peer", ("10.9.0.1 nodeB",), "peer is '10.9.0.1 nodeB'"),
        ("peer", ("a 10.9.0.1", "b 10.9.0.1"), "peer b and peer a have the same mesh address"),
        ("trust", "everybody", "trust is 'everybody': it must be one of auto, uci, master-link"),
        ("poll_interval", "0", "poll_interval is '0': it must be a whole number from 1 to 3600"),
    ],
)
def test_bad_values_of_the_mesh(option: str, value: Value, sentence: str) -> None:
    assert sentence in mistake(main(**{option: value}))


# --- the provider


def test_a_provider_is_read_as_it_was_written() -> None:
    options = provider_options(FULL)
    assert len(options) == len(fields(ProviderSettings))
    assert read("provider", "local", options).provider == FULL


def test_only_what_is_not_usual_is_written() -> None:
    assert provider_options(ProviderSettings()) == {}
    assert provider_options(ProviderSettings(enabled=True, limit_mbps=5)) == {
        "enabled": "1",
        "limit_mbps": "5",
    }


AMOUNTS = st.integers(0, 10**11).map(lambda number: number / 10**6)


@given(quota=AMOUNTS, latency=AMOUNTS, day=st.integers(1, 31), is_metered=st.booleans())
def test_every_amount_survives(quota: float, latency: float, day: int, is_metered: bool) -> None:
    settings = ProviderSettings(
        quota_gb=quota, latency_ms=min(latency, 60_000.0), reset_day=day, metered=is_metered
    )
    assert read("provider", "local", provider_options(settings)).provider == settings


@pytest.mark.parametrize(
    ("option", "value", "want"),
    [
        ("enabled", "x", "1 or 0"),
        ("bandwidth_mbps", "-1", "a whole number from 0 to 1000000"),
        ("latency_ms", "-1", "a number from 0 to 60000"),
        ("latency_ms", "nan", "a number"),
        ("latency_ms", "1e3", "a number"),
        ("latency_ms", "\u0661", "a number"),
        ("wan_type", "a;b", "at most 32 plain characters"),
        ("metered", "2", "1 or 0"),
        ("quota_gb", "1000001", "a number from 0 to 1000000"),
        ("reset_day", "0", "a whole number from 1 to 31"),
        ("reset_day", "32", "a whole number from 1 to 31"),
        ("limit_mbps", "1.5", "a whole number"),
        ("max_consumers", "0", "a whole number from 1 to 200"),
        ("max_consumers", "201", "a whole number from 1 to 200"),
        ("lease_time", "4", "a whole number from 5 to 604800"),
        ("lease_time", "604801", "a whole number from 5 to 604800"),
        ("listen_port", "65536", "a whole number from 1 to 65535"),
        ("endpoint", "127.0.0.1", '"127.0.0.1" is a loopback address'),
        ("endpoint", "a b", '"a b" is neither a host name nor an IP address'),
        ("pool4", "10.0.0.1/24", "a network up to /30 inside 10.0.0.0/8"),
        ("pool4", "10.0.0.0/31", "a network up to /30"),
        ("pool4", "100.64.0.0/24", "inside 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16"),
        ("pool4", "192.0.2.0/24", "inside 10.0.0.0/8"),
        ("pool4", "10.0.0.0/7", "inside 10.0.0.0/8"),
        ("pool4", "fd00::/64", "inside 10.0.0.0/8"),
        ("pool6", "2001:db8::/64", "a network up to /120 inside fc00::/7"),
        ("pool6", "fd00::/121", "a network up to /120"),
        ("pool6", "10.0.0.0/24", "inside fc00::/7"),
        ("dns", "dns.example", "an IPv4 or IPv6 address"),
    ],
)
def test_bad_values_of_a_provider(option: str, value: str, want: str) -> None:
    told = mistake(section("provider", "local", {option: value}))
    assert told.startswith(f"wireguard-uplink.local.{option} is '{value}': ")
    assert want in told


def test_there_is_one_provider_and_one_broker() -> None:
    assert "name it: config provider 'local'" in mistake(section("provider", "other", {}))
    assert "name it: config mqtt 'broker'" in mistake(section("mqtt", "other", {}))


# --- consumers and pins


def test_a_consumer_is_read_as_it_was_written() -> None:
    written = Consumer(consumer_name(KEY), "nodeb", KEY, ("10.9.0.2/32", "fd00::2/128"))
    assert read("consumer", written.name, consumer_options(written)).consumers == (written,)


def test_pins_are_read_as_they_were_written() -> None:
    short = Pin(pin_name("nodeb"), "nodeb", key_of("mesh"))
    full = Pin(pin_name("nodec"), "nodec", key_of("other"), key_of("identity"), "ab:12/Z+=")
    sections = [section("trust", pin.name, pin_options(pin)) for pin in (short, full)]
    config = parse_config(sections)
    assert config.pins == (short, full)
    assert not config.warnings


def test_names_of_sections_can_be_written() -> None:
    assert consumer_name(KEY) == consumer_name(KEY) != consumer_name(key_of("other"))
    assert pin_name("a") == pin_name("a") != pin_name("A")
    text = f"config consumer '{consumer_name(KEY)}'\n\nconfig trust '{pin_name('a.b-c')}'\n"
    assert [s.name for s in parse(text, file="f").sections] == [
        consumer_name(KEY),
        pin_name("a.b-c"),
    ]
    assert len(consumer_name(KEY)) == len("consumer_") + 8


@pytest.mark.parametrize(
    ("kind", "options", "sentence"),
    [
        ("consumer", {**CONSUMER, "peer_id": ""}, "s.peer_id is missing"),
        ("consumer", {**CONSUMER, "peer_id": "a b"}, "s.peer_id is 'a b': it must be 1 to 64"),
        ("consumer", {**CONSUMER, "public_key": ""}, "s.public_key is missing"),
        ("consumer", {**CONSUMER, "public_key": "hidden"}, "s.public_key is not a WireGuard key"),
        ("consumer", {**CONSUMER, "address": ()}, "s.address is missing"),
        ("consumer", {**CONSUMER, "address": "10.0.0.1/24"}, "s.address is '10.0.0.1/24': it must"),
        ("consumer", {**CONSUMER, "address": "127.0.0.1"}, "s.address is '127.0.0.1': "),
        ("consumer", {**CONSUMER, "address": "x"}, "s.address is 'x': "),
        ("trust", {**PIN, "peer_id": ""}, "s.peer_id is missing"),
        ("trust", {**PIN, "mesh_key": ""}, "s.mesh_key is missing"),
        ("trust", {**PIN, "mesh_key": "hidden"}, "s.mesh_key is not a WireGuard key"),
        ("trust", {**PIN, "identity": "hidden"}, "s.identity is not an Ed25519 key"),
        ("trust", {**PIN, "fingerprint": "a b"}, "s.fingerprint is 'a b': it must be"),
    ],
)
def test_bad_consumers_and_pins(kind: str, options: dict[str, Value], sentence: str) -> None:
    told = mistake(section(kind, "s", options))
    assert f"wireguard-uplink.{sentence}" in told
    assert "hidden" not in told


@pytest.mark.parametrize("same", ["peer_id", "public_key", "address"])
def test_consumers_differ(same: str) -> None:
    other = {"peer_id": "c", "public_key": key_of("c"), "address": ("10.9.0.3/32", "fd00::3/128")}
    both = [section("consumer", "a", CONSUMER), section("consumer", "b", {**other})]
    assert len(parse_config(both).consumers) == 2
    told = mistake(both[0], section("consumer", "b", {**other, same: CONSUMER[same]}))
    assert f"wireguard-uplink.b and wireguard-uplink.a have the same {same}: remove" in told
    assert KEY not in told


@pytest.mark.parametrize("same", ["peer_id", "mesh_key", "identity"])
def test_pins_differ(same: str) -> None:
    first = {**PIN, "identity": key_of("i")}
    other = {"peer_id": "c", "mesh_key": key_of("c"), "identity": key_of("j")}
    assert len(parse_config([section("trust", "a", first), section("trust", "b", other)]).pins) == 2
    told = mistake(
        section("trust", "a", first), section("trust", "b", {**other, same: first[same]})
    )
    assert f"wireguard-uplink.b and wireguard-uplink.a have the same {same}: remove" in told


def test_pins_without_an_identity_do_not_share_one() -> None:
    other: dict[str, Value] = {"peer_id": "c", "mesh_key": key_of("c")}
    assert len(parse_config([section("trust", "a", PIN), section("trust", "b", other)]).pins) == 2


# --- the broker


def test_a_broker() -> None:
    config = read(
        "mqtt",
        "broker",
        {
            "enabled": "1",
            "host": "mq.example",
            "user": "router",
            "password_file": "/etc/wireguard-uplink/mqtt",
            "tls": "1",
            "ca_file": "/etc/ssl/ca.pem",
            "prefix": "site/uplinks",
        },
    )
    assert config.mqtt == MqttSettings(
        enabled=True,
        host="mq.example",
        port=8883,
        user="router",
        password_file="/etc/wireguard-uplink/mqtt",
        tls=True,
        ca_file="/etc/ssl/ca.pem",
        prefix="site/uplinks",
    )
    assert config.peering.carriers == {"mesh", "bus", "mqtt"}


def test_an_idle_broker_carries_nothing() -> None:
    config = read("mqtt", "broker", {"host": "127.0.0.1"})
    assert config.mqtt == replace(MqttSettings(), host="127.0.0.1")
    assert "mqtt" not in config.peering.carriers


def test_mqtt_alone() -> None:
    broker = section("mqtt", "broker", {"enabled": "1", "host": "::1"})
    assert parse_config([broker, main(carrier="mqtt")]).peering.carriers == {"mqtt"}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"enabled": "1"}, "broker.host is missing: it is where the broker listens"),
        ({"host": "a b"}, "broker.host is 'a b': "),
        ({"host": "224.0.0.1"}, "broker.host is '224.0.0.1': "),
        ({"port": "0"}, "broker.port is '0'"),
        (
            {"password_file": "secret"},
            "broker.password_file is 'secret': it must be a file's whole",
        ),
        ({"ca_file": "/"}, "broker.ca_file is '/'"),
        ({"prefix": "a/#"}, "broker.prefix is 'a/#'"),
        ({"prefix": "/a"}, "broker.prefix is '/a'"),
        ({"tls": "maybe"}, "broker.tls is 'maybe'"),
    ],
)
def test_bad_brokers(options: dict[str, Value], sentence: str) -> None:
    assert f"wireguard-uplink.{sentence}" in mistake(section("mqtt", "broker", options))


def test_no_password_in_the_file() -> None:
    told = mistake(section("mqtt", "broker", {"password": "hunter2"}))
    assert "broker.password: LuCI may read this file" in told
    assert "password_file" in told
    assert "hunter2" not in told


def test_unknown_options_are_warned_of() -> None:
    config = parse_config([section("provider", "local", {"limit": "5"}), main(peers="a")])
    assert len(config.warnings) == 2
    assert "wireguard-uplink.local.limit is not an option" in config.warnings[0]


def test_the_shipped_file_shows_options_that_there_are() -> None:
    """What stands there as a comment can be used by taking the # away."""
    text = (ROOT / "root/etc/config/wireguard-uplink").read_text(encoding="utf-8")
    assert parse_config(parse(text, file="f").sections) == Config()
    used = re.sub(r"^(\s*)#(?=(?:config|option|list) )", r"\1", text, flags=re.MULTILINE)
    config = parse_config(parse(used, file="f").sections)
    assert not config.warnings
    assert config.provider.enabled
    assert config.mqtt.enabled
    assert config.peering.peers
    known = set(provider_options(FULL))
    shown = set(re.findall(r"(?:option|list) (\w+)", used))
    assert known <= shown
