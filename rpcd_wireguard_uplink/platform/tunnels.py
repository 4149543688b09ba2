"""Wanted state against found state, and the plan between them. Pure: no clock, no I/O.

Two levels: the sections of `network` that each uplink needs, and the devices that those sections
mean. What does not carry our mark is never in a plan. A plan that was carried out leaves an empty
one behind.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence

from ..model import (
    DEFAULT_MTU,
    DEFAULT_PORT,
    LEAST_MTU,
    MARK_OPTION,
    PEER_OPTION,
    Endpoint,
    Link,
    Tunnel,
    Uplink,
    alias_name,
    is_marked,
    mark_alias,
)
from ..reasons import because
from ..uci import Draft, Section, Value
from ..values import dataclass

NETWORK = "network"
KEEPALIVE_S = 25
OUTER_MARK_TEXT = "0x51"
HOST_NAME_OPTION = "secubox_endpoint"
ROLE_OPTION = "secubox_role"
OUTER_BYTES = 80  # an IPv6 header, UDP, and WireGuard's own 32 (its whitepaper, section 5.4.6)


LOST_NETWORK = because("network_lost", NETWORK)


@dataclass(frozen=True, slots=True)
class SectionPlan:
    """What to do in one configuration file: sections to write whole, and names to remove."""

    write: tuple[Section, ...]
    remove: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.write or self.remove)

    def apply(self, draft: Draft) -> None:
        """Carry it out; new sections go to the end."""
        for name in self.remove:
            draft.remove_section(name)
        for section in self.write:
            draft.set_section(section.name, section.type, section.options)


@dataclass(frozen=True, slots=True)
class NetworkStyle:
    """What netifd needs of a tunnel besides the uplink: its place among other interfaces.

    `zone` is the firewall's zone that it joins. With `routed` netifd gives it default routes of
    `metric`, which mwan3 needs and which must be behind every WAN's. `dns` are resolvers inside
    the tunnel, asked after those of interfaces with a lower `dns_metric`. `address` is what the
    endpoint's name was resolved to: None leaves the name, '' leaves the endpoint out. `mtu` 0 is
    what the uplink says.
    """

    zone: str = ""
    metric: int = 0
    routed: bool = False
    dns: tuple[str, ...] = ()
    dns_metric: int = 0
    address: str | None = None
    mtu: int = 0


def tunnel_mtu(offered: int, underlay: int) -> int:
    """The MTU of a tunnel in bytes: what its provider offers, if its underlay has room for that.

    `underlay` is the underlay's own MTU, 0 while it is not known.
    """
    return max(LEAST_MTU, min(offered, underlay - OUTER_BYTES) if underlay else offered)


def wanted_sections(
    uplink: Uplink, private_key: str, style: NetworkStyle | None = None
) -> tuple[Section, Section]:
    """The `network` sections of an uplink: its interface and its one peer, complete.

    The options are those that each of netifd's three handlers reads (wireguard.sh, wireguard.uc);
    a style's own are left out where it does not set them.
    """
    style = style or NetworkStyle()
    host = uplink.endpoint.host
    ours: dict[str, Value] = {MARK_OPTION: "1", PEER_OPTION: uplink.peer_id}
    interface: dict[str, Value] = {
        "proto": "wireguard",
        "private_key": private_key,
        "addresses": uplink.addresses,
        "mtu": str(style.mtu or uplink.mtu),
        "fwmark": OUTER_MARK_TEXT,
        "nohostroute": "1",
        "zone": style.zone,
        "metric": str(style.metric or ""),
        "dns": style.dns,
        "dns_metric": str(style.dns_metric or ""),
        **ours,
    }
    peer: dict[str, Value] = {
        "public_key": uplink.public_key,
        "endpoint_host": host if style.address is None else style.address,
        "endpoint_port": str(uplink.endpoint.port),
        "allowed_ips": ("0.0.0.0/0", "::/0"),
        "route_allowed_ips": "1" if style.routed else "0",
        "persistent_keepalive": str(KEEPALIVE_S),
        HOST_NAME_OPTION: "" if style.address in (None, host) else host,
        **ours,
    }
    name = uplink.interface
    return (
        Section("interface", name, False, {k: v for k, v in interface.items() if v}),
        Section(f"wireguard_{name}", f"{name}_peer", False, {k: v for k, v in peer.items() if v}),
    )


def alias_section(uplink: Uplink) -> Section:
    """The `network` section that mwan3 needs for a tunnel's IPv6: netifd must know its name."""
    options = {"proto": "none", "device": f"@{uplink.interface}"}
    ours = {MARK_OPTION: "1", PEER_OPTION: uplink.peer_id}
    return Section("interface", alias_name(uplink.interface), False, options | ours)


