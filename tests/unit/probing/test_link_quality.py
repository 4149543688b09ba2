"""Loss and latency over half a minute: what degrades a path, and what is only a moment."""

from __future__ import annotations

import random

import pytest

from rpcd_wireguard_uplink.probing.link_quality import LinkQuality, Sla

RTT_S = 0.02


def probed(quality: LinkQuality, loss: float, seconds: float, gap_s: float = 0.25) -> float | None:
    """Let so much time pass with every so manieth probe lost; when it was degraded first."""
    owed = 0.0
    for number in range(round(seconds / gap_s)):
        owed += loss
        quality.take(gap_s, None if owed >= 1 else RTT_S)
        owed -= owed >= 1
        if quality.below_sla:
            return number * gap_s
    return None


@pytest.mark.parametrize(
    ("loss", "at_least_s", "at_most_s"), [(0.25, 40, 60), (0.3, 25, 40), (0.38, 18, 27)]
)
def test_a_brownout_is_told_within_a_minute(
    loss: float, at_least_s: float, at_most_s: float
) -> None:
    told_s = probed(LinkQuality(Sla(0.2)), loss, 120)
    assert told_s is not None and at_least_s <= told_s <= at_most_s


@pytest.mark.parametrize("gap_s", [0.025, 0.1, 0.25, 0.5])
def test_a_silence_of_five_seconds_is_none(gap_s: float) -> None:
    assert probed(LinkQuality(Sla(0.2)), 1.0, 5.0, gap_s) is None
    assert probed(LinkQuality(Sla(0.2)), 1.0, 8.0, gap_s) is not None, "of eight it is"


def test_it_takes_half_of_the_limit_to_be_good_again() -> None:
    quality = LinkQuality(Sla(0.2))
    assert probed(quality, 0.3, 120) is not None
    while quality.loss > 0.11:
        quality.take(0.25, RTT_S)
        assert quality.below_sla
    while quality.loss > 0.1:
        quality.take(0.25, RTT_S)
    assert not quality.below_sla and not quality.near_sla


def test_what_is_poor_is_not_yet_degraded() -> None:
    quality = LinkQuality(Sla(0.2))
    probed(quality, 0.15, 300)
    assert quality.near_sla and not quality.below_sla


def test_latency_has_its_own_limit() -> None:
    quality = LinkQuality(Sla(0.2, 0.3))
    for _ in range(40):
        quality.take(0.25, RTT_S)
    for _ in range(12):
        quality.take(0.25, 2.0)
    assert not quality.below_sla, "a queue of two seconds for three"
    for _ in range(60):
        quality.take(0.25, 0.5)
    assert quality.below_sla.startswith("takes ")
    for _ in range(400):
        quality.take(0.25, 0.1)
    assert not quality.below_sla


def test_without_limits_nothing_degrades() -> None:
    quality = LinkQuality()
    for _ in range(1000):
        quality.take(0.5, None)
    assert not quality.below_sla and not quality.near_sla


def test_random_loss_of_two_percent_never_does() -> None:
    """A day of probes. The arithmetic is in the module."""
    chance = random.Random(1)
    quality, worst = LinkQuality(Sla(0.2)), 0.0
    for _ in range(86400 * 2):
        quality.take(0.5, None if chance.random() < 0.02 else RTT_S)
        worst = max(worst, quality.loss)
    assert 0.08 < worst < 0.19
