"""How often each path is probed, and whether people use it."""

from __future__ import annotations

import pytest

from rpcd_wireguard_uplink.config.probe_profile import DEFAULT_PROFILE
from rpcd_wireguard_uplink.failover.detector import PathHealth
from rpcd_wireguard_uplink.failover.machine import Phase
from rpcd_wireguard_uplink.failover.paths import WatchedPath
from rpcd_wireguard_uplink.failover.schedule import NEW_PATH_S, Busyness, Role, Traffic, interval_s
from rpcd_wireguard_uplink.model import Family, Health, PathKind
from rpcd_wireguard_uplink.probing.icmp import Prober
from rpcd_wireguard_uplink.probing.probe_kind import ProbeKind

V4 = Family.IPV4
UP, SUSPECT, DOWN, UNKNOWN = Health.UP, Health.SUSPECT, Health.DOWN, Health.UNKNOWN
NOW_S, CHECK_S = 1000.0, 30.0
FAST_S, CONFIRM_S, IDLE_S = 0.25, 0.1, 2.0


def path(
    kind: PathKind = PathKind.UPLINK,
    state: Health = UP,
    answer_age_s: float | None = 0.0,
    born_s: float = 0.0,
    used: bool = True,
) -> WatchedPath:
    health = PathHealth(DEFAULT_PROFILE, ("192.0.2.1",))
    health.state = state
    health.last_answer_s = None if answer_age_s is None else NOW_S - answer_age_s
    return WatchedPath("d", kind, V4, health, Prober("d", V4), born_s, is_used=used)


def pace_s(watched: WatchedPath, *role: object) -> float:
    return interval_s(watched, Role(*role), DEFAULT_PROFILE, CHECK_S, NOW_S)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("phase", "role", "state", "used", "answer_age_s", "expected_s"),
    [
        (Phase.PRIMARY, "primary", UP, True, 0.1, FAST_S),
        (Phase.PRIMARY, "primary", UP, False, 0.1, IDLE_S),
        (Phase.PRIMARY, "primary", SUSPECT, False, 0.1, CONFIRM_S),
        (Phase.FAILED_OVER, "primary", DOWN, False, 99.0, FAST_S),
        (Phase.HOLDING, "primary", UP, False, 0.1, FAST_S),
        (Phase.FAILED_OVER, "active", UP, True, 0.1, FAST_S),
        (Phase.FAILED_OVER, "active", SUSPECT, True, 0.1, CONFIRM_S),
        (Phase.PRIMARY, "backup", UP, True, 20.0, CHECK_S),
        (Phase.PRIMARY, "backup", DOWN, True, 20.0, CHECK_S),
        (Phase.SUSPECT, "backup", UP, True, 20.0, CONFIRM_S),
        (Phase.SUSPECT, "backup", UP, True, 0.5, CHECK_S),
        (Phase.SUSPECT, "backup", DOWN, True, None, CONFIRM_S),
        (Phase.STRANDED, "backup", DOWN, True, 20.0, FAST_S),
        (Phase.FAILED_OVER, "backup", UP, True, 20.0, 5.0),
        (Phase.PRIMARY, "new backup", UNKNOWN, True, None, 1.0),
        (Phase.PRIMARY, "new backup", UP, True, 0.5, CHECK_S),
        (Phase.PRIMARY, "backup", UNKNOWN, True, None, CHECK_S),
    ],
)
def test_pace(
    phase: Phase,
    role: str,
    state: Health,
    used: bool,
    answer_age_s: float | None,
    expected_s: float,
) -> None:
    born_s = NOW_S - (1.0 if role.startswith("new") else NEW_PATH_S)
    watched = path(PathKind.UPLINK, state, answer_age_s, born_s, used)
    assert pace_s(watched, phase, role == "primary", role == "active") == expected_s


def test_probes_that_are_a_connection_each_are_sent_less_often() -> None:
    watched = path(PathKind.WAN)
    for method in ProbeKind:
        watched.kinds.present = method
        assert pace_s(watched, Phase.PRIMARY, True, True) == (1.0 if method.is_dear else FAST_S)


