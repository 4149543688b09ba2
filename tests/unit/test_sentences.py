"""Codes of sentences: which one, with what arguments, and that the service says each of them."""

from __future__ import annotations

import re

import pytest

from rpcd_wireguard_uplink.sentences import TEMPLATES, code_of
from tests.repo import PACKAGE

CODES = [
    ("", "", ()),
    ("somebody said something", "", ()),
    ("it is not watched yet", "not_watched", ()),
    ("no answer to 3 probes in 4.2 s", "no_answer", ("3", "4.2")),
    ("it is down: no answer to 3 probes in 4.2 s", "down/no_answer", ("3", "4.2")),
    ("it is down: assumed to fail", "down", ("assumed to fail",)),
    ("wan: no answer to 8 probes in 0.3 s", "of/no_answer", ("wan", "8", "0.3")),
    ("wan: carrier lost", "of/carrier_lost", ("wan",)),
    ("wan: something else", "", ()),
    ("wan answers for 30 s", "answers_for", ("wan", "30")),
    (
        "nodea can't be used now: it is down: 3 of 5 probes lost",
        "unusable/down/probes_lost",
        ("nodea", "3", "5"),
    ),
    ("wan: " * 9 + "wan is gone", "of/" * 9 + "gone", ("wan",) * 10),
]


@pytest.mark.parametrize(("sentence", "code", "arguments"), CODES)
def test_the_code_of_a_sentence(sentence: str, code: str, arguments: tuple[str, ...]) -> None:
    assert code_of(sentence) == (code, arguments)


def test_the_service_says_what_has_a_code() -> None:
    sources = sorted(file for file in PACKAGE.rglob("*.py") if file.name != "sentences.py")
    said = re.sub(r'"\s*f?"', "", "".join(file.read_text("utf-8") for file in sources))
    for template in TEMPLATES.values():
        for part in re.split(r"%s|\.\.\.", template):
            assert part.strip(" :;,.") in said, template
