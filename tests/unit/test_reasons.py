"""Reasons: text, code and arguments, what keeps them, and that the service gives each of them."""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Iterator
from typing import Any

import pytest

from docs.schemas import reply_schema
from rpcd_wireguard_uplink.api.methods import METHODS
from rpcd_wireguard_uplink.config.options import Settings
from rpcd_wireguard_uplink.errors import UplinkError
from rpcd_wireguard_uplink.failover.machine import Path, State, decide
from rpcd_wireguard_uplink.model import Health, HistoryEntry
from rpcd_wireguard_uplink.reasons import (
    TEMPLATES,
    Reason,
    because,
    code_of,
    joined,
    page_texts,
    told_with,
)
from rpcd_wireguard_uplink.warnings import Warnings
from tests.repo import PACKAGE, ROOT

SILENT = because("no_answer", 3, "4.2")
NINE = because("gone", "wan")
for _ in range(9):
    NINE = because("of", "wan", NINE)
MADE = [
    (because("not_watched"), "it is not watched yet", "not_watched", ()),
    (SILENT, "no answer to 3 probes in 4.2 s", "no_answer", ("3", "4.2")),
    (because("down", SILENT), f"it is down: {SILENT}", "down/no_answer", ("3", "4.2")),
    (because("down", "assumed"), "it is down: assumed", "down", ("assumed",)),
    (
        because("nothing_else", because("of", "wan", SILENT)),
        f"wan: {SILENT}; no other path answers",
        *("nothing_else/of/no_answer", ("wan", "3", "4.2")),
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
    assert because("setting", "no such option") == "no such option"
    assert texts["setting"] == "A setting can not be used: %s"
    unfit = re.compile(r"`?wgctl uplink|[{}[\]]|\.\.\.")
    assert not [text for text in texts.values() if unfit.search(text)]


def test_what_is_no_reason_has_no_code_or_is_refused() -> None:
    assert code_of("it is not watched yet") == code_of("") == ("", ())
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


def test_several_sentences_have_the_code_of_the_first() -> None:
    assert code_of(joined("; ", iter([SILENT]))) == code_of(SILENT)
    assert (both := joined("; ", [SILENT, "and more"])) == f"{SILENT}; and more"
    assert code_of(both) == code_of(SILENT)
    assert code_of(joined("; ", [])) == ("", ())
    assert code_of(told_with(SILENT, ": `reboot`")) == code_of(SILENT)


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


TELLING = ("api", "cli/doctor", "extras/drill", "failover", "mesh/registry", "provider/offer")
NOT_FOR_PAGES = ("api/bus.py", "api/secubox.py")
TOLD_BY = {"_step": 2, "_wrong": 1, "_note": 1, "set": 1}
NAMED = re.compile(r"reason|_note$|_fault$|advice|cause|note")


def told_in_place(tree: ast.AST) -> Iterator[ast.expr]:
    """Sentences that are given to whoever asks: of errors, warnings, steps and findings, and what
    functions that are named for it return.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            yield from node.exc.args[:1]
        if isinstance(node, ast.Call):
            owner, _, name = ast.unparse(node.func).rpartition(".")
            if name in TOLD_BY and (name != "set" or owner.endswith("warnings")):
                yield from node.args[TOLD_BY[name] :][:1]
            yield from (k.value for k in node.keywords if k.arg in ("reason", "note", "cause"))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and NAMED.search(node.name):
            found = (each.value for each in ast.walk(node) if isinstance(each, ast.Return))
            yield from (each for each in found if each is not None)


def test_what_pages_show_is_a_reason() -> None:
    """A sentence has a code, or German and French readers get it in English."""
    plain = []
    for file in PACKAGE.rglob("*.py"):
        name = str(file.relative_to(PACKAGE))
        if name.startswith(TELLING) and name not in NOT_FOR_PAGES:
            for each in told_in_place(ast.parse(file.read_text("utf-8"))):
                parts = [each.body, each.orelse] if isinstance(each, ast.IfExp) else [each]
                texts = [p.value for p in parts if isinstance(p, ast.Constant)]
                is_text = any(isinstance(t, str) and " " in t for t in texts)
                if is_text or any(isinstance(part, ast.JoinedStr) for part in parts):
                    plain.append(f"{file.name}:{each.lineno} {ast.unparse(each)}")
    assert plain == []


def asked_by_pages() -> set[str]:
    texts = (file.read_text("utf-8") for file in (ROOT / "htdocs").rglob("*.js"))
    return {f"uplink_{n}" for t in texts for n in re.findall(r"bus\.(?:ask|act)\('(\w+)'", t)}


def sentences(tree: dict[str, Any], place: str) -> Iterator[tuple[str, bool]]:
    """The members of a reply that are sentences, and whether each has a code."""
    known = tree.get("properties", {})
    for name, member in known.items():
        inner = member.get("items", member)
        yield from sentences(inner, f"{place}.{name}")
        if name in ("reason", "note", "cause", "sentence", "error", "what", "told"):
            yield f"{place}.{name}", f"{name}_code" in known


def test_every_sentence_that_pages_ask_for_has_a_place_for_its_code() -> None:
    asked = asked_by_pages() | {"uplink_status", "uplink_list", "uplink_trust", "uplink_consumers"}
    assert {"uplink_add", "uplink_drill", "uplink_check"} <= asked
    trees = {name: reply_schema(METHODS[name]).tree for name in asked}
    found = dict(each for name, tree in trees.items() for each in sentences(tree, name))
    assert len(found) > 20
    assert [place for place, has_code in found.items() if not has_code] == []


def test_the_service_gives_each_of_them() -> None:
    sources = (f.read_text("utf-8") for f in PACKAGE.rglob("*.py") if f.name != "reasons.py")
    text = "\n".join(sources)
    given = re.findall(r"\bbecause\(\s*([^,)]+)", text)
    assert set(re.findall(r'"(\w+)"', " ".join(given))) <= TEMPLATES.keys()
    assert set(re.findall(r'"(\w+)"', text)) >= TEMPLATES.keys()
