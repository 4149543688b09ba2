"""Reasons: text, code and arguments, what keeps them, and that the service gives each of them."""

from __future__ import annotations

import ast
import copy
import errno
import os
import re
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from docs.schemas import reply_schema
from po.catalogue import DOMAIN, parse
from rpcd_wireguard_uplink.api.methods import METHODS
from rpcd_wireguard_uplink.config.options import Settings
from rpcd_wireguard_uplink.errors import UplinkError
from rpcd_wireguard_uplink.failover.machine import Path, State, decide
from rpcd_wireguard_uplink.mesh.wire.lease import Deny
from rpcd_wireguard_uplink.model import Health, HistoryEntry
from rpcd_wireguard_uplink.reasons import (
    TEMPLATES,
    Reason,
    because,
    code_of,
    joined,
    of_system,
    page_texts,
    reported,
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


TO_OTHERS = (
    *("service", "uninstall", "ubus/", "api/bus", "api/secubox", "cli/", "extras/standalone"),
    *("extras/mqtt/connection", "mesh/wire", "mesh/peer_api", "mesh/offer_validation"),
    *("schema/json_message", "uci/"),
)
"""Whose sentences are for programs, peers or the command line, or quoted where pages show them."""
NOT_SHOWN = {"topic and peer_id differ", "connection lost", "mwan3 does not answer"}
FOR_PROGRAMS = {"ValueError", "TypeError", "OSError", "AttributeError"}
TOLD_BY = {"_step": 2, "_wrong": 1, "_note": 1, "_refuse": 0, "set": 1, "fault": 2, "Fault": 0}
NAMED = re.compile(r"reason|_note$|fault$|advice|cause|note|problem|why|refus|sentence|told")
Function = (ast.FunctionDef, ast.AsyncFunctionDef)
Known = dict[str, list[ast.expr]]


def plain(told: ast.expr, known: Known) -> Iterator[str]:
    """The texts without a code that an expression may be; `known` are the names' values."""
    match told:
        case ast.IfExp():
            for part in (told.body, told.orelse):
                yield from plain(part, known)
        case ast.BoolOp():
            for part in told.values:
                yield from plain(part, known)
        case ast.BinOp():
            yield from plain(told.left, known)
        case ast.JoinedStr():
            parts = [each.value for each in told.values if isinstance(each, ast.Constant)]
            if " " in "".join(map(str, parts)):
                yield ast.unparse(told)
        case ast.Constant(value=str(text)) if " " in text:
            yield text
        case ast.Name():
            for value in known.get(told.id, []):
                yield from plain(value, {})
        case ast.Attribute(attr="format") | ast.Call(func=ast.Attribute(attr="format")):
            yield ast.unparse(told)


def assigned(body: Iterable[ast.AST]) -> Known:
    found: Known = {}
    for node in body:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    found.setdefault(target.id, []).append(node.value)
    return found


def told_in(tree: ast.AST, known: Known) -> Iterator[str]:
    """Plain sentences that are given to whoever asks: of errors, warnings, steps and findings, and
    what functions that are named for it return.
    """
    for node in ast.iter_child_nodes(tree):
        inner = known
        told: list[ast.expr] = []
        if isinstance(node, Function):
            inner = {**known, **assigned(ast.walk(node))}
            if NAMED.search(node.name):
                told = [r.value for r in ast.walk(node) if isinstance(r, ast.Return) and r.value]
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            if ast.unparse(node.exc.func) not in FOR_PROGRAMS:
                told = node.exc.args[:1]
        elif isinstance(node, ast.Call):
            owner, _, name = ast.unparse(node.func).rpartition(".")
            if name in TOLD_BY and (name != "set" or owner.endswith("warnings")):
                told = node.args[TOLD_BY[name] :][:1]
            named = ("reason", "note", "cause", "sentence")
            told = told + [k.value for k in node.keywords if k.arg in named]
        for each in told:
            yield from plain(each, inner)
        yield from told_in(node, inner)


def test_what_pages_show_is_a_reason() -> None:
    """A sentence has a code, or German and French readers get it in English."""
    found = set()
    for file in PACKAGE.rglob("*.py"):
        name = str(file.relative_to(PACKAGE))
        if name.startswith("cli/doctor") or not name.startswith(TO_OTHERS):
            tree = ast.parse(file.read_text("utf-8"))
            found |= {(name, text) for text in told_in(tree, assigned(tree.body))}
    assert [each for each in found if each[1] not in NOT_SHOWN] == []


def test_what_others_say_is_quoted() -> None:
    """What has no code is between quotation marks in every language: in the page it is marked as
    English. The sentence of the bus stays as it is.
    """
    assert code_of(reported(SILENT)) == code_of(SILENT)
    said = reported("nft: syntax error")
    assert (said, code_of(said)) == ("nft: syntax error", ("reported", ("nft: syntax error",)))
    known, unknown = OSError(errno.ENOSPC, "?"), OSError(errno.EXDEV, "Invalid cross-device link")
    assert code_of(because("unwritten", "/a", of_system(known))) == ("unwritten/ENOSPC", ("/a",))
    assert code_of(of_system(unknown)) == ("system_says", ("Invalid cross-device link",))
    quoting = {text for code, text in page_texts().items() if "[“]" in TEMPLATES[code]}
    assert len(quoting) >= 7
    for lang in ("de", "fr"):
        file = ROOT / "po" / lang / f"{DOMAIN}.po"
        translated = parse(file.read_text("utf-8"))
        assert not [t for t in quoting if not re.search("[„“«].+[”“»]", translated[t])]


@pytest.mark.parametrize("name", [name for name in TEMPLATES if name.isupper()])
def test_an_error_of_the_system_reads_as_the_c_library_says_it(name: str) -> None:
    assert TEMPLATES[name] == os.strerror(getattr(errno, name))


def test_each_refusal_of_a_provider_has_a_sentence() -> None:
    named = {code.removeprefix("deny_") for code in TEMPLATES if code.startswith("deny_")}
    assert named == {deny.value for deny in Deny}


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
    made = {c for c in TEMPLATES if c.isupper() or c.startswith("deny_")}
    made |= {"reported", "system_says"}
    assert set(re.findall(r'"(\w+)"', text)) >= TEMPLATES.keys() - made
