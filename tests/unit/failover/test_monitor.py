"""The monitor's clock goes on whatever happens in a tick; the rest is tested in namespaces."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.api.status import StatusMethods
from rpcd_wireguard_uplink.config.probe_profile import DEFAULT_PROFILE, FAST_PROFILE
from rpcd_wireguard_uplink.events import DoubtEnded
from rpcd_wireguard_uplink.failover.detector import PathHealth
from rpcd_wireguard_uplink.failover.liveness import PassiveLiveness
from rpcd_wireguard_uplink.failover.machine import Choice, Decision, Phase, State
from rpcd_wireguard_uplink.failover.monitor import TAKEN_OVER
from rpcd_wireguard_uplink.failover.paths import WatchedPath
from rpcd_wireguard_uplink.model import DefaultRoute, Family, Health, PathKind
from rpcd_wireguard_uplink.probing.doubt import REST_S, Stage
from rpcd_wireguard_uplink.probing.icmp import Prober, Reply
from rpcd_wireguard_uplink.probing.probe_kind import ProbeKind
from rpcd_wireguard_uplink.warnings import Warnings
from tests.unit.choices import NOW_S, Choices, explain_methods, uplink_of
from tests.unit.fakes import Machine, monitor_of, store_of


async def test_a_tick_that_fails_is_told_and_followed_by_another(
    mocker: MockerFixture, tmp_path: object, caplog: pytest.LogCaptureFixture
) -> None:
    watching = monitor_of(Machine(str(tmp_path)))
    mocker.patch.object(watching, "_evaluate", side_effect=RuntimeError("a secret"))
    watching._tick()
    assert "probing failed unexpectedly (RuntimeError at" in watching.warnings["probing"]
    assert "a secret" not in caplog.text + str(watching.warnings)
    assert watching._tick_handle is not None and not watching._tick_handle.cancelled()
    watching._tick_handle.cancel()


async def test_a_reading_of_the_kernel_that_failed_unexpectedly_is_done_again(
    mocker: MockerFixture, tmp_path: object
) -> None:
    watching = monitor_of(Machine(str(tmp_path)))
    mocker.patch.object(watching, "_reread", side_effect=OSError("no descriptors"))
    watching._stale.set()
    with pytest.raises(OSError, match="no descriptors"):
        await watching._follow_network()
    assert watching._stale.is_set(), "for who begins it again"


async def test_what_an_earlier_run_left_open_stays_until_its_path_is_looked_at(
    tmp_path: object,
) -> None:
    """A kernel event that comes while the first reading goes on must not give the traffic back."""
    watching = monitor_of(Machine(str(tmp_path)))
    before = State(Phase.FAILED_OVER, "wgup_free", 1.0, TAKEN_OVER, 1.0)
    watching.states[Family.IPV4] = before
    watching.network.remember(DefaultRoute(Family.IPV4, "wan"))
    watching._evaluate(5.0)
    assert watching.states[Family.IPV4] == before
    await watching.reread()
    assert watching._is_watching
    if watching._tick_handle is not None:
        watching._tick_handle.cancel()


class HeldUp:
    """A monitor of one path, by a clock of its own. Probes in the past are lost after 0.06 s."""

    def __init__(self, mocker: MockerFixture, machine: Machine) -> None:
        self.clock = mocker.patch("rpcd_wireguard_uplink.failover.monitor.time")
        self.clock.monotonic.return_value = 100.0
        self.watching = monitor_of(machine)
        self.watching._is_watching = True
        self.health = PathHealth(FAST_PROFILE, ("a", "b", "c"))
        self.prober = mocker.create_autospec(Prober, instance=True)
        self.prober.drain.return_value = []
        path = WatchedPath("wan", PathKind.WAN, Family.IPV4, self.health, self.prober, 0.0)
        path.descriptor = 99
        self.watching.paths[path.key] = path

    def probed(self, fates: str) -> None:
        """One probe in 20 ms for each fate: + is answered at once, . never; a tick is planned."""
        for number, fate in enumerate(fates):
            self.pass_s(0.02)
            self.health.sent(number, "abc"[number % 3], self.clock.monotonic())
            if fate == "+":
                self.health.answered(number, self.clock.monotonic() + 0.001)
            self.health.expire(self.clock.monotonic())
        self.watching._plan_tick(self.clock.monotonic())

    def pass_s(self, seconds: float) -> None:
        self.clock.monotonic.return_value += seconds

    def end(self) -> None:
        if self.watching._tick_handle is not None:
            self.watching._tick_handle.cancel()


@pytest.mark.parametrize("first", ["tick", "kernel event"])
async def test_time_in_which_this_process_was_held_up_is_no_silence(
    first: str, mocker: MockerFixture, tmp_path: object
) -> None:
    """A path lost some probes in a moment. Whoever comes first when the process runs again."""
    held = HeldUp(mocker, Machine(str(tmp_path)))
    held.probed("+" * 12 + "." * 8)
    assert held.health.state is Health.SUSPECT
    held.pass_s(5)
    if first == "kernel event":
        held.watching._evaluate(held.clock.monotonic())  # which has the next tick planned
        held.pass_s(0.002)
    held.watching._tick()
    assert held.health.state is Health.SUSPECT
    held.end()


async def test_an_answer_that_waited_for_this_process_says_nothing_of_the_round_trip(
    mocker: MockerFixture, tmp_path: object
) -> None:
    held = HeldUp(mocker, Machine(str(tmp_path)))
    held.probed("+" * 12 + ".")
    before = held.health.latency_ms, held.health.timeout_s
    held.pass_s(1)
    held.prober.drain.return_value = [Reply(12)]
    held.watching._tick()
    assert (held.health.latency_ms, held.health.timeout_s) == before
    assert held.health.loss_pct == 0
    held.end()


async def test_a_router_that_is_always_late_probes_less_and_says_so(
    mocker: MockerFixture, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    choices = Choices.lay(tmp_path, [uplink_of("a")])
    monitor, clock = choices.monitor, mocker.patch("rpcd_wireguard_uplink.failover.monitor.time")
    wan = monitor.paths["wan", Family.IPV4]
    wan.descriptor, monitor._is_watching = 99, True
    clock.monotonic.return_value = NOW_S
    mocker.patch.object(monitor, "_probe", lambda path, now_s: setattr(path, "last_sent_s", now_s))
    mocker.patch.object(monitor._steering, "carry_out")

    def run(seconds: float, lag_s: float) -> None:
        end_s = clock.monotonic() + seconds
        while clock.monotonic() < end_s:
            clock.monotonic.return_value = monitor._planned_s + lag_s
            monitor._excuse(clock.monotonic())
            monitor._tick()

    monitor._plan_tick(NOW_S)
    run(5.0, 0.01)
    assert (monitor.pause_s(wan, NOW_S), monitor.why_eased()) == (0.25, "")
    before_s = monitor.detection_bound_s
    run(30.0, 0.2)
    assert monitor.pause_s(wan, NOW_S) == 0.5
    assert monitor.detection_bound_s == before_s + 0.25
    told = (
        "This router is busy: it probes every 0.5 s in place of 0.25, and traffic leaves a WAN "
        f"that falls silent within {monitor.detection_bound_s:.1f} s."
    )
    assert monitor.why_eased() == told and caplog.messages == [told]
    assert [f.note for f in explain_methods(choices).uplink_explain().families] == [told] * 2
    parts = monitor.platform, store_of(choices.config), monitor, *[cast(Any, None)] * 6, Warnings()
    assert list(StatusMethods(*parts).problems()) == [told]
    wan.note_use(False)  # in larger steps
    run(400.0, 0.01)
    wan.note_use(True)
    run(0.1, 0.01)
    assert (monitor.pause_s(wan, NOW_S), monitor.why_eased()) == (0.25, "")
    assert caplog.messages == [told, "paths are probed at the usual pace again"]
    assert monitor._tick_handle is not None
    monitor._tick_handle.cancel()


async def test_an_answer_in_time_leaves_nothing_to_look_at(
    mocker: MockerFixture, tmp_path: object
) -> None:
    """The tick that was planned for the case that it would not come decides nothing."""
    held = HeldUp(mocker, Machine(str(tmp_path)))
    held.probed("+" * 12)
    watching, path = held.watching, held.watching.paths["wan", Family.IPV4]
    decided = mocker.spy(watching, "_evaluate")
    held.prober.send.return_value = 12
    watching._probe(path, held.clock.monotonic())
    watching._plan_tick(held.clock.monotonic())
    overdue_s = watching._planned_s
    assert overdue_s < path.probe_due_s
    held.prober.drain.return_value = [Reply(12)]
    watching._on_reply(path)
    held.prober.drain.return_value = []
    held.clock.monotonic.return_value = overdue_s
    watching._tick()
    assert decided.call_count == 0 and watching._planned_s > overdue_s
    held.clock.monotonic.return_value = watching._planned_s
    watching._tick()
    assert decided.call_count == 1, "the next probe leaves"
    held.end()


class Doubted:
    """A monitor whose WAN has answered until now, by a clock of its own; nobody answers but whom a
    test has answer. `early` is what steering was last told.
    """

    def __init__(self, mocker: MockerFixture, tmp_path: Path, **options: object) -> None:
        self.clock = mocker.patch("rpcd_wireguard_uplink.failover.monitor.time")
        self.clock.monotonic.return_value = NOW_S
        mocker.patch("rpcd_wireguard_uplink.failover.liveness.time", self.clock)
        self.choices = Choices.lay(tmp_path, [uplink_of("a"), uplink_of("b")], **options)
        self.monitor = self.choices.monitor
        self.monitor._is_watching = True
        self.early: dict[Family, str] = {}
        self.told: list[DoubtEnded] = []
        self.monitor._events.subscribe(DoubtEnded, self.told.append)
        self.counted: dict[str, int] = {"wan": 100}
        mocker.patch.object(self.monitor._steering, "carry_out", self._carry_out)
        mocker.patch.object(
            self.monitor._liveness._sets,
            "packets",
            lambda name: dict(self.counted) if name == "heard4" else {},
        )
        mocker.patch.object(PassiveLiveness, "is_needed", False)
        self.sent: list[tuple[str, int]] = []
        self.replies: dict[str, list[Reply]] = {}
        for path in list(self.monitor.paths.values()):
            if path.family is Family.IPV6 and path.device != "wan":
                del self.monitor.paths[path.key]
                continue
            name = "wan6" if path.family is Family.IPV6 else path.device
            path.prober = mocker.create_autospec(Prober, instance=True)
            path.prober.send.side_effect = lambda _, name=name: self._send(name)
            path.prober.drain.side_effect = lambda name=name: self.replies.pop(name, [])
            path.descriptor, path.last_sent_s, path.pause_s = 99, NOW_S, 30.0
        self.wan6 = self.monitor.paths.pop(("wan", Family.IPV6))
        self.wan = self.monitor.paths["wan", Family.IPV4]
        for wan in (self.wan, self.wan6):
            wan.health = PathHealth(DEFAULT_PROFILE, ("a", "b"))
            for number in range(40):
                wan.health.sent(-number, "ab"[number % 2], NOW_S - 10.0 + number / 4)
                wan.health.answered(-number, NOW_S - 9.98 + number / 4)
            wan.last_sent_s = float("-inf")

    def watch_both_families(self) -> None:
        """IPv6 too, whose probe left first."""
        self.monitor.paths[self.wan6.key] = self.wan6
        self.wan.last_sent_s = NOW_S - 0.2

    def _carry_out(self, decisions: dict[Family, Decision]) -> None:
        self.early = {f: d.early for f, d in decisions.items() if d.early}

    def _send(self, device: str) -> int:
        self.sent.append((device, len(self.sent) + 1))
        return len(self.sent)

    def pass_s(self, seconds: float) -> None:
        """Let the time pass in steps of 10 ms."""
        for _ in range(round(seconds / 0.01)):
            self.clock.monotonic.return_value += 0.01
            self.monitor._planned_s = self.clock.monotonic.return_value
            self.monitor._tick()

    def answer(self, device: str) -> None:
        """It answers what it was sent last."""
        sequence = next(n for name, n in reversed(self.sent) if name == device)
        self.replies[device] = [Reply(sequence, 8)]
        self.monitor._on_reply(self.monitor.paths[device, Family.IPV4])


@pytest.fixture
def doubted(mocker: MockerFixture, tmp_path: Path) -> Iterator[Doubted]:
    yield from doubting(mocker, tmp_path)


def doubting(mocker: MockerFixture, tmp_path: Path, **options: object) -> Iterator[Doubted]:
    made = Doubted(mocker, tmp_path, **options)
    yield made
    if made.monitor._tick_handle is not None:
        made.monitor._tick_handle.cancel()


async def test_a_lost_burst_leads_new_connections_to_a_backup_that_answers(
    doubted: Doubted,
) -> None:
    doubted.pass_s(0.15)
    assert {device for device, _ in doubted.sent} == {"wan", "wgup_a", "wgup_b"}
    assert doubted.wan.doubt.stage is Stage.ASKING and doubted.early == {}
    doubted.answer("wgup_b")
    doubted.pass_s(0.1)
    assert doubted.wan.doubt.stage is Stage.DOUBTED
    assert doubted.early == {Family.IPV4: "wgup_b"} == doubted.monitor.early
    doubted.answer("wan")
    assert doubted.early == {} and doubted.wan.doubt.stage is Stage.CALM
    (told,) = doubted.told
    assert (told.family, told.wan, told.backup) == (Family.IPV4, "wan", "wgup_b")
    assert 0 < told.seconds < 0.1


@pytest.mark.parametrize("when_s", [0.08, 0.25])
async def test_what_arrives_on_the_wan_is_no_death(doubted: Doubted, when_s: float) -> None:
    """Whether the doubt is there already or not."""
    doubted.pass_s(when_s)
    before = doubted.wan.doubt.stage
    doubted.counted["wan"] += 50
    doubted.monitor._liveness.look()
    assert (before, doubted.wan.doubt.stage) == (
        Stage.ASKING if when_s < 0.1 else Stage.DOUBTED,
        Stage.CALM,
    )
    doubted.pass_s(REST_S - 0.1)
    assert doubted.wan.doubt.stage is Stage.CALM


async def test_a_queue_delays_both_families_and_what_arrives_in_one_tells(doubted: Doubted) -> None:
    """A download of IPv4 fills it; nobody uses IPv6."""
    doubted.watch_both_families()
    for _ in range(300):
        doubted.pass_s(0.01)
        doubted.counted["wan"] += 4
        doubted.monitor._liveness.look()  # as while a WAN is suspect
        stages = {doubted.wan.doubt.stage, doubted.wan6.doubt.stage}
        assert Stage.DOUBTED not in stages
    assert {doubted.wan.health.state, doubted.wan6.health.state} == {Health.SUSPECT}
    assert {s.phase for s in doubted.monitor.states.values()} <= {Phase.PRIMARY, Phase.SUSPECT}


async def test_one_family_that_dies_alone_is_doubted(doubted: Doubted) -> None:
    """What arrives in the other one, whose probes are answered, says nothing of it."""
    doubted.watch_both_families()
    for _ in range(30):
        doubted.pass_s(0.01)
        doubted.counted["wan"] += 4
        if doubted.wan.health.is_waiting or doubted.wan.doubt.stage is Stage.ASKING:
            doubted.answer("wan")
    assert (doubted.wan.doubt.stage, doubted.wan6.doubt.stage) == (Stage.CALM, Stage.DOUBTED)


async def test_no_backup_is_used_that_is_not_known_to_live(doubted: Doubted) -> None:
    doubted.pass_s(0.3)
    assert doubted.wan.doubt.stage is Stage.DOUBTED and doubted.early == {}


async def test_a_verdict_ends_the_doubt(doubted: Doubted) -> None:
    doubted.pass_s(0.15)
    doubted.answer("wgup_a")
    doubted.pass_s(0.1)
    assert doubted.early == {Family.IPV4: "wgup_a"}
    for _ in range(16):
        doubted.pass_s(0.1)
        doubted.answer("wgup_a")
    assert doubted.monitor.states[Family.IPV4].phase is Phase.FAILED_OVER
    assert doubted.early == {} and doubted.wan.doubt.stage is Stage.CALM
    assert doubted.told == [], "the failover is"


@pytest.mark.parametrize(
    "why", ["early_failover", "auto_failover", "profile_name", "by hand", "VPN", "TCP probes"]
)
async def test_where_nothing_is_led_away_no_burst_is_sent(
    mocker: MockerFixture, tmp_path: Path, why: str
) -> None:
    options: dict[str, object] = {"early_failover": "off", "profile_name": "fast"}
    options["auto_failover"] = False
    chosen = {why: options[why]} if why in options else {}
    for made in doubting(mocker, tmp_path, **chosen):
        if why == "by hand":
            made.monitor.choice = Choice("", NOW_S + 60)
        if why == "VPN":
            made.choices.set_network(private_default={Family.IPV4: "vpn"})
        if why == "TCP probes":
            made.wan.kinds.present = ProbeKind.TCP_443
        made.pass_s(0.25)
        assert made.wan.doubt.stage is Stage.CALM
