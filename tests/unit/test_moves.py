"""What the lane should be like: which lines are shut, and for whom."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from rpcd_wireguard_uplink.candidates import Watch
from rpcd_wireguard_uplink.config import Settings
from rpcd_wireguard_uplink.failover import Phase, State
from rpcd_wireguard_uplink.model import DefaultRoute, Family
from rpcd_wireguard_uplink.moves import View, barred_of, opening_of
from rpcd_wireguard_uplink.paths import Lines

V4, V6 = Family.IPV4, Family.IPV6
STRANDED, AT_HOME, AWAY, HOLDING = (
    State(Phase.STRANDED, "wan"),
    State(Phase.PRIMARY, "wan"),
    State(Phase.FAILED_OVER, "wgup_a"),
    State(Phase.HOLDING, "wgup_a"),
)


@dataclass
class Known:
    """A router with two lines of which `dead` do not answer in any family."""

    ipv4: State
    ipv6: State
    fail_closed: bool = False
    dead: tuple[str, ...] = ("wan", "wwan")
    portals: dict[str, str] = field(default_factory=dict)

    def view(self) -> View:
        lines = {family: Lines(family) for family in Family}
        for family, each in lines.items():
            each.known = {name: DefaultRoute(family, name, "gw", 5) for name in ("wan", "wwan")}
        landscape = SimpleNamespace(
            lines=lines,
            portals=self.portals,
            route_of=lambda name, family: (
                lines[family].known.get(name) or DefaultRoute(family, name)
            ),
        )
        found: Any = SimpleNamespace(
            watch=Watch(Settings(fail_closed=self.fail_closed)),
            landscape=landscape,
            states={V4: self.ipv4, V6: self.ipv6},
            switch=SimpleNamespace(dead={family: set(self.dead) for family in Family}),
        )
        return cast(View, found)


@pytest.mark.parametrize(
    ("known", "barred4", "barred6"),
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
        (Known(State(Phase.STRANDED, "wgup_a"), STRANDED, True), (), ("wan", "wwan")),
        (Known(State(Phase.STRANDED, "no line"), STRANDED), (), ()),
    ],
)
def test_lines_that_are_shut(
    known: Known, barred4: tuple[str, ...], barred6: tuple[str, ...]
) -> None:
    view = known.view()
    assert (barred_of(view, V4), barred_of(view, V6)) == (barred4, barred6)


def test_the_lane_takes_all_that_is_dead_and_the_primary() -> None:
    view = Known(AWAY, State(Phase.FAILED_OVER, "wwan"), dead=("wwan",)).view()
    opening = opening_of(view, V4, "wan")
    assert opening is not None
    assert (opening.dead, opening.route) == (("wan", "wwan"), DefaultRoute(V4, "wgup_a"))
    other = opening_of(view, V6, "wan")
    assert other is not None
    assert (other.dead, other.route) == (("wan",), DefaultRoute(V6, "wwan", "gw", 0))


@pytest.mark.parametrize("state", [AT_HOME, STRANDED])
def test_no_lane_at_home(state: State) -> None:
    assert opening_of(Known(state, state).view(), V4, "wan") is None
