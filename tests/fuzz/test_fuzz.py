"""Every parser reads damaged input, or says no in one sentence: the short form of `make fuzz`."""

from __future__ import annotations

import ast
import contextlib
import json
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import rpcd_wireguard_uplink
from rpcd_wireguard_uplink.errors import UplinkError
from rpcd_wireguard_uplink.mesh.wire.offer import parse_message
from rpcd_wireguard_uplink.mesh.wire.signing import Signer, verify
from rpcd_wireguard_uplink.schema.json_message import parse_json_message
from rpcd_wireguard_uplink.system import rtnetlink

from .driver import CORPUS, fuzz
from .mutate import damaged
from .targets import TARGETS

SHORT_S = 0.05
PARSER = re.compile("_?(parse|decode)|from_(table|list)")


@pytest.mark.parametrize("name", TARGETS)
def test_it_reads_or_says_no(name: str) -> None:
    row = fuzz(name, SHORT_S, random.randrange(1 << 32))
    assert row.inputs > 1
    assert not row.faults, "\n".join(row.faults)


def test_each_parser_is_somebodys() -> None:
    """What is called a parser in the product is run by the files of the corpus."""
    ran = set[tuple[str, str]]()

    def note(frame: FrameType, event: str, argument: object) -> None:
        ran.add((frame.f_code.co_filename, frame.f_code.co_qualname))

    rtnetlink._parse_route.cache_clear()
    sys.settrace(note)
    try:
        for target in TARGETS.values():
            for file in target.seeds:
                with contextlib.suppress(UplinkError):
                    target.parse((CORPUS / file).read_bytes())
    finally:
        sys.settrace(None)
    assert sorted({*parsers()} - ran) == []


def parsers() -> Iterator[tuple[str, str]]:
    """File and qualified name of each function of the product that is called a parser."""
    for path in Path(rpcd_wireguard_uplink.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text())
        classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
        for scope in (tree, *classes):
            owner = f"{scope.name}." if isinstance(scope, ast.ClassDef) else ""
            for node in scope.body:
                is_parser = isinstance(node, ast.FunctionDef) and PARSER.match(node.name)
                if is_parser and not (owner and node.name.startswith("_")):
                    yield str(path), owner + node.name


def test_each_file_of_the_corpus_is_somebodys() -> None:
    used = {file for target in TARGETS.values() for file in target.seeds if "/" not in file}
    assert used == {path.name for path in CORPUS.iterdir()}


@pytest.mark.parametrize("name", ["mesh: message", "file: state", "uci: settings", "dns: reply"])
def test_what_is_undamaged_is_read(name: str) -> None:
    """A corpus that no parser takes would prove nothing."""
    for file in TARGETS[name].seeds[:2]:
        assert TARGETS[name].parse((CORPUS / file).read_bytes())


def test_a_signed_message_that_was_damaged_is_never_believed(signer: Signer) -> None:
    seeds = [(CORPUS / file).read_bytes() for file in ("offer.json", "withdrawal.json")]
    plain: dict[str, Any] = {**json.loads(seeds[0]), "identity": None, "signature": None}
    signed, chance = signer.sign(plain), random.Random(3)
    for _ in range(2000):
        try:
            found = json.loads(damaged(chance, seeds))
        except ValueError:
            continue
        if not isinstance(found, dict):
            continue
        forged = {**found, "identity": signed["identity"], "signature": signed["signature"]}
        try:
            verify(forged)
        except UplinkError:
            continue
        assert forged == signed


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return Signer.load(str(tmp_path_factory.mktemp("keys") / "identity"))


@pytest.mark.parametrize(
    "raw",
    [
        b"[" * 16384,
        b'{"a":' * 3276,
        b'{"a":[' + b"[]," * 5000 + b"1]}",
        b'{"a":' + b"9" * 16000 + b"}",
        b'{"a":0.' + b"9" * 16000 + b"}",
        b'{"a":1e' + b"9" * 16000 + b"}",
        b"{" + b",".join(b'"%d":1' % number for number in range(1700)) + b"}",
        b'{"a":"' + b"\\u0000" * 2600 + b'"}',
        b" " * 16384,
        bytes(16384),
        b'{"type":"uplink_offer","peer_id":"' + b"a" * 16000 + b'"}',
    ],
)
def test_the_heaviest_messages_are_read_or_refused(raw: bytes) -> None:
    with pytest.raises(UplinkError) as caught:
        parse_message(parse_json_message(raw))
    assert len(str(caught.value)) < 200
