"""What steering should do in each state: which WANs are left, and which are blocked for whom."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from rpcd_wireguard_uplink.failover.machine import Phase, State
from rpcd_wireguard_uplink.model import DefaultRoute, Family
from rpcd_wireguard_uplink.steering.plan import blocked_of, diversion_of
from rpcd_wireguard_uplink.system.network import NetworkState, Wans
from tests.unit.steering.scenes import V4, V6

STRANDED, AT_HOME, AWAY, HOLDING = (
    State(Phase.STRANDED, "wan"),
    State(Phase.PRIMARY, "wan"),
    State(Phase.FAILED_OVER, "wgup_a"),
    State(Phase.HOLDING, "wgup_a"),
)


@dataclass
class Known:
    """A router with two WANs of which `dead` do not answer in any family."""

    ipv4: State
    ipv6: State
    fail_closed: bool = False
    dead: tuple[str, ...] = ("wan", "wwan")
    portals: dict[str, str] = field(default_factory=dict)

    @property
    def network(self) -> NetworkState:
        names = ("wan", "wwan")
        return NetworkState(
            wans={f: Wans(known={n: DefaultRoute(f, n, "gw", 5) for n in names}) for f in Family}
        )

    def blocked(self, family: Family) -> tuple[str, ...]:
        states = {V4: self.ipv4, V6: self.ipv6}
        found = blocked_of(
            states, self.network, family, self.dead, self.portals, fail_closed=self.fail_closed
        )
        return tuple(found)


@pytest.mark.parametrize(
    ("known", "blocked4", "blocked6"),
    [
        (Known(AT_HOME, AT_HOME, True, ()), (), ()),
        (Known(STRANDED, STRANDED), (), ()),
        (Known(STRANDED, STRANDED, True), ("wan", "wwan"), ("wan", "wwan")),
        (Known(STRANDED, STRANDED, True, ("wan",)), ("wan",), ("wan",)),
        (Known(STRANDED, STRANDED, True, portals={"wan": "http://x"}), ("wwan",), ("wwan",)),
        (Known(AWAY, STRANDED), (), ("wan", "wwan")),
        (Known(HOLDING, STRANDED), (), ("wan", "wwan")),
        (Known(STRANDED, AWAY), ("wan", "wwan"), ()),
        (Known(AT_HOME, STRANDED), (), ()),
        (Known(AWAY, AT_HOME), (), ()),
        (
            Known(State(Phase.STRANDED, "wgup_a"), STRANDED, True),
            ("wan", "wgup_a", "wwan"),
            ("wan", "wwan"),
        ),
        (Known(State(Phase.STRANDED, "no wan"), STRANDED), (), ()),
        (Known(State(Phase.STRANDED, "no WAN"), AWAY), (), ()),
    ],
)
def test_wans_that_are_blocked(
    known: Known, blocked4: tuple[str, ...], blocked6: tuple[str, ...]
) -> None:
    assert (known.blocked(V4), known.blocked(V6)) == (blocked4, blocked6)


def test_traffic_leaves_all_that_is_dead_and_the_primary() -> None:
    known = Known(AWAY, State(Phase.FAILED_OVER, "wwan"))
    found = diversion_of(AWAY, known.network, V4, "wan", ("wwan",), ())
    assert found is not None
    assert (found.dead, found.route) == (("wan", "wwan"), DefaultRoute(V4, "wgup_a"))
    other = diversion_of(known.ipv6, known.network, V6, "wan", ("wwan",), ())
    assert other is not None
    assert (other.dead, other.route) == (("wan",), DefaultRoute(V6, "wwan", "gw", 0))


@pytest.mark.parametrize("state", [AT_HOME, STRANDED, State(Phase.SUSPECT, "wan")])
def test_no_diversion_at_home(state: State) -> None:
    for dead in ((), ("wan",), ("wan", "wwan")):
        assert diversion_of(state, Known(state, state).network, V4, "wan", dead, ()) is None


@pytest.mark.parametrize(
    ("state", "dead", "used", "moved"),
    [
        (AT_HOME, ("wwan",), ("wwan",), ("wwan",)),
        (AT_HOME, ("wwan",), (), None),  # it had no share
        (AT_HOME, (), ("wwan",), None),
        (AT_HOME, ("wan", "wwan"), ("wwan",), None),  # the primary is no better
        (STRANDED, ("wwan",), ("wwan",), None),
        (AWAY, ("wwan",), ("wwan",), ("wan", "wwan")),
    ],
)
def test_a_dead_wans_share_goes_by_the_primary(
    state: State, dead: tuple[str, ...], used: tuple[str, ...], moved: tuple[str, ...] | None
) -> None:
    found = diversion_of(state, Known(state, state).network, V4, "wan", dead, used)
    assert (found.dead if found else None) == moved
    if found is not None and state is AT_HOME:
        assert found.route == DefaultRoute(V4, "wan", "gw", 0)


def test_a_primary_that_is_not_known_takes_no_share() -> None:
    assert (
        diversion_of(AT_HOME, Known(AT_HOME, AT_HOME).network, V4, "gone", ("wwan",), ("wwan",))
        is None
    )
