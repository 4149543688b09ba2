"""What probes of an idle backup take in a day, by arithmetic and by a simulated one."""

from __future__ import annotations

import pytest

from rpcd_wireguard_uplink.config.settings import Settings
from rpcd_wireguard_uplink.failover.budget import DAY_S, PROBE_BYTES, Budget
from rpcd_wireguard_uplink.model import Family

KEEPALIVE_BYTES = 2 * (32 + 48)  # an empty WireGuard packet in UDP and IPv6, each way
KEEPALIVE_S = 25


def test_the_default_is_far_below_five_megabytes() -> None:
    each = sum(PROBE_BYTES[family] for family in Family)
    probes = each * DAY_S / Settings().check_interval_s
    keepalives = KEEPALIVE_BYTES * DAY_S / KEEPALIVE_S
    assert each == 512
    assert probes == pytest.approx(1.47e6, rel=0.01)
    full_size = 24 * 2 * 1500  # mtu_watch.py, once an hour
    assert probes + keepalives + full_size < 2.18e6 < Settings().probe_budget == 5e6


@pytest.mark.parametrize("wanted_s", [0.1, 1.0, 5.0, 12.0, 30.0, 600.0])
@pytest.mark.parametrize("limit", [0.5e6, 2.5e6])
def test_a_day_never_takes_more(limit: float, wanted_s: float) -> None:
    budget = Budget(256, limit)
    now_s, sent = 1e6, 0
    while now_s < 1e6 + DAY_S:
        budget.spend(now_s)
        sent += 1
        now_s += budget.slowed_s(wanted_s, now_s)
    assert sent * 256 <= limit + 512
    assert sent >= min(DAY_S / wanted_s, 0.9 * limit / 256), "nor much less than it may"


def test_a_quarter_may_go_at_once() -> None:
    budget = Budget(256, 2.5e6)
    count = 0
    while budget.slowed_s(0.01, 0.0) == 0.01:
        budget.spend(0.0)
        count += 1
    assert count * 256 == pytest.approx(2.5e6 / 4, rel=0.01)
    assert budget.slowed_s(0.01, 0.0) == pytest.approx(11.8, abs=0.1)
    assert budget.slowed_s(30.0, 0.0) == 30.0, "nothing is sent more often than it was wanted"


def test_what_was_needed_at_once_is_not_owed() -> None:
    budget = Budget(256, 2.5e6)
    for _ in range(100_000):
        budget.spend(0.0)
    assert budget.slowed_s(1.0, 60.0) == 1.0, "an hour of the fast pace ends as soon as a minute"


def test_without_a_limit_nothing_slows() -> None:
    budget = Budget(256)
    for _ in range(100_000):
        budget.spend(0.0)
    assert budget.slowed_s(0.1, 0.0) == 0.1
