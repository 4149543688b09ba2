"""Configurations for hypothesis: text that libuci mostly takes, text that it mostly refuses."""

from __future__ import annotations

from hypothesis import strategies as st

from rpcd_wireguard_uplink.uci import Section, Value, parse
from rpcd_wireguard_uplink.uci.grammar import quote

# Whatever a quote, a comment or the end of a line does, it does it next to something else.
PIECES = [
    *("config", "option", "list", "package", "c", "o", "l", "p", "x", "conf"),
    *("'", '"', "\\", "\n", "\r\n", ";", "#", " ", "\t", "\v", "\f", "\r"),
    *("a", "b_1", "t-x", "cfg01b606", "é", "\u2003", "\udcff", "''", "'v w'", '"q"'),
    *("\\\n", "\\\r\n", "\nconfig a b\n", "\nconfig a cfg02b606\n"),
    *("\n\toption b 'x'\n", "\nlist b c\n", " ;", "\x01"),
]

NAMES = st.sampled_from(["a", "b", "wan", "x_1", "cfg01b606", "cfg02b606"])
TYPES = st.sampled_from(["a", "interface", "t-x", "!~@", "a'b", "#c", 'd"', "e;f", "\\"])
CHARACTERS = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
ITEMS = st.text(st.sampled_from("ab '\"\\#;\n\t\ré\udcff") | CHARACTERS, max_size=8)
STORED = ITEMS.map(lambda item: parse(f"config a\nlist b {quote(item)}\n", file="f")).map(
    lambda document: document.sections[0].options["b"][0]
)
VALUES = STORED.filter(bool) | st.lists(STORED, min_size=1, max_size=3).map(tuple)
OPTIONS = st.dictionaries(NAMES, VALUES, max_size=3)


def writable(options: dict[str, Value]) -> dict[str, Value]:
    """The options without the control characters that may be read but not written."""
    plain = str.maketrans("", "", "".join(map(chr, range(1, 32))))
    return {
        name: (value.translate(plain) or "v")
        if isinstance(value, str)
        else tuple(item.translate(plain) for item in value)
        for name, value in options.items()
    }


@st.composite
def sections(draw: st.DrawFn) -> list[Section]:
    """Sections that a file can hold: named ones differ, and none looks like an anonymous one."""
    named = draw(st.lists(st.sampled_from(["a", "b", "wan", "x_1"]) | st.none(), max_size=4))
    found: list[Section] = []
    for name in named:
        if name is None or all(name != other.name for other in found):
            found.append(Section(draw(TYPES), name or "", name is None, draw(OPTIONS)))
    return found


@st.composite
def words(draw: st.DrawFn) -> str:
    """A word in one of the ways to write it."""
    plain = draw(
        st.sampled_from(["a", "b", "wan", "x_1", "1.1.1.1/8", "it's", "a b", "#", ";", ""])
    )
    style = draw(st.sampled_from(["bare", "single", "double", "backslash", "joined"]))
    if style == "single":
        return quote(plain)
    if style == "double":
        return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if style == "backslash":
        return "".join("\\" + char for char in plain)
    if style == "joined":
        return "'" + plain.replace("'", "") + "'\\\n" + draw(st.sampled_from(["", " ", "c"]))
    return plain


@st.composite
def lines(draw: st.DrawFn) -> str:
    """A line that is usually a command or two."""
    keyword = draw(st.sampled_from(["option", "o", "list", "l", "list", "option", "config", "c"]))
    name = draw(NAMES)
    value = draw(words())
    if keyword[0] == "c":
        value = draw(st.sampled_from(["", "a", "b", "'wan'", "cfg01b606", "# no name"]))
        name = draw(st.sampled_from(["a", "a", "a", "t-x"]))
    end = draw(
        st.sampled_from(["\n", "\n", "\n", "\n", " # c\n", " ; ", ";", "\r\n", "  \n\n", ""])
    )
    gap = draw(st.sampled_from([" ", "\t", "  ", " \\\n", " \\\r\n"]))
    return draw(st.sampled_from(["", "\t", " "])) + keyword + " " + name + gap + value + end


LIKELY = st.lists(lines(), max_size=8).map(lambda found: "config a\n" + "".join(found))
HOSTILE = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)
TEXTS = LIKELY | HOSTILE | st.text(st.sampled_from("co pl'\"\\\n#;a"), max_size=20)
