"""`wgctl uplink get`, `set`, `unset`: options of /etc/config/wireguard-uplink, held to the table.

They work on the file, under its lock, with or without `uci` and the service. A change that would
make anything in the file bad is refused, and nothing is written.
"""

from __future__ import annotations

import asyncio
import difflib
import os
from collections.abc import Callable, Iterator, Sequence

from ..config.option import Option, SectionType
from ..config.options import ANCHOR_TYPE, CONFIG, MAIN_NAME, SECTIONS
from ..config.parser import parse_config
from ..errors import InvalidArgument, NotFound, UplinkError
from ..model import is_own_name
from ..system import process
from ..text import quoted
from ..uci import Document, Draft, Store
from ..values import dataclass

INIT_SCRIPT = "/etc/init.d/wireguard-uplink"


@dataclass(frozen=True, slots=True)
class _Place:
    """An option of one section, whether or not the file has it."""

    kind: SectionType
    section: str
    option: Option

    @property
    def name(self) -> str:
        prefix = "" if self.kind.name == MAIN_NAME else f"{self.section}."
        return f"{prefix}{self.option.name}"

    def items(self, document: Document) -> tuple[str, ...]:
        """What the file says, else the default; () for none."""
        found = document.get(self.section)
        text = found.options.get(self.option.name) if found is not None else None
        return self.option.default_items() if text is None else self.option.items(text)


def read_options(directory: str, name: str = "") -> dict[str, tuple[str, ...]]:
    """The values of one option or of all, by name: as the file says, else the defaults.

    Raises NotFound for an option that there is not, ConfigError where the file can't be read.
    """
    document = Store(directory).read(CONFIG, missing_ok=True)
    places = [_find(document, name)] if name else list(_places(document))
    return {place.name: place.items(document) for place in places}


def set_option(directory: str, name: str, values: Sequence[str]) -> str:
    """Set an option, a list to several values; a sentence about it. Raises InvalidArgument."""

    def change(draft: Draft, place: _Place) -> str:
        option = place.option
        items = tuple(values) if option.many else (" ".join(values),)
        for item in items:
            if why := option.why_not(item):
                shown = "" if option.secret else f", not {quoted(item)}"
                raise InvalidArgument(f"{place.name} must be {why}{shown}")
        if draft.get(place.section) is None:
            draft.set_section(place.section, place.kind.type, {})
        draft.set_option(place.section, option.name, items if option.many else items[0])
        return f"{place.name} is {' '.join(items)} now."

    return _edit(directory, name, change)


def unset_option(directory: str, name: str) -> str:
    """Have an option be its default again; a sentence about it. Raises InvalidArgument."""

    def change(draft: Draft, place: _Place) -> str:
        if draft.get(place.section) is not None:
            draft.set_option(place.section, place.option.name, None)
        items = place.items(draft.document)
        return f"{place.name} is {' '.join(items) or 'not set'} now, which is the default."

    return _edit(directory, name, change)


def _edit(directory: str, name: str, change: Callable[[Draft, _Place], str]) -> str:
    with Store(directory).edit(CONFIG) as draft:
        before = parse_config(draft.sections).faults
        told = change(draft, _find(draft.document, name))
        for fault in parse_config(draft.sections).faults:
            if fault not in before:
                raise InvalidArgument(f"nothing was changed: {fault.told.partition(';')[0]}")
    if not os.access(INIT_SCRIPT, os.X_OK):
        return f"{told} A running service follows within 2 seconds."
    try:
        asyncio.run(process.run([INIT_SCRIPT, "reload"]))
    except UplinkError as error:
        return f"{told} The service was not told: {error}"
    return told


def _places(document: Document) -> Iterator[_Place]:
    """Every option: of the sections that there can be only one of, and of those in the file."""
    for kind in SECTIONS.values():
        names = [kind.name] if kind.name else [s.name for s in document.of_type(kind.type)]
        if kind.name == MAIN_NAME:
            names = [section.name for section in document.of_type(kind.type)[-1:]] or names
        for name in names:
            for option in kind.options:
                yield _Place(kind, name, option)


def _find(document: Document, name: str) -> _Place:
    places = {place.name: place for place in _places(document)}
    wanted = name.removeprefix(f"{CONFIG}.").removeprefix(f"{MAIN_NAME}.")
    if wanted in places:
        return places[wanted]
    section, _, option = wanted.rpartition(".")
    is_anchors = section and SECTIONS[ANCHOR_TYPE].option(option) is not None
    if is_anchors and not is_own_name(section) and document.get(section) is None:
        told = f"an anchor begins with a line `config anchor '{section}'` in the file"
        raise NotFound(f"there is no section {quoted(section)}: {told}", code="no_option")
    near = difflib.get_close_matches(wanted, places, 1)
    hint = f"did you mean {near[0]}?" if near else "`wgctl uplink get` lists them all"
    raise NotFound(f"there is no option {quoted(name)}: {hint}", code="no_option")
