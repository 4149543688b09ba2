"""Ages rest on the monotonic clock: one that NTP steps cuts no tunnel and ends no lease."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from rpcd_wireguard_uplink.model import PeerCounters
from rpcd_wireguard_uplink.system.wg import Ages, parse_dump

DAY_S = 86400.0
DEVICE = "wgup_a\tSECRET\tPUBLIC\t1\toff\n"


@dataclass
class Watch:
    """A router whose clocks a test moves, and a peer of its device as `wg` shows it."""

    now_s: float = 5000.0
    step_s: float = 1.7e9
    stamp_s: int = 0
    rx_bytes: int = 0
    ages: Ages = field(init=False)

    def __post_init__(self) -> None:
        self.ages = Ages(lambda: self.now_s, lambda: self.now_s + self.step_s)
        self.shake_hands()

    def shake_hands(self) -> None:
        self.stamp_s = int(self.now_s + self.step_s)

    def look(self) -> PeerCounters:
        peer = f"KEY\t(none)\t(none)\t(none)\t{self.stamp_s}\t{self.rx_bytes}\t0\toff\n"
        return parse_dump(f"{DEVICE}wgup_a\t{peer}", self.ages)["wgup_a"].peers[0]


@pytest.mark.parametrize("step_s", [DAY_S, -DAY_S, 40 * 365 * DAY_S])
def test_a_stepped_clock_makes_nobody_silent(step_s: float) -> None:
    watch = Watch()
    watch.look()
    for _ in range(60):
        watch.now_s += 10.0
        watch.rx_bytes += 32
        if watch.now_s == 5300.0:
            watch.step_s += step_s
        if watch.now_s % 120.0 == 0:
            watch.shake_hands()
        found = watch.look()
        assert found.is_alive(30.0)
        assert found.handshake_age_s is not None and found.handshake_age_s <= 180.0


def test_who_was_silent_is_so_whatever_the_clock_does() -> None:
    watch = Watch()
    for seconds in range(0, 200, 10):
        watch.now_s = 5000.0 + seconds
        watch.step_s -= 10.0
        found = watch.look()
    assert not found.is_alive(180.0)
    assert found.handshake_age_s == pytest.approx(190.0, abs=1.0)


@pytest.mark.parametrize("field_name", ["stamp_s", "rx_bytes"])
def test_a_handshake_and_received_bytes_are_both_a_sign_of_life(field_name: str) -> None:
    watch = Watch()
    watch.look()
    watch.now_s += 500.0
    setattr(watch, field_name, getattr(watch, field_name) + 1)
    found = watch.look()
    assert found.silent_s == 0.0
    assert found.stale_s == (0.0 if field_name == "stamp_s" else 500.0)


def test_what_was_not_watched_is_no_silence() -> None:
    """A start with a clock that is a day ahead of the last handshake."""
    watch = Watch()
    watch.step_s += DAY_S
    first = watch.look()
    assert first.is_alive(1.0) and first.handshake_age_s == pytest.approx(DAY_S, abs=1.0)
    watch.now_s += 200.0
    assert not watch.look().is_alive(180.0)


def test_a_handshake_between_two_looks_has_its_own_age() -> None:
    watch = Watch()
    watch.look()
    watch.now_s += 30.0
    watch.shake_hands()
    watch.now_s += 12.0
    assert watch.look().handshake_age_s == pytest.approx(12.0, abs=1.0)
    watch.now_s += 60.0
    assert watch.look().handshake_age_s == pytest.approx(72.0, abs=1.0)


def test_a_peer_made_anew_is_watched_anew() -> None:
    watch = Watch(rx_bytes=500)
    watch.look()
    watch.now_s += 500.0
    watch.stamp_s = watch.rx_bytes = 0
    found = watch.look()
    assert found.handshake_age_s is None and found.silent_s == 0.0 and not found.is_alive(180.0)
    watch.now_s += 7.0
    assert watch.look().silent_s == 7.0


def test_peers_that_are_gone_are_forgotten() -> None:
    watch = Watch()
    watch.look()
    parse_dump("", watch.ages)
    watch.now_s += 900.0
    assert watch.look().silent_s == 0.0
