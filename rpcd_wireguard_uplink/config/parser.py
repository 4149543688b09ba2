"""Sections to settings, by the table: each option for itself, and a sentence for each bad one.

A value that can't be used falls back alone: to the last good one of the same option, else to the
one that refuses (`bad` in options.py). A section that can't be used without it is left out. Each
fault names the command that mends it. Nothing is raised.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

from ..model import NAME_LENGTH, RESERVED, TUNNEL_PREFIX, Cost, Endpoint, Uplink
from ..reasons import because, told_with
from ..text import printable
from ..uci import Section, Value
from . import options as o
from .option import Fallback, Option, SectionType
from .settings import Config, Fault

R = TypeVar("R")
Told = tuple[str, ...]
"""A reason's code and what stands behind the option's name in it."""


def parse_config(sections: Iterable[Section], last: Iterable[Section] = ()) -> Config:
    """What the whole file says; `last` are the good sections of the configuration before."""
    reading = _Reading(tuple(sections), {_place(section): section for section in last})
    main = reading.only(o.MAIN_TYPE)
    settings = reading.suited_timeout(_made(o.Settings, main))
    provider = _made(o.ProviderSettings, reading.only(o.PROVIDER_TYPE))
    mqtt = _made(o.MqttSettings, reading.only(o.MQTT_TYPE))
    if mqtt.enabled and not mqtt.host:
        missing = "setting_missing", "is where the broker listens"
        reading.fault(o.MQTT_NAME, "host", missing, "it is off")
        mqtt = replace(mqtt, enabled=False)
    peering = _made(o.PeerSettings, main)
    if "mqtt" in peering.carriers and not mqtt.enabled:
        told = "mqtt_named", o.MQTT_TYPE, o.MQTT_NAME
        reading.fault(o.MAIN_NAME, "carrier", told, "offers do not travel by it")
    carriers = peering.carriers - {"mqtt"} | ({"mqtt"} if mqtt.enabled else set())
    return Config(
        settings=settings,
        uplinks=tuple(_uplink(values) for values in reading.all(o.UPLINK_TYPE)),
        provider=provider,
        peering=replace(
            peering,
            carriers=carriers or frozenset({"bus"}),
            peers=reading.distinct_peers(peering.peers),
        ),
        anchors=reading.usable_anchors(),
        consumers=tuple(_made(o.Consumer, values) for values in reading.all(o.CONSUMER_TYPE)),
        pins=tuple(_made(o.Pin, values) for values in reading.all(o.PIN_TYPE)),
        mqtt=mqtt,
        faults=tuple(reading.faults),
        unknown=tuple(reading.unknown),
        names=frozenset(section.name for section in reading.sections),
        good=tuple(section for section in reading.good.values() if section.options),
    )


class _Reading:
    """One reading of the file. `good` is what was good of each section, by its place."""

    def __init__(
        self, sections: tuple[Section, ...], last: Mapping[tuple[str, str], Section]
    ) -> None:
        self.sections = sections
        self._last = last
        self.good: dict[tuple[str, str], Section] = {}
        self.faults: list[Fault] = []
        self.unknown: list[str] = [
            because("section_unknown", f"{o.CONFIG}.{section.name}", section.type)
            for section in sections
            if section.type not in o.SECTIONS
        ]

    def only(self, section_type: str) -> dict[str, Any]:
        """The values of the one section of a type: defaults where there is none."""
        kind = o.SECTIONS[section_type]
        values: dict[str, Any] = {option.key: option.default for option in kind.options}
        for section in self.sections:
            if section.type != section_type:
                continue
            if section_type != o.MAIN_TYPE and section.name != kind.name:
                place = f"{o.CONFIG}.{section.name}"
                self.faults.append(Fault(because("name_it", place, section_type, kind.name)))
                continue
            values, is_usable = self._values(kind, section)
            if not is_usable:
                values["enabled"] = False
        return values

    def all(self, section_type: str) -> Iterator[dict[str, Any]]:
        """The values, with the section's name, of each section that can be used and has nothing
        that another one of its type has: else who is meant would not be known.
        """
        kind, found = o.SECTIONS[section_type], dict[str, dict[str, Any]]()
        for section in self.sections:
            name = section.name
            is_named = name.startswith(TUNNEL_PREFIX) and len(name) <= NAME_LENGTH
            is_named = is_named and name not in RESERVED
            if section.type == section_type == o.UPLINK_TYPE and not is_named:
                rest, others = NAME_LENGTH - len(TUNNEL_PREFIX), ", ".join(sorted(RESERVED))
                told = f"{o.CONFIG}.{name}", TUNNEL_PREFIX, rest, others
                self.faults.append(Fault(because("uplink_misnamed", *told)))
            elif section.type == section_type:
                values, is_usable = self._values(kind, section)
                if is_usable:
                    found[name] = {**values, "name": name}
        unique = [option for option in kind.options if option.is_unique]
        marks = {
            name: [(option.name, text) for option in unique for text in _texts(values[option.key])]
            for name, values in found.items()
        }
        places = {name: (section_type, name) for name in found}
        old = {n for n, place in places.items() if self._before(place) == self.good[place].options}
        kept = self._distinct(marks, old, f"{o.CONFIG}.", keeps_first=section_type != o.PIN_TYPE)
        for name in found.keys() - kept:
            good = self.good.pop(places[name])
            self.good[places[name]] = self._last.get(places[name], replace(good, options={}))
        return (values for name, values in found.items() if name in kept)

    def _values(self, kind: SectionType, section: Section) -> tuple[dict[str, Any], bool]:
        place = _place(section)
        before = self._before(place)
        values: dict[str, Any] = {}
        good: dict[str, Value] = {}
        is_usable = True
        for option in kind.options:
            items = self._good_items(section, option, before)
            if items is not None:
                values[option.key] = option.value(items)
                good[option.name] = tuple(items) if option.many else items[0]
                continue
            values[option.key] = option.default
            if option.name in section.options or option.needed:
                is_usable = is_usable and option.bad is not Fallback.OFF
                if not isinstance(option.bad, Fallback):
                    values[option.key] = option.bad
        for name in section.options:
            full = f"{o.CONFIG}.{section.name}.{name}"
            if section.type == o.MAIN_TYPE and name in o.RETIRED:
                self.unknown.append(because("option_retired", full, o.RETIRED[name]))
            elif kind.option(name) is None:
                self.unknown.append(because("option_unknown", full))
        self.good[place] = Section(section.type, section.name, False, good)
        return values, is_usable

    def _before(self, place: tuple[str, str]) -> Mapping[str, Value]:
        """What was good last of a section's options."""
        return self._last[place].options if place in self._last else {}

    def _good_items(
        self, section: Section, option: Option, before: Mapping[str, Value]
    ) -> tuple[str, ...] | None:
        """What the file says, or said last; None where the option's fallback takes its place."""
        text = section.options.get(option.name)
        if text is None and not option.needed:
            return None
        items = () if text is None else option.items(text)
        good = tuple(item for item in items if not option.why_not(item))
        if text is None:
            told: Told = ("setting_missing", option.needed)
        elif not option.many and isinstance(text, tuple):
            good, told = (), _refusal(option, " ".join(text), because("form_no_list"))
        elif len(good) < len(items):
            bad = next(item for item in items if option.why_not(item))
            told = _refusal(option, bad, option.why_not(bad))
        else:
            return good
        if option.many and good and option.bad is not Fallback.OFF:
            self.fault(section.name, option.name, told, "it is left out", good)
            return good
        last = option.items(before[option.name]) if option.name in before else ()
        if not last and _place(section) in self._last and option.bad is Fallback.DEFAULT:
            last = option.default_items()  # they were in force
        if last:
            shown = "" if option.secret else f", {' '.join(last)},"
            then = f"the last good value{shown} stays in force"
            self.fault(section.name, option.name, told, then, () if option.secret else last)
            return last
        if option.bad is Fallback.OFF:
            self.fault(section.name, option.name, told, "the section is not used")
        else:
            is_default = option.bad is Fallback.DEFAULT
            shown_items = option.default_items() if is_default else (option.kind.write(option.bad),)
            shown = f"{' '.join(shown_items) or 'none'} is used"
            self.fault(section.name, option.name, told, shown, shown_items or None)
        return None

    def fault(
        self, section: str, option: str, told: Told, then: str, instead: Sequence[str] | None = ()
    ) -> None:
        """Note what is wrong, what follows, and how to mend it: by `instead` or, without, a value
        of the owner's; None where the option should go.
        """
        name = option if section == o.MAIN_NAME else f"{section}.{option}"
        words = " ".join(map(shlex.quote, instead)) if instead else "VALUE"
        mend = f"unset {name}" if instead is None else f"set {name} {words}"
        sentence = because(told[0], f"{o.CONFIG}.{section}.{option}", *told[1:])
        self.faults.append(Fault(told_with(sentence, f"; {then}"), f"wgctl uplink {mend}"))

    def usable_anchors(self) -> tuple[o.Anchor, ...]:
        """Those by which connections can be known; the first that fits one counts."""
        found = []
        for anchor in (_made(o.Anchor, values) for values in self.all(o.ANCHOR_TYPE)):
            if anchor.fault:
                self.faults.append(Fault(because(anchor.fault, f"{o.CONFIG}.{anchor.name}")))
            else:
                found.append(anchor)
        return tuple(found)

    def suited_timeout(self, settings: o.Settings) -> o.Settings:
        """The settings with a pace and a `failover_timeout` that it can keep."""
        bound_s, timeout_s = settings.detection_bound_s(), settings.failover_timeout_s
        if bound_s <= timeout_s:
            return settings
        profile = settings.probe_profile
        silent_s = bound_s - profile.interval_s - o.SWITCH_BOUND_S
        told = because(
            "pace_too_slow",
            f"{o.CONFIG}.{o.MAIN_NAME}.failover_timeout",
            *(f"{timeout_s:g}", settings.profile_name, f"{bound_s:.1f}"),
            *(f"{profile.interval_s:g}", f"{silent_s:.1f}", f"{o.SWITCH_BOUND_S:g}"),
        )
        place = (o.MAIN_TYPE, "")
        before = self._before(place)
        suited, option, text = settings, "", ""
        for option, found in (
            ("pace", before.get("pace")),
            ("failover_timeout", before.get("failover_timeout")),
            ("failover_timeout", "10"),
        ):
            row, text = o.SECTIONS[o.MAIN_TYPE].option(option), str(found)
            if row is None or found is None:
                continue
            suited = replace(settings, **{row.key: row.value((text,))})
            if suited.detection_bound_s() <= suited.failover_timeout_s:
                break
        self._mend(place, option, text)
        last = "the last good " if before.get(option) == text else ""
        then = f"{last}{option} {text} {'stays in force' if last else 'is used'}"
        mend = f"wgctl uplink set {option} {text}"
        self.faults.append(Fault(told_with(told, f"; {then}"), mend))
        return suited

    def _mend(self, place: tuple[str, str], option: str, text: Value) -> None:
        """Have an option be remembered otherwise than the file has it."""
        good = self.good[place]
        self.good[place] = replace(good, options={**good.options, option: text})

    def distinct_peers(self, peers: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
        """Mesh peers by hand, none of whom has another's address."""
        place, named = (
            (o.MAIN_TYPE, ""),
            {f"{peer_id} {at}": (peer_id, at) for peer_id, at in peers},
        )
        marks = {text: [("mesh address", address)] for text, (_, address) in named.items()}
        old = named.keys() & {*self._before(place).get("peer", ())}
        kept = self._distinct(marks, old, "peer ", keeps_first=False)
        if len(kept) < len(peers):
            self._mend(place, "peer", tuple(text for text in named if text in kept))
        return tuple(peer for text, peer in named.items() if text in kept)

    def _distinct(
        self,
        marks: Mapping[str, Iterable[tuple[str, str]]],
        old: set[str],
        prefix: str,
        *,
        keeps_first: bool,
    ) -> set[str]:
        """Who has no mark of another's: where two have one, the `old` one stays, else the first
        with `keeps_first`, else neither.
        """
        holders: dict[tuple[str, str], str] = {}
        out: set[str] = set()
        for name in sorted(marks, key=lambda name: name not in old):
            clash = next((mark for mark in marks[name] if mark in holders), None)
            if clash is not None:
                other = holders[clash]
                out |= {name} if keeps_first or other in old else {name, other}
                told = f"{prefix}{name}", f"{prefix}{other}", clash[0]
                both = because("neither_used", *told) if other in out else ""
                self.faults.append(Fault(both or because("one_unused", *told, told[0])))
            holders = {**dict.fromkeys(marks[name], name), **holders}
        return {*marks} - out


def _texts(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return value if isinstance(value, tuple) else (value,) if value else ()


def _place(section: Section) -> tuple[str, str]:
    """What tells a section from others: its name, where there can be several of its type."""
    kind = o.SECTIONS.get(section.type)
    return section.type, "" if kind is not None and kind.name else section.name


def _refusal(option: Option, shown: str, must: str) -> Told:
    if option.secret:
        return "setting_is_not", must
    return "setting_must", printable(shown[:40]), must


def _made(record: Callable[..., R], values: Mapping[str, Any]) -> R:
    names = {each.name for each in fields(record)}  # type: ignore[arg-type]
    return record(**{name: value for name, value in values.items() if name in names})


def _uplink(values: Mapping[str, Any]) -> Uplink:
    costs = (values["metered"], values["quota_gb"], values["price_per_gb"])
    cost = Cost(costs[0] or False, costs[1] or 0.0, costs[2] or 0.0)
    return _made(
        Uplink,
        {
            **values,
            "interface": values["name"],
            "endpoint": Endpoint(values["endpoint_host"], values["endpoint_port"]),
            "cost": None if costs == (None, None, None) else cost,
        },
    )
