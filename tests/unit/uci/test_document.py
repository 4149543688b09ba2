"""Edits of a configuration: what they say is read back, and the rest of the text stays."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rpcd_wireguard_uplink.errors import ConfigError, NotFound
from rpcd_wireguard_uplink.uci import Document, Draft, Section, parse
from tests.unit.uci_texts import LIKELY, OPTIONS, TEXTS, sections

HAND = """\
# The owner's notes
config interface  "wan"   # the line
    option proto dhcp
    list dns 1.1.1.1 # first
    list dns '8.8.8.8'

# about lan
config interface 'lan'
\toption proto 'static'

config rule
\toption name 'x'
"""


def hand() -> Document:
    return parse(HAND, file="network")


def edited(document: Document, *edits: Callable[[Draft], object]) -> Document:
    """What edits make of a document."""
    draft = Draft(document)
    for edit in edits:
        edit(draft)
    return draft.document


def control_free(options: dict[str, str | tuple[str, ...]]) -> bool:
    items = [
        one for value in options.values() for one in ([value] if isinstance(value, str) else value)
    ]
    return not any(char < " " and char not in "\t\n\r" for item in items for char in item)


EDITS = [
    ("changes in place", lambda d: d.set_option("wan", "proto", "static"),
     "    option proto dhcp\n", "\toption proto 'static'\n"),
    ("adds at the section's end", lambda d: d.set_option("wan", "metric", "5"),
     "    list dns '8.8.8.8'\n", "    list dns '8.8.8.8'\n\toption metric '5'\n"),
    ("adds to a list", lambda d: d.add_list("wan", "dns", "9.9.9.9"),
     "    list dns '8.8.8.8'\n", "    list dns '8.8.8.8'\n\tlist dns '9.9.9.9'\n"),
    ("removes from a list", lambda d: d.del_list("wan", "dns", "1.1.1.1"),
     "    list dns 1.1.1.1 # first\n", ""),
    ("makes a list of an option", lambda d: d.add_list("lan", "proto", "none"),
     "\toption proto 'static'\n", "\tlist proto 'static'\n\tlist proto 'none'\n"),
    ("replaces a list", lambda d: d.set_option("wan", "dns", ("9.9.9.9",)),
     "    list dns 1.1.1.1 # first\n    list dns '8.8.8.8'\n", "\tlist dns '9.9.9.9'\n"),
    ("removes an option", lambda d: d.set_option("wan", "dns", None),
     "    list dns 1.1.1.1 # first\n    list dns '8.8.8.8'\n", ""),
    ("removes a section, not what was said about it", lambda d: d.remove_section("lan"),
     "config interface 'lan'\n\toption proto 'static'\n", ""),
    ("removes an anonymous section", lambda d: d.remove_section(d.sections[2].name),
     "\nconfig rule\n\toption name 'x'\n", ""),
    ("retypes a section", lambda d: d.set_section("lan", "device", {"proto": "static"}),
     "config interface 'lan'\n", "config device 'lan'\n"),
    ("replaces what differs", lambda d: d.set_section("lan", "interface", {"mtu": "1400"}),
     "\toption proto 'static'\n", "\toption mtu '1400'\n"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("edit", "old", "new"), [case[1:] for case in EDITS], ids=[c[0] for c in EDITS]
)
def test_an_edit_changes_its_lines_only(edit, old: str, new: str) -> None:
    assert HAND.count(old) == 1
    document = hand()
    after = edited(document, edit)
    assert after.render() == HAND.replace(old, new)
    assert parse(after.render(), file="network").equivalent(after)
    assert document.render() == HAND, "a document that was given out has changed"


SAME = [
    lambda d: d.set_option("wan", "proto", "dhcp"),
    lambda d: d.set_option("wan", "nothing", None),
    lambda d: d.set_option("wan", "nothing", ()),
    lambda d: d.set_option("wan", "dns", ("1.1.1.1", "8.8.8.8")),
    lambda d: d.del_list("wan", "dns", "9.9.9.9"),
    lambda d: d.del_list("wan", "proto", "dhcp"),
    lambda d: d.set_section("lan", "interface", {"proto": "static", "none": ()}),
]


@pytest.mark.parametrize("edit", SAME)
def test_an_edit_that_changes_nothing_gives_the_same_document(edit) -> None:
    document = hand()
    assert edited(document, edit) is document


def test_a_new_section_goes_to_the_end_and_leaves_without_a_trace() -> None:
    draft = Draft(hand())
    draft.set_section("wgup_a", "interface", {"mtu": "1420", "addresses": ("a/32", "b/128")})
    text = (
        "\nconfig interface 'wgup_a'\n\toption mtu '1420'\n"
        "\tlist addresses 'a/32'\n\tlist addresses 'b/128'\n"
    )
    assert draft.document.render() == HAND + text
    draft.remove_section("wgup_a")
    assert draft.document.render() == HAND


def test_several_commands_in_a_line_are_taken_apart_when_one_changes() -> None:
    document = parse("config a 'b' ;option c 'd' ;option e ''\nconfig a 'f'\n", file="f")
    other = edited(document, lambda d: d.set_option("f", "c", "x"))
    own = edited(document, lambda d: d.set_option("b", "c", "x"))
    assert other.render().startswith("config a 'b' ;option c 'd' ;")
    assert own.render() == ("config a 'b'\n\toption c 'x'\n\toption e ''\nconfig a 'f'\n")


@pytest.mark.parametrize(
    "text",
    [
        "config a 'b'\noption c d\\",
        "config a 'b'\noption c d\\\n",
        "config a 'b'\noption c 'd' ; ",
        "config a 'b'",
    ],
)
def test_an_unfinished_last_line_is_finished_before_another(text: str) -> None:
    draft = Draft(parse(text, file="f"))
    draft.set_option("b", "new", "1")
    draft.set_section("x", "a", {})
    assert parse(draft.document.render(), file="f").equivalent(draft.document)
    assert draft.get("x") is not None


def test_anonymous_names_hold_while_others_go() -> None:
    draft = Draft(
        parse("config r\n\toption n 1\nconfig r\n\toption n 2\nconfig r\n\toption n 3\n", file="f")
    )
    first, second, _ = (section.name for section in draft.sections)
    draft.remove_section(first)
    draft.remove_section(second)
    added = draft.add_anonymous("r", {"n": "4"})
    assert [section.options["n"] for section in draft.of_type("r")] == ["3", "4"]
    assert draft.get(added) == draft.sections[-1]


REFUSED = [
    (
        lambda d: d.set_option("wan", "key", "se\0cret"),
        "section 'wan', option 'key': the value holds",
    ),
    (lambda d: d.set_option("wan", "key", "se\x1bcret"), "control character"),
    (lambda d: d.set_option("wan", "key", ("ok", "se\0cret")), "section 'wan', option 'key'"),
    (lambda d: d.add_list("wan", "key", "secret\ud800"), "section 'wan', option 'key'"),
    (lambda d: d.set_option("wan", "key", ""), "no empty options"),
    (lambda d: d.set_section("n", "t", {"key": ""}), "section 'n', option 'key'"),
    (lambda d: d.set_option("wan", "a-b", "secret"), "option's name"),
    (lambda d: d.set_option("wan", "a\n", "secret"), "option's name"),
    (lambda d: d.set_section("a-b", "t", {}), "section's name"),
    (lambda d: d.set_section("a", "t t", {}), "a type may only hold"),
    (lambda d: d.add_anonymous("", {}), "a type may only hold"),
]


@pytest.mark.parametrize(("edit", "what"), REFUSED)
def test_what_uci_cannot_hold_is_refused_without_showing_it(edit, what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        edited(hand(), edit)
    assert "network: " in str(caught.value)
    assert what in str(caught.value)
    assert "cret" not in str(caught.value)


def test_a_section_that_is_not_there_is_not_found() -> None:
    for edit in (
        lambda d: d.remove_section("none"),
        lambda d: d.set_option("none", "a", "b"),
        lambda d: d.add_list("none", "a", "b"),
        lambda d: d.del_list("none", "a", "b"),
    ):
        with pytest.raises(NotFound, match="network: there is no section 'none'"):
            edited(hand(), edit)


def test_sections_cannot_be_changed() -> None:
    section = hand().sections[0]
    with pytest.raises(AttributeError):
        section.type = "x"  # type: ignore[misc]
    with pytest.raises(TypeError):
        section.options["proto"] = "x"  # type: ignore[index]


@given(sections())
def test_what_is_built_is_read_back(found: list[Section]) -> None:
    assume(all(control_free(dict(section.options)) for section in found))
    draft = Draft(parse("", file="f"))
    for section in found:
        if section.anonymous:
            draft.add_anonymous(section.type, section.options)
        else:
            draft.set_section(section.name, section.type, section.options)
    again = parse(draft.document.render(), file="f")
    assert again.equivalent(draft.document)
    assert [(s.type, s.anonymous, dict(s.options)) for s in again.sections] == [
        (s.type, s.anonymous, dict(s.options)) for s in found
    ]


@given(LIKELY | TEXTS, OPTIONS)
def test_adding_and_removing_a_section_keeps_every_byte(
    text: str, options: dict[str, str | tuple[str, ...]]
) -> None:
    assume(control_free(options))
    text += "\n"
    try:
        document = parse(text, file="f")
    except ConfigError:
        return
    assume(not text.endswith("\\\n"))
    draft = Draft(document)
    draft.set_section("brand_new", "t", options)
    assert parse(draft.document.render(), file="f").equivalent(draft.document)
    assert dict(draft.sections[-1].options) == options
    draft.remove_section("brand_new")
    assert draft.document.render() == document.render()


STEP = st.tuples(
    st.sampled_from(["set", "add", "del", "remove", "section"]),
    st.integers(0, 3),
    st.sampled_from(["a", "b", "wan", "new"]),
    st.sampled_from(["1", "it's", "#", "a\nb", "\\"]),
)


@given(LIKELY, st.lists(STEP, max_size=6))
def test_every_edit_of_every_text_is_read_back(
    text: str, steps: list[tuple[str, int, str, str]]
) -> None:
    try:
        draft = Draft(parse(text, file="f"))
    except ConfigError:
        return
    # A header that uses a made-up name means another section once sections before it are gone.
    assume("cfg" not in text)
    for step, at, option, value in steps:
        if step == "section" or not draft.sections:
            if option == "new":
                draft.set_section(option, "t", {"x": value})
            continue
        section = draft.sections[at % len(draft.sections)]
        others = [other for other in draft.sections if other.name != section.name]
        if step == "set":
            draft.set_option(section.name, option, value)
            assert found(draft, section.name).options[option] == value
        elif step == "add":
            draft.add_list(section.name, option, value)
            assert found(draft, section.name).options[option][-1] == value
        elif step == "del":
            draft.del_list(section.name, option, value)
        else:
            draft.remove_section(section.name)
            assert draft.get(section.name) is None
        assert [o for o in draft.sections if o.name != section.name] == others
    assert parse(draft.document.render(), file="f").equivalent(draft.document)


def found(draft: Draft, name: str) -> Section:
    section = draft.get(name)
    assert section is not None
    return section
