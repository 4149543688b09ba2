"""What netifd, procd and the firewall's configuration say, as typed values. Pure: no bus, no files.

netifd's tables are those of `network.interface dump` and of its notifications, which carry one
interface's status each (netifd's ubus.c, netifd_dump_status). procd's is that of `service list`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..uci import Section


@dataclass(frozen=True, slots=True)
class Interface:
    """One interface of netifd. `device` is '' while it is down, `error` why it does not come up.

    `metrics` are those of its default routes.
    """

    name: str
    up: bool = False
    device: str = ""
    addresses: frozenset[str] = frozenset()
    metrics: frozenset[int] = frozenset()
    stopped: bool = False
    protocol: str = ""
    error: str = ""

    def why_down(self) -> str:
        """A sentence for the owner."""
        if self.stopped:
            return f"it was taken down: `ifup {self.name}` brings it back"
        reason = self.error or "no reason was given"
        return (
            f"netifd does not bring it up ({reason}): are wireguard-tools and kmod-wireguard "
            "installed? `logread -e netifd` tells more"
        )


def parse_interface(row: Mapping[str, Any]) -> Interface:
    """One interface's status; what is missing or of another type counts as not there."""
    addresses = [
        f"{each['address']}/{each['mask']}"
        for key in ("ipv4-address", "ipv6-address")
        for each in _rows(row, key)
        if "address" in each and "mask" in each
    ]
    own_metric = row.get("metric", 0)
    metrics = [
        each.get("metric", own_metric) for each in _rows(row, "route") if each.get("mask") == 0
    ]
    errors = [str(each.get("code", "")) for each in _rows(row, "errors")]
    return Interface(
        name=str(row.get("interface", "")),
        up=row.get("up") is True,
        device=str(row.get("l3_device", "")),
        addresses=frozenset(addresses),
        metrics=frozenset(metric for metric in metrics if isinstance(metric, int)),
        stopped=row.get("autostart") is False,
        protocol=str(row.get("proto", "")),
        error=", ".join(filter(None, errors)),
    )


def parse_dump(reply: Mapping[str, Any]) -> dict[str, Interface]:
    """The reply of `network.interface dump`, by name."""
    interfaces = [parse_interface(row) for row in _rows(reply, "interface")]
    return {interface.name: interface for interface in interfaces if interface.name}


def running_instances(reply: Mapping[str, Any], service: str) -> list[str]:
    """The names of a service's running instances in procd's reply of `service list`."""
    listed = reply.get(service)
    instances = listed.get("instances") if isinstance(listed, Mapping) else None
    rows = instances.items() if isinstance(instances, Mapping) else ()
    return [name for name, row in rows if isinstance(row, Mapping) and row.get("running") is True]


def _rows(table: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    rows = table.get(key)
    return [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []


def wan_zone(firewall: Iterable[Section], interfaces: Collection[str]) -> str:
    """The name of the firewall's zone that holds one of these interfaces.

    Where none does (the line is down and has no interface now), the first zone that masquerades;
    '' where there is none either.
    """
    zones = [section for section in firewall if section.type == "zone"]
    for zone in zones:
        networks = zone.options.get("network", ())
        listed = networks.split() if isinstance(networks, str) else networks
        if any(name in interfaces for name in listed):
            return _name(zone)
    return next((_name(zone) for zone in zones if zone.options.get("masq") == "1"), "")


def _name(zone: Section) -> str:
    name = zone.options.get("name", "")
    return name if isinstance(name, str) else ""
