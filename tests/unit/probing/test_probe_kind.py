"""When other kinds of probes are tried, and when one takes ping's place or gives it back."""

from __future__ import annotations

import pytest

from rpcd_wireguard_uplink.probing.probe_kind import (
    AGAIN_S,
    HTTP,
    LONGEST_AGAIN_S,
    LOST_TRIALS,
    WINS,
    ProbeKind,
    ProbeKinds,
)

DNS, PING, TCP = ProbeKind.DNS, ProbeKind.PING, ProbeKind.TCP_443
CONFIRM_S = 0.1


class Trials:
    """Kinds that are asked every tenth of a second."""

    def __init__(self, *answers: ProbeKind) -> None:
        self.kinds, self.answers = ProbeKinds(), set(answers)
        self.now_s, self.number = 0.0, 0
        self.asked: list[tuple[float, ProbeKind]] = []

    def run(self, seconds: float, *, is_unanswered: bool = True) -> Trials:
        for _ in range(round(seconds / CONFIRM_S)):
            for method in self.kinds.due(is_unanswered, CONFIRM_S, self.now_s):
                self.number += 1
                self.kinds.sent(self.number, method, "a", self.now_s)
                self.asked.append((round(self.now_s, 1), method))
                if method in self.answers:
                    self.kinds.answered(self.number, loss=0.5)
            self.now_s += CONFIRM_S
        return self


def test_while_all_is_answered_nothing_is_tried() -> None:
    assert Trials(DNS).run(300.0, is_unanswered=False).asked == []


def test_the_first_trial_is_by_two_kinds_at_once_and_then_they_take_turns() -> None:
    asked = Trials().run(2.0).asked
    assert asked[:2] == [(0.0, DNS), (0.0, TCP)]
    assert [at_s for at_s, _ in asked[2:]] == [0.4, 0.8, 1.2, 1.6]
    assert {method for _, method in asked} == set(ProbeKind) - {PING, HTTP}


def test_a_page_is_asked_for_where_there_is_one() -> None:
    kinds = ProbeKinds()
    asked = {method for n in range(8) for method in kinds.due(True, CONFIRM_S, n, has_page=True)}
    assert asked == set(ProbeKind) - {PING}


@pytest.mark.parametrize("kind", [k for k in ProbeKind if k not in (PING, HTTP)])
def test_a_kind_that_is_answered_is_asked_on_and_takes_the_place(kind: ProbeKind) -> None:
    trials = Trials(kind).run(3.0)
    assert trials.kinds.present is kind
    times = [at_s for at_s, method in trials.asked if method is kind][:WINS]
    assert times[-1] - times[0] == pytest.approx((WINS - 1) * 0.4)


def test_an_answered_ping_ends_the_trial() -> None:
    trials = Trials(DNS).run(0.5)
    trials.kinds.present_answered()
    trials.run(0.4)
    assert trials.kinds.present is PING


def test_answers_that_waited_beside_a_pings_take_no_place() -> None:
    """A tunnel keeps packets until it has shaken hands: then all that was sent is answered."""
    kinds = ProbeKinds()
    for number in range(2 * WINS):
        kinds.sent(number, DNS, "a", float(number))
    kinds.present_answered()
    assert [kinds.asked(number) for number in range(2 * WINS)] == [None] * 2 * WINS
    assert kinds.present is PING


def test_a_leader_that_falls_silent_loses_its_lead() -> None:
    trials = Trials(DNS).run(0.1)
    trials.answers = {TCP}
    trials.run(0.4 * (LOST_TRIALS + 6))
    assert trials.kinds.present is TCP


def test_ping_is_tried_again_and_comes_back() -> None:
    trials = Trials(DNS).run(2.0)
    trials.asked.clear()
    trials.run(5 * AGAIN_S, is_unanswered=False)
    assert [method for _, method in trials.asked] == [PING] * 5
    trials.answers = {PING, DNS}
    trials.run(AGAIN_S + 5.0, is_unanswered=False)
    assert trials.kinds.present is PING


def test_ping_that_comes_and_goes_is_tried_less_and_less() -> None:
    trials = Trials(DNS).run(2.0)
    pauses = []
    for _ in range(8):
        trials.answers = {DNS}
        trials.run(3.0)
        assert trials.kinds.present is DNS
        begun_s = trials.now_s
        trials.run(15.0, is_unanswered=False)  # a ping is tried, and lost
        trials.answers = {PING, DNS}
        while trials.kinds.present is DNS:
            trials.run(CONFIRM_S, is_unanswered=False)
        pauses.append(trials.now_s - begun_s)
    doubled = [min(AGAIN_S * 2**n, LONGEST_AGAIN_S) for n in range(8)]
    assert pauses == pytest.approx(doubled, abs=5.0)


def test_one_lucky_ping_does_not_bring_it_back() -> None:
    trials = Trials(DNS).run(2.0)
    trials.answers = {PING}
    trials.run(0.1, is_unanswered=False)
    trials.answers = set()
    trials.asked.clear()
    trials.run(4 * AGAIN_S, is_unanswered=False)
    assert trials.kinds.present is DNS
    assert len(trials.asked) <= 5


def test_a_target_that_is_silent_is_asked_first_and_one_that_proves_nothing_never() -> None:
    kinds = ProbeKinds()
    assert kinds.pick(["b"], ["a", "b"]) == "b"
    assert kinds.pick(["b"], ["a"]) == "a"
    assert kinds.pick([], []) == ""
