"""The status in plain words, in each state of a router."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser import canned

OFFER = canned.offer("nodec")
PORTAL = canned.wan(portal="http://x/")
CASES = [
    # the state, what is changed, now, next, advice, its action
    ("calm", {}, "now_works", "next_moves", "do_nothing", ""),
    ("calm", {"problems": ["x"]}, "now_works", "next_moves", "", "check"),
    ("calm", {"state": "suspect"}, "now_suspect", "next_moves", "do_nothing", ""),
    ("calm", {"enabled": 0}, "now_disabled", "now_works", "do_enable", "settings"),
    ("calm", {"uplinks": []}, "now_works", "next_none", "do_add", "add"),
    ("failed_over", {}, "now_failed_over", "next_none", "do_mend", ""),
    ("failed_over", {"state": "holding"}, "now_holding", "next_none", "do_nothing", ""),
    ("stranded", {}, "now_stranded", "", "do_check", "check"),
    ("stranded", {"auto_failover": 0}, "now_stranded", "", "do_check", "check"),
    ("failover_off", {}, "now_off", "now_works", "do_turn_on", "failover"),
    ("by_hand", {}, "now_chosen", "next_moves", "do_nothing", ""),
    ("calm", {"wans": [PORTAL]}, "now_works", "next_moves", "do_log_in", ""),
]


@pytest.mark.parametrize(("state", "changes", "now", "follows", "advice", "action"), CASES)
def test_what_is_said(
    state: str, changes: dict[str, Any], now: str, follows: str, advice: str, action: str
) -> None:
    said = canned.summary_of({**canned.STATES[state]().status, **changes}, [OFFER])
    found = (said["now_code"], said["next_code"], said["advice_code"], said["action"])
    assert found == (now, follows, advice, action)


def test_what_is_not_ready_says_why() -> None:
    status = canned.calm().status
    status["uplinks"] = status["uplinks"][1:]
    said = canned.summary_of(status, [])
    assert said["advice"] == "No backup is ready: it is down: no answer to 3 probes in 4.2 s."
    assert said["advice_code"] == "not_ready/down/no_answer"


@pytest.mark.parametrize(
    ("offers", "advice", "peer_id"),
    [
        ([], "do_ask", ""),
        ([canned.offer("a", configured=True, usable=True)], "do_ask", ""),
        ([OFFER, canned.offer("b", usable=True, trusted=True)], "do_add", "b"),
    ],
)
def test_which_offer_is_advised(offers: list[dict[str, Any]], advice: str, peer_id: str) -> None:
    said = canned.summary_of(canned.first_run().status, offers)
    assert (said["advice_code"], said["peer_id"]) == (advice, peer_id)
