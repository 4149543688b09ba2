"""Sections to settings: defaults, every option, and sentences that name section, option, value."""

from __future__ import annotations

import pytest

from rpcd_wireguard_uplink.config.probe_profile import DEFAULT_PROFILE, FAST_PROFILE
from rpcd_wireguard_uplink.config.settings import (
    DEFAULT_TARGETS,
    RETIRED,
    SWITCH_BOUND_S,
    Settings,
    parse_config,
    uplink_options,
)
from rpcd_wireguard_uplink.errors import ConfigError
from rpcd_wireguard_uplink.model import Cost, Endpoint, Family, Uplink
from rpcd_wireguard_uplink.uci import Section, Value
from tests.unit.fakes import key_of

KEY = key_of("peer")
UPLINK = {"peer_id": "nodea", "public_key": KEY, "endpoint_host": "192.0.2.1"}


def main(**options: Value) -> Section:
    return Section("wireguard-uplink", "uplink", False, options)


def uplink(options: dict[str, Value] | None = None, name: str = "wgup_a") -> Section:
    return Section("uplink", name, False, {**UPLINK, **(options or {})})


def test_without_a_file_the_samples_values_stand() -> None:
    config = parse_config([])
    assert config.settings == Settings()
    assert config.settings.check_interval_s == 30
    assert config.settings.failover_timeout_s == 10
    assert config.settings.min_uplinks == 2
    assert not config.uplinks
    assert not config.warnings


def test_every_option() -> None:
    options: dict[str, Value] = {
        "enabled": "0",
        "auto_failover": "no",
        "min_uplinks": "1",
        "check_interval": "60",
        "failover_timeout": "20",
        "prefer_latency": "off",
        "pace": "fast",
        "hold_time": "0",
        "track_ip": ("192.0.2.1", "2001:db8::1"),
        "reliability": "2",
        "trusted_peer": "nodea nodeb",
        "wan": ("wan", "wwan"),
    }
    settings = parse_config([main(**options)]).settings
    assert settings == Settings(
        enabled=False,
        auto_failover=False,
        min_uplinks=1,
        check_interval_s=60.0,
        failover_timeout_s=20.0,
        prefer_latency=False,
        profile_name="fast",
        hold_s=0.0,
        targets=("192.0.2.1", "2001:db8::1"),
        reliability=2,
        trusted_peers=frozenset({"nodea", "nodeb"}),
        lines=("wan", "wwan"),
    )
    assert settings.targets_of(Family.IPV6) == ("2001:db8::1",)