def peer_address(found: Section | None, endpoint: Endpoint) -> str | None:
    """The address that a peer's section holds for an endpoint's name; None where it has none.

    What was written once stays: a name that moves is followed at run time, without a write.
    """
    if found is None or found.text(HOST_NAME_OPTION) != endpoint.host:
        return None
    return found.text("endpoint_host")


def has_interfaces(found: Iterable[Section]) -> bool:
    """Whether a router's `network` is whole, as far as one can see: it has interfaces not ours."""
    return any(s.type == "interface" and not is_marked(s.options) for s in found)


def plan_sections(
    wanted: Iterable[Section], found: Iterable[Section], role: str = ""
) -> SectionPlan:
    """What turns the marked sections of a role among `found` into `wanted`.

    What belongs to an uplink has no role; sections of another role are left alone. So is a wanted
    name that an unmarked section holds: it is not ours to change.
    """
    by_name = {section.name: section for section in found}
    wanted_by_name = {section.name: section for section in wanted}
    ours = {
        name
        for name, section in by_name.items()
        if is_marked(section.options) and section.options.get(ROLE_OPTION, "") == role
    }
    write = tuple(
        section
        for name, section in wanted_by_name.items()
        if name not in by_name
        or (
            name in ours
            and (by_name[name].type, dict(by_name[name].options))
            != (section.type, dict(section.options))
        )
    )
    remove = tuple(name for name in by_name if name in ours and name not in wanted_by_name)
    return SectionPlan(write, remove)


def tunnels_of(sections: Iterable[Section]) -> list[Tunnel]:
    """The tunnels that the marked sections of `network` mean; incomplete ones are left out."""
    marked = {s.name: s for s in sections if is_marked(s.options)}
    tunnels = []
    for name, section in marked.items():
        peer = marked.get(f"{name}_peer")
        if section.options.get("proto") != "wireguard" or peer is None:
            continue
        if section.text("disabled") == "1":
            continue
        tunnels.append(
            Tunnel(
                interface=name,
                peer_id=section.text(PEER_OPTION),
                private_key=section.text("private_key"),
                addresses=words_of(section, "addresses"),
                public_key=peer.text("public_key"),
                endpoint=Endpoint(
                    peer.text(HOST_NAME_OPTION) or peer.text("endpoint_host"),
                    _number(peer, "endpoint_port", DEFAULT_PORT),
                ),
                mtu=_number(section, "mtu", DEFAULT_MTU),
                keepalive_s=_number(peer, "persistent_keepalive", KEEPALIVE_S),
                metric=whole_number(section.text("metric")),
            )
        )
    return tunnels


def whole_number(value: object) -> int:
    """An option's whole number; 0 where there is none."""
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 11 else 0


def _number(section: Section, option: str, default: int) -> int:
    """A number of up to 16 bits; the default for whatever else somebody wrote there."""
    text = section.text(option)
    is_number = text.isascii() and text.isdigit() and len(text) < 6
    return int(text) if is_number and 0 < int(text) < 65536 else default


def words_of(section: Section, option: str) -> tuple[str, ...]:
    """The values of a list, or the words of a plain option."""
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

    `applied` is what this process has set up already and need not do again. A device under a
    wanted name without our mark is refused, and one without our mark is never deleted.
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
    delete = marked_others(links, {tunnel.interface for tunnel in wanted})
    return DevicePlan(tuple(create), tuple(update), tuple(delete), refused)


def marked_others(links: Iterable[Link], wanted: Container[str]) -> list[str]:
    """Devices with our mark that no tunnel means any more."""
    mark = f"{MARK_OPTION}:"
    return [link.name for link in links if link.alias.startswith(mark) and link.name not in wanted]
