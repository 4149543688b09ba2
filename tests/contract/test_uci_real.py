"""Our reading and writing of UCI against the real `uci` program: same words, same refusals."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rpcd_wireguard_uplink.errors import ConfigError
from rpcd_wireguard_uplink.uci import Document, Draft, Section, Store, export, parse
from rpcd_wireguard_uplink.uci.grammar import quote
from tests.unit.uci_texts import OPTIONS, TEXTS, sections, writable

pytestmark = pytest.mark.needs("uci")

# No configuration of this machine has this name, so that nothing pending is mixed in.
PACKAGE = "wgup-contract"

bounded = settings(
    max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)


class Uci:
    """The real program on a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.program = str(shutil.which("uci"))
        self.directory = directory
        self.changes = directory / "changes.d"
        self.file = directory / PACKAGE

    def run(self, *arguments: str) -> bytes | None:
        """Return what it prints, or None where it refuses."""
        # Not -P: with it, a commit succeeds and does nothing (cli.c).
        argv = [self.program, "-c", str(self.directory), "-t", str(self.changes), *arguments]
        found = subprocess.run(argv, capture_output=True, timeout=20, check=False)
        assert found.returncode in (0, 1), found.stderr
        return found.stdout if found.returncode == 0 else None


@pytest.fixture
def uci(tmp_path: Path) -> Iterator[Uci]:
    yield Uci(tmp_path)


def ours(content: bytes) -> Document | None:
    try:
        return parse(content, file=PACKAGE)
    except ConfigError:
        return None


def encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def shown(document: Document) -> str:
    """What `uci show` prints with the names of anonymous sections."""
    parts = []
    for section in document.sections:
        parts.append(f"{PACKAGE}.{section.name}={section.type}\n")
        for option, value in section.options.items():
            items = (value,) if isinstance(value, str) else value
            parts.append(f"{PACKAGE}.{section.name}.{option}={' '.join(map(quote, items))}\n")
    return "".join(parts)


@bounded
@given(text=TEXTS)
@example(text="config a b;option x y\n")
@example(text="config a 'b';option x y\noption z 1 ;\n")
@example(text="config a b\noption c 'd' '' option e f\n")
@example(text="config a b\noption c d\\")
@example(text='config a b\noption c "d\\\r\ne\\\n"\n')
@example(text="config a\nconfig a cfg01b606\noption c d\n")
@example(text="config a cfg02b606\nconfig a\nconfig a cfg02b606\noption c d\n")
@example(text="config a b\nconfig c b\n")
@example(text="config a b\noption c d\\\r\ne\n")
@example(text="config 'a' ''\nlist b\noption b ''\nlist b x\noption b y\nlist b z\n")
def test_every_text_is_read_or_refused_as_uci_does(uci: Uci, text: str) -> None:
    content = encoded(text)
    uci.file.write_bytes(content)
    document = ours(content)
    assert uci.run("export", PACKAGE) == (
        None if document is None else encoded(export(document, PACKAGE))
    )
    if document is not None and document.sections:
        assert uci.run("-X", "show", PACKAGE) == encoded(shown(document))


@bounded
@given(found=sections())
def test_uci_reads_what_we_write(uci: Uci, found: list[Section]) -> None:
    draft = Draft(parse("", file=PACKAGE))
    for section in found:
        if section.anonymous:
            draft.add_anonymous(section.type, writable(section.options))
        else:
            draft.set_section(section.name, section.type, writable(section.options))
    document = draft.document
    uci.file.write_bytes(document.encode())
    assert uci.run("export", PACKAGE) == encoded(export(document, PACKAGE))


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["set", "set", "add_list", "add_list", "del_list", "delete"]),
        st.sampled_from(["a", "wan"]),
        st.sampled_from(["b", "x"]),
        st.sampled_from(["1", "2", "it's", "two words", '"', "\\"]),
    ),
    max_size=6,
)
STARTS = [
    "config a 'a'\n\toption b '1'\n\nconfig a wan\n\tlist b 1\n\tlist b 2\n",
    "config a 'a' ;option b 1 # here\nlist b 2\n# all\nconfig a wan\nconfig a 'a'\nlist b 2\n",
]


@settings(bounded, max_examples=40)
@given(start=st.sampled_from(STARTS), steps=STEPS)
def test_edits_end_as_those_of_uci_do(
    uci: Uci, start: str, steps: list[tuple[str, str, str, str]]
) -> None:
    uci.file.write_text(start)
    draft = Draft(parse(start, file=PACKAGE))
    for step, section, option, value in steps:
        place = f"{PACKAGE}.{section}.{option}"
        uci.run(step, place if step == "delete" else f"{place}={value}")
        if step == "set":
            draft.set_option(section, option, value)
        elif step == "add_list":
            draft.add_list(section, option, value)
        elif step == "del_list":
            draft.del_list(section, option, value)
        else:
            draft.set_option(section, option, None)
    document = draft.document
    uci.run("commit", PACKAGE)
    assert uci.run("export", PACKAGE) == encoded(export(document, PACKAGE))
    assert parse(document.encode(), file=PACKAGE).equivalent(document)


@settings(bounded, max_examples=40)
@given(options=OPTIONS)
def test_a_stored_file_is_the_one_that_uci_commits(
    uci: Uci, options: dict[str, str | tuple[str, ...]]
) -> None:
    """Only the empty lines at the start and the end of the file differ."""
    options = writable(options)
    uci.file.unlink(missing_ok=True)
    with Store(str(uci.directory)).edit(PACKAGE) as draft:
        draft.set_section("s", "t", options)
    written = uci.file.read_bytes()
    uci.run("set", f"{PACKAGE}.s.added=1")
    assert uci.run("commit", PACKAGE) is not None
    assert uci.file.read_bytes() == b"\n" + written + b"\toption added '1'\n\n"
