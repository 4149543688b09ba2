"""What an owner is told about the choice: each number, each place, each reason, and what if."""

from __future__ import annotations

import copy
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pytest_mock import MockerFixture

from docs.schemas import check_reply
from rpcd_wireguard_uplink.api.methods import METHODS
from rpcd_wireguard_uplink.config.settings import Config
from rpcd_wireguard_uplink.errors import NotFound, Status
from rpcd_wireguard_uplink.failover.machine import Phase
from rpcd_wireguard_uplink.failover.selection import Terms
from rpcd_wireguard_uplink.mesh.wire.offer import Offer
from rpcd_wireguard_uplink.model import Family, Health
from tests.unit.choices import Choices, explain_methods, offer_of, uplink_of
from tests.unit.fakes import replace_commands

NOTHING_BETTER = "and nothing clearly better answers."
V4_ONLY = ("10.7.7.2/32",)


def explained(
    choices: Choices, *offers: Offer, distrusted: dict[str, str] | None = None
) -> dict[str, Any]:
    reply = explain_methods(choices, offers, distrusted).uplink_explain().as_table()
    check_reply(METHODS["uplink_explain"], reply)
    return reply


def sentences(choices: Choices) -> list[str]:
    """What is said of each of the candidates for IPv4."""
    return [row["sentence"] for row in explained(choices)["families"][0]["candidates"]]


@pytest.mark.parametrize(
    ("weight", "terms", "why"),
    [
        (100, {"metered": True}, "it is metered, and the other is free"),
        (100, {"quota_gb": 10, "quota_left_gb": 0.1}, "its quota is nearly spent"),
        (5, {}, "its weight is 5, not 10"),
        (10, {"price_per_gb": 2.5}, "a GB costs 2.5 there, not 1"),
        (
            10,
            {"bandwidth_mbps": 20},
            "a page would take 1200 ms through it, 600 ms through the other",
        ),
        (10, {}, "both are alike, and the order of names decides"),
    ],
)
def test_one_uplink_after_another(
    tmp_path: Path, weight: int, terms: dict[str, Any], why: str
) -> None:
    """nodeB, whose terms are worse than nodeA's."""
    choices = Choices.lay(tmp_path, [uplink_of("nodeA"), uplink_of("nodeB", weight)])
    price = 1 if "price_per_gb" in terms else 0
    choices.monitor.terms = {
        "wgup_nodea": Terms(price_per_gb=price, bandwidth_mbps=50),
        "wgup_nodeb": Terms(**{"bandwidth_mbps": 50, **terms}),
    }
    assert sentences(choices) == ["nodeA comes first.", f"nodeB comes after nodeA: {why}."]


def test_lines_come_first_by_metric(tmp_path: Path) -> None:
    choices = Choices.lay(tmp_path, [uplink_of("nodeA", 100)])
    choices.line("lte", Family.IPV4, metric=20)
    choices.line("sat", Family.IPV4, metric=30)
    assert sentences(choices) == [
        "lte comes first.",
        "sat comes after lte: its metric is 30, not 20.",
        "nodeA comes after sat: a WAN of the router's own comes before any peer's.",
    ]


def test_shared_fate_and_what_can_not_be_used(tmp_path: Path) -> None:
    names = ("nodeA", "nodeB", "nodeC", "nodeD")
    uplinks = [uplink_of(name, 90 if name == "nodeB" else 10) for name in names]
    choices = Choices.lay(tmp_path, uplinks)
    choices.set_network(underlays={"wgup_nodeb": "wan"})
    choices.path("wgup_nodec", Family.IPV4, state=Health.DOWN, cause="carrier lost")
    choices.path("wgup_noded", Family.IPV4, state=Health.UNKNOWN, answered_ago_s=None)
    assert sentences(choices) == [
        "nodeA comes first.",
        "nodeB comes after nodeA: it needs the very WAN that it should replace.",
        "nodeC can't be used: it is down: carrier lost.",
        "nodeD can't be used: nothing has answered through it yet.",
    ]


