"""The verdicts on one path, step by step: what makes it suspect, dead, alive, and what does not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rpcd_wireguard_uplink.config.probe_profile import DEFAULT_PROFILE, FAST_PROFILE, ProbeProfile
from rpcd_wireguard_uplink.failover.detector import CALM_ROW, HEALED_KEPT_S, RISE, PathHealth
from rpcd_wireguard_uplink.model import Health
from rpcd_wireguard_uplink.probing.link_quality import Sla
from rpcd_wireguard_uplink.probing.targets import LOSSES, REST_S

TARGETS = ("a", "b", "c")
RTT_S = 0.02


class Path:
    """A PathHealth with a clock of its own: each probe is answered or lost as it is told."""

    def __init__(
        self, profile: ProbeProfile = DEFAULT_PROFILE, targets: tuple[str, ...] = TARGETS
    ) -> None:
        self.health = PathHealth(profile, targets)
        self.now_s = 100.0
        self.number = 0
        self.dead_targets: set[str] = set()

    def send(self) -> int:
        self.number += 1
        self.target = self.health.next_target(self.now_s)
        self.health.sent(self.number, self.target, self.now_s)
        return self.number

    def wait(self, seconds: float) -> None:
        self.now_s += seconds
        self.health.expire(self.now_s)

    def probe(self, *fates: bool, every_s: float = 0.1) -> None:
        """One probe for each fate, answered after RTT_S or never."""
        for is_answered in fates:
            number = self.send()
            if is_answered and self.target not in self.dead_targets:
                self.health.answered(number, self.now_s + RTT_S)
            self.wait(every_s)

    @property
    def state(self) -> Health:
        return self.health.state


@pytest.fixture
def path() -> Path:
    """A path that is up."""
    path = Path()
    path.probe(*[True] * 10)
    return path


def test_nothing_is_known_before_the_first_answer() -> None:
    path = Path()
    assert path.state is Health.UNKNOWN
    assert path.health.latency_ms == -1
    assert path.health.loss_pct == 0
    assert path.health.timeout_s == 1.0
    assert path.health.next_deadline_s() is None
    number = path.send()
    assert path.health.next_deadline_s() == path.now_s + 1.0
    path.health.answered(number, path.now_s + 0.5)
    assert path.state is Health.UP
    assert path.health.latency_ms == 500


def test_a_path_that_never_answered_falls_too() -> None:
    path = Path()
    path.probe(*[False] * 40)
    assert path.state is Health.DOWN
    assert "no answer" in path.health.cause


def test_the_first_loss_makes_it_suspect_and_answers_lift_that(path: Path) -> None:
    path.probe(False)
    path.wait(0.01)
    assert path.state is Health.SUSPECT
    path.probe(*[True] * (CALM_ROW - 1))
    assert path.state is Health.SUSPECT
    path.probe(True)
    assert path.state is Health.UP
    assert path.health.silent_since_s is None


def test_silence_needs_its_time(path: Path) -> None:
    begun_s = path.now_s
    while path.state is not Health.DOWN:
        path.probe(False)
    assert path.now_s - begun_s == pytest.approx(DEFAULT_PROFILE.silence_s, abs=0.11)
    assert path.health.detection_s == pytest.approx(DEFAULT_PROFILE.silence_s, abs=0.11)
    assert path.health.cause == "no answer to 17 probes in 1.7 s"


def test_a_path_whose_silences_heal_is_given_more_time(path: Path) -> None:
    path.probe(*[False] * 6, *[True] * 10)
    begun_s = path.now_s
    while path.state is not Health.DOWN:
        path.probe(False)
    assert path.now_s - begun_s == pytest.approx(DEFAULT_PROFILE.patience_s, abs=0.11)


def test_that_is_forgotten_after_a_day(path: Path) -> None:
    path.probe(*[False] * 6, *[True] * 10)
    path.now_s += HEALED_KEPT_S + 1
    path.probe(True)
    begun_s = path.now_s
    while path.state is not Health.DOWN:
        path.probe(False)
    assert path.now_s - begun_s == pytest.approx(DEFAULT_PROFILE.silence_s, abs=0.11)


def test_a_death_is_no_silence_that_healed(path: Path) -> None:
    path.probe(*[False] * 40, *[True] * 20)
    begun_s = path.now_s
    while path.state is not Health.DOWN:
        path.probe(False)
    assert path.now_s - begun_s == pytest.approx(DEFAULT_PROFILE.silence_s, abs=0.11)


@pytest.mark.parametrize("profile", [DEFAULT_PROFILE, FAST_PROFILE], ids=["default", "fast"])
@pytest.mark.parametrize(("lost_of_20", "is_degraded"), [(2, False), (6, True)])
def test_a_share_of_losses_that_is_no_death_degrades(
    profile: ProbeProfile, lost_of_20: int, is_degraded: bool
) -> None:
    path = Path(replace(profile, rate_window_s=1e9))
    path.health.quality.use(Sla(0.2))
    fates = [number % (20 // lost_of_20) != 0 for number in range(20)]
    path.probe(True, *fates * 20, every_s=0.5)
    assert bool(path.health.quality.below_sla) is is_degraded


def test_late_answers_are_no_losses_of_quality(path: Path) -> None:
    path.health.quality.use(Sla(0.2))
    sent: list[tuple[float, int]] = []
    for number in range(300):
        sent.append((path.now_s + min(3.0, 0.1 * number), path.send()))
        path.wait(0.1)
        while sent and sent[0][0] <= path.now_s:
            path.health.answered(sent.pop(0)[1], path.now_s)
    assert path.health.quality.loss < 0.01
    assert path.health.loss_pct > 50, "they came after their timeout"


def test_death_is_not_held_against_the_path_that_comes_back(path: Path) -> None:
    path.health.quality.use(Sla(0.2))
    path.probe(*[False] * 100, every_s=0.5)
    assert path.state is Health.DOWN
    path.probe(*[True] * RISE)
    assert path.health.quality.loss == 0 and not path.health.quality.near_sla


def test_what_was_lost_before_the_first_answer_is_no_loss_of_quality() -> None:
    """As after a restart in an outage: the first answer brings the path up at once."""
    path = Path(FAST_PROFILE)
    path.health.quality.use(Sla(0.2))
    path.probe(*[False] * 60, *[True] * 3)
    assert path.state is Health.UP
    assert path.health.quality.loss == 0


def test_recent_loss_is_not_known_before_twenty_probes() -> None:
    path = Path()
    path.probe(*[True] * 19)
    assert path.health.recent_loss == 1.0
    path.probe(True, False, False)
    assert path.health.recent_loss == pytest.approx(0.1)


def test_silence_needs_its_number_of_probes() -> None:
    path = Path(replace(DEFAULT_PROFILE, losses=3))
    path.probe(True)
    path.probe(False, False, every_s=1.0)
    assert path.state is Health.SUSPECT
    path.probe(False, every_s=1.0)
    assert path.state is Health.DOWN


def test_one_answer_breaks_a_silence(path: Path) -> None:
    path.probe(*[False] * 13, True, *[False] * 10)
    assert path.state is Health.SUSPECT


def test_a_late_answer_breaks_a_silence_and_is_no_answer_in_time(path: Path) -> None:
    first = path.send()
    path.wait(0.5)
    path.probe(*[False] * 9)
    path.health.answered(first, path.now_s)
    assert path.health.silent_since_s is None
    path.probe(*[False] * 9)
    assert path.state is Health.SUSPECT
    assert path.health.loss_pct == 50


def test_answers_that_nobody_asked_for_are_ignored(path: Path) -> None:
    path.probe(False, False)
    before = path.health.silent_since_s
    path.health.answered(999, path.now_s)
    path.health.answered(1, path.now_s)  # a second time
    assert path.health.silent_since_s == before
    assert path.state is Health.SUSPECT


def test_dead_until_enough_answers_in_a_row(path: Path) -> None:
    path.probe(*[False] * 20)
    path.probe(*[True] * (RISE - 1), False, *[True] * (RISE - 1))
    assert path.state is Health.DOWN
    path.probe(True)
    assert path.state is Health.UP
    assert path.health.cause == "answers again"


def test_half_lost_is_dead_after_the_window(path: Path) -> None:
    begun_s = path.now_s
    while path.state is not Health.DOWN and path.now_s < begun_s + 30:
        path.probe(False, True, True, False)
    assert path.state is Health.DOWN
    assert "probes lost" in path.health.cause
    assert path.now_s - begun_s == pytest.approx(DEFAULT_PROFILE.rate_window_s, abs=0.7)


def test_a_fifth_lost_is_not(path: Path) -> None:
    path.probe(*[False, True, True, True, True] * 40)
    assert path.state in (Health.SUSPECT, Health.UP)


def test_what_is_only_late_is_no_loss(path: Path) -> None:
    """A queue grows until every answer takes 2.5 s, which no timeout allows; nothing is lost."""
    sent: list[tuple[float, int]] = []
    for number in range(300):
        sent.append((path.now_s + min(2.5, 0.1 * number), path.send()))
        path.wait(0.1)
        while sent and sent[0][0] <= path.now_s:
            path.health.answered(sent.pop(0)[1], path.now_s)
    assert path.state is Health.SUSPECT
    assert path.health.latency_ms == pytest.approx(2500, abs=110)
    assert path.health.timeout_s == DEFAULT_PROFILE.timeout_cap_s


def test_traffic_holds_a_verdict_up_for_a_bounded_time(path: Path) -> None:
    begun_s = path.now_s
    while path.state is not Health.DOWN:
        path.probe(False)
        path.health.saw_traffic(path.now_s)
    limit_s = DEFAULT_PROFILE.passive_limit_s
    assert path.now_s - begun_s == pytest.approx(limit_s + DEFAULT_PROFILE.silence_s, abs=0.3)


def test_traffic_brings_no_dead_path_back(path: Path) -> None:
    path.probe(*[False] * 20)
    path.health.saw_traffic(path.now_s)
    assert path.state is Health.DOWN


def test_traffic_does_not_hide_a_rate_of_loss(path: Path) -> None:
    for _ in range(12):
        path.probe(False, True, True, False)
        path.health.saw_traffic(path.now_s)
    assert path.state is Health.DOWN


def test_carrier_counts_at_once(path: Path) -> None:
    path.health.attach(False, path.now_s, "carrier lost")
    assert (path.state, path.health.cause) == (Health.DOWN, "carrier lost")
    assert path.health.detection_s == 0
    assert not path.health.attached
    path.health.attach(True, path.now_s, "it is back")
    assert (path.state, path.health.cause) == (Health.DOWN, "it is back, no answer yet")
    path.probe(*[True] * RISE)
    assert path.state is Health.UP


def test_answers_from_before_a_loss_of_carrier_are_forgotten(path: Path) -> None:
    number = path.send()
    path.health.attach(False, path.now_s, "carrier lost")
    path.health.attach(True, path.now_s, "it is back")
    path.health.answered(number, path.now_s)
    path.probe(*[True] * (RISE - 1))
    assert path.state is Health.DOWN


def test_a_path_that_appears_stays_unknown() -> None:
    path = Path()
    path.health.attach(True, path.now_s, "it is back")
    assert path.state is Health.UNKNOWN


def test_what_cannot_leave_is_lost_at_once(path: Path) -> None:
    path.health.unsendable("a", path.now_s)
    assert path.state is Health.SUSPECT
    for _ in range(20):
        path.now_s += 0.1
        path.health.unsendable(path.health.next_target(path.now_s), path.now_s)
    assert path.state is Health.DOWN


def test_a_late_loop_says_nothing_of_the_path(path: Path) -> None:
    path.send()
    path.now_s += 5
    path.health.excuse(5)
    path.health.expire(path.now_s)
    assert path.state is Health.UP
    path.probe(*[False] * 5)
    path.now_s += 5
    path.health.excuse(5)
    path.health.expire(path.now_s)
    assert path.state is Health.SUSPECT


def test_taken_over_is_alive_until_it_is_silent() -> None:
    path = Path()
    path.health.take_over(path.now_s)
    assert path.state is Health.UP
    path.probe(*[False] * 40)
    assert path.state is Health.DOWN


@pytest.mark.parametrize("profile", [DEFAULT_PROFILE, FAST_PROFILE], ids=["default", "fast"])
def test_a_dead_target_is_set_aside_and_asked_again_later(profile: ProbeProfile) -> None:
    path = Path(profile)
    path.probe(*[True] * 9)
    path.dead_targets = {"b"}
    path.probe(*[True] * 40, every_s=profile.confirm_interval_s)
    assert path.state is Health.UP
    assert path.health.loss_pct <= 100 * LOSSES / 49
    assert "b" not in [path.health.next_target(path.now_s) for _ in range(6)]
    path.now_s += REST_S
    assert "b" in [path.health.next_target(path.now_s) for _ in range(6)]


def test_a_resting_target_that_is_still_dead_does_not_make_the_path_suspect() -> None:
    path = Path()
    path.probe(*[True] * 9)

    path.dead_targets = {"b"}
    path.probe(*[True] * 20, every_s=0.5)
    states = set()
    for _ in range(400):
        path.probe(True, every_s=0.5)
        states.add(path.state)
    assert states == {Health.UP}


def test_targets_that_fall_silent_together_are_not_set_aside(path: Path) -> None:
    path.probe(*[False] * 60)
    path.probe(*[True] * 3)
    assert {path.health.next_target(path.now_s) for _ in range(6)} == set(TARGETS)


def test_a_single_target_is_never_set_aside() -> None:
    path = Path(targets=("a",))
    path.probe(True, *[False] * 20)
    assert path.health.next_target(path.now_s) == "a"
    assert path.state is Health.DOWN


def test_targets_take_turns() -> None:
    health = PathHealth(DEFAULT_PROFILE, TARGETS)
    assert [health.next_target(0.0) for _ in range(6)] == [*TARGETS, *TARGETS]


@pytest.mark.parametrize(
    ("rtt_s", "low_s", "high_s"),
    [(0.02, 0.1, 0.1), (0.3, 0.3, 0.6), (1.0, 1.0, 2.0), (5.0, 1.0, 2.0)],
)
def test_the_timeout_follows_the_round_trip_within_bounds(
    rtt_s: float, low_s: float, high_s: float
) -> None:
    path = Path()
    for _ in range(30):
        number = path.send()
        path.wait(rtt_s)
        path.health.answered(number, path.now_s)
    assert low_s <= path.health.timeout_s <= high_s


def test_what_waited_for_a_tunnel_is_not_its_latency() -> None:
    """Probes are kept while WireGuard shakes hands, and then all answered at once."""
    path = Path()
    waiting = []
    for _ in range(4):
        waiting.append(path.send())
        path.wait(1.0)
    for number in waiting:
        path.health.answered(number, path.now_s)
    path.probe(*[True] * 5)
    assert path.health.latency_ms < 50
    assert path.state is Health.UP


def test_loss_is_told_of_the_last_fifty(path: Path) -> None:
    path.probe(*[True] * 60)
    assert path.health.loss_pct == 0
    path.probe(*[False] * 5)
    path.wait(1)
    assert path.health.loss_pct == 10


def test_a_dead_path_asks_for_no_deadline_that_has_passed(path: Path) -> None:
    path.probe(*[False] * 20)
    path.wait(5)
    assert path.state is Health.DOWN
    assert path.health.next_deadline_s() is None


@pytest.mark.parametrize("profile", [DEFAULT_PROFILE, FAST_PROFILE], ids=["default", "fast"])
def test_a_suspect_asks_to_be_judged_when_its_silence_ends(profile: ProbeProfile) -> None:
    path = Path(profile)
    path.probe(*[True] * 5)
    begun_s = path.now_s
    path.probe(*[False] * (profile.losses + 2), every_s=profile.confirm_interval_s)
    deadline_s = path.health.next_deadline_s()
    assert deadline_s is not None
    assert path.now_s - 0.3 < deadline_s <= begun_s + max(profile.silence_s, 0.4) + 0.1


@pytest.mark.parametrize("profile", [DEFAULT_PROFILE, FAST_PROFILE], ids=["default", "fast"])
def test_the_bound_has_room_for_every_part(profile: ProbeProfile) -> None:
    assert profile.detection_bound_s(0.1) == pytest.approx(
        profile.interval_s + profile.longest_silence_s
    )
    slow_s = profile.detection_bound_s(profile.timeout_cap_s)
    assert slow_s == pytest.approx(profile.interval_s + profile.timeout_cap_s + profile.confirm_s)
    assert profile.confirm_s >= (profile.losses - 1) * profile.confirm_interval_s
