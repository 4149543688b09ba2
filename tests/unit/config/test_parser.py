"""Sections to settings: each option's good and bad values, and what takes a bad one's place."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpcd_wireguard_uplink.config.option import Fallback, Option
from rpcd_wireguard_uplink.config.options import (
    RETIRED,
    SECTIONS,
    MqttSettings,
    PeerSettings,
    ProviderSettings,
    Settings,
    consumer_name,
    pin_name,
)
from rpcd_wireguard_uplink.config.parser import parse_config
from rpcd_wireguard_uplink.config.settings import Config
from rpcd_wireguard_uplink.model import Cost, Family
from rpcd_wireguard_uplink.text import printable
from rpcd_wireguard_uplink.uci import Section, Value, parse
from tests.repo import ROOT
from tests.unit.config.samples import NAMES, SAMPLES, full, section, whole_file
from tests.unit.fakes import key_of

GOOD = parse_config(whole_file())
ROWS = [
    pytest.param(kind.type, option, bad, id=f"{kind.type}.{option.name}-{bad}")
    for kind in SECTIONS.values()
    for option in kind.options
    for bad in SAMPLES[kind.type][option.name][1:]
]


def same(found: Config, wanted: Config) -> bool:
    """Whether both say the same, whatever is wrong with one of them."""
    return replace(found, faults=(), good=()) == replace(wanted, faults=(), good=())


def told_by(config: Config) -> str:
    (fault,) = config.faults
    return str(fault)


def test_every_option_has_samples() -> None:
    for kind in SECTIONS.values():
        assert [option.name for option in kind.options] == list(SAMPLES[kind.type])
        for option in kind.options:
            assert option.help and not option.help.endswith(".")


def test_a_whole_file_has_no_faults() -> None:
    assert not GOOD.warnings
    assert GOOD.names == set(NAMES.values())
    assert GOOD.peering.carriers == {"bus", "mqtt"}, "mqtt exactly where the broker is enabled"


@pytest.mark.parametrize(("kind", "option", "bad"), ROWS)
def test_a_bad_value_falls_back_alone_to_the_last_good_one(
    kind: str, option: Option, bad: Value
) -> None:
    read = parse_config(whole_file(full(kind, **{option.name: bad})), GOOD.good)
    assert same(read, GOOD)
    told, name = told_by(read), f"{NAMES[kind]}.{option.name}"
    assert f"wireguard-uplink.{name} is " in told
    command = name.removeprefix("uplink.")
    assert f"`wgctl uplink set {command} " in told or f"`wgctl uplink unset {command}`" in told
    is_list = isinstance(bad, tuple) and not option.many
    items = bad if isinstance(bad, tuple) else (bad,)
    must = next(filter(None, map(option.why_not, items)), "")
    assert ("an option, not a list" if is_list else must) in told
    is_shown = any(printable(item[:40]) in told for item in items)
    assert is_shown is not option.secret
    again = parse_config(whole_file(full(kind, **{option.name: bad})), read.good)
    assert again == read, "what was good last is remembered"


@pytest.mark.parametrize(("kind", "option", "bad"), ROWS)
def test_a_bad_value_without_a_good_one_before_refuses(
    kind: str, option: Option, bad: Value
) -> None:
    changed = full(kind, **{option.name: bad})
    read = parse_config(whole_file(changed))
    without = parse_config(whole_file(full(kind, **{option.name: None})))
    if kind in ("uplink", "anchor", "consumer", "trust") and option.bad is Fallback.OFF:
        kept = {"uplink": read.uplinks, "consumer": read.consumers, "trust": read.pins}
        kept["anchor"] = read.anchors
        assert not kept[kind] and NAMES[kind] in read.names
        assert "the section is not used" in told_by(read)
    elif option.bad is Fallback.OFF:
        assert not (read.provider if kind == "provider" else read.mqtt).enabled
        assert told_by(read)
    elif option.bad is Fallback.DEFAULT:
        assert same(read, without) and told_by(read)
    else:
        text = option.text(option.bad)
        assert same(read, parse_config(whole_file(full(kind, **{option.name: text}))))
        assert f"{text} is used" in told_by(read)


@pytest.mark.parametrize(
    ("kind", "option", "value"),
    [
        ("wireguard-uplink", "fail_closed", True),
        ("wireguard-uplink", "trust", "master-link"),
        ("provider", "enabled", False),
        ("provider", "metered", True),
        ("mqtt", "tls", True),
        ("uplink", "metered", True),
        ("uplink", "enabled", False),
        ("uplink", "inbound", False),
    ],
)
def test_what_refuses(kind: str, option: str, value: object) -> None:
    row = SECTIONS[kind].option(option)
    assert row is not None
    assert (row.default if row.bad is Fallback.DEFAULT else row.bad) == value


def test_a_bad_item_of_a_list_is_left_out_alone() -> None:
    read = parse_config([full("wireguard-uplink", trusted_peer=("nodec", "a b"))], GOOD.good)
    assert read.settings.trusted_peers == {"nodec"}, "nodeb was taken out: that stays so"
    assert told_by(read).endswith(
        "; it is left out: `wgctl uplink set trusted_peer nodec` mends it"
    )
    read = parse_config([full("wireguard-uplink", peer=("nodeC fd00::3", "x"))], GOOD.good)
    assert read.peering.peers == (("nodeC", "fd00::3"),)
    assert "`wgctl uplink set peer 'nodeC fd00::3'`" in told_by(read)


def test_the_command_that_mends_sets_what_is_in_force() -> None:
    read = parse_config([full("wireguard-uplink", min_uplinks="61")], GOOD.good)
    assert shlex.split(read.faults[0].mend) == ["wgctl", "uplink", "set", "min_uplinks", "3"]
    read = parse_config([full("wireguard-uplink", node_id="-a")])
    assert read.faults[0].mend == "wgctl uplink unset node_id"


def test_several_bad_options_are_as_many_faults() -> None:
    read = parse_config(
        [full("wireguard-uplink", pace="x", hold_time="x"), full("uplink", weight="x")], GOOD.good
    )
    assert len(read.faults) == 3
    assert read.uplinks == GOOD.uplinks and read.settings == GOOD.settings


# --- what a section needs, and what it may not share


@pytest.mark.parametrize("kind", ["uplink", "consumer", "trust"])
def test_what_is_missing_is_told(kind: str) -> None:
    for option in SECTIONS[kind].options:
        if option.needed:
            cut = whole_file(full(kind, **{option.name: None}))
            told = told_by(parse_config(cut))
            assert f"{NAMES[kind]}.{option.name} is missing: it {option.needed}" in told
            assert same(parse_config(cut, GOOD.good), GOOD), "a file that is cut off ends nothing"


def test_a_broker_needs_a_host() -> None:
    read = parse_config([full("mqtt", host=None), full("wireguard-uplink", carrier=("mqtt",))])
    assert not read.mqtt.enabled and read.peering.carriers == {"bus"}
    assert "broker.host is missing: it is where the broker listens" in str(read.faults[0])
    assert "uplink.carrier names mqtt: set enabled and host in a section" in str(read.faults[1])


@pytest.mark.parametrize(
    ("kind", "name", "told"),
    [
        ("provider", "other", "other: name it: config provider 'local'"),
        ("mqtt", "other", "other: name it: config mqtt 'broker'"),
        ("uplink", "a", "a: an uplink's section is named like its interface: wgup_ and up to 8"),
        ("uplink", "wgup_ifb", "none of wgup_ifb, wgup_srv, wgup_try; it is not used"),
        ("uplink", "wgup_far_too_long", "wgup_far_too_long: an uplink's section is named"),
    ],
)
def test_sections_have_names(kind: str, name: str, told: str) -> None:
    read = parse_config([replace(full(kind), name=name)])
    assert told in told_by(read)
    assert not read.uplinks and not read.provider.enabled and not read.mqtt.enabled


CLASHES = [
    ("uplink", "wgup_b", {"peer_id": "c"}, ("peer_id",)),
    (
        "consumer",
        "consumer_b",
        {"peer_id": "c", "public_key": key_of("c"), "address": ("10.9.0.3/32", "fd00::3/128")},
        ("peer_id", "public_key", "address"),
    ),
    (
        "trust",
        "trust_c",
        {"peer_id": "c", "mesh_key": key_of("c"), "identity": key_of("j")},
        ("peer_id", "mesh_key", "identity"),
    ),
]


@pytest.mark.parametrize(
    ("kind", "name", "other", "shared"),
    [(kind, name, other, each) for kind, name, other, shared in CLASHES for each in shared],
)
def test_sections_of_a_type_differ(
    kind: str, name: str, other: dict[str, Value], shared: str
) -> None:
    def records(config: Config) -> tuple[object, ...]:
        return (*config.uplinks, *config.consumers, *config.pins)

    first = full(kind)
    second = replace(full(kind, **other), name=name)
    both = parse_config([first, second])
    assert len(records(both)) == 2 and not both.faults
    clash = replace(second, options={**second.options, shared: first.options[shared]})
    read = parse_config([first, clash])
    where = f"wireguard-uplink.{name} and wireguard-uplink.{first.name}"
    assert told_by(read).startswith(f"{where} have the same {shared}; ")
    assert len(records(read)) == (0 if kind == "trust" else 1)
    known = parse_config([clash, first], both.good)
    assert records(known) == records(both)[:1], "the one that is as it was"
    assert records(parse_config([clash, first], known.good)) == records(both)[:1]


def test_mesh_peers_have_addresses_of_their_own() -> None:
    clash = ("a 10.9.0.1", "b 10.9.0.1", "c 10.9.0.2")
    read = parse_config([section("wireguard-uplink", {"peer": clash})])
    assert read.peering.peers == (("c", "10.9.0.2"),)
    assert "peer b 10.9.0.1 and peer a 10.9.0.1 have the same mesh address" in told_by(read)
    before = parse_config([section("wireguard-uplink", {"peer": clash[1:]})])
    for _ in range(2):
        before = parse_config([section("wireguard-uplink", {"peer": clash})], before.good)
        assert before.peering.peers == (("b", "10.9.0.1"), ("c", "10.9.0.2"))


# --- defaults, forms, what is unknown


def test_without_sections_the_defaults_are_in_force() -> None:
    assert parse_config([]) == Config()
    for kind, made in (("wireguard-uplink", Settings()), ("provider", ProviderSettings())):
        read = parse_config([section(kind, {})])
        assert made in (read.settings, read.provider)
    assert (Config().peering, Config().mqtt) == (PeerSettings(), MqttSettings())


def test_defaults_of_an_uplink() -> None:
    needed = ("peer_id", "public_key", "endpoint_host")
    options = {name: SAMPLES["uplink"][name][0] for name in needed}
    [found] = parse_config([section("uplink", options)]).uplinks
    assert (found.weight, found.endpoint.port, found.addresses) == (10, 51820, ())
    assert (found.pending, found.enabled, found.auto, found.leased) == (False, True, False, False)
    assert found.cost is None, "nobody has said yet what it costs"
    assert not found.inbound, "a provider begins no connection until the owner says so"
    [told] = parse_config([section("uplink", {**options, "metered": "0"})]).uplinks
    assert told.cost == Cost()


@pytest.mark.parametrize("word", ["1", "on", "true", "YES", "enabled"])
def test_flags(word: str) -> None:
    assert parse_config([section("wireguard-uplink", {"fail_closed": word})]).settings.fail_closed


def test_a_list_may_be_one_option() -> None:
    options: dict[str, Value] = {"trusted_peer": "nodea nodeb", "peer": "nodeB  FD00:0::2"}
    read = parse_config([section("wireguard-uplink", options)])
    assert read.settings.trusted_peers == {"nodea", "nodeb"}
    assert read.peering.peers == (("nodeB", "fd00::2"),)


def test_the_broker_may_run_on_this_router_and_has_two_ports() -> None:
    for host in ("localhost", "::1", "127.0.0.1"):
        read = parse_config([section("mqtt", {"host": host, "enabled": "1"})])
        assert (read.mqtt.host, read.mqtt.port) == (host, 1883)
    assert parse_config([full("mqtt", port=None)]).mqtt.port == 8883
    assert "mqtt" not in parse_config([full("mqtt", enabled=None)]).peering.carriers


@pytest.mark.parametrize(
    ("options", "sticky_s"), [({}, 0), ({"sticky_failback": "1"}, 600), ({"sticky_time": "60"}, 0)]
)
def test_connections_stay_only_where_the_owner_says_so(
    options: dict[str, Value], sticky_s: float
) -> None:
    assert parse_config([section("wireguard-uplink", options)]).settings.sticky_s == sticky_s


def test_what_is_unknown_is_a_warning() -> None:
    read = parse_config(
        [
            full("uplink", colour="red"),
            section("wireguard-uplink", {}),
            Section("x", "y", False, {}),
        ]
    )
    assert "wireguard-uplink.wgup_a.colour is not an option of this service" in read.warnings
    assert "wireguard-uplink.y: sections of type x are unknown" in read.warnings
    retired: dict[str, Value] = dict.fromkeys(RETIRED, "1")
    read = parse_config([section("wireguard-uplink", retired)])
    assert len(read.warnings) == len(RETIRED) and "no effect any more" in read.warnings[0]


def test_a_timeout_that_the_pace_cannot_keep_falls_back_with_the_arithmetic() -> None:
    main = section("wireguard-uplink", {"failover_timeout": "1"})
    read = parse_config([main])
    told = told_by(read)
    assert "failover_timeout is 1 s" in told and "needs 2.2 s" in told
    assert "0.25 s to the next" in told and "failover_timeout 10 is used" in told
    assert read.settings == Settings()
    before = parse_config([section("wireguard-uplink", {"failover_timeout": "12"})])
    for _ in range(2):
        before = parse_config([main], before.good)
        assert before.settings.failover_timeout_s == 12
    fast = section("wireguard-uplink", {"failover_timeout": "1", "pace": "fast"})
    assert not parse_config([fast]).faults
    kept = parse_config([main], parse_config([fast]).good)
    assert (kept.settings.profile_name, kept.settings.failover_timeout_s) == ("fast", 1)
    assert "the last good pace fast stays in force" in told_by(kept)


def test_the_shipped_file_shows_options_that_there_are() -> None:
    """What is a comment there can be used by taking the # away."""
    text = (ROOT / "root/etc/config/wireguard-uplink").read_text(encoding="utf-8")
    shipped = parse_config(parse(text, file="f").sections)
    assert same(replace(shipped, names=frozenset()), Config()) and not shipped.warnings
    used = re.sub(r"^(\s*)#(?=(?:config|option|list) )", r"\1", text, flags=re.MULTILINE)
    config = parse_config(parse(used, file="f").sections)
    assert not config.warnings
    assert config.provider.enabled and config.mqtt.enabled and config.peering.peers
    shown = set(re.findall(r"(?:option|list) (\w+)", used))
    assert {option.name for option in SECTIONS["provider"].options} <= shown


