"""The verdicts on one path, step by step: what makes it suspect, dead, alive, and what does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from rpcd_wireguard_uplink.config.probe_profile import DEFAULT_PROFILE, FAST_PROFILE, ProbeProfile
from rpcd_wireguard_uplink.failover.detector import CALM_ROW, HEALED_KEPT_S, RISE, PathHealth
from rpcd_wireguard_uplink.model import Health
from rpcd_wireguard_uplink.probing.link_quality import Sla
from rpcd_wireguard_uplink.probing.targets import LOSSES, REST_S
from rpcd_wireguard_uplink.reasons import code_of
from tests.unit.failover.day import PROFILES

TARGETS = ("a", "b", "c")
RTT_S = 0.02
UP, SUSPECT, DOWN, UNKNOWN = Health.UP, Health.SUSPECT, Health.DOWN, Health.UNKNOWN


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

    def probe(self, fates: str, every_s: float = 0.1) -> None:
        """One probe for each fate: + is answered after RTT_S, . never."""
        for fate in fates:
            number = self.send()
            if fate == "+" and self.target not in self.dead_targets:
                self.health.answered(number, self.now_s + RTT_S)
            self.wait(every_s)

    def dies_after_s(self, meanwhile: Callable[[float], object] = lambda now_s: None) -> float:
        """How long it takes until nothing being answered is a verdict."""
        begun_s = self.now_s
        while self.state is not DOWN:
            self.probe(".")
            meanwhile(self.now_s)
        return self.now_s - begun_s

    def grow_queue(self, longest_s: float) -> None:
        """Half a minute in which every answer comes later than the one before; none is lost."""
        sent: list[tuple[float, int]] = []
        for number in range(300):
            sent.append((self.now_s + min(longest_s, 0.1 * number), self.send()))
            self.wait(0.1)
            while sent and sent[0][0] <= self.now_s:
                self.health.answered(sent.pop(0)[1], self.now_s)

    @property
    def state(self) -> Health:
        return self.health.state


@pytest.fixture
def path() -> Path:
    """A path that is up."""
    path = Path()
    path.probe("+" * 10)
    return path


# --- one verdict after another


@pytest.mark.parametrize(
    ("fates", "state"),
    [
        ("+", UP),
        ("." * 50, DOWN),  # also where nothing ever answered
        ("+.", SUSPECT),
        ("+." + "+" * (CALM_ROW - 1), SUSPECT),
        ("+." + "+" * CALM_ROW, UP),
        ("+" * 10 + "." * 13 + "+" + "." * 10, SUSPECT),  # one answer breaks a silence
        ("+" * 10 + "." * 20 + "++.++", DOWN),  # not enough answers in a row
        ("+" * 10 + "." * 20 + "++.+++", UP),
        ("+" * 10 + ".++." * 12, DOWN),  # half of them
        ("+" * 10 + ".++++" * 8 + "+" * 5, UP),  # a fifth
    ],
)
def test_what_follows(fates: str, state: Health) -> None:
    path = Path()
    path.probe(fates)
    path.wait(0.01)
    assert path.state is state


def test_nothing_is_known_before_the_first_answer() -> None:
    path = Path()
    found = (path.state, path.health.latency_ms, path.health.loss_pct, path.health.timeout_s)
    assert found == (UNKNOWN, -1, 0, 1.0)
    assert path.health.next_deadline_s() is None
    path.health.attach(True, path.now_s, "it appears")
    assert path.state is UNKNOWN
    number = path.send()
    assert path.health.next_deadline_s() == path.now_s + 1.0
    path.health.answered(number, path.now_s + 0.5)
    assert (path.state, path.health.latency_ms) == (UP, 500)


def test_causes_are_told(path: Path) -> None:
    assert path.dies_after_s() == pytest.approx(DEFAULT_PROFILE.silence_s, abs=0.11)
    assert path.health.detection_s == pytest.approx(DEFAULT_PROFILE.silence_s, abs=0.11)
    assert path.health.cause == "no answer to 17 probes in 1.7 s"
    assert code_of(path.health.cause) == ("no_answer", ("17", "1.7"))
    path.probe("+" * RISE)
    assert path.health.cause == "answers again"
    begun_s = path.now_s
    while path.state is not DOWN:
        path.probe(".++.")
    assert "probes lost" in path.health.cause
    assert path.now_s - begun_s == pytest.approx(DEFAULT_PROFILE.rate_window_s, abs=0.7)


@pytest.mark.parametrize(
    ("before", "calm_s", "silence_s"),
    [
        ("......++++++++++", 0.0, DEFAULT_PROFILE.patience_s),  # its silences heal
        ("......++++++++++", HEALED_KEPT_S + 1, DEFAULT_PROFILE.silence_s),  # forgotten by then
        ("." * 40 + "+" * 20, 0.0, DEFAULT_PROFILE.silence_s),  # a death is none that healed
    ],
)
def test_a_path_whose_silences_heal_is_given_more_time(
    path: Path, before: str, calm_s: float, silence_s: float
) -> None:
    path.probe(before)
    path.now_s += calm_s
    path.probe("+")
    assert path.dies_after_s() == pytest.approx(silence_s, abs=0.11)


def test_silence_needs_its_number_of_probes() -> None:
    path = Path(replace(DEFAULT_PROFILE, losses=3))
    path.probe("+..", every_s=1.0)
    assert path.state is SUSPECT
    path.probe(".", every_s=1.0)
    assert path.state is DOWN


def test_a_late_answer_breaks_a_silence_and_is_no_answer_in_time(path: Path) -> None:
    first = path.send()
    path.wait(0.5)
    path.probe("." * 9)
    path.health.answered(first, path.now_s)
    assert path.health.silent_since_s is None
    path.probe("." * 9)
    assert (path.state, path.health.loss_pct) == (SUSPECT, 50)


def test_answers_that_nobody_asked_for_are_ignored(path: Path) -> None:
    path.probe("..")
    before = path.health.silent_since_s
    path.health.answered(999, path.now_s)
    path.health.answered(1, path.now_s)  # a second time
    assert (path.health.silent_since_s, path.state) == (before, SUSPECT)


def test_what_is_only_late_is_no_loss(path: Path) -> None:
    """A queue grows until every answer takes 3.5 s, which no timeout allows; nothing is lost."""
    path.grow_queue(3.5)
    assert path.state is SUSPECT
    assert path.health.latency_ms == pytest.approx(3500, abs=110)
    assert path.health.timeout_s == DEFAULT_PROFILE.timeout_cap_s


def test_what_cannot_leave_is_lost_at_once(path: Path) -> None:
    path.health.unsendable("a", path.now_s)
    assert path.state is SUSPECT
    for _ in range(20):
        path.now_s += 0.1
        path.health.unsendable(path.health.next_target(path.now_s), path.now_s)
    assert path.state is DOWN


def test_a_late_loop_says_nothing_of_the_path(path: Path) -> None:
    for fates, state in ((".", UP), ("." * 5, SUSPECT)):
        path.probe(fates[:-1])
        path.send()
        path.now_s += 5
        path.health.excuse(5)
        path.health.expire(path.now_s)
        assert path.state is state


def hold_up(path: Path, lag_s: float) -> None:
    """This process does not run for so long."""
    path.now_s += lag_s
    path.health.excuse(lag_s)


def test_a_late_loop_is_no_dispute_of_targets() -> None:
    """Two of three targets are lost for a moment, and nobody looks for longer than that takes."""
    path = Path()
    path.probe("+" * 12)
    path.dead_targets = {"b", "c"}
    path.probe("+" * 11)
    assert path.health.targets.short_since_s() is not None
    hold_up(path, 5)
    path.wait(0)
    assert path.state is SUSPECT


def test_a_late_loop_ends_no_wait_for_another_kind_of_answer() -> None:
    def dies_after_s(lag_s: float) -> float:
        path = Path(FAST_PROFILE)
        for _ in range(40):
            number = path.send()
            path.health.answered(number, path.now_s + 0.25)
            path.wait(0.25)
        path.probe("." * 9, every_s=0.05)
        assert path.state is SUSPECT
        path.health.asked_otherwise(path.now_s)
        begun_s = path.now_s
        hold_up(path, lag_s)
        while path.state is not DOWN:
            path.probe(".", every_s=0.01)
        return path.now_s - begun_s - lag_s

    assert dies_after_s(5) == pytest.approx(dies_after_s(0), abs=0.02)


def test_taken_over_is_alive_until_it_is_silent() -> None:
    path = Path()
    path.health.take_over(path.now_s)
    assert path.state is UP
    path.probe("." * 50)
    assert path.state is DOWN


# --- passive liveness


def test_traffic_holds_a_verdict_up_for_a_bounded_time(path: Path) -> None:
    expected_s = DEFAULT_PROFILE.passive_limit_s + DEFAULT_PROFILE.silence_s
    assert path.dies_after_s(path.health.saw_traffic) == pytest.approx(expected_s, abs=0.3)
    path.health.saw_traffic(path.now_s)
    assert path.state is DOWN, "it brings no dead path back"


def test_traffic_does_not_hide_a_rate_of_loss(path: Path) -> None:
    for _ in range(12):
        path.probe(".++.")
        path.health.saw_traffic(path.now_s)
    assert path.state is DOWN


# --- carrier and route


def test_carrier_counts_at_once(path: Path) -> None:
    number = path.send()
    path.health.attach(False, path.now_s, "carrier lost")
    assert (path.state, path.health.cause) == (DOWN, "carrier lost")
    assert path.health.detection_s == 0
    assert not path.health.attached
    path.health.attach(True, path.now_s, "it is back")
    assert (path.state, path.health.cause) == (DOWN, "it is back, no answer yet")
    path.health.answered(number, path.now_s)  # from before the loss: forgotten
    path.probe("+" * (RISE - 1))
    assert path.state is DOWN
    path.probe("+")
    assert path.state is UP


# --- the link's quality


@PROFILES
@pytest.mark.parametrize(("lost_of_20", "is_degraded"), [(2, False), (6, True)])
def test_a_share_of_losses_that_is_no_death_degrades(
    profile: ProbeProfile, lost_of_20: int, is_degraded: bool
) -> None:
    path = Path(replace(profile, rate_window_s=1e9))
    path.health.use(path.health.profile, Sla(0.2))
    fates = ["." if number % (20 // lost_of_20) == 0 else "+" for number in range(20)]
    path.probe("+" + "".join(fates) * 20, every_s=0.5)
    assert bool(path.health.quality.below_sla) is is_degraded


def test_late_answers_are_no_losses_of_quality(path: Path) -> None:
    path.grow_queue(3.0)
    assert path.health.quality.loss < 0.01
    assert path.health.loss_pct > 50, "they came after their timeout"


@pytest.mark.parametrize(
    ("profile", "before", "fates"),
    [
        (DEFAULT_PROFILE, "+" * 10, "." * 100 + "+" * RISE),  # it is another path now
        (FAST_PROFILE, "", "." * 60 + "+++"),  # as after a restart in an outage
    ],
)
def test_death_is_not_held_against_the_path_that_comes_back(
    profile: ProbeProfile, before: str, fates: str
) -> None:
    path = Path(profile)
    path.health.use(profile, Sla(0.2))
    path.probe(before + fates)
    assert path.state is UP
    assert path.health.quality.loss == 0 and not path.health.quality.near_sla


def test_losses_are_told_of_the_last_fifty_and_twenty() -> None:
    path = Path()
    path.probe("+" * 19)
    assert path.health.recent_loss == 1.0, "not known yet"
    path.probe("+..")
    assert path.health.recent_loss == pytest.approx(0.1)
    path.probe("+" * 60)
    assert path.health.loss_pct == 0
    path.probe(".....")
    path.wait(1)
    assert path.health.loss_pct == 10


# --- targets


@PROFILES
def test_a_dead_target_is_set_aside_and_asked_again_later(profile: ProbeProfile) -> None:
    path = Path(profile)
    path.probe("+" * 9)
    path.dead_targets = {"b"}
    path.probe("+" * 40, every_s=profile.confirm_interval_s)
    assert path.state is UP
    assert path.health.loss_pct <= 100 * LOSSES / 49
    assert "b" not in [path.health.next_target(path.now_s) for _ in range(6)]
    path.now_s += REST_S
    assert "b" in [path.health.next_target(path.now_s) for _ in range(6)]


def test_a_resting_target_that_is_still_dead_does_not_make_the_path_suspect(path: Path) -> None:
    path.dead_targets = {"b"}
    path.probe("+" * 20, every_s=0.5)
    states = set()
    for _ in range(400):
        path.probe("+", every_s=0.5)
        states.add(path.state)
    assert states == {UP}


def test_targets_that_fall_silent_together_and_a_single_one_are_not_set_aside(path: Path) -> None:
    path.probe("." * 60 + "+++")
    assert {path.health.next_target(path.now_s) for _ in range(6)} == set(TARGETS)
    path = Path(targets=("a",))
    path.probe("+" + "." * 20)
    assert (path.state, path.health.next_target(path.now_s)) == (DOWN, "a")


# --- timeouts and deadlines


@pytest.mark.parametrize(
    ("rtt_s", "low_s", "high_s"),
    [(0.02, 0.1, 0.1), (0.3, 0.3, 0.6), (1.0, 1.0, 2.0), (5.0, 1.0, 3.0)],
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
    path.probe("+++++")
    assert path.health.latency_ms < 50
    assert path.state is UP


@PROFILES
def test_a_suspect_asks_to_be_judged_when_its_silence_ends(profile: ProbeProfile) -> None:
    path = Path(profile)
    path.probe("+++++")
    begun_s = path.now_s
    path.probe("." * (profile.losses + 2), every_s=profile.confirm_interval_s)
    deadline_s = path.health.next_deadline_s()
    assert deadline_s is not None
    assert path.now_s - 0.3 < deadline_s <= begun_s + max(profile.silence_s, 0.4) + 0.1
    path.dies_after_s()
    path.wait(5)
    assert path.health.next_deadline_s() is None, "a dead path asks for none that has passed"


@PROFILES
def test_the_bound_has_room_for_every_part(profile: ProbeProfile) -> None:
    assert profile.detection_bound_s(0.1) == pytest.approx(
        profile.interval_s + profile.longest_silence_s
    )
    slow_s = profile.detection_bound_s(profile.timeout_cap_s)
    assert slow_s == pytest.approx(profile.interval_s + profile.timeout_cap_s + profile.confirm_s)
    assert profile.confirm_s >= (profile.losses - 1) * profile.confirm_interval_s
