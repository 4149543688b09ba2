"""The catalogues: complete, of the texts that the pages have, and in the format that LuCI reads."""

from __future__ import annotations

import re

import pytest

from po.catalogue import (
    DOMAIN,
    HERE,
    compile_catalogue,
    main,
    parse,
    render,
    texts,
    texts_of_script,
)

LANGUAGES = ("fr", "de")
SAMPLE = {"a": "bc", "abc": "é", 'It "ends"': 'x "y"', "abcde f": "12345"}
COMPILED = (
    "62630000c3a9000078202279220000003132333435000000115ea78200000001"
    "00000000000000028d14e88e000000010000001000000005d2be198a00000001"
    "0000000400000002fadfea9f00000001000000080000000500000018"
)
"""What luci-base's own po2lmo makes of the sample."""


def catalogue(lang: str) -> dict[str, str]:
    return parse((HERE / lang / f"{DOMAIN}.po").read_text(encoding="utf-8"))


def test_the_template_has_the_texts_of_the_pages() -> None:
    found = parse((HERE / "templates" / f"{DOMAIN}.pot").read_text(encoding="utf-8"))
    wanted = texts(HERE.parent)
    assert len(wanted) > 200
    assert list(found) == ["", *wanted], "po/ is stale: run `make generate`"


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_text_is_translated(lang: str) -> None:
    found = catalogue(lang)
    assert list(found)[1:] == texts(HERE.parent)
    assert not [text for text, translated in found.items() if not translated]
    for text, translated in list(found.items())[1:]:
        marks = r"%(?:\.\d+)?[a-z%]"
        assert re.findall(marks, translated) == re.findall(marks, text), text
        assert translated.endswith("…") == text.endswith("…"), text


@pytest.mark.parametrize(
    ("lang", "others"),
    [
        ("de", r"\b(?:Umschalten|Failover|Besitzer|Peers?|Uplinks?|Backups?)\b"),
        ("fr", r"\b(?:bascules?|failover|fournisseurs?|uplinks?)\b(?! ')"),
    ],
)
def test_one_word_for_one_thing(lang: str, others: str) -> None:
    """Failover, owner, peer and backup have one word each, whoever has written the sentence."""
    names = r"\S*wireguard-uplink\S*|(?:section|Abschnitt) uplink|failover_timeout|`[^`]*`"
    found = catalogue(lang)
    told = {text: re.sub(names, "", translated) for text, translated in found.items() if text}
    assert {text: t for text, t in told.items() if re.search(others, t, re.I)} == {}


def test_the_compiled_form_is_luci_s() -> None:
    assert compile_catalogue(SAMPLE).hex() == COMPILED
    assert compile_catalogue({"": "header", "not yet": ""}) == b""
    assert parse(render(SAMPLE.items())) == SAMPLE


def test_it_is_compiled_for_every_language(tmp_path) -> None:
    assert main(["compile", str(tmp_path)]) == 0
    assert {file.name for file in tmp_path.iterdir()} == {f"{DOMAIN}.{x}.lmo" for x in LANGUAGES}
    assert main([]) == 2


def test_what_is_not_understood_is_refused() -> None:
    with pytest.raises(ValueError, match="not understood"):
        parse("msgid x")
    with pytest.raises(ValueError, match="literal"):
        texts_of_script("_('a' + b)")
    assert texts_of_script(r"x_('no') + _('it\'s') + _( 'two' )") == ["it's", "two"]