@pytest.mark.parametrize("word", ["1", "on", "true", "YES", "enabled"])
def test_flags(word: str) -> None:
    assert parse_config([main(enabled=word)]).settings.enabled


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("enabled", "maybe", "enabled is 'maybe': it must be 1 or 0"),
        ("min_uplinks", "61", "a whole number from 0 to 60"),
        ("min_uplinks", "-1", "a whole number from 0 to 60"),
        ("check_interval", "0", "a whole number from 1 to 3600"),
        ("check_interval", "1.5", "a whole number"),
        ("check_interval", "\u0661", "a whole number"),
        ("check_interval", "9" * 50, f"is '{'9' * 40}'"),
        ("failover_timeout", ("1", "2"), "an option, not a list"),
        ("pace", "slow", "one of default, fast"),
        ("reliability", "21", "a whole number from 0 to 20"),
        ("track_ip", ("1.1.1.1", "example.com"), "an IPv4 or IPv6 address"),
    ],
)
def test_bad_values_are_named(option: str, value: Value, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config([main(**{option: value})])
    assert f"wireguard-uplink.uplink.{option} is " in str(caught.value)
    assert sentence in str(caught.value)


def test_an_unknown_option_or_section_is_a_warning() -> None:
    config = parse_config(
        [main(enable="1"), Section("x", "y", False, {}), uplink({"colour": "red"})]
    )
    assert len(config.warnings) == 3
    assert "wireguard-uplink.uplink.enable is not an option" in config.warnings[0]
    assert "type x" in config.warnings[1]
    assert "wgup_a.colour" in config.warnings[2]
    assert len(config.uplinks) == 1


def test_an_option_without_effect_is_a_warning_that_says_what_to_do() -> None:
    config = parse_config(
        [main(webhook="https://x/T0KEN", metrics="1", drill_interval="7", probe_budget="5")]
    )
    assert list(config.warnings) == [
        f"wireguard-uplink.uplink.{option} has no effect any more: {instead}"
        for option, instead in RETIRED.items()
    ]


def test_a_timeout_that_cannot_be_met_is_refused_with_the_arithmetic() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config([main(failover_timeout="1")])
    message = str(caught.value)
    assert "failover_timeout is 1 s" in message
    assert "needs 2.2 s" in message
    assert "0.25 s to the next" in message
    assert parse_config([main(failover_timeout="1", pace="fast")]).settings.profile_name == "fast"


@pytest.mark.parametrize("pace", ["default", "fast"])
@pytest.mark.parametrize("timeout_s", [1, 2, 3, 4, 5, 7, 10, 60, 3600])
def test_what_is_accepted_keeps_the_timeout(timeout_s: int, pace: str) -> None:
    """Also on an idle line, on the slowest line, and with evidence that holds a verdict up."""
    try:
        settings = parse_config([main(failover_timeout=str(timeout_s), pace=pace)]).settings
    except ConfigError:
        assert timeout_s < 3
        assert pace == "default"
        return
    used = settings.probe_profile
    assert settings.detection_bound_s() <= timeout_s
    assert used.timeout_floor_s <= used.timeout_cap_s <= DEFAULT_PROFILE.timeout_cap_s
    assert used.passive_limit_s + used.longest_silence_s + SWITCH_BOUND_S <= max(
        timeout_s, used.longest_silence_s + SWITCH_BOUND_S
    )
    if timeout_s >= 5:
        idle_s = used.idle_interval_s - used.interval_s
        assert settings.detection_bound_s() + idle_s <= timeout_s


def test_paces() -> None:
    assert Settings().probe_profile.interval_s == DEFAULT_PROFILE.interval_s
    assert Settings(profile_name="fast").probe_profile.silence_s == FAST_PROFILE.silence_s
    assert {Family.IPV4, Family.IPV6} == {
        f for f in Family if Settings(targets=DEFAULT_TARGETS).targets_of(f)
    }


def test_an_uplink_is_read_as_it_was_written() -> None:
    written = Uplink(
        peer_id="nodea",
        interface="wgup_a",
        endpoint=Endpoint("gw.example", 1234),
        public_key=KEY,
        addresses=("10.1.2.3/32", "fd00::1/128"),
        own_public_key=key_of("own"),
        weight=42,
        pending=True,
        enabled=False,
        auto=True,
        leased=True,
        inbound=True,
        cost=Cost(True, 50.0, 0.25),
    )
    section = Section("uplink", "wgup_a", False, uplink_options(written))
    config = parse_config([section])
    assert config.uplinks == (written,)
    assert config.warnings == ()


def test_defaults_of_an_uplink() -> None:
    [found] = parse_config([uplink()]).uplinks
    assert (found.weight, found.endpoint.port, found.addresses) == (10, 51820, ())
    assert (found.pending, found.enabled, found.auto, found.leased) == (False, True, False, False)
    assert found.cost is None, "nobody has said yet what it costs"
    assert parse_config([uplink({"metered": "0"})]).uplinks[0].cost == Cost()
    assert not found.inbound, "a provider begins no connection until the owner says so"
    assert parse_config([uplink({"address": "10.0.0.1 fd00::1"})]).uplinks[0].addresses == (
        "10.0.0.1/32",
        "fd00::1/128",
    )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"peer_id": ""}, "wgup_a.peer_id is missing"),
        ({"public_key": "abc"}, "wgup_a.public_key is not a WireGuard key"),
        ({"endpoint_host": ""}, "wgup_a.endpoint_host is missing"),
        ({"endpoint_host": "127.0.0.1"}, "wgup_a.endpoint_host is '127.0.0.1': "),
        ({"endpoint_port": "0"}, "wgup_a.endpoint_port is '0'"),
        ({"address": "224.0.0.1"}, "wgup_a.address is '224.0.0.1': "),
        ({"auto": "perhaps"}, "wgup_a.auto is 'perhaps': it must be 1 or 0"),
        ({"leased": "2"}, "wgup_a.leased is '2': it must be 1 or 0"),
        ({"metered": "maybe"}, "wgup_a.metered is 'maybe'"),
        ({"price_per_gb": "-1"}, "wgup_a.price_per_gb is '-1'"),
        ({"weight": "101"}, "wgup_a.weight is '101'"),
    ],
)
def test_bad_uplinks(options: dict[str, Value], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config([uplink(options)])
    assert sentence in str(caught.value)


def test_a_bad_key_is_not_quoted() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config([uplink({"public_key": "perhaps-a-private-key"})])
    assert "perhaps" not in str(caught.value)


def test_two_uplinks_to_one_peer_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"wgup_b and wireguard-uplink\.wgup_a have the same peer_id"
    ):
        parse_config([uplink(), uplink(name="wgup_b")])


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({}, (False, 0.0, 0.2, 0.0)),
        ({"fail_closed": "1"}, (True, 0.0, 0.2, 0.0)),
        ({"sticky_failback": "1"}, (False, 600.0, 0.2, 0.0)),
        ({"sticky_failback": "1", "sticky_time": "60"}, (False, 60.0, 0.2, 0.0)),
        ({"sticky_time": "60"}, (False, 0.0, 0.2, 0.0)),
        ({"max_loss": "0", "max_latency": "250"}, (False, 0.0, 0.0, 0.25)),
    ],
)
def test_what_is_good_enough_and_what_it_may_cost(
    options: dict[str, str], found: tuple[object, ...]
) -> None:
    read = parse_config([main(**options)]).settings
    told = (read.fail_closed, read.sticky_s, read.max_loss, read.max_latency_s)
    assert told == found


@pytest.mark.parametrize(("option", "value"), [("sticky_time", "0"), ("max_loss", "101")])
def test_limits_that_are_none(option: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"uplink.{option} is '{value}'"):
        parse_config([main(**{option: value})])
