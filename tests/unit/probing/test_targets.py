"""Which targets prove anything: tables of who answers, from how far, and what follows."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from rpcd_wireguard_uplink.probing.targets import (
    DOUBTED_REST_S,
    LOSSES,
    REST_S,
    SHORTER_S,
    Targets,
    hops_of,
)

A, B, C = "1.1.1.1", "8.8.8.8", "9.9.9.9"
FAR = 9
RTT_S = 0.02


@dataclass
class Rounds:
    """Targets that are all probed once in each round of a second."""

    targets: Targets
    now_s: float = 1000.0
    newest_s: float = 0.0

    def round(self, fates: str, hops: int | None = FAR, rtt_s: float = RTT_S) -> str:
        """One round: + is answered, . is lost, 0 is answered by the next hop, n from nearer.

        Returns + for each answer that was believed.
        """
        believed = ""
        self.now_s += 1.0
        for address, fate in zip(self.targets.addresses, fates, strict=True):
            if fate == ".":
                self.targets.lost(address, self.now_s, self.newest_s, self.now_s)
                believed += "."
                continue
            found = {"0": 0, "n": 3}.get(fate, hops)
            is_believed = self.targets.answered(address, rtt_s, found, self.now_s)
            self.newest_s = self.now_s if is_believed else self.newest_s
            believed += "+" if is_believed else "."
        return believed

    def rounds(self, count: int, fates: str) -> str:
        """The same for several rounds; what was believed of the last."""
        return [self.round(fates) for _ in range(count)][-1]


def begun(*addresses: str) -> Rounds:
    """All have answered for a while."""
    made = Rounds(Targets(addresses))
    made.rounds(10, "+" * len(addresses))
    return made


@pytest.mark.parametrize(
    ("ttl", "hops"), [(64, 0), (63, 1), (255, 0), (128, 0), (117, 11), (52, 12), (32, 0), (1, 31)]
)
def test_hops_by_what_is_left_of_the_ttl(ttl: int, hops: int) -> None:
    assert hops_of(ttl) == hops


@pytest.mark.parametrize(
    ("before", "fates", "believed"),
    [
        ("++", "0.", ".."),  # the modem has taken that address
        ("++", "0+", ".+"),
        ("++", "00", ".."),  # it answers for everybody
        ("+++", "00.", "..."),
        ("++", "n+", "++"),  # a better way: the other one shows that nothing is dead
        ("++", "nn", "++"),
        ("0+", "0+", ".+"),  # it always did
        ("0+", "0.", ".."),
        ("00", "00", "++"),  # somebody sets the TTL of all
        ("00", "0.", "+."),
        ("+", "+", "+"),
        ("0", "0", "+"),  # nothing else is known
    ],
)
def test_who_is_believed(before: str, fates: str, believed: str) -> None:
    made = Rounds(Targets((A, B, C)[: len(before)]))
    made.rounds(10, before)
    assert made.rounds(2, fates) == believed


@pytest.mark.parametrize("fates", ["0.", "0..", ".0."])
def test_a_start_in_an_outage_believes_no_next_hop(fates: str) -> None:
    made = Rounds(Targets((A, B, C)[: len(fates)]))
    assert made.rounds(5, fates) == "." * len(fates)


def test_answers_from_nearer_are_doubted_while_another_target_is_silent() -> None:
    made = begun(A, B)
    assert made.round("n.") == "+.", "nothing is known of the other yet"
    assert made.round("n.") == ".."
    assert made.targets.doubts() == [f"{A} is answered from nearer than before"]
    assert made.round("n+") == ".+"
    assert made.round("n+") == "++", "the other is back"
    assert made.targets.doubts() == []


def test_a_way_that_became_shorter_for_all_is_the_usual_one() -> None:
    made = begun(A, B)
    made.rounds(3, "nn")
    assert made.rounds(3, "n.") == "+.", "else it would be doubted now"


def test_a_way_that_became_shorter_in_an_outage_is_believed_after_a_while() -> None:
    made = begun(A, B)
    made.rounds(5, "..")
    assert made.rounds(int(SHORTER_S) - 1, "nn") == "..", "a modem may answer for some"
    assert made.rounds(3, "nn") == "++"
    assert made.targets.doubts() == []


def test_a_modem_that_answers_for_one_is_never_believed() -> None:
    made = begun(A, B)
    made.rounds(5, "..")
    assert made.rounds(3 * int(SHORTER_S), "n.") == ".."


def test_answers_that_come_much_too_soon_are_doubted_as_well() -> None:
    """Behind two routers of the house the TTL says nothing: 3 hops then, 2 now."""
    made = Rounds(Targets((A, B)))
    for _ in range(10):
        made.round("++", hops=3, rtt_s=0.02)
    made.round("+.", hops=2, rtt_s=0.001)
    assert made.round("+.", hops=2, rtt_s=0.001) == ".."
    assert made.round("++", hops=3, rtt_s=0.02) == "++"


def test_the_same_way_may_be_quicker_after_an_outage() -> None:
    made = Rounds(Targets((A, B)))
    for _ in range(10):
        made.round("++", rtt_s=0.3)
    made.rounds(5, "..")
    assert made.round("++", rtt_s=0.02) == "++"


def test_a_queue_that_drains_brings_nobody_nearer() -> None:
    made = begun(A, B)
    for _ in range(600):
        made.round("++", rtt_s=2.0)
    made.round(".+", rtt_s=2.0)
    assert made.round(".+", rtt_s=0.02) == ".+"


@pytest.mark.parametrize(
    ("reliability", "before", "fates", "is_short"),
    [
        (0, "++", "+.", False),  # one of two may be down by itself
        (0, "+++", "++.", False),
        (0, "+++", "+..", True),
        (0, "++++", "++..", False),
        (0, "++++", "+...", True),
        (0, "+++++", "+++..", False),
        (0, "+++++", "++...", True),
        (0, "+", "+", False),
        (0, "+++", "...", False),  # that is silence, and no dispute
        (1, "+++", "+..", False),  # by the owner's word
        (2, "+++", "+..", True),
        (2, "+++", "++.", False),
        (3, "+++", "++.", True),
        (9, "+++", "++.", True),
        (9, "+++", "+++", False),
        (2, "", "+.", True),  # one that never answered counts too
        (0, "", "0++", False),  # one that the next hop answers does not
        (2, "", "0++", False),
    ],
)
def test_how_many_must_answer(reliability: int, before: str, fates: str, is_short: bool) -> None:
    made = Rounds(Targets("abcde"[: len(fates)], reliability))
    if before:
        made.rounds(10, before)
    begun_s = made.now_s
    made.rounds(LOSSES + 1, fates)
    assert made.targets.short_since_s() == (begun_s + 1 if is_short else None)
    if not before:
        assert made.targets.enough_since(0.0) is not is_short


def test_one_that_fell_silent_long_before_is_down_by_itself() -> None:
    """8.8.8.8 is blocked in the morning, 9.9.9.9 in the evening: no line is dead."""
    made = begun(A, B, C)
    made.rounds(60, "++.")
    made.rounds(60, "+..")
    assert made.targets.short_since_s() is None


def test_dead_until_as_many_answer_again() -> None:
    made = begun(A, B, C)
    fell_s = made.now_s + 5
    made.rounds(10, "...")
    made.rounds(5, "+..")
    assert not made.targets.enough_since(fell_s)
    made.rounds(1, "++.")
    assert made.targets.enough_since(fell_s)


def test_what_never_answered_is_not_waited_for() -> None:
    made = Rounds(Targets((A, B, C)))
    made.rounds(1, "+..")
    assert made.targets.enough_since(0.0)


def test_one_that_answers_another_kind_of_probe_is_not_silent() -> None:
    made = begun(A, B, C)
    made.rounds(LOSSES + 1, "+..")
    made.targets.vouched(B, made.now_s)
    assert made.targets.silent() == [C]
    assert made.targets.short_since_s() is None
    turns = [made.targets.next(made.now_s) for _ in range(6)]
    assert B not in turns, "it is asked again later"
    assert B in [made.targets.next(made.now_s + REST_S) for _ in range(6)]


def test_one_that_proves_nothing_is_asked_rarely() -> None:
    made = begun(A, B)
    made.round("0+")
    assert {made.targets.next(made.now_s) for _ in range(6)} == {B}
    assert A in [made.targets.next(made.now_s + DOUBTED_REST_S) for _ in range(6)]


@pytest.mark.parametrize(
    ("hops", "rtt_s", "is_near"),
    [(FAR, 0.03, False), (None, 0.03, False), (0, 0.03, True), (None, 0.001, True), (3, 1, True)],
)
def test_an_answer_to_another_kind_of_probe_may_come_from_near(
    hops: int | None, rtt_s: float, is_near: bool
) -> None:
    assert begun(A, B).targets.is_near(A, rtt_s, hops) is is_near