def test_what_is_in_use_and_not_the_best(tmp_path: Path) -> None:
    choices = Choices.lay(tmp_path, [uplink_of("nodeA"), uplink_of("nodeB")])
    monitor = choices.monitor
    monitor.terms = {"wgup_nodea": Terms(bandwidth_mbps=50), "wgup_nodeb": Terms(bandwidth_mbps=55)}
    state = replace(monitor.states[Family.IPV4], phase=Phase.FAILED_OVER, active="wgup_nodea")
    monitor.states[Family.IPV4] = replace(state, cause="wan: carrier lost")
    family = explained(choices)["families"][0]
    assert family["sentence"] == "IPv4 leaves by nodeA; nodeB would be next."
    assert family["cause"] == "wan: carrier lost"
    assert [row["active"] for row in family["candidates"]] == [True, False]
    assert [row["sentence"] for row in family["candidates"]] == [
        "nodeA comes first.",
        "nodeB comes after nodeA: the other is in use and stays until another is a fifth better.",
    ]


@pytest.mark.parametrize(
    ("phase", "active", "cause", "degraded", "note"),
    [
        (Phase.PRIMARY, "wan", "", "", ""),
        (Phase.SUSPECT, "wan", "probes unanswered", "", ""),
        (Phase.PRIMARY, "wan", "", "takes 900 ms", f"It takes 900 ms, {NOTHING_BETTER}"),
        (Phase.FAILED_OVER, "wgup_nodea", "wan: x", "", ""),
        (Phase.HOLDING, "wgup_nodea", "wan answers again", "loses 9 % of its probes", ""),
    ],
)
def test_how_a_family_is_told(
    tmp_path: Path, phase: Phase, active: str, cause: str, degraded: str, note: str
) -> None:
    choices = Choices.lay(tmp_path, [uplink_of("nodeA"), uplink_of("nodeB")])
    states = choices.monitor.states
    states[Family.IPV4] = replace(states[Family.IPV4], phase=phase, active=active, cause=cause)
    quality = choices.monitor.paths["wan", Family.IPV4].health.quality
    quality.below_sla = quality.near_sla = degraded
    leaves = "wan; nodeA" if active == "wan" else "nodeA; nodeB"
    told = explained(choices)["families"][0]
    assert told["sentence"] == f"IPv4 leaves by {leaves} would be next."
    assert (told["cause"], told["note"]) == (cause, note)
    states[Family.IPV4] = replace(states[Family.IPV4], phase=Phase.STRANDED, cause="all is lost")
    assert explained(choices)["families"][0]["sentence"] == "IPv4 goes nowhere: all is lost."


def test_all_numbers(tmp_path: Path) -> None:
    choices = Choices.lay(tmp_path, [uplink_of("nodeA", 40)])
    choices.monitor.terms = {"wgup_nodea": Terms(True, 50.0, 12.5, 0.25, 100, 8)}
    health = choices.monitor.paths["wgup_nodea", Family.IPV4].health
    health._statistics.extend([True, False, True, True])
    row = explained(choices)["families"][0]["candidates"][0]
    assert {name: row[name] for name in row if not name.startswith(("sentence", "reason"))} == {
        **{"place": 1, "path": "wgup_nodea", "name": "nodeA", "kind": "uplink"},
        **{"usable": True, "active": False, "health": "up", "shared_fate": False},
        **{"metric": 0, "weight": 40, "tier": "metered", "price_per_gb": 0.25},
        **{"quota_left_gb": 12.5, "latency_ms": 20.0, "loss_pct": 25.0, "score_ms": 2700.0},
        **{"advertised_mbps": 100, "measured_mbps": 8, "expected_mbps": 8, "last_answer_s": 1.0},
    }


def test_a_first_doubt_is_told(tmp_path: Path) -> None:
    choices = Choices.lay(tmp_path, [uplink_of("nodeA")])
    choices.monitor.early = {Family.IPV4: "wgup_nodea"}
    assert [family["note"] for family in explained(choices)["families"]] == [
        "New connections leave by nodeA while the WAN is in doubt.",
        "",
    ]