def test_names_of_sections_can_be_written() -> None:
    key = key_of("consumer")
    assert consumer_name(key) == consumer_name(key) != consumer_name(key_of("other"))
    assert pin_name("a") == pin_name("a") != pin_name("A")
    names = [consumer_name(key), pin_name("a.b-c")]
    text = f"config consumer '{names[0]}'\n\nconfig trust '{names[1]}'\n"
    assert [each.name for each in parse(text, file="f").sections] == names


TEXTS = st.text(max_size=20) | st.sampled_from(["0", "1", "1.1.1.1", "10.0.0.0/24", key_of("a")])


@given(
    st.sampled_from([(kind, o.name) for kind in SAMPLES for o in SECTIONS[kind].options]),
    TEXTS | st.lists(TEXTS, min_size=1, max_size=3).map(tuple),
)
def test_nothing_in_an_option_raises_or_touches_another_section(
    place: tuple[str, str], value: Value
) -> None:
    kind, name = place
    read = parse_config(whole_file(full(kind, **{name: value or "x"})), GOOD.good)
    parts = {
        "wireguard-uplink": ("settings",),
        "provider": ("provider",),
        "mqtt": ("mqtt",),
        "uplink": ("uplinks",),
        "consumer": ("consumers",),
        "trust": ("pins",),
    }
    for other, fields in parts.items():
        for each in fields:
            assert other == kind or getattr(read, each) == getattr(GOOD, each)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "has nothing to know connections by"),
        ({"port": ("22",), "protocol": ("icmp", "gre")}, "has ports, which only tcp and udp have"),
        ({"source": ("10.7.0.9",), "destination": ("2001:db8::/32",)}, "sources of one address"),
        ({"port": ("22",), "protocol": ("icmp", "tcp")}, ""),
        ({"source": ("10.7.0.9",), "destination": ("2001:db8::/32", "192.0.2.1")}, ""),
    ],
)
def test_an_anchor_that_fits_nothing_or_all_is_not_used(
    options: dict[str, Value], told: str
) -> None:
    read = parse_config([section("anchor", {"peer": "nodea", **options})])
    assert [anchor.name for anchor in read.anchors] == ["calls"] * (not told)
    assert [told in str(fault) for fault in read.faults] == [True] * bool(told)


def test_what_an_anchor_holds() -> None:
    options = {"peer": "nodea", "port": ("53", "16384-32767"), "dscp": ("EF", "af41", "8")}
    [anchor] = parse_config([section("anchor", options)]).anchors
    assert anchor.ports == ((53, 53), (16384, 32767)) and anchor.dscp == {46, 34, 8}
    assert anchor.asks_names and anchor.addresses(Family.IPV6) == ([], [])
