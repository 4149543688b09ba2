"""What would happen if paths died: the real rules on copies, and nothing is touched."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rpcd_wireguard_uplink.api.methods import METHODS, check_reply
from rpcd_wireguard_uplink.api.simulation import simulation
from rpcd_wireguard_uplink.errors import NotFound, Status
from rpcd_wireguard_uplink.failover.machine import Phase
from rpcd_wireguard_uplink.model import Family, Health
from tests.unit.choices import NOW_S, Choices, uplink_of


def supposed(choices: Choices, *fail: str) -> dict[str, Any]:
    before = copy.deepcopy(choices.monitor.states)
    reply = simulation(choices.config, choices.monitor, fail, NOW_S)
    check_reply(METHODS["uplink_simulate"], reply)
    assert choices.monitor.states == before
    assert choices.monitor.steering._diversions == {}
    return reply


def outcome(choices: Choices, *fail: str, family: int = 0) -> tuple[str, str, str]:
    """State, path and what would be next of one family."""
    row = supposed(choices, *fail)["families"][family]
    return row["state"], row["active_path"], row["next_path"]


@pytest.fixture
def choices(tmp_path: Path) -> Choices:
    uplinks = [uplink_of("nodeA", 30), uplink_of("nodeB", 20), uplink_of("nodeC", 10)]
    return Choices.lay(tmp_path, uplinks)


@pytest.mark.parametrize(
    ("fail", "expected"),
    [
        (("wan",), ("failed_over", "wgup_nodea", "wgup_nodeb")),
        (("wan", "nodeA"), ("failed_over", "wgup_nodeb", "wgup_nodec")),
        (("wan", "wgup_nodea", "nodeB"), ("failed_over", "wgup_nodec", "")),
        (("wan", "nodeA", "nodeB", "nodeC"), ("stranded", "wan", "")),
        (("wan", "br-lan"), ("stranded", "wan", "")),  # all of them travel over it
        (("nodeA",), ("primary", "wan", "wgup_nodeb")),
    ],
)
def test_who_takes_over(
    choices: Choices, fail: tuple[str, ...], expected: tuple[str, str, str]
) -> None:
    assert outcome(choices, *fail) == expected


def test_it_is_told(choices: Choices) -> None:
    reply = supposed(choices, "nodeA", "wan")
    assert reply["fail"] == ["wan", "wgup_nodea"]
    assert reply["families"][0] == {
        "family": "ipv4",
        "state": "failed_over",
        "active_path": "wgup_nodeb",
        "cause": "wan: supposed dead",
        "moves": True,
        "next_path": "wgup_nodec",
        "sentence": "IPv4 would go to nodeB; nodeC would be next.",
    }
    told = supposed(choices, "nodeC")["families"][1]["sentence"]
    assert told == "IPv6 would stay on wan; nodeA would be next."
    told = supposed(choices, "wan", "br-lan")["families"][0]["sentence"]
    assert told == "IPv4 would go nowhere: wan: supposed dead; no other path answers."


def test_an_unknown_path_is_refused_with_the_known_ones(choices: Choices) -> None:
    with pytest.raises(NotFound) as caught:
        supposed(choices, "wan", "eth7")
    assert (caught.value.status, caught.value.code) == (Status.NOT_FOUND, "unknown_path")
    assert '"eth7" is no path of this router' in str(caught.value)
    assert "br-lan, nodeA, nodeB, nodeC, wan, wgup_nodea" in str(caught.value)


def test_a_second_line_comes_before_peers(choices: Choices) -> None:
    choices.line("lte", Family.IPV4, metric=20)
    assert outcome(choices, "wan") == ("failed_over", "lte", "wgup_nodea")
    assert outcome(choices, "wan", "lte") == ("failed_over", "wgup_nodea", "wgup_nodeb")


def test_an_uplink_dies_with_the_line_that_it_needs(choices: Choices) -> None:
    choices.set_network(underlays={"wgup_nodea": "wan"})
    assert outcome(choices, "wan") == ("failed_over", "wgup_nodeb", "wgup_nodec")
    assert outcome(choices, "nodeB") == ("primary", "wan", "wgup_nodec")
    choices.line("lte", Family.IPV4, metric=20)
    assert outcome(choices, "wan", "lte") == ("failed_over", "wgup_nodeb", "wgup_nodec")


def test_what_is_dead_already_stays_so(choices: Choices) -> None:
    choices.path("wgup_nodea", Family.IPV4, state=Health.DOWN, cause="x")
    assert outcome(choices, "wan") == ("failed_over", "wgup_nodeb", "wgup_nodec")


def test_while_traffic_is_away(choices: Choices) -> None:
    choices.path("wan", Family.IPV4, state=Health.DOWN, cause="x")
    states = choices.monitor.states
    states[Family.IPV4] = replace(states[Family.IPV4], phase=Phase.FAILED_OVER, active="wgup_nodea")
    assert outcome(choices, "nodeA") == ("failed_over", "wgup_nodeb", "wgup_nodec")
    assert outcome(choices, "nodeC") == ("failed_over", "wgup_nodea", "wgup_nodeb")


def test_a_line_that_mwan3_refuses_gets_no_traffic_back(choices: Choices) -> None:
    states = choices.monitor.states
    states[Family.IPV4] = replace(
        states[Family.IPV4], phase=Phase.HOLDING, active="wgup_nodea", good_since_s=0.0
    )
    assert outcome(choices, "nodeC")[:2] == ("primary", "wan")
    choices.monitor.who_refuses = lambda device, family: "mwan3 says no"
    assert outcome(choices, "nodeC")[:2] == ("holding", "wgup_nodea")


def test_with_failover_off_nothing_moves(tmp_path: Path) -> None:
    choices = Choices.lay(tmp_path, [uplink_of("nodeA")], auto_failover=False)
    row = supposed(choices, "wan")["families"][0]
    assert (row["active_path"], row["cause"]) == ("wan", "automatic failover is off")


def test_a_family_without_a_line(choices: Choices) -> None:
    choices.without_wan(Family.IPV6)
    row = supposed(choices, "wan")["families"][1]
    assert (row["moves"], row["sentence"]) == (False, "IPv6 has no line of its own here.")
