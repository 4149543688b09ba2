"""Wanted state against found state, and the plan between them. Pure: no clock, no I/O.

Two levels: the sections of `network` that each uplink needs, and the devices that those sections
mean. What does not carry our mark is never in a plan. A plan that was carried out leaves an empty
one behind.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .model import (
    DEFAULT_MTU,
    MARK_OPTION,
    PEER_OPTION,
    Endpoint,
    Link,
    Tunnel,
    Uplink,
    is_marked,
    mark_alias,
)
from .uci import Section

NETWORK = "network"
KEEPALIVE_S = 25
OUTER_MARK_TEXT = "0x51"


@dataclass(frozen=True, slots=True)
class SectionPlan:
    """What to do in one configuration file: sections to write whole, and names to remove."""

    write: tuple[Section, ...]
    remove: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.write or self.remove)


def wanted_sections(uplink: Uplink, private_key: str) -> tuple[Section, Section]:
    """The `network` sections of an uplink: its interface and its one peer, complete.

    The endpoint stays what the owner gave, a name too; who brings the tunnel up resolves it.
    """
    interface = Section(
        type="interface",
        name=uplink.interface,
        anonymous=False,
        options={
            "proto": "wireguard",
            "private_key": private_key,
            "addresses": uplink.addresses,
            "mtu": str(DEFAULT_MTU),
            "fwmark": OUTER_MARK_TEXT,
            "nohostroute": "1",
            MARK_OPTION: "1",
            PEER_OPTION: uplink.peer_id,
        },
    )
    peer = Section(
        type=f"wireguard_{uplink.interface}",
        name=f"{uplink.interface}_peer",
        anonymous=False,
        options={
            "public_key": uplink.public_key,
            "endpoint_host": uplink.endpoint.host,
            "endpoint_port": str(uplink.endpoint.port),
            "allowed_ips": ("0.0.0.0/0", "::/0"),
            "route_allowed_ips": "0",
            "persistent_keepalive": str(KEEPALIVE_S),
            MARK_OPTION: "1",
            PEER_OPTION: uplink.peer_id,
        },
    )
    return interface, peer


def plan_sections(wanted: Iterable[Section], found: Iterable[Section]) -> SectionPlan:
    """What turns the marked sections among `found` into `wanted`.

    A wanted name that an unmarked section holds is left out: it is not ours to change.
    """
    by_name = {section.name: section for section in found}
    wanted_by_name = {section.name: section for section in wanted}
    write = tuple(
        section
        for name, section in wanted_by_name.items()
        if name not in by_name
        or (
            is_marked(by_name[name].options)
            and (by_name[name].type, dict(by_name[name].options))
            != (section.type, dict(section.options))
        )
    )
    remove = tuple(
        name
        for name, section in by_name.items()
        if is_marked(section.options) and name not in wanted_by_name
    )
    return SectionPlan(write, remove)


def tunnels_of(sections: Iterable[Section]) -> list[Tunnel]:
    """The tunnels that the marked sections of `network` mean; incomplete ones are left out."""
    marked = {s.name: s for s in sections if is_marked(s.options)}
    tunnels = []
    for name, section in marked.items():
        peer = marked.get(f"{name}_peer")
        if section.options.get("proto") != "wireguard" or peer is None:
            continue
        if _text(section, "disabled") == "1":
            continue
        tunnels.append(
            Tunnel(
                interface=name,
                peer_id=_text(section, PEER_OPTION),
                private_key=_text(section, "private_key"),
                addresses=_words(section, "addresses"),
                public_key=_text(peer, "public_key"),
                endpoint=Endpoint(
                    _text(peer, "endpoint_host"), int(_text(peer, "endpoint_port") or 51820)
                ),
                mtu=int(_text(section, "mtu") or DEFAULT_MTU),
                keepalive_s=int(_text(peer, "persistent_keepalive") or KEEPALIVE_S),
            )
        )
    return tunnels


def _text(section: Section, option: str) -> str:
    value = section.options.get(option, "")
    return value if isinstance(value, str) else " ".join(value)


def _words(section: Section, option: str) -> tuple[str, ...]:
    value = section.options.get(option, ())
    return tuple(value.split()) if isinstance(value, str) else value


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """What to do with devices. `refused` maps an interface to why it can't be made."""

    create: tuple[Tunnel, ...]
    update: tuple[Tunnel, ...]
    delete: tuple[str, ...]
    refused: Mapping[str, str]


def plan_devices(
    wanted: Iterable[Tunnel], links: Sequence[Link], applied: Mapping[str, Tunnel]
) -> DevicePlan:
    """What turns the kernel's devices into the wanted tunnels.

    `applied` is what this process has set up already and need not do again. A device that stands
    under a wanted name without our mark is refused, and one without our mark is never deleted.
    """
    by_name = {link.name: link for link in links}
    wanted = list(wanted)
    create, update, refused = [], [], {}
    for tunnel in wanted:
        link = by_name.get(tunnel.interface)
        if link is None:
            create.append(tunnel)
        elif link.alias != mark_alias(tunnel.peer_id):
            refused[tunnel.interface] = (
                f"a device {tunnel.interface} that is not ours is there: rename or remove it"
            )
        elif applied.get(tunnel.interface) != tunnel:
            update.append(tunnel)
    names = {tunnel.interface for tunnel in wanted}
    delete = tuple(
        link.name
        for link in links
        if link.alias.startswith(f"{MARK_OPTION}:") and link.name not in names
    )
    return DevicePlan(tuple(create), tuple(update), delete, refused)
