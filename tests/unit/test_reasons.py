"""Reasons: text, code and arguments, what keeps them, and that the service gives each of them."""

from __future__ import annotations

import copy
import re

import pytest

from rpcd_wireguard_uplink.config.options import Settings
from rpcd_wireguard_uplink.errors import UplinkError
from rpcd_wireguard_uplink.failover.machine import Path, State, decide
from rpcd_wireguard_uplink.model import Health, HistoryEntry
from rpcd_wireguard_uplink.reasons import TEMPLATES, Reason, because, code_of, joined, page_texts
from rpcd_wireguard_uplink.warnings import Warnings
from tests.repo import PACKAGE

SILENT = because("no_answer", 3, "4.2")
NINE = because("gone", "wan")
for _ in range(9):
    NINE = because("of", "wan", NINE)
MADE = [
    (because("not_watched"), "it is not watched yet", "not_watched", ()),
    (SILENT, "no answer to 3 probes in 4.2 s", "no_answer", ("3", "4.2")),
    (
        because("down", SILENT),
        "it is down: no answer to 3 probes in 4.2 s",
        "down/no_answer",
        ("3", "4.2"),
    ),
    (because("down", "assumed"), "it is down: assumed", "down", ("assumed",)),
    (
        because("nothing_else", because("of", "wan", SILENT)),
        "wan: no answer to 3 probes in 4.2 s; no other path answers",
        "nothing_else/of/no_answer",
        ("wan", "3", "4.2"),
    ),
    (because("of", "wan", "something else"), "wan: something else", "", ()),
    (because("gone", "50% of wan"), "50% of wan is gone", "gone", ("50% of wan",)),
    (NINE, "wan: " * 9 + "wan is gone", "of/" * 9 + "gone", ("wan",) * 10),
]


@pytest.mark.parametrize(("reason", "text", "code", "arguments"), MADE)
def test_what_a_reason_says(reason: Reason, text: str, code: str, arguments: object) -> None:
    assert (reason, reason.code, reason.arguments) == (text, code, arguments)


def test_what_is_for_the_command_line_is_not_for_pages() -> None:
    texts = page_texts()
    assert because("not_added", "a") == "it is not a backup yet: `wgctl uplink add a` makes one"
    assert texts["not_added"] == "it is not a backup yet"
    assert texts["nothing_else"] == "%s; no other path answers"
    assert not [text for text in texts.values() if re.search(r"wgctl|[{}]|\.\.\.", text)]


def test_text_alone_has_no_code() -> None:
    assert code_of("it is not watched yet") == code_of("") == ("", ())


def test_what_is_not_filled_right_is_refused() -> None:
    with pytest.raises(TypeError):
        because("no_answer", 3)
    with pytest.raises(KeyError):
        because("unheard_of")


def test_its_code_goes_where_the_sentence_goes() -> None:
    warnings = Warnings()
    with warnings.catch("wan"):
        raise UplinkError(SILENT)
    [warned] = warnings.all()
    entry = HistoryEntry(at="", kind="failover", cause=SILENT).replaced(peer_id="a")
    for said in (str(SILENT), f"{SILENT}", copy.deepcopy(SILENT), warned, entry.cause):
        assert (said, code_of(said)) == (SILENT, ("no_answer", ("3", "4.2")))
    assert (entry.cause_code, entry.cause_args) == code_of(SILENT)


def test_one_sentence_alone_keeps_its_code() -> None:
    assert code_of(joined("; ", iter([SILENT]))) == code_of(SILENT)
    assert (both := joined("; ", [SILENT, "and more"])) == f"{SILENT}; and more"
    assert code_of(both) == code_of(joined("; ", [])) == ("", ())


def test_a_failover_tells_why_by_codes() -> None:
    dead, backup = Path("wan", Health.DOWN, cause=SILENT), Path("wgup_a", Health.UP)
    for backups, code in (([backup], "of/no_answer"), ([], "nothing_else/of/no_answer")):
        _, change = decide(State(active="wan"), dead, backups, Settings(), 10.0)
        assert change is not None
        assert code_of(change.cause) == (code, ("wan", "3", "4.2"))


def test_the_history_of_an_earlier_run_keeps_its_codes() -> None:
    entry = HistoryEntry(at="", kind="failover", cause=SILENT)
    table = entry.as_table()
    assert HistoryEntry.from_table(table) == entry
    table["cause_args"] = [3]
    with pytest.raises(TypeError):
        HistoryEntry.from_table(table)
    bare = HistoryEntry.from_table({"at": "", "kind": "failover", "cause": str(SILENT)})
    assert bare.as_table() == {**entry.as_table(), "cause_code": "", "cause_args": []}


def test_the_service_gives_each_of_them() -> None:
    sources = (f.read_text("utf-8") for f in PACKAGE.rglob("*.py") if f.name != "reasons.py")
    given = re.findall(r"\bbecause\(\s*([^,)]+)", "\n".join(sources))
    assert set(re.findall(r'"(\w+)"', " ".join(given))) == TEMPLATES.keys()