def test_probes_that_nobody_waits_for_leave_together() -> None:
    """Paths that began at odd moments, each with a pause of its own, and a clock that is late."""
    health, pauses = PathHealth(DEFAULT_PROFILE, ("192.0.2.1",)), (2.0, 2.0, 5.0, 30.0)
    paths = [WatchedPath("d", PathKind.UPLINK, V4, health, Prober("d", V4), 0.0) for _ in pauses]
    for number, (path, pause_s) in enumerate(zip(paths, pauses, strict=True)):
        path.last_sent_s, path.pause_s = NOW_S + 0.73 * number, pause_s
    woken, now_s, sent = set(), NOW_S, [0, 0, 0, 0]
    while now_s < NOW_S + 120:
        now_s = min(path.probe_due_s for path in paths) + 0.013
        woken.add(now_s)
        for number, path in enumerate(paths):
            if now_s >= path.probe_due_s:
                assert now_s - path.last_sent_s < path.pause_s + 0.3
                path.last_sent_s, sent[number] = now_s, sent[number] + 1
    assert len(woken) <= 60 + 12 + 1, "at multiples of 2 s, and at 5 s, 15 s ..."
    assert sent == [60, 60, 24, 4], "as often as their pauses say, but for the first ones"


@pytest.mark.parametrize("pause_s", [0.1, 0.25, float("inf")])
def test_probes_that_are_waited_for_leave_at_their_time(pause_s: float) -> None:
    health = PathHealth(DEFAULT_PROFILE, ("192.0.2.1",))
    path = WatchedPath("d", PathKind.WAN, V4, health, Prober("d", V4), 0.0, pause_s=pause_s)
    assert path.probe_due_s < NOW_S or pause_s == float("inf"), "the first one at once"
    path.last_sent_s = NOW_S + 0.73
    assert path.probe_due_s == NOW_S + 0.73 + pause_s


def test_a_backup_that_may_soon_be_needed_is_probed_fast() -> None:
    backup = path(answer_age_s=20.0)
    assert pace_s(backup, Phase.PRIMARY, False, False, True) == FAST_S
    assert pace_s(backup, Phase.PRIMARY, False, False, False) == CHECK_S


def test_use_is_noticed_at_once_and_idleness_after_a_window() -> None:
    traffic = Traffic(window_s=10.0)
    assert traffic.seen(1000, 0.0), "a line counts as used until it is known to be idle"
    assert traffic.seen(1003, 9.9)
    assert not traffic.seen(1004, 10.0)
    assert not traffic.seen(1014, 11.0)
    assert traffic.seen(1015, 12.0), "eleven packets since the window began"


def test_own_probes_and_counters_that_begin_anew_are_no_use() -> None:
    traffic = Traffic(window_s=10.0)
    traffic.seen(0, 0.0)
    for number in range(1, 101):
        traffic.probed()
        traffic.seen(number, number / 10)
    assert not traffic.is_used
    traffic = Traffic(window_s=10.0)
    traffic.seen(5000, 0.0)
    traffic.seen(5001, 10.0)
    assert not traffic.is_used
    assert not traffic.seen(3, 20.0)
    assert not traffic.seen(4, 30.0)


@pytest.mark.parametrize(
    ("seconds", "pause_s", "lag_s", "was_busy", "is_busy"),
    [
        (600.0, 0.1, 0.04, False, False),
        (5.0, 0.1, 0.2, False, False),
        (20.0, 0.1, 0.2, False, True),
        (20.0, 2.0, 0.06, False, True),
        (1.0, 1.0, 900.0, False, False),  # one hiccup, be it a suspended machine
        (60.0, 0.1, 0.0, True, True),
        (600.0, 0.1, 0.0, True, False),
        (600.0, 0.1, 0.2, True, True),
    ],
)
def test_a_router_is_busy_whose_ticks_come_late_for_a_while(
    seconds: float, pause_s: float, lag_s: float, was_busy: bool, is_busy: bool
) -> None:
    busyness, changes, now_s = Busyness(), 0, NOW_S
    if was_busy:
        while not busyness.is_busy:
            now_s += 0.3
            busyness.ticked(0.2, now_s)
    end_s = now_s + seconds
    while now_s < end_s:
        now_s += pause_s
        changes += busyness.ticked(lag_s, now_s)
    assert busyness.is_busy is is_busy
    assert changes == (was_busy is not is_busy)
