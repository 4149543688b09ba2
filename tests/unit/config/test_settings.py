"""What settings come to: the pace that keeps the timeout, the targets of a family."""

from __future__ import annotations

import pytest

from rpcd_wireguard_uplink.config.options import SWITCH_BOUND_S, Settings
from rpcd_wireguard_uplink.config.parser import parse_config
from rpcd_wireguard_uplink.config.probe_profile import DEFAULT_PROFILE, FAST_PROFILE
from rpcd_wireguard_uplink.model import Family
from rpcd_wireguard_uplink.uci import Section


@pytest.mark.parametrize("pace", ["default", "fast"])
@pytest.mark.parametrize("timeout_s", [1, 2, 3, 4, 5, 7, 10, 60, 3600])
def test_what_is_accepted_keeps_the_timeout(timeout_s: int, pace: str) -> None:
    """Also on an idle WAN, on the slowest WAN, and with evidence that holds a verdict up."""
    options = {"failover_timeout": str(timeout_s), "pace": pace}
    read = parse_config([Section("wireguard-uplink", "uplink", False, options)])
    if read.faults:
        assert timeout_s < 3
        assert pace == "default"
        return
    settings = read.settings
    used = settings.probe_profile
    assert settings.detection_bound_s() <= timeout_s
    assert used.timeout_floor_s <= used.timeout_cap_s <= DEFAULT_PROFILE.timeout_cap_s
    assert used.passive_limit_s + used.longest_silence_s + SWITCH_BOUND_S <= max(
        timeout_s, used.longest_silence_s + SWITCH_BOUND_S
    )
    if timeout_s >= 5:
        idle_s = used.idle_interval_s - used.interval_s
        assert settings.detection_bound_s() + idle_s <= timeout_s


def test_paces_and_targets() -> None:
    assert Settings().probe_profile.interval_s == DEFAULT_PROFILE.interval_s
    assert Settings(profile_name="fast").probe_profile.silence_s == FAST_PROFILE.silence_s
    assert {f for f in Family if Settings().targets_of(f)} == {Family.IPV4, Family.IPV6}
    assert Settings(targets=("192.0.2.1", "2001:db8::1")).targets_of(Family.IPV6) == (
        "2001:db8::1",
    )