def test_a_family_that_the_tunnel_or_every_wan_lacks(tmp_path: Path) -> None:
    choices = Choices.lay(tmp_path, [uplink_of("nodeA", addresses=V4_ONLY)])
    family = explained(choices)["families"][1]
    assert family["sentence"] == "IPv6 leaves by wan; nothing else could take over now."
    [row] = family["candidates"]
    assert row["sentence"] == "nodeA can't be used: the tunnel has no address of this family."
    choices.without_wan(Family.IPV6)
    states = choices.monitor.states
    states[Family.IPV6] = replace(states[Family.IPV6], active="")
    family = explained(choices)["families"][1]
    assert (family["candidates"], "has no WAN here" in family["sentence"]) == ([], True)
    row = simulated(choices, "wan")["families"][1]
    assert (row["moves"], row["sentence"]) == (False, "IPv6 has no WAN here.")


def test_peers_that_are_no_candidates(tmp_path: Path) -> None:
    choices = Choices.lay(tmp_path, [uplink_of("nodeA")])
    off = replace(uplink_of("off"), enabled=False)
    choices.config = Config(choices.config.settings, (*choices.config.uplinks, off))
    offers = [
        offer_of("nodeA"),
        offer_of("new"),
        offer_of("stranger"),
        offer_of("spent", quota_gb=5.0, quota_left_gb=0.0),
        offer_of("fed", egress=("uplink=nodeA",)),
    ]
    others = explained(choices, *offers, distrusted={"stranger": "stranger is not trusted"})
    assert [(row["peer_id"], row["configured"], row["reason"]) for row in others["others"]] == [
        ("off", True, "the uplink is disabled in its section"),
        ("new", False, "it is not a backup yet: `wgctl uplink add new` makes one"),
        ("stranger", False, "stranger is not trusted"),
        ("spent", False, "the peer's quota of this month is used up"),
        ("fed", False, "the peer has no WAN of its own now: it uses nodeA's internet"),
    ]


def test_sixty_uplinks_are_explained_at_once_and_without_a_command(
    tmp_path: Path, mocker: MockerFixture
) -> None:
    """10 ms on this project's machines; what is asserted leaves room for a loaded one."""
    commands = replace_commands(mocker)
    choices = Choices.lay(tmp_path, [uplink_of(f"node{n:02}", n) for n in range(1, 61)])
    methods, took_s = explain_methods(choices), []
    for _ in range(5):
        begun_s = time.perf_counter()
        methods.uplink_explain()
        took_s.append(time.perf_counter() - begun_s)
    assert min(took_s) < 0.1
    assert commands.calls == []
    assert len(sentences(choices)) == 60


# --- what if


def simulated(choices: Choices, *fail: str) -> dict[str, Any]:
    before = copy.deepcopy(choices.monitor.states)
    reply = explain_methods(choices).uplink_simulate(fail).as_table()
    check_reply(METHODS["uplink_simulate"], reply)
    assert choices.monitor.states == before
    assert choices.monitor._steering.diversions == {}
    return reply


def outcome(choices: Choices, *fail: str) -> tuple[str, str, str]:
    """State, path and what would be next of IPv4."""
    row = simulated(choices, *fail)["families"][0]
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
    reply = simulated(choices, "nodeA", "wan")
    assert reply["fail"] == ["wan", "wgup_nodea"]
    assert reply["families"][0] == {
        "family": "ipv4",
        "state": "failed_over",
        "active_path": "wgup_nodeb",
        "cause": "wan: assumed to fail",
        "moves": True,
        "next_path": "wgup_nodec",
        "sentence": "IPv4 would go to nodeB; nodeC would be next.",
        "cause_code": "of/assumed",
        "cause_args": ["wan"],
        "sentence_code": "would_go",
        "sentence_args": ["IPv4", "nodeB", "nodeC"],
    }
    told = simulated(choices, "nodeC")["families"][1]["sentence"]
    assert told == "IPv6 would go to wan; nodeA would be next."
    told = simulated(choices, "wan", "br-lan")["families"][0]["sentence"]
    assert told == "IPv4 goes nowhere: wan: assumed to fail; no other path answers."


def test_an_unknown_path_is_refused_with_the_known_ones(choices: Choices) -> None:
    with pytest.raises(NotFound) as caught:
        simulated(choices, "wan", "eth7")
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
    row = simulated(choices, "wan")["families"][0]
    assert (row["active_path"], row["cause"]) == ("wan", "automatic failover is off")
