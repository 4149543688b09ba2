"""UCI's letters: what libuci reads in a text, what it refuses, and where the mistake is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpcd_wireguard_uplink.errors import ConfigError
from rpcd_wireguard_uplink.uci import Section, export, parse
from tests.unit.uci_texts import TEXTS

# (text after "config t 's'\n", the options that it gives); each was compared with `uci export`.
READ = [
    ("option a b", {"a": "b"}),
    ("o a b\nl c d\n", {"a": "b", "c": ("d",)}),
    ("\toption a 'it'\\''s'\n", {"a": "it's"}),
    ("option a 'two\nlines'\n", {"a": "two\nlines"}),
    ("option a 'back\\slash'\n", {"a": "back\\slash"}),
    ('option a "b \\" \\\\ \\n \'c\'"\n', {"a": "b \" \\ n 'c'"}),
    ('option a "b\\\nc"\n', {"a": "bc"}),
    ("option a b\\\nc\n", {"a": "bc"}),
    ("option a b\\\r\nc\r\n", {"a": "bc"}),
    ("option a b\\\n c\n", None),
    ("option a \\\n b\n", None),
    ("option a b\\ c\\#d\\;\n", {"a": "b c#d;"}),
    ("option a b#c\n", {"a": "b"}),
    ("option a 'b'#c\n", {"a": "b"}),
    ("option a 'b#c' # d 'e\n", {"a": "b#c"}),
    ("# option a 'b\n\n \t\n#\n", {}),
    ("option a ''\n", {}),
    ("option a b\noption a ''\n", {"a": "b"}),
    ("option a b\noption a c\n", {"a": "c"}),
    ("option a b\noption c d\nlist a e\n", {"a": ("b", "e"), "c": "d"}),
    ("list a b\nlist a c\noption a d\n", {"a": "d"}),
    ("list a\nlist a ''\n", {"a": ("", "")}),
    ("option a 'b';option c d\n", {"a": "b", "c": "d"}),
    ("option a b ;option c d\n", {"a": "b", "c": "d"}),
    ("option a b;option c d\n", {"a": "b"}),
    ("option a b '' option c d\n", {"a": "b", "c": "d"}),
    ("option a b\\", {"a": "b"}),
    ("package other\noption a b\n", {"a": "b"}),
    ("config t 'x'\nconfig t s\noption a b\n", {"a": "b"}),
    ("option a 'b'c\"d\"\\e\n", {"a": "bcde"}),
    ("option a \u2003é\n", {"a": "\u2003é"}),
]


@pytest.mark.parametrize(("text", "options"), READ)
def test_what_a_text_means(text: str, options: dict[str, object] | None) -> None:
    text = "config t 's'\n" + text
    if options is None:
        with pytest.raises(ConfigError):
            parse(text, file="f")
        return
    section = parse(text, file="f").get("s")
    assert section is not None
    assert list(section.options.items()) == list(options.items())


REFUSED = [
    ("what is this\n", 1, 1, "this is none of package, config, option and list"),
    ("config\n", 1, 1, "config needs something behind it"),
    ("config", 1, 1, "config needs something behind it"),
    ("config  \n", 1, 8, "section type is missing"),
    ("config a b c\n", 1, 12, "too many arguments for config"),
    ("config a b-c\n", 1, 10, "section name may only hold letters, digits and _"),
    ("config é\n", 1, 8, "section type may only hold printable ASCII"),
    ("option a b\n", 1, 1, "option before the first config"),
    ("config a\n\noption 'b c' d\n", 3, 8, "option name may only hold"),
    ("config a\n\toption b 'c\nd\n", 2, 11, "a single quote that is never closed"),
    ('config a\n\toption b "c\\', 2, 11, "a double quote that is never closed"),
    ("config a\noption b 'two\nlines' x\n", 3, 8, "too many arguments for option"),
    ("config a\noption b \\\nc d\n", 3, 3, "too many arguments for option"),
    ("config a\noption b c ;\n", 2, 13, "is none of package"),
    ("config a\noption b ; option c d\n", 2, 12, "too many arguments"),
    ("config a b\n  config c b\n", 2, 3, "section 'b' already exists with another type"),
    ("package a.b\n", 1, 9, "package name may only hold"),
    ("config a\noption b 'c\0'\n", 2, 12, "a NUL character"),
    ("config a \ud800\n", 1, 10, "without an encoding"),
    ("config a\noption k SECRET= x\n", 2, 18, "too many arguments for option"),
    ("config a\nSECRET=\n", 2, 1, "this is none of package"),
    ("config a\no 'SECRET=' x", 2, 3, "option name may only hold"),
]


@pytest.mark.parametrize(("text", "line", "column", "what"), REFUSED)
def test_a_mistake_is_named_with_its_place(text: str, line: int, column: int, what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, file="/etc/config/network")
    message = str(caught.value)
    assert message.startswith(f"/etc/config/network, line {line}, column {column}: ")
    assert what in message and "SECRET" not in message


def test_anonymous_sections_have_the_names_that_libuci_gives() -> None:
    text = "config rule\nconfig rule 'named'\nconfig t-x\nconfig rule cfg0192bd\nlist l v\n"
    # The fourth header is about the first section: names that libuci made up can be used.
    assert parse(text, file="f").sections == (
        Section("rule", "cfg0192bd", True, {"l": ("v",)}),
        Section("rule", "named", False, {}),
        Section("t-x", "cfg03a69e", True, {}),
    )


def test_of_two_sections_with_one_name_the_first_is_meant() -> None:
    text = "config a cfg02b606\nconfig a\nconfig a cfg02b606\noption c d\n"
    document = parse(text, file="f")
    assert [section.name for section in document.sections] == ["cfg02b606", "cfg02b606"]
    assert [dict(section.options) for section in document.sections] == [{"c": "d"}, {}]
    assert document.get("cfg02b606") is document.sections[0]


def test_bytes_that_are_not_utf8_survive() -> None:
    content = b"config a 'b'\n\toption c '\xff\xc3\xa9'\n"
    document = parse(content, file="f")
    assert document.sections[0].options["c"] == "\udcffé"
    assert document.encode() == content


def test_the_recorded_export_reads_back_as_it_was() -> None:
    """As `uci export` printed a value with quotes, a backslash and a line break."""
    text = (
        "package wireguard-uplink\n\nconfig wireguard-uplink 'uplink'\n\toption enabled '1'\n"
        "\toption note 'it'\\''s \"quoted\" \\ back\nline'\n\n"
    )
    document = parse(text, file="f")
    assert document.sections[0].options["note"] == 'it\'s "quoted" \\ back\nline'
    assert export(document, "wireguard-uplink") == text


@given(TEXTS.map(lambda text: text.encode("utf-8", "surrogateescape")) | st.binary(max_size=60))
def test_any_text_is_read_and_kept_or_refused_with_a_config_error(content: bytes) -> None:
    try:
        document = parse(content, file="f")
    except ConfigError:
        return
    assert document.encode() == content


@given(TEXTS)
def test_an_export_says_what_was_read(text: str) -> None:
    try:
        document = parse(text, file="f")
    except ConfigError:
        return
    # libuci writes types bare, also those that then can't be read back.
    if all(not set(section.type) & set("'\"#;\\") for section in document.sections):
        assert parse(export(document, "p"), file="f").equivalent(document)
