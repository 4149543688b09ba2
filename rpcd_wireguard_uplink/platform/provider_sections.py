"""What a provider needs in `network` and `firewall` of a router. Pure: sections in, sections out.

fw4 rejects whatever no zone of its own lets through, and an accept in another nft table does not
change that: these sections are what it is told. They let consumers out by the lines and to nothing
of the router but an echo and the renewal of leases; DNS needs no rule, because fw4 sees it on its
way to a resolver behind a line. What is narrower than zones, our own table keeps. Knows nothing of
files, reloads or the device's making.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from ..errors import ConfigError
from ..model import MARK_OPTION, PROVIDER_DEVICE, is_marked
from ..uci import Section, Value
from .netifd import wan_zone
from .tunnels import NETWORK, ROLE_OPTION, SectionPlan, plan_sections

PROVIDER_ROLE = "provider"
ZONE = "wgup"
FORWARDING = "forwarding"


def network_section(gateways: Iterable[str]) -> Section:
    """netifd's part: a device that it did not make gets these addresses (with prefix lengths)."""
    addresses = tuple(gateways)
    options: dict[str, Value] = {
        "proto": "static",
        "device": PROVIDER_DEVICE,
        "ipaddr": tuple(a for a in addresses if ":" not in a),
        "ip6addr": tuple(a for a in addresses if ":" in a),
        MARK_OPTION: "1",
        ROLE_OPTION: PROVIDER_ROLE,
    }
    return _section("interface", PROVIDER_DEVICE, options)


def line_zones(firewall: Sequence[Section], lines: Iterable[Collection[str]]) -> tuple[str, ...]:
    """The zones that consumers leave by; none where the firewall has no zone for a line.

    `lines` are netifd's names of each line's interfaces. A zone that we forward to already stays
    while it is there: a line that is down for a moment is not worth a write to flash.
    """
    theirs = [section for section in firewall if not is_marked(section.options)]
    names = {str(s.options.get("name", "")) for s in theirs if s.type == "zone"}
    found = {wan_zone(theirs, interfaces) for interfaces in lines}
    for section in firewall:
        if section.type == FORWARDING and is_marked(section.options):
            found.add(str(section.options.get("dest", "")))
    return tuple(sorted(found & names)) or tuple(filter(None, [wan_zone(theirs, ())]))


def firewall_sections(
    zones: Iterable[str], listen_port: int, mesh_devices: Iterable[str], renewal_port: int
) -> tuple[Section, ...]:
    """Our zone, its ways out to these zones, and what is accepted from whom.

    The zone names its device: of a `network` that netifd does not know yet fw4 makes a zone that
    matches nothing (fw4.uc, parse_zone). WireGuard's port is open everywhere,
    because a consumer comes over a line or over a neighbour link of any zone, and nobody without
    a key gets an answer there. `mesh_devices` get the renewal port whatever zone they are in.
    """
    renewal = {"proto": "tcp", "dest_port": str(renewal_port)}
    ping = {"src": ZONE, "proto": "icmp", "icmp_type": "echo-request"}
    listen = {"src": "*", "proto": "udp", "dest_port": str(listen_port)}
    sections = [_section("zone", f"{ZONE}_zone", _ours(_zone_options()))]
    for number, zone in enumerate(zones, 1):
        sections.append(
            _section(FORWARDING, f"{ZONE}_forward{number}", _ours({"src": ZONE, "dest": zone}))
        )
    sections.append(_accept("ping", "Allow-Uplink-Ping", ping))
    sections.append(_accept("renew", "Allow-Uplink-Renewal", {"src": ZONE, **renewal}))
    sections.append(_accept("listen", "Allow-Uplink-WireGuard", listen))
    for number, device in enumerate(sorted(mesh_devices), 1):
        options = {"src": "*", "device": device, **renewal}
        sections.append(_accept(f"mesh{number}", f"Allow-Uplink-Mesh-{device}", options))
    return tuple(sections)


def plan_provider(config: str, wanted: Iterable[Section], found: Sequence[Section]) -> SectionPlan:
    """What makes the provider's sections of a configuration the wanted ones.

    Raises ConfigError where a section that is not ours has a name that is needed.
    """
    wanted = tuple(wanted)
    theirs = {section.name for section in found if not is_marked(section.options)}
    for section in wanted:
        if section.name in theirs:
            raise ConfigError(
                f"{config}: a section {section.name} that is not ours is there: rename or remove it"
            )
    return plan_sections(wanted, found, _role(config))


def provider_sections(config: str, found: Iterable[Section]) -> tuple[Section, ...]:
    """Those of a configuration's sections that are the provider's."""
    role = _role(config)
    return tuple(
        s for s in found if is_marked(s.options) and s.options.get(ROLE_OPTION, "") == role
    )


def _role(config: str) -> str:
    # All that is ours in `firewall` is the provider's; fw4 warns of each option it does not know.
    return PROVIDER_ROLE if config == NETWORK else ""


def _zone_options() -> dict[str, Value]:
    return {
        "name": ZONE,
        "device": (PROVIDER_DEVICE,),
        "input": "REJECT",
        "output": "ACCEPT",
        "forward": "REJECT",
    }


def _accept(name: str, title: str, options: dict[str, str]) -> Section:
    return _section("rule", f"{ZONE}_{name}", _ours({"name": title, **options, "target": "ACCEPT"}))


def _ours(options: dict[str, str] | dict[str, Value]) -> dict[str, Value]:
    return {**options, MARK_OPTION: "1"}


def _section(section_type: str, name: str, options: dict[str, Value]) -> Section:
    return Section(section_type, name, False, {key: v for key, v in options.items() if v})
