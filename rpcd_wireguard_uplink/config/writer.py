"""Settings to sections, by the table: only what differs is written, all other lines stay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from ..model import Uplink
from ..uci import Draft, Section, Value
from . import options as o
from .settings import Config


def sections_of(config: Config) -> dict[str, Section]:
    """The sections that the service writes, by name, with the options that are not as by default.

    The broker's is not among them: only its owner writes it.
    """
    main = {**_fields(config.settings), **_fields(config.peering)}
    found = [_section(o.MAIN_TYPE, o.MAIN_NAME, main), section_of(config.provider)]
    found += [section_of(uplink) for uplink in config.uplinks]
    found += [section_of(consumer) for consumer in config.consumers]
    found += [section_of(pin) for pin in config.pins]
    return {section.name: section for section in found}


def section_of(record: Uplink | o.ProviderSettings | o.Consumer | o.Pin) -> Section:
    values = _fields(record)
    if isinstance(record, o.ProviderSettings):
        return _section(o.PROVIDER_TYPE, o.PROVIDER_NAME, values)
    if isinstance(record, o.Consumer):
        return _section(o.CONSUMER_TYPE, record.name, values)
    if isinstance(record, o.Pin):
        return _section(o.PIN_TYPE, record.name, values)
    values |= {"endpoint_host": record.endpoint.host, "endpoint_port": record.endpoint.port}
    values |= dict.fromkeys(("metered", "quota_gb", "price_per_gb"))
    if record.cost is not None:
        values["metered"] = record.cost.metered
        values["quota_gb"] = record.cost.quota_gb or None
        values["price_per_gb"] = record.cost.price_per_gb or None
    return _section(o.UPLINK_TYPE, record.interface, values)


def _fields(record: Any) -> dict[str, Any]:
    return {each.name: getattr(record, each.name) for each in fields(record)}


def _section(section_type: str, name: str, values: Mapping[str, Any]) -> Section:
    options = {
        option.name: option.text(values[option.key])
        for option in o.SECTIONS[section_type].options
        if option.key in values and (option.is_always or values[option.key] != option.default)
    }
    return Section(section_type, name, False, options)


def write_config(draft: Draft, before: Config, after: Config) -> None:
    """Have the file say what differs between the two; every other line of it stays."""
    old, new = sections_of(before), sections_of(after)
    for name in old.keys() - new.keys():
        draft.remove_section(name)
    for name, section in new.items():
        was = old.get(name)
        if was == section:
            continue
        place = name
        if section.type == o.MAIN_TYPE:
            place = next((one.name for one in draft.of_type(o.MAIN_TYPE)[-1:]), name)
        if was is None or draft.get(place) is None:
            draft.set_section(place, section.type, section.options)
            continue
        for option in {**was.options, **section.options}:
            if was.options.get(option) != section.options.get(option):
                _write_option(draft, place, option, section.options.get(option))


def _write_option(draft: Draft, section: str, option: str, value: Value | None) -> None:
    """Set an option; a list keeps the lines of the items that stay."""
    found = draft.get(section)
    there = found.options.get(option) if found is not None else None
    if not isinstance(value, tuple) or not isinstance(there, tuple):
        draft.set_option(section, option, value)
        return
    for item in there:
        if item not in value:
            draft.del_list(section, option, item)
    for item in value:
        if item not in there:
            draft.add_list(section, option, item)
