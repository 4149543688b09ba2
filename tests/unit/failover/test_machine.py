"""The state machine of failover: every transition from every phase, and what never happens."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpcd_wireguard_uplink.config.options import Settings
from rpcd_wireguard_uplink.failover.machine import AWAY, Change, Path, Phase, State, decide
from rpcd_wireguard_uplink.model import Health

UP, SUSPECT, DOWN, UNKNOWN = Health.UP, Health.SUSPECT, Health.DOWN, Health.UNKNOWN
RULES = Settings(hold_s=30.0)
HOME = State(Phase.PRIMARY, "wan", 10.0)
OVER = State(Phase.FAILED_OVER, "a", 100.0, "wan: dead", moved_s=100.0)
HOLDING = State(Phase.HOLDING, "a", 120.0, "", moved_s=100.0, good_since_s=120.0)
STRANDED = State(Phase.STRANDED, "wan", 100.0, "", moved_s=100.0)
STRANDED_AWAY = State(Phase.STRANDED, "a", 100.0, "", moved_s=100.0)


def wan(health: Health, cause: str = "") -> Path:
    return Path("wan", health, cause=cause)


def backup(name: str, health: Health = UP) -> Path:
    return Path(name, health, usable=health in (UP, SUSPECT), cause="it is silent")


A, B = backup("a"), backup("b")
NO_A, NO_B = backup("a", DOWN), backup("b", DOWN)


POOR = replace(wan(UP), below_sla="loses 30 % of its probes")
BETTER = replace(A, is_better=True)
Row = tuple[State, Health | Path, list[Path], Phase, str, str | None]
TRANSITIONS: list[Row] = [
    (HOME, UP, [A], Phase.PRIMARY, "wan", None),
    (HOME, UNKNOWN, [A], Phase.PRIMARY, "wan", None),
    (HOME, SUSPECT, [A], Phase.SUSPECT, "wan", None),
    (HOME, DOWN, [A, B], Phase.FAILED_OVER, "a", "failover"),
    (HOME, DOWN, [NO_A, B], Phase.FAILED_OVER, "b", "failover"),
    (HOME, DOWN, [NO_A], Phase.STRANDED, "wan", "stranded"),
    (HOME, DOWN, [], Phase.STRANDED, "wan", "stranded"),
    (replace(HOME, phase=Phase.SUSPECT), UP, [A], Phase.PRIMARY, "wan", None),
    (replace(HOME, phase=Phase.SUSPECT), DOWN, [A], Phase.FAILED_OVER, "a", "failover"),
    (replace(HOME, phase=Phase.DISABLED), UP, [A], Phase.PRIMARY, "wan", None),
    (OVER, DOWN, [A, B], Phase.FAILED_OVER, "a", None),
    (OVER, DOWN, [B, A], Phase.FAILED_OVER, "a", None),
    (OVER, DOWN, [backup("a", SUSPECT), B], Phase.FAILED_OVER, "a", None),
    (OVER, SUSPECT, [A], Phase.FAILED_OVER, "a", None),
    (OVER, DOWN, [B, NO_A], Phase.FAILED_OVER, "b", "switch"),
    (OVER, DOWN, [B], Phase.FAILED_OVER, "b", "switch"),
    (OVER, DOWN, [NO_B, NO_A], Phase.STRANDED, "a", "stranded"),
    (OVER, DOWN, [NO_B], Phase.STRANDED, "wan", "stranded"),
    (OVER, SUSPECT, [NO_B], Phase.SUSPECT, "wan", "failback"),
    (OVER, UNKNOWN, [], Phase.PRIMARY, "wan", "failback"),
    (OVER, UP, [A], Phase.HOLDING, "a", None),
    (OVER, UP, [NO_A, B], Phase.PRIMARY, "wan", "failback"),
    (HOLDING, UP, [A], Phase.HOLDING, "a", None),
    (HOLDING, SUSPECT, [A], Phase.HOLDING, "a", None),
    (HOLDING, DOWN, [A], Phase.FAILED_OVER, "a", None),
    (HOLDING, DOWN, [NO_A, B], Phase.FAILED_OVER, "b", "switch"),
    (HOLDING, UP, [NO_A, B], Phase.PRIMARY, "wan", "failback"),
    (STRANDED, DOWN, [], Phase.STRANDED, "wan", None),
    (STRANDED, DOWN, [A], Phase.FAILED_OVER, "a", "failover"),
    (STRANDED, UP, [A], Phase.PRIMARY, "wan", "recovered"),
    (STRANDED, UNKNOWN, [], Phase.PRIMARY, "wan", "recovered"),
    (STRANDED, SUSPECT, [A], Phase.SUSPECT, "wan", "recovered"),
    (STRANDED_AWAY, DOWN, [NO_A], Phase.STRANDED, "a", None),
    (STRANDED_AWAY, DOWN, [A], Phase.FAILED_OVER, "a", "recovered"),
    (STRANDED_AWAY, DOWN, [B, NO_A], Phase.FAILED_OVER, "b", "switch"),
    (STRANDED_AWAY, UP, [NO_A], Phase.PRIMARY, "wan", "failback"),
    (STRANDED_AWAY, UP, [A], Phase.HOLDING, "a", None),
    # a primary below its SLA is left only for what is clearly better
    (HOME, POOR, [BETTER], Phase.FAILED_OVER, "a", "failover"),
    (HOME, replace(POOR, health=SUSPECT), [BETTER], Phase.FAILED_OVER, "a", "failover"),
    (HOME, POOR, [A], Phase.PRIMARY, "wan", None),
    (HOME, POOR, [replace(BETTER, usable=False)], Phase.PRIMARY, "wan", None),
    (HOME, POOR, [B, BETTER], Phase.FAILED_OVER, "a", "failover"),
    (HOME, wan(UP), [BETTER], Phase.PRIMARY, "wan", None),
    (OVER, POOR, [BETTER], Phase.HOLDING, "a", None),
    (OVER, POOR, [NO_A], Phase.PRIMARY, "wan", "failback"),
    (OVER, POOR, [A, replace(B, is_better=True)], Phase.HOLDING, "a", None),
]
BY_HAND: list[tuple[State, Health, list[Path], Phase, str, str | None, str]] = [
    (HOME, UP, [A, B], Phase.FAILED_OVER, "b", "failover", "b"),
    (HOME, DOWN, [A, B], Phase.FAILED_OVER, "b", "failover", "b"),
    (HOME, UP, [A, NO_B], Phase.PRIMARY, "wan", None, "b"),
    (HOME, DOWN, [A, NO_B], Phase.FAILED_OVER, "a", "failover", "b"),
    (HOME, UP, [A], Phase.PRIMARY, "wan", None, "wan"),
    (OVER, UP, [A, B], Phase.FAILED_OVER, "b", "switch", "b"),
    (OVER, UP, [A, B], Phase.FAILED_OVER, "a", None, "a"),
    (OVER, UP, [NO_A, B], Phase.PRIMARY, "wan", "failback", "a"),
    (OVER, UP, [A], Phase.PRIMARY, "wan", "failback", "wan"),
    (OVER, SUSPECT, [A], Phase.SUSPECT, "wan", "failback", "wan"),
    (OVER, DOWN, [A], Phase.FAILED_OVER, "a", None, "wan"),
    (HOLDING, UP, [A], Phase.PRIMARY, "wan", "failback", "wan"),
    (HOLDING, UP, [A], Phase.FAILED_OVER, "a", None, "a"),
]


@pytest.mark.parametrize(
    ("state", "primary", "backups", "phase", "active", "kind", "chosen"),
    [*((*row, "") for row in TRANSITIONS), *BY_HAND],
)
def test_transitions(
    state: State,
    primary: Health | Path,
    backups: list[Path],
    phase: Phase,
    active: str,
    kind: str | None,
    chosen: str,
) -> None:
    primary = wan(primary, "no answer") if isinstance(primary, Health) else primary
    after, change = decide(state, primary, backups, RULES, 130.0, chosen)
    assert (after.phase, after.active) == (phase, active)
    assert (change.kind if change is not None else None) == kind
    if change is not None:
        assert (change.from_path, change.to_path) == (state.active, active)
        assert change.cause
        assert change.lasted_s == 130.0 - state.moved_s
        assert after.moved_s == after.since_s == 130.0
    elif (state.phase, state.active) == (after.phase, after.active):
        assert after.since_s == state.since_s, "nothing happened, so the state goes on"


def test_the_first_decision_only_names_the_primary() -> None:
    after, change = decide(State(), wan(UP), [A], RULES, 5.0)
    assert (after, change) == (State(Phase.PRIMARY, "wan", 5.0), None)


@pytest.mark.parametrize(
    ("state", "primary", "backups", "cause"),
    [
        (HOME, wan(DOWN, "carrier lost"), [A], "wan: carrier lost"),
        (OVER, wan(DOWN), [NO_A, B], "a: it is silent"),
        (OVER, wan(DOWN), [B], "a: is gone"),
    ],
)
def test_causes_tell_who_and_why(
    state: State, primary: Path, backups: list[Path], cause: str
) -> None:
    _, change = decide(state, primary, backups, RULES, 130.0)
    assert change is not None
    assert change.cause == cause


def test_failback_waits_for_the_hold_time() -> None:
    state, change = decide(OVER, wan(UP), [A], RULES, 130.0)
    assert state.good_since_s == 130.0
    state, change = decide(state, wan(UP), [A], RULES, 159.9)
    assert (state.phase, change) == (Phase.HOLDING, None)
    state, change = decide(state, wan(UP), [A], RULES, 160.0)
    assert state == State(Phase.PRIMARY, "wan", 160.0, "wan has answered for 30.0 s", 160.0)
    assert change == Change("failback", "a", "wan", "wan has answered for 30.0 s", 60.0)


@pytest.mark.parametrize("hold_s", [0.0, 30.0])
def test_the_hold_time_begins_when_nobody_else_refuses_the_primary(hold_s: float) -> None:
    refused = replace(wan(UP), refused="mwan3 holds wan to be offline")
    settings = Settings(hold_s=hold_s)
    state, change = decide(HOLDING, refused, [A], settings, 200.0)
    assert (state.phase, change) == (Phase.HOLDING, None)
    assert "mwan3 holds wan to be offline" in state.cause
    state, change = decide(state, wan(UP), [A], settings, 200.0 + hold_s / 2)
    assert state.phase is (Phase.HOLDING if hold_s else Phase.PRIMARY)
    state, _ = decide(state, wan(UP), [A], settings, 200.0 + hold_s)
    assert state.phase is Phase.PRIMARY
    _, change = decide(HOLDING, refused, [NO_A], settings, 200.0)
    assert change is not None and change.kind == "failback", "its tunnel is dead anyway"


def test_a_loss_while_holding_does_not_begin_the_hold_time_anew_but_a_death_does() -> None:
    state, _ = decide(HOLDING, wan(SUSPECT), [A], RULES, 140.0)
    assert state.good_since_s == 120.0
    state, _ = decide(state, wan(DOWN, "no answer"), [A], RULES, 145.0)
    assert (state.phase, state.good_since_s) == (Phase.FAILED_OVER, None)
    assert state.cause == "the WAN was lost again: no answer"
    state, _ = decide(state, wan(UP), [A], RULES, 150.0)
    assert (state.phase, state.good_since_s) == (Phase.HOLDING, 150.0)


@pytest.mark.parametrize(
    ("alive_since_s", "active_is_wan", "moves"),
    [(170.0, False, True), (171.0, False, False), (None, False, False), (100.0, True, False)],
)
def test_a_line_of_the_routers_own_relieves_a_tunnel_after_the_hold_time(
    alive_since_s: float | None, active_is_wan: bool, moves: bool
) -> None:
    line = Path("wan2", UP, is_wan=True, alive_since_s=alive_since_s)
    active = replace(A, is_wan=active_is_wan)
    state, change = decide(OVER, wan(DOWN), [line, active], RULES, 200.0)
    assert (state.active, change is not None) == (("wan2", True) if moves else ("a", False))
    if change is not None:
        assert (change.kind, change.from_path) == ("switch", "a")
        assert "wan2, a WAN of the router's own, has answered for 30 s" in change.cause


@pytest.mark.parametrize(
    ("settings", "phase"),
    [(Settings(enabled=False), Phase.DISABLED), (Settings(auto_failover=False), Phase.PRIMARY)],
)
def test_switched_off_gives_the_traffic_back_and_moves_none(
    settings: Settings, phase: Phase
) -> None:
    for state in (OVER, HOLDING, STRANDED_AWAY):
        after, change = decide(state, wan(DOWN), [A], settings, 130.0)
        assert (after.phase, after.active) == (phase, "wan")
        assert change is not None
        assert change.kind == "failback"
    for state in (HOME, STRANDED):
        after, change = decide(state, wan(DOWN), [A], settings, 130.0)
        assert (after.phase, after.active, change) == (phase, "wan", None)


paths = st.builds(
    Path, st.sampled_from("abc"), st.sampled_from(Health), st.booleans(), st.just("why")
)
moments = st.lists(
    st.tuples(
        st.sampled_from(Health),
        st.lists(paths, max_size=3, unique_by=lambda p: p.name),
        st.booleans(),
    ),
    max_size=30,
)


@given(moments)
def test_whatever_happens(story: list[tuple[Health, list[Path], bool]]) -> None:
    """Invariants over any sequence: what a change says, where traffic may be, and no flapping."""
    state, now_s = State(), 0.0
    for primary, backups, auto in story:
        now_s += 7.0
        usable = {b.name for b in backups if b.usable}
        settings = Settings(auto_failover=auto, hold_s=20.0)
        after, change = decide(state, wan(primary), backups, settings, now_s)
        again, change_again = decide(after, wan(primary), backups, settings, now_s)
        assert change_again is None, "the same again is no news"
        assert replace(again, cause="") == replace(after, cause="")
        if change is not None and change.to_path not in ("wan", state.active):
            assert change.to_path in usable, "traffic moves only to what can be used"
        if change is None and state.active:
            assert after.active == state.active, "traffic never moves without a word"
        if after.active != "wan":
            assert after.phase in AWAY
            assert auto
        if primary is UP and after.active != "wan":
            assert after.active in usable, "nobody waits on a dead path beside a live line"
        if primary is not DOWN and state.active in ("", "wan"):
            assert after.active == "wan", "a line that may be alive is not left"
        state = after


@pytest.mark.parametrize(
    ("hold_s", "flaps", "held_s"),
    [
        *((30.0, 0, 30.0), (30.0, 1, 30.0), (30.0, 2, 60.0), (30.0, 3, 120.0), (30.0, 7, 1800.0)),
        *((30.0, 60, 1800.0), (3600.0, 1, 3600.0), (0.0, 5, 0.0)),
    ],
)
def test_the_hold_time_doubles_with_each_flap(hold_s: float, flaps: int, held_s: float) -> None:
    assert Settings(hold_s=hold_s).held_s(flaps) == held_s


def fail_and_return(state: State, at_s: float, hold_s: float) -> tuple[State, float]:
    """One outage from `at_s` on: the state back home, and when it came there."""
    state, change = decide(state, wan(DOWN), [A], RULES, at_s)
    assert change is not None and change.kind == "failover"
    state, change = decide(state, wan(UP), [A], RULES, at_s + 1)
    state, change = decide(state, wan(UP), [A], RULES, at_s + 1 + hold_s - 0.1)
    assert change is None, f"it went back before {hold_s} s"
    state, change = decide(state, wan(UP), [A], RULES, at_s + 1 + hold_s)
    assert change is not None and change.kind == "failback"
    return state, at_s + 1 + hold_s


def test_a_line_that_fails_again_soon_is_held_off_longer_each_time() -> None:
    state, now_s = HOME, 1000.0
    for hold_s in (30.0, 60.0, 120.0):
        state, now_s = fail_and_return(state, now_s, hold_s)
        now_s += 5
    # Four times the last hold time later it is forgotten.
    state, _ = fail_and_return(state, now_s + 4 * 120.0, 30.0)
    assert state.flaps == 1


def test_a_line_that_flaps_faster_than_it_is_held_off_moves_traffic_twice() -> None:
    state, kinds = HOME, []
    for number in range(2000):
        up = number % 100 < 50 or number >= 1000  # 5 s up, 5 s down, 10 times, then good
        now_s = 100.0 + number / 10
        state, change = decide(state, wan(UP if up else DOWN), [A], RULES, now_s)
        kinds += [change.kind] if change is not None else []
    assert kinds == ["failover", "failback"]


def test_a_degraded_primary_says_why_and_is_good_for_the_hold_time() -> None:
    state, change = decide(HOME, POOR, [BETTER], RULES, 100.0)
    assert change is not None and change.cause == "wan loses 30 % of its probes"
    assert state.flaps == 1
    state, _ = decide(state, POOR, [A], RULES, 110.0)
    assert state.cause == "wan answers again, but it loses 30 % of its probes"
    state, change = decide(state, POOR, [A], RULES, 200.0)
    assert change is None, "it is held off as long as it is poor"
    state, change = decide(state, wan(UP), [A], RULES, 229.0)
    assert change is None
    state, change = decide(state, wan(UP), [A], RULES, 230.0)
    assert change is not None and change.kind == "failback"


def test_automatic_failover_that_is_off_leaves_a_choice_by_hand() -> None:
    off = replace(RULES, auto_failover=False)
    after, _ = decide(HOME, wan(UP), [A], off, 130.0, "a")
    assert (after.active, after.cause) == ("a", "chosen by hand")
    assert decide(after, wan(UP), [A], off, 131.0)[0].active == "wan"
    assert decide(HOME, wan(UP), [A], replace(RULES, enabled=False), 130.0, "a")[0].active == "wan"


def test_a_choice_that_ends_goes_home_at_once_where_the_wan_was_good_all_the_time() -> None:
    state, _ = decide(HOME, wan(UP), [A], RULES, 100.0, "a")
    for now_s in (101.0, 140.0):
        state, _ = decide(state, wan(UP), [A], RULES, now_s, "a")
    after, change = decide(state, wan(UP), [A], RULES, 140.1)
    assert after.active == "wan" and change is not None and change.kind == "failback"
    assert after.flaps == 0


def test_a_cheaper_path_takes_new_connections_once_it_was_good_for_the_hold_time() -> None:
    metered = replace(backup("a"), tier=1)
    for since_s, tier, moves in ((100.0, 0, True), (101.0, 0, False), (100.0, 1, False)):
        free = replace(backup("b"), tier=tier, alive_since_s=since_s)
        after, change = decide(OVER, wan(DOWN), [free, metered], RULES, 130.0)
        assert (after.active == "b") is moves
        assert change is None or (change.kind, change.is_gentle) == ("switch", True)
    behind = replace(backup("b"), tier=0, alive_since_s=0.0)
    after, _ = decide(OVER, wan(DOWN), [metered, behind], RULES, 130.0)
    assert after.active == "a", "it travels over the dead WAN, or is behind for another reason"


def test_what_is_nearly_spent_is_left_before_it_ends() -> None:
    spent, metered = replace(backup("a"), tier=3), replace(backup("b"), tier=1, alive_since_s=0.0)
    assert decide(OVER, wan(DOWN), [metered, spent], RULES, 130.0)[0].active == "b"
